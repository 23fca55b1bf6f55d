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
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sentinel-gate/sentinel-gate/gate/record"
	"github.com/sentinel-gate/sentinel-gate/test/build"
	"github.com/sentinel-gate/sentinel-gate/test/controlplane"
	"github.com/sentinel-gate/sentinel-gate/test/daemon"
)

const (
	namespace = "sentinel-gate"
	deadline  = 60 * time.Second
	// bootedAgo is how long ago every node booted: longer than any soak here.
	bootedAgo = 50 * time.Hour
)

var (
	cp         *controlplane.ControlPlane
	binary     string
	kubeconfig string // of the ServiceAccount that is shipped, and nothing more
)

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "sentinel-gate-faults-")
	if err == nil {
		defer os.RemoveAll(dir)
		err = setUp(context.Background(), dir)
	}
	if cp != nil {
		defer cp.Stop()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

func setUp(ctx context.Context, dir string) (err error) {
	if err = os.Chmod(dir, 0o755); err != nil { // the daemon may run as another user
		return err
	}
	if binary, err = daemon.Binary(ctx, dir, true); err != nil {
		return err
	}
	if cp, err = controlplane.Start(ctx, controlplane.Options{Progress: os.Stderr, Audit: true}); err != nil {
		return err
	}
	if err = cp.Namespace(ctx, namespace); err != nil {
		return err
	}
	if err = applyRBAC(ctx); err != nil {
		return err
	}
	kubeconfig, err = cp.ServiceAccountKubeconfig(ctx, namespace, "sentinel-gate")
	return err
}

func applyRBAC(ctx context.Context) error {
	root, err := build.Root()
	if err != nil {
		return err
	}
	rbac, err := os.ReadFile(filepath.Join(root, "deploy/rbac.yaml"))
	if err != nil {
		return err
	}
	return cp.Apply(ctx, rbac)
}

// world is a healthy cluster of five nodes with Calico, on the first of which
// the daemon will run.
type world struct {
	t     *testing.T
	ctx   context.Context //nolint:containedctx // the test's
	host  *daemon.Host
	nodes []*controlplane.Node
	cni   *appsv1.DaemonSet
}

func newWorld(t *testing.T) *world {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	t.Cleanup(cancel)
	w := &world{t: t, ctx: ctx}
	t.Cleanup(w.clear)
	for i := range 5 {
		w.addNode(fmt.Sprintf("n%d", i+1))
	}
	var err error
	w.cni, err = cp.AddDaemonSet(ctx, "kube-system", "calico-node", cniLabels)
	w.must(err)
	for _, n := range w.nodes {
		w.addCNI(n.Name)
	}
	w.must(cp.SetDaemonSetStatus(ctx, "kube-system", "calico-node", func(s *appsv1.DaemonSetStatus) {
		s.DesiredNumberScheduled, s.CurrentNumberScheduled, s.NumberReady = 5, 5, 5
	}))
	dir, err := os.MkdirTemp("", "sentinel-gate-host-")
	w.must(err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	w.must(os.Chmod(dir, 0o755))
	w.host, err = daemon.NewHost(dir, w.nodes[0].BootID(), bootedAgo)
	w.must(err)
	return w
}

var cniLabels = map[string]string{"k8s-app": "calico-node"}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// addNode adds a node that has long been Ready, with the record that its gate
// wrote.
func (w *world) addNode(name string) *controlplane.Node {
	w.t.Helper()
	n, err := cp.AddNode(w.ctx, name, controlplane.ReadySince(time.Now().Add(-bootedAgo)))
	w.must(err)
	w.nodes = append(w.nodes, n)
	if len(w.nodes) > 1 {
		w.putRecord(n.Name, n.BootID(), time.Now().Add(-bootedAgo))
	}
	return n
}

func (w *world) addCNI(node string) {
	w.t.Helper()
	_, err := cp.AddPod(w.ctx, "kube-system", "calico-node-"+node, node, cniLabels, w.cni)
	w.must(err)
}

// putRecord writes a record as the gate of that node would have.
func (w *world) putRecord(node, bootID string, bootedAt time.Time) {
	w.t.Helper()
	leases := cp.Client().CoordinationV1().Leases(namespace)
	lease, err := leases.Get(w.ctx, node, metav1.GetOptions{})
	missing := apierrors.IsNotFound(err)
	if missing {
		lease = &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{
			Name: node, Labels: map[string]string{record.Label: "true"}, Annotations: map[string]string{},
		}}
	} else {
		w.must(err)
	}
	lease.Annotations["sentinel-gate.io/boot-id"] = bootID
	lease.Annotations["sentinel-gate.io/booted-at"] = bootedAt.UTC().Format(time.RFC3339)
	if missing {
		_, err = leases.Create(w.ctx, lease, metav1.CreateOptions{})
	} else {
		_, err = leases.Update(w.ctx, lease, metav1.UpdateOptions{})
	}
	w.must(err)
}

// readRecord returns the record of a node.
func (w *world) readRecord(node string) record.Record {
	w.t.Helper()
	lease, err := cp.Client().CoordinationV1().Leases(namespace).Get(w.ctx, node, metav1.GetOptions{})
	w.must(err)
	r, err := record.Parse(lease)
	w.must(err)
	return r
}

func (w *world) clear() {
	ctx := context.Background()
	client, now := cp.Client(), *metav1.NewDeleteOptions(0)
	for _, err := range []error{
		client.CoreV1().Nodes().DeleteCollection(ctx, now, metav1.ListOptions{}),
		client.CoreV1().Pods("kube-system").DeleteCollection(ctx, now, metav1.ListOptions{}),
		client.AppsV1().DaemonSets("kube-system").DeleteCollection(ctx, now, metav1.ListOptions{}),
		client.CoordinationV1().Leases(namespace).DeleteCollection(ctx, now, metav1.ListOptions{}),
	} {
		if err != nil {
			w.t.Error(err)
		}
	}
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

// start starts the daemon of the first node.
func (w *world) start(change ...func(*daemon.Options)) *daemon.Daemon {
	w.t.Helper()
	o := w.options(change...)
	d, err := daemon.Start(w.t.Context(), o)
	w.must(err)
	w.t.Cleanup(func() {
		_ = d.Signal(9)
		ctx, cancel := context.WithTimeout(context.Background(), deadline)
		defer cancel()
		_, _ = d.Wait(ctx)
		if w.t.Failed() {
			w.t.Logf("decision log:\n%s", d.Log())
		}
	})
	return d
}

func (w *world) options(change ...func(*daemon.Options)) daemon.Options {
	o := daemon.Options{
		Binary: binary, Host: w.host, Node: w.nodes[0].Name, Namespace: namespace, Kubeconfig: kubeconfig,
		Checks: pipeline, Settings: quick,
	}
	for _, c := range change {
		c(&o)
	}
	return o
}

func (w *world) await(d *daemon.Daemon, from int, what string, wanted func(daemon.Line) bool) daemon.Line {
	w.t.Helper()
	l, err := d.Await(w.ctx, from, what, wanted)
	w.must(err)
	return l
}

func (w *world) poll(what string, f func() bool) {
	w.t.Helper()
	if err := controlplane.Poll(w.ctx, func() error {
		if !f() {
			return fmt.Errorf("not yet: %s", what)
		}
		return nil
	}); err != nil {
		w.t.Fatal(err)
	}
}

// open awaits the open gate, as the log tells it and as kured sees it.
func (w *world) open(d *daemon.Daemon, from int) {
	w.t.Helper()
	w.await(d, from, "an open gate", func(l daemon.Line) bool { return l.State == "Open" && l.Previous != "" && len(l.Steps) > 0 })
	if !w.host.Resolves() {
		w.t.Fatalf("the log says open, and the gated sentinel does not resolve\n%s", d.Log())
	}
}

// closedBy awaits a closed gate and the step that holds it.
func (w *world) closedBy(d *daemon.Daemon, from int, step, verdict, reason string) daemon.Step {
	w.t.Helper()
	l := w.await(d, from, fmt.Sprintf("a gate closed by %s: %s %s", step, verdict, reason), func(l daemon.Line) bool {
		s := l.Step(step)
		return l.State == "Closed" && s.Verdict == verdict && s.Reason == reason
	})
	if w.host.Resolves() {
		w.t.Fatalf("the log says closed, and the gated sentinel resolves\n%s", d.Log())
	}
	return l.Step(step)
}

// evaluated awaits two more evaluations that passed.
func (w *world) evaluated(d *daemon.Daemon) {
	w.t.Helper()
	count := func() float64 { return w.metric(d, `sentinel_gate_evaluations_total{result="Pass"}`) }
	before := count()
	w.poll("two more passing evaluations", func() bool { return count() >= before+2 })
}

// metric reads one sample from the daemon, and -1 where there is none.
func (w *world) metric(d *daemon.Daemon, name string) float64 {
	w.t.Helper()
	status, body, err := d.Get(w.ctx, "/metrics")
	w.must(err)
	if status != http.StatusOK {
		w.t.Fatalf("/metrics answered %d", status)
	}
	for line := range strings.Lines(body) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			f, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			w.must(err)
			return f
		}
	}
	return -1
}

// neverOpens watches the gated sentinel, as fast as it can, until stopped.
func (w *world) neverOpens() (stop func()) {
	var opened atomic.Bool
	ctx, cancel := context.WithCancel(w.ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			if w.host.Resolves() {
				opened.Store(true)
				return
			}
		}
	}()
	return func() {
		w.t.Helper()
		cancel()
		<-done
		if opened.Load() {
			w.t.Error("the gated sentinel resolved, if only for a moment")
		}
	}
}

func setPod(w *world, name string, change func(*corev1.PodStatus)) {
	w.t.Helper()
	_, err := cp.SetPodStatus(w.ctx, "kube-system", name, change)
	w.must(err)
}
