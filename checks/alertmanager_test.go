package checks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"

	"github.com/sentinel-gate/sentinel-gate/gate"
	"github.com/sentinel-gate/sentinel-gate/test/kit/alertmanager"
	"github.com/sentinel-gate/sentinel-gate/test/kit/controlplane"
	"github.com/sentinel-gate/sentinel-gate/test/kit/suite"
)

func fromAlertmanager(change ...func(*AlertsOptions)) AlertsOptions {
	o := alertsDefaults()
	o.Alertmanager.URL = "http://alertmanager:9093"
	for _, c := range change {
		c(&o)
	}
	return o
}

func TestArrive(t *testing.T) {
	sound := func(change ...func(*delivery)) *delivery {
		d := &delivery{now: now, cluster: "ready", started: now.Add(-day), required: true, since: now.Add(-day)}
		for _, c := range change {
			c(d)
		}
		return d
	}
	silenced := func(d *delivery) { d.suppressed, d.silenced = make([]sentAlert, 3), 2 }
	for _, c := range []struct {
		name string
		d    *delivery
		want wanted
	}{
		{"sound", sound(), wanted{gate.Pass, "NoAlerts", "no alert fires but those ignored"}},
		{"TestF18Silenced", sound(silenced), wanted{gate.Pass, "NoAlerts", "no alert fires but those ignored, 2 that are silenced and 1 that is inhibited"}},
		{"alone", sound(func(d *delivery) { d.cluster = "disabled" }), wanted{gate.Pass, "NoAlerts", ""}},
		{"just old enough", sound(func(d *delivery) { d.started, d.since = now.Add(-15*time.Minute), now.Add(-15*time.Minute) }), wanted{gate.Pass, "NoAlerts", ""}},
		{
			"TestF17Settling", sound(func(d *delivery) { d.cluster = "settling" }),
			wanted{gate.Unknown, "AlertmanagerNotReady", `nothing fires, but the status of Alertmanager's cluster is "settling", not ready`},
		},
		{"TestF17NoStatus", sound(func(d *delivery) { d.cluster = "" }), wanted{gate.Unknown, "AlertmanagerNotReady", ""}},
		{
			"TestF17NotDelivered", sound(func(d *delivery) { d.required = false }),
			wanted{gate.Unknown, "RequiredAlertNotDelivered", "nothing fires in Alertmanager, not even Watchdog, which should always fire: does Prometheus send it its alerts, and is this the right one? (requireFiring)"},
		},
		{
			"TestF17JustStarted", sound(func(d *delivery) { d.started = now.Add(-899 * time.Second) }),
			wanted{gate.Unknown, "AlertmanagerTooYoung", "nothing fires, but Alertmanager only started 14m59s ago, not yet 15m: it may not have been sent everything again"},
		},
		{"TestF32StartsLater", sound(func(d *delivery) { d.started = now.Add(time.Hour) }), wanted{gate.Unknown, "AlertmanagerTooYoung", ""}},
		{"TestF17StartUnknown", sound(func(d *delivery) { d.started = time.Time{} }), wanted{gate.Unknown, "AlertmanagerTooYoung", ""}},
		{
			"TestF17RequiredTooYoung", sound(func(d *delivery) { d.since = now.Add(-time.Minute) }),
			wanted{gate.Unknown, "RequiredAlertTooYoung", "Watchdog fires in Alertmanager for 1m0s only, not yet 15m: other alerts may still be pending in Prometheus"},
		},
		{"TestF17RequiredSinceUnknown", sound(func(d *delivery) { d.since = time.Time{} }), wanted{gate.Unknown, "RequiredAlertTooYoung", ""}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.want.compare(t, quiet(alarm{delivery: c.d}, fromAlertmanager()))
		})
	}

	both := fromAlertmanager(func(o *AlertsOptions) { o.Prometheus.URL = "http://prometheus:9090" })
	for name, c := range map[string]struct {
		a    alarm
		want wanted
	}{
		"both prove it": {
			alarm{delivery: sound(silenced), required: true, longer: true, served: true, now: now},
			wanted{gate.Pass, "NoAlerts", "no alert fires but those ignored, 2 that are silenced and 1 that is inhibited"},
		},
		// Alertmanager goes on showing the start that the alert had before.
		"TestF17PrometheusLostItsPast": {alarm{delivery: sound(), required: true, served: true, now: now}, wanted{gate.Unknown, "RequiredAlertTooYoung", ""}},
		"TestF17NotDelivered": {
			alarm{delivery: sound(func(d *delivery) { d.required = false }), required: true, longer: true, served: true, now: now},
			wanted{gate.Unknown, "RequiredAlertNotDelivered", ""},
		},
		"one fires": {
			alarm{delivery: sound(), firing: model.Vector{alert("DiskFull")}, since: model.Vector{active(alert("DiskFull"), now.Add(-time.Hour))}, now: now.Add(day)},
			wanted{gate.Fail, "AlertsFiring", "1 alert fires: DiskFull for 1h"},
		},
	} {
		t.Run(name, func(t *testing.T) { c.want.compare(t, quiet(c.a, both)) })
	}
}

