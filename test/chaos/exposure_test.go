package chaos

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// exposedSoak is long enough to tell its beginning, its middle and its end apart, and in a
// short run shorter.
func exposedSoak() time.Duration {
	if *reboots < 20 {
		return 12 * time.Second
	}
	return 20 * time.Second
}

const (
	// exposedSteps lets up to half of the nodes soak at a time. The faults make nodes flap, and
	// boot without the turn: that holds nobody up but who runs what they ran.
	exposedSteps = "[{name: soak, type: readySoak, options: {duration: %s, exposure: {growth: 2, max: 50%%}, flaps: 100%%}}]"
	growth       = 2
	// dated is how far the time in a record, or in a Node object, may be from what was.
	dated = 4 * time.Second

	kernelPackage = "linux-image-6-generic"
)

// exposure is what is known of a fleet whose nodes soak together.
type exposure struct {
	version int
	lives   []*life
	most    int // in soak at a time
}

// life is one boot of a member as it truly was.
type life struct {
	who      *member
	from, to time.Time // to: zero: it lasts
	runs     map[string]bool
	ill      bool // it flapped or crashed in its soak
}

func (l *life) inSoak(now time.Time) bool { return l.to.IsZero() && now.Sub(l.from) < exposedSoak() }

// software is what a member has.
type software struct {
	installed map[string]string
	kernel    string // the one that runs
	pinned    bool
	// before is what was installed before the last change of it, and changed when that was: a
	// gate may not have seen it.
	before  map[string]string
	changed time.Time
}

// newExposedFleet is a fleet of nodes with packages, which booted long ago.
func newExposedFleet(ctx context.Context, t *testing.T, size int, fail context.CancelFunc) *fleet {
	f := newFleet(ctx, t, size, quick, fail)
	f.exposure = &exposure{version: 1}
	for _, m := range f.members {
		m.options.Checks = fmt.Sprintf(exposedSteps, exposedSoak())
		m.software = software{installed: map[string]string{kernelPackage: "1", "libc6": "1", "systemd": "1"}, kernel: "1"}
		m.software.before = m.software.installed
		f.must(errors.Join(m.host.Install(m.software.installed), m.host.RunKernel(m.software.kernel)))
		f.lives(m, m.bootedAt)
	}
	return f
}

// lives begins the life of a boot, with mu held, or before anybody else runs.
func (f *fleet) lives(m *member, at time.Time) {
	l := &life{who: m, from: at, runs: map[string]bool{"kernel " + m.software.kernel: true}}
	for name, version := range m.software.installed {
		if name != kernelPackage {
			l.runs[name+" "+version] = true
		}
	}
	f.exposure.lives = append(f.exposure.lives, l)
}

// boots ends the life of the last boot and begins the next, with mu held.
func (m *member) boots(at time.Time, byTurn bool) {
	for _, l := range m.exposure.lives {
		if l.who == m && l.to.IsZero() {
			if l.to = at; !byTurn && at.Sub(l.from) < exposedSoak()-dated {
				l.ill = true
			}
		}
	}
	if s := &m.software; !s.pinned {
		s.kernel = s.installed[kernelPackage]
	}
	if err := m.host.RunKernel(m.software.kernel); err != nil {
		m.noted("%s: %v", m.name, err)
	}
	m.lives(m, at)
}

// update installs a version of some packages, and asks for the reboot.
func (m *member) update(version int, names ...string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := &m.software
	s.before, s.changed = s.installed, time.Now()
	s.installed = maps.Clone(s.installed)
	for _, name := range names {
		s.installed[name] = fmt.Sprint(version)
	}
	if err := errors.Join(m.host.Install(s.installed), m.host.RequireReboot(names...)); err != nil {
		m.noted("%s: %v", m.name, err)
	}
	m.noted("%s: asks for a reboot into version %d of %s", m.name, version, strings.Join(names, " "))
}

// updates brings new versions, to those that wait as well, until ctx ends.
func (f *fleet) updates(ctx context.Context, rng *rand.Rand) {
	for pass(ctx, 90*time.Second) {
		f.mu.Lock()
		f.exposure.version++
		version := f.exposure.version
		f.mu.Unlock()
		f.note("VERSION %d", version)
		for _, m := range f.members {
			if m.host.Pending() && rng.IntN(4) > 0 {
				m.update(version, f.some(rng)...)
			}
		}
	}
}

func (f *fleet) some(rng *rand.Rand) []string {
	if rng.IntN(2) == 0 {
		return []string{kernelPackage}
	}
	return []string{kernelPackage, "libc6"}
}

// judgeOpening counts by what was seen, with mu held, whether the gate that has just opened
// may be: independent of the daemons, and by names. A member that was updated a moment ago may
// be judged by what it had before.
func (f *fleet) judgeOpening(m *member, now time.Time) {
	s := m.software
	problem := f.refuses(m, s.installed, now)
	if problem != "" && now.Sub(s.changed) < dated {
		problem = f.refuses(m, s.before, now)
	}
	if problem != "" {
		f.violated("the gate of %s is open, and %s", m.name, problem)
	}
}

