package turn

import (
	"errors"
	"fmt"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/util/resourceversion"

	"github.com/sentinel-gate/sentinel-gate/gate/soak"
)

// maxRounds is how often in a row the turn may change between its being read and its
// being written.
const maxRounds = 5

// ErrMissing is why the turn is not known where nobody has made its Lease.
var ErrMissing = fmt.Errorf("the turn's Lease %s does not exist: create it as docs/turn.md describes", LeaseName)

var (
	errUnread  = errors.New("the turn has not been read yet")
	errDeleted = errors.New("the turn's Lease was deleted: create it again as docs/turn.md describes")
	errBusy    = errors.New("the turn changes faster than it can be followed")
)

// core is one gate's part in the turn as a state machine. It is told events with
// their time and answers with effects: what it wants done. It has no client, no
// clock, no lock and no goroutine, so that the same code runs in the daemon, in
// property tests and in transcripts (testdata/*.txt).
//
// At most one request of it is under way at any time. What happens meanwhile is
// taken in at once; what follows from it waits for the answer.
type core struct {
	config Config
	soakOf func(overridden map[string]Override) time.Duration
	// random returns a number in [0, 1).
	random func() float64

	now time.Time // of the event at hand, on the own clock

	// What it remembers, by what it is about.
	own
	known
	reading
	following
	observed
	pacing
	asking
	patience patience

	move    Move
	setBack bool // a Lease that is older than one that was seen before was read just now
	busy    bool // a request is under way,
	writing bool // to write the Lease
}

// own is what the gate said of itself, and what its record knows.
type own struct {
	gate      Gate
	updated   bool // it has said something
	recalled  bool // the record was asked
	bootedAt  time.Time
	recorded  int64     // the highest epoch that the record tells of,
	owed      int64     // and the one that must be in it before anything follows
	owes      time.Time // since when it is not; zero: it is
	waitsFrom time.Time // when it began to wait, or what it waits for changed
	cordoned  bool      // by somebody other than kured, by the last look
	hidden    time.Time // since when the Node object or the record do not show this boot; zero: they do, for all that is known
}

// known is the Lease, as it was read or heard of last.
type known struct {
	lease    *coordinationv1.Lease // nil: there is none, or it is not known
	state    State
	operator Operator
	problem  error
	epoch    int64     // the highest that was seen
	phaseOf  int64     // the epoch that is known,
	phaseAt  time.Time // when it was first seen,
	knownAt  time.Time // and when last
	// soaksFrom is when, on the own clock, the last soak began whose beginning was seen;
	// zero: it is over.
	soaksFrom time.Time
	stale     bool  // it must be read before anything follows from it
	suspect   int64 // an epoch that a record told of: the Lease that is read next must not be older
	rounds    int   // how often in a row it changed between its being read and its being written
}

// reading is the last answer that the Lease was read from.
type reading struct {
	readAt time.Time // when it came, on the own clock,
	asOf   time.Time // when it was asked for,
	date   time.Time // and its date, by the API server's clock
	set    bool      // it is the one at hand, and its date was set
}

// following is the watch, and the pauses between attempts to reach the API server.
type following struct {
	follow   string // the version from which the Lease is watched; empty: it is not
	followed time.Time
	pause    time.Duration // the next one
	pausing  time.Time     // until when
}

// observed is what was observed beside the Lease.
type observed struct {
	// Since the last event from outside.
	holder     *Holder
	candidates *[]Candidate
	members    []soak.Node
	// Before.
	last       sighting
	verified   string // the version of the Lease than which no record tells of a later epoch
	listedOf   string // the version at which the records are being listed
	soughtOf   int64  // the epoch in which this node looked last whether anybody may go,
	soughtFor  string // and what it would run then, by its record
	releasedOf int64
	releasedAt time.Time
}

