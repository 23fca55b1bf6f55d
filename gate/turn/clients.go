package turn

import (
	"context"

	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
)

// Leases are those of one namespace, as the API server has them.
type Leases interface {
	LeaseLister
	Get(ctx context.Context, name string, options metav1.GetOptions) (*coordinationv1.Lease, error)
	Watch(ctx context.Context, options metav1.ListOptions) (watch.Interface, error)
	Update(ctx context.Context, lease *coordinationv1.Lease, options metav1.UpdateOptions) (*coordinationv1.Lease, error)
}

// LeaseLister lists Leases, a page at a time.
type LeaseLister interface {
	List(ctx context.Context, options metav1.ListOptions) (*coordinationv1.LeaseList, error)
}

// NodeLister lists nodes, whole or their names and labels.
type NodeLister interface {
	List(ctx context.Context, options metav1.ListOptions) (*corev1.NodeList, error)
	ListMetadata(ctx context.Context, options metav1.ListOptions) (*metav1.PartialObjectMetadataList, error)
}

// DaemonSetLister lists the DaemonSets of one namespace.
type DaemonSetLister interface {
	List(ctx context.Context, options metav1.ListOptions) (*appsv1.DaemonSetList, error)
}
