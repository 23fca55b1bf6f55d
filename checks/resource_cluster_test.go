package checks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"github.com/sentinel-gate/sentinel-gate/gate"
	"github.com/sentinel-gate/sentinel-gate/gate/cluster"
	kit "github.com/sentinel-gate/sentinel-gate/test/kit/cluster"
	"github.com/sentinel-gate/sentinel-gate/test/kit/controlplane"
	"github.com/sentinel-gate/sentinel-gate/test/kit/suite"
)

// defined is a control plane with the definitions of testdata/definitions.yaml.
type defined struct {
	t       *testing.T
	ctx     context.Context //nolint:containedctx // the test's
	cp      *controlplane.ControlPlane
	dynamic dynamic.Interface
	reading *cluster.Cluster
}

func newDefined(t *testing.T) *defined {
	t.Helper()
	cp := shared.Get(t)
	ctx := suite.Context(t, time.Minute)
	d := &defined{t: t, ctx: ctx, cp: cp}
	definitions, err := os.ReadFile("testdata/definitions.yaml")
	d.must(err)
	d.must(cp.Apply(ctx, definitions))
	d.dynamic, err = dynamic.NewForConfig(cp.Config())
	d.must(err)
	d.reading, err = cluster.New(cp.Config(), kit.Namespace, "")
	d.must(err)
	return d
}

func (d *defined) must(err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatal(err)
	}
}

// options are those of a step, as JSON.
func (d *defined) check(options string) resourceCheck {
	d.t.Helper()
	check, problems := New("resource", []byte(options), d.reading)
	if len(problems) > 0 {
		d.t.Fatal(problems)
	}
	return check.(resourceCheck)
}

func (d *defined) result(c resourceCheck) gate.Result {
	d.t.Helper()
	r, err := c.Check(d.ctx)
	d.must(err)
	return r
}

// objects are those that the check's type has in a namespace, or in none.
func (d *defined) objects(c resourceCheck, namespace string) dynamic.ResourceInterface {
	resources := d.dynamic.Resource(c.selection.Version.WithResource(c.selection.Resource))
	if namespace == "" {
		return resources
	}
	return resources.Namespace(namespace)
}

// put makes the object anew, as YAML, with its status, through the status
// subresource where the type has one.
func (d *defined) put(c resourceCheck, manifest string) {
	d.t.Helper()
	o := &unstructured.Unstructured{}
	d.must(yaml.Unmarshal([]byte(manifest), &o.Object))
	if o.GetNamespace() != "" {
		d.must(d.cp.Namespace(d.ctx, o.GetNamespace()))
	}
	objects := d.objects(c, o.GetNamespace())
	if err := objects.Delete(d.ctx, o.GetName(), *metav1.NewDeleteOptions(0)); !apierrors.IsNotFound(err) {
		d.must(err)
	}
	var made *unstructured.Unstructured
	// A type is not served everywhere as soon as its definition is there.
	d.must(controlplane.Poll(d.ctx, func() (err error) {
		made, err = objects.Create(d.ctx, o, metav1.CreateOptions{})
		return err
	}))
	d.t.Cleanup(func() {
		if err := objects.Delete(context.Background(), o.GetName(), *metav1.NewDeleteOptions(0)); err != nil && !apierrors.IsNotFound(err) {
			d.t.Error(err)
		}
	})
	if status, ok := o.Object["status"]; ok {
		d.setStatus(c, made, status)
	}
}

func (d *defined) setStatus(c resourceCheck, o *unstructured.Unstructured, status any) {
	d.t.Helper()
	objects := d.objects(c, o.GetNamespace())
	o.Object["status"] = status
	_, err := objects.UpdateStatus(d.ctx, o, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		_, err = objects.Update(d.ctx, o, metav1.UpdateOptions{})
	}
	d.must(err)
}

// examples returns the options of the steps that the page shows, by name.
func examples(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	for _, block := range regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(pageOf(t, "resource"), -1) {
		if !strings.Contains(block[1], "kind: GateConfiguration\n") {
			continue
		}
		var configuration struct {
			Checks []struct {
				Name    string          `json:"name"`
				Options json.RawMessage `json:"options"`
			} `json:"checks"`
		}
		if err := yaml.Unmarshal([]byte(block[1]), &configuration); err != nil {
			t.Fatal(err)
		}
		for _, step := range configuration.Checks {
			found[step.Name] = string(step.Options)
		}
	}
	return found
}

