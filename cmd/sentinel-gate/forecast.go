package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sentinel-gate/sentinel-gate/gate/clock"
	"github.com/sentinel-gate/sentinel-gate/gate/forecast"
	"github.com/sentinel-gate/sentinel-gate/gate/soak"
	"github.com/sentinel-gate/sentinel-gate/gate/turn"
	"github.com/sentinel-gate/sentinel-gate/gate/wiring"
)

// unmeasured is from one node's boot to the next one's where no record shows it.
const unmeasured = 15 * time.Minute

// tellForecast prints how a rollout will go.
func tellForecast(ctx context.Context, f flags, stdout io.Writer) error {
	f.whatIf.assume()
	var r forecast.Rollout
	var assumed []string
	var deadline time.Duration
	if f.whatIf.nodes > 0 {
		c := defaults()
		r = rolloutOf(c.turnConfig("", ""), time.Duration(c.Stabilize))
		r.Now, r.Nodes = time.Now().UTC(), forecast.Uniform(time.Now().UTC(), f.whatIf.nodes, max(0, f.whatIf.controlPlane))
		r.Config.Soak, r.Config.Exposure = 24*time.Hour, &soak.Rule{Growth: 2, Max: soak.Amount{Percent: 25}}
		assumed = append(assumed, "every node waits for the same update, and nothing is in soak")
	} else {
		c, err := usable(ctx, f)
		if err != nil {
			return unusable{err}
		}
		if r, _, assumed, err = c.rollout(ctx, f); err != nil {
			return unusable{err}
		}
		deadline = time.Duration(c.Turn.Deadline)
	}
	if len(r.Nodes) == 0 || f.whatIf.controlPlane < 0 {
		return unusable{errors.New("a forecast of no nodes: readySoak's selector chooses none, or --nodes and --control-plane-nodes are none")}
	}
	more, err := f.whatIf.apply(&r)
	if err != nil {
		return unusable{err}
	}
	return forecast.Tell(stdout, r, append(assumed, more...), deadline)
}

// assume fills in what follows from what was given.
func (w *whatIf) assume() {
	if w.most != "" && !w.given("growth") {
		w.growth = 2
	}
}

// apply puts what was given into the place of what was found, and says what is assumed.
func (w *whatIf) apply(r *forecast.Rollout) (assumed []string, err error) {
	if w.soak > 0 {
		r.Config.Soak = time.Duration(w.soak)
	}
	if w.given("growth") || w.most != "" {
		r.Config.Exposure = nil
		if w.growth > 0 {
			limit := soak.Amount{Percent: 25}
			if w.most != "" {
				if limit, err = soak.ParseAmount(w.most); err != nil {
					return nil, fmt.Errorf("--max: %w", err)
				}
			}
			r.Config.Exposure = &soak.Rule{Growth: w.growth, Max: limit}
		}
	}
	if w.window != "" {
		from, to, found := strings.Cut(w.window, "-")
		r.Kured = wiring.Started("--period=1m", "--start-time="+from, "--end-time="+to)
		if !found || r.Kured.ActsNext(r.Now).IsZero() {
			return nil, fmt.Errorf("--window: want two times of the day, such as 22:00-02:00, not %q", w.window)
		}
	}
	if w.minutesPerNode > 0 {
		r.PerNode = time.Duration(w.minutesPerNode * float64(time.Minute))
		assumed = append(assumed, fmt.Sprintf("%s from one boot to the next: as given", r.PerNode))
	} else if r.PerNode == 0 {
		r.PerNode = unmeasured
		assumed = append(assumed, "15m from one boot to the next: no rollout is on record that would show it")
	}
	r.FlapsPerYear, r.ChangeEvery = w.flaps, time.Duration(w.changeEvery)
	if r.FlapsPerYear == 0 {
		assumed = append(assumed, "no node flaps, and none crashes")
	} else {
		assumed = append(assumed, fmt.Sprintf("each node flaps %g times a year, at random", r.FlapsPerYear))
		if r.Config.Exposure != nil && r.Config.Exposure.Flaps == (soak.Amount{}) {
			rule := *r.Config.Exposure
			rule.Flaps = soak.Amount{Percent: 5}
			r.Config.Exposure = &rule
			assumed = append(assumed, "flaps: 5% of readySoak")
		}
	}
	return assumed, nil
}

func rolloutOf(c turn.Config, stabilize time.Duration) forecast.Rollout {
	return forecast.Rollout{Config: c, Stabilize: stabilize, Kured: wiring.Started("--period=1m")}
}

