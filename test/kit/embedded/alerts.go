package embedded

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/common/model"
)

// Alerts answers as a Prometheus does the few questions that the check alerts asks of one: which alerts fire, since when,
// whether one of them has fired for a while without a gap, and how its rules are. It does not know PromQL. A question of
// any other form is refused, never answered wrongly.
type Alerts struct {
	address string
	http    *http.Server

	mu     sync.Mutex
	firing map[string]time.Time // by name, since when
}

// StartAlerts returns a server that listens on loopback, with alerts that have always fired. Call Close.
func StartAlerts(ctx context.Context, always ...string) (*Alerts, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("starting the embedded Prometheus: %w", err)
	}
	a := &Alerts{address: listener.Addr().String(), firing: map[string]time.Time{}}
	for _, name := range always {
		a.firing[name] = time.Now().Add(-24 * time.Hour)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/api/v1/query", a.query)
	mux.HandleFunc("GET /api/v1/rules", a.rules)
	a.http = &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	go func() { _ = a.http.Serve(listener) }()
	return a, nil
}

// Close ends it.
func (a *Alerts) Close() { _ = a.http.Close() }

// URL is where it listens.
func (a *Alerts) URL() string { return "http://" + a.address }

// Fire lets an alert fire from now on.
func (a *Alerts) Fire(name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.firing[name] = time.Now()
}

// Resolve ends an alert.
func (a *Alerts) Resolve(name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.firing, name)
}

// The forms of the questions. Each matcher but alertstate="firing" and alertname="..." makes it another form.
var (
	firingForm = regexp.MustCompile(`^ALERTS\{alertstate="firing"(?:,alertname="(\w+)")?\}(?: offset (\w+))?$`)
	sinceForm  = regexp.MustCompile(`^ALERTS_FOR_STATE\{\}$`)
	longForm   = regexp.MustCompile(`^count_over_time\(ALERTS\{alertstate="firing",alertname="(\w+)"\}\[(\w+):(\w+)\]\) >= (\d+)$`)
)

func (a *Alerts) query(w http.ResponseWriter, r *http.Request) {
	question := strings.TrimSpace(r.FormValue("query"))
	a.mu.Lock()
	defer a.mu.Unlock()
	if m := firingForm.FindStringSubmatch(question); m != nil {
		ago, err := duration(m[2])
		a.reply(w, err, a.vector("ALERTS", m[1], ago, func(time.Time) float64 { return 1 }))
		return
	}
	if sinceForm.MatchString(question) {
		a.reply(w, nil, a.vector("ALERTS_FOR_STATE", "", 0, func(since time.Time) float64 { return float64(since.Unix()) }))
		return
	}
	if m := longForm.FindStringSubmatch(question); m != nil {
		within, err := duration(m[2])
		every, errEvery := duration(m[3])
		least, _ := strconv.Atoi(m[4])
		if err != nil || errEvery != nil || every == 0 {
			a.reply(w, fmt.Errorf("not a range: %s:%s", m[2], m[3]), nil)
			return
		}
		// How often it is seen to fire, where it is looked for every so often.
		v := a.vector("", m[1], 0, func(since time.Time) float64 { return float64(min(time.Since(since), within) / every) })
		a.reply(w, nil, slices.DeleteFunc(v, func(s *model.Sample) bool { return s.Value < model.SampleValue(least) }))
		return
	}
	a.reply(w, fmt.Errorf("this is no Prometheus, and does not know how to answer %s", question), nil)
}

func duration(s string) (time.Duration, error) {
	if s == "" {
		return 0, nil
	}
	d, err := model.ParseDuration(s)
	return time.Duration(d), err
}

// vector returns the alerts of the name, or all, that fired so long ago already.
func (a *Alerts) vector(metric, name string, ago time.Duration, value func(since time.Time) float64) model.Vector {
	v := model.Vector{}
	now := time.Now()
	for alert, since := range a.firing {
		if name != "" && name != alert || since.After(now.Add(-ago)) {
			continue
		}
		labels := model.Metric{model.AlertNameLabel: model.LabelValue(alert)}
		if metric != "" {
			labels[model.MetricNameLabel] = model.LabelValue(metric)
		}
		if metric != "ALERTS_FOR_STATE" {
			labels["alertstate"] = "firing"
		}
		v = append(v, &model.Sample{Metric: labels, Value: model.SampleValue(value(since)), Timestamp: model.TimeFromUnixNano(now.UnixNano())})
	}
	slices.SortFunc(v, func(x, y *model.Sample) int {
		return strings.Compare(string(x.Metric[model.AlertNameLabel]), string(y.Metric[model.AlertNameLabel]))
	})
	return v
}

func (a *Alerts) reply(w http.ResponseWriter, err error, v model.Vector) {
	w.Header().Set("Content-Type", "application/json")
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		_ = json.NewEncoder(w).Encode(map[string]any{"status": "error", "errorType": "bad_data", "error": err.Error()})
		return
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"status": "success", "data": map[string]any{"resultType": "vector", "result": v}})
}

// rules tells of one group, with a rule for each alert that fires, that was evaluated just now.
func (a *Alerts) rules(w http.ResponseWriter, _ *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now().UTC()
	rules := []map[string]any{}
	for _, s := range a.vector("ALERTS", "", 0, func(time.Time) float64 { return 1 }) {
		rules = append(rules, map[string]any{
			"type": "alerting", "name": s.Metric[model.AlertNameLabel], "query": "vector(1)", "state": "firing", "health": "ok",
			"duration": 0, "labels": map[string]string{}, "annotations": map[string]string{}, "alerts": []any{},
			"lastEvaluation": now, "evaluationTime": 0,
		})
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"status": "success", "data": map[string]any{"groups": []any{
		map[string]any{"name": "embedded", "file": "embedded", "interval": 1, "lastEvaluation": now, "evaluationTime": 0, "rules": rules},
	}}})
}
