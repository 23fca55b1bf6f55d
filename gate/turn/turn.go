package turn

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/sentinel-gate/sentinel-gate/gate/clock"
	"github.com/sentinel-gate/sentinel-gate/gate/record"
)

const (
	// spread is over how long those who wait are spread when the turn frees.
	spread = 5 * time.Second
	// crowd is how many wait at least whom the turn does not name, for all they know.
	crowd = 20
	// firstPause and lastPause lie between attempts to reach the API server.
	firstPause = time.Second
	lastPause  = 30 * time.Second
)

// ErrMissing is why the turn is not known where nobody has made its Lease.
var ErrMissing = fmt.Errorf("the turn's Lease %s does not exist: make it as docs/turn.md says", LeaseName)

// View is what a gate knows of the turn.
type View struct {
	State    State
	Operator Operator
	Decision Decision
	// Problem is why the turn is not known; nothing is permitted then.
	Problem error
}

// Why is a sentence for a person.
func (v View) Why() string {
	if v.Problem != nil {
		return v.Problem.Error()
	}
	return v.Decision.Why
}

// Kured is where the kured on this node keeps its lock.
type Kured struct{ Namespace, Name, Annotation string }

// Turn takes part in the turn for one node. While the node neither waits for a
// reboot nor has the turn it asks the API server nothing, but for one look at its
// start and at each Tell of something new.
type Turn struct {
	Config Config
	// SoakOf returns the soak, of which the overridden steps are no part.
	SoakOf func(overridden map[string]Override) time.Duration
	// Leases are of the gates' namespace; they, and the nodes, must be read
	// through a clock.Transport.
	Leases     Leases
	Nodes      NodeLister
	DaemonSets func(namespace string) DaemonSetLister
	// Kured finds kured's lock.
	Kured func() Kured
	// Order are the tiers: the first selector that the node's labels match is
	// the node's. OnTier is told of it, and OnEpoch of every epoch seen.
	Order   []labels.Selector
	OnTier  func(int)
	OnEpoch func(int64)
	// RecordEpoch returns once the node's record tells of the epoch, or of a later
	// one. It is asked for each epoch that this gate has written, and before the gate
	// opens: so an older copy that somebody restores is refused also by gates that
	// have not seen, or have forgotten, what came after it.
	RecordEpoch func(context.Context, int64) error
	Log         *slog.Logger

	random  func() float64
	wake    chan struct{}
	reached chan struct{} // by Confirm, while Run pauses
	views   chan View
	current atomic.Pointer[View]

	telling sync.Mutex // of told
	told    Gate

	mu       sync.Mutex // of all below; held over requests: one look at a time
	ready    bool
	tiered   bool
	lease    *coordinationv1.Lease // nil: not known
	listed   string                // the version of the answer that it was read from, where a watch takes up
	read     time.Time             // when, on the own clock
	date     time.Time             // and by the API server's
	problem  error
	unread   bool // the problem is not of the Lease: reading it anew may tell more
	state    State
	operator Operator
	epoch    int64 // the highest that was seen
	recalled bool
	followed bool   // the Lease is watched
	vouched  string // the version of the Lease than which no record told of a later epoch
	decision Decision

	question   question
	holder     *Holder
	holderAt   time.Time // when it was looked at, and of which epoch
	holderOf   int64
	checkAt    time.Time
	checkOf    int64 // the epoch that it is for
	goneSince  time.Time
	releasedOf int64
	released   time.Time
	chooseAt   time.Time
	chooseOf   int64
	confirmed  time.Time // when Confirm was last asked whether the gate may open
	logged     string
}

// Gate is what the gate knows of itself.
type Gate struct {
	// Pending: its node waits for a reboot.
	Pending bool
	// BootedAt is when the node booted, by the API server's clock; zero where
	// that is not known yet.
	BootedAt time.Time
	// Open: its gated sentinel resolves. ClosedSince is since when it has not.
	Open        bool
	ClosedSince time.Time
	// NodeBlocked: for an interval at least, only steps that are about this node
	// have held it back.
	NodeBlocked bool
	// Overdue: it has been open for Config.GrantTimeout of kured's own time.
	Overdue bool
}

