// Package day lets ten gates live through what a day brings, in an hour: watches that end
// within the minute, an API server whose caches move on, restarts of it and of gates,
// tokens that are replaced, halts that are given and taken back, and a kured that does not
// act. It measures what a gate that waits costs, and whether anything grows.
package day

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/sentinel-gate/sentinel-gate/gate/turn"
	"github.com/sentinel-gate/sentinel-gate/test/kit/cluster"
	"github.com/sentinel-gate/sentinel-gate/test/kit/controlplane"
	"github.com/sentinel-gate/sentinel-gate/test/kit/daemon"
	"github.com/sentinel-gate/sentinel-gate/test/kit/suite"
)

var long = flag.Duration("long", 80*time.Second, "how long the day is")

const (
	gates    = 10
	kubelets = 100
	account  = "system:serviceaccount:" + cluster.Namespace + ":sentinel-gate"
	// unknownFor is how long a gate may not know the turn while the server answers.
	unknownFor = time.Minute
	// perMinute is how many requests a gate that waits may send in a minute in which its
	// watch ends twice, each for a LIST and a watch, and in which it looks at the holder.
	perMinute = 8.0
	// growth is how much a heap may grow; it goes up and down between collections.
	growth = 4 << 20
)

var binary = &suite.Shared[string]{Make: func(ctx context.Context, s *suite.Setup) (string, error) {
	dir, err := s.TempDir()
	if err != nil {
		return "", err
	}
	return daemon.Binary(ctx, dir, false) // as it is shipped: memory is measured
}}

func TestMain(m *testing.M) { suite.Main(m, binary) }

type day struct {
	t       *testing.T
	cp      *controlplane.ControlPlane
	members []*member
	// server is held while the API server is stopped, and by who asks it.
	server sync.RWMutex
	// back is when it was back last, in nanoseconds.
	back atomic.Int64
	// restarted counts the gates that were restarted.
	restarted atomic.Int64
}

type member struct {
	options daemon.Options
	mu      sync.Mutex
	daemon  *daemon.Daemon
	started time.Time
	unknown time.Time // since when; zero: it knows
	heaps   []float64 // of this daemon, a sample for each look
}

func (d *day) must(err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatal(err)
	}
}

func TestDay(t *testing.T) {
	built := binary.Get(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	// A watch ends after one to two times min-request-timeout.
	cp, err := controlplane.Start(suite.Context(t, 30*time.Minute), controlplane.Options{
		Progress: os.Stderr, Audit: true, APIServerFlags: []string{"--min-request-timeout=30"},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cp.Stop)
	d := &day{t: t, cp: cp}
	d.back.Store(time.Now().UnixNano())
	kubeconfig, err := cluster.Authorize(ctx, cp)
	d.must(err)
	token := d.tokenFile(ctx, kubeconfig)
	c, err := cluster.New(ctx, cp, gates)
	d.must(err)
	d.must(c.SetTurn(ctx, turn.State{Epoch: 1, Phase: turn.PhaseFree, Since: time.Now()}))
	_, err = cp.AddDaemonSet(ctx, "kube-system", "kured", map[string]string{"name": "kured"})
	d.must(err)
	base := t.TempDir()
	d.must(os.Chmod(base, 0o755)) //nolint:gosec // other users look into it
	for i := range gates {
		host, err := daemon.NewHost(filepath.Join(base, c.Nodes[i].Name), c.Nodes[i].BootID(), cluster.BootedAgo)
		d.must(err)
		d.must(host.RequireReboot("linux-image"))
		m := &member{options: daemon.Options{
			Binary: built, Host: host, Node: c.Nodes[i].Name, Namespace: cluster.Namespace, Kubeconfig: kubeconfig,
			Checks:   "[{name: nodes, type: nodesReady}, {name: cni, type: podsReady, options: {preset: calico}}]",
			Settings: "interval: 5s\nmaxAge: 15s\ntimeout: 3s\nstabilize: 1s\nturn: {grantTimeout: 100h}",
		}}
		d.members = append(d.members, m)
		d.must(d.start(ctx, m))
	}
	var all sync.WaitGroup
	during := func(f func(context.Context, *rand.Rand)) {
		seed := rand.Uint64()
		all.Go(func() { f(ctx, rand.New(rand.NewPCG(seed, 0))) }) //nolint:gosec // no secret
	}
	during(d.kubelets)
	during(d.look)
	during(d.halts)
	during(d.restartGates)
	during(d.restartServer)
	during(func(ctx context.Context, _ *rand.Rand) {
		for pass(ctx, *long/8) {
			d.asked(func() { token(ctx) })
		}
	})
	began := time.Now()
	select {
	case <-time.After(*long):
	case <-ctx.Done():
	}
	cancel()
	all.Wait()
	d.costs(began)
	for _, m := range d.members {
		m.mu.Lock()
		d.flat(m)
		_ = m.daemon.Signal(syscall.SIGKILL)
		m.mu.Unlock()
	}
}

// tokenFile makes the kubeconfig one that names a file with a token, and returns what
// replaces it by a new one.
func (d *day) tokenFile(ctx context.Context, kubeconfig string) (renew func(context.Context)) {
	path := filepath.Join(d.t.TempDir(), "token")
	d.must(os.Chmod(filepath.Dir(path), 0o755)) //nolint:gosec // other users read it
	renew = func(ctx context.Context) {
		seconds := int64(10 * 60) // the least
		issued, err := d.cp.Client().CoreV1().ServiceAccounts(cluster.Namespace).CreateToken(ctx, "sentinel-gate",
			&authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &seconds}}, metav1.CreateOptions{})
		if err == nil {
			err = errors.Join(os.WriteFile(path+".new", []byte(issued.Status.Token), 0o644), os.Rename(path+".new", path)) //nolint:gosec // for the gates
		}
		if err != nil && ctx.Err() == nil {
			d.t.Errorf("replacing the token: %v", err)
		}
	}
	renew(ctx)
	config, err := clientcmd.LoadFromFile(kubeconfig)
	d.must(err)
	for _, user := range config.AuthInfos {
		user.Token, user.TokenFile = "", path
	}
	d.must(clientcmd.WriteToFile(*config, kubeconfig))
	return renew
}

