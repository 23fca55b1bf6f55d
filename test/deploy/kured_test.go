package deploy

import (
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// config is the part of deploy/config.yaml that says where the sentinels are.
type config struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Sentinel   struct {
		Raw   string `json:"raw"`
		Gated string `json:"gated"`
	} `json:"sentinel"`
	Checks []any `json:"checks"`
}

// values is what the file may set of those of kured's chart: a field that the
// chart does not have is a mistake.
type values struct {
	Configuration struct {
		RebootSentinel            string `json:"rebootSentinel"`
		UseRebootSentinelHostPath *bool  `json:"useRebootSentinelHostPath"`
		RebootSentinelCommand     string `json:"rebootSentinelCommand"`
		Period                    string `json:"period"`
		Concurrency               int    `json:"concurrency"`
		DrainTimeout              string `json:"drainTimeout"`
		ForceReboot               bool   `json:"forceReboot"`
		LockTTL                   int    `json:"lockTtl"`
		LockReleaseDelay          string `json:"lockReleaseDelay"`
	} `json:"configuration"`
}

// published is the path on the host at which the shipped gate makes the gated
// sentinel.
func published(t *testing.T) string {
	t.Helper()
	spec := shipped(t).Spec.Template.Spec
	return hostPath(t, spec, spec.Containers[0], parse[config](t, read(t, "deploy/config.yaml")).Sentinel.Gated)
}

func TestRawSentinelIsTheHosts(t *testing.T) {
	spec := shipped(t).Spec.Template.Spec
	c := parse[config](t, read(t, "deploy/config.yaml"))
	if got := hostPath(t, spec, spec.Containers[0], c.Sentinel.Raw); got != "/var/run/reboot-required" {
		t.Errorf("the gate watches the host's %s", got)
	}
	// The same path everywhere, so that nobody has to translate.
	if published(t) != c.Sentinel.Gated {
		t.Errorf("the gated sentinel is %s in the pod and %s on the host", c.Sentinel.Gated, published(t))
	}
}

// F06: kured looks where the gate writes. The chart mounts the directory of
// rebootSentinel from the host, and passes its last element to kured.
func TestF06ValuesLookWhereTheGateWrites(t *testing.T) {
	c := parse[values](t, read(t, "deploy/kured/values.yaml")).Configuration
	spec := corev1.PodSpec{Volumes: []corev1.Volume{{Name: "sentinel", VolumeSource: corev1.VolumeSource{
		HostPath: &corev1.HostPathVolumeSource{Path: path.Dir(c.RebootSentinel)},
	}}}}
	kured := corev1.Container{Name: "kured", VolumeMounts: []corev1.VolumeMount{{Name: "sentinel", MountPath: "/sentinel", ReadOnly: true}}}
	if got := hostPath(t, spec, kured, "/sentinel/"+path.Base(c.RebootSentinel)); got != published(t) {
		t.Errorf("kured looks at %s, and the gate writes %s", got, published(t))
	}
	if !is(c.UseRebootSentinelHostPath, true) {
		t.Error("without its hostPath kured looks into its own container")
	}
	if c.RebootSentinelCommand != "" || c.ForceReboot || c.Concurrency != 1 || c.LockTTL != 0 {
		t.Errorf("kured would go around the gate, or take more than one node: %+v", c)
	}
	// The plain manifest gets the same settings.
	patched := parse[appsv1.DaemonSet](t, read(t, "deploy/kured/patch.yaml")).Spec.Template.Spec.Containers[0].Command
	for _, want := range []string{"--period=" + c.Period, "--drain-timeout=" + c.DrainTimeout, "--lock-release-delay=" + c.LockReleaseDelay, "--concurrency=1"} {
		if !slices.Contains(patched, want) {
			t.Errorf("patch.yaml has no %s, as values.yaml has", want)
		}
	}
}

// F06, for kured's plain manifest: a DaemonSet of its shape is patched as the
// file says.
func TestF06PatchLooksWhereTheGateWrites(t *testing.T) {
	ctx := testContext(t)
	sets := cluster(t).Client().AppsV1().DaemonSets("kube-system")
	labels, directory, privileged := map[string]string{"name": "kured"}, corev1.HostPathDirectory, true
	if _, err := sets.Create(ctx, &appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Name: "kured"},
		Spec: appsv1.DaemonSetSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec: corev1.PodSpec{
					HostPID: true,
					Containers: []corev1.Container{{
						Name: "kured", Image: "kured", Command: []string{"/usr/bin/kured", "--reboot-sentinel=/sentinel/reboot-required"},
						Env: []corev1.EnvVar{{Name: "KURED_NODE_ID", ValueFrom: &corev1.EnvVarSource{
							FieldRef: &corev1.ObjectFieldSelector{FieldPath: "spec.nodeName"},
						}}},
						SecurityContext: &corev1.SecurityContext{Privileged: &privileged},
						VolumeMounts:    []corev1.VolumeMount{{Name: "sentinel", MountPath: "/sentinel", ReadOnly: true}},
					}},
					Volumes: []corev1.Volume{{Name: "sentinel", VolumeSource: corev1.VolumeSource{
						HostPath: &corev1.HostPathVolumeSource{Path: "/var/run", Type: &directory},
					}}},
				},
			},
		},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	run(t, "-n", "kube-system", "patch", "daemonset", "kured", "--patch-file", filepath.Join(root(t), "deploy/kured/patch.yaml"))
	ds, err := sets.Get(ctx, "kured", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	spec := ds.Spec.Template.Spec
	if len(spec.Containers) != 1 || len(spec.Volumes) != 1 || len(spec.Containers[0].Env) != 1 || !spec.HostPID || !is(spec.Containers[0].SecurityContext.Privileged, true) {
		t.Fatalf("the patch changes more than it says: %+v", spec)
	}
	kured := spec.Containers[0]
	sentinels := 0
	for _, argument := range kured.Command {
		if file, ok := strings.CutPrefix(argument, "--reboot-sentinel="); ok {
			sentinels++
			if got := hostPath(t, spec, kured, file); got != published(t) {
				t.Errorf("kured looks at %s, and the gate writes %s", got, published(t))
			}
		}
		if strings.HasPrefix(argument, "--reboot-sentinel-command") {
			t.Errorf("kured would go around the gate: %s", argument)
		}
	}
	if sentinels != 1 {
		t.Errorf("%d sentinels in %v", sentinels, kured.Command)
	}
}
