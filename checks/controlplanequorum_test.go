package checks

import (
	"errors"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apitypes "k8s.io/apimachinery/pkg/types"

	"github.com/sentinel-gate/sentinel-gate/gate"
	"github.com/sentinel-gate/sentinel-gate/gate/cluster"
	"github.com/sentinel-gate/sentinel-gate/test/kit/controlplane"
)

// podsOf reads pods that are written down as "etcd@a etcd@b-": static ones, of
// which one with a "-" is not Ready; "name=etcd-0@a" is not static.
func podsOf(text string) []cluster.Pod {
	var pods []cluster.Pod
	for word := range strings.FieldsSeq(text) {
		name, on, _ := strings.Cut(strings.TrimSuffix(word, "-"), "@")
		p := cluster.Pod{Namespace: "kube-system", Name: name + "-" + on, Node: on}
		if whole, ok := strings.CutPrefix(name, "name="); ok {
			p.Name = whole
		}
		if strings.HasSuffix(word, "-") {
			p.Trouble = "Ready=False"
		}
		pods = append(pods, p)
	}
	return pods
}

func TestQuorumLeft(t *testing.T) {
	set := func(change func(*ControlPlaneQuorumOptions)) ControlPlaneQuorumOptions {
		o := controlPlaneQuorumDefaults()
		change(&o)
		return o
	}
	usual := controlPlaneQuorumDefaults()
	external := set(func(o *ControlPlaneQuorumOptions) { o.Minimum = 1 })
	single := set(func(o *ControlPlaneQuorumOptions) { o.AllowSingle = true })
	three := set(func(o *ControlPlaneQuorumOptions) { o.Members = 3 })
	const etcd = "etcd@a etcd@b etcd@c "

	for _, c := range []struct {
		name, nodes, pods, own string
		options                ControlPlaneQuorumOptions
		want                   wanted
	}{
		{"three", "a* b* c* w", "", "a", usual, wanted{gate.Pass, "QuorumLeft", "without a, 2 of 3 members of the control plane are up, and 2 must be"}},
		{"TestF24OneOfThreeIsDown", "a* b* c*- w", "", "a", usual, wanted{gate.Fail, "QuorumAtRisk", "without a, 1 of 3 members of the control plane would be up, and 2 must be; down: c (Ready=False)"}},
		{"five, one down", "a* b* c* d* e*-", "", "a", usual, wanted{gate.Pass, "QuorumLeft", "without a, 3 of 5 members of the control plane are up, and 3 must be; down: e (Ready=False)"}},
		{"TestF24TwoOfFiveAreDown", "a* b* c* d*- e*-", "", "a", usual, wanted{gate.Fail, "QuorumAtRisk", "without a, 2 of 5 members of the control plane would be up, and 3 must be; down: d (Ready=False), e (Ready=False)"}},
		// Four stand the loss of one, as three do.
		{"four", "a* b* c* d*", "", "a", usual, wanted{gate.Pass, "QuorumLeft", "without a, 3 of 4 members of the control plane are up, and 3 must be"}},
		{"TestF24OneOfFourIsDown", "a* b* c* d*-", "", "a", usual, wanted{gate.Fail, "QuorumAtRisk", ""}},
		// It goes down anyway; what counts is who is left.
		{"this one is not Ready itself", "a*- b* c*", "", "a", usual, wanted{gate.Pass, "QuorumLeft", ""}},
		{"another is cordoned", "a* b*! c*", "", "a", usual, wanted{gate.Pass, "QuorumLeft", ""}},
		{"a worker is down", "a* b* c* w-", "", "a", usual, wanted{gate.Pass, "QuorumLeft", ""}},

		{"worker", "a* b*- c*- w", "etcd@a-", "w", usual, wanted{gate.Pass, "NotControlPlane", "w is not of the control plane, whose members are 3 other nodes"}},

		{"TestF24TheLast", "a* w", "", "a", usual, wanted{gate.Fail, "NeverQuorum", "a is the only member of the control plane, which is away while it reboots; allowSingle would permit that"}},
		{"the last, as is known", "a* w", "", "a", single, wanted{gate.Pass, "SingleAllowed", "a is the only member of the control plane, which is away while it reboots, as allowSingle permits"}},
		{"TestF24SingleNoLonger", "a* b* w", "", "a", single, wanted{gate.Fail, "NeverQuorum", "a is one of 2 members of the control plane: without it 2 must be up, and never are"}},
		{"TestF24OneOfTwo", "a* b* w", "", "a", usual, wanted{gate.Fail, "NeverQuorum", "a is one of 2 members of the control plane: without it 2 must be up, and never are"}},
		{"one of two, with the data elsewhere", "a* b*", "", "a", external, wanted{gate.Pass, "QuorumLeft", "without a, 1 of 2 members of the control plane is up, and 1 must be"}},
		{"TestF24TheOtherOfTwo", "a* b*-", "", "a", external, wanted{gate.Fail, "QuorumAtRisk", "without a, 0 of 2 members of the control plane would be up, and 1 must be; down: b (Ready=False)"}},
		{"the last, with the data elsewhere", "a*", "", "a", external, wanted{gate.Fail, "NeverQuorum", ""}},

		// A Node object that somebody deleted is a member no less.
		{"TestF24AMemberWithoutNode", "a* b*", "", "a", three, wanted{gate.Fail, "QuorumAtRisk", "without a, 1 of 3 members of the control plane would be up, and 2 must be; down: 1 without a Node object"}},
		{"more members than expected", "a* b* c* d* e*-", "", "a", three, wanted{gate.Pass, "QuorumLeft", "without a, 3 of 5 members of the control plane are up, and 3 must be; down: e (Ready=False)"}},

		{"etcd everywhere", "a* b* c*", etcd, "a", usual, wanted{gate.Pass, "QuorumLeft", ""}},
		{"TestF24EtcdIsDown", "a* b* c*", "etcd@a etcd@b etcd@c-", "a", usual, wanted{gate.Fail, "QuorumAtRisk", "without a, 1 of 3 members of the control plane would be up, and 2 must be; down: c (etcd: Ready=False)"}},
		{"TestF24NoEtcd", "a* b* c*", "etcd@a etcd@b kube-apiserver@c", "a", usual, wanted{gate.Fail, "QuorumAtRisk", "without a, 1 of 3 members of the control plane would be up, and 2 must be; down: c (etcd: no pod)"}},
		{"TestF24OnlyEtcd", "a* b* c*", "etcd@a", "a", usual, wanted{gate.Fail, "QuorumAtRisk", "without a, 0 of 3 members of the control plane would be up, and 2 must be; down: b (etcd: no pod), c (etcd: no pod)"}},
		{"its own etcd is down", "a* b* c*", "etcd@a- etcd@b etcd@c", "a", usual, wanted{gate.Pass, "QuorumLeft", ""}},
		{"TestF24ItHasNoEtcdAndAnothersIsDown", "a* b* c*", "etcd@b etcd@c-", "a", usual, wanted{gate.Fail, "QuorumAtRisk", ""}},
		{"what others have besides", "a* b* c*", etcd + "kube-apiserver@b", "a", usual, wanted{gate.Pass, "QuorumLeft", ""}},
		{"the API server is down", "a* b* c*", etcd + "kube-apiserver@a kube-apiserver@b- kube-apiserver@c", "a", usual, wanted{gate.Fail, "QuorumAtRisk", "without a, 1 of 3 members of the control plane would be up, and 2 must be; down: b (kube-apiserver: Ready=False)"}},
		// A name of its own is not missed on the others.
		{"pods that are not static", "a* b* c*", "name=etcd-0@a name=etcd-1@b name=etcd-2@c", "a", usual, wanted{gate.Pass, "QuorumLeft", ""}},
		{"pods on nodes that are no members", "a* b* c* w", etcd + "etcd@w-", "a", usual, wanted{gate.Pass, "QuorumLeft", ""}},

		{"TestF02NoControlPlane", "a b c", "", "a", usual, wanted{gate.Fail, "NoControlPlane", `no node matches the selector "node-role.kubernetes.io/control-plane", of 3 nodes: correct it, or leave this step out where the control plane has no nodes here`}},
		{"no such node", "a* b* c*", "", "d", usual, wanted{gate.Unknown, "OwnNodeUnknown", `the gate's own node "d" is none of the 3 nodes of the cluster`}},
		{"no name", "a* b* c*", "", "", usual, wanted{gate.Unknown, "OwnNodeUnknown", "the name of the gate's own node is not known: set --node-name"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.want.compare(t, quorumLeft(nodesOf(c.nodes), podsOf(c.pods), now, c.own, c.options))
		})
	}
}

