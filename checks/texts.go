package checks

import (
	"fmt"
	"slices"
	"sort"
	"strings"

	"github.com/sentinel-gate/sentinel-gate/gate"
)

// names are named in a message: the first few of them, sorted.
type names []string

const maxNames = 5

func (n names) String() string {
	sorted := slices.Clone(n)
	sort.Strings(sorted)
	if len(sorted) <= maxNames {
		return strings.Join(sorted, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(sorted[:maxNames], ", "), len(sorted)-maxNames)
}

// all is a number of things with none left out: "1 node", "all 2 nodes".
func all(n int, noun string) string {
	return agree(n, "", "all ") + gate.Count(n, noun)
}

// agree returns the words that go with the number.
func agree[N int | int32 | int64](n N, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

// noneOf says that no node matches, and how many there are.
func noneOf(selector fmt.Stringer, nodes int) string {
	return fmt.Sprintf("no node matches the selector %q, of %s", selector, gate.Count(nodes, "node"))
}

// orNone is the name of a node, where there is one.
func orNone(node string) string {
	if node == "" {
		return "no node"
	}
	return node
}

// inWords joins the first of the problems, under a heading; none where there are none.
func inWords(heading string, problems []string) []string {
	if len(problems) == 0 {
		return nil
	}
	more := ""
	if len(problems) > maxNames {
		more = fmt.Sprintf("; and %d more", len(problems)-maxNames)
		problems = problems[:maxNames]
	}
	text := strings.Join(problems, "; ") + more
	if heading != "" {
		text = heading + ": " + text
	}
	return []string{text}
}
