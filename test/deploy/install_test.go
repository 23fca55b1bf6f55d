package deploy

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// The overlay of docs/install.md does what the page says of it.
func TestDocumentedOverlay(t *testing.T) {
	page := string(read(t, "docs/install.md"))
	overlay := regexp.MustCompile("(?s)```yaml file overlay/kustomization.yaml\n(.*?)```").FindStringSubmatch(page)
	configuration := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindStringSubmatch(page)
	if overlay == nil || configuration == nil {
		t.Fatal("docs/install.md has no overlay, or no configuration")
	}
	dir := t.TempDir()
	copyOf(t, filepath.Join(root(t), "deploy"), dir)
	own := filepath.Join(dir, "overlay")
	if err := os.Mkdir(own, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"kustomization.yaml": overlay[1], "config.yaml": configuration[1]} {
		if err := os.WriteFile(filepath.Join(own, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	rendered := run(t, "kustomize", own)
	data := parse[corev1.ConfigMap](t, document(t, rendered, "ConfigMap")).Data
	if len(data) != 1 || data["config.yaml"] != configuration[1] {
		t.Errorf("the ConfigMap holds %q", data)
	}
	spec := parse[appsv1.DaemonSet](t, document(t, rendered, "DaemonSet")).Spec.Template.Spec
	if spec.Containers[0].Image != "REGISTRY/sentinel-gate:VERSION" || spec.InitContainers[0].Image != "REGISTRY/busybox:1.37" {
		t.Errorf("the images are %s and %s", spec.Containers[0].Image, spec.InitContainers[0].Image)
	}
	shown, ours := parse[config](t, []byte(configuration[1])).Sentinel, parse[config](t, read(t, "deploy/config.yaml")).Sentinel
	if shown != ours {
		t.Errorf("the page's paths are %v, and deploy/config.yaml's %v", shown, ours)
	}
}

// What the page, the manifests and kured's files say of the path is one thing.
func TestDocumentedPaths(t *testing.T) {
	page := string(read(t, "docs/install.md"))
	kured := parse[values](t, read(t, "deploy/kured/values.yaml")).Configuration
	for _, want := range []string{
		"sentinel.gated: " + published(t), "rebootSentinel: " + kured.RebootSentinel,
		"--reboot-sentinel=/sentinel/sentinel-gate/gated-reboot-required",
		"d /run/sentinel-gate 0755 9817 9817 -",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("docs/install.md does not say %q", want)
		}
	}
}
