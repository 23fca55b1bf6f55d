package checks

import (
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sentinel-gate/sentinel-gate/gate"
	"github.com/sentinel-gate/sentinel-gate/gate/cluster"
	"github.com/sentinel-gate/sentinel-gate/test/kit/controlplane"
)

func newScheduleOf(t testing.TB, options string) schedule {
	t.Helper()
	check, problems := New("schedule", []byte(options), nil)
	if err := errors.Join(problems...); err != nil {
		t.Fatal(err)
	}
	return check.(schedule)
}

func at(t testing.TB, text string) time.Time {
	t.Helper()
	parsed, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

const (
	// night is on working days, in Berlin.
	night  = `{"weekdays": ["monday:friday"], "times": [{"start_time": "01:00", "end_time": "05:00"}], "location": "Europe/Berlin"}`
	freeze = `{"months": ["december"], "days_of_month": ["20:-1"]}`
)

func TestScheduled(t *testing.T) {
	for _, c := range []struct {
		name, options, now string
		want               wanted
		retry              time.Duration
	}{
		// Saturday, March 14, 2026.
		{
			"outside", `{"allow": [` + night + `]}`, "2026-03-14T12:00:00Z",
			wanted{gate.Fail, "NotAllowed", "2026-03-14T12:00:00Z lies in no allowed interval; next open at 2026-03-16T00:00:00Z"}, 36 * time.Hour,
		},
		{"inside", `{"allow": [{"years": ["2020"]}, ` + night + `]}`, "2026-03-16T00:00:00Z", wanted{gate.Pass, "Allowed", "2026-03-16T00:00:00Z lies in allow[1] and in no denied interval"}, 0},
		{"in the last second", `{"allow": [` + night + `]}`, "2026-03-16T03:59:59Z", wanted{gate.Pass, "Allowed", ""}, 0},
		{"at its end", `{"allow": [` + night + `]}`, "2026-03-16T04:00:00Z", wanted{gate.Fail, "NotAllowed", ""}, 20 * time.Hour},
		{"a second before its begin", `{"allow": [` + night + `]}`, "2026-03-15T23:59:59Z", wanted{gate.Fail, "NotAllowed", ""}, time.Second},
		{
			"denied", `{"deny": [{"years": ["2020"]}, {"weekdays": ["saturday"]}]}`, "2026-03-14T12:00:30Z",
			wanted{gate.Fail, "Denied", "2026-03-14T12:00:30Z lies in deny[1]; next open at 2026-03-15T00:00:00Z"}, 12*time.Hour - 30*time.Second,
		},
		{"not denied", `{"deny": [` + freeze + `]}`, "2026-03-14T12:00:00Z", wanted{gate.Pass, "NotDenied", "2026-03-14T12:00:00Z lies in no denied interval"}, 0},
		{"denied within the allowed", `{"allow": [` + night + `], "deny": [{"weekdays": ["monday"]}]}`, "2026-03-16T02:00:00Z", wanted{gate.Fail, "Denied", ""}, 21*time.Hour + time.Hour},
		{
			"the end of what is denied is not allowed", `{"allow": [{"times": [{"start_time": "09:00", "end_time": "10:00"}]}], "deny": [{"weekdays": ["saturday"]}]}`, "2026-03-14T12:00:00Z",
			wanted{gate.Fail, "Denied", "2026-03-14T12:00:00Z lies in deny[0]; next open at 2026-03-15T09:00:00Z"}, 21 * time.Hour,
		},
		{
			"never again", `{"allow": [{"years": ["2020:2025"]}]}`, "2026-03-14T12:00:00Z",
			wanted{gate.Fail, "NotAllowed", "2026-03-14T12:00:00Z lies in no allowed interval; not open at any time in the next 8d"}, 8 * day,
		},
		{
			"a day that there is not", `{"allow": [{"months": ["february"], "days_of_month": ["30"]}]}`, "2026-02-27T00:00:00Z",
			wanted{gate.Fail, "NotAllowed", ""}, 8 * day,
		},
		{"just within the horizon", `{"allow": [{"days_of_month": ["9"]}]}`, "2026-03-01T00:00:00Z", wanted{gate.Fail, "NotAllowed", "2026-03-01T00:00:00Z lies in no allowed interval; next open at 2026-03-09T00:00:00Z"}, 8 * day},
		{"allowed and denied at once, always", `{"allow": [{"weekdays": ["monday"]}], "deny": [{"weekdays": ["monday"]}]}`, "2026-03-14T12:00:00Z", wanted{gate.Fail, "NotAllowed", ""}, 8 * day},
		{"until midnight", `{"allow": [{"times": [{"start_time": "22:00", "end_time": "24:00"}]}]}`, "2026-03-14T23:59:59Z", wanted{gate.Pass, "Allowed", ""}, 0},
		{"the last day of a month", `{"deny": [{"days_of_month": ["-1"]}]}`, "2026-02-28T12:00:00Z", wanted{gate.Fail, "Denied", ""}, 12 * time.Hour},
		{"a leap day", `{"deny": [{"days_of_month": ["-1"]}]}`, "2028-02-28T12:00:00Z", wanted{gate.Pass, "NotDenied", ""}, 0},

		// Clocks change in Berlin on March 29, from 2:00 to 3:00, and back on
		// October 25, from 3:00 to 2:00.
		{"an hour that there is not", `{"allow": [{"times": [{"start_time": "02:00", "end_time": "03:00"}], "location": "Europe/Berlin"}]}`, "2026-03-29T00:59:00Z", wanted{gate.Fail, "NotAllowed", "2026-03-29T00:59:00Z lies in no allowed interval; next open at 2026-03-30T00:00:00Z"}, 23*time.Hour + time.Minute},
		{"the minute after it", `{"allow": [{"times": [{"start_time": "03:00", "end_time": "04:00"}], "location": "Europe/Berlin"}]}`, "2026-03-29T00:59:00Z", wanted{gate.Fail, "NotAllowed", ""}, time.Minute},
		{"the hour that comes twice, first", `{"deny": [{"times": [{"start_time": "02:00", "end_time": "03:00"}], "location": "Europe/Berlin"}]}`, "2026-10-25T00:30:00Z", wanted{gate.Fail, "Denied", ""}, 90 * time.Minute},
		{"the hour that comes twice, again", `{"deny": [{"times": [{"start_time": "02:00", "end_time": "03:00"}], "location": "Europe/Berlin"}]}`, "2026-10-25T01:30:00Z", wanted{gate.Fail, "Denied", ""}, 30 * time.Minute},
		{"the night is an hour earlier in summer", `{"allow": [` + night + `]}`, "2026-03-29T23:00:00Z", wanted{gate.Pass, "Allowed", ""}, 0},
		// A month that lost an hour has all of its days.
		{"the last day of March", `{"deny": [{"days_of_month": ["-1"], "location": "Europe/Berlin"}]}`, "2026-03-31T12:00:00Z", wanted{gate.Fail, "Denied", ""}, 10 * time.Hour},
		{"March 30 is not the last day", `{"deny": [{"days_of_month": ["-1"], "location": "Europe/Berlin"}]}`, "2026-03-30T12:00:00Z", wanted{gate.Pass, "NotDenied", ""}, 0},
		{"the end of March", `{"deny": [{"days_of_month": ["25:31"], "location": "Europe/Berlin"}]}`, "2026-03-31T12:00:00Z", wanted{gate.Fail, "Denied", ""}, 10 * time.Hour},
		// A zone that is not whole hours off.
		{"in Kathmandu", `{"allow": [{"times": [{"start_time": "01:00", "end_time": "02:00"}], "location": "Asia/Kathmandu"}]}`, "2026-03-14T19:14:59Z", wanted{gate.Fail, "NotAllowed", ""}, time.Second},
		{"another day there", `{"deny": [{"weekdays": ["sunday"], "location": "Pacific/Auckland"}]}`, "2026-03-14T12:00:00Z", wanted{gate.Fail, "Denied", ""}, 23 * time.Hour},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := newScheduleOf(t, c.options).scheduled(at(t, c.now))
			c.want.compare(t, got)
			if got.RetryAfter != c.retry {
				t.Errorf("it announces %s, want %s", got.RetryAfter, c.retry)
			}
		})
	}
}