// pacing is when the next look at the holder and the next choice are due, and of which
// epoch, and when to decide anew where nothing changes.
type pacing struct {
	lookAt, chooseAt time.Time
	lookOf, chooseOf int64
	againAt          time.Time
	rereadAt         time.Time // when the Lease is to be read although nothing is known to have changed
}

// asking is the question whether the gate may open. From when it is put until some time
// after it was granted the gate counts as not closed: it may open at any moment.
type asking struct {
	askedAt   time.Time // zero: nobody asks
	confirmed time.Time // when it was granted last
}

// sighting is what was seen of a holder, and when.
type sighting struct {
	Holder
	at, goneSince time.Time
	epoch         int64
	known         bool
}

// newCore returns a core that knows nothing yet.
func newCore(c Config, soakOf func(map[string]Override) time.Duration, random func() float64) *core {
	core := &core{config: c, soakOf: soakOf, random: random}
	core.problem, core.stale, core.pause = errUnread, true, firstPause
	return core
}

// step takes an event in, and returns what is wanted done. now must not go back.
func (c *core) step(now time.Time, e Event) Effects {
	c.now, c.setBack = now, false
	var out Effects
	c.take(e, &out)
	c.patience.count(now, c.state, c.gate)
	if c.problem == nil {
		c.decide() // also while a request is under way: a halt waits for nobody
	}
	if c.updated && !c.busy {
		out.Request = c.next(&out)
		c.busy = out.Request != nil
	}
	out.Follow, out.WakeAt, out.SetBack = c.follow, c.wakeAt(), c.setBack
	return out
}

// view is what the gate may know of the turn.
func (c *core) view() View {
	if c.problem != nil {
		return View{State: c.state, Operator: c.operator, Problem: c.problem}
	}
	return View{State: c.state, Operator: c.operator, Move: c.move}
}

// take makes the event part of what is known.
func (c *core) take(e Event, out *Effects) {
	switch e.(type) {
	case Updated, Asked, Woken, Heard, Unfollowed: // from outside
		c.holder, c.candidates, c.members = nil, nil, nil
	case Unasked:
	default:
		c.busy = false
	}
	switch e := e.(type) {
	case Updated:
		if !c.updated || e.Pending && !c.gate.Pending || e.Parts != c.gate.Parts {
			c.waitsFrom = c.now
		}
		c.gate, c.updated = e.Gate, true
	case Asked:
		c.askedAt = c.now
	case Unasked:
		c.askedAt = time.Time{}
	case Woken:
		c.rounds = 0
		// A time that was waited for, and nothing followed from it: perhaps the watch is silent.
		if due := c.rereadAt; !due.IsZero() && !c.now.Before(due) {
			c.rereadAt, c.stale = time.Time{}, true
		}
	case Heard:
		c.onHeard(e)
	case Unfollowed:
		c.onUnfollowed(e, out)
	case Recalled:
		c.onRecalled(e, out)
	case Read:
		c.onRead(e, out)
	case Looked:
		c.onLooked(e, out)
	case Listed:
		c.onListed(e, out)
	case Wrote:
		c.onWrote(e, out)
	case Recorded:
		if e.Err != nil {
			c.failed(e.Err, out)
		} else {
			c.recorded = max(c.recorded, e.Epoch)
			c.owes = time.Time{}
		}
	}
}

func (c *core) onHeard(e Heard) {
	switch {
	case c.follow == "": // of a watch that is over
	case c.lease != nil && older(e.Lease, c.lease): // it was read meanwhile, and what followed it
	case e.Deleted:
		c.know(nil, errDeleted)
	default:
		c.know(e.Lease, nil)
	}
}

func (c *core) onUnfollowed(e Unfollowed, out *Effects) {
	if c.follow == "" {
		return
	}
	if e.Err != nil { // until it can be watched a halt would not be heard of
		c.failed(fmt.Errorf("watching the turn: %w", e.Err), out)
	} else { // API servers end a watch now and then; one that does so at once is not asked without end
		c.follow, c.stale, c.pause = "", true, firstPause
		c.pausing = c.followed.Add(firstPause)
	}
	// One that stops ends the watches of all who wait at once.
	if !c.state.HeldBy(c.config.Node) {
		c.pausing = later(c.pausing, c.now.Add(time.Duration(c.random()*float64(min(spread, c.config.Interval)))))
	}
}

