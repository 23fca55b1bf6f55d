package gate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/sentinel-gate/sentinel-gate/gate/tether"
	"github.com/sentinel-gate/sentinel-gate/gate/turn"
	"github.com/sentinel-gate/sentinel-gate/gate/wiring"
)

const (
	// breather is the least time between two evaluations, and between two
	// raw sentinels: whatever flaps cannot make the gate hammer the API server.
	breather = time.Second
	// reminder is how often a gate with nothing new to say repeats itself while
	// a reboot is pending.
	reminder = time.Hour
	// maxShouts is how many lines about tampering there are in one breather.
	maxShouts = 10
)

// Loop is the life of a node's gate: it alone opens and closes the gated
// sentinel. All its work is done by the one goroutine of Run; evaluations and
// watches run beside it and tell it what they saw.
type Loop struct {
	Pipeline *Pipeline
	Gated    *Gated
	// RawPaths are the raw sentinels. Changed, which may be nil, hastens the
	// look at them and at the gated path; there is one every Interval anyway.
	RawPaths []string
	Changed  <-chan struct{}
	// Interval lies between evaluations while a reboot is pending, give or take
	// a tenth. MaxAge is how old the beginning of the last passing evaluation
	// may be while the gate is open. Stabilize is how long every step must
	// have passed before it opens.
	Interval, MaxAge, Stabilize time.Duration
	// Wiring tells what the kured on this node looks at; where it is nil, that
	// is not looked for. It is asked every Interval and before the gate opens.
	Wiring func() wiring.Finding
	// Turn takes part in the cluster's turn; where it is nil every gate decides
	// for itself.
	Turn *turn.Turn
	// BootedAt returns when the node booted, for the turn.
	BootedAt func() time.Time
	Log      *slog.Logger
	// Tell is called with every new status, and must not block.
	Tell func(Status)

	beat atomic.Int64 // when Run last came around, a time of tether.Now

	status       Status
	looked       bool // the raw sentinel has been read
	lookAt       time.Time
	appearAfter  time.Time // whatever appears at an idle gate earlier is flapping
	evaluation   *evaluation
	lastBegan    time.Time
	evaluateAt   time.Time // zero: no evaluation is due
	passingSince time.Time // zero: the last evaluation did not pass
	lastPass     time.Duration
	closeAt      time.Time // of an open gate
	hints        chan Outcome
	findings     chan wiring.Finding
	stopWatches  context.CancelFunc
	logged       string    // what the last log line said
	shouting     time.Time // when the first of the shouts was
	shouts       int
	remindAt     time.Time

	wasOpen          bool // when the turn was told last
	closedSince      time.Time
	nodeBlockedSince time.Time // zero: something else held the gate back last
	openFor          time.Duration
	openForAt        time.Time
	openForHolder    string // of whose turn openFor tells
}

// evaluation is a running evaluation and what it has told so far.
type evaluation struct {
	began    time.Time
	beganAt  time.Duration // the same on the clock of the tether
	cancel   context.CancelFunc
	outcomes chan Outcome
	done     chan Decision
	// unconfirmed is why the turn does not permit to open; written before done.
	unconfirmed error
}

// Alive reports whether the loop has come around lately, by its own schedule.
func (l *Loop) Alive() bool {
	return tether.Now()-time.Duration(l.beat.Load()) < max(3*l.Interval, 10*time.Second)
}

