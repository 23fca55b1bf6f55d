package turn

import (
	"fmt"
	"time"
)

func grantedHere(c Config, s State, o Operator, l Local, seen Seen) Move {
	if seen.SoakLeft > 0 {
		return early(c, seen)
	}
	if _, held := o.Held(c.Node); held || !l.Pending {
		d := grant(c, s, o, Local{Pending: true}, without(seen, c.Node), c.Node, "this node hands the turn on")
		d.Again = c.Interval
		return d
	}
	renew := max(c.GrantTimeout/2-seen.PhaseFor, 0) + time.Second
	cannot := l.Cannot
	if other := s.errElsewhere(c.Node); cannot == CauseStepsErr && other != "" {
		return Move{Evaluate: true, Why: fmt.Sprintf("this node has the turn; steps err or time out here, as they did on %s: it is not this node's own trouble", other), Again: renew, Loud: true}
	}
	switch h := seen.Holder; {
	case l.Ready && h == nil:
		return Move{Evaluate: true, Why: "this node has the turn", Need: NeedHolder}
	case cannot != "" && cannot != CauseCannotOpen: // of that only an attempt can tell
		d := grant(c, s.passOver(c.Node, cannot, seen.Now), o, l, seen, c.Node, "this node cannot use the turn: "+cannot.String())
		d.Loud = true
		return alone(c, d, seen.Now, renew)
	case l.Ready && h.hides(c):
		// Others would take it for rebooted while its gate is open.
		return Move{Evaluate: true, Why: "this node has the turn, but its Node object or its record does not show this boot yet", Again: time.Minute}
	case l.Ready:
		next := s.unpass(c.Node).blame(seen.Now, c.GrantTimeout)
		next.Phase, next.BootID, next.Acknowledged, next.Extended = PhaseOpen, c.BootID, true, h.Extended
		return Move{Write: &next, Evaluate: true, Permit: true, Why: "this node has the turn; its gate opens"}
	case !s.Acknowledged, seen.PhaseFor > c.GrantTimeout/2:
		next := s
		if next.Acknowledged = true; s.responds(c.Node) {
			next = next.unpass(c.Node)
		}
		return Move{Write: &next, Evaluate: true, Why: "this node has the turn"}
	case l.NodeBlocked:
		return alone(c, grant(c, s, o, l, seen, c.Node, "this node's own steps hold it back"), seen.Now, renew)
	}
	return Move{Evaluate: true, Why: "this node has the turn", Again: renew}
}

// early waits for the end of the soak by the own clock, before which somebody else gave
// this node the turn: a moment before, or by a clock that is wrong.
func early(c Config, seen Seen) Move {
	d := Move{Why: "this node has the turn; by its own clock the soak is over at " + text(seen.Now.Add(seen.SoakLeft)), Again: seen.SoakLeft}
	if d.Loud = seen.SoakLeft > c.earlyBy(); d.Loud {
		d.Why += ": the clock of an API server is or was ahead"
	}
	return d
}

// alone makes a move that hands on one that does not, where nobody else could use the
// turn: it goes on here.
func alone(c Config, d Move, now time.Time, renew time.Duration) Move {
	if d.Write != nil && d.Write.Phase == PhaseFree && !d.Write.NextAt.IsZero() {
		return d // nor may this node use it
	}
	if d.Write == nil || d.Write.Phase != PhaseGranted || d.Write.Holder == c.Node || d.Write.ranksLast(d.Write.Holder, now) {
		d.Write, d.Again = nil, renew
	}
	d.Evaluate = true
	return d
}

// hides reports whether the own Node object or record does not show the present boot.
func (h Holder) hides(c Config) bool {
	return h.Gone || h.NodeBootID != c.BootID || h.RecordBootID != c.BootID
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
	if s.responds(c.Node) {
		return respond(c, s)
	}
	// By the own clock: a time in the Lease may be anybody's mistake.
	if wait := patience - seen.PhaseFor; wait > 0 {
		return Move{Why: why + ahead(s, c.Node) + s.tellPassedOver(), Again: wait}
	}
	// Its gate was never open, so nothing is lost if it comes back.
	return grant(c, s.passOver(s.Holder, CauseSilent, seen.Now), o, l, seen, s.Holder, s.Holder+" was granted the turn but its gate did not respond in time")
}
