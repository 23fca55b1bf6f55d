package checks

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	resourcehelper "k8s.io/component-helpers/resource"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"

	"github.com/sentinel-gate/sentinel-gate/gate"
)

// amounts are of resources: CPU in thousandths of a core, all others in their
// own unit. The number of pods is one of them.
type amounts map[corev1.ResourceName]int64

func amountsOf(l corev1.ResourceList) amounts {
	out := make(amounts, len(l)+1)
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

func (a amounts) add(b amounts) {
	for name, amount := range b {
		a[name] = plus(a[name], amount)
	}
}

// show writes an amount for a person.
func show(name corev1.ResourceName, amount int64) string {
	const mebi, gibi = 1 << 20, 1 << 30
	bytes := name == corev1.ResourceMemory || name == corev1.ResourceEphemeralStorage || strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix)
	switch {
	case name == corev1.ResourceCPU:
		return resource.NewMilliQuantity(amount, resource.DecimalSI).String()
	case bytes && amount >= gibi:
		return fmt.Sprintf("%.1fGi", float64(amount)/gibi)
	case bytes && amount >= mebi:
		return fmt.Sprintf("%.1fMi", float64(amount)/mebi)
	}
	return fmt.Sprint(amount)
}

// tenant is a pod on the gate's own node, with what it needs elsewhere.
type tenant struct {
	resident
	requests    amounts
	affinity    nodeaffinity.RequiredNodeAffinity
	tolerations []corev1.Toleration
}

func newTenant(p *corev1.Pod, requests amounts) tenant {
	return tenant{newResident(p), requests, nodeaffinity.GetRequiredNodeAffinity(p), p.Spec.Tolerations}
}

// requestsOf is what the scheduler counts for the pod: with init containers,
// sidecars and overhead, and the greater of the two while it is resized.
func requestsOf(p *corev1.Pod) amounts {
	requests := amountsOf(resourcehelper.PodRequests(p, resourcehelper.PodResourcesOptions{UseStatusResources: true}))
	requests[corev1.ResourcePods] = 1
	return requests
}

// load is what the pods of the cluster request.
type load struct {
	byNode  map[string]amounts
	tenants []tenant
	pods    int
}

// add counts the pods of one page: of all but those on the own node, their sum
// is all that is kept.
func (l *load) add(pods []corev1.Pod, own string) {
	for i := range pods {
		p := &pods[i]
		if p.Spec.NodeName == "" || slices.Contains([]corev1.PodPhase{corev1.PodSucceeded, corev1.PodFailed}, p.Status.Phase) {
			continue // it occupies nothing
		}
		l.pods++
		requests := requestsOf(p)
		if l.byNode[p.Spec.NodeName] == nil {
			l.byNode[p.Spec.NodeName] = amounts{}
		}
		l.byNode[p.Spec.NodeName].add(requests)
		if p.Spec.NodeName == own {
			l.tenants = append(l.tenants, newTenant(p, requests))
		}
	}
}

type loadKey struct{}

// load lists all pods that occupy a node, once per evaluation, page by page.
func (c *Cluster) load(ctx context.Context) (load, error) {
	return gate.Shared(ctx, loadKey{}, func(ctx context.Context) (load, error) {
		occupying := fields.AndSelectors(
			fields.OneTermNotEqualSelector("spec.nodeName", ""),
			fields.OneTermNotEqualSelector("status.phase", string(corev1.PodSucceeded)),
			fields.OneTermNotEqualSelector("status.phase", string(corev1.PodFailed)),
		)
		sum := load{byNode: map[string]amounts{}}
		_, err := list(ctx, "all pods", metav1.ListOptions{FieldSelector: occupying.String()}, c.core.Pods(metav1.NamespaceAll).List, func(l *corev1.PodList, _ []struct{}) []struct{} {
			sum.add(l.Items, c.Node)
			return nil
		})
		return sum, err
	})
}
