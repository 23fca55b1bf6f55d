package checks

import (
	"errors"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"

	"github.com/sentinel-gate/sentinel-gate/gate"
	"github.com/sentinel-gate/sentinel-gate/test/kit/controlplane"
	"github.com/sentinel-gate/sentinel-gate/test/kit/prometheus"
	"github.com/sentinel-gate/sentinel-gate/test/kit/suite"
)

func expectation(t testing.TB, text string) Expectation {
	t.Helper()
	var e Expectation
	if err := e.UnmarshalText([]byte(text)); err != nil {
		t.Fatal(err)
	}
	return e
}

func TestExpectation(t *testing.T) {
	const want = `want empty, or a comparison with a number such as "< 5", not `
	for _, c := range []struct{ text, want, problem string }{
		{"empty", "empty", ""},
		{"== 0", "== 0", ""},
		{"!=0", "!= 0", ""},
		{"  <  5 ", "< 5", ""},
		{">= -1.5e3", ">= -1500", ""},
		{"> +0.25", "> 0.25", ""},
		{"<= .5", "<= 0.5", ""},
		{"", "", want + `""`},
		{"Empty", "", want + `"Empty"`},
		{"0", "", want + `"0"`},
		{"= 0", "", want + `"= 0"`},
		{"=< 5", "", want + `"=< 5"`},
		{"< five", "", want + `"< five"`},
		{"< 5%", "", want + `"< 5%"`},
		{"< 1.2.3", "", want + `"< 1.2.3"`},
		{"< 1e999", "", want + `"< 1e999"`},
		{"< 0x10", "", want + `"< 0x10"`},
		// Nothing is below NaN, and everything finite is below infinity.
		{"< NaN", "", want + `"< NaN"`},
		{"< Inf", "", want + `"< Inf"`},
		{"< 5 or > 7", "", want + `"< 5 or > 7"`},
	} {
		t.Run(c.text, func(t *testing.T) {
			var e Expectation
			problem := ""
			if err := e.UnmarshalText([]byte(c.text)); err != nil {
				problem = err.Error()
			}
			if problem != c.problem {
				t.Errorf("got  %s\nwant %s", problem, c.problem)
			}
			if problem == "" && e.String() != c.want {
				t.Errorf("it became %s, want %s", e, c.want)
			}
		})
	}
}

// What is taken for an expectation is one that its own text gives again, that
// no NaN fulfils, and that can be broken.
func FuzzExpectation(f *testing.F) {
	for _, seed := range []string{"empty", "== 0", "!= -1", "<1e3", ">= 1e308", "<= -1.7976931348623157e308", "> .5", "< NaN", "", "== 0 "} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var e, again Expectation
		if err := e.UnmarshalText([]byte(text)); err != nil {
			return
		}
		if err := again.UnmarshalText([]byte(e.String())); err != nil || again != e {
			t.Errorf("%q became %s, which became %s: %v", text, e, again, err)
		}
		if e.holds(math.NaN()) {
			t.Errorf("%s holds for NaN", e)
		}
		if !e.empty() && e.holds(e.broken()) {
			t.Errorf("%s holds for %v", e, e.broken())
		}
	})
}

func scalar(value float64) *model.Scalar { return &model.Scalar{Value: model.SampleValue(value)} }

// values is a vector of series that are named a, b, and so on.
func values(values ...float64) model.Vector {
	vector := model.Vector{}
	for i, v := range values {
		vector = append(vector, &model.Sample{Metric: model.Metric{"s": model.LabelValue(rune('a' + i))}, Value: model.SampleValue(v)})
	}
	return vector
}

