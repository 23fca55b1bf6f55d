package turn

import (
	"fmt"
	"time"

	"github.com/sentinel-gate/sentinel-gate/gate/clock"
	"github.com/sentinel-gate/sentinel-gate/gate/soak"
)

const (
	// maxSleep is how long those who wait may sleep when nobody may go: what frees them is
	// not always a time that is known.
	maxSleep = time.Hour
	// minSleep is how long they sleep at least.
	minSleep = 5 * time.Second
	// lookAtOwn is how often the node that rebooted looks whether it is back, at first.
	lookAtOwn = 3 * time.Second
	// seenWithin is how long before the turn was written somebody must have begun to wait
	// for whoever wrote it to have seen that.
	seenWithin = time.Minute
)

// admission says who may go by the rule of exposure, and when somebody may where nobody is.
type admission struct {
	config   Config
	now      time.Time
	standing *soak.Standing
	members  map[string]soak.Node
	tier     int // the first in which somebody waits

	nextAt  time.Time // zero: no time is known
	reason  string    // of the first that may not go,
	message string    // and in words
}

func everybody(Candidate) bool { return true }

func newAdmission(c Config, s State, o Operator, ranked []Candidate, seen Seen) *admission {
	rule := *c.Exposure
	rule.Soak, rule.FirstAfter = c.Soak, c.Aging
	a := &admission{config: c, now: seen.Now, standing: rule.Judge(seen.Members, seen.Now), members: make(map[string]soak.Node, len(seen.Members)), tier: -1}
	for _, m := range seen.Members {
		a.members[m.Name] = m
	}
	for _, n := range ranked {
		_, held := o.Held(n.Node)
		if waits := !held && !s.ranksLast(n.Node, seen.Now) && a.members[n.Node].Wants != nil; waits && (a.tier < 0 || n.Tier < a.tier) {
			a.tier = n.Tier
		}
	}
	return a
}

// admit reports whether the node may go. A tier goes only when nobody waits in those before
// it, or who has waited for so long that it goes first.
func (a *admission) admit(n Candidate) bool {
	first := a.now.Sub(n.waitsSince()) >= a.config.Aging
	refusal := a.standing.Admit(a.members[n.Node], soak.Names(nil))
	if refusal.Reason == "" && !first && a.tier >= 0 && n.Tier > a.tier {
		refusal = soak.Refusal{Reason: "Tier", Message: "nodes of an earlier tier of turn.order wait", Until: n.waitsSince().Add(a.config.Aging)}
	}
	if refusal.Reason == "" {
		return true
	}
	if a.reason == "" {
		a.reason, a.message = refusal.Reason, n.Node+": "+refusal.Message
	}
	if until := refusal.Until; !until.IsZero() && (a.nextAt.IsZero() || until.Before(a.nextAt)) {
		a.nextAt = until
	}
	return false
}

// soaks is how the soaks stand.
func (a *admission) soaks() Soaks {
	s := a.standing
	return Soaks{len(s.InSoak), s.Limit, s.Soaked, len(s.Against)}
}

// sleep is until when nobody looks.
func (a *admission) sleep() time.Time {
	at, longest := a.nextAt, a.now.Add(maxSleep)
	if at.IsZero() || at.After(longest) {
		at = longest
	}
	return later(at, a.now.Add(minSleep)).Truncate(time.Second).Add(time.Second) // it is told to the second
}

// nobody is the move where some wait and none of them may go.
func (a *admission) nobody(s State, l Local, seen Seen, after string, waiting []string, own *Candidate) Move {
	at := a.sleep()
	why := "nobody may reboot before " + text(at) + ": " + a.message
	d := Move{Why: why, Again: at.Sub(seen.Now), Loud: a.reason == soak.ReasonAgainst}
	if s.Phase == PhaseFree && s.Exposed && s.NextAt.After(seen.Now) && !at.Before(s.NextAt.Add(-time.Second)) {
		if d.Again = s.NextAt.Sub(seen.Now); own == nil || own.Parts != l.Parts {
			d.Why, d.Again = "the turn is free, but this node's record does not say yet what it waits for", max(minSleep, seen.PhaseFor/4)
		}
		return d
	}
	next := waiting[:min(len(waiting), nextNames)]
	d.Write = &State{Phase: PhaseFree, Holder: after, NotActedOn: s.NotActedOn, Next: next, Waiting: len(waiting), PassedOver: s.PassedOver, NextAt: at, NextWhy: a.reason, Soaks: a.soaks()}
	if s.Phase == PhaseSoaking {
		d.Write.NotActedOn = 0
	}
	return d
}

