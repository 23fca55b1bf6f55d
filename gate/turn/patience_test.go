package turn

import (
	"testing"
	"time"

	"github.com/sentinel-gate/sentinel-gate/gate/wiring"
)

// F47: time in which kured is away does not count, and it is as patient as before.
func TestF47KuredIsAway(t *testing.T) {
	kured := wiring.Defaults()
	state := State{Phase: PhaseOpen, Holder: "a"}
	var p patience
	now := noon
	open := func(d time.Duration, noKured bool) {
		for end := now.Add(d); now.Before(end); now = now.Add(time.Minute) {
			p.count(now, state, Gate{Open: true, Kured: &kured, NoKured: noKured})
		}
	}
	open(45*time.Minute, false)
	open(5*time.Hour, true)
	if p.over(30*time.Minute, &kured) {
		t.Error("45 minutes count, and kured looks every hour")
	}
	if gone := p.goneFor(now); gone < 5*time.Hour-time.Minute {
		t.Errorf("gone for %s", gone)
	}
	open(2*time.Hour+20*time.Minute, false)
	if !p.over(30*time.Minute, &kured) {
		t.Error("three of kured's hours are over")
	}
}

// F51: a window of half an hour every night, in which a kured that looks once an hour may
// never look. Its openings add up, over nights.
func TestF51OpeningsAddUp(t *testing.T) {
	kured := wiring.Defaults()
	state := State{Phase: PhaseGranted, Holder: "a"}
	var p patience
	nights := 0
	for ; nights < 60 && !p.over(30*time.Minute, &kured); nights++ {
		for m := range 24 * 60 {
			state.Phase = PhaseGranted
			open := m < 30
			if m < 45 { // to settle
				state.Phase = PhaseOpen
			}
			p.count(noon.Add(time.Duration(nights*24*60+m)*time.Minute), state, Gate{Open: open, Kured: &kured})
		}
	}
	if nights < 6 || nights > 8 {
		t.Errorf("it is over after %d nights of half an hour, and three hours are wanted", nights)
	}
	p.count(noon.Add(61*24*time.Hour), State{Phase: PhaseGranted, Holder: "b"}, Gate{})
	if p.spent != 0 {
		t.Errorf("another node has the turn, and %s are spent", p.spent)
	}
}
