package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/yaml"

	"github.com/sentinel-gate/sentinel-gate/checks"
	"github.com/sentinel-gate/sentinel-gate/gate/cluster"
)

// printRBAC prints the ClusterRole that the steps of the configuration, and the
// turn, need.
// What the gate itself needs is a Role of its own namespace.
func printRBAC(f flags, stdout io.Writer) error {
	c, err := f.load(nil)
	if err != nil {
		return unusable{err}
	}
	role, err := yaml.Marshal(map[string]any{
		"apiVersion": rbacv1.SchemeGroupVersion.String(), "kind": "ClusterRole",
		"metadata": map[string]any{"name": "sentinel-gate"}, "rules": c.rules(),
	})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(stdout, "# What configuration %s reads.\n%s", c.hash, role)
	return err
}

// rules are what the steps need, each verb on each resource once: resources with
// the same verbs in one rule of their group.
func (c *configuration) rules() []rbacv1.PolicyRule {
	type resource struct{ group, name string }
	verbs := map[resource][]string{}
	var needed []rbacv1.PolicyRule
	for _, s := range c.steps {
		needed = append(needed, checks.RulesOf(s.Check)...)
		if !s.NodeSelector.Empty() {
			needed = append(needed, cluster.Permit("", "nodes", "list"))
		}
	}
	if c.Turn.Enabled {
		// Beside the Leases of its namespace: the holder's Node, and kured's lock.
		needed = append(needed, cluster.Permit("", "nodes", "list"), cluster.ReadDaemonSets)
	}
	for _, rule := range needed {
		for _, group := range rule.APIGroups {
			for _, name := range rule.Resources {
				all := slices.Concat(verbs[resource{group, name}], rule.Verbs)
				slices.Sort(all)
				verbs[resource{group, name}] = slices.Compact(all)
			}
		}
	}
	type same struct{ group, verbs string }
	resources := map[same][]string{}
	for r, v := range verbs {
		key := same{r.group, strings.Join(v, " ")}
		resources[key] = append(resources[key], r.name)
	}
	rules := []rbacv1.PolicyRule{}
	for _, key := range slices.SortedFunc(maps.Keys(resources), func(a, b same) int {
		return strings.Compare(a.group+" "+a.verbs, b.group+" "+b.verbs)
	}) {
		slices.Sort(resources[key])
		rules = append(rules, rbacv1.PolicyRule{APIGroups: []string{key.group}, Resources: resources[key], Verbs: strings.Fields(key.verbs)})
	}
	return rules
}
