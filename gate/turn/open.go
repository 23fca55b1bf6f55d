package turn

import (
	"fmt"
	"time"
)

func openHere(c Config, s State, o Operator, l Local, seen Seen) Move {
	reason, held := o.Held(c.Node)
	d := Move{Evaluate: l.Pending && !held && !s.Withdrawn, Why: "this node has the turn; its gate was opened"}
	d.Permit = d.Evaluate
	cannot := l.Cannot
	switch cannot {
	case CauseStepsErr, CauseNotShown, CauseCordoned: // it closes, and after Settle hands on as one that was only granted the turn
		cannot = ""
	}
	switch {
	case seen.SoakLeft > 0:
		d = early(c, seen)
	case held:
		d.Why = "this node is held: " + reason
	case s.Withdrawn:
		d.Why, d.Loud = withdrawn(c, s, l), true
	case cannot != "":
		next := s.passOver(c.Node, cannot, seen.Now)
		next.Withdrawn = true
		return Move{Write: &next, Why: withdrawn(c, next, l), Loud: true}
	case l.NotActedOn && s.NotActedOn == 0:
		next := s
		next.Withdrawn, next.NotActedOn = true, 1
		return Move{Write: &next, Why: withdrawn(c, next, l), Loud: true}
	case l.NotActedOn && s.NotActedOn == 1:
		next := s
		next.NotActedOn = 2
		d.Write, d.Why, d.Loud = &next, stopped(l), true
		return d
	case s.NotActedOn > 1 && l.Pending:
		d.Why, d.Loud = stopped(l), true
		return d
	}
	if l.Open {
		return d
	}
	if wait := c.Settle - l.ClosedFor; wait > 0 {
		if d.Again == 0 || wait < d.Again {
			d.Again = wait
		}
		return d
	}
	// Closed for long: what kured has seen of it must be done with.
	switch h := seen.Holder; {
	case h == nil:
		d.Need = NeedHolder
	case h.Gone || h.NodeBootID != c.BootID || !h.LockKnown || h.LockNamed,
		h.Unschedulable && l.ClosedFor < c.Settle+c.GrantTimeout:
		d.Why, d.Again = "this node keeps the turn: "+h.kept(c)+l.kuredsLock(), min(c.Settle, time.Minute)
		d.Loud = d.Loud || l.ClosedFor >= c.Settle+c.GrantTimeout
	case h.Unschedulable: // kured takes its lock before it cordons, so that it is done
		d = grant(c, s.passOver(c.Node, CauseCordoned, seen.Now), o, Local{Pending: true}, seen, c.Node, "this node is cordoned, although its gate is closed and kured's lock is free: kured's uncordon failed, or somebody else is at work")
		d.Loud, d.Again = true, c.Interval
	case s.Withdrawn:
		d = grant(c, s, o, Local{Pending: true}, seen, c.Node, withdrawn(c, s, l))
		d.Loud, d.Again = true, c.Interval
	default:
		next := State{Phase: PhaseGranted, Holder: c.Node, BootID: c.BootID, Acknowledged: true, NotActedOn: s.NotActedOn, Next: s.Next, Waiting: s.Waiting, PassedOver: s.PassedOver}
		d.Write, d.Permit, d.Why = &next, false, fmt.Sprintf("the gate has been closed for %s, and kured does not hold this node", l.ClosedFor.Round(time.Second))
	}
	return d
}

// withdrawn says why the gate was closed for good, and hands on.
func withdrawn(c Config, s State, l Local) string {
	why := "kured did not act on this open gate" + l.kuredsLock()
	if p := s.passed(c.Node); p != nil {
		why = "this node cannot use the turn: " + p.Cause.String()
	}
	return why + "; the gate is closed and will hand the turn on"
}

// stopped says that the turn has stopped, and where to look.
func stopped(l Local) string {
	return "turn stopped: kured ignored two open gates in a row; check its wiring and who holds its lock" + l.kuredsLock()
}

// kuredsLock is what is wrong with kured's lock, behind a sentence.
func (l Local) kuredsLock() string {
	if l.KuredsLock == "" {
		return ""
	}
	return "; " + l.KuredsLock
}

// kept says why a holder that is closed keeps the turn.
func (h Holder) kept(c Config) string {
	switch {
	case h.Gone:
		return "its Node object is gone"
	case h.NodeBootID != c.BootID:
		return "its Node object shows another boot"
	case !h.LockKnown:
		return "kured's lock cannot be read"
	case h.LockNamed:
		return "kured's lock names it"
	default:
		return "it is cordoned"
	}
}

func openElsewhere(c Config, s State, l Local, seen Seen) Move {
	d := Move{Why: fmt.Sprintf("%s has the turn; its gate was opened at %s", s.Holder, text(s.Since)) + ahead(s, c.Node) + s.tellPassedOver()}
	if !l.Pending {
		return d
	}
	// A node that is up may wait for kured's window, and that is as it should be.
	if wait := 2*c.GrantTimeout - seen.PhaseFor; wait > 0 {
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
		d.Write, d.wholeSoak, d.Why = rebooted(c, s, time.Time{}, seen.Now), true, s.Holder+" had the turn and its Node object is gone: a soak begins"
	case h.RecordBootID != "" && (h.RecordBootID != s.BootID || bootedSince(s, h.RecordBootedAt)):
		d.Write, d.Why = rebooted(c, s, h.RecordBootedAt, seen.Now), s.Holder+" has rebooted; its soak runs"
	case h.NodeBootID != "" && h.NodeBootID != s.BootID:
		d.Write, d.Why = rebooted(c, s, time.Time{}, seen.Now), s.Holder+" has rebooted but its gate has not come back: the soak runs from now"
	}
	return d
}
