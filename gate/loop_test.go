package gate

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sentinel-gate/sentinel-gate/gate/cluster"
	"github.com/sentinel-gate/sentinel-gate/gate/turn"
	"github.com/sentinel-gate/sentinel-gate/gate/wiring"
)

// script is a check whose answer the test changes.
type script struct {
	mu     sync.Mutex
	result Result
	err    error
	delay  time.Duration // answers after it, or when its context ends
	calls  []time.Time
	hints  chan Result
}

func (s *script) set(r Result) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.result = r
}

func (s *script) Check(ctx context.Context) (Result, error) {
	s.mu.Lock()
	s.calls = append(s.calls, time.Now())
	r, err, delay := s.result, s.err, s.delay
	s.mu.Unlock()
	if delay > 0 {
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return Result{}, ctx.Err()
		}
	}
	return r, err
}

func (s *script) Watch(ctx context.Context, hint func(Result)) error {
	for {
		select {
		case r := <-s.hints:
			hint(r)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *script) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.calls)
}

var pass, fail = Passed("Fine", "fine"), Failed("Broken", "broken")

// rig is a loop in a bubble of fake time, on real files. ModeFile needs no
// clock of the kernel, which the bubble does not have.
type rig struct {
	*Loop
	t          *testing.T
	raw, gated string
	changed    chan struct{}
	log        *bytes.Buffer
	stop       context.CancelFunc
	done       chan error

	mu       sync.Mutex
	statuses []Status
}

func newRig(t *testing.T, checks ...Check) *rig {
	t.Helper()
	dir := t.TempDir()
	r := &rig{
		t: t, raw: filepath.Join(dir, "reboot-required"), gated: filepath.Join(dir, "gate/gated"),
		changed: make(chan struct{}, 1), log: &bytes.Buffer{}, done: make(chan error, 1),
	}
	if err := os.Mkdir(filepath.Dir(r.gated), 0o755); err != nil {
		t.Fatal(err)
	}
	var steps []*Step
	for i, c := range checks {
		steps = append(steps, &Step{Name: string(rune('a' + i)), Type: "script", Check: c, Timeout: 10 * time.Second})
	}
	pipeline, err := NewPipeline(steps, nil)
	if err != nil {
		t.Fatal(err)
	}
	gated, err := Claim(r.gated, ModeFile)
	if err != nil {
		t.Fatal(err)
	}
	r.Loop = &Loop{
		Pipeline: pipeline, Gated: gated, RawPaths: []string{r.raw}, Changed: r.changed,
		Interval: 30 * time.Second, MaxAge: time.Minute, Stabilize: time.Minute,
		Log: slog.New(slog.NewJSONHandler(r.log, nil)),
		Report: func(s Status) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.statuses = append(r.statuses, s)
		},
	}
	return r
}

func (r *rig) run() {
	ctx, cancel := context.WithCancel(r.t.Context())
	r.stop = cancel
	go func() { r.done <- r.Run(ctx) }()
	synctest.Wait()
}

func (r *rig) end() {
	r.t.Helper()
	r.stop()
	if err := <-r.done; err != nil {
		r.t.Error(err)
	}
	r.wantClosed("after the end")
	if err := r.Gated.Release(); err != nil {
		r.t.Error(err)
	}
}

func (r *rig) require() {
	r.t.Helper()
	if err := os.WriteFile(r.raw, nil, 0o644); err != nil {
		r.t.Fatal(err)
	}
	r.look()
}

func (r *rig) look() {
	r.changed <- struct{}{}
	synctest.Wait()
}

// pass lets time go by.
func (r *rig) after(d time.Duration) {
	time.Sleep(d) // fake time
	synctest.Wait()
}

func (r *rig) isOpen() bool {
	_, err := os.Stat(r.gated)
	return err == nil
}

func (r *rig) wantOpen(when string) {
	r.t.Helper()
	if !r.isOpen() {
		r.t.Errorf("%s: closed, should be open", when)
	}
}

func (r *rig) wantClosed(when string) {
	r.t.Helper()
	if r.isOpen() {
		r.t.Errorf("%s: open, should be closed", when)
	}
}

