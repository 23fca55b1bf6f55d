package chart

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/sentinel-gate/sentinel-gate/test/kit/controlplane"
	"github.com/sentinel-gate/sentinel-gate/test/kit/helm"
)

// installed runs Helm against the control plane.
func installed(t *testing.T) *helm.Helm {
	t.Helper()
	h, err := helm.New(testContext(t), t.TempDir(), cp(t).Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func helmRun(t *testing.T, h *helm.Helm, args ...string) string {
	t.Helper()
	out, err := h.Run(testContext(t), args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// owned are the objects in the cluster that carry the release's label.
func owned(t *testing.T) []string {
	t.Helper()
	out, err := cp(t).Kubectl(testContext(t), cp(t).Kubeconfig(), "get", "-A", "-o", "name", "-l", "app.kubernetes.io/instance="+release,
		"serviceaccounts,configmaps,daemonsets,roles,rolebindings,clusterroles,clusterrolebindings,networkpolicies,validatingadmissionpolicies,validatingadmissionpolicybindings").Output()
	if err != nil {
		t.Fatal(err)
	}
	names := strings.Fields(string(out))
	slices.Sort(names)
	return names
}

func TestInstallUpgradeUninstall(t *testing.T) {
	const namespace = "gates"
	for mode, want := range map[string][]string{
		"daemonset": {
			"clusterrole.rbac.authorization.k8s.io/sentinel-gate", "clusterrolebinding.rbac.authorization.k8s.io/sentinel-gate", "configmap/sentinel-gate",
			"daemonset.apps/sentinel-gate", "role.rbac.authorization.k8s.io/sentinel-gate", "rolebinding.rbac.authorization.k8s.io/sentinel-gate", "serviceaccount/sentinel-gate",
			"validatingadmissionpolicy.admissionregistration.k8s.io/sentinel-gate", "validatingadmissionpolicybinding.admissionregistration.k8s.io/sentinel-gate",
		},
		"sidecar": {
			"clusterrole.rbac.authorization.k8s.io/sentinel-gate", "clusterrolebinding.rbac.authorization.k8s.io/sentinel-gate", "configmap/sentinel-gate", "configmap/sentinel-gate-kured-values",
			"role.rbac.authorization.k8s.io/sentinel-gate", "rolebinding.rbac.authorization.k8s.io/sentinel-gate",
			"validatingadmissionpolicy.admissionregistration.k8s.io/sentinel-gate", "validatingadmissionpolicybinding.admissionregistration.k8s.io/sentinel-gate",
		},
	} {
		t.Run(mode, func(t *testing.T) {
			ctx, h := testContext(t), installed(t)
			configMap := func() string {
				c, err := cp(t).Client().CoreV1().ConfigMaps(namespace).Get(ctx, release, metav1.GetOptions{})
				if err != nil {
					t.Fatal(err)
				}
				return c.Data["config.yaml"]
			}
			helmRun(t, h, "install", release, chart(t), "--namespace", namespace, "--create-namespace", "--set", "mode="+mode)
			if got := owned(t); !slices.Equal(got, want) {
				t.Errorf("installed\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
			before := configMap()
			helmRun(t, h, "upgrade", release, chart(t), "--namespace", namespace, "--reuse-values", "--set", "config.interval=20s")
			if after := configMap(); after == before || !strings.Contains(after, "interval: 20s") {
				t.Errorf("after the upgrade the configuration is\n%s", after)
			}
			if mode == "daemonset" {
				ds, err := cp(t).Client().AppsV1().DaemonSets(namespace).Get(ctx, release, metav1.GetOptions{})
				if err != nil {
					t.Fatal(err)
				}
				if ds.Generation != 2 {
					t.Errorf("the change of the configuration has not rolled the pods: generation %d", ds.Generation)
				}
			}
			// The records are the gates', and stay: the soak outlives an uninstall.
			leases := cp(t).Client().CoordinationV1().Leases(namespace)
			if _, err := leases.Create(ctx, &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: mode}}, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
			helmRun(t, h, "uninstall", release, "--namespace", namespace, "--wait")
			if left := owned(t); len(left) != 0 {
				t.Errorf("left behind: %v", left)
			}
			if _, err := leases.Get(ctx, mode, metav1.GetOptions{}); err != nil {
				t.Errorf("a record: %v", err)
			}
		})
	}
}

// monitoring are the types of the Prometheus operator, as far as an API server
// needs them.
func monitoring() string {
	var text strings.Builder
	for kind, plural := range map[string]string{"PodMonitor": "podmonitors", "PrometheusRule": "prometheusrules"} {
		fmt.Fprintf(&text, `---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: %[2]s.monitoring.coreos.com}
spec:
  group: monitoring.coreos.com
  scope: Namespaced
  names: {kind: %[1]s, listKind: %[1]sList, plural: %[2]s, singular: %[3]s}
  versions:
    - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}
`, kind, plural, strings.ToLower(kind))
	}
	return text.String()
}

// Every object that the chart can render is one that the API server takes, on the
// oldest minor that the chart allows and on the newest that can be built. A
// field that the server does not know, or a warning, is an error.
func TestEveryObjectOnTheOldestAndTheNewestKubernetes(t *testing.T) {
	newest := cp(t)
	for name, start := range map[string]func(context.Context) (*controlplane.ControlPlane, error){
		"newest": func(context.Context) (*controlplane.ControlPlane, error) { return newest, nil },
		"oldest": func(ctx context.Context) (*controlplane.ControlPlane, error) {
			oldest, err := controlplane.Start(ctx, controlplane.Options{Progress: os.Stderr, Oldest: true})
			if err == nil {
				t.Cleanup(oldest.Stop)
			}
			return oldest, err
		},
	} {
		t.Run(name, func(t *testing.T) {
			server, err := start(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			ctx := testContext(t)
			version, err := server.Client().Discovery().ServerVersion()
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("Kubernetes %s", version.GitVersion)
			if err := server.Apply(ctx, []byte(monitoring())); err != nil {
				t.Fatal(err)
			}
			// A type that was just defined takes a moment to be served.
			if err := controlplane.Poll(ctx, func() error {
				return server.Kubectl(ctx, server.Kubeconfig(), "get", "podmonitors,prometheusrules").Run()
			}); err != nil {
				t.Fatal(err)
			}
			if err := server.Namespace(ctx, "dry"); err != nil {
				t.Fatal(err)
			}
			for what, text := range map[string]string{
				"plain": "", "everything": everything, "sidecar": "{mode: sidecar, podMonitor: {enabled: true}}",
				"network": "{hostNetwork: true, seLinuxOptions: {type: spc_t}}", "policy": "networkPolicy: {enabled: true, from: [{namespaceSelector: {}}], egress: [{ports: [{port: 6443}]}]}",
			} {
				objects := render(t, "dry", text)
				if what == "sidecar" {
					objects = append(objects, asPod(t, podSpec(t, objects))...)
				}
				if err := dryRun(ctx, t, server, objects); err != nil {
					t.Errorf("%s: %v", what, err)
				}
			}
		})
	}
}

func asPod(t *testing.T, spec corev1.PodSpec) rendered {
	t.Helper()
	text, err := yaml.Marshal(&corev1.Pod{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}, ObjectMeta: metav1.ObjectMeta{Name: "kured", Namespace: "dry"}, Spec: spec})
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, string(text))
}

func dryRun(ctx context.Context, t *testing.T, server *controlplane.ControlPlane, objects rendered) error {
	t.Helper()
	var stream strings.Builder
	for _, o := range objects {
		text, err := yaml.Marshal(o.Object)
		if err != nil {
			return err
		}
		fmt.Fprintf(&stream, "---\n%s", text)
	}
	file := filepath.Join(t.TempDir(), "objects.yaml")
	if err := os.WriteFile(file, []byte(stream.String()), 0o644); err != nil {
		return err
	}
	out, err := server.Kubectl(ctx, server.Kubeconfig(), "apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", file).CombinedOutput()
	switch {
	case err != nil:
		return fmt.Errorf("%w: %s", err, out)
	case strings.Contains(string(out), "Warning"):
		return fmt.Errorf("a warning: %s", out)
	}
	return nil
}
