package turn

import (
	"fmt"
	"time"

	"github.com/sentinel-gate/sentinel-gate/gate/clock"
	"github.com/sentinel-gate/sentinel-gate/gate/soak"
)

// The least that Config.Settle, Config.GrantTimeout and Config.Aging may be. Settle must
// be longer than kured takes from its look at the sentinel to its lock, GrantTimeout than
// a gate takes from its turn to its opening, and Aging than a rollout of a few nodes.
const (
	MinSettle       = time.Minute
	MinGrantTimeout = 5 * time.Minute
	MinAging        = time.Hour
)

// Config is what does not change while the gate runs.
type Config struct {
	Node, BootID string
	// Soak is how long it must be quiet after a reboot. A Turn takes it from
	// Options.SoakOf.
	Soak time.Duration
	// MaxAge is how long a gate may stay open without a fresh evaluation.
	MaxAge time.Duration
	// Settle is how long a gate that was open must be closed before its node
	// gives the turn up.
	Settle time.Duration
	// GrantTimeout is how long a gate may be open without kured acting on it.
	GrantTimeout time.Duration
	// Aging is how long a node may be overtaken by those of lower tiers.
	Aging time.Duration
	// Interval lies between two evaluations.
	Interval time.Duration
	// Exposure is the rule by which more than one node may be in soak at a time, but for its
	// Soak, which is that above; nil: one at a time.
	Exposure *soak.Rule
}

// exposed reports whether more than one node may be in soak at a time.
func (c Config) exposed() bool { return c.Exposure != nil && c.Soak > 0 }

// gone is how long after it was released or its Node object was last seen a
// holder's gate is surely closed: MaxAge, and as much again for a request under
// way, for times that are kept to the second, and for a node that is busy.
func (c Config) gone() time.Duration { return 2 * c.MaxAge }

// timeout bounds one request that reads: well within what gone allows for it.
func (c Config) timeout() time.Duration { return min(5*time.Second, c.MaxAge/2) }

// earlyBy is by how much somebody may end a soak early by the own clock without a word:
// those of the API servers may be apart by as much.
func (c Config) earlyBy() time.Duration { return min(clock.Tolerance, c.Soak/10) }

// checkEvery is how often one of those who wait looks at what became of a holder
// whose gate was opened.
func (c Config) checkEvery() time.Duration { return max(2*c.Interval, time.Second) }

// silence is how long a holder may take to acknowledge its turn.
func (c Config) silence() time.Duration { return max(5*c.Interval, 2*time.Minute) }

// Local is what the gate knows of itself.
type Local struct {
	// Pending: its node waits for a reboot.
	Pending bool
	// BootedAt is when its node booted, by the API server's clock.
	BootedAt time.Time
	// Open: its gated sentinel resolves. ClosedFor is how long it has not, by
	// the monotonic clock.
	Open      bool
	ClosedFor time.Duration
	// Ready: every step has passed for long enough.
	Ready bool
	// NodeBlocked: for an interval at least, only steps that are about this node
	// have held it back.
	NodeBlocked bool
	// NotActedOn: it has been open for GrantTimeout of kured's own time, and
	// kured's lock does not name the node.
	NotActedOn bool
	// Cannot is why this node cannot use the turn, for longer than is waited for;
	// empty: nothing of the kind is known.
	Cannot Cause
	// Unseen: it began to wait, or what it waits for changed, so lately that whoever chose
	// last may not have seen that, and it has not looked since.
	Unseen bool
	// Parts are those that it would run, as its record is to tell them.
	Parts string
	// KuredsLock is what is wrong with kured's lock, so that nobody can take it; empty:
	// nothing that is known.
	KuredsLock string
}

// Seen is what was observed beside the Lease. What was not is nil.
type Seen struct {
	// Now is by the API server's clock.
	Now time.Time
	// PhaseFor is how long the present epoch has been seen, by the own clock: it has
	// lasted for at least as long.
	PhaseFor time.Duration
	// SoakLeft is what is left, by the own clock, of the last soak whose beginning was
	// seen.
	SoakLeft time.Duration
	// ReleasedFor is how long the present epoch has been seen to be released,
	// by the monotonic clock.
	ReleasedFor time.Duration
	Holder      *Holder
	// HolderDown is Holder.Down by the last look in this epoch, unless that is older
	// than Config.GrantTimeout.
	HolderDown bool
	// LeftCordoned: by the last look in this epoch the holder is cordoned, although
	// kured's lock does not name it.
	LeftCordoned bool
	// Candidates are all nodes that have a record, and Members, with exposure, what is known
	// of the soaks of all nodes.
	Candidates *[]Candidate
	Members    []soak.Node
}

// Need is what must be observed before it can be decided.
type Need int

const (
	// Nothing is needed: it is decided.
	Nothing Need = iota
	// NeedHolder asks for Seen.Holder.
	NeedHolder
	// NeedCandidates asks for Seen.Candidates.
	NeedCandidates
)

