package checks

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	promapi "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"

	"github.com/sentinel-gate/sentinel-gate/gate"
	"github.com/sentinel-gate/sentinel-gate/gate/cluster"
	"github.com/sentinel-gate/sentinel-gate/gate/packages"
)

// alert is a sample of ALERTS; labels are pairs.
func alert(name string, labels ...model.LabelValue) *model.Sample {
	m := model.Metric{model.MetricNameLabel: "ALERTS", model.AlertNameLabel: model.LabelValue(name), "alertstate": "firing"}
	for i := 0; i < len(labels); i += 2 {
		m[model.LabelName(labels[i])] = labels[i+1]
	}
	return &model.Sample{Metric: m, Value: 1}
}

// active is the sample of ALERTS_FOR_STATE that belongs to an alert.
func active(s *model.Sample, at time.Time) *model.Sample {
	m := s.Metric.Clone()
	m[model.MetricNameLabel] = "ALERTS_FOR_STATE"
	delete(m, "alertstate")
	return &model.Sample{Metric: m, Value: model.SampleValue(at.Unix())}
}

func group(interval float64, rules ...any) promapi.RuleGroup {
	return promapi.RuleGroup{Name: "g", Interval: interval, Rules: rules}
}

func rule(name string, ago time.Duration) promapi.AlertingRule {
	return promapi.AlertingRule{Name: name, Health: promapi.RuleHealthGood, LastEvaluation: now.Add(-ago)}
}

