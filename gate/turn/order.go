package turn

import (
	"cmp"
	"slices"
	"time"
)

// Candidate is a node, by its record and its Node object.
type Candidate struct {
	Node, BootID string
	// Member: it has a Node object.
	Member bool
	// Tier is the place of the node's tier in the order, by its Node's labels; lower
	// goes first.
	Tier int
	// PendingSince is since when it waits for its reboot, and zero where it does not.
	PendingSince time.Time
	// BootedAt is when it booted.
	BootedAt time.Time
	// Parts are those that it would run, as its record tells them.
	Parts string
	// Epoch is the highest epoch of the turn that its gate has told of.
	Epoch int64
}

// again reports whether it waits for a reboot that it has had: its raw sentinel is
// older than its boot.
func (c Candidate) again() bool { return c.PendingSince.Before(c.BootedAt) }

// waitsSince is since when it waits in this boot.
func (c Candidate) waitsSince() time.Time { return later(c.PendingSince, c.BootedAt) }

// Rank returns the nodes that wait, those that go first first: who has waited for
// longer than aging, for else a lower tier could be overtaken for ever; then who has not
// rebooted since it began to wait, for else that one would be first for ever; then by
// tier; then the longest waiting; then by name. Those that were passed over come last.
// Who has no Node object does not wait: kured cannot drain it.
func Rank(candidates []Candidate, passedOver []PassedOver, aging time.Duration, now time.Time) []Candidate {
	last := map[string]bool{}
	for _, p := range passedOver {
		last[p.Node] = p.counts(now)
	}
	type place struct {
		last, young, again, tier int
	}
	number := func(is bool) int {
		if is {
			return 1
		}
		return 0
	}
	of := func(c Candidate) place {
		young := now.Sub(c.waitsSince()) < aging
		p := place{last: number(last[c.Node]), young: number(young)}
		if young {
			p.again, p.tier = number(c.again()), c.Tier
		}
		return p
	}
	ranked := slices.DeleteFunc(slices.Clone(candidates), func(c Candidate) bool { return c.PendingSince.IsZero() || !c.Member })
	slices.SortFunc(ranked, func(a, b Candidate) int {
		x, y := of(a), of(b)
		return cmp.Or(cmp.Compare(x.last, y.last), cmp.Compare(x.young, y.young), cmp.Compare(x.again, y.again), cmp.Compare(x.tier, y.tier),
			a.waitsSince().Compare(b.waitsSince()), cmp.Compare(a.Tier, b.Tier), cmp.Compare(a.Node, b.Node))
	})
	return ranked
}

// choose returns the first in rank that is not held and is admitted, or the next one behind
// the node that hands on, so that a row of nodes that cannot go does not keep the others
// from it. Those that were passed over are chosen where nobody else is left.
func choose(ranked []Candidate, o Operator, after string, passedOver, admit func(Candidate) bool) (chosen Candidate, waiting []string, found bool) {
	var able, last []Candidate
	for _, c := range ranked {
		if _, held := o.Held(c.Node); held {
			continue
		}
		waiting = append(waiting, c.Node)
		if passedOver(c) {
			last = append(last, c)
		} else {
			able = append(able, c)
		}
	}
	next := func(of []Candidate) (Candidate, bool) {
		i := slices.IndexFunc(of, func(c Candidate) bool { return c.Node == after })
		for n := range of {
			if c := of[(i+1+n)%len(of)]; admit(c) {
				return c, true
			}
		}
		return Candidate{}, false
	}
	chosen, found = next(able)
	if !found || chosen.Node == after {
		if other, any := next(last); any {
			return other, waiting, true
		}
	}
	return chosen, waiting, found
}
