package turn

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/sentinel-gate/sentinel-gate/gate/clock"
	"github.com/sentinel-gate/sentinel-gate/gate/cluster"
)

// Record is the node's own record, as far as the turn is concerned.
type Record interface {
	// Recall returns the highest epoch of the turn that the record tells of, and when
	// this boot was by the API server's clock.
	Recall(ctx context.Context) (epoch int64, bootedAt time.Time, err error)
	// LookAgain reads the record again, soon, and writes it again where it is not what it
	// should be. It does not block.
	LookAgain()
	// SetTurnEpoch sets the epoch that was seen, which is written when something else
	// is. It does not block.
	SetTurnEpoch(epoch int64)
	// SetOpened tells whether the node has the turn and its gate was opened in this boot,
	// which is written with the next epoch at the latest. It does not block.
	SetOpened(is bool)
	// RecordEpoch returns once the record tells of the epoch, or of a later one.
	RecordEpoch(ctx context.Context, epoch int64) error
}

// Options are what a Turn is made of.
type Options struct {
	Config
	// SoakOf returns the soak, of which the overridden steps are no part.
	SoakOf func(overridden map[string]Override) time.Duration
	// Leases and DaemonSets must be read through a clock.Witness.
	Leases     Leases
	Nodes      NodeLister
	DaemonSets func(namespace string) DaemonSetLister
	Record     Record
	// Order are the tiers: the first selector that the node's labels match is the
	// node's.
	Order []labels.Selector
	// Soaking says which nodes count in the soaks, where Config.Exposure is set.
	Soaking cluster.Soaking
	Log     *slog.Logger
}

// Turn takes part in the turn for one node: it is the driver around the core, and
// carries out what that wants. While the node neither waits for a reboot nor has the
// turn it asks the API server nothing, but for one look at its start.
type Turn struct {
	Options
	core *core // only Run's goroutine uses it

	updates chan Gate // the latest
	asks    chan ask
	unasks  chan ask
	views   chan View // the latest
	current atomic.Pointer[View]

	mu   sync.Mutex
	last *Gate // what Update was called with last
}

// ask is a call of Confirm that waits for its answer.
type ask struct{ answer chan Answer }

// New returns a Turn, which takes no part until Run.
func New(o Options) *Turn {
	t := &Turn{
		Options: o, core: newCore(o.Config, o.SoakOf, rand.Float64),
		updates: make(chan Gate, 1), asks: make(chan ask), unasks: make(chan ask), views: make(chan View, 1),
	}
	t.current.Store(&View{Problem: errUnread})
	return t
}

// Update says how the gate is. It does not wait for requests. Until it is called the
// Turn takes no part.
func (t *Turn) Update(g Gate) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.last == nil || *t.last != g {
		t.last = &g
		replace(t.updates, g)
	}
}

// replace puts a value into a channel of capacity 1 in the place of one that nobody
// has received.
func replace[T any](c chan T, v T) {
	select {
	case <-c:
	default:
	}
	c <- v
}

// Confirm reads the turn afresh for an evaluation that passed, and opens it where it
// is granted and not open yet: it returns nil if the gated sentinel may resolve.
func (t *Turn) Confirm(ctx context.Context) error {
	a := ask{make(chan Answer, 1)}
	select {
	case t.asks <- a:
	case <-ctx.Done():
		return fmt.Errorf("asking for the turn: %w", ctx.Err())
	}
	select {
	case answer := <-a.answer:
		switch {
		case answer.Permitted:
			return nil
		case answer.Refusal != nil:
			return answer.Refusal
		}
		return errors.New("the turn gave no answer")
	case <-ctx.Done():
		select {
		case t.unasks <- a:
		case <-a.answer: // it was given, or Run has ended
		}
		return fmt.Errorf("asking for the turn: %w", ctx.Err())
	}
}

// Views tells the latest view after every event, changed or not. A view that nobody
// has received is dropped for a later one. It is for one reader.
func (t *Turn) Views() <-chan View { return t.views }

// View returns what was seen last.
func (t *Turn) View() View { return *t.current.Load() }

// Permits reports whether, by what was seen last, the gated sentinel may resolve.
func (t *Turn) Permits() bool { return t.View().Permits() }

// Run takes part until ctx ends.
func (t *Turn) Run(ctx context.Context) {
	d := &driver{Turn: t, answers: make(chan Event)}
	ctx, cancel := context.WithCancel(ctx)
	defer d.requests.Wait()
	defer cancel()
	defer d.answer(Answer{Refusal: errors.New("the gate is stopping")})
	timer := time.NewTimer(seldom)
	defer timer.Stop()
	for {
		var e Event
		select {
		case <-ctx.Done():
			return
		case g := <-t.updates:
			e = Updated{g}
		case a := <-t.asks:
			d.answer(Answer{Refusal: errors.New("another evaluation asks for the turn")})
			d.asking, e = &a, Asked{}
		case a := <-t.unasks:
			if d.asking == nil || *d.asking != a {
				continue
			}
			d.asking, e = nil, Unasked{}
		case e = <-d.answers:
		case e = <-d.heard:
		case <-timer.C:
			e = Woken{}
		}
		effects := t.core.step(time.Now(), e)
		d.publish(t.core.view())
		t.Record.SetTurnEpoch(t.core.epoch)
		if s := t.core.state; t.core.problem == nil {
			t.Record.SetOpened(s.Phase == PhaseOpen && s.HeldBy(t.Node) && s.BootID == t.BootID)
		}
		if effects.SetBack { // and so, perhaps, was the record
			t.Record.LookAgain()
		}
		if effects.Answer != nil { // after the view that it follows from
			d.answer(*effects.Answer)
		}
		if effects.Follow != d.following {
			d.follow(ctx, effects.Follow)
		}
		if r := effects.Request; r != nil {
			d.requests.Go(func() { pass(ctx, d.answers, t.carryOut(ctx, r)) })
		}
		if timer.Stop(); !effects.WakeAt.IsZero() {
			timer.Reset(time.Until(effects.WakeAt))
		}
	}
}

