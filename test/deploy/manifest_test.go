package deploy

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sentinel-gate/sentinel-gate/test/kit/daemon"
)

// Applied once more, nothing changes: the server's view is what is shipped.
func TestApplyingAgainChangesNothing(t *testing.T) {
	for line := range strings.Lines(run(t, "apply", "-k", filepath.Join(root(t), "deploy"))) {
		if !strings.HasSuffix(strings.TrimSpace(line), " unchanged") {
			t.Error(line)
		}
	}
}

// Every object comes from the files that say why it is so, and no other.
func TestShippedObjects(t *testing.T) {
	var got []string
	for name := range strings.SplitSeq(strings.TrimSpace(run(t, "get", "-k", filepath.Join(root(t), "deploy"), "-o", "name")), "\n") {
		got = append(got, regexp.MustCompile(`-[0-9a-z]{10}$`).ReplaceAllString(name, "-HASH"))
	}
	want := []string{
		"namespace/sentinel-gate", "serviceaccount/sentinel-gate",
		"role.rbac.authorization.k8s.io/sentinel-gate", "clusterrole.rbac.authorization.k8s.io/sentinel-gate",
		"rolebinding.rbac.authorization.k8s.io/sentinel-gate", "clusterrolebinding.rbac.authorization.k8s.io/sentinel-gate",
		"configmap/sentinel-gate-HASH",
		"validatingadmissionpolicy.admissionregistration.k8s.io/sentinel-gate",
		"validatingadmissionpolicybinding.admissionregistration.k8s.io/sentinel-gate",
		"daemonset.apps/sentinel-gate", "lease.coordination.k8s.io/sentinel-gate-turn",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("there are\n%s\nand should be\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// A change of the configuration rolls the pods, and nothing else does.
func TestConfigurationRollsThePods(t *testing.T) {
	configMap := func(ds *appsv1.DaemonSet) string {
		for _, v := range ds.Spec.Template.Spec.Volumes {
			if v.ConfigMap != nil {
				return v.ConfigMap.Name
			}
		}
		t.Fatal("no ConfigMap is mounted")
		return ""
	}
	dir := copyOf(t, filepath.Join(root(t), "deploy"), t.TempDir())
	render := func() string {
		return configMap(parse[appsv1.DaemonSet](t, document(t, run(t, "kustomize", dir), "DaemonSet")))
	}
	before := configMap(shipped(t))
	if same := render(); same != before {
		t.Errorf("the same configuration is %s and %s", before, same)
	}
	config := filepath.Join(dir, "config.yaml")
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(config, append(text, "# changed\n"...), 0o644); err != nil {
		t.Fatal(err)
	}
	if after := render(); after == before {
		t.Errorf("another configuration has the same name, %s", after)
	}
	ctx := testContext(t)
	if _, err := cluster(t).Client().CoreV1().ConfigMaps(namespace).Get(ctx, before, metav1.GetOptions{}); err != nil {
		t.Errorf("the pods would wait for their configuration: %v", err)
	}
}

// What the pods mount is what the daemon takes.
func TestShippedConfigurationIsValid(t *testing.T) {
	data := parse[corev1.ConfigMap](t, document(t, run(t, "kustomize", filepath.Join(root(t), "deploy")), "ConfigMap")).Data
	if data["config.yaml"] != string(read(t, "deploy/config.yaml")) {
		t.Error("the ConfigMap is not deploy/config.yaml")
	}
	gate, err := daemon.Binary(testContext(t), t.TempDir(), true)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(testContext(t), gate, "--check-config", "--config", filepath.Join(root(t), "deploy/config.yaml"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	container := shipped(t).Spec.Template.Spec.Containers[0]
	for _, m := range container.VolumeMounts {
		if m.Name == "config" && m.MountPath != "/etc/sentinel-gate" {
			t.Errorf("the daemon looks for its configuration in /etc/sentinel-gate, and it is in %s", m.MountPath)
		}
	}
}

// copyOf copies a directory into another, and returns where.
func copyOf(t *testing.T, dir, into string) string {
	t.Helper()
	to := filepath.Join(into, filepath.Base(dir))
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return to
}
