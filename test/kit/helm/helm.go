// Package helm runs the real Helm, so that the chart is rendered, checked and installed as an operator does it.
package helm

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/sentinel-gate/sentinel-gate/test/kit/build"
)

// Helm runs commands, each with a home of its own, so that nothing of the user's is read or written.
type Helm struct {
	binary string
	home   string
	// Kubeconfig is where the cluster is; it may be empty for commands that need none.
	Kubeconfig string
}

// Binary builds helm, or finds it built, and returns its path.
func Binary(ctx context.Context, progress io.Writer) (string, error) {
	return build.Binary(ctx, progress, build.Target{
		Title: "Helm", Module: "test/kit/helm/server", Package: "helm.sh/helm/v4/cmd/helm",
	})
}

// New returns a Helm that keeps its files in dir.
func New(ctx context.Context, dir, kubeconfig string) (*Helm, error) {
	binary, err := Binary(ctx, os.Stderr)
	if err != nil {
		return nil, err
	}
	return &Helm{binary: binary, home: dir, Kubeconfig: kubeconfig}, nil
}

// Run returns what helm prints. An error has what it says.
func (h *Helm) Run(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, h.binary, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+h.Kubeconfig,
		"HELM_CACHE_HOME="+filepath.Join(h.home, "cache"), "HELM_CONFIG_HOME="+filepath.Join(h.home, "config"), "HELM_DATA_HOME="+filepath.Join(h.home, "data"))
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("helm %s: %w\n%s", args[0], err, stderr.String())
	}
	return stdout.String(), nil
}
