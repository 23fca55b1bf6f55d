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

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sentinel-gate/sentinel-gate/gate/record"
	"github.com/sentinel-gate/sentinel-gate/gate/turn"
	"github.com/sentinel-gate/sentinel-gate/test/cluster"
)

// The figures of docs/benchmarks.md that are about the turn, as rows of its table.
func TestFigures(t *testing.T) {
	if !*figures {
		t.Skip("it takes a quarter of an hour: -figures")
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
	for _, size := range []struct{ daemons, records int }{{5, 0}, {20, 0}, {20, 1000}} {
		name := fmt.Sprintf("%d daemons and %d more records", size.daemons, size.records)
		t.Run(name, func(t *testing.T) {
			row("API requests per hour beside an open gate, "+name, "a waiting node's independent of cluster size", "%s", measureRequests(t, size.daemons, size.records))
		})
	}
	t.Log("\n" + strings.Join(rows, "\n"))
}

// still is a world without faults.
func still(t *testing.T, size int, settings string) (context.Context, *world) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	w := newWorld(ctx, t, size, settings, cancel)
	t.Cleanup(func() {
		if w.violation != "" {
			t.Error(w.violation)
		}
		if t.Failed() {
			w.report()
		}
	})
	return ctx, w
}

const patient = "interval: 400ms\nmaxAge: 3s\ntimeout: 1s\nstabilize: 200ms\nturn: {settle: 4s, grantTimeout: 1h}"

// measureHalts returns how long it took from each halt's being sent until no gate
// was open, and until every daemon knew.
func measureHalts(t *testing.T) (closed, told []time.Duration) {
	ctx, w := still(t, 20, patient)
	for _, m := range w.members {
		w.must(m.host.RequireReboot())
	}
	defer w.live(ctx, 1, false)()
	c := &chaos{world: w}
	for range 50 {
		if !w.reach(ctx, time.Minute, func() bool { return w.open != nil }) {
			t.Fatal("no gate opens")
		}
		open := w.current()
		began := time.Now()
		halted := make(chan error, 1)
		go func() { halted <- c.annotate(ctx, turn.HaltKey, "for a figure") }()
		for open.host.Resolves() && ctx.Err() == nil {
			runtime.Gosched()
		}
		closed = append(closed, time.Since(began))
		var all sync.WaitGroup
		for _, m := range w.members {
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
		w.must(errors.Join(<-halted, c.annotate(ctx, turn.HaltKey, "")))
	}
	return closed, told
}

func measureGaps(t *testing.T) []time.Duration {
	ctx, w := still(t, 20, patient)
	defer w.live(ctx, 1, true)()
	if !w.reach(ctx, time.Minute, func() bool { return len(w.gaps) >= 20 }) {
		t.Fatal("the rollout came to a halt")
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.gaps
}

// measureRequests returns what a node with the turn, one that waits and one that
// is idle ask of the API server while a gate is open that kured does not act on,
// which is the longest that anybody waits awake.
func measureRequests(t *testing.T, size, records int) string {
	const window = 4 * time.Minute
	ctx, w := still(t, size, "turn: {grantTimeout: 1h}\nstabilize: 5s")
	w.must(w.fakeRecords(ctx, records))
	const idle = 2
	for _, m := range w.members[idle:] {
		w.must(m.host.RequireReboot())
	}
	// The first choice is made when all who wait are on record, as later ones are.
	c := &chaos{world: w}
	w.must(c.annotate(ctx, turn.HaltKey, "not yet"))
	defer w.live(ctx, 1, false)()
	w.must(until(ctx, func(ctx context.Context) error {
		candidates, err := turn.List(ctx, w.cp.Client().CoordinationV1().Leases(cluster.Namespace))
		if err == nil && len(candidates) < size-idle {
			err = fmt.Errorf("only %d wait", len(candidates))
		}
		return err
	}))
	w.must(c.annotate(ctx, turn.HaltKey, ""))
	if !w.reach(ctx, 2*time.Minute, func() bool { return w.open != nil }) {
		t.Fatal("no gate opens")
	}
	pass(ctx, 10*time.Second) // until what was begun is done
	began, before := time.Now(), make([]int64, size)
	for i, m := range w.members {
		before[i] = m.proxy.bytes.Load()
	}
	pass(ctx, window)
	events, err := w.cp.Requests(cluster.User, began)
	w.must(err)
	count := map[string]float64{}
	for _, e := range events {
		count[e.SourceIP]++
	}
	var requests, bytes, nodes [3]float64
	for i, m := range w.members {
		role := 1
		if m == w.current() {
			role = 0
		} else if i < idle {
			role = 2
		}
		nodes[role]++
		requests[role] += count[m.proxy.source.String()]
		bytes[role] += float64(m.proxy.bytes.Load() - before[i])
	}
	var says []string
	for i, role := range []string{"open", "waiting", "idle"} {
		hourly := float64(time.Hour/window) / nodes[i]
		says = append(says, fmt.Sprintf("%s: %.0f (%.0f KiB)", role, requests[i]*hourly, bytes[i]*hourly/1024))
	}
	return strings.Join(says, "; ") + fmt.Sprintf("; all %.0f that wait together: %.0f", nodes[1], requests[1]*float64(time.Hour/window))
}

// fakeRecords are of nodes that are gone, and booted long ago.
func (w *world) fakeRecords(ctx context.Context, n int) error {
	leases := w.cp.Client().CoordinationV1().Leases(cluster.Namespace)
	for i := range n {
		_, err := leases.Create(ctx, &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{
			Name: fmt.Sprintf("gone-%d", i), Labels: map[string]string{record.Label: "true"},
			Annotations: map[string]string{
				"sentinel-gate.io/boot-id":   fmt.Sprintf("boot-%d", i),
				"sentinel-gate.io/booted-at": time.Now().Add(-cluster.BootedAgo).UTC().Format(time.RFC3339),
			},
		}}, metav1.CreateOptions{})
		if err != nil {
			return err
		}
	}
	return nil
}