func (r *rig) status() Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.statuses[len(r.statuses)-1]
}

func TestLoopOpensAfterStabilizeAndStaysOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{result: pass}
		r := newRig(t, s)
		r.run()
		if got := r.status().State; got != Idle {
			t.Errorf("without a raw sentinel: %s", got)
		}
		r.after(time.Hour)
		if s.count() != 0 {
			t.Errorf("%d checks while idle", s.count())
		}
		r.require()
		r.wantClosed("at the first evaluation")
		r.after(59 * time.Second)
		r.wantClosed("a second before the end of stabilize")
		r.after(2 * time.Second)
		r.wantOpen("after stabilize")
		r.after(24 * time.Hour)
		r.wantOpen("a day later")
		if err := os.Remove(r.raw); err != nil {
			t.Fatal(err)
		}
		r.look()
		r.wantClosed("without the raw sentinel")
		if got := r.status().State; got != Idle {
			t.Errorf("without the raw sentinel again: %s", got)
		}
		r.end()
	})
}

// F28: one failing evaluation starts stabilize anew.
func TestF28FailureStartsStabilizeAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{result: pass}
		r := newRig(t, s)
		r.run()
		r.require()
		r.after(40 * time.Second)
		s.set(fail)
		r.after(34 * time.Second)
		s.set(pass)
		r.after(time.Minute)
		r.wantClosed("a minute after it failed")
		r.after(time.Minute)
		r.wantOpen("after a whole stabilize")
		r.end()
	})
}

// F29: nothing opens before a full evaluation, however many steps have passed.
func TestF29NothingOpensBeforeAFullEvaluation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		quick, slow := &script{result: pass}, &script{result: pass, delay: time.Hour}
		r := newRig(t, quick, slow)
		r.Stabilize = 0
		r.run()
		r.require()
		for range 600 {
			r.after(time.Second)
			r.wantClosed("while a step has given no answer")
		}
		if d := r.status().Decision; d.Outcomes[1].Reason != ReasonTimeout {
			t.Errorf("the slow step: %+v", d.Outcomes[1])
		}
		r.end()
	})
}

// F01: whatever is not a pass holds closed.
func TestF01WhateverIsNotAPassHoldsClosed(t *testing.T) {
	for name, s := range map[string]*script{
		"error":           {result: pass, err: errors.New("no")},
		"zero result":     {},
		"no reason":       {result: Result{Verdict: Pass}},
		"a sentence":      {result: Result{Verdict: Pass, Reason: "it is fine"}},
		"unknown verdict": {result: Result{Verdict: 7, Reason: "Fine"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, &script{result: pass}, s)
				r.Stabilize = 0
				r.run()
				r.require()
				r.after(time.Hour)
				r.wantClosed("an hour later")
				if got := r.status().Decision.Blocking().Names(); !slices.Equal(got, []string{"b"}) {
					t.Errorf("blocking: %v", got)
				}
				r.end()
			})
		})
	}
}

// A hint closes at once, and opening again takes a whole stabilize.
func TestHintClosesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{result: pass, hints: make(chan Result)}
		r := newRig(t, s)
		r.run()
		r.require()
		r.after(61 * time.Second)
		r.wantOpen("before the hint")
		s.hints <- fail
		synctest.Wait()
		r.wantClosed("after the hint")
		if got := r.status(); got.State != Closed || got.Decision.Outcomes[0].Reason != "Broken" && got.Decision.Outcomes[0].Reason != "Fine" {
			t.Errorf("after the hint: %+v", got)
		}
		r.after(59 * time.Second)
		r.wantClosed("before stabilize is over")
		r.after(5 * time.Second)
		r.wantOpen("after stabilize")
		r.end()
	})
}

