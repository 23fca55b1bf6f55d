package cluster

import (
	"testing"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A record that cannot be read is kept as what it is.
func TestNewEntry(t *testing.T) {
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "a", Annotations: map[string]string{
		"sentinel-gate.io/boot-id": "id", "sentinel-gate.io/booted-at": "yesterday",
	}}}
	if e := NewEntry(lease); e.Node != "a" || e.Err == nil || e.BootID != "id" {
		t.Errorf("got %+v", e)
	}
	lease.Annotations["sentinel-gate.io/booted-at"] = "2026-03-14T12:00:00Z"
	if e := NewEntry(lease); e.Err != nil || !e.BootedAt.Equal(now) {
		t.Errorf("got %+v", e)
	}
}
