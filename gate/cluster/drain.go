package cluster

import (
	"context"
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Resident is what is kept of a Pod on a node that may be drained.
type Resident struct {
	Namespace, Name, Node string
	Labels                map[string]string
	// Controller is who makes the pod anew; nil: nobody.
	Controller      *metav1.OwnerReference
	Mirror          bool
	Phase           corev1.PodPhase
	Ready, Deleting bool
}

func newResident(p *corev1.Pod) Resident {
	_, mirror := p.Annotations[corev1.MirrorPodAnnotationKey]
	return Resident{
		Namespace: p.Namespace, Name: p.Name, Node: p.Spec.NodeName, Labels: p.Labels,
		Controller: metav1.GetControllerOf(p), Mirror: mirror,
		Phase: p.Status.Phase, Deleting: p.DeletionTimestamp != nil,
		Ready: slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
			return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
		}),
	}
}

// Finished reports whether the pod has ended for good.
func (r Resident) Finished() bool {
	return r.Phase == corev1.PodSucceeded || r.Phase == corev1.PodFailed
}

// Leaves reports whether a drain by kured evicts the pod: as kubectl drain with
// --force, --ignore-daemonsets and --delete-emptydir-data decides.
func (r Resident) Leaves(drained Selector) bool {
	daemon := r.Controller != nil && r.Controller.Kind == "DaemonSet" && r.Controller.APIVersion == appsv1.SchemeGroupVersion.String()
	return !r.Mirror && (!daemon || r.Finished()) && drained.Matches(r.Labels)
}

// Workload names the pod's controller. A Deployment is not it, but its
// ReplicaSet is named after it and the hash that its pods are labelled with.
func (r Resident) Workload() string {
	if r.Controller == nil {
		return "no controller"
	}
	hash := r.Labels[appsv1.DefaultDeploymentUniqueLabelKey]
	if name, ok := strings.CutSuffix(r.Controller.Name, "-"+hash); ok && hash != "" && r.Controller.Kind == "ReplicaSet" {
		return "Deployment " + name
	}
	return r.Controller.Kind + " " + r.Controller.Name
}

type residentsKey struct{}

// Residents lists the pods on the gate's own node, once per evaluation. It asks
// for those alone: a drain is about some dozens of pods among some ten thousand.
func (c *Cluster) Residents(ctx context.Context) ([]Resident, error) {
	return Shared(ctx, residentsKey{}, func(ctx context.Context) ([]Resident, error) {
		// In pages the API server would read the pods of all nodes from etcd for it. In one
		// answer, and as fresh, they come from its memory.
		own := metav1.ListOptions{Limit: unpaged, FieldSelector: fields.OneTermEqualSelector("spec.nodeName", c.Node).String()}
		return c.listResidents(ctx, "pods on node "+c.Node, metav1.NamespaceAll, own)
	})
}

func (c *Cluster) listResidents(ctx context.Context, what, namespace string, options metav1.ListOptions) ([]Resident, error) {
	l, err := list(ctx, what, options, c.podClient(namespace).List, func(l *corev1.PodList, pods []Resident) []Resident {
		return compacted(l.Items, pods, newResident)
	})
	return l.Items, err
}

// Budget is what is kept of a PodDisruptionBudget.
type Budget struct {
	Namespace, Name string
	Selector        labels.Selector
	// Rule is what it says, such as "minAvailable 2".
	Rule string
	// CountsPods: Expected is how many pods there are, not how many there should be.
	CountsPods bool
	// AlwaysAllow: pods that are not Ready may be evicted, whatever the rule says.
	AlwaysAllow bool

	// Observed: its controller has seen its last change.
	Observed bool
	// Failure is why its controller could not compute what follows.
	Failure string
	// Disrupted is how many pods were evicted and are not yet seen to be deleted.
	Disrupted int

	Allowed, Healthy, Desired, Expected int32
}

func newBudget(b *policyv1.PodDisruptionBudget) Budget {
	out := Budget{
		Namespace: b.Namespace, Name: b.Name, Selector: labels.Nothing(), Rule: "no rule",
		Observed:  b.Status.ObservedGeneration >= b.Generation,
		Disrupted: len(b.Status.DisruptedPods),
		Allowed:   b.Status.DisruptionsAllowed, Healthy: b.Status.CurrentHealthy,
		Desired: b.Status.DesiredHealthy, Expected: b.Status.ExpectedPods,
	}
	// One that cannot be read matches nothing in the API server too.
	if selector, err := metav1.LabelSelectorAsSelector(b.Spec.Selector); err == nil {
		out.Selector = selector
	}
	if most := b.Spec.MaxUnavailable; most != nil {
		out.Rule = "maxUnavailable " + most.String()
	} else if least := b.Spec.MinAvailable; least != nil {
		out.Rule = "minAvailable " + least.String()
		out.CountsPods = least.Type == intstr.Int
	}
	if policy := b.Spec.UnhealthyPodEvictionPolicy; policy != nil {
		out.AlwaysAllow = *policy == policyv1.AlwaysAllow
	}
	if c := meta.FindStatusCondition(b.Status.Conditions, policyv1.DisruptionAllowedCondition); c != nil &&
		c.Status == metav1.ConditionFalse && c.Reason == policyv1.SyncFailedReason {
		out.Failure = c.Message
	}
	return out
}

// String names the budget, and tells its rule.
func (b Budget) String() string { return fmt.Sprintf("%s/%s (%s)", b.Namespace, b.Name, b.Rule) }

// Covers reports whether the budget is about the pod.
func (b Budget) Covers(p Resident) bool {
	return b.Namespace == p.Namespace && b.Selector.Matches(labels.Set(p.Labels))
}

type budgetsKey struct{}

// Budgets lists all PodDisruptionBudgets, once per evaluation.
func (c *Cluster) Budgets(ctx context.Context) ([]Budget, error) {
	return Shared(ctx, budgetsKey{}, func(ctx context.Context) ([]Budget, error) {
		l, err := list(ctx, "poddisruptionbudgets", metav1.ListOptions{}, c.budgetClient().List, func(l *policyv1.PodDisruptionBudgetList, budgets []Budget) []Budget {
			return compacted(l.Items, budgets, newBudget)
		})
		return l.Items, err
	})
}

// CoveredBy lists the pods that the budget covers, wherever they run.
func (c *Cluster) CoveredBy(ctx context.Context, b Budget) ([]Resident, error) {
	what := fmt.Sprintf("pods of the budget %s/%s", b.Namespace, b.Name)
	return c.listResidents(ctx, what, b.Namespace, metav1.ListOptions{LabelSelector: b.Selector.String()})
}
