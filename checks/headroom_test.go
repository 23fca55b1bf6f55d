package checks

import (
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apitypes "k8s.io/apimachinery/pkg/types"

	"github.com/sentinel-gate/sentinel-gate/gate"
	"github.com/sentinel-gate/sentinel-gate/gate/cluster"
)

// parseAmounts reads resources that are written down as "cpu=1 memory=2Gi".
func parseAmounts(text string) corev1.ResourceList {
	out := corev1.ResourceList{}
	for word := range strings.FieldsSeq(text) {
		name, value, _ := strings.Cut(word, "=")
		out[corev1.ResourceName(name)] = resource.MustParse(value)
	}
	return out
}

// mover is a pod on node a with one container that requests something.
func mover(name, requests string, change ...func(*corev1.Pod)) corev1.Pod {
	p := corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name},
		Spec: corev1.PodSpec{NodeName: "a", Containers: []corev1.Container{{
			Name: "main", Resources: corev1.ResourceRequirements{Requests: parseAmounts(requests)},
		}}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning},
	}
	for _, c := range change {
		c(&p)
	}
	return p
}

func on(node string) func(*corev1.Pod) { return func(p *corev1.Pod) { p.Spec.NodeName = node } }

func ownedBy(kind, name string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		yes := true
		p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: kind, Name: name, UID: "1", Controller: &yes}}
	}
}

func selecting(key, value string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{key: value} }
}

func tolerating(key string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Tolerations = []corev1.Toleration{{Key: key, Operator: corev1.TolerationOpExists}}
	}
}

// sized are the nodes of nodesOf, each of which can allocate 4 cores, 8 GiB and
// 10 pods.
func sized(text string, change ...func([]cluster.Node)) []cluster.Node {
	nodes := nodesOf(text)
	for i := range nodes {
		nodes[i].Allocatable = cluster.AmountsOf(parseAmounts("cpu=4 memory=8Gi pods=10"))
	}
	for _, c := range change {
		c(nodes)
	}
	return nodes
}

// tainted taints the node at an index.
func tainted(i int, effect corev1.TaintEffect) func([]cluster.Node) {
	return func(nodes []cluster.Node) { nodes[i].Taints = []corev1.Taint{{Key: "gpu", Effect: effect}} }
}

