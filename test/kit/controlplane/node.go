package controlplane

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/uuid"
)

// Node is a node with a fake kubelet: it does what it is told, when it is told, and nothing else.
type Node struct {
	// Name of the Node object.
	Name string

	cp     *ControlPlane
	mu     sync.Mutex
	bootID string
}

// ReadySince is an option of AddNode: the node has been Ready since a time in the past.
func ReadySince(since time.Time) func(*corev1.Node) {
	return func(node *corev1.Node) {
		for i := range node.Status.Conditions {
			node.Status.Conditions[i].LastTransitionTime = metav1.NewTime(since)
		}
	}
}

// AddNode registers a node that is Ready, as of now, has no taints, and has a lease. Options may change the object,
// its status included, before it is created.
func (cp *ControlPlane) AddNode(ctx context.Context, name string, options ...func(*corev1.Node)) (*Node, error) {
	now := metav1.Now()
	condition := func(kind corev1.NodeConditionType, status corev1.ConditionStatus, reason, message string) corev1.NodeCondition {
		return corev1.NodeCondition{
			Type: kind, Status: status, Reason: reason, Message: message,
			LastHeartbeatTime: now, LastTransitionTime: now,
		}
	}
	resources := corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("4"), corev1.ResourceMemory: resource.MustParse("16Gi"),
		corev1.ResourcePods: resource.MustParse("110"), corev1.ResourceEphemeralStorage: resource.MustParse("100Gi"),
	}
	object := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{
			corev1.LabelHostname: name, corev1.LabelOSStable: "linux", corev1.LabelArchStable: "amd64",
		}},
		Status: corev1.NodeStatus{
			Capacity: resources, Allocatable: resources,
			Addresses: []corev1.NodeAddress{{Type: corev1.NodeHostName, Address: name}},
			Conditions: []corev1.NodeCondition{
				condition(corev1.NodeMemoryPressure, corev1.ConditionFalse, "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
				condition(corev1.NodeDiskPressure, corev1.ConditionFalse, "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
				condition(corev1.NodePIDPressure, corev1.ConditionFalse, "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
				condition(corev1.NodeReady, corev1.ConditionTrue, "KubeletReady", "kubelet is posting ready status"),
			},
			NodeInfo: corev1.NodeSystemInfo{
				BootID: string(uuid.NewUUID()), MachineID: string(uuid.NewUUID()), SystemUUID: string(uuid.NewUUID()),
				KernelVersion: "6.12.0", OSImage: "Test Linux", ContainerRuntimeVersion: "containerd://2.1.0",
				KubeletVersion: "v1.36.3", OperatingSystem: "linux", Architecture: "amd64",
			},
		},
	}
	for _, option := range options {
		option(object)
	}
	created, err := cp.client.CoreV1().Nodes().Create(ctx, object, metav1.CreateOptions{})
	if err != nil {
		return nil, fmt.Errorf("creating node %s: %w", name, err)
	}

	seconds, renewed := int32(40), metav1.NowMicro()
	lease := &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Name: name, OwnerReferences: []metav1.OwnerReference{
			{APIVersion: "v1", Kind: "Node", Name: name, UID: created.UID},
		}},
		Spec: coordinationv1.LeaseSpec{HolderIdentity: &name, LeaseDurationSeconds: &seconds, RenewTime: &renewed},
	}
	// No collector need run, so the lease of an earlier node of this name may still be there.
	if err := cp.deleteLease(ctx, name); err != nil {
		return nil, err
	}
	if _, err := cp.client.CoordinationV1().Leases(corev1.NamespaceNodeLease).Create(ctx, lease, metav1.CreateOptions{}); err != nil {
		return nil, fmt.Errorf("creating the lease of node %s: %w", name, err)
	}
	return &Node{Name: name, cp: cp, bootID: created.Status.NodeInfo.BootID}, nil
}

// BootID is the boot ID that the node last reported.
func (n *Node) BootID() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.bootID
}

