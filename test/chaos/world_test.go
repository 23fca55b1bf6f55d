package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/uuid"

	"github.com/sentinel-gate/sentinel-gate/gate/turn"
	"github.com/sentinel-gate/sentinel-gate/test/kit/cluster"
	"github.com/sentinel-gate/sentinel-gate/test/kit/controlplane"
	"github.com/sentinel-gate/sentinel-gate/test/kit/daemon"
)

const (
	maxAge = 3 * time.Second
	// soak is the turn's: the longest of the steps', which holds nothing back itself.
	soak   = 6 * time.Second
	settle = 4 * time.Second
	// quick makes the daemon decide in seconds what takes hours.
	quick = "interval: 400ms\nmaxAge: 3s\ntimeout: 1s\nstabilize: 200ms\nturn: {settle: 4s, grantTimeout: 30s}"
	steps = "[{name: nodes, type: nodesReady}, {name: soak, type: readySoak, options: {duration: 6s}, softUntil: 2100-01-01}]"
	// slack is how late a kernel's timer may be on a busy machine.
	slack = time.Second
)

// world is a cluster of daemons, and what is known of it.
type world struct {
	t       *testing.T
	cp      *controlplane.ControlPlane
	members []*member
	began   time.Time
	fail    context.CancelFunc
	api     *disturbance

	mu         sync.Mutex // of all below
	timeline   []string
	violation  string
	acting     map[*member]time.Time // kured has seen the gate, and is not done
	open       *member               // resolved when it was looked at last
	opened     int
	rebooted   time.Time // when the last reboot was
	rebootedBy *member
	reboots    int
	gaps       []time.Duration // from the end of a soak to the next open gate
	forbidden  map[*prohibition]bool
	quiet      bool // no node asks for another reboot
	passes     int
}

// member is a node of the world.
type member struct {
	*world
	name    string
	host    *daemon.Host
	proxy   *proxy
	options daemon.Options
	trouble *disturbance
	object  sync.Mutex // held by who deletes its Node object, until it is there again

	state    sync.Mutex // of all below
	node     *controlplane.Node
	daemon   *daemon.Daemon // nil: not running
	away     time.Time      // it is not started before
	bootID   string
	bootedAt time.Time
	logs     []string // of daemons that have ended
}

// disturbance is what keeps a gate from being told anything.
type disturbance struct {
	mu     sync.Mutex
	active int
	last   time.Time
}

func (d *disturbance) begin() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.active++
}

func (d *disturbance) end() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.active--
	d.last = time.Now()
}

func (d *disturbance) noneSince(t time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.active == 0 && d.last.Before(t)
}

// prohibition is a reason why a gate, or every gate, must be closed.
type prohibition struct {
	from time.Time
	who  *member // nil: every gate
	why  string
}

func newWorld(ctx context.Context, t *testing.T, size int, settings string, fail context.CancelFunc) *world {
	t.Helper()
	made := shared.Get(t)
	cp, kubeconfig := start(t)
	w := &world{
		t: t, cp: cp, began: time.Now(), fail: fail, api: &disturbance{},
		acting: map[*member]time.Time{}, forbidden: map[*prohibition]bool{},
	}
	w.must((&cluster.Cluster{CP: cp}).SetTurn(ctx, turn.State{Phase: turn.PhaseFree, Since: time.Now()}))
	_, err := cp.AddDaemonSet(ctx, "kube-system", "kured", map[string]string{"name": "kured"})
	w.must(err)
	base, err := os.MkdirTemp(made.dir, "")
	w.must(err)
	for i := range size {
		m := &member{world: w, name: fmt.Sprintf("n%02d", i+1), trouble: &disturbance{}, bootID: string(uuid.NewUUID()), bootedAt: time.Now().Add(-cluster.BootedAgo)}
		w.must(m.join(ctx))
		m.host, err = daemon.NewHost(filepath.Join(base, m.name), m.bootID, cluster.BootedAgo)
		w.must(err)
		m.proxy, err = newProxy(ctx, strings.TrimPrefix(cp.URL(), "https://"))
		w.must(err)
		path := filepath.Join(base, m.name+".kubeconfig")
		w.must(m.proxy.kubeconfig(kubeconfig, path))
		m.options = daemon.Options{
			Binary: made.binary, Host: m.host, Node: m.name, Namespace: cluster.Namespace, Kubeconfig: path,
			Checks: steps, Settings: settings,
		}
		w.members = append(w.members, m)
	}
	return w
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// note adds to the timeline.
func (w *world) note(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.noted(format, args...)
}

// noted is note with mu held.
func (w *world) noted(format string, args ...any) {
	line := fmt.Sprintf("%10.4f  ", time.Since(w.began).Seconds()) + fmt.Sprintf(format, args...)
	w.timeline = append(w.timeline, line)
	if *tell {
		w.t.Log(line)
	}
}

// violated ends the run, for the first reason there is.
func (w *world) violated(format string, args ...any) {
	if w.violation == "" {
		w.violation = fmt.Sprintf(format, args...)
		w.noted("VIOLATION: %s", w.violation)
		w.fail()
	}
}

// forbid says that from now on gates must be closed, until it is allowed again.
func (w *world) forbid(who *member, why string) (allow func()) {
	p := &prohibition{time.Now(), who, why}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.forbidden[p] = true
	w.noted("%s: must be closed", why)
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.forbidden, p)
		w.noted("%s: over", why)
	}
}

