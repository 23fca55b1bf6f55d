package gate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"sync/atomic"
	"time"

	"github.com/sentinel-gate/sentinel-gate/gate/packages"
	"github.com/sentinel-gate/sentinel-gate/gate/soak"
	"github.com/sentinel-gate/sentinel-gate/gate/tether"
	"github.com/sentinel-gate/sentinel-gate/gate/turn"
	"github.com/sentinel-gate/sentinel-gate/gate/wiring"
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
	// is not looked for. It is asked every Interval and before the gate opens, beside
	// the loop.
	Wiring func() wiring.Finding
	// Parts tells what this node would run after its next boot; nil: that is of no interest.
	// It is asked while a reboot is pending, every Interval, and must not block.
	Parts func() packages.Found
	// Turn takes part in the cluster's turn; where it is nil every gate decides
	// for itself.
	Turn *turn.Turn
	Log  *slog.Logger
	// Report is called with every new status, and must not block.
	Report func(Status)

	beat atomic.Int64 // when Run last came around, a time of tether.Now

	// What the gate is.
	state, previous State
	since           time.Time // when it became so; zero: it is nothing yet
	closeAt         time.Time // of an open gate
	closedSince     time.Time // when kured last saw the gated sentinel resolve; while it does, when it last did not
	resolved        bool      // for all that the turn was told

	// What was seen of the raw sentinel.
	raw         Raw
	looked      bool
	parts       packages.Found // while a reboot is pending
	lookAt      time.Time
	appearAfter time.Time // whatever appears at an idle gate earlier is flapping
	foreign     int       // entries found at the gated path that were not this gate's

	// What is known of the cluster, of the turn, and of kured.
	evaluations evaluations
	watches     watches
	view        turn.View
	finding     wiring.Finding
	findings    chan wiring.Finding
	kured       *wiring.Kured                        // as it was last seen
	lookAtKured func(context.Context) wiring.Finding // nil: nobody looks

	announcer announcer
}

// Alive reports whether the loop has come around lately, by its own schedule.
func (l *Loop) Alive() bool {
	return tether.Now()-time.Duration(l.beat.Load()) < max(3*l.Interval, 10*time.Second)
}

// Run works until ctx ends, which is its way to stop, or until the gated
// directory is lost. When it returns the gate is closed.
func (l *Loop) Run(ctx context.Context) error {
	l.prepare(time.Now())
	defer func() { l.evaluations.stop(); l.watches.end() }()
	defer l.takePart(ctx)()
	l.watchWiring(ctx)
	wake := time.NewTimer(0)
	defer wake.Stop()
	var views <-chan turn.View
	if l.Turn != nil {
		views = l.Turn.Views()
	}
	for {
		now := time.Now()
		l.beat.Store(int64(tether.Now()))
		if err := l.act(ctx, now); err != nil {
			return errors.Join(err, l.Gated.Close())
		}
		wake.Reset(l.next().Sub(now))

		outcomes, done := l.evaluations.channels()
		select {
		case <-ctx.Done():
			err := l.Gated.Close()
			l.Log.Info("the gate stops, closed", "previous", l.state)
			return err
		case <-wake.C:
		case <-l.Changed:
			l.lookAt = now
		case hint := <-l.watches.hints:
			l.onHint(hint)
		case finding := <-l.findings:
			l.onFinding(finding)
		case outcome := <-outcomes:
			l.onOutcome(outcome)
		case result := <-done:
			l.onResult(ctx, result)
		case view := <-views:
			l.onTurn(view)
		}
		l.updateTurn()
	}
}

// prepare makes the loop what it is before it has seen anything.
func (l *Loop) prepare(now time.Time) {
	l.lookAt, l.closedSince = now, now
	l.evaluations = evaluations{interval: l.Interval, maxAge: l.MaxAge, stabilize: l.Stabilize}
	l.announcer = announcer{report: l.Report, log: l.Log}
	if l.Turn != nil {
		l.view = l.Turn.View()
	}
}

