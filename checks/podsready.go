package checks

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	corev1helpers "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/klog/v2"

	"github.com/sentinel-gate/sentinel-gate/gate"
	"github.com/sentinel-gate/sentinel-gate/gate/cluster"
)

// PodsReadyOptions are the options of podsReady. Either Preset or Selector
// chooses the pods.
type PodsReadyOptions struct {
	// Preset is the name of a known CNI, or "auto" for those that are found.
	Preset string `json:"preset"`
	// Namespaces are where the pods are.
	Namespaces []string `json:"namespaces"`
	// Selector chooses the pods, by label.
	Selector cluster.Selector `json:"selector"`
	// OnEveryNode asks for one of the pods on every Ready node that is not a
	// Windows one, whatever their DaemonSet says. A Preset sets it.
	OnEveryNode bool `json:"onEveryNode"`
	// NodeSelector chooses the nodes that OnEveryNode asks about; all by default.
	NodeSelector cluster.Selector `json:"nodeSelector"`
	// MaxNotReady is how many pods may be missing or not ready.
	MaxNotReady int `json:"maxNotReady"`
}

func podsReadyDefaults() PodsReadyOptions { return PodsReadyOptions{} }

// place is where pods are looked for.
type place struct{ namespace, selector string }

func (p place) String() string { return fmt.Sprintf("%q in namespace %s", p.selector, p.namespace) }

type podsReady struct {
	cluster *cluster.Cluster
	options PodsReadyOptions
	places  []place
	auto    bool
}

var (
	_ gate.Watcher = podsReady{}
	_ Reader       = podsReady{}
	_ Verifier     = podsReady{}
)

func newPodsReady(o PodsReadyOptions, c *cluster.Cluster) (gate.Check, []error) {
	check := podsReady{cluster: c, options: o}
	problems := join(atLeast("maxNotReady", o.MaxNotReady, 0))
	switch {
	case o.Preset != "":
		check.options.OnEveryNode = true
		if o.Selector.String() != "" || len(o.Namespaces) > 0 {
			problems = append(problems, errors.New("options: preset chooses the pods, so selector and namespaces must be left out"))
		}
		if o.Preset == autoPreset {
			check.auto = true
			break
		}
		places, ok := cnis[o.Preset]
		if !ok {
			problems = append(problems, fmt.Errorf("options.preset: unknown preset %q: want %s or one of %s", o.Preset, autoPreset, strings.Join(cniNames(), ", ")))
		}
		check.places = places
	case o.Selector.String() == "":
		problems = append(problems, errors.New("options: say which pods: a preset, or namespaces and a selector"))
	case len(o.Namespaces) == 0:
		problems = append(problems, errors.New("options.namespaces: say where the selected pods are"))
	}
	if o.NodeSelector.String() != "" && !check.options.OnEveryNode {
		problems = append(problems, errors.New("options.nodeSelector: chooses the nodes for onEveryNode, which is not set"))
	}
	for i, namespace := range o.Namespaces {
		if namespace == "" {
			problems = append(problems, fmt.Errorf("options.namespaces[%d]: has no name", i))
		}
		if slices.Contains(o.Namespaces[:i], namespace) {
			problems = append(problems, fmt.Errorf("options.namespaces[%d]: %q is given twice", i, namespace))
		}
		check.places = append(check.places, place{namespace, o.Selector.String()})
	}
	return check, problems
}

// workload is what podsReady reads.
type workload struct {
	places []place // where pods or DaemonSets were looked for
	found  []cluster.Listing[cluster.Pod]
	sets   []appsv1.DaemonSet
	nodes  []cluster.Node
}

// Check reads the selected pods, the DaemonSets that should have them, and the
// nodes.
func (c podsReady) Check(ctx context.Context) (gate.Result, error) {
	w, err := c.read(ctx)
	if err != nil {
		return gate.Result{}, err
	}
	return c.judge(w), nil
}

// Watch hints when one of the pods is no longer ready, or gone.
func (c podsReady) Watch(ctx context.Context, hint func(gate.Result)) error {
	w, err := c.read(ctx)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	var followers []func(context.Context) error
	for i, p := range w.places {
		followers = append(followers, func(ctx context.Context) error {
			return c.cluster.FollowPods(ctx, &mu, p.namespace, p.selector, w.found[i], func(pods cluster.Listing[cluster.Pod]) {
				w.found[i] = pods
				if r := c.judge(w); r.Verdict != gate.Pass {
					hint(r)
				}
			})
		})
	}
	return cluster.Together(ctx, followers...)
}

