package main

import (
	"os/exec"
	"strings"
	"testing"
)

// The daemon runs on every node. What it once got rid of does not come back
// with an import: the types of every group of the API, and OpenAPI.
func TestWeight(t *testing.T) {
	deps, err := exec.CommandContext(t.Context(), "go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	for pkg := range strings.Lines(string(deps)) {
		for _, heavy := range []string{"k8s.io/client-go/kubernetes/", "k8s.io/client-go/applyconfigurations/", "k8s.io/api/autoscaling/", "github.com/google/gnostic-models/"} {
			if strings.HasPrefix(pkg, heavy) {
				t.Errorf("the daemon imports %s", pkg)
			}
		}
	}
}
