package gate

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/sentinel-gate/sentinel-gate/gate/cluster"
)

// watches are those of an open gate: of what its steps depend on.
type watches struct {
	hints chan Outcome
	stop  context.CancelFunc // nil: there are none
}

// begin watches for each of the steps that can be watched. A watch that ends is begun
// anew, at growing pauses up to the longest; evaluations go on meanwhile.
func (w *watches) begin(ctx context.Context, steps []*Step, longest time.Duration, log *slog.Logger) {
	ctx, w.stop = context.WithCancel(ctx)
	ctx = cluster.WithFollower(ctx)
	hints := make(chan Outcome)
	w.hints = hints
	for _, step := range steps {
		if watcher, ok := step.Check.(Watcher); ok {
			go keepWatching(ctx, step, watcher, hints, longest, log)
		}
	}
}

// end ends them all.
func (w *watches) end() {
	if w.stop != nil {
		w.stop()
	}
	*w = watches{}
}

func keepWatching(ctx context.Context, step *Step, watcher Watcher, hints chan<- Outcome, longest time.Duration, log *slog.Logger) {
	short := 0 // watches in a row that ended at once
	for pause := breather; ctx.Err() == nil; pause = min(2*pause, longest+breather) {
		began := time.Now()
		short++
		err := guardedWatch(ctx, step, watcher, func(r Result) {
			select {
			case hints <- step.outcome(r, 0):
			case <-ctx.Done():
			}
		})
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > longest {
			pause, short = breather, 0
		}
		if short == 2 { // not a connection that was lost, but a permission that is missing, say
			log.Warn("cannot watch this step's objects; an open gate will notice changes only at the next evaluation", "step", step.Name, "error", err)
		} else {
			log.Debug("a watch ended and is begun anew; evaluations go on meanwhile", "step", step.Name, "error", err)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

func guardedWatch(ctx context.Context, s *Step, w Watcher, hint func(Result)) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the watch panicked: %v", p)
		}
	}()
	return s.watch(ctx, w, hint)
}
