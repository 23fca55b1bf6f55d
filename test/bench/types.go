package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"

	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/yaml"

	"github.com/sentinel-gate/sentinel-gate/checks"
	"github.com/sentinel-gate/sentinel-gate/test/kit/controlplane"
	"github.com/sentinel-gate/sentinel-gate/test/kit/daemon"
	"github.com/sentinel-gate/sentinel-gate/test/kit/pages"
)

// here are the options of the steps that pass in this world, and are held to it.
// All others are soft: what they ask for may be lacking here.
var here = map[string]string{
	"nodesReady": `{}`,
	"podsReady":  `{preset: auto}`,
	"readySoak":  `{}`,
	"alerts":     `{prometheus: {url: %[1]q}, requireFiringAgo: 2s}`,
	"promql":     `{prometheus: {url: %[1]q}, query: 'ALERTS{alertname="Nothing"}', requireSeries: ALERTS}`,
	"http":       `{url: "%[1]s/-/ready"}`,
	"resource":   `{apiVersion: apps/v1, resource: daemonsets, expression: object.status.desiredNumberScheduled >= 0}`,
	"schedule":   `{deny: [{years: ["2001"]}]}`,
	"cordons":    `{}`,
}

// allTypes has a step of each type.
func allTypes(prometheus string) (string, error) {
	var steps []string
	for _, typeName := range checks.Types() {
		options, known := here[typeName]
		switch _, problems := checks.New(typeName, nil, nil); {
		case known && strings.Contains(options, "%"):
			options = fmt.Sprintf(options, prometheus)
		case known:
		case len(problems) > 0: // it cannot do without options
			example, err := pages.Example(typeName)
			if err != nil {
				return "", err
			}
			options = string(example)
		default:
			options = `{}`
		}
		soft := ""
		if !known {
			soft = ", softUntil: 2100-01-01"
		}
		steps = append(steps, fmt.Sprintf("- {name: %s, type: %s, options: %s%s}", strings.ToLower(typeName), typeName, options, soft))
	}
	return strings.Join(steps, "\n"), nil
}

// workloads is how many ReplicaSets' worth of pods, each with a budget, there is
// for every hundred pods.
const workloads = 10

// allOnFive measures all types on five nodes.
func (b *bench) allOnFive(ctx context.Context) error {
	s, err := b.site(ctx, 5, controlplane.Options{})
	if err != nil {
		return err
	}
	defer s.cp.Stop()
	return b.everyType(ctx, s, "5 nodes", "stated")
}

// onAThousand measures all types on 1,000 nodes with 30,000 pods.
func (b *bench) onAThousand(ctx context.Context) error {
	fmt.Fprintln(os.Stderr, "making 1,000 nodes and 30,000 pods")
	s, err := b.site(ctx, 1000, controlplane.Options{})
	if err != nil {
		return err
	}
	defer s.cp.Stop()
	if err := s.fill(ctx, 29); err != nil { // the CNI's is the thirtieth
		return err
	}
	return b.everyType(ctx, s, "1,000 nodes with 30,000 pods and 3,000 budgets", "under 3 s, under 128 MiB")
}

// fill puts so many pods on each node, a tenth of them with a budget of their own.
func (s *site) fill(ctx context.Context, perNode int) error {
	const namespace = "workloads"
	if err := s.cp.Namespace(ctx, namespace); err != nil {
		return err
	}
	var all sync.WaitGroup
	problems := make([]error, len(s.Nodes))
	slots := make(chan struct{}, 32)
	for i, n := range s.Nodes {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			for j := range perNode {
				labels := map[string]string{"app": fmt.Sprintf("app-%d", (i*perNode+j)/workloads)}
				if _, err := s.cp.AddPod(ctx, namespace, fmt.Sprintf("%s-%d", n.Name, j), n.Name, labels, nil); err != nil {
					problems[i] = err
					return
				}
			}
		})
	}
	all.Wait()
	if err := errors.Join(problems...); err != nil {
		return err
	}
	one := intstr.FromInt32(1)
	budgets := s.cp.Client().PolicyV1().PodDisruptionBudgets(namespace)
	for i := range len(s.Nodes) * perNode / workloads {
		name := fmt.Sprintf("app-%d", i)
		if _, err := budgets.Create(ctx, &policyv1.PodDisruptionBudget{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec:       policyv1.PodDisruptionBudgetSpec{MaxUnavailable: &one, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": name}}},
		}, metav1.CreateOptions{}); err != nil {
			return err
		}
	}
	return nil
}

// everyType measures one evaluation of a step of each type.
func (b *bench) everyType(ctx context.Context, s *site, where, target string) error {
	o, err := b.options(s, 1, "")
	if err != nil {
		return err
	}
	if o.Checks, err = allTypes(b.prom.URL()); err != nil {
		return err
	}
	if err := b.permit(ctx, s, o); err != nil {
		return err
	}
	relay, err := newRelay(ctx, s, nil)
	if err != nil {
		return err
	}
	defer relay.listener.Close()
	c, err := b.evaluate(ctx, s, relay, o)
	if err != nil {
		return err
	}
	b.add(fmt.Sprintf("one evaluation of all %d types (`--once`), %s", len(checks.Types()), where), target, "%s", c)
	return nil
}

// permit grants what the gate itself says that its steps need.
func (b *bench) permit(ctx context.Context, s *site, o daemon.Options) error {
	o.Args = []string{"--print-rbac"}
	cmd, err := daemon.Command(ctx, o)
	if err != nil {
		return err
	}
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("%s: %w", strings.Join(cmd.Args, " "), err)
	}
	var wanted rbacv1.ClusterRole
	if err := yaml.Unmarshal(out, &wanted); err != nil {
		return err
	}
	roles := s.cp.Client().RbacV1().ClusterRoles()
	role, err := roles.Get(ctx, wanted.Name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	role.Rules = wanted.Rules
	_, err = roles.Update(ctx, role, metav1.UpdateOptions{})
	return err
}
