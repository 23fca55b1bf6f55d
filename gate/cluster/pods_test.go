package cluster

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Only the controller counts as the owner, and only a DaemonSet.
func TestNewPodOwner(t *testing.T) {
	yes, no := true, false
	for want, owners := range map[string][]metav1.OwnerReference{
		"":  {{Kind: "ReplicaSet", Name: "x", Controller: &yes}, {Kind: "DaemonSet", Name: "x", Controller: &no}, {Kind: "DaemonSet", Name: "x"}},
		"x": {{Kind: "Node", Name: "n", Controller: &no}, {Kind: "DaemonSet", Name: "x", Controller: &yes}},
	} {
		p := NewPod(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p", OwnerReferences: owners}, Spec: corev1.PodSpec{NodeName: "n"}})
		if p.Owner != want || p.Namespace != "ns" || p.Name != "p" || p.Node != "n" {
			t.Errorf("got %+v, want the owner %q", p, want)
		}
	}
}
