package embedded_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/api"
	promapi "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"

	"github.com/sentinel-gate/sentinel-gate/test/kit/embedded"
	"github.com/sentinel-gate/sentinel-gate/test/kit/prometheus"
)

// The embedded Prometheus answers what the check alerts asks as the real one does.
func TestAlertsConform(t *testing.T) {
	rules := func(names ...string) string {
		text := "groups:\n"
		for _, name := range names {
			text += fmt.Sprintf("- {name: %s, rules: [{alert: %[1]s, expr: vector(1)}]}\n", name)
		}
		return text
	}
	real, err := prometheus.Start(t.Context(), prometheus.Options{Progress: os.Stderr, Rules: rules("Watchdog")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(real.Stop)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	stand, err := embedded.StartAlerts(ctx, "Watchdog")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stand.Close)

	// The same, once Prometheus has evaluated its rules for long enough: until then it answers otherwise.
	same := func(title string) {
		t.Helper()
		for {
			want, got := asked(ctx, t, real.URL()), asked(ctx, t, stand.URL())
			if slices.Equal(want, got) {
				t.Logf("%s:\n%s", title, strings.Join(got, "\n"))
				return
			}
			select {
			case <-time.After(50 * time.Millisecond):
			case <-ctx.Done():
				t.Fatalf("%s: Prometheus says\n%s\nand the embedded one\n%s", title, strings.Join(want, "\n"), strings.Join(got, "\n"))
			}
		}
	}
	same("at first")
	if err := real.SetRules(ctx, rules("Watchdog", "Trouble")); err != nil {
		t.Fatal(err)
	}
	stand.Fire("Trouble")
	same("when an alert fires")
	if err := real.SetRules(ctx, rules("Watchdog")); err != nil {
		t.Fatal(err)
	}
	stand.Resolve("Trouble")
	same("when it is resolved")

	for _, question := range []string{"up", `ALERTS{alertstate="firing",team="a"}`, `ALERTS_FOR_STATE{team="a"}`} {
		if _, _, err := client(t, stand.URL()).Query(ctx, question, time.Time{}); err == nil || !strings.Contains(err.Error(), "this is no Prometheus") {
			t.Errorf("%s: %v", question, err)
		}
	}
}

func client(t *testing.T, url string) promapi.API {
	t.Helper()
	c, err := api.NewClient(api.Config{Address: url})
	if err != nil {
		t.Fatal(err)
	}
	return promapi.NewAPI(c)
}

// asked asks all that the check alerts does, and returns what does not depend on the time.
func asked(ctx context.Context, t *testing.T, url string) []string {
	t.Helper()
	var out []string
	c := client(t, url)
	const watchdog = `ALERTS{alertstate="firing",alertname="Watchdog"}`
	for _, question := range []string{
		`ALERTS{alertstate="firing"}`, `ALERTS_FOR_STATE{}`, watchdog, watchdog + " offset 1s",
		"count_over_time(" + watchdog + "[1s:66ms]) >= 15",
		"count_over_time(" + watchdog + "[1s:66ms]) >= 1000",
		`ALERTS{alertstate="firing",alertname="Nothing"}`,
	} {
		value, warnings, err := c.Query(ctx, question, time.Time{})
		if err != nil {
			t.Fatalf("%s: %v", question, err)
		}
		answer := []string{}
		for _, s := range value.(model.Vector) {
			answer = append(answer, s.Metric.String())
		}
		slices.Sort(answer)
		out = append(out, fmt.Sprintf("%s: %s, warnings %v", question, answer, warnings))
	}
	result, err := c.Rules(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	names := []string{}
	for _, g := range result.Groups {
		for _, r := range g.Rules {
			a := r.(promapi.AlertingRule)
			names = append(names, fmt.Sprintf("%s (health %s, evaluated lately: %t)", a.Name, a.Health, time.Since(a.LastEvaluation) < 3*time.Second))
		}
	}
	slices.Sort(names)
	return append(out, fmt.Sprintf("rules: %s", names))
}
