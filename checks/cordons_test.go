package checks

import (
	"slices"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apitypes "k8s.io/apimachinery/pkg/types"

	"github.com/sentinel-gate/sentinel-gate/gate"
	"github.com/sentinel-gate/sentinel-gate/test/kit/controlplane"
)

func TestNoneCordoned(t *testing.T) {
	for _, c := range []struct {
		name, nodes, own string
		options          CordonsOptions
		want             wanted
	}{
		{"none", "a b c", "a", CordonsOptions{}, wanted{gate.Pass, "NoneCordoned", "none of 2 other nodes is cordoned"}},
		{"TestF25AnotherIsCordoned", "a b c!", "a", CordonsOptions{}, wanted{gate.Fail, "NodesCordoned", "1 of 2 other nodes is cordoned, and 0 may be: c"}},
		// kured does so once the gate has opened.
		{"only this one", "a! b c", "a", CordonsOptions{}, wanted{gate.Pass, "NoneCordoned", "none of 2 other nodes is cordoned"}},
		{"this one and another", "a! b! c", "a", CordonsOptions{}, wanted{gate.Fail, "NodesCordoned", "1 of 2 other nodes is cordoned, and 0 may be: b"}},
		{"TestF25CordonedAndNotReady", "a b c!-", "a", CordonsOptions{}, wanted{gate.Fail, "NodesCordoned", ""}},
		{"not Ready, and not cordoned", "a b c-", "a", CordonsOptions{}, wanted{gate.Pass, "NoneCordoned", ""}},
		{"alone", "a!", "a", CordonsOptions{}, wanted{gate.Pass, "NoneCordoned", "none of 0 other nodes is cordoned"}},
		{"as many as may be", "a b! c", "a", CordonsOptions{MaxCordoned: 1}, wanted{gate.Pass, "FewNodesCordoned", "1 of 2 other nodes is cordoned, and 1 may be: b"}},
		{"one more than may be", "a b! c!", "a", CordonsOptions{MaxCordoned: 1}, wanted{gate.Fail, "NodesCordoned", "2 of 2 other nodes are cordoned, and 1 may be: b, c"}},
		{"left out", "a b! c", "a", CordonsOptions{Selector: selector(t, "name!=b")}, wanted{gate.Pass, "NoneCordoned", "the other node is not cordoned"}},
		{"the only one of interest", "a b! c", "a", CordonsOptions{Selector: selector(t, "name=b")}, wanted{gate.Fail, "NodesCordoned", "1 of 1 other node is cordoned, and 0 may be: b"}},
		{"TestF02NoneSelected", "a b c", "a", CordonsOptions{Selector: selector(t, "pool=gone"), MaxCordoned: 9}, wanted{gate.Fail, "NoNodes", `no node matches the selector "pool=gone", of 3 nodes`}},
		{"no node at all", "", "a", CordonsOptions{}, wanted{gate.Unknown, "OwnNodeUnknown", `the gate's own node "a" is none of the 0 nodes of the cluster`}},
		{"another name", "a b c", "A", CordonsOptions{}, wanted{gate.Unknown, "OwnNodeUnknown", `the gate's own node "A" is none of the 3 nodes of the cluster`}},
		{"no name", "a b c", "", CordonsOptions{}, wanted{gate.Unknown, "OwnNodeUnknown", "the name of the gate's own node is not known: set --node-name"}},
	} {
		t.Run(c.name, func(t *testing.T) { c.want.compare(t, noneCordoned(nodesOf(c.nodes), c.own, c.options)) })
	}
}

// Whatever the cluster is like: a pass means that no more are cordoned than may
// be, and cordoning one more never makes a pass of anything else.
func FuzzNoneCordoned(f *testing.F) {
	f.Add("a b! c", "a", 0, "")
	f.Add("a! b! c!-", "a", 1, "name!=b")
	f.Add("", "", -1, "x")
	f.Fuzz(func(t *testing.T, text, own string, most int, pick string) {
		var o CordonsOptions
		if o.Selector.UnmarshalText([]byte(pick)) != nil {
			return
		}
		o.MaxCordoned = most
		nodes := nodesOf(text)
		got := noneCordoned(nodes, own, o)
		if got.Reason == "" || got.Message == "" {
			t.Errorf("%+v does not say why", got)
		}
		cordoned := 0
		for _, n := range nodes {
			if n.Name != own && n.Unschedulable && o.Selector.Matches(n.Labels) {
				cordoned++
			}
		}
		if got.Verdict == gate.Pass && cordoned > max(most, 0) {
			t.Errorf("%d are cordoned: %+v", cordoned, got)
		}
		for i := range nodes {
			worse := slices.Clone(nodes)
			worse[i].Unschedulable = true
			if after := noneCordoned(worse, own, o); got.Verdict != gate.Pass && after.Verdict == gate.Pass {
				t.Errorf("cordoning %s made %+v of %+v", worse[i].Name, after, got)
			}
		}
	})
}

func cordon(w *watched, n *controlplane.Node, yes string) {
	w.t.Helper()
	_, err := w.CP.Client().CoreV1().Nodes().Patch(w.ctx, n.Name, apitypes.MergePatchType, []byte(`{"spec":{"unschedulable":`+yes+`}}`), metav1.PatchOptions{})
	w.must(err)
}

// F25: somebody else's maintenance is under way. n1 is the gate's own node.
func TestF25Cordons(t *testing.T) {
	w := newWatched(t)
	w.reading.Node = "n1"
	judge := w.judge("cordons")
	v := w.verify("cordons", ``, "2 other nodes, of 3 selected and 3 in all")
	if got := v.changes(); got != "cordoned: n2 -> Fail NodesCordoned" {
		t.Errorf("mutations:\n%s", got)
	}
	if v := w.verify("cordons", `{"maxCordoned": 2}`, "2 other nodes, of 3 selected and 3 in all"); !v.Vacuous() {
		t.Errorf("with two others, of which two may be cordoned, it cannot fail: %s", v.changes())
	}
	if v := w.verify("cordons", `{"selector": "kubernetes.io/hostname=n1"}`, "0 other nodes, of 1 selected and 3 in all"); v.Vacuous() {
		t.Errorf("it says that it could not fail: %s", v.changes())
	}

	hints := w.watch("cordons", `{}`)
	cordon(w, w.Nodes[0], "true")
	judge(wanted{gate.Pass, "NoneCordoned", "none of 2 other nodes is cordoned"})
	cordon(w, w.Nodes[2], "true")
	w.await(hints, "NodesCordoned")
	judge(wanted{gate.Fail, "NodesCordoned", "1 of 2 other nodes is cordoned, and 0 may be: n3"})
	cordon(w, w.Nodes[2], "false")
	judge(wanted{gate.Pass, "NoneCordoned", "none of 2 other nodes is cordoned"})
}
