package turn

import (
	"fmt"
	"time"
)

// The least that Config.Settle and Config.GrantTimeout may be.
const (
	MinSettle       = time.Second
	MinGrantTimeout = time.Second
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
	// Interval lies between two evaluations.
	Interval time.Duration
}

// gone is how long after it was released or its Node object was last seen a
// holder's gate is surely closed: MaxAge, and as much again for a request under
// way, for times that are kept to the second, and for a node that is busy.
func (c Config) gone() time.Duration { return 2 * c.MaxAge }

// timeout bounds one request: well within what gone allows for it.
func (c Config) timeout() time.Duration { return min(5*time.Second, c.MaxAge/2) }

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
}

// Seen is what was observed beside the Lease. What was not is nil.
type Seen struct {
	// Now is by the API server's clock.
	Now time.Time
	// ReleasedFor is how long the present epoch has been seen to be released,
	// by the monotonic clock.
	ReleasedFor time.Duration
	Holder      *Holder
	// HolderDown is Holder.Down by the last look in this epoch, unless that is older
	// than Config.GrantTimeout.
	HolderDown bool
	// Candidates are all nodes that have a record.
	Candidates *[]Candidate
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
}

// Decide is the protocol: what the gate on this node does about the turn. It is
// a pure function; only compare-and-swap makes what it writes so.
func Decide(c Config, s State, o Operator, l Local, seen Seen) Move {
	d := decide(c, s, o, l, seen)
	if d.Write != nil {
		d.Write.Epoch, d.Write.Since = s.Epoch+1, seen.Now
		d.Permit = d.Permit && d.Write.Phase == PhaseOpen
	}
	return d
}

