package checks

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sentinel-gate/sentinel-gate/gate"
	"github.com/sentinel-gate/sentinel-gate/gate/cluster"
)

// ControlPlaneQuorumOptions are the options of controlPlaneQuorum.
type ControlPlaneQuorumOptions struct {
	// Selector chooses the members of the control plane, by label.
	Selector cluster.Selector `json:"selector"`
	// Members is how many members there should be. Where fewer Node objects are
	// found, the missing ones count as lost.
	Members int `json:"members"`
	// Minimum is how many other members must be up; 0 for a majority of all.
	Minimum int `json:"minimum"`
	// AllowSingle lets the only member of a control plane reboot.
	AllowSingle bool `json:"allowSingle"`
	// Pods chooses, in the namespace kube-system, the pods that a member must
	// have Ready in order to be up; empty for none.
	Pods cluster.Selector `json:"pods"`
}

func controlPlaneQuorumDefaults() ControlPlaneQuorumOptions {
	return ControlPlaneQuorumOptions{
		Selector: mustParse("node-role.kubernetes.io/control-plane"),
		// As kubeadm and RKE2 label the manifests that they write.
		Pods: mustParse("tier=control-plane,component in (etcd,kube-apiserver)"),
	}
}

func mustParse(text string) (s cluster.Selector) {
	if err := s.UnmarshalText([]byte(text)); err != nil {
		panic(err)
	}
	return s
}

type controlPlaneQuorum struct {
	cluster *cluster.Cluster
	options ControlPlaneQuorumOptions
}

var (
	_ gate.Watcher = controlPlaneQuorum{}
	_ Reader       = controlPlaneQuorum{}
	_ Verifier     = controlPlaneQuorum{}
)

func newControlPlaneQuorum(o ControlPlaneQuorumOptions, c *cluster.Cluster) (gate.Check, []error) {
	problems := join(atLeast("members", o.Members, 0), atLeast("minimum", o.Minimum, 0))
	if o.Selector.String() == "" {
		problems = append(problems, errors.New("options.selector: must not be empty: it says which nodes are the control plane"))
	}
	if o.AllowSingle && (o.Members > 1 || o.Minimum > 0) {
		problems = append(problems, errors.New("options.allowSingle: contradicts members above 1, and minimum"))
	}
	if o.Members > 0 && o.Minimum >= o.Members {
		problems = append(problems, fmt.Errorf("options.minimum: of %s, at most %d %s, not %d", gate.Count(o.Members, "member"), o.Members-1, agree(o.Members-1, "is another", "are others"), o.Minimum))
	}
	return controlPlaneQuorum{c, o}, problems
}

// Check reads all nodes and, where this one is of the control plane, the pods
// that its members run.
func (c controlPlaneQuorum) Check(ctx context.Context) (gate.Result, error) {
	nodes, pods, err := c.read(ctx)
	if err != nil {
		return gate.Result{}, err
	}
	return c.judge(nodes, pods), nil
}

func (c controlPlaneQuorum) read(ctx context.Context) (nodes cluster.Listing[cluster.Node], pods cluster.Listing[cluster.Pod], err error) {
	if nodes, err = c.cluster.Nodes(ctx); err != nil || !c.asksForPods(nodes.Items) {
		return nodes, pods, err
	}
	pods, err = c.cluster.Pods(ctx, metav1.NamespaceSystem, c.options.Pods.String())
	return nodes, pods, err
}

func (c controlPlaneQuorum) asksForPods(nodes []cluster.Node) bool {
	i, problem := cluster.Own(nodes, c.cluster.Node)
	return problem == "" && c.options.Selector.Matches(nodes[i].Labels) && c.options.Pods.String() != ""
}

func (c controlPlaneQuorum) judge(nodes cluster.Listing[cluster.Node], pods cluster.Listing[cluster.Pod]) gate.Result {
	return quorumLeft(nodes.Items, pods.Items, pods.Now, c.cluster.Node, c.options)
}

// Watch hints when so many other members are down that a quorum would be lost.
func (c controlPlaneQuorum) Watch(ctx context.Context, hint func(gate.Result)) error {
	nodes, pods, err := c.read(ctx)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	judge := func() {
		if r := c.judge(nodes, pods); r.Verdict != gate.Pass {
			hint(r)
		}
	}
	followers := []func(context.Context) error{func(ctx context.Context) error {
		return c.cluster.FollowNodes(ctx, &mu, nodes, func(l cluster.Listing[cluster.Node]) { nodes = l; judge() })
	}}
	if c.asksForPods(nodes.Items) {
		followers = append(followers, func(ctx context.Context) error {
			return c.cluster.FollowPods(ctx, &mu, metav1.NamespaceSystem, c.options.Pods.String(), pods, func(l cluster.Listing[cluster.Pod]) { pods = l; judge() })
		})
	}
	return cluster.Together(ctx, followers...)
}

// Rules name what Check and Watch read.
func (c controlPlaneQuorum) Rules() []rbacv1.PolicyRule {
	if c.options.Pods.String() == "" {
		return []rbacv1.PolicyRule{cluster.ReadNodes}
	}
	return []rbacv1.PolicyRule{cluster.ReadNodes, cluster.ReadPods}
}

