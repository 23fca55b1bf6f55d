package checks

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	promapi "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"

	"github.com/sentinel-gate/sentinel-gate/gate"
	"github.com/sentinel-gate/sentinel-gate/gate/clock"
	"github.com/sentinel-gate/sentinel-gate/gate/cluster"
)

// AlertsOptions are the options of alerts.
type AlertsOptions struct {
	// Prometheus is where to ask: for what fires, unless there is an
	// Alertmanager, and for the proof that something could.
	Prometheus Server `json:"prometheus"`
	// Alertmanager is where to ask for what fires, so that what is silenced or
	// inhibited there does not count.
	Alertmanager Server `json:"alertmanager"`
	// Ignore are regular expressions, anchored, of the names of alerts that do
	// not count, besides those that never do.
	Ignore []Regexp `json:"ignore"`
	// Match are PromQL label matchers; only alerts with all of them count.
	Match []Matcher `json:"match"`
	// RequireFiring is the name of an alert that always fires, and so proves
	// that alerts can fire at all. Empty: rely on the rules API.
	RequireFiring string `json:"requireFiring"`
	// RequireFiringMatch are label matchers of that alert, where several
	// clusters' alerts are in one place.
	RequireFiringMatch []Matcher `json:"requireFiringMatch"`
	// RequireFiringAgo is how long ago it must have fired already.
	RequireFiringAgo model.Duration `json:"requireFiringAgo"`

	exposed bool // nodes may soak together
}

func alertsDefaults() AlertsOptions {
	return AlertsOptions{
		Prometheus: serverDefaults(), Alertmanager: serverDefaults(),
		RequireFiring: "Watchdog", RequireFiringAgo: model.Duration(15 * time.Minute),
	}
}

// Regexp is an anchored regular expression, as Prometheus' are.
type Regexp struct{ *regexp.Regexp }

// UnmarshalText compiles the expression.
func (r *Regexp) UnmarshalText(text []byte) error {
	// By itself first, so that its own parentheses cannot end the anchored group.
	if _, err := regexp.Compile(string(text)); err != nil {
		return fmt.Errorf("not a regular expression: %w", err)
	}
	r.Regexp = regexp.MustCompile("^(?:" + string(text) + ")$")
	return nil
}

// Matcher is one PromQL label matcher, such as severity=~"critical|warning".
type Matcher string

var matcherFormat = regexp.MustCompile(`^([a-zA-Z_][a-zA-Z0-9_]*)\s*(=|!=|=~|!~)\s*("(?:[^"\\\n]|\\.)*")$`)

// UnmarshalText checks the matcher's form, and its expression if it has one.
func (m *Matcher) UnmarshalText(text []byte) error {
	parts := matcherFormat.FindStringSubmatch(string(text))
	if parts == nil {
		return fmt.Errorf("not a label matcher: want, for example, severity=~\"critical|warning\", not %.100q", text)
	}
	if parts[1] == "alertstate" || parts[1] == model.MetricNameLabel {
		return fmt.Errorf("not a label matcher: %s is the check's own", parts[1])
	}
	value, err := strconv.Unquote(parts[3]) // PromQL's strings are Go's
	if err == nil && strings.HasSuffix(parts[2], "~") {
		_, err = regexp.Compile(value)
	}
	if err != nil {
		return fmt.Errorf("not a label matcher: %s: %w", parts[3], err)
	}
	*m = Matcher(text)
	return nil
}

// neverCount are alerts that no reboot waits for: those that always fire, the
// one that a pending reboot fires itself, and the gate's own, which would hold
// back the reboot that clears them.
var neverCount = regexp.MustCompile(`^(?:Watchdog|InfoInhibitor|RebootRequired|SentinelGate.*)$`)

// recentReboot fires for as long as a soak after every boot: with exposure, where several
// nodes soak at a time, it never counts either.
const recentReboot = "RecentNodeReboot"

// A rule is late when it was evaluated longer ago than three of its intervals,
// and than this.
const ruleLateness = time.Minute

type alerts struct {
	options      AlertsOptions
	prometheus   *prometheusAPI   // nil: only Alertmanager is asked
	alertmanager *alertmanagerAPI // nil: only Prometheus is asked
	cluster      *cluster.Cluster
}

var _ Verifier = alerts{}

