package e2e

import (
	"bytes"
	"context"
	"embed"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"text/template"
	"time"

	"github.com/sentinel-gate/sentinel-gate/test/kit/build"
	"github.com/sentinel-gate/sentinel-gate/test/kit/helm"
)

//go:embed testdata
var testdata embed.FS

// render fills in a file of testdata.
func render(name string, values any) ([]byte, error) {
	t, err := template.New(path.Base(name)).Option("missingkey=error").ParseFS(testdata, path.Join("testdata", name))
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err = t.Execute(&b, values)
	return b.Bytes(), err
}

func renderTo(file, name string, values any) error {
	content, err := render(name, values)
	if err != nil {
		return err
	}
	return os.WriteFile(file, content, 0o644)
}

// installGate installs the project's own chart as docs/install.md says: with a
// file of values. This is the only place that knows how the gate is installed.
func (c *cluster) installGate(ctx context.Context, soak time.Duration) error {
	root, err := build.Root()
	if err != nil {
		return err
	}
	h, err := helm.New(ctx, filepath.Join(c.dir, "helm"), c.cp.Kubeconfig())
	if err != nil {
		return err
	}
	file := filepath.Join(c.dir, "values.yaml")
	if err := renderTo(file, "values.yaml", map[string]string{"GateName": gateName, "PodsName": podsName, "Tag": tag, "Soak": soak.String()}); err != nil {
		return err
	}
	if _, err := h.Run(ctx, "install", "sentinel-gate", filepath.Join(root, "charts/sentinel-gate"),
		"--namespace", "sentinel-gate", "--create-namespace", "--values", file); err != nil {
		return fmt.Errorf("installing the gate: %w", err)
	}
	return c.awaitDaemonSet(ctx, "sentinel-gate", "sentinel-gate")
}

// installKured points kured at a sentinel, given as a path of the host.
func (c *cluster) installKured(ctx context.Context, sentinel string) error {
	manifest, err := render("kured.yaml", map[string]string{
		"KuredImage": c.kured, "SentinelDirectory": path.Dir(sentinel), "SentinelName": path.Base(sentinel),
	})
	if err != nil {
		return err
	}
	if err := c.cp.Apply(ctx, manifest); err != nil {
		return fmt.Errorf("installing kured: %w", err)
	}
	return c.awaitDaemonSet(ctx, "kube-system", "kured")
}

func (c *cluster) installCNI(ctx context.Context) error {
	manifest, err := render("flannel.yaml", map[string]string{"PodsImage": podsName + ":" + tag})
	if err != nil {
		return err
	}
	if err := c.cp.Apply(ctx, manifest); err != nil {
		return fmt.Errorf("installing the CNI: %w", err)
	}
	return c.awaitDaemonSet(ctx, "kube-flannel", "kube-flannel-ds")
}
