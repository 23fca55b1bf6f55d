package turn

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	"pgregory.net/rapid"

	"github.com/sentinel-gate/sentinel-gate/gate/cluster"
	"github.com/sentinel-gate/sentinel-gate/gate/record"
	"github.com/sentinel-gate/sentinel-gate/gate/soak"
)

// body is what a simulated machine has and runs, with exposure.
type body struct {
	installed map[string]string // versions by name
	kernel    string            // the one that runs
	pinned    bool              // its kernel does not change
	unlisted  bool              // its list of packages is empty
	flapped   time.Time         // when its Ready condition changed last
	opened    bool
	// By the record, when this boot was taken in first.
	boot soak.Boot
}

// life is one boot of a machine as it truly was, which no gate is told.
type life struct {
	node      string
	from, to  time.Time // zero: it lasts
	runs      map[string]bool
	ill       bool // it flapped, or crashed, in its soak
	announced bool
	removed   time.Time // its Node object was deleted then
}

const simKernel = "linux"

func part(name, version string) soak.Part { return soak.NewPart(name, version) }

func (n *node) machine() soak.Machine {
	m := soak.Machine{Kernel: part(soak.KernelName, n.body.kernel), Build: part(soak.BuildName, n.body.kernel), Installed: map[soak.Part]bool{}}
	for name, version := range n.body.installed {
		m.Installed[part(name, version)] = true
		if name == simKernel {
			m.Kernels = append(m.Kernels, part(name, version))
			if version == n.body.kernel {
				m.Running = append(m.Running, part(name, version))
			}
		}
	}
	return m
}

// wants are the parts that it would run, as soak.PutParts writes them.
func (n *node) wants() string {
	if n.w.exposure == nil || !n.raw {
		return ""
	}
	return soak.PutParts(n.wanted())
}

func (n *node) wanted() (parts []soak.Part) {
	for name, version := range n.body.installed {
		parts = append(parts, part(name, version))
	}
	if n.body.unlisted {
		parts = append(parts, soak.Unknown)
	}
	return soak.Sorted(parts)
}

func (n *node) tellsSoak() string {
	return fmt.Sprint(n.wants(), n.body.opened, n.w.exposure != nil && n.w.now().Sub(n.recordedBoot()) > n.w.soak)
}

// tellParts is what the record's writer does, by the same functions.
func (n *node) tellParts(lease *coordinationv1.Lease) {
	w := n.w
	b := &n.body
	if b.boot.ID == n.boot && w.now().Sub(b.boot.At) >= w.soak && n.object && n.objectBoot == n.boot {
		node := soak.Node{BootedAt: b.boot.At, Announced: b.boot.Announced, Soaked: b.boot.Soaked, Ready: true, ReadySince: b.flapped}
		switch {
		case b.boot.Soaked:
		case node.Disturbed(w.soak, w.now()):
			b.boot.Against = b.boot.Known()
		case node.Quiet(w.soak):
			b.boot.Soaked = true
		}
	}
	for key, value := range map[string]string{
		"parts": soak.PutParts(b.boot.Parts), "parts-against": soak.PutParts(b.boot.Against), "parts-pending": n.wants(),
		"soaked": fmt.Sprint(b.boot.Soaked), "booted-with-turn": fmt.Sprint(b.boot.Announced), "turn-opened": fmt.Sprint(b.opened),
	} {
		if value != "" && value != "false" {
			lease.Annotations["sentinel-gate.io/"+key] = value
		}
	}
}

// lives ends the life of this boot.
func (n *node) lives(byKured bool) {
	for i := range n.w.lived {
		l := &n.w.lived[i]
		if l.node == n.name && l.to.IsZero() {
			if l.to = n.w.now(); !byKured && l.to.Sub(l.from) < n.w.soak {
				l.ill = true
			}
		}
	}
	n.body.flapped = n.w.now()
}

