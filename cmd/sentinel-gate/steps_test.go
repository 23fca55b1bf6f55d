package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A soft step reports and holds nothing back, until its date; by the API
// server's clock.
func TestSoftUntil(t *testing.T) {
	s := newScene(t)
	config := func(until time.Time) string {
		return write(t, filepath.Join(s.dir, "soft.yaml"), header+fmt.Sprintf(`
checks:
  - {name: nodes, type: nodesReady}
  - {name: new, type: nodesReady, softUntil: %s, options: {minimum: 4}}
`, until.UTC().Format(time.RFC3339)))
	}
	exit, stdout, _ := s.once("--config", config(time.Now().Add(time.Hour)))
	if exit != exitOK || !strings.Contains(stdout, "new    nodesReady  FAIL (soft)") || !strings.Contains(stdout, "all 2 pass, but for soft ones: new (TooFewNodes)\n") {
		t.Errorf("before the date: exit %d\n%s", exit, stdout)
	}
	exit, stdout, _ = s.once("--config", config(time.Now().Add(-time.Minute)))
	if exit != exitBlocked || !strings.Contains(stdout, "blocked by 1 of 2: new\n") || strings.Contains(stdout, "soft") {
		t.Errorf("after the date: exit %d\n%s", exit, stdout)
	}
}

// A step with a nodeSelector is asked on the nodes that match, and passes on
// the others.
func TestNodeSelector(t *testing.T) {
	s := newScene(t)
	config := write(t, filepath.Join(s.dir, "selected.yaml"), header+`
checks:
  - {name: nodes, type: nodesReady}
  - {name: here, type: nodesReady, nodeSelector: kubernetes.io/hostname, options: {minimum: 4}}
  - {name: elsewhere, type: nodesReady, nodeSelector: "!kubernetes.io/hostname", options: {minimum: 4}}
`)
	exit, stdout, _ := s.once("--config", config)
	if exit != exitBlocked || !strings.Contains(stdout, "blocked by 1 of 3: here\n") || !strings.Contains(stdout, "PASS     NotOnThisNode") {
		t.Errorf("exit %d\n%s", exit, stdout)
	}
	exit, stdout, _ = s.once("--config", config, "--node-name", "gone")
	if exit != exitBlocked || strings.Count(stdout, "OwnNodeUnknown") != 2 {
		t.Errorf("on a node that is not known: exit %d\n%s", exit, stdout)
	}
}