func TestExpected(t *testing.T) {
	nan, inf := math.NaN(), math.Inf(1)
	histogram := model.Vector{&model.Sample{Metric: model.Metric{"s": "a"}, Histogram: &model.SampleHistogram{}}}
	for _, c := range []struct {
		name           string
		value          model.Value
		required       model.Value
		expect, series string
		want           wanted
	}{
		// Nothing is expected.
		{"nothing", values(), values(1), "empty", "up", wanted{gate.Pass, "NothingReturned", "the query returned nothing"}},
		{"nothing, and it is trusted", values(), nil, "empty", "", wanted{gate.Pass, "NothingReturned", ""}},
		{"a series", values(0), values(1), "empty", "up", wanted{gate.Fail, "SeriesReturned", `the query returned 1 series, and should return none: {s="a"} 0`}},
		{
			"many series", values(6, 5, 4, 3, 2, 1, nan), values(1), "empty", "up",
			wanted{gate.Fail, "SeriesReturned", `the query returned 7 series, and should return none: {s="a"} 6, {s="b"} 5, {s="c"} 4, {s="d"} 3, {s="e"} 2 and 2 more`},
		},
		{"a series, and what is required is missing", values(0), values(), "empty", "up", wanted{gate.Fail, "SeriesReturned", ""}},
		{"a series without labels", model.Vector{&model.Sample{Value: 2}}, values(1), "empty", "up", wanted{gate.Fail, "SeriesReturned", "the query returned 1 series, and should return none: 2"}},
		{"a histogram", histogram, values(1), "empty", "up", wanted{gate.Fail, "SeriesReturned", `the query returned 1 series, and should return none: {s="a"} (a histogram)`}},
		{
			"TestF19NothingForWantOfTheMetric", values(), values(), "empty", "up{job=\"x\"}",
			wanted{gate.Unknown, "RequiredSeriesMissing", `the query returned what it should, but requireSeries returned nothing, so that proves nothing: is the metric still there? (up{job="x"})`},
		},
		{"TestF19RequiredIsNil", values(), nil, "empty", "up", wanted{gate.Unknown, "RequiredSeriesWrongType", "requireSeries returned a nothing, which proves nothing: it must return a vector"}},
		{"TestF19RequiredIsScalar", values(), scalar(0), "empty", "1", wanted{gate.Unknown, "RequiredSeriesWrongType", "requireSeries returned a scalar, which proves nothing: it must return a vector"}},
		{
			"TestF19ScalarIsNeverEmpty", scalar(0), values(1), "empty", "up",
			wanted{gate.Unknown, "WrongType", "the query returned a scalar, which is never empty: compare it, or ask for a vector"},
		},
		{"TestF19Matrix", model.Matrix{}, values(1), "empty", "up", wanted{gate.Unknown, "WrongType", "the query returned a matrix: ask for a vector or a scalar"}},
		{"TestF19String", &model.String{}, values(1), "empty", "up", wanted{gate.Unknown, "WrongType", "the query returned a string: ask for a vector or a scalar"}},
		{"TestF19NoAnswer", nil, values(1), "empty", "up", wanted{gate.Unknown, "WrongType", "the query returned a nothing: ask for a vector or a scalar"}},

		// A comparison is.
		{"all compare", values(0, 0), nil, "== 0", "", wanted{gate.Pass, "ValuesAsExpected", "all 2 values are == 0"}},
		{"a scalar compares", scalar(4.5), nil, "< 5", "", wanted{gate.Pass, "ValuesAsExpected", "1 value is < 5"}},
		{"a scalar does not", scalar(5), nil, "< 5", "", wanted{gate.Fail, "ValuesNotAsExpected", "1 of 1 value is not < 5: 5"}},
		{"one does not", values(1, 7, 3), nil, "<= 3", "", wanted{gate.Fail, "ValuesNotAsExpected", `1 of 3 values is not <= 3: {s="b"} 7`}},
		{"infinity", values(inf), nil, "< 5", "", wanted{gate.Fail, "ValuesNotAsExpected", `1 of 1 value is not < 5: {s="a"} +Inf`}},
		{"TestF19NaN", values(1, nan), nil, "< 5", "", wanted{gate.Unknown, "NotANumber", `1 of 2 values is not a number, so it does not compare: {s="b"} NaN`}},
		{"TestF19NaNIsNotUnequal", scalar(nan), nil, "!= 5", "", wanted{gate.Unknown, "NotANumber", "1 of 1 value is not a number, so it does not compare: NaN"}},
		{"NaN, and one does not compare", values(nan, 9), nil, "< 5", "", wanted{gate.Fail, "ValuesNotAsExpected", ""}},
		{"TestF19NoValues", values(), nil, "< 5", "", wanted{gate.Unknown, "NoValues", "the query returned nothing, and values that are < 5 were expected: is the metric still there?"}},
		{"TestF19NoValuesOfNilVector", model.Vector(nil), nil, "< 5", "", wanted{gate.Unknown, "NoValues", ""}},
		{"TestF19Histogram", histogram, nil, "< 5", "", wanted{gate.Unknown, "WrongType", "the query returned a histogram, which does not compare with a number: use histogram_count, histogram_avg or the like"}},
		{"TestF19MatrixCompared", model.Matrix{}, nil, "< 5", "", wanted{gate.Unknown, "WrongType", ""}},
		{"all compare, and what is required is missing", values(1), values(), "< 5", "up", wanted{gate.Unknown, "RequiredSeriesMissing", ""}},
		{"all compare, and what is required is there", values(1), values(nan), "< 5", "up", wanted{gate.Pass, "ValuesAsExpected", ""}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := expected(reply{c.value, c.required}, PromQLOptions{Expect: expectation(t, c.expect), RequireSeries: c.series})
			c.want.compare(t, got)
		})
	}
}

