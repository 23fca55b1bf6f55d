package checks

import (
	"context"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corev1helpers "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/klog/v2"

	"github.com/sentinel-gate/sentinel-gate/gate"
	"github.com/sentinel-gate/sentinel-gate/gate/cluster"
)

// HeadroomOptions are the options of headroom.
type HeadroomOptions struct {
	// Resources are those that count; by default all that the pods request, and
	// their number.
	Resources []string `json:"resources"`
	// Reserve is how much of each other node must stay free, in percent of what
	// it can allocate.
	Reserve int `json:"reserve"`
	// NodeSelector chooses the other nodes that may take pods; all by default.
	NodeSelector cluster.Selector `json:"nodeSelector"`
	// PodSelector is kured's --drain-pod-selector: which pods it drains; all by
	// default.
	PodSelector cluster.Selector `json:"podSelector"`
}

func headroomDefaults() HeadroomOptions { return HeadroomOptions{} }

type headroom struct {
	cluster *cluster.Cluster
	options HeadroomOptions
}

var (
	_ Reader   = headroom{}
	_ Verifier = headroom{}
)

func newHeadroom(o HeadroomOptions, c *cluster.Cluster) (gate.Check, []error) {
	problems := join(atLeast("reserve", o.Reserve, 0))
	if o.Reserve > 99 {
		problems = append(problems, fmt.Errorf("options.reserve: must be at most 99 percent, not %d", o.Reserve))
	}
	for i, name := range o.Resources {
		if name == "" {
			problems = append(problems, fmt.Errorf("options.resources[%d]: has no name", i))
		} else if slices.Contains(o.Resources[:i], name) {
			problems = append(problems, fmt.Errorf("options.resources[%d]: %q is given twice", i, name))
		}
	}
	return headroom{c, o}, problems
}

// Check reads all nodes and all pods.
func (c headroom) Check(ctx context.Context) (gate.Result, error) {
	nodes, l, err := c.read(ctx)
	if err != nil {
		return gate.Result{}, err
	}
	return carried(nodes, l, c.cluster.Node, c.options), nil
}

func (c headroom) read(ctx context.Context) ([]cluster.Node, cluster.Load, error) {
	nodes, err := c.cluster.Nodes(ctx)
	if err != nil {
		return nil, cluster.Load{}, err
	}
	l, err := c.cluster.Load(ctx)
	return nodes.Items, l, err
}

// Rules name what Check reads. There is no watch: thousands of pods come and go,
// and the answer is an estimate.
func (headroom) Rules() []rbacv1.PolicyRule {
	return []rbacv1.PolicyRule{cluster.Permit("", "nodes", "list"), cluster.Permit("", "pods", "list")}
}

// Verify fills all other nodes, and removes them. Where no pod would move from
// this node, it adds one.
func (c headroom) Verify(ctx context.Context) (Verification, error) {
	nodes, l, err := c.read(ctx)
	if err != nil {
		return Verification{}, err
	}
	own := c.cluster.Node
	moving := movers(l.Tenants, c.options)
	v := Verification{
		Looked: fmt.Sprintf("%s that would move, of %d on %s; %s on %s", gate.Count(len(moving), "pod"), len(l.Tenants), own, gate.Count(l.Pods, "pod"), gate.Count(len(nodes), "node")),
		Result: carried(nodes, l, own, c.options),
	}
	added := ""
	if len(moving) == 0 {
		added = "; added: default/another"
		another := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "another"}, Status: corev1.PodStatus{Phase: corev1.PodRunning}}
		l.Tenants = append(slices.Clone(l.Tenants), cluster.NewTenant(another, cluster.Amounts{corev1.ResourcePods: 1}))
	}
	full, alone := slices.Clone(nodes), []cluster.Node{}
	for i := range full {
		full[i].Allocatable = l.ByNode[full[i].Name]
		if full[i].Name == own {
			alone = append(alone, nodes[i])
		}
	}
	v.Mutations = []Mutation{
		{"filled: all nodes" + added, carried(full, l, own, c.options)},
		{"removed: all other nodes" + added, carried(alone, l, own, c.options)},
	}
	return v, nil
}

