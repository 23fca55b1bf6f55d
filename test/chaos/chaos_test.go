package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"
)

// Never two gates, nor one while kured acts on another, nor one within a soak;
// halted, held or unreadable means closed within a second. And when the faults
// end, everybody who waits gets a turn.
func TestChaos(t *testing.T) {
	if *figures {
		t.Skip("it measures")
	}
	if *seed == 0 {
		*seed = uint64(time.Now().UnixNano())
	}
	t.Logf("to repeat: go test ./test/chaos -run TestChaos -args -seed %d -daemons %d -reboots %d", *seed, *daemons, *reboots)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	f := newFleet(ctx, t, *daemons, quick, cancel)
	stop := f.live(ctx, *seed, true)
	defer stop()

	c := &chaos{fleet: f}
	tormented, end := context.WithCancel(ctx)
	go func() {
		defer end()
		f.reach(tormented, 5*time.Minute, func() bool { return f.reboots >= *reboots })
	}()
	c.run(tormented, ctx, rand.New(rand.NewPCG(*seed, 0)), faults) //nolint:gosec // to be repeated
	f.mu.Lock()
	f.quiet = true
	f.noted("the faults end")
	f.mu.Unlock()
	done := f.reach(ctx, 3*time.Minute, func() bool { return f.open == nil && len(f.acting) == 0 && f.nobodyWaits() })
	stop()

	f.mu.Lock()
	if !done && f.violation == "" {
		f.violation = "not everybody who waits got a turn"
	}
	violation := f.violation
	long := time.Since(f.began)
	t.Logf("seed %d: %d reboots, %d openings, and %d looks at %d gated paths in %s (%s each); from the end of a soak to the next open gate, among the faults: %s",
		*seed, f.reboots, f.opened, f.passes, len(f.members), long.Round(time.Second), (long / time.Duration(max(f.passes, 1))).Round(time.Microsecond), spreadOf(f.gaps))
	f.mu.Unlock()
	if violation != "" {
		f.report()
		t.Fatalf("seed %d: %s", *seed, violation)
	}
}

// live starts all nodes, their kureds if they have them, and whoever watches
// them; stop ends them.
func (f *fleet) live(ctx context.Context, seed uint64, kureds bool) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	for i, m := range f.members {
		rng := func(of uint64) *rand.Rand {
			return rand.New(rand.NewPCG(seed, of*1000+uint64(i))) //nolint:gosec // to be repeated
		}
		all.Go(func() { m.run(ctx, rng(1)) })
		if kureds {
			all.Go(func() { (&kured{member: m, rng: rng(2), calm: *figures}).run(ctx) })
		}
	}
	all.Go(func() { f.watch(ctx) })
	all.Go(func() { f.heartbeats(ctx) })
	all.Go(func() { f.tick(ctx) })
	return sync.OnceFunc(func() { cancel(); all.Wait() })
}

// nobodyWaits reports whether there is no raw sentinel.
func (f *fleet) nobodyWaits() bool {
	return !slices.ContainsFunc(f.members, func(m *member) bool { return m.host.Pending() })
}

// reach awaits what f says, as long as there is a reboot every so often.
func (f *fleet) reach(ctx context.Context, patience time.Duration, reached func() bool) bool {
	reboots, since := 0, time.Now()
	for {
		f.mu.Lock()
		done := reached()
		if f.reboots > reboots {
			if f.reboots%10 == 0 {
				f.t.Logf("%d reboots after %s", f.reboots, time.Since(f.began).Round(time.Second))
			}
			reboots, since = f.reboots, time.Now()
		}
		if !done && time.Since(since) > patience {
			f.violated("no node was rebooted in %s", patience)
		}
		f.mu.Unlock()
		if done {
			return true
		}
		if !pass(ctx, 20*time.Millisecond) {
			return false
		}
	}
}

func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)].Round(time.Millisecond)
}

func spreadOf(d []time.Duration) string {
	d = slices.Sorted(slices.Values(d))
	return fmt.Sprintf("p50 %s, p99 %s, worst %s of %d", quantile(d, .5), quantile(d, .99), quantile(d, 1), len(d))
}