// runs begins the life of the next.
func (n *node) runs() {
	w := n.w
	if w.exposure == nil {
		return
	}
	if !n.body.pinned {
		n.body.kernel = n.body.installed[simKernel]
	}
	l := life{node: n.name, from: w.now(), runs: map[string]bool{}}
	for name, version := range n.body.installed {
		if name != simKernel {
			l.runs[name+version] = true
		}
	}
	l.runs[simKernel+n.body.kernel] = true
	before, _ := record.Parse(w.records[n.name])
	earlier := soak.Boot{ID: before.BootID, At: before.BootedAt, Announced: before.Announced, Parts: before.Parts, Against: before.PartsAgainst, Soaked: before.Soaked}
	n.body.boot, _ = soak.After(earlier, before.PartsPending, n.machine(), n.boot, n.recordedBoot(), before.Opened, w.soak)
	l.announced = before.Opened
	n.body.opened = false
	w.lived = append(w.lived, l)
}

// members are what ListSoaks makes of nodes and records.
func (w *world) members() []soak.Node {
	var nodes []cluster.Node
	for _, n := range w.nodes {
		if n.object {
			nodes = append(nodes, cluster.Node{
				Name: n.name, BootID: n.objectBoot, Ready: "True", Since: n.body.flapped, Heartbeat: w.now(), Created: noon.Add(-1000 * time.Hour),
				Kernel: n.body.kernel, Image: "image", Runtime: "runtime", Kubelet: "kubelet",
			})
		}
	}
	entries := map[string]cluster.Entry{}
	for name, lease := range w.records {
		if w.named(name) != nil {
			entries[name] = cluster.NewEntry(lease)
		}
	}
	return cluster.Members(nodes, entries, cluster.Soaking{}, w.now())
}

// admits reports what the step readySoak says on the node.
func (w *world) admits(n *node) bool {
	members := w.members()
	for _, m := range members {
		if known := w.named(m.Name); known != nil && known.object && known.objectBoot != w.records[m.Name].Annotations["sentinel-gate.io/boot-id"] {
			return false // and it does not know when that booted
		}
	}
	i := slices.IndexFunc(members, func(m soak.Node) bool { return m.Name == n.name })
	if i < 0 || soak.PutParts(cluster.NewEntry(w.records[n.name]).PartsPending) != n.wants() {
		return false
	}
	rule := *w.exposure
	rule.Soak, rule.FirstAfter = w.soak, n.gate.core.config.Aging
	return rule.Judge(members, w.now()).Admit(members[i], soak.Names(nil)).Reason == ""
}

// judgeOpening counts on its own, over all that ever happened, whether the node may open:
// an independent and naive count, by names and not by parts.
func (w *world) judgeOpening(n *node) {
	if w.lease != nil && len(ParseOperator(w.lease).Overridden(w.now())) > 0 {
		return
	}
	inSoak := func(l life) bool { return w.now().Sub(l.from) < w.soak && (l.to.IsZero() || !l.removed.IsZero()) }
	wants := map[string]bool{}
	for name, version := range n.body.installed {
		wants[name+version] = true
	}
	var soaking []string
	for _, l := range w.lived {
		if inSoak(l) {
			soaking = append(soaking, l.node)
		}
	}
	if limit := max(1, w.exposure.Max.Of(len(w.nodes))); len(soaking) >= limit {
		w.fatalf("%s opens, and %v are in soak, of at most %d", n.name, soaking, limit)
	}
	runsAlready := map[string]bool{} // to which the boot does not bring it
	for _, l := range w.lived {
		if l.node == n.name && l.to.IsZero() {
			runsAlready = l.runs
		}
	}
	for _, what := range slices.Sorted(maps.Keys(wants)) {
		soaks, soaked, against := 0, 0, 0
		for _, l := range w.lived {
			if !l.runs[what] || l.node == n.name && l.to.IsZero() && inSoak(l) {
				continue
			}
			switch {
			case l.ill && l.to.IsZero():
				if !runsAlready[what] {
					against++
				}
			case w.now().Sub(l.from) >= w.soak && (l.to.IsZero() || l.to.Sub(l.from) >= w.soak) && !l.ill:
				soaked++
			}
			if inSoak(l) {
				soaks++
			}
		}
		limit := max(1, w.exposure.Growth*(soaked-w.exposure.Growth*against))
		if against > 0 && limit == 1 && soaked == 0 {
			limit = 0
		}
		if soaks+1 > limit {
			w.fatalf("%s opens with %s (part %s), which %d have soaked, %d gave evidence against, and %d soak of at most %d%s", n.name, what, part(what[:len(what)-1], what[len(what)-1:]), soaked, against, soaks, limit, w.lives())
		}
	}
}