// pass hands the event on, unless ctx ends before anybody takes it.
func pass(ctx context.Context, to chan<- Event, e Event) {
	select {
	case to <- e:
	case <-ctx.Done():
	}
}

// driver is what the goroutine of Run works with.
type driver struct {
	*Turn
	requests sync.WaitGroup
	answers  chan Event
	asking   *ask // nil: nobody asks

	following string // the version from which the Lease is watched
	heard     chan Event
	unfollow  context.CancelFunc
	logged    string // the operator's problems, when they were logged last
}

func (d *driver) answer(a Answer) {
	if d.asking != nil {
		d.asking.answer <- a
		d.asking = nil
	}
}

// publish tells the latest view.
func (d *driver) publish(v View) {
	d.current.Store(&v)
	replace(d.views, v)
	if says := fmt.Sprint(v.Operator.Problems); says != d.logged && len(v.Operator.Problems) > 0 {
		d.logged = says
		d.Log.Warn("annotations of the turn's Lease that cannot be understood are ignored", "problems", v.Operator.Problems)
	}
}

// follow ends the watch, and begins one at the version where that is not empty.
func (d *driver) follow(ctx context.Context, version string) {
	if d.unfollow != nil {
		d.unfollow()
	}
	d.following, d.heard, d.unfollow = version, nil, nil
	if version == "" {
		return
	}
	ctx, d.unfollow = context.WithCancel(ctx)
	heard := make(chan Event)
	d.heard = heard
	d.requests.Go(func() { pass(ctx, heard, Unfollowed{d.watch(ctx, version, heard)}) })
}

// watch hands on what becomes of the Lease until the watch ends. The API server ends
// one now and then, which is no error.
func (t *Turn) watch(ctx context.Context, version string, heard chan<- Event) error {
	options := only(LeaseName)
	options.ResourceVersion = version
	ctx, events, end, err := cluster.OpenWatch(ctx, t.timeout(), func(ctx context.Context) (watch.Interface, error) { return t.Leases.Watch(ctx, options) }, watch.Interface.Stop)
	if err != nil {
		return err
	}
	defer end()
	for {
		select {
		case <-ctx.Done():
			return nil
		case event, ok := <-events.ResultChan():
			if !ok {
				return nil
			}
			lease, ok := event.Object.(*coordinationv1.Lease)
			switch {
			case event.Type == watch.Bookmark:
			case !ok:
				return fmt.Errorf("%s: %v", event.Type, event.Object)
			default:
				pass(ctx, heard, Heard{lease, event.Type == watch.Deleted})
			}
		}
	}
}

// writeTimeout bounds a request that writes: webhooks of others, of which a dead one may
// take 30 seconds, stand before it.
const writeTimeout = 35 * time.Second

// bound is how long the request may take.
func (t *Turn) bound(r Request) time.Duration {
	switch r.(type) {
	case WriteLease, RecordEpoch:
		return writeTimeout
	case ListRecords:
		return perListing
	}
	return t.timeout()
}

// carryOut carries a request out, within a bound of its own, and returns its answer.
func (t *Turn) carryOut(ctx context.Context, r Request) Event {
	ctx, cancel := context.WithTimeout(ctx, t.bound(r))
	defer cancel()
	switch r := r.(type) {
	case RecallRecord:
		epoch, bootedAt, err := t.Record.Recall(ctx)
		return Recalled{epoch, bootedAt, err}
	case ReadLease:
		return t.read(ctx)
	case LookAtHolder:
		holder, err := t.look(ctx, r)
		return Looked{r.Node, holder, err}
	case ListRecords:
		switch {
		case !r.Nodes:
			candidates, err := List(ctx, t.Leases)
			return Listed{Candidates: candidates, Err: err}
		case t.Exposure != nil:
			candidates, members, err := ListSoaks(ctx, t.Leases, t.Nodes, t.Order, t.Soaking)
			return Listed{candidates, members, true, err}
		}
		candidates, err := ListWaiting(ctx, t.Leases, t.Nodes, t.Order)
		return Listed{Candidates: candidates, Nodes: true, Err: err}
	case WriteLease:
		return t.write(ctx, r)
	case RecordEpoch:
		return Recorded{r.Epoch, t.Record.RecordEpoch(ctx, r.Epoch)}
	}
	panic(fmt.Sprintf("turn: a request of type %T", r)) // of a type that was added above, and not here
}

func (t *Turn) read(ctx context.Context) Event {
	asked := time.Now()
	ctx, reading := clock.Read(ctx)
	list, err := t.Leases.List(ctx, only(LeaseName))
	if err != nil {
		return Read{Err: err}
	}
	date, err := reading.Now()
	read := Read{Version: list.ResourceVersion, Asked: asked, Date: date, Set: reading.Set(), Err: err}
	if len(list.Items) > 0 {
		read.Lease = &list.Items[0]
	}
	return read
}

func (t *Turn) write(ctx context.Context, w WriteLease) Event {
	lease := w.Lease.DeepCopy()
	w.State.Put(lease)
	written, err := t.Leases.Update(ctx, lease, metav1.UpdateOptions{})
	if err == nil {
		t.Log.Info("the turn: "+w.Why, "phase", string(w.State.Phase), "holder", w.State.Holder, "epoch", w.State.Epoch, "previousPhase", string(w.Before.Phase), "previousHolder", w.Before.Holder)
	}
	return Wrote{written, w.State.Epoch, apierrors.IsConflict(err), err}
}
