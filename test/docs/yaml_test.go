package docs

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/sentinel-gate/sentinel-gate/test/kit/helm"
	"github.com/sentinel-gate/sentinel-gate/test/kit/prometheus"
	"github.com/sentinel-gate/sentinel-gate/test/kit/suite"
)

// Values that a page shows are ones that the chart takes, and make a configuration that the daemon takes.
func TestValues(t *testing.T) {
	suite.NeedsServers(t)
	ctx := testContext(t)
	h, err := helm.New(ctx, t.TempDir(), os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, p := range pages(t) {
		for _, b := range p.blocks {
			if b.kind == "yaml" && b.needs == "values" {
				found++
				if err := renders(ctx, t, h, []byte(b.text)); err != nil {
					t.Errorf("%s:%d: %v", p.name, b.line, err)
				}
			}
		}
	}
	if found < 4 {
		t.Errorf("only %d were found", found)
	}
}

func renders(ctx context.Context, t *testing.T, h *helm.Helm, values []byte) error {
	t.Helper()
	file, err := os.CreateTemp(t.TempDir(), "values")
	if err != nil {
		return err
	}
	defer file.Close()
	if _, err := file.Write(values); err != nil {
		return err
	}
	out, err := h.Run(ctx, "template", "sentinel-gate", filepath.Join(root(t), "charts/sentinel-gate"), "--namespace", "sentinel-gate", "--values", file.Name())
	if err != nil {
		return err
	}
	for text := range strings.SplitSeq(out, "\n---") {
		var c corev1.ConfigMap
		if yaml.Unmarshal([]byte(text), &c) != nil || c.Kind != "ConfigMap" || c.Data["config.yaml"] == "" {
			continue
		}
		config := filepath.Join(t.TempDir(), "config.yaml")
		if err := os.WriteFile(config, []byte(c.Data["config.yaml"]), 0o644); err != nil {
			return err
		}
		if out, err := exec.CommandContext(ctx, shared.Get(t).gate, "--check-config", "--config", config).CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}
	return fmt.Errorf("the chart renders no configuration")
}

// chartOf is what a manifest of Argo CD or Flux says of the chart and its values, and what else a page may show of them:
// a field that is not here was not looked up in their documentation.
type chartOf struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		// Argo CD's Application.
		Project string `json:"project"`
		Source  struct {
			RepoURL        string `json:"repoURL"`
			TargetRevision string `json:"targetRevision"`
			Path           string `json:"path"`
			Helm           struct {
				ReleaseName  string         `json:"releaseName"`
				ValuesObject map[string]any `json:"valuesObject"`
			} `json:"helm"`
		} `json:"source"`
		Destination struct {
			Server    string `json:"server"`
			Namespace string `json:"namespace"`
		} `json:"destination"`
		SyncPolicy struct {
			Automated                map[string]bool `json:"automated"`
			SyncOptions              []string        `json:"syncOptions"`
			ManagedNamespaceMetadata struct {
				Labels map[string]string `json:"labels"`
			} `json:"managedNamespaceMetadata"`
		} `json:"syncPolicy"`
		// Flux' GitRepository.
		Interval string            `json:"interval"`
		URL      string            `json:"url"`
		Ref      map[string]string `json:"ref"`
		// Flux' HelmRelease.
		ReleaseName     string `json:"releaseName"`
		TargetNamespace string `json:"targetNamespace"`
		Chart           struct {
			Spec struct {
				Chart             string            `json:"chart"`
				ReconcileStrategy string            `json:"reconcileStrategy"`
				SourceRef         map[string]string `json:"sourceRef"`
			} `json:"spec"`
		} `json:"chart"`
		Values map[string]any `json:"values"`
	} `json:"spec"`
}

// Manifests of a page are taken by the API server, without a warning. Those of Argo CD and Flux name the chart, and
// values that it takes.
func TestManifests(t *testing.T) {
	ctx, r := testContext(t), newReader(t)
	r.startCluster(t, false)
	h, err := helm.New(ctx, t.TempDir(), os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]int{}
	for _, p := range pages(t) {
		for _, b := range p.blocks {
			if b.kind != "yaml" || b.needs != "manifest" {
				continue
			}
			for text := range strings.SplitSeq(r.fill(b.text), "---\n") {
				var object metav1.PartialObjectMetadata
				if err := yaml.Unmarshal([]byte(text), &object); err != nil {
					t.Errorf("%s:%d: %v", p.name, b.line, err)
					continue
				}
				group, _, _ := strings.Cut(object.APIVersion, "/")
				found[group]++
				switch group {
				case "argoproj.io", "source.toolkit.fluxcd.io", "helm.toolkit.fluxcd.io":
					err = ofOthers(ctx, t, h, []byte(text))
				default:
					err = r.takes(ctx, text)
				}
				if err != nil {
					t.Errorf("%s:%d: %s %s: %v", p.name, b.line, object.Kind, object.Name, err)
				}
			}
		}
	}
	for _, group := range []string{"argoproj.io", "helm.toolkit.fluxcd.io", "policy"} {
		if found[group] == 0 {
			t.Errorf("no manifest of %s was found", group)
		}
	}
}

func ofOthers(ctx context.Context, t *testing.T, h *helm.Helm, text []byte) error {
	t.Helper()
	var c chartOf
	if err := yaml.UnmarshalStrict(text, &c); err != nil {
		return err
	}
	path, values := c.Spec.Source.Path, c.Spec.Source.Helm.ValuesObject
	switch c.Kind {
	case "GitRepository":
		return nil
	case "HelmRelease":
		path, values = c.Spec.Chart.Spec.Chart, c.Spec.Values
	}
	if filepath.Clean(path) != "charts/sentinel-gate" {
		return fmt.Errorf("the chart is not in %s", path)
	}
	data, err := yaml.Marshal(values)
	if err != nil {
		return err
	}
	return renders(ctx, t, h, data)
}

// takes asks the API server whether it would take the object.
func (r *reader) takes(ctx context.Context, text string) error {
	cmd := r.cp.Kubectl(ctx, r.cp.Kubeconfig(), "apply", "--dry-run=server", "--validate=strict", "-f", "-")
	cmd.Stdin = strings.NewReader(text)
	out, err := cmd.CombinedOutput()
	if err == nil && bytes.Contains(out, []byte("Warning")) {
		err = fmt.Errorf("a warning")
	}
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

func TestJSON(t *testing.T) {
	for _, p := range pages(t) {
		for _, b := range p.blocks {
			if b.kind == "json" && !json.Valid([]byte(b.text)) {
				t.Errorf("%s:%d: not JSON", p.name, b.line)
			}
		}
	}
}

// Every query is one that a Prometheus answers.
func TestQueries(t *testing.T) {
	suite.NeedsServers(t)
	ctx := testContext(t)
	prom, err := prometheus.Start(ctx, prometheus.Options{Progress: os.Stderr})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(prom.Stop)
	for _, p := range pages(t) {
		for _, b := range p.blocks {
			if b.kind != "promql" {
				continue
			}
			if err := ask(ctx, prom.URL(), b.text); err != nil {
				t.Errorf("%s:%d: %v", p.name, b.line, err)
			}
		}
	}
}

func ask(ctx context.Context, base, query string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/api/v1/query?query="+url.QueryEscape(query), nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("status %s to %s", resp.Status, query)
	}
	return nil
}
