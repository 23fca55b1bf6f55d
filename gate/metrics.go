package gate

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sentinel-gate/sentinel-gate/gate/turn"
	"github.com/sentinel-gate/sentinel-gate/gate/wiring"
)

const namespace = "sentinel_gate_"

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(namespace+name, help, labels, nil)
}

// docs/metrics.md lists these; a test keeps the two equal.
var (
	rebootRequired      = desc("reboot_required", "Whether the raw sentinel asks for a reboot. kured's own gauge sees only the gated one.")
	rebootRequiredSince = desc("reboot_required_since_timestamp_seconds", "When the raw sentinel was made, and 0 while there is none.")
	rawSentinelProblem  = desc("raw_sentinel_problem", "Whether the raw sentinel cannot be understood, so that the gate is closed without an evaluation.")
	state               = desc("state", "1 for the state of the gate: Idle, Closed or Open.", "state")
	stateSince          = desc("state_since_timestamp_seconds", "When the gate entered its state.")
	openSince           = desc("open_since_timestamp_seconds", "When the gate opened, and 0 while it is not open.")
	stepVerdict         = desc("step_verdict", "1 for the last verdict of each step: Pass, Fail or Unknown.", "step", "type", "verdict", "reason")
	stepBlockingSince   = desc("step_blocking_since_timestamp_seconds", "When the step began to hold the gate closed, and 0 while it does not, is soft, or is overridden.", "step", "type")
	stepSoft            = desc("step_soft", "1 for a step that does not pass but is soft, so it does not block.", "step", "type")
	evaluationsTotal    = desc("evaluations_total", "Evaluations by their worst verdict.", "result")
	lastEvaluation      = desc("last_evaluation_timestamp_seconds", "When the last finished evaluation began, and 0 while no reboot is pending.")
	nextEvaluation      = desc("next_evaluation_timestamp_seconds", "When the next evaluation is due, and 0 while none is.")
	kuredWired          = desc("kured_wired", "1 for the reason that describes what the kured on this node looks at; Wired means the gated sentinel.", "reason")
	turnPhase           = desc("turn", "1 for the phase of the turn and its holder, as this gate sees it.", "phase", "holder")
	turnSince           = desc("turn_since_timestamp_seconds", "When the turn entered its phase, and 0 where that is not known.")
	turnKnown           = desc("turn_known", "Whether this gate knows how the turn stands. Exported only while this node waits for or holds the turn.")
	turnHalted          = desc("turn_halted", "Whether the whole rollout is halted.")
	turnHeld            = desc("turn_held", "Whether this node is held.")
	turnWaiting         = desc("turn_waiting", "How many nodes waited when the turn was last granted.")
	turnNotActedOn      = desc("turn_not_acted_on", "How many open gates in a row kured ignored; at 2 the turn stops.")
	turnPassedOver      = desc("turn_passed_over", "1 for each node that had the turn, could not use it, and now goes last, with the cause.", "holder", "cause")
	turnInSoak          = desc("turn_in_soak", "With exposure: how many nodes were in soak when the turn last looked.")
	turnExposureLimit   = desc("turn_exposure_limit", "With exposure: how many nodes may be in soak together.")
	turnSoaked          = desc("turn_soaked", "With exposure: how many nodes had soaked what they run when the turn last looked.")
	turnAgainst         = desc("turn_evidence_against", "With exposure: how many nodes crashed or flapped in their soak of what they run.")
	turnNextAt          = desc("turn_next_timestamp_seconds", "With exposure: before when nobody may reboot by what is known, and 0 where somebody may.")
	turnOverrides       = desc("turn_overrides", "How many steps operators have overridden, expired overrides included.")
	foreign             = desc("foreign_entries_removed_total", "How often something other than this gate changed the entry at the gated path.")
)

// Metrics exports the last status.
type Metrics struct {
	stepDuration *prometheus.HistogramVec

	mu     sync.Mutex
	status Status
	timed  time.Time // the evaluation whose durations were observed last
}

