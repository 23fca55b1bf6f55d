package forecast

import (
	"fmt"
	"testing"
	"time"

	"github.com/sentinel-gate/sentinel-gate/gate/soak"
	"github.com/sentinel-gate/sentinel-gate/gate/turn"
	"github.com/sentinel-gate/sentinel-gate/gate/wiring"
)

// noon is a Saturday's.
var noon = time.Date(2026, 3, 14, 12, 0, 0, 0, time.UTC)

// rollout is one of docs/benchmarks.md: 15 minutes a node, a soak of 24h, and a kured that
// looks every minute.
func rollout(nodes []Node, rule *soak.Rule, change func(*Rollout)) Rollout {
	r := Rollout{
		Now: noon, Nodes: nodes, PerNode: 15 * time.Minute, Stabilize: time.Minute,
		Config: turn.Config{
			Soak: day, MaxAge: time.Minute, Interval: 30 * time.Second, Settle: 15 * time.Minute, GrantTimeout: 30 * time.Minute, Aging: 7 * day, Exposure: rule,
		},
		Kured: wiring.Started("--period=1m"),
	}
	if change != nil {
		change(&r)
	}
	return r
}

func exposure(limit soak.Amount) *soak.Rule { return &soak.Rule{Growth: 2, Max: limit} }

var quarter = soak.Amount{Percent: 25}

func days(d float64) time.Duration { return time.Duration(d * float64(day)) }

// TestFigures are the rows of docs/benchmarks.md, *How long a rollout takes*.
func TestFigures(t *testing.T) {
	flapping := func(r *Rollout) { r.FlapsPerYear = 365. / 90 }
	nightly := func(r *Rollout) {
		r.Kured = wiring.Started("--period=1m", "--start-time=22:00", "--end-time=02:00", "--time-zone=UTC")
	}
	weekly := func(r *Rollout) {
		r.ChangeEvery = 7 * day
	}
	for _, c := range []struct {
		name             string
		nodes            func() []Node
		limit            soak.Amount
		change           func(*Rollout)
		atLeast          time.Duration // without exposure; 0: it never ends
		within, ninetyTh time.Duration
	}{
		{"5 workers", func() []Node { return Uniform(noon, 5, 0) }, soak.Amount{Count: 2}, nil, days(4), days(2.2), 0},
		{"30 workers", func() []Node { return Uniform(noon, 30, 0) }, quarter, nil, days(29), days(6), 0},
		{"100 workers", func() []Node { return Uniform(noon, 100, 0) }, quarter, nil, days(99), days(7), 0},
		{"300 workers", func() []Node { return Uniform(noon, 300, 0) }, quarter, nil, days(299), days(8), 0},
		{"1,000 workers", func() []Node { return Uniform(noon, 1000, 0) }, quarter, nil, days(999), days(15), 0},
		{"100 workers, 4 hours a night", func() []Node { return Uniform(noon, 100, 0) }, quarter, nightly, days(99), days(9), 0},
		{"100 workers and 3 of the control plane", func() []Node { return Uniform(noon, 100, 3) }, quarter, nil, days(102), days(9), 0},
		{"two pools of 50 with kernels of their own", func() []Node { return pools(100, 2, true) }, quarter, nil, days(99), days(7), 0},
		{"100 workers in 10 kinds", func() []Node { return pools(100, 10, false) }, quarter, nil, days(99), days(7), 0},
		{"300 workers that flap once in 90 days, flaps: 5%", func() []Node { return Uniform(noon, 300, 0) }, quarter, flapping, 0, days(8), days(9)},
		{"100 workers, a new version every week", func() []Node { return Uniform(noon, 100, 0) }, quarter, weekly, 0, days(5), 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			began := time.Now()
			rule := exposure(c.limit)
			rule.Flaps = soak.Amount{Percent: 5}
			with := Of(rollout(c.nodes(), rule, c.change))
			took := time.Since(began)
			without := Of(rollout(c.nodes(), nil, func(r *Rollout) {
				r.Horizon = 3 * 365 * day
				if c.change != nil {
					c.change(r)
				}
				if r.FlapsPerYear > 0 {
					r.Horizon = 400 * day
				}
			}))
			middle := func(f Forecast) time.Duration {
				if f.Delay.P50 > 0 {
					return f.Delay.P50
				}
				return f.LastBoot.P50
			}
			t.Logf("without exposure %s (%d of %d runs unfinished), with it %s, %s in nine of ten runs (%d of %d unfinished); in %s", text(middle(without)), without.Unfinished, without.Runs, text(middle(with)), text(with.LastBoot.P90), with.Unfinished, with.Runs, took.Round(time.Millisecond))
			if got := middle(with); got == 0 || got > c.within {
				t.Errorf("with exposure the last boot is after %s, want %s", text(got), text(c.within))
			}
			if got := with.LastBoot.P90; c.ninetyTh > 0 && (got == 0 || got > c.ninetyTh) {
				t.Errorf("in nine of ten runs it is after %s, want %s", text(got), text(c.ninetyTh))
			}
			if got := without.LastBoot.P50; c.atLeast == 0 && got != 0 || got > 0 && got < c.atLeast {
				t.Errorf("without exposure the last boot is after %s, want %s at least", text(got), text(c.atLeast))
			}
		})
	}
}

func text(d time.Duration) string { return fmt.Sprintf("%.1f days", d.Hours()/24) }

// pools are nodes in so many pools: of different hardware or, with kernels, with updates of
// their own.
func pools(count, pools int, kernels bool) []Node {
	nodes := Uniform(noon, count, 0)
	for i := range nodes {
		pool := fmt.Sprintf("pool-%d", i%pools)
		if kernels {
			nodes[i].Wants = []soak.Part{"update", soak.Part("kernel-of-" + pool)}
		} else {
			nodes[i].Kind = pool
		}
	}
	return nodes
}
