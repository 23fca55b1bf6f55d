package checks

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sentinel-gate/sentinel-gate/gate"
	"github.com/sentinel-gate/sentinel-gate/gate/cluster"
)

// newSet is a DaemonSet in the namespace cni whose pods have the label app.
func newSet(name string, desired int32, change ...func(*corev1.PodSpec)) appsv1.DaemonSet {
	set := appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: "cni", Name: name},
		Status:     appsv1.DaemonSetStatus{DesiredNumberScheduled: desired},
	}
	set.Spec.Template.Labels = map[string]string{"app": name}
	for _, c := range change {
		c(&set.Spec.Template.Spec)
	}
	return set
}

// found is a listing of pods of the DaemonSet owner, one on each of the nodes.
func found(owner string, nodes ...string) cluster.Listing[cluster.Pod] {
	l := cluster.Listing[cluster.Pod]{Now: now}
	for _, n := range nodes {
		l.Items = append(l.Items, cluster.Pod{Namespace: "cni", Name: owner + "-" + n, Node: n, Owner: owner})
	}
	return l
}

// ill makes the last of the pods one that is not fine.
func ill(l cluster.Listing[cluster.Pod], trouble string) cluster.Listing[cluster.Pod] {
	l.Items[len(l.Items)-1].Trouble = trouble
	return l
}