// watch looks at every gated path, over and over, with pauses as long as the
// looks so that one core is left to what is looked at.
func (w *world) watch(ctx context.Context) {
	for ctx.Err() == nil {
		began := time.Now()
		w.look()
		time.Sleep(time.Since(began))
	}
}

// look passes over all gated paths once. The turn takes seconds to move, so two
// that resolve in one pass are two that are open.
func (w *world) look() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.passes++
	var open *member
	for _, m := range w.members {
		if !m.host.Resolves() {
			continue
		}
		now := time.Now()
		if open != nil {
			w.violated("the gates of %s and %s are open", open.name, m.name)
		}
		open = m
		for other, since := range w.acting {
			if other != m {
				w.violated("the gate of %s is open, and kured acts on that of %s since %s", m.name, other.name, since.Sub(w.began))
			}
		}
		if over := w.rebooted.Add(soak); now.Before(over) {
			w.violated("the gate of %s is open %s before the soak after the reboot of %s is over", m.name, over.Sub(now), w.rebootedBy.name)
		}
		for p := range w.forbidden {
			if p.who != nil && p.who != m {
				continue
			}
			reached := m.trouble.noneSince(p.from) && w.api.noneSince(p.from)
			if since := now.Sub(p.from); since > maxAge+slack || since > time.Second && reached {
				w.violated("the gate of %s is open %s after: %s", m.name, since, p.why)
			}
		}
	}
	if open == w.open {
		return
	}
	if open != nil {
		w.opened++
		w.noted("%s resolves", open.name)
		if !w.rebooted.IsZero() && w.rebootedBy != nil {
			w.gaps = append(w.gaps, time.Since(w.rebooted)-soak)
			w.rebootedBy = nil
		}
	} else {
		w.noted("%s resolves no more", w.open.name)
	}
	w.open = open
}

// current returns the node whose gate is open, or that kured acts on.
func (w *world) current() *member {
	w.mu.Lock()
	defer w.mu.Unlock()
	for m := range w.acting {
		return m
	}
	return w.open
}

func (w *world) ended() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.quiet
}

// join registers the node.
func (m *member) join(ctx context.Context) error {
	m.state.Lock()
	defer m.state.Unlock()
	node, err := m.cp.AddNode(ctx, m.name, controlplane.ReadySince(time.Now().Add(-cluster.BootedAgo)), func(n *corev1.Node) {
		n.Status.NodeInfo.BootID = m.bootID
	})
	if err == nil {
		m.node = node
	}
	return err
}