// Start makes the Turn usable. It must return before any other method is called.
func (t *Turn) Start() {
	t.random = rand.Float64
	t.wake, t.reached, t.views = make(chan struct{}, 1), make(chan struct{}, 1), make(chan View, 1)
	t.problem = errors.New("the turn was not read yet")
	t.current.Store(&View{Problem: t.problem})
}

// Views tells the latest view after every look at the turn, changed or not. A view
// that nobody has received is dropped for a later one. It is for one reader.
func (t *Turn) Views() <-chan View { return t.views }

// Tell says what the gate knows of itself. It does not wait for requests.
func (t *Turn) Tell(g Gate) {
	t.telling.Lock()
	defer t.telling.Unlock()
	if t.told == g {
		return
	}
	t.told = g
	t.hasten()
}

// hasten wakes Run while it follows the turn.
func (t *Turn) hasten() { signal(t.wake) }

func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (t *Turn) gate() Gate {
	t.telling.Lock()
	defer t.telling.Unlock()
	return t.told
}

// Run takes part until ctx ends.
func (t *Turn) Run(ctx context.Context) {
	pause := firstPause
	for ctx.Err() == nil {
		began := time.Now()
		err := t.follow(ctx)
		if ctx.Err() != nil {
			return
		}
		lasted := time.Since(began)
		if err == nil || lasted > lastPause {
			pause = firstPause
		}
		wait := firstPause - lasted // whoever ends watches at once is not asked without end
		if err != nil {
			t.Log.Debug("the turn is read anew", "error", err, "in", pause.String())
			wait = time.Duration(float64(pause) * (0.5 + t.random()))
			pause = min(2*pause, lastPause)
		}
		select {
		case <-time.After(wait):
		case <-t.reached:
			pause = firstPause
		case <-ctx.Done():
		}
	}
}

// follow reads the turn once, and watches it while it concerns this node. It
// returns nil when the turn should be read afresh at once.
func (t *Turn) follow(ctx context.Context) error {
	version, concerned, err := t.readAndAct(ctx)
	if err != nil {
		return err
	}
	if !concerned {
		select {
		case <-ctx.Done():
		case <-t.wake:
		}
		return nil
	}
	return t.watch(ctx, version)
}

// readAndAct reads the turn and acts on it. It returns the version from which it can
// be watched, and whether what follows it concerns this node.
func (t *Turn) readAndAct(ctx context.Context) (version string, concerned bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err = t.look(ctx); err == nil {
		err = t.findTier(ctx)
	}
	if err == nil {
		err = t.act(ctx)
	}
	return t.listed, t.concerned(), err
}

// concerned reports whether the node waits or has the turn.
func (t *Turn) concerned() bool {
	return t.gate().Pending || t.state.HeldBy(t.Config.Node)
}

func (t *Turn) watch(ctx context.Context, version string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	options := only(LeaseName)
	options.ResourceVersion = version
	events, err := t.Leases.Watch(ctx, options)
	if err != nil {
		return t.lockAndFail(fmt.Errorf("watching the turn: %w", err))
	}
	defer events.Stop()
	t.setFollowed(true)
	defer t.setFollowed(false)
	for {
		t.mu.Lock()
		again, concerned := t.again(), t.concerned()
		t.mu.Unlock()
		if !concerned {
			return nil
		}
		timer := time.NewTimer(again)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case event, ok := <-events.ResultChan():
			timer.Stop()
			if !ok {
				return nil // API servers end a watch now and then
			}
			if err := t.onEvent(ctx, event); err != nil {
				return err
			}
		case <-t.wake:
			timer.Stop()
			if err := t.woken(ctx); err != nil {
				return err
			}
		case <-timer.C:
			if err := t.lockAndAct(ctx); err != nil {
				return err
			}
		}
	}
}

func (t *Turn) setFollowed(followed bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.followed = followed
}

