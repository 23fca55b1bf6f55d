package checks

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
	_ "time/tzdata" // the image has no time zones, and an interval may name one

	"github.com/prometheus/alertmanager/timeinterval"
	"github.com/prometheus/common/model"

	"github.com/sentinel-gate/sentinel-gate/gate"
	"github.com/sentinel-gate/sentinel-gate/gate/cluster"
)

// ScheduleOptions are the options of schedule.
type ScheduleOptions struct {
	// Allow are the intervals of which one must contain now; empty: all of time.
	Allow []Interval `json:"allow"`
	// Deny are intervals of which none may contain now.
	Deny []Interval `json:"deny"`
}

func scheduleDefaults() ScheduleOptions { return ScheduleOptions{} }

// Interval is an interval of time in Alertmanager's syntax. A field that is
// left out allows everything.
type Interval struct {
	Times       []TimeRange                    `json:"times"`
	Weekdays    []timeinterval.WeekdayRange    `json:"weekdays"`
	DaysOfMonth []timeinterval.DayOfMonthRange `json:"days_of_month"`
	Months      []timeinterval.MonthRange      `json:"months"`
	Years       []timeinterval.YearRange       `json:"years"`
	// Location is a time zone by its IANA name; UTC where there is none.
	Location timeinterval.Location `json:"location"`
}

// TimeRange is Alertmanager's, which by itself ignores unknown fields.
type TimeRange struct{ timeinterval.TimeRange }

// UnmarshalJSON decodes start_time and end_time, and nothing else.
func (r *TimeRange) UnmarshalJSON(data []byte) error {
	var fields struct {
		Start string `json:"start_time"`
		End   string `json:"end_time"`
	}
	if problems := Decode("", data, &fields); len(problems) > 0 {
		return problems[0]
	}
	return r.TimeRange.UnmarshalJSON(data)
}

// period is an interval as Alertmanager's library has it, without its location.
type period struct {
	timeinterval.TimeInterval
	location *time.Location
}

func (i Interval) period() period {
	p := period{timeinterval.TimeInterval{Weekdays: i.Weekdays, DaysOfMonth: i.DaysOfMonth, Months: i.Months, Years: i.Years}, time.UTC}
	for _, r := range i.Times {
		p.Times = append(p.Times, r.TimeRange)
	}
	if i.Location.Location != nil {
		p.location = i.Location.Location
	}
	return p
}

// contains asks the library for what a clock on the wall shows there, as if
// that were UTC: up to 0.34.2 it counts the days of a month by its hours, and
// finds 30 of them in a March that has lost one
// (https://github.com/prometheus/alertmanager/pull/5447).
func (p period) contains(t time.Time) bool {
	t = t.In(p.location)
	return p.ContainsTime(time.Date(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), 0, time.UTC))
}

// problems are what Alertmanager's library takes, and what can never have been
// meant: a list without elements contains no time, and an interval without
// fields all of it.
func (i Interval) problems(path string) (problems []error) {
	wrong := func(format string, args ...any) {
		problems = append(problems, fmt.Errorf(path+format, args...))
	}
	given := 0
	for _, field := range []struct {
		name  string
		given bool
		size  int
	}{
		{"times", i.Times != nil, len(i.Times)},
		{"weekdays", i.Weekdays != nil, len(i.Weekdays)},
		{"days_of_month", i.DaysOfMonth != nil, len(i.DaysOfMonth)},
		{"months", i.Months != nil, len(i.Months)},
		{"years", i.Years != nil, len(i.Years)},
	} {
		if field.given {
			given++
			if field.size == 0 {
				wrong(".%s: an empty list contains no time at all: leave it out", field.name)
			}
		}
	}
	if given == 0 {
		wrong(": is all of time: give times, weekdays, days_of_month, months or years")
	}
	for k, m := range i.Months {
		if m.Begin < 1 || m.End > 12 {
			wrong(".months[%d]: want months from 1 to 12, or by name", k)
		}
	}
	if i.Location.Location == time.Local && i.Location.Location != nil {
		wrong(".location: Local may differ from node to node: name one, such as Europe/Berlin")
	}
	return problems
}

// horizon is how far ahead the next allowed time is looked for.
const horizon = 8 * 24 * time.Hour

type schedule struct {
	cluster     *cluster.Cluster
	allow, deny []period
}

var _ Verifier = schedule{}

