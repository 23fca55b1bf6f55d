package checks

import (
	"context"

	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/sentinel-gate/sentinel-gate/gate"
)

// Check is a check of this package. Besides its question it can tell what it
// needs, and show that it can fail.
type Check interface {
	gate.Check
	// Rules are what the check must be allowed in the API server, no more. Nil
	// where it does not ask the API server. Watch is among the verbs where the
	// check is a gate.Watcher.
	Rules() []rbacv1.PolicyRule
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