// takePart runs the turn beside the loop, and returns what ends that.
func (l *Loop) takePart(ctx context.Context) (end func()) {
	if l.Turn == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() { defer close(ended); l.Turn.Run(ctx) }()
	return func() { cancel(); <-ended }
}

// act does what is due by now.
func (l *Loop) act(ctx context.Context, now time.Time) error {
	if l.state == Open && !now.Before(l.closeAt) {
		l.close(fmt.Sprintf("closed: no evaluation that began in the last %s passed", l.MaxAge-loopMargin))
	}
	if !now.Before(l.lookAt) {
		l.lookAt = now.Add(l.Interval)
		if err := l.Gated.Misplaced(); err != nil {
			return err
		}
		l.look(now)
	}
	if e := &l.evaluations; e.running == nil && !e.due.IsZero() && !now.Before(e.due) {
		e.start(ctx, now, l.Pipeline, l.view.Operator.Overrides, l.state == Open, l.Turn, l.lookAtKured)
	}
	l.announcer.remind(now)
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
	if l.state == Open {
		earlier(l.closeAt)
	}
	if l.evaluations.running == nil {
		earlier(l.evaluations.due)
	}
	return next
}

// look reads the raw sentinel and inspects the gated one.
func (l *Loop) look(now time.Time) {
	if err := l.Gated.Inspect(); err != nil {
		l.onForeign(now, err)
	}
	was, raw := l.raw, ReadRaw(l.RawPaths, now)
	if was.Pending && raw.Pending && was.Since.Before(raw.Since) {
		raw.Since = was.Since // the same reboot, asked for again
	}
	if l.state == Idle && (raw.Pending || raw.Problem != nil) && now.Before(l.appearAfter) {
		l.lookAt = l.appearAfter
		return
	}
	first := !l.looked
	l.looked, l.raw = true, raw
	if l.readParts() {
		defer l.report()
	}
	switch {
	case raw.Pending:
		switch {
		case was.Pending:
		case l.evaluates():
			l.evaluations.soon(now)
			l.close("closed: a reboot is pending and the first evaluation is under way")
		default:
			l.close("closed: a reboot is pending; " + l.view.Why())
		}
	case raw.Problem != nil:
		if first || was.Problem == nil || was.Problem.Error() != raw.Problem.Error() {
			l.evaluations.forget()
			l.close("closed: cannot tell whether a reboot is pending: " + raw.Problem.Error())
		}
	default:
		if first || was.Pending || was.Problem != nil {
			l.appearAfter = now.Add(breather)
			l.evaluations.forget()
			l.become(Idle, "idle: no reboot is pending")
		}
	}
}

// readParts reads what a pending reboot would bring into effect, and reports whether that
// is something else than before.
func (l *Loop) readParts() (changed bool) {
	before := l.parts
	if l.parts = (packages.Found{}); l.Parts != nil && l.raw.Pending {
		l.parts = l.Parts()
	}
	changed = !slices.Equal(before.Wants, l.parts.Wants)
	if changed && l.parts.Problem != nil {
		l.Log.Warn("what this reboot would bring into effect is not all known, and counts as new: one such node at a time", "error", l.parts.Problem)
	}
	return changed
}

// onForeign closes the gate where something stood at the gated path that was not its own.
func (l *Loop) onForeign(now time.Time, err error) {
	l.foreign++
	if l.state == Open {
		l.startOver(now, "closed: the gated sentinel was tampered with")
	}
	l.report()
	l.announcer.shout(now, err, l.foreign)
}

// evaluates reports whether the steps are to be asked: without a turn always.
func (l *Loop) evaluates() bool { return l.Turn == nil || l.view.Evaluates() }

