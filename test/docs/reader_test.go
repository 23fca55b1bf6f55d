package docs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sentinel-gate/sentinel-gate/gate/turn"
	"github.com/sentinel-gate/sentinel-gate/test/kit/cluster"
	"github.com/sentinel-gate/sentinel-gate/test/kit/controlplane"
	"github.com/sentinel-gate/sentinel-gate/test/kit/daemon"
	"github.com/sentinel-gate/sentinel-gate/test/kit/helm"
	"github.com/sentinel-gate/sentinel-gate/test/kit/prometheus"
	"github.com/sentinel-gate/sentinel-gate/test/kit/suite"
)

// deadline is for one page, on a machine that does other things too.
const deadline = 5 * time.Minute

// programs are the real ones behind the stand-ins.
type programs struct{ kubectl, helm, gate, promtool string }

var shared = &suite.Shared[programs]{Make: func(ctx context.Context, s *suite.Setup) (p programs, err error) {
	dir, err := s.TempDir()
	if err != nil {
		return p, err
	}
	if p.kubectl, err = controlplane.ServerBinary(ctx, os.Stderr); err != nil {
		return p, err
	}
	if p.helm, err = helm.Binary(ctx, os.Stderr); err != nil {
		return p, err
	}
	if p.promtool, err = prometheus.Binary(ctx, os.Stderr, "promtool"); err != nil {
		return p, err
	}
	p.gate, err = daemon.Binary(ctx, dir, true)
	return p, err
}}

func TestMain(m *testing.M) {
	if status, is := standIn(); is {
		os.Exit(status)
	}
	suite.Main(m, shared)
}

func testContext(t *testing.T) context.Context {
	t.Helper()
	return suite.Context(t, deadline)
}

// reader is who runs the commands of a page: with a copy of the repository, and a cluster.
type reader struct {
	programs
	dir  string // the copy
	home string
	bin  string // all that is on PATH
	cp   *controlplane.ControlPlane
	// kubeconfig is the administrator's, or of somebody who may only look.
	kubeconfig string
	// words are what the placeholders of the pages stand for.
	words map[string]string
}

// placeholders stand in the pages for what every reader has a word of their own for.
var placeholders = map[string]string{
	"REGISTRY": "registry.example.com",
	"VERSION":  "0.1.0",
	"NODE":     "n1",
	"PACKAGE":  "linux-image-generic",
	// Found in the cluster.
	"POD": "", "KURED_POD": "", "PROMETHEUS": "",
}

// kured is a DaemonSet of the shape of kured's own.
const kured = `
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: kured, namespace: %[1]s}
spec:
  selector: {matchLabels: {name: kured}}
  template:
    metadata: {labels: {name: kured, app.kubernetes.io/name: kured}}
    spec:
      hostPID: true
      tolerations: [{operator: Exists}]
      nodeSelector: {kubernetes.io/os: linux}
      containers:
        - name: kured
          image: kured
          command: [/usr/bin/kured, --reboot-sentinel=/sentinel/reboot-required]
          volumeMounts: [{name: sentinel, mountPath: /sentinel, readOnly: true}]
      volumes: [{name: sentinel, hostPath: {path: /var/run, type: Directory}}]
`

// operators are the types of others that pages make objects of, as far as an API server needs them.
var operators = map[string]string{
	"podmonitors.monitoring.coreos.com": "PodMonitor", "prometheusrules.monitoring.coreos.com": "PrometheusRule",
}

