package checks

import (
	"context"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/sentinel-gate/sentinel-gate/gate"
)

// What a check may be able to do besides its question. Each is an interface of
// its own, and a check asserts in its file which of them it has; that it can
// watch is gate.Watcher.

// Reader is a check that reads the API server.
type Reader interface {
	gate.Check
	// Rules are what the check must be allowed in the API server, no more. Watch
	// is among the verbs where the check is a gate.Watcher.
	Rules() []rbacv1.PolicyRule
}

// RulesOf returns what the check must be allowed in the API server: nothing
// where it is no Reader.
func RulesOf(check gate.Check) []rbacv1.PolicyRule {
	if reader, ok := check.(Reader); ok {
		return reader.Rules()
	}
	return nil
}

// Validator is a check of whose options only the API server knows whether they
// can be right.
type Validator interface {
	gate.Check
	// Validate returns an error where the API server says that they are wrong.
	// Where that cannot be known there is none: each evaluation asks again.
	Validate(ctx context.Context) error
}

// Soaker is a check that wants it to be quiet after a reboot.
type Soaker interface {
	gate.Check
	// Soak is for how long.
	Soak() time.Duration
}

// SoakOf returns how long the check wants it to be quiet after a reboot; 0
// where it is no Soaker.
func SoakOf(check gate.Check) time.Duration {
	if soaker, ok := check.(Soaker); ok {
		return soaker.Soak()
	}
	return 0
}

// RecordKeeper is a check that judges by the gates' records, besides other things.
type RecordKeeper interface {
	gate.Check
	// WithoutRecords returns the check as it judges without them, for a cluster in which
	// no gate has run yet.
	WithoutRecords() gate.Check
}

// Verifier is a check that can show that it can fail.
type Verifier interface {
	gate.Check
	// Verify reads what Check reads, once, and judges it as Check does: first as
	// it is, then with one thing at a time changed for the worse. It changes
	// nothing but its own copy of what it read. An error means that it could not
	// read.
	Verify(ctx context.Context) (Verification, error)
}

// Verification shows whether a step could fail.
type Verification struct {
	// Looked is what the step looks at right now, with its counts: "5 nodes".
	Looked string
	// Result is the verdict on what was read.
	Result gate.Result
	// Mutations are the same judged again, each with one change. A step that
	// passes now and passes on every mutation too, or has none, is vacuous: it
	// proves nothing.
	Mutations []Mutation
}

// Mutation is one change for the worse to a copy of what was read.
type Mutation struct {
	// Change says what was changed, in the past tense and by name: "node a
	// was made NotReady".
	Change string
	// Result is the verdict on the changed copy.
	Result gate.Result
}

// Vacuous reports whether no mutation takes the verdict away from Pass.
func (v Verification) Vacuous() bool {
	for _, m := range v.Mutations {
		if m.Result.Verdict != gate.Pass {
			return false
		}
	}
	return true
}
