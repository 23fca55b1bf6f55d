package checks

import (
	"context"
	"fmt"
	"slices"
	"sync"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/sentinel-gate/sentinel-gate/gate"
)

// CordonsOptions are the options of cordons.
type CordonsOptions struct {
	// Selector chooses the nodes that count, by label; all of them by default.
	Selector Selector `json:"selector"`
	// MaxCordoned is how many of the other nodes may be cordoned.
	MaxCordoned int `json:"maxCordoned"`
}

func cordonsDefaults() CordonsOptions { return CordonsOptions{} }

type cordons struct {
	cluster *Cluster
	options CordonsOptions
}

func newCordons(o CordonsOptions, c *Cluster) (Check, []error) {
	return cordons{c, o}, join(atLeast("maxCordoned", o.MaxCordoned, 0))
}

// Check reads all nodes.
func (c cordons) Check(ctx context.Context) (gate.Result, error) {
	nodes, err := c.cluster.nodes(ctx)
	if err != nil {
		return gate.Result{}, err
	}
	return noneCordoned(nodes.items, c.cluster.Node, c.options), nil
}

// Watch hints when another node is cordoned. That kured cordons the gate's own
// node is what the gate was opened for.
func (c cordons) Watch(ctx context.Context, hint func(gate.Result)) error {
	nodes, err := c.cluster.nodes(ctx)
	if err != nil {
		return err
	}
	return c.cluster.followNodes(ctx, &sync.Mutex{}, nodes, func(nodes listing[node]) {
		if r := noneCordoned(nodes.items, c.cluster.Node, c.options); r.Verdict != gate.Pass {
			hint(r)
		}
	})
}

// Rules name what Check and Watch read.
func (cordons) Rules() []rbacv1.PolicyRule { return []rbacv1.PolicyRule{readNodes} }

// Verify cordons one other node more than may be. Where there are no more, the
// step cannot fail, and that shows. In a cluster of one node it adds another.
func (c cordons) Verify(ctx context.Context) (Verification, error) {
	nodes, err := c.cluster.nodes(ctx)
	if err != nil {
		return Verification{}, err
	}
	own := c.cluster.Node
	changed := slices.Clone(nodes.items)
	var selected, others []int
	for i, n := range changed {
		if !c.options.Selector.Matches(labels.Set(n.labels)) {
			continue
		}
		selected = append(selected, i)
		if n.name != own {
			others = append(others, i)
		}
	}
	v := Verification{
		Looked: fmt.Sprintf("%d other nodes, of %d selected and %d in all", len(others), len(selected), len(nodes.items)),
		Result: noneCordoned(nodes.items, own, c.options),
	}
	if len(selected) == 1 && len(others) == 0 {
		others = append(others, len(changed))
		changed = append(changed, node{name: "another", labels: changed[selected[0]].labels})
	}
	var who names
	for _, i := range others[:min(c.options.MaxCordoned+1, len(others))] {
		changed[i].unschedulable = true
		who = append(who, changed[i].name)
	}
	v.Mutations = []Mutation{{fmt.Sprintf("cordoned: %s", who), noneCordoned(changed, own, c.options)}}
	return v, nil
}

// noneCordoned is the pure part. The gate's own node is left out: kured cordons
// it, and the gate of that node must not take it for somebody else's work.
func noneCordoned(nodes []node, own string, o CordonsOptions) gate.Result {
	if _, problem := ownNode(nodes, own); problem != "" {
		return gate.Undecided("OwnNodeUnknown", "%s", problem)
	}
	var selected, others int
	var cordoned names
	for _, n := range nodes {
		if !o.Selector.Matches(labels.Set(n.labels)) {
			continue
		}
		selected++
		if n.name == own {
			continue
		}
		others++
		if n.unschedulable {
			cordoned = append(cordoned, n.name)
		}
	}
	switch {
	case selected == 0:
		return gate.Failed("NoNodes", "no node matches the selector %q, of %d nodes", o.Selector, len(nodes))
	case len(cordoned) > o.MaxCordoned:
		return gate.Failed("NodesCordoned", "%d of %d other nodes are cordoned, and %d may be: %s", len(cordoned), others, o.MaxCordoned, cordoned)
	case len(cordoned) > 0:
		return gate.Passed("FewNodesCordoned", "%d of %d other nodes are cordoned, and %d may be: %s", len(cordoned), others, o.MaxCordoned, cordoned)
	}
	return gate.Passed("NoneCordoned", "none of %d other nodes is cordoned", others)
}