func TestCarried(t *testing.T) {
	daemon, static := ownedBy("DaemonSet", "ds"), func(p *corev1.Pod) {
		p.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "x"}
	}
	finished := func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }
	stateful := ownedBy("StatefulSet", "db")
	for _, c := range []struct {
		name    string
		nodes   []cluster.Node
		pods    []corev1.Pod
		options HeadroomOptions
		want    wanted
	}{
		{
			"room enough", sized("a b c"), []corev1.Pod{mover("x", "cpu=2 memory=6Gi"), mover("y", "cpu=1", on("b"))}, HeadroomOptions{},
			wanted{gate.Pass, "HasHeadroom", "2 nodes can take the 1 pod that would move; tightest is memory: 6.0Gi requested, 16.0Gi free"},
		},
		{
			"nothing here", sized("a b"), nil, HeadroomOptions{},
			wanted{gate.Pass, "NothingMoves", "none of 0 pods on a would move"},
		},
		{
			"only what stays", sized("a b"), []corev1.Pod{mover("ds", "cpu=64", daemon), mover("static", "cpu=64", static), mover("done", "cpu=64", finished)}, HeadroomOptions{},
			wanted{gate.Pass, "NothingMoves", "none of 2 pods on a would move"},
		},
		{
			"what is exactly free", sized("a b"), []corev1.Pod{mover("x", "cpu=3500m memory=8Gi"), mover("y", "cpu=500m", on("b"))}, HeadroomOptions{},
			wanted{gate.Pass, "HasHeadroom", "1 node can take the 1 pod that would move; tightest is cpu: 3500m requested, 3500m free"},
		},
		{
			"finished pods leave room", sized("a b"), []corev1.Pod{mover("x", "cpu=4"), mover("y", "cpu=4", on("b"), finished), mover("z", "cpu=4", on(""))}, HeadroomOptions{},
			wanted{gate.Pass, "HasHeadroom", ""},
		},
		{
			"just enough", sized("a b c"), []corev1.Pod{mover("x", "memory=7Gi"), mover("y", "memory=7Gi"), mover("z", "memory=500Mi", on("b")), mover("w", "cpu=1 memory=512Mi", on("c"))}, HeadroomOptions{},
			wanted{gate.Pass, "HasHeadroom", "2 nodes can take the 2 pods that would move; tightest is memory: 14.0Gi requested, 15.0Gi free"},
		},
		{
			"TestF31ShortOfMemory", sized("a b c"), []corev1.Pod{mover("x", "memory=7Gi"), mover("y", "memory=7Gi"), mover("z", "memory=1Gi", on("b")), mover("w", "cpu=1 memory=1536Mi", on("c"))}, HeadroomOptions{},
			wanted{gate.Fail, "ResourceShort", "memory short by 512.0Mi: 2 pods request 14.0Gi, and 13.5Gi is free on the 2 nodes where they may run"},
		},
		{
			"TestF31ShortOfPods", sized("a b", func(n []cluster.Node) { n[1].Allocatable[corev1.ResourcePods] = 1 }), []corev1.Pod{mover("x", ""), mover("y", "")}, HeadroomOptions{},
			wanted{gate.Fail, "ResourceShort", "pods short by 1: 2 pods request 2, and 1 is free on the 1 node where they may run"},
		},
		{
			"TestF31ShortOfTwo", sized("a b"), []corev1.Pod{mover("x", "cpu=3 memory=5Gi"), mover("y", "cpu=2 memory=5Gi")}, HeadroomOptions{},
			wanted{gate.Fail, "ResourceShort", "cpu short by 1: 2 pods request 5, and 4 is free on the 1 node where they may run; memory short by 2.0Gi: 2 pods request 10.0Gi, and 8.0Gi is free on the 1 node where they may run"},
		},
		{"only memory counts", sized("a b"), []corev1.Pod{mover("x", "cpu=3 memory=4Gi"), mover("y", "cpu=2 memory=4Gi")}, HeadroomOptions{Resources: []string{"memory"}}, wanted{gate.Pass, "HasHeadroom", ""}},
		{
			"nothing that counts", sized("a b"), []corev1.Pod{mover("x", "cpu=9")}, HeadroomOptions{Resources: []string{"nvidia.com/gpu"}},
			wanted{gate.Pass, "HasHeadroom", "1 pod would move, and requests nothing that counts"},
		},
		{
			// A resource that no other node has.
			"TestF31NoGPU", sized("a b"), []corev1.Pod{mover("x", "nvidia.com/gpu=1", stateful)}, HeadroomOptions{},
			wanted{gate.Fail, "PodTooLarge", "shop/x (StatefulSet db) requests 1 nvidia.com/gpu, and no node where it may run has more than 0 free; nvidia.com/gpu short by 1: 1 pod requests 1, and 0 is free on the 1 node where it may run"},
		},
		{
			"TestF31Reserve", sized("a b"), []corev1.Pod{mover("x", "cpu=3700m")}, HeadroomOptions{Reserve: 10},
			wanted{gate.Fail, "PodTooLarge", "shop/x (no controller) requests 3700m cpu, and no node where it may run has more than 3600m free; cpu short by 100m: 1 pod requests 3700m, and 3600m is free on the 1 node where it may run"},
		},
		{"within the reserve", sized("a b"), []corev1.Pod{mover("x", "cpu=3600m")}, HeadroomOptions{Reserve: 10}, wanted{gate.Pass, "HasHeadroom", ""}},
		{
			// What is free on each of them does not add up to one place.
			"TestF31Fragmented", sized("a b c"), []corev1.Pod{mover("x", "memory=6Gi", stateful), mover("y", "memory=3Gi", on("b")), mover("z", "memory=4Gi", on("c"))}, HeadroomOptions{},
			wanted{gate.Fail, "PodTooLarge", "shop/x (StatefulSet db) requests 6.0Gi memory, and no node where it may run has more than 5.0Gi free"},
		},
		{
			"TestF31FragmentedByTwo", sized("a b c"), []corev1.Pod{mover("x", "cpu=3 memory=6Gi", stateful), mover("y", "memory=3Gi", on("b")), mover("z", "cpu=2", on("c"))}, HeadroomOptions{},
			wanted{gate.Fail, "PodTooLarge", "shop/x (StatefulSet db) requests 3 cpu, 6.0Gi memory, 1 pod, and no node where it may run has all of that free"},
		},
		{
			"an overcommitted node takes nothing from the others", sized("a b c"), []corev1.Pod{mover("x", "cpu=4"), mover("y", "cpu=12", on("b"))}, HeadroomOptions{},
			wanted{gate.Pass, "HasHeadroom", ""},
		},

		{"TestF31OthersAreNotReady", sized("a b- c!"), []corev1.Pod{mover("x", "")}, HeadroomOptions{}, wanted{gate.Fail, "NoOtherNode", "1 pod would move, and none of 2 other nodes is Ready, schedulable and selected"}},
		{"TestF31Alone", sized("a"), []corev1.Pod{mover("x", "")}, HeadroomOptions{}, wanted{gate.Fail, "NoOtherNode", "1 pod would move, and none of 0 other nodes is Ready, schedulable and selected"}},
		{"TestF31NotSelected", sized("a b"), []corev1.Pod{mover("x", "")}, HeadroomOptions{NodeSelector: selector(t, "pool=x")}, wanted{gate.Fail, "NoOtherNode", ""}},
		{"not drained", sized("a b-"), []corev1.Pod{mover("x", "")}, HeadroomOptions{PodSelector: selector(t, "app")}, wanted{gate.Pass, "NothingMoves", ""}},
		{
			"TestF31NowhereElse", sized("a b"), []corev1.Pod{mover("db-0", "", stateful, selecting("name", "a")), mover("x", "")}, HeadroomOptions{},
			wanted{gate.Fail, "NowhereElse", "may run on no other node that is Ready and schedulable: shop/db-0 (StatefulSet db)"},
		},
		{
			"TestF31NowhereElseByAffinity", sized("a b"), []corev1.Pod{mover("db-0", "", func(p *corev1.Pod) {
				p.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
					NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchFields: []corev1.NodeSelectorRequirement{{Key: "metadata.name", Operator: corev1.NodeSelectorOpIn, Values: []string{"a"}}}}},
				}}}
			})}, HeadroomOptions{},
			wanted{gate.Fail, "NowhereElse", "may run on no other node that is Ready and schedulable: shop/db-0 (no controller)"},
		},
		{"TestF31Taint", sized("a b", tainted(1, corev1.TaintEffectNoSchedule)), []corev1.Pod{mover("x", "")}, HeadroomOptions{}, wanted{gate.Fail, "NowhereElse", ""}},
		{"TestF31TaintThatEvicts", sized("a b", tainted(1, corev1.TaintEffectNoExecute)), []corev1.Pod{mover("x", "")}, HeadroomOptions{}, wanted{gate.Fail, "NowhereElse", ""}},
		{"a taint that is only preferred", sized("a b", tainted(1, corev1.TaintEffectPreferNoSchedule)), []corev1.Pod{mover("x", "")}, HeadroomOptions{}, wanted{gate.Pass, "HasHeadroom", ""}},
		{"a taint that is tolerated", sized("a b", tainted(1, corev1.TaintEffectNoSchedule)), []corev1.Pod{mover("x", "", tolerating("gpu"))}, HeadroomOptions{}, wanted{gate.Pass, "HasHeadroom", ""}},
		{
			// What is free behind a taint is not free for all.
			"TestF31RoomBehindATaint", sized("a b c", tainted(2, corev1.TaintEffectNoSchedule)),
			[]corev1.Pod{mover("x", "cpu=2"), mover("y", "cpu=1"), mover("g", "cpu=3", tolerating("gpu")), mover("z", "cpu=2", on("b"))}, HeadroomOptions{},
			wanted{gate.Fail, "ResourceShort", "cpu short by 1: 2 pods request 3, and 2 is free on the 1 node where they may run"},
		},
		{
			// The one that tolerates the taint goes behind it.
			"each where it may", sized("a b c", tainted(2, corev1.TaintEffectNoSchedule)),
			[]corev1.Pod{mover("x", "cpu=3"), mover("g", "cpu=3", tolerating("gpu"))}, HeadroomOptions{},
			wanted{gate.Pass, "HasHeadroom", "2 nodes can take the 2 pods that would move; tightest is cpu: 3 requested, 4 free"},
		},
		{
			"all problems are told", sized("a b"), []corev1.Pod{mover("db-0", "", selecting("name", "a")), mover("x", "cpu=9"), mover("y", "memory=5Gi"), mover("z", "memory=5Gi")}, HeadroomOptions{},
			wanted{gate.Fail, "NowhereElse", "may run on no other node that is Ready and schedulable: shop/db-0 (no controller); shop/x (no controller) requests 9 cpu, and no node where it may run has more than 4 free; cpu short by 5: 3 pods request 9, and 4 is free on the 1 node where they may run; memory short by 2.0Gi: 3 pods request 10.0Gi, and 8.0Gi is free on the 1 node where they may run"},
		},
		{"another name", sized("b c"), nil, HeadroomOptions{}, wanted{gate.Unknown, "OwnNodeUnknown", `the gate's own node "a" is none of the 2 nodes of the cluster`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := cluster.Load{ByNode: map[string]cluster.Amounts{}}
			l.Add(c.pods, "a")
			c.want.compare(t, carried(c.nodes, l, "a", c.options))
		})
	}
}

