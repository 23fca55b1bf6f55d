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

// fleet is a cluster of daemons, and what is known of it.
type fleet struct {
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
	exposure   *exposure // nil: one soak at a time
}

// member is a node of the fleet.
type member struct {
	*fleet
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

	software software // of the fleet's mu
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

func newFleet(ctx context.Context, t *testing.T, size int, settings string, fail context.CancelFunc) *fleet {
	t.Helper()
	made := shared.Get(t)
	cp, kubeconfig := start(t)
	f := &fleet{
		t: t, cp: cp, began: time.Now(), fail: fail, api: &disturbance{},
		acting: map[*member]time.Time{}, forbidden: map[*prohibition]bool{},
	}
	f.must((&cluster.Cluster{CP: cp}).SetTurn(ctx, turn.State{Phase: turn.PhaseFree, Since: time.Now()}))
	_, err := cp.AddDaemonSet(ctx, "kube-system", "kured", map[string]string{"name": "kured"})
	f.must(err)
	base, err := os.MkdirTemp(made.dir, "")
	f.must(err)
	for i := range size {
		m := &member{fleet: f, name: fmt.Sprintf("n%02d", i+1), trouble: &disturbance{}, bootID: string(uuid.NewUUID()), bootedAt: time.Now().Add(-cluster.BootedAgo)}
		f.must(m.join(ctx))
		m.host, err = daemon.NewHost(filepath.Join(base, m.name), m.bootID, cluster.BootedAgo)
		f.must(err)
		m.proxy, err = newProxy(ctx, strings.TrimPrefix(cp.URL(), "https://"))
		f.must(err)
		path := filepath.Join(base, m.name+".kubeconfig")
		f.must(m.proxy.kubeconfig(kubeconfig, path))
		m.options = daemon.Options{
			Binary: made.binary, Host: m.host, Node: m.name, Namespace: cluster.Namespace, Kubeconfig: path,
			Checks: steps, Settings: settings, ShortTurn: true,
		}
		f.members = append(f.members, m)
	}
	return f
}

func (f *fleet) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

// note adds to the timeline.
func (f *fleet) note(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.noted(format, args...)
}

// noted is note with mu held.
func (f *fleet) noted(format string, args ...any) {
	line := fmt.Sprintf("%10.4f  ", time.Since(f.began).Seconds()) + fmt.Sprintf(format, args...)
	f.timeline = append(f.timeline, line)
	if *tell {
		f.t.Log(line)
	}
}

// violated ends the run, for the first reason there is.
func (f *fleet) violated(format string, args ...any) {
	if f.violation == "" {
		f.violation = fmt.Sprintf(format, args...)
		f.noted("VIOLATION: %s", f.violation)
		f.fail()
	}
}

// forbid says that from now on gates must be closed, until it is allowed again.
func (f *fleet) forbid(who *member, why string) (allow func()) {
	p := &prohibition{time.Now(), who, why}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.forbidden[p] = true
	f.noted("%s: must be closed", why)
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.forbidden, p)
		f.noted("%s: over", why)
	}
}

// watch looks at every gated path, over and over, with pauses as long as the
// looks so that one core is left to what is looked at.
func (f *fleet) watch(ctx context.Context) {
	for ctx.Err() == nil {
		began := time.Now()
		f.look()
		time.Sleep(time.Since(began))
	}
}

// look passes over all gated paths once. The turn takes seconds to move, so two
// that resolve in one pass are two that are open.
func (f *fleet) look() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.passes++
	var open *member
	for _, m := range f.members {
		if !m.host.Resolves() {
			continue
		}
		now := time.Now()
		if open != nil {
			f.violated("the gates of %s and %s are open", open.name, m.name)
		}
		open = m
		for other, since := range f.acting {
			if other != m {
				f.violated("the gate of %s is open, and kured acts on that of %s since %s", m.name, other.name, since.Sub(f.began))
			}
		}
		if over := f.rebooted.Add(soak); f.exposure == nil && now.Before(over) {
			f.violated("the gate of %s is open %s before the soak after the reboot of %s is over", m.name, over.Sub(now), f.rebootedBy.name)
		}
		for p := range f.forbidden {
			if p.who != nil && p.who != m {
				continue
			}
			reached := m.trouble.noneSince(p.from) && f.api.noneSince(p.from)
			if since := now.Sub(p.from); since > maxAge+slack || since > time.Second && reached {
				f.violated("the gate of %s is open %s after: %s", m.name, since, p.why)
			}
		}
	}
	if open == f.open {
		return
	}
	if open != nil {
		f.opened++
		f.noted("%s resolves", open.name)
		if f.exposure != nil {
			f.judgeOpening(open, time.Now())
		}
		if !f.rebooted.IsZero() && f.rebootedBy != nil {
			f.gaps = append(f.gaps, time.Since(f.rebooted)-soak)
			f.rebootedBy = nil
		}
	} else {
		f.noted("%s resolves no more", f.open.name)
	}
	f.open = open
}

// current returns the node whose gate is open, or that kured acts on.
func (f *fleet) current() *member {
	f.mu.Lock()
	defer f.mu.Unlock()
	for m := range f.acting {
		return m
	}
	return f.open
}

func (f *fleet) ended() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.quiet
}

// join registers the node.
func (m *member) join(ctx context.Context) error {
	m.state.Lock()
	defer m.state.Unlock()
	node, err := m.cp.AddNode(ctx, m.name, controlplane.ReadySince(time.Now().Add(-cluster.BootedAgo)), func(n *corev1.Node) {
		n.Status.NodeInfo.BootID = m.bootID
		if kernel := m.kernel(); kernel != "" {
			n.Status.NodeInfo.KernelVersion = kernel
		}
	})
	if err == nil {
		m.node = node
	}
	return err
}

// kernel is the one that runs; empty: that is of no interest.
func (m *member) kernel() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.software.kernel
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
	if m.exposure != nil {
		m.boots(m.bootedAt, true)
	}
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
func (f *fleet) heartbeats(ctx context.Context) {
	for pass(ctx, time.Minute) {
		for _, m := range f.members {
			m.state.Lock()
			node := m.node
			m.state.Unlock()
			_ = within(ctx, node.Heartbeat)
		}
	}
}

// tick lets the hosts' uptime go on, as a kernel does: else a boot would seem to be later, the
// later it is looked at.
func (f *fleet) tick(ctx context.Context) {
	for pass(ctx, 5*time.Second) {
		for _, m := range f.members {
			m.state.Lock()
			err := m.host.Boot(m.bootID, time.Since(m.bootedAt))
			m.state.Unlock()
			if err != nil {
				m.note("%s: %v", m.name, err)
			}
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
func (f *fleet) report() {
	f.mu.Lock()
	timeline := strings.Join(f.timeline[max(0, len(f.timeline)-400):], "\n")
	f.mu.Unlock()
	f.t.Logf("timeline, in seconds since %s:\n%s", f.began.UTC().Format(time.RFC3339Nano), timeline)
	for _, m := range f.members {
		m.state.Lock()
		said := strings.Join(m.logs, "--- ended\n")
		if m.daemon != nil {
			said += "--- ended\n" + tail(m.daemon.Log(), 100)
		}
		m.state.Unlock()
		f.t.Logf("decision log of %s:\n%s", m.name, said)
	}
}

func tail(text string, n int) string {
	lines := strings.SplitAfter(text, "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "")
}
