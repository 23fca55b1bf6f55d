package gate

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/sentinel-gate/sentinel-gate/gate/tether"
	"github.com/sentinel-gate/sentinel-gate/gate/turn"
	"github.com/sentinel-gate/sentinel-gate/gate/wiring"
)

// breather is the least time between two evaluations, and between two raw
// sentinels: whatever flaps cannot make the gate hammer the API server.
const breather = time.Second

// recheck is how late the next evaluation is at most, whatever the steps announced.
const recheck = 10 * time.Minute

// someIntervals is for how many of them steps err before that is taken for this node's
// own trouble.
const someIntervals = 5

// jitter is the part of the interval by which an evaluation may begin earlier or
// later: it keeps the nodes apart.
const jitter = 0.1

// LongestTimeout returns how long a step may take so that an open gate is evaluated
// anew before maxAge has passed. It is not positive where there is no such time.
func LongestTimeout(interval, maxAge time.Duration) time.Duration {
	return maxAge - time.Duration((1+jitter)*float64(interval)) - loopMargin
}

// evaluations is what is known of the evaluations: which one is under way, when the
// next is due, and for how long every step has passed.
type evaluations struct {
	interval, maxAge, stabilize time.Duration

	running *evaluation // nil: none is under way
	began   time.Time   // when the last one did
	due     time.Time   // when the next one is; zero: none is
	// announced is when the next one is, or the one under way was, due.
	announced time.Time
	// passingSince is when the first began of those in a row that passed, and zero
	// where the last did not. lastPass is when the last of them began, by tether.Now.
	passingSince time.Time
	lastPass     time.Duration
	// nodeBlockedSince is since when only steps about this node hold it back, and zero
	// where something else does.
	nodeBlockedSince time.Time
	// erringSince is since when only such steps hold it back, and steps that err.
	erringSince time.Time
	// failingSince is since when the gate could not be opened although it might; zero:
	// the last attempt was none, or succeeded.
	failingSince time.Time
	// last is what was decided last, with what was heard of since.
	last Decision
	// counts are the evaluations by their worst verdict.
	counts [Pass + 1]int
}

// evaluation is one that is under way, and what it has told so far.
type evaluation struct {
	began    time.Time
	beganAt  time.Duration // the same, by tether.Now
	cancel   context.CancelFunc
	outcomes chan Outcome
	done     chan evaluated
}

// evaluated is what an evaluation came to.
type evaluated struct {
	Decision
	// confirmed: the turn, read afresh, lets the gate open; or the gate takes no part in
	// a turn. refusal is why not, where the turn was asked.
	confirmed bool
	refusal   error
	// finding is what the kured on this node looks at, where the gate is to open; nil:
	// it was not looked for.
	finding *wiring.Finding
}

// start begins an evaluation. Where the gate would open, or stay open, by it, the turn
// is asked as well; nil: there is none. Before it opens look finds the kured, where it is
// not nil.
func (e *evaluations) start(ctx context.Context, now time.Time, p *Pipeline, overrides map[string]turn.Override, open bool, taken *turn.Turn, look func(context.Context) wiring.Finding) {
	ctx, cancel := context.WithCancel(ctx)
	x := &evaluation{
		began: now, beganAt: tether.Now(), cancel: cancel,
		outcomes: make(chan Outcome, len(p.steps)), done: make(chan evaluated, 1),
	}
	e.running, e.began, e.due = x, now, time.Time{}
	ripe := e.ripe(x, open)
	go func() {
		result := evaluated{Decision: p.Evaluate(ctx, overrides, func(o Outcome) { x.outcomes <- o })}
		switch {
		case !ripe || !result.Passes():
		case taken == nil:
			result.confirmed = true
		default:
			result.refusal = taken.Confirm(ctx)
			result.confirmed = result.refusal == nil
		}
		if result.confirmed && !open && look != nil {
			finding := look(ctx)
			result.finding = &finding
		}
		x.done <- result
	}()
}

// ripe reports whether the gate opens, or stays open, if the evaluation passes.
func (e *evaluations) ripe(x *evaluation, open bool) bool {
	if open || e.stabilize == 0 {
		return true
	}
	return !e.passingSince.IsZero() && x.beganAt-e.lastPass < e.maxAge && !x.began.Before(e.stableAt())
}