// movers are the pods that a drain evicts and that are then made anew elsewhere.
// One that nobody makes anew counts too: its owner would want it to run. A pod
// of a DaemonSet of another kind is evicted and comes back here.
func movers(tenants []cluster.Tenant, o HeadroomOptions) []cluster.Tenant {
	var out []cluster.Tenant
	for _, t := range tenants {
		daemon := t.Controller != nil && t.Controller.Kind == "DaemonSet"
		if t.Leaves(o.PodSelector) && !t.Finished() && !daemon {
			out = append(out, t)
		}
	}
	return out
}

// room is what is free on a node, if it can take pods.
type room struct {
	node   *corev1.Node // as the rules of pods ask for it
	taints []corev1.Taint
	free   cluster.Amounts
}

// rooms are the other nodes that the scheduler would consider.
func rooms(nodes []cluster.Node, l cluster.Load, own string, o HeadroomOptions) []room {
	var out []room
	for _, n := range nodes {
		if n.Name == own || !n.IsReady() || n.Unschedulable || !o.NodeSelector.Matches(n.Labels) {
			continue
		}
		free := cluster.Amounts{}
		for name, amount := range n.Allocatable {
			// First divided, so that it does not overflow; rounded down.
			usable := amount/100*int64(100-o.Reserve) + amount%100*int64(100-o.Reserve)/100
			free[name] = max(usable-l.ByNode[n.Name][name], 0)
		}
		out = append(out, room{&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: n.Name, Labels: n.Labels}}, n.Taints, free})
	}
	return out
}

// mayRun says which of the rooms the rules of the pod permit: as bits, so that
// they can be compared.
func mayRun(t cluster.Tenant, in []room) *big.Int {
	set := new(big.Int)
	for i, r := range in {
		if fits, err := t.Affinity.Match(r.node); err != nil || !fits {
			continue
		}
		if _, untolerated := corev1helpers.FindMatchingUntoleratedTaint(klog.Background(), r.taints, t.Tolerations, func(t *corev1.Taint) bool {
			return t.Effect == corev1.TaintEffectNoSchedule || t.Effect == corev1.TaintEffectNoExecute
		}, true); !untolerated {
			set.SetBit(set, i, 1)
		}
	}
	return set
}

// carried is the pure part. What the pods request is compared with what is free
// where their rules let them run: each pod by itself with each node, and all
// pods of the same rules, with those of stricter ones, with all nodes of those
// rules. Pods that fit by that may still not fit together.
func carried(nodes []cluster.Node, l cluster.Load, own string, o HeadroomOptions) gate.Result {
	if _, why := cluster.Own(nodes, own); why != "" {
		return gate.Undecided("OwnNodeUnknown", "%s", why)
	}
	moving, other := movers(l.Tenants, o), rooms(nodes, l, own, o)
	switch {
	case len(moving) == 0:
		return gate.Passed("NothingMoves", "%s", agree(len(l.Tenants), fmt.Sprintf("the only pod on %s would not move", own), fmt.Sprintf("none of %d pods on %s would move", len(l.Tenants), own)))
	case len(other) == 0:
		return gate.Failed("NoOtherNode", "%s would move, and %s Ready, schedulable and selected", gate.Count(len(moving), "pod"), agree(len(nodes)-1, "the other node is not", fmt.Sprintf("none of %d other nodes is", len(nodes)-1)))
	}

	var nowhere, large, short []string
	everywhere := new(big.Int)
	sets := map[string]*big.Int{}
	where := make([]*big.Int, len(moving))
	for i, t := range moving {
		set := mayRun(t, other)
		where[i] = set
		if set.Sign() == 0 {
			nowhere = append(nowhere, called(t))
			continue
		}
		if problem := tooLarge(t, other, set, o); problem != "" {
			large = append(large, problem)
		}
		sets[set.Text(big.MaxBase)] = set
		everywhere.Or(everywhere, set)
	}
	sets[everywhere.Text(big.MaxBase)] = everywhere
	said := map[string]bool{}
	tightest := ""
	least := 2.0
	for _, key := range slices.Sorted(maps.Keys(sets)) {
		set := sets[key]
		demand, pods := cluster.Amounts{}, 0
		for i, t := range moving {
			if where[i].Sign() > 0 && new(big.Int).AndNot(where[i], set).Sign() == 0 {
				demand.Add(t.Requests)
				pods++
			}
		}
		free, nodes := freeIn(other, set)
		for _, name := range counted(demand, o) {
			if lack := demand[name] - free[name]; lack > 0 {
				text := fmt.Sprintf("%s short by %s: %s %s %s, and %s is free on the %s where %s may run", name, show(name, lack), gate.Count(pods, "pod"), agree(pods, "requests", "request"), show(name, demand[name]), show(name, free[name]), gate.Count(nodes, "node"), agree(pods, "it", "they"))
				if !said[text] {
					short = append(short, text)
				}
				said[text] = true
			} else if left := float64(-lack) / float64(max(free[name], 1)); left < least {
				least, tightest = left, fmt.Sprintf("%s: %s requested, %s free", name, show(name, demand[name]), show(name, free[name]))
			}
		}
	}
	problems := slices.Concat(inWords("may run on no other node that is Ready and schedulable", nowhere), inWords("", large), inWords("", short))
	text := strings.Join(problems, "; ")
	switch {
	case len(nowhere) > 0:
		return gate.Failed("NowhereElse", "%s", text)
	case len(large) > 0:
		return gate.Failed("PodTooLarge", "%s", text)
	case len(short) > 0:
		return gate.Failed("ResourceShort", "%s", text)
	case tightest == "":
		return gate.Passed("HasHeadroom", "%s would move, and %s nothing that counts", gate.Count(len(moving), "pod"), agree(len(moving), "requests", "request"))
	}
	return gate.Passed("HasHeadroom", "%s can take the %s that would move; tightest is %s", gate.Count(len(other), "node"), gate.Count(len(moving), "pod"), tightest)
}

