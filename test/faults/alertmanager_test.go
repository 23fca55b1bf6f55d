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
	for name, run := range map[string]func(w *world, a *alertmanager.Alertmanager, options string){
		"silenced":  silencedAndNot,
		"restarted": restarted,
	} {
		for beside, withPrometheus := range map[string]bool{"alone": false, "beside Prometheus": true} {
			t.Run(name+" "+beside, func(t *testing.T) {
				w := newWorld(t)
				a, err := alertmanager.Start(w.ctx(), alertmanager.Options{})
				w.must(err)
				t.Cleanup(a.Stop)
				p := w.prometheus(prometheus.Options{
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
				w.must(w.host.RequireReboot())
				run(w, a, options)
			})
		}
	}
}

func silencedAndNot(w *world, a *alertmanager.Alertmanager, options string) {
	d := w.start(func(o *daemon.Options) {
		o.Checks = fmt.Sprintf("[{name: alerts, type: alerts, options: {%s, requireFiringAgo: 2s}}]", options)
	})
	step := w.closedBy(d, 0, "alerts", "Fail", "AlertsFiring")
	if !strings.Contains(step.Message, `DiskFull{severity="critical"} for `) {
		w.t.Errorf("message: %s", step.Message)
	}
	silence, err := a.Silence(w.ctx(), "alertname", "DiskFull")
	w.must(err)
	w.open(d, 0)
	mark := d.Lines()
	w.must(a.Expire(w.ctx(), silence))
	w.closedBy(d, mark, "alerts", "Fail", "AlertsFiring")
}

// restarted: nothing that it says is proof until it was sent everything again.
func restarted(w *world, a *alertmanager.Alertmanager, options string) {
	_, err := a.Silence(w.ctx(), "alertname", "DiskFull")
	w.must(err)
	d := w.start(func(o *daemon.Options) {
		o.Checks = fmt.Sprintf("[{name: alerts, type: alerts, options: {%s, requireFiringAgo: 5s}}]", options)
	})
	w.open(d, 0)
	mark := d.Lines()
	w.must(a.Restart(w.ctx()))
	w.closedBy(d, mark, "alerts", "Unknown", "AlertmanagerTooYoung")
	w.open(d, mark)
}