// stableAt is when every step has passed for long enough.
func (e *evaluations) stableAt() time.Time { return e.passingSince.Add(e.stabilize) }

// stop breaks off the evaluation that is under way.
func (e *evaluations) stop() {
	if e.running != nil {
		e.running.cancel()
		e.running = nil
	}
}

// forget drops all that is known of the cluster.
func (e *evaluations) forget() {
	e.stop()
	e.due, e.announced, e.passingSince = time.Time{}, time.Time{}, time.Time{}
	e.nodeBlockedSince, e.erringSince, e.failingSince = time.Time{}, time.Time{}, time.Time{}
	e.last = Decision{}
}

// startOver makes an evaluation due. One that is under way may have read what was
// true before, so it does not count.
func (e *evaluations) startOver(now time.Time) {
	e.stop()
	e.passingSince = time.Time{}
	e.soon(now)
}

// soon makes the next evaluation due now, or when the breather after the last is over.
func (e *evaluations) soon(now time.Time) {
	e.due = now
	if earliest := e.began.Add(min(breather, e.interval)); now.Before(earliest) {
		e.due = earliest
	}
	e.announced = e.due
}

// finish takes in the result of the evaluation that was under way, and makes the next
// one due. It reports whether every step has passed for long enough.
func (e *evaluations) finish(result evaluated, now time.Time) (stable bool) {
	defer func() { e.announced = e.due }()
	x := e.running
	e.running = nil
	x.cancel()
	e.hear(result.Decision, now)
	e.counts[result.Result()]++
	spread := 2 * jitter * rand.Float64() * float64(e.interval)
	earliest := time.Duration((1 - jitter) * float64(e.interval))
	e.due = x.began.Add(earliest + time.Duration(spread))

	since(&e.nodeBlockedSince, result.nodeBlocked(), now)
	since(&e.erringSince, result.stepsErr(), now)
	if !result.Passes() {
		e.passingSince = time.Time{}
		if wait := result.RetryAfter(); wait > 0 {
			// Every blocking step knows when it can change. But what it waits for may be gone
			// before: a node that was scaled in, an override of its own.
			e.due = x.began.Add(min(wait, recheck) + time.Duration(spread))
		}
		return false
	}
	if e.passingSince.IsZero() || x.beganAt-e.lastPass >= e.maxAge {
		e.passingSince = x.began
	}
	e.lastPass = x.beganAt
	if stable := e.stableAt(); x.began.Before(stable) {
		if stable.Before(e.due) {
			e.due = stable
		}
		return false
	}
	return true
}

// hear takes in what a step, or all of them, have said, and carries over how long each
// has been blocking.
func (e *evaluations) hear(d Decision, now time.Time) {
	for i, o := range d.Outcomes {
		if o.Verdict == Pass {
			continue
		}
		d.Outcomes[i].Since = now.UTC()
		for _, before := range e.last.Outcomes {
			if before.Name == o.Name && before.Verdict != Pass && !before.Since.IsZero() {
				d.Outcomes[i].Since = before.Since
			}
		}
	}
	e.last = d
}

// since keeps since when something is so.
func since(at *time.Time, is bool, now time.Time) {
	if !is {
		*at = time.Time{}
	} else if at.IsZero() {
		*at = now
	}
}

// stepsErr reports whether for some intervals only steps that err, and such as are about
// this node, have held it back.
func (e *evaluations) stepsErr(now time.Time) bool {
	return !e.erringSince.IsZero() && now.Sub(e.erringSince) >= someIntervals*e.interval
}

// nodeBlocked reports whether for an interval at least only steps about this node have
// held it back.
func (e *evaluations) nodeBlocked(now time.Time) bool {
	return !e.nodeBlockedSince.IsZero() && now.Sub(e.nodeBlockedSince) >= e.interval
}

// channels returns those of the evaluation that is under way, and nil where none is.
func (e *evaluations) channels() (<-chan Outcome, <-chan evaluated) {
	if e.running == nil {
		return nil, nil
	}
	return e.running.outcomes, e.running.done
}
