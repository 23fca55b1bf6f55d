package faults

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sentinel-gate/sentinel-gate/test/kit/alertmanager"
	"github.com/sentinel-gate/sentinel-gate/test/kit/daemon"
	"github.com/sentinel-gate/sentinel-gate/test/kit/prometheus"
)

// F18: a silence in Alertmanager lets the reboot through, and its end holds it
// back. The alert takes the whole way: a rule of Prometheus, Alertmanager, gate.
func TestF18SilencedAlertsDoNotBlock(t *testing.T) {
	for name, run := range map[string]func(s *scene, a *alertmanager.Alertmanager, options string){
		"silenced":  silencedAndNot,
		"restarted": restarted,
	} {
		for beside, withPrometheus := range map[string]bool{"alone": false, "beside Prometheus": true} {
			t.Run(name+" "+beside, func(t *testing.T) {
				s := newScene(t)
				a, err := alertmanager.Start(s.ctx(), alertmanager.Options{})
				s.must(err)
				t.Cleanup(a.Stop)
				p := s.prometheus(prometheus.Options{
					Rules: group(watchdog, "  - {alert: DiskFull, expr: vector(1), labels: {severity: critical}}\n"),
					ScrapeConfigs: fmt.Sprintf("  []\nalerting: {alertmanagers: [{static_configs: [{targets: ['%s']}]}]}\n",
						strings.TrimPrefix(a.URL(), "http://")),
					// Soon again, to an Alertmanager that has been restarted.
					Args: []string{"--rules.alert.resend-delay=1s"},
				})
				options := fmt.Sprintf("alertmanager: {url: %q}", a.URL())
				if withPrometheus {
					options += fmt.Sprintf(", prometheus: {url: %q}", p.URL())
				}
				s.must(s.host.RequireReboot())
				run(s, a, options)
			})
		}
	}
}

func silencedAndNot(s *scene, a *alertmanager.Alertmanager, options string) {
	d := s.start(func(o *daemon.Options) {
		o.Checks = fmt.Sprintf("[{name: alerts, type: alerts, options: {%s, requireFiringAgo: 2s}}]", options)
	})
	step := s.closedBy(d, 0, "alerts", "Fail", "AlertsFiring")
	if !strings.Contains(step.Message, `DiskFull{severity="critical"} for `) {
		s.t.Errorf("message: %s", step.Message)
	}
	silence, err := a.Silence(s.ctx(), "alertname", "DiskFull")
	s.must(err)
	s.open(d, 0)
	mark := d.Lines()
	s.must(a.Expire(s.ctx(), silence))
	s.closedBy(d, mark, "alerts", "Fail", "AlertsFiring")
}

// restarted: nothing that it says is proof until it was sent everything again.
func restarted(s *scene, a *alertmanager.Alertmanager, options string) {
	_, err := a.Silence(s.ctx(), "alertname", "DiskFull")
	s.must(err)
	d := s.start(func(o *daemon.Options) {
		o.Checks = fmt.Sprintf("[{name: alerts, type: alerts, options: {%s, requireFiringAgo: 5s}}]", options)
	})
	s.open(d, 0)
	mark := d.Lines()
	s.must(a.Restart(s.ctx()))
	s.closedBy(d, mark, "alerts", "Unknown", "AlertmanagerTooYoung")
	s.open(d, mark)
}
