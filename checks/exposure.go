package checks

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sentinel-gate/sentinel-gate/gate"
	"github.com/sentinel-gate/sentinel-gate/gate/cluster"
	"github.com/sentinel-gate/sentinel-gate/gate/packages"
	"github.com/sentinel-gate/sentinel-gate/gate/soak"
	"github.com/sentinel-gate/sentinel-gate/gate/turn"
)

// ExposureOptions say how many nodes may be in soak at a time.
type ExposureOptions struct {
	// Growth is how many more may soak for each node that has soaked.
	Growth int `json:"growth"`
	// Max is how many may be in soak together, a count or a percentage.
	Max soak.Amount `json:"max"`
	// Kinds are labels of nodes: what is new to a kind gets one node of it.
	Kinds []string `json:"kinds"`
}

func (o *ExposureOptions) setDefaults() { o.Growth, o.Max = 2, soak.Amount{Percent: 25} }

// validate reports what cannot be meant.
func (o ReadySoakOptions) validate() (problems []error) {
	wrong := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	if o.Duration <= 0 {
		wrong("options.duration: must be longer than 0s")
	}
	switch e := o.Exposure; {
	case e == nil && o.Flaps != soak.Amount{}:
		wrong("options.flaps: needs exposure: without it every flap begins the soak anew")
	case e == nil:
	default:
		if e.Growth < 1 || e.Growth > soak.MaxGrowth {
			wrong("options.exposure.growth: want 1 to %d, not %d", soak.MaxGrowth, e.Growth)
		}
		if e.Max == (soak.Amount{}) {
			wrong("options.exposure.max: want a count or a percentage above 0")
		}
	}
	return problems
}

// Exposer is a check that may let more than one node soak at a time.
type Exposer interface {
	Soaker
	// Exposure is the rule, and which nodes count by it; nil: one at a time.
	Exposure() (*soak.Rule, cluster.Soaking)
}

// Exposure returns what the options say.
func (c readySoak) Exposure() (*soak.Rule, cluster.Soaking) {
	o := c.options
	if o.Exposure == nil {
		return nil, cluster.Soaking{}
	}
	var firstAfter time.Duration
	if c.cluster != nil {
		firstAfter = c.cluster.GoFirstAfter
	}
	rule := o.rule(firstAfter)
	return &rule, o.soaking()
}

func (o ReadySoakOptions) rule(firstAfter time.Duration) soak.Rule {
	return soak.Rule{Soak: time.Duration(o.Duration), Growth: o.Exposure.Growth, Max: o.Exposure.Max, Flaps: o.Flaps, FirstAfter: firstAfter}
}

func (o ReadySoakOptions) soaking() cluster.Soaking {
	return cluster.Soaking{Selector: o.Selector, GateSelector: o.GateSelector, IgnoreJoined: o.IgnoreJoined, Kinds: o.Exposure.Kinds}
}

// ownNode is what the gate knows of its own node.
type ownNode struct {
	name       string
	firstAfter time.Duration
	found      *packages.Found // nil: it was not looked for
}

// exposed is the pure part with exposure: whether this node may be the next in soak.
func exposed(nodes []cluster.Node, records map[string]cluster.Entry, stands *turn.State, now time.Time, o ReadySoakOptions, own ownNode) gate.Result {
	_, _, doubt := review(nodes, records, stands, now, o)
	if doubt != nil {
		return *doubt
	}
	if _, problem := cluster.Own(nodes, own.name); problem != "" {
		return gate.Undecided(gate.ReasonOwnNodeUnknown, "%s", problem)
	}
	thisNode := func(r gate.Result) gate.Result {
		r.ThisNode = true
		return r
	}
	record, known := records[own.name], map[soak.Part]string(nil)
	members := cluster.Members(nodes, records, o.soaking(), now)
	me := slices.IndexFunc(members, func(m soak.Node) bool { return m.Name == own.name && !m.Gone })
	if me < 0 {
		return thisNode(gate.Failed("NotSelected", "this node is none of those that the selector %q chooses, and nobody counts its soak", o.Selector))
	}
	if found := own.found; found != nil {
		known = found.Names
		switch pending := record.PartsPending != nil; {
		case len(found.Broken) > 0:
			return thisNode(gate.Failed("NotConfigured", "packages are not configured, so that nobody knows what a boot would run: %s; run dpkg --configure -a", strings.Join(found.Broken, ", ")))
		case pending && soak.PutParts(found.Wants) != soak.PutParts(record.PartsPending):
			return gate.Failed("PartsNotRecorded", "what this node would run has changed, and its record does not tell it yet")
		case !pending: // nothing is asked for: as it would be
			members[me].Wants = slices.Clone(found.Wants)
		}
	}
	standing := o.rule(own.firstAfter).Judge(members, now)
	refusal := standing.Admit(members[me], soak.Names(known))
	if refusal.Reason == "" {
		return gate.Passed("Exposed", "%s", standing)
	}
	r := gate.Failed(refusal.Reason, "%s; %s", refusal.Message, standing)
	r.ThisNode = refusal.Own
	if !refusal.Until.IsZero() {
		r.RetryAfter = max(refusal.Until.Sub(now), 0)
	}
	return r
}
