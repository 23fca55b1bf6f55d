package soak

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

var noon = time.Date(2026, 3, 14, 12, 0, 0, 0, time.UTC)

const day = 24 * time.Hour

var rule = Rule{Soak: day, Growth: 2, Max: Amount{Percent: 25}, FirstAfter: 7 * day}

// quiet is a node that booted so long ago with the turn, and was quiet since.
func quiet(name string, ago time.Duration, runs ...Part) Node {
	at := noon.Add(-ago)
	return Node{Name: name, BootedAt: at, Announced: true, Runs: runs, Agrees: true, Ready: true, ReadySince: at.Add(time.Minute)}
}

// waiting is one that has soaked old, and would boot into the parts.
func waiting(name string, wants ...Part) Node {
	n := quiet(name, 30*day, "old")
	n.Wants, n.WaitsSince = wants, noon.Add(-day)
	return n
}

func many(count int, of func(i int) Node) (nodes []Node) {
	for i := range count {
		nodes = append(nodes, of(i))
	}
	return nodes
}

func with(n Node, change func(*Node)) Node {
	change(&n)
	return n
}

func TestAdmit(t *testing.T) {
	idle := many(40, func(i int) Node { return quiet(fmt.Sprint("idle", i), 30*day, "old") })
	soakedOn := func(count int, parts ...Part) []Node {
		return many(count, func(i int) Node { return quiet(fmt.Sprint("soaked", i), 2*day, parts...) })
	}
	inSoak := func(count int, parts ...Part) []Node {
		return many(count, func(i int) Node { return quiet(fmt.Sprint("soaks", i), time.Duration(i+1)*time.Hour, parts...) })
	}
	flapped := func(n Node, after time.Duration) Node {
		n.ReadySince = n.BootedAt.Add(after)
		return n
	}
	for _, c := range []struct {
		name  string
		nodes []Node
		me    Node
		want  string // the reason, and when that changes
	}{
		{"the first", nil, waiting("me", "new"), ""},
		{"a canary soaks it", inSoak(1, "new"), waiting("me", "new"), "PartLimit 2026-03-15T11:00:00Z"},
		{"a canary soaks something else", inSoak(1, "other"), waiting("me", "new"), "CanarySoaks 2026-03-15T11:00:00Z"},
		{"a canary does not stop what is soaked", append(soakedOn(1, "new"), inSoak(1, "other")...), waiting("me", "new"), ""},
		{"one soaked it: two more", append(soakedOn(1, "new"), inSoak(1, "new")...), waiting("me", "new"), ""},
		{"one soaked it: no third", append(soakedOn(1, "new"), inSoak(2, "new")...), waiting("me", "new"), "PartLimit 2026-03-15T10:00:00Z"},
		{"up to the maximum", append(soakedOn(9, "new"), inSoak(14, "new")...), waiting("me", "new"), ""},
		{"and no more", append(soakedOn(9, "new"), inSoak(16, "new")...), waiting("me", "new"), "ExposureLimit 2026-03-14T20:00:00Z"},
		{"each part counts", append(soakedOn(9, "new"), inSoak(2, "new", "newer")...), waiting("me", "new", "newer"), "CanarySoaks 2026-03-15T11:00:00Z"},
		{"F94: nothing is known of what it would run", nil, waiting("me"), "NoParts"},
		{"F94: something is not", soakedOn(9, "new"), waiting("me", "new", Unknown), ""},
		{"F94: two of which something is not", append(soakedOn(9, "new"), inSoak(1, "new", Unknown)...), waiting("me", "new", Unknown), "PartLimit 2026-03-15T11:00:00Z"},
		{"F94: it came up unannounced", []Node{with(quiet("soaks", time.Hour, "old", "new"), func(n *Node) { n.Announced, n.Joined = false, true })}, waiting("me", "new"), "PartLimit 2026-03-15T11:00:00Z"},
		{"F95: evidence against, early on", []Node{flapped(quiet("canary", 20*time.Hour, "new"), 5*time.Hour)}, waiting("me", "new"), "EvidenceAgainst"},
		{"F95: and after its soak", []Node{flapped(quiet("canary", 3*day, "new"), 5*time.Hour)}, waiting("me", "new"), "EvidenceAgainst"},
		{"F95: hidden by a later flap", []Node{flapped(quiet("canary", 10*day, "new"), 5*day)}, waiting("me", "new"), "EvidenceAgainst"},
		{"F95: by its record", append(soakedOn(2, "new"), with(quiet("canary", 10*day, "new"), func(n *Node) { n.Against, n.Soaked = []Part{"new"}, true })), waiting("me", "new"), "EvidenceAgainst"},
		{"F95: much evidence for", append(soakedOn(6, "new"), append(inSoak(7, "new"), flapped(quiet("ill", 3*day, "new"), 5*time.Hour))...), waiting("me", "new"), ""},
		{"F95: it takes away again", append(soakedOn(6, "new"), append(inSoak(8, "new"), flapped(quiet("ill", 3*day, "new"), 5*time.Hour))...), waiting("me", "new"), "PartLimit 2026-03-15T04:00:00Z"},
		{"F95: gone in its soak", []Node{with(quiet("gone", 3*time.Hour, "new"), func(n *Node) { n.Gone, n.Ready = true, false })}, waiting("me", "new"), "EvidenceAgainst"},
		{"gone after it", []Node{with(quiet("gone", 3*day, "new"), func(n *Node) { n.Gone, n.Ready = true, false })}, waiting("me", "new"), ""},
		{"F95: its node was deleted, and its record remains", []Node{with(quiet("gone", 3*day, "new"), func(n *Node) { n.Gone, n.Ready, n.Against = true, false, []Part{"new"} })}, waiting("me", "new"), "EvidenceAgainst"},
		{"what this node runs already the boot does not bring", []Node{flapped(quiet("ill", 3*day, "old"), 5*time.Hour)}, waiting("me", "new", "old"), ""},
		{"a flap at its boot is none", []Node{flapped(quiet("soaked", 2*day, "new"), 10*time.Minute), quiet("soaks", time.Hour, "new")}, waiting("me", "new"), ""},
		{"one whose record knows of a quiet soak", []Node{with(flapped(quiet("soaked", 10*day, "new"), 5*day), func(n *Node) { n.Soaked = true }), quiet("soaks", time.Hour, "new")}, waiting("me", "new"), ""},
		{"F94: one of which something is not known proves nothing", []Node{quiet("soaked", 2*day, "new", Unknown), quiet("soaks", time.Hour, "new")}, waiting("me", "new"), "PartLimit 2026-03-15T11:00:00Z"},
		{"one that another kernel runs on proves nothing", []Node{with(quiet("soaked", 2*day, "new"), func(n *Node) { n.Agrees = false }), quiet("soaks", time.Hour, "new")}, waiting("me", "new"), "PartLimit 2026-03-15T11:00:00Z"},
		{"F55: a flap of another node", []Node{with(flapped(quiet("ill", 10*day, "old"), 10*day-time.Hour), func(n *Node) { n.Soaked = true })}, waiting("me", "new"), "Flaps 2026-03-15T11:00:00Z"},
		{"a boot without the turn", []Node{with(quiet("ill", time.Hour, "old"), func(n *Node) { n.Announced = false })}, waiting("me", "new"), "Flaps 2026-03-15T11:00:00Z"},
		{"in soak itself", nil, with(waiting("me", "new"), func(n *Node) { n.BootedAt = noon.Add(-time.Hour); n.ReadySince = n.BootedAt }), "OwnSoak 2026-03-15T11:00:00Z"},
		{"a kind of its own", append(soakedOn(3, "new"), with(quiet("soaks", time.Hour, "new"), func(n *Node) { n.Kind = "gpu" })), with(waiting("me", "new"), func(n *Node) { n.Kind = "gpu" }), "PartLimit 2026-03-15T11:00:00Z"},
		{"another kind", append(soakedOn(3, "new"), with(quiet("soaks", time.Hour, "new"), func(n *Node) { n.Kind = "gpu" })), with(waiting("me", "new"), func(n *Node) { n.Kind = "cpu" }), ""},
		{"the control plane after a worker", soakedOn(1, "new"), with(waiting("me", "new"), func(n *Node) { n.ControlPlane = true }), ""},
		{"the control plane before", nil, with(waiting("me", "new"), func(n *Node) { n.ControlPlane = true }), "WorkersFirst 2026-03-20T12:00:00Z"},
		{"the control plane, after a week", nil, with(waiting("me", "new"), func(n *Node) { n.ControlPlane, n.WaitsSince = true, noon.Add(-7*day) }), ""},
		{"one of the control plane at a time", append(soakedOn(9, "new"), with(quiet("soaks", time.Hour, "new"), func(n *Node) { n.ControlPlane = true })), with(waiting("me", "new"), func(n *Node) { n.ControlPlane = true }), "ControlPlaneSoaks 2026-03-15T11:00:00Z"},
	} {
		t.Run(c.name, func(t *testing.T) {
			refusal := rule.Judge(slices.Concat(idle, c.nodes, []Node{c.me}), noon).Admit(c.me, Names(nil))
			got := refusal.Reason
			if !refusal.Until.IsZero() {
				got += " " + text(refusal.Until)
			}
			if got != c.want {
				t.Errorf("got %q (%s), want %q", got, refusal.Message, c.want)
			}
		})
	}
	t.Run("F55: flaps have a budget", func(t *testing.T) {
		rule := rule
		rule.Flaps = Amount{Percent: 5}
		flaps := many(3, func(i int) Node {
			return with(flapped(quiet(fmt.Sprint("ill", i), 10*day, "old"), 10*day-time.Duration(i+1)*time.Hour), func(n *Node) { n.Soaked = true })
		})
		me := waiting("me", "new")
		if r := rule.Judge(slices.Concat(idle, flaps[:2], []Node{me}), noon).Admit(me, Names(nil)); r.Reason != "" {
			t.Errorf("two of 43 nodes flapped, and 5%% may: %+v", r)
		}
		if r := rule.Judge(slices.Concat(idle, flaps, []Node{me}), noon).Admit(me, Names(nil)); r.Reason != ReasonFlaps || !r.Until.Equal(noon.Add(-3*time.Hour).Add(day)) {
			t.Errorf("three of 44 nodes flapped, and 5%% may: %+v", r)
		}
	})
	t.Run("a control plane alone, and workers without a gate", func(t *testing.T) {
		all := append([]Node{{Name: "worker", Ready: true, Joined: true}}, many(3, func(i int) Node {
			return with(waiting(fmt.Sprint(i), "new"), func(n *Node) { n.ControlPlane = true })
		})...)
		if r := rule.Judge(all, noon).Admit(all[1], Names(nil)); r.Reason != "" {
			t.Errorf("nobody else could soak it first: %+v", r)
		}
	})
}