// Whatever Alertmanager answers, an alert that nothing suppresses counts.
func FuzzDelivered(f *testing.F) {
	for _, seed := range []string{
		`[]`, `[null]`, `[{}]`,
		`[{"labels":{"alertname":"Watchdog"},"startsAt":"2026-03-01T00:00:00Z","status":{"state":"active","silencedBy":[],"inhibitedBy":[],"mutedBy":[]}}]`,
		`[{"labels":{"alertname":"DiskFull","node":"a"},"startsAt":"2026-03-14T11:00:00.123Z","status":{"state":"suppressed","silencedBy":["x"],"inhibitedBy":null}},{"labels":{"alertname":"Down"},"status":{"state":"suppressed","mutedBy":["night"]}}]`,
		`[{"labels":{"alertname":"","__name__":"x","alertstate":"pending"},"startsAt":"0001-01-01T00:00:00Z"}]`,
	} {
		f.Add([]byte(seed))
	}
	o := fromAlertmanager()
	f.Fuzz(func(t *testing.T, data []byte) {
		var sent []sentAlert
		if json.Unmarshal(data, &sent) != nil {
			return
		}
		firing, since, d := delivered(sent, sent[:min(1, len(sent))])
		d.now, d.cluster, d.started = now, "ready", now.Add(-day)
		got := quiet(alarm{firing: firing, since: since, delivery: d}, o)
		if got.Reason == "" || got.Message == "" {
			t.Errorf("%+v", got)
		}
		counts := 0
		for _, a := range sent {
			if len(a.Status.SilencedBy) == 0 && len(a.Status.InhibitedBy) == 0 && !ignored(string(a.Labels[model.AlertNameLabel]), o) {
				counts++
			}
		}
		if (got.Verdict == gate.Fail) != (counts > 0) || got.Verdict == gate.Pass && len(sent) == 0 {
			t.Errorf("%d alerts count: %+v", counts, got)
		}
	})
}

func TestAlertmanagerOptions(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*AlertsOptions)
		want   string
	}{
		{"right", func(*AlertsOptions) {}, ``},
		{"beside Prometheus", func(o *AlertsOptions) { o.Prometheus.URL = "http://prometheus" }, ``},
		{"not a URL", func(o *AlertsOptions) { o.Alertmanager.URL = "alertmanager:9093?token=secret" }, `options.alertmanager.url: want an http or https URL, not "alertmanager:9093"`},
		{
			"TestF17NothingRequired", func(o *AlertsOptions) { o.RequireFiring = "" },
			`options.requireFiring: an Alertmanager without alerts may be one that is sent none: name an alert that always fires`,
		},
		{
			"all of it", func(o *AlertsOptions) {
				o.Prometheus.URL, o.Alertmanager.URL, o.RequireFiring, o.RequireFiringAgo = "a", "b", "", 0
			},
			"options.requireFiringAgo: must be longer than 0s\n" +
				`options.prometheus.url: want an http or https URL, not "a"` + "\n" + `options.alertmanager.url: want an http or https URL, not "b"` + "\n" +
				`options.requireFiring: an Alertmanager without alerts may be one that is sent none: name an alert that always fires`,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			check, problems := newAlerts(fromAlertmanager(c.change), nil)
			compareMistakes(t, check, problems, c.want)
		})
	}
}

