package forecast

import (
	"strings"
	"testing"
	"time"

	"github.com/sentinel-gate/sentinel-gate/gate/soak"
)

// F98: updates come faster than soaks, and it is said.
func TestOutpaced(t *testing.T) {
	for every, want := range map[time.Duration]bool{day: true, 2 * day: true, 14 * day: false} {
		r := rollout(Uniform(noon, 100, 0), exposure(quarter), func(r *Rollout) { r.ChangeEvery = every })
		if got := Of(r).Outpaced; got != want {
			t.Errorf("a change every %s outpaces the soaks: %t", every, got)
		}
		var b strings.Builder
		if err := Tell(&b, r, nil, 0); err != nil || strings.Contains(b.String(), "OUTPACED") != want {
			t.Errorf("%v\n%s", err, b.String())
		}
	}
}

// What a person reads: the days, the end, and by which setting a deadline would be met.
func TestTell(t *testing.T) {
	var b strings.Builder
	if err := Tell(&b, rollout(Uniform(noon, 30, 0), nil, nil), []string{"nothing"}, 10*day); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"2026-04-12 19:", "one node in soak at a time, 24 hours each", "10.0 days: CANNOT BE MET; it would be with growth 2, max 25%, a soak of 24 hours each: 5.1 days", "assumed:        nothing"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("it does not say %q:\n%s", want, b.String())
		}
	}
	b.Reset()
	if err := Tell(&b, rollout(Uniform(noon, 30, 0), exposure(quarter), nil), nil, 10*day); err != nil || !strings.Contains(b.String(), "10.0 days: met") {
		t.Errorf("%v\n%s", err, b.String())
	}
}

// How long a node takes is the middle of what the records show of a rollout.
func TestMeasured(t *testing.T) {
	var nodes []soak.Node
	for i, minutes := range []int{0, 14, 28, 45, 24 * 60, 24*60 + 14} {
		nodes = append(nodes, soak.Node{Name: string(rune('a' + i)), Announced: true, BootedAt: noon.Add(time.Duration(minutes) * time.Minute)})
	}
	nodes = append(nodes, soak.Node{Name: "z", BootedAt: noon.Add(5 * time.Minute)}) // it crashed
	if per, count := Measured(nodes, day); per != 14*time.Minute || count != 4 {
		t.Errorf("%s, of %d", per, count)
	}
	if per, count := Measured(nodes[:1], day); per != 0 || count != 0 {
		t.Errorf("of one boot: %s, of %d", per, count)
	}
}