func TestAfter(t *testing.T) {
	machine := func(kernel Part, installed ...Part) Machine {
		m := Machine{Kernel: kernel, Build: kernel + "-build", Installed: map[Part]bool{}, Kernels: []Part{"linux-1", "linux-2"}}
		for _, p := range installed {
			m.Installed[p] = true
		}
		return m
	}
	running := func(m Machine, kernels ...Part) Machine {
		m.Running = kernels
		return m
	}
	before := Boot{ID: "1", At: noon, Announced: true, Parts: []Part{"k1", "k1-build", "linux-1", "libc-1"}}
	late, early := noon.Add(30*day), noon.Add(5*time.Hour)
	for _, c := range []struct {
		name      string
		before    Boot
		wanted    []Part
		machine   Machine
		at        time.Time
		announced bool
		parts     string
		against   string
		doubt     string
	}{
		{"a new kernel", before, []Part{"linux-2", "libc-1"}, machine("k2", "linux-1", "linux-2", "libc-1"), late, true, "k2,k2-build,libc-1,linux-2", "", ""},
		{"F94: the kernel is pinned", before, []Part{"linux-2", "libc-1"}, machine("k1", "linux-1", "linux-2", "libc-1"), late, true, "?,k1,k1-build,libc-1", "", DoubtKernel},
		{"a new libc, and the same kernel", before, []Part{"linux-1", "libc-2"}, machine("k1", "linux-1", "libc-2"), late, true, "k1,k1-build,libc-2,linux-1", "", ""},
		{"nothing new", before, []Part{"linux-1", "libc-1"}, machine("k1", "linux-1", "libc-1"), late, true, "k1,k1-build,libc-1,linux-1", "", ""},
		{"nothing was asked for", before, nil, machine("k1", "linux-1", "libc-1"), late, false, "k1,k1-build,libc-1,linux-1", "", ""},
		{"an update on the way", before, []Part{"linux-2", "libc-1"}, machine("k2", "linux-2", "libc-2"), late, true, "?,k2,k2-build,linux-2", "", DoubtChanged},
		{"F94: the list was not known", before, []Part{Unknown, "libc-2"}, machine("k1", "libc-2"), late, true, "?,k1,k1-build,libc-2", "", DoubtList},
		{"F94: no database", before, []Part{"libc-2"}, Machine{Kernel: "k1", Build: "k1-build"}, late, true, "?,k1,k1-build", "", DoubtDatabase},
		{"the first", Boot{}, nil, machine("k1", "libc-1"), late, false, "?,k1,k1-build,linux-1,linux-2", "", DoubtFirst},
		{"the first, and which kernel runs is told", Boot{}, nil, running(machine("k1", "libc-1"), "linux-1"), late, false, "?,k1,k1-build", "", DoubtFirst},
		{"then a libc, and the same kernel", Boot{ID: "1", At: noon, Parts: []Part{"?", "k1", "k1-build"}}, []Part{"linux-1", "libc-2"}, running(machine("k1", "linux-1", "libc-2"), "linux-1"), late, true, "k1,k1-build,libc-2,linux-1", "", ""},
		{"F94: it fell back to a third kernel", before, []Part{"linux-2", "libc-1"}, running(machine("k0", "linux-2", "libc-1"), "linux-0"), late, true, "?,k0,k0-build,libc-1", "", DoubtKernel},
		{"F94: something changed that nobody asked a reboot for", before, nil, machine("k1", "linux-1", "libc-2"), late, false, "?,k1,k1-build,linux-1", "", DoubtChanged},
		{"F95: a crash in its soak", before, nil, machine("k1", "linux-1", "libc-1"), early, false, "k1,k1-build,libc-1,linux-1", "k1,k1-build,libc-1,linux-1", ""},
		{"F95: a reboot with the turn in its soak cuts that short", before, []Part{"libc-2", "linux-1"}, machine("k1", "linux-1", "libc-2"), early, true, "?,k1,k1-build,libc-2,linux-1", "", DoubtCut},
		{"F95: evidence stays for what stays", Boot{ID: "1", At: noon, Announced: true, Parts: before.Parts, Against: before.Parts, Soaked: true}, []Part{"libc-2", "linux-1"}, machine("k1", "linux-1", "libc-2"), late, true, "k1,k1-build,libc-2,linux-1", "k1,k1-build,linux-1", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			next, doubt := After(c.before, c.wanted, c.machine, "2", c.at, c.announced, day)
			if got := PutParts(next.Parts); got != c.parts {
				t.Errorf("it runs %s, want %s", got, c.parts)
			}
			if got := PutParts(next.Against); got != c.against {
				t.Errorf("evidence against %s, want %s", got, c.against)
			}
			if doubt != c.doubt || next.ID != "2" || next.Soaked {
				t.Errorf("%+v, %q", next, doubt)
			}
		})
	}
}

