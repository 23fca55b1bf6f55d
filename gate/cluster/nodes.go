package cluster

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
)

// Node is what is kept of a Node.
type Node struct {
	Name    string
	Labels  map[string]string
	Taints  []corev1.Taint
	Created time.Time
	BootID  string
	// Ready is the status of the Ready condition, empty where there is none.
	// Reason, Since and Heartbeat are that condition's as well.
	Ready            corev1.ConditionStatus
	Reason           string
	Since, Heartbeat time.Time
	// Conditions has the status of every condition.
	Conditions map[corev1.NodeConditionType]corev1.ConditionStatus
	// Kernel, Image, Runtime and Kubelet are what its status says of them, with versions.
	Kernel, Image, Runtime, Kubelet string
	// Unschedulable: it is cordoned.
	Unschedulable bool
	Allocatable   Amounts
}

// NewNode returns what is kept of the Node.
func NewNode(n *corev1.Node) Node {
	out := Node{
		Name: n.Name, Labels: n.Labels, Taints: n.Spec.Taints,
		Created: n.CreationTimestamp.Time, BootID: n.Status.NodeInfo.BootID,
		Unschedulable: n.Spec.Unschedulable, Allocatable: AmountsOf(n.Status.Allocatable),
		Kernel: n.Status.NodeInfo.KernelVersion, Image: n.Status.NodeInfo.OSImage, Runtime: n.Status.NodeInfo.ContainerRuntimeVersion, Kubelet: n.Status.NodeInfo.KubeletVersion,
		Conditions: make(map[corev1.NodeConditionType]corev1.ConditionStatus, len(n.Status.Conditions)),
	}
	for _, c := range n.Status.Conditions {
		out.Conditions[c.Type] = c.Status
		if c.Type == corev1.NodeReady {
			out.Ready, out.Reason = c.Status, c.Reason
			out.Since, out.Heartbeat = c.LastTransitionTime.Time, c.LastHeartbeatTime.Time
		}
	}
	return out
}

// heartbeatLag is how much older than now the kubelet's last status may be before its
// clock is suspected: kubelets report every 5 minutes by default
// (nodeStatusReportFrequency).
const heartbeatLag = 10 * time.Minute

// ReadySince is since when its Ready condition is what it is. Where behind is not 0, the
// kubelet's clock is behind by that, or its status is as old: it dates all times back.
func (n Node) ReadySince(now time.Time) (since time.Time, behind time.Duration) {
	if lag := now.Sub(n.Heartbeat); n.IsReady() && !n.Since.IsZero() && lag > heartbeatLag {
		return n.Since.Add(lag), lag
	}
	return n.Since, 0
}

// IsReady reports whether the Ready condition is True.
func (n Node) IsReady() bool { return n.Ready == corev1.ConditionTrue }

// Trouble says why the node is not Ready; empty: it is.
func (n Node) Trouble() string {
	switch {
	case n.IsReady():
		return ""
	case n.Ready == "":
		return noReadyCondition
	}
	return readyText(n.Ready, n.Reason)
}

const noReadyCondition = "no Ready condition"

// readyText is a Ready condition in a few words.
func readyText(status corev1.ConditionStatus, reason string) string {
	text := "Ready=" + string(status)
	if reason != "" {
		text += ", " + reason
	}
	return text
}

type nodesKey struct{}

// Nodes lists all nodes, once per evaluation: each step selects its own. In the context
// of WithFollower it returns what is followed.
func (c *Cluster) Nodes(ctx context.Context) (Listing[Node], error) {
	if f := followerOf(ctx); f != nil {
		return f.current(c).nodes(ctx)
	}
	return Shared(ctx, nodesKey{}, func(ctx context.Context) (Listing[Node], error) {
		return c.listNodes(ctx, "nodes", everyNode)
	})
}

var everyNode metav1.ListOptions

func (c *Cluster) listNodes(ctx context.Context, what string, options metav1.ListOptions) (Listing[Node], error) {
	return list(ctx, what, options, c.NodeClient().List, func(l *corev1.NodeList, nodes []Node) []Node {
		return compacted(l.Items, nodes, NewNode)
	})
}

// FollowNodes watches from where the nodes were listed. It calls changed with
// that listing, and with it brought up to date after each change, while it
// holds mu. It returns when the watch ends.
func (c *Cluster) FollowNodes(ctx context.Context, mu sync.Locker, nodes Listing[Node], changed func(Listing[Node])) error {
	if f := followerOf(ctx); f != nil {
		return f.current(c).follow(ctx, mu, changed)
	}
	return c.followNodes(ctx, mu, nodes, changed)
}

func (c *Cluster) followNodes(ctx context.Context, mu sync.Locker, nodes Listing[Node], changed func(Listing[Node])) error {
	return follow(ctx, mu, "nodes", nodes, func(n Node) string { return n.Name }, c.NodeClient().Watch, metav1.ListOptions{}, NewNode, changed)
}

// Own returns the index of the gate's own node, which has that name, or why it
// is not known. A check of this node must not judge another in its place, nor
// find nothing in the way on one that does not exist.
func Own(nodes []Node, name string) (index int, problem string) {
	if name == "" {
		return -1, "the name of the gate's own node is not known: set --node-name"
	}
	if index = slices.IndexFunc(nodes, func(n Node) bool { return n.Name == name }); index < 0 {
		if len(nodes) == 1 {
			return -1, fmt.Sprintf("the gate's own node %q is not the only node of the cluster, %q", name, nodes[0].Name)
		}
		return -1, fmt.Sprintf("the gate's own node %q is none of the %d nodes of the cluster", name, len(nodes))
	}
	return index, ""
}

type ownNodeKey struct{}

// OwnNode reads the gate's own node alone, once per evaluation. The problem is
// why it is not known.
func (c *Cluster) OwnNode(ctx context.Context) (own Node, problem string, err error) {
	nodes, err := Shared(ctx, ownNodeKey{}, func(ctx context.Context) (Listing[Node], error) {
		return c.listNodes(ctx, "node "+c.Node, metav1.ListOptions{
			FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, c.Node).String(),
		})
	})
	if err != nil {
		return Node{}, "", err
	}
	i, problem := Own(nodes.Items, c.Node)
	if problem != "" {
		return Node{}, problem, nil
	}
	return nodes.Items[i], "", nil
}
