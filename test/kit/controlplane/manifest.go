package controlplane

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/dynamic"

	"github.com/sentinel-gate/sentinel-gate/test/kit/build"
)

// fieldManager owns what the harness writes on behalf of a test.
const fieldManager = "sentinel-gate-test"

// Namespace creates a namespace unless it exists.
func (cp *ControlPlane) Namespace(ctx context.Context, name string) error {
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
	_, err := cp.client.CoreV1().Namespaces().Create(ctx, namespace, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("creating namespace %s: %w", name, err)
	}
	return nil
}

// ApplyFile applies a file of the repository, named from its root.
func (cp *ControlPlane) ApplyFile(ctx context.Context, name string) error {
	root, err := build.Root()
	if err != nil {
		return err
	}
	manifest, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(name)))
	if err != nil {
		return err
	}
	return cp.Apply(ctx, manifest)
}

// Apply creates or updates the objects of a YAML stream in their order, as "kubectl apply --server-side
// --force-conflicts" does. A custom resource may follow its definition at once.
func (cp *ControlPlane) Apply(ctx context.Context, manifest []byte) error {
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(manifest), 4096)
	for i := 0; ; i++ {
		object := &unstructured.Unstructured{}
		err := decoder.Decode(&object.Object)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("applying a manifest: document %d: %w", i, err)
		}
		// A stream may begin with a separator, and a document may be all comments.
		if len(object.Object) == 0 {
			continue
		}
		if err := cp.applyObject(ctx, object); err != nil {
			return fmt.Errorf("applying %s %q in namespace %q: %w", object.GetKind(), object.GetName(), object.GetNamespace(), err)
		}
	}
}

func (cp *ControlPlane) applyObject(ctx context.Context, object *unstructured.Unstructured) error {
	kind := object.GroupVersionKind()
	var mapping *meta.RESTMapping
	// The definition of a custom resource takes a moment to be served.
	served, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := Poll(served, func() (err error) {
		mapping, err = cp.mapper.RESTMapping(kind.GroupKind(), kind.Version)
		if meta.IsNoMatchError(err) {
			cp.mapper.Reset()
		}
		return err
	}); err != nil {
		return err
	}
	var resource dynamic.ResourceInterface = cp.dynamic.Resource(mapping.Resource)
	if mapping.Scope.Name() == meta.RESTScopeNameNamespace {
		if object.GetNamespace() == "" {
			object.SetNamespace(metav1.NamespaceDefault)
		}
		resource = cp.dynamic.Resource(mapping.Resource).Namespace(object.GetNamespace())
	}
	_, err := resource.Apply(ctx, object.GetName(), object, metav1.ApplyOptions{FieldManager: fieldManager, Force: true})
	return err
}
