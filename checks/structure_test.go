package checks

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	gotypes "go/types"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

// fileOf is the file of a type of check.
func fileOf(typeName string) string { return strings.ToLower(typeName) + ".go" }

// without is an importer that finds nothing: what the files of this package use
// of each other is known all the same.
type without struct{}

func (without) Import(string) (*gotypes.Package, error) { return nil, errors.New("not imported") }

// uses returns, of each file of this package, from which others it uses what,
// in its order.
func uses(t *testing.T) map[string]map[string][]string {
	t.Helper()
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	set := token.NewFileSet()
	var files []*ast.File
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".go") || strings.HasSuffix(e.Name(), "_test.go") {
			continue
		}
		file, err := parser.ParseFile(set, e.Name(), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	info := gotypes.Info{Uses: map[*ast.Ident]gotypes.Object{}}
	config := gotypes.Config{Importer: without{}, Error: func(error) {}}
	checked, _ := config.Check("checks", set, files, &info)
	out := map[string]map[string][]string{}
	for _, by := range slices.SortedFunc(maps.Keys(info.Uses), func(a, b *ast.Ident) int { return int(a.Pos() - b.Pos()) }) {
		used := info.Uses[by]
		from, in := set.Position(used.Pos()).Filename, set.Position(by.Pos()).Filename
		if used.Pkg() != checked || from == in || from == "" {
			continue
		}
		if out[in] == nil {
			out[in] = map[string][]string{}
		}
		out[in][from] = append(out[in][from], by.Name)
	}
	return out
}

// No check reaches into its sibling, neither by itself nor through a file that
// both use: what two checks share has a file of its own.
func TestNoCheckReachesIntoItsSibling(t *testing.T) {
	used := uses(t)
	isCheck := map[string]bool{}
	for _, typeName := range Types() {
		isCheck[fileOf(typeName)] = true
	}
	if len(used[fileOf("nodesReady")]["overnodes.go"]) == 0 || len(used["checks.go"][fileOf("nodesReady")]) == 0 {
		t.Fatalf("what nodesready.go uses was not found: does this test still read the source rightly? %v", used)
	}
	for in, from := range used {
		if in == "checks.go" {
			continue // the map of the types
		}
		var users []string
		for check := range isCheck {
			if len(used[check][in]) > 0 {
				users = append(users, check)
			}
		}
		for other, names := range from {
			switch {
			case !isCheck[other]:
			case isCheck[in]:
				t.Errorf("%s uses %v of %s: move it to a file of its own", in, names, other)
			case !slices.Equal(users, []string{other}):
				t.Errorf("%s, which %v share, uses %v of %s: move it to a file of its own", in, users, names, other)
			}
		}
	}
}
