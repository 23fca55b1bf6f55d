package checks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/sentinel-gate/sentinel-gate/gate"
	"github.com/sentinel-gate/sentinel-gate/gate/cluster"
)

// ResourceOptions are the options of resource. APIVersion, Resource and
// Expression must be given.
type ResourceOptions struct {
	// APIVersion is the group and version of the objects, as their manifests
	// have it: "ceph.rook.io/v1", "apps/v1", "v1".
	APIVersion string `json:"apiVersion"`
	// Resource is their plural, as RBAC has it: "cephclusters".
	Resource string `json:"resource"`
	// Namespace is where they are; everywhere by default.
	Namespace string `json:"namespace"`
	// Selector chooses the objects, by label; all of them by default.
	Selector cluster.Selector `json:"selector"`
	// FieldSelector chooses the objects by what the API server can select, such
	// as "metadata.name=a".
	FieldSelector FieldSelector `json:"fieldSelector"`
	// Minimum is how many objects there must be at least.
	Minimum int `json:"minimum"`
	// Expression is a CEL expression over each object. It must be true of all.
	Expression string `json:"expression"`
}

func resourceDefaults() ResourceOptions { return ResourceOptions{Minimum: 1} }

// FieldSelector is a field selector in Kubernetes' own syntax, "a=b,c!=d". The
// zero value selects everything.
type FieldSelector string

// UnmarshalText checks the syntax. Which fields there are the API server knows.
func (s *FieldSelector) UnmarshalText(text []byte) error {
	parsed, err := fields.ParseSelector(string(text))
	if err != nil {
		return fmt.Errorf("not a field selector: %w", err)
	}
	*s = FieldSelector(parsed.String())
	return nil
}

type resourceCheck struct {
	cluster    *cluster.Cluster
	options    ResourceOptions
	selection  cluster.Selection
	expression *expression
}

var (
	_ gate.Watcher = resourceCheck{}
	_ Reader       = resourceCheck{}
	_ Validator    = resourceCheck{}
	_ Verifier     = resourceCheck{}
)