// The examples of the page, as they are there, judge objects of the real
// types' shape as the page says.
func TestResourceExamples(t *testing.T) {
	d := newDefined(t)
	shown := examples(t)
	type state struct {
		name, status string
		want         wanted
	}
	minute := func(ago time.Duration) string { return time.Now().Add(-ago).UTC().Format(time.RFC3339) }
	for _, c := range []struct {
		step   string
		others []string // further objects, which pass
		object string   // without a status
		states []state
	}{
		{
			"ceph", nil, `
apiVersion: ceph.rook.io/v1
kind: CephCluster
metadata: {name: rook-ceph, namespace: rook-ceph}
spec: {dataDirHostPath: /var/lib/rook}
`, []state{
				{"healthy", `{phase: Ready, ceph: {health: HEALTH_OK, lastChecked: "` + minute(time.Minute) + `"}}`, wanted{gate.Pass, "ExpressionTrue", "the expression is true for 1 object of cephclusters.ceph.rook.io in namespace rook-ceph"}},
				{"a warning", `{phase: Ready, ceph: {health: HEALTH_WARN, lastChecked: "` + minute(time.Minute) + `"}}`, wanted{gate.Fail, "ExpressionFalse", ""}},
				{"not checked lately", `{phase: Ready, ceph: {health: HEALTH_OK, lastChecked: "` + minute(time.Hour) + `"}}`, wanted{gate.Fail, "ExpressionFalse", ""}},
				{"no status", ``, wanted{gate.Unknown, "FieldAbsent", "the expression has no result for 1 of 1 object of cephclusters.ceph.rook.io in namespace rook-ceph: rook-ceph/rook-ceph (no field status)"}},
				{"no health", `{phase: Progressing}`, wanted{gate.Unknown, "FieldAbsent", "the expression has no result for 1 of 1 object of cephclusters.ceph.rook.io in namespace rook-ceph: rook-ceph/rook-ceph (no field status.ceph)"}},
				{"no time", `{ceph: {health: HEALTH_OK}}`, wanted{gate.Unknown, "FieldAbsent", "the expression has no result for 1 of 1 object of cephclusters.ceph.rook.io in namespace rook-ceph: rook-ceph/rook-ceph (no field status.ceph.lastChecked)"}},
			},
		},
		{
			"postgres", nil, `
apiVersion: postgresql.cnpg.io/v1
kind: Cluster
metadata: {name: orders, namespace: shop}
spec: {instances: 3}
`, []state{
				{"healthy", `{phase: Cluster in healthy state, instances: 3, readyInstances: 3}`, wanted{gate.Pass, "ExpressionTrue", ""}},
				{"a replica is away", `{phase: Waiting for the instances to become active, instances: 3, readyInstances: 2}`, wanted{gate.Fail, "ExpressionFalse", `the expression is false for 1 of 1 object of clusters.postgresql.cnpg.io: shop/orders (status.phase: "Waiting for the instances to become active", status.readyInstances: 2, spec.instances: 3)`}},
				{"failing over", `{phase: Failing over, instances: 3, readyInstances: 3}`, wanted{gate.Fail, "ExpressionFalse", ""}},
				{"no status", ``, wanted{gate.Unknown, "FieldAbsent", "the expression has no result for 1 of 1 object of clusters.postgresql.cnpg.io: shop/orders (no field status)"}},
				{"none is ready", `{phase: Cluster in healthy state, instances: 3}`, wanted{gate.Unknown, "FieldAbsent", "the expression has no result for 1 of 1 object of clusters.postgresql.cnpg.io: shop/orders (no field status.readyInstances)"}},
			},
		},
		{
			"longhorn", []string{`
apiVersion: longhorn.io/v1beta2
kind: Volume
metadata: {name: pvc-unused, namespace: longhorn-system}
spec: {numberOfReplicas: 3}
status: {state: detached, robustness: unknown}
`}, `
apiVersion: longhorn.io/v1beta2
kind: Volume
metadata: {name: pvc-1, namespace: longhorn-system}
spec: {numberOfReplicas: 3}
`, []state{
				{"healthy", `{state: attached, robustness: healthy}`, wanted{gate.Pass, "ExpressionTrue", "the expression is true for all 2 volumes.longhorn.io in namespace longhorn-system"}},
				{"degraded", `{state: attached, robustness: degraded}`, wanted{gate.Fail, "ExpressionFalse", `the expression is false for 1 of 2 volumes.longhorn.io in namespace longhorn-system: longhorn-system/pvc-1 (status.state: "attached", status.robustness: "degraded")`}},
				{"faulted", `{state: detached, robustness: faulted}`, wanted{gate.Fail, "ExpressionFalse", ""}},
				{"attaching", `{state: attaching, robustness: unknown}`, wanted{gate.Fail, "ExpressionFalse", ""}},
				{"no status", ``, wanted{gate.Unknown, "FieldAbsent", "the expression has no result for 1 of 2 volumes.longhorn.io in namespace longhorn-system: longhorn-system/pvc-1 (no field status)"}},
				{"no robustness", `{state: attached}`, wanted{gate.Unknown, "FieldAbsent", "the expression has no result for 1 of 2 volumes.longhorn.io in namespace longhorn-system: longhorn-system/pvc-1 (no field status.robustness)"}},
			},
		},
		{
			"argocd", nil, `
apiVersion: argoproj.io/v1alpha1
kind: Application
metadata: {name: ingress, namespace: argocd, labels: {tier: platform}}
spec: {project: default}
`, []state{
				{"healthy", `{health: {status: Healthy}, sync: {status: Synced}}`, wanted{gate.Pass, "ExpressionTrue", ""}},
				{"progressing", `{health: {status: Progressing}, sync: {status: Synced}}`, wanted{gate.Fail, "ExpressionFalse", `the expression is false for 1 of 1 object of applications.argoproj.io with labels "tier in (platform,production)" in namespace argocd: argocd/ingress (status.health.status: "Progressing", status.sync.status: "Synced")`}},
				{"out of sync", `{health: {status: Healthy}, sync: {status: OutOfSync}}`, wanted{gate.Fail, "ExpressionFalse", ""}},
				{"no status", ``, wanted{gate.Unknown, "FieldAbsent", `the expression has no result for 1 of 1 object of applications.argoproj.io with labels "tier in (platform,production)" in namespace argocd: argocd/ingress (no field status)`}},
				{"no health", `{sync: {status: Synced}}`, wanted{gate.Unknown, "FieldAbsent", `the expression has no result for 1 of 1 object of applications.argoproj.io with labels "tier in (platform,production)" in namespace argocd: argocd/ingress (no field status.health)`}},
			},
		},
		{
			"statefulsets", []string{
				strings.ReplaceAll(statefulSet, "NAME", "web") + "status: {observedGeneration: 1, replicas: 3, readyReplicas: 3}\n",
				strings.ReplaceAll(strings.ReplaceAll(statefulSet, "NAME", "idle"), "replicas: 3", "replicas: 0") + "status: {observedGeneration: 1, replicas: 0}\n",
			}, strings.ReplaceAll(statefulSet, "NAME", "db"), []state{
				{"all", `{observedGeneration: 1, replicas: 3, readyReplicas: 3}`, wanted{gate.Pass, "ExpressionTrue", "the expression is true for all 3 statefulsets.apps in namespace databases"}},
				{"all but one", `{observedGeneration: 1, replicas: 3, readyReplicas: 2}`, wanted{gate.Fail, "ExpressionFalse", "the expression is false for 1 of 3 statefulsets.apps in namespace databases: databases/db (status.observedGeneration: 1, metadata.generation: 1, spec.replicas: 3, status.readyReplicas: 2)"}},
				{"none", `{observedGeneration: 1, replicas: 3}`, wanted{gate.Unknown, "FieldAbsent", "the expression has no result for 1 of 3 statefulsets.apps in namespace databases: databases/db (no field status.readyReplicas)"}},
				{"as it was before the change", `{observedGeneration: 2, replicas: 3, readyReplicas: 3}`, wanted{gate.Fail, "ExpressionFalse", ""}},
				{"no status", ``, wanted{gate.Unknown, "FieldAbsent", "the expression has no result for 1 of 3 statefulsets.apps in namespace databases: databases/db (no field status.observedGeneration)"}},
			},
		},
		{
			"migrations", nil, `
apiVersion: kubevirt.io/v1
kind: VirtualMachineInstanceMigration
metadata: {name: move-1, namespace: vms}
spec: {vmiName: vm-1}
`, []state{
				{"done", `{phase: Succeeded}`, wanted{gate.Pass, "ExpressionTrue", ""}},
				{"given up", `{phase: Failed}`, wanted{gate.Pass, "ExpressionTrue", ""}},
				{"under way", `{phase: Running}`, wanted{gate.Fail, "ExpressionFalse", `the expression is false for 1 of 1 object of virtualmachineinstancemigrations.kubevirt.io: vms/move-1 (status.phase: "Running")`}},
				{"about to begin", `{phase: TargetReady}`, wanted{gate.Fail, "ExpressionFalse", ""}},
				{"no status", ``, wanted{gate.Unknown, "FieldAbsent", "the expression has no result for 1 of 1 object of virtualmachineinstancemigrations.kubevirt.io: vms/move-1 (no field status)"}},
			},
		},
	} {
		t.Run(c.step, func(t *testing.T) {
			d := &defined{t, d.ctx, d.cp, d.dynamic, d.reading}
			options, ok := shown[c.step]
			if !ok {
				t.Fatal("the page has no such example")
			}
			delete(shown, c.step)
			check := d.check(options)
			d.must(validate(d.ctx, check))

			// F02: nothing there.
			none := wanted{gate.Fail, "NoObjects", fmt.Sprintf("there are no %s", check.selection)}
			if check.options.Minimum == 0 {
				none = wanted{gate.Pass, "NoneNeeded", fmt.Sprintf("there are no %s, and none are needed", check.selection)}
			}
			none.compare(t, d.result(check))
			v, err := verify(d.ctx, check)
			d.must(err)
			if none.verdict == gate.Pass && v.Vacuous() {
				t.Errorf("it is vacuous where there are no objects: %+v", v)
			}

			for _, other := range c.others {
				d.put(check, other)
			}
			for _, s := range c.states {
				manifest := c.object
				if s.status != "" {
					manifest += "status: " + s.status + "\n"
				}
				d.put(check, manifest)
				r := d.result(check)
				s.want.compare(t, r)
				v, err := verify(d.ctx, check)
				d.must(err)
				if v.Result != r || r.Verdict == gate.Pass && v.Vacuous() {
					t.Errorf("%s: %+v is verified as %+v", s.name, r, v)
				}
			}
		})
	}
	for name := range shown {
		t.Errorf("the example %s of the page is not tested", name)
	}
}