// called names the pod, and its workload.
func called(t cluster.Tenant) string {
	return fmt.Sprintf("%s/%s (%s)", t.Namespace, t.Name, t.Workload())
}

// show writes an amount for a person.
func show(name corev1.ResourceName, amount int64) string {
	const mebi, gibi = 1 << 20, 1 << 30
	bytes := name == corev1.ResourceMemory || name == corev1.ResourceEphemeralStorage || strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix)
	switch {
	case name == corev1.ResourceCPU:
		return resource.NewMilliQuantity(amount, resource.DecimalSI).String()
	case bytes && amount >= gibi:
		return fmt.Sprintf("%.1fGi", float64(amount)/gibi)
	case bytes && amount >= mebi:
		return fmt.Sprintf("%.1fMi", float64(amount)/mebi)
	}
	return fmt.Sprint(amount)
}

// named writes an amount with the name of its resource.
func named(name corev1.ResourceName, amount int64) string {
	if name == corev1.ResourcePods {
		return gate.Count(amount, "pod")
	}
	return show(name, amount) + " " + string(name)
}

// counted are the resources of the demand that the options let count, in order.
func counted(demand cluster.Amounts, o HeadroomOptions) []corev1.ResourceName {
	var out []corev1.ResourceName
	for _, name := range slices.Sorted(maps.Keys(demand)) {
		if demand[name] > 0 && (len(o.Resources) == 0 || slices.Contains(o.Resources, string(name))) {
			out = append(out, name)
		}
	}
	return out
}

// freeIn sums up what is free in the rooms of a set.
func freeIn(in []room, set *big.Int) (free cluster.Amounts, count int) {
	free = cluster.Amounts{}
	for i, r := range in {
		if set.Bit(i) == 1 {
			free.Add(r.free)
			count++
		}
	}
	return free, count
}

// tooLarge says why the pod fits into none of the rooms of its set, not even
// alone, if that is so.
func tooLarge(t cluster.Tenant, in []room, set *big.Int, o HeadroomOptions) string {
	names := counted(t.Requests, o)
	most := cluster.Amounts{}
	for i, r := range in {
		if set.Bit(i) == 0 {
			continue
		}
		fits := true
		for _, name := range names {
			most[name] = max(most[name], r.free[name])
			fits = fits && r.free[name] >= t.Requests[name]
		}
		if fits {
			return ""
		}
	}
	var requested []string
	for _, name := range names {
		if most[name] < t.Requests[name] {
			return fmt.Sprintf("%s requests %s, and no node where it may run has more than %s free", called(t), named(name, t.Requests[name]), show(name, most[name]))
		}
		requested = append(requested, named(name, t.Requests[name]))
	}
	return fmt.Sprintf("%s requests %s, and no node where it may run has all of that free", called(t), strings.Join(requested, ", "))
}
