package gate

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// State is what the gate is, and what a decision asks it to be.
type State int

const (
	// Closed means that a reboot is pending, and must wait. It is the zero value.
	Closed State = iota
	// Idle means that no reboot is pending. The gated sentinel is as absent as when Closed.
	Idle
	// Open means that the gated sentinel resolves.
	Open
)

// States lists every state.
var States = []State{Closed, Idle, Open}

// String returns the state's name, as logs, metrics and records show it.
func (s State) String() string {
	switch s {
	case Idle:
		return "Idle"
	case Open:
		return "Open"
	default:
		return "Closed"
	}
}

// MarshalText makes the state its name in JSON.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Outcome is one step's part in a decision.
type Outcome struct {
	Name    string  `json:"name"`
	Type    string  `json:"type"`
	Verdict Verdict `json:"verdict"`
	Reason  string  `json:"reason"`
	Message string  `json:"message"`
	// Seconds is how long the step took.
	Seconds float64 `json:"seconds"`
	// Since is when the step began not to pass; zero while it passes.
	Since time.Time `json:"since,omitzero"`
	// Soft: the step does not pass, and holds nothing back for it.
	Soft bool `json:"soft,omitempty"`
	// Override is why somebody lets the step hold nothing back for a while,
	// although it does not pass.
	Override string `json:"override,omitempty"`

	retryAfter time.Duration
	scope      Scope
}

func (o Outcome) passed() bool { return o.Verdict == Pass }

// erred reports whether the step got no answer. That may be this node's own trouble: its
// network, its name server.
func (o Outcome) erred() bool {
	return o.Verdict == Unknown && (o.Reason == ReasonError || o.Reason == ReasonTimeout || o.Reason == ReasonStillRunning || o.Reason == ReasonPanic)
}

// holds reports whether the outcome holds the gate closed.
func (o Outcome) holds() bool { return !o.passed() && !o.Soft && o.Override == "" }

// Outcomes are the outcomes of one evaluation in the order of the steps.
type Outcomes []Outcome

// MarshalJSON keeps the full list in JSON logs, beside MarshalText.
func (o Outcomes) MarshalJSON() ([]byte, error) { return json.Marshal([]Outcome(o)) }

// MarshalText is the short form for text logs.
func (o Outcomes) MarshalText() ([]byte, error) {
	words := make([]string, len(o))
	for i, outcome := range o {
		words[i] = fmt.Sprintf("%s=%s(%s)", outcome.Name, outcome.Verdict, outcome.Reason)
	}
	return []byte(strings.Join(words, " ")), nil
}

// Decision is all outcomes of one evaluation.
type Decision struct {
	// Began is when the evaluation began: nothing it says is newer.
	Began    time.Time
	Outcomes Outcomes
}

// Passes reports whether every step passed but for soft ones, and that there
// was one at all that is not soft.
func (d Decision) Passes() bool {
	return len(d.Outcomes) > len(d.Soft()) && len(d.Blocking()) == 0
}

// Blocking returns the outcomes that hold the gate closed.
func (d Decision) Blocking() Outcomes {
	return d.where(Outcome.holds)
}

// Soft returns the outcomes that do not pass and, being soft, hold nothing back.
func (d Decision) Soft() Outcomes {
	return d.where(func(o Outcome) bool { return o.Soft && o.Override == "" })
}

// Overridden returns the outcomes that do not pass and are overridden.
func (d Decision) Overridden() Outcomes {
	return d.where(func(o Outcome) bool { return o.Override != "" })
}

// nodeBlocked reports whether the steps that hold the gate closed are all about
// this node.
func (d Decision) nodeBlocked() bool {
	blocking := d.Blocking()
	return len(blocking) > 0 && !slices.ContainsFunc(blocking, func(o Outcome) bool { return o.scope != NodeScope })
}

// stepsErr reports whether the steps that hold the gate closed are about this node, or
// such as could not decide for an error, and of these one at least.
func (d Decision) stepsErr() bool {
	blocking := d.Blocking()
	return slices.ContainsFunc(blocking, Outcome.erred) && !slices.ContainsFunc(blocking, func(o Outcome) bool { return o.scope != NodeScope && !o.erred() })
}

func (d Decision) where(wanted func(Outcome) bool) Outcomes {
	var some Outcomes
	for _, o := range d.Outcomes {
		if wanted(o) {
			some = append(some, o)
		}
	}
	return some
}

// RetryAfter is how long after it began the decision cannot change for the
// better: the longest time that a blocking step announced, and zero unless all
// of them announced one.
func (d Decision) RetryAfter() time.Duration {
	var longest time.Duration
	for _, o := range d.Blocking() {
		if o.retryAfter == 0 {
			return 0
		}
		longest = max(longest, o.retryAfter)
	}
	return longest
}

// Result returns the worst verdict: Unknown before Fail before Pass.
func (d Decision) Result() Verdict {
	worst := Pass
	for _, o := range d.Outcomes {
		worst = min(worst, o.Verdict)
	}
	if len(d.Outcomes) == 0 {
		return Unknown
	}
	return worst
}

// with returns a decision in which the outcome stands in for its step's.
func (d Decision) with(outcome Outcome) Decision {
	d.Outcomes = slices.Clone(d.Outcomes)
	for i := range d.Outcomes {
		if d.Outcomes[i].Name == outcome.Name {
			d.Outcomes[i] = outcome
			return d
		}
	}
	d.Outcomes = append(d.Outcomes, outcome)
	return d
}

// Asks returns the state that the decision alone would have.
func (d Decision) Asks() State {
	if d.Passes() {
		return Open
	}
	return Closed
}

// Reasons names each outcome's step with its reason.
func (o Outcomes) Reasons() string {
	words := make([]string, len(o))
	for i, outcome := range o {
		words[i] = fmt.Sprintf("%s (%s)", outcome.Name, outcome.Reason)
	}
	return strings.Join(words, ", ")
}

// Names returns the names of the outcomes' steps.
func (o Outcomes) Names() []string {
	names := make([]string, len(o))
	for i, outcome := range o {
		names[i] = outcome.Name
	}
	return names
}

// Count writes how many there are of something, for a person: 1 step, 2 steps.
func Count[N int | int32 | int64](n N, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return fmt.Sprintf("%d %s", n, noun)
}