// Run works until ctx ends, which is its way to stop, or until the gated
// directory is lost. When it returns the gate is closed.
func (l *Loop) Run(ctx context.Context) error {
	defer func() { l.stopEvaluation(); l.unwatch() }()
	wake := time.NewTimer(0)
	defer wake.Stop()
	l.lookAt = time.Now()
	l.closedSince = l.lookAt
	l.watchWiring(ctx)
	var views <-chan turn.View
	if l.Turn != nil {
		l.Turn.Start()
		l.status.TurnOn, l.status.Turn, l.status.Node = true, l.Turn.View(), l.Turn.Config.Node
		views = l.Turn.Views()
		turnEnds := make(chan struct{})
		turnCtx, endTurn := context.WithCancel(ctx)
		go func() { defer close(turnEnds); l.Turn.Run(turnCtx) }()
		defer func() { endTurn(); <-turnEnds }()
	}
	for {
		now := time.Now()
		l.beat.Store(int64(tether.Now()))
		if err := l.act(ctx, now); err != nil {
			return errors.Join(err, l.Gated.Close())
		}
		wake.Reset(l.next().Sub(now))

		var outcomes chan Outcome
		var done chan Decision
		if l.evaluation != nil {
			outcomes, done = l.evaluation.outcomes, l.evaluation.done
		}
		select {
		case <-ctx.Done():
			err := l.Gated.Close()
			l.Log.Info("the gate stops and is closed", "previous", l.status.State)
			return err
		case <-wake.C:
		case <-l.Changed:
			l.lookAt = now
		case hint := <-l.hints:
			l.onHint(hint)
		case finding := <-l.findings:
			l.onFinding(finding)
		case outcome := <-outcomes:
			l.onOutcome(outcome)
		case decision := <-done:
			l.onDecision(ctx, decision)
		case view := <-views:
			l.onTurn(view)
		}
		l.tellTurn()
	}
}

// act does what is due by now.
func (l *Loop) act(ctx context.Context, now time.Time) error {
	if l.status.State == Open && !now.Before(l.closeAt) {
		l.close(fmt.Sprintf("closed: no evaluation that began in the last %s passed", l.MaxAge-loopMargin))
	}
	if !now.Before(l.lookAt) {
		l.lookAt = now.Add(l.Interval)
		if err := l.Gated.Misplaced(); err != nil {
			return err
		}
		l.look(now)
	}
	l.countOpen(now)
	if l.evaluation == nil && !l.evaluateAt.IsZero() && !now.Before(l.evaluateAt) {
		l.evaluate(ctx, now)
	}
	if (l.status.Raw.Pending || l.status.Raw.Problem != nil) && !l.remindAt.IsZero() && !now.Before(l.remindAt) {
		l.logged = ""
		l.tell(l.status.Why)
	}
	return nil
}

// next is when act has something to do again.
func (l *Loop) next() time.Time {
	next := l.lookAt
	earlier := func(t time.Time) {
		if !t.IsZero() && t.Before(next) {
			next = t
		}
	}
	if l.status.State == Open {
		earlier(l.closeAt)
	}
	if l.evaluation == nil {
		earlier(l.evaluateAt)
	}
	return next
}

// look reads the raw sentinel and inspects the gated one.
func (l *Loop) look(now time.Time) {
	if err := l.Gated.Inspect(); err != nil {
		l.status.Foreign++
		if l.status.State == Open {
			l.startOver(now, "closed: the gated sentinel was tampered with")
		}
		l.Tell(l.status)
		if now.Sub(l.shouting) >= breather {
			l.shouting, l.shouts = now, 0
		}
		if l.shouts++; l.shouts <= maxShouts {
			l.Log.Error("the gated sentinel was tampered with, and the gate is closed", "error", err, "count", l.status.Foreign)
		}
	}
	was := l.status.Raw
	raw := ReadRaw(l.RawPaths, now)
	if was.Pending && raw.Pending && was.Since.Before(raw.Since) {
		raw.Since = was.Since // the same reboot, asked for again
	}
	if l.status.State == Idle && (raw.Pending || raw.Problem != nil) && now.Before(l.appearAfter) {
		l.lookAt = l.appearAfter
		return
	}
	first := !l.looked
	l.looked, l.status.Raw = true, raw
	switch {
	case raw.Pending:
		switch {
		case was.Pending:
		case l.evaluates():
			l.evaluateAt = l.rested(now)
			l.close("closed: a reboot is pending and the first evaluation is under way")
		default:
			l.close("closed: a reboot is pending; " + l.status.Turn.Why())
		}
	case raw.Problem != nil:
		if first || was.Problem == nil || was.Problem.Error() != raw.Problem.Error() {
			l.forget()
			l.close("closed: it cannot be told whether a reboot is pending: " + raw.Problem.Error())
		}
	default:
		if first || was.Pending || was.Problem != nil {
			l.appearAfter = now.Add(breather)
			l.forget()
			l.closeTo(Idle, "idle: no reboot is pending")
		}
	}
}