// The first outcome that does not pass closes, while other steps are still out.
func TestFirstFailureClosesWithoutWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		quick, slow := &script{result: pass}, &script{result: pass}
		r := newRig(t, quick, slow)
		r.run()
		r.require()
		r.after(61 * time.Second)
		r.wantOpen("at first")
		slow.mu.Lock()
		slow.delay = 9 * time.Second
		slow.mu.Unlock()
		quick.set(fail)
		before := slow.count()
		for slow.count() == before {
			r.after(time.Second)
		}
		r.after(time.Millisecond)
		r.wantClosed("while the slow step is still out")
		r.end()
	})
}

// Every step hangs: the gate closes before its last pass is maxAge old.
func TestStaleGateCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{result: pass}
		r := newRig(t, s)
		r.Pipeline.steps[0].Timeout = time.Hour
		r.run()
		r.require()
		r.after(61 * time.Second)
		r.wantOpen("at first")
		s.mu.Lock()
		s.delay = time.Hour
		last := s.calls[len(s.calls)-1]
		s.mu.Unlock()
		r.after(time.Until(last.Add(r.MaxAge)))
		r.wantClosed("when the last pass is maxAge old")
		if !strings.Contains(r.log.String(), "no evaluation that began in the last 59s passed") {
			t.Errorf("log: %s", r.log)
		}
		r.end()
	})
}

// An evaluation that takes longer than maxAge proves nothing.
func TestSlowEvaluationDoesNotOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{result: pass, delay: 61 * time.Second}
		r := newRig(t, s)
		r.Pipeline.steps[0].Timeout = time.Hour
		r.Stabilize = 0
		r.run()
		r.require()
		for range 600 {
			r.after(time.Second)
			r.wantClosed("after evaluations longer than maxAge")
		}
		r.end()
	})
}

// A soak that knows its end is not asked before, but for a look now and then.
func TestAnnouncedRetryIsNotPolled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		soaking := Failed("Soaking", "soaking")
		soaking.RetryAfter = 10 * time.Hour
		soak, other := &script{result: soaking}, &script{result: pass}
		r := newRig(t, soak, other)
		r.run()
		r.require()
		r.after(9 * time.Hour)
		if soak.count() > 6*9+1 {
			t.Errorf("%d evaluations in nine of ten announced hours", soak.count())
		}
		if wait := time.Until(r.status().RetryAt); wait < 0 || wait > recheck+time.Minute {
			t.Errorf("the next evaluation is announced in %s", wait)
		}
		r.end()
	})
}

// F52: what a soak waited for is gone, hours before the time that it announced: a node was
// scaled in, or the operator changed the selector.
func TestF52AnnouncedRetryIsLookedAtAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		soaking := Failed("Soaking", "soaking")
		soaking.RetryAfter = 23 * time.Hour
		soak := &script{result: soaking}
		r := newRig(t, soak)
		r.run()
		r.require()
		r.after(time.Hour)
		soak.set(pass)
		r.after(recheck + 2*time.Minute)
		r.wantOpen("when nothing is waited for, and stabilize")
		r.end()
	})
}

// F50: a process of kured's that cannot be read stops nothing: the gate opens, evaluates
// and closes as ever, and says that it does not know what kured looks at.
func TestF50LookAtKuredHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{result: pass}
		r := newRig(t, s)
		hang, hangs := make(chan struct{}), atomic.Bool{}
		r.Wiring = func() wiring.Finding {
			if hangs.Load() {
				<-hang
			}
			return wiring.Finding{Reason: wiring.Wired, Kured: &wiring.Kured{}}
		}
		r.run()
		hangs.Store(true)
		r.require()
		r.after(3 * time.Minute)
		r.wantOpen("although nobody can tell what kured looks at")
		if f := r.status().Wiring; f.Reason != wiring.Undetermined || !strings.Contains(f.Message, "has not ended within 5s") {
			t.Errorf("%s: %s", f.Reason, f.Message)
		}
		before := s.count()
		r.after(10 * time.Minute)
		if n := s.count() - before; n < 15 || !r.Alive() {
			t.Errorf("%d evaluations in ten minutes, alive: %t", n, r.Alive())
		}
		s.set(fail)
		r.after(r.Interval + 10*time.Second)
		r.wantClosed("when a step fails")
		close(hang)
		r.end()
	})
}

