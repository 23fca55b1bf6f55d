package faults

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/sentinel-gate/sentinel-gate/test/kit/daemon"
	"github.com/sentinel-gate/sentinel-gate/test/kit/prometheus"
)

const (
	watchdog = "  - {alert: Watchdog, expr: vector(1)}\n"
	quiet    = "  - {alert: Quiet, expr: vector(1) > 2}\n"
)

func group(rules ...string) string {
	return "groups:\n- name: test\n  rules:\n" + strings.Join(rules, "")
}

func (s *scene) prometheus(o prometheus.Options) *prometheus.Prometheus {
	s.t.Helper()
	p, err := prometheus.Start(s.ctx(), o)
	s.must(err)
	s.t.Cleanup(p.Stop)
	return p
}

// alerting runs a daemon whose only step asks this Prometheus.
func (s *scene) alerting(url, options string) *daemon.Daemon {
	s.t.Helper()
	return s.start(func(o *daemon.Options) {
		o.Checks = fmt.Sprintf("[{name: alerts, type: alerts, options: {prometheus: {url: %q}, requireFiringAgo: 2s%s}}]", url, options)
	})
}

// F16: an alert that the pending reboot causes, or the gate itself.
func TestF16OwnAlertsDoNotBlock(t *testing.T) {
	s := newScene(t)
	p := s.prometheus(prometheus.Options{Rules: group(watchdog,
		"  - {alert: RebootRequired, expr: vector(1)}\n",
		"  - {alert: SentinelGateClosedTooLong, expr: vector(1)}\n",
		"  - {alert: InfoInhibitor, expr: vector(1)}\n",
		"  - {alert: Chore, expr: vector(1), labels: {severity: info}}\n")})
	s.must(s.host.RequireReboot())
	d := s.alerting(p.URL(), ", ignore: [Chore]")
	s.open(d, 0)

	mark := d.Lines()
	s.must(p.SetRules(s.ctx(), group(watchdog, "  - {alert: DiskFull, expr: vector(1), labels: {severity: critical}}\n")))
	step := s.closedBy(d, mark, "alerts", "Fail", "AlertsFiring")
	if !strings.Contains(step.Message, `DiskFull{severity="critical"} for `) {
		t.Errorf("it names neither the alert nor its age: %s", step.Message)
	}
	if step.Since == nil {
		t.Error("the log does not say since when the step blocks")
	}
	if since := s.metric(d, `sentinel_gate_step_blocking_since_timestamp_seconds{step="alerts",type="alerts"}`); since < 1 {
		t.Errorf("the metric of how long it blocks is %g", since)
	}

	t.Run("match", func(t *testing.T) {
		s.t = t
		matching := secondDaemon(s, fmt.Sprintf("[{name: alerts, type: alerts, options: {prometheus: {url: %q}, requireFiringAgo: 2s, match: ['severity=\"page\"']}}]", p.URL()))
		s.await(matching, 0, "an open gate", func(l daemon.Line) bool { return l.State == "Open" })
	})
}

// F17: nothing fires because nothing can.
func TestF17SilenceProvesNothing(t *testing.T) {
	t.Run("rules not loaded", func(t *testing.T) {
		s := newScene(t)
		p := s.prometheus(prometheus.Options{Rules: "groups: []"})
		never := s.neverOpens()
		defer never()
		s.must(s.host.RequireReboot())
		step := s.closedBy(s.alerting(p.URL(), ""), 0, "alerts", "Unknown", "RequiredAlertNotFiring")
		if !strings.Contains(step.Message, "Watchdog") {
			t.Errorf("message: %s", step.Message)
		}
		d := secondDaemon(s, fmt.Sprintf("[{name: alerts, type: alerts, options: {prometheus: {url: %q}, requireFiring: ''}}]", p.URL()))
		s.closedBy(d, 0, "alerts", "Unknown", "NoRules")
	})
	t.Run("data lost", func(t *testing.T) {
		s := newScene(t)
		p := s.prometheus(prometheus.Options{Rules: group(watchdog)})
		s.must(s.host.RequireReboot())
		d := s.alerting(p.URL(), "")
		s.open(d, 0)
		mark := d.Lines()
		s.must(p.Restart(s.ctx(), true))
		// At first nothing fires, then it has not fired for long enough.
		s.closedBy(d, mark, "alerts", "Unknown", "RequiredAlertTooYoung")
		s.open(d, mark)
	})
	t.Run("a rule fails", func(t *testing.T) {
		s := newScene(t)
		p := s.prometheus(prometheus.Options{Rules: group(watchdog, quiet)})
		s.must(s.host.RequireReboot())
		d := s.alerting(p.URL(), "")
		s.open(d, 0)
		mark := d.Lines()
		s.must(p.SetRules(s.ctx(), group(watchdog,
			"  - {alert: Broken, expr: 'label_replace(vector(1), \"a\", \"x\", \"\", \"\") + on() group_left() (label_replace(vector(1), \"b\", \"y\", \"\", \"\") or vector(1))'}\n")))
		if step := s.closedBy(d, mark, "alerts", "Unknown", "RulesUnhealthy"); !strings.Contains(step.Message, "test/Broken") {
			t.Errorf("message: %s", step.Message)
		}
	})
	t.Run("gone", func(t *testing.T) {
		s := newScene(t)
		p := s.prometheus(prometheus.Options{Rules: group(watchdog)})
		s.must(s.host.RequireReboot())
		d := s.alerting(p.URL(), "")
		s.open(d, 0)
		mark := d.Lines()
		s.must(p.Pause())
		s.closedBy(d, mark, "alerts", "Unknown", "Timeout")
		s.must(p.Resume())
		s.open(d, mark)
		mark = d.Lines()
		p.Kill()
		s.closedBy(d, mark, "alerts", "Unknown", "Error")
	})
}

// F19: an answer that is not whole, or not an answer.
func TestF19PartialAnswersAreUnknown(t *testing.T) {
	t.Run("warning", func(t *testing.T) {
		s := newScene(t)
		// A remote read that fails is a warning: the answer is what is there.
		p := s.prometheus(prometheus.Options{
			Rules:         group(watchdog),
			ScrapeConfigs: "  []\nremote_read: [{url: 'http://127.0.0.1:1/', read_recent: true}]\n",
		})
		never := s.neverOpens()
		defer never()
		s.must(s.host.RequireReboot())
		if step := s.closedBy(s.alerting(p.URL(), ""), 0, "alerts", "Unknown", "Error"); !strings.Contains(step.Message, "warning") {
			t.Errorf("message: %s", step.Message)
		}
	})
	// No real Prometheus answers like these.
	for name, answer := range map[string]http.HandlerFunc{
		"another type": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"status":"success","data":{"resultType":"scalar","result":[1,"0"]}}`)
		},
		"no answer": func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{}`) },
		"a page":    func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>log in</html>") },
		"too large": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"status":"success","data":{"resultType":"vector","result":[`)
			for range 100_000 {
				_, _ = io.WriteString(w, strings.Repeat(" ", 1<<10))
			}
			_, _ = io.WriteString(w, `]}}`)
		},
		"endless": func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, `{"status":`)
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			never := s.neverOpens()
			defer never()
			s.must(s.host.RequireReboot())
			d := s.alerting(newServer(t, answer), ", requireFiring: ''")
			l := s.await(d, 0, "a verdict", func(l daemon.Line) bool { return l.Step("alerts").Verdict != "" })
			if l.Step("alerts").Verdict != "Unknown" || l.State != "Closed" {
				t.Errorf("%s", l.Text)
			}
		})
	}
}