// rested returns now, or when the breather after the last evaluation is over.
func (l *Loop) rested(now time.Time) time.Time {
	if earliest := l.lastBegan.Add(min(breather, l.Interval)); now.Before(earliest) {
		return earliest
	}
	return now
}

func (l *Loop) evaluate(ctx context.Context, now time.Time) {
	ctx, cancel := context.WithCancel(ctx)
	e := &evaluation{
		began: now, beganAt: tether.Now(), cancel: cancel,
		outcomes: make(chan Outcome, len(l.Pipeline.steps)), done: make(chan Decision, 1),
	}
	l.evaluation, l.lastBegan, l.evaluateAt = e, now, time.Time{}
	overrides, ripe := l.status.Turn.Operator.Overrides, l.ripe(e)
	go func() {
		decision := l.Pipeline.Evaluate(ctx, overrides, func(o Outcome) { e.outcomes <- o })
		if l.Turn != nil && ripe && decision.Passes() {
			e.unconfirmed = l.Turn.Confirm(ctx)
		}
		e.done <- decision
	}()
}

// ripe reports whether the gate opens, or stays open, if the evaluation passes.
func (l *Loop) ripe(e *evaluation) bool {
	if l.status.State == Open || l.Stabilize == 0 {
		return true
	}
	return !l.passingSince.IsZero() && e.beganAt-l.lastPass < l.MaxAge && !e.began.Before(l.passingSince.Add(l.Stabilize))
}

// evaluates reports whether the steps are to be asked: without a turn always.
func (l *Loop) evaluates() bool { return l.Turn == nil || l.status.Turn.Evaluates() }

// onTurn closes at once where the turn no longer permits the gate to be open, and
// evaluates when it is this node's, or when people override other steps.
func (l *Loop) onTurn(v turn.View) {
	evaluated, overrides := l.evaluates(), l.status.Turn.Operator.Overrides
	l.status.Turn = v
	if l.status.State == Open && !v.Permits() {
		l.shut() // first of all
	}
	pending := l.status.Raw.Pending
	switch {
	case pending && !v.Evaluates():
		l.forget()
		l.close("closed: " + v.Why())
	case pending && l.status.State == Open && !v.Permits():
		l.startOver(time.Now(), "closed: "+v.Why())
	case pending && !evaluated:
		l.evaluateAt = l.rested(time.Now())
		l.status.RetryAt = l.evaluateAt
		l.close("closed: the turn is this node's, and the first evaluation is under way")
	case pending && !maps.Equal(overrides, v.Operator.Overrides):
		// The next evaluation may be hours away.
		l.startOver(time.Now(), "closed: what is overridden has changed, and every step is asked anew")
	default:
		l.Tell(l.status)
	}
}

// tellTurn says what the turn must know of this gate.
func (l *Loop) tellTurn() {
	if l.Turn == nil {
		return
	}
	// What could not be removed is as good as open.
	open := l.status.State == Open || l.status.followsTurn() && l.Gated.Resolves()
	if l.wasOpen && !open {
		l.closedSince = time.Now()
	}
	l.wasOpen = open
	g := turn.Gate{
		Pending: l.status.Raw.Pending, Open: open, ClosedSince: l.closedSince,
		NodeBlocked: !l.nodeBlockedSince.IsZero() && time.Since(l.nodeBlockedSince) >= l.Interval,
		Overdue:     l.openFor >= l.patience(),
	}
	if l.BootedAt != nil {
		g.BootedAt = l.BootedAt()
	}
	l.Turn.Tell(g)
}

// patience is how long kured may leave an open gate alone: three of its own looks
// at least.
func (l *Loop) patience() time.Duration {
	patience := l.Turn.Config.GrantTimeout
	if kured := l.status.Wiring.Kured; kured != nil {
		patience = max(patience, 3*kured.Period+breather)
	}
	return patience
}

