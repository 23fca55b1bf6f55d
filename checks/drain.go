package checks

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

	"github.com/sentinel-gate/sentinel-gate/gate"
)

// resident is what the checks need of a Pod on a node that may be drained.
type resident struct {
	namespace, name, node string
	labels                map[string]string
	controller            *metav1.OwnerReference // nil: nobody makes the pod anew
	mirror                bool
	phase                 corev1.PodPhase
	ready, deleting       bool
}

func newResident(p *corev1.Pod) resident {
	_, mirror := p.Annotations[corev1.MirrorPodAnnotationKey]
	return resident{
		namespace: p.Namespace, name: p.Name, node: p.Spec.NodeName, labels: p.Labels,
		controller: metav1.GetControllerOf(p), mirror: mirror,
		phase: p.Status.Phase, deleting: p.DeletionTimestamp != nil,
		ready: slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
			return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
		}),
	}
}

func (r resident) finished() bool {
	return r.phase == corev1.PodSucceeded || r.phase == corev1.PodFailed
}

// leaves reports whether a drain by kured evicts the pod: as kubectl drain with
// --force, --ignore-daemonsets and --delete-emptydir-data decides.
func (r resident) leaves(drained Selector) bool {
	daemon := r.controller != nil && r.controller.Kind == "DaemonSet" && r.controller.APIVersion == appsv1.SchemeGroupVersion.String()
	return !r.mirror && (!daemon || r.finished()) && drained.Matches(labels.Set(r.labels))
}

// workload names the pod's controller. A Deployment is not it, but its
// ReplicaSet is named after it and the hash that its pods are labelled with.
func (r resident) workload() string {
	if r.controller == nil {
		return "no controller"
	}
	hash := r.labels[appsv1.DefaultDeploymentUniqueLabelKey]
	if name, ok := strings.CutSuffix(r.controller.Name, "-"+hash); ok && hash != "" && r.controller.Kind == "ReplicaSet" {
		return "Deployment " + name
	}
	return r.controller.Kind + " " + r.controller.Name
}

type residentsKey struct{}

// residents lists the pods on the gate's own node, once per evaluation. It asks
// for those alone: a drain is about some dozens of pods among some ten thousand.
func (c *Cluster) residents(ctx context.Context) ([]resident, error) {
	return gate.Shared(ctx, residentsKey{}, func(ctx context.Context) ([]resident, error) {
		own := metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("spec.nodeName", c.Node).String()}
		return c.listResidents(ctx, "pods on node "+c.Node, metav1.NamespaceAll, own)
	})
}

func (c *Cluster) listResidents(ctx context.Context, what, namespace string, options metav1.ListOptions) ([]resident, error) {
	l, err := list(ctx, what, options, c.core.Pods(namespace).List, func(l *corev1.PodList, pods []resident) []resident {
		for i := range l.Items {
			pods = append(pods, newResident(&l.Items[i]))
		}
		return pods
	})
	return l.items, err
}

// budget is what the checks need of a PodDisruptionBudget.
type budget struct {
	namespace, name string
	selector        labels.Selector
	rule            string // "minAvailable 2"
	countsPods      bool   // its expected is how many pods there are, not how many there should be
	alwaysAllow     bool   // evict pods that are not Ready, whatever it says

	observed  bool // its controller has seen its last change
	failure   string
	disrupted int // pods that were evicted and are not yet seen to be deleted

	allowed, healthy, desired, expected int32
}

func newBudget(b *policyv1.PodDisruptionBudget) budget {
	out := budget{
		namespace: b.Namespace, name: b.Name, selector: labels.Nothing(), rule: "no rule",
		observed:  b.Status.ObservedGeneration >= b.Generation,
		disrupted: len(b.Status.DisruptedPods),
		allowed:   b.Status.DisruptionsAllowed, healthy: b.Status.CurrentHealthy,
		desired: b.Status.DesiredHealthy, expected: b.Status.ExpectedPods,
	}
	// One that cannot be read matches nothing in the API server too.
	if selector, err := metav1.LabelSelectorAsSelector(b.Spec.Selector); err == nil {
		out.selector = selector
	}
	if most := b.Spec.MaxUnavailable; most != nil {
		out.rule = "maxUnavailable " + most.String()
	} else if least := b.Spec.MinAvailable; least != nil {
		out.rule = "minAvailable " + least.String()
		out.countsPods = least.Type == intstr.Int
	}
	if policy := b.Spec.UnhealthyPodEvictionPolicy; policy != nil {
		out.alwaysAllow = *policy == policyv1.AlwaysAllow
	}
	if c := meta.FindStatusCondition(b.Status.Conditions, policyv1.DisruptionAllowedCondition); c != nil &&
		c.Status == metav1.ConditionFalse && c.Reason == policyv1.SyncFailedReason {
		out.failure = c.Message
	}
	return out
}

func (b budget) String() string { return fmt.Sprintf("%s/%s (%s)", b.namespace, b.name, b.rule) }

func (b budget) covers(p resident) bool {
	return b.namespace == p.namespace && b.selector.Matches(labels.Set(p.labels))
}

type budgetsKey struct{}

// budgets lists all PodDisruptionBudgets, once per evaluation.
func (c *Cluster) budgets(ctx context.Context) ([]budget, error) {
	return gate.Shared(ctx, budgetsKey{}, func(ctx context.Context) ([]budget, error) {
		l, err := list(ctx, "poddisruptionbudgets", metav1.ListOptions{}, c.policy.PodDisruptionBudgets(metav1.NamespaceAll).List, func(l *policyv1.PodDisruptionBudgetList, budgets []budget) []budget {
			for i := range l.Items {
				budgets = append(budgets, newBudget(&l.Items[i]))
			}
			return budgets
		})
		return l.items, err
	})
}

// coveredBy lists the pods that the budget covers, wherever they run.
func (c *Cluster) coveredBy(ctx context.Context, b budget) ([]resident, error) {
	what := fmt.Sprintf("pods of the budget %s/%s", b.namespace, b.name)
	return c.listResidents(ctx, what, b.namespace, metav1.ListOptions{LabelSelector: b.selector.String()})
}
