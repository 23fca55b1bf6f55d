package turn

import (
	"fmt"
	"testing"
	"time"
)

func TestRankAndChoose(t *testing.T) {
	at := func(node string, tier int, hours time.Duration) Candidate {
		return Candidate{Node: node, Member: true, Tier: tier, PendingSince: noon.Add(-hours * time.Hour)}
	}
	had := at("had", 0, 99) // its reboot, a moment ago
	had.BootedAt = noon
	candidates := []Candidate{had, at("control", 1, 90), at("c", 0, 1), at("b", 0, 5), at("a", 0, 5), at("d", 0, 9)}
	held := Operator{Holds: map[string]string{"d": "", "a": ""}}
	for name, c := range map[string]struct {
		operator Operator
		after    string
		want     string
	}{
		"tier, longest, name":           {Operator{}, "", "d of [d a b c control had]"},
		"behind the one that hands on":  {Operator{}, "a", "b of [d a b c control had]"},
		"and around":                    {Operator{}, "had", "d of [d a b c control had]"},
		"behind one that does not wait": {Operator{}, "z", "d of [d a b c control had]"},
		"not who is held":               {held, "", "b of [b c control had]"},
		"behind one that is held":       {held, "a", "b of [b c control had]"},
		"nobody":                        {Operator{Holds: map[string]string{"a": "", "b": "", "c": "", "d": "", "control": "", "had": ""}}, "", "none"},
	} {
		t.Run(name, func(t *testing.T) {
			chosen, waiting, found := choose(Rank(candidates, nil, 7*24*time.Hour, noon), c.operator, c.after, func(Candidate) bool { return false }, everybody)
			got := fmt.Sprintf("%s of %v", chosen.Node, waiting)
			if !found {
				got = "none"
			}
			if got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
	if candidates[0].Node != "had" {
		t.Error("ranking changed its argument")
	}
}

// F42, F64: who has no Node object does not count, and the tier is that of the Node: one
// that is not known yet is nobody's.
func TestF42F64WhoDoesNotCount(t *testing.T) {
	ghost := Candidate{Node: "ghost", PendingSince: noon.Add(-300 * 24 * time.Hour)}
	silent := Candidate{Node: "silent", Member: true, PendingSince: noon.Add(-30 * 24 * time.Hour)}
	here := Candidate{Node: "here", Member: true, Tier: 1, PendingSince: noon.Add(-time.Hour)}
	ranked := Rank([]Candidate{ghost, silent, here}, []PassedOver{{"silent", CauseSilent, noon.Add(-29 * 24 * time.Hour)}}, 7*24*time.Hour, noon)
	if got := fmt.Sprint(names(ranked)); got != "[here silent]" {
		t.Errorf("ranked %s", got)
	}
	ranked = Rank([]Candidate{silent, here}, []PassedOver{{"silent", CauseNoKured, noon.Add(-25 * time.Hour)}}, 7*24*time.Hour, noon)
	if got := fmt.Sprint(names(ranked)); got != "[silent here]" {
		t.Errorf("what was a day ago still counts: %s", got)
	}
}

func names(candidates []Candidate) (names []string) {
	for _, c := range candidates {
		names = append(names, c.Node)
	}
	return names
}

// F46: forty workers with a kernel a month, a soak of a day, and three control-plane nodes
// behind them, for three years. Nobody is overtaken for ever.
func TestF46NobodyIsOvertakenForEver(t *testing.T) {
	const aging = 7 * 24 * time.Hour
	nodes := map[string]*Candidate{}
	for i := range 40 {
		nodes[fmt.Sprintf("worker-%02d", i)] = &Candidate{Node: fmt.Sprintf("worker-%02d", i), Member: true}
	}
	for i := range 3 {
		nodes[fmt.Sprintf("control-%d", i)] = &Candidate{Node: fmt.Sprintf("control-%d", i), Member: true, Tier: 1}
	}
	reboots, longest := map[string]int{}, time.Duration(0)
	for day := range 3 * 365 {
		now := noon.Add(time.Duration(day) * 24 * time.Hour)
		if day%30 == 0 {
			for _, n := range nodes {
				if n.PendingSince.IsZero() {
					n.PendingSince = now
				}
			}
		}
		var all []Candidate
		for _, n := range nodes {
			all = append(all, *n)
		}
		chosen, _, found := choose(Rank(all, nil, aging, now), Operator{}, "", func(Candidate) bool { return false }, everybody)
		if !found {
			continue
		}
		n := nodes[chosen.Node]
		longest = max(longest, now.Sub(n.PendingSince))
		n.BootedAt, n.PendingSince = now.Add(time.Hour), time.Time{}
		reboots[n.Node]++
	}
	// Who goes at the end of a month waits for the next kernel as well: half as often.
	most := 0
	for name := range nodes {
		most = max(most, reboots[name])
	}
	for name := range nodes {
		if reboots[name] < most*2/5 {
			t.Errorf("%s rebooted %d times in three years, and another %d times", name, reboots[name], most)
		}
	}
	// At a node a day, each waits for 43 others at most, and for those that began before.
	if longest > 60*24*time.Hour {
		t.Errorf("one waited for %s", longest)
	}
}