// onTurn closes at once where the turn no longer permits the gate to be open, and
// evaluates when it is this node's, or when people override other steps.
func (l *Loop) onTurn(v turn.View) {
	evaluated, overrides := l.evaluates(), l.view.Operator.Overrides
	l.view = v
	if l.state == Open && !v.Permits() {
		l.shut() // first of all
	}
	switch now := time.Now(); {
	case l.raw.Pending && !v.Evaluates():
		l.evaluations.forget()
		l.close("closed: " + v.Why())
	case l.raw.Pending && l.state == Open && !v.Permits():
		l.startOver(now, "closed: "+v.Why())
	case l.raw.Pending && !evaluated:
		l.evaluations.soon(now)
		l.close("closed: this node has the turn; the first evaluation is under way")
	case l.raw.Pending && !maps.Equal(overrides, v.Operator.Overrides):
		// The next evaluation may be hours away.
		l.startOver(now, "closed: overrides changed; re-evaluating all steps")
	default:
		l.report()
	}
}

// updateTurn tells the turn how this gate is.
func (l *Loop) updateTurn() {
	if l.Turn != nil {
		l.Turn.Update(l.asTurnKnows(time.Now()))
	}
}

// asTurnKnows is what the turn is told of this gate.
func (l *Loop) asTurnKnows(now time.Time) turn.Gate {
	// What could not be removed is as good as open.
	resolves := l.state == Open || l.view.Concerns(l.Turn.Node, l.raw.Pending) && l.Gated.Resolves()
	if l.resolved && !resolves {
		l.closedSince = now
	}
	l.resolved = resolves
	return turn.Gate{
		Pending: l.raw.Pending, Parts: soak.PutParts(l.parts.Wants), Open: resolves, ClosedSince: l.closedSince, FailingSince: l.evaluations.failingSince,
		NodeBlocked: l.evaluations.nodeBlocked(now), StepsErr: l.evaluations.stepsErr(now),
		Kured: l.kured, NoKured: l.finding.Reason == wiring.NoKured,
	}
}

// startOver closes the gate and evaluates anew.
func (l *Loop) startOver(now time.Time, why string) {
	l.evaluations.startOver(now)
	l.close(why)
}

// onHint closes on what a watch saw.
func (l *Loop) onHint(outcome Outcome) {
	if l.state != Open || l.excused(outcome.Name) {
		return
	}
	l.shut() // first of all
	now := time.Now()
	l.evaluations.hear(l.evaluations.last.with(outcome), now)
	l.startOver(now, fmt.Sprintf("closed: step %s saw a change: %s", outcome.Name, outcome.Message))
}

// onOutcome closes on the first outcome that does not pass, without waiting
// for the other steps, which onResult tells.
func (l *Loop) onOutcome(outcome Outcome) {
	if l.state != Open || !outcome.holds() {
		return
	}
	l.shut()
	l.evaluations.passingSince = time.Time{}
	l.evaluations.hear(l.evaluations.last.with(outcome), time.Now())
	l.close(fmt.Sprintf("closed: step %s no longer passes: %s", outcome.Name, outcome.Message))
}

// onResult opens the gate, leaves it open or closes it, by what an evaluation came to.
func (l *Loop) onResult(ctx context.Context, result evaluated) {
	x, now := l.evaluations.running, time.Now()
	// What the evaluation says is of use only to a reboot that is still asked
	// for, and a look may find that it must start over.
	if l.look(now); l.evaluations.running != x {
		return
	}
	stable := l.evaluations.finish(result, now)
	defer func() { l.announcer.status.log(l.Log, slog.LevelDebug) }()
	switch {
	case !result.Passes():
		l.close(closedBy(result.Decision))
	case !stable:
		at := l.evaluations.stableAt().UTC().Format("15:04:05Z")
		l.close(fmt.Sprintf("closed: every step passes; opens at %s if that stays so (stabilize %s)", at, l.Stabilize) + softly(result.Decision))
	case !result.confirmed:
		refusal := result.refusal
		if refusal == nil {
			refusal = errors.New("the turn was not asked yet")
		}
		l.close("closed: every step passes, but " + refusal.Error() + softly(result.Decision))
	default:
		if result.finding != nil {
			l.onFinding(*result.finding)
		}
		l.permit(ctx, x)
	}
}

