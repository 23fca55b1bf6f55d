package gate

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sentinel-gate/sentinel-gate/gate/cluster"
)

// watcherFunc is a Check that passes, and what it watches with.
type watcherFunc func(context.Context, func(Result)) error

func (watcherFunc) Check(context.Context) (Result, error) { return Passed("Asked", "asked"), nil }

func (w watcherFunc) Watch(ctx context.Context, hint func(Result)) error { return w(ctx, hint) }

// A step with a nodeSelector is asked on the nodes that match, and is silent on
// the others, also while the gate is open. Where the node is not known it is
// Unknown.
func TestNodeSelector(t *testing.T) {
	var pool cluster.Selector
	if err := pool.UnmarshalText([]byte("pool=a")); err != nil {
		t.Fatal(err)
	}
	watched := errors.New("watched")
	check := watcherFunc(func(context.Context, func(Result)) error { return watched })
	broken := errors.New("broken")
	for name, c := range map[string]struct {
		own     cluster.Node
		problem string
		err     error
		verdict Verdict
		reason  string
		message string
		watch   error
	}{
		"here":        {own: cluster.Node{Labels: map[string]string{"pool": "a"}}, verdict: Pass, reason: "Asked", message: "asked", watch: watched},
		"elsewhere":   {own: cluster.Node{Labels: map[string]string{"pool": "b"}}, verdict: Pass, reason: "NotOnThisNode", message: `this node does not match the step's nodeSelector "pool=a": nothing was asked`, watch: context.DeadlineExceeded},
		"not known":   {problem: "who am I?", verdict: Unknown, reason: "OwnNodeUnknown", message: "who am I?", watch: watched},
		"not to read": {err: broken, verdict: Unknown, reason: "Error", message: "broken", watch: broken},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				step := &Step{
					Name: "s", Type: "t", Check: check, Timeout: time.Second, NodeSelector: pool,
					OwnNode: func(context.Context) (cluster.Node, string, error) { return c.own, c.problem, c.err },
				}
				p, err := NewPipeline([]*Step{step}, nil)
				if err != nil {
					t.Fatal(err)
				}
				got := p.Evaluate(t.Context(), nil, nil).Outcomes[0]
				if got.Verdict != c.verdict || got.Reason != c.reason || got.Message != c.message || got.scope != NodeScope {
					t.Errorf("got %+v", got)
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				if err := guardedWatch(ctx, p.steps[0], check, func(Result) {}); !errors.Is(err, c.watch) {
					t.Errorf("the watch ended with %v, want %v", err, c.watch)
				}
			})
		})
	}
	if _, err := NewPipeline([]*Step{{Name: "s", Check: check, Timeout: time.Second, NodeSelector: pool}}, nil); err == nil {
		t.Error("a step that cannot read its node was accepted")
	}
}
