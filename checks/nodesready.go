package checks

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"github.com/sentinel-gate/sentinel-gate/gate"
	"github.com/sentinel-gate/sentinel-gate/gate/cluster"
)

// NodesReadyOptions are the options of nodesReady.
type NodesReadyOptions struct {
	// Selector chooses the nodes, by label; all of them by default.
	Selector cluster.Selector `json:"selector"`
	// Minimum is how many nodes there must be at least.
	Minimum int `json:"minimum"`
	// MaxNotReady is how many may be other than Ready, for clusters so large
	// that one node is always away.
	MaxNotReady int `json:"maxNotReady"`
}

func nodesReadyDefaults() NodesReadyOptions { return NodesReadyOptions{Minimum: 1} }

type nodesReady struct {
	overNodes
	options NodesReadyOptions
}

var (
	_ gate.Watcher = nodesReady{}
	_ Reader       = nodesReady{}
	_ Verifier     = nodesReady{}
)

func newNodesReady(o NodesReadyOptions, c *cluster.Cluster) (gate.Check, []error) {
	judge := func(nodes []cluster.Node) gate.Result { return allReady(nodes, o) }
	return nodesReady{overNodes{c, judge}, o}, join(
		atLeast("minimum", o.Minimum, 1),
		atLeast("maxNotReady", o.MaxNotReady, 0),
	)
}

// Verify makes one node more NotReady than may be, and takes their condition
// away; and it removes as many as there are above the minimum, and one.
func (c nodesReady) Verify(ctx context.Context) (Verification, error) {
	nodes, err := c.cluster.Nodes(ctx)
	if err != nil {
		return Verification{}, err
	}
	chosen := selected(nodes.Items, c.options.Selector)
	some := chosen[:min(c.options.MaxNotReady+1, len(chosen))]
	v := Verification{
		Looked: fmt.Sprintf("%d of %s", len(chosen), gate.Count(len(nodes.Items), "node")),
		Result: c.judge(nodes.Items),
		Mutations: []Mutation{
			c.worsened(nodes.Items, some, "made NotReady: %s", func(n *cluster.Node) { n.Ready, n.Reason = corev1.ConditionFalse, "" }),
			c.worsened(nodes.Items, some, "without a Ready condition: %s", func(n *cluster.Node) { n.Ready = "" }),
		},
	}
	if c.options.Minimum > 1 {
		spare := chosen[:min(max(len(chosen)-c.options.Minimum+1, 0), len(chosen))]
		v.Mutations = append(v.Mutations, c.worsened(nodes.Items, spare, "without the selected labels: %s", func(n *cluster.Node) { n.Labels = nil }))
	}
	return v, nil
}

// allReady is the pure part. A node whose Ready condition is Unknown, or
// absent as on one that has only just registered, is not Ready.
func allReady(nodes []cluster.Node, o NodesReadyOptions) gate.Result {
	var selected int
	var notReady names
	for _, n := range nodes {
		if !o.Selector.Matches(n.Labels) {
			continue
		}
		selected++
		if trouble := n.Trouble(); trouble != "" {
			notReady = append(notReady, n.Name+" ("+trouble+")")
		}
	}
	switch {
	case selected == 0:
		return gate.Failed("NoNodes", "%s", noneOf(o.Selector, len(nodes)))
	case selected < o.Minimum:
		return gate.Failed("TooFewNodes", "only %s %s the selector %q, and the minimum is %d", gate.Count(selected, "node"), agree(selected, "matches", "match"), o.Selector, o.Minimum)
	case len(notReady) > o.MaxNotReady:
		return gate.Failed("NodesNotReady", "%d of %s %s not Ready, and %d may be: %s", len(notReady), gate.Count(selected, "node"), agree(len(notReady), "is", "are"), o.MaxNotReady, notReady)
	case len(notReady) > 0:
		return gate.Passed("EnoughNodesReady", "%d of %s %s not Ready, as many as may be: %s", len(notReady), gate.Count(selected, "node"), agree(len(notReady), "is", "are"), notReady)
	}
	return gate.Passed("NodesReady", "%s %s Ready", all(selected, "node"), agree(selected, "is", "are"))
}