const statefulSet = `
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: NAME, namespace: databases}
spec:
  replicas: 3
  serviceName: NAME
  selector: {matchLabels: {app: NAME}}
  template:
    metadata: {labels: {app: NAME}}
    spec: {containers: [{name: c, image: example.com/c}]}
`

const things = `{"apiVersion": "example.com/v1", "resource": "things", "expression": "object.ok == true"`

func thing(name string, ok bool) string {
	return fmt.Sprintf("{apiVersion: example.com/v1, kind: Thing, metadata: {name: %s}, ok: %t}", name, ok)
}

// What an expression cannot fail is told by name; what can is not vacuous.
func TestResourceVerify(t *testing.T) {
	d := newDefined(t)
	for _, name := range []string{"a", "b", "c", "d"} {
		d.put(d.check(things+"}"), thing(name, true))
	}
	for expression, vacuous := range map[string]bool{
		`object.ok == true`:           false,
		`object.metadata.name != "x"`: false, // without a name it has no result
		`true`:                        true,
		`now > timestamp("2020-01-01T00:00:00Z")`:                true,
		`!has(object.gone) || object.gone == 1`:                  true,
		`object.ok == true || object.ok != true || true`:         true,
		`object.?ok.orValue(true) in [true, false]`:              true,
		`object.metadata.?annotations.orValue({}) != {"a": "b"}`: true,
	} {
		quoted, err := json.Marshal(expression)
		d.must(err)
		check := d.check(`{"apiVersion": "example.com/v1", "resource": "things", "expression": ` + string(quoted) + `}`)
		v, err := verify(d.ctx, check)
		d.must(err)
		if v.Result.Verdict != gate.Pass || v.Vacuous() != vacuous || v.Looked != "4 things.example.com" {
			t.Errorf("%s: %+v", expression, v)
		}
	}
	v, err := verify(d.ctx, d.check(things+"}"))
	d.must(err)
	var changes []string
	for _, m := range v.Mutations {
		changes = append(changes, m.Change+": "+m.Result.Reason)
	}
	want := "a without ok: FieldAbsent\na with ok changed from true to false: ExpressionFalse\n" +
		"b without ok: FieldAbsent\nb with ok changed from true to false: ExpressionFalse\n" +
		"c without ok: FieldAbsent\nc with ok changed from true to false: ExpressionFalse"
	if got := strings.Join(changes, "\n"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	// What is not changed counts as well.
	d.put(d.check(things+"}"), thing("d", false))
	if v, err = verify(d.ctx, d.check(things+"}")); err != nil || v.Result.Reason != "ExpressionFalse" || v.Mutations[1].Result.Message != "the expression is false for 2 of 4 things.example.com: a (ok: false), d (ok: false)" {
		t.Errorf("%+v, %v", v, err)
	}
}

// Selectors and minimum, and more objects than fit on a page.
func TestResourceSelects(t *testing.T) {
	d := newDefined(t)
	const namespace = "many"
	d.must(d.cp.Namespace(d.ctx, namespace))
	maps := d.cp.Client().CoreV1().ConfigMaps(namespace)
	t.Cleanup(func() {
		if err := maps.DeleteCollection(context.Background(), metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
			t.Error(err)
		}
	})
	const count = 2*500 + 3 // more than two pages
	for i := range count {
		_, err := maps.Create(d.ctx, &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("m%04d", i), Labels: map[string]string{"last": fmt.Sprint(i == count-1)}},
			Data:       map[string]string{"n": fmt.Sprint(i)},
		}, metav1.CreateOptions{})
		d.must(err)
	}
	const about = `{"apiVersion": "v1", "resource": "configmaps", "namespace": "many", `
	for _, c := range []struct {
		options string
		want    wanted
	}{
		{`"expression": "int(object.data.n) >= 0", "minimum": 1003`, wanted{gate.Pass, "ExpressionTrue", "the expression is true for all 1003 configmaps in namespace many"}},
		{`"expression": "int(object.data.n) >= 0", "minimum": 1004`, wanted{gate.Fail, "TooFewObjects", "there are only 1003 configmaps in namespace many, and the minimum is 1004"}},
		{`"expression": "int(object.data.n) < 1002"`, wanted{gate.Fail, "ExpressionFalse", `the expression is false for 1 of 1003 configmaps in namespace many: many/m1002 (data.n: "1002")`}},
		{`"expression": "object.data.n == \"1002\"", "selector": "last=true"`, wanted{gate.Pass, "ExpressionTrue", `the expression is true for 1 object of configmaps with labels "last=true" in namespace many`}},
		{`"expression": "object.data.n == \"7\"", "fieldSelector": "metadata.name=m0007"`, wanted{gate.Pass, "ExpressionTrue", `the expression is true for 1 object of configmaps with fields "metadata.name=m0007" in namespace many`}},
		{`"expression": "object.data.n == \"7\"", "fieldSelector": "metadata.name=m0007", "selector": "last=true"`, wanted{gate.Fail, "NoObjects", ""}},
	} {
		c.want.compare(t, d.result(d.check(about+c.options+"}")))
	}
	// F01: what cannot be asked is an error.
	_, err := d.check(about + `"expression": "object.a == 1", "fieldSelector": "data.n=7"}`).Check(d.ctx)
	if want := `listing configmaps with fields "data.n=7" in namespace many: "data.n" is not a known field selector: only "metadata.name", "metadata.namespace"`; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// A type that is not served is refused at start, and Unknown by name later;
