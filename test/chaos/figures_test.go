package chaos

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sentinel-gate/sentinel-gate/gate/turn"
)

// The figures of docs/benchmarks.md that are about the turn, as rows of its table.
func TestFigures(t *testing.T) {
	if !*figures {
		t.Skip("it takes some minutes: -figures")
	}
	var rows []string
	row := func(figure, target, format string, args ...any) {
		rows = append(rows, fmt.Sprintf("| %s | %s | %s |", figure, target, fmt.Sprintf(format, args...)))
	}
	t.Run("halt", func(t *testing.T) {
		closed, told := measureHalts(t)
		row("halt to no gate open, 20 daemons that wait or are open, 50 halts", "p99 under 1 s", "%s", spreadOf(closed))
		row("the same, to all 20 daemons' metrics saying so", "stated", "%s", spreadOf(told))
	})
	t.Run("gap", func(t *testing.T) {
		row("from the end of one node's soak to the next open gate, 20 daemons, `interval` 400 ms, `stabilize` 200 ms", "under `interval` + `stabilize` + 10 s", "%s", spreadOf(measureGaps(t)))
	})
	t.Log("\n" + strings.Join(rows, "\n"))
}

// still is a fleet without faults.
func still(t *testing.T, size int, settings string) (context.Context, *fleet) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	f := newFleet(ctx, t, size, settings, cancel)
	t.Cleanup(func() {
		if f.violation != "" {
			t.Error(f.violation)
		}
		if t.Failed() {
			f.report()
		}
	})
	return ctx, f
}

const patient = "interval: 400ms\nmaxAge: 3s\ntimeout: 1s\nstabilize: 200ms\nturn: {settle: 4s, grantTimeout: 1h}"

// measureHalts returns how long it took from each halt's being sent until no gate
// was open, and until every daemon knew.
func measureHalts(t *testing.T) (closed, told []time.Duration) {
	ctx, f := still(t, 20, patient)
	for _, m := range f.members {
		f.must(m.host.RequireReboot())
	}
	defer f.live(ctx, 1, false)()
	c := &chaos{fleet: f}
	for range 50 {
		if !f.reach(ctx, time.Minute, func() bool { return f.open != nil }) {
			t.Fatal("no gate opens")
		}
		open := f.current()
		began := time.Now()
		halted := make(chan error, 1)
		go func() { halted <- c.annotate(ctx, turn.HaltKey, "for a figure") }()
		for open.host.Resolves() && ctx.Err() == nil {
			runtime.Gosched()
		}
		closed = append(closed, time.Since(began))
		var all sync.WaitGroup
		for _, m := range f.members {
			all.Go(func() {
				_ = until(ctx, func(ctx context.Context) error {
					_, metrics, err := m.running().Get(ctx, "/metrics")
					if err == nil && !strings.Contains(metrics, "\nsentinel_gate_turn_halted 1\n") {
						err = errors.New("not halted")
					}
					return err
				})
			})
		}
		all.Wait()
		told = append(told, time.Since(began))
		f.must(errors.Join(<-halted, c.annotate(ctx, turn.HaltKey, "")))
	}
	return closed, told
}

func measureGaps(t *testing.T) []time.Duration {
	ctx, f := still(t, 20, patient)
	defer f.live(ctx, 1, true)()
	if !f.reach(ctx, time.Minute, func() bool { return len(f.gaps) >= 20 }) {
		t.Fatal("the rollout came to a halt")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.gaps
}