// permit opens the gate, or extends its deadline, on the strength of the evaluation,
// which every step has passed and the turn has confirmed.
func (l *Loop) permit(ctx context.Context, x *evaluation) {
	until := x.beganAt + l.MaxAge
	l.closeAt = x.began.Add(l.MaxAge - loopMargin)
	if l.state == Open {
		if err := l.Gated.Extend(until); err != nil {
			l.close("closed: " + err.Error())
			l.Log.Error("the open gate could not be extended; it is closed", "error", err)
			return
		}
		l.become(Open, l.announcer.status.Why)
		return
	}
	if err := l.Gated.Open(until, func() error { return l.permitted(ctx) }); err != nil {
		l.lookAt = time.Now()
		since(&l.evaluations.failingSince, true, l.lookAt)
		l.close("closed: " + err.Error())
		if ctx.Err() == nil {
			l.Log.Warn("every step passes, but the gate could not be opened", "error", err)
		}
		return
	}
	l.evaluations.failingSince = time.Time{}
	l.watches.begin(ctx, l.Pipeline.steps, l.Interval, l.Log)
	l.become(Open, "open: every step passes, and kured may reboot this node"+softly(l.evaluations.last))
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
		return errors.New("the turn no longer permits it")
	}
	return l.Gated.Misplaced()
}

// watchWiring looks at kured beside the loop: a node has many processes, and an
// open gate must not wait for them to be looked through.
func (l *Loop) watchWiring(ctx context.Context) {
	if l.Wiring == nil {
		return
	}
	l.findings, l.lookAtKured = make(chan wiring.Finding), newKuredLook(l.Wiring).look
	go func() {
		for {
			select {
			case l.findings <- l.lookAtKured(ctx):
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

// onFinding tells of a kured that looks at something else than before. Wiring problems
// never close the gate: closing would not stop a kured that bypasses it.
func (l *Loop) onFinding(f wiring.Finding) {
	before := l.finding
	if reflect.DeepEqual(f, before) {
		return
	}
	l.finding = f // also where kured's window, its period or its lock is another one now
	if f.Kured != nil {
		l.kured = f.Kured
	}
	if f.Reason == before.Reason {
		return
	}
	l.report()
	l.announcer.announceWiring(f)
}

// excused reports whether the step holds nothing back for now: evaluations tell when it
// counts again.
func (l *Loop) excused(name string) bool {
	now := time.Now()
	for _, step := range l.Pipeline.steps {
		if step.Name == name {
			return now.Before(step.SoftUntil) || now.Before(l.view.Operator.Overrides[name].Until)
		}
	}
	return false
}

// shut takes the gated sentinel away.
func (l *Loop) shut() {
	if err := l.Gated.Close(); err != nil {
		l.Log.Error("the gated sentinel cannot be removed", "error", err)
	}
}

func (l *Loop) close(why string) { l.become(Closed, why) }

// become makes the gate what it is to be, and says why.
func (l *Loop) become(state State, why string) {
	if l.state == Open && state != Open {
		l.shut()
		l.watches.end()
	}
	if state != l.state || l.since.IsZero() {
		l.previous, l.state, l.since = l.state, state, time.Now()
	}
	l.announcer.announce(l.status(why))
}

// report tells of what has changed and needs no line in the log.
func (l *Loop) report() {
	l.announcer.status = l.status(l.announcer.status.Why)
	l.Report(l.announcer.status)
}

// status is what the gate is, for those who read it.
func (l *Loop) status(why string) Status {
	s := Status{
		State: l.state, Previous: l.previous, Since: l.since, Why: why,
		Raw: l.raw, Parts: l.parts, Decision: l.evaluations.last, RetryAt: l.evaluations.announced, Evaluations: l.evaluations.counts,
		Wiring: l.finding, Turn: l.view, Foreign: l.foreign,
	}
	if l.Turn != nil {
		s.TurnOn, s.Node = true, l.Turn.Node
	}
	return s
}
