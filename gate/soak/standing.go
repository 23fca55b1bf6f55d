package soak

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Standing is how the soaks of all nodes stand at one time.
type Standing struct {
	rule Rule
	now  time.Time

	// Nodes is how many there are, those gone in their soak aside.
	Nodes int
	// InSoak are the names of those in soak, and Until when the last of their soaks ends.
	InSoak []string
	Until  time.Time
	// Limit is how many may be in soak together.
	Limit int
	// Soaked is how many nodes have soaked what they run.
	Soaked int
	// Against names those that gave evidence against what they run.
	Against []string
	// Flapped are the times of those that flapped within the last soak, and Budget how many
	// may.
	Flapped []time.Time
	Budget  int

	workers       int
	controlPlane  string // the one of the control plane in soak; empty: none
	canary        string // the one in soak on something that nobody has soaked; empty: none
	canaryEnds    time.Time
	controlEnds   time.Time
	firstSoakEnds time.Time
	cluster       map[Part]*Count
	kinds         map[kindPart]*Count
}

// Count is what is known of one part.
type Count struct {
	InSoak, Soaked, Against int
	// byWorkers of the Soaked are workers.
	byWorkers int
	// frees is when the first soak on it ends.
	frees time.Time
}

type kindPart struct {
	kind string
	part Part
}

// limit is how many may be in soak on a part; the floor of 1 is for the first, and any
// evidence against it takes that away.
func (r Rule) limit(c Count) int {
	limit := r.Growth * (c.Soaked - r.Growth*c.Against)
	if c.Against == 0 {
		return max(1, limit)
	}
	return max(0, limit)
}

// Judge counts, in one pass over the nodes.
func (r Rule) Judge(nodes []Node, now time.Time) *Standing {
	s := &Standing{rule: r, now: now, cluster: map[Part]*Count{}, kinds: map[kindPart]*Count{}}
	for _, n := range nodes {
		s.count(n)
	}
	s.Limit, s.Budget = max(1, r.Max.Of(s.Nodes)), r.Flaps.Of(s.Nodes)
	slices.SortFunc(s.Flapped, time.Time.Compare)
	for _, n := range nodes { // a canary is one on what nobody has soaked by the whole count
		if ends := n.soakEnds(r.Soak); n.inSoak(r.Soak, now) && s.isNew(n.Runs) && ends.After(s.canaryEnds) {
			s.canary, s.canaryEnds = n.Name, ends
		}
	}
	return s
}

func (s *Standing) count(n Node) {
	inSoak, vouches := n.inSoak(s.rule.Soak, s.now), n.vouches(s.rule.Soak, s.now)
	if n.Gone && !inSoak && len(n.Against) == 0 {
		if at := n.flapped(s.rule.Soak, s.now); !at.IsZero() {
			s.Flapped = append(s.Flapped, at)
		}
		return
	}
	if !n.Gone {
		s.Nodes++
		if !n.ControlPlane && !n.BootedAt.IsZero() { // else nobody could tell that it soaked anything
			s.workers++
		}
	}
	ends := n.soakEnds(s.rule.Soak)
	if inSoak {
		s.InSoak = append(s.InSoak, n.Name)
		s.Until = latest(s.Until, ends)
		s.firstSoakEnds = soonest(s.firstSoakEnds, ends)
		if n.ControlPlane && ends.After(s.controlEnds) {
			s.controlPlane, s.controlEnds = n.Name, ends
		}
	}
	if vouches {
		s.Soaked++
	}
	disturbed := n.Disturbed(s.rule.Soak, s.now) || n.Gone && inSoak // who vanishes in its soak may be broken
	if disturbed || len(n.Against) > 0 {
		s.Against = append(s.Against, n.Name)
	}
	if at := n.flapped(s.rule.Soak, s.now); !at.IsZero() && !disturbed && len(n.Against) == 0 {
		s.Flapped = append(s.Flapped, at)
	}
	if !inSoak && !vouches && !disturbed && len(n.Against) == 0 {
		return
	}
	for _, part := range n.Runs {
		against := disturbed || slices.Contains(n.Against, part)
		s.add(s.at(part), n, inSoak, vouches && !against, against)
		if n.Kind != "" {
			s.add(s.ofKind(n.Kind, part), n, inSoak, vouches && !against, against)
		}
	}
}

