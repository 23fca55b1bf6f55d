package checks

import (
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sentinel-gate/sentinel-gate/gate"
	"github.com/sentinel-gate/sentinel-gate/gate/cluster"
)

// pressedNodes reads nodes that are written down as "a b:disk c:mem?,net!": each
// has all conditions as False but for those after the colon, which are True,
// with "?" Unknown, and with "!" absent.
func pressedNodes(text string) []cluster.Node {
	short := map[string]corev1.NodeConditionType{
		"disk": corev1.NodeDiskPressure, "mem": corev1.NodeMemoryPressure, "pid": corev1.NodePIDPressure, "net": corev1.NodeNetworkUnavailable,
	}
	var nodes []cluster.Node
	for word := range strings.FieldsSeq(text) {
		name, changes, _ := strings.Cut(word, ":")
		n := member(name, corev1.ConditionTrue, "name", name)
		for _, c := range pressures {
			setCondition(&n, c, corev1.ConditionFalse)
		}
		for change := range strings.SplitSeq(changes, ",") {
			condition, ok := short[strings.TrimRight(change, "?!")]
			switch {
			case !ok:
			case strings.HasSuffix(change, "?"):
				setCondition(&n, condition, corev1.ConditionUnknown)
			case strings.HasSuffix(change, "!"):
				delete(n.Conditions, condition)
			default:
				setCondition(&n, condition, corev1.ConditionTrue)
			}
		}
		nodes = append(nodes, n)
	}
	return nodes
}

func TestUnpressed(t *testing.T) {
	noNetwork := []string{"NetworkUnavailable"}
	const hint = "; if no network plugin here sets NetworkUnavailable, set ignore: [NetworkUnavailable]"
	for _, c := range []struct {
		name, nodes, pick string
		ignore            []string
		want              wanted
	}{
		{"none", "a b c", "", nil, wanted{gate.Pass, "NoPressure", "3 nodes report no DiskPressure, MemoryPressure, NetworkUnavailable or PIDPressure"}},
		{"one node", "a", "", nil, wanted{gate.Pass, "NoPressure", "1 node reports no DiskPressure, MemoryPressure, NetworkUnavailable or PIDPressure"}},
		{"one condition", "a b", "", []string{"DiskPressure", "PIDPressure", "NetworkUnavailable"}, wanted{gate.Pass, "NoPressure", "2 nodes report no MemoryPressure"}},
		{"disk", "a b:disk c", "", nil, wanted{gate.Fail, "NodesUnderPressure", "1 of 3 nodes reports a problem: b (DiskPressure)"}},
		{"memory", "a:mem", "", nil, wanted{gate.Fail, "NodesUnderPressure", "1 of 1 node reports a problem: a (MemoryPressure)"}},
		{"process ids", "a:pid", "", nil, wanted{gate.Fail, "NodesUnderPressure", "1 of 1 node reports a problem: a (PIDPressure)"}},
		{"network", "a:net", "", nil, wanted{gate.Fail, "NodesUnderPressure", "1 of 1 node reports a problem: a (NetworkUnavailable)"}},
		{"several", "a:pid,disk b:mem c", "", nil, wanted{gate.Fail, "NodesUnderPressure", "2 of 3 nodes report a problem: a (DiskPressure, PIDPressure), b (MemoryPressure)"}},
		{"what is known comes before what is not", "a:mem? b:disk", "", nil, wanted{gate.Fail, "NodesUnderPressure", "1 of 2 nodes reports a problem: b (DiskPressure)"}},
		{"TestF05Unknown", "a b:disk?,mem? c:pid?", "", nil, wanted{gate.Unknown, "ConditionUnknown", "2 of 3 nodes do not report every condition: b (DiskPressure=Unknown, MemoryPressure=Unknown), c (PIDPressure=Unknown)"}},
		{"TestF05Absent", "a b:mem!", "", nil, wanted{gate.Unknown, "ConditionUnknown", "1 of 2 nodes does not report every condition: b (no MemoryPressure condition)"}},
		{"nobody sets NetworkUnavailable", "a:net! b:net!", "", nil, wanted{gate.Unknown, "ConditionUnknown", "2 of 2 nodes do not report every condition: a (no NetworkUnavailable condition), b (no NetworkUnavailable condition)" + hint}},
		{"and it is ignored", "a:net! b:net", "", noNetwork, wanted{gate.Pass, "NoPressure", "2 nodes report no DiskPressure, MemoryPressure or PIDPressure"}},
		{"what is ignored does not hide the rest", "a:net,disk", "", noNetwork, wanted{gate.Fail, "NodesUnderPressure", "1 of 1 node reports a problem: a (DiskPressure)"}},
		{"not selected", "a b:disk,net?", "name!=b", nil, wanted{gate.Pass, "NoPressure", ""}},
		{"the selected one", "a b:disk", "name=b", nil, wanted{gate.Fail, "NodesUnderPressure", "1 of 1 node reports a problem: b (DiskPressure)"}},
		{"TestF02NoneSelected", "a b", "pool=gone", nil, wanted{gate.Fail, "NoNodes", `no node matches the selector "pool=gone", of 2 nodes`}},
		{"TestF02NoNodes", "", "", nil, wanted{gate.Fail, "NoNodes", `no node matches the selector "", of 0 nodes`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			check, problems := newNodePressure(NodePressureOptions{Selector: selector(t, c.pick), Ignore: c.ignore}, nil)
			if len(problems) > 0 {
				t.Fatal(problems)
			}
			c.want.compare(t, check.(nodePressure).judge(pressedNodes(c.nodes)))
		})
	}
	odd := pressedNodes("a")
	setCondition(&odd[0], corev1.NodeDiskPressure, "false")
	wanted{gate.Unknown, "ConditionUnknown", "1 of 1 node does not report every condition: a (DiskPressure=false)"}.
		compare(t, unpressed(odd, pressures, cluster.Selector{}))
}