func TestShow(t *testing.T) {
	for _, c := range []struct {
		name   corev1.ResourceName
		amount int64
		want   string
	}{
		{corev1.ResourceCPU, 1500, "1500m"},
		{corev1.ResourceCPU, 2000, "2"},
		{corev1.ResourceMemory, 1 << 30, "1.0Gi"},
		{corev1.ResourceMemory, 1<<30 - 1, "1024.0Mi"},
		{corev1.ResourceMemory, 1000, "1000"},
		{"hugepages-2Mi", 4 << 20, "4.0Mi"},
		{corev1.ResourcePods, 7, "7"},
		{"nvidia.com/gpu", 2 << 20, "2097152"},
	} {
		if got := show(c.name, c.amount); got != c.want {
			t.Errorf("%d %s is shown as %s, want %s", c.amount, c.name, got, c.want)
		}
	}
}

// Whatever nodes and pods there are: a pass means that the pods would fit if
// they could be cut to pieces, and a node less never makes a pass.
func FuzzCarried(f *testing.F) {
	f.Add("a b c!", "1000 2000", "b500 c4000", int64(4000), 10, "")
	f.Add("a b- c", "4000 4000", "", int64(4000), 0, "name!=b")
	f.Add("a b", "9223372036854775807 9223372036854775807", "b9223372036854775807", int64(9223372036854775807), 99, "")
	f.Fuzz(func(t *testing.T, nodeText, here, there string, each int64, reserve int, pick string) {
		o := HeadroomOptions{Reserve: reserve, Resources: []string{"cpu"}}
		if o.NodeSelector.UnmarshalText([]byte(pick)) != nil || reserve < 0 || reserve > 99 || each < 0 {
			return
		}
		nodes := nodesOf(nodeText)
		for i := range nodes {
			nodes[i].Allocatable = cluster.Amounts{corev1.ResourceCPU: each}
		}
		var pods []corev1.Pod
		wanted := 0.0
		for i, word := range strings.Fields(here) {
			amount, err := strconv.ParseInt(word, 10, 64)
			if err != nil || amount < 0 || i > 50 {
				return
			}
			p := mover(strconv.Itoa(i), "")
			p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: *resource.NewMilliQuantity(amount, resource.DecimalSI)}
			if i%3 == 2 {
				selecting("name", "b")(&p)
			}
			pods = append(pods, p)
			wanted += float64(amount)
		}
		for word := range strings.FieldsSeq(there) {
			amount, err := strconv.ParseInt(word[1:], 10, 64)
			if err != nil || amount < 0 {
				return
			}
			p := mover(word, "", on(word[:1]))
			p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: *resource.NewMilliQuantity(amount, resource.DecimalSI)}
			pods = append(pods, p)
		}
		l := cluster.Load{ByNode: map[string]cluster.Amounts{}}
		l.Add(pods, "a")
		got := carried(nodes, l, "a", o)
		if got.Reason == "" || got.Message == "" {
			t.Errorf("%+v does not say why", got)
		}
		if moving := movers(l.Tenants, o); got.Verdict == gate.Pass && len(moving) > 0 {
			if room := float64(each) * float64(len(nodes)-1); wanted > room*1.000001 && wanted < 1e18 && room < 1e18 {
				t.Errorf("%g is wanted where %g is at best: %+v", wanted, room, got)
			}
		}
		if got.Verdict == gate.Pass {
			return
		}
		for i := range nodes {
			fewer := append(append([]cluster.Node{}, nodes[:i]...), nodes[i+1:]...)
			if after := carried(fewer, l, "a", o); after.Verdict == gate.Pass {
				t.Errorf("without %s, %+v of %+v", nodes[i].Name, after, got)
			}
		}
	})
}