func (f *fleet) refuses(m *member, installed map[string]string, now time.Time) string {
	soaking := 0
	for _, l := range f.exposure.lives {
		if l.inSoak(now) {
			if l.who == m {
				return "it is in soak itself"
			}
			soaking++
		}
	}
	f.exposure.most = max(f.exposure.most, soaking+1)
	if limit := max(1, len(f.members)/2); soaking >= limit {
		return fmt.Sprintf("%d nodes are in soak, of at most %d", soaking, limit)
	}
	already := map[string]bool{} // what it runs, to which the boot does not bring it
	for _, l := range f.exposure.lives {
		if l.who == m && l.to.IsZero() {
			already = l.runs
		}
	}
	for _, name := range slices.Sorted(maps.Keys(installed)) {
		what := name + " " + installed[name]
		if name == kernelPackage {
			what = "kernel " + installed[name]
		}
		soaks, soaked, against := 0, 0, 0
		for _, l := range f.exposure.lives {
			switch {
			case !l.runs[what]:
			case l.inSoak(now):
				soaks++
			case l.ill && l.to.IsZero():
				if !already[what] {
					against++
				}
			case !l.ill && (l.to.IsZero() || l.to.Sub(l.from) >= exposedSoak()):
				soaked++
			}
		}
		limit := max(1, growth*(soaked-growth*against))
		if soaked == 0 && against > 0 {
			limit = 0
		}
		if soaks+1 > limit {
			return fmt.Sprintf("%s is in soak on %d of at most %d nodes: %d soaked it, and %d gave evidence against it", what, soaks, limit, soaked, against)
		}
	}
	return ""
}

// flap changes a node's readiness, and back. In its soak it is evidence against what it runs.
func (c *chaos) flap(ctx context.Context, rng *rand.Rand, m *member) {
	m.state.Lock()
	node := m.node
	m.state.Unlock()
	at := time.Now()
	for _, status := range []corev1.ConditionStatus{corev1.ConditionFalse, corev1.ConditionTrue} {
		if until(ctx, func(ctx context.Context) error {
			_, err := node.SetReady(ctx, status, "Chaos", time.Now())
			return err
		}) != nil {
			return
		}
		pass(ctx, between(rng, 100*time.Millisecond, time.Second))
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, l := range m.exposure.lives {
		after := at.Sub(l.from)
		if l.who == m && l.to.IsZero() && after > exposedSoak()/4+dated && after < exposedSoak()-dated {
			l.ill = true
			m.noted("%s: flapped in its soak", m.name)
		}
	}
}

// pin keeps a node's kernel as it is for a while, whatever is installed.
func (c *chaos) pin(ctx context.Context, rng *rand.Rand, m *member) {
	set := func(pinned bool) {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.software.pinned = pinned
		m.noted("%s: its kernel is pinned: %t", m.name, pinned)
	}
	set(true)
	pass(ctx, between(rng, 10*time.Second, time.Minute))
	set(false)
}

// TestChaosWithExposure is TestChaos for a fleet whose nodes soak together: at every opening
// the rule holds as the watcher counts it, over all that it saw happen.
func TestChaosWithExposure(t *testing.T) {
	if *figures {
		t.Skip("it measures")
	}
	if *seed == 0 {
		*seed = uint64(time.Now().UnixNano())
	}
	t.Logf("to repeat: go test ./test/chaos -run TestChaosWithExposure -args -seed %d -daemons %d -reboots %d", *seed, *daemons, *reboots)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	f := newExposedFleet(ctx, t, *daemons, cancel)
	stop := f.live(ctx, *seed, true)
	defer stop()

	c := &chaos{fleet: f}
	tormented, end := context.WithCancel(ctx)
	rng := rand.New(rand.NewPCG(*seed, 5)) //nolint:gosec // to be repeated
	go func() {
		defer end()
		f.reach(tormented, 5*time.Minute, func() bool { return f.reboots >= *reboots })
	}()
	go f.updates(tormented, rng)
	c.run(tormented, ctx, rand.New(rand.NewPCG(*seed, 0)), append(slices.Clone(faults), fault{"flap", 3, (*chaos).flap}, fault{"pinned kernel", 2, (*chaos).pin})) //nolint:gosec // to be repeated
	f.mu.Lock()
	f.quiet = true
	f.noted("the faults end")
	f.exposure.version++
	last := f.exposure.version
	f.mu.Unlock()
	for _, m := range f.members { // what evidence has stopped, the next version gets going
		if m.host.Pending() {
			m.update(last, kernelPackage, "libc6", "systemd")
		}
	}
	done := f.reach(ctx, 5*time.Minute, func() bool { return f.open == nil && len(f.acting) == 0 && f.nobodyWaits() })
	stop()

	f.mu.Lock()
	if !done && f.violation == "" {
		f.violation = "not everybody who waits got a turn"
	}
	violation := f.violation
	t.Logf("seed %d: %d reboots, %d openings, up to %d nodes in soak at a time, %d versions, and %d looks at %d gated paths in %s", *seed, f.reboots, f.opened, f.exposure.most, last, f.passes, len(f.members), time.Since(f.began).Round(time.Second))
	f.mu.Unlock()
	if violation != "" {
		f.report()
		t.Fatalf("seed %d: %s", *seed, violation)
	}
	if *reboots >= 20 && f.exposure.most < 3 {
		t.Errorf("never more than %d nodes were in soak at a time: nothing was shown", f.exposure.most)
	}
}
