package checks

import (
	"context"
	"fmt"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/sentinel-gate/sentinel-gate/gate"
)

// NodesReadyOptions are the options of nodesReady.
type NodesReadyOptions struct {
	// Selector chooses the nodes, by label; all of them by default.
	Selector Selector `json:"selector"`
	// Minimum is how many nodes there must be at least.
	Minimum int `json:"minimum"`
	// MaxNotReady is how many may be other than Ready, for clusters so large
	// that one node is always away.
	MaxNotReady int `json:"maxNotReady"`
}

func nodesReadyDefaults() NodesReadyOptions { return NodesReadyOptions{Minimum: 1} }

type nodesReady struct {
	cluster *Cluster
	options NodesReadyOptions
}

func newNodesReady(o NodesReadyOptions, c *Cluster) (Check, []error) {
	return nodesReady{c, o}, join(
		atLeast("minimum", o.Minimum, 1),
		atLeast("maxNotReady", o.MaxNotReady, 0),
	)
}

// Check reads all nodes.
func (c nodesReady) Check(ctx context.Context) (gate.Result, error) {
	nodes, err := c.cluster.nodes(ctx)
	if err != nil {
		return gate.Result{}, err
	}
	return allReady(nodes.items, c.options), nil
}

// Watch hints when a node stops being Ready.
func (c nodesReady) Watch(ctx context.Context, hint func(gate.Result)) error {
	nodes, err := c.cluster.nodes(ctx)
	if err != nil {
		return err
	}
	return c.cluster.followNodes(ctx, &sync.Mutex{}, nodes, func(nodes listing[node]) {
		if r := allReady(nodes.items, c.options); r.Verdict != gate.Pass {
			hint(r)
		}
	})
}

// Rules name what Check and Watch read.
func (nodesReady) Rules() []rbacv1.PolicyRule { return []rbacv1.PolicyRule{readNodes} }

// Verify makes one node more NotReady than may be, and takes their condition
// away; and it removes as many as there are above the minimum, and one.
func (c nodesReady) Verify(ctx context.Context) (Verification, error) {
	nodes, err := c.cluster.nodes(ctx)
	if err != nil {
		return Verification{}, err
	}
	var selected []int
	for i, n := range nodes.items {
		if c.options.Selector.Matches(labels.Set(n.labels)) {
			selected = append(selected, i)
		}
	}
	v := Verification{
		Looked: fmt.Sprintf("%d of %d nodes", len(selected), len(nodes.items)),
		Result: allReady(nodes.items, c.options),
	}
	mutate := func(change string, count int, worsen func(*node)) {
		changed := slices.Clone(nodes.items)
		var who names
		for _, i := range selected[:min(count, len(selected))] {
			worsen(&changed[i])
			who = append(who, changed[i].name)
		}
		v.Mutations = append(v.Mutations, Mutation{fmt.Sprintf(change, who), allReady(changed, c.options)})
	}
	mutate("made NotReady: %s", c.options.MaxNotReady+1, func(n *node) { n.ready, n.reason = corev1.ConditionFalse, "" })
	mutate("without a Ready condition: %s", c.options.MaxNotReady+1, func(n *node) { n.ready = "" })
	if c.options.Minimum > 1 {
		mutate("without the selected labels: %s", len(selected)-c.options.Minimum+1, func(n *node) { n.labels = nil })
	}
	return v, nil
}

// allReady is the pure part. A node whose Ready condition is Unknown, or
// absent as on one that has only just registered, is not Ready.
func allReady(nodes []node, o NodesReadyOptions) gate.Result {
	var selected int
	var notReady names
	for _, n := range nodes {
		if !o.Selector.Matches(labels.Set(n.labels)) {
			continue
		}
		selected++
		switch {
		case n.ready == "":
			notReady = append(notReady, n.name+" (no Ready condition)")
		case !n.isReady():
			notReady = append(notReady, n.name+" (Ready="+string(n.ready)+reasonSuffix(n.reason)+")")
		}
	}
	switch {
	case selected == 0:
		return gate.Failed("NoNodes", "no node matches the selector %q, of %d nodes", o.Selector, len(nodes))
	case selected < o.Minimum:
		return gate.Failed("TooFewNodes", "only %d nodes match the selector %q, and the minimum is %d", selected, o.Selector, o.Minimum)
	case len(notReady) > o.MaxNotReady:
		return gate.Failed("NodesNotReady", "%d of %d nodes are not Ready, and %d may be: %s", len(notReady), selected, o.MaxNotReady, notReady)
	case len(notReady) > 0:
		return gate.Passed("EnoughNodesReady", "%d of %d nodes are not Ready, as many as may be: %s", len(notReady), selected, notReady)
	}
	return gate.Passed("NodesReady", "all %d nodes are Ready", selected)
}

func reasonSuffix(reason string) string {
	if reason == "" {
		return ""
	}
	return ", " + reason
}