// one that cannot be asked about is not refused.
func TestResourceNotServed(t *testing.T) {
	d := newDefined(t)
	for options, want := range map[string]string{
		`{"apiVersion": "nobody.example.com/v1", "resource": "things", "expression": "object.a == 1"}`:                 "options.apiVersion: the API server does not serve nobody.example.com/v1: is its CustomResourceDefinition installed?",
		`{"apiVersion": "example.com/v2", "resource": "things", "expression": "object.a == 1"}`:                        "options.apiVersion: the API server does not serve example.com/v2: is its CustomResourceDefinition installed?",
		`{"apiVersion": "example.com/v1", "resource": "thing", "expression": "object.a == 1"}`:                         `options.resource: the API server serves no "thing" in example.com/v1: see kubectl api-resources --api-group=example.com`,
		`{"apiVersion": "v1", "resource": "nodes", "namespace": "default", "expression": "object.a == 1"}`:             "options.namespace: nodes are in no namespace",
		`{"apiVersion": "v1", "resource": "statefulsets", "expression": "object.a == 1"}`:                              `options.resource: the API server serves no "statefulsets" in v1: see kubectl api-resources --api-group=`,
		`{"apiVersion": "example.com/v1", "resource": "things", "expression": "object.a == 1"}`:                        "",
		`{"apiVersion": "apps/v1", "resource": "statefulsets", "namespace": "nowhere", "expression": "1 == object.a"}`: "",
	} {
		check := d.check(options)
		got := ""
		if err := validate(d.ctx, check); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		if r := d.result(check); want != "" && (r.Verdict != gate.Unknown || r.Reason != "NoSuchResource") || want == "" && r.Reason != "NoObjects" {
			t.Errorf("%s: %+v", options, r)
		}
	}
	nobody, err := cluster.New(&rest.Config{Host: "https://127.0.0.1:1"}, "", "")
	d.must(err)
	unreachable, _ := New("resource", []byte(things+"}"), nobody)
	if err := validate(d.ctx, unreachable); err != nil {
		t.Errorf("an API server that cannot be asked: %v", err)
	}
	if _, ok := gate.Check(nodesReady{}).(Validator); ok {
		t.Error("another check asks whether it is served")
	}
}