// run starts the daemon whenever it has ended, as a kubelet does, and kills it in
// the end.
func (m *member) run(ctx context.Context, rng *rand.Rand) {
	for ctx.Err() == nil {
		d := m.start(ctx)
		if d == nil {
			pass(ctx, 20*time.Millisecond)
			continue
		}
		_, _ = d.Wait(ctx)
		m.state.Lock()
		m.daemon = nil
		if again := time.Now().Add(time.Duration(rng.Float64() * float64(time.Second))); again.After(m.away) {
			m.away = again
		}
		m.logs = append(m.logs, tail(d.Log(), 60))
		m.logs = m.logs[max(0, len(m.logs)-6):]
		m.state.Unlock()
		m.note("%s: its daemon has ended", m.name)
	}
}

func (m *member) start(ctx context.Context) *daemon.Daemon {
	m.state.Lock()
	defer m.state.Unlock()
	if time.Now().Before(m.away) {
		return nil
	}
	if err := m.host.Boot(m.bootID, time.Since(m.bootedAt)); err != nil {
		m.note("%s: %v", m.name, err)
		return nil
	}
	d, err := daemon.Start(ctx, m.options)
	if err != nil {
		m.note("%s: %v", m.name, err)
		return nil
	}
	m.daemon = d
	m.note("%s: its daemon starts", m.name)
	return d
}

func (m *member) running() *daemon.Daemon {
	m.state.Lock()
	defer m.state.Unlock()
	return m.daemon
}

func (m *member) signal(s syscall.Signal) {
	if d := m.running(); d != nil {
		_ = d.Signal(s)
		m.note("%s: %s", m.name, s)
	}
}

// reboot does to the host what a reboot does. The daemon is started again after
// a while.
func (m *member) reboot(ctx context.Context, away time.Duration) error {
	m.state.Lock()
	d := m.daemon
	m.away = time.Now().Add(time.Hour)
	m.state.Unlock()
	if d != nil {
		_ = d.Signal(syscall.SIGKILL)
		if _, err := d.Wait(ctx); err != nil {
			return err
		}
	}
	m.state.Lock()
	defer m.state.Unlock()
	gated := filepath.Dir(m.host.Gated)
	if err := errors.Join(os.RemoveAll(gated), os.Mkdir(gated, 0o755), ignore(m.host.ClearReboot(), os.ErrNotExist)); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.bootID, m.bootedAt = string(uuid.NewUUID()), time.Now()
	m.away = m.bootedAt.Add(away)
	delete(m.acting, m)
	m.rebooted, m.rebootedBy = m.bootedAt, m
	m.reboots++
	m.noted("%s: REBOOTED (%d), its daemon comes back in %s", m.name, m.reboots, away)
	return nil
}

// boot is the present boot's id.
func (m *member) boot() string {
	m.state.Lock()
	defer m.state.Unlock()
	return m.bootID
}

func ignore(err, what error) error {
	if errors.Is(err, what) {
		return nil
	}
	return err
}

// heartbeats keeps the nodes' statuses from looking old.
func (w *world) heartbeats(ctx context.Context) {
	for pass(ctx, time.Minute) {
		for _, m := range w.members {
			m.state.Lock()
			node := m.node
			m.state.Unlock()
			_ = within(ctx, node.Heartbeat)
		}
	}
}

// within gives f the time that a request may take.
func within(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	return f(ctx)
}

// until repeats f until it succeeds or finds nothing to do.
func until(ctx context.Context, f func(context.Context) error) error {
	return controlplane.Poll(ctx, func() error {
		err := within(ctx, f)
		if apierrors.IsNotFound(err) {
			return nil
		}
		return err
	})
}

// report prints what is known of a violation.
func (w *world) report() {
	w.mu.Lock()
	timeline := strings.Join(w.timeline[max(0, len(w.timeline)-400):], "\n")
	w.mu.Unlock()
	w.t.Logf("timeline, in seconds since %s:\n%s", w.began.UTC().Format(time.RFC3339Nano), timeline)
	for _, m := range w.members {
		m.state.Lock()
		said := strings.Join(m.logs, "--- ended\n")
		if m.daemon != nil {
			said += "--- ended\n" + tail(m.daemon.Log(), 100)
		}
		m.state.Unlock()
		w.t.Logf("decision log of %s:\n%s", m.name, said)
	}
}

func tail(text string, n int) string {
	lines := strings.SplitAfter(text, "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "")
}