// Until the announced time it does not pass at any minute; then it does, or the
// search ended there.
func FuzzScheduled(f *testing.F) {
	for _, seed := range []string{
		`{"allow": [` + night + `]}`, `{"deny": [` + freeze + `]}`, `{"allow": [` + night + `], "deny": [` + freeze + `]}`,
		`{"allow": [{"years": ["2020"]}]}`, `{"deny": [{"days_of_month": ["-3:-1"], "location": "Australia/Lord_Howe"}]}`,
		`{"allow": [{"months": ["1:3", "december"], "times": [{"start_time": "00:00", "end_time": "24:00"}]}]}`,
	} {
		f.Add([]byte(seed), int64(1773489600))
		f.Add([]byte(seed), int64(1774746000)) // shortly before clocks change in Europe
	}
	f.Fuzz(func(t *testing.T, options []byte, unix int64) {
		// Before 1980 there were zones whose offset was no whole minute.
		if unix < 315532800 || unix > 4102444800 {
			return
		}
		check, problems := New("schedule", options, nil)
		if len(problems) > 0 {
			return
		}
		s, now := check.(schedule), time.Unix(unix, 0)
		got := s.scheduled(now)
		if (got.Verdict == gate.Pass) != s.open(now) || got.Verdict == gate.Unknown || got.Reason == "" {
			t.Fatalf("%+v", got)
		}
		if got.Verdict == gate.Pass {
			return
		}
		if got.RetryAfter <= 0 || got.RetryAfter > horizon {
			t.Fatalf("it announces %s", got.RetryAfter)
		}
		// Every second around the announced time, and a few before.
		then := now.Add(got.RetryAfter)
		for _, before := range []time.Duration{time.Second, 59 * time.Second, time.Minute, time.Hour, 25 * time.Hour, got.RetryAfter / 3, got.RetryAfter / 2} {
			if before <= got.RetryAfter && s.open(then.Add(-before)) {
				t.Errorf("%s before the announced time it is open", before)
			}
		}
		if got.RetryAfter < horizon && !s.open(then) {
			t.Errorf("at the announced time %s it is not open", then.UTC())
		}
	})
}