func decide(c Config, s State, o Operator, l Local, seen Seen) Move {
	mine := s.HeldBy(c.Node)
	switch {
	case s.Phase == PhaseUnwritten && l.Pending:
		return Move{Write: &State{Phase: PhaseSoaking, RebootedAt: seen.Now}, Why: "the turn's Lease is new, so earlier reboots are unknown; a soak begins"}
	case s.Phase == PhaseUnwritten:
		return Move{Why: "the turn has never been used"}
	case mine && s.BootID != c.BootID:
		return Move{Write: rebooted(c, s, l.BootedAt, seen.Now), Why: "this node has rebooted; its soak begins"}
	case o.Halted:
		return Move{Why: "halted: " + o.HaltReason, Loud: true}
	case (s.Phase == PhaseGranted || s.Phase == PhaseOpen) && o.Release == s.Epoch:
		if wait := c.gone() - seen.ReleasedFor; wait > 0 {
			return Move{Why: fmt.Sprintf("%s was released from its turn; it counts as rebooted in %s", s.Holder, wait.Round(time.Second)), Again: wait}
		}
		return Move{Write: rebooted(c, s, time.Time{}, seen.Now), Why: s.Holder + " was released from its turn; a soak begins"}
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
		over := later(s.RebootedAt.Add(c.Soak), s.Since.Add(c.gone()))
		if wait := over.Sub(seen.Now); wait > 0 {
			why := s.Holder + " rebooted"
			if s.Holder == "" {
				why = "the turn's Lease is new, so earlier reboots are unknown"
			}
			return Move{Why: fmt.Sprintf("soaking until %s: %s", text(over), why), Again: wait}
		}
		return grant(c, s, o, l, seen, "", "the soak is over")
	default:
		return grant(c, s, o, l, seen, s.Holder, "the turn is free")
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
	at = later(at, s.Since)
	return &State{Phase: PhaseSoaking, Holder: s.Holder, RebootedAt: at, Next: s.Next, Waiting: s.Waiting}
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
	chosen, waiting, found := choose(*seen.Candidates, o, after)
	notActedOn := s.NotActedOn
	if s.Phase == PhaseSoaking {
		notActedOn = 0
	}
	if !found {
		if !handsOn {
			return Move{Why: why + ", but this node's record does not say yet that it waits", Again: min(c.Interval, 5*time.Second)}
		}
		return Move{Write: &State{Phase: PhaseFree, Holder: after, NotActedOn: notActedOn}, Why: "no node waits; the turn becomes free"}
	}
	next := waiting
	if len(next) > nextNames {
		next = next[:nextNames]
	}
	return Move{
		Write: &State{Phase: PhaseGranted, Holder: chosen.Node, BootID: chosen.BootID, Acknowledged: chosen.Node == c.Node, NotActedOn: notActedOn, Next: next, Waiting: len(waiting)},
		Why:   fmt.Sprintf("%s, and %s is next", why, chosen.Node),
	}
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

func grantedHere(c Config, s State, o Operator, l Local, seen Seen) Move {
	if _, held := o.Held(c.Node); held || !l.Pending {
		d := grant(c, s, o, Local{Pending: true}, without(seen, c.Node), c.Node, "this node hands the turn on")
		d.Again = c.Interval
		return d
	}
	age := seen.Now.Sub(s.Since)
	switch h := seen.Holder; {
	case l.Ready && h == nil:
		return Move{Evaluate: true, Why: "this node has the turn", Need: NeedHolder}
	case l.Ready && (h.Gone || h.NodeBootID != c.BootID || h.RecordBootID != c.BootID):
		// Others would take it for rebooted while its gate is open.
		return Move{Evaluate: true, Why: "this node has the turn, but its Node object or its record does not show this boot yet", Again: time.Minute}
	case l.Ready:
		next := s
		next.Phase, next.BootID, next.Acknowledged = PhaseOpen, c.BootID, true
		return Move{Write: &next, Evaluate: true, Permit: true, Why: "this node has the turn; its gate opens"}
	case !s.Acknowledged, age > c.GrantTimeout/2:
		next := s
		next.Acknowledged = true
		return Move{Write: &next, Evaluate: true, Why: "this node has the turn"}
	case l.NodeBlocked:
		d := grant(c, s, o, l, seen, c.Node, "this node's own steps hold it back")
		if d.Write == nil || d.Write.Holder == c.Node { // nobody else waits
			d.Write = nil
			d.Again = c.GrantTimeout/2 - age + time.Second
		}
		d.Evaluate = true
		return d
	}
	return Move{Evaluate: true, Why: "this node has the turn", Again: c.GrantTimeout/2 - age + time.Second}
}

// without leaves a node out of the candidates.
func without(seen Seen, node string) Seen {
	if seen.Candidates != nil {
		var others []Candidate
		for _, candidate := range *seen.Candidates {
			if candidate.Node != node {
				others = append(others, candidate)
			}
		}
		seen.Candidates = &others
	}
	return seen
}

func grantedElsewhere(c Config, s State, o Operator, l Local, seen Seen) Move {
	patience := c.GrantTimeout
	if !s.Acknowledged {
		patience = c.silence()
	}
	why := fmt.Sprintf("%s has the turn since %s", s.Holder, text(s.Since))
	if !l.Pending {
		return Move{Why: why}
	}
	if wait := patience - seen.Now.Sub(s.Since); wait > 0 {
		return Move{Why: why + ahead(s, c.Node), Again: wait}
	}
	// Its gate was never open, so nothing is lost if it comes back.
	return grant(c, s, o, l, seen, s.Holder, s.Holder+" was granted the turn but its gate did not respond in time")
}

func openHere(c Config, s State, o Operator, l Local, seen Seen) Move {
	reason, held := o.Held(c.Node)
	d := Move{Evaluate: l.Pending && !held && !s.Withdrawn, Why: "this node has the turn; its gate was opened"}
	d.Permit = d.Evaluate
	switch {
	case held:
		d.Why = "this node is held: " + reason
	case s.Withdrawn:
		d.Why, d.Loud = "kured did not act on this open gate: the gate is closed and will hand the turn on", true
	case l.NotActedOn && s.NotActedOn == 0:
		next := s
		next.Withdrawn, next.NotActedOn = true, 1
		return Move{Write: &next, Why: "kured did not act on this open gate: the gate is closed and will hand the turn on", Loud: true}
	case l.NotActedOn && s.NotActedOn == 1:
		next := s
		next.NotActedOn = 2
		d.Write, d.Why, d.Loud = &next, stopped, true
		return d
	case s.NotActedOn > 1 && l.Pending:
		d.Why, d.Loud = stopped, true
		return d
	}
	if l.Open {
		return d
	}
	if wait := c.Settle - l.ClosedFor; wait > 0 {
		d.Again = wait
		return d
	}
	// Closed for long: what kured has seen of it must be done with.
	switch h := seen.Holder; {
	case h == nil:
		d.Need = NeedHolder
	case h.Gone || h.NodeBootID != c.BootID || h.Unschedulable || !h.LockKnown || h.LockNamed:
		d.Why, d.Again = "this node keeps the turn: "+h.kept(c), min(c.Settle, time.Minute)
	case s.Withdrawn:
		handed := grant(c, s, o, Local{Pending: true}, seen, c.Node, "kured did not act on this node's gate")
		handed.Loud, handed.Again = true, c.Interval
		return handed
	default:
		next := State{Phase: PhaseGranted, Holder: c.Node, BootID: c.BootID, Acknowledged: true, NotActedOn: s.NotActedOn, Next: s.Next, Waiting: s.Waiting}
		d.Write, d.Permit, d.Why = &next, false, fmt.Sprintf("the gate has been closed for %s, and kured does not hold this node", l.ClosedFor.Round(time.Second))
	}
	return d
}

const stopped = "turn stopped: kured ignored two open gates in a row; check its wiring and who holds its lock"

// kept says why a holder that is closed keeps the turn.
func (h Holder) kept(c Config) string {
	switch {
	case h.Gone:
		return "its Node object is gone"
	case h.NodeBootID != c.BootID:
		return "its Node object shows another boot"
	case h.Unschedulable:
		return "it is cordoned"
	case !h.LockKnown:
		return "kured's lock cannot be read"
	default:
		return "kured's lock names it"
	}
}

func openElsewhere(c Config, s State, l Local, seen Seen) Move {
	d := Move{Why: fmt.Sprintf("%s has the turn; its gate was opened at %s", s.Holder, text(s.Since)) + ahead(s, c.Node)}
	if !l.Pending {
		return d
	}
	// A node that is up may wait for kured's window, and that is as it should be.
	if wait := 2*c.GrantTimeout - seen.Now.Sub(s.Since); wait > 0 {
		d.Again = wait
	} else if seen.HolderDown {
		d.Why, d.Loud = d.Why+"; it has not rebooted since, and it is cordoned or not Ready: check that node", true
	}
	h := seen.Holder
	switch {
	case h == nil:
		d.Need = NeedHolder
	case h.Gone && h.GoneFor < c.gone():
		d.Why = fmt.Sprintf("%s has the turn, but its Node object is gone; it counts as rebooted in %s", s.Holder, (c.gone() - h.GoneFor).Round(time.Second))
		d.Again, d.Loud = c.gone()-h.GoneFor, true
	case h.Gone:
		d.Write, d.Why = rebooted(c, s, time.Time{}, seen.Now), s.Holder+" had the turn and its Node object is gone: a soak begins"
	case h.RecordBootID != "" && h.RecordBootID != s.BootID:
		d.Write, d.Why = rebooted(c, s, h.RecordBootedAt, seen.Now), s.Holder+" has rebooted; its soak runs"
	case h.NodeBootID != "" && h.NodeBootID != s.BootID:
		d.Write, d.Why = rebooted(c, s, time.Time{}, seen.Now), s.Holder+" has rebooted but its gate has not come back: the soak runs from now"
	}
	return d
}

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