// F44: every step passes, and the gated sentinel cannot be made: the turn is told since
// when, and no longer once it is made.
func TestF44TurnIsToldOfAttemptsThatFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, &script{result: pass})
		r.run()
		temporary := r.Gated.temporary
		r.Gated.temporary = "/proc/nothing can be made here"
		r.require()
		r.after(20 * time.Minute)
		r.wantClosed("although every step passes")
		if failing := time.Since(r.evaluations.failingSince); failing < 18*time.Minute || failing > 20*time.Minute {
			t.Errorf("failing for %s", failing)
		}
		r.Gated.temporary = temporary
		r.look()
		r.after(2 * time.Minute)
		r.wantOpen("when nothing is in the way")
		if !r.evaluations.failingSince.IsZero() {
			t.Errorf("open, and failing since %s", r.evaluations.failingSince)
		}
		r.end()
		if !strings.Contains(r.log.String(), "every step passes, but the gate could not be opened") {
			t.Errorf("log: %s", r.log)
		}
	})
}

// F45: steps that err for some intervals may be this node's own trouble; one that fails
// beside them is not.
func TestF45TurnIsToldOfStepsThatErr(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cut, other := &script{err: errors.New("no route to host")}, &script{result: pass}
		r := newRig(t, cut, other)
		r.run()
		r.require()
		r.after(2 * r.Interval)
		if r.evaluations.stepsErr(time.Now()) {
			t.Error("after two intervals")
		}
		r.after(6 * r.Interval)
		if !r.evaluations.stepsErr(time.Now()) {
			t.Error("not after eight intervals")
		}
		other.set(fail)
		r.look()
		r.after(2 * r.Interval)
		if r.evaluations.stepsErr(time.Now()) {
			t.Error("and another step fails")
		}
		r.end()
	})
}

// F47: kured's pod is replaced. What is known of it is kept, and the turn is told that
// none runs.
func TestF47KuredIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, &script{result: pass})
		night := wiring.Kured{Period: 3 * time.Hour}
		away := atomic.Bool{}
		r.Wiring = func() wiring.Finding {
			if away.Load() {
				return wiring.Finding{Reason: wiring.NoKured}
			}
			return wiring.Finding{Reason: wiring.Wired, Kured: &night}
		}
		r.run()
		r.after(2 * r.Interval)
		away.Store(true)
		r.after(2 * r.Interval)
		r.Turn = turn.New(turn.Options{Config: turn.Config{Node: "a"}})
		told := r.asTurnKnows(time.Now())
		if told.Kured == nil || told.Kured.Period != night.Period || !told.NoKured {
			t.Errorf("the turn is told %+v", told)
		}
		r.Turn = nil
		r.end()
	})
}

// A kured that was started anew, with another window, is reckoned with.
func TestKuredIsLookedAtAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, &script{result: pass})
		var period atomic.Int64
		r.Wiring = func() wiring.Finding {
			return wiring.Finding{Reason: wiring.Wired, Kured: &wiring.Kured{Period: time.Duration(period.Add(1))}}
		}
		r.run()
		r.after(5 * r.Interval)
		if got := r.finding.Kured.Period; int64(got) != period.Load() || got < 5 {
			t.Errorf("knows the kured of look %d, of %d", got, period.Load())
		}
		r.end()
	})
}

// The turn is told what kured sees, also where the loop could not remove it, and
// since when it is closed counts from when it was gone.
func TestTurnIsToldWhatKuredSees(t *testing.T) {
	r := newRig(t, &script{result: pass})
	r.Turn = turn.New(turn.Options{Config: turn.Config{Node: "a"}})
	r.view = turn.View{State: turn.State{Phase: turn.PhaseOpen, Holder: "a"}}
	if err := os.WriteFile(r.gated, nil, 0o444); err != nil {
		t.Fatal(err)
	}
	r.updateTurn()
	if !r.resolved || !r.closedSince.IsZero() {
		t.Errorf("told open: %t, closed since %s", r.resolved, r.closedSince)
	}
	began := time.Now()
	if err := os.Remove(r.gated); err != nil {
		t.Fatal(err)
	}
	r.updateTurn()
	if r.resolved || r.closedSince.Before(began) {
		t.Errorf("told open: %t, closed since %s", r.resolved, r.closedSince)
	}
}