// countOpen adds up how long the gate has been open in this turn, in kured's own
// window alone: a gate that is open at noon, for a kured that acts at night, is
// as it should be.
func (l *Loop) countOpen(now time.Time) {
	v := l.status.Turn
	if whose := fmt.Sprint(v.State.Holder, v.State.NotActedOn, v.State.RebootedAt); whose != l.openForHolder || v.State.Phase != turn.Open {
		l.openForHolder, l.openFor = whose, 0
	}
	kured := l.status.Wiring.Kured
	if l.status.State == Open && !l.openForAt.IsZero() && (kured == nil || kured.Acts(now)) {
		l.openFor += now.Sub(l.openForAt)
	}
	l.openForAt = now
}

func (l *Loop) stopEvaluation() {
	if l.evaluation != nil {
		l.evaluation.cancel()
		l.evaluation = nil
	}
}

// forget drops all that is known of the cluster.
func (l *Loop) forget() {
	l.stopEvaluation()
	l.evaluateAt, l.passingSince, l.nodeBlockedSince = time.Time{}, time.Time{}, time.Time{}
	l.status.Decision, l.status.RetryAt = Decision{}, time.Time{}
}

// startOver closes the gate and evaluates anew. An evaluation that is under way
// may have read what was true before, so it does not count.
func (l *Loop) startOver(now time.Time, why string) {
	l.stopEvaluation()
	l.passingSince = time.Time{}
	l.evaluateAt = l.rested(now)
	l.status.RetryAt = l.evaluateAt
	l.close(why)
}

// onHint closes on what a watch saw.
func (l *Loop) onHint(outcome Outcome) {
	if l.status.State != Open {
		return
	}
	l.shut() // first of all
	now := time.Now()
	l.status.Decision = l.since(l.status.Decision.with(outcome), now)
	l.startOver(now, fmt.Sprintf("closed: step %s saw a change: %s", outcome.Name, outcome.Message))
}

// onOutcome closes on the first outcome that does not pass, without waiting
// for the other steps, which onDecision tells.
func (l *Loop) onOutcome(outcome Outcome) {
	if l.status.State != Open || !outcome.holds() {
		return
	}
	l.shut()
	l.passingSince = time.Time{}
	l.status.Decision = l.since(l.status.Decision.with(outcome), time.Now())
	l.close(fmt.Sprintf("closed: step %s no longer passes: %s", outcome.Name, outcome.Message))
}

func (l *Loop) onDecision(ctx context.Context, decision Decision) {
	e, now := l.evaluation, time.Now()
	// What the evaluation says is of use only to a reboot that is still asked
	// for, and a look may find that it must start over.
	if l.look(now); l.evaluation != e {
		return
	}
	l.evaluation = nil
	e.cancel()
	defer func() { l.status.log(l.Log, slog.LevelDebug) }()
	l.status.Decision = l.since(decision, now)
	l.status.Evaluations[decision.Result()]++
	jittered := time.Duration(float64(l.Interval) * (0.9 + 0.2*rand.Float64()))
	l.evaluateAt = e.began.Add(jittered)

	if !decision.nodeBlocked() {
		l.nodeBlockedSince = time.Time{}
	} else if l.nodeBlockedSince.IsZero() {
		l.nodeBlockedSince = now
	}
	if !decision.Passes() {
		l.passingSince = time.Time{}
		if wait := decision.RetryAfter(); wait > 0 {
			// Every blocking step knows when it can change: there is nothing
			// to learn before, and the jitter keeps the nodes apart.
			l.evaluateAt = e.began.Add(wait + jittered - l.Interval*9/10)
		}
		l.status.RetryAt = l.evaluateAt
		l.close(closedBy(decision))
		return
	}
	if l.passingSince.IsZero() || e.beganAt-l.lastPass >= l.MaxAge {
		l.passingSince = e.began
	}
	l.lastPass = e.beganAt
	stable := l.passingSince.Add(l.Stabilize)
	if e.began.Before(stable) {
		if stable.Before(l.evaluateAt) {
			l.evaluateAt = stable
		}
		l.status.RetryAt = l.evaluateAt
		l.close(fmt.Sprintf("closed: every step passes; opens at %s if that stays so (stabilize %s)", stable.UTC().Format("15:04:05Z"), l.Stabilize) + softly(decision))
		return
	}
	l.status.RetryAt = l.evaluateAt
	l.permit(ctx, e)
}