// F31: the drained pods did not fit on what was left. The nodes are real Node
// objects of 4 cores, 16 GiB and 110 pods each, and n1 is the gate's own.
func TestF31Headroom(t *testing.T) {
	w := newWatched(t)
	w.reading.Node = "n1"
	judge := w.judge("headroom")
	add := func(name, node, requests string, change ...func(*corev1.Pod)) {
		t.Helper()
		p := mover(name, requests, append(change, on(node))...)
		p.Namespace, p.Spec.Containers[0].Image = elsewhere, "example.com/main:1"
		_, err := w.CP.Client().CoreV1().Pods(elsewhere).Create(w.ctx, &p, metav1.CreateOptions{})
		w.must(err)
	}
	judge(wanted{gate.Pass, "HasHeadroom", "2 nodes can take the 1 pod that would move; tightest is pods: 1 requested, 216 free"})
	v := w.verify("headroom", ``, "1 pod that would move, of 2 on n1; 6 pods on 3 nodes")
	if got := v.changes(); got != "filled: all nodes -> Fail PodTooLarge\nremoved: all other nodes -> Fail NoOtherNode" {
		t.Errorf("mutations:\n%s", got)
	}
	w.must(w.CP.DeletePod(w.ctx, elsewhere, "p-n1"))
	judge(wanted{gate.Pass, "NothingMoves", "the only pod on n1 would not move"})
	v = w.verify("headroom", ``, "0 pods that would move, of 1 on n1; 5 pods on 3 nodes")
	if got := v.changes(); got != "filled: all nodes; added: default/another -> Fail PodTooLarge\nremoved: all other nodes; added: default/another -> Fail NoOtherNode" {
		t.Errorf("mutations without pods:\n%s", got)
	}

	for _, name := range []string{"db-0", "db-1", "db-2"} {
		add(name, "n1", "memory=6Gi", ownedBy("StatefulSet", "db"))
	}
	add("web", "n2", "memory=8Gi")
	add("finished", "n2", "memory=8Gi")
	_, err := w.CP.SetPodStatus(w.ctx, elsewhere, "finished", func(s *corev1.PodStatus) { s.Phase = corev1.PodSucceeded })
	w.must(err)
	add("nowhere", "", "memory=8Gi")
	judge(wanted{gate.Pass, "HasHeadroom", "2 nodes can take the 3 pods that would move; tightest is memory: 18.0Gi requested, 24.0Gi free"})
	cordon(w, w.Nodes[2], "true")
	judge(wanted{gate.Fail, "ResourceShort", "memory short by 10.0Gi: 3 pods request 18.0Gi, and 8.0Gi is free on the 1 node where they may run"})
	cordon(w, w.Nodes[2], "false")
	w.must(w.Nodes[2].SetTaints(w.ctx, corev1.Taint{Key: "gpu", Effect: corev1.TaintEffectNoSchedule}))
	judge(wanted{gate.Fail, "ResourceShort", "memory short by 10.0Gi: 3 pods request 18.0Gi, and 8.0Gi is free on the 1 node where they may run"})
	w.must(w.Nodes[2].SetTaints(w.ctx))
	judge(wanted{gate.Pass, "HasHeadroom", ""})
	_, err = w.CP.Client().CoreV1().Nodes().Patch(w.ctx, "n3", apitypes.MergePatchType, []byte(`{"status":{"allocatable":{"memory":"5Gi"}}}`), metav1.PatchOptions{}, "status")
	w.must(err)
	judge(wanted{gate.Fail, "ResourceShort", "memory short by 5.0Gi: 3 pods request 18.0Gi, and 13.0Gi is free on the 2 nodes where they may run"})

	add("local", "n1", "", ownedBy("StatefulSet", "local"), selecting(corev1.LabelHostname, "n1"))
	judge(wanted{gate.Fail, "NowhereElse", "may run on no other node that is Ready and schedulable: elsewhere/local (StatefulSet local); memory short by 5.0Gi: 3 pods request 18.0Gi, and 13.0Gi is free on the 2 nodes where they may run"})
}