// rollout is this cluster as it is, of which so many nodes wait.
func (c *configuration) rollout(ctx context.Context, f flags) (r forecast.Rollout, waiting int, assumed []string, err error) {
	r = rolloutOf(c.turnConfig(f.nodeName, ""), time.Duration(c.Stabilize))
	rule, soaking := c.exposure()
	r.Config.Soak, r.Config.Exposure = c.soak(nil), rule
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	ctx, reading := clock.Read(ctx)
	lease, err := c.cluster.LeaseClient().Get(ctx, turn.LeaseName, metav1.GetOptions{})
	if err != nil {
		return r, 0, nil, fmt.Errorf("reading the turn: %w", err)
	}
	if r.State, err = turn.Parse(lease); err != nil {
		return r, 0, nil, err
	}
	candidates, members, err := turn.ListSoaks(ctx, c.cluster.LeaseClient(), c.cluster.NodeClient(), c.Turn.tiers(), soaking)
	if err != nil {
		return r, 0, nil, err
	}
	if r.Now, err = reading.Now(); err != nil {
		return r, 0, nil, err
	}
	tiers := map[string]turn.Candidate{}
	for _, n := range candidates {
		tiers[n.Node] = n
	}
	for _, m := range members {
		n := forecast.Node{Node: m, Tier: tiers[m.Name].Tier}
		if since := tiers[m.Name].PendingSince; since.IsZero() || m.Gone {
			n.Wants = nil
		} else if n.WaitsSince = since; n.Wants == nil { // its gate tells no parts
			n.Wants = []soak.Part{soak.Unknown}
		}
		if n.Wants != nil {
			waiting++
		}
		r.Nodes = append(r.Nodes, n)
	}
	if waiting == 0 {
		assumed = append(assumed, "nobody waits now: as if every node waited for the same update")
		for i := range r.Nodes {
			if n := &r.Nodes[i]; !n.Gone {
				n.Wants, n.WaitsSince = []soak.Part{"update"}, r.Now
			}
		}
	}
	if r.State.HeldBy(r.State.Holder) { // its part in the simulation begins with its turn
		r.State = turn.State{Phase: turn.PhaseFree, Since: r.Now, Exposed: r.State.Exposed, RebootedAt: r.State.RebootedAt}
	}
	var measured int
	if r.PerNode, measured = forecast.Measured(members, r.Config.Soak); measured > 0 {
		assumed = append(assumed, fmt.Sprintf("%s from one boot to the next: the middle of %d on record", r.PerNode.Round(time.Second), measured))
	}
	if kured := lookedAt(f, c).Kured; kured != nil {
		r.Kured = *kured
	} else {
		assumed = append(assumed, "a kured that looks every minute and has no window: its arguments can be read on its node alone; give --window")
	}
	return r, waiting, assumed, nil
}

// exposureNow says, where exposure is configured, how the soaks stand and when the last node
// that waits has booted.
func (c *configuration) exposureNow(ctx context.Context, f flags) []string {
	rule, _ := c.exposure()
	if rule == nil {
		return nil
	}
	r, waiting, _, err := c.rollout(ctx, f)
	if err != nil {
		return []string{"unknown: " + oneLine(err.Error())}
	}
	var members []soak.Node
	for _, n := range r.Nodes {
		members = append(members, n.Node)
	}
	standing := rule.Judge(members, r.Now)
	lines := []string{standing.String()}
	if len(standing.InSoak) > 0 {
		lines[0] += "; the last soak ends at " + standing.Until.UTC().Format(time.RFC3339)
	}
	if waiting == 0 {
		return lines
	}
	if r.PerNode == 0 {
		r.PerNode = unmeasured
	}
	told := forecast.Of(r)
	last := "never: see the refusal above"
	if told.LastBoot.P50 > 0 {
		last = r.Now.Add(told.LastBoot.P50).UTC().Format(time.RFC3339)
	}
	lines = append(lines, "where nothing else holds it, the last node that waits has booted by "+last+" (sentinel-gate --forecast)")
	if deadline := time.Duration(c.Turn.Deadline); deadline > 0 && (told.LastBoot.P50 == 0 || told.LastBoot.P50 > deadline) {
		lines = append(lines, fmt.Sprintf("the deadline of %s CANNOT BE MET: sentinel-gate --forecast says by which setting it would be", c.Turn.Deadline))
	}
	return lines
}
