package checks

import (
	"context"
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/common/model"

	"github.com/sentinel-gate/sentinel-gate/gate"
	"github.com/sentinel-gate/sentinel-gate/gate/cluster"
)

// PromQLOptions are the options of promql.
type PromQLOptions struct {
	// Prometheus is where to ask.
	Prometheus Server `json:"prometheus"`
	// Query is the PromQL expression, evaluated at one instant.
	Query string `json:"query"`
	// Expect is what its answer must be: empty, or values of which each one
	// compares.
	Expect Expectation `json:"expect"`
	// RequireSeries is a second expression that must return something, for the
	// answer to the first to prove anything: an expression also returns nothing
	// when its metric is missing.
	RequireSeries string `json:"requireSeries"`
	// TrustEmpty takes an empty answer for a good one without RequireSeries.
	TrustEmpty bool `json:"trustEmpty"`
}

func promQLDefaults() PromQLOptions { return PromQLOptions{Prometheus: serverDefaults()} }

// Expectation is what a value must be, such as "< 5". The zero value expects
// that there is none.
type Expectation struct {
	operator string
	number   float64
}

var expectationFormat = regexp.MustCompile(`^\s*(==|!=|<=|>=|<|>)\s*([-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?)\s*$`)

// UnmarshalText accepts empty, or a comparison with a number.
func (e *Expectation) UnmarshalText(text []byte) error {
	if string(text) == "empty" {
		*e = Expectation{}
		return nil
	}
	const want = `want empty, or a comparison with a number such as "< 5"`
	parts := expectationFormat.FindStringSubmatch(string(text))
	if parts == nil {
		return fmt.Errorf("%s, not %.100q", want, text)
	}
	number, err := strconv.ParseFloat(parts[2], 64)
	if err != nil {
		return fmt.Errorf("%s, not %.100q", want, text)
	}
	*e = Expectation{parts[1], number}
	return nil
}

// String returns the expectation as it is configured.
func (e Expectation) String() string {
	if e.empty() {
		return "empty"
	}
	return e.operator + " " + strconv.FormatFloat(e.number, 'g', -1, 64)
}

func (e Expectation) empty() bool { return e.operator == "" }

// holds is false for every NaN.
func (e Expectation) holds(value float64) bool {
	switch e.operator {
	case "==":
		return value == e.number
	case "!=":
		return value != e.number && !math.IsNaN(value)
	case "<":
		return value < e.number
	case "<=":
		return value <= e.number
	case ">":
		return value > e.number
	case ">=":
		return value >= e.number
	}
	return false
}

// broken is the value nearest to the number for which it does not hold.
func (e Expectation) broken() float64 {
	switch e.operator {
	case "==", "<=":
		return math.Nextafter(e.number, math.Inf(1))
	case ">=":
		return math.Nextafter(e.number, math.Inf(-1))
	}
	return e.number
}

type promQL struct {
	options    PromQLOptions
	prometheus *prometheusAPI
}

var _ Verifier = promQL{}

func newPromQL(o PromQLOptions, _ *cluster.Cluster) (gate.Check, []error) {
	var problems []error
	wrong := func(text string) { problems = append(problems, errors.New(text)) }
	if strings.TrimSpace(o.Query) == "" {
		wrong("options.query: say what to ask, in PromQL")
	}
	required := strings.TrimSpace(o.RequireSeries) != ""
	switch {
	case !required && o.RequireSeries != "":
		wrong("options.requireSeries: has nothing in it but space")
	case required && o.TrustEmpty:
		wrong("options.trustEmpty: is for a query without requireSeries")
	case !o.Expect.empty() && o.TrustEmpty:
		wrong("options.trustEmpty: is for expect: empty; a comparison always wants a value")
	case o.Expect.empty() && !required && !o.TrustEmpty:
		wrong("options.requireSeries: a query also returns nothing when its metric is missing or misspelt: say which series must be there for an empty answer to prove anything, or set trustEmpty")
	}
	server, invalid := newPrometheus("options.prometheus", o.Prometheus)
	if problems = append(problems, invalid...); len(problems) > 0 {
		return nil, problems
	}
	return promQL{o, server}, nil
}

// reply is what Prometheus said.
type reply struct {
	value    model.Value
	required model.Value // nil: nothing is required
}

// Check asks the query, and for the required series.
func (c promQL) Check(ctx context.Context) (gate.Result, error) {
	r, err := c.read(ctx)
	var lacking incomplete
	if errors.As(err, &lacking) {
		return gate.Undecided("IncompleteAnswer", "%v", err), nil
	}
	if err != nil {
		return gate.Result{}, err
	}
	return expected(r, c.options), nil
}

func (c promQL) read(ctx context.Context) (r reply, err error) {
	if r.value, err = c.prometheus.query(ctx, c.options.Query); err != nil {
		return r, err
	}
	if c.options.RequireSeries != "" {
		r.required, err = c.prometheus.query(ctx, c.options.RequireSeries)
	}
	return r, err
}