func (c *core) onRecalled(e Recalled, out *Effects) {
	if e.Err != nil {
		c.failed(e.Err, out)
		return
	}
	c.recalled, c.bootedAt = true, e.BootedAt
	c.recorded, c.epoch = max(c.recorded, e.Epoch), max(c.epoch, e.Epoch)
}

func (c *core) onRead(e Read, out *Effects) {
	if e.Err != nil {
		c.failed(fmt.Errorf("reading the turn: %w", e.Err), out)
		return
	}
	// The answer was dated before it arrived, so that the time is never ahead.
	c.readAt, c.asOf, c.date, c.set = c.now, e.Asked, e.Date, e.Set
	defer func() { c.set = false }()
	c.stale, c.epoch, c.suspect = false, max(c.epoch, c.suspect), 0
	switch {
	case c.follow != "" && c.lease != nil && before(e.Version, c.lease.ResourceVersion): // what followed was heard of already
	case e.Lease == nil:
		c.know(nil, ErrMissing)
	default:
		c.know(e.Lease, nil)
	}
	if c.follow == "" && c.concerned() {
		c.follow, c.followed = e.Version, c.now
	}
	if !c.askedAt.IsZero() { // it can be reached again, whatever the pause
		c.pause = firstPause
	}
	c.pausing = time.Time{}
}

// older reports whether a was written before b.
func older(a, b *coordinationv1.Lease) bool { return before(a.ResourceVersion, b.ResourceVersion) }

// before reports whether one resource version is before another.
func before(a, b string) bool {
	order, err := resourceversion.CompareResourceVersion(a, b)
	return err == nil && order < 0
}

func (c *core) onLooked(e Looked, out *Effects) {
	if e.Err != nil {
		c.failed(e.Err, out)
		return
	}
	if e.Node != c.state.Holder {
		return // the turn has moved on meanwhile
	}
	h := e.Holder
	seen := sighting{at: c.now, epoch: c.state.Epoch, known: true}
	if h.Gone {
		if seen.goneSince = c.now; c.last.epoch == seen.epoch && !c.last.goneSince.IsZero() {
			seen.goneSince = c.last.goneSince
		}
		h.GoneFor = c.now.Sub(seen.goneSince)
		if left := c.config.gone() - h.GoneFor; left > 0 {
			c.lookAt = c.now.Add(left)
		}
	}
	if e.Node == c.config.Node {
		c.cordoned = h.Unschedulable && h.LockKnown && !h.LockNamed
		switch {
		case !h.hides(c.config):
			c.hidden = time.Time{}
		case c.hidden.IsZero():
			c.hidden = c.now
		}
	}
	seen.Holder = h
	c.last, c.holder = seen, &h
}

func (c *core) onListed(e Listed, out *Effects) {
	if e.Err != nil {
		c.failed(e.Err, out)
		return
	}
	c.chooseAt = time.Time{}
	if c.lease == nil || c.lease.ResourceVersion != c.listedOf {
		return // the turn has changed meanwhile
	}
	var newest int64
	for _, candidate := range e.Candidates {
		newest = max(newest, candidate.Epoch)
	}
	if newest > c.state.Epoch {
		// Somebody may have written both since the Lease was read. A Lease that is read
		// after the records and is older than they say was set back.
		c.suspect, c.stale = newest, true
		return
	}
	if c.verified = c.listedOf; e.Nodes {
		c.candidates, c.members = &e.Candidates, e.Members
		if own := ownOf(e.Candidates, c.config.Node); own != nil && !own.PendingSince.IsZero() {
			c.soughtOf, c.soughtFor = c.state.Epoch, own.Parts
		}
	}
}

