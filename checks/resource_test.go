package checks

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sentinel-gate/sentinel-gate/gate"
	"github.com/sentinel-gate/sentinel-gate/gate/cluster"
)

// phase is an object with a status of so much.
func phase(name string, value any) cluster.Object {
	return cluster.Object{"metadata": cluster.Object{"namespace": "ns", "name": name}, "status": cluster.Object{"phase": value}}
}

func TestTally(t *testing.T) {
	const ready = `object.status.phase == "Ready"`
	things := cluster.Selection{Version: schema.GroupVersion{Group: "example.com", Version: "v1"}, Resource: "things", Namespace: "ns"}
	bare := cluster.Object{"metadata": cluster.Object{"name": "bare"}}
	many := func(n int, value any) []cluster.Object {
		var out []cluster.Object
		for i := range n {
			out = append(out, phase(fmt.Sprintf("n%02d", i), value))
		}
		return out
	}
	for _, c := range []struct {
		name       string
		expression string
		objects    []cluster.Object
		minimum    int
		want       wanted
	}{
		{"all", ready, many(3, "Ready"), 1, wanted{gate.Pass, "ExpressionTrue", "the expression is true for all 3 things.example.com in namespace ns"}},
		{"TestF02NoObjects", ready, nil, 1, wanted{gate.Fail, "NoObjects", "there are no things.example.com in namespace ns"}},
		{"none, and none needed", ready, nil, 0, wanted{gate.Pass, "NoneNeeded", "there are no things.example.com in namespace ns, and none are needed"}},
		{"too few", ready, many(2, "Ready"), 3, wanted{gate.Fail, "TooFewObjects", "there are only 2 things.example.com in namespace ns, and the minimum is 3"}},
		{"too few, and one that is not", ready, many(2, "Gone"), 3, wanted{gate.Fail, "TooFewObjects", ""}},
		{"one that need not be, and is not", ready, many(1, "Gone"), 0, wanted{gate.Fail, "ExpressionFalse", ""}},
		{
			"one of three", ready, append(many(2, "Ready"), phase("x", "Gone")), 1,
			wanted{gate.Fail, "ExpressionFalse", `the expression is false for 1 of 3 things.example.com in namespace ns: ns/x (status.phase: "Gone")`},
		},
		{
			"more than are named", ready, many(7, nil), 1,
			wanted{gate.Fail, "ExpressionFalse", "the expression is false for 7 of 7 things.example.com in namespace ns: ns/n00 (status.phase: null), ns/n01 (status.phase: null), ns/n02 (status.phase: null), ns/n03 (status.phase: null), ns/n04 (status.phase: null) and 2 more"},
		},
		{
			"what it read", `object.status.phase == "Ready" && object.spec.a.b == 1 && object.status == {} && object.?spec.c.orValue(0) == 0`, many(1, strings.Repeat("x", 100)), 1,
			wanted{gate.Fail, "ExpressionFalse", `the expression is false for 1 of 1 object of things.example.com in namespace ns: ns/n00 (status.phase: "` + strings.Repeat("x", 59) + `, no spec.a.b, no spec.c)`},
		},
		{"nothing that it read", "1 == 2", many(1, nil), 1, wanted{gate.Fail, "ExpressionFalse", "the expression is false for 1 of 1 object of things.example.com in namespace ns: ns/n00"}},
		{
			"an absent field", ready, []cluster.Object{phase("a", "Ready"), bare}, 1,
			wanted{gate.Unknown, "FieldAbsent", "the expression has no result for 1 of 2 things.example.com in namespace ns: bare (no field status)"},
		},
		{
			"a field of another type", "object.status.phase > 3", []cluster.Object{phase("a", "Ready"), phase("b", int64(4))}, 1,
			wanted{gate.Unknown, "EvaluationError", `the expression has no result for 1 of 2 things.example.com in namespace ns: ns/a (no such overload, status.phase: "Ready")`},
		},
		{
			"too costly", `lists.range(10000).all(x, lists.range(10000).all(y, object.status.phase != ""))`, many(1, "Ready"), 1,
			wanted{gate.Unknown, "TooCostly", "the expression has no result for 1 of 1 object of things.example.com in namespace ns: ns/n00 (it took more than 1000000 steps)"},
		},
		{"false of one, unknown of another", ready, []cluster.Object{bare, phase("x", "Gone")}, 1, wanted{gate.Fail, "ExpressionFalse", ""}},
		{"the first one's reason", "object.status.phase > 3", []cluster.Object{phase("a", "Ready"), bare}, 1, wanted{gate.Unknown, "EvaluationError", ""}},
		{"the first one's reason, the other way about", "object.status.phase > 3", []cluster.Object{bare, phase("a", "Ready")}, 1, wanted{gate.Unknown, "FieldAbsent", ""}},
		{"an object that is null", ready, []cluster.Object{nil}, 1, wanted{gate.Unknown, "FieldAbsent", "the expression has no result for 1 of 1 object of things.example.com in namespace ns: an object without a name (no field status)"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var found tally
			for _, o := range c.objects {
				if err := found.count(t.Context(), mustCompile(t, c.expression), o, now); err != nil {
					t.Fatal(err)
				}
			}
			c.want.compare(t, found.judge(things, ResourceOptions{Minimum: c.minimum}))
		})
	}
}

