// Package alerts tests the alerts of deploy/alerts with Prometheus' own promtool.
package alerts

import (
	"flag"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/sentinel-gate/sentinel-gate/test/kit/build"
	"github.com/sentinel-gate/sentinel-gate/test/kit/prometheus"
	"github.com/sentinel-gate/sentinel-gate/test/kit/suite"
)

var update = flag.Bool("update", false, "write anew what is made from rules.yaml")

// The group that holds reboots back, and the one that must not.
const (
	upgradeGates = "Upgrade Gates"
	ownGroup     = "sentinel-gate"
)

type rule struct {
	Alert       string            `json:"alert"`
	Expr        string            `json:"expr"`
	For         string            `json:"for"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
}

type group struct {
	Name  string `json:"name"`
	Rules []rule `json:"rules"`
}

func path(t *testing.T, elements ...string) string {
	t.Helper()
	root, err := build.Root()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(append([]string{root}, elements...)...)
}

func read(t *testing.T, elements ...string) string {
	t.Helper()
	text, err := os.ReadFile(path(t, elements...))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func groups(t *testing.T) map[string][]rule {
	t.Helper()
	var file struct {
		Groups []group `json:"groups"`
	}
	if err := yaml.UnmarshalStrict([]byte(read(t, "deploy/alerts/rules.yaml")), &file); err != nil {
		t.Fatal(err)
	}
	byName := map[string][]rule{}
	for _, g := range file.Groups {
		byName[g.Name] = g.Rules
	}
	if len(byName) != 2 || len(byName[upgradeGates]) == 0 || len(byName[ownGroup]) == 0 {
		t.Fatalf("rules.yaml has the groups %v", slices.Sorted(maps.Keys(byName)))
	}
	return byName
}

func rules(t *testing.T) []rule {
	t.Helper()
	byGroup := groups(t)
	return slices.Concat(byGroup[upgradeGates], byGroup[ownGroup])
}

const ruleHeader = `# The groups of rules.yaml as an object of the Prometheus Operator. Do not edit:
# this file is made from that one by go test ./test/alerts -update
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: sentinel-gate
  namespace: sentinel-gate
  labels:
    app.kubernetes.io/name: sentinel-gate
spec:
`

func TestPrometheusRuleIsTheRuleFile(t *testing.T) {
	_, body, found := strings.Cut(read(t, "deploy/alerts/rules.yaml"), "\ngroups:\n")
	if !found {
		t.Fatal("rules.yaml has no groups")
	}
	want := ruleHeader
	for line := range strings.Lines("groups:\n" + body) {
		if line != "\n" {
			line = "  " + line
		}
		want += line
	}
	for file, want := range map[string]string{
		"deploy/alerts/prometheusrule.yaml":     want,
		"charts/sentinel-gate/files/rules.yaml": read(t, "deploy/alerts/rules.yaml"), // Helm reads nothing outside its chart
	} {
		if *update {
			if err := os.WriteFile(path(t, file), []byte(want), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if read(t, file) != want {
			t.Errorf("%s is not what rules.yaml makes it: run go test ./test/alerts -update", file)
		}
	}

	var plain, object map[string]any
	if err := yaml.UnmarshalStrict([]byte(read(t, "deploy/alerts/rules.yaml")), &plain); err != nil {
		t.Fatal(err)
	}
	if err := yaml.UnmarshalStrict([]byte(want), &object); err != nil {
		t.Fatal(err)
	}
	// Indentation is part of no value, not even of an expression of several lines.
	a, err := yaml.Marshal(plain)
	if err != nil {
		t.Fatal(err)
	}
	b, err := yaml.Marshal(object["spec"])
	if err != nil {
		t.Fatal(err)
	}
	if string(a) != string(b) {
		t.Error("prometheusrule.yaml and rules.yaml have different groups")
	}
}

// cases are the files in deploy/alerts that promtool runs.
var cases = []string{"tests.yaml", "tests-hours.yaml"}

func TestPromtool(t *testing.T) {
	suite.NeedsServers(t)
	promtool, err := prometheus.Binary(t.Context(), os.Stderr, "promtool")
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"check", "rules", "--lint=all", "--lint-fatal", "rules.yaml"},
		append([]string{"test", "rules"}, cases...),
	} {
		cmd := exec.CommandContext(t.Context(), promtool, args...)
		cmd.Dir = path(t, "deploy/alerts")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

// Each alert is expected to fire in one case, and not to fire in another; one
// that has a "for" is expected not to fire just before that is over.
func TestEveryAlertIsTested(t *testing.T) {
	type sequence struct {
		Cases []struct {
			Alert  string `json:"alertname"`
			Expect []any  `json:"exp_alerts"`
		} `json:"alert_rule_test"`
	}
	var tests []sequence
	for _, name := range cases {
		var file struct {
			Tests []sequence `json:"tests"`
		}
		if err := yaml.Unmarshal([]byte(read(t, "deploy/alerts", name)), &file); err != nil {
			t.Fatal(err)
		}
		if len(file.Tests) == 0 {
			t.Errorf("%s has no test", name)
		}
		tests = append(tests, file.Tests...)
	}
	names := map[string]bool{}
	for _, r := range rules(t) {
		if names[r.Alert] {
			t.Errorf("%s is there twice: a case could not tell which is meant", r.Alert)
		}
		names[r.Alert] = true
		fires, silent, waits := false, false, false
		for _, test := range tests {
			before := false // an earlier moment of the same test did not fire
			for _, c := range test.Cases {
				if c.Alert != r.Alert {
					continue
				}
				if len(c.Expect) > 0 {
					fires, waits = true, waits || before
				} else {
					silent, before = true, true
				}
			}
		}
		if !fires || !silent {
			t.Errorf("tests.yaml: %s is seen to fire: %t, and not to fire: %t", r.Alert, fires, silent)
		}
		if r.For != "" && !waits {
			t.Errorf("tests.yaml: %s is not seen to wait for its %s", r.Alert, r.For)
		}
	}
	for _, test := range tests {
		for _, c := range test.Cases {
			if !names[c.Alert] {
				t.Errorf("tests.yaml: there is no alert %s", c.Alert) // promtool takes its silence for a pass
			}
		}
	}
}

// No rule watches for a metric that the gate does not have. That docs/metrics.md
// lists what is exported is tested beside the daemon.
func TestMetricsExist(t *testing.T) {
	documented := map[string]bool{}
	for _, row := range regexp.MustCompile("(?m)^\\| `(sentinel_gate_[a-z_]+)`").FindAllStringSubmatch(read(t, "docs/metrics.md"), -1) {
		documented[row[1]] = true
	}
	used := 0
	for _, r := range rules(t) {
		for _, text := range append(slices.Sorted(maps.Values(r.Annotations)), r.Expr) {
			for _, name := range regexp.MustCompile(`sentinel_gate_[a-z_]+`).FindAllString(text, -1) {
				used++
				if !documented[name] {
					t.Errorf("%s uses %s, which docs/metrics.md does not list", r.Alert, name)
				}
			}
		}
	}
	if used == 0 {
		t.Error("no rule uses a metric of the gate: does this test still read them rightly?")
	}
}

// The alerts check ignores what is named so, and a person must be able to rely
// on the opposite for the other group.
func TestF16OwnAlertsAreIgnoredByTheirName(t *testing.T) {
	byGroup, own := groups(t), regexp.MustCompile(`^SentinelGate`)
	for _, r := range byGroup[ownGroup] {
		if !own.MatchString(r.Alert) {
			t.Errorf("%s would hold back the reboot that clears it", r.Alert)
		}
	}
	for _, r := range byGroup[upgradeGates] {
		if own.MatchString(r.Alert) {
			t.Errorf("%s would not hold any reboot back", r.Alert)
		}
	}
}

// Who is woken by an alert learns what is wrong and what to do first, from the
// alert and from the page.
func TestAlertsAreForPeople(t *testing.T) {
	page := read(t, "docs/alerts.md")
	documented := map[string]bool{}
	for _, row := range regexp.MustCompile("(?m)^\\| `([A-Za-z]+)` \\| (\\w+) \\|").FindAllStringSubmatch(page, -1) {
		documented[row[1]+" "+row[2]] = true
	}
	for _, r := range rules(t) {
		severity := r.Labels["severity"]
		if len(r.Labels) != 1 || !slices.Contains([]string{"critical", "warning", "info"}, severity) {
			t.Errorf("%s has the labels %v", r.Alert, r.Labels)
		}
		if len(r.Annotations) != 3 || r.Annotations["summary"] == "" || r.Annotations["description"] == "" {
			t.Errorf("%s has the annotations %v", r.Alert, r.Annotations)
		}
		// It leads to the part of the page that has the alert.
		anchor, ok := strings.CutPrefix(r.Annotations["runbook_url"], "https://github.com/sentinel-gate/sentinel-gate/blob/main/docs/alerts.md#")
		_, section, found := strings.Cut(strings.ToLower(strings.ReplaceAll(page, "## Upgrade Gates", "## upgrade-gates")), "## "+anchor+"\n")
		section, _, _ = strings.Cut(section, "\n## ")
		if !ok || !found || !strings.Contains(section, "| `"+strings.ToLower(r.Alert)+"` |") {
			t.Errorf("%s leads to %s, which does not have it", r.Alert, r.Annotations["runbook_url"])
		}
		if !documented[r.Alert+" "+severity] {
			t.Errorf("docs/alerts.md does not list %s as %s", r.Alert, severity)
		}
		delete(documented, r.Alert+" "+severity)
	}
	if len(documented) > 0 {
		t.Errorf("docs/alerts.md lists what rules.yaml has not: %v", documented)
	}
}