// again is when to act although nothing has happened.
func (t *Turn) again() time.Duration {
	if t.problem != nil {
		return time.Hour // only an event can change that
	}
	wait := t.decision.Again
	if wait <= 0 {
		wait = time.Hour
	}
	sooner := func(at time.Time) {
		if !at.IsZero() {
			wait = min(wait, max(time.Until(at), 0))
		}
	}
	sooner(t.chooseAt)
	if t.state.Phase == Open && t.state.Holder != t.Config.Node {
		sooner(t.checkAt)
	}
	return max(wait, 50*time.Millisecond)
}

func (t *Turn) onEvent(ctx context.Context, event watch.Event) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	lease, ok := event.Object.(*coordinationv1.Lease)
	switch {
	case event.Type == watch.Bookmark:
		return nil
	case !ok:
		return t.failed(fmt.Errorf("watching the turn: %s: %v", event.Type, event.Object))
	case t.lease != nil && older(lease, t.lease):
		return nil // it was read meanwhile, and what followed it
	case event.Type == watch.Deleted:
		t.take(nil, errors.New("the turn's Lease was deleted: make it again as docs/turn.md says"))
	default:
		t.take(lease, nil)
	}
	return t.act(ctx)
}

// older reports whether a was written before b.
func older(a, b *coordinationv1.Lease) bool {
	order, err := resourceversion.CompareResourceVersion(a.ResourceVersion, b.ResourceVersion)
	return err == nil && order < 0
}

func (t *Turn) woken(ctx context.Context) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.unread {
		if err := t.findTier(ctx); err != nil {
			return err
		}
	}
	return t.act(ctx)
}

// only selects the one object of the name: the right to list is all it needs,
// and one that is absent is no error.
func only(name string) metav1.ListOptions {
	return metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, name).String()}
}

// findTier reads the labels of the node when it begins to wait.
func (t *Turn) findTier(ctx context.Context) error {
	if !t.gate().Pending {
		t.tiered = false
		return nil
	}
	if t.tiered {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, t.Config.timeout())
	defer cancel()
	nodes, err := t.Nodes.List(ctx, only(t.Config.Node))
	if err == nil && len(nodes.Items) == 0 {
		err = fmt.Errorf("there is no Node %s", t.Config.Node)
	}
	if err != nil {
		return t.failed(fmt.Errorf("reading this node's labels: %w", err))
	}
	tier := slices.IndexFunc(t.Order, func(s labels.Selector) bool { return s.Matches(labels.Set(nodes.Items[0].Labels)) })
	if tier < 0 {
		tier = len(t.Order)
	}
	t.OnTier(tier)
	t.tiered = true
	return nil
}

func (t *Turn) lockAndAct(ctx context.Context) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.act(ctx)
}

// lockAndFail makes the turn unknown for as long as it cannot be watched.
func (t *Turn) lockAndFail(err error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.failed(err)
}

