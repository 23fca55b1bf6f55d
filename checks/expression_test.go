package checks

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sentinel-gate/sentinel-gate/gate"
	"github.com/sentinel-gate/sentinel-gate/gate/cluster"
)

func mustCompile(t testing.TB, text string) *expression {
	t.Helper()
	e, mistakes := compile(text)
	if len(mistakes) > 0 {
		t.Fatal(mistakes)
	}
	return e
}

// Every mistake is shown where it is: what is compared is the whole message.
func TestExpressionMistakes(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"an unknown name", `objct.status.phase == "Ready"`, `
line 1, column 1: undeclared reference to 'objct'
    objct.status.phase == "Ready"
    ^`},
		{"two mistakes", `object.a == b && c(1)`, `
line 1, column 13: undeclared reference to 'b'
    object.a == b && c(1)
                ^
line 1, column 19: undeclared reference to 'c'
    object.a == b && c(1)
                      ^`},
		{"cut off", `object.a ==`, `
line 1, column 12: Syntax error: mismatched input '<EOF>' expecting {'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}
    object.a ==
               ^`},
		{"on the second line, after a tab", "object.a == 1 &&\n\tobject.b.(c)", `
line 2, column 11: Syntax error: no viable alternative at input '.('
    	object.b.(c)
    	         ^`},
		{"after letters of more than one byte", `object.a == "größer" && x`, `
line 1, column 25: undeclared reference to 'x'
    object.a == "größer" && x
                            ^`},
		{"types that do not fit", `1 + "a" == 2`, `
line 1, column 3: found no matching overload for '_+_' applied to '(int, string)'
    1 + "a" == 2
      ^`},
		{"a number", `size(object.a)`, `
line 1, column 5: the result must be true or false, and is of type int
    size(object.a)
        ^`},
		{"a field", `object.spec.paused`, `
line 1, column 12: the result must be true or false, and a field may be anything: compare it, as in object.spec.paused == false
    object.spec.paused
               ^`},
		{"a regular expression", `object.a.matches("(")`, `
line 1, column 18: invalid matches argument
    object.a.matches("(")
                     ^`},
		{"a duration", `now - timestamp(object.a) < duration("5 minutes")`, `
line 1, column 38: invalid duration argument
    now - timestamp(object.a) < duration("5 minutes")
                                         ^`},
		{"too long", `object.a == "` + strings.Repeat("x", maxExpression) + `"`, `
expression code point size exceeds limit: size: 4110, limit 4096`},
	} {
		t.Run(c.name, func(t *testing.T) {
			e, mistakes := compile(c.text)
			if got := "\n" + errors.Join(mistakes...).Error(); got != c.want {
				t.Errorf("got%s\nwant%s", got, c.want)
			}
			if e != nil {
				t.Error("it was compiled all the same")
			}
		})
	}
}

// A slip at the beginning may be hundreds of mistakes to a parser.
func TestExpressionMistakesAreFew(t *testing.T) {
	_, mistakes := compile(strings.Repeat("a + ", 50) + "a")
	if len(mistakes) != maxMistakes {
		t.Errorf("%d mistakes", len(mistakes))
	}
}

