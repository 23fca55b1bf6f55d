package checks

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	corev1helpers "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/klog/v2"

	"github.com/sentinel-gate/sentinel-gate/gate"
)

// PodsReadyOptions are the options of podsReady. Either Preset or Selector
// chooses the pods.
type PodsReadyOptions struct {
	// Preset is the name of a known CNI, or "auto" for those that are found.
	Preset string `json:"preset"`
	// Namespaces are where the pods are.
	Namespaces []string `json:"namespaces"`
	// Selector chooses the pods, by label.
	Selector Selector `json:"selector"`
	// OnEveryNode asks for one of the pods on every Ready node that is not a
	// Windows one, whatever their DaemonSet says. A Preset sets it.
	OnEveryNode bool `json:"onEveryNode"`
	// NodeSelector chooses the nodes that OnEveryNode asks about; all by default.
	NodeSelector Selector `json:"nodeSelector"`
	// MaxNotReady is how many pods may be missing or not ready.
	MaxNotReady int `json:"maxNotReady"`
}

func podsReadyDefaults() PodsReadyOptions { return PodsReadyOptions{} }

// place is where pods are looked for.
type place struct{ namespace, selector string }

func (p place) String() string { return fmt.Sprintf("%q in namespace %s", p.selector, p.namespace) }

type podsReady struct {
	cluster *Cluster
	options PodsReadyOptions
	places  []place
	auto    bool
}

func newPodsReady(o PodsReadyOptions, c *Cluster) (Check, []error) {
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
	found  []listing[pod]
	sets   []appsv1.DaemonSet
	nodes  []node
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
			return c.cluster.followPods(ctx, &mu, p.namespace, p.selector, w.found[i], func(pods listing[pod]) {
				w.found[i] = pods
				if r := c.judge(w); r.Verdict != gate.Pass {
					hint(r)
				}
			})
		})
	}
	return together(ctx, followers...)
}

func (c podsReady) read(ctx context.Context) (workload, error) {
	nodes, err := c.cluster.nodes(ctx)
	if err != nil {
		return workload{}, err
	}
	w := workload{nodes: nodes.items, places: c.places}
	if c.auto {
		everywhere, err := c.cluster.daemonSets(ctx, "")
		if err != nil {
			return workload{}, err
		}
		w.places = detect(everywhere.items)
		w.sets = matching(everywhere.items, w.places)
	}
	for _, p := range w.places {
		if !c.auto {
			sets, err := c.cluster.daemonSets(ctx, p.namespace)
			if err != nil {
				return workload{}, err
			}
			w.sets = append(w.sets, matching(sets.items, []place{p})...)
		}
		pods, err := c.cluster.pods(ctx, p.namespace, p.selector)
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
	return []rbacv1.PolicyRule{readNodes, readPods, readDaemonSets}
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
		total += len(found.items)
	}
	v := Verification{
		Looked: fmt.Sprintf("%d pods, %d DaemonSets and %d nodes", total, len(w.sets), len(w.nodes)),
		Result: c.judge(w),
	}
	mutate := func(change string, worsen func(pod) (pod, bool)) {
		changed, left := w, c.options.MaxNotReady+1
		changed.found = nil
		var who names
		for _, found := range w.found {
			copied := found
			copied.items = nil
			for _, p := range found.items {
				keep := true
				if left > 0 {
					left--
					who = append(who, p.namespace+"/"+p.name)
					p, keep = worsen(p)
				}
				if keep {
					copied.items = append(copied.items, p)
				}
			}
			changed.found = append(changed.found, copied)
		}
		v.Mutations = append(v.Mutations, Mutation{fmt.Sprintf(change, who), c.judge(changed)})
	}
	mutate("made not Ready: %s", func(p pod) (pod, bool) {
		p.problem = problem{"PodsNotReady", "no Ready condition"}
		return p, true
	})
	mutate("removed: %s", func(p pod) (pod, bool) { return p, false })
	return v, nil
}