// One blocking step that announces nothing is polled for, whatever others say.
func TestUnannouncedStepIsPolled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		soaking := Failed("Soaking", "soaking")
		soaking.RetryAfter = 10 * time.Hour
		soak, other := &script{result: soaking}, &script{result: fail}
		r := newRig(t, soak, other)
		r.run()
		r.require()
		r.after(time.Hour)
		if n := other.count(); n < 100 || n > 140 {
			t.Errorf("%d evaluations in an hour at 30s", n)
		}
		r.end()
	})
}

// A check that panics, or that ignores its context, is Unknown, and does not
// pile up.
func TestMisbehavingChecks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var running, most int
		var mu sync.Mutex
		stuck := checkFunc(func(context.Context) (Result, error) {
			mu.Lock()
			running++
			most = max(most, running)
			mu.Unlock()
			<-release
			return pass, nil
		})
		r := newRig(t, checkFunc(func(context.Context) (Result, error) { panic("oh") }), stuck)
		r.run()
		r.require()
		r.after(time.Minute)
		outcomes := r.status().Decision.Outcomes
		if outcomes[0].Reason != ReasonPanic || outcomes[0].Verdict != Unknown || !strings.Contains(outcomes[0].Message, "oh") {
			t.Errorf("the panic: %+v", outcomes[0])
		}
		if outcomes[1].Reason != ReasonStillRunning {
			t.Errorf("the stuck check: %+v", outcomes[1])
		}
		mu.Lock()
		if most != 1 {
			t.Errorf("%d runs of the stuck check at once", most)
		}
		mu.Unlock()
		r.wantClosed("throughout")
		close(release)
		r.end()
	})
}

type checkFunc func(context.Context) (Result, error)

func (f checkFunc) Check(ctx context.Context) (Result, error) { return f(ctx) }

// The log has a line for every change and one an hour, and no more.
func TestLogIsQuietButNeverSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{result: fail}
		r := newRig(t, s)
		r.run()
		r.require()
		r.after(10*time.Hour + 10*time.Minute)
		r.end()
		var reminders int
		var last map[string]any
		for line := range strings.Lines(r.log.String()) {
			var fields map[string]any
			if err := json.Unmarshal([]byte(line), &fields); err != nil {
				t.Fatal(err)
			}
			if strings.Contains(fields["msg"].(string), "blocked by 1 of 1 step:") {
				reminders++
				last = fields
			}
		}
		if reminders != 11 {
			t.Errorf("%d lines in ten hours, not the change and ten reminders:\n%s", reminders, r.log)
		}
		for _, field := range []string{"time", "level", "msg", "decision", "state", "previous", "rawSince", "packages", "turn", "steps", "blocking", "retryAt"} {
			if _, ok := last[field]; !ok {
				t.Errorf("no field %q in %v", field, last)
			}
		}
		step := last["steps"].([]any)[0].(map[string]any)
		for _, field := range []string{"name", "type", "verdict", "reason", "message", "seconds", "since"} {
			if _, ok := step[field]; !ok {
				t.Errorf("no field %q in %v", field, step)
			}
		}
	})
}

// The directory under the gate is replaced: what it writes is seen by nobody.
func TestReplacedDirectoryEndsTheGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, &script{result: pass})
		r.run()
		dir := filepath.Dir(r.gated)
		if err := errors.Join(os.Rename(dir, dir+".old"), os.Mkdir(dir, 0o755)); err != nil {
			t.Fatal(err)
		}
		r.look()
		if err := <-r.done; err == nil || !strings.Contains(err.Error(), "was replaced under the running gate") {
			t.Errorf("ended with %v", err)
		}
	})
}

