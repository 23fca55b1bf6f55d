package clock

import (
	"cmp"
	"fmt"
	"sync"
	"time"
)

const (
	// Tolerance is how far apart the clocks of several API servers may be, and how far
	// one may be set at once.
	Tolerance = 2 * time.Minute
	// persists is Witness.Persists where that is 0.
	persists = 24 * time.Hour
	// weakly is for how long answers must agree with each other before they are believed
	// against what was remembered, which may be somebody's slip of the hand.
	weakly = 15 * time.Minute
	// drift is the part of the time in between by which clocks may go apart.
	drift = 0.001
	// renewed is how old the witness of earlier answers is before a later one stands for it.
	renewed = time.Hour
)

// Witness is what earlier answers said of the time, carried on by this machine's
// monotonic clock. One server of several whose clock is wrong for a while is told from
// the others by it. The zero value has seen nothing. It may be used by several goroutines.
type Witness struct {
	// Disagreed, which may be nil, is called for each answer that is not believed.
	Disagreed func()
	// Persists is for how long answers must agree with each other before they are
	// believed against all earlier ones: then a clock was mended, or every one is wrong.
	// As long as a soak, and no soak that runs can end early by it. It is a day where it
	// is 0.
	Persists time.Duration

	mu     sync.Mutex
	anchor mark
	weak   bool // the anchor was remembered
	doubt  mark // of answers that disagree with the anchor; zero: the last did not
}

// mark is what an answer said, and when it came by the monotonic clock.
type mark struct{ date, at time.Time }

// off is by how much the date is ahead of what the mark says of that moment.
func (m mark) off(date, at time.Time) time.Duration { return date.Sub(m.date) - at.Sub(m.at) }

func (m mark) agrees(date, at time.Time) bool {
	return m.off(date, at).Abs() <= Tolerance+time.Duration(drift*float64(at.Sub(m.at)))
}

// Believe returns an error if the date of an answer that came at that moment does not fit
// what earlier ones said. Set: it is believed although it does not, for they have agreed
// for long enough.
func (w *Witness) Believe(date, at time.Time) (set bool, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.anchor.at.IsZero():
		w.anchor = mark{date, at}
	case w.anchor.agrees(date, at):
		if w.doubt = (mark{}); w.weak || at.Sub(w.anchor.at) >= renewed {
			w.anchor, w.weak = mark{date, at}, false
		}
	case w.doubt.at.IsZero() || !w.doubt.agrees(date, at):
		w.doubt = mark{date, at}
		return false, w.disagree(date, at)
	case at.Sub(w.doubt.at) < w.persists():
		return false, w.disagree(date, at)
	default:
		w.anchor, w.doubt, w.weak = mark{date, at}, mark{}, false
		return true, nil
	}
	return false, nil
}

// persists is for how long the answers must agree against the anchor.
func (w *Witness) persists() time.Duration {
	long := cmp.Or(w.Persists, persists)
	if w.weak {
		return min(weakly, long)
	}
	return long
}

func (w *Witness) disagree(date, at time.Time) error {
	if w.Disagreed != nil {
		w.Disagreed()
	}
	off, way := w.anchor.off(date, at), "ahead of"
	if off < 0 {
		way = "behind"
	}
	return fmt.Errorf("the answer's date %s is %s %s what earlier answers said, by this machine's own clock: one of several API servers has a wrong clock, or a clock was set; it is asked again, and believed when all answers of %s agree",
		date.UTC().Format(time.RFC3339), off.Abs().Round(time.Second), way, w.persists())
}

// Remember tells what the time is now by something that was known before the first
// answer. It is believed before that, for a while.
func (w *Witness) Remember(date, at time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.anchor.at.IsZero() && !w.anchor.agrees(date, at) {
		w.doubt = w.anchor
	}
	w.anchor, w.weak = mark{date, at}, true
}
