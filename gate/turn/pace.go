package turn

import (
	"math"
	"slices"
	"time"
)

const (
	// spread is over how long those who wait are spread when the turn frees.
	spread = 5 * time.Second
	// crowd is how many are taken to wait at least, beyond those that the turn names.
	crowd = 20
	// firstPause and lastPause lie between attempts to reach the API server.
	firstPause = time.Second
	lastPause  = 30 * time.Second
	// hourly is how often one of those who wait looks at what became of a node that soaks.
	hourly = time.Hour
	// seldom is when to look again where only an event can change anything.
	seldom = time.Hour
)

// lookPause spreads the looks at a holder over those who wait. Those few whom the
// turn names share them. The others look seldom, in case those few are gone: the
// turn does not tell how many have begun to wait since the holder was chosen.
func (c *core) lookPause() time.Duration {
	sharing := max(c.state.Waiting, crowd)
	if slices.Contains(c.state.Next, c.config.Node) {
		sharing = len(c.state.Next)
	}
	every := c.config.checkEvery()
	if c.state.Phase == PhaseSoaking && !c.state.Exposed { // nothing but a word depends on it
		every = max(every, hourly)
	}
	return time.Duration(float64(every) * float64(sharing) * (0.5 + c.random()))
}

// lookDue reports whether the time has come to look at the holder, and sets the next
// one. In each epoch it begins anew, spread as widely as it goes on: else all who
// wait would look at once when a soak has ended.
func (c *core) lookDue() bool {
	pause := c.lookPause()
	if c.lookOf != c.state.Epoch {
		c.lookOf, c.lookAt = c.state.Epoch, c.now.Add(time.Duration(c.random()*float64(pause)))
		return false
	}
	if c.now.Before(c.lookAt) {
		return false
	}
	c.lookAt = c.now.Add(pause)
	return true
}

// drawn reports whether this gate's moment has come to choose: those who wait
// draw one each, so that they do not all list the records at once. The draw is
// exponential, the steeper the more wait: the first is alone for long enough to be
// seen by the others, however many they are.
func (c *core) drawn() bool {
	if c.chooseOf != c.state.Epoch || c.chooseAt.IsZero() {
		steep := 1 + math.Log(float64(max(c.state.Waiting, crowd)))
		moment := math.Log1p(c.random()*math.Expm1(steep)) / steep
		c.chooseOf, c.chooseAt = c.state.Epoch, c.now.Add(time.Duration(moment*float64(min(spread, c.config.Interval))))
	}
	return !c.now.Before(c.chooseAt)
}

// wakeAt is when to act although nothing has happened; zero: never.
func (c *core) wakeAt() time.Time {
	switch {
	case !c.updated || c.busy || c.idle():
		return time.Time{}
	case c.now.Before(c.pausing):
		return c.pausing
	case c.problem != nil:
		return c.now.Add(seldom) // only an event can change that
	}
	at := c.now.Add(seldom)
	sooner := func(other time.Time) {
		if !other.IsZero() && other.Before(at) {
			at = other
		}
	}
	sooner(c.againAt)
	sooner(c.rereadAt)
	sooner(c.chooseAt)
	switch {
	case c.state.Phase == PhaseSoaking && c.lookOf == c.state.Epoch:
		sooner(c.lookAt)
	case c.state.Phase != PhaseOpen:
	case c.state.Holder != c.config.Node:
		sooner(c.lookAt)
	case c.gate.Open: // its time adds up
		sooner(c.now.Add(c.config.Interval))
	}
	return later(at, c.now.Add(50*time.Millisecond))
}