func newReader(t *testing.T) *reader {
	t.Helper()
	r := &reader{programs: shared.Get(t), dir: t.TempDir(), home: t.TempDir(), bin: t.TempDir(), words: map[string]string{}}
	for name, word := range placeholders {
		r.words[name] = word
	}
	for _, name := range []string{"charts", "checks", "deploy", "docs", "Dockerfile", "Makefile", "README.md"} {
		from, to := filepath.Join(root(t), name), filepath.Join(r.dir, name)
		if info, err := os.Stat(from); err != nil {
			t.Fatal(err)
		} else if info.IsDir() {
			err = os.CopyFS(to, os.DirFS(from))
			if err != nil {
				t.Fatal(err)
			}
			continue
		}
		text, err := os.ReadFile(from)
		if err == nil {
			err = os.WriteFile(to, text, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range tools {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("the pages' commands need %s: %v", name, err)
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range standins {
		if err := os.Symlink(self, filepath.Join(r.bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	// Where a page's log is asked for, it has the lines that another page shows.
	if err := os.WriteFile(filepath.Join(r.home, "log"), []byte(exampleLog(t)), 0o644); err != nil {
		t.Fatal(err)
	}
	return r
}

// startCluster gives the reader a cluster of three nodes with kured, and with the gate where a page expects it there.
func (r *reader) startCluster(t *testing.T, withGate bool) {
	t.Helper()
	ctx := testContext(t)
	cp, err := controlplane.Start(ctx, controlplane.Options{
		Progress: os.Stderr, ControllerManager: true, Scheduler: true,
		// Nobody reports for the nodes.
		ControllerManagerFlags: []string{"--node-monitor-grace-period=24h"},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cp.Stop)
	r.cp, r.kubeconfig = cp, cp.Kubeconfig()
	for plural, kind := range operators {
		if err := cp.Apply(ctx, fmt.Appendf(nil, `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: %[1]s}
spec:
  group: monitoring.coreos.com
  scope: Namespaced
  names: {kind: %[2]s, plural: %[3]s, singular: %[4]s}
  versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}]
`, plural, kind, strings.SplitN(plural, ".", 2)[0], strings.ToLower(kind))); err != nil {
			t.Fatal(err)
		}
	}
	if withGate {
		if err := cp.Namespace(ctx, cluster.Namespace); err != nil {
			t.Fatal(err)
		}
		c, err := cluster.New(ctx, cp, 3)
		if err == nil {
			err = errors.Join(c.Record(ctx, c.Nodes[0], time.Now().Add(-cluster.BootedAgo)),
				// The chart makes it, and takes over none.
				cp.Client().CoordinationV1().Leases(cluster.Namespace).Delete(ctx, turn.LeaseName, metav1.DeleteOptions{}))
		}
		if err != nil {
			t.Fatal(err)
		}
	} else {
		for _, name := range []string{"n1", "n2", "n3"} {
			if _, err := cp.AddNode(ctx, name); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := cp.Apply(ctx, fmt.Appendf(nil, kured, "kube-system")); err != nil {
		t.Fatal(err)
	}
	r.words["KURED_POD"] = r.podOnNode(ctx, t, "kube-system", "name=kured")
	if withGate {
		if out, err := r.run(ctx, block{kind: "sh", text: "helm install sentinel-gate charts/sentinel-gate --namespace sentinel-gate\n"}, ""); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		r.words["POD"] = r.podOnNode(ctx, t, cluster.Namespace, "app.kubernetes.io/name=sentinel-gate")
	}
}

// onlyLooks takes all rights in the cluster but those to read from the reader.
func (r *reader) onlyLooks(t *testing.T) {
	t.Helper()
	ctx := testContext(t)
	if err := r.cp.Apply(ctx, []byte(`
apiVersion: v1
kind: ServiceAccount
metadata: {name: looks, namespace: default}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: looks}
rules: [{apiGroups: ["*"], resources: ["*"], verbs: [get, list, watch]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: looks}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: looks}
subjects: [{kind: ServiceAccount, namespace: default, name: looks}]
`)); err != nil {
		t.Fatal(err)
	}
	kubeconfig, err := r.cp.ServiceAccountKubeconfig(ctx, "default", "looks")
	if err != nil {
		t.Fatal(err)
	}
	r.kubeconfig = kubeconfig
}

// borrowCluster gives the reader the cluster of another.
func (r *reader) borrowCluster(from *reader) {
	r.cp, r.kubeconfig = from.cp, from.kubeconfig
	for _, word := range []string{"POD", "KURED_POD"} {
		r.words[word] = from.words[word]
	}
}

// podOnNode waits for the pod on the first node.
func (r *reader) podOnNode(ctx context.Context, t *testing.T, namespace, selector string) (name string) {
	t.Helper()
	if err := controlplane.Poll(ctx, func() error {
		pods, err := r.pods(ctx, namespace, selector)
		for _, p := range pods {
			if p.Spec.NodeName == r.words["NODE"] {
				name = p.Name
				return nil
			}
		}
		return errors.Join(err, fmt.Errorf("no pod of %s on %s", selector, r.words["NODE"]))
	}); err != nil {
		t.Fatal(err)
	}
	return name
}

// pods are those that nobody has deleted. The others end here, for there is no kubelet that would end them.
func (r *reader) pods(ctx context.Context, namespace, selector string) ([]corev1.Pod, error) {
	list, err := r.cp.Client().CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: selector})
	if err != nil {
		return nil, err
	}
	var alive []corev1.Pod
	for _, p := range list.Items {
		if p.DeletionTimestamp == nil {
			alive = append(alive, p)
		} else if err := r.cp.DeletePod(ctx, namespace, p.Name); err != nil {
			return nil, err
		}
	}
	return alive, nil
}

// fill replaces the placeholders.
func (r *reader) fill(text string) string {
	for name, word := range r.words {
		if word != "" {
			// Not on the left of an equals sign: --build-arg VERSION=VERSION.
			text = regexp.MustCompile(`\b`+name+`\b(=?)`).ReplaceAllStringFunc(text, func(found string) string {
				if strings.HasSuffix(found, "=") {
					return found
				}
				return word
			})
		}
	}
	return text
}

// run runs the commands of a block as a person would who looks at every status.
func (r *reader) run(ctx context.Context, b block, below string) (string, error) {
	real := tools
	if b.needs == "node" {
		real = nil
	}
	for _, name := range append(append([]string{}, tools...), onNodes...) {
		_ = os.Remove(filepath.Join(r.bin, name))
	}
	for _, name := range real {
		path, err := exec.LookPath(name)
		if err != nil {
			return "", err
		}
		if err := os.Symlink(path, filepath.Join(r.bin, name)); err != nil {
			return "", err
		}
	}
	if b.needs == "node" {
		for _, name := range onNodes {
			if err := os.Symlink(filepath.Join(r.bin, "kubectl"), filepath.Join(r.bin, name)); err != nil {
				return "", err
			}
		}
	}
	kubeconfig := os.DevNull
	if r.cp != nil {
		kubeconfig = r.kubeconfig
	}
	cmd := exec.CommandContext(ctx, "/bin/bash", "-euo", "pipefail", "-c", r.fill(b.text))
	cmd.Dir = filepath.Join(r.dir, below)
	cmd.Env = []string{
		"PATH=" + r.bin, "HOME=" + r.home, "KUBECONFIG=" + kubeconfig, "TMPDIR=" + r.home,
		"HELM_CACHE_HOME=" + r.home, "HELM_CONFIG_HOME=" + r.home, "HELM_DATA_HOME=" + r.home,
		needsVariable + "=" + b.needs, kubectlVariable + "=" + r.kubectl, helmVariable + "=" + r.helm,
		gateVariable + "=" + r.gate, promVariable + "=" + r.promtool, "GORACE=" + os.Getenv("GORACE"), logVariable + "=" + filepath.Join(r.home, "log"),
	}
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	return string(out), err
}