// look reads the Lease from the API server itself. It lists, although there is one
// Lease at most: the version of a Lease that has not changed for two minutes is older
// than what an API server keeps, and a watch that began there would be refused for ever.
// That of a list is the present one.
func (t *Turn) look(ctx context.Context) error {
	if !t.recalled {
		if err := t.recallEpoch(ctx); err != nil {
			return t.failed(err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, t.Config.timeout())
	defer cancel()
	ctx, reading := clock.Read(ctx)
	list, err := t.Leases.List(ctx, only(LeaseName))
	if err == nil {
		t.date, err = reading.Now()
	}
	switch {
	case err != nil:
		return t.failed(fmt.Errorf("reading the turn: %w", err))
	case len(list.Items) == 0:
		t.take(nil, nil)
		return t.failed(ErrMissing)
	}
	t.read = time.Now() // after the answer was dated, so that now is never ahead
	t.listed = list.ResourceVersion
	t.take(&list.Items[0], nil)
	return nil
}

// recallEpoch reads from the node's own record which epoch its gate has seen.
func (t *Turn) recallEpoch(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, t.Config.timeout())
	defer cancel()
	lease, err := t.Leases.Get(ctx, t.Config.Node, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
	case err != nil:
		return fmt.Errorf("reading the record of this node: %w", err)
	default:
		r, _ := record.Parse(lease) // a record that is malformed is written anew
		t.epoch = max(t.epoch, r.TurnEpoch)
	}
	t.recalled = true
	return nil
}

// take makes a Lease, or the lack of one, what is known.
func (t *Turn) take(lease *coordinationv1.Lease, problem error) {
	t.lease, t.problem, t.unread = lease, problem, false
	if lease == nil {
		t.state, t.operator = State{}, Operator{}
		return
	}
	t.operator = ParseOperator(lease)
	state, err := Parse(lease)
	if err != nil {
		t.problem = err
		return
	}
	if state.Epoch < t.epoch {
		t.problem = fmt.Errorf("the turn's epoch is %d, and %d was seen already: its Lease was set back or made anew; see docs/turn.md", state.Epoch, t.epoch)
		return
	}
	t.state, t.epoch = state, state.Epoch
	t.OnEpoch(t.epoch)
}

// now is the API server's time.
func (t *Turn) now() time.Time { return t.date.Add(time.Since(t.read)) }

// act decides, observes what that needs, and writes what follows, until there is
// nothing more to write.
func (t *Turn) act(ctx context.Context) error {
	defer t.publish()
	for range 5 {
		switch {
		case t.unread:
			return t.problem
		case t.problem != nil:
			return nil
		}
		d, err := t.decide(ctx)
		if err != nil || d.Write == nil {
			return err
		}
		// What is written depends on the time, and the own clock drifts in a soak.
		version := t.lease.ResourceVersion
		if err := t.look(ctx); err != nil {
			return err
		}
		if t.problem != nil || t.lease.ResourceVersion != version {
			continue
		}
		t.question.seen.Now = t.now()
		if t.decision = t.question.decide(t.state, t.operator); t.decision.Write == nil {
			return nil
		}
		if err := t.write(ctx, t.decision); err != nil {
			return err
		}
	}
	return t.failed(errors.New("the turn changes faster than it can be followed"))
}

// question is what Decide was asked last, beside the Lease.
type question struct {
	config Config
	local  Local
	seen   Seen
}

func (q question) decide(s State, o Operator) Decision {
	return Decide(q.config, s, o, q.local, q.seen)
}

// decide asks Decide, and observes what it needs and is due.
func (t *Turn) decide(ctx context.Context) (Decision, error) {
	t.question = question{seen: Seen{Now: t.now()}}
	q := &t.question
	seen := &q.seen
	t.seeRelease(seen)
	c := t.Config
	c.Soak = t.SoakOf(t.operator.Overridden(seen.Now))
	mine := t.state.HeldBy(c.Node)
	gate := t.gate()
	local := Local{Pending: gate.Pending, BootedAt: gate.BootedAt, Open: gate.Open, ClosedFor: time.Since(later(gate.ClosedSince, t.confirmed)), Ready: t.ready, NodeBlocked: gate.NodeBlocked}
	if gate.Overdue && mine {
		if t.holder == nil || t.holderOf != t.state.Epoch || time.Since(t.holderAt) > t.Config.checkEvery() {
			if err := t.observe(ctx); err != nil {
				return Decision{}, t.failed(err)
			}
		}
		local.NotActedOn = t.holder.LockKnown && !t.holder.LockNamed
	}
	q.config, q.local = c, local
	seen.HolderDown = t.holder != nil && t.holderOf == t.state.Epoch && t.holder.Down && time.Since(t.holderAt) < c.GrantTimeout
	d := q.decide(t.state, t.operator)
	if d.Need == NeedHolder && (mine || t.due()) {
		if err := t.observe(ctx); err != nil {
			return d, t.failed(err)
		}
		seen.Holder, seen.HolderDown = t.holder, t.holder.Down
		d = q.decide(t.state, t.operator)
	}
	if d.Need == NeedCandidates && (mine || t.drawn()) {
		candidates, err := t.candidates(ctx)
		if err != nil {
			return d, err
		}
		seen.Candidates = &candidates
		d = q.decide(t.state, t.operator)
		t.chooseAt = time.Time{}
	}
	if d.Need != NeedCandidates && d.Write == nil {
		t.chooseAt = time.Time{}
	}
	t.decision = d
	return d, nil
}

// failed makes the turn unknown until it is read anew.
func (t *Turn) failed(err error) error {
	t.problem, t.unread, t.vouched = err, true, ""
	t.publish()
	return err
}

// seeRelease keeps how long a release was seen.
func (t *Turn) seeRelease(seen *Seen) {
	switch {
	case t.operator.Release != t.state.Epoch || t.operator.Release == 0:
		t.releasedOf = 0
	case t.releasedOf != t.operator.Release:
		t.releasedOf, t.released = t.operator.Release, time.Now()
	}
	if t.releasedOf != 0 {
		seen.ReleasedFor = time.Since(t.released)
	}
}

// lookPause spreads the looks at a holder over those who wait. The few whom the
// turn names share them. The others look seldom, in case those few are gone: the
// turn does not tell how many have begun to wait since the holder was chosen.
func (t *Turn) lookPause() time.Duration {
	sharing := max(t.state.Waiting, crowd)
	if slices.Contains(t.state.Next, t.Config.Node) {
		sharing = len(t.state.Next)
	}
	return time.Duration(float64(t.Config.checkEvery()) * float64(sharing) * (0.5 + t.random()))
}

// due reports whether the time has come to look at the holder, and sets the next
// one. In each epoch it begins anew, spread as widely as it goes on: else all who
// wait would look at once when a soak has ended.
func (t *Turn) due() bool {
	now, pause := time.Now(), t.lookPause()
	if t.checkOf != t.state.Epoch {
		t.checkOf, t.checkAt = t.state.Epoch, now.Add(time.Duration(t.random()*float64(pause)))
		return false
	}
	if now.Before(t.checkAt) {
		return false
	}
	t.checkAt = now.Add(pause)
	return true
}

// drawn reports whether this gate's moment has come to choose: those who wait
// draw one each, so that they do not all list the records at once. The draw is
// exponential, the steeper the more wait: the first is alone for long enough to be
// seen by the others, however many they are.
func (t *Turn) drawn() bool {
	if t.chooseOf != t.state.Epoch || t.chooseAt.IsZero() {
		steep := 1 + math.Log(float64(max(t.state.Waiting, crowd)))
		moment := math.Log1p(t.random()*math.Expm1(steep)) / steep
		t.chooseOf, t.chooseAt = t.state.Epoch, time.Now().Add(time.Duration(moment*float64(min(spread, t.Config.Interval))))
	}
	return !time.Now().Before(t.chooseAt)
}

// observe looks at the holder: its Node object, its record, and where it is this
// node, kured's lock.
func (t *Turn) observe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, t.Config.timeout())
	defer cancel()
	name := t.state.Holder
	nodes, err := t.Nodes.List(ctx, only(name))
	if err != nil {
		return fmt.Errorf("reading the node %s, which has the turn: %w", name, err)
	}
	h := Holder{Gone: len(nodes.Items) == 0}
	if !h.Gone {
		t.goneSince = time.Time{}
		node := nodes.Items[0]
		h.NodeBootID, h.Unschedulable = node.Status.NodeInfo.BootID, node.Spec.Unschedulable
		h.Down = h.Unschedulable || !slices.ContainsFunc(node.Status.Conditions, func(c corev1.NodeCondition) bool {
			return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
		})
	} else if t.goneSince.IsZero() || t.holderOf != t.state.Epoch {
		t.goneSince = time.Now()
	}
	if h.Gone {
		h.GoneFor = time.Since(t.goneSince)
		t.checkAt = time.Now().Add(max(t.Config.gone()-h.GoneFor, 0))
	}
	lease, err := t.Leases.Get(ctx, name, metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("reading the record of %s, which has the turn: %w", name, err)
	}
	if err == nil {
		if r, err := record.Parse(lease); err == nil {
			h.RecordBootID, h.RecordBootedAt = r.BootID, r.BootedAt
		}
	}
	if name == t.Config.Node {
		h.LockKnown, h.LockNamed = t.lock(ctx)
	}
	t.holder, t.holderAt, t.holderOf = &h, time.Now(), t.state.Epoch
	return nil
}

