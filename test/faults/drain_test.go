package faults

import (
	"context"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/sentinel-gate/sentinel-gate/checks"
	"github.com/sentinel-gate/sentinel-gate/test/kit/cluster"
	"github.com/sentinel-gate/sentinel-gate/test/kit/daemon"
)

// grant gives the ServiceAccount what a check needs, and no more, for the rest
// of the test.
func grant(s *scene, typeName string) {
	s.t.Helper()
	check, problems := checks.New(typeName, nil, nil)
	if len(problems) > 0 {
		s.t.Fatal(problems)
	}
	meta := metav1.ObjectMeta{Name: "test-" + strings.ToLower(typeName)}
	roles := s.cp.Client().RbacV1()
	_, err := roles.ClusterRoles().Create(s.ctx(), &rbacv1.ClusterRole{ObjectMeta: meta, Rules: checks.RulesOf(check)}, metav1.CreateOptions{})
	s.must(err)
	_, err = roles.ClusterRoleBindings().Create(s.ctx(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: meta, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: meta.Name},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: cluster.User}},
	}, metav1.CreateOptions{})
	s.must(err)
	s.t.Cleanup(func() {
		s.must(roles.ClusterRoleBindings().Delete(context.Background(), meta.Name, metav1.DeleteOptions{}))
		s.must(roles.ClusterRoles().Delete(context.Background(), meta.Name, metav1.DeleteOptions{}))
	})
}

// guest runs a pod on the daemon's node that a drain would evict.
func guest(s *scene, name string) {
	s.t.Helper()
	_, err := s.cp.AddPod(s.ctx(), "default", name, "n1", map[string]string{"app": name}, nil)
	s.must(err)
	s.t.Cleanup(func() { s.must(s.cp.DeletePod(context.Background(), "default", name)) })
}

// F23: a budget that can never be met left the node cordoned for hours.
func TestF23BudgetHoldsClosed(t *testing.T) {
	s := newScene(t)
	grant(s, "disruptionBudgets")
	guest(s, "web")
	s.must(s.host.RequireReboot())
	d := s.start(func(o *daemon.Options) { o.Checks = `[{name: budgets, type: disruptionBudgets}]` })
	s.open(d, 0)

	mark := d.Lines()
	none := intstr.FromInt32(0)
	budgets := s.cp.Client().PolicyV1().PodDisruptionBudgets("default")
	made, err := budgets.Create(s.ctx(), &policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec:       policyv1.PodDisruptionBudgetSpec{MaxUnavailable: &none, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}},
	}, metav1.CreateOptions{})
	s.must(err)
	t.Cleanup(func() { _ = budgets.Delete(context.Background(), "web", metav1.DeleteOptions{}) })
	// Nothing is known of it yet, and nothing is not a permission.
	s.closedBy(d, mark, "budgets", "Fail", "BudgetNotComputed")
	made.Status = policyv1.PodDisruptionBudgetStatus{ObservedGeneration: 1, CurrentHealthy: 1, DesiredHealthy: 1, ExpectedPods: 1}
	_, err = budgets.UpdateStatus(s.ctx(), made, metav1.UpdateOptions{})
	s.must(err)
	step := s.closedBy(d, mark, "budgets", "Fail", "BudgetNeverMet")
	if !strings.Contains(step.Message, "default/web (maxUnavailable 0) wants 1 of 1 pod healthy, and so allows no eviction: no controller (web)") {
		t.Errorf("message: %s", step.Message)
	}

	mark = d.Lines()
	s.must(budgets.Delete(s.ctx(), "web", metav1.DeleteOptions{}))
	s.open(d, mark)
}

// F31: the drained pods did not fit on what was left.
func TestF31NoRoomHoldsClosed(t *testing.T) {
	s := newScene(t)
	guest(s, "db")
	s.must(s.host.RequireReboot())
	d := s.start(func(o *daemon.Options) { o.Checks = `[{name: room, type: headroom}]` })
	s.open(d, 0)
	mark := d.Lines()
	for _, n := range s.Nodes[1:] {
		s.must(n.SetTaints(s.ctx(), corev1.Taint{Key: "dedicated", Effect: corev1.TaintEffectNoSchedule}))
	}
	s.evaluated(d) // the pods of the harness tolerate every taint
	for _, n := range s.Nodes[1:] {
		_, err := s.cp.Client().CoreV1().Nodes().Patch(s.ctx(), n.Name, types.MergePatchType, []byte(`{"status":{"allocatable":{"pods":"1"}}}`), metav1.PatchOptions{}, "status")
		s.must(err)
	}
	step := s.closedBy(d, mark, "room", "Fail", "PodTooLarge")
	if !strings.Contains(step.Message, "default/db (no controller) requests 1 pod, and no node where it may run has more than 0 free; pods short by 1") {
		t.Errorf("message: %s", step.Message)
	}
}
