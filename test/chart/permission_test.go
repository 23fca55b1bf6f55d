package chart

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sentinel-gate/sentinel-gate/test/kit/cluster"
	"github.com/sentinel-gate/sentinel-gate/test/kit/controlplane"
	"github.com/sentinel-gate/sentinel-gate/test/kit/daemon"
)

const checks = `
- {name: nodes, type: nodesReady}
- {name: cni, type: podsReady, options: {preset: calico}}
- {name: soak, type: readySoak, options: {duration: 24h}}
- {name: deployments, type: resource, options: {apiVersion: apps/v1, resource: deployments, minimum: 0, expression: object.spec.replicas >= 0}}
- {name: drain, type: disruptionBudgets, softUntil: 2100-01-01}
- {name: room, type: headroom, softUntil: 2100-01-01}
`

// steps are the checks as a list on one line.
func steps() string {
	var all []string
	for line := range strings.Lines(strings.TrimSpace(checks)) {
		all = append(all, strings.TrimPrefix(strings.TrimSpace(line), "- "))
	}
	return strings.Join(all, ", ")
}

// gate is a daemon with the token that the installed DaemonSet's pod has, and
// nothing more.
type gate struct {
	*daemon.Daemon
	host *daemon.Host
}

func startGate(ctx context.Context, t *testing.T, binary, kubeconfig string, node *controlplane.Node) gate {
	t.Helper()
	host, err := daemon.NewHost(t.TempDir(), node.BootID(), cluster.BootedAgo)
	if err != nil {
		t.Fatal(err)
	}
	if err := host.RequireReboot("linux-image"); err != nil {
		t.Fatal(err)
	}
	d, err := daemon.Start(ctx, daemon.Options{
		Binary: binary, Host: host, Node: node.Name, Namespace: cluster.Namespace, Kubeconfig: kubeconfig, Checks: checks,
		Settings: "interval: 400ms\nmaxAge: 3s\ntimeout: 1s\nstabilize: 500ms",
	})
	if err != nil {
		t.Fatal(err)
	}
	return gate{d, host}
}

// refused awaits what the API server forbids the gate.
func (g gate) refused(ctx context.Context, want string) error {
	_, err := g.Await(ctx, 0, "a line that says: "+want, func(l daemon.Line) bool { return strings.Contains(l.Text, want) })
	return err
}

func (g gate) end(ctx context.Context, t *testing.T) {
	t.Helper()
	if err := g.Signal(15); err != nil {
		t.Error(err)
	}
	if _, err := g.Wait(ctx); err != nil {
		t.Error(err)
	}
}

// With what the chart grants the gate opens and is refused nothing. With any one
// verb less it says what is missing.
func TestEveryPermissionIsNeeded(t *testing.T) {
	ctx := testContext(t)
	h := installed(t)
	helmRun(t, h, append([]string{"install", release, chart(t), "--namespace", cluster.Namespace, "--create-namespace"}, values(t, "config: {checks: ["+steps()+"]}")...)...)
	nodes, err := cluster.New(ctx, cp(t), 3)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := nodes.Clear(context.Background()); err != nil {
			t.Error(err)
		}
	})
	node := nodes.Nodes[0]
	kubeconfig, err := cp(t).PodKubeconfig(ctx, gatePod(ctx, t, node.Name))
	if err != nil {
		t.Fatal(err)
	}
	binary, err := daemon.Binary(ctx, t.TempDir(), true)
	if err != nil {
		t.Fatal(err)
	}

	g := startGate(ctx, t, binary, kubeconfig, node)
	if _, err := g.Await(ctx, 0, "an open gate", func(l daemon.Line) bool { return l.State == "Open" }); err != nil {
		t.Fatal(err)
	}
	if !g.host.Resolves() {
		t.Error("the gate says open, and the gated sentinel does not resolve")
	}
	// Its watches have begun when it closes by one of them.
	from := g.Lines()
	if _, err := node.SetReady(ctx, "False", "KubeletNotReady", time.Now()); err != nil {
		t.Fatal(err)
	}
	if _, err := g.Await(ctx, from, "a closed gate", func(l daemon.Line) bool { return l.State == "Closed" && l.Previous == "Open" }); err != nil {
		t.Fatal(err)
	}
	g.end(ctx, t)
	if log := g.Log(); strings.Contains(log, "forbidden") {
		t.Errorf("with all that the chart grants:\n%s", log)
	}
	if _, err := node.SetReady(ctx, "True", "KubeletReady", time.Now().Add(-cluster.BootedAgo)); err != nil {
		t.Fatal(err)
	}

	for _, p := range permissions(ctx, t) {
		t.Run(p.String(), func(t *testing.T) {
			give := p.take(ctx, t)
			defer give()
			if p.verb == "create" { // a record that is there is updated
				if err := cp(t).Client().CoordinationV1().Leases(cluster.Namespace).Delete(ctx, node.Name, metav1.DeleteOptions{}); err != nil {
					t.Fatal(err)
				}
			}
			g := startGate(ctx, t, binary, kubeconfig, node)
			defer g.end(ctx, t)
			short, cancel := context.WithTimeout(ctx, 30*time.Second)
			defer cancel()
			if err := g.refused(short, fmt.Sprintf("cannot %s resource \\\"%s\\\"", p.verb, p.resource)); err != nil {
				t.Errorf("nothing misses it: %v", err)
			}
			if p.verb != "watch" && g.host.Resolves() && p.resource != "leases" {
				t.Error("the gate is open without it")
			}
		})
	}
}

