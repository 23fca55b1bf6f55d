// Package deploy tests what is in deploy/ as an operator uses it: with a real
// kubectl against a real API server, whose own controller makes the pods.
package deploy

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/sentinel-gate/sentinel-gate/test/kit/build"
	"github.com/sentinel-gate/sentinel-gate/test/kit/controlplane"
	"github.com/sentinel-gate/sentinel-gate/test/kit/suite"
)

const (
	namespace = "sentinel-gate"
	account   = "sentinel-gate"
	deadline  = 2 * time.Minute
)

// shared is a control plane with controllers, in which deploy/ is installed.
var shared = controlplane.Shared(controlplane.Options{Progress: os.Stderr, ControllerManager: true}, install)

func TestMain(m *testing.M) { suite.Main(m, shared) }

func cluster(t *testing.T) *controlplane.ControlPlane {
	t.Helper()
	return shared.Get(t)
}

// install does what docs/install.md says, and a dry run before: it sees every
// object, makes none, and nothing gives a warning.
func install(ctx context.Context, cp *controlplane.ControlPlane) error {
	root, err := build.Root()
	if err != nil {
		return err
	}
	dir := filepath.Join(root, "deploy")
	if _, err := kubectl(ctx, cp, "apply", "--validate=strict", "-f", filepath.Join(dir, "namespace.yaml")); err != nil {
		return err
	}
	if _, err := kubectl(ctx, cp, "apply", "--validate=strict", "--dry-run=server", "-k", dir); err != nil {
		return err
	}
	list, err := cp.Client().AppsV1().DaemonSets(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	if len(list.Items) != 0 {
		return fmt.Errorf("the dry run made %s", list.Items[0].Name)
	}
	_, err = kubectl(ctx, cp, "apply", "--validate=strict", "-k", dir)
	return err
}

// kubectl runs the real one, as an administrator. A warning is an error.
func kubectl(ctx context.Context, cp *controlplane.ControlPlane, args ...string) (string, error) {
	cmd := cp.Kubectl(ctx, cp.Kubeconfig(), args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err == nil && stderr.Len() > 0 {
		err = fmt.Errorf("it said on standard error")
	}
	if err != nil {
		return "", fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, stderr.String())
	}
	return string(out), nil
}

func run(t *testing.T, args ...string) string {
	t.Helper()
	out, err := kubectl(testContext(t), cluster(t), args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func testContext(t *testing.T) context.Context {
	t.Helper()
	return suite.Context(t, deadline)
}

// root is the directory of the repository.
func root(t *testing.T) string {
	t.Helper()
	dir, err := build.Root()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root(t), name))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// parse reads YAML strictly.
func parse[T any](t *testing.T, text []byte) *T {
	t.Helper()
	v := new(T)
	if err := yaml.UnmarshalStrict(text, v); err != nil {
		t.Fatal(err)
	}
	return v
}

// document returns the object of the kind from a stream of YAML documents.
func document(t *testing.T, stream, kind string) []byte {
	t.Helper()
	for text := range strings.SplitSeq(stream, "\n---\n") {
		if parse[metav1.PartialObjectMetadata](t, []byte(justType(text))).Kind == kind {
			return []byte(text)
		}
	}
	t.Fatalf("no %s in\n%s", kind, stream)
	return nil
}

// justType keeps the lines that tell of what kind a document is.
func justType(text string) string {
	var lines []string
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "apiVersion:") || strings.HasPrefix(line, "kind:") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "")
}

// shipped is the DaemonSet as kustomize renders it.
func shipped(t *testing.T) *appsv1.DaemonSet {
	t.Helper()
	return parse[appsv1.DaemonSet](t, document(t, run(t, "kustomize", filepath.Join(root(t), "deploy")), "DaemonSet"))
}

// hostPath is where a path in the container is on the host: that of the
// innermost mount above it.
func hostPath(t *testing.T, spec corev1.PodSpec, container corev1.Container, path string) string {
	t.Helper()
	var found corev1.VolumeMount
	for _, m := range container.VolumeMounts {
		if strings.HasPrefix(path, m.MountPath+"/") && len(m.MountPath) > len(found.MountPath) {
			found = m
		}
	}
	for _, v := range spec.Volumes {
		if v.Name == found.Name && v.HostPath != nil {
			return filepath.Join(v.HostPath.Path, found.SubPath, strings.TrimPrefix(path, found.MountPath))
		}
	}
	t.Fatalf("%s of container %s is not on the host", path, container.Name)
	return ""
}