func (c *core) onWrote(e Wrote, out *Effects) {
	c.writing = false
	switch {
	case e.Conflict: // another was quicker
		c.stale = true
		if c.rounds++; c.rounds >= maxRounds {
			c.failed(errBusy, out)
		}
	case e.Err != nil:
		// It may have been written all the same: only a look can tell.
		c.failed(fmt.Errorf("writing the turn: %w", e.Err), out)
	default:
		c.rounds = 0
		if c.lease == nil || !older(e.Lease, c.lease) { // else what followed was heard of already
			c.know(e.Lease, nil)
			c.verified = e.Lease.ResourceVersion
		}
		if c.owed = max(c.owed, e.Epoch); c.owes.IsZero() {
			c.owes = c.now
		}
	}
}

// know makes a Lease, or the lack of one, what is known.
func (c *core) know(lease *coordinationv1.Lease, problem error) {
	if lease == nil || c.lease == nil || lease.ResourceVersion != c.lease.ResourceVersion {
		c.holder, c.candidates, c.members = nil, nil, nil
	}
	if c.lease, c.problem = lease, problem; lease == nil {
		c.state, c.operator = State{}, Operator{}
		return
	}
	c.operator = ParseOperator(lease)
	state, err := Parse(lease)
	if err != nil {
		c.problem = err
		return
	}
	if state.Epoch < c.epoch {
		c.setBack = true
		c.problem = fmt.Errorf("the turn's epoch is %d, but %d was already seen: an old copy of the Lease was restored, or it was created again; see docs/turn.md", state.Epoch, c.epoch)
		return
	}
	c.state, c.epoch = state, state.Epoch
	if !state.HeldBy(c.config.Node) { // it is looked at anew when it has the turn again
		c.cordoned, c.hidden = false, time.Time{}
	}
	if state.Phase == PhaseSoaking && (c.set || c.phaseAt.IsZero() || c.phaseOf != state.Epoch) {
		c.soaksFrom = c.soakBegan(state)
	}
	if c.phaseAt.IsZero() || c.phaseOf != state.Epoch {
		c.phaseOf, c.phaseAt = state.Epoch, c.now
	}
	c.knownAt = c.now
}

// soakBegan is when a soak began, on the own clock, that is seen for the first time.
func (c *core) soakBegan(s State) time.Time {
	if c.set { // what the date says of it is not known
		return c.now
	}
	began := c.now.Add(-max(c.apiTime().Sub(s.RebootedAt), 0))
	if !c.phaseAt.IsZero() { // it began after that was known, whatever the date
		began = later(began, c.knownAt)
	}
	if !c.phaseAt.IsZero() && c.phaseOf == s.Epoch-1 { // and was written just now
		began = later(began, c.now.Add(-max(s.Since.Sub(s.RebootedAt), 0)))
	}
	return began
}

// failed makes the turn unknown until it is read anew.
func (c *core) failed(err error, out *Effects) {
	if c.follow != "" && c.now.Sub(c.followed) > lastPause {
		c.pause = firstPause
	}
	c.problem, c.stale, c.verified, c.follow = err, true, "", ""
	c.pausing = c.now.Add(time.Duration(float64(c.pause) * (0.5 + c.random())))
	c.pause = min(2*c.pause, lastPause)
	c.answer(out, err)
}

// answer answers the question whether the gate may open; nil: it may.
func (c *core) answer(out *Effects, refusal error) {
	if c.askedAt.IsZero() {
		return
	}
	out.Answer = &Answer{Permitted: refusal == nil, Refusal: refusal}
	if c.askedAt = (time.Time{}); refusal == nil {
		c.confirmed = c.now
	}
}

// concerned reports whether the node waits or has the turn, for all that is known.
func (c *core) concerned() bool {
	return c.view().Concerns(c.config.Node, c.gate.Pending)
}