// lock reads kured's.
func (t *Turn) lock(ctx context.Context) (known, named bool) {
	kured := t.Kured()
	sets, err := t.DaemonSets(kured.Namespace).List(ctx, only(kured.Name))
	if err == nil && len(sets.Items) == 0 {
		err = errors.New("there is no such DaemonSet")
	}
	var nodes []string
	if err == nil {
		nodes, err = LockNames(sets.Items[0].Annotations[kured.Annotation])
	}
	if err != nil {
		t.Log.Warn("kured's lock cannot be read, so the turn stays where it is", "daemonSet", kured.Namespace+"/"+kured.Name, "error", err)
		return false, false
	}
	for _, node := range nodes {
		named = named || node == t.Config.Node
	}
	return true, named
}

// candidates lists the records. Where none tells of a later epoch they have vouched
// for this version of the Lease; else an old copy was restored, and it is refused.
func (t *Turn) candidates(ctx context.Context) ([]Candidate, error) {
	ctx, cancel := context.WithTimeout(ctx, t.Config.timeout())
	defer cancel()
	candidates, err := List(ctx, t.Leases)
	if err != nil {
		return nil, t.failed(err)
	}
	var newest int64
	for _, c := range candidates {
		newest = max(newest, c.Epoch)
	}
	if newest <= t.state.Epoch {
		t.vouched = t.lease.ResourceVersion
		return candidates, nil
	}
	// Somebody may have written both since the Lease was read. A Lease that is read
	// after the records and is older than they say was set back.
	if err := t.look(ctx); err != nil {
		return nil, err
	}
	if t.epoch = max(t.epoch, newest); t.problem == nil {
		t.take(t.lease, nil)
	}
	return candidates, t.problem
}

