package controlplane

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/sentinel-gate/sentinel-gate/test/kit/suite"
)

const reader = `
apiVersion: v1
kind: Namespace
metadata: {name: gate}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: reader, namespace: gate}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reader, namespace: gate}
rules:
- {apiGroups: [""], resources: [pods], verbs: [list]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: reader, namespace: gate}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader}
subjects:
- {kind: ServiceAccount, name: reader, namespace: gate}
`

func TestControlPlane(t *testing.T) {
	suite.NeedsServers(t)
	ctx := t.Context()
	cp, err := Start(ctx, Options{Progress: os.Stderr, Audit: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cp.Stop)

	t.Run("version", func(t *testing.T) {
		version, err := cp.Client().Discovery().ServerVersion()
		if err != nil || !strings.HasPrefix(version.GitVersion, "v1.") {
			t.Errorf("the API server says its version is %v, %v", version, err)
		}
	})
	t.Run("node", func(t *testing.T) { testNode(t, cp) })
	t.Run("workload", func(t *testing.T) { testWorkload(t, cp) })
	t.Run("permissions", func(t *testing.T) { testPermissions(t, cp) })
	t.Run("outage", func(t *testing.T) { testOutage(t, cp) })
}

func testNode(t *testing.T, cp *ControlPlane) {
	ctx := t.Context()
	since := time.Now().Add(-time.Hour).Truncate(time.Second)
	for i := range 5 {
		if _, err := cp.AddNode(ctx, fmt.Sprintf("node-%d", i), ReadySince(since)); err != nil {
			t.Fatal(err)
		}
	}
	nodes, err := cp.Client().CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil || len(nodes.Items) != 5 {
		t.Fatalf("listed %d nodes, %v", len(nodes.Items), err)
	}
	for _, node := range nodes.Items {
		condition := ready(&node)
		if condition == nil || condition.Status != corev1.ConditionTrue || !condition.LastTransitionTime.Time.Equal(since) ||
			len(node.Spec.Taints) != 0 {
			t.Errorf("%s is %v, tainted %v", node.Name, condition, node.Spec.Taints)
		}
	}

	node, err := cp.AddNode(ctx, "changing")
	if err != nil {
		t.Fatal(err)
	}
	read := func() *corev1.Node {
		t.Helper()
		object, err := cp.Client().CoreV1().Nodes().Get(ctx, node.Name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return object
	}
	first := node.BootID()
	bootID, err := node.Reboot(ctx)
	if err != nil || bootID == first || bootID != node.BootID() || read().Status.NodeInfo.BootID != bootID {
		t.Errorf("rebooted from %s to %s, %v", first, bootID, err)
	}
	version, err := node.SetReady(ctx, corev1.ConditionFalse, "KubeletNotReady", since)
	object := read()
	if condition := ready(object); err != nil || object.ResourceVersion != version || condition.Status != corev1.ConditionFalse ||
		!condition.LastTransitionTime.Time.Equal(since) || len(object.Status.Conditions) != 4 {
		t.Errorf("set NotReady at %s: %v, %v", version, object.Status.Conditions, err)
	}
	if err := node.RemoveReady(ctx); err != nil || ready(read()) != nil {
		t.Errorf("removed Ready: %v, %v", ready(read()), err)
	}
	if err := node.Heartbeat(ctx); err != nil || len(read().Status.Conditions) != 3 {
		t.Errorf("heartbeat: %v, %v", read().Status.Conditions, err)
	}
	taint := corev1.Taint{Key: "test", Effect: corev1.TaintEffectNoSchedule}
	if err := node.SetTaints(ctx, taint); err != nil || !slices.Equal(read().Spec.Taints, []corev1.Taint{taint}) {
		t.Errorf("tainted: %v, %v", read().Spec.Taints, err)
	}
	if err := node.SetTaints(ctx); err != nil || len(read().Spec.Taints) != 0 {
		t.Errorf("untainted: %v, %v", read().Spec.Taints, err)
	}
	if err := node.Delete(ctx); err != nil {
		t.Error(err)
	}
	if _, err := cp.AddNode(ctx, "changing"); err != nil {
		t.Errorf("adding a node again: %v", err)
	}
}

func ready(node *corev1.Node) *corev1.NodeCondition {
	i := slices.IndexFunc(node.Status.Conditions, func(c corev1.NodeCondition) bool { return c.Type == corev1.NodeReady })
	if i < 0 {
		return nil
	}
	return &node.Status.Conditions[i]
}

func testWorkload(t *testing.T, cp *ControlPlane) {
	ctx := t.Context()
	labels := map[string]string{"app": "cni"}
	if err := cp.Namespace(ctx, "cni"); err != nil {
		t.Fatal(err)
	}
	set, err := cp.AddDaemonSet(ctx, "cni", "cni", labels)
	if err != nil {
		t.Fatal(err)
	}
	pod, err := cp.AddPod(ctx, "cni", "cni-0", "node-0", labels, set)
	if err != nil {
		t.Fatal(err)
	}
	if pod.Status.Phase != corev1.PodRunning || pod.Spec.NodeName != "node-0" || !metav1.IsControlledBy(pod, set) {
		t.Errorf("the pod is %v", pod)
	}
	if err := cp.SetDaemonSetStatus(ctx, "cni", "cni", func(s *appsv1.DaemonSetStatus) {
		s.DesiredNumberScheduled, s.NumberReady = 1, 1
	}); err != nil {
		t.Error(err)
	}
	if err := cp.DeletePod(ctx, "cni", "cni-0"); err != nil {
		t.Error(err)
	}
	if _, err := cp.Client().CoreV1().Pods("cni").Get(ctx, "cni-0", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("the pod is still there: %v", err)
	}
}

func testPermissions(t *testing.T, cp *ControlPlane) {
	ctx := t.Context()
	for range 2 {
		if err := cp.Apply(ctx, []byte(reader)); err != nil {
			t.Fatal(err)
		}
	}
	kubeconfig, err := cp.ServiceAccountKubeconfig(ctx, "gate", "reader")
	if err != nil {
		t.Fatal(err)
	}
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	client := kubernetes.NewForConfigOrDie(config)
	// The authorizer learns of a new binding by watch.
	if err := Poll(ctx, func() error {
		_, err := client.CoreV1().Pods("gate").List(ctx, metav1.ListOptions{})
		return err
	}); err != nil {
		t.Fatal(err)
	}

	since := time.Now()
	if _, err := client.CoreV1().Pods("gate").List(ctx, metav1.ListOptions{}); err != nil {
		t.Error(err)
	}
	if _, err := client.CoreV1().Pods("cni").List(ctx, metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("listing pods of another namespace: %v", err)
	}
	output, err := cp.Kubectl(ctx, kubeconfig, "get", "pods").CombinedOutput()
	if err != nil || strings.TrimSpace(string(output)) != "No resources found in gate namespace." {
		t.Errorf("kubectl says %q, %v", output, err)
	}

	const user = "system:serviceaccount:gate:reader"
	events, err := cp.Requests(user, since)
	if err != nil {
		t.Fatal(err)
	}
	codes := map[string][]int{}
	for _, event := range events {
		if event.Verb == "list" {
			uri, _, _ := strings.Cut(event.URI, "?")
			codes[uri] = append(codes[uri], event.Code)
		}
		if event.User != user || event.Completed.Before(event.Received) {
			t.Errorf("audited %+v", event)
		}
	}
	if got, want := fmt.Sprint(codes), "map[/api/v1/namespaces/cni/pods:[403] /api/v1/namespaces/gate/pods:[200 200]]"; got != want {
		t.Errorf("audited %s, want %s", got, want)
	}
}

func testOutage(t *testing.T, cp *ControlPlane) {
	ctx := t.Context()
	probe := func(timeout time.Duration) error {
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		return get(ctx, cp.http, cp.URL()+"/readyz")
	}
	if err := cp.PauseAPIServer(); err != nil {
		t.Fatal(err)
	}
	if err := probe(300 * time.Millisecond); err == nil {
		t.Error("a paused API server answers")
	}
	if err := cp.ResumeAPIServer(); err != nil {
		t.Fatal(err)
	}
	if err := Poll(ctx, func() error { return probe(time.Second) }); err != nil {
		t.Errorf("a resumed API server: %v", err)
	}

	url, pid := cp.URL(), cp.APIServerPID()
	cp.StopAPIServer()
	if err := probe(time.Second); err == nil {
		t.Error("a stopped API server answers")
	}
	if err := cp.StartAPIServer(ctx); err != nil {
		t.Fatal(err)
	}
	if cp.URL() != url || cp.APIServerPID() == pid {
		t.Errorf("restarted at %s as %d, was %s as %d", cp.URL(), cp.APIServerPID(), url, pid)
	}
	if _, err := cp.Client().CoreV1().Nodes().Get(ctx, "node-0", metav1.GetOptions{}); err != nil {
		t.Errorf("after a restart: %v", err)
	}
}

func TestControllers(t *testing.T) {
	suite.NeedsServers(t)
	ctx := t.Context()
	cp, err := Start(ctx, Options{Progress: os.Stderr, ControllerManager: true, Scheduler: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cp.Stop)
	if _, err := cp.AddNode(ctx, "node-0"); err != nil {
		t.Fatal(err)
	}
	set, err := cp.AddDaemonSet(ctx, "default", "cni", map[string]string{"app": "cni"})
	if err != nil {
		t.Fatal(err)
	}
	bounded, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := Poll(bounded, func() error {
		pods, err := cp.Client().CoreV1().Pods("default").List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		if len(pods.Items) != 1 || pods.Items[0].Spec.NodeName != "node-0" || !metav1.IsControlledBy(&pods.Items[0], set) {
			return fmt.Errorf("pods: %v", pods.Items)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

func TestStartErrorShowsLog(t *testing.T) {
	suite.NeedsServers(t)
	_, err := Start(t.Context(), Options{Progress: os.Stderr, APIServerFlags: []string{"--no-such-flag"}})
	if err == nil || !strings.Contains(err.Error(), "unknown flag: --no-such-flag") {
		t.Errorf("got %v", err)
	}
}

// TestNothingOutlivesTheTest runs itself as a test that is killed while its command ignores SIGTERM and is paused.
func TestNothingOutlivesTheTest(t *testing.T) {
	suite.NeedsServers(t)
	binary, err := ServerBinary(t.Context(), os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	if dir := os.Getenv("SENTINEL_GATE_TEST_VICTIM"); dir != "" {
		process, err := Supervise(binary, filepath.Join(dir, "log"), "sh", "-c", "trap '' TERM; while :; do sleep 1; done")
		if err != nil {
			t.Fatal(err)
		}
		if err := process.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "pid"), fmt.Append(nil, process.PID()), 0o644); err != nil {
			t.Fatal(err)
		}
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
	dir := t.TempDir()
	victim := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$")
	victim.Env = append(os.Environ(), "SENTINEL_GATE_TEST_VICTIM="+dir)
	output, err := victim.CombinedOutput()
	content, readErr := os.ReadFile(filepath.Join(dir, "pid"))
	if readErr != nil {
		t.Fatalf("the victim did not get as far as to be killed: %v\n%s", err, output)
	}
	var pid int
	if _, err := fmt.Sscan(string(content), &pid); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := Poll(ctx, func() error {
		if err := syscall.Kill(pid, 0); err == nil {
			return fmt.Errorf("process %d lives", pid)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}
