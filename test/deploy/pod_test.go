package deploy

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sentinel-gate/sentinel-gate/test/kit/controlplane"
)

// taints are of the kinds that keep pods from nodes.
var taints = []corev1.Taint{
	{Key: "node-role.kubernetes.io/control-plane", Effect: corev1.TaintEffectNoSchedule},
	{Key: "example.org/dedicated", Value: "database", Effect: corev1.TaintEffectNoSchedule},
	{Key: "example.org/broken", Effect: corev1.TaintEffectNoExecute},
	{Key: corev1.TaintNodeUnschedulable, Effect: corev1.TaintEffectNoSchedule},
	{Key: corev1.TaintNodeNetworkUnavailable, Effect: corev1.TaintEffectNoSchedule},
	{Key: "node.cloudprovider.kubernetes.io/uninitialized", Effect: corev1.TaintEffectNoSchedule},
}

// pods returns those that the real DaemonSet controller made, one for each of
// the nodes, as they were admitted and bound.
func pods(t *testing.T) []corev1.Pod {
	t.Helper()
	ctx := testContext(t)
	for i, taint := range taints {
		name := fmt.Sprintf("tainted-%d", i)
		_, err := cluster(t).AddNode(ctx, name, func(n *corev1.Node) { n.Spec.Taints = []corev1.Taint{taint} })
		if err != nil && !apierrors.IsAlreadyExists(err) {
			t.Fatal(err)
		}
	}
	var list *corev1.PodList
	if err := controlplane.Poll(ctx, func() (err error) {
		list, err = cluster(t).Client().CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{})
		if err == nil && len(list.Items) != len(taints) {
			err = fmt.Errorf("%d pods on %d nodes", len(list.Items), len(taints))
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	for i := range list.Items {
		bind(t, &list.Items[i])
	}
	return list.Items
}

// bind does what the scheduler would, to the only node that the controller lets
// the pod run on.
func bind(t *testing.T, pod *corev1.Pod) {
	t.Helper()
	if pod.Spec.NodeName != "" {
		return
	}
	node := pod.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms[0].MatchFields[0].Values[0]
	if err := cluster(t).Client().CoreV1().Pods(pod.Namespace).Bind(testContext(t), &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Name: pod.Name}, Target: corev1.ObjectReference{Kind: "Node", Name: node},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	pod.Spec.NodeName = node
}

// There is a gate on each node that kured may reboot, and it stays.
func TestEveryNodeHasAGate(t *testing.T) {
	for _, pod := range pods(t) {
		if pod.Spec.Priority == nil || *pod.Spec.Priority < 2_000_000_000 {
			t.Errorf("the priority of %s is %v: it could be evicted", pod.Name, pod.Spec.Priority)
		}
	}
	if all := shipped(t).Spec.Template.Spec.Tolerations; !slices.Equal(all, []corev1.Toleration{{Operator: corev1.TolerationOpExists}}) {
		t.Errorf("not every taint is tolerated: %v", all)
	}
}

// What the gate may do on a node, read from a pod that a real API server has
// defaulted and admitted.
func TestPosture(t *testing.T) {
	pod := pods(t)[0]
	spec := pod.Spec
	if !spec.HostPID || spec.HostNetwork || spec.HostIPC {
		t.Errorf("hostPID %t, hostNetwork %t, hostIPC %t: want the first alone", spec.HostPID, spec.HostNetwork, spec.HostIPC)
	}
	if spec.ServiceAccountName != account {
		t.Errorf("it runs as %s", spec.ServiceAccountName)
	}
	if len(spec.Containers) != 1 || len(spec.InitContainers) != 1 || len(spec.EphemeralContainers) != 0 {
		t.Fatalf("%d containers and %d before them: each needs a look", len(spec.Containers), len(spec.InitContainers))
	}
	s := spec.SecurityContext
	if s == nil || !is(s.RunAsNonRoot, true) || !is(s.RunAsUser, 9817) || !is(s.RunAsGroup, 9817) || s.FSGroup != nil || len(s.SupplementalGroups) != 0 {
		t.Errorf("the pod's user: %+v", s)
	}
	if s.SeccompProfile == nil || s.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
		t.Errorf("the pod's seccomp profile: %+v", s.SeccompProfile)
	}
	gate, initial := spec.Containers[0], spec.InitContainers[0]
	if c := confined(t, gate); c.RunAsUser != nil || c.RunAsNonRoot != nil || c.RunAsGroup != nil || len(c.Capabilities.Add) != 0 {
		t.Errorf("the gate's container: %+v", c)
	}
	if c := confined(t, initial); !slices.Equal(c.Capabilities.Add, []corev1.Capability{"CHOWN"}) {
		t.Errorf("the init container's capabilities: %+v", c.Capabilities)
	}
	if len(initial.Env)+len(initial.EnvFrom) != 0 || !slices.Equal(initial.Command, []string{"chown", "9817:9817", "/var/run/sentinel-gate"}) || len(initial.Args) != 0 {
		t.Errorf("root does more than to change an owner: %+v", initial)
	}
	if got := writable(t, spec, gate); !slices.Equal(got, []string{"/var/run/sentinel-gate"}) {
		t.Errorf("the gate can write in %v", got)
	}
	if got := writable(t, spec, initial); !slices.Equal(got, []string{"/var/run/sentinel-gate"}) {
		t.Errorf("the init container can write in %v", got)
	}
	if gate.Resources.Limits.Memory().IsZero() || gate.Resources.Requests.Memory().IsZero() || gate.Resources.Requests.Cpu().IsZero() || !gate.Resources.Limits.Cpu().IsZero() {
		t.Errorf("resources: %+v", gate.Resources)
	}
	if gate.LivenessProbe.HTTPGet.Path != "/healthz" || gate.ReadinessProbe.HTTPGet.Path != "/readyz" || gate.Ports[0].Name != "metrics" || gate.Ports[0].ContainerPort != 9817 {
		t.Errorf("probes and port: %+v %+v %+v", gate.LivenessProbe, gate.ReadinessProbe, gate.Ports)
	}
}

// confined checks what is the same for every container, and returns its
// security context.
func confined(t *testing.T, c corev1.Container) *corev1.SecurityContext {
	t.Helper()
	s := c.SecurityContext
	if s == nil || s.Capabilities == nil {
		t.Fatalf("%s has no security context", c.Name)
	}
	if !is(s.AllowPrivilegeEscalation, false) || !is(s.ReadOnlyRootFilesystem, true) || (s.Privileged != nil && *s.Privileged) ||
		!slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) || s.SeccompProfile != nil || s.ProcMount != nil {
		t.Errorf("%s: %+v", c.Name, s)
	}
	for _, p := range c.Ports {
		if p.HostPort != 0 {
			t.Errorf("%s takes port %d of the host", c.Name, p.HostPort)
		}
	}
	return s
}