func TestPodsFine(t *testing.T) {
	up := func(names ...string) []cluster.Node {
		var nodes []cluster.Node
		for _, n := range names {
			nodes = append(nodes, member(n, corev1.ConditionTrue, corev1.LabelOSStable, "linux", corev1.LabelHostname, n))
		}
		return nodes
	}
	onlyA := func(s *corev1.PodSpec) { s.NodeSelector = map[string]string{corev1.LabelHostname: "a"} }
	const notReady = "Ready=False"
	windows := member("w", corev1.ConditionTrue, corev1.LabelOSStable, "windows")
	nowhere := found("x")
	nowhere.Items = append(nowhere.Items, cluster.Pod{Namespace: "cni", Name: "x-?", Owner: "x", Trouble: "phase Pending"})
	crashed := found("x", "a", "b")
	crashed.Items[1].Crashed = now.Add(-crashLoopWindow + time.Second)
	recovered := found("x", "a", "b")
	recovered.Items[1].Crashed = now.Add(-crashLoopWindow)
	ahead := found("x", "a", "b")
	ahead.Items[1].Crashed = now.Add(time.Hour)
	places := []place{{"cni", "app=x"}, {"other", "app=x"}}
	everywhere := PodsReadyOptions{OnEveryNode: true}

	for _, c := range []struct {
		name    string
		w       workload
		options PodsReadyOptions
		want    wanted
	}{
		{
			"one on each", workload{found: []cluster.Listing[cluster.Pod]{found("x", "a", "b")}, sets: []appsv1.DaemonSet{newSet("x", 2)}, nodes: up("a", "b")},
			everywhere, wanted{gate.Pass, "PodsReady", "all 2 pods are Running and Ready"},
		},
		{
			"TestF02NoPods", workload{places: places, found: []cluster.Listing[cluster.Pod]{{Now: now}, {Now: now}}, nodes: up("a")},
			PodsReadyOptions{}, wanted{gate.Fail, "NoPods", `no pod was found: looked for "app=x" in namespace cni, and for "app=x" in namespace other`},
		},
		{
			// There is a DaemonSet that wants none: still nothing was found.
			"TestF02NoPodsAndNoneDesired", workload{places: places[:1], sets: []appsv1.DaemonSet{newSet("x", 0)}, nodes: up("a")},
			PodsReadyOptions{MaxNotReady: 9}, wanted{gate.Fail, "NoPods", `no pod was found: looked for "app=x" in namespace cni`},
		},
		{
			"TestF03PodNotReady", workload{found: []cluster.Listing[cluster.Pod]{ill(found("x", "a", "b"), notReady)}, nodes: up("a", "b")},
			PodsReadyOptions{}, wanted{gate.Fail, "PodsNotReady", "1 pod is missing or not ready, of 2 found: cni/x-b on b (Ready=False)"},
		},
		{
			"TestF03BetweenTwoCrashes", workload{found: []cluster.Listing[cluster.Pod]{crashed}, nodes: up("a", "b")}, PodsReadyOptions{},
			wanted{gate.Fail, "CrashLooping", "1 pod is missing or not ready, of 2 found: cni/x-b on b (crashed again at 2026-03-14T11:50:01Z)"},
		},
		{
			// The clock of a kubelet that is ahead does not end the window early.
			"TestF32CrashInTheFuture", workload{found: []cluster.Listing[cluster.Pod]{ahead}, nodes: up("a", "b")}, PodsReadyOptions{},
			wanted{gate.Fail, "CrashLooping", ""},
		},
		{
			"long enough after the last crash", workload{found: []cluster.Listing[cluster.Pod]{recovered}, nodes: up("a", "b")}, PodsReadyOptions{},
			wanted{gate.Pass, "PodsReady", ""},
		},
		{
			"TestF04NodeWithoutPod", workload{found: []cluster.Listing[cluster.Pod]{found("x", "a")}, sets: []appsv1.DaemonSet{newSet("x", 1)}, nodes: up("a", "b")},
			PodsReadyOptions{}, wanted{gate.Fail, "PodsMissing", "1 pod is missing or not ready, of 1 found: b (no pod of cni/x)"},
		},
		{
			// Both DaemonSets must be on the node, not one of them twice.
			"TestF04NodeWithoutOneOfTwo", workload{
				found: []cluster.Listing[cluster.Pod]{found("x", "a", "b"), found("y", "a", "a")},
				sets:  []appsv1.DaemonSet{newSet("x", 2), newSet("y", 2)}, nodes: up("a", "b"),
			},
			PodsReadyOptions{}, wanted{gate.Fail, "PodsMissing", "1 pod is missing or not ready, of 4 found: b (no pod of cni/y)"},
		},
		{
			// Of the same name in another namespace: another DaemonSet.
			"TestF04PodOfANamesake", workload{
				found: []cluster.Listing[cluster.Pod]{{Now: now, Items: []cluster.Pod{{Namespace: "other", Name: "x-a", Node: "a", Owner: "x"}}}},
				sets:  []appsv1.DaemonSet{newSet("x", 0)}, nodes: up("a"),
			},
			PodsReadyOptions{}, wanted{gate.Fail, "PodsMissing", "1 pod is missing or not ready, of 1 found: a (no pod of cni/x)"},
		},
		{
			// A pod of nobody's, left behind by hand, does not stand in.
			"TestF04OrphanBesideItsDaemonSet", workload{
				found: []cluster.Listing[cluster.Pod]{found("", "a")}, sets: []appsv1.DaemonSet{newSet("x", 1)}, nodes: up("a"),
			},
			everywhere, wanted{gate.Fail, "PodsMissing", "1 pod is missing or not ready, of 1 found: a (no pod of cni/x)"},
		},
		{
			"TestF04OrphansAndNoDaemonSet", workload{found: []cluster.Listing[cluster.Pod]{found("x", "a")}, nodes: up("a", "b", "c")},
			everywhere, wanted{gate.Fail, "PodsMissing", "2 pods are missing or not ready, of 1 found: b (no pod), c (no pod)"},
		},
		{
			"without onEveryNode nobody asks where they are", workload{found: []cluster.Listing[cluster.Pod]{found("", "a")}, nodes: up("a", "b")},
			PodsReadyOptions{}, wanted{gate.Pass, "PodsReady", ""},
		},
		{
			"a Windows node without one", workload{found: []cluster.Listing[cluster.Pod]{found("", "a")}, nodes: append(up("a"), windows)},
			everywhere, wanted{gate.Pass, "PodsReady", ""},
		},
		{
			// Nothing says that it is a Windows node.
			"TestF04NodeOfNoKnownSystem", workload{found: []cluster.Listing[cluster.Pod]{found("", "a")}, nodes: append(up("a"), member("b", corev1.ConditionTrue))},
			everywhere, wanted{gate.Fail, "PodsMissing", ""},
		},
		{
			// That is nodesReady's question.
			"a node that is not Ready, without one", workload{
				found: []cluster.Listing[cluster.Pod]{found("x", "a")}, sets: []appsv1.DaemonSet{newSet("x", 1)},
				nodes: append(up("a"), member("b", corev1.ConditionFalse), member("c", "")),
			},
			everywhere, wanted{gate.Pass, "PodsReady", ""},
		},
		{
			"a node where the DaemonSet does not belong", workload{
				found: []cluster.Listing[cluster.Pod]{found("x", "a")}, sets: []appsv1.DaemonSet{newSet("x", 1, onlyA)}, nodes: up("a", "b"),
			},
			PodsReadyOptions{}, wanted{gate.Pass, "PodsReady", ""},
		},
		{
			// Somebody has given the CNI's DaemonSet a node selector too many.
			"TestF04LeftOutByItsDaemonSet", workload{
				found: []cluster.Listing[cluster.Pod]{found("x", "a")}, sets: []appsv1.DaemonSet{newSet("x", 1, onlyA)}, nodes: up("a", "b"),
			},
			everywhere, wanted{gate.Fail, "PodsMissing", "1 pod is missing or not ready, of 1 found: b (no pod)"},
		},
		{
			"a node that is meant to have none", workload{
				found: []cluster.Listing[cluster.Pod]{found("x", "a")}, sets: []appsv1.DaemonSet{newSet("x", 1, onlyA)}, nodes: up("a", "b"),
			},
			PodsReadyOptions{OnEveryNode: true, NodeSelector: selector(t, "kubernetes.io/hostname!=b")},
			wanted{gate.Pass, "PodsReady", ""},
		},
		{
			// The node selector is onEveryNode's, and does not excuse a DaemonSet.
			"TestF04NodeSelectorIsNotTheDaemonSets", workload{
				found: []cluster.Listing[cluster.Pod]{found("x", "a")}, sets: []appsv1.DaemonSet{newSet("x", 1)}, nodes: up("a", "b"),
			},
			PodsReadyOptions{OnEveryNode: true, NodeSelector: selector(t, "kubernetes.io/hostname!=b")},
			wanted{gate.Fail, "PodsMissing", "1 pod is missing or not ready, of 1 found: b (no pod of cni/x)"},
		},
		{
			// The controller knows of nodes that the rules read here leave out.
			"TestF04MoreDesiredThanFound", workload{
				found: []cluster.Listing[cluster.Pod]{found("x", "a")}, sets: []appsv1.DaemonSet{newSet("x", 4, onlyA)}, nodes: up("a", "b"),
			},
			PodsReadyOptions{MaxNotReady: 2}, wanted{gate.Fail, "PodsMissing", "3 pods are missing or not ready, of 1 found: cni/x (4 pods are desired, 1 was found)"},
		},
		{
			"as many missing as may be", workload{
				found: []cluster.Listing[cluster.Pod]{found("x", "a")}, sets: []appsv1.DaemonSet{newSet("x", 4, onlyA)}, nodes: up("a", "b"),
			},
			PodsReadyOptions{MaxNotReady: 3}, wanted{gate.Pass, "EnoughPodsReady", "3 pods are missing or not ready, of 1 found, and 3 may be: cni/x (4 pods are desired, 1 was found)"},
		},
		{
			// Neither by the number, nor because every node should have one.
			"each missing pod counts once", workload{
				found: []cluster.Listing[cluster.Pod]{found("x", "a")}, sets: []appsv1.DaemonSet{newSet("x", 2)}, nodes: up("a", "b"),
			},
			PodsReadyOptions{OnEveryNode: true, MaxNotReady: 1}, wanted{gate.Pass, "EnoughPodsReady", "1 pod is missing or not ready, of 1 found, and 1 may be: b (no pod of cni/x)"},
		},
		{
			"one more than may be", workload{
				found: []cluster.Listing[cluster.Pod]{ill(found("x", "a", "b"), notReady)}, sets: []appsv1.DaemonSet{newSet("x", 3)}, nodes: up("a", "b", "c"),
			},
			PodsReadyOptions{MaxNotReady: 1}, wanted{gate.Fail, "PodsNotReady", "2 pods are missing or not ready, of 2 found: c (no pod of cni/x), cni/x-b on b (Ready=False)"},
		},
		{
			"pending, and on no node", workload{found: []cluster.Listing[cluster.Pod]{nowhere}}, PodsReadyOptions{},
			wanted{gate.Fail, "PodsNotReady", "1 pod is missing or not ready, of 1 found: cni/x-? on no node (phase Pending)"},
		},
	} {
		t.Run(c.name, func(t *testing.T) { c.want.compare(t, podsFine(c.w, c.options)) })
	}
}

