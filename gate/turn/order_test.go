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
			chosen, waiting, found := choose(Rank(candidates, nil, 7*24*time.Hour, noon), c.operator, c.after, func(string) bool { return false })
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
