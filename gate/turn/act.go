package turn

import (
	"errors"
	"time"
)

// idle reports whether the gate has nothing to do with the turn.
func (c *core) idle() bool {
	return c.askedAt.IsZero() && !c.readAt.IsZero() && !c.concerned()
}

// next returns the request that is wanted now, if any.
func (c *core) next(out *Effects) Request {
	asked := !c.askedAt.IsZero()
	switch {
	case c.idle(): // asks nothing, and reads before it believes anything again
		c.follow, c.stale = "", true
		return nil
	case !asked && c.now.Before(c.pausing):
		return nil
	case !c.recalled:
		return RecallRecord{}
	case c.stale, c.follow == "" && c.concerned(), asked && c.asOf.Before(c.askedAt):
		return ReadLease{}
	case c.problem != nil:
		c.answer(out, c.problem)
		return nil
	case c.recorded < c.owed && (!c.handsOn() || !c.unrecorded()):
		return RecordEpoch{c.owed}
	}
	return c.act(out)
}

// act returns what must be observed or written for the move that was decided. Where
// nothing must it answers whether the gate may open.
func (c *core) act(out *Effects) Request {
	mine := c.state.Concerns(c.config.Node)
	if c.overdue() && (c.last.epoch != c.state.Epoch || c.now.Sub(c.last.at) > c.config.checkEvery()) {
		return c.look()
	}
	switch {
	case c.move.Need == NeedHolder && c.holder == nil && (mine || c.lookDue()):
		return c.look()
	case c.move.Need == NeedCandidates && c.candidates == nil && (mine || c.drawn()):
		return c.list(true)
	case c.move.Need != NeedCandidates && c.move.Write == nil:
		c.chooseAt = time.Time{}
	}
	permits := c.move.Permit && c.state.Phase == PhaseOpen && c.state.Holder == c.config.Node && c.state.BootID == c.config.BootID
	switch {
	case c.move.Write != nil && c.now.Sub(c.readAt) >= c.config.timeout():
		return ReadLease{} // what is written depends on the time, and the own clock drifts in a soak
	case (c.move.Write != nil || permits && !c.askedAt.IsZero()) && c.verified != c.lease.ResourceVersion:
		// This gate may have seen less than others before somebody restored an old copy.
		return c.list(false)
	case c.move.Write != nil:
		c.writing = true
		return WriteLease{Lease: c.lease, Before: c.state, State: *c.move.Write, Why: c.move.Why}
	case c.askedAt.IsZero():
		return nil
	case !permits:
		c.answer(out, errors.New(c.move.Why))
		return nil
	case c.recorded < c.epoch: // of a gate that found its turn open
		return RecordEpoch{c.epoch}
	}
	c.answer(out, nil)
	return nil
}

func (c *core) list(nodes bool) Request {
	c.listedOf = c.lease.ResourceVersion
	return ListRecords{nodes}
}

// unrecorded reports whether the record could not be written for long.
func (c *core) unrecorded() bool {
	return !c.owes.IsZero() && c.now.Sub(c.owes) >= c.config.Settle
}

// handsOn reports whether the move gives up the turn, for which a record that cannot be
// written must not be waited for.
func (c *core) handsOn() bool {
	w := c.move.Write
	return w != nil && (w.Withdrawn || w.Phase == PhaseFree || w.Phase == PhaseGranted && w.Holder != c.config.Node)
}

// cannot is why this node cannot use the turn that it has.
func (c *core) cannot(ignored bool) Cause {
	long := func(since time.Time) bool { return !since.IsZero() && c.now.Sub(since) >= c.config.Settle }
	switch g := c.gate; {
	case !c.state.HeldBy(c.config.Node):
		return ""
	case g.Kured != nil && c.patience.goneFor(c.now) >= c.config.GrantTimeout, ignored && g.NoKured:
		return CauseNoKured
	case c.unrecorded():
		return CauseNoRecord
	case long(g.FailingSince):
		return CauseCannotOpen
	case long(c.hidden):
		return CauseNotShown
	case ignored && g.Kured != nil && g.Kured.Waits():
		return CauseKuredWaits
	case c.cordoned:
		return CauseCordoned
	case g.StepsErr:
		return CauseStepsErr
	}
	return ""
}