// F02: nobody knows the CNI, so nobody looked for its pods.
func TestF02NoCNI(t *testing.T) {
	check, problems := newPodsReady(PodsReadyOptions{Preset: autoPreset}, nil)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	wanted{
		gate.Fail, "NoCNI",
		"no DaemonSet of a known CNI was found in any namespace: looked for antrea, aws-node, azure, calico, canal, cilium, flannel, kindnet, kube-router, ovn-kubernetes, weave; name the pods with a selector if yours is another",
	}.compare(t, check.(podsReady).judge(workload{}))
}

func TestPodProblem(t *testing.T) {
	ready := func(s corev1.ConditionStatus, reason string) corev1.PodCondition {
		return corev1.PodCondition{Type: corev1.PodReady, Status: s, Reason: reason}
	}
	looping := corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}}
	always := corev1.ContainerRestartPolicyAlways
	ended := func(ago time.Duration) corev1.ContainerState {
		return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 1, FinishedAt: metav1.NewTime(now.Add(-ago))}}
	}
	running := corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
	type verdict struct {
		trouble string
		looping bool
	}
	notReady := func(detail string) verdict { return verdict{detail, false} }
	crashing := func(detail string) verdict { return verdict{detail, true} }

	for _, c := range []struct {
		name   string
		change func(*corev1.Pod)
		want   verdict
	}{
		{"fine", func(*corev1.Pod) {}, verdict{}},
		{"TestF03Terminating", func(p *corev1.Pod) { p.DeletionTimestamp = &metav1.Time{Time: now} }, notReady("terminating")},
		{"TestF03Pending", func(p *corev1.Pod) { p.Status.Phase = corev1.PodPending }, notReady("phase Pending")},
		{"TestF03Succeeded", func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }, notReady("phase Succeeded")},
		{"TestF03Failed", func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }, notReady("phase Failed")},
		{"TestF03PhaseUnknown", func(p *corev1.Pod) { p.Status.Phase = corev1.PodUnknown }, notReady("phase Unknown")},
		{"TestF03NoPhase", func(p *corev1.Pod) { p.Status.Phase = "" }, notReady("phase ")},
		{"TestF03NoReadyCondition", func(p *corev1.Pod) { p.Status.Conditions = p.Status.Conditions[:1] }, notReady("no Ready condition")},
		{
			"TestF03RunningNotReady",
			func(p *corev1.Pod) {
				p.Status.Conditions[1] = ready(corev1.ConditionFalse, "ContainersNotReady")
			},
			notReady("Ready=False, ContainersNotReady"),
		},
		{"TestF03ReadyUnknown", func(p *corev1.Pod) { p.Status.Conditions[1] = ready(corev1.ConditionUnknown, "") }, notReady("Ready=Unknown")},
		{
			// The phase of a pod in CrashLoopBackOff is Running.
			"TestF03CrashLoopBackOff",
			func(p *corev1.Pod) {
				p.Status.ContainerStatuses = append(p.Status.ContainerStatuses, corev1.ContainerStatus{Name: "agent", State: looping, RestartCount: 7})
			},
			crashing("container agent in CrashLoopBackOff, 7 restarts"),
		},
		{
			"TestF03InitContainerCrashLoopBackOff",
			func(p *corev1.Pod) {
				p.Status.Phase = corev1.PodPending
				p.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: "install-cni", State: looping, RestartCount: 2}}
			},
			crashing("container install-cni in CrashLoopBackOff, 2 restarts"),
		},
		{
			"TestF03BetweenTwoCrashes",
			func(p *corev1.Pod) {
				p.Status.ContainerStatuses = []corev1.ContainerStatus{
					{Name: "other", State: running, LastTerminationState: ended(time.Hour), RestartCount: 9},
					{Name: "main", State: running, LastTerminationState: ended(9 * time.Minute), RestartCount: 2},
				}
			},
			crashing("crashed again at 2026-03-14T11:51:00Z"),
		},
		{
			// A sidecar is an init container that goes on running.
			"TestF03SidecarBetweenTwoCrashes",
			func(p *corev1.Pod) {
				p.Spec.InitContainers = []corev1.Container{{Name: "sidecar", RestartPolicy: &always}}
				p.Status.InitContainerStatuses = []corev1.ContainerStatus{
					{Name: "sidecar", State: running, LastTerminationState: ended(9 * time.Minute), RestartCount: 2},
				}
			},
			crashing("crashed again at 2026-03-14T11:51:00Z"),
		},
		{
			// It waited for something and is over: it cannot crash again.
			"an init container that ended well in the end",
			func(p *corev1.Pod) {
				p.Status.InitContainerStatuses = []corev1.ContainerStatus{{
					Name: "install-cni", LastTerminationState: ended(2 * time.Minute), RestartCount: 3,
					State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Reason: "Completed"}},
				}}
			},
			verdict{},
		},
		{
			// An upgrade restarts a container once; that is no loop.
			"restarted once",
			func(p *corev1.Pod) {
				p.Status.ContainerStatuses[0].LastTerminationState, p.Status.ContainerStatuses[0].RestartCount = ended(time.Minute), 1
			},
			verdict{},
		},
		{
			"crashed long ago",
			func(p *corev1.Pod) {
				p.Status.ContainerStatuses[0].LastTerminationState, p.Status.ContainerStatuses[0].RestartCount = ended(10*time.Minute), 50
			},
			verdict{},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := &corev1.Pod{Status: corev1.PodStatus{
				Phase:             corev1.PodRunning,
				Conditions:        []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionTrue}, ready(corev1.ConditionTrue, "")},
				ContainerStatuses: []corev1.ContainerStatus{{Name: "main", State: running}},
			}}
			c.change(p)
			trouble, looping := troubleOf(cluster.NewPod(p), now)
			if got := (verdict{trouble, looping}); got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}

