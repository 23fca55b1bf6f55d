package checks

import (
	"context"
	"fmt"
	"slices"
	"sync"

	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/sentinel-gate/sentinel-gate/gate"
	"github.com/sentinel-gate/sentinel-gate/gate/cluster"
)

// overNodes is what checks have in common that judge all nodes by a pure
// function, and nothing else.
type overNodes struct {
	cluster *cluster.Cluster
	judge   func([]cluster.Node) gate.Result
}

// Check reads all nodes.
func (c overNodes) Check(ctx context.Context) (gate.Result, error) {
	nodes, err := c.cluster.Nodes(ctx)
	if err != nil {
		return gate.Result{}, err
	}
	return c.judge(nodes.Items), nil
}

// Watch judges anew whenever a node changes.
func (c overNodes) Watch(ctx context.Context, hint func(gate.Result)) error {
	nodes, err := c.cluster.Nodes(ctx)
	if err != nil {
		return err
	}
	return c.cluster.FollowNodes(ctx, &sync.Mutex{}, nodes, func(nodes cluster.Listing[cluster.Node]) {
		if r := c.judge(nodes.Items); r.Verdict != gate.Pass {
			hint(r)
		}
	})
}

// Rules name what Check and Watch read.
func (overNodes) Rules() []rbacv1.PolicyRule { return []rbacv1.PolicyRule{cluster.ReadNodes} }

// worsened judges a copy of the nodes in which some of them, by their indices,
// are worse. In the text of the change %s stands for their names.
func (c overNodes) worsened(nodes []cluster.Node, some []int, change string, worsen func(*cluster.Node)) Mutation {
	changed := slices.Clone(nodes)
	var who names
	for _, i := range some {
		worsen(&changed[i])
		who = append(who, changed[i].Name)
	}
	return Mutation{fmt.Sprintf(change, who), c.judge(changed)}
}

// selected returns the indices of the nodes that are selected.
func selected(nodes []cluster.Node, by cluster.Selector) []int {
	var at []int
	for i, n := range nodes {
		if by.Matches(n.Labels) {
			at = append(at, i)
		}
	}
	return at
}
