package turn

import (
	"flag"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	"pgregory.net/rapid"

	"github.com/sentinel-gate/sentinel-gate/gate/cluster"
)

// TestProperties lets a simulated cluster go through random faults. At any time
// kured may act on one node at most, and no gate is open in a soak; and from
// wherever that led, all pending nodes reboot once the faults end.
func TestProperties(t *testing.T) {
	property(t, func(rt *rapid.T, _ func(string, int) int) {
		w := newWorld(
			rapid.SampledFrom([]time.Duration{time.Minute, time.Hour, 5 * time.Hour}).Draw(rt, "soak"),
			rapid.SampledFrom([]time.Duration{0, -5 * time.Hour, 7 * time.Hour}).Draw(rt, "ahead"),
			rapid.IntRange(2, 4).Draw(rt, "nodes"), rapid.Uint64().Draw(rt, "seed"),
		)
		rt.Repeat(w.actions())
		w.finish()
	})
}

// short makes a property's check a few seconds long, where nothing else is asked for.
func short(t *testing.T) {
	t.Helper()
	for name, value := range map[string]string{"rapid.steps": "60", "rapid.checks": "50"} {
		if f := flag.Lookup(name); f.Value.String() == f.DefValue {
			if err := f.Value.Set(value); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func (w *world) any(t *rapid.T) *node { return rapid.SampledFrom(w.nodes).Draw(t, "node") }

// running returns a node whose gate runs.
func (w *world) running(t *rapid.T) *gate {
	n := w.any(t)
	if n.gate == nil {
		t.Skip("its gate does not run")
	}
	return n.gate
}

func (w *world) actions() map[string]func(*rapid.T) {
	pass := func(d time.Duration) {
		w.clock = w.clock.Add(d)
		for _, n := range w.nodes {
			if n.gate != nil {
				n.gate.tick()
			}
		}
	}
	calm := func(t *rapid.T) {
		d := rapid.SampledFrom([]time.Duration{10 * time.Second, time.Minute, 20 * time.Minute, w.soak + time.Hour}).Draw(t, "for")
		w.calm(w.clock.Add(d), rapid.SampledFrom([]pace{idle, lazy, prompt}).Draw(t, "kured"))
	}
	run := func(t *rapid.T) { w.running(t).run() }
	return map[string]func(*rapid.T){
		"":     func(*rapid.T) { w.check() },
		"calm": calm, "calm2": calm, "calm3": calm, "calm4": calm, "calm5": calm, "calm6": calm,
		"wait": func(t *rapid.T) {
			pass(rapid.SampledFrom([]time.Duration{time.Second, 20 * time.Second, 61 * time.Second, 3 * time.Minute, 16 * time.Minute, 31 * time.Minute, 6 * time.Hour}).Draw(t, "for"))
		},
		"run": run, "run2": run, "run3": run, "run4": run, "run5": run, "run6": run,
		"evaluate": func(t *rapid.T) {
			w.running(t).evaluate(rapid.IntRange(0, 3).Draw(t, "passes") > 0, rapid.Bool().Draw(t, "nodeScoped"), rapid.SampledFrom([]time.Duration{0, 20 * time.Second, 59 * time.Second}).Draw(t, "ago"))
		},
		"permit": func(t *rapid.T) { w.running(t).permit() },
		"record": func(t *rapid.T) { w.running(t).record() },
		"raw":    func(t *rapid.T) { n := w.any(t); n.raw = !n.raw },
		"crash":  func(t *rapid.T) { w.running(t).n.stop() },
		"start":  func(t *rapid.T) { w.restart(w.any(t)) },
		"cut":    func(t *rapid.T) { n := w.any(t); n.cut = !n.cut },
		"lose":   func(t *rapid.T) { w.running(t).loses(errDown) },
		"end":    func(t *rapid.T) { w.running(t).loses(nil) },
		"break":  func(t *rapid.T) { w.running(t).breakOff() },
		"fault": func(t *rapid.T) {
			w.running(t).fault = rapid.SampledFrom([]fault{fails, lost, behind}).Draw(t, "fault")
		},
		"land":     func(*rapid.T) { w.land() },
		"look":     func(t *rapid.T) { w.any(t).look() },
		"lock":     func(t *rapid.T) { w.any(t).lock() },
		"cordon":   func(t *rapid.T) { n := w.any(t); n.cordoned = n.cordoned || n.acting },
		"act":      func(t *rapid.T) { w.act(w.any(t)) },
		"fail":     func(t *rapid.T) { w.any(t).fail() },
		"welcome":  func(t *rapid.T) { w.any(t).welcome() },
		"ill":      func(t *rapid.T) { n := w.any(t); n.ill = !n.ill },
		"erring":   func(t *rapid.T) { n := w.any(t); n.erring = !n.erring },
		"no link":  func(t *rapid.T) { n := w.any(t); n.noLink = !n.noLink },
		"no kured": func(t *rapid.T) { n := w.any(t); n.noKured = !n.noKured },
		"silent":   func(t *rapid.T) { w.running(t).silent = true },
		"skew": func(t *rapid.T) {
			g := w.running(t)
			if !g.told {
				t.Skip("it has no other witness")
			}
			g.skew = rapid.SampledFrom([]time.Duration{0, 0, 8 * time.Hour, -8 * time.Hour}).Draw(t, "skew")
		},
		"ghost":  func(*rapid.T) { w.ghost() },
		"storm":  func(*rapid.T) { w.storm = !w.storm },
		"reboot": func(t *rapid.T) { w.any(t).reboot(false) },
		"reboot and start": func(t *rapid.T) {
			n := w.any(t)
			n.reboot(false)
			n.start()
		},
		"kubelet": func(t *rapid.T) { n := w.any(t); n.objectBoot = n.boot },
		"delete":  func(t *rapid.T) { w.deleteNode(w.any(t)) },
		"join":    func(t *rapid.T) { w.join(w.any(t)) },
		"operator": func(t *rapid.T) {
			w.operate(rapid.SampledFrom([]string{"halt", "unhalt", "hold", "unhold", "release", "override", "edit", "restore", "remove", "make", "make with an epoch"}).Draw(t, "does"), w.any(t))
		},
	}
}

func (w *world) restart(n *node) {
	n.stop()
	n.start()
}

func (w *world) land() {
	if w.late != nil {
		w.late()
		w.late = nil
	}
}

// act lets kured reboot the node.
func (w *world) act(n *node) {
	if n.acting && n.mayAct() {
		n.reboot(true)
	}
}

// deleteNode deletes the Node object. Without it kured does nothing, and when
// its pod is collected it has forgotten what it saw.
func (w *world) deleteNode(n *node) {
	if !n.object {
		return
	}
	w.log("the Node %s is deleted", n.name)
	n.object, n.goneSince = false, w.clock
}

// join lets the kubelet make the Node object anew.
func (w *world) join(n *node) {
	if n.object {
		return
	}
	w.log("the Node %s joins", n.name)
	n.object, n.objectBoot, n.cordoned = true, n.boot, n.cordoned && n.acting
	if w.since(n.goneSince) > simMaxAge {
		n.saw, n.acting = time.Time{}, false
	}
}

// operate is what people do to the Lease. What their release, or a Lease that
// they made anew, claims of kured is theirs to answer for.
func (w *world) operate(does string, n *node) {
	w.log("the operator: %s (%s)", does, n.name)
	switch does {
	case "halt":
		w.edit(HaltKey, "stop")
	case "unhalt":
		w.edit(HaltKey, "")
	case "hold":
		w.edit(HoldPrefix+n.name, "mine")
	case "unhold":
		w.edit(HoldPrefix+n.name, "")
	case "release":
		if s := w.state(); s.Epoch > 0 {
			w.edit(ReleaseKey, strconv.FormatInt(s.Epoch, 10))
			w.claim(w.named(s.Holder))
		}
	case "override":
		w.edit(OverridePrefix+"soak", w.now().Add(2*time.Hour).Format(time.RFC3339)+" CVE")
	case "edit":
		w.edit(holderKey, n.name)
	case "restore":
		recent := w.copies[max(0, len(w.copies)-6):]
		w.put(recent[w.rand.IntN(len(recent))])
	case "remove":
		if w.lease != nil {
			w.remove()
		}
	case "make":
		if w.lease == nil {
			w.put(&coordinationv1.Lease{})
		}
	case "make with an epoch":
		w.makeAnew()
	}
}

func (w *world) makeAnew() {
	for _, n := range w.nodes {
		w.claim(n)
	}
	if w.lease != nil {
		w.remove()
	}
	lease := &coordinationv1.Lease{}
	lease.Annotations = map[string]string{epochKey: strconv.FormatInt(w.epoch+1, 10)}
	w.put(lease)
}

// pace is how quick kured and the machines are.
type pace int

const (
	idle pace = iota
	lazy
	prompt
)

// calm lets every gate that runs do in time what it has to, until the end, or,
// where all are prompt, until nothing is pending.
func (w *world) calm(end time.Time, how pace) {
	for w.clock.Before(end) {
		next := end
		if w.disturb != nil {
			w.disturb()
		}
		for _, n := range w.nodes {
			switch how {
			case lazy:
				w.lazy(n)
			case prompt:
				if w.only == nil || slices.Contains(w.only, n) || n.noLink || n.erring || n.ill {
					w.prompt(n)
				}
			}
			g := n.gate
			if g == nil {
				continue
			}
			g.record()
			g.tick()
			for i := 0; g.due(); i++ {
				if g.run(); i > 100+len(w.history) {
					w.fatalf("%s is busy", n.name)
				}
			}
			if g.view.Evaluates() && n.raw {
				if !w.clock.Before(g.evaluateAt) {
					g.evaluate(!n.ill && !w.storm && w.allows(n), (n.ill || !w.allows(n)) && !w.storm, time.Second)
					for i := 0; g.due(); i++ {
						if g.run(); i > 100+len(w.history) {
							w.fatalf("%s is busy", n.name)
						}
					}
					g.permit()
				}
				next = earliest(next, g.evaluateAt)
			}
			if !g.wakeAt.IsZero() {
				next = earliest(next, g.wakeAt)
			}
			if g.follow != "" {
				next = earliest(next, g.since.Add(cluster.WatchFor))
			}
			w.check()
		}
		if how == prompt && !w.pending() {
			return
		}
		w.clock = later(next, w.clock.Add(50*time.Millisecond))
	}
}

func earliest(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// lazy lets them do something, at times.
func (w *world) lazy(n *node) {
	does := []func(){n.look, n.look, n.lock, n.lock, func() { n.cordoned = n.cordoned || n.acting }, n.fail, func() { w.act(n) }, n.welcome, func() { n.objectBoot = n.boot }, func() {
		if n.gate == nil {
			n.start()
		}
	}}
	if i := w.rand.IntN(4 * len(does)); i < len(does) {
		does[i]()
		w.check()
	}
}

// prompt lets the machine, its kubelet and kured do at once what they have to.
func (w *world) prompt(n *node) {
	n.look()
	n.lock()
	if n.acting {
		w.act(n)
		n.raw = false
		w.check()
	}
	n.welcome()
	n.objectBoot, n.cut = n.boot, false
	if n.gate == nil {
		n.start()
	}
}

func (w *world) pending() bool {
	for _, n := range w.nodes {
		if n.raw && (w.only == nil || slices.Contains(w.only, n)) {
			return true
		}
	}
	return false
}

// finish ends all faults, and expects that every pending node reboots.
func (w *world) finish() {
	w.log("the faults end")
	w.late, w.storm = nil, false
	for _, n := range w.nodes {
		w.join(n)
		n.ill, n.cut, n.cordoned = false, false, n.cordoned && n.acting
		n.erring, n.noLink, n.noKured = false, false, false
		if n.gate != nil {
			n.gate.fault, n.gate.skew = none, 0
		}
	}
	for _, n := range w.nodes {
		w.edit(HoldPrefix+n.name, "")
	}
	w.edit(HaltKey, "")
	w.edit(ReleaseKey, "")
	w.edit(OverridePrefix+"soak", "")
	if s := w.state(); w.lease == nil || s.Epoch < w.epoch || s.Phase == PhaseUnwritten {
		w.makeAnew()
	}
	// Each waits for a soak, at most for some who do not answer, and for a gate
	// that must settle.
	w.calm(w.clock.Add(time.Duration(len(w.nodes)+1)*(w.soak+4*time.Hour)), prompt)
	if w.pending() {
		s := fmt.Sprintf("%+v", w.state())
		for _, n := range w.nodes {
			s += fmt.Sprintf("\n%s: raw %t, %s", n.name, n.raw, n.gate.view.Why())
		}
		w.fatalf("pending nodes do not reboot: %s", s)
	}
}