// Answers that no real Alertmanager gives when it is asked for.
func TestAlertmanagerAnswers(t *testing.T) {
	healthy := func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasSuffix(r.URL.Path, "/api/v2/status"):
			_, _ = io.WriteString(w, `{"uptime":"2026-01-01T00:00:00Z","cluster":{"status":"ready"}}`)
		case strings.Contains(r.URL.RawQuery, "Watchdog"):
			_, _ = io.WriteString(w, `[{"labels":{"alertname":"Watchdog"},"startsAt":"2026-01-01T00:00:00Z"}]`)
		default:
			_, _ = io.WriteString(w, `[]`)
		}
	}
	on := func(what string, answer http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, what) {
				answer(w, r)
				return
			}
			healthy(w, r)
		}
	}
	write := func(body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) }
	}
	for _, c := range []struct {
		name    string
		answer  http.HandlerFunc
		want    wanted
		problem string
	}{
		{"healthy", healthy, wanted{gate.Pass, "NoAlerts", ""}, ""},
		{"TestF19Null", on("/alerts", write(`null`)), wanted{}, `asking HOST for its alerts: the answer is not one of Alertmanager's API: "null"`},
		{"TestF19NoList", on("/alerts", write(`{"status":"success","data":[]}`)), wanted{}, `asking HOST for its alerts: the answer is not one of Alertmanager's API: "{\"status\":\"success\",\"data\":[]}"`},
		{"TestF19Page", write(`<html>log in</html>`), wanted{}, `asking HOST for its alerts: the answer is not one of Alertmanager's API: "<html>log in</html>"`},
		{"TestF19EverythingIsEmpty", write(`[]`), wanted{}, `asking HOST for its status: the answer is not one of Alertmanager's API: "[]"`},
		{"TestF19EmptyStatus", on("/status", write(`{}`)), wanted{gate.Unknown, "AlertmanagerNotReady", ""}, ""},
		{"TestF01Unauthorized", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusUnauthorized) }, wanted{}, `asking HOST for its alerts: the status is 401 Unauthorized: "no\n"`},
		{"too large", on("/alerts", func(w http.ResponseWriter, _ *http.Request) {
			for range 100 << 4 {
				_, _ = io.WriteString(w, strings.Repeat(" ", 1<<16))
			}
		}), wanted{}, "asking HOST for its alerts: http: request body too large"},
		{"TestF32NoDate", func(w http.ResponseWriter, r *http.Request) {
			w.Header()["Date"] = nil
			healthy(w, r)
		}, wanted{}, "asking HOST: no answer carried a Date header, so the server's time is not known: is a proxy in between removing it?"},
	} {
		t.Run(c.name, func(t *testing.T) {
			server := httptest.NewServer(c.answer)
			defer server.Close()
			check, problems := newAlerts(fromAlertmanager(func(o *AlertsOptions) { o.Alertmanager.URL = server.URL + "/prefix?token=secret" }), nil)
			if len(problems) > 0 {
				t.Fatal(problems)
			}
			got, err := check.Check(t.Context())
			problem := ""
			if err != nil {
				problem = strings.ReplaceAll(err.Error(), strings.TrimPrefix(server.URL, "http://"), "HOST")
			}
			if problem != c.problem {
				t.Errorf("got  %s\nwant %s", problem, c.problem)
			}
			if c.problem == "" {
				c.want.compare(t, got)
			}
		})
	}
}

// The requests: below the prefix, with the URL's own query, and each matcher.
func TestAlertmanagerQueries(t *testing.T) {
	var asked []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		query := r.URL.Query()
		asked = append(asked, fmt.Sprint(r.URL.Path, " ", query["tenant"], query["filter"]))
		if strings.HasSuffix(r.URL.Path, "/status") {
			_, _ = io.WriteString(w, `{}`)
			return
		}
		_, _ = io.WriteString(w, `[]`)
	}))
	defer server.Close()
	check, problems := newAlerts(fromAlertmanager(func(o *AlertsOptions) {
		o.Alertmanager.URL, o.Match, o.RequireFiringMatch = server.URL+"/prefix/?tenant=x", []Matcher{`a="b"`, `c=~"d|e"`}, []Matcher{`f!="g"`}
	}), nil)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	if _, err := check.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := `/prefix/api/v2/alerts [x] [a="b" c=~"d|e"]
/prefix/api/v2/alerts [x] [alertname="Watchdog" f!="g"]
/prefix/api/v2/status [x] []`
	if got := strings.Join(asked, "\n"); got != want {
		t.Errorf("asked\n%s\nwant\n%s", got, want)
	}
}