// crashLoopWindow is how long after its last crash a container that has crashed
// more than once still counts as crash-looping, although it runs: as long as
// the kubelet takes to forget its back-off.
const crashLoopWindow = 10 * time.Minute

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
		for _, p := range found.items {
			total++
			set := p.namespace + "/" + p.owner
			occupied[spot{set, p.node}], occupied[spot{"", p.node}] = true, true
			counted[set]++
			if problem := p.judge(found.now); problem.reason != "" {
				complain(problem.reason, fmt.Sprintf("%s/%s on %s (%s)", p.namespace, p.name, orNone(p.node), problem.detail))
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
			if n.isReady() && !occupied[spot{set, n.name}] && runsOn(&w.sets[i], n) {
				counted[set]++
				occupied[spot{"", n.name}] = true // complained of once
				complain("PodsMissing", fmt.Sprintf("%s (no pod of %s)", n.name, set))
			}
		}
		// The controller's own count catches what its rules, read here, do not.
		if desired := int(w.sets[i].Status.DesiredNumberScheduled); desired > counted[set] {
			short += desired - counted[set] - 1
			complain("PodsMissing", fmt.Sprintf("%s (%d pods are desired, %d were found)", set, desired, counted[set]))
		}
	}
	if o.OnEveryNode {
		for _, n := range w.nodes {
			if n.isReady() && n.labels[corev1.LabelOSStable] != "windows" && o.NodeSelector.Matches(labels.Set(n.labels)) && !occupied[spot{"", n.name}] {
				complain("PodsMissing", n.name+" (no pod)")
			}
		}
	}
	switch count := len(bad) + short; {
	case count == 0:
		return gate.Passed("PodsReady", "all %d pods are Running and Ready", total)
	case count <= o.MaxNotReady:
		return gate.Passed("EnoughPodsReady", "%d pods are missing or not ready, of %d found, and %d may be: %s", count, total, o.MaxNotReady, bad)
	default:
		return gate.Failed(reason, "%d pods are missing or not ready, of %d found: %s", count, total, bad)
	}
}

func orNone(node string) string {
	if node == "" {
		return "no node"
	}
	return node
}

// problem is why a pod does not count as ready; its zero value is none.
type problem struct{ reason, detail string }

func newPod(p *corev1.Pod) pod {
	out := pod{namespace: p.Namespace, name: p.Name, node: p.Spec.NodeName, problem: podProblem(p)}
	for _, c := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
		if c.State.Running == nil {
			continue // an init container that succeeded in the end; a sidecar is one that runs
		}
		if t := c.LastTerminationState.Terminated; t != nil && c.RestartCount > 1 && t.FinishedAt.After(out.crashed) {
			out.crashed = t.FinishedAt.Time
		}
	}
	if owner := metav1.GetControllerOf(p); owner != nil && owner.Kind == "DaemonSet" {
		out.owner = owner.Name
	}
	return out
}

// judge says why the pod is not fine now, if it is not. Between two crashes it
// may be Running and Ready.
func (p pod) judge(now time.Time) problem {
	if p.problem.reason == "" && !p.crashed.IsZero() && now.Sub(p.crashed) < crashLoopWindow {
		return problem{"CrashLooping", "crashed again at " + p.crashed.UTC().Format(time.RFC3339)}
	}
	return p.problem
}

// podProblem says why a pod is not fine. Its phase alone says little: that of
// one in CrashLoopBackOff is Running.
func podProblem(p *corev1.Pod) problem {
	if p.DeletionTimestamp != nil {
		return problem{"PodsNotReady", "terminating"}
	}
	for _, c := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
		if w := c.State.Waiting; w != nil && w.Reason == "CrashLoopBackOff" {
			return problem{"CrashLooping", fmt.Sprintf("container %s in CrashLoopBackOff, %d restarts", c.Name, c.RestartCount)}
		}
	}
	if p.Status.Phase != corev1.PodRunning {
		return problem{"PodsNotReady", "phase " + string(p.Status.Phase)}
	}
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
			return problem{}
		}
		if c.Type == corev1.PodReady {
			return problem{"PodsNotReady", "Ready=" + string(c.Status) + reasonSuffix(c.Reason)}
		}
	}
	return problem{"PodsNotReady", "no Ready condition"}
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
func runsOn(set *appsv1.DaemonSet, n node) bool {
	spec := set.Spec.Template.Spec
	asNode := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: n.name, Labels: n.labels}}
	fits, err := nodeaffinity.GetRequiredNodeAffinity(&corev1.Pod{Spec: spec}).Match(asNode)
	if err != nil || !fits {
		return err != nil // rules that cannot be read are no reason to expect fewer pods
	}
	tolerations := append(append([]corev1.Toleration{}, spec.Tolerations...), daemonTolerations...)
	_, untolerated := corev1helpers.FindMatchingUntoleratedTaint(klog.Background(), n.taints, tolerations, func(t *corev1.Taint) bool {
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