// List returns all nodes that have a record, also those that do not wait: they too
// have seen an epoch. Whose record cannot be read does not wait.
func List(ctx context.Context, leases LeaseLister) ([]Candidate, error) {
	var candidates []Candidate
	options := metav1.ListOptions{LabelSelector: record.Label, Limit: 500}
	for {
		list, err := leases.List(ctx, options)
		if err != nil {
			return nil, fmt.Errorf("listing the records: %w", err)
		}
		for i := range list.Items {
			r, err := record.Parse(&list.Items[i])
			if err != nil {
				r.PendingSince = time.Time{}
			}
			candidates = append(candidates, Candidate{Node: r.Node, BootID: r.BootID, Tier: r.Tier, PendingSince: r.PendingSince, BootedAt: r.BootedAt, Epoch: r.TurnEpoch})
		}
		if options.Continue = list.Continue; options.Continue == "" {
			return candidates, nil
		}
	}
}

// vouch compares the Lease with the records: this gate may have seen less than others
// before somebody restored an old copy of the Lease. Where the Lease has changed
// meanwhile it decides anew.
func (t *Turn) vouch(ctx context.Context) error {
	version := t.lease.ResourceVersion
	if t.vouched == version {
		return nil
	}
	_, err := t.candidates(ctx)
	if err == nil && t.lease.ResourceVersion != version {
		_, err = t.decide(ctx)
	}
	return err
}