// Verify takes the required series away; where it compares, also the values,
// makes one NaN, and one that does not compare; where nothing is expected, it
// has one series returned. Where an empty answer is trusted there is nothing to
// change: it is empty as well when the query asks for what does not exist.
func (c promQL) Verify(ctx context.Context) (Verification, error) {
	r, err := c.read(ctx)
	if err != nil {
		return Verification{}, err
	}
	v := Verification{
		Looked: fmt.Sprintf("the query returned %s", amount(r.value)),
		Result: expected(r, c.options),
	}
	mutate := func(change string, changed reply) {
		v.Mutations = append(v.Mutations, Mutation{change, expected(changed, c.options)})
	}
	if r.required != nil {
		v.Looked += fmt.Sprintf(", requireSeries %s", amount(r.required))
		mutate("requireSeries returned nothing", reply{value: r.value, required: model.Vector{}})
	}
	valued := func(value float64) reply {
		return reply{value: worse(r.value, model.SampleValue(value)), required: r.required}
	}
	switch {
	case !c.options.Expect.empty():
		broken := c.options.Expect.broken()
		mutate(fmt.Sprintf("one value was %s", model.SampleValue(broken)), valued(broken))
		mutate("one value was NaN", valued(math.NaN()))
		mutate("the query returned nothing", reply{value: model.Vector{}, required: r.required})
	case c.options.TrustEmpty:
		mutate("the metrics of the query did not exist", reply{value: model.Vector{}})
	default:
		mutate("the query returned one series", valued(1))
	}
	return v, nil
}

// worse is a copy in which the first value is another. Where there is none, it
// is one.
func worse(value model.Value, with model.SampleValue) model.Value {
	switch value := value.(type) {
	case *model.Scalar:
		return &model.Scalar{Value: with, Timestamp: value.Timestamp}
	case model.Vector:
		first := model.Sample{Metric: model.Metric{}}
		if len(value) > 0 {
			first = model.Sample{Metric: value[0].Metric, Timestamp: value[0].Timestamp}
		}
		first.Value = with
		return append(model.Vector{&first}, value[min(1, len(value)):]...)
	}
	return value
}

func amount(value model.Value) string {
	if vector, ok := value.(model.Vector); ok {
		return fmt.Sprintf("%d series", len(vector))
	}
	return "a " + value.Type().String()
}

// expected is the pure part. Without the required series nothing is proven,
// whatever the query returned; but what it returned against expectation is told
// first.
func expected(r reply, o PromQLOptions) gate.Result {
	samples, problem := samplesOf(r.value, o.Expect)
	if problem != "" {
		return gate.Undecided("WrongType", "the query returned %s", problem)
	}
	var notNumbers, against names
	for _, s := range samples {
		switch value := float64(s.Value); {
		case o.Expect.empty():
			against = append(against, seriesName(s))
		case math.IsNaN(value):
			notNumbers = append(notNumbers, seriesName(s))
		case !o.Expect.holds(value):
			against = append(against, seriesName(s))
		}
	}
	switch {
	case len(against) > 0 && o.Expect.empty():
		return gate.Failed("SeriesReturned", "the query returned %d series, and should return none: %s", len(against), against)
	case len(against) > 0:
		return gate.Failed("ValuesNotAsExpected", "%d of %s %s not %s: %s", len(against), gate.Count(len(samples), "value"), agree(len(against), "is", "are"), o.Expect, against)
	case len(notNumbers) > 0:
		return gate.Undecided("NotANumber", "%d of %s %s not a number, so %s not compare: %s", len(notNumbers), gate.Count(len(samples), "value"), agree(len(notNumbers), "is", "are"), agree(len(notNumbers), "it does", "they do"), notNumbers)
	case len(samples) == 0 && !o.Expect.empty():
		return gate.Undecided("NoValues", "the query returned nothing, and values that are %s were expected: is the metric still there?", o.Expect)
	}
	if o.RequireSeries != "" {
		vector, ok := r.required.(model.Vector)
		switch {
		case !ok:
			return gate.Undecided("RequiredSeriesWrongType", "requireSeries returned a %s, which proves nothing: it must return a vector", typeOf(r.required))
		case len(vector) == 0:
			return gate.Undecided("RequiredSeriesMissing", "the query returned what it should, but requireSeries returned nothing, so that proves nothing: is the metric still there? (%s)", o.RequireSeries)
		}
	}
	if o.Expect.empty() {
		return gate.Passed("NothingReturned", "the query returned nothing")
	}
	return gate.Passed("ValuesAsExpected", "%s %s %s", all(len(samples), "value"), agree(len(samples), "is", "are"), o.Expect)
}

// samplesOf returns the answer's values, or in words what it is instead.
func samplesOf(value model.Value, expect Expectation) (samples model.Vector, problem string) {
	switch value := value.(type) {
	case *model.Scalar:
		if expect.empty() {
			return nil, "a scalar, which is never empty: compare it, or ask for a vector"
		}
		return model.Vector{&model.Sample{Value: value.Value}}, ""
	case model.Vector:
		if !expect.empty() && slices.ContainsFunc(value, func(s *model.Sample) bool { return s.Histogram != nil }) {
			return nil, "a histogram, which does not compare with a number: use histogram_count, histogram_avg or the like"
		}
		return value, ""
	}
	return nil, fmt.Sprintf("a %s: ask for a vector or a scalar", typeOf(value))
}

func typeOf(value model.Value) string {
	if value == nil {
		return "nothing"
	}
	return value.Type().String()
}

// seriesName is the sample's series and value.
func seriesName(s *model.Sample) string {
	if s.Histogram != nil {
		return s.Metric.String() + " (a histogram)"
	}
	if len(s.Metric) == 0 {
		return s.Value.String()
	}
	return s.Metric.String() + " " + s.Value.String()
}
