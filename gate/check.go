// Package gate turns the host's raw sentinel into a gated one that kured may
// see. Its invariant: the gated sentinel resolves only while the raw sentinel
// exists and every step of the pipeline passed in one evaluation that began
// less than maxAge ago. Whatever else happens, the gate is closed and says
// why.
//
// The life of a decision, in file order: a Check gives a Result (check.go); a
// Pipeline runs all its steps and makes their outcomes a Decision
// (pipeline.go, decision.go); the Loop reads the raw sentinel (raw.go), asks
// the pipeline, and opens or closes the Gated sentinel (gated.go, loop.go);
// the Log and the Metrics tell it (log.go, metrics.go).
package gate

import (
	"context"
	"fmt"
	"time"
)

// Check reports whether one aspect of the cluster permits a reboot now.
// It must honour ctx, keep no state between runs and log nothing. An error
// means that it could not decide; the pipeline records it as Unknown.
type Check interface {
	Check(ctx context.Context) (Result, error)
}

// Watcher is a Check that can also watch what it depends on, while the gate is
// open. Watch calls hint with every result but Pass that it sees, and returns
// when ctx ends or when it can watch no longer. A hint closes the gate; nothing
// that a Watcher sees can open it, so it may work from a cache.
type Watcher interface {
	Check
	Watch(ctx context.Context, hint func(Result)) error
}

// Scope is what a check looks at. A step that fails for its node alone hands
// the turn on; one that fails for the cluster would fail on every node.
type Scope int

const (
	// ClusterScope means that the verdict is the same on every node. It is the
	// zero value.
	ClusterScope Scope = iota
	// NodeScope means that the verdict is about the gate's own node.
	NodeScope
)

// Verdict is what a step says of the cluster. Only Pass lets the gate open.
type Verdict int

const (
	// Unknown means that the step could not decide. It is the zero value.
	Unknown Verdict = iota
	// Fail means that a reboot must not happen now.
	Fail
	// Pass means that this step permits a reboot now.
	Pass
)

// String returns the verdict's name, as logs and metrics show it.
func (v Verdict) String() string {
	switch v {
	case Pass:
		return "Pass"
	case Fail:
		return "Fail"
	default:
		return "Unknown"
	}
}

// MarshalText makes the verdict its name in JSON.
func (v Verdict) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// Result is the answer of a Check.
type Result struct {
	Verdict Verdict
	// Reason is CamelCase, from a set that the check's page lists: it becomes
	// the label of a metric.
	Reason string
	// Message is a sentence for a person.
	Message string
	// RetryAfter is how long the verdict cannot change, counted from when the
	// check read the cluster. Zero means that this is not known.
	RetryAfter time.Duration
	// ThisNode: a verdict that is not Pass is about the gate's own node, although others of
	// the same check are about the cluster.
	ThisNode bool
}

// Passed returns a Result that passes.
func Passed(reason, format string, args ...any) Result {
	return Result{Verdict: Pass, Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// Failed returns a Result that fails.
func Failed(reason, format string, args ...any) Result {
	return Result{Verdict: Fail, Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// Undecided returns a Result that is Unknown for a reason of the check's own.
func Undecided(reason, format string, args ...any) Result {
	return Result{Verdict: Unknown, Reason: reason, Message: fmt.Sprintf(format, args...)}
}
