package cluster

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Pod is what is kept of a Pod.
type Pod struct {
	Namespace, Name string
	Node            string
	// Owner is the name of its DaemonSet, if it has one.
	Owner string
	// Trouble is why it is not Running and Ready; empty: it is.
	Trouble string
	// Looping: the trouble is a container in CrashLoopBackOff.
	Looping bool
	// Crashed is when a container last crashed that has crashed more than once
	// and runs now.
	Crashed time.Time
}

// Pods lists the selected pods of a namespace.
func (c *Cluster) Pods(ctx context.Context, namespace, selector string) (Listing[Pod], error) {
	return list(ctx, podsIn(namespace, selector), metav1.ListOptions{LabelSelector: selector}, c.podClient(namespace).List, func(l *corev1.PodList, pods []Pod) []Pod {
		return compacted(l.Items, pods, NewPod)
	})
}

// FollowPods is FollowNodes of the selected pods of a namespace.
func (c *Cluster) FollowPods(ctx context.Context, mu sync.Locker, namespace, selector string, pods Listing[Pod], changed func(Listing[Pod])) error {
	return follow(ctx, mu, podsIn(namespace, selector), pods, func(p Pod) string { return p.Name }, c.podClient(namespace).Watch,
		metav1.ListOptions{LabelSelector: selector}, NewPod, changed)
}

func podsIn(namespace, selector string) string {
	return fmt.Sprintf("pods %q in namespace %s", selector, namespace)
}

// NewPod returns what is kept of the Pod.
func NewPod(p *corev1.Pod) Pod {
	out := Pod{Namespace: p.Namespace, Name: p.Name, Node: p.Spec.NodeName}
	out.Trouble, out.Looping = podTrouble(p)
	for _, c := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
		if c.State.Running == nil {
			continue // an init container that succeeded in the end; a sidecar is one that runs
		}
		if t := c.LastTerminationState.Terminated; t != nil && c.RestartCount > 1 && t.FinishedAt.After(out.Crashed) {
			out.Crashed = t.FinishedAt.Time
		}
	}
	if owner := metav1.GetControllerOf(p); owner != nil && owner.Kind == "DaemonSet" {
		out.Owner = owner.Name
	}
	return out
}

// podTrouble says why a pod is not fine, if it is not, and whether that is
// because a container is in CrashLoopBackOff. The phase alone says
// little: that of a pod in CrashLoopBackOff is Running.
func podTrouble(p *corev1.Pod) (trouble string, looping bool) {
	if p.DeletionTimestamp != nil {
		return "terminating", false
	}
	for _, c := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
		if w := c.State.Waiting; w != nil && w.Reason == "CrashLoopBackOff" {
			return crashLooping(c), true
		}
	}
	if p.Status.Phase != corev1.PodRunning {
		return "phase " + string(p.Status.Phase), false
	}
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
			return "", false
		}
		if c.Type == corev1.PodReady {
			return readyText(c.Status, c.Reason), false
		}
	}
	return noReadyCondition, false
}

func crashLooping(c corev1.ContainerStatus) string {
	restarts := "restarts"
	if c.RestartCount == 1 {
		restarts = "restart"
	}
	return fmt.Sprintf("container %s in CrashLoopBackOff, %d %s", c.Name, c.RestartCount, restarts)
}

// DaemonSets lists those of a namespace, or of all where it is empty.
func (c *Cluster) DaemonSets(ctx context.Context, namespace string) (Listing[appsv1.DaemonSet], error) {
	what := "daemonsets"
	if namespace != "" {
		what += " in namespace " + namespace
	}
	return list(ctx, what, metav1.ListOptions{}, c.DaemonSetClient(namespace).List, func(l *appsv1.DaemonSetList, sets []appsv1.DaemonSet) []appsv1.DaemonSet {
		return append(sets, l.Items...)
	})
}