// F04: whether a node should have a pod is decided as the controller does.
func TestF04RunsOn(t *testing.T) {
	linux := member("a", corev1.ConditionTrue, corev1.LabelOSStable, "linux", "pool", "x")
	windows := member("w", corev1.ConditionTrue, corev1.LabelOSStable, "windows")
	tainted := func(key string, effect corev1.TaintEffect) cluster.Node {
		n := linux
		n.Taints = []corev1.Taint{{Key: key, Value: "v", Effect: effect}}
		return n
	}
	selects := func(labels map[string]string) func(*corev1.PodSpec) {
		return func(s *corev1.PodSpec) { s.NodeSelector = labels }
	}
	onLinux := selects(map[string]string{corev1.LabelOSStable: "linux"})
	requires := func(terms ...corev1.NodeSelectorTerm) func(*corev1.PodSpec) {
		return func(s *corev1.PodSpec) {
			s.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
				RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: terms},
			}}
		}
	}
	expression := func(key string, op corev1.NodeSelectorOperator, values ...string) corev1.NodeSelectorTerm {
		return corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: key, Operator: op, Values: values}}}
	}
	byName := func(name string) corev1.NodeSelectorTerm {
		return corev1.NodeSelectorTerm{MatchFields: []corev1.NodeSelectorRequirement{{Key: "metadata.name", Operator: corev1.NodeSelectorOpIn, Values: []string{name}}}}
	}
	prefers := func(s *corev1.PodSpec) {
		s.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
			PreferredDuringSchedulingIgnoredDuringExecution: []corev1.PreferredSchedulingTerm{{Weight: 1, Preference: expression("pool", corev1.NodeSelectorOpIn, "y")}},
		}}
	}
	tolerates := func(tolerations ...corev1.Toleration) func(*corev1.PodSpec) {
		return func(s *corev1.PodSpec) { s.Tolerations = tolerations }
	}

	for _, c := range []struct {
		name   string
		change func(*corev1.PodSpec)
		node   cluster.Node
		want   bool
	}{
		{"anywhere", func(*corev1.PodSpec) {}, linux, true},
		{"Windows, asked for Linux", onLinux, windows, false},
		{"Windows, not asked", func(*corev1.PodSpec) {}, windows, true},
		{"node selector fits", selects(map[string]string{"pool": "x"}), linux, true},
		{"node selector of another pool", selects(map[string]string{"pool": "y"}), linux, false},
		{"node selector of a label that is not there", selects(map[string]string{"gone": ""}), linux, false},
		{"affinity fits", requires(expression("pool", corev1.NodeSelectorOpIn, "x", "y")), linux, true},
		{"affinity does not fit", requires(expression("pool", corev1.NodeSelectorOpNotIn, "x")), linux, false},
		{"one term of two fits", requires(expression("gone", corev1.NodeSelectorOpExists), expression("pool", corev1.NodeSelectorOpExists)), linux, true},
		{"affinity by name fits", requires(byName("a")), linux, true},
		{"affinity by another name", requires(byName("b")), linux, false},
		{"affinity that is only preferred", prefers, linux, true},
		// As Kubernetes has it, nothing matches no term at all.
		{"affinity without terms", requires(), linux, false},
		{"rules that cannot be read", requires(expression("pool", "Near", "x")), linux, true},
		{"taint", func(*corev1.PodSpec) {}, tainted("dedicated", corev1.TaintEffectNoSchedule), false},
		{"taint that evicts", func(*corev1.PodSpec) {}, tainted("dedicated", corev1.TaintEffectNoExecute), false},
		{"taint that is only preferred", func(*corev1.PodSpec) {}, tainted("dedicated", corev1.TaintEffectPreferNoSchedule), true},
		{"taint that is tolerated", tolerates(corev1.Toleration{Key: "dedicated", Operator: corev1.TolerationOpEqual, Value: "v"}), tainted("dedicated", corev1.TaintEffectNoSchedule), true},
		{"taint of another value", tolerates(corev1.Toleration{Key: "dedicated", Operator: corev1.TolerationOpEqual, Value: "w"}), tainted("dedicated", corev1.TaintEffectNoSchedule), false},
		{"everything is tolerated", tolerates(corev1.Toleration{Operator: corev1.TolerationOpExists}), tainted("dedicated", corev1.TaintEffectNoExecute), true},
		// A cordoned node keeps its DaemonSets.
		{"cordoned", func(*corev1.PodSpec) {}, tainted(corev1.TaintNodeUnschedulable, corev1.TaintEffectNoSchedule), true},
		{"short of memory", func(*corev1.PodSpec) {}, tainted(corev1.TaintNodeMemoryPressure, corev1.TaintEffectNoSchedule), true},
		{"unreachable", func(*corev1.PodSpec) {}, tainted(corev1.TaintNodeUnreachable, corev1.TaintEffectNoExecute), true},
	} {
		t.Run(c.name, func(t *testing.T) {
			set := newSet("x", 0, c.change)
			if got := runsOn(&set, c.node); got != c.want {
				t.Errorf("got %t, want %t", got, c.want)
			}
			if tolerations := len(set.Spec.Template.Spec.Tolerations); tolerations > 1 {
				t.Errorf("asking changed the DaemonSet: it has %d tolerations", tolerations)
			}
		})
	}
}

