// Package cluster fills a control plane with a healthy cluster: nodes that have
// long been Ready, Calico on each of them, the record that each one's gate would
// have written, and a turn that is free.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sentinel-gate/sentinel-gate/gate/record"
	"github.com/sentinel-gate/sentinel-gate/gate/turn"
	"github.com/sentinel-gate/sentinel-gate/test/kit/controlplane"
)

const (
	// Namespace is the gate's, as deploy/ has it.
	Namespace = "sentinel-gate"
	// CNINamespace is where Calico runs.
	CNINamespace = "kube-system"
	// BootedAgo is how long ago every node booted.
	BootedAgo = 50 * time.Hour

	account = "sentinel-gate"
	// parallel is how many nodes are made at once.
	parallel = 16
)

// User is the gate's ServiceAccount, as the audit log names it.
const User = "system:serviceaccount:" + Namespace + ":" + account

var cniLabels = map[string]string{"k8s-app": "calico-node"}

// Cluster is what was put into a control plane.
type Cluster struct {
	CP    *controlplane.ControlPlane
	Nodes []*controlplane.Node
	CNI   *appsv1.DaemonSet
}

// Authorize makes the namespace and what deploy/rbac.yaml grants, and returns a
// kubeconfig with a token of that ServiceAccount and nothing more.
func Authorize(ctx context.Context, cp *controlplane.ControlPlane) (kubeconfig string, err error) {
	if err := cp.Namespace(ctx, Namespace); err != nil {
		return "", err
	}
	if err := Grant(ctx, cp); err != nil {
		return "", err
	}
	return cp.ServiceAccountKubeconfig(ctx, Namespace, account)
}

// Grant applies deploy/rbac.yaml.
func Grant(ctx context.Context, cp *controlplane.ControlPlane) error {
	return cp.ApplyFile(ctx, "deploy/rbac.yaml")
}

// New makes a cluster of nodes n1, n2 and so on. The first has no record: its
// gate is the one under test.
func New(ctx context.Context, cp *controlplane.ControlPlane, size int) (*Cluster, error) {
	c := &Cluster{CP: cp, Nodes: make([]*controlplane.Node, size)}
	var err error
	if c.CNI, err = cp.AddDaemonSet(ctx, CNINamespace, "calico-node", cniLabels); err != nil {
		return nil, err
	}
	problems := make([]error, size)
	slots := make(chan struct{}, parallel)
	var all sync.WaitGroup
	for i := range size {
		slots <- struct{}{}
		all.Go(func() {
			c.Nodes[i], problems[i] = c.join(ctx, fmt.Sprintf("n%d", i+1), i > 0)
			<-slots
		})
	}
	all.Wait()
	if err := errors.Join(append(problems, c.SetTurn(ctx, turn.State{Phase: turn.PhaseFree, Since: time.Now()}))...); err != nil {
		return nil, err
	}
	return c, cp.SetDaemonSetStatus(ctx, CNINamespace, c.CNI.Name, func(s *appsv1.DaemonSetStatus) {
		s.DesiredNumberScheduled, s.CurrentNumberScheduled, s.NumberReady = int32(size), int32(size), int32(size)
	})
}

func (c *Cluster) join(ctx context.Context, name string, recorded bool) (*controlplane.Node, error) {
	n, err := c.CP.AddNode(ctx, name, controlplane.ReadySince(time.Now().Add(-BootedAgo)), withImages)
	if err != nil {
		return nil, err
	}
	if recorded {
		err = c.Record(ctx, n, time.Now().Add(-BootedAgo))
	}
	return n, errors.Join(err, c.AddCNI(ctx, name))
}

// withImages makes a Node as large as a kubelet does, which reports up to 50
// images (nodeStatusMaxImages): they are most of its bytes.
func withImages(n *corev1.Node) {
	for i := range 50 {
		n.Status.Images = append(n.Status.Images, corev1.ContainerImage{
			Names: []string{
				fmt.Sprintf("registry.example.com/team-%d/service@sha256:%064d", i, i),
				fmt.Sprintf("registry.example.com/team-%d/service:v1.%d.0", i, i),
			},
			SizeBytes: 123_456_789,
		})
	}
}

// AddCNI runs Calico on the node.
func (c *Cluster) AddCNI(ctx context.Context, node string) error {
	_, err := c.CP.AddPod(ctx, CNINamespace, CNIPod(node), node, cniLabels, c.CNI)
	return err
}

// CNIPod is the name of the node's Calico pod.
func CNIPod(node string) string { return "calico-node-" + node }

// Record writes the record that the node's gate would have for its present boot.
func (c *Cluster) Record(ctx context.Context, n *controlplane.Node, bootedAt time.Time) error {
	leases := c.CP.Client().CoordinationV1().Leases(Namespace)
	lease, err := leases.Get(ctx, n.Name, metav1.GetOptions{})
	missing := apierrors.IsNotFound(err)
	if missing {
		lease = &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{
			Name: n.Name, Labels: map[string]string{record.Label: "true"}, Annotations: map[string]string{},
		}}
	} else if err != nil {
		return err
	}
	lease.Annotations["sentinel-gate.io/boot-id"] = n.BootID()
	lease.Annotations["sentinel-gate.io/booted-at"] = bootedAt.UTC().Format(time.RFC3339)
	if missing {
		_, err = leases.Create(ctx, lease, metav1.CreateOptions{})
	} else {
		_, err = leases.Update(ctx, lease, metav1.UpdateOptions{})
	}
	return err
}

// SetTurn makes the turn's Lease anew, as a gate would have left it.
func (c *Cluster) SetTurn(ctx context.Context, s turn.State) error {
	leases := c.CP.Client().CoordinationV1().Leases(Namespace)
	if err := leases.Delete(ctx, turn.LeaseName, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: turn.LeaseName}}
	s.Put(lease)
	_, err := leases.Create(ctx, lease, metav1.CreateOptions{})
	return err
}

// Clear removes the cluster from its control plane.
func (c *Cluster) Clear(ctx context.Context) error {
	client, now := c.CP.Client(), *metav1.NewDeleteOptions(0)
	return errors.Join(
		client.CoreV1().Nodes().DeleteCollection(ctx, now, metav1.ListOptions{}),
		client.CoreV1().Pods(CNINamespace).DeleteCollection(ctx, now, metav1.ListOptions{}),
		client.AppsV1().DaemonSets(CNINamespace).DeleteCollection(ctx, now, metav1.ListOptions{}),
		client.CoordinationV1().Leases(Namespace).DeleteCollection(ctx, now, metav1.ListOptions{}),
	)
}
