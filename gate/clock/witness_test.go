package clock

import (
	"strings"
	"testing"
	"time"
)

// F65: a date is believed within bounds of what earlier answers said. One server of
// several that is wrong for a while changes nothing; a clock that is wrong for good, or
// was mended, is believed once all answers agree on it for long.
func TestF65Witness(t *testing.T) {
	start := time.Date(2026, 3, 14, 12, 0, 0, 0, time.UTC)
	type answer struct {
		after   time.Duration // since the first
		ahead   time.Duration // of the first one's clock
		believe bool
	}
	for name, answers := range map[string][]answer{
		"all agree":                     {{0, 0, true}, {time.Hour, 30 * time.Second, true}, {48 * time.Hour, -30 * time.Second, true}},
		"one is ahead for five minutes": {{0, 0, true}, {10 * time.Minute, 8 * time.Hour, false}, {15 * time.Minute, 8 * time.Hour, false}, {16 * time.Minute, 0, true}},
		"one says 2036":                 {{0, 0, true}, {time.Minute, 10 * 365 * 24 * time.Hour, false}, {2 * time.Minute, 0, true}},
		"one is behind":                 {{0, 0, true}, {time.Minute, -8 * time.Hour, false}},
		"they take turns for an hour":   {{0, 0, true}, {time.Minute, time.Hour, false}, {20 * time.Minute, 0, true}, {21 * time.Minute, time.Hour, false}, {40 * time.Minute, 0, true}, {60 * time.Minute, time.Hour, false}},
		"all were set":                  {{0, 0, true}, {time.Minute, time.Hour, false}, {10 * time.Minute, time.Hour, false}, {17 * time.Minute, time.Hour, true}, {18 * time.Minute, time.Hour, true}, {19 * time.Minute, 0, false}},
		"they never agree":              {{0, 0, true}, {time.Minute, time.Hour, false}, {10 * time.Minute, 2 * time.Hour, false}, {20 * time.Minute, 3 * time.Hour, false}, {40 * time.Minute, 4 * time.Hour, false}},
		"a clock drifts in a day":       {{0, 0, true}, {24 * time.Hour, 3 * time.Minute, true}},
	} {
		t.Run(name, func(t *testing.T) {
			closed := 0
			w := &Witness{Persists: 15 * time.Minute, Disagreed: func() { closed++ }}
			doubted := 0
			for _, a := range answers {
				_, err := w.Believe(start.Add(a.after+a.ahead), start.Add(a.after))
				if (err == nil) != a.believe {
					t.Errorf("after %s, %s ahead: %v", a.after, a.ahead, err)
				}
				if err != nil {
					doubted++
				}
			}
			if closed != doubted {
				t.Errorf("told of %d disagreements, and there were %d", closed, doubted)
			}
		})
	}
}

// F65: a process that has just started is told by what was recorded at boot.
func TestF65WitnessRemembers(t *testing.T) {
	start := time.Date(2026, 3, 14, 12, 0, 0, 0, time.UTC)
	w := &Witness{}
	if _, err := w.Believe(start.Add(8*time.Hour), start); err != nil {
		t.Errorf("the first answer: %v", err)
	}
	w.Remember(start, start)
	_, err := w.Believe(start.Add(8*time.Hour+time.Second), start.Add(time.Second))
	if err == nil || !strings.Contains(err.Error(), "is 8h0m0s ahead of what earlier answers said") {
		t.Errorf("got %v", err)
	}
	if _, err := w.Believe(start.Add(time.Minute), start.Add(time.Minute)); err != nil {
		t.Errorf("and one that is right: %v", err)
	}
}

// What was remembered may be a slip of somebody's hand: answers that agree outvote it
// sooner than they do each other, and say so.
func TestWitnessForgets(t *testing.T) {
	start := time.Date(2026, 3, 14, 12, 0, 0, 0, time.UTC)
	for _, remembered := range []bool{true, false} {
		w := &Witness{}
		if remembered {
			w.Remember(start.Add(100*365*24*time.Hour), start)
		} else if _, err := w.Believe(start.Add(8*time.Hour), start); err != nil {
			t.Fatal(err)
		}
		var believed time.Duration
		for after := time.Minute; after < 48*time.Hour && believed == 0; after += time.Minute {
			if set, err := w.Believe(start.Add(after), start.Add(after)); err == nil {
				if believed = after; !set {
					t.Errorf("remembered %t: it does not say that the time was set", remembered)
				}
			}
		}
		want := persists + time.Minute
		if remembered {
			want = weakly + time.Minute
		}
		if believed != want {
			t.Errorf("remembered %t: believed after %s, want %s", remembered, believed, want)
		}
	}
}
