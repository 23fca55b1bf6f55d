// Package faults has a test for each way in which real gates failed real
// clusters, named after its row in docs/failures.md. Each runs the real daemon
// with the token of its own ServiceAccount against a real API server, and looks
// at the gated sentinel as kured does.
package faults

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sentinel-gate/sentinel-gate/gate/record"
	"github.com/sentinel-gate/sentinel-gate/test/kit/cluster"
	"github.com/sentinel-gate/sentinel-gate/test/kit/controlplane"
	"github.com/sentinel-gate/sentinel-gate/test/kit/daemon"
	"github.com/sentinel-gate/sentinel-gate/test/kit/suite"
)

const (
	namespace = cluster.Namespace
	deadline  = 3 * time.Minute
)

// running is what all tests share: a control plane, and the daemon with the race detector in it.
type running struct {
	cp         *controlplane.ControlPlane
	binary     string
	kubeconfig string // of the ServiceAccount that is shipped, and nothing more
}

var shared = &suite.Shared[*running]{Make: func(ctx context.Context, s *suite.Setup) (*running, error) {
	var r running
	dir, err := s.TempDir()
	if err != nil {
		return nil, err
	}
	if r.binary, err = daemon.Binary(ctx, dir, true); err != nil {
		return nil, err
	}
	r.cp, err = controlplane.Started(ctx, s, controlplane.Options{Progress: os.Stderr, Audit: true}, func(ctx context.Context, cp *controlplane.ControlPlane) (err error) {
		r.kubeconfig, err = cluster.Authorize(ctx, cp)
		return err
	})
	return &r, err
}}

func TestMain(m *testing.M) { suite.Main(m, shared) }

// scene is a healthy cluster of five nodes with Calico, on the first of which
// the daemon will run.
type scene struct {
	*running
	*cluster.Cluster
	t    *testing.T
	host *daemon.Host
}

