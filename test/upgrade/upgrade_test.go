// Package upgrade replaces running daemons by those of another version, in both directions: what the one has written,
// the other reads, and no soak is lost on the way.
package upgrade

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/sentinel-gate/sentinel-gate/test/kit/build"
	"github.com/sentinel-gate/sentinel-gate/test/kit/controlplane"
	"github.com/sentinel-gate/sentinel-gate/test/kit/daemon"
)

// before is the commit that is upgraded from, and that a rollback returns to. Its configuration files, Leases and
// records are in clusters that run.
const before = "f9e8247afdbf0b173ff279094b03fde5479d9931"

var shared = controlplane.Shared{Options: controlplane.Options{Progress: os.Stderr}}

func TestMain(m *testing.M) { os.Exit(shared.Run(m)) }

// binaries builds the daemon as it was and as it is, and returns also where the sources are as they were.
func binaries(ctx context.Context, t *testing.T) (old, present, sources string) {
	t.Helper()
	sources = t.TempDir()
	must(t, build.Sources(ctx, before, sources))
	old, err := daemon.BinaryOf(ctx, t.TempDir(), true, sources, before)
	must(t, err)
	present, err = daemon.Binary(ctx, t.TempDir(), true)
	must(t, err)
	return old, present, sources
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A rollout is upgraded while the first soak runs, and rolled back while the second does. Both soaks run to their end,
// and then the next node's gate opens.
func TestRolloutGoesOn(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	old, present, _ := binaries(ctx, t)
	r := newRollout(ctx, t, 3, old)

	went := map[*member]bool{}
	open := r.awaitOpen(ctx, t)
	for _, version := range []string{present, old} {
		went[open] = true
		soakEnds := r.reboot(ctx, t, open)
		records := r.replace(ctx, t, version, soakEnds)
		open = r.awaitOpen(ctx, t)
		r.recordsStay(ctx, t, records)
		if went[open] {
			t.Errorf("%s has rebooted, and its gate is open again", open.node.Name)
		}
	}
}

// Every configuration that the documentation showed is still one.
func TestOldConfigurationsLoad(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds the daemon twice")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	_, present, sources := binaries(ctx, t)
	found := 0
	load := func(where, text string) {
		if !strings.Contains(text, "kind: GateConfiguration") {
			return
		}
		found++
		path := filepath.Join(t.TempDir(), "config.yaml")
		must(t, os.WriteFile(path, []byte(text), 0o644))
		if out, err := exec.CommandContext(ctx, present, "--check-config", "--config", path).CombinedOutput(); err != nil {
			t.Errorf("%s, which the daemon took: %v\n%s", where, err, out)
		}
	}
	pages, err := filepath.Glob(filepath.Join(sources, "docs", "*.md"))
	must(t, err)
	more, err := filepath.Glob(filepath.Join(sources, "docs", "*", "*.md"))
	must(t, err)
	block := regexp.MustCompile("(?ms)^( *)```yaml\n(.*?)^ *```$")
	for _, page := range append(pages, more...) {
		text, err := os.ReadFile(page)
		must(t, err)
		for i, b := range block.FindAllStringSubmatch(string(text), -1) {
			name, _ := filepath.Rel(sources, page)
			load(fmt.Sprintf("block %d of %s", i+1, name), strings.ReplaceAll("\n"+b[2], "\n"+b[1], "\n"))
		}
	}
	shipped, err := os.ReadFile(filepath.Join(sources, "deploy", "config.yaml"))
	must(t, err)
	load("deploy/config.yaml", string(shipped))
	if found < 15 {
		t.Errorf("only %d configurations were found", found)
	}
}
