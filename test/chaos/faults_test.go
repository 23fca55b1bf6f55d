package chaos

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"sync"
	"syscall"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sentinel-gate/sentinel-gate/gate/turn"
	"github.com/sentinel-gate/sentinel-gate/test/kit/cluster"
)

// fault is one thing that goes wrong, and right again before it returns.
type fault struct {
	name   string
	weight int
	do     func(*chaos, context.Context, *rand.Rand, *member)
}

var faults = []fault{
	{"kill", 6, (*chaos).kill},
	{"kill at the opening", 4, (*chaos).killOpening},
	{"stop", 4, (*chaos).stop},
	{"partition", 6, (*chaos).partition},
	{"slow", 4, (*chaos).slow},
	{"restart of the API server", 2, (*chaos).restartAPI},
	{"pause of the API server", 2, (*chaos).pauseAPI},
	{"deletion of the node", 3, (*chaos).deleteNode},
	{"broken seal", 2, (*chaos).breakSeal},
	{"stale copy", 2, (*chaos).restoreStale},
	{"deletion of the turn", 1, (*chaos).deleteTurn},
	{"halt", 3, (*chaos).halt},
	{"hold", 3, (*chaos).hold},
}

// chaos makes faults.
type chaos struct {
	*fleet
	// Of these there is one at a time.
	server, lease sync.Mutex
}

// run makes faults until ctx ends, at most a few at a time, and returns when all
// is right again. Which, where and for how long follows from rng; always is the
// context of the run, in which they end.
func (c *chaos) run(ctx, always context.Context, rng *rand.Rand, faults []fault) {
	total := 0
	for _, f := range faults {
		total += f.weight
	}
	slots := make(chan struct{}, 3)
	var all sync.WaitGroup
	defer all.Wait()
	for pass(ctx, 500*time.Millisecond+time.Duration(rng.Int64N(int64(3*time.Second)))) {
		n, i := rng.IntN(total), 0
		for ; n >= faults[i].weight; i++ {
			n -= faults[i].weight
		}
		own := rand.New(rand.NewPCG(rng.Uint64(), 0)) //nolint:gosec // to be repeated
		m := c.members[rng.IntN(len(c.members))]
		if own.IntN(2) == 0 {
			if current := c.current(); current != nil {
				m = current
			}
		}
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		all.Go(func() {
			c.note("FAULT %s, %s", faults[i].name, m.name)
			faults[i].do(c, always, own, m)
			<-slots
		})
	}
}

// between is a time at random.
func between(rng *rand.Rand, least, most time.Duration) time.Duration {
	return least + time.Duration(rng.Int64N(int64(most-least)))
}

func (c *chaos) kill(_ context.Context, _ *rand.Rand, m *member) { m.signal(syscall.SIGKILL) }

// killOpening kills a daemon a moment after its gate opened.
func (c *chaos) killOpening(ctx context.Context, rng *rand.Rand, _ *member) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	was := c.current()
	for {
		if m := c.current(); m != nil && m != was {
			pass(ctx, between(rng, 0, 50*time.Millisecond))
			m.signal(syscall.SIGKILL)
			return
		}
		if !pass(ctx, time.Millisecond) {
			return
		}
	}
}

// stop stops a daemon for longer than every deadline. A gate that was open does
// not see the end of it.
func (c *chaos) stop(ctx context.Context, rng *rand.Rand, m *member) {
	m.trouble.begin()
	defer m.trouble.end()
	d := m.running()
	if d == nil || d.Signal(syscall.SIGSTOP) != nil {
		return
	}
	pass(ctx, between(rng, maxAge+slack, 4*maxAge))
	_ = d.Signal(syscall.SIGCONT)
	c.note("%s: goes on", m.name)
}

func (c *chaos) partition(ctx context.Context, rng *rand.Rand, m *member) {
	how := refusing
	if rng.IntN(2) == 0 {
		how = silent
	}
	c.through(ctx, m, how, 0, between(rng, 500*time.Millisecond, 9*time.Second))
}

