package checks

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/sentinel-gate/sentinel-gate/gate"
)

// onNodes is a check that is asked on selected nodes, and passes on the others.
type onNodes struct {
	inner    Check
	selector Selector
	cluster  *Cluster
}

// onNodesWatched is one whose check is a gate.Watcher.
type onNodesWatched struct{ onNodes }

// OnNodes returns a check that asks the given one where the gate's own node has
// the labels, and passes without asking where it has not. Where the node is not
// known it is Unknown.
func OnNodes(check Check, selector Selector, cluster *Cluster) Check {
	c := onNodes{check, selector, cluster}
	if _, ok := check.(gate.Watcher); ok {
		return onNodesWatched{c}
	}
	return c
}

// Rules are those of the check, and to read the node.
func (c onNodes) Rules() []rbacv1.PolicyRule {
	return append(c.inner.Rules(), permit("", "nodes", "list"))
}

// Verify is that of the check, on whatever node: it must be able to fail
// wherever it is asked.
func (c onNodes) Verify(ctx context.Context) (Verification, error) { return c.inner.Verify(ctx) }

// Check reads the gate's own node first.
func (c onNodes) Check(ctx context.Context) (gate.Result, error) {
	own, err := c.cluster.ownNode(ctx)
	if err != nil {
		return gate.Result{}, err
	}
	if _, problem := ownNode(own, c.cluster.Node); problem != "" {
		return gate.Undecided("OwnNodeUnknown", "%s", problem), nil
	}
	if !c.selector.Matches(labels.Set(own[0].labels)) {
		return gate.Passed("NotOnThisNode", "this node does not match the step's nodeSelector %q: nothing was asked", c.selector), nil
	}
	return c.inner.Check(ctx)
}

// Watch passes hints on if the check, asked once more, is one of this node's.
func (c onNodesWatched) Watch(ctx context.Context, hint func(gate.Result)) error {
	own, err := c.cluster.ownNode(ctx)
	if err != nil {
		return err
	}
	if len(own) == 1 && !c.selector.Matches(labels.Set(own[0].labels)) {
		<-ctx.Done()
		return ctx.Err()
	}
	return c.inner.(gate.Watcher).Watch(ctx, hint)
}

type ownNodeKey struct{}

// ownNode lists the gate's own node alone, once per evaluation.
func (c *Cluster) ownNode(ctx context.Context) ([]node, error) {
	return gate.Shared(ctx, ownNodeKey{}, func(ctx context.Context) ([]node, error) {
		options := metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, c.Node).String()}
		own, err := list(ctx, "node "+c.Node, options, c.core.Nodes().List, func(l *corev1.NodeList, nodes []node) []node {
			for i := range l.Items {
				nodes = append(nodes, newNode(&l.Items[i]))
			}
			return nodes
		})
		return own.items, err
	})
}
