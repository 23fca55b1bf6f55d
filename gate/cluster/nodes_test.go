package cluster

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// now is the API server's time in the tables.
var now = time.Date(2026, 3, 14, 12, 0, 0, 0, time.UTC)

func TestNewNode(t *testing.T) {
	at := func(ago time.Duration) metav1.Time { return metav1.NewTime(now.Add(-ago)) }
	object := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "a", Labels: map[string]string{"x": "y"}, CreationTimestamp: at(3 * time.Hour)},
		Spec:       corev1.NodeSpec{Taints: []corev1.Taint{{Key: "t"}}},
		Status: corev1.NodeStatus{
			NodeInfo: corev1.NodeSystemInfo{BootID: "id"},
			Conditions: []corev1.NodeCondition{
				{Type: corev1.NodeMemoryPressure, Status: corev1.ConditionTrue, LastTransitionTime: at(0)},
			},
		},
	}
	if n := NewNode(object); n.IsReady() || n.Ready != "" || !n.Since.IsZero() {
		t.Errorf("F05: a node without a Ready condition became %+v", n)
	}
	object.Status.Conditions = append(object.Status.Conditions, corev1.NodeCondition{
		Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady",
		LastTransitionTime: at(2 * time.Hour), LastHeartbeatTime: at(time.Hour),
	})
	n := NewNode(object)
	if !n.IsReady() || n.Reason != "KubeletReady" || !n.Since.Equal(now.Add(-2*time.Hour)) || !n.Heartbeat.Equal(now.Add(-time.Hour)) ||
		!n.Created.Equal(now.Add(-3*time.Hour)) || n.BootID != "id" || n.Labels["x"] != "y" || len(n.Taints) != 1 {
		t.Errorf("got %+v", n)
	}
}