func newAlerts(o AlertsOptions, on *cluster.Cluster) (gate.Check, []error) {
	var problems []error
	if o.RequireFiringAgo <= 0 {
		problems = append(problems, errors.New("options.requireFiringAgo: must be longer than 0s"))
	}
	if o.RequireFiring != "" && !model.LabelValue(o.RequireFiring).IsValid() {
		problems = append(problems, errors.New("options.requireFiring: not the name of an alert"))
	}
	c := alerts{options: o, cluster: on}
	var wrong []error
	if o.Prometheus.URL != "" || o.Alertmanager.URL == "" {
		c.prometheus, wrong = newPrometheus("options.prometheus", o.Prometheus)
		problems = append(problems, wrong...)
	}
	if o.Alertmanager.URL != "" {
		c.alertmanager, wrong = newAlertmanager("options.alertmanager", o.Alertmanager)
		problems = append(problems, wrong...)
		if o.RequireFiring == "" {
			problems = append(problems, errors.New("options.requireFiring: an Alertmanager without alerts may be one that is sent none: name an alert that always fires"))
		}
	}
	if len(problems) > 0 {
		return nil, problems
	}
	return c, nil
}

// alarm is what Prometheus said, and Alertmanager.
type alarm struct {
	firing   model.Vector
	since    model.Vector // ALERTS_FOR_STATE, where there is something to report
	delivery *delivery    // nil: Alertmanager is not asked
	required bool         // the required alert fires now
	longer   bool         // and has done so for long enough
	rules    []promapi.RuleGroup
	served   bool // the rules API is served
	now      time.Time
}

// asked are the options, with what is configured elsewhere.
func (c alerts) asked() AlertsOptions {
	o := c.options
	o.exposed = c.cluster != nil && c.cluster.Parts != nil
	return o
}

// Check asks for the firing alerts, for the required one, and for the state of
// the rules.
func (c alerts) Check(ctx context.Context) (gate.Result, error) {
	a, err := c.read(ctx)
	if err != nil {
		return gate.Result{}, err
	}
	return quiet(a, c.asked()), nil
}

func (c alerts) read(ctx context.Context) (a alarm, err error) {
	if c.alertmanager != nil {
		if a.firing, a.since, a.delivery, err = c.alertmanager.alerts(ctx, c.options); err != nil || c.prometheus == nil {
			return a, err
		}
	}
	ctx, reading := clock.Read(ctx)
	if c.alertmanager == nil {
		if a.firing, err = c.prometheus.vector(ctx, series("ALERTS", c.options.Match, `alertstate="firing"`)); err != nil {
			return a, err
		}
		if len(blocking(a.firing, c.asked())) > 0 {
			if a.since, err = c.prometheus.vector(ctx, series("ALERTS_FOR_STATE", c.options.Match)); err != nil {
				return a, err
			}
		}
	}
	if c.options.RequireFiring != "" {
		if err := c.askRequired(ctx, &a); err != nil {
			return a, err
		}
	}
	if a.rules, a.served, err = c.prometheus.rules(ctx); err != nil {
		return a, err
	}
	if a.now, err = reading.Now(); err != nil {
		return a, fmt.Errorf("asking Prometheus: %w", err)
	}
	return a, nil
}

// Verify lets every alert fire for which there is a rule, one at a time, or one
// that nobody has heard of where the rules are not served. In Alertmanager it
// also ends what suppresses an alert. It cannot apply options.match to them,
// which the servers do: what match leaves out is seen only there.
func (c alerts) Verify(ctx context.Context) (Verification, error) {
	a, err := c.read(ctx)
	if err != nil {
		return Verification{}, err
	}
	known := map[string]bool{}
	for _, group := range a.rules {
		for _, rule := range group.Rules {
			if alerting, ok := rule.(promapi.AlertingRule); ok && !neverCount.MatchString(alerting.Name) && alerting.Name != c.options.RequireFiring {
				known[alerting.Name] = true
			}
		}
	}
	v := Verification{
		Looked: looked(a, c.asked(), len(known)),
		Result: quiet(a, c.asked()),
	}
	if a.delivery != nil {
		v.Looked += ", and " + gate.Count(len(a.delivery.suppressed), "suppressed alert")
		for _, suppressed := range a.delivery.suppressed {
			changed := a
			firing, since := suppressed.sample()
			changed.firing, changed.since = append(slices.Clone(a.firing), firing), append(slices.Clone(a.since), since)
			v.Mutations = append(v.Mutations, Mutation{fmt.Sprintf("alert %s is neither silenced nor inhibited", firing.Metric[model.AlertNameLabel]), quiet(changed, c.asked())})
		}
	}
	if len(known) == 0 {
		known["AnAlertOfAnyName"] = true
	}
	for _, name := range slices.Sorted(maps.Keys(known)) {
		changed := a
		changed.firing = append(slices.Clone(a.firing), &model.Sample{Metric: model.Metric{model.AlertNameLabel: model.LabelValue(name)}, Value: 1})
		v.Mutations = append(v.Mutations, Mutation{"alert " + name + " fires", quiet(changed, c.asked())})
	}
	return v, nil
}

