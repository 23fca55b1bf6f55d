package deploy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	authorizationv1 "k8s.io/api/authorization/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/sentinel-gate/sentinel-gate/gate/turn"
	"github.com/sentinel-gate/sentinel-gate/test/kit/controlplane"
)

// gateClient has the token that a kubelet mounts into the pod, and nothing more.
func gateClient(t *testing.T, pod *corev1.Pod) kubernetes.Interface {
	t.Helper()
	kubeconfig, err := cluster(t).PodKubeconfig(testContext(t), pod)
	if err != nil {
		t.Fatal(err)
	}
	return client(t, kubeconfig)
}

func client(t *testing.T, kubeconfig string) kubernetes.Interface {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// Each attempt is made for real, on objects that there are, with the gate's own
// token.
func TestTokenCannotAct(t *testing.T) {
	pod := pods(t)[0]
	ctx, c := testContext(t), gateClient(t, &pod)
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "tainted-0"}}
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}
	patch := []byte(`{"spec":{"unschedulable":true}}`)
	for what, attempt := range map[string]func() error{
		"patch a node": func() error {
			_, err := c.CoreV1().Nodes().Patch(ctx, node.Name, types.MergePatchType, patch, metav1.PatchOptions{})
			return err
		},
		"patch a node's status": func() error {
			_, err := c.CoreV1().Nodes().Patch(ctx, node.Name, types.MergePatchType, patch, metav1.PatchOptions{}, "status")
			return err
		},
		"update a node": func() error {
			_, err := c.CoreV1().Nodes().Update(ctx, node, metav1.UpdateOptions{})
			return err
		},
		"delete a node": func() error { return c.CoreV1().Nodes().Delete(ctx, node.Name, metav1.DeleteOptions{}) },
		"create a pod": func() error {
			_, err := c.CoreV1().Pods(namespace).Create(ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "new"}}, metav1.CreateOptions{})
			return err
		},
		"evict a pod": func() error {
			return c.CoreV1().Pods(namespace).EvictV1(ctx, &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: pod.Name, Namespace: namespace}})
		},
		"delete a pod": func() error { return c.CoreV1().Pods(namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{}) },
		"delete its own DaemonSet": func() error {
			return c.AppsV1().DaemonSets(namespace).Delete(ctx, "sentinel-gate", metav1.DeleteOptions{})
		},
		"delete a record": func() error {
			return c.CoordinationV1().Leases(namespace).Delete(ctx, lease.Name, metav1.DeleteOptions{})
		},
		"write a Lease of kube-system": func() error {
			_, err := c.CoordinationV1().Leases("kube-system").Create(ctx, lease, metav1.CreateOptions{})
			return err
		},
		"renew a node's heartbeat": func() error {
			_, err := c.CoordinationV1().Leases("kube-node-lease").Update(ctx, lease, metav1.UpdateOptions{})
			return err
		},
		"read a Secret": func() error {
			_, err := c.CoreV1().Secrets(namespace).List(ctx, metav1.ListOptions{})
			return err
		},
		"read a Lease of kube-system": func() error {
			_, err := c.CoordinationV1().Leases("kube-system").List(ctx, metav1.ListOptions{})
			return err
		},
		"get a token": func() error {
			return c.CoreV1().RESTClient().Post().Namespace(namespace).Resource("serviceaccounts").Name(account).SubResource("token").Do(ctx).Error()
		},
	} {
		if err := attempt(); !apierrors.IsForbidden(err) {
			t.Errorf("to %s: want it forbidden, got %v", what, err)
		}
	}
}

func TestTokenCanDoItsWork(t *testing.T) {
	pod := pods(t)[0]
	ctx, c := testContext(t), gateClient(t, &pod)
	for what, attempt := range map[string]func(context.Context) error{
		"list nodes": func(ctx context.Context) error {
			_, err := c.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
			return err
		},
		"list pods everywhere": func(ctx context.Context) error {
			_, err := c.CoreV1().Pods("").List(ctx, metav1.ListOptions{})
			return err
		},
		"list DaemonSets": func(ctx context.Context) error {
			_, err := c.AppsV1().DaemonSets("kube-system").List(ctx, metav1.ListOptions{})
			return err
		},
		"write a record": func(ctx context.Context) error {
			lease, err := c.CoordinationV1().Leases(namespace).Create(ctx, &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: pod.Spec.NodeName}}, metav1.CreateOptions{})
			if err != nil {
				return err
			}
			_, err = c.CoordinationV1().Leases(namespace).Update(ctx, lease, metav1.UpdateOptions{})
			return err
		},
	} {
		if err := attempt(ctx); err != nil {
			t.Errorf("to %s: %v", what, err)
		}
	}
}