// Move is what this gate does next about the turn.
type Move struct {
	// Write is what is to be written in the place of the state, if anything.
	Write *State
	// Evaluate: this node has the turn, and its steps are to be asked.
	Evaluate bool
	// Permit: the gated sentinel may resolve, if the steps pass.
	Permit bool
	// Why is a sentence for a person.
	Why string
	// Need must be observed first; the rest holds meanwhile.
	Need Need
	// Again is when to decide anew where nothing changes; zero: never.
	Again time.Duration
	// Loud: somebody should look at this.
	Loud bool

	// keepsSince: what is written is no new phase.
	keepsSince bool
	// wholeSoak: whatever exposure allows, a whole soak follows.
	wholeSoak bool
}

// Decide is the protocol: what the gate on this node does about the turn. It is
// a pure function; only compare-and-swap makes what it writes so.
func Decide(c Config, s State, o Operator, l Local, seen Seen) Move {
	d := decide(c, s, o, l, seen)
	if d.Write != nil {
		if d.Write.Epoch = s.Epoch + 1; !d.keepsSince {
			d.Write.Since = seen.Now
		}
		d.Permit = d.Permit && d.Write.Phase == PhaseOpen
		began := d.Write.Phase == PhaseSoaking && s.Phase == PhaseSoaking // and its soak was promised
		d.Write.Exposed = c.exposed() && !d.wholeSoak && (!began || s.Exposed)
		if d.Write.Exposed && d.Write.RebootedAt.IsZero() {
			d.Write.RebootedAt = s.RebootedAt
		}
		if d.Write.Exposed && d.Write.Soaks == (Soaks{}) {
			d.Write.Soaks = s.Soaks
		}
	}
	return d
}

func decide(c Config, s State, o Operator, l Local, seen Seen) Move {
	mine := s.HeldBy(c.Node)
	switch {
	case s.Phase == PhaseUnwritten && l.Pending:
		return Move{Write: &State{Phase: PhaseSoaking, RebootedAt: seen.Now}, wholeSoak: true, Why: "the turn's Lease is new, so earlier reboots are unknown; a soak begins"}
	case s.Phase == PhaseUnwritten:
		return Move{Why: "the turn has never been used"}
	case mine && (s.BootID != c.BootID || s.Phase == PhaseOpen && bootedSince(s, l.BootedAt)):
		return Move{Write: rebooted(c, s, l.BootedAt, seen.Now), Why: "this node has rebooted; its soak begins"}
	case o.Halted:
		return Move{Why: "halted: " + o.HaltReason, Loud: true}
	case (s.Phase == PhaseGranted || s.Phase == PhaseOpen) && o.Release == s.Epoch:
		if wait := c.gone() - seen.ReleasedFor; wait > 0 {
			return Move{Why: fmt.Sprintf("%s was released from its turn; it counts as rebooted in %s", s.Holder, wait.Round(time.Second)), Again: wait}
		}
		return Move{Write: rebooted(c, s, time.Time{}, seen.Now), wholeSoak: true, Why: s.Holder + " was released from its turn; a soak begins"}
	}
	switch s.Phase {
	case PhaseGranted:
		if mine {
			return grantedHere(c, s, o, l, seen)
		}
		return grantedElsewhere(c, s, o, l, seen)
	case PhaseOpen:
		if mine {
			return openHere(c, s, o, l, seen)
		}
		return openElsewhere(c, s, l, seen)
	case PhaseSoaking:
		return soaking(c, s, o, l, seen)
	default:
		return free(c, s, o, l, seen)
	}
}

// rebooted begins the soak. A boot that was recorded counts from when the turn
// last moved, at the earliest, and one whose time is not known from now.
func rebooted(c Config, s State, at, now time.Time) *State {
	// Now is at least as late as it says: the answer that told it took a while, and
	// it is kept, and told, to the second.
	latest := now.Add(c.timeout() + 2*time.Second)
	if at.IsZero() || at.After(latest) {
		at = latest
	}
	if s.Since.Before(latest) { // else it was written by a clock that is ahead
		at = later(at, s.Since)
	}
	return &State{Phase: PhaseSoaking, Holder: s.Holder, RebootedAt: at, Next: s.Next, Waiting: s.Waiting, PassedOver: s.unpass(s.Holder).PassedOver, Extended: s.Extended}
}

// bootedSince reports whether a boot of the holder's, by its record, came after its gate
// was opened. Not every reboot has a new boot id: that of a container that is a node
// has not.
func bootedSince(s State, at time.Time) bool { return at.After(s.Since.Add(clock.Tolerance)) }