func (c podsReady) read(ctx context.Context) (workload, error) {
	nodes, err := c.cluster.Nodes(ctx)
	if err != nil {
		return workload{}, err
	}
	w := workload{nodes: nodes.Items, places: c.places}
	if c.auto {
		everywhere, err := c.cluster.DaemonSets(ctx, "")
		if err != nil {
			return workload{}, err
		}
		w.places = detect(everywhere.Items)
		w.sets = matching(everywhere.Items, w.places)
	}
	for _, p := range w.places {
		if !c.auto {
			sets, err := c.cluster.DaemonSets(ctx, p.namespace)
			if err != nil {
				return workload{}, err
			}
			w.sets = append(w.sets, matching(sets.Items, []place{p})...)
		}
		pods, err := c.cluster.Pods(ctx, p.namespace, p.selector)
		if err != nil {
			return workload{}, err
		}
		w.found = append(w.found, pods)
	}
	return w, nil
}

func (c podsReady) judge(w workload) gate.Result {
	if c.auto && len(w.places) == 0 {
		return gate.Failed("NoCNI", "no DaemonSet of a known CNI was found in any namespace: looked for %s; name the pods with a selector if yours is another", strings.Join(cniNames(), ", "))
	}
	return podsFine(w, c.options)
}

// Rules name what Check and Watch read.
func (podsReady) Rules() []rbacv1.PolicyRule {
	return []rbacv1.PolicyRule{cluster.ReadNodes, cluster.ReadPods, cluster.ReadDaemonSets}
}

// Verify makes one pod more not ready than may be, and removes as many. Where
// no DaemonSet owns the pods and no node must have one, it is right that a
// removed pod is not missed.
func (c podsReady) Verify(ctx context.Context) (Verification, error) {
	w, err := c.read(ctx)
	if err != nil {
		return Verification{}, err
	}
	total := 0
	for _, found := range w.found {
		total += len(found.Items)
	}
	v := Verification{
		Looked: fmt.Sprintf("%s, %s and %s", gate.Count(total, "pod"), gate.Count(len(w.sets), "DaemonSet"), gate.Count(len(w.nodes), "node")),
		Result: c.judge(w),
	}
	mutate := func(change string, worsen func(cluster.Pod) (cluster.Pod, bool)) {
		changed, left := w, c.options.MaxNotReady+1
		changed.found = nil
		var who names
		for _, found := range w.found {
			copied := found
			copied.Items = nil
			for _, p := range found.Items {
				keep := true
				if left > 0 {
					left--
					who = append(who, p.Namespace+"/"+p.Name)
					p, keep = worsen(p)
				}
				if keep {
					copied.Items = append(copied.Items, p)
				}
			}
			changed.found = append(changed.found, copied)
		}
		v.Mutations = append(v.Mutations, Mutation{fmt.Sprintf(change, who), c.judge(changed)})
	}
	mutate("made not Ready: %s", func(p cluster.Pod) (cluster.Pod, bool) {
		p.Trouble, p.Looping = "no Ready condition", false
		return p, true
	})
	mutate("removed: %s", func(p cluster.Pod) (cluster.Pod, bool) { return p, false })
	return v, nil
}