func expressions(t testing.TB, texts ...string) []Regexp {
	t.Helper()
	out := make([]Regexp, len(texts))
	for i, text := range texts {
		if err := out[i].UnmarshalText([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// F96: with exposure an alert that fires for a day after each boot would undo it.
func TestRecentNodeRebootDoesNotCountWithExposure(t *testing.T) {
	for exposed, count := range map[bool]int{false: 1, true: 0} {
		c := alerts{cluster: &cluster.Cluster{}}
		if exposed {
			c.cluster.Parts = func() packages.Found { return packages.Found{} }
		}
		firing := model.Vector{{Metric: model.Metric{model.AlertNameLabel: "RecentNodeReboot"}}}
		if got := blocking(firing, c.asked()); len(got) != count {
			t.Errorf("with exposure %t %d alerts count: %v", exposed, len(got), got)
		}
	}
}

func TestQuiet(t *testing.T) {
	// proven is what a healthy Prometheus says while nothing fires.
	proven := func(change ...func(*alarm)) alarm {
		a := alarm{
			firing: model.Vector{alert("Watchdog")}, required: true, longer: true, served: true, now: now,
			rules: []promapi.RuleGroup{group(30, rule("Watchdog", 10*time.Second), rule("DiskFull", 10*time.Second))},
		}
		for _, c := range change {
			c(&a)
		}
		return a
	}
	fires := func(s ...*model.Sample) func(*alarm) {
		return func(a *alarm) { a.firing = append(a.firing, s...) }
	}
	rules := func(g ...promapi.RuleGroup) func(*alarm) { return func(a *alarm) { a.rules = g } }
	failing := rule("DiskFull", 10*time.Second)
	failing.Health, failing.LastError = promapi.RuleHealthBad, "many-to-many matching not allowed"
	wordless := failing
	wordless.LastError = ""
	never := promapi.AlertingRule{Name: "DiskFull", Health: promapi.RuleHealthUnknown}
	recording := promapi.RecordingRule{Name: "job:up:sum", Health: promapi.RuleHealthGood, LastEvaluation: now.Add(-10 * time.Second)}
	badRecording := recording
	badRecording.Health, badRecording.LastError = promapi.RuleHealthBad, "boom"
	lateRecording := recording
	lateRecording.LastEvaluation = now.Add(-time.Hour)
	disk := alert("DiskFull", "severity", "critical", "instance", "n1", "prometheus", "a/b", "endpoint", "web", "service", "s", "container", "c")
	other := alert("DiskFull", "severity", "critical", "instance", "n2")

	defaults := alertsDefaults()
	with := func(change func(*AlertsOptions)) AlertsOptions {
		o := alertsDefaults()
		change(&o)
		return o
	}
	unproven := with(func(o *AlertsOptions) { o.RequireFiring = "" })
	ignoring := func(texts ...string) AlertsOptions {
		return with(func(o *AlertsOptions) { o.Ignore = expressions(t, texts...) })
	}

	for _, c := range []struct {
		name    string
		a       alarm
		options AlertsOptions
		want    wanted
	}{
		{"quiet", proven(), defaults, wanted{gate.Pass, "NoAlerts", "no alert fires but those ignored"}},

		// What fires.
		{
			"one fires", proven(fires(disk)), defaults,
			wanted{gate.Fail, "AlertsFiring", `1 alert fires: DiskFull{instance="n1", severity="critical"}`},
		},
		{
			"for how long, of each", proven(fires(disk, other), func(a *alarm) {
				a.since = model.Vector{active(other, now.Add(-30*day)), active(disk, now.Add(-90*time.Second))}
			}), defaults,
			wanted{gate.Fail, "AlertsFiring", `2 alerts fire: DiskFull{instance="n1", severity="critical"} for 1m30s, DiskFull{instance="n2", severity="critical"} for 30d`},
		},
		{
			"since a time that is yet to come", proven(fires(alert("Up")), func(a *alarm) { a.since = model.Vector{active(alert("Up"), now.Add(time.Hour))} }),
			defaults, wanted{gate.Fail, "AlertsFiring", "1 alert fires: Up for 0s"},
		},
		{
			"the age of another alert is not its own", proven(fires(disk), func(a *alarm) { a.since = model.Vector{active(other, now.Add(-time.Hour))} }),
			defaults, wanted{gate.Fail, "AlertsFiring", `1 alert fires: DiskFull{instance="n1", severity="critical"}`},
		},
		{
			// What fires is told first, whatever else is missing.
			"fires, and nothing is proven", alarm{firing: model.Vector{alert("Up")}, now: now}, defaults,
			wanted{gate.Fail, "AlertsFiring", "1 alert fires: Up"},
		},
		{"an alert without a name", proven(fires(alert(""))), unproven, wanted{gate.Fail, "AlertsFiring", ""}},

		// What does not count.
		{
			"TestF16OwnAlerts", proven(fires(alert("SentinelGateClosedForLong"), alert("SentinelGate"), alert("RebootRequired"), alert("InfoInhibitor"))),
			defaults, wanted{gate.Pass, "NoAlerts", ""},
		},
		{
			"TestF16NotJustAnyPrefix", proven(fires(alert("NotSentinelGate"), alert("RebootRequiredOnDatabase"), alert("watchdog"))), defaults,
			wanted{gate.Fail, "AlertsFiring", "3 alerts fire: NotSentinelGate, RebootRequiredOnDatabase, watchdog"},
		},
		{"ignored by name", proven(fires(alert("KubeJobFailed"), alert("CPUThrottlingHigh"))), ignoring("KubeJob.*", "CPUThrottlingHigh"), wanted{gate.Pass, "NoAlerts", ""}},
		{
			"ignored names are anchored", proven(fires(alert("KubeJobFailedTwice"), alert("MyKubeJobFailed"))), ignoring("KubeJobFailed"),
			wanted{gate.Fail, "AlertsFiring", "2 alerts fire: KubeJobFailedTwice, MyKubeJobFailed"},
		},
		{
			"alternatives are anchored too", proven(fires(alert("AX"), alert("XB"))), ignoring("A|B"),
			wanted{gate.Fail, "AlertsFiring", "2 alerts fire: AX, XB"},
		},
		{"the required alert does not count", proven(fires(alert("Alive"))), with(func(o *AlertsOptions) { o.RequireFiring = "Alive" }), wanted{gate.Pass, "NoAlerts", ""}},

		// F17: silence proves nothing.
		{
			"TestF17RequiredNotFiring", proven(func(a *alarm) { a.required = false }), defaults,
			wanted{gate.Unknown, "RequiredAlertNotFiring", "nothing fires, not even Watchdog, which should always fire: are the rules loaded, and is this the right Prometheus? (requireFiring)"},
		},
		{
			"TestF17RequiredNeverFired", proven(func(a *alarm) { a.required, a.longer = false, false }), defaults,
			wanted{gate.Unknown, "RequiredAlertNotFiring", ""},
		},
		{
			"TestF17RequiredTooYoung", proven(func(a *alarm) { a.longer = false }), defaults,
			wanted{gate.Unknown, "RequiredAlertTooYoung", "Watchdog fires now but has not done so for the last 15m without a gap: Prometheus has lost its past, was away or only just started, and its other alerts may still be pending"},
		},
		{
			"TestF17NothingProvesRules", proven(func(a *alarm) { a.served, a.rules = false, nil }), unproven,
			wanted{gate.Unknown, "NothingProvesRules", "nothing fires, and nothing proves that something could: the server has no rules API, so name an alert that always fires in requireFiring"},
		},
		{"no rules API, and the required alert", proven(func(a *alarm) { a.served, a.rules = false, nil }), defaults, wanted{gate.Pass, "NoAlerts", ""}},
		{"TestF17NoRules", proven(rules()), unproven, wanted{gate.Unknown, "NoRules", "nothing fires, because the server has no rules"}},
		{"TestF17NoRulesInTheirGroup", proven(rules(group(30))), unproven, wanted{gate.Unknown, "NoRules", ""}},
		{"TestF17OnlyIgnoredRules", proven(rules(group(30, rule("Watchdog", 0)))), unproven, wanted{gate.Unknown, "NoRules", ""}},
		{"rules, and no required alert", proven(), unproven, wanted{gate.Pass, "NoAlerts", ""}},
		{
			// A server that evaluates the rules elsewhere has an empty list.
			"an empty list, and the required alert", proven(rules()), defaults, wanted{gate.Pass, "NoAlerts", ""},
		},

		// F17: rules that are not evaluated, or not well.
		{
			"TestF17RuleFails", proven(rules(group(30, failing, rule("Up", time.Second)))), defaults,
			wanted{gate.Unknown, "RulesUnhealthy", "nothing fires, but 1 rule is not healthy or not evaluated: g/DiskFull (many-to-many matching not allowed)"},
		},
		{"TestF17RuleFailsWithoutAWord", proven(rules(group(30, wordless))), defaults, wanted{gate.Unknown, "RulesUnhealthy", "nothing fires, but 1 rule is not healthy or not evaluated: g/DiskFull (health err)"}},
		{"TestF17RuleNeverEvaluated", proven(rules(group(30, never))), defaults, wanted{gate.Unknown, "RulesUnhealthy", "nothing fires, but 1 rule is not healthy or not evaluated: g/DiskFull (health unknown)"}},
		{"TestF17HealthyButNeverEvaluated", proven(rules(group(30, promapi.AlertingRule{Name: "Up", Health: promapi.RuleHealthGood}))), defaults, wanted{gate.Unknown, "RulesUnhealthy", ""}},
		{
			"TestF17RecordingRuleFails", proven(rules(group(30, badRecording))), defaults,
			wanted{gate.Unknown, "RulesUnhealthy", "nothing fires, but 1 rule is not healthy or not evaluated: g/job:up:sum (boom)"},
		},
		{"TestF17RecordingRuleLate", proven(rules(group(30, lateRecording))), defaults, wanted{gate.Unknown, "RulesUnhealthy", "nothing fires, but 1 rule is not healthy or not evaluated: g/job:up:sum (last evaluated 1h0m0s ago)"}},
		{"a recording rule is a rule", proven(rules(group(30, recording))), unproven, wanted{gate.Pass, "NoAlerts", ""}},
		{
			"TestF17RuleOfNoKnownKind", proven(rules(group(30, "what"))), defaults,
			wanted{gate.Unknown, "RulesUnhealthy", "nothing fires, but 1 rule is not healthy or not evaluated: g/string (unknown type of rule)"},
		},
		{
			"TestF17RequiredRuleFails", proven(rules(group(30, promapi.AlertingRule{Name: "Watchdog", Health: promapi.RuleHealthBad, LastError: "boom", LastEvaluation: now}))), defaults,
			wanted{gate.Unknown, "RulesUnhealthy", "nothing fires, but 1 rule is not healthy or not evaluated: g/Watchdog (boom)"},
		},
		{"the rule of an ignored alert fails", proven(rules(group(30, failing, rule("Up", 0)))), ignoring("Disk.*"), wanted{gate.Pass, "NoAlerts", ""}},

		// Late: three of its intervals, and a minute at least.
		{"three intervals ago", proven(rules(group(60, rule("Up", 3*time.Minute)))), defaults, wanted{gate.Pass, "NoAlerts", ""}},
		{
			"TestF17LaterThanThreeIntervals", proven(rules(group(60, rule("Up", 3*time.Minute+time.Second)))), defaults,
			wanted{gate.Unknown, "RulesUnhealthy", "nothing fires, but 1 rule is not healthy or not evaluated: g/Up (last evaluated 3m1s ago)"},
		},
		{"a minute ago, of a short interval", proven(rules(group(1, rule("Up", time.Minute)))), defaults, wanted{gate.Pass, "NoAlerts", ""}},
		{"TestF17LaterThanAMinute", proven(rules(group(1, rule("Up", time.Minute+time.Second)))), defaults, wanted{gate.Unknown, "RulesUnhealthy", ""}},
		{"TestF17LateWithoutAnInterval", proven(rules(group(0, rule("Up", time.Minute+time.Second)))), defaults, wanted{gate.Unknown, "RulesUnhealthy", ""}},
		{
			// Each group has its own interval.
			"a slow group beside a quick one", proven(rules(group(3600, rule("Slow", 2*time.Hour)), group(15, rule("Quick", 20*time.Second)))),
			defaults, wanted{gate.Pass, "NoAlerts", ""},
		},
		{"evaluated a moment from now", proven(rules(group(30, rule("Up", -time.Minute)))), defaults, wanted{gate.Pass, "NoAlerts", ""}},
	} {
		t.Run(c.name, func(t *testing.T) { c.want.compare(t, quiet(c.a, c.options)) })
	}
}

func TestRegexp(t *testing.T) {
	for text, ok := range map[string]bool{
		"Watch.*": true, "": true, "A|B": true, "(?i)disk": true,
		"(": false, "a)": false, "*": false,
		// Whoever wrote this did not mean to ignore whatever begins with A.
		"A)|(B": false, "A)|(?:.*": false,
	} {
		var r Regexp
		if err := r.UnmarshalText([]byte(text)); (err == nil) != ok {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestMatcher(t *testing.T) {
	const form = `not a label matcher: want, for example, severity=~"critical|warning", not `
	for _, c := range []struct{ text, want string }{
		{`severity="critical"`, ``},
		{`severity!="none"`, ``},
		{`severity=~"critical|warning"`, ``},
		{`namespace !~ "test-.*"`, ``},
		{`team=""`, ``},
		{`path="a\"b\\c"`, ``},
		// In PromQL, as in Go, a backslash is itself escaped.
		{`instance=~"10\\.0\\..*"`, ``},
		{`name=~"job \\(nightly\\)"`, ``},
		{`name=~"\\("`, ``},
		{``, form + `""`},
		{`severity`, form + `"severity"`},
		{`severity=critical`, form + `"severity=critical"`},
		{`severity='critical'`, form + `"severity='critical'"`},
		{`severity=="critical"`, form + `"severity==\"critical\""`},
		{`0a="b"`, form + `"0a=\"b\""`},
		{`a="b",c="d"`, form + `"a=\"b\",c=\"d\""`},
		{`a="b"} or up{x="y"`, form + `"a=\"b\"} or up{x=\"y\""`},
		{`a="b\"`, form + `"a=\"b\\\""`},
		{"a=\"b\nc\"", form + `"a=\"b\nc\""`},
		{`{a="b"}`, form + `"{a=\"b\"}"`},
		{`alertstate="pending"`, `not a label matcher: alertstate is the check's own`},
		{`__name__="up"`, `not a label matcher: __name__ is the check's own`},
		{`a=~"("`, "not a label matcher: \"(\": error parsing regexp: missing closing ): `(`"},
		{`a=~"\\"`, "not a label matcher: \"\\\\\": error parsing regexp: trailing backslash at end of expression: ``"},
		{`a!~"[z-a]"`, "not a label matcher: \"[z-a]\": error parsing regexp: invalid character class range: `z-a`"},
		// PromQL knows no such escapes, so Prometheus would refuse each query.
		{`a=~"\d+"`, `not a label matcher: "\d+": invalid syntax`},
		{`a="C:\Users"`, `not a label matcher: "C:\Users": invalid syntax`},
		{`a=~"10\.0\..*"`, `not a label matcher: "10\.0\..*": invalid syntax`},
	} {
		t.Run(c.text, func(t *testing.T) {
			var m Matcher
			got := ""
			if err := m.UnmarshalText([]byte(c.text)); err != nil {
				got = err.Error()
			}
			if got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
			if c.want == "" && string(m) != c.text {
				t.Errorf("it became %s", m)
			}
		})
	}
}

// What is taken for a matcher is one, and only one, to PromQL too: a name, an
// operator and a string, whose content is an expression where it is used as
// one.
func FuzzMatcher(f *testing.F) {
	for _, seed := range []string{
		`severity=~"critical|warning"`, `a!="b"`, `a !~ "\\."`, `a="b\"c"`, `a="b"}`, `a="`, "a=\"\n\"", `__name__="x"`, `a=~"("`,
	} {
		f.Add(seed)
	}
	form := regexp.MustCompile(`^([a-zA-Z_][a-zA-Z0-9_]*)\s*(=|!=|=~|!~)\s*$`)
	f.Fuzz(func(t *testing.T, text string) {
		var m Matcher
		if err := m.UnmarshalText([]byte(text)); err != nil {
			return
		}
		quote := strings.Index(text, `"`)
		if quote < 0 {
			t.Fatalf("%q has no value", text)
		}
		parts := form.FindStringSubmatch(text[:quote])
		if parts == nil || parts[1] == "alertstate" || parts[1] == model.MetricNameLabel {
			t.Fatalf("%q begins with %q", text, parts)
		}
		value, err := strconv.Unquote(text[quote:]) // the same rules as PromQL's
		if err != nil {
			t.Fatalf("%q has the value %s, which is no string", text, text[quote:])
		}
		if strings.HasSuffix(parts[2], "~") {
			if _, err := regexp.Compile("^(?s:" + value + ")$"); err != nil {
				t.Errorf("%q: %v", text, err)
			}
		}
	})
}

func TestAlertsOptions(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*AlertsOptions)
		want   string
	}{
		{"right", func(*AlertsOptions) {}, ``},
		{"nothing required", func(o *AlertsOptions) { o.RequireFiring = "" }, ``},
		{"no URL", func(o *AlertsOptions) { o.Prometheus.URL = "" }, `options.prometheus.url: want an http or https URL, not ""`},
		{"no scheme", func(o *AlertsOptions) { o.Prometheus.URL = "prometheus:9090" }, `options.prometheus.url: want an http or https URL, not "prometheus:9090"`},
		{"another scheme", func(o *AlertsOptions) { o.Prometheus.URL = "file:///etc/passwd" }, `options.prometheus.url: want an http or https URL, not "file:///etc/passwd"`},
		{"no host", func(o *AlertsOptions) { o.Prometheus.URL = "http://" }, `options.prometheus.url: want an http or https URL, not "http://"`},
		{"not a URL", func(o *AlertsOptions) { o.Prometheus.URL = "http://a b" }, `options.prometheus.url: want an http or https URL, not "http://a b"`},
		{
			// Without the past there is no telling data that was lost.
			"TestF17NoPast", func(o *AlertsOptions) { o.RequireFiringAgo = 0 }, `options.requireFiringAgo: must be longer than 0s`,
		},
		{"not a name", func(o *AlertsOptions) { o.RequireFiring = "\xff" }, `options.requireFiring: not the name of an alert`},
		{
			"all of it", func(o *AlertsOptions) { *o = AlertsOptions{RequireFiring: "\xff"} },
			"options.requireFiringAgo: must be longer than 0s\noptions.requireFiring: not the name of an alert\n" +
				`options.prometheus.url: want an http or https URL, not ""`,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := alertsDefaults()
			o.Prometheus.URL = "http://prometheus:9090/prefix"
			c.change(&o)
			check, problems := newAlerts(o, nil)
			compareMistakes(t, check, problems, c.want)
		})
	}
}

// Answers that no real Prometheus gives when it is asked for, from a server
// that answers everything else as one whose Watchdog always fires.
func TestAlertsCheck(t *testing.T) {
	const (
		empty = `{"status":"success","data":{"resultType":"vector","result":[]}}`
		one   = `{"status":"success","data":{"resultType":"vector","result":[{"metric":{"alertname":"Watchdog"},"value":[1,"1"]}]}}`
	)
	rules := func() string {
		return fmt.Sprintf(`{"status":"success","data":{"groups":[{"name":"g","file":"f","interval":30,"rules":[
			{"type":"alerting","name":"Watchdog","query":"vector(1)","health":"ok","lastEvaluation":%q,"alerts":[]}]}]}}`, time.Now().UTC().Format(time.RFC3339Nano))
	}
	healthy := func(w http.ResponseWriter, r *http.Request) {
		query := r.FormValue("query")
		switch {
		case strings.HasSuffix(r.URL.Path, "/api/v1/rules"):
			_, _ = io.WriteString(w, rules())
		case strings.Contains(query, `alertname="Watchdog"`):
			_, _ = io.WriteString(w, one)
		default:
			_, _ = io.WriteString(w, empty)
		}
	}
	onRules := func(answer http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/api/v1/rules") {
				answer(w, r)
				return
			}
			healthy(w, r)
		}
	}
	onGaps := func(answer http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.FormValue("query"), "count_over_time(") {
				answer(w, r)
				return
			}
			healthy(w, r)
		}
	}
	onFirst := func(answer http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.FormValue("query"), `ALERTS{alertstate="firing"}`) {
				answer(w, r)
				return
			}
			healthy(w, r)
		}
	}
	write := func(body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) }
	}
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", code) }
	}
	dateless := func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Date"] = nil
		healthy(w, r)
	}

	for _, c := range []struct {
		name          string
		answer        http.HandlerFunc
		requireFiring string
		want          wanted // where it answers
		problem       string // where it cannot decide
	}{
		{"healthy", healthy, "Watchdog", wanted{gate.Pass, "NoAlerts", "no alert fires but those ignored"}, ""},
		{"TestF17AGapInThePast", onGaps(write(empty)), "Watchdog", wanted{gate.Unknown, "RequiredAlertTooYoung", ""}, ""},
		{"TestF19NotPrometheus", onGaps(write("<html>log in</html>")), "Watchdog", wanted{}, `asking HOST for count_over_time(ALERTS{alertstate="firing",alertname="Watchdog"}[15m:1m]) >= 15: the answer is not one of Prometheus' API: "<html>log in</html>"`},
		{"TestF19NoRulesInIt", onRules(write(`{}`)), "Watchdog", wanted{}, `asking HOST for its rules: the answer is not one of Prometheus' API: "{}"`},
		{"no rules API: 404", onRules(status(404)), "Watchdog", wanted{gate.Pass, "NoAlerts", ""}, ""},
		{"no rules API: 405", onRules(status(405)), "Watchdog", wanted{gate.Pass, "NoAlerts", ""}, ""},
		{"no rules API: 501", onRules(status(501)), "Watchdog", wanted{gate.Pass, "NoAlerts", ""}, ""},
		{"TestF17NoRulesAPIAndNothingRequired", onRules(status(404)), "", wanted{gate.Unknown, "NothingProvesRules", ""}, ""},
		{"rules API is broken", onRules(status(500)), "Watchdog", wanted{}, "asking HOST for its rules: server_error: server error: 500"},
		{"rules API is forbidden", onRules(status(403)), "Watchdog", wanted{}, "asking HOST for its rules: client_error: client error: 403"},
		{
			"TestF19WarningOnRules", onRules(write(`{"status":"success","data":{"groups":[]},"warnings":["store a","store b"]}`)), "Watchdog",
			wanted{}, `asking HOST for its rules: the answer may be incomplete: it came with the warning "store a; store b"`,
		},
		{
			"TestF19Partial", onFirst(write(`{"status":"success","isPartial":true,"data":{"resultType":"vector","result":[]}}`)), "Watchdog",
			wanted{}, `asking HOST for ALERTS{alertstate="firing"}: the answer is partial, by its own word (isPartial)`,
		},
		{
			"TestF19AnotherType", onFirst(write(`{"status":"success","data":{"resultType":"matrix","result":[]}}`)), "Watchdog",
			wanted{}, `asking HOST for ALERTS{alertstate="firing"}: the answer is of the type matrix, not a vector`,
		},
		{
			"TestF19QueryRefused", onFirst(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(http.StatusUnprocessableEntity)
				_, _ = io.WriteString(w, `{"status":"error","errorType":"execution","error":"too many samples"}`)
			}), "Watchdog", wanted{}, `asking HOST for ALERTS{alertstate="firing"}: execution: too many samples`,
		},
		{"TestF01Unauthorized", status(401), "Watchdog", wanted{}, `asking HOST for ALERTS{alertstate="firing"}: client_error: client error: 401`},
		{
			"TestF32NoDate", dateless, "Watchdog", wanted{},
			"asking Prometheus: no answer carried a Date header, so the server's time is not known: is a proxy in between removing it?",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			server := httptest.NewServer(c.answer)
			defer server.Close()
			o := alertsDefaults()
			o.Prometheus.URL, o.RequireFiring = server.URL+"?token=secret", c.requireFiring
			check, problems := newAlerts(o, nil)
			if len(problems) > 0 {
				t.Fatal(problems)
			}
			got, err := check.Check(t.Context())
			if c.problem == "" {
				if err != nil {
					t.Fatal(err)
				}
				c.want.compare(t, got)
				return
			}
			if err == nil {
				t.Fatalf("it decided: %+v", got)
			}
			if text := strings.ReplaceAll(err.Error(), strings.TrimPrefix(server.URL, "http://"), "HOST"); text != c.problem {
				t.Errorf("got  %s\nwant %s", text, c.problem)
			}
		})
	}

	// A server that is not there: its URL, in which a token may stand, is not told.
	t.Run("TestF01Refused", func(t *testing.T) {
		server := httptest.NewServer(http.HandlerFunc(healthy))
		server.Close()
		o := alertsDefaults()
		o.Prometheus.URL = strings.Replace(server.URL, "http://", "http://user:secret@", 1) + "?token=secret"
		check, problems := newAlerts(o, nil)
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		_, err := check.Check(t.Context())
		if err == nil || !strings.Contains(err.Error(), "connection refused") || strings.Contains(err.Error(), "secret") {
			t.Errorf("got %v", err)
		}
	})
}

