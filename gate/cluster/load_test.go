package cluster

import (
	"maps"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// parseAmounts reads resources that are written down as "cpu=1 memory=2Gi".
func parseAmounts(text string) corev1.ResourceList {
	out := corev1.ResourceList{}
	for word := range strings.FieldsSeq(text) {
		name, value, _ := strings.Cut(word, "=")
		out[corev1.ResourceName(name)] = resource.MustParse(value)
	}
	return out
}

// What a pod requests is what the scheduler counts.
func TestRequestsOf(t *testing.T) {
	always := corev1.ContainerRestartPolicyAlways
	container := func(requests string) corev1.Container {
		return corev1.Container{Name: requests, Resources: corev1.ResourceRequirements{Requests: parseAmounts(requests)}}
	}
	sidecar := container("cpu=100m memory=50Mi")
	sidecar.RestartPolicy = &always
	for _, c := range []struct {
		name   string
		change func(*corev1.Pod)
		want   string
	}{
		{"containers", func(p *corev1.Pod) { p.Spec.Containers = append(p.Spec.Containers, container("cpu=1 memory=1Gi")) }, "cpu=2 memory=2Gi"},
		{"a greater init container", func(p *corev1.Pod) { p.Spec.InitContainers = []corev1.Container{container("cpu=3 memory=1Mi")} }, "cpu=3 memory=1Gi"},
		{"a sidecar", func(p *corev1.Pod) { p.Spec.InitContainers = []corev1.Container{sidecar} }, "cpu=1100m memory=1074Mi"},
		{"an init container beside a sidecar", func(p *corev1.Pod) { p.Spec.InitContainers = []corev1.Container{sidecar, container("cpu=2")} }, "cpu=2100m memory=1074Mi"},
		{"overhead", func(p *corev1.Pod) { p.Spec.Overhead = parseAmounts("cpu=250m") }, "cpu=1250m memory=1Gi"},
		{"for the whole pod", func(p *corev1.Pod) {
			p.Spec.Resources = &corev1.ResourceRequirements{Requests: parseAmounts("cpu=8")}
		}, "cpu=8 memory=1Gi"},
		{"while it grows", func(p *corev1.Pod) {
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "main", AllocatedResources: parseAmounts("cpu=3")}}
		}, "cpu=3 memory=1Gi"},
		{"nothing", func(p *corev1.Pod) { p.Spec.Containers[0].Resources.Requests = nil }, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{container("cpu=1 memory=1Gi")}}}
			p.Spec.Containers[0].Name = "main"
			c.change(&p)
			want := AmountsOf(parseAmounts(c.want + " pods=1"))
			if got := RequestsOf(&p); !maps.Equal(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
		})
	}
}

// No amount is so large that it counts as none.
func TestAmounts(t *testing.T) {
	for text, want := range map[string]int64{
		"memory=1Gi": 1 << 30, "memory=1": 1, "memory=1500m": 2, "cpu=1": 1000, "cpu=1u": 1, "cpu=-1": 0, "memory=-5Gi": 0,
		"cpu=9e18": 1<<63 - 1, "memory=9e18": 1<<63 - 1, "memory=1e30": 1<<63 - 1, "memory=9Ei": 1<<63 - 1,
	} {
		for name, got := range AmountsOf(parseAmounts(text)) {
			if got != want {
				t.Errorf("%s: %s is %d, want %d", text, name, got, want)
			}
			sum := Amounts{name: want}
			sum.Add(Amounts{name: got})
			if sum[name] < got {
				t.Errorf("%s: twice that is %d", text, sum[name])
			}
		}
	}
}
