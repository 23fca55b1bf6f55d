package wiring

import (
	"strings"
	"testing"
	"time"
)

func TestNewKured(t *testing.T) {
	for name, c := range map[string]struct {
		args                             string
		namespace, daemonSet, annotation string
		period                           time.Duration
	}{
		"defaults":              {"", "kube-system", "kured", "weave.works/kured-node-lock", time.Hour},
		"the chart's":           {"/usr/bin/kured --ds-namespace=ops --ds-name=reboots --lock-annotation=example.com/lock --period=1m", "ops", "reboots", "example.com/lock", time.Minute},
		"in words apart":        {"/usr/bin/kured --ds-name reboots --period 90s", "kube-system", "reboots", "weave.works/kured-node-lock", 90 * time.Second},
		"the last one counts":   {"/usr/bin/kured --period=1m --period=2m", "kube-system", "kured", "weave.works/kured-node-lock", 2 * time.Minute},
		"a period that is none": {"/usr/bin/kured --period=often", "kube-system", "kured", "weave.works/kured-node-lock", time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			k := newKured(strings.Fields(c.args))
			if k.Namespace != c.namespace || k.DaemonSet != c.daemonSet || k.LockAnnotation != c.annotation || k.Period != c.period {
				t.Errorf("%+v", k)
			}
		})
	}
}

func TestKuredActs(t *testing.T) {
	// 2026-01-31 is a Saturday.
	for name, c := range map[string]struct {
		args    string
		yes, no []string
	}{
		"always":              {"", []string{"2026-01-31T00:00:00Z", "2026-01-31T23:59:59Z"}, nil},
		"at night":            {"--start-time=22:00 --end-time=4am", []string{"2026-01-31T22:00:00Z", "2026-01-31T23:59:59Z", "2026-02-01T04:00:00Z"}, []string{"2026-01-31T21:59:59Z", "2026-02-01T04:00:01Z", "2026-01-31T12:00:00Z"}},
		"by day":              {"--start-time=9:30 --end-time=05:00PM", []string{"2026-01-31T09:30:00Z", "2026-01-31T17:00:00Z"}, []string{"2026-01-31T09:29:59Z", "2026-01-31T17:00:01Z"}},
		"from an hour alone":  {"--start-time=9", []string{"2026-01-31T09:00:00Z"}, []string{"2026-01-31T08:59:59Z"}},
		"in another zone":     {"--time-zone=America/New_York --start-time=9:00", []string{"2026-01-31T14:00:00Z"}, []string{"2026-01-31T13:59:59Z"}},
		"a zone that is none": {"--time-zone=Mars/Olympus --start-time=9:00", []string{"2026-01-31T09:00:00Z"}, []string{"2026-01-31T08:59:59Z"}},
		"on some days":        {"--reboot-days=sat,SUNDAY", []string{"2026-01-31T12:00:00Z", "2026-02-01T12:00:00Z"}, []string{"2026-02-02T12:00:00Z"}},
		"days given apart":    {"--reboot-days=mo --reboot-days=6", []string{"2026-01-31T12:00:00Z", "2026-02-02T12:00:00Z"}, []string{"2026-02-01T12:00:00Z"}},
		"the day of a zone":   {"--reboot-days=fri --time-zone=America/New_York", []string{"2026-01-31T04:59:59Z"}, []string{"2026-01-31T05:00:00Z"}},
		"a time that is none": {"--start-time=noon --end-time=25:00", []string{"2026-01-31T00:00:00Z", "2026-01-31T23:59:59Z"}, nil},
		"a day that is none":  {"--reboot-days=someday", []string{"2026-01-31T12:00:00Z"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			k := newKured(strings.Fields(c.args))
			for i, at := range append(c.yes, c.no...) {
				when, err := time.Parse(time.RFC3339, at)
				if err != nil {
					t.Fatal(err)
				}
				if want := i < len(c.yes); k.Acts(when) != want {
					t.Errorf("at %s: acts %t, want %t", at, !want, want)
				}
			}
		})
	}
}

// F51, F99, F100: what in kured's arguments can hold a rollout although every gate opens.
func TestF51F100Warnings(t *testing.T) {
	for args, want := range map[string][]string{
		"": nil,
		"--period=1m --start-time=1:00 --end-time=1:30":                 nil,
		"--start-time=01:00 --end-time=01:30":                           {"kured acts for 30m0s a day, but looks only every 1h0m0s"},
		"--start-time=23:50 --end-time=00:10":                           {"kured acts for 20m0s a day, but looks only every 1h0m0s"},
		"--prometheus-url=http://prometheus":                            {"kured has a --prometheus-url of its own"},
		"--blocking-pod-selector=app=db --blocking-pod-selector=app=mq": {"kured has a --blocking-pod-selector of its own"},
	} {
		k := newKured(strings.Fields(args))
		got := k.Warnings()
		if len(got) != len(want) {
			t.Errorf("%q: %q", args, got)
			continue
		}
		for i := range want {
			if !strings.HasPrefix(got[i], want[i]) {
				t.Errorf("%q: %q", args, got[i])
			}
		}
		if waits := strings.Contains(args, "url") || strings.Contains(args, "selector"); k.Waits() != waits {
			t.Errorf("%q: waits %t", args, k.Waits())
		}
	}
	if k := newKured([]string{"--concurrency=3"}); k.Concurrency != 3 {
		t.Errorf("concurrency %d", k.Concurrency)
	}
	if k := newKured(nil); k.Concurrency != 1 {
		t.Errorf("concurrency %d by default", k.Concurrency)
	}
}