// A definition that is removed takes the objects along, and then the type.
func TestResourceDefinitionRemoved(t *testing.T) {
	d := newDefined(t)
	check := d.check(things + `, "minimum": 0}`)
	d.put(check, thing("a", true))
	wanted{gate.Pass, "ExpressionTrue", ""}.compare(t, d.result(check))
	definitions := d.dynamic.Resource(schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"})
	d.must(definitions.Delete(d.ctx, "things.example.com", metav1.DeleteOptions{}))
	d.must(controlplane.Poll(d.ctx, func() error {
		r, err := check.Check(d.ctx)
		if err == nil && r.Reason != "NoSuchResource" {
			err = fmt.Errorf("%+v", r)
		}
		return err
	}))
	want := wanted{gate.Unknown, "NoSuchResource", "the API server does not serve things in example.com/v1: is its CustomResourceDefinition gone?"}
	want.compare(t, d.result(check))
	v, err := verify(d.ctx, check)
	d.must(err)
	want.compare(t, v.Result)
}

// F01: without permission it is an error, with exactly its rules it is none,
// and what they do not grant it does not ask.
func TestResourceNeedsItsRules(t *testing.T) {
	d := newDefined(t)
	check := d.check(things + "}")
	d.put(check, thing("a", true))
	config := d.cp.Config()
	config.Impersonate = rest.ImpersonationConfig{UserName: "resource-reader", Groups: []string{"system:authenticated"}}
	var err error
	d.reading, err = cluster.New(config, kit.Namespace, "")
	d.must(err)
	check = d.check(things + "}")
	if _, err := check.Check(d.ctx); !apierrors.IsForbidden(err) || !strings.HasPrefix(err.Error(), "listing things.example.com: things.example.com is forbidden") {
		t.Errorf("got %v", err)
	}
	d.must(validate(d.ctx, check))
	rbac := d.cp.Client().RbacV1()
	role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "resource-reader"}, Rules: RulesOf(check)}
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: role.ObjectMeta, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role.Name},
		Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: "resource-reader"}},
	}
	_, err = rbac.ClusterRoles().Create(d.ctx, role, metav1.CreateOptions{})
	d.must(err)
	_, err = rbac.ClusterRoleBindings().Create(d.ctx, binding, metav1.CreateOptions{})
	d.must(err)
	t.Cleanup(func() {
		for _, err := range []error{
			rbac.ClusterRoles().Delete(context.Background(), role.Name, metav1.DeleteOptions{}),
			rbac.ClusterRoleBindings().Delete(context.Background(), role.Name, metav1.DeleteOptions{}),
		} {
			if err != nil {
				t.Error(err)
			}
		}
	})
	d.must(controlplane.Poll(d.ctx, func() error {
		_, err := check.Check(d.ctx)
		return err
	}))
	ctx, cancel := context.WithCancel(d.ctx)
	defer cancel()
	hints := make(chan gate.Result, 10)
	ended := make(chan error, 1)
	go func() { ended <- check.Watch(ctx, func(r gate.Result) { hints <- r }) }()
	d.put(check, thing("b", false))
	select {
	case r := <-hints:
		wanted{gate.Fail, "ExpressionFalse", ""}.compare(t, r)
	case err := <-ended:
		t.Errorf("the watch ended: %v", err)
	case <-ctx.Done():
		t.Error("no hint")
	}
}

