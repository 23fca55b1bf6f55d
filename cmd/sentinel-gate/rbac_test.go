package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/yaml"

	"github.com/sentinel-gate/sentinel-gate/checks"
)

func TestPrintRBAC(t *testing.T) {
	config := write(t, filepath.Join(t.TempDir(), "config.yaml"), header+`
checks:
  - {name: nodes, type: nodesReady}
  - {name: soak, type: readySoak}
  - {name: drain, type: disruptionBudgets}
  - {name: sets, type: resource, options: {apiVersion: apps/v1, resource: statefulsets, expression: object.status.replicas == 3}}
  - {name: freeze, type: http, options: {url: "http://freeze"}}
`)
	exit, stdout, stderr := command(t.Context(), "--print-rbac", "--config", config)
	_, role, _ := strings.Cut(stdout, "\n")
	const want = `apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: sentinel-gate
rules:
- apiGroups:
  - ""
  resources:
  - pods
  verbs:
  - list
- apiGroups:
  - ""
  resources:
  - nodes
  verbs:
  - list
  - watch
- apiGroups:
  - apps
  resources:
  - daemonsets
  verbs:
  - list
- apiGroups:
  - apps
  resources:
  - statefulsets
  verbs:
  - list
  - watch
- apiGroups:
  - policy
  resources:
  - poddisruptionbudgets
  verbs:
  - list
`
	if exit != exitOK || role != want || stderr != "" {
		t.Errorf("exit %d, stderr %q\n%s", exit, stderr, stdout)
	}
	nothing := write(t, filepath.Join(t.TempDir(), "config.yaml"), header+"turn: {enabled: false}\nchecks: [{name: freeze, type: http, options: {url: 'http://freeze'}, nodeSelector: a=b}]\n")
	if _, stdout, _ := command(t.Context(), "--print-rbac", "--config", nothing); !strings.HasSuffix(stdout, "rules:\n- apiGroups:\n  - \"\"\n  resources:\n  - nodes\n  verbs:\n  - list\n") {
		t.Errorf("a step that asks nobody but for its node:\n%s", stdout)
	}
}

const chartPermissions = "../../charts/sentinel-gate/files/permissions.yaml"

// The chart knows what each type needs from the daemon itself.
func TestPermissionsOfTheChart(t *testing.T) {
	options := map[string]string{
		"podsReady": `{"preset": "auto"}`, "resource": `{"apiVersion": "v1", "resource": "pods", "expression": "object.a == 1"}`,
		"alerts": `{"prometheus": {"url": "http://p"}}`, "promql": `{"prometheus": {"url": "http://p"}, "query": "up == 0", "requireSeries": "up"}`,
		"http": `{"url": "http://h"}`, "schedule": `{"deny": [{"months": ["december"]}]}`,
	}
	byType := map[string][]rbacv1.PolicyRule{}
	for _, typeName := range checks.Types() {
		check, problems := checks.New(typeName, []byte(options[typeName]), nil)
		if len(problems) > 0 {
			t.Fatalf("%s: %v", typeName, problems)
		}
		if rules := checks.RulesOf(check); len(rules) > 0 && typeName != "resource" { // which the chart reads from the step's options
			byType[typeName] = rules
		}
	}
	text, err := yaml.Marshal(byType)
	if err != nil {
		t.Fatal(err)
	}
	want := "# What each type of check needs by default. Do not edit: this file is made by\n# go test ./cmd/sentinel-gate -run TestPermissionsOfTheChart -update\n" + string(text)
	if *update {
		if err := os.WriteFile(chartPermissions, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(chartPermissions); err != nil || string(got) != want {
		t.Errorf("the file is not what the types need: go test ./cmd/sentinel-gate -run TestPermissionsOfTheChart -update (%v)", err)
	}
}
