package wiring

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Kured is how a kured was started, as far as the turn must know: where its lock
// is, how often it looks, and in which window it acts. Defaults are those of
// kured 1.23.
type Kured struct {
	Namespace, DaemonSet, LockAnnotation string
	Period                               time.Duration
	// LockReleaseDelay is how long it keeps its lock after the uncordon.
	LockReleaseDelay time.Duration
	// Concurrency is how many nodes may have its lock.
	Concurrency int
	// PrometheusURL and BlockingPodSelectors are what it waits for by itself.
	PrometheusURL        string
	BlockingPodSelectors []string
	days                 []time.Weekday
	start, end           time.Duration // of the day
	zone                 *time.Location
}

// Defaults returns a kured without arguments.
func Defaults() Kured { return *newKured(nil) }

// Started returns a kured with these arguments.
func Started(args ...string) Kured { return *newKured(args) }

func newKured(args []string) *Kured {
	k := &Kured{
		Namespace:      cmp.Or(flag(args, "ds-namespace"), "kube-system"),
		DaemonSet:      cmp.Or(flag(args, "ds-name"), "kured"),
		LockAnnotation: cmp.Or(flag(args, "lock-annotation"), "weave.works/kured-node-lock"),
		Period:         time.Hour, zone: time.UTC, end: 24*time.Hour - time.Nanosecond,
		Concurrency: 1, PrometheusURL: flag(args, "prometheus-url"), BlockingPodSelectors: flags(args, "blocking-pod-selector"),
	}
	if n, err := strconv.Atoi(flag(args, "concurrency")); err == nil && n > 0 {
		k.Concurrency = n
	}
	if period, err := time.ParseDuration(flag(args, "period")); err == nil {
		k.Period = period
	}
	if delay, err := time.ParseDuration(flag(args, "lock-release-delay")); err == nil && delay > 0 {
		k.LockReleaseDelay = delay
	}
	if zone := flag(args, "time-zone"); zone != "" {
		if loaded, err := time.LoadLocation(zone); err == nil {
			k.zone = loaded
		}
	}
	if start, ok := timeOfDay(flag(args, "start-time")); ok {
		k.start = start
	}
	if end, ok := timeOfDay(flag(args, "end-time")); ok {
		k.end = end
	}
	for _, list := range flags(args, "reboot-days") {
		for day := range strings.SplitSeq(list, ",") {
			if d, ok := weekday(day); ok {
				k.days = append(k.days, d)
			}
		}
	}
	return k
}

// Acts reports whether kured acts at that time: on one of its days, by their
// names, and between start and end, which may be over midnight.
func (k *Kured) Acts(at time.Time) bool {
	at = at.In(k.zone)
	if len(k.days) > 0 && !slices.Contains(k.days, at.Weekday()) {
		return false
	}
	now := time.Duration(at.Hour())*time.Hour + time.Duration(at.Minute())*time.Minute + time.Duration(at.Second())*time.Second
	if k.start <= k.end {
		return k.start <= now && now <= k.end
	}
	return now >= k.start || now <= k.end
}

// Waits reports whether it was told to wait for things of its own, so that an open gate
// on which it does not act is nobody's fault.
func (k *Kured) Waits() bool { return k.PrometheusURL != "" || len(k.BlockingPodSelectors) > 0 }

// ActsNext is when it acts next: at that time, or when its window opens; zero: it never does.
func (k *Kured) ActsNext(at time.Time) time.Time {
	for end := at.Add(8 * 24 * time.Hour); at.Before(end); at = at.Truncate(time.Minute).Add(time.Minute) {
		if k.Acts(at) {
			return at
		}
	}
	return time.Time{}
}

// window is how long it acts on each of its days.
func (k *Kured) window() time.Duration {
	if k.start <= k.end {
		return k.end - k.start
	}
	return 24*time.Hour - k.start + k.end
}

// Warnings are what in its arguments can hold a rollout although every gate opens, a
// sentence each.
func (k *Kured) Warnings() []string {
	var warnings []string
	if w := k.window(); w < k.Period {
		warnings = append(warnings, fmt.Sprintf("kured acts for %s a day, but looks only every %s (--period): it may never look at an open gate; set --period to less than half of its window, such as %s", w.Round(time.Second), k.Period, min(w/3, 5*time.Minute).Round(time.Second)))
	}
	if k.PrometheusURL != "" {
		warnings = append(warnings, "kured has a --prometheus-url of its own: it waits while an alert fires there, RecentNodeReboot and the gate's own alerts too, and nobody counts that as a fault; leave alerts to the gate")
	}
	if len(k.BlockingPodSelectors) > 0 {
		warnings = append(warnings, "kured has a --blocking-pod-selector of its own: it waits while such a pod runs on its node, and nobody counts that as a fault")
	}
	return warnings
}

// timeOfDay reads the forms that kured takes.
func timeOfDay(text string) (time.Duration, bool) {
	for _, layout := range []string{"15:04", "15:04:05", "03:04pm", "3:04pm", "15", "03pm", "3pm"} {
		if t, err := time.Parse(layout, strings.ToLower(text)); err == nil {
			return time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute + time.Duration(t.Second())*time.Second, true
		}
	}
	return 0, false
}

// weekday reads a day by its number, or by the beginning of its name.
func weekday(text string) (time.Weekday, bool) {
	text = strings.ToLower(strings.TrimSpace(text))
	for d := time.Sunday; d <= time.Saturday; d++ {
		if text == string('0'+rune(d)) || len(text) >= 2 && strings.HasPrefix(strings.ToLower(d.String()), text) {
			return d, true
		}
	}
	return 0, false
}
