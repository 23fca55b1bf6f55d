package faults

import (
	"os"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"github.com/sentinel-gate/sentinel-gate/test/kit/daemon"
)

const widgets = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.com}
spec:
  group: example.com
  scope: Cluster
  names: {plural: widgets, singular: widget, kind: Widget, listKind: WidgetList}
  versions:
    - name: v1
      served: true
      storage: true
      schema: {openAPIV3Schema: {type: object, properties: {ok: {type: boolean}}}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: widgets}
rules: [{apiGroups: [example.com], resources: [widgets], verbs: [list, watch]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: widgets}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: widgets}
subjects: [{kind: ServiceAccount, name: sentinel-gate, namespace: sentinel-gate}]
---
`

const widget = "apiVersion: example.com/v1\nkind: Widget\nmetadata: {name: a}\n"

// asked is a pipeline that asks for widgets.
func asked(o *daemon.Options) {
	o.Checks = `[{name: widgets, type: resource, options: {apiVersion: example.com/v1, resource: widgets, minimum: 0, expression: object.ok == true}}]`
}

// F28: an object changes while the gate is open. F01: its type is removed.
func TestF28ResourceClosesAnOpenGate(t *testing.T) {
	s := newScene(t)
	s.must(s.cp.Apply(s.ctx(), []byte(widgets+widget+"ok: true\n")))
	client, err := dynamic.NewForConfig(s.cp.Config())
	s.must(err)
	s.must(s.host.RequireReboot())
	d := s.start(asked)
	s.open(d, 0)

	from := d.Lines()
	s.must(s.cp.Apply(s.ctx(), []byte(widget+"ok: false\n")))
	step := s.closedBy(d, from, "widgets", "Fail", "ExpressionFalse")
	if want := "the expression is false for 1 of 1 object of widgets.example.com: a (ok: false)"; step.Message != want {
		t.Errorf("got %s, want %s", step.Message, want)
	}

	from = d.Lines()
	s.must(s.cp.Apply(s.ctx(), []byte(widget+"ok: true\n")))
	s.open(d, from)

	from = d.Lines()
	s.must(client.Resource(schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}).
		Delete(s.ctx(), "widgets.example.com", metav1.DeleteOptions{}))
	s.closedBy(d, from, "widgets", "Unknown", "NoSuchResource")
}

// F21: a type that nobody serves is refused; F11: not before the gate is closed.
func TestF21ResourceNotServed(t *testing.T) {
	unserved := func(o *daemon.Options) {
		asked(o)
		o.Checks = strings.ReplaceAll(o.Checks, "widgets, minimum", "gadgets, minimum")
	}
	s := newScene(t)
	s.must(os.WriteFile(s.host.Gated, nil, 0o444))
	said := s.fails(s.start(unserved), 2)
	if !strings.Contains(said, `checks[0] \"widgets\": options.apiVersion: the API server does not serve example.com/v1: is its CustomResourceDefinition installed?`) || s.host.Left() {
		t.Errorf("the file of the earlier life is there: %t; it said\n%s", s.host.Left(), said)
	}

	// An API server that cannot be asked is no reason not to start.
	s.must(s.host.RequireReboot())
	s.cp.StopAPIServer()
	defer func() { s.must(s.cp.StartAPIServer(s.ctx())) }()
	d := s.start(alone, unserved)
	s.closedBy(d, 0, "widgets", "Unknown", "Error")
}
