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
	"syscall"
	"testing"
	"time"

	"github.com/sentinel-gate/sentinel-gate/test/kit/build"
	"github.com/sentinel-gate/sentinel-gate/test/kit/cluster"
	"github.com/sentinel-gate/sentinel-gate/test/kit/controlplane"
	"github.com/sentinel-gate/sentinel-gate/test/kit/daemon"
	"github.com/sentinel-gate/sentinel-gate/test/kit/suite"
)

// before is the commit that is upgraded from, and that a rollback returns to. Its configuration files, Leases and
// records are in clusters that run.
const before = "f9e8247afdbf0b173ff279094b03fde5479d9931"

// versions is what the tests share: a control plane, and the daemon as it was and as it is.
type versions struct {
	cp                *controlplane.ControlPlane
	kubeconfig        string
	old, present      string // programs
	sourcesAsTheyWere string
}

var shared = &suite.Shared[*versions]{Make: func(ctx context.Context, s *suite.Setup) (*versions, error) {
	var v versions
	var err error
	dirs := make([]string, 3)
	for i := range dirs {
		if dirs[i], err = s.TempDir(); err != nil {
			return nil, err
		}
	}
	v.sourcesAsTheyWere = dirs[0]
	if err := build.Sources(ctx, before, v.sourcesAsTheyWere); err != nil {
		return nil, err
	}
	if v.old, err = daemon.BinaryOf(ctx, dirs[1], true, v.sourcesAsTheyWere, before); err != nil {
		return nil, err
	}
	if v.present, err = daemon.Binary(ctx, dirs[2], true); err != nil {
		return nil, err
	}
	v.cp, err = controlplane.Started(ctx, s, controlplane.Options{Progress: os.Stderr}, func(ctx context.Context, cp *controlplane.ControlPlane) (err error) {
		v.kubeconfig, err = cluster.Authorize(ctx, cp)
		return err
	})
	return &v, err
}}

func TestMain(m *testing.M) { suite.Main(m, shared) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A rollout is upgraded while the first soak runs, and rolled back while the second does. Both soaks run to their end,
// and then the next node's gate opens.
func TestRolloutGoesOn(t *testing.T) {
	v := shared.Get(t)
	ctx := suite.Context(t, 5*time.Minute)
	r := newRollout(ctx, t, v, 3)
	went := map[*member]bool{}
	open := r.awaitOpen(ctx, t)
	for _, version := range []string{v.present, v.old} {
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

// Gates with exposure take over in the middle of a soak that gates without began: it runs to its end. From then on the
// turn is of version 2, and a gate of the version before refuses it, beside the others, of which one opens.
func TestExposureIsTurnedOn(t *testing.T) {
	v := shared.Get(t)
	ctx := suite.Context(t, 5*time.Minute)
	r := newRollout(ctx, t, v, 3)
	first := r.awaitOpen(ctx, t)
	soakEnds := r.reboot(ctx, t, first)
	r.exposure = true
	r.replace(ctx, t, v.present, soakEnds)
	second := r.awaitOpen(ctx, t)
	if second == first {
		t.Errorf("%s has rebooted, and its gate is open again", first.node.Name)
	}
	if got := r.annotations(ctx, t, turnLease)["sentinel-gate.io/turn-version"]; got != "2" {
		t.Errorf("the turn is of version %q", got)
	}
	for _, m := range r.members {
		if m == first || m == second {
			continue
		}
		m.end(ctx, t, syscall.SIGTERM)
		r.start(t, m, v.old)
		_, err := m.daemon.Await(ctx, 0, "a gate that refuses the turn", func(l daemon.Line) bool {
			return l.State == "Closed" && strings.Contains(l.Msg, `its version is "2"`)
		})
		must(t, err)
	}
	if !second.host.Resolves() {
		t.Errorf("the gate of %s is closed because another does not know the turn", second.node.Name)
	}
}

// Every configuration that the documentation showed is still one.
func TestOldConfigurationsLoad(t *testing.T) {
	t.Parallel()
	v := shared.Get(t)
	ctx, sources := suite.Context(t, 5*time.Minute), v.sourcesAsTheyWere
	found := 0
	load := func(where, text string) {
		if !strings.Contains(text, "kind: GateConfiguration") {
			return
		}
		found++
		path := filepath.Join(t.TempDir(), "config.yaml")
		must(t, os.WriteFile(path, []byte(text), 0o644))
		if out, err := exec.CommandContext(ctx, v.present, "--check-config", "--config", path).CombinedOutput(); err != nil {
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