// F28: each way in which an object can stop being what was asked for.
func TestF28ResourceWatchHints(t *testing.T) {
	for _, c := range []struct {
		name, options string
		change        func(*defined, resourceCheck)
		want          wanted
	}{
		{"changed", `{"apiVersion": "apps/v1", "resource": "statefulsets", "namespace": "watched", "expression": "object.status.replicas == 3"}`, func(d *defined, c resourceCheck) {
			o, err := d.objects(c, "watched").Get(d.ctx, "a", metav1.GetOptions{})
			d.must(err)
			d.setStatus(c, o, map[string]any{"replicas": int64(2)})
		}, wanted{gate.Fail, "ExpressionFalse", "the expression is false for 1 of 2 statefulsets.apps in namespace watched: watched/a (status.replicas: 2)"}},
		{"another one", `{"apiVersion": "apps/v1", "resource": "statefulsets", "namespace": "watched", "expression": "object.status.replicas == 3"}`, func(d *defined, c resourceCheck) {
			d.put(c, watchedSet("c"))
		}, wanted{gate.Fail, "ExpressionFalse", "the expression is false for 1 of 3 statefulsets.apps in namespace watched: watched/c (status.replicas: 0)"}},
		{"too few", `{"apiVersion": "apps/v1", "resource": "statefulsets", "namespace": "watched", "minimum": 2, "expression": "object.status.replicas == 3"}`, func(d *defined, c resourceCheck) {
			d.must(d.objects(c, "watched").Delete(d.ctx, "a", metav1.DeleteOptions{}))
		}, wanted{gate.Fail, "TooFewObjects", "there is only 1 object of statefulsets.apps in namespace watched, and the minimum is 2"}},
		{"no longer selected", `{"apiVersion": "apps/v1", "resource": "statefulsets", "namespace": "watched", "selector": "app in (a,b)", "minimum": 2, "expression": "object.status.replicas == 3"}`, func(d *defined, c resourceCheck) {
			o, err := d.objects(c, "watched").Get(d.ctx, "a", metav1.GetOptions{})
			d.must(err)
			o.SetLabels(nil)
			_, err = d.objects(c, "watched").Update(d.ctx, o, metav1.UpdateOptions{})
			d.must(err)
		}, wanted{gate.Fail, "TooFewObjects", ""}},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDefined(t)
			check := d.check(c.options)
			for _, name := range []string{"a", "b"} {
				d.put(check, watchedSet(name)+"status: {replicas: 3}\n")
			}
			wanted{gate.Pass, "ExpressionTrue", ""}.compare(t, d.result(check))
			ctx, cancel := context.WithCancel(d.ctx)
			hints := make(chan gate.Result, 10)
			ended := make(chan error, 1)
			go func() { ended <- check.Watch(ctx, func(r gate.Result) { hints <- r }) }()
			c.change(d, check)
			select {
			case r := <-hints:
				c.want.compare(t, r)
			case err := <-ended:
				t.Fatalf("the watch ended: %v", err)
			case <-ctx.Done():
				t.Fatal("no hint")
			}
			cancel()
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Errorf("the watch ended with %v", err)
			}
		})
	}
}

func watchedSet(name string) string {
	manifest := strings.ReplaceAll(statefulSet, "NAME", name)
	return strings.Replace(manifest, "namespace: databases", fmt.Sprintf("namespace: watched, labels: {app: %s}", name), 1)
}

var _ gate.Watcher = resourceCheck{}