// gatePod is the pod that the DaemonSet would have on the node.
func gatePod(ctx context.Context, t *testing.T, node string) *corev1.Pod {
	t.Helper()
	ds, err := cp(t).Client().AppsV1().DaemonSets(cluster.Namespace).Get(ctx, release, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "gate-" + node, Labels: ds.Spec.Template.Labels}, Spec: ds.Spec.Template.Spec}
	pod.Spec.NodeName = node
	if pod, err = cp(t).Client().CoreV1().Pods(cluster.Namespace).Create(ctx, pod, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	return pod
}

// permission is one verb on one resource that a role of the chart grants.
type permission struct {
	clusterWide           bool
	group, resource, verb string
}

func (p permission) String() string { return p.verb + " " + p.resource }

func permissions(ctx context.Context, t *testing.T) []permission {
	t.Helper()
	clusterRole, err := cp(t).Client().RbacV1().ClusterRoles().Get(ctx, release, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	role, err := cp(t).Client().RbacV1().Roles(cluster.Namespace).Get(ctx, release, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var all []permission
	for _, of := range []struct {
		wide  bool
		rules []rbacv1.PolicyRule
	}{{true, clusterRole.Rules}, {false, role.Rules}} {
		for _, rule := range of.rules {
			for _, resource := range rule.Resources {
				for _, verb := range rule.Verbs {
					all = append(all, permission{of.wide, rule.APIGroups[0], resource, verb})
				}
			}
		}
	}
	if len(all) < 10 {
		t.Fatalf("only %v", all)
	}
	return all
}

// take removes the permission from the installed role, waits until the API server
// has noticed, and returns what gives it back.
func (p permission) take(ctx context.Context, t *testing.T) (give func()) {
	t.Helper()
	roles, clusterRoles := cp(t).Client().RbacV1().Roles(cluster.Namespace), cp(t).Client().RbacV1().ClusterRoles()
	// Each rule is split into one verb on one resource.
	without := func(rules []rbacv1.PolicyRule) []rbacv1.PolicyRule {
		var left []rbacv1.PolicyRule
		for _, rule := range rules {
			for _, resource := range rule.Resources {
				for _, verb := range rule.Verbs {
					if (permission{p.clusterWide, rule.APIGroups[0], resource, verb}) != p {
						left = append(left, rbacv1.PolicyRule{APIGroups: rule.APIGroups, Resources: []string{resource}, Verbs: []string{verb}})
					}
				}
			}
		}
		return left
	}
	set := func(change func([]rbacv1.PolicyRule) []rbacv1.PolicyRule) (before []rbacv1.PolicyRule) {
		if p.clusterWide {
			role, err := clusterRoles.Get(ctx, release, metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			before, role.Rules = role.Rules, change(role.Rules)
			_, err = clusterRoles.Update(ctx, role, metav1.UpdateOptions{})
			if err != nil {
				t.Fatal(err)
			}
			return before
		}
		role, err := roles.Get(ctx, release, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		before, role.Rules = role.Rules, change(role.Rules)
		if _, err := roles.Update(ctx, role, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		return before
	}
	before := set(without)
	p.await(ctx, t, "no")
	return func() {
		set(func([]rbacv1.PolicyRule) []rbacv1.PolicyRule { return before })
		p.await(ctx, t, "yes")
	}
}

// await asks the API server's authorizer until it answers so.
func (p permission) await(ctx context.Context, t *testing.T, answer string) {
	t.Helper()
	resource := p.resource
	if p.group != "" {
		resource += "." + p.group
	}
	args := []string{"auth", "can-i", p.verb, resource, "--as=system:serviceaccount:" + cluster.Namespace + ":" + release, "--namespace", cluster.Namespace}
	if p.clusterWide {
		args = append(args, "--all-namespaces")
	}
	if err := controlplane.Poll(ctx, func() error {
		// It exits with 1 for a no.
		out, _ := cp(t).Kubectl(ctx, cp(t).Kubeconfig(), args...).Output()
		if got := strings.TrimSpace(string(out)); got != answer {
			return fmt.Errorf("may it %s: %s", p, got)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}
