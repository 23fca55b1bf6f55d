package checks

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/printer"
	"go/token"
	gotypes "go/types"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// fileOf is the file of a type of check.
func fileOf(typeName string) string { return strings.ToLower(typeName) + ".go" }

// sources are the files of this package, but for its tests.
func sources(t *testing.T) (*token.FileSet, []*ast.File) {
	t.Helper()
	names, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	set := token.NewFileSet()
	var files []*ast.File
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(set, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	return set, files
}

// without is an importer that finds nothing: what the files of this package use
// of each other is known all the same.
type without struct{}

func (without) Import(string) (*gotypes.Package, error) { return nil, errors.New("not imported") }

// uses returns, of each file of this package, from which others it uses what,
// in its order.
func uses(t *testing.T) map[string]map[string][]string {
	t.Helper()
	set, files := sources(t)
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

// constructors returns the functions that build a check from its options, by
// their names, with the file of each.
func constructors(t *testing.T) map[string]string {
	t.Helper()
	set, files := sources(t)
	out := map[string]string{}
	for _, file := range files {
		for _, d := range file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || f.Recv != nil || f.Type.Results == nil || f.Type.Params.NumFields() != 2 {
				continue
			}
			var signature strings.Builder
			if err := printer.Fprint(&signature, set, f.Type); err != nil {
				t.Fatal(err)
			}
			if strings.HasSuffix(signature.String(), "*cluster.Cluster) (gate.Check, []error)") {
				out[f.Name.Name] = set.Position(f.Pos()).Filename
			}
		}
	}
	return out
}

// A check is one file, one test, one line in the map, and one page, of which
// TestEveryTypeHasItsPage tells.
func TestEveryTypeHasItsFileTestAndLine(t *testing.T) {
	used, all := uses(t), constructors(t)
	for _, typeName := range Types() {
		file := fileOf(typeName)
		test, err := os.ReadFile(strings.TrimSuffix(file, ".go") + "_test.go")
		if err != nil || !strings.Contains(string(test), "\nfunc Test") {
			t.Errorf("the type %s has no test of its own: %v", typeName, err)
		}
		if !slices.Contains(slices.Collect(maps.Values(all)), file) {
			t.Errorf("%s does not build the type %s", file, typeName)
		}
		if !slices.Contains(used[file]["abilities.go"], "Verifier") {
			t.Errorf("%s does not assert that its check is a Verifier: no step is trusted that was never seen to fail", file)
		}
	}
	for name, file := range all {
		if !slices.Contains(used["checks.go"][file], name) {
			t.Errorf("%s builds a check with %s, which has no line in the map in checks.go", file, name)
		}
	}
}