// newExposedWorld is a world whose nodes have packages, and booted long ago.
func newExposedWorld(soakFor time.Duration, nodes int, seed uint64, rule soak.Rule) *world {
	w := newWorld(soakFor, 0, nodes, seed)
	w.exposure = &rule
	for _, n := range w.nodes {
		n.stop()
		n.bootedAt = w.now().Add(-2 * soakFor)
		n.body = body{installed: map[string]string{simKernel: "1", "libc": "1"}, kernel: "1", flapped: n.bootedAt.Add(time.Minute)}
		n.body.boot, _ = soak.After(soak.Boot{}, nil, n.machine(), n.boot, n.recordedBoot(), false, soakFor)
		w.lived = append(w.lived, life{node: n.name, from: n.bootedAt, runs: map[string]bool{"linux1": true, "libc1": true}})
		n.start()
		n.gate.record()
		n.gate.tells()
	}
	return w
}

// flap changes the node's readiness, and back.
func (n *node) flap() {
	if n.w.since(n.body.flapped) < 2*time.Minute || !n.object {
		return
	}
	n.body.flapped = n.w.now()
	for i := range n.w.lived {
		l := &n.w.lived[i]
		if after := n.w.now().Sub(l.from); l.node == n.name && l.to.IsZero() && after > soak.Grace(n.w.soak) && after < n.w.soak {
			l.ill = true
			n.w.log("%s flaps in its soak", n.name)
		}
	}
}

// update installs a new version of something.
func (n *node) update(name, version string) {
	n.w.log("%s gets %s %s", n.name, name, version)
	n.body.installed[name] = version
	n.raw = true
}

// TestExposure lets a simulated cluster with exposure go through updates, second updates
// on the way, pinned kernels, lists that are empty, flaps, crashes and deleted nodes. At
// every opening the rule holds as a naive count over the whole history says; never two are
// between an open gate and the proof of a reboot; and when the faults end everybody reboots.
func TestExposure(t *testing.T) {
	property(t, func(rt *rapid.T, draw func(string, int) int) {
		soakFor := rapid.SampledFrom([]time.Duration{time.Hour, 5 * time.Hour, 24 * time.Hour}).Draw(rt, "soak")
		nodes := 3 + draw("nodes", 6)
		rule := soak.Rule{Growth: 1 + draw("growth", 3), Max: soak.Amount{Count: 1 + draw("max", nodes)}, Flaps: soak.Amount{Count: draw("flaps", 3)}}
		w := newExposedWorld(soakFor, nodes, rapid.Uint64().Draw(rt, "seed"), rule)
		faults := 6 + draw("faults", 14)
		version := 1
		for range faults {
			n := w.any(rt)
			switch does := rapid.SampledFrom([]string{"update", "update", "update all", "flap", "flap", "crash", "pin", "unlist", "restart", "cut", "wait", "silent", "lose"}).Draw(rt, "does"); does {
			case "update":
				n.update(rapid.SampledFrom([]string{simKernel, "libc", "microcode"}).Draw(rt, "package"), fmt.Sprint(version))
			case "update all":
				version++
				for _, n := range w.nodes {
					n.update(rapid.SampledFrom([]string{simKernel, "libc"}).Draw(rt, "package"), fmt.Sprint(version))
				}
			case "flap":
				n.flap()
			case "crash":
				n.reboot(false)
				n.objectBoot = n.boot
				n.start()
			case "pin":
				n.body.pinned = !n.body.pinned
			case "unlist":
				n.body.unlisted = !n.body.unlisted
			case "restart":
				w.restart(n)
			case "cut":
				n.cut = !n.cut
			case "silent":
				if n.gate != nil {
					n.gate.silent = true
				}
			case "lose":
				if n.gate != nil {
					n.gate.loses(nil)
				}
			}
			w.calm(w.clock.Add(rapid.SampledFrom([]time.Duration{time.Second, time.Minute, 20 * time.Minute, soakFor / 2, soakFor}).Draw(rt, "for")), rapid.SampledFrom([]pace{idle, lazy, prompt, prompt}).Draw(rt, "kured"))
		}
	})
}