// NewMetrics returns the metrics, registered with the registry.
func NewMetrics(registry prometheus.Registerer) *Metrics {
	m := &Metrics{stepDuration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    namespace + "step_duration_seconds",
		Help:    "How long each step of an evaluation took.",
		Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
	}, []string{"step", "type"})}
	registry.MustRegister(m, m.stepDuration)
	return m
}

// Report takes a new status.
func (m *Metrics) Report(s Status) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.status = s
	if !s.Decision.Began.Equal(m.timed) {
		m.timed = s.Decision.Began
		for _, o := range s.Decision.Outcomes {
			m.stepDuration.WithLabelValues(o.Name, o.Type).Observe(o.Seconds)
		}
	}
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		rebootRequired, rebootRequiredSince, rawSentinelProblem, state, stateSince, openSince,
		stepVerdict, stepBlockingSince, stepSoft, evaluationsTotal, lastEvaluation, nextEvaluation, kuredWired, foreign,
		turnPhase, turnSince, turnKnown, turnHalted, turnHeld, turnWaiting, turnNotActedOn, turnOverrides, turnPassedOver,
		turnInSoak, turnExposureLimit, turnSoaked, turnAgainst, turnNextAt,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	m.mu.Lock()
	s := m.status
	m.mu.Unlock()
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	counter := func(d *prometheus.Desc, value int, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(value), labels...)
	}
	gauge(rebootRequired, truth(s.Raw.Pending))
	gauge(rebootRequiredSince, seconds(s.Raw.Since))
	gauge(rawSentinelProblem, truth(s.Raw.Problem != nil))
	for _, each := range States {
		gauge(state, truth(s.State == each), each.String())
	}
	gauge(stateSince, seconds(s.Since))
	if s.State == Open {
		gauge(openSince, seconds(s.Since))
	} else {
		gauge(openSince, 0)
	}
	for _, o := range s.Decision.Outcomes {
		gauge(stepVerdict, 1, o.Name, o.Type, o.Verdict.String(), o.Reason)
		if o.passed() || !o.holds() {
			o.Since = time.Time{}
		}
		gauge(stepBlockingSince, seconds(o.Since), o.Name, o.Type)
		gauge(stepSoft, truth(o.Soft), o.Name, o.Type)
	}
	for _, verdict := range []Verdict{Unknown, Fail, Pass} {
		counter(evaluationsTotal, s.Evaluations[verdict], verdict.String())
	}
	gauge(lastEvaluation, seconds(s.Decision.Began))
	gauge(nextEvaluation, seconds(s.RetryAt))
	for _, reason := range wiring.Reasons {
		gauge(kuredWired, truth(s.Wiring.Reason == reason), string(reason))
	}
	counter(foreign, s.Foreign)
	if !s.followsTurn() {
		return
	}
	v := s.Turn
	if phase := v.State.Phase; v.Problem == nil {
		if phase == turn.PhaseUnwritten {
			phase = "unused"
		}
		gauge(turnPhase, 1, string(phase), v.State.Holder)
	}
	_, held := v.Operator.Held(s.Node)
	gauge(turnSince, seconds(v.State.Since))
	gauge(turnKnown, truth(v.Problem == nil))
	gauge(turnHalted, truth(v.Operator.Halted))
	gauge(turnHeld, truth(held))
	gauge(turnWaiting, float64(v.State.Waiting))
	gauge(turnNotActedOn, float64(v.State.NotActedOn))
	gauge(turnOverrides, float64(len(v.Operator.Overrides)))
	for _, p := range v.State.PassedOver { // 20 at most
		gauge(turnPassedOver, 1, p.Node, string(p.Cause))
	}
	if !v.State.Exposed {
		return
	}
	soaks := v.State.Soaks
	gauge(turnInSoak, float64(soaks.InSoak))
	gauge(turnExposureLimit, float64(soaks.Limit))
	gauge(turnSoaked, float64(soaks.Soaked))
	gauge(turnAgainst, float64(soaks.Against))
	gauge(turnNextAt, seconds(v.State.NextAt))
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// seconds is the Unix time of t, as Prometheus writes timestamps, and 0 for
// the zero time.
func seconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixNano()) / float64(time.Second)
}
