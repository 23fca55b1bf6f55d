package turn

import (
	"cmp"
	"slices"
	"time"
)

// Candidate is a node, by its record.
type Candidate struct {
	Node, BootID string
	// Tier is the place of the node's tier in the order; lower goes first.
	Tier int
	// PendingSince is since when it waits for its reboot, and zero where it does not.
	PendingSince time.Time
	// BootedAt is when it booted.
	BootedAt time.Time
	// Epoch is the highest epoch of the turn that its gate has told of.
	Epoch int64
}

// again reports whether it waits for a reboot that it has had: its raw sentinel is
// older than its boot.
func (c Candidate) again() bool { return c.PendingSince.Before(c.BootedAt) }

// Rank returns those that wait, sorted: those last that have rebooted since they
// began to, for they would be first for ever; by tier, then the longest pending,
// then by name.
func Rank(candidates []Candidate) []Candidate {
	ranked := slices.DeleteFunc(slices.Clone(candidates), func(c Candidate) bool { return c.PendingSince.IsZero() })
	slices.SortFunc(ranked, func(a, b Candidate) int {
		switch {
		case a.again() && !b.again():
			return 1
		case b.again() && !a.again():
			return -1
		}
		return cmp.Or(cmp.Compare(a.Tier, b.Tier), a.PendingSince.Compare(b.PendingSince), cmp.Compare(a.Node, b.Node))
	})
	return ranked
}

// choose returns the first in rank that is not held, or the next one behind the
// node that hands on, so that a row of nodes that cannot go does not keep the
// others from it.
func choose(candidates []Candidate, o Operator, after string) (chosen Candidate, waiting []string, found bool) {
	var able []Candidate
	for _, c := range Rank(candidates) {
		if _, held := o.Held(c.Node); !held {
			able = append(able, c)
			waiting = append(waiting, c.Node)
		}
	}
	if len(able) == 0 {
		return Candidate{}, nil, false
	}
	i := slices.IndexFunc(able, func(c Candidate) bool { return c.Node == after })
	return able[(i+1)%len(able)], waiting, true
}
