package main

import (
	"path/filepath"
	"strings"
	"testing"
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