// podsFine is the pure part.
func podsFine(w workload, o PodsReadyOptions) gate.Result {
	type spot struct{ set, node string } // no set: pods of any owner
	occupied := map[spot]bool{}
	counted := map[string]int{} // by DaemonSet: its pods, and its nodes without one
	var bad names
	var reason string
	complain := func(why, who string) {
		if reason == "" {
			reason = why
		}
		bad = append(bad, who)
	}
	total := 0
	for _, found := range w.found {
		for _, p := range found.Items {
			total++
			set := p.Namespace + "/" + p.Owner
			occupied[spot{set, p.Node}], occupied[spot{"", p.Node}] = true, true
			counted[set]++
			if trouble, looping := troubleOf(p, found.Now); trouble != "" {
				who := fmt.Sprintf("%s/%s on %s (%s)", p.Namespace, p.Name, orNone(p.Node), trouble)
				if looping {
					complain("CrashLooping", who)
				} else {
					complain("PodsNotReady", who)
				}
			}
		}
	}
	if total == 0 {
		words := make([]string, len(w.places))
		for i, p := range w.places {
			words[i] = p.String()
		}
		return gate.Failed("NoPods", "no pod was found: looked for %s", strings.Join(words, ", and for "))
	}
	short := 0
	for i := range w.sets {
		set := w.sets[i].Namespace + "/" + w.sets[i].Name
		for _, n := range w.nodes {
			if n.IsReady() && !occupied[spot{set, n.Name}] && runsOn(&w.sets[i], n) {
				counted[set]++
				occupied[spot{"", n.Name}] = true // complained of once
				complain("PodsMissing", fmt.Sprintf("%s (no pod of %s)", n.Name, set))
			}
		}
		// The controller's own count catches what its rules, read here, do not.
		if desired := int(w.sets[i].Status.DesiredNumberScheduled); desired > counted[set] {
			short += desired - counted[set] - 1
			complain("PodsMissing", fmt.Sprintf("%s (%s %s desired, %d %s found)", set, gate.Count(desired, "pod"), agree(desired, "is", "are"), counted[set], agree(counted[set], "was", "were")))
		}
	}
	if o.OnEveryNode {
		for _, n := range w.nodes {
			if n.IsReady() && n.Labels[corev1.LabelOSStable] != "windows" && o.NodeSelector.Matches(n.Labels) && !occupied[spot{"", n.Name}] {
				complain("PodsMissing", n.Name+" (no pod)")
			}
		}
	}
	switch ill := len(bad) + short; {
	case ill == 0:
		return gate.Passed("PodsReady", "%s %s Running and Ready", all(total, "pod"), agree(total, "is", "are"))
	case ill <= o.MaxNotReady:
		return gate.Passed("EnoughPodsReady", "%s %s missing or not ready, of %d found, and %d may be: %s", gate.Count(ill, "pod"), agree(ill, "is", "are"), total, o.MaxNotReady, bad)
	default:
		return gate.Failed(reason, "%s %s missing or not ready, of %d found: %s", gate.Count(ill, "pod"), agree(ill, "is", "are"), total, bad)
	}
}

// daemonTolerations are those that the DaemonSet controller adds to its pods
// (https://kubernetes.io/docs/concepts/workloads/controllers/daemonset/#taints-and-tolerations).
var daemonTolerations = []corev1.Toleration{
	{Key: corev1.TaintNodeNotReady, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute},
	{Key: corev1.TaintNodeUnreachable, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute},
	{Key: corev1.TaintNodeDiskPressure, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule},
	{Key: corev1.TaintNodeMemoryPressure, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule},
	{Key: corev1.TaintNodePIDPressure, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule},
	{Key: corev1.TaintNodeUnschedulable, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule},
	{Key: corev1.TaintNodeNetworkUnavailable, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule},
}

// runsOn reports whether the DaemonSet should have a pod on the node, by the
// rules of its controller.
func runsOn(set *appsv1.DaemonSet, n cluster.Node) bool {
	spec := set.Spec.Template.Spec
	asNode := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: n.Name, Labels: n.Labels}}
	fits, err := nodeaffinity.GetRequiredNodeAffinity(&corev1.Pod{Spec: spec}).Match(asNode)
	if err != nil || !fits {
		return err != nil // rules that cannot be read are no reason to expect fewer pods
	}
	tolerations := append(append([]corev1.Toleration{}, spec.Tolerations...), daemonTolerations...)
	_, untolerated := corev1helpers.FindMatchingUntoleratedTaint(klog.Background(), n.Taints, tolerations, func(t *corev1.Taint) bool {
		return t.Effect == corev1.TaintEffectNoSchedule || t.Effect == corev1.TaintEffectNoExecute
	}, true)
	return !untolerated
}

// matching returns the DaemonSets whose pods are looked for in one of the places.
func matching(sets []appsv1.DaemonSet, places []place) []appsv1.DaemonSet {
	var out []appsv1.DaemonSet
	for i := range sets {
		for _, p := range places {
			if selects(p, &sets[i]) {
				out = append(out, sets[i])
				break
			}
		}
	}
	return out
}

func selects(p place, set *appsv1.DaemonSet) bool {
	selector, err := labels.Parse(p.selector)
	return err == nil && p.namespace == set.Namespace && selector.Matches(labels.Set(set.Spec.Template.Labels))
}