func TestScheduleOptions(t *testing.T) {
	const allOfTime = ": is all of time: give times, weekdays, days_of_month, months or years"
	for _, c := range []struct{ name, options, want string }{
		{"right", `{"allow": [` + night + `], "deny": [` + freeze + `]}`, ``},
		{"numbers", `{"deny": [{"years": [2026], "days_of_month": [1, "-1"], "months": [12]}]}`, ``},
		{"neither", `{}`, `options: want an interval in allow, in deny, or in both`},
		{"both empty", `{"allow": [], "deny": []}`, `options: want an interval in allow, in deny, or in both`},
		{"all of time", `{"allow": [{}], "deny": [{"location": "UTC"}]}`, "options.allow[0]" + allOfTime + "\noptions.deny[0]" + allOfTime},
		{
			"no time at all", `{"deny": [{"times": [], "weekdays": [], "days_of_month": [], "months": [], "years": []}]}`,
			`options.deny[0].times: an empty list contains no time at all: leave it out
options.deny[0].weekdays: an empty list contains no time at all: leave it out
options.deny[0].days_of_month: an empty list contains no time at all: leave it out
options.deny[0].months: an empty list contains no time at all: leave it out
options.deny[0].years: an empty list contains no time at all: leave it out`,
		},
		{"months that there are not", `{"deny": [{"months": ["0:3", "december", "13"]}]}`, "options.deny[0].months[0]: want months from 1 to 12, or by name\noptions.deny[0].months[2]: want months from 1 to 12, or by name"},
		{"the node's own zone", `{"deny": [{"years": ["2026"], "location": "Local"}]}`, `options.deny[0].location: Local may differ from node to node: name one, such as Europe/Berlin`},
		{
			"what the library finds",
			`{"allow": [{"times": [{"start_time": "5:00", "end_time": "06:00"}, {"start_time": "05:00"}, {"start_time": "06:00", "end_time": "05:00"}], "weekdays": ["caturday", "friday:monday"]}],
			  "deny": [{"days_of_month": ["32", "0", "5:1"], "months": ["smarch", "3:1"], "years": ["2030:2026", "soon"], "location": "Europe/Atlantis"}]}`,
			`options.allow[0].times[0]: couldn't parse timestamp 5:00, invalid format
options.allow[0].times[1]: both start and end times must be provided
options.allow[0].times[2]: start time cannot be equal or greater than end time
options.allow[0].weekdays[0]: caturday is not a valid weekday
options.allow[0].weekdays[1]: start day cannot be before end day
options.deny[0].days_of_month[0]: 32 is not a valid day of the month: out of range
options.deny[0].days_of_month[1]: 0 is not a valid day of the month: out of range
options.deny[0].days_of_month[2]: end day 1 is always before start day 5
options.deny[0].location: unknown time zone Europe/Atlantis
options.deny[0].months[0]: smarch is not a valid month
options.deny[0].months[1]: end month january is before start month march
options.deny[0].years[0]: end year 2026 is before start year 2030
options.deny[0].years[1]: strconv.Atoi: parsing "soon": invalid syntax
options.deny[0].months[0]: want months from 1 to 12, or by name`,
		},
		{
			"unknown fields", `{"allow": [{"time": [], "times": [{"start_time": "05:00", "end_time": "06:00", "tz": "UTC"}]}], "denied": []}`,
			`options.allow[0]: unknown field "time": want one of days_of_month, location, months, times, weekdays, years
options.allow[0].times[0]: unknown field "tz": want one of end_time, start_time
options: unknown field "denied": want one of allow, deny`,
		},
		{"wrong types", `{"allow": {"years": ["2026"]}, "deny": ["december", {"years": "2026"}]}`, `options.allow: must be a list, not {"years": ["2026"]}
options.deny[0]: must be a mapping, not "december"
options.deny[1].years: must be a list, not "2026"
options.deny[0]` + allOfTime + `
options.deny[1]` + allOfTime},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, problems := New("schedule", []byte(c.options), nil)
			got := ""
			if err := errors.Join(problems...); err != nil {
				got = err.Error()
			}
			if got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
		})
	}
}