// Verify makes all other members NotReady, and takes their pods' readiness. On a
// worker, which may always go, it first makes this node a member.
func (c controlPlaneQuorum) Verify(ctx context.Context) (Verification, error) {
	nodes, pods, err := c.read(ctx)
	if err != nil {
		return Verification{}, err
	}
	own, _ := cluster.Own(nodes.Items, c.cluster.Node)
	var members []int
	for i, n := range nodes.Items {
		if c.options.Selector.Matches(n.Labels) {
			members = append(members, i)
		}
	}
	v := Verification{
		Looked: fmt.Sprintf("%s of the control plane, of %s, and %d of their pods", gate.Count(len(members), "member"), gate.Count(len(nodes.Items), "node"), len(pods.Items)),
		Result: c.judge(nodes, pods),
	}
	changed := nodes
	changed.Items = slices.Clone(nodes.Items)
	change := "made NotReady: %s"
	if own >= 0 && len(members) > 0 && !slices.Contains(members, own) {
		changed.Items[own].Labels = changed.Items[members[0]].Labels
		change = "made a member of the control plane: " + c.cluster.Node + "; " + change
	}
	var others names
	for _, i := range members {
		if i != own {
			changed.Items[i].Ready = corev1.ConditionFalse
			others = append(others, changed.Items[i].Name)
		}
	}
	v.Mutations = append(v.Mutations, Mutation{fmt.Sprintf(change, others), c.judge(changed, pods)})
	if len(pods.Items) > 0 {
		unready := pods
		unready.Items = slices.Clone(pods.Items)
		for i := range unready.Items {
			unready.Items[i].Trouble = "Ready=False"
		}
		v.Mutations = append(v.Mutations, Mutation{"made not Ready: the pods of all members", c.judge(nodes, unready)})
	}
	return v, nil
}

// quorumLeft is the pure part. It counts the other members that are up: Ready,
// and with each control-plane pod that they have, or that this node has, Ready.
func quorumLeft(nodes []cluster.Node, pods []cluster.Pod, now time.Time, own string, o ControlPlaneQuorumOptions) gate.Result {
	at, why := cluster.Own(nodes, own)
	if why != "" {
		return gate.Undecided("OwnNodeUnknown", "%s", why)
	}
	var members []cluster.Node
	for _, n := range nodes {
		if o.Selector.Matches(n.Labels) {
			members = append(members, n)
		}
	}
	switch {
	case len(members) == 0:
		return gate.Failed("NoControlPlane", "%s: correct it, or leave this step out where the control plane has no nodes here", noneOf(o.Selector, len(nodes)))
	case !o.Selector.Matches(nodes[at].Labels):
		return gate.Passed("NotControlPlane", "%s is not of the control plane, whose %s", own, agree(len(members), "only member is another node", fmt.Sprintf("members are %d other nodes", len(members))))
	}
	size := max(len(members), o.Members)
	need := size/2 + 1
	if o.Minimum > 0 {
		need = o.Minimum
	}
	switch {
	case size == 1 && o.AllowSingle:
		return gate.Passed("SingleAllowed", "%s is the only member of the control plane, which is away while it reboots, as allowSingle permits", own)
	case size == 1:
		return gate.Failed("NeverQuorum", "%s is the only member of the control plane, which is away while it reboots; allowSingle would permit that", own)
	case need > size-1:
		return gate.Failed("NeverQuorum", "%s is one of %d members of the control plane: without it %d must be up, and never are", own, size, need)
	}

	states := stateByNode(pods, now)
	up := 0
	down := missing(size - len(members))
	for _, m := range members {
		if m.Name == own {
			continue
		}
		if problem := memberProblem(m, states[m.Name], states[own]); problem != "" {
			down = append(down, m.Name+" ("+problem+")")
			continue
		}
		up++
	}
	lost := ""
	if len(down) > 0 {
		lost = "; down: " + down.String()
	}
	if up < need {
		return gate.Failed("QuorumAtRisk", "without %s, %d of %d members of the control plane would be up, and %d must be%s", own, up, size, need, lost)
	}
	return gate.Passed("QuorumLeft", "without %s, %d of %d members of the control plane %s up, and %d must be%s", own, up, size, agree(up, "is", "are"), need, lost)
}

// missing are members without a Node object.
func missing(count int) (down names) {
	if count > 0 {
		down = append(down, fmt.Sprintf("%d without a Node object", count))
	}
	return down
}

// component is a pod of the control plane on one node.
type component struct {
	static  bool // of the kubelet's own, which every member has under one name
	problem string
}

// stateByNode finds the components of each node. The name of a static pod is
// that of its component, with the node's name behind.
func stateByNode(pods []cluster.Pod, now time.Time) map[string]map[string]component {
	states := map[string]map[string]component{}
	for _, p := range pods {
		if states[p.Node] == nil {
			states[p.Node] = map[string]component{}
		}
		name, static := strings.CutSuffix(p.Name, "-"+p.Node)
		trouble, _ := troubleOf(p, now)
		states[p.Node][name] = component{static, trouble}
	}
	return states
}

// memberProblem says why a member is down, if it is: what this node has and it
// has not is lost when this node goes.
func memberProblem(m cluster.Node, has, own map[string]component) string {
	if trouble := m.Trouble(); trouble != "" {
		return trouble
	}
	for _, name := range slices.Sorted(maps.Keys(has)) {
		if problem := has[name].problem; problem != "" {
			return name + ": " + problem
		}
	}
	for _, name := range slices.Sorted(maps.Keys(own)) {
		if _, ok := has[name]; !ok && own[name].static {
			return name + ": no pod"
		}
	}
	return ""
}