// permit opens the gate, or extends its deadline, on the strength of the
// evaluation e.
func (l *Loop) permit(ctx context.Context, e *evaluation) {
	if e.unconfirmed != nil {
		l.close("closed: every step passes, but " + e.unconfirmed.Error() + softly(l.status.Decision))
		return
	}
	until := e.beganAt + l.MaxAge
	l.closeAt = e.began.Add(l.MaxAge - loopMargin)
	if l.status.State == Open {
		if err := l.Gated.Extend(until); err != nil {
			l.close("closed: " + err.Error())
			l.Log.Error("the open gate could not be extended, and is closed", "error", err)
			return
		}
		l.tell(l.status.Why)
		return
	}
	if l.Wiring != nil {
		l.onFinding(l.Wiring())
	}
	if err := l.Gated.Open(until, func() error { return l.permitted(ctx) }); err != nil {
		l.lookAt = time.Now()
		l.close("closed: " + err.Error())
		if ctx.Err() == nil {
			l.Log.Warn("the gate was not opened, although every step passes", "error", err)
		}
		return
	}
	l.watch(ctx)
	l.enter(Open, "open: every step passes, and kured may reboot this node"+softly(l.status.Decision))
}

// permitted looks once more at what the loop may have missed while a tether was
// made, which takes seconds on a busy machine.
func (l *Loop) permitted(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("the gate is stopping: %w", err)
	}
	now := time.Now()
	if !now.Before(l.closeAt) {
		return fmt.Errorf("the evaluation that passed began too long ago (maxAge %s)", l.MaxAge)
	}
	if raw := ReadRaw(l.RawPaths, now); !raw.Pending {
		return errors.New("the raw sentinel is gone")
	}
	if l.Turn != nil && !l.Turn.Permits() {
		return errors.New("the turn does not permit it any more")
	}
	return l.Gated.Misplaced()
}

// watchWiring looks at kured beside the loop: a node has many processes, and an
// open gate must not wait for them to be looked through.
func (l *Loop) watchWiring(ctx context.Context) {
	if l.Wiring == nil {
		return
	}
	l.findings = make(chan wiring.Finding)
	go func() {
		for {
			select {
			case l.findings <- l.Wiring():
			case <-ctx.Done():
				return
			}
			select {
			case <-time.After(max(l.Interval, breather)):
			case <-ctx.Done():
				return
			}
		}
	}()
}

// onFinding tells of a kured that looks at something else than before. It holds
// nothing closed: who does not look cannot be let through, and who bypasses the
// gate cannot be held.
func (l *Loop) onFinding(f wiring.Finding) {
	before := l.status.Wiring.Reason
	l.status.Wiring = f // also where kured's window, its period or its lock is another one now
	if f.Reason == before {
		return
	}
	l.Tell(l.status)
	level := slog.LevelWarn
	switch {
	case f.Reason == wiring.Wired:
		level = slog.LevelInfo
	case f.Bypassed():
		level = slog.LevelError
	}
	l.Log.Log(context.Background(), level, f.Message, "wiring", string(f.Reason))
}

// shut takes the gated sentinel away.
func (l *Loop) shut() {
	if err := l.Gated.Close(); err != nil {
		l.Log.Error("the gated sentinel cannot be removed", "error", err)
	}
}

func (l *Loop) close(why string) { l.closeTo(Closed, why) }

func (l *Loop) closeTo(state State, why string) {
	if l.status.State == Open {
		l.shut()
		l.unwatch()
	}
	l.enter(state, why)
}

func (l *Loop) enter(state State, why string) {
	if state != l.status.State || l.status.Since.IsZero() {
		l.status.Previous, l.status.State, l.status.Since = l.status.State, state, time.Now()
	}
	l.tell(why)
}

