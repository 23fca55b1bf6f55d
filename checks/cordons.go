package checks

import (
	"context"
	"fmt"
	"slices"

	"github.com/sentinel-gate/sentinel-gate/gate"
	"github.com/sentinel-gate/sentinel-gate/gate/cluster"
)

// CordonsOptions are the options of cordons.
type CordonsOptions struct {
	// Selector chooses the nodes that count, by label; all of them by default.
	Selector cluster.Selector `json:"selector"`
	// MaxCordoned is how many of the other nodes may be cordoned.
	MaxCordoned int `json:"maxCordoned"`
}

func cordonsDefaults() CordonsOptions { return CordonsOptions{} }

type cordons struct {
	overNodes
	options CordonsOptions
}

var (
	_ gate.Watcher = cordons{}
	_ Reader       = cordons{}
	_ Verifier     = cordons{}
)

// newCordons returns the check. That kured cordons the gate's own node is what
// the gate was opened for, and no hint to close it.
func newCordons(o CordonsOptions, c *cluster.Cluster) (gate.Check, []error) {
	judge := func(nodes []cluster.Node) gate.Result { return noneCordoned(nodes, c.Node, o) }
	return cordons{overNodes{c, judge}, o}, join(atLeast("maxCordoned", o.MaxCordoned, 0))
}

// Verify cordons one other node more than may be. Where there are no more, the
// step cannot fail, and that shows. In a cluster of one node it adds another.
func (c cordons) Verify(ctx context.Context) (Verification, error) {
	nodes, err := c.cluster.Nodes(ctx)
	if err != nil {
		return Verification{}, err
	}
	own, every := c.cluster.Node, nodes.Items
	chosen := selected(every, c.options.Selector)
	others := slices.DeleteFunc(slices.Clone(chosen), func(i int) bool { return every[i].Name == own })
	v := Verification{
		Looked: fmt.Sprintf("%s, of %d selected and %d in all", gate.Count(len(others), "other node"), len(chosen), len(every)),
		Result: c.judge(every),
	}
	if len(chosen) == 1 && len(others) == 0 {
		others = append(others, len(every))
		every = append(slices.Clone(every), cluster.Node{Name: "another", Labels: every[chosen[0]].Labels})
	}
	some := others[:min(c.options.MaxCordoned+1, len(others))]
	v.Mutations = []Mutation{c.worsened(every, some, "cordoned: %s", func(n *cluster.Node) { n.Unschedulable = true })}
	return v, nil
}

// noneCordoned is the pure part. The gate's own node is left out: kured cordons
// it, and the gate of that node must not take it for somebody else's work.
func noneCordoned(nodes []cluster.Node, own string, o CordonsOptions) gate.Result {
	if _, problem := cluster.Own(nodes, own); problem != "" {
		return gate.Undecided("OwnNodeUnknown", "%s", problem)
	}
	var selected, others int
	var cordoned names
	for _, n := range nodes {
		if !o.Selector.Matches(n.Labels) {
			continue
		}
		selected++
		if n.Name == own {
			continue
		}
		others++
		if n.Unschedulable {
			cordoned = append(cordoned, n.Name)
		}
	}
	switch {
	case selected == 0:
		return gate.Failed("NoNodes", "%s", noneOf(o.Selector, len(nodes)))
	case len(cordoned) > o.MaxCordoned:
		return gate.Failed("NodesCordoned", "%d of %s %s cordoned, and %d may be: %s", len(cordoned), gate.Count(others, "other node"), agree(len(cordoned), "is", "are"), o.MaxCordoned, cordoned)
	case len(cordoned) > 0:
		return gate.Passed("FewNodesCordoned", "%d of %s %s cordoned, and %d may be: %s", len(cordoned), gate.Count(others, "other node"), agree(len(cordoned), "is", "are"), o.MaxCordoned, cordoned)
	}
	return gate.Passed("NoneCordoned", "%s cordoned", agree(others, "the other node is not", fmt.Sprintf("none of %d other nodes is", others)))
}
