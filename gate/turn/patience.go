package turn

import (
	"time"

	"github.com/sentinel-gate/sentinel-gate/gate/wiring"
)

// patience adds up for how long kured has left this node's open gate alone, in one
// turn and in kured's own time: a gate that is open at noon for a kured that acts
// at night is no fault.
type patience struct {
	of    opening
	spent time.Duration
	at    time.Time // when it was counted last
	open  bool      // and whether the gate was open then
}

// opening tells one opening of the turn from the next.
type opening struct {
	holder     string
	rebootedAt time.Time
	notActedOn int
}

// count adds the time since it was called last.
func (p *patience) count(now time.Time, s State, g Gate) {
	of := opening{s.Holder, s.RebootedAt, s.NotActedOn}
	if of != p.of || s.Phase != PhaseOpen {
		p.of, p.spent = of, 0
	} else if p.open && (g.Kured == nil || g.Kured.Acts(now)) {
		p.spent += now.Sub(p.at)
	}
	p.at, p.open = now, g.Open
}

// over reports whether it is exhausted: after the timeout, and after three of kured's
// own looks at least. A kured that is not known counts always, and looks often.
func (p *patience) over(timeout time.Duration, kured *wiring.Kured) bool {
	if kured != nil {
		timeout = max(timeout, 3*kured.Period+time.Second)
	}
	return p.spent >= timeout
}
