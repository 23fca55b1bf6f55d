package checks

import (
	"fmt"
	"slices"
)

// ownNode returns the index of the gate's own node among the nodes, or why it
// is not known. A check of this node must not judge another in its place, nor
// find nothing in the way on one that does not exist.
func ownNode(nodes []node, name string) (index int, problem string) {
	if name == "" {
		return -1, "the name of the gate's own node is not known: set --node-name"
	}
	if index = slices.IndexFunc(nodes, func(n node) bool { return n.name == name }); index < 0 {
		return -1, fmt.Sprintf("the gate's own node %q is none of the %d nodes of the cluster", name, len(nodes))
	}
	return index, ""
}
