package wiring

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// Kured is how a kured was started, as far as the turn must know: where its lock
// is, how often it looks, and in which window it acts. Defaults are those of
// kured 1.23.
type Kured struct {
	Namespace, DaemonSet, LockAnnotation string
	Period                               time.Duration
	days                                 []time.Weekday
	start, end                           time.Duration // of the day
	zone                                 *time.Location
}

// Defaults returns a kured without arguments.
func Defaults() Kured { return *newKured(nil) }

func newKured(args []string) *Kured {
	k := &Kured{
		Namespace:      cmp.Or(flag(args, "ds-namespace"), "kube-system"),
		DaemonSet:      cmp.Or(flag(args, "ds-name"), "kured"),
		LockAnnotation: cmp.Or(flag(args, "lock-annotation"), "weave.works/kured-node-lock"),
		Period:         time.Hour, zone: time.UTC, end: 24*time.Hour - time.Nanosecond,
	}
	if period, err := time.ParseDuration(flag(args, "period")); err == nil {
		k.Period = period
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