var (
	// apiVersionForm and resourceForm also keep an option from reaching another
	// path of the API server than it says.
	apiVersionForm = regexp.MustCompile(`^([a-z0-9]([a-z0-9.-]*[a-z0-9])?/)?v[0-9][a-z0-9]*$`)
	resourceForm   = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?$`)
)

func newResource(o ResourceOptions, c *cluster.Cluster) (gate.Check, []error) {
	check := resourceCheck{cluster: c, options: o, selection: cluster.Selection{
		Resource: o.Resource, Namespace: o.Namespace, Labels: o.Selector.String(), Fields: string(o.FieldSelector),
	}}
	problems := join(atLeast("minimum", o.Minimum, 0))
	wrong := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	if !apiVersionForm.MatchString(o.APIVersion) {
		wrong("options.apiVersion: want the objects' group and version, such as apps/v1 or v1, not %q", o.APIVersion)
	}
	check.selection.Version, _ = schema.ParseGroupVersion(o.APIVersion)
	if !resourceForm.MatchString(o.Resource) {
		wrong("options.resource: want the plural in lower case, as kubectl api-resources has it, such as statefulsets, not %q", o.Resource)
	}
	if o.APIVersion == "v1" && o.Resource == "secrets" {
		wrong("options.resource: secrets are not for a gate to read: what an expression reads is in messages, and so in logs")
	}
	if o.Namespace != "" && !resourceForm.MatchString(o.Namespace) {
		wrong("options.namespace: want the name of a namespace, not %q", o.Namespace)
	}
	if o.Expression == "" {
		wrong("options.expression: say what must be true of each object, such as object.status.phase == \"Ready\"")
		return check, problems
	}
	var mistakes []error
	check.expression, mistakes = compile(o.Expression)
	for _, mistake := range mistakes {
		wrong("options.expression: %w", mistake)
	}
	return check, problems
}

// Check lists the objects and evaluates the expression for one at a time.
func (c resourceCheck) Check(ctx context.Context) (gate.Result, error) {
	found, _, err := c.read(ctx, nil)
	if err != nil {
		return c.unread(err)
	}
	return found.judge(c.selection, c.options), nil
}

// read counts all objects but those that keep takes.
func (c resourceCheck) read(ctx context.Context, keep func(cluster.Object) bool) (tally, listed, error) {
	var found tally
	version, now, err := c.cluster.EachObject(ctx, c.selection, func(o cluster.Object, now time.Time) error {
		if keep != nil && keep(o) {
			return nil
		}
		return found.count(ctx, c.expression, o, now)
	})
	return found, listed{version, now}, err
}

// listed is when a listing was read, and where a watch takes up.
type listed struct {
	version string
	now     time.Time
}

// unread is the verdict where the objects could not be read.
func (c resourceCheck) unread(err error) (gate.Result, error) {
	if apierrors.IsNotFound(err) {
		return gate.Undecided("NoSuchResource", "the API server does not serve %s in %s: is its CustomResourceDefinition gone?", c.selection.Resource, c.selection.Version), nil
	}
	return gate.Result{}, err
}

// Watch hints when the expression is no longer true of an object, or when too
// few are left. It keeps their number only.
func (c resourceCheck) Watch(ctx context.Context, hint func(gate.Result)) error {
	found, from, err := c.read(ctx, nil)
	if err != nil {
		return err
	}
	hintAt := func(t tally) {
		if r := t.judge(c.selection, c.options); r.Verdict != gate.Pass {
			hint(r)
		}
	}
	hintAt(found)
	objects, began := found.objects, time.Now()
	return c.cluster.FollowObjects(ctx, c.selection, from.version, func(event watch.EventType, o cluster.Object) error {
		switch event {
		case watch.Added:
			objects++
		case watch.Deleted:
			objects--
			hintAt(tally{objects: objects})
			return nil
		}
		changed := tally{objects: objects - 1}
		if err := changed.count(ctx, c.expression, o, from.now.Add(time.Since(began))); err != nil {
			return err
		}
		hintAt(changed)
		return nil
	})
}

// Rules name what Check and Watch read.
func (c resourceCheck) Rules() []rbacv1.PolicyRule {
	return []rbacv1.PolicyRule{cluster.Permit(c.selection.Version.Group, c.selection.Resource, "list", "watch")}
}

// Validate asks what the API server serves. Where it does not answer, or may not
// be asked, that is not known.
func (c resourceCheck) Validate(ctx context.Context) error {
	known, err := c.cluster.Resources(ctx, c.selection.Version)
	if apierrors.IsNotFound(err) {
		return fmt.Errorf("options.apiVersion: the API server does not serve %s: is its CustomResourceDefinition installed?", c.selection.Version)
	}
	if err != nil {
		return nil //nolint:nilerr // it is not known
	}
	for i := range known {
		if r := &known[i]; r.Name == c.selection.Resource {
			if c.selection.Namespace != "" && !r.Namespaced {
				return fmt.Errorf("options.namespace: %s are in no namespace", c.selection.Resource)
			}
			return nil
		}
	}
	return fmt.Errorf("options.resource: the API server serves no %q in %s: see kubectl api-resources --api-group=%s", c.selection.Resource, c.selection.Version, c.selection.Version.Group)
}

// sampleObjects is how many objects Verify changes.
const sampleObjects = 3

// Verify takes from a few objects one field at a time of those that the
// expression reads, and changes one value at a time. Where there are no objects
// and none are needed, it adds one without fields.
func (c resourceCheck) Verify(ctx context.Context) (Verification, error) {
	var kept []cluster.Object
	others, from, err := c.read(ctx, func(o cluster.Object) bool {
		if len(kept) == sampleObjects {
			return false
		}
		kept = append(kept, o)
		return true
	})
	if err != nil {
		r, err := c.unread(err)
		return Verification{Looked: "no " + c.selection.String(), Result: r}, err
	}
	judge := func(some []cluster.Object) gate.Result {
		found := others.clone()
		for _, o := range some {
			// An end of ctx is in the tally as well.
			_ = found.count(ctx, c.expression, o, from.now)
		}
		return found.judge(c.selection, c.options)
	}
	v := Verification{Looked: number(others.objects+len(kept), c.selection), Result: judge(kept)}
	for i, o := range kept {
		for _, m := range worsened(o, c.expression.reads, from.now) {
			changed := slices.Clone(kept)
			changed[i] = m.object
			v.Mutations = append(v.Mutations, Mutation{nameOf(o) + " " + m.change, judge(changed)})
		}
	}
	if len(kept) == 0 && c.options.Minimum == 0 {
		v.Mutations = append(v.Mutations, Mutation{"an object without fields was added", judge([]cluster.Object{{}})})
	}
	return v, ctx.Err()
}

// tally is what was found so far.
type tally struct {
	objects int
	// untrue are those of which the expression is false, and unsure those of
	// which it is not known.
	untrue, unsure few
	// reason is that of the first unsure one.
	reason string
}

func (t tally) clone() tally {
	t.untrue.names, t.unsure.names = slices.Clone(t.untrue.names), slices.Clone(t.unsure.names)
	return t
}

// few counts any number of objects, and names no more than a message does.
type few struct {
	names names
	count int
}

func (f *few) add(name string) {
	if f.count++; f.count <= maxNames {
		f.names = append(f.names, name)
	}
}

func (f few) String() string {
	if f.count > len(f.names) {
		return fmt.Sprintf("%s and %d more", f.names, f.count-len(f.names))
	}
	return f.names.String()
}

// count evaluates the expression for one more object. An error means that ctx
// is over.
func (t *tally) count(ctx context.Context, e *expression, o cluster.Object, now time.Time) error {
	t.objects++
	undecided := func(reason string, err error) {
		if t.reason == "" {
			t.reason = reason
		}
		t.unsure.add(fmt.Sprintf("%s (%v)", nameOf(o), err))
	}
	holds, err := e.holds(ctx, o, now)
	var absent absentError
	switch {
	case ctx.Err() != nil:
		undecided("EvaluationError", ctx.Err())
	case errors.As(err, &absent):
		undecided("FieldAbsent", absent)
	case errors.Is(err, errCost):
		undecided("TooCostly", err)
	case err != nil:
		undecided("EvaluationError", fmt.Errorf("%w%s", err, shown(", ", o, e.reads)))
	case !holds:
		who := nameOf(o)
		if values := shown("", o, e.reads); values != "" {
			who += " (" + values + ")"
		}
		t.untrue.add(who)
	}
	return ctx.Err()
}

// judge is the verdict on what was counted.
func (t tally) judge(s cluster.Selection, o ResourceOptions) gate.Result {
	switch {
	case t.objects == 0 && o.Minimum == 0:
		return gate.Passed("NoneNeeded", "there are no %s, and none are needed", s)
	case t.objects == 0:
		return gate.Failed("NoObjects", "there are no %s", s)
	case t.objects < o.Minimum:
		return gate.Failed("TooFewObjects", "there %s only %s, and the minimum is %d", agree(t.objects, "is", "are"), number(t.objects, s), o.Minimum)
	case t.untrue.count > 0:
		return gate.Failed("ExpressionFalse", "the expression is false for %d of %s: %s", t.untrue.count, number(t.objects, s), t.untrue)
	case t.unsure.count > 0:
		return gate.Undecided(t.reason, "the expression has no result for %d of %s: %s", t.unsure.count, number(t.objects, s), t.unsure)
	}
	return gate.Passed("ExpressionTrue", "the expression is true for %s%s", agree(t.objects, "", "all "), number(t.objects, s))
}

// number is how many objects there are. What is selected is known in the plural
// alone.
func number(objects int, s cluster.Selection) string {
	return fmt.Sprintf("%d %s%s", objects, agree(objects, "object of ", ""), s)
}

// nameOf names an object, with its namespace where it is in one.
func nameOf(o cluster.Object) string {
	namespace, _ := field{"metadata", "namespace"}.of(o)
	name, ok := field{"metadata", "name"}.of(o)
	if !ok {
		return "an object without a name"
	}
	if namespace, ok := namespace.(string); ok && namespace != "" {
		return fmt.Sprintf("%s/%v", namespace, name)
	}
	return fmt.Sprint(name)
}

// maxShown bounds how many fields of an object a message shows.
const maxShown = 4

// shown tells, after the prefix, what the expression made its result of: those
// of the fields that have a single value.
func shown(prefix string, o cluster.Object, reads []field) string {
	var values []string
	for _, f := range reads {
		value, ok := f.of(o)
		switch value.(type) {
		case cluster.Object, []any:
			continue
		}
		if !ok {
			values = append(values, "no "+f.String())
		} else if text, err := json.Marshal(value); err == nil {
			values = append(values, fmt.Sprintf("%s: %.60s", f, text))
		}
		if len(values) == maxShown {
			break
		}
	}
	if len(values) == 0 {
		return ""
	}
	return prefix + strings.Join(values, ", ")
}

// variant is a copy of an object with one change for the worse.
type variant struct {
	object cluster.Object
	change string
}

// maxChanges bounds how many changes of values one object is put through, and
// deepest how far below a field they are looked for.
const (
	maxChanges = 100
	deepest    = 5
)

// worsened returns copies of the object: each without one of the fields, or
// with one of the values in them changed.
func worsened(o cluster.Object, reads []field, now time.Time) []variant {
	var out []variant
	for _, f := range reads {
		value, ok := f.of(o)
		if !ok {
			continue
		}
		if len(f) > 0 {
			out = append(out, variant{replaced(o, f, nil, true).(cluster.Object), "without " + f.String()})
		}
		for _, single := range singles(f, value, deepest) {
			before, _ := single.of(o)
			for _, other := range otherValues(before, now) {
				if len(out) >= maxChanges {
					return out
				}
				out = append(out, variant{replaced(o, single, other, false).(cluster.Object), fmt.Sprintf("with %s changed from %.60s to %.60s", single, asJSON(before), asJSON(other))})
			}
		}
	}
	return out
}

func asJSON(value any) string {
	encoded, _ := json.Marshal(value)
	return string(encoded)
}

// singles returns the paths of the strings, numbers and truth values in the
// field, in a fixed order.
func singles(f field, value any, depth int) []field {
	if depth == 0 {
		return nil
	}
	var out []field
	switch value := value.(type) {
	case cluster.Object:
		for _, key := range slices.Sorted(maps.Keys(value)) {
			out = append(out, singles(append(slices.Clip(f), key), value[key], depth-1)...)
		}
	case []any:
		for i := range value {
			out = append(out, singles(append(slices.Clip(f), int64(i)), value[i], depth-1)...)
		}
	case nil:
	default:
		out = append(out, f)
	}
	return out
}

// otherValues returns values of the same type.
func otherValues(value any, now time.Time) []any {
	switch value := value.(type) {
	case bool:
		return []any{!value}
	case int64:
		return distinct(value, value-1, value+1, int64(0))
	case float64:
		return distinct(value, value-1, value+1, 0.0)
	case string:
		if _, err := time.Parse(time.RFC3339, value); err == nil {
			return distinct(value, time.Unix(0, 0).UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
		}
		return distinct(value, "another", "")
	}
	return nil
}

func distinct[T comparable](value T, others ...T) []any {
	var out []any
	for _, other := range others {
		if other != value && !slices.Contains(out, any(other)) {
			out = append(out, other)
		}
	}
	return out
}

// replaced returns a copy of the container in which the field is another value, or
// is not there. What is beside the path is shared.
func replaced(container any, f field, value any, without bool) any {
	if len(f) == 0 {
		return value
	}
	switch container := container.(type) {
	case cluster.Object:
		key := f[0].(string)
		out := maps.Clone(container)
		if len(f) == 1 && without {
			delete(out, key)
		} else {
			out[key] = replaced(container[key], f[1:], value, without)
		}
		return out
	case []any:
		i := int(f[0].(int64))
		out := slices.Clone(container)
		if len(f) == 1 && without {
			return slices.Delete(out, i, i+1)
		}
		out[i] = replaced(container[i], f[1:], value, without)
		return out
	}
	return container
}
