package build

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/sentinel-gate/sentinel-gate/test/kit/suite"
)

// module writes a nested module with one main package that says what.
func module(t *testing.T, what string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string]string{
		"go.mod":  "module nested\n\ngo 1.26\n",
		"go.sum":  "",
		"main.go": "package main\n\nvar stamp string\n\nfunc main() { print(\"" + what + "\" + stamp) }\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestBuildOnce(t *testing.T) {
	suite.NeedsServers(t)
	// The go command's own caches stay where they are: with HOME moved it would compile the standard library again.
	keepGoCaches(t)
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	target := Target{Title: "nested", Package: ".", Name: "nested", LDFlags: "-X main.stamp=1"}
	dir := module(t, "hello")

	var wg sync.WaitGroup
	paths := make([]string, 4)
	for i := range paths {
		wg.Go(func() {
			var err error
			if paths[i], err = target.build(t.Context(), nil, dir); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, p := range paths {
		if p != paths[0] {
			t.Errorf("one target was built twice, as %s and %s", paths[0], p)
		}
	}
	output, err := exec.CommandContext(t.Context(), paths[0]).CombinedOutput()
	if err != nil || string(output) != "hello1" {
		t.Errorf("the binary says %q, %v", output, err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(paths[0]), "nested.*")); len(left) != 0 {
		t.Errorf("left behind: %q", left)
	}

	var progress bytes.Buffer
	before, _ := os.Stat(paths[0])
	if _, err := target.build(t.Context(), &progress, dir); err != nil {
		t.Fatal(err)
	}
	after, _ := os.Stat(paths[0])
	if progress.Len() != 0 || !before.ModTime().Equal(after.ModTime()) {
		t.Errorf("a cached binary was built again, saying %q", &progress)
	}

	changed, err := target.build(t.Context(), nil, module(t, "goodbye"))
	if err != nil {
		t.Fatal(err)
	}
	if changed == paths[0] {
		t.Error("the key of the cache does not cover the source")
	}
}

func TestWithoutHome(t *testing.T) {
	suite.NeedsServers(t)
	keepGoCaches(t)
	t.Setenv("XDG_CACHE_HOME", "")
	t.Setenv("HOME", "")
	t.Setenv("TMPDIR", t.TempDir())
	p, err := Target{Title: "nested", Package: ".", Name: "nested"}.build(t.Context(), nil, module(t, "hello"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(p, os.TempDir()) {
		t.Errorf("built %s, outside of %s", p, os.TempDir())
	}
}

func TestBuildErrorShowsCompilerOutput(t *testing.T) {
	suite.NeedsServers(t)
	keepGoCaches(t)
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	_, err := Target{Title: "nested", Package: ".", Name: "nested"}.build(t.Context(), nil, module(t, "\" + missing + \""))
	if err == nil || !strings.Contains(err.Error(), "undefined: missing") {
		t.Errorf("got %v", err)
	}
}

func TestRoot(t *testing.T) {
	root, err := Root()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(root, "test", "kit", "build", "build_test.go")); err != nil {
		t.Error(err)
	}
}

func keepGoCaches(t *testing.T) {
	t.Helper()
	for _, variable := range []string{"GOCACHE", "GOPATH"} {
		value, err := exec.CommandContext(t.Context(), "go", "env", variable).Output()
		if err != nil {
			t.Fatal(err)
		}
		t.Setenv(variable, strings.TrimSpace(string(value)))
	}
}

// Of two suites the second finds what the first has built, unless the sources have changed in between; what was built of
// an earlier commit stays.
func TestProduct(t *testing.T) {
	suite.NeedsServers(t)
	keepGoCaches(t)
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	out, sources := t.TempDir(), module(t, "unused")
	write := func(what string) {
		t.Helper()
		main := fmt.Sprintf("package main\n\nfunc main() { print(%q) }\n", what)
		if err := errors.Join(os.MkdirAll(filepath.Join(sources, "cmd"), 0o755), os.WriteFile(filepath.Join(sources, "cmd", "main.go"), []byte(main), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	build := func(name, commit string) string {
		t.Helper()
		path := filepath.Join(out, name)
		if err := (Product{Sources: sources, Commit: commit, Package: "./cmd"}).Build(t.Context(), path); err != nil {
			t.Fatal(err)
		}
		return path
	}
	says := func(path, want string) {
		t.Helper()
		if output, err := exec.CommandContext(t.Context(), path).CombinedOutput(); err != nil || string(output) != want {
			t.Errorf("%s says %q, %v", filepath.Base(path), output, err)
		}
	}
	write("hello")
	first, second, old := build("first", ""), build("second", ""), build("old", "1234")
	one, _ := os.Stat(first)
	if two, _ := os.Stat(second); !os.SameFile(one, two) {
		t.Error("what was up to date was built again")
	}
	write("goodbye")
	says(build("third", ""), "goodbye")
	says(first, "hello")
	says(build("old again", "1234"), "hello")
	says(old, "hello")
}

func TestSourcesOfACommit(t *testing.T) {
	suite.NeedsServers(t)
	dir := t.TempDir()
	err := Sources(t.Context(), "0123456789012345678901234567890123456789", dir)
	if err == nil || !strings.Contains(err.Error(), "git fetch --unshallow") {
		t.Errorf("a commit that is not there: %v", err)
	}
	if err := Sources(t.Context(), "HEAD", dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "cmd", "sentinel-gate", "main.go")); err != nil {
		t.Error(err)
	}
}