// A pass means that there is nothing, or that every value compares; and that
// what is required is there.
func FuzzExpected(f *testing.F) {
	f.Add("empty", true, 0, 1, 0.0)
	f.Add("< 5", false, 3, 0, 4.0)
	f.Add("!= 5", true, 1, 0, math.NaN())
	f.Add(">= 0", false, 0, 2, math.Inf(-1))
	f.Fuzz(func(t *testing.T, expect string, required bool, series, there int, value float64) {
		o := PromQLOptions{}
		if o.Expect.UnmarshalText([]byte(expect)) != nil || series < 0 || series > 100 || there < 0 || there > 100 {
			return
		}
		r := reply{value: values(make([]float64, series)...)}
		if series > 0 {
			r.value.(model.Vector)[0].Value = model.SampleValue(value)
		}
		if required {
			o.RequireSeries = "up"
			r.required = values(make([]float64, there)...)
		}
		got := expected(r, o)
		if got.Reason == "" || got.Message == "" {
			t.Errorf("%+v", got)
		}
		if got.Verdict != gate.Pass {
			return
		}
		if o.Expect.empty() != (series == 0) || required && there == 0 || series > 0 && !o.Expect.holds(value) || series > 1 && !o.Expect.holds(0) {
			t.Errorf("%d series, one of which is %v, and %d required pass %s", series, value, there, o.Expect)
		}
	})
}

func TestPromQLOptions(t *testing.T) {
	const unproven = `options.requireSeries: a query also returns nothing when its metric is missing or misspelt: say which series must be there for an empty answer to prove anything, or set trustEmpty`
	for _, c := range []struct {
		name   string
		change func(*PromQLOptions)
		want   string
	}{
		{"right", func(*PromQLOptions) {}, ``},
		{"compared", func(o *PromQLOptions) { o.Expect, o.RequireSeries = expectation(t, "< 5"), "" }, ``},
		{"compared, and required", func(o *PromQLOptions) { o.Expect = expectation(t, "< 5") }, ``},
		{"trusted", func(o *PromQLOptions) { o.RequireSeries, o.TrustEmpty = "", true }, ``},
		{"no query", func(o *PromQLOptions) { o.Query = "" }, `options.query: say what to ask, in PromQL`},
		{"a blank query", func(o *PromQLOptions) { o.Query = " \n" }, `options.query: say what to ask, in PromQL`},
		{"nothing required", func(o *PromQLOptions) { o.RequireSeries = "" }, unproven},
		{"a blank required", func(o *PromQLOptions) { o.RequireSeries = " " }, "options.requireSeries: has nothing in it but space"},
		{"required, and trusted", func(o *PromQLOptions) { o.TrustEmpty = true }, `options.trustEmpty: is for a query without requireSeries`},
		{
			"compared, and trusted", func(o *PromQLOptions) { o.Expect, o.RequireSeries, o.TrustEmpty = expectation(t, "< 5"), "", true },
			`options.trustEmpty: is for expect: empty; a comparison always wants a value`,
		},
		{
			"a secret in what is no URL", func(o *PromQLOptions) { o.Prometheus.URL = "htp://user:secret@host/path?token=secret" },
			`options.prometheus.url: want an http or https URL, not "...@host/path"`,
		},
		{
			"all of it", func(o *PromQLOptions) { *o = PromQLOptions{} },
			"options.query: say what to ask, in PromQL\n" + unproven + "\n" + `options.prometheus.url: want an http or https URL, not ""`,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := promQLDefaults()
			o.Prometheus.URL, o.Query, o.RequireSeries = "http://prometheus:9090", "up == 0", "up"
			c.change(&o)
			check, problems := newPromQL(o, nil)
			compareMistakes(t, check, problems, c.want)
		})
	}
}

