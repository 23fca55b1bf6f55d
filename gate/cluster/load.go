package cluster

import (
	"context"
	"math"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	resourcehelper "k8s.io/component-helpers/resource"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
)

// Amounts are of resources: CPU in thousandths of a core, all others in their
// own unit. The number of pods is one of them.
type Amounts map[corev1.ResourceName]int64

// AmountsOf returns the amounts of the list.
func AmountsOf(l corev1.ResourceList) Amounts {
	out := make(Amounts, len(l)+1)
	for name, q := range l {
		out[name] = amountOf(name, q)
	}
	return out
}

// largest is beyond any real amount. Kubernetes' own conversion makes 0 of what
// does not fit into an int64.
const largest = math.MaxInt64 / 1000

var largestQuantity = resource.NewQuantity(largest, resource.DecimalSI)

func amountOf(name corev1.ResourceName, q resource.Quantity) int64 {
	switch {
	case q.Cmp(*largestQuantity) > 0:
		return math.MaxInt64
	case name == corev1.ResourceCPU:
		return max(q.MilliValue(), 0)
	}
	return max(q.Value(), 0)
}

// plus adds without overflow.
func plus(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

// Add adds the other amounts, without overflow.
func (a Amounts) Add(b Amounts) {
	for name, amount := range b {
		a[name] = plus(a[name], amount)
	}
}

// Tenant is a pod on the gate's own node, with what it needs elsewhere.
type Tenant struct {
	Resident
	Requests    Amounts
	Affinity    nodeaffinity.RequiredNodeAffinity
	Tolerations []corev1.Toleration
}

// NewTenant returns what is kept of the Pod, which requests that much.
func NewTenant(p *corev1.Pod, requests Amounts) Tenant {
	return Tenant{newResident(p), requests, nodeaffinity.GetRequiredNodeAffinity(p), p.Spec.Tolerations}
}

// RequestsOf is what the scheduler counts for the pod: with init containers,
// sidecars and overhead, and the greater of the two while it is resized.
func RequestsOf(p *corev1.Pod) Amounts {
	requests := AmountsOf(resourcehelper.PodRequests(p, resourcehelper.PodResourcesOptions{UseStatusResources: true}))
	requests[corev1.ResourcePods] = 1
	return requests
}

// Load is what the pods of the cluster request.
type Load struct {
	ByNode  map[string]Amounts
	Tenants []Tenant
	Pods    int
}

// Add counts the pods of one page: of all but those on the own node, their sum
// is all that is kept.
func (l *Load) Add(pods []corev1.Pod, own string) {
	for i := range pods {
		p := &pods[i]
		if p.Spec.NodeName == "" || slices.Contains([]corev1.PodPhase{corev1.PodSucceeded, corev1.PodFailed}, p.Status.Phase) {
			continue // it occupies nothing
		}
		l.Pods++
		requests := RequestsOf(p)
		if l.ByNode[p.Spec.NodeName] == nil {
			l.ByNode[p.Spec.NodeName] = Amounts{}
		}
		l.ByNode[p.Spec.NodeName].Add(requests)
		if p.Spec.NodeName == own {
			l.Tenants = append(l.Tenants, NewTenant(p, requests))
		}
	}
}

type loadKey struct{}

// Load lists all pods that occupy a node, once per evaluation, page by page.
func (c *Cluster) Load(ctx context.Context) (Load, error) {
	return Shared(ctx, loadKey{}, func(ctx context.Context) (Load, error) {
		occupying := fields.AndSelectors(
			fields.OneTermNotEqualSelector("spec.nodeName", ""),
			fields.OneTermNotEqualSelector("status.phase", string(corev1.PodSucceeded)),
			fields.OneTermNotEqualSelector("status.phase", string(corev1.PodFailed)),
		)
		sum := Load{ByNode: map[string]Amounts{}}
		_, err := list(ctx, "all pods", metav1.ListOptions{FieldSelector: occupying.String()}, c.podClient(metav1.NamespaceAll).List, func(l *corev1.PodList, _ []struct{}) []struct{} {
			sum.Add(l.Items, c.Node)
			return nil
		})
		return sum, err
	})
}