func is[T comparable](p *T, want T) bool { return p != nil && *p == want }

// writable returns the paths of the mounts of the container that can be written
// to, and checks that one of a host's directory which cannot be, cannot be
// below it either; and that the runtime can make the mount points.
func writable(t *testing.T, spec corev1.PodSpec, c corev1.Container) []string {
	t.Helper()
	var paths []string
	// What the ServiceAccount admission adds to every container.
	points := []string{"/var/run/secrets/kubernetes.io/serviceaccount"}
	for _, m := range c.VolumeMounts {
		points = append(points, m.MountPath)
	}
	for _, m := range c.VolumeMounts {
		for _, below := range points {
			// There is no mkdir in a read-only mount: the container would not start.
			if strings.HasPrefix(below, m.MountPath+"/") {
				t.Errorf("%s: %s is mounted below %s", c.Name, below, m.MountPath)
			}
		}
		i := slices.IndexFunc(spec.Volumes, func(v corev1.Volume) bool { return v.Name == m.Name })
		v := spec.Volumes[i]
		switch {
		case !m.ReadOnly:
			paths = append(paths, m.MountPath)
		case v.HostPath != nil && (m.RecursiveReadOnly == nil || *m.RecursiveReadOnly == corev1.RecursiveReadOnlyDisabled):
			t.Errorf("%s: what is mounted below %s can be written to", c.Name, v.HostPath.Path)
		case v.HostPath == nil && v.ConfigMap == nil && v.Projected == nil:
			t.Errorf("%s: a volume of another kind: %+v", c.Name, v)
		}
		if v.HostPath != nil && filepath.Clean(v.HostPath.Path) != "/var/run" && filepath.Clean(v.HostPath.Path) != "/var/run/sentinel-gate" {
			t.Errorf("%s mounts the host's %s", c.Name, v.HostPath.Path)
		}
	}
	return paths
}

// The namespace's "privileged" is needed, and is not there for comfort: one
// step down the pod is refused, for what the tether and the sentinels need, and
// for nothing else.
func TestPodSecurityNeedsPrivileged(t *testing.T) {
	ctx := testContext(t)
	const strict = "strict"
	if _, err := cluster(t).Client().CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: strict, Labels: map[string]string{"pod-security.kubernetes.io/enforce": "baseline"},
	}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := cluster(t).Client().CoreV1().ServiceAccounts(strict).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: account}}, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	template := shipped(t).Spec.Template
	// The class is of the nodes' own pods, which a quota may keep out of a namespace.
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "gate", Labels: template.Labels}, Spec: template.Spec}
	_, err := cluster(t).Client().CoreV1().Pods(strict).Create(ctx, pod, metav1.CreateOptions{})
	const want = `pods "gate" is forbidden: violates PodSecurity "baseline:latest": host namespaces (hostPID=true), hostPath volumes (volumes "run", "gated")`
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}