// Silences and inhibitions of a real Alertmanager.
func TestF18SilencesCount(t *testing.T) {
	suite.NeedsServers(t)
	ctx := t.Context()
	a, err := alertmanager.Start(ctx, alertmanager.Options{
		Progress:     os.Stderr,
		InhibitRules: "- {source_matchers: ['severity=\"critical\"'], target_matchers: ['severity=\"warning\"'], equal: [node]}\n",
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Stop)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	start := time.Now().Add(-time.Hour)
	firing := func(name, severity, node string) alertmanager.Alert {
		return alertmanager.Alert{
			Labels:   map[string]string{"alertname": name, "severity": severity, "node": node},
			StartsAt: start, EndsAt: time.Now().Add(time.Hour),
		}
	}
	build := func(change ...func(*AlertsOptions)) gate.Check {
		t.Helper()
		check, problems := newAlerts(fromAlertmanager(append([]func(*AlertsOptions){func(o *AlertsOptions) {
			// A moment is enough: the server is as young as this test.
			o.Alertmanager.URL, o.RequireFiringAgo = a.URL(), model.Duration(time.Millisecond)
		}}, change...)...), nil)
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		return check
	}
	check := build()
	is := func(check gate.Check, want wanted) {
		t.Helper()
		ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
		defer cancel()
		var r gate.Result
		_ = controlplane.Poll(ctx, func() (err error) {
			if r, err = check.Check(ctx); err == nil && r.Reason != want.reason {
				err = errors.New(r.Reason)
			}
			return err
		})
		r.Message = regexp.MustCompile(` for 1h\d+s`).ReplaceAllString(r.Message, " for 1h")
		want.compare(t, r)
	}

	is(check, wanted{gate.Unknown, "RequiredAlertNotDelivered", ""})
	must(a.Send(ctx, firing("Watchdog", "none", "")))
	is(check, wanted{gate.Pass, "NoAlerts", "no alert fires but those ignored"})
	must(a.Send(ctx, firing("DiskSlow", "warning", "n1")))
	is(check, wanted{gate.Fail, "AlertsFiring", `1 alert fires: DiskSlow{node="n1", severity="warning"} for 1h`})
	is(build(func(o *AlertsOptions) { o.Match = []Matcher{`severity=~"critical|page"`} }), wanted{gate.Pass, "NoAlerts", ""})
	is(build(func(o *AlertsOptions) { o.Ignore = expressions(t, "Disk.*") }), wanted{gate.Pass, "NoAlerts", ""})

	silence, err := a.Silence(ctx, "alertname", "DiskSlow")
	must(err)
	is(check, wanted{gate.Pass, "NoAlerts", "no alert fires but those ignored, 1 that is silenced and 0 that are inhibited"})
	must(a.Expire(ctx, silence))
	is(check, wanted{gate.Fail, "AlertsFiring", ""})

	// An alert that inhibits it, and does not count itself.
	must(a.Send(ctx, firing("NodeDrained", "critical", "n1")))
	ignoring := build(func(o *AlertsOptions) { o.Ignore = expressions(t, "NodeDrained") })
	is(ignoring, wanted{gate.Pass, "NoAlerts", "no alert fires but those ignored, 0 that are silenced and 1 that is inhibited"})
	is(check, wanted{gate.Fail, "AlertsFiring", `1 alert fires: NodeDrained{node="n1", severity="critical"} for 1h`})

	t.Run("verify", func(t *testing.T) {
		v, text := verified(t, ignoring)
		want := `2 firing alerts, of which 0 count, and 0 rules of alerts, and 1 suppressed alert: NoAlerts
alert DiskSlow is neither silenced nor inhibited: AlertsFiring
alert AnAlertOfAnyName fires: AlertsFiring`
		if text != want || v.Vacuous() {
			t.Errorf("vacuous %t; got\n%s\nwant\n%s", v.Vacuous(), text, want)
		}
		if v, text := verified(t, build(func(o *AlertsOptions) { o.Ignore = expressions(t, ".*") })); !v.Vacuous() {
			t.Errorf("it ignores everything, and is not vacuous:\n%s", text)
		}
	})

	// A silence of everything does not hide that alerts arrive.
	_, err = a.Silence(ctx, "alertname", "Watchdog")
	must(err)
	is(ignoring, wanted{gate.Pass, "NoAlerts", "no alert fires but those ignored, 1 that is silenced and 1 that is inhibited"})

	// After a restart the required alert comes first, and the others have yet to.
	must(a.Restart(ctx))
	is(check, wanted{gate.Unknown, "RequiredAlertNotDelivered", ""})
	must(a.Send(ctx, firing("Watchdog", "none", "")))
	is(build(func(o *AlertsOptions) { o.RequireFiringAgo = model.Duration(30 * time.Minute) }), wanted{gate.Unknown, "AlertmanagerTooYoung", ""})

	must(a.Pause())
	defer func() { must(a.Resume()) }()
	pipeline, err := gate.NewPipeline([]*gate.Step{{Name: "x", Type: "alerts", Check: check, Timeout: 300 * time.Millisecond}}, nil)
	must(err)
	if o := pipeline.Evaluate(ctx, nil, nil).Outcomes[0]; o.Reason != gate.ReasonTimeout {
		t.Errorf("got %+v", o)
	}
}