func TestDetect(t *testing.T) {
	set := func(namespace, name string, labels map[string]string) appsv1.DaemonSet {
		s := appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: labels}}
		s.Spec.Template.Labels = labels
		return s
	}
	calico := set("calico-system", "calico-node", map[string]string{"k8s-app": "calico-node", "pod-template": "1"})
	cilium := set("kube-system", "cilium", map[string]string{"k8s-app": "cilium"})
	misplaced := set("cilium", "cilium", map[string]string{"k8s-app": "cilium"})
	// What its pods are labelled counts, not what it is itself.
	unlabelled := set("kube-system", "cilium", map[string]string{"k8s-app": "cilium"})
	unlabelled.Spec.Template.Labels = nil
	half := set("kube-system", "antrea-controller", map[string]string{"app": "antrea", "component": "antrea-controller"})

	for _, c := range []struct {
		name string
		sets []appsv1.DaemonSet
		want []place
	}{
		{"none", nil, nil},
		{"another namespace, other labels", []appsv1.DaemonSet{misplaced, unlabelled, half}, nil},
		{"one, in one of its two namespaces", []appsv1.DaemonSet{misplaced, calico}, []place{{"calico-system", "k8s-app=calico-node"}}},
		{"a migration half done", []appsv1.DaemonSet{cilium, calico}, []place{{"calico-system", "k8s-app=calico-node"}, {"kube-system", "k8s-app=cilium"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			places := detect(c.sets)
			if !slices.Equal(places, c.want) {
				t.Errorf("got %v, want %v", places, c.want)
			}
			if got := matching(c.sets, places); len(got) != len(c.want) {
				t.Errorf("%d DaemonSets belong to %d places", len(got), len(c.want))
			}
		})
	}
	// Every preset finds itself.
	for name, places := range cnis {
		for _, p := range places {
			labels := map[string]string{}
			for pair := range strings.SplitSeq(p.selector, ",") {
				key, value, _ := strings.Cut(pair, "=")
				labels[key] = value
			}
			if got := detect([]appsv1.DaemonSet{set(p.namespace, name, labels)}); !slices.Contains(got, p) {
				t.Errorf("%s: %v was not found, but %v", name, p, got)
			}
		}
	}
}