func TestParts(t *testing.T) {
	a, b := NewPart("libc6", "2.35"), NewPart("linux", "6.8")
	if a == b || NewPart("libc6", "") != Unknown || NewPart("", "1") != Unknown {
		t.Error("parts are not told apart")
	}
	list := []Part{b, a, b, Unknown}
	if got := ParseParts(PutParts(list)); !slices.Equal(got, Sorted(list)) || len(got) != 3 {
		t.Errorf("%v came back as %v", list, got)
	}
	if ParseParts("") != nil {
		t.Error("no list is a list")
	}
	for _, text := range []string{"nonsense", string(a) + ",", string(a) + ",G23456789012", strings.Repeat(string(a)+",", 200), "0123456789abc"} {
		if got := ParseParts(text); !slices.Contains(got, Unknown) {
			t.Errorf("%.40q is believed: %v", text, got)
		}
	}
	var long []Part
	for i := range 2 * MaxParts {
		long = append(long, NewPart("p", fmt.Sprint(i)))
	}
	if got := Sorted(long); len(got) != MaxParts || !slices.Contains(got, Unknown) || len(PutParts(long)) > maxPartsText {
		t.Errorf("of %d parts %d are kept, in %d bytes", len(long), len(got), len(PutParts(long)))
	}
}

func TestAmount(t *testing.T) {
	for text, of100 := range map[string]int{"3": 3, "25%": 25, "0": 0, "100%": 100} {
		a, err := ParseAmount(text)
		if err != nil || a.Of(100) != of100 || a.String() != text {
			t.Errorf("%s is %v (%v), and of 100 %d", text, a, err, a.Of(100))
		}
	}
	for _, text := range []string{"", "-1", "101%", "x", "2.5%", "1 2"} {
		if a, err := ParseAmount(text); err == nil {
			t.Errorf("%q is %v", text, a)
		}
	}
}