// allows reports whether the step readySoak passes on the node, where there is exposure.
func (w *world) allows(n *node) bool { return w.exposure == nil || w.admits(n) }

// lives is all that ever happened, and what is known of it.
func (w *world) lives() (text string) {
	for _, l := range w.lived {
		text += fmt.Sprintf("\n%+v", l)
	}
	for _, m := range w.members() {
		text += fmt.Sprintf("\n%+v", m)
	}
	return text
}

// TestExposureLiveness lets one update reach every node of a cluster that is well, among
// restarts, watches that end or fall silent, and wrong dates. It does within the soaks that
// the growth needs, and the time that each node may take.
func TestExposureLiveness(t *testing.T) {
	property(t, func(rt *rapid.T, draw func(string, int) int) {
		soakFor := rapid.SampledFrom([]time.Duration{time.Hour, 24 * time.Hour}).Draw(rt, "soak")
		nodes := 2 + draw("nodes", 6)
		rule := soak.Rule{Growth: 1 + draw("growth", 3), Max: soak.Amount{Count: 1 + draw("max", nodes)}}
		w := newExposedWorld(soakFor, nodes, rapid.Uint64().Draw(rt, "seed"), rule)
		for _, n := range w.nodes {
			n.update(simKernel, "2")
		}
		w.disturb = func() { w.harass(w.nodes[w.rand.IntN(len(w.nodes))]) }
		waves := 1 // the first soak, of the new Lease
		for soaked := 0; soaked < nodes; waves++ {
			soaked += max(1, min(rule.Growth*soaked, rule.Max.Count))
		}
		config := w.nodes[0].gate.core.config
		one := config.silence() + 2*config.GrantTimeout + 2*config.Settle + config.gone() + spread
		bound := time.Duration(waves)*(soakFor+5*time.Minute) + time.Duration(nodes)*one
		began := w.clock
		w.calm(w.clock.Add(bound), prompt)
		if w.pending() {
			s := ""
			for _, n := range w.nodes {
				s += fmt.Sprintf("\n%s: raw %t, %s", n.name, n.raw, n.gate.view.Why())
			}
			w.fatalf("after %s, of %s at most, nodes still wait: %+v%s%s", w.since(began), bound, w.state(), s, w.lives())
		}
	})
}

// Who was passed over and waits alone is granted the turn all the same; and one that did not
// respond says first that it responds again.
func TestPassedOverAndAlone(t *testing.T) {
	c := Config{Node: "a", BootID: "1", Soak: 24 * time.Hour, MaxAge: simMaxAge, Interval: simInterval, Settle: simSettle, GrantTimeout: 30 * time.Minute, Aging: 7 * 24 * time.Hour, Exposure: &soak.Rule{Growth: 2, Max: soak.Amount{Count: 1}}}
	candidates := []Candidate{{Node: "a", BootID: "1", Member: true, PendingSince: noon.Add(-time.Hour), BootedAt: noon.Add(-50 * time.Hour)}}
	members := []soak.Node{{Name: "a", BootedAt: noon.Add(-50 * time.Hour), Wants: []soak.Part{"new"}, Ready: true}}
	for cause, want := range map[Cause]Phase{CauseStepsErr: PhaseGranted, CauseSilent: PhaseFree} {
		s := State{Epoch: 3, Phase: PhaseFree, Exposed: true, Since: noon, PassedOver: []PassedOver{{"a", cause, noon.Add(-time.Minute)}}}
		d := Decide(c, s, Operator{}, Local{Pending: true, Unseen: true}, Seen{Now: noon, Candidates: &candidates, Members: members})
		if d.Write == nil || d.Write.Phase != want || want == PhaseFree && len(d.Write.PassedOver) > 0 {
			t.Errorf("%s: %+v", cause, d)
		}
	}
}
