package checks

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"time"

	"github.com/prometheus/common/model"

	"github.com/sentinel-gate/sentinel-gate/gate/clock"
)

// alertmanagerAPI is a server of Alertmanager's API v2. Two of its answers are
// read, a few fields of each: less than its own client brings along.
type alertmanagerAPI struct {
	host   string
	base   *url.URL
	client *http.Client
}

func newAlertmanager(path string, s Server) (*alertmanagerAPI, []error) {
	client, host, problems := s.client(path)
	if len(problems) > 0 {
		return nil, problems
	}
	base, err := url.Parse(s.URL)
	if err != nil {
		return nil, []error{fmt.Errorf("%s.url: %w", path, err)}
	}
	client.Transport = new(clock.Witness).Transport(client.Transport)
	return &alertmanagerAPI{host, base, client}, nil
}

// sentAlert is an alert that Alertmanager was sent and that is not resolved.
type sentAlert struct {
	Labels   model.LabelSet `json:"labels"`
	StartsAt time.Time      `json:"startsAt"`
	Status   struct {
		SilencedBy  []string `json:"silencedBy"`
		InhibitedBy []string `json:"inhibitedBy"`
	} `json:"status"`
}

func (a sentAlert) silenced() bool { return len(a.Status.SilencedBy) > 0 }

func (a sentAlert) inhibited() bool { return len(a.Status.InhibitedBy) > 0 }

// sample is the alert as Prometheus' own series have it: ALERTS, and the
// ALERTS_FOR_STATE that belongs to it.
func (a sentAlert) sample() (firing, since *model.Sample) {
	metric := model.Metric{model.MetricNameLabel: "ALERTS", "alertstate": "firing"}
	maps.Copy(metric, model.Metric(a.Labels))
	firing = &model.Sample{Metric: metric, Value: 1}
	return firing, &model.Sample{Metric: metric, Value: model.SampleValue(a.StartsAt.Unix())}
}

// delivery is what Alertmanager said of the way that alerts take to it.
type delivery struct {
	now     time.Time
	cluster string    // the status of its cluster
	started time.Time // since when it runs
	// required is the required alert, where it was sent; since the earliest
	// start of any of that name.
	required bool
	since    time.Time
	// suppressed alerts do not count.
	suppressed []sentAlert
	silenced   int
}

// alerts reads the alerts that match, the required alert, and what tells
// whether alerts arrive.
func (s *alertmanagerAPI) alerts(ctx context.Context, o AlertsOptions) (firing, since model.Vector, d *delivery, err error) {
	ctx, reading := clock.Read(ctx)
	var sent, required []sentAlert
	var status struct {
		Uptime  time.Time `json:"uptime"`
		Cluster struct {
			Status string `json:"status"`
		} `json:"cluster"`
	}
	name := Matcher(fmt.Sprintf("alertname=%q", o.RequireFiring))
	if err := s.get(ctx, "alerts", o.Match, &sent); err != nil {
		return nil, nil, nil, err
	}
	if err := s.get(ctx, "alerts", append([]Matcher{name}, o.RequireFiringMatch...), &required); err != nil {
		return nil, nil, nil, err
	}
	if err := s.get(ctx, "status", nil, &status); err != nil {
		return nil, nil, nil, err
	}
	firing, since, d = delivered(sent, required)
	d.cluster, d.started = status.Cluster.Status, status.Uptime
	if d.now, err = reading.Now(); err != nil {
		return nil, nil, nil, fmt.Errorf("asking %s: %w", s.host, err)
	}
	return firing, since, d, nil
}

// delivered parts what counts from what is silenced or inhibited. What is
// neither counts, whatever else Alertmanager says of it. The required alert is
// the proof that alerts arrive even when somebody has silenced it.
func delivered(sent, required []sentAlert) (firing, since model.Vector, d *delivery) {
	d = &delivery{}
	for _, a := range sent {
		if a.silenced() || a.inhibited() {
			d.suppressed = append(d.suppressed, a)
			if a.silenced() {
				d.silenced++
			}
			continue
		}
		f, s := a.sample()
		firing, since = append(firing, f), append(since, s)
	}
	for _, a := range required {
		if !d.required || a.StartsAt.Before(d.since) {
			d.required, d.since = true, a.StartsAt
		}
	}
	return firing, since, d
}

// runs is how long it has been running, and fires how long the required alert
// has been firing; neither where it is not known.
func (d *delivery) runs() time.Duration { return passed(d.started, d.now) }

func (d *delivery) fires() time.Duration { return passed(d.since, d.now) }

func passed(since, now time.Time) time.Duration {
	if since.IsZero() {
		return 0
	}
	return max(now.Sub(since), 0).Round(time.Second)
}

// get reads one answer. What is not there in it is a mistake, not an empty list.
func (s *alertmanagerAPI) get(ctx context.Context, what string, filters []Matcher, into any) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("asking %s for its %s: %w", s.host, what, withoutURL(err))
		}
	}()
	u := s.base.JoinPath("api/v2", what)
	query := u.Query()
	for _, f := range filters {
		query.Add("filter", string(f))
	}
	u.RawQuery = query.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return err
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(http.MaxBytesReader(nil, resp.Body, maxBody))
	switch {
	case err != nil:
		return err
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("the status is %s: %.100q", statusText(resp.StatusCode), body)
	case string(body) == "null" || json.Unmarshal(body, into) != nil:
		return fmt.Errorf("the answer is not one of Alertmanager's API: %.100q", body)
	}
	return nil
}
