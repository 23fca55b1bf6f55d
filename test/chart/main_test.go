// Package chart tests the Helm chart with the real Helm: what it renders, what
// it refuses, and what a real API server makes of it.
package chart

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"github.com/sentinel-gate/sentinel-gate/test/kit/build"
	"github.com/sentinel-gate/sentinel-gate/test/kit/controlplane"
	"github.com/sentinel-gate/sentinel-gate/test/kit/helm"
	"github.com/sentinel-gate/sentinel-gate/test/kit/suite"
)

const (
	release  = "sentinel-gate"
	deadline = 2 * time.Minute
)

// shared is a control plane that releases are installed in.
var shared = controlplane.Shared(controlplane.Options{Progress: os.Stderr}, nil)

func TestMain(m *testing.M) { suite.Main(m, shared) }

func cp(t *testing.T) *controlplane.ControlPlane {
	t.Helper()
	return shared.Get(t)
}

// offline is a Helm that knows no cluster.
func offline(t *testing.T) *helm.Helm {
	t.Helper()
	suite.NeedsServers(t)
	h, err := helm.New(testContext(t), t.TempDir(), os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	return h
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

func chart(t *testing.T) string {
	t.Helper()
	return filepath.Join(root(t), "charts/sentinel-gate")
}

func testContext(t *testing.T) context.Context {
	t.Helper()
	return suite.Context(t, deadline)
}

// values writes them into a file, and returns the arguments for it.
func values(t *testing.T, text string) []string {
	t.Helper()
	// Not t.TempDir: Helm takes the commas of a test's name for a list of files.
	file, err := os.CreateTemp("", "sentinel-gate-values-*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(file.Name()) })
	if _, err := file.WriteString(text); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	return []string{"--values", file.Name()}
}

// rendered are the objects of a release, in Helm's order.
type rendered []*unstructured.Unstructured

// render renders the chart with values over its own.
func render(t *testing.T, namespace, text string) rendered {
	t.Helper()
	out, err := offline(t).Run(testContext(t), append([]string{"template", release, chart(t), "--namespace", namespace}, values(t, text)...)...)
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, out)
}

func parse(t *testing.T, stream string) rendered {
	t.Helper()
	var all rendered
	for text := range strings.SplitSeq(stream, "\n---") {
		o := &unstructured.Unstructured{}
		if err := yaml.UnmarshalStrict(bytes.TrimPrefix([]byte(text), []byte("---")), &o.Object); err != nil {
			t.Fatalf("%v in\n%s", err, text)
		}
		if len(o.Object) > 0 {
			all = append(all, o)
		}
	}
	return all
}

func (r rendered) kinds() []string {
	var kinds []string
	for _, o := range r {
		kinds = append(kinds, o.GetKind()+"/"+o.GetName())
	}
	slices.Sort(kinds)
	return kinds
}

// find returns the object of the kind and name.
func find[T any](t *testing.T, r rendered, kind, name string) *T {
	t.Helper()
	for _, o := range r {
		if o.GetKind() == kind && o.GetName() == name {
			typed := new(T)
			if err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(o.Object, typed, true); err != nil {
				t.Fatalf("%s %s: %v", kind, name, err)
			}
			return typed
		}
	}
	t.Fatalf("no %s %s among %v", kind, name, r.kinds())
	return nil
}

// podSpec is that of the gate's pods in either mode: in mode sidecar as kured's
// own chart makes them of the values.
func podSpec(t *testing.T, r rendered) corev1.PodSpec {
	t.Helper()
	if !slices.Contains(r.kinds(), "ConfigMap/"+release+"-kured-values") {
		return find[appsv1.DaemonSet](t, r, "DaemonSet", release).Spec.Template.Spec
	}
	return kuredsPod(t, find[corev1.ConfigMap](t, r, "ConfigMap", release+"-kured-values").Data["values.yaml"])
}

func gateContainer(t *testing.T, spec corev1.PodSpec) corev1.Container {
	t.Helper()
	all := slices.Concat(spec.InitContainers, spec.Containers)
	i := slices.IndexFunc(all, func(c corev1.Container) bool { return c.Name == "sentinel-gate" })
	if i < 0 {
		t.Fatal("no container is called sentinel-gate, which the alerts rely on")
	}
	return all[i]
}