func TestSelectionSaysWhatAndWhere(t *testing.T) {
	for want, s := range map[string]cluster.Selection{
		"pods": {Version: schema.GroupVersion{Version: "v1"}, Resource: "pods"},
		`clusters.postgresql.cnpg.io with labels "a=b" with fields "metadata.name=c" in namespace d`: {
			Version: schema.GroupVersion{Group: "postgresql.cnpg.io", Version: "v1"}, Resource: "clusters", Labels: "a=b", Fields: "metadata.name=c", Namespace: "d",
		},
	} {
		if got := s.String(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestResourceRules(t *testing.T) {
	for options, want := range map[string]rbacv1.PolicyRule{
		`{"apiVersion": "v1", "resource": "pods", "expression": "object.a == 1"}`:                      cluster.Permit("", "pods", "list", "watch"),
		`{"apiVersion": "ceph.rook.io/v1", "resource": "cephclusters", "expression": "1 == object.a"}`: cluster.Permit("ceph.rook.io", "cephclusters", "list", "watch"),
	} {
		check, problems := New("resource", []byte(options), nil)
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		if got := RulesOf(check); len(got) != 1 || fmt.Sprint(got[0]) != fmt.Sprint(want) {
			t.Errorf("got %v, want %v", got, want)
		}
	}
}

// One change at a time, and none to the object itself.
func TestWorsened(t *testing.T) {
	o := cluster.Object{
		"spec":   cluster.Object{"n": int64(1), "f": 0.0, "b": true, "l": []any{cluster.Object{"s": "x"}, "y"}},
		"status": cluster.Object{"at": "2026-03-14T11:00:00Z", "empty": ""},
	}
	e := mustCompile(t, `object.spec.n == 1 && object.spec.f == 0.0 && object.spec.b == true && object.spec.l.exists(x, x == "y") && object.status.at == object.status.empty && has(object.status.gone)`)
	before, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, v := range worsened(o, e.reads, now) {
		after, err := json.Marshal(v.object)
		if err != nil {
			t.Fatal(err)
		}
		if string(after) == string(before) {
			t.Errorf("%s: nothing is changed", v.change)
		}
		got = append(got, v.change)
	}
	want := []string{
		`without spec.n`, `with spec.n changed from 1 to 0`, `with spec.n changed from 1 to 2`,
		`without spec.f`, `with spec.f changed from 0 to -1`, `with spec.f changed from 0 to 1`,
		`without spec.b`, `with spec.b changed from true to false`,
		`without spec.l`, `with spec.l[0].s changed from "x" to "another"`, `with spec.l[0].s changed from "x" to ""`,
		`with spec.l[1] changed from "y" to "another"`, `with spec.l[1] changed from "y" to ""`,
		`without status.at`, `with status.at changed from "2026-03-14T11:00:00Z" to "1970-01-01T00:00:00Z"`, `with status.at changed from "2026-03-14T11:00:00Z" to "2026-03-14T12:00:00Z"`,
		`without status.empty`, `with status.empty changed from "" to "another"`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if after, err := json.Marshal(o); err != nil || string(after) != string(before) {
		t.Errorf("the object became %s", after)
	}
}

// An element of a list that is dropped is dropped from the copy alone.
func TestWorsenedList(t *testing.T) {
	list := []any{"a", "b"}
	variants := worsened(cluster.Object{"l": list}, mustCompile(t, `object.l[0] == "a"`).reads, now)
	if got := fmt.Sprint(variants[0].object); got != "map[l:[b]]" || fmt.Sprint(list) != "[a b]" {
		t.Errorf("got %s, and the object has %v", got, list)
	}
}

// However large an object is, it is put through a bounded number of changes.
func TestWorsenedIsBounded(t *testing.T) {
	var list []any
	for i := range 1000 {
		list = append(list, int64(i))
	}
	if n := len(worsened(cluster.Object{"l": list}, mustCompile(t, `size(object.l) == 3`).reads, now)); n != maxChanges {
		t.Errorf("%d changes", n)
	}
}

// endless answers with something, and then the same for ever.
type endless struct {
	start  io.Reader
	filler string
	sent   int
}

func (e *endless) Read(p []byte) (int, error) {
	if n, _ := e.start.Read(p); n > 0 {
		return n, nil
	}
	n := 0
	for n < len(p) {
		n += copy(p[n:], e.filler[(e.sent+n)%len(e.filler):])
	}
	e.sent += n
	return n, nil
}

// Objects without an end are read one at a time, and no more is held at the
// millionth than at the first.
func TestTallyIsBounded(t *testing.T) {
	held := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	enough := errors.New("enough")
	e := mustCompile(t, `object.a == "other"`)
	var found tally
	var first uint64
	_, err := cluster.ReadList(&endless{start: strings.NewReader(`{"items": [{}`), filler: `,{"a": "` + strings.Repeat("x", 1000) + `"}`}, func(o cluster.Object) error {
		if err := found.count(t.Context(), e, o, now); err != nil {
			return err
		}
		switch found.objects {
		case 1000:
			first = held()
		case 20_000:
			if last := held(); last > first+1<<18 {
				t.Errorf("%d bytes are held after 1,000 objects, and %d after 20,000", first, last)
			}
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) {
		t.Error(err)
	}
}

// A further object can make a pass something else, never something else a
// pass, unless it was wanted for its number; and the order does not matter to
// the verdict.
func FuzzTally(f *testing.F) {
	expressions := []string{
		`object.status.phase == "Ready"`, `object.n > 1 || object.m == 2`, `has(object.n) && object.n < 3`,
		`object.l.all(x, x > 0)`, `object.?n.orValue(0) == 0`, `timestamp(object.status.phase) < now`,
	}
	var compiled []*expression
	for _, text := range expressions {
		compiled = append(compiled, mustCompile(f, text))
	}
	f.Fuzz(func(t *testing.T, which, minimum byte, data []byte) {
		var objects []cluster.Object
		if _, err := cluster.ReadList(bytes.NewReader(data), func(o cluster.Object) error {
			if objects = append(objects, o); len(objects) > 100 {
				return errors.New("enough")
			}
			return nil
		}); err != nil {
			return
		}
		e := compiled[int(which)%len(compiled)]
		o := ResourceOptions{Minimum: int(minimum) % 4}
		judge := func(objects []cluster.Object) gate.Result {
			var found tally
			for _, o := range objects {
				if err := found.count(t.Context(), e, o, now); err != nil {
					t.Fatal(err)
				}
			}
			r := found.judge(cluster.Selection{Resource: "things"}, o)
			if r.Reason == "" || r.Message == "" {
				t.Errorf("a result without words: %+v", r)
			}
			return r
		}
		all := judge(objects)
		if all.Verdict == gate.Pass {
			if len(objects) < o.Minimum {
				t.Errorf("%d objects pass, and %d are needed", len(objects), o.Minimum)
			}
			for _, one := range objects {
				if holds, err := e.holds(t.Context(), one, now); !holds || err != nil {
					t.Errorf("it passes with %v, of which the expression is %t, %v", one, holds, err)
				}
			}
		}
		slices.Reverse(objects)
		if back := judge(objects); back.Verdict != all.Verdict {
			t.Errorf("in one order %+v, in the other %+v", all, back)
		}
		if len(objects) > 0 {
			if fewer := judge(objects[1:]); fewer.Verdict != gate.Pass && all.Verdict == gate.Pass && len(objects)-1 >= o.Minimum && len(objects) > 1 {
				t.Errorf("%+v with all, %+v without one", all, fewer)
			}
		}
		for _, one := range objects {
			for _, v := range worsened(one, e.reads, now) {
				judge([]cluster.Object{v.object})
			}
		}
	})
}
