// Package forecast tells how a rollout will go. It runs the turn's own protocol and the
// rule of gate/soak over a simulated cluster in virtual time: what it says of days is what
// the gates do, and what it assumes it names.
//
// rollout.go is one run, forecast.go what many of them say together.
package forecast

import (
	"cmp"
	"slices"
	"time"
)

// Forecast is what a number of runs say.
type Forecast struct {
	// Runs is how many there were, and Unfinished how many of them did not end within the
	// horizon: some nodes never had their turn.
	Runs, Unfinished int
	// LastBoot and LastSoak are how long until the last node has booted, and until its soak
	// is over.
	LastBoot, LastSoak Spread
	// Delay is how long until a node runs a change that begins during the rollout.
	Delay Spread
	// Changes is how many different sets of parts are waited for.
	Changes int
	// Outpaced: the next change comes before every node runs the last one.
	Outpaced bool
	// Days are those of the run in the middle.
	Days []Day
}

// Spread is the middle, and what nine of ten runs keep; zero: they did not end.
type Spread struct{ P50, P90 time.Duration }

// Day is how the rollout stands at the end of a day.
type Day struct {
	At time.Time
	// Rebooted is how many have booted, InSoak how many are in soak, Soaked how many have
	// soaked what they wanted. Limit is how many may be in soak.
	Rebooted, InSoak, Limit, Soaked int
}

// Of runs the rollout, as often as it takes to know its spread: once where nothing is left
// to chance.
func Of(r Rollout) Forecast {
	runs := 1
	if r.FlapsPerYear > 0 {
		runs = max(5, min(41, 9000/max(1, len(r.Nodes))))
	}
	f := Forecast{Runs: runs, Changes: r.changes()}
	var courses []course
	for i := range runs {
		courses = append(courses, r.run(uint64(i)+1))
	}
	slices.SortStableFunc(courses, func(a, b course) int { return cmp.Compare(a.lastBoot, b.lastBoot) })
	var boots, soaks, delays []time.Duration
	for _, c := range courses {
		if !c.done {
			f.Unfinished++
		}
		f.Outpaced = f.Outpaced || c.outpaced
		boots, soaks, delays = append(boots, c.lastBoot), append(soaks, c.lastSoak), append(delays, c.delays...)
	}
	slices.Sort(soaks)
	slices.Sort(delays)
	f.LastBoot, f.LastSoak, f.Delay = spread(boots), spread(soaks), spread(delays)
	f.Days = courses[len(courses)/2].days
	return f
}

// never is how long what does not end takes.
const never = time.Duration(1<<63 - 1)

func spread(sorted []time.Duration) Spread {
	at := func(q float64) time.Duration {
		if len(sorted) == 0 {
			return 0
		}
		d := sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
		if d == never {
			return 0
		}
		return d
	}
	return Spread{at(.5), at(.9)}
}
