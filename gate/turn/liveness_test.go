package turn

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestLiveness lets a rollout go on among ghosts, deleted holders, nodes that cannot use
// the turn, gates that nobody reaches, silent watches, wrong dates, tiers and restarts. In
// all that the cluster is well: every node that can reboot does, within the time that
// LongestWait computes.
func TestLiveness(t *testing.T) {
	property(t, func(rt *rapid.T, draw func(string, int) int) {
		soak := rapid.SampledFrom([]time.Duration{10 * time.Minute, 3 * time.Hour, 24 * time.Hour}).Draw(rt, "soak")
		well, sick := 2+draw("well", 3), draw("sick", 4)
		w := newWorld(soak, 0, well+sick, rapid.Uint64().Draw(rt, "seed"))
		for _, n := range w.nodes {
			n.tier = draw("tier of "+n.name, 2)
		}
		for range draw("ghosts", 40) {
			w.ghost()
		}
		began := w.clock
		for _, n := range w.nodes[well:] {
			switch does := rapid.SampledFrom([]string{"has gone", "is deleted when it has the turn", "cannot make the link", "has steps that err", "has no kured", "is cut off", "has no gate", "is blocked", "is cordoned"}).Draw(rt, n.name); does {
			case "has gone":
				n.stop()
				w.deleteNode(n)
			case "is deleted when it has the turn":
				n.doomed = true
			case "cannot make the link":
				n.noLink = true
			case "has steps that err":
				n.erring = true
			case "has no kured":
				n.noKured = true
			case "is cut off":
				n.cut = true
			case "has no gate":
				n.stop()
			case "is blocked":
				n.ill = true
			case "is cordoned":
				n.cordoned = true
			}
		}
		healthy := w.nodes[:well]
		w.disturb = func() {
			for _, n := range w.nodes[well:] {
				if n.doomed && n.object && w.state().HeldBy(n.name) && w.state().Phase == PhaseOpen {
					n.stop()
					w.deleteNode(n)
				}
			}
			w.harass(healthy[w.rand.IntN(len(healthy))])
		}
		w.only = healthy
		config := w.nodes[0].gate.core.config
		config.Soak = soak
		bound := LongestWait(config, len(w.nodes)-1)
		w.calm(w.clock.Add(bound), prompt)
		if w.pending() {
			s := ""
			for _, n := range w.nodes {
				why := "it does not run"
				if n.gate != nil {
					why = n.gate.view.Why()
				}
				s += fmt.Sprintf("\n%s: raw %t, %s", n.name, n.raw, why)
			}
			w.fatalf("after %s, a node that is well still waits; the bound is %s: %+v%s", w.since(began), bound, w.state(), s)
		}
	})
}

// property checks a property with rapid, a few seconds long by default. A violation is
// told as what led to it.
func property(t *testing.T, check func(rt *rapid.T, draw func(string, int) int)) {
	short(t)
	rapid.Check(t, func(rt *rapid.T) {
		defer func() {
			switch failed := recover().(type) {
			case nil:
			case violation:
				rt.Fatal(string(failed))
			default:
				panic(failed) // rapid's own, or a fault of the core
			}
		}()
		check(rt, func(what string, below int) int {
			return rapid.IntRange(0, below-1).Draw(rt, strings.ReplaceAll(what, " ", "-"))
		})
	})
}

// harass does now and then to a node that is well what happens to such: its gate restarts, its
// watch ends or falls silent, the clock of its API server is wrong, and mended in five minutes.
func (w *world) harass(n *node) {
	switch g, does := n.gate, w.rand.IntN(2000); {
	case g == nil:
	case does == 0:
		w.restart(n)
	case does < 5:
		g.loses(nil)
	case does < 9:
		g.silent = true
	case does == 9 && g.told && g.skew == 0:
		g.skew, g.skewed = []time.Duration{8 * time.Hour, -8 * time.Hour}[w.rand.IntN(2)], w.clock
	}
	for _, n := range w.nodes {
		if n.gate != nil && n.gate.skew != 0 && w.since(n.gate.skewed) >= 5*time.Minute {
			n.gate.skew = 0
		}
	}
}
