package alertmanager

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sentinel-gate/sentinel-gate/test/kit/controlplane"
	"github.com/sentinel-gate/sentinel-gate/test/kit/suite"
)

func TestAlertmanager(t *testing.T) {
	suite.NeedsServers(t)
	ctx := t.Context()
	a, err := Start(ctx, Options{
		Progress:     os.Stderr,
		InhibitRules: "- {source_matchers: [severity=critical], target_matchers: [severity=warning], equal: [node]}\n",
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Stop)
	alert := func(name, severity string) Alert {
		return Alert{
			Labels:   map[string]string{"alertname": name, "severity": severity, "node": "a"},
			StartsAt: time.Now().Add(-time.Hour), EndsAt: time.Now().Add(time.Hour),
		}
	}

	awaitStates(t, a, "")
	if err := a.Send(ctx, alert("Low", "warning")); err != nil {
		t.Fatal(err)
	}
	awaitStates(t, a, "Low active")
	id, err := a.Silence(ctx, "alertname", "Low")
	if err != nil {
		t.Fatal(err)
	}
	awaitStates(t, a, "Low suppressed")
	if err := a.Expire(ctx, id); err != nil {
		t.Fatal(err)
	}
	awaitStates(t, a, "Low active")
	if err := a.Send(ctx, alert("High", "critical")); err != nil {
		t.Fatal(err)
	}
	awaitStates(t, a, "High active", "Low suppressed")

	if err := a.Send(ctx, Alert{}); err == nil || !strings.Contains(err.Error(), "sending alerts: 422") {
		t.Errorf("sending an alert without labels: %v", err)
	}

	if err := a.Pause(); err != nil {
		t.Fatal(err)
	}
	paused, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	if _, err := states(paused, a); err == nil {
		t.Error("a paused Alertmanager answers")
	}
	if err := a.Resume(); err != nil {
		t.Fatal(err)
	}

	address := a.URL()
	if err := a.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	awaitStates(t, a, "")
	if a.URL() != address {
		t.Errorf("moved from %s to %s", address, a.URL())
	}
}

func TestStartErrorShowsLog(t *testing.T) {
	suite.NeedsServers(t)
	_, err := Start(t.Context(), Options{Progress: os.Stderr, InhibitRules: "- nonsense\n"})
	if err == nil || !strings.Contains(err.Error(), "nonsense") {
		t.Errorf("got %v", err)
	}
}

func awaitStates(t *testing.T, a *Alertmanager, want ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := controlplane.Poll(ctx, func() error {
		got, err := states(ctx, a)
		if err == nil && got != strings.Join(want, ", ") {
			err = fmt.Errorf("got %s, want %s", got, strings.Join(want, ", "))
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

// states returns the alerts, in the order of their names, each with its state.
func states(ctx context.Context, a *Alertmanager) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, a.URL()+"/api/v2/alerts", nil)
	if err != nil {
		return "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	var alerts []struct {
		Labels map[string]string
		Status struct{ State string }
	}
	if err := json.NewDecoder(response.Body).Decode(&alerts); err != nil {
		return "", err
	}
	var texts []string
	for _, alert := range alerts {
		texts = append(texts, alert.Labels["alertname"]+" "+alert.Status.State)
	}
	slices.Sort(texts)
	return strings.Join(texts, ", "), nil
}