func looked(a alarm, o AlertsOptions, rules int) string {
	counts := len(blocking(a.firing, o))
	return fmt.Sprintf("%s, of which %d %s, and %s of alerts", gate.Count(len(a.firing), "firing alert"), counts, agree(counts, "counts", "count"), gate.Count(rules, "rule"))
}

// lookbacks is how often, evenly spread, the required alert is looked for
// between requireFiringAgo and now: a gap means that Prometheus was away, and
// that an alert which began meanwhile may still be pending.
const lookbacks = 15

func (c alerts) askRequired(ctx context.Context, a *alarm) error {
	required := series("ALERTS", c.options.RequireFiringMatch, `alertstate="firing"`, fmt.Sprintf("alertname=%q", c.options.RequireFiring))
	now, err := c.prometheus.vector(ctx, required)
	if err != nil {
		return err
	}
	ago := c.options.RequireFiringAgo
	before, err := c.prometheus.vector(ctx, required+" offset "+ago.String())
	if err != nil {
		return err
	}
	step := max(ago/lookbacks, model.Duration(time.Millisecond))
	throughout, err := c.prometheus.vector(ctx, fmt.Sprintf("count_over_time(%s[%s:%s]) >= %d", required, ago, step, lookbacks))
	if err != nil {
		return err
	}
	a.required, a.longer = len(now) > 0, len(before) > 0 && len(throughout) > 0
	return nil
}

func series(metric string, matchers []Matcher, more ...string) string {
	for _, m := range matchers {
		more = append(more, string(m))
	}
	return metric + "{" + strings.Join(more, ",") + "}"
}

// blocking returns the alerts that count.
func blocking(firing model.Vector, o AlertsOptions) model.Vector {
	return slices.DeleteFunc(slices.Clone(firing), func(s *model.Sample) bool { return ignored(string(s.Metric[model.AlertNameLabel]), o) })
}

func ignored(name string, o AlertsOptions) bool {
	return neverCount.MatchString(name) || o.exposed && name == recentReboot || name == o.RequireFiring && name != "" ||
		slices.ContainsFunc(o.Ignore, func(r Regexp) bool { return r.MatchString(name) })
}

// quiet is the pure part. That nothing fires proves nothing by itself: the
// rules may not be loaded, not be evaluated, or have lost their past.
func quiet(a alarm, o AlertsOptions) gate.Result {
	if firing := blocking(a.firing, o); len(firing) > 0 {
		var who names
		now := a.now
		if a.delivery != nil {
			now = a.delivery.now // who said since when
		}
		for _, s := range firing {
			who = append(who, describe(s, a.since, now))
		}
		return gate.Failed("AlertsFiring", "%s %s: %s", gate.Count(len(firing), "alert"), agree(len(firing), "fires", "fire"), who)
	}
	if a.delivery != nil {
		if r := arrive(a.delivery, o); r.Verdict != gate.Pass || o.Prometheus.URL == "" {
			return r
		}
	}
	switch {
	case o.RequireFiring != "" && !a.required:
		return gate.Undecided("RequiredAlertNotFiring", "nothing fires, not even %s, which should always fire: are the rules loaded, and is this the right Prometheus? (requireFiring)", o.RequireFiring)
	case o.RequireFiring != "" && !a.longer:
		return gate.Undecided("RequiredAlertTooYoung", "%s fires now but has not done so for the last %s without a gap: Prometheus has lost its past, was away or only just started, and its other alerts may still be pending", o.RequireFiring, o.RequireFiringAgo)
	case o.RequireFiring == "" && !a.served:
		return gate.Undecided("NothingProvesRules", "nothing fires, and nothing proves that something could: the server has no rules API, so name an alert that always fires in requireFiring")
	}
	evaluated := 0
	var bad names
	for _, group := range a.rules {
		for _, rule := range group.Rules {
			name, health, lastError, last := ruleState(rule)
			if ignored(name, o) && name != o.RequireFiring {
				continue
			}
			evaluated++
			lateness := max(3*time.Duration(group.Interval*float64(time.Second)), ruleLateness)
			switch late := a.now.Sub(last); {
			case health != promapi.RuleHealthGood:
				bad = append(bad, fmt.Sprintf("%s/%s (%s)", group.Name, name, cmp.Or(lastError, "health "+string(health))))
			case late > lateness:
				bad = append(bad, fmt.Sprintf("%s/%s (last evaluated %s ago)", group.Name, name, late.Round(time.Second)))
			}
		}
	}
	switch {
	case len(bad) > 0:
		return gate.Undecided("RulesUnhealthy", "nothing fires, but %s %s not healthy or not evaluated: %s", gate.Count(len(bad), "rule"), agree(len(bad), "is", "are"), bad)
	case evaluated == 0 && o.RequireFiring == "":
		return gate.Undecided("NoRules", "nothing fires, because the server has no rules")
	}
	return gate.Passed("NoAlerts", "no alert fires but those ignored%s", a.delivery)
}