func (d *day) start(ctx context.Context, m *member) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	started, err := daemon.Start(ctx, m.options)
	if err == nil {
		m.daemon, m.started, m.unknown, m.heaps = started, time.Now(), time.Time{}, nil
	}
	return err
}

// pass waits, and reports whether the day goes on.
func pass(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// asked asks the API server, which is not stopped meanwhile.
func (d *day) asked(f func()) {
	d.server.RLock()
	defer d.server.RUnlock()
	f()
}

// kubelets renew their Leases, so that the API server's memory of Leases moves on.
func (d *day) kubelets(ctx context.Context, _ *rand.Rand) {
	leases := d.cp.Client().CoordinationV1().Leases(cluster.Namespace)
	for n := 0; pass(ctx, 10*time.Second/kubelets); n++ {
		d.asked(func() {
			name := fmt.Sprintf("kubelet-%d", n%kubelets)
			renewed := fmt.Appendf(nil, `{"spec":{"renewTime":%q}}`, time.Now().UTC().Format("2006-01-02T15:04:05.000000Z"))
			if _, err := leases.Patch(ctx, name, types.MergePatchType, renewed, metav1.PatchOptions{}); err != nil {
				_, _ = leases.Create(ctx, &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
			}
		})
	}
}

// look looks at every gate, every second.
func (d *day) look(ctx context.Context, _ *rand.Rand) {
	for pass(ctx, time.Second) {
		for _, m := range d.members {
			d.asked(func() { d.lookAt(ctx, m) })
		}
	}
}

func (d *day) lookAt(ctx context.Context, m *member) {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, body, err := m.daemon.Get(ctx, "/metrics")
	if err != nil {
		return // it is being restarted
	}
	known, heap := metric(body, "sentinel_gate_turn_known"), metric(body, "go_memstats_heap_inuse_bytes")
	m.heaps = append(m.heaps, heap)
	now, up := time.Now(), time.Unix(0, d.back.Load())
	if up.After(m.started) {
		m.started = up // since when it can know
	}
	switch {
	case known == 1:
		m.unknown = time.Time{}
	case m.unknown.Before(m.started):
		m.unknown = now
	case now.Sub(m.unknown) > unknownFor:
		d.t.Errorf("%s does not know the turn for %s\n%s", m.options.Node, now.Sub(m.unknown), m.daemon.Log())
		m.unknown = now
	}
}

func metric(body, name string) float64 {
	for line := range strings.Lines(body) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			f, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err == nil {
				return f
			}
		}
	}
	return -1
}