// RBAC cannot tell one record from another. The admission policy does.
func TestTokenCannotWriteForAnotherNode(t *testing.T) {
	all := pods(t)
	ctx, own, other := testContext(t), &all[1], all[2].Spec.NodeName
	c := gateClient(t, own)
	create := func(c kubernetes.Interface, name string) error {
		_, err := c.CoordinationV1().Leases(namespace).Create(ctx, &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{
			DryRun: []string{metav1.DryRunAll},
		})
		return err
	}
	// A policy takes a moment to be enforced.
	if err := controlplane.Poll(ctx, func() error {
		if err := create(c, other); err == nil {
			return errors.New("the gate may write the record of another node")
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("the gate on node %s may write the record of that node, not %s", own.Spec.NodeName, other)
	if err := create(c, other); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %s", err, want)
	}
	if err := create(c, own.Spec.NodeName); err != nil {
		t.Errorf("its own: %v", err)
	}
	lease, err := cluster(t).Client().CoordinationV1().Leases(namespace).Create(ctx, &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: other}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.CoordinationV1().Leases(namespace).Update(ctx, lease, metav1.UpdateOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("to update the record of another node: %v", err)
	}
	turnIsShared(ctx, t, c)
	// A token that was requested by hand names no node.
	unbound, err := cluster(t).ServiceAccountKubeconfig(ctx, namespace, account)
	if err != nil {
		t.Fatal(err)
	}
	if err := create(client(t, unbound), own.Spec.NodeName); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "this token names none") {
		t.Errorf("with a token without a node: %v", err)
	}
}

// turnIsShared: every gate writes the turn, but none what people write in it.
func turnIsShared(ctx context.Context, t *testing.T, gate kubernetes.Interface) {
	t.Helper()
	leases := cluster(t).Client().CoordinationV1().Leases(namespace)
	change := func(c kubernetes.Interface, key, value string) error {
		lease, err := leases.Get(ctx, turn.LeaseName, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if lease.Annotations == nil {
			lease.Annotations = map[string]string{}
		}
		lease.Annotations[key] = value
		if value == "" {
			delete(lease.Annotations, key)
		}
		_, err = c.CoordinationV1().Leases(namespace).Update(ctx, lease, metav1.UpdateOptions{})
		return err
	}
	if err := change(gate, "sentinel-gate.io/turn-waiting", "3"); err != nil {
		t.Errorf("to write the turn: %v", err)
	}
	if err := change(cluster(t).Client(), turn.HaltKey, "a person's"); err != nil {
		t.Fatal(err)
	}
	for key, value := range map[string]string{
		turn.HaltKey: "", turn.ReleaseKey: "1", turn.HoldPrefix + "n1": "no", turn.OverridePrefix + "soak": "2100-01-01T00:00:00Z no",
	} {
		if err := change(gate, key, value); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "are for people to write") {
			t.Errorf("to write %s=%q: %v", key, value, err)
		}
	}
	// Annotations come in another order each time.
	several := []string{turn.HoldPrefix + "n7", turn.HoldPrefix + "n8", turn.OverridePrefix + "cni", turn.OverridePrefix + "soak"}
	for _, key := range several {
		if err := change(cluster(t).Client(), key, "2100-01-01T00:00:00Z a person's"); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 20 {
		if err := change(gate, "sentinel-gate.io/turn-waiting", fmt.Sprint(i)); err != nil {
			t.Fatalf("to write the turn beside what several people wrote: %v", err)
		}
	}
	for _, key := range several {
		if err := change(cluster(t).Client(), key, ""); err != nil {
			t.Fatal(err)
		}
	}
	if err := gate.CoordinationV1().Leases(namespace).Delete(ctx, turn.LeaseName, metav1.DeleteOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("to delete the turn: %v", err)
	}
	if err := change(cluster(t).Client(), turn.HaltKey, ""); err != nil {
		t.Fatal(err)
	}
	if err := change(cluster(t).Client(), "sentinel-gate.io/turn-waiting", ""); err != nil {
		t.Fatal(err)
	}
}

// Not only what was thought of above: of all that the authorizer lets the token
// do in any namespace, what writes is this and no more.
func TestAllThatTheTokenMayWrite(t *testing.T) {
	pod := pods(t)[0]
	ctx, c := testContext(t), gateClient(t, &pod)
	list, err := cluster(t).Client().CoreV1().Namespaces().List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, ns := range list.Items {
		review, err := c.AuthorizationV1().SelfSubjectRulesReviews().Create(ctx, &authorizationv1.SelfSubjectRulesReview{
			Spec: authorizationv1.SelfSubjectRulesReviewSpec{Namespace: ns.Name},
		}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if review.Status.Incomplete && review.Status.EvaluationError == "" {
			t.Errorf("%s: the list is not complete", ns.Name)
		}
		var got []string
		for _, rule := range review.Status.ResourceRules {
			for _, verb := range rule.Verbs {
				if !slices.Contains([]string{"get", "list", "watch"}, verb) {
					got = append(got, fmt.Sprintf("%s %s.%s", verb, strings.Join(rule.Resources, ","), strings.Join(rule.APIGroups, ",")))
				}
			}
		}
		slices.Sort(got)
		// What every account may: to ask what it may, and who it is.
		want := []string{
			"create selfsubjectaccessreviews,selfsubjectrulesreviews.authorization.k8s.io",
			"create selfsubjectreviews.authentication.k8s.io",
		}
		if ns.Name == namespace {
			want = append([]string{"create leases.coordination.k8s.io"}, want...)
			want = append(want, "update leases.coordination.k8s.io")
		}
		if !slices.Equal(got, want) {
			t.Errorf("in %s it may\n%s\nand should\n%s", ns.Name, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	if len(list.Items) < 4 {
		t.Errorf("only %d namespaces were looked at", len(list.Items))
	}
}
