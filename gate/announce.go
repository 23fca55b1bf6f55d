package gate

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/sentinel-gate/sentinel-gate/gate/wiring"
)

const (
	// reminder is how often a gate with nothing new to say repeats itself while a
	// reboot is pending.
	reminder = time.Hour
	// maxShouts is how many lines about tampering there are in one breather.
	maxShouts = 10
)

// announcer says what the gate is: every status is reported, and those that say
// something new are logged. Nothing is decided by it.
type announcer struct {
	report func(Status)
	log    *slog.Logger

	status   Status // the last
	logged   string // what the last log line said
	remindAt time.Time
	shouting time.Time // when the first of the shouts was
	shouts   int
}

// announce reports the status, and logs it where something changed.
func (a *announcer) announce(s Status) {
	a.status = s
	a.report(s)
	if says := s.says(); says != a.logged {
		a.logged = says
		a.remindAt = time.Now().Add(reminder)
		s.log(a.log, slog.LevelInfo)
	}
}

// remind logs the last status again, where that is due.
func (a *announcer) remind(now time.Time) {
	waits := a.status.Raw.Pending || a.status.Raw.Problem != nil
	if waits && !a.remindAt.IsZero() && !now.Before(a.remindAt) {
		a.logged = ""
		a.announce(a.status)
	}
}

// shout tells of tampering, but not without end.
func (a *announcer) shout(now time.Time, err error, count int) {
	if now.Sub(a.shouting) >= breather {
		a.shouting, a.shouts = now, 0
	}
	if a.shouts++; a.shouts <= maxShouts {
		a.log.Error("somebody tampered with the gated sentinel; the gate is closed", "error", err, "count", count)
	}
}

// announceWiring logs what the kured on this node looks at now.
func (a *announcer) announceWiring(f wiring.Finding) {
	level := slog.LevelWarn
	switch {
	case f.Reason == wiring.Wired:
		level = slog.LevelInfo
	case f.Bypassed():
		level = slog.LevelError
	}
	a.log.Log(context.Background(), level, f.Message, "wiring", string(f.Reason))
	if f.Kured != nil {
		for _, warning := range f.Kured.Warnings() {
			a.log.Warn(warning, "wiring", string(f.Reason))
		}
	}
}

// says is what makes a log line a new one.
func (s Status) says() string {
	says := s.State.String() + " " + s.Decision.Asks().String()
	for _, o := range s.Decision.where(func(o Outcome) bool { return !o.passed() }) {
		says += fmt.Sprintf(" %s=%s,%t,%s", o.Name, o.Reason, o.Soft, o.Override)
	}
	if s.Raw.Pending && s.TurnOn {
		says += " " + s.Turn.String()
		if v := s.Turn; v.Problem != nil || v.Move.Loud {
			says += " " + v.Why()
		}
	}
	if s.Raw.Problem != nil {
		says += " " + s.Raw.Problem.Error()
	}
	return says
}

func closedBy(d Decision) string {
	blocking := d.Blocking()
	if len(blocking) == 0 {
		return "closed: there is no step that could hold the reboot back" + softly(d)
	}
	return fmt.Sprintf("closed: blocked by %d of %s: %s", len(blocking), Count(len(d.Outcomes), "step"), blocking.Reasons()) + softly(d)
}

// softly names the steps that do not pass and hold nothing back, if there are any.
func softly(d Decision) string {
	text := ""
	if soft := d.Soft(); len(soft) > 0 {
		text += "; soft, not counted: " + soft.Reasons()
	}
	for _, o := range d.Overridden() {
		text += fmt.Sprintf("; OVERRIDDEN: %s (%s), because: %s", o.Name, o.Reason, o.Override)
	}
	return text
}