// F22: a pipeline without questions is refused, and one that was made all the
// same does not pass.
func TestF22EmptyPipelineIsRefused(t *testing.T) {
	if _, err := NewPipeline(nil, nil); err == nil {
		t.Error("a pipeline without steps was accepted")
	}
	if d := (&Pipeline{}).Evaluate(t.Context(), nil, nil); d.Passes() || d.Asks() == Open || d.Result() == Pass {
		t.Errorf("a pipeline without steps passes: %+v", d)
	}
	if _, err := NewPipeline([]*Step{{Name: "a", Check: checkFunc(nil), Timeout: 1}, {Name: "a", Check: checkFunc(nil), Timeout: 1}}, nil); err == nil {
		t.Error("two steps of one name were accepted")
	}
}

func TestSharedReadsOncePerEvaluation(t *testing.T) {
	var mu sync.Mutex
	var reads int
	check := checkFunc(func(ctx context.Context) (Result, error) {
		_, err := cluster.Shared(ctx, "key", func(context.Context) (int, error) {
			mu.Lock()
			defer mu.Unlock()
			reads++
			return reads, nil
		})
		return pass, err
	})
	p, err := NewPipeline([]*Step{{Name: "a", Check: check, Timeout: time.Second}, {Name: "b", Check: check, Timeout: time.Second}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for want := 1; want <= 3; want++ {
		if d := p.Evaluate(t.Context(), nil, nil); !d.Passes() {
			t.Fatalf("%+v", d)
		}
		if reads != want {
			t.Errorf("%d reads in %d evaluations", reads, want)
		}
	}
}

// What changes while the evaluation runs, and no event tells, is seen in the
// last moment before the gate opens.
func TestLastMomentBeforeOpening(t *testing.T) {
	for name, change := range map[string]func(*rig) error{
		"the raw sentinel goes": func(r *rig) error { return os.Remove(r.raw) },
		"the gate is to stop":   func(r *rig) error { r.stop(); return nil },
		"the directory is moved": func(r *rig) error {
			d := filepath.Dir(r.gated)
			return errors.Join(os.Rename(d, d+".old"), os.Mkdir(d, 0o755))
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var r *rig
				r = newRig(t, checkFunc(func(context.Context) (Result, error) { return pass, change(r) }))
				r.Stabilize = 0
				opened := false
				report := r.Report
				r.Report = func(s Status) { opened = opened || s.State == Open || r.isOpen(); report(s) }
				r.run()
				r.require()
				r.after(time.Second)
				r.stop()
				if err := <-r.done; err != nil && !strings.Contains(err.Error(), "was replaced") {
					t.Error(err)
				}
				if opened || r.isOpen() {
					t.Error("the gate opened all the same")
				}
			})
		})
	}
}

// Of two directories at the same path, the file must go from the one that
// kured may still see.
func TestCloseReachesAMovedDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "gate")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	g, err := Claim(filepath.Join(dir, "gated"), ModeFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Open(0, func() error { return nil }); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Rename(dir, dir+".old"), os.Mkdir(dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	if err := g.Release(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir+".old", "gated")); err == nil {
		t.Error("the file is still in the directory that was moved")
	}
}

// Nothing resolves at the gated path while the gate proves that it could.
func TestProofNeverOpens(t *testing.T) {
	for _, mode := range []Mode{ModeTether, ModeFile} {
		path := filepath.Join(t.TempDir(), "gated")
		g, err := Claim(path, mode)
		if err != nil {
			t.Fatal(err)
		}
		stop, opened := make(chan struct{}), make(chan bool)
		go func() {
			for {
				select {
				case <-stop:
					opened <- false
					return
				default:
				}
				if _, err := os.Stat(path); err == nil {
					opened <- true
					return
				}
			}
		}()
		for range 5 {
			if err := g.prove(); err != nil {
				t.Error(err)
			}
		}
		close(stop)
		if <-opened {
			t.Errorf("mode %s: the gated sentinel resolved during the proof", mode)
		}
		if err := g.Inspect(); err != nil {
			t.Errorf("mode %s: after the proof: %v", mode, err)
		}
		if err := g.Release(); err != nil {
			t.Error(err)
		}
	}
}
