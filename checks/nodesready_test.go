package checks

import (
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/sentinel-gate/sentinel-gate/gate"
	"github.com/sentinel-gate/sentinel-gate/gate/cluster"
)

func TestAllReady(t *testing.T) {
	const up, down, lost = corev1.ConditionTrue, corev1.ConditionFalse, corev1.ConditionUnknown
	broken := member("b", down)
	broken.Reason = "KubeletNotReady"
	one := NodesReadyOptions{Minimum: 1}
	for _, c := range []struct {
		name    string
		nodes   []cluster.Node
		options NodesReadyOptions
		want    wanted
	}{
		{"all", []cluster.Node{member("a", up), member("b", up)}, one, wanted{gate.Pass, "NodesReady", "all 2 nodes are Ready"}},
		{"TestF02NoNodes", nil, one, wanted{gate.Fail, "NoNodes", `no node matches the selector "", of 0 nodes`}},
		{
			// What is asked for must exist, also where nobody says how many.
			"TestF02NoNodesAndNoneWanted", nil, NodesReadyOptions{},
			wanted{gate.Fail, "NoNodes", ""},
		},
		{
			"TestF02NoneSelected", []cluster.Node{member("a", up)},
			NodesReadyOptions{Minimum: 1, MaxNotReady: 5, Selector: selector(t, "pool=gone")},
			wanted{gate.Fail, "NoNodes", `no node matches the selector "pool=gone", of 1 node`},
		},
		{
			"TestF05NoReadyCondition", []cluster.Node{member("a", up), member("b", "")}, one,
			wanted{gate.Fail, "NodesNotReady", "1 of 2 nodes is not Ready, and 0 may be: b (no Ready condition)"},
		},
		{
			"TestF05ReadyUnknown", []cluster.Node{member("a", up), member("b", lost)}, one,
			wanted{gate.Fail, "NodesNotReady", "1 of 2 nodes is not Ready, and 0 may be: b (Ready=Unknown)"},
		},
		{
			"the kubelet's reason", []cluster.Node{member("a", up), broken}, one,
			wanted{gate.Fail, "NodesNotReady", "1 of 2 nodes is not Ready, and 0 may be: b (Ready=False, KubeletNotReady)"},
		},
		{
			// A status that no Kubernetes has is not True either.
			"a status of another kind", []cluster.Node{member("a", "true")}, one,
			wanted{gate.Fail, "NodesNotReady", "1 of 1 node is not Ready, and 0 may be: a (Ready=true)"},
		},
		{
			"as many as may be", []cluster.Node{member("a", up), broken}, NodesReadyOptions{Minimum: 1, MaxNotReady: 1},
			wanted{gate.Pass, "EnoughNodesReady", "1 of 2 nodes is not Ready, as many as may be: b (Ready=False, KubeletNotReady)"},
		},
		{
			"one more than may be", []cluster.Node{member("a", lost), broken, member("c", up)}, NodesReadyOptions{Minimum: 1, MaxNotReady: 1},
			wanted{gate.Fail, "NodesNotReady", "2 of 3 nodes are not Ready, and 1 may be: a (Ready=Unknown), b (Ready=False, KubeletNotReady)"},
		},
		{
			"too few", []cluster.Node{member("a", up), member("b", up)}, NodesReadyOptions{Minimum: 3},
			wanted{gate.Fail, "TooFewNodes", `only 2 nodes match the selector "", and the minimum is 3`},
		},
		{
			// The minimum counts nodes, not Ready ones: maxNotReady is for those.
			"just enough, one away", []cluster.Node{member("a", up), member("b", down)}, NodesReadyOptions{Minimum: 2, MaxNotReady: 1},
			wanted{gate.Pass, "EnoughNodesReady", ""},
		},
		{
			"the selector keeps others out of it", []cluster.Node{member("a", up, "pool", "x"), member("b", down, "pool", "y"), member("c", "")},
			NodesReadyOptions{Minimum: 1, Selector: selector(t, "pool in (x,z)")},
			wanted{gate.Pass, "NodesReady", "1 node is Ready"},
		},
		{
			"the selector finds the one", []cluster.Node{member("a", up, "pool", "x"), member("b", down, "pool", "y")},
			NodesReadyOptions{Minimum: 1, Selector: selector(t, "pool!=x")},
			wanted{gate.Fail, "NodesNotReady", "1 of 1 node is not Ready, and 0 may be: b (Ready=False)"},
		},
	} {
		t.Run(c.name, func(t *testing.T) { c.want.compare(t, allReady(c.nodes, c.options)) })
	}
}
