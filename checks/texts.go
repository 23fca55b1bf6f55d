package checks

import (
	"fmt"
	"slices"
	"sort"
	"strings"
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
