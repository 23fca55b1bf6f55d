package prometheus

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/sentinel-gate/sentinel-gate/test/kit/controlplane"
	"github.com/sentinel-gate/sentinel-gate/test/kit/suite"
)

func rule(alert string) string {
	return "groups:\n- name: test\n  rules:\n  - {alert: " + alert + ", expr: vector(1), labels: {node: a}}\n"
}

func TestPrometheus(t *testing.T) {
	suite.NeedsServers(t)
	ctx := t.Context()
	p, err := Start(ctx, Options{
		Progress: os.Stderr,
		Rules:    rule("Always"),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Stop)

	awaitSeries(t, p, `ALERTS{alertname="Always",alertstate="firing",node="a"}`, 1)

	if err := p.SetRules(ctx, rule("Other")); err != nil {
		t.Fatal(err)
	}
	awaitSeries(t, p, `ALERTS{alertname="Other"}`, 1)
	awaitSeries(t, p, `ALERTS{alertname="Always"}`, 0)
	if err := p.SetRules(ctx, "groups: nonsense"); err == nil || !strings.Contains(err.Error(), "setting rules: 500") {
		t.Errorf("setting invalid rules: %v", err)
	}
	if err := p.SetRules(ctx, rule("Other")); err != nil {
		t.Fatal(err)
	}

	if err := p.Pause(); err != nil {
		t.Fatal(err)
	}
	paused, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	if _, err := count(paused, p, "up"); err == nil {
		t.Error("a paused Prometheus answers")
	}
	if err := p.Resume(); err != nil {
		t.Fatal(err)
	}

	address := p.URL()
	p.Kill()
	if _, err := count(ctx, p, "up"); err == nil {
		t.Error("a killed Prometheus answers")
	}
	if err := p.Restart(ctx, false); err != nil {
		t.Fatal(err)
	}
	awaitSeries(t, p, `last_over_time(ALERTS{alertname="Always"}[1h])`, 1)
	if err := p.Restart(ctx, true); err != nil {
		t.Fatal(err)
	}
	awaitSeries(t, p, `ALERTS{alertname="Other"}`, 1)
	awaitSeries(t, p, `last_over_time(ALERTS{alertname="Always"}[1h])`, 0)
	if p.URL() != address {
		t.Errorf("moved from %s to %s", address, p.URL())
	}
}

func TestStartErrorShowsLog(t *testing.T) {
	suite.NeedsServers(t)
	_, err := Start(t.Context(), Options{Progress: os.Stderr, Rules: "groups: nonsense"})
	if err == nil || !strings.Contains(err.Error(), "rules.yaml") {
		t.Errorf("got %v", err)
	}
}

func TestScrape(t *testing.T) {
	suite.NeedsServers(t)
	p, err := Start(t.Context(), Options{
		Progress:           os.Stderr,
		EvaluationInterval: 500 * time.Millisecond,
		ScrapeConfigs:      "- {job_name: nobody, static_configs: [{targets: ['127.0.0.1:1']}]}\n",
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Stop)
	awaitSeries(t, p, `up{job="nobody"} == 0`, 1)
}

func awaitSeries(t *testing.T, p *Prometheus, query string, want int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := controlplane.Poll(ctx, func() error {
		got, err := count(ctx, p, query)
		if err == nil && got != want {
			err = fmt.Errorf("%d series, want %d", got, want)
		}
		return err
	}); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

// count returns the number of series that an instant query has.
func count(ctx context.Context, p *Prometheus, query string) (int, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, p.URL()+"/api/v1/query?query="+url.QueryEscape(query), nil)
	if err != nil {
		return 0, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("querying Prometheus: %s", response.Status)
	}
	var answer struct{ Data struct{ Result []any } }
	err = json.NewDecoder(response.Body).Decode(&answer)
	return len(answer.Data.Result), err
}