// Answers that no real Prometheus gives when it is asked for.
func TestPromQLCheck(t *testing.T) {
	answer := func(body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) }
	}
	const empty = `"data":{"resultType":"vector","result":[]}`
	for _, c := range []struct {
		name    string
		answer  http.HandlerFunc
		want    wanted // where it answers
		problem string // where it cannot decide
	}{
		{"nothing", answer(`{"status":"success",` + empty + `}`), wanted{gate.Pass, "NothingReturned", ""}, ""},
		{
			"TestF19Warning", answer(`{"status":"success",` + empty + `,"warnings":["store a","store b"]}`),
			wanted{gate.Unknown, "IncompleteAnswer", `asking HOST for up == 0: the answer may be incomplete: it came with the warning "store a; store b"`}, "",
		},
		{
			"TestF19Partial", answer(`{"status":"success","isPartial":true,` + empty + `}`),
			wanted{gate.Unknown, "IncompleteAnswer", `asking HOST for up == 0: the answer is partial, by its own word (isPartial)`}, "",
		},
		{"TestF19NoData", answer(`{"status":"success"}`), wanted{}, `asking HOST for up == 0: the answer is not one of Prometheus' API: "{\"status\":\"success\"}"`},
		{"TestF19NullData", answer(`{"status":"success","data":null}`), wanted{}, `asking HOST for up == 0: the answer is not one of Prometheus' API: "{\"status\":\"success\",\"data\":null}"`},
		{"TestF19Page", answer("<html>log in</html>"), wanted{}, `asking HOST for up == 0: the answer is not one of Prometheus' API: "<html>log in</html>"`},
		{"TestF01Unauthorized", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusUnauthorized) }, wanted{}, "asking HOST for up == 0: client_error: client error: 401"},
	} {
		t.Run(c.name, func(t *testing.T) {
			server := httptest.NewServer(c.answer)
			defer server.Close()
			o := promQLDefaults()
			o.Prometheus.URL, o.Query, o.TrustEmpty = server.URL+"?token=secret", "up == 0", true
			check, problems := newPromQL(o, nil)
			if len(problems) > 0 {
				t.Fatal(problems)
			}
			got, err := check.Check(t.Context())
			problem := ""
			if err != nil {
				problem = strings.ReplaceAll(err.Error(), strings.TrimPrefix(server.URL, "http://"), "HOST")
			}
			if problem != c.problem {
				t.Errorf("got  %q\nwant %q", problem, c.problem)
			}
			if c.problem == "" {
				got.Message = strings.ReplaceAll(got.Message, strings.TrimPrefix(server.URL, "http://"), "HOST")
				c.want.compare(t, got)
			}
		})
	}
}

// verified runs Verify, and returns what each mutation comes to.
func verified(t *testing.T, check gate.Check) (v Verification, text string) {
	t.Helper()
	v, err := verify(t.Context(), check)
	if err != nil {
		t.Fatal(err)
	}
	lines := []string{v.Looked + ": " + v.Result.Reason}
	for _, m := range v.Mutations {
		lines = append(lines, m.Change+": "+m.Result.Reason)
	}
	return v, strings.Join(lines, "\n")
}