func TestHolds(t *testing.T) {
	o := cluster.Object{
		"metadata": cluster.Object{"name": "x", "labels": cluster.Object{"example.com/a": "b"}, "generation": int64(3)},
		"spec":     cluster.Object{"replicas": int64(3), "ratio": 0.5, "size": "1536Mi"},
		"status": cluster.Object{
			"phase": "Ready", "at": "2026-03-14T11:55:00Z", "nothing": nil,
			"conditions": []any{cluster.Object{"type": "A", "status": "True"}, cluster.Object{"type": "B", "status": "False"}},
		},
	}
	for _, c := range []struct {
		text  string
		holds bool
		err   string
	}{
		{`object.status.phase == "Ready"`, true, ""},
		{`object.status.phase != "Ready"`, false, ""},
		{`object.spec.replicas == 3 && object.spec.replicas < 3.5 && object.spec.ratio < 1`, true, ""},
		{`object.metadata.labels["example.com/a"] == "b"`, true, ""},
		{`object.status.conditions.exists(c, c.type == "A" && c.status == "True")`, true, ""},
		{`object.status.conditions.all(c, c.status == "True")`, false, ""},
		{`now - timestamp(object.status.at) == duration("5m")`, true, ""},
		{`now.getHours() == 12`, true, ""},
		{`object.status.nothing == "x"`, false, ""},

		// The libraries.
		{`quantity(object.spec.size).isGreaterThan(quantity("1Gi")) && quantity("1").compareTo(quantity("2")) == -1`, true, ""},
		{`quantity("1000m") == quantity("1") && !quantity("1").isLessThan(quantity("1")) && quantity("1") != quantity("2")`, true, ""},
		{`isQuantity("1Gi") && !isQuantity("much")`, true, ""},
		{`object.status.phase.lowerAscii() == "ready" && [3, 1].sort() == [1, 3] && sets.contains([1, 2], [1]) && math.greatest(1, 2) == 2`, true, ""},
		{`regex.extract(object.spec.size, "([0-9]+)Mi") == optional.of("1536") && cel.bind(p, object.status.phase, p == "Ready")`, true, ""},
		{`object.metadata.labels.all(k, v, v == "b")`, true, ""},

		// What is absent.
		{`object.status.missing == 1`, false, "no field status.missing"},
		{`object.lost.missing.deep == 1`, false, "no field lost"},
		{`object.metadata.labels["example.com/c"] == "b"`, false, `no field metadata.labels["example.com/c"]`},
		{`object.status.conditions[0].reason == "x"`, false, "no field status.conditions[0].reason"},
		{`object.status.conditions.all(c, c.reason == "x")`, false, "no field reason"},
		{`object.status.conditions[5].type == "x"`, false, "index out of bounds: 5"},
		{`has(object.status.missing)`, false, ""},
		{`object.status.?missing.orValue(0) == 0`, true, ""},
		{`object.status.?missing.deep.orValue(0) == 0`, true, ""},
		{`object.status.missing == 1 && object.status.phase == "Ready"`, false, "no field status.missing"},
		{`object.status.missing == 1 && object.status.phase == "Gone"`, false, ""},
		{`object.status.missing == 1 || object.status.phase == "Ready"`, true, ""},

		// What has no result.
		{`object.status.phase > 1`, false, "no such overload"},
		{`object.spec.replicas / 0 == 1`, false, "division by zero"},
		{`timestamp(object.status.phase) < now`, false, `invalid RFC 3339 timestamp "Ready"`},
		{`quantity(object.status.phase) == quantity("1")`, false, `"Ready" is no quantity: quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'`},
		{`lists.range(10000).all(x, lists.range(10000).all(y, x == x))`, false, "it took more than 1000000 steps"},
		{`lists.range(10001) == []`, false, "lists.range: size 10001 exceeds maximum allowed (10000)"},
	} {
		t.Run(c.text, func(t *testing.T) {
			before := fmt.Sprint(o)
			holds, err := mustCompile(t, c.text).holds(t.Context(), o, now)
			got := ""
			if err != nil {
				got = err.Error()
			}
			if holds != c.holds || got != c.err {
				t.Errorf("got %t, %q", holds, got)
			}
			if fmt.Sprint(o) != before {
				t.Error("it changed the object")
			}
		})
	}
}

// A loop ends with its context, not when it is through.
func TestHoldsEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	e := mustCompile(t, `lists.range(10000).all(x, lists.range(10000).all(y, x == x))`)
	if _, err := e.holds(ctx, cluster.Object{}, now); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestFieldsRead(t *testing.T) {
	for text, want := range map[string]string{
		`true`:               ``,
		`now.getHours() < 6`: ``,
		`object.a.b == 1 && object.a.b < object.c`: `a.b c`,
		`object["a"]["b/c"].d == 1`:                `a["b/c"].d`,
		`object.a[2].b == 1`:                       `a[2].b`,
		`object.a[object.i] == 1`:                  `a i`,
		`has(object.a.b) && object.?c.d.orValue(1) == 1 && object[?"e"].hasValue()`: `a.b c.d e`,
		`object.a.exists(x, x.b == object.c)`:                                       `a c`,
		`cel.bind(s, object.status, s.x == s.y)`:                                    `status`,
	} {
		var got []string
		for _, f := range mustCompile(t, text).reads {
			got = append(got, f.String())
		}
		if slices.Sort(got); strings.Join(got, " ") != want {
			t.Errorf("%s reads %q, want %q", text, got, want)
		}
	}
}

// Whatever the text is, it is compiled or refused with words; what is compiled
// is then true, false or neither of an object, and never panics.
func FuzzExpression(f *testing.F) {
	located := regexp.MustCompile(`^line [1-9][0-9]*, column [1-9][0-9]*: .+\n    .*\n    [ \t]*\^$`)
	f.Fuzz(func(t *testing.T, text string) {
		e, mistakes := compile(text)
		if (e == nil) == (len(mistakes) == 0) {
			t.Fatalf("%q: %v, %v", text, e, mistakes)
		}
		for _, m := range mistakes {
			if strings.HasPrefix(m.Error(), "line ") && !located.MatchString(m.Error()) {
				t.Errorf("%q: no caret in\n%s", text, m)
			}
		}
		if e == nil {
			return
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		for _, o := range []cluster.Object{nil, {}, {"status": cluster.Object{"phase": "Ready", "n": int64(1), "l": []any{"a"}}}} {
			began := time.Now()
			if holds, err := e.holds(ctx, o, now); holds && err != nil {
				t.Errorf("%q is true of %v, with the error %v", text, o, err)
			}
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("%q took %s", text, took)
			}
			for _, v := range worsened(o, e.reads, now) {
				var found tally
				if err := found.count(ctx, e, v.object, now); err != nil {
					t.Fatal(err)
				}
				if r := found.judge(cluster.Selection{}, resourceDefaults()); r.Verdict == gate.Pass && r.Reason != "ExpressionTrue" {
					t.Errorf("%q: %+v", text, r)
				}
			}
		}
	})
}