func (c *chaos) slow(ctx context.Context, rng *rand.Rand, m *member) {
	c.through(ctx, m, passing, between(rng, 20*time.Millisecond, 1200*time.Millisecond), between(rng, 2*time.Second, 9*time.Second))
}

// through changes the node's way to the API server for a while.
func (c *chaos) through(ctx context.Context, m *member, how mode, delay, long time.Duration) {
	m.trouble.begin()
	defer m.trouble.end()
	m.proxy.set(how, delay)
	pass(ctx, long)
	m.proxy.set(passing, 0)
	c.note("%s: reaches the API server again", m.name)
}

func (c *chaos) restartAPI(ctx context.Context, rng *rand.Rand, _ *member) {
	c.onServer(func() error {
		c.cp.StopAPIServer()
		pass(ctx, between(rng, 0, 5*time.Second))
		return c.cp.StartAPIServer(ctx)
	})
}

func (c *chaos) pauseAPI(ctx context.Context, rng *rand.Rand, _ *member) {
	c.onServer(func() error {
		if err := c.cp.PauseAPIServer(); err != nil {
			return err
		}
		pass(ctx, between(rng, 500*time.Millisecond, 6*time.Second))
		return c.cp.ResumeAPIServer()
	})
}

func (c *chaos) onServer(f func() error) {
	if !c.server.TryLock() {
		return
	}
	defer c.server.Unlock()
	c.api.begin()
	defer c.api.end()
	if err := f(); err != nil {
		c.note("API SERVER: %v", err)
	}
	c.note("the API server is back")
}

// deleteNode takes the Node object away and makes it again, mostly before its
// gate counts as closed.
func (c *chaos) deleteNode(ctx context.Context, rng *rand.Rand, m *member) {
	if !m.object.TryLock() {
		return
	}
	defer m.object.Unlock()
	m.trouble.begin()
	defer m.trouble.end()
	if err := until(ctx, func(ctx context.Context) error {
		return c.cp.Client().CoreV1().Nodes().Delete(ctx, m.name, metav1.DeleteOptions{})
	}); err != nil {
		return
	}
	long := between(rng, 200*time.Millisecond, 9*time.Second)
	if rng.IntN(20) == 0 {
		long = 100 * time.Second // somebody takes over
	}
	pass(ctx, long)
	_ = until(ctx, func(ctx context.Context) error {
		err := m.join(ctx)
		if apierrors.IsAlreadyExists(err) { // an earlier attempt was cut off halfway
			_ = c.cp.Client().CoreV1().Nodes().Delete(ctx, m.name, metav1.DeleteOptions{})
		}
		return err
	})
	c.note("%s: its Node is there again", m.name)
}

