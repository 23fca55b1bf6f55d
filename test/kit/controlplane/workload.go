package controlplane

import (
	"context"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"
)

// AddDaemonSet creates a DaemonSet that selects the labels. Unless a controller manager runs, it has the pods and the
// status that a test gives it.
func (cp *ControlPlane) AddDaemonSet(ctx context.Context, namespace, name string, labels map[string]string) (*appsv1.DaemonSet, error) {
	set, err := cp.client.AppsV1().DaemonSets(namespace).Create(ctx, &appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels},
		Spec: appsv1.DaemonSetSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: podSpec("")},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return nil, fmt.Errorf("creating daemon set %s/%s: %w", namespace, name, err)
	}
	return set, nil
}

// SetDaemonSetStatus changes the status of a DaemonSet, as its controller does.
func (cp *ControlPlane) SetDaemonSetStatus(ctx context.Context, namespace, name string, change func(*appsv1.DaemonSetStatus)) error {
	sets := cp.client.AppsV1().DaemonSets(namespace)
	if err := retry.RetryOnConflict(retry.DefaultRetry, func() error {
		set, err := sets.Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		change(&set.Status)
		_, err = sets.UpdateStatus(ctx, set, metav1.UpdateOptions{})
		return err
	}); err != nil {
		return fmt.Errorf("setting the status of daemon set %s/%s: %w", namespace, name, err)
	}
	return nil
}

// AddPod creates a pod on a node, or a pending one if nodeName is empty, controlled by owner if that is not nil. On a
// node it runs and is Ready.
func (cp *ControlPlane) AddPod(ctx context.Context, namespace, name, nodeName string, labels map[string]string, owner *appsv1.DaemonSet) (*corev1.Pod, error) {
	object := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}, Spec: podSpec(nodeName)}
	if owner != nil {
		object.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(owner, appsv1.SchemeGroupVersion.WithKind("DaemonSet"))}
	}
	pod, err := cp.client.CoreV1().Pods(namespace).Create(ctx, object, metav1.CreateOptions{})
	if err != nil {
		return nil, fmt.Errorf("creating pod %s/%s: %w", namespace, name, err)
	}
	if nodeName == "" {
		return pod, nil
	}
	return cp.SetPodStatus(ctx, namespace, name, running)
}

// SetPodStatus changes the status of a pod, as its kubelet does.
func (cp *ControlPlane) SetPodStatus(ctx context.Context, namespace, name string, change func(*corev1.PodStatus)) (*corev1.Pod, error) {
	pods := cp.client.CoreV1().Pods(namespace)
	var pod *corev1.Pod
	if err := retry.RetryOnConflict(retry.DefaultRetry, func() (err error) {
		if pod, err = pods.Get(ctx, name, metav1.GetOptions{}); err != nil {
			return err
		}
		change(&pod.Status)
		pod, err = pods.UpdateStatus(ctx, pod, metav1.UpdateOptions{})
		return err
	}); err != nil {
		return nil, fmt.Errorf("setting the status of pod %s/%s: %w", namespace, name, err)
	}
	return pod, nil
}

// DeletePod removes a pod at once. Deleted in any other way, a pod on a node waits for a kubelet that is not there.
func (cp *ControlPlane) DeletePod(ctx context.Context, namespace, name string) error {
	if err := cp.client.CoreV1().Pods(namespace).Delete(ctx, name, *metav1.NewDeleteOptions(0)); err != nil {
		return fmt.Errorf("deleting pod %s/%s: %w", namespace, name, err)
	}
	return nil
}

func podSpec(nodeName string) corev1.PodSpec {
	return corev1.PodSpec{
		NodeName:    nodeName,
		Containers:  []corev1.Container{{Name: "main", Image: "example.com/main:1"}},
		Tolerations: []corev1.Toleration{{Operator: corev1.TolerationOpExists}},
	}
}

func running(status *corev1.PodStatus) {
	now, started := metav1.Now(), true
	status.Phase = corev1.PodRunning
	status.StartTime = &now
	status.Conditions = nil
	for _, kind := range []corev1.PodConditionType{corev1.PodScheduled, corev1.PodInitialized, corev1.ContainersReady, corev1.PodReady} {
		status.Conditions = append(status.Conditions, corev1.PodCondition{Type: kind, Status: corev1.ConditionTrue, LastTransitionTime: now})
	}
	status.ContainerStatuses = []corev1.ContainerStatus{{
		Name: "main", Image: "example.com/main:1", Ready: true, Started: &started,
		State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}},
	}}
}