// soaking waits for the end of the soak: by the API server's clock and, where its
// beginning was seen, by the own one.
func soaking(c Config, s State, o Operator, l Local, seen Seen) Move {
	if c.exposed() && s.Exposed {
		return between(c, s, o, l, seen)
	}
	over := later(s.RebootedAt.Add(c.Soak), s.Since.Add(c.gone()))
	wait := over.Sub(seen.Now)
	longest := max(c.Soak, c.gone()) + clock.Tolerance - seen.PhaseFor
	ahead := wait > longest
	if ahead { // by a clock that was ahead
		wait, over = longest, seen.Now.Add(longest)
	}
	if left := seen.SoakLeft; left > wait { // by one that was behind, or is ahead now
		wait, over = left, seen.Now.Add(left)
	}
	if wait <= 0 {
		return grant(c, s, o, l, seen, "", "the soak is over")
	}
	if l.Pending && s.responds(c.Node) {
		return respond(c, s)
	}
	why := s.Holder + " rebooted"
	if s.Holder == "" {
		why = "the turn's Lease is new, so earlier reboots are unknown"
	}
	d := Move{Why: fmt.Sprintf("soaking until %s: %s", text(over), why), Again: wait}
	if l.Pending && s.Holder != "" && seen.PhaseFor >= c.Settle && seen.Holder == nil {
		d.Need = NeedHolder
	}
	switch {
	case seen.LeftCordoned:
		d.Why, d.Loud = d.Why+"; it is back and still cordoned, although kured's lock is free: kured's uncordon failed; look at it, then kubectl uncordon "+s.Holder, true
	case ahead:
		d.Why, d.Loud = d.Why+", by a time in the turn that is in the future: the clock of an API server was or is ahead", true
	}
	return d
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// grant gives the turn to the best candidate behind the node that hands on.
// Where there is none it becomes free.
func grant(c Config, s State, o Operator, l Local, seen Seen, after, why string) Move {
	if !l.Pending {
		return Move{Why: why}
	}
	handsOn := s.Phase == PhaseGranted || s.Phase == PhaseOpen
	if reason, held := o.Held(c.Node); held && !handsOn { // those who are not choose
		return Move{Why: why + ", but this node is held: " + reason}
	}
	if seen.Candidates == nil {
		return Move{Need: NeedCandidates, Why: why}
	}
	if err := s.SetBack(*seen.Candidates); err != nil {
		return Move{Why: err.Error(), Loud: true}
	}
	ranked := Rank(*seen.Candidates, s.PassedOver, c.Aging, seen.Now)
	admit, admission := everybody, (*admission)(nil)
	if c.exposed() {
		admission = newAdmission(c, s, o, ranked, seen)
		admit = admission.admit
	}
	chosen, waiting, found := choose(ranked, o, after, func(n Candidate) bool { return s.ranksLast(n.Node, seen.Now) }, admit)
	notActedOn := s.NotActedOn
	if s.Phase == PhaseSoaking {
		notActedOn = 0
	}
	if !found && admission != nil && len(waiting) > 0 {
		return admission.nobody(s, l, seen, after, waiting, ownOf(*seen.Candidates, c.Node))
	}
	if !found {
		if !handsOn {
			return Move{Why: why + ", but this node's record does not say yet that it waits", Again: min(c.Interval, 5*time.Second)}
		}
		return Move{Write: &State{Phase: PhaseFree, Holder: after, NotActedOn: notActedOn, PassedOver: s.PassedOver}, Why: "no node waits; the turn becomes free"}
	}
	next := waiting
	if len(next) > nextNames {
		next = next[:nextNames]
	}
	var soaks Soaks
	if admission != nil {
		soaks = admission.soaks()
	}
	return Move{
		Write: &State{Soaks: soaks, Phase: PhaseGranted, Holder: chosen.Node, BootID: chosen.BootID, Acknowledged: chosen.Node == c.Node, NotActedOn: notActedOn, Next: next, Waiting: len(waiting), PassedOver: s.PassedOver},
		Why:   fmt.Sprintf("%s, and %s is next", why, chosen.Node),
	}
}

// ownOf returns the node's own among the candidates; nil: it is none.
func ownOf(candidates []Candidate, node string) *Candidate {
	for i := range candidates {
		if candidates[i].Node == node {
			return &candidates[i]
		}
	}
	return nil
}

// SetBack returns an error if the gate of a node has seen a newer epoch, so that
// this state is of an old copy of the Lease.
func (s State) SetBack(nodes []Candidate) error {
	for _, n := range nodes {
		if n.Epoch > s.Epoch {
			return fmt.Errorf("the turn's epoch %d is older than %d, which %s has seen: an old copy of the Lease was restored; see docs/turn.md", s.Epoch, n.Epoch, n.Node)
		}
	}
	return nil
}

// nextNames is how many of those who wait are named in the Lease.
const nextNames = 5

// ahead names those who were before the node when the holder was chosen.
func ahead(s State, node string) string {
	names := ""
	for _, name := range s.Next {
		if name == node {
			break
		}
		if name != s.Holder {
			names += ", " + name
		}
	}
	if names == "" {
		return ""
	}
	return "; ahead: " + names[2:]
}