// annotate sets an annotation of the turn's Lease, or removes it, as kubectl
// annotate does.
func (c *chaos) annotate(ctx context.Context, key, value string) error {
	quoted := "null"
	if value != "" {
		quoted = fmt.Sprintf("%q", value)
	}
	patch := fmt.Sprintf(`{"metadata":{"annotations":{%q:%s}}}`, key, quoted)
	return until(ctx, func(ctx context.Context) error {
		_, err := c.cp.Client().CoordinationV1().Leases(cluster.Namespace).Patch(ctx, turn.LeaseName, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
		return err
	})
}

func (c *chaos) annotated(ctx context.Context, key string, who *member, long time.Duration) {
	if !c.lease.TryLock() {
		return
	}
	defer c.lease.Unlock()
	if c.annotate(ctx, key, "chaos") != nil {
		return
	}
	allow := c.forbid(who, key)
	pass(ctx, long)
	allow()
	_ = c.annotate(ctx, key, "")
}

func (c *chaos) halt(ctx context.Context, rng *rand.Rand, _ *member) {
	c.annotated(ctx, turn.HaltKey, nil, between(rng, time.Second, 6*time.Second))
}

func (c *chaos) hold(ctx context.Context, rng *rand.Rand, m *member) {
	c.annotated(ctx, turn.HoldPrefix+m.name, m, between(rng, time.Second, 9*time.Second))
}

// change edits the turn's Lease, and returns what it was.
func (c *chaos) change(ctx context.Context, edit func(map[string]string)) (was *coordinationv1.Lease, err error) {
	leases := c.cp.Client().CoordinationV1().Leases(cluster.Namespace)
	err = until(ctx, func(ctx context.Context) error {
		lease, err := leases.Get(ctx, turn.LeaseName, metav1.GetOptions{})
		if err != nil {
			return err
		}
		before := lease.DeepCopy()
		if edit(lease.Annotations); maps.Equal(before.Annotations, lease.Annotations) {
			if was == nil {
				was = before
			}
			return nil // it needs no change, or an earlier attempt was not answered
		}
		was = before
		_, err = leases.Update(ctx, lease, metav1.UpdateOptions{})
		return err
	})
	return was, err
}

const gates = "sentinel-gate.io/turn-" // what begins so, gates write

// put sets what gates write to what it was.
func put(was *coordinationv1.Lease) func(map[string]string) {
	return func(annotations map[string]string) {
		maps.DeleteFunc(annotations, func(key, _ string) bool { return strings.HasPrefix(key, gates) })
		for key, value := range was.Annotations {
			if strings.HasPrefix(key, gates) {
				annotations[key] = value
			}
		}
	}
}

// breakSeal edits the Lease by hand, and puts it right again.
func (c *chaos) breakSeal(ctx context.Context, rng *rand.Rand, _ *member) {
	if !c.lease.TryLock() {
		return
	}
	defer c.lease.Unlock()
	was, err := c.change(ctx, func(a map[string]string) {
		a[gates+"holder"], a[gates+"phase"] = "somebody", string(turn.PhaseFree)
	})
	if err != nil {
		return
	}
	c.mended(ctx, rng, "edited by hand", was)
}

// mended awaits a while in which nobody may write, and puts the Lease right.
func (c *chaos) mended(ctx context.Context, rng *rand.Rand, why string, was *coordinationv1.Lease) {
	allow := c.forbid(nil, why)
	pass(ctx, between(rng, time.Second, 5*time.Second))
	allow()
	_, _ = c.change(ctx, put(was))
}

// restoreStale restores an old copy of the Lease, and later the newest.
func (c *chaos) restoreStale(ctx context.Context, rng *rand.Rand, m *member) {
	if !c.lease.TryLock() {
		return
	}
	defer c.lease.Unlock()
	old, err := c.change(ctx, func(map[string]string) {})
	if err != nil {
		return
	}
	pass(ctx, between(rng, time.Second, 12*time.Second))
	was, err := c.change(ctx, put(old))
	if err != nil || was.Annotations[gates+"epoch"] == old.Annotations[gates+"epoch"] {
		return
	}
	if rng.IntN(2) == 0 {
		m.signal(syscall.SIGKILL) // and so a gate begins anew
	}
	allow := c.forbid(nil, "an old copy was restored")
	pass(ctx, between(rng, time.Second, 5*time.Second))
	allow()
	found, err := c.change(ctx, put(was))
	if err == nil && found.Annotations[gates+"seal"] != old.Annotations[gates+"seal"] {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.violated("a gate has written on top of an old copy of the turn: %v", found.Annotations)
	}
}

func (c *chaos) deleteTurn(ctx context.Context, rng *rand.Rand, _ *member) {
	if !c.lease.TryLock() {
		return
	}
	defer c.lease.Unlock()
	leases := c.cp.Client().CoordinationV1().Leases(cluster.Namespace)
	was, err := c.change(ctx, func(a map[string]string) { a[gates+"seal"] = "" }) // nobody writes until it is gone
	if err != nil {
		return
	}
	_ = until(ctx, func(ctx context.Context) error { return leases.Delete(ctx, turn.LeaseName, metav1.DeleteOptions{}) })
	allow := c.forbid(nil, "the turn was deleted")
	pass(ctx, between(rng, time.Second, 4*time.Second))
	allow()
	was.ResourceVersion, was.UID = "", ""
	_ = until(ctx, func(ctx context.Context) error {
		_, err := leases.Create(ctx, was, metav1.CreateOptions{})
		if apierrors.IsAlreadyExists(err) { // an earlier attempt was not answered
			return nil
		}
		return err
	})
}