func TestNodePressureOptions(t *testing.T) {
	for options, want := range map[string]string{
		`{"ignore": ["NetworkUnavailable", "PIDPressure"]}`: "",
		`{"ignore": []}`:                             "",
		`{"ignore": ["Ready", "diskPressure"]}`:      "options.ignore[0]: unknown condition \"Ready\": want one of DiskPressure, MemoryPressure, NetworkUnavailable and PIDPressure\noptions.ignore[1]: unknown condition \"diskPressure\": want one of DiskPressure, MemoryPressure, NetworkUnavailable and PIDPressure",
		`{"ignore": ["PIDPressure", "PIDPressure"]}`: `options.ignore[1]: "PIDPressure" is given twice`,
		`{"ignore": ["DiskPressure", "MemoryPressure", "NetworkUnavailable", "PIDPressure"]}`: "options.ignore: leaves no condition to look at",
		`{"ignored": []}`: `options: unknown field "ignored": want one of ignore, selector`,
	} {
		var got []string
		_, problems := New("nodePressure", []byte(options), nil)
		for _, p := range problems {
			got = append(got, p.Error())
		}
		if strings.Join(got, "\n") != want {
			t.Errorf("%s\ngot  %s\nwant %s", options, strings.Join(got, "\n"), want)
		}
	}
}

// Whatever nodes report: a pass means that each selected one reports every
// condition that counts as False, and pressure on one more node never makes a
// pass of anything else.
func FuzzUnpressed(f *testing.F) {
	f.Add("a b:disk c:mem?,net!", "", byte(0))
	f.Add("a:net! b:net!", "name=a", byte(4))
	f.Add("", "x", byte(15))
	f.Fuzz(func(t *testing.T, text, pick string, ignored byte) {
		var by cluster.Selector
		if by.UnmarshalText([]byte(pick)) != nil {
			return
		}
		var counts []corev1.NodeConditionType
		for i, c := range pressures {
			if ignored&(1<<i) == 0 {
				counts = append(counts, c)
			}
		}
		nodes := pressedNodes(text)
		got := unpressed(nodes, counts, by)
		if got.Reason == "" || got.Message == "" {
			t.Errorf("%+v does not say why", got)
		}
		chosen := selected(nodes, by)
		fine := len(chosen) > 0
		for _, i := range chosen {
			fine = fine && !slices.ContainsFunc(counts, func(c corev1.NodeConditionType) bool { return nodes[i].Conditions[c] != corev1.ConditionFalse })
		}
		if (got.Verdict == gate.Pass) != fine {
			t.Errorf("%+v of %q", got, text)
		}
		for i := range nodes {
			worse := slices.Clone(nodes)
			for _, c := range pressures {
				setCondition(&worse[i], c, corev1.ConditionTrue)
			}
			if after := unpressed(worse, counts, by); got.Verdict != gate.Pass && after.Verdict == gate.Pass {
				t.Errorf("pressure on %s made %+v of %+v", worse[i].Name, after, got)
			}
		}
	})
}

// What a real API server tells of nodes as kubelets report them: none of these
// sets NetworkUnavailable.
func TestNodePressureAsksTheAPIServer(t *testing.T) {
	w := newWatched(t)
	w.judge("nodePressure")(wanted{gate.Unknown, "ConditionUnknown", "3 of 3 nodes do not report every condition: n1 (no NetworkUnavailable condition), n2 (no NetworkUnavailable condition), n3 (no NetworkUnavailable condition); if no network plugin here sets NetworkUnavailable, set ignore: [NetworkUnavailable]"})
	const options = `{"ignore": ["NetworkUnavailable"]}`
	v := w.verify("nodePressure", options, "DiskPressure, MemoryPressure and PIDPressure of 3 of 3 nodes")
	const want = `DiskPressure=True: n1 -> Fail NodesUnderPressure
without a DiskPressure condition: n1 -> Unknown ConditionUnknown
MemoryPressure=True: n1 -> Fail NodesUnderPressure
without a MemoryPressure condition: n1 -> Unknown ConditionUnknown
PIDPressure=True: n1 -> Fail NodesUnderPressure
without a PIDPressure condition: n1 -> Unknown ConditionUnknown`
	if got := v.changes(); got != want {
		t.Errorf("mutations:\n%s", got)
	}
	hints := w.watch("nodePressure", options)
	_, err := w.CP.Client().CoreV1().Nodes().Patch(w.ctx, "n2", "application/strategic-merge-patch+json",
		[]byte(`{"status":{"conditions":[{"type":"DiskPressure","status":"True"}]}}`), metav1.PatchOptions{}, "status")
	w.must(err)
	w.await(hints, "NodesUnderPressure")
}