// watch starts the watches of an open gate.
func (l *Loop) watch(ctx context.Context) {
	ctx, l.stopWatches = context.WithCancel(ctx)
	hints := make(chan Outcome)
	l.hints = hints
	for _, step := range l.Pipeline.steps {
		watcher, ok := step.Check.(Watcher)
		if !ok || time.Now().Before(step.SoftUntil) || time.Now().Before(l.status.Turn.Operator.Overrides[step.Name].Until) {
			continue // evaluations tell when it counts
		}
		go func() {
			short := 0 // watches in a row that ended at once
			for pause := breather; ctx.Err() == nil; pause = min(2*pause, l.Interval+breather) {
				began := time.Now()
				short++
				err := guardedWatch(ctx, watcher, func(r Result) {
					select {
					case hints <- step.outcome(r, 0):
					case <-ctx.Done():
					}
				})
				if ctx.Err() != nil {
					return
				}
				if time.Since(began) > l.Interval {
					pause, short = breather, 0
				}
				if short == 2 { // not a connection that was lost, but a permission that is missing, say
					l.Log.Warn("the step's objects cannot be watched: until they can, the open gate learns of a change only at its next evaluation", "step", step.Name, "error", err)
				} else {
					l.Log.Debug("a watch ended and is begun anew; evaluations go on meanwhile", "step", step.Name, "error", err)
				}
				select {
				case <-time.After(pause):
				case <-ctx.Done():
				}
			}
		}()
	}
}

func guardedWatch(ctx context.Context, w Watcher, hint func(Result)) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the watch panicked: %v", p)
		}
	}()
	return w.Watch(ctx, hint)
}

func (l *Loop) unwatch() {
	if l.stopWatches != nil {
		l.stopWatches()
	}
	l.stopWatches, l.hints = nil, nil
}

// since carries over how long each step has been blocking.
func (l *Loop) since(d Decision, now time.Time) Decision {
	for i, o := range d.Outcomes {
		if o.Verdict == Pass {
			continue
		}
		d.Outcomes[i].Since = now.UTC()
		for _, before := range l.status.Decision.Outcomes {
			if before.Name == o.Name && before.Verdict != Pass && !before.Since.IsZero() {
				d.Outcomes[i].Since = before.Since
			}
		}
	}
	return d
}

// tell publishes the status, and logs it where something changed.
func (l *Loop) tell(why string) {
	l.status.Why = why
	l.Tell(l.status)
	says := l.status.State.String() + " " + l.status.Decision.Asks().String()
	for _, o := range l.status.Decision.where(func(o Outcome) bool { return !o.passed() }) {
		says += fmt.Sprintf(" %s=%s,%t,%s", o.Name, o.Reason, o.Soft, o.Override)
	}
	if l.status.Raw.Pending && l.Turn != nil {
		says += " " + l.status.Turn.String()
		if v := l.status.Turn; v.Problem != nil || v.Decision.Loud {
			says += " " + v.Why()
		}
	}
	if l.status.Raw.Problem != nil {
		says += " " + l.status.Raw.Problem.Error()
	}
	if says == l.logged {
		return
	}
	l.logged = says
	l.remindAt = time.Now().Add(reminder)
	l.status.log(l.Log, slog.LevelInfo)
}

func closedBy(d Decision) string {
	blocking := d.Blocking()
	if len(blocking) == 0 {
		return "closed: there is no step that could hold the reboot back" + softly(d)
	}
	return fmt.Sprintf("closed: %d of %d steps hold the reboot back: %s", len(blocking), len(d.Outcomes), blocking.Reasons()) + softly(d)
}

// softly names the steps that do not pass and hold nothing back, if there are any.
func softly(d Decision) string {
	text := ""
	if soft := d.Soft(); len(soft) > 0 {
		text += "; soft, and so not counted: " + soft.Reasons()
	}
	for _, o := range d.Overridden() {
		text += fmt.Sprintf("; OVERRIDDEN: %s (%s), because: %s", o.Name, o.Reason, o.Override)
	}
	return text
}