// free gives the free turn to somebody, or sleeps until somebody may have it.
func free(c Config, s State, o Operator, l Local, seen Seen) Move {
	if s.Exposed && !c.exposed() { // exposure was turned off: one whole soak at a time
		longest := c.Soak + clock.Tolerance - seen.PhaseFor
		if wait := min(s.RebootedAt.Add(c.Soak).Sub(seen.Now), longest); wait > 0 {
			return Move{Why: "soaking until " + text(seen.Now.Add(wait)) + ": exposure was turned off, and nodes are in soak", Again: wait}
		}
	}
	if l.Pending && s.responds(c.Node) {
		return respond(c, s)
	}
	if c.exposed() && s.Exposed && !l.Unseen {
		longest := maxSleep + clock.Tolerance - seen.PhaseFor // by a clock that was ahead
		if wait := min(s.NextAt.Sub(seen.Now), longest); wait > 0 {
			return Move{Why: fmt.Sprintf("nobody may reboot before %s: %s", text(s.NextAt), s.NextWhy), Again: wait, Loud: s.NextWhy == soak.ReasonAgainst}
		}
	}
	return grant(c, s, o, l, seen, s.Holder, "the turn is free")
}

// between waits, with exposure, until the node that rebooted last is back.
func between(c Config, s State, o Operator, l Local, seen Seen) Move {
	mine := s.Holder == c.Node
	if wait := s.RebootedAt.Add(c.Soak).Sub(seen.Now); min(wait, c.Soak+clock.Tolerance-seen.PhaseFor) <= 0 {
		return grant(c, s, o, l, seen, s.Holder, "the soak is over")
	}
	d := Move{Why: s.Holder + " rebooted, and it is not back yet"}
	if mine { // for the others, who share the looks, the core says when
		d.Again = max(lookAtOwn, seen.PhaseFor/20)
	}
	if !l.Pending && !mine {
		return d
	}
	if l.Pending && s.responds(c.Node) {
		return respond(c, s)
	}
	h := seen.Holder
	if h == nil {
		d.Need = NeedHolder
		return d
	}
	missing := h.missing(s)
	long := seen.PhaseFor >= c.Settle
	switch {
	case h.Gone && h.GoneFor < c.gone():
		d.Why, d.Again = s.Holder+" rebooted, and its Node object is gone", c.gone()-h.GoneFor
		return d
	case h.Gone: // it keeps its place in the soak
	case missing == missingExtended && long, missing == missingUncordon && long:
		d.Loud = true
	case missing != "":
		d.Why += ": " + missing
		if d.Loud = long; long {
			d.Why += "; look at it"
		}
		return d
	}
	d.Why = s.Holder + " is back; the next may go when the evidence allows it"
	if missing != "" {
		d.Why = s.Holder + " is back, but " + missing + " for longer than " + c.Settle.String() + ": look at it; the turn goes on"
	}
	next := s
	next.Phase = PhaseFree
	d.Write = &next
	return d
}

const (
	missingExtended = "not all of its extended resources are"
	missingUncordon = "it is cordoned, although kured's lock is free: kured's uncordon failed; kubectl uncordon it"
)

// missing says what a node that rebooted lacks before it counts as back; empty: nothing.
func (h Holder) missing(s State) string {
	switch {
	case h.Gone:
		return "its Node object is gone"
	case h.RecordBootID == "" || h.RecordBootID != h.NodeBootID:
		return "its record does not tell of this boot: its gate has not come back"
	case !h.Ready:
		return "it is not Ready"
	case !h.LockKnown:
		return "kured's lock cannot be read"
	case h.LockNamed:
		return "kured's lock names it"
	case h.Unschedulable:
		return missingUncordon
	case lacks(s.Extended, h.Extended):
		return missingExtended
	}
	return ""
}