// halts gives halts and takes them back. Each closes within a second, and a gate opens
// again after each.
func (d *day) halts(ctx context.Context, rng *rand.Rand) {
	for pass(ctx, *long/20+time.Duration(rng.Int64N(int64(*long/20)))) {
		if !d.until(ctx, 90*time.Second, func() bool { return d.open() == 1 }) {
			if ctx.Err() == nil {
				d.t.Errorf("%d gates are open", d.open())
			}
			return
		}
		d.asked(func() {
			d.annotate(ctx, `"INC-1"`)
			given := time.Now()
			if !d.until(ctx, time.Second, func() bool { return d.open() == 0 }) && ctx.Err() == nil {
				d.t.Errorf("a gate is open %s after a halt", time.Since(given))
			}
			pass(ctx, time.Duration(rng.Int64N(int64(5*time.Second))))
			d.annotate(ctx, "null")
		})
	}
}

func (d *day) annotate(ctx context.Context, value string) {
	patch := fmt.Appendf(nil, `{"metadata":{"annotations":{%q:%s}}}`, turn.HaltKey, value)
	if _, err := d.cp.Client().CoordinationV1().Leases(cluster.Namespace).Patch(ctx, turn.LeaseName, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil && ctx.Err() == nil {
		d.t.Errorf("annotating the turn: %v", err)
	}
}

// open returns how many gates are open.
func (d *day) open() (n int) {
	for _, m := range d.members {
		if m.options.Host.Resolves() {
			n++
		}
	}
	return n
}

func (d *day) until(ctx context.Context, within time.Duration, holds func() bool) bool {
	for end := time.Now().Add(within); !holds(); {
		if time.Now().After(end) || !pass(ctx, 5*time.Millisecond) {
			return false
		}
	}
	return true
}

// restartGates kills a gate now and then, and starts it again. The holder stays the
// holder, however often.
func (d *day) restartGates(ctx context.Context, rng *rand.Rand) {
	for pass(ctx, *long/15+time.Duration(rng.Int64N(int64(*long/15)))) {
		m := d.members[rng.IntN(len(d.members)-1)] // the last is left alone: what grows shows in it
		m.mu.Lock()
		old := m.daemon
		_ = old.Signal(syscall.SIGKILL)
		_, err := old.Wait(ctx)
		m.mu.Unlock()
		if err != nil && ctx.Err() == nil {
			d.t.Error(err)
		}
		d.restarted.Add(1)
		if err := d.start(ctx, m); err != nil && ctx.Err() == nil {
			d.t.Error(err)
		}
	}
}

// restartServer stops the API server for some seconds, twice in the day.
func (d *day) restartServer(ctx context.Context, rng *rand.Rand) {
	for pass(ctx, *long/3) {
		d.server.Lock()
		d.cp.StopAPIServer()
		pass(ctx, time.Duration(rng.Int64N(int64(5*time.Second))))
		if err := d.cp.StartAPIServer(ctx); err != nil && ctx.Err() == nil {
			d.t.Errorf("starting the API server again: %v", err)
		}
		d.back.Store(time.Now().UnixNano())
		d.server.Unlock()
	}
}

// costs tells what the gates asked, and checks what those asked that waited all day.
func (d *day) costs(began time.Time) {
	events, err := d.cp.Requests(account, began)
	d.must(err)
	if len(events) == 0 {
		d.t.Error("the audit log tells of no request")
	}
	minutes := time.Since(began).Minutes()
	perGate := float64(len(events)) / minutes / gates
	d.t.Logf("%s, %d restarts of gates: %.1f requests a minute and gate, the open one's and those of starts included", long, d.restarted.Load(), perGate)
	// The open gate has four requests for each of its 12 evaluations a minute, and each start some ten.
	allowed := perMinute + 4*12.0/gates + 10*float64(d.restarted.Load())/minutes/gates + 60/minutes
	if perGate > allowed {
		d.t.Errorf("%.1f requests a minute and gate, at most %.1f are allowed for", perGate, allowed)
	}
}

// flat checks that the heap of the last part of the day is no larger than that of the first.
func (d *day) flat(m *member) {
	if n := len(m.heaps); n >= 30 {
		first, last := slices.Min(m.heaps[n/10:n/3]), slices.Min(m.heaps[2*n/3:])
		if last > first+growth {
			d.t.Errorf("%s: the heap grew from %.1f to %.1f MiB", m.options.Node, first/(1<<20), last/(1<<20))
		}
		if m == d.members[gates-1] {
			d.t.Logf("%s was never restarted: its heap was %.1f MiB, and %.1f in the end", m.options.Node, first/(1<<20), last/(1<<20))
		}
	}
}