func TestPodsReadyOptions(t *testing.T) {
	pods := selector(t, "app=x")
	for _, c := range []struct {
		name    string
		options PodsReadyOptions
		want    string
	}{
		{"a selector", PodsReadyOptions{Namespaces: []string{"a", "b"}, Selector: pods}, ``},
		{"a preset", PodsReadyOptions{Preset: "cilium", MaxNotReady: 1}, ``},
		{"nothing", PodsReadyOptions{}, `options: say which pods: a preset, or namespaces and a selector`},
		{"every pod", PodsReadyOptions{Namespaces: []string{"a"}, Selector: selector(t, "")}, `options: say which pods: a preset, or namespaces and a selector`},
		{"nowhere", PodsReadyOptions{Selector: pods}, `options.namespaces: say where the selected pods are`},
		{
			// An empty namespace would be all of them to the API server.
			"a namespace without a name, and less than none", PodsReadyOptions{Namespaces: []string{"a", ""}, Selector: pods, MaxNotReady: -1},
			"options.maxNotReady: must be at least 0, not -1\noptions.namespaces[1]: has no name",
		},
		{
			// Its pods would be counted twice, and hide as many that are missing.
			"a namespace twice", PodsReadyOptions{Namespaces: []string{"a", "b", "a"}, Selector: pods}, `options.namespaces[2]: "a" is given twice`,
		},
		{"both ways", PodsReadyOptions{Preset: "auto", Selector: pods}, `options: preset chooses the pods, so selector and namespaces must be left out`},
		{
			"an unknown preset, and a namespace", PodsReadyOptions{Preset: "Cilium", Namespaces: []string{"a"}},
			"options: preset chooses the pods, so selector and namespaces must be left out\n" +
				`options.preset: unknown preset "Cilium": want auto or one of antrea, aws-node, azure, calico, canal, cilium, flannel, kindnet, kube-router, ovn-kubernetes, weave`,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, problems := newPodsReady(c.options, nil)
			got := ""
			if err := errors.Join(problems...); err != nil {
				got = err.Error()
			}
			if got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
		})
	}
}
