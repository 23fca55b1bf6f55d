package turn

import (
	"time"

	"github.com/sentinel-gate/sentinel-gate/gate/wiring"
)

// patience adds up for how long kured has left this node's open gate alone, from when
// the node was granted the turn, and in kured's own time: a gate that is open at noon for
// a kured that acts at night is no fault, and nor is one whose kured is away.
type patience struct {
	of    tenure
	spent time.Duration
	at    time.Time // when it was counted last
	open  bool      // and whether the gate was open, and a kured there, then
	gone  time.Time // since when no kured runs; zero: one does, or that is not known
}

// tenure tells one node's turn from the next.
type tenure struct {
	holder     string
	notActedOn int
	withdrawn  bool
}

// count adds the time since it was called last.
func (p *patience) count(now time.Time, s State, g Gate) {
	if of := (tenure{s.Holder, s.NotActedOn, s.Withdrawn}); of != p.of || s.Phase == PhaseSoaking || s.Phase == PhaseFree {
		p.of, p.spent = of, 0
	} else if p.open && (g.Kured == nil || g.Kured.Acts(now)) {
		p.spent += now.Sub(p.at)
	}
	switch {
	case !g.NoKured:
		p.gone = time.Time{}
	case p.gone.IsZero():
		p.gone = now
	}
	// One that was never seen may run all the same, where its process cannot be seen.
	p.at, p.open = now, g.Open && (!g.NoKured || g.Kured == nil)
}

// over reports whether it is exhausted: after the timeout, and after three of kured's
// own looks at least. A kured that is not known counts always, and looks often.
func (p *patience) over(timeout time.Duration, kured *wiring.Kured) bool {
	if kured != nil {
		timeout = max(timeout, 3*kured.Period+time.Second)
	}
	return p.spent >= timeout
}

// goneFor is for how long no kured has run on this node.
func (p *patience) goneFor(now time.Time) time.Duration {
	if p.gone.IsZero() {
		return 0
	}
	return now.Sub(p.gone)
}