func TestScheduleVerify(t *testing.T) {
	always := `{"times": [{"start_time": "00:00", "end_time": "24:00"}]}`
	for _, c := range []struct {
		name, options string
		vacuous       bool
		want          string
	}{
		{
			"both", `{"allow": [` + night + `], "deny": [` + freeze + `]}`, false,
			`at 2026-12-20T00:00:00Z, inside deny[0]: Denied
at 2026-03-16T04:00:00Z, outside of every allowed interval: NotAllowed`,
		},
		{"always open", `{"allow": [` + always + `]}`, true, `never outside of every allowed interval, in the coming 366d: Allowed`},
		{"a freeze that is over", `{"deny": [{"years": ["2025"]}]}`, true, `never inside deny[0], in the coming 366d: NotDenied`},
		{
			"one of two", `{"allow": [` + always + `], "deny": [{"years": ["2025"]}, {"days_of_month": ["17"]}]}`, false,
			`never inside deny[0], in the coming 366d: Allowed
at 2026-03-17T00:00:00Z, inside deny[1]: Denied
never outside of every allowed interval, in the coming 366d: Allowed`,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := newScheduleOf(t, c.options).verify(at(t, "2026-03-16T01:00:00Z"))
			var lines []string
			for _, m := range v.Mutations {
				lines = append(lines, m.Change+": "+m.Result.Reason)
			}
			if got := strings.Join(lines, "\n"); got != c.want || v.Vacuous() != c.vacuous || v.Result.Verdict != gate.Pass {
				t.Errorf("vacuous %t, %s; got\n%s\nwant\n%s", v.Vacuous(), v.Result.Reason, got, c.want)
			}
		})
	}
}

// The time is that of a real API server.
func TestF32ScheduleAsksTheAPIServer(t *testing.T) {
	cp := shared.Get(t)
	reading, err := cluster.New(cp.Config(), "sentinel-gate", "")
	if err != nil {
		t.Fatal(err)
	}
	now, err := reading.Now(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if off := time.Since(now); off < -time.Second || off > 5*time.Second {
		t.Errorf("it is %s off", off)
	}
	year := strconv.Itoa(now.Year())
	for options, want := range map[string]string{
		`{"allow": [{"years": [` + year + `]}]}`: "Allowed",
		`{"deny": [{"years": [` + year + `]}]}`:  "Denied",
		`{"allow": [{"years": ["2020"]}]}`:       "NotAllowed",
	} {
		check, problems := New("schedule", []byte(options), reading)
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		if got, err := check.Check(t.Context()); err != nil || got.Reason != want {
			t.Errorf("%s: got %+v, %v", options, got, err)
		}
		if v, err := verify(t.Context(), check); err != nil || v.Result.Reason != want {
			t.Errorf("%s: got %+v, %v", options, v, err)
		}
	}

	t.Run("asked with no more than any ServiceAccount may", func(t *testing.T) {
		kubeconfig := cp.Config()
		kubeconfig.Impersonate.UserName = "system:serviceaccount:default:nobody"
		kubeconfig.Impersonate.Groups = []string{"system:serviceaccounts", "system:authenticated"}
		nobody, err := cluster.New(kubeconfig, "sentinel-gate", "")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := nobody.Now(t.Context()); err != nil {
			t.Error(err)
		}
		if _, err := nobody.Nodes(t.Context()); err == nil {
			t.Error("it may list nodes")
		}
	})
	t.Run("TestF01Refused", func(t *testing.T) {
		port, err := controlplane.FreePort()
		if err != nil {
			t.Fatal(err)
		}
		away := cp.Config()
		away.Host = "https://127.0.0.1:" + strconv.Itoa(port)
		gone, err := cluster.New(away, "sentinel-gate", "")
		if err != nil {
			t.Fatal(err)
		}
		check, _ := New("schedule", []byte(`{"deny": [`+freeze+`]}`), gone)
		if _, err := check.Check(t.Context()); err == nil || !strings.HasPrefix(err.Error(), "reading the API server's time: ") {
			t.Errorf("got %v", err)
		}
	})
}

// The search is short beside a step's timeout, for twenty intervals too.
func BenchmarkScheduleSearch(b *testing.B) {
	s := newScheduleOf(b, `{"allow": [`+strings.Repeat(`{"times": [{"start_time": "01:00", "end_time": "05:00"}], "years": ["2020"], "location": "Europe/Berlin"},`, 19)+`{"years": ["2020"]}]}`)
	for b.Loop() {
		s.scheduled(now)
	}
}