// arrive is what proves that alerts arrive in Alertmanager. After its start it
// knows none until Prometheus sends them again, group by group; so the required
// alert can be there, with the start that it always had, and others not yet.
func arrive(d *delivery, o AlertsOptions) gate.Result {
	ago := time.Duration(o.RequireFiringAgo)
	switch {
	case d.cluster != "ready" && d.cluster != "disabled":
		return gate.Undecided("AlertmanagerNotReady", "nothing fires, but the status of Alertmanager's cluster is %.50q, not ready", d.cluster)
	case !d.required:
		return gate.Undecided("RequiredAlertNotDelivered", "nothing fires in Alertmanager, not even %s, which should always fire: does Prometheus send it its alerts, and is this the right one? (requireFiring)", o.RequireFiring)
	case d.runs() < ago:
		return gate.Undecided("AlertmanagerTooYoung", "nothing fires, but Alertmanager only started %s ago, not yet %s: it may not have been sent everything again", d.runs(), o.RequireFiringAgo)
	case d.fires() < ago:
		return gate.Undecided("RequiredAlertTooYoung", "%s fires in Alertmanager for %s only, not yet %s: other alerts may still be pending in Prometheus", o.RequireFiring, d.fires(), o.RequireFiringAgo)
	}
	return gate.Passed("NoAlerts", "no alert fires but those ignored%s", d)
}

// String says what does not count, to be appended.
func (d *delivery) String() string {
	if d == nil || len(d.suppressed) == 0 {
		return ""
	}
	inhibited := len(d.suppressed) - d.silenced
	return fmt.Sprintf(", %d that %s silenced and %d that %s inhibited", d.silenced, agree(d.silenced, "is", "are"), inhibited, agree(inhibited, "is", "are"))
}

func ruleState(rule any) (name string, health promapi.RuleHealth, lastError string, last time.Time) {
	switch r := rule.(type) {
	case promapi.AlertingRule:
		return r.Name, r.Health, r.LastError, r.LastEvaluation
	case promapi.RecordingRule:
		return r.Name, r.Health, r.LastError, r.LastEvaluation
	}
	return fmt.Sprintf("%T", rule), promapi.RuleHealthUnknown, "unknown type of rule", time.Time{}
}

// describe names an alert by what tells it from others, and says since when it
// is active: one that has fired for weeks is a chore, not an incident.
func describe(s *model.Sample, since model.Vector, now time.Time) string {
	labels := s.Metric.Clone()
	name := labels[model.AlertNameLabel]
	for _, drop := range []model.LabelName{model.MetricNameLabel, model.AlertNameLabel, "alertstate", "prometheus", "endpoint", "service", "container"} {
		delete(labels, drop)
	}
	text := string(name)
	if len(labels) > 0 {
		text += labels.String()
	}
	for _, other := range since {
		m := other.Metric.Clone()
		m[model.MetricNameLabel], m["alertstate"] = s.Metric[model.MetricNameLabel], s.Metric["alertstate"]
		if m.Equal(s.Metric) {
			active := now.Sub(time.Unix(int64(other.Value), 0)).Round(time.Second)
			return fmt.Sprintf("%s for %s", text, model.Duration(max(active, 0)))
		}
	}
	return text
}