// The queries that are asked: with the matchers in all that asks for alerts,
// with its own in the proof, and the past by its offset and without a gap.
func TestAlertsQueries(t *testing.T) {
	var asked []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/rules") {
			asked = append(asked, "rules")
			http.NotFound(w, r)
			return
		}
		asked = append(asked, r.FormValue("query"))
		if at := r.FormValue("time"); at != "" {
			t.Errorf("it asks for the time %s, by this node's clock", at)
		}
		_, _ = io.WriteString(w, `{"status":"success","data":{"resultType":"vector","result":[{"metric":{"alertname":"A"},"value":[1,"1"]}]}}`)
	}))
	defer server.Close()
	o := alertsDefaults()
	o.Prometheus.URL, o.Match, o.RequireFiringMatch = server.URL, []Matcher{`a="b"`, `c=~"d|e"`}, []Matcher{`f!="g"`}
	o.RequireFiringAgo = model.Duration(90 * time.Minute)
	check, problems := newAlerts(o, nil)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	if _, err := check.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := `ALERTS{alertstate="firing",a="b",c=~"d|e"}
ALERTS_FOR_STATE{a="b",c=~"d|e"}
ALERTS{alertstate="firing",alertname="Watchdog",f!="g"}
ALERTS{alertstate="firing",alertname="Watchdog",f!="g"} offset 1h30m
count_over_time(ALERTS{alertstate="firing",alertname="Watchdog",f!="g"}[1h30m:6m]) >= 15
rules`
	if got := strings.Join(asked, "\n"); got != want {
		t.Errorf("asked\n%s\nwant\n%s", got, want)
	}
}