func newScene(t *testing.T) *scene {
	t.Helper()
	s := &scene{running: shared.Get(t), t: t}
	t.Cleanup(func() { s.must((&cluster.Cluster{CP: s.cp}).Clear(context.Background())) })
	var err error
	s.Cluster, err = cluster.New(s.ctx(), s.cp, 5)
	s.must(err)
	dir, err := os.MkdirTemp("", "sentinel-gate-host-")
	s.must(err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	s.must(os.Chmod(dir, 0o755))
	s.host, err = daemon.NewHost(dir, s.Nodes[0].BootID(), cluster.BootedAgo)
	s.must(err)
	return s
}

// ctx is the test's. What waits has a deadline besides.
func (s *scene) ctx() context.Context { return s.t.Context() }

func (s *scene) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// record writes the record that the node's gate would have.
func (s *scene) record(n *controlplane.Node, bootedAt time.Time) {
	s.t.Helper()
	s.must(s.Record(s.ctx(), n, bootedAt))
}

// readRecord returns the record of a node.
func (s *scene) readRecord(node string) record.Record {
	s.t.Helper()
	lease, err := s.cp.Client().CoordinationV1().Leases(namespace).Get(s.ctx(), node, metav1.GetOptions{})
	s.must(err)
	r, err := record.Parse(lease)
	s.must(err)
	return r
}

// The mission's pipeline, with the alerts left to the tests that have a
// Prometheus.
const pipeline = `
- {name: nodes, type: nodesReady}
- {name: cni, type: podsReady, options: {preset: calico}}
- {name: soak, type: readySoak, options: {duration: 24h}}
`

// quick makes the daemon decide in seconds what takes minutes.
const quick = "interval: 400ms\nmaxAge: 3s\ntimeout: 1s\nstabilize: 500ms"

// alone keeps the daemon out of the turn, which could not be read either.
func alone(o *daemon.Options) { o.Settings += "\nturn: {enabled: false}" }

// start starts the daemon of the first node.
func (s *scene) start(change ...func(*daemon.Options)) *daemon.Daemon {
	s.t.Helper()
	o := s.options(change...)
	d, err := daemon.Start(s.t.Context(), o)
	s.must(err)
	s.t.Cleanup(func() {
		_ = d.Signal(9)
		ctx, cancel := context.WithTimeout(context.Background(), deadline)
		defer cancel()
		_, _ = d.Wait(ctx)
		if s.t.Failed() {
			s.t.Logf("decision log:\n%s", d.Log())
		}
	})
	return d
}

func (s *scene) options(change ...func(*daemon.Options)) daemon.Options {
	o := daemon.Options{
		Binary: s.binary, Host: s.host, Node: s.Nodes[0].Name, Namespace: namespace, Kubeconfig: s.kubeconfig,
		Checks: pipeline, Settings: quick,
	}
	for _, c := range change {
		c(&o)
	}
	return o
}

func (s *scene) await(d *daemon.Daemon, from int, what string, wanted func(daemon.Line) bool) daemon.Line {
	s.t.Helper()
	l, err := d.Await(suite.Context(s.t, deadline), from, what, wanted)
	s.must(err)
	return l
}

func (s *scene) poll(what string, f func() bool) {
	s.t.Helper()
	if err := controlplane.Poll(suite.Context(s.t, deadline), func() error {
		if !f() {
			return fmt.Errorf("not yet: %s", what)
		}
		return nil
	}); err != nil {
		s.t.Fatal(err)
	}
}

// open awaits the open gate, as the log tells it and as kured sees it.
func (s *scene) open(d *daemon.Daemon, from int) {
	s.t.Helper()
	s.await(d, from, "an open gate", func(l daemon.Line) bool { return l.State == "Open" && l.Previous != "" && len(l.Steps) > 0 })
	if !s.host.Resolves() {
		s.t.Fatalf("the log says open, and the gated sentinel does not resolve\n%s", d.Log())
	}
}

// closedBy awaits a closed gate and the step that holds it.
func (s *scene) closedBy(d *daemon.Daemon, from int, step, verdict, reason string) daemon.Step {
	s.t.Helper()
	l := s.await(d, from, fmt.Sprintf("a gate closed by %s: %s %s", step, verdict, reason), func(l daemon.Line) bool {
		s := l.Step(step)
		return l.State == "Closed" && s.Verdict == verdict && s.Reason == reason
	})
	if s.host.Resolves() {
		s.t.Fatalf("the log says closed, and the gated sentinel resolves\n%s", d.Log())
	}
	return l.Step(step)
}

// evaluated awaits two more evaluations that passed.
func (s *scene) evaluated(d *daemon.Daemon) {
	s.t.Helper()
	count := func() float64 { return s.metric(d, `sentinel_gate_evaluations_total{result="Pass"}`) }
	before := count()
	s.poll("two more passing evaluations", func() bool { return count() >= before+2 })
}

// metric reads one sample from the daemon, and -1 where there is none.
func (s *scene) metric(d *daemon.Daemon, name string) float64 {
	s.t.Helper()
	status, body, err := d.Get(s.ctx(), "/metrics")
	s.must(err)
	if status != http.StatusOK {
		s.t.Fatalf("/metrics answered %d", status)
	}
	for line := range strings.Lines(body) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			f, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			s.must(err)
			return f
		}
	}
	return -1
}

// neverOpens watches the gated sentinel, some thousand times a second, until stopped.
func (s *scene) neverOpens() (stop func()) {
	var opened atomic.Bool
	ctx, cancel := context.WithCancel(s.ctx())
	done := make(chan struct{})
	go func() {
		defer close(done)
		// A processor that does nothing but look would be missed by what is looked at.
		tick := time.NewTicker(100 * time.Microsecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			if s.host.Resolves() {
				opened.Store(true)
				return
			}
			<-tick.C
		}
	}()
	return func() {
		s.t.Helper()
		cancel()
		<-done
		if opened.Load() {
			s.t.Error("the gated sentinel resolved, if only for a moment")
		}
	}
}

func setPod(s *scene, name string, change func(*corev1.PodStatus)) {
	s.t.Helper()
	_, err := s.cp.SetPodStatus(s.ctx(), cluster.CNINamespace, name, change)
	s.must(err)
}