// SetReady reports the Ready condition, which changed at a given time, and returns the resource version of that.
func (n *Node) SetReady(ctx context.Context, status corev1.ConditionStatus, reason string, at time.Time) (string, error) {
	return n.patchConditions(ctx, []map[string]any{{
		"type": corev1.NodeReady, "status": status, "reason": reason,
		"lastHeartbeatTime": metav1.Now(), "lastTransitionTime": metav1.NewTime(at),
	}})
}

// RemoveReady takes the Ready condition away, as no kubelet does.
func (n *Node) RemoveReady(ctx context.Context) error {
	_, err := n.patchConditions(ctx, []map[string]any{{"$patch": "delete", "type": corev1.NodeReady}})
	return err
}

// Reboot reports a new boot ID, and returns it. Ready stays as it was: a reboot so fast that nobody noticed.
func (n *Node) Reboot(ctx context.Context) (string, error) {
	bootID := string(uuid.NewUUID())
	if _, err := n.patch(ctx, types.StrategicMergePatchType, map[string]any{
		"status": map[string]any{"nodeInfo": map[string]any{"bootID": bootID}},
	}, "status"); err != nil {
		return "", err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.bootID = bootID
	return bootID, nil
}

// Heartbeat renews the lease and the heartbeat time of each condition that the node has.
func (n *Node) Heartbeat(ctx context.Context) error {
	lease := fmt.Appendf(nil, `{"spec":{"renewTime":%q}}`, time.Now().UTC().Format(metav1.RFC3339Micro))
	if _, err := n.cp.client.CoordinationV1().Leases(corev1.NamespaceNodeLease).Patch(ctx, n.Name,
		types.MergePatchType, lease, metav1.PatchOptions{}); err != nil {
		return fmt.Errorf("renewing the lease of node %s: %w", n.Name, err)
	}
	node, err := n.cp.client.CoreV1().Nodes().Get(ctx, n.Name, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("reading node %s: %w", n.Name, err)
	}
	var conditions []map[string]any
	for _, condition := range node.Status.Conditions {
		conditions = append(conditions, map[string]any{"type": condition.Type, "lastHeartbeatTime": metav1.Now()})
	}
	_, err = n.patchConditions(ctx, conditions)
	return err
}

// SetTaints replaces the taints of the node.
func (n *Node) SetTaints(ctx context.Context, taints ...corev1.Taint) error {
	_, err := n.patch(ctx, types.MergePatchType, map[string]any{"spec": map[string]any{"taints": taints}})
	return err
}

// Delete removes the node and its lease.
func (n *Node) Delete(ctx context.Context) error {
	if err := n.cp.client.CoreV1().Nodes().Delete(ctx, n.Name, metav1.DeleteOptions{}); err != nil {
		return fmt.Errorf("deleting node %s: %w", n.Name, err)
	}
	return n.cp.deleteLease(ctx, n.Name)
}

func (cp *ControlPlane) deleteLease(ctx context.Context, node string) error {
	err := cp.client.CoordinationV1().Leases(corev1.NamespaceNodeLease).Delete(ctx, node, metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("deleting the lease of node %s: %w", node, err)
	}
	return nil
}

func (n *Node) patchConditions(ctx context.Context, conditions []map[string]any) (string, error) {
	return n.patch(ctx, types.StrategicMergePatchType,
		map[string]any{"status": map[string]any{"conditions": conditions}}, "status")
}

func (n *Node) patch(ctx context.Context, kind types.PatchType, patch any, subresources ...string) (string, error) {
	data, err := json.Marshal(patch)
	if err != nil {
		return "", fmt.Errorf("patching node %s: %w", n.Name, err)
	}
	node, err := n.cp.client.CoreV1().Nodes().Patch(ctx, n.Name, kind, data, metav1.PatchOptions{}, subresources...)
	if err != nil {
		return "", fmt.Errorf("patching node %s: %w", n.Name, err)
	}
	return node.ResourceVersion, nil
}
