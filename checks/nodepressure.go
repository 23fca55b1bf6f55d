package checks

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/sentinel-gate/sentinel-gate/gate"
	"github.com/sentinel-gate/sentinel-gate/gate/cluster"
)

// NodePressureOptions are the options of nodePressure.
type NodePressureOptions struct {
	// Selector chooses the nodes, by label; all of them by default.
	Selector cluster.Selector `json:"selector"`
	// Ignore are conditions that do not count, by their names.
	Ignore []string `json:"ignore"`
}

func nodePressureDefaults() NodePressureOptions { return NodePressureOptions{} }

// pressures are the conditions of a node that must not be True.
var pressures = []corev1.NodeConditionType{
	corev1.NodeDiskPressure, corev1.NodeMemoryPressure, corev1.NodeNetworkUnavailable, corev1.NodePIDPressure,
}

type nodePressure struct {
	overNodes
	options NodePressureOptions
	counts  []corev1.NodeConditionType
}

var (
	_ gate.Watcher = nodePressure{}
	_ Reader       = nodePressure{}
	_ Verifier     = nodePressure{}
)

func newNodePressure(o NodePressureOptions, c *cluster.Cluster) (gate.Check, []error) {
	var problems []error
	counts := slices.Clone(pressures)
	for i, name := range o.Ignore {
		ignored := corev1.NodeConditionType(name)
		switch {
		case !slices.Contains(pressures, ignored):
			problems = append(problems, fmt.Errorf("options.ignore[%d]: unknown condition %q: want one of %s", i, name, enumerated(pressures, "and")))
		case slices.Contains(o.Ignore[:i], name):
			problems = append(problems, fmt.Errorf("options.ignore[%d]: %q is given twice", i, name))
		}
		counts = slices.DeleteFunc(counts, func(c corev1.NodeConditionType) bool { return c == ignored })
	}
	if len(counts) == 0 {
		problems = append(problems, errors.New("options.ignore: leaves no condition to look at"))
	}
	judge := func(nodes []cluster.Node) gate.Result { return unpressed(nodes, counts, o.Selector) }
	return nodePressure{overNodes{c, judge}, o, counts}, problems
}

// Verify lets one node report each of the conditions, and then report it no
// more.
func (c nodePressure) Verify(ctx context.Context) (Verification, error) {
	nodes, err := c.cluster.Nodes(ctx)
	if err != nil {
		return Verification{}, err
	}
	chosen := selected(nodes.Items, c.options.Selector)
	some := chosen[:min(1, len(chosen))]
	v := Verification{
		Looked: fmt.Sprintf("%s of %d of %s", enumerated(c.counts, "and"), len(chosen), gate.Count(len(nodes.Items), "node")),
		Result: c.judge(nodes.Items),
	}
	for _, condition := range c.counts {
		v.Mutations = append(v.Mutations,
			c.worsened(nodes.Items, some, string(condition)+"=True: %s", func(n *cluster.Node) { setCondition(n, condition, corev1.ConditionTrue) }),
			c.worsened(nodes.Items, some, "without a "+string(condition)+" condition: %s", func(n *cluster.Node) { setCondition(n, condition, "") }))
	}
	return v, nil
}

// setCondition changes a condition of a copy; empty takes it away.
func setCondition(n *cluster.Node, condition corev1.NodeConditionType, status corev1.ConditionStatus) {
	conditions := maps.Clone(n.Conditions)
	if conditions == nil {
		conditions = map[corev1.NodeConditionType]corev1.ConditionStatus{}
	}
	conditions[condition] = status
	n.Conditions = conditions
}

// unpressed is the pure part. A condition that is absent says nothing: the
// kubelet sets three of them, and NetworkUnavailable is set by some network
// plugins and cloud providers alone.
func unpressed(nodes []cluster.Node, counts []corev1.NodeConditionType, by cluster.Selector) gate.Result {
	var pressed, unsure names
	noNetwork := false
	chosen := selected(nodes, by)
	for _, i := range chosen {
		n := nodes[i]
		var reported, unknown []string
		for _, condition := range counts {
			switch status := n.Conditions[condition]; status {
			case corev1.ConditionFalse:
			case corev1.ConditionTrue:
				reported = append(reported, string(condition))
			case "":
				unknown = append(unknown, "no "+string(condition)+" condition")
				noNetwork = noNetwork || condition == corev1.NodeNetworkUnavailable
			default:
				unknown = append(unknown, string(condition)+"="+string(status))
			}
		}
		if len(reported) > 0 {
			pressed = append(pressed, fmt.Sprintf("%s (%s)", n.Name, strings.Join(reported, ", ")))
		}
		if len(unknown) > 0 {
			unsure = append(unsure, fmt.Sprintf("%s (%s)", n.Name, strings.Join(unknown, ", ")))
		}
	}
	of := gate.Count(len(chosen), "node")
	switch {
	case len(chosen) == 0:
		return gate.Failed("NoNodes", "%s", noneOf(by, len(nodes)))
	case len(pressed) > 0:
		return gate.Failed("NodesUnderPressure", "%d of %s %s a problem: %s", len(pressed), of, agree(len(pressed), "reports", "report"), pressed)
	case len(unsure) > 0:
		hint := ""
		if noNetwork {
			hint = "; if no network plugin here sets NetworkUnavailable, set ignore: [NetworkUnavailable]"
		}
		return gate.Undecided("ConditionUnknown", "%d of %s %s not report every condition: %s%s", len(unsure), of, agree(len(unsure), "does", "do"), unsure, hint)
	}
	return gate.Passed("NoPressure", "%s %s no %s", of, agree(len(chosen), "reports", "report"), enumerated(counts, "or"))
}

// enumerated lists the conditions in a sentence.
func enumerated(conditions []corev1.NodeConditionType, last string) string {
	var words []string
	for _, c := range conditions {
		words = append(words, string(c))
	}
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " " + last + " " + words[len(words)-1]
}