func (c *core) look() Request {
	look := LookAtHolder{Node: c.state.Holder}
	if look.Node == c.config.Node || c.state.Phase == PhaseSoaking {
		look.Lock = c.gate.lock()
	}
	return look
}

// apiTime is the API server's.
func (c *core) apiTime() time.Time { return c.date.Add(c.now.Sub(c.readAt)) }

// unseen reports whether this node began to wait, or waits for something else, so lately
// that whoever wrote the turn may not have seen it, and it has not looked since.
func (c *core) unseen() bool {
	looked := c.soughtOf == c.state.Epoch && c.soughtFor == c.gate.Parts
	return !looked && c.waitsFrom.Add(seenWithin).After(c.phaseAt)
}

// overdue reports whether kured has left this node's open gate alone for too long.
func (c *core) overdue() bool {
	return c.state.Phase == PhaseOpen && c.state.HeldBy(c.config.Node) && c.patience.over(c.config.GrantTimeout, c.gate.Kured)
}

// decide asks Decide for the next move, by what is known.
func (c *core) decide() {
	seen := Seen{Now: c.apiTime(), PhaseFor: c.now.Sub(c.phaseAt), Holder: c.holder, Candidates: c.candidates, Members: c.members}
	switch {
	case c.operator.Release != c.state.Epoch || c.operator.Release == 0:
		c.releasedOf = 0
	case c.releasedOf != c.operator.Release:
		c.releasedOf, c.releasedAt = c.operator.Release, c.now
	}
	if c.releasedOf != 0 {
		seen.ReleasedFor = c.now.Sub(c.releasedAt)
	}
	seenNow := c.last.known && c.last.epoch == c.state.Epoch
	seen.HolderDown = seenNow && c.last.Down && c.now.Sub(c.last.at) < c.config.GrantTimeout
	seen.LeftCordoned = seenNow && c.last.Unschedulable && c.last.LockKnown && !c.last.LockNamed && c.state.Phase == PhaseSoaking
	config := c.config
	config.Soak = c.soakOf(c.operator.Overridden(seen.Now))
	if !c.soaksFrom.IsZero() {
		seen.SoakLeft = config.Soak - c.now.Sub(c.soaksFrom)
		if c.state.Phase != PhaseSoaking && seen.SoakLeft <= 0 {
			c.soaksFrom, seen.SoakLeft = time.Time{}, 0
		}
	}
	if config.exposed() && c.state.Exposed { // what is in soak says who may go
		seen.SoakLeft = 0
	}
	ignored := c.overdue() && seenNow && c.last.LockKnown && !c.last.LockNamed
	local := Local{
		Pending: c.gate.Pending, BootedAt: c.bootedAt, Open: c.gate.Open,
		Ready: !c.askedAt.IsZero(), NodeBlocked: c.gate.NodeBlocked,
		NotActedOn: ignored, Cannot: c.cannot(ignored), Parts: c.gate.Parts, Unseen: c.unseen(),
	}
	if seenNow {
		local.KuredsLock = c.last.LockStuck
	}
	if !local.Ready {
		local.ClosedFor = c.now.Sub(later(c.gate.ClosedSince, c.confirmed))
	}
	before, waited := c.move, !c.againAt.IsZero() && !c.now.Before(c.againAt)
	c.move, c.againAt = Decide(config, c.state, c.operator, local, seen), time.Time{}
	if c.writing || c.recorded < c.owed { // nothing follows from what is written before that is on record
		c.move.Evaluate, c.move.Permit = c.move.Evaluate && before.Evaluate, c.move.Permit && before.Permit
	}
	if c.move.Again > 0 {
		c.againAt = c.now.Add(c.move.Again)
	}
	if waited && c.move.Write == nil && c.move.Need == Nothing && c.rereadAt.IsZero() {
		c.rereadAt = c.now.Add(c.lookPause())
	}
}
