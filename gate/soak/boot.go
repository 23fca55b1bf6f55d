package soak

import (
	"slices"
	"time"
)

// Boot is what a record keeps of one boot of its node.
type Boot struct {
	// ID is the kernel's; empty: none is known.
	ID string
	At time.Time
	// Announced: the node had the turn when it booted.
	Announced bool
	// Parts are in effect since, Against are those of them against which the node has
	// given evidence. Nil Parts: they are not told.
	Parts, Against []Part
	// Soaked: it was quiet for the whole soak.
	Soaked bool
}

// Known are its parts without what is Unknown.
func (b Boot) Known() []Part {
	return slices.DeleteFunc(slices.Clone(b.Parts), func(p Part) bool { return p == Unknown })
}

// Machine is what a node finds of itself after a boot.
type Machine struct {
	// Kernel and Build are the parts of the running kernel: its release, and its build.
	Kernel, Build Part
	// Installed are the parts of all that the package database has as installed. Nil: it
	// cannot be read.
	Installed map[Part]bool
	// Kernels are those of them that are kernels, and Running those of them that run; none:
	// which runs is not told by the packages' versions.
	Kernels, Running []Part
}

// The doubts about a boot: words for whoever reads the log.
const (
	DoubtFirst    = "no earlier boot is on record"
	DoubtDatabase = "the package database cannot be read"
	DoubtList     = "the record did not know all that the boot would bring"
	DoubtChanged  = "packages that the record named before the boot are no longer installed in that version"
	DoubtCut      = "the boot cut this node's own soak short, and nobody knows whether that was quiet"
	DoubtKernel   = "a kernel asked for the reboot, and the kernel that runs is the one from before: it is pinned, or the boot fell back"
)

// After returns what the boot at that time brought into effect: of what the record wanted
// before it only what is installed now. Whatever is in doubt makes it Unknown too, so that
// the boot proves nothing; doubt says why. A boot that brings nothing new keeps the parts
// from before. A boot without the turn within a soak is evidence against what ran then,
// and stays that for as long as a part stays in effect.
func After(before Boot, wanted []Part, m Machine, id string, at time.Time, announced bool, soak time.Duration) (next Boot, doubt string) {
	next = Boot{ID: id, At: at, Announced: announced}
	next.Parts, doubt = effective(before, wanted, m)
	cut := before.ID != "" && !before.Soaked && at.Before(before.At.Add(soak))
	if cut && announced && doubt == "" {
		doubt = DoubtCut
	}
	if doubt != "" {
		next.Parts = append(next.Parts, Unknown)
	}
	next.Parts = Sorted(append(next.Parts, m.Kernel, m.Build))
	against := slices.Clone(before.Against)
	if cut && !announced {
		against = append(against, before.Parts...)
	}
	next.Against = Sorted(slices.DeleteFunc(against, func(p Part) bool { return p == Unknown || !slices.Contains(next.Parts, p) }))
	return next, doubt
}

func effective(before Boot, wanted []Part, m Machine) (parts []Part, doubt string) {
	switch {
	case before.ID == "" || before.Parts == nil:
		if len(m.Running) == 0 { // else an old kernel would seem to be new the next time
			parts = slices.Clone(m.Kernels)
		}
		return parts, DoubtFirst
	case m.Installed == nil:
		return nil, DoubtDatabase
	}
	for _, p := range wanted {
		switch {
		case p == Unknown:
			doubt = DoubtList
		case m.Installed[p]:
			parts = append(parts, p)
		case doubt == "":
			doubt = DoubtChanged
		}
	}
	isNew := func(p Part) bool { return !slices.Contains(before.Parts, p) }
	if !slices.ContainsFunc(parts, isNew) && doubt == "" {
		return kept(before, m)
	}
	inEffect := slices.DeleteFunc(slices.Clone(parts), func(p Part) bool { return slices.Contains(m.Kernels, p) && !m.runs(p, isNew) })
	if len(inEffect) < len(parts) && slices.ContainsFunc(parts, func(p Part) bool { return isNew(p) && !slices.Contains(inEffect, p) }) {
		doubt = DoubtKernel
	}
	return inEffect, doubt
}

// runs reports whether a kernel's package is the one that runs. Where the versions do not
// tell, one that is new is, if the kernel is another one than before.
func (m Machine) runs(kernel Part, isNew func(Part) bool) bool {
	if len(m.Running) > 0 {
		return slices.Contains(m.Running, kernel)
	}
	return !isNew(kernel) || isNew(m.Kernel) || isNew(m.Build)
}

// kept are the parts from before, of a boot that brought nothing new by what is known. What
// of them is not installed any more, but for the kernel's release and build, has another
// version now, of which nothing is known.
func kept(before Boot, m Machine) (parts []Part, doubt string) {
	other := 0
	for _, p := range []Part{m.Kernel, m.Build} {
		if !slices.Contains(before.Parts, p) {
			other++
		}
	}
	for _, p := range before.Parts {
		switch {
		case p == Unknown:
			doubt = DoubtList
		case m.Installed[p]:
			parts = append(parts, p)
		case p != m.Kernel && p != m.Build:
			other--
		}
	}
	if other < 0 && doubt == "" {
		doubt = DoubtChanged
	}
	return parts, doubt
}