func TestControlPlaneQuorumOptions(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*ControlPlaneQuorumOptions)
		want   string
	}{
		{"the defaults", func(*ControlPlaneQuorumOptions) {}, ""},
		{"two of three", func(o *ControlPlaneQuorumOptions) { o.Members, o.Minimum = 3, 2 }, ""},
		{"one, and known to be", func(o *ControlPlaneQuorumOptions) { o.Members, o.AllowSingle = 1, true }, ""},
		{"one, and another", func(o *ControlPlaneQuorumOptions) { o.Members, o.Minimum = 1, 1 }, "options.minimum: of 1 member, at most 0 are others, not 1"},
		{"one alone, of two", func(o *ControlPlaneQuorumOptions) { o.Members, o.AllowSingle = 2, true }, "options.allowSingle: contradicts members above 1, and minimum"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := controlPlaneQuorumDefaults()
			c.change(&o)
			_, problems := newControlPlaneQuorum(o, nil)
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

// Whatever the cluster is like: a member of the control plane goes only if a
// majority of Ready ones stays, and one more that is down never makes a pass.
func FuzzQuorumLeft(f *testing.F) {
	f.Add("a* b* c* w", "etcd@a etcd@b etcd@c-", "a", 0)
	f.Add("a* b*- c* d* e*", "", "a", 5)
	f.Add("a b", "etcd@-", "b", -1)
	f.Fuzz(func(t *testing.T, text, podText, own string, members int) {
		o := controlPlaneQuorumDefaults()
		o.Members = members
		nodes, pods := nodesOf(text), podsOf(podText)
		got := quorumLeft(nodes, pods, now, own, o)
		if got.Reason == "" || got.Message == "" {
			t.Errorf("%+v does not say why", got)
		}
		ready, size := 0, 0
		for _, n := range nodesOf(text) {
			if _, member := n.Labels["node-role.kubernetes.io/control-plane"]; member {
				size++
				if n.IsReady() && n.Name != own {
					ready++
				}
			}
		}
		if got.Reason == "QuorumLeft" && ready < max(size, members)/2+1 {
			t.Errorf("%d of %d are Ready besides: %+v", ready, size, got)
		}
		if got.Verdict == gate.Pass {
			return
		}
		for i := range nodes {
			worse := slices.Clone(nodes)
			worse[i].Ready = corev1.ConditionUnknown
			if after := quorumLeft(worse, pods, now, own, o); after.Verdict == gate.Pass {
				t.Errorf("%s went down, which made %+v of %+v", worse[i].Name, after, got)
			}
		}
		for i := range pods {
			worse := slices.Clone(pods)
			worse[i].Trouble = "x"
			if after := quorumLeft(nodes, worse, now, own, o); after.Verdict == gate.Pass {
				t.Errorf("%s went down, which made %+v of %+v", worse[i].Name, after, got)
			}
		}
	})
}

// addStatic adds a pod of the control plane, as its kubelet does for a manifest.
func addStatic(w *watched, component string, n *controlplane.Node) {
	w.t.Helper()
	_, err := w.CP.AddPod(w.ctx, metav1.NamespaceSystem, component+"-"+n.Name, n.Name, map[string]string{"tier": "control-plane", "component": component}, nil)
	w.must(err)
}

// F24: the last control-plane node, or the one that etcd needed, was rebooted.
// n1 is the gate's own node.
func TestF24ControlPlaneQuorum(t *testing.T) {
	w := newWatched(t)
	w.reading.Node = "n1"
	judge := w.judge("controlPlaneQuorum")
	promote := func(n *controlplane.Node) {
		_, err := w.CP.Client().CoreV1().Nodes().Patch(w.ctx, n.Name, apitypes.MergePatchType, []byte(`{"metadata":{"labels":{"node-role.kubernetes.io/control-plane":""}}}`), metav1.PatchOptions{})
		w.must(err)
	}
	judge(wanted{gate.Fail, "NoControlPlane", ""})

	promote(w.Nodes[1])
	judge(wanted{gate.Pass, "NotControlPlane", "n1 is not of the control plane, whose only member is another node"})
	v := w.verify("controlPlaneQuorum", ``, "1 member of the control plane, of 3 nodes, and 0 of their pods")
	if got := v.changes(); got != "made a member of the control plane: n1; made NotReady: n2 -> Fail NeverQuorum" {
		t.Errorf("mutations of a worker:\n%s", got)
	}

	promote(w.Nodes[0])
	judge(wanted{gate.Fail, "NeverQuorum", ""})
	promote(w.Nodes[2])
	judge(wanted{gate.Pass, "QuorumLeft", ""})
	for _, n := range w.Nodes {
		addStatic(w, "etcd", n)
	}
	judge(wanted{gate.Pass, "QuorumLeft", "without n1, 2 of 3 members of the control plane are up, and 2 must be"})
	v = w.verify("controlPlaneQuorum", ``, "3 members of the control plane, of 3 nodes, and 3 of their pods")
	if got := v.changes(); got != "made NotReady: n2, n3 -> Fail QuorumAtRisk\nmade not Ready: the pods of all members -> Fail QuorumAtRisk" {
		t.Errorf("mutations of a member:\n%s", got)
	}

	hints := w.watch("controlPlaneQuorum", `{}`)
	_, err := w.CP.SetPodStatus(w.ctx, metav1.NamespaceSystem, "etcd-n3", func(s *corev1.PodStatus) { s.Phase = corev1.PodFailed })
	w.must(err)
	w.await(hints, "QuorumAtRisk")
	judge(wanted{gate.Fail, "QuorumAtRisk", "without n1, 1 of 3 members of the control plane would be up, and 2 must be; down: n3 (etcd: phase Failed)"})
	w.must(w.CP.DeletePod(w.ctx, metav1.NamespaceSystem, "etcd-n3"))
	judge(wanted{gate.Fail, "QuorumAtRisk", "without n1, 1 of 3 members of the control plane would be up, and 2 must be; down: n3 (etcd: no pod)"})
	addStatic(w, "etcd", w.Nodes[2])

	hints = w.watch("controlPlaneQuorum", `{"pods": ""}`)
	_, err = w.Nodes[1].SetReady(w.ctx, corev1.ConditionUnknown, "NodeStatusUnknown", metav1.Now().Time)
	w.must(err)
	w.await(hints, "QuorumAtRisk")
}