// write writes what was decided, if nobody has written meanwhile.
func (t *Turn) write(ctx context.Context, d Decision) error {
	version := t.lease.ResourceVersion
	if err := t.vouch(ctx); err != nil || t.lease.ResourceVersion != version {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, t.Config.timeout())
	defer cancel()
	lease := t.lease.DeepCopy()
	d.Write.Put(lease)
	written, err := t.Leases.Update(ctx, lease, metav1.UpdateOptions{})
	if apierrors.IsConflict(err) { // another was quicker
		if err := t.look(ctx); err != nil || t.problem != nil {
			return err
		}
		_, err := t.decide(ctx)
		return err
	}
	if err != nil {
		// It may have been written all the same: only a look can tell.
		return t.failed(fmt.Errorf("writing the turn: %w", err))
	}
	before := t.state
	t.take(written, nil)
	if t.problem != nil {
		return t.problem
	}
	t.vouched = written.ResourceVersion
	t.Log.Info("the turn: "+d.Why, "phase", string(t.state.Phase), "holder", t.state.Holder, "epoch", t.state.Epoch, "previousPhase", string(before.Phase), "previousHolder", before.Holder)
	if err := t.recordEpoch(ctx); err != nil {
		return err
	}
	_, err = t.decide(ctx)
	return err
}

// recordEpoch makes sure that the epoch is not forgotten with this process.
func (t *Turn) recordEpoch(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, t.Config.timeout())
	defer cancel()
	if err := t.RecordEpoch(ctx, t.state.Epoch); err != nil {
		return t.failed(err)
	}
	return nil
}

// Confirm reads the turn afresh for an evaluation that passed: it returns nil
// if the gated sentinel may resolve. Where the turn is not open yet it is opened
// first.
func (t *Turn) Confirm(ctx context.Context) (err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	defer t.publish()
	defer func() {
		if t.unread {
			t.hasten() // Run reads it anew
		}
	}()
	if err = t.look(ctx); err != nil {
		return err
	}
	if !t.followed {
		signal(t.reached) // a gate that is open must hear of a halt at once
	}
	// From now on the gate may open, which is told a moment later.
	before := t.confirmed
	t.ready, t.confirmed = true, time.Now()
	defer func() {
		t.ready = false
		if err != nil {
			t.confirmed = before
		}
	}()
	if t.problem == nil {
		var d Decision
		d, err = t.decide(ctx)
		if err == nil && d.Write != nil {
			err = t.write(ctx, d)
		}
		if err == nil && t.decision.Permit {
			err = t.vouch(ctx)
		}
		if err == nil && t.decision.Permit {
			err = t.recordEpoch(ctx) // by a gate that found its turn open
		}
		if err != nil {
			return err
		}
	}
	switch {
	case t.problem != nil:
		return t.problem
	case !t.decision.Permit || t.state.Phase != Open || t.state.Holder != t.Config.Node || t.state.BootID != t.Config.BootID:
		return errors.New(t.decision.Why)
	}
	return nil
}

// View returns what was seen last.
func (t *Turn) View() View { return *t.current.Load() }

// Permits reports whether, by what was seen last, the gated sentinel may resolve.
func (t *Turn) Permits() bool { return t.View().Permits() }

// Permits reports whether the gated sentinel may resolve.
func (v View) Permits() bool {
	return v.Problem == nil && v.Decision.Permit && v.State.Phase == Open
}

// Evaluates reports whether the steps are to be asked.
func (v View) Evaluates() bool { return v.Problem == nil && v.Decision.Evaluate }

// String is a short form for logs: the phase and the holder.
func (v View) String() string {
	switch {
	case v.Problem != nil:
		return "unknown"
	case v.Operator.Halted:
		return "halted"
	case v.State.Phase == Unwritten:
		return "unused"
	case v.State.Holder == "" || v.State.Phase == Free:
		return string(v.State.Phase)
	}
	return string(v.State.Phase) + " " + v.State.Holder
}

func (t *Turn) view() View {
	v := View{State: t.state, Operator: t.operator, Decision: t.decision, Problem: t.problem}
	if v.Problem != nil {
		v.Decision = Decision{}
	}
	return v
}

// publish tells the latest view.
func (t *Turn) publish() {
	v := t.view()
	t.current.Store(&v)
	select {
	case <-t.views: // nobody has looked at the last one
	default:
	}
	t.views <- v
	if says := fmt.Sprint(v.Operator.Problems); says != t.logged && len(v.Operator.Problems) > 0 {
		t.logged = says
		t.Log.Warn("annotations of the turn's Lease that cannot be understood are ignored", "problems", v.Operator.Problems)
	}
}