func (s *Standing) add(c *Count, n Node, inSoak, soaked, against bool) {
	if inSoak {
		c.InSoak++
		c.frees = soonest(c.frees, n.soakEnds(s.rule.Soak))
	}
	if soaked {
		c.Soaked++
		if !n.ControlPlane {
			c.byWorkers++
		}
	}
	if against {
		c.Against++
	}
}

func (s *Standing) at(part Part) *Count {
	c := s.cluster[part]
	if c == nil {
		c = &Count{}
		s.cluster[part] = c
	}
	return c
}

func (s *Standing) ofKind(kind string, part Part) *Count {
	key := kindPart{kind, part}
	c := s.kinds[key]
	if c == nil {
		c = &Count{}
		s.kinds[key] = c
	}
	return c
}

// soakedOn is how many nodes have soaked a part: nobody what is Unknown.
func (s *Standing) soakedOn(part Part) int {
	if c := s.cluster[part]; c != nil && part != Unknown {
		return c.Soaked
	}
	return 0
}

// isNew reports whether nobody has soaked one of the parts, or whether there is none.
func (s *Standing) isNew(parts []Part) bool {
	return len(parts) == 0 || slices.ContainsFunc(parts, func(p Part) bool { return s.soakedOn(p) == 0 })
}

// Refusal is why a node may not be the next in soak. The zero value is none.
type Refusal struct {
	// Reason is CamelCase; empty: it may.
	Reason string
	// Message is a sentence for a person.
	Message string
	// Until is when that can change by itself at the earliest; zero: time does not change it.
	Until time.Time
	// Own: it is about this node, and others may go.
	Own bool
}

// The reasons of a Refusal.
const (
	ReasonNoParts       = "NoParts"
	ReasonFlaps         = "Flaps"
	ReasonOwnSoak       = "OwnSoak"
	ReasonLimit         = "ExposureLimit"
	ReasonCanary        = "CanarySoaks"
	ReasonPart          = "PartLimit"
	ReasonAgainst       = "EvidenceAgainst"
	ReasonControlPlane  = "ControlPlaneSoaks"
	ReasonWorkersBefore = "WorkersFirst"
)

// Reasons are all reasons that Admit gives.
func Reasons() []string {
	return []string{ReasonNoParts, ReasonFlaps, ReasonOwnSoak, ReasonLimit, ReasonCanary, ReasonPart, ReasonAgainst, ReasonControlPlane, ReasonWorkersBefore}
}

// Admit says whether the node may boot into what it wants now, and soak it. name tells a
// part in words where it is known.
func (s *Standing) Admit(n Node, name func(Part) string) Refusal {
	if len(s.Flapped) > s.Budget {
		// The oldest of those that are too many is the first whose end changes anything.
		ends := s.Flapped[len(s.Flapped)-1-s.Budget].Add(s.rule.Soak)
		return Refusal{ReasonFlaps, fmt.Sprintf("%d nodes flapped or booted without the turn within %s, of at most %d; the last at %s", len(s.Flapped), s.rule.Soak, s.Budget, text(s.Flapped[len(s.Flapped)-1])), ends, false}
	}
	if n.Wants == nil {
		return Refusal{Reason: ReasonNoParts, Message: "its gate does not tell what it would run", Own: true}
	}
	if ends := n.soakEnds(s.rule.Soak); s.now.Before(ends) {
		return Refusal{ReasonOwnSoak, "it is in soak itself until " + text(ends), ends, true}
	}
	if len(s.InSoak) >= s.Limit {
		return Refusal{ReasonLimit, fmt.Sprintf("%d nodes are in soak, of at most %d; the first soak ends at %s", len(s.InSoak), s.Limit, text(s.firstSoakEnds)), s.firstSoakEnds, false}
	}
	var refusal Refusal
	for _, part := range n.Wants {
		for _, c := range []*Count{s.cluster[part], s.kinds[kindPart{n.Kind, part}]} {
			if c == nil {
				continue
			}
			count := *c
			if part != Unknown && slices.Contains(n.Runs, part) {
				count.Against = 0 // the boot does not bring it to this node
			}
			refusal = worse(refusal, s.admitPart(part, count, name))
		}
	}
	if s.isNew(n.Wants) && s.canary != "" {
		refusal = worse(refusal, Refusal{ReasonCanary, fmt.Sprintf("nobody has soaked %s, and %s is in soak on something new until %s", s.newest(n.Wants, name), s.canary, text(s.canaryEnds)), s.canaryEnds, true})
	}
	if n.ControlPlane {
		refusal = worse(refusal, s.admitControlPlane(n, name))
	}
	return refusal
}

