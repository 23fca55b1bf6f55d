package soak

import (
	"slices"
	"time"
)

// Grace is how long after a boot a node's Ready condition may still change on account of
// that boot: a quarter of an hour, and of a short soak a quarter.
func Grace(soak time.Duration) time.Duration { return min(15*time.Minute, soak/4) }

// Node is what is known of one node, by its record and its Node object. The zero value of
// each field is the doubt.
type Node struct {
	Name string
	// Kind is that of its hardware, or of whatever else the operator tells apart.
	Kind string
	// ControlPlane: it is of the control plane.
	ControlPlane bool
	// BootedAt is when it booted, by the API server's clock. One whose boot is not known
	// must be given the present.
	BootedAt time.Time
	// Announced: it had the turn when it booted.
	Announced bool
	// Joined: that boot was before it was a member, so that it is no flap.
	Joined bool
	// Runs are the parts in effect since that boot.
	Runs []Part
	// Against are those of them against which it has given evidence.
	Against []Part
	// Soaked: it was quiet for the whole soak of this boot, by its own record.
	Soaked bool
	// Agrees: its Node object shows the boot and the kernel that its record tells of.
	Agrees bool
	// Gone: it has no Node object any more.
	Gone bool
	// Ready and ReadySince are of its Ready condition.
	Ready      bool
	ReadySince time.Time
	// Wants are the parts that it would run after its next boot. Nil: its gate does not
	// tell; it does not wait, or knows nothing of parts.
	Wants []Part
	// WaitsSince is since when it waits; zero: it does not.
	WaitsSince time.Time
}

// inSoak reports whether its last boot is younger than the soak.
func (n Node) inSoak(soak time.Duration, now time.Time) bool { return now.Before(n.soakEnds(soak)) }

func (n Node) soakEnds(soak time.Duration) time.Time { return n.BootedAt.Add(soak) }

// Disturbed reports whether it gave evidence against what it runs in the soak of this
// boot, by what its Node object shows: its Ready condition changed more than Grace after
// the boot, or is not True by then. A change after the soak tells of one during it that
// it hides, unless the record knows that the soak was quiet.
func (n Node) Disturbed(soak time.Duration, now time.Time) bool {
	switch settled := n.BootedAt.Add(Grace(soak)); {
	case n.Soaked, n.Gone, !now.After(settled):
		return false
	case n.ReadySince.After(settled):
		// Of a boot of which the turn knows nothing, a change long after is an ordinary flap.
		return n.Announced || !n.ReadySince.After(n.soakEnds(soak))
	default:
		return !n.Ready
	}
}

// Quiet reports whether its Ready condition has not changed since the boot.
func (n Node) Quiet(soak time.Duration) bool {
	return n.Ready && !n.ReadySince.After(n.BootedAt.Add(Grace(soak)))
}

// vouches reports whether it has soaked what it runs. Of which something is Unknown, it
// proves nothing.
func (n Node) vouches(soak time.Duration, now time.Time) bool {
	return !n.Gone && n.Agrees && !slices.Contains(n.Runs, Unknown) && !n.inSoak(soak, now) && (n.Soaked || n.Quiet(soak))
}

// flapped returns when it flapped, if that is within the last soak and not in its own
// soak, where it is evidence and no flap; zero: it did not.
func (n Node) flapped(soak time.Duration, now time.Time) time.Time {
	var at time.Time
	if !n.Gone && n.ReadySince.After(n.soakEnds(soak)) {
		at = n.ReadySince
	}
	if !n.Announced && !n.Joined && n.BootedAt.After(at) {
		at = n.BootedAt
	}
	if at.After(now) { // its clock is ahead
		at = now
	}
	if now.Sub(at) >= soak {
		return time.Time{}
	}
	return at
}