// Everything that a real Prometheus can be asked for.
func TestPromQLAsksPrometheus(t *testing.T) {
	suite.NeedsServers(t)
	p, err := prometheus.Start(t.Context(), prometheus.Options{
		Progress: os.Stderr,
		// A target that is away, and one recorded series.
		ScrapeConfigs: "- {job_name: away, static_configs: [{targets: ['127.0.0.1:1']}]}\n",
		Rules:         "groups:\n- name: test\n  rules:\n  - {record: replicas, expr: vector(3), labels: {db: a}}\n",
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Stop)
	build := func(t *testing.T, query, expect, required string) gate.Check {
		t.Helper()
		o := promQLDefaults()
		o.Prometheus.URL, o.Query, o.RequireSeries, o.Expect = p.URL(), query, required, expectation(t, expect)
		o.TrustEmpty = required == "" && expect == "empty"
		check, problems := newPromQL(o, nil)
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		return check
	}
	ready := build(t, "replicas and on() up", ">= 0", "")
	if err := controlplane.Poll(t.Context(), func() error {
		if r, err := ready.Check(t.Context()); err != nil || r.Verdict != gate.Pass {
			return errors.Join(err, errors.New(r.Message))
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}

	for _, c := range []struct {
		name, query, expect, required string
		want                          wanted
	}{
		{"nothing", `up{job="nobody"} == 0`, "empty", "up", wanted{gate.Pass, "NothingReturned", ""}},
		{"a series", `up == 0`, "empty", "up", wanted{gate.Fail, "SeriesReturned", `the query returned 1 series, and should return none: up{instance="127.0.0.1:1", job="away"} 0`}},
		{"a metric that does not exist", `upp == 0`, "empty", "upp", wanted{gate.Unknown, "RequiredSeriesMissing", ""}},
		{"trusted all the same", `upp == 0`, "empty", "", wanted{gate.Pass, "NothingReturned", ""}},
		{"a value", `replicas`, ">= 3", "", wanted{gate.Pass, "ValuesAsExpected", "1 value is >= 3"}},
		{"too low a value", `replicas`, "> 3", "", wanted{gate.Fail, "ValuesNotAsExpected", `1 of 1 value is not > 3: replicas{db="a"} 3`}},
		{"a scalar", `scalar(replicas)`, "== 3", "", wanted{gate.Pass, "ValuesAsExpected", ""}},
		{"a scalar of nothing", `scalar(nothing)`, "== 3", "", wanted{gate.Unknown, "NotANumber", ""}},
		{"no value", `nothing`, "== 3", "", wanted{gate.Unknown, "NoValues", ""}},
		{"a range", `up[5m]`, "== 0", "", wanted{gate.Unknown, "WrongType", "the query returned a matrix: ask for a vector or a scalar"}},
		{"a scalar that should be empty", `1`, "empty", "up", wanted{gate.Unknown, "WrongType", ""}},
		{"a scalar required", `up == 2`, "empty", "1", wanted{gate.Unknown, "RequiredSeriesWrongType", ""}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := build(t, c.query, c.expect, c.required).Check(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			c.want.compare(t, got)
		})
	}

	for query, want := range map[string]string{
		// What is not PromQL is Prometheus' to say.
		`up ==`: "asking HOST for up ==: bad_data: invalid parameter \"query\": 1:6: parse error: unexpected end of input",
		// A scalar where a vector is due.
		`sum(scalar(up))`: "asking HOST for sum(scalar(up)): bad_data: invalid parameter \"query\": 1:5: parse error: expected type instant vector in aggregation expression, got scalar",
		`vector(up)`:      "asking HOST for vector(up): bad_data: invalid parameter \"query\": 1:8: parse error: expected type scalar in call to function \"vector\", got instant vector",
		// The client does not even decode a string.
		`"up"`: "",
	} {
		_, err := build(t, query, "== 0", "").Check(t.Context())
		if err == nil {
			t.Errorf("%s: it decided", query)
		} else if got := strings.ReplaceAll(err.Error(), strings.TrimPrefix(p.URL(), "http://"), "HOST"); want != "" && got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}

	t.Run("verify", func(t *testing.T) {
		for _, c := range []struct {
			query, expect, required string
			vacuous                 bool
			want                    string
		}{
			{"up == 2", "empty", "up", false, "the query returned 0 series, requireSeries 1 series: NothingReturned\nrequireSeries returned nothing: RequiredSeriesMissing\nthe query returned one series: SeriesReturned"},
			{"upp == 0", "empty", "", true, "the query returned 0 series: NothingReturned\nthe metrics of the query did not exist: NothingReturned"},
			{"replicas", ">= 3", "", false, "the query returned 1 series: ValuesAsExpected\none value was 2.9999999999999996: ValuesNotAsExpected\none value was NaN: NotANumber\nthe query returned nothing: NoValues"},
			{"scalar(replicas)", "== 3", "up", false, "the query returned a scalar, requireSeries 1 series: ValuesAsExpected\nrequireSeries returned nothing: RequiredSeriesMissing\none value was 3.0000000000000004: ValuesNotAsExpected\none value was NaN: NotANumber\nthe query returned nothing: NoValues"},
		} {
			v, got := verified(t, build(t, c.query, c.expect, c.required))
			if got != c.want || v.Vacuous() != c.vacuous {
				t.Errorf("%s: vacuous %t, want %t; got\n%s\nwant\n%s", c.query, v.Vacuous(), c.vacuous, got, c.want)
			}
		}
	})

	t.Run("away", func(t *testing.T) {
		p.Kill()
		_, err := build(t, "up", "== 0", "").Check(t.Context())
		if err == nil || !strings.Contains(err.Error(), "connection refused") {
			t.Errorf("got %v", err)
		}
	})
}

// The whole answer is awaited no longer than the context allows.
func TestPromQLHonoursItsContext(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, `{"status":`)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	defer server.Close()
	o := promQLDefaults()
	o.Prometheus.URL, o.Query, o.TrustEmpty = server.URL, "up", true
	check, _ := newPromQL(o, nil)
	pipeline, err := gate.NewPipeline([]*gate.Step{{Name: "x", Type: "promql", Check: check, Timeout: 100 * time.Millisecond}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := pipeline.Evaluate(t.Context(), nil, nil).Outcomes[0]; got.Verdict != gate.Unknown || got.Reason != gate.ReasonTimeout {
		t.Errorf("got %+v", got)
	}
}