func (s *Standing) admitPart(part Part, c Count, name func(Part) string) Refusal {
	limit := s.rule.limit(c)
	if part == Unknown {
		limit = 1
	}
	switch {
	case c.InSoak < limit:
		return Refusal{}
	case c.Against > 0 && limit == 0:
		return Refusal{Reason: ReasonAgainst, Message: fmt.Sprintf("%s: %d of the nodes that booted into it crashed or flapped in their soak, and %d soaked it: find out why", name(part), c.Against, c.Soaked), Own: true}
	}
	return Refusal{ReasonPart, fmt.Sprintf("%s: soaked on %d nodes, in soak on %d of at most %d", name(part), c.Soaked, c.InSoak, limit), c.frees, true}
}

func (s *Standing) admitControlPlane(n Node, name func(Part) string) Refusal {
	if s.controlPlane != "" {
		return Refusal{ReasonControlPlane, fmt.Sprintf("%s, of the control plane as this node, is in soak until %s", s.controlPlane, text(s.controlEnds)), s.controlEnds, true}
	}
	first := n.WaitsSince.Add(s.rule.FirstAfter)
	if s.workers == 0 || !n.WaitsSince.IsZero() && !s.now.Before(first) {
		return Refusal{}
	}
	for _, part := range n.Wants {
		if c := s.cluster[part]; c == nil || c.byWorkers == 0 {
			return Refusal{ReasonWorkersBefore, name(part) + ": no worker has soaked it, and the control plane goes last, but for one that has waited since " + text(first.Add(-s.rule.FirstAfter)) + " for " + s.rule.FirstAfter.String(), first, true}
		}
	}
	return Refusal{}
}

// newest names one of the parts that nobody has soaked.
func (s *Standing) newest(parts []Part, name func(Part) string) string {
	for _, p := range parts {
		if s.soakedOn(p) == 0 {
			return name(p)
		}
	}
	return "what it would run"
}

// Part returns what is known of one part in the whole cluster.
func (s *Standing) Part(part Part) Count {
	if c := s.cluster[part]; c != nil {
		return *c
	}
	return Count{}
}

// LimitOf is how many may be in soak on the part, by its count.
func (s *Standing) LimitOf(part Part) int { return min(s.rule.limit(s.Part(part)), s.Limit) }

// Names names a part by those that are known, and as its hash where it is not.
func Names(known map[Part]string) func(Part) string {
	return func(p Part) string {
		switch name := known[p]; {
		case name != "":
			return name
		case p == Unknown:
			return "something of which the version is not known"
		default:
			return "part " + string(p)
		}
	}
}

// worse returns the refusal that lasts longer; one that time does not end lasts longest.
func worse(a, b Refusal) Refusal {
	switch {
	case b.Reason == "":
		return a
	case a.Reason == "":
		return b
	case a.Until.IsZero() || !b.Until.IsZero() && !b.Until.After(a.Until):
		return a
	}
	return b
}

// String is short, for logs: what is in soak, and of at most how many.
func (s *Standing) String() string {
	text := fmt.Sprintf("%d in soak of at most %d, %d soaked", len(s.InSoak), s.Limit, s.Soaked)
	if len(s.Against) > 0 {
		text += ", evidence against from " + strings.Join(s.Against[:min(len(s.Against), 5)], " ")
	}
	return text
}

func latest(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

func soonest(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}

func text(t time.Time) string {
	if t.IsZero() {
		return "an unknown time"
	}
	return t.UTC().Format(time.RFC3339)
}