func newSchedule(o ScheduleOptions, c *cluster.Cluster) (gate.Check, []error) {
	s := schedule{cluster: c}
	var problems []error
	for i, interval := range o.Allow {
		problems = append(problems, interval.problems(fmt.Sprintf("options.allow[%d]", i))...)
		s.allow = append(s.allow, interval.period())
	}
	for i, interval := range o.Deny {
		problems = append(problems, interval.problems(fmt.Sprintf("options.deny[%d]", i))...)
		s.deny = append(s.deny, interval.period())
	}
	if len(o.Allow)+len(o.Deny) == 0 {
		problems = append(problems, errors.New("options: want an interval in allow, in deny, or in both"))
	}
	return s, problems
}

// Check reads the API server's time: from /version, which is open to everybody
// who has a token (system:public-info-viewer), and so needs no rules.
func (s schedule) Check(ctx context.Context) (gate.Result, error) {
	now, err := s.cluster.Now(ctx)
	if err != nil {
		return gate.Result{}, err
	}
	return s.scheduled(now), nil
}

// verifyAhead is how far ahead Verify looks for a time that should fail.
const verifyAhead = 366 * 24 * time.Hour

// Verify moves the time: into each denied interval, and out of all that are
// allowed.
func (s schedule) Verify(ctx context.Context) (Verification, error) {
	now, err := s.cluster.Now(ctx)
	if err != nil {
		return Verification{}, err
	}
	return s.verify(now), nil
}

func (s schedule) verify(now time.Time) Verification {
	v := Verification{
		Looked: fmt.Sprintf("%s, which %s may allow and %d may deny", stamp(now), gate.Count(len(s.allow), "interval"), len(s.deny)),
		Result: s.scheduled(now),
	}
	move := func(where string, inside func(time.Time) bool) {
		t, found := search(now, verifyAhead, inside)
		if !found {
			v.Mutations = append(v.Mutations, Mutation{"never " + where + ", in the coming " + model.Duration(verifyAhead).String(), v.Result})
			return
		}
		v.Mutations = append(v.Mutations, Mutation{"at " + stamp(t) + ", " + where, s.scheduled(t)})
	}
	for i, d := range s.deny {
		move(fmt.Sprintf("inside deny[%d]", i), d.contains)
	}
	if len(s.allow) > 0 {
		move("outside of every allowed interval", func(t time.Time) bool { return contains(s.allow, t) < 0 })
	}
	return v
}

// scheduled is the pure part.
func (s schedule) scheduled(now time.Time) gate.Result {
	now = now.UTC()
	allowed, denied := contains(s.allow, now), contains(s.deny, now)
	switch {
	case denied >= 0:
		return s.until(gate.Failed("Denied", "%s lies in deny[%d]", stamp(now), denied), now)
	case len(s.allow) > 0 && allowed < 0:
		return s.until(gate.Failed("NotAllowed", "%s lies in no allowed interval", stamp(now)), now)
	case allowed >= 0:
		return gate.Passed("Allowed", "%s lies in allow[%d] and in no denied interval", stamp(now), allowed)
	}
	return gate.Passed("NotDenied", "%s lies in no denied interval", stamp(now))
}

// until adds when the verdict can change: at the next time that passes, or
// where none is near, not within the horizon.
func (s schedule) until(r gate.Result, now time.Time) gate.Result {
	t, found := search(now, horizon, s.open)
	if found {
		r.Message += "; next open at " + stamp(t)
	} else {
		r.Message += "; not open at any time in the next " + model.Duration(horizon).String()
	}
	r.RetryAfter = t.Sub(now)
	return r
}

func (s schedule) open(t time.Time) bool {
	return contains(s.deny, t) < 0 && (len(s.allow) == 0 || contains(s.allow, t) >= 0)
}

// contains returns the index of an interval that contains the time, or -1.
func contains(intervals []period, t time.Time) int {
	return slices.IndexFunc(intervals, func(p period) bool { return p.contains(t) })
}

// search returns the first whole minute after now that is wanted, or the end of
// the search. Intervals begin and end with a minute of their own time zone;
// zones differ from UTC by whole minutes, also where one changes its clocks.
func search(now time.Time, ahead time.Duration, wanted func(time.Time) bool) (t time.Time, found bool) {
	now = now.UTC()
	end := now.Add(ahead)
	for t = now.Truncate(time.Minute).Add(time.Minute); !t.After(end); t = t.Add(time.Minute) {
		if wanted(t) {
			return t, true
		}
	}
	return end, false
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
