package turn

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestParseOperator(t *testing.T) {
	got := ParseOperator(leaseWith(map[string]string{
		HaltKey:                    "an incident",
		ReleaseKey:                 " 12 ",
		HoldPrefix + "db-1":        "a migration",
		HoldPrefix + "db-2":        "",
		OverridePrefix + "soak":    "2026-01-31T18:00:00Z CVE-2026-1 cannot wait",
		OverridePrefix + "forever": "always",
		OverridePrefix + "why":     "2026-01-31T18:00:00Z ",
		epochKey:                   "12",
		"example.com/owner":        "somebody",
	}))
	want := Operator{
		Halted: true, HaltReason: "an incident", Release: 12,
		Holds:     map[string]string{"db-1": "a migration", "db-2": "(no reason given)"},
		Overrides: map[string]Override{"soak": {time.Date(2026, 1, 31, 18, 0, 0, 0, time.UTC), "CVE-2026-1 cannot wait"}},
		Problems: []string{
			`override.sentinel-gate.io/forever is "always": want a time and a reason, such as "2026-01-31T18:00:00Z CVE-2026-1"`,
			`override.sentinel-gate.io/why is "2026-01-31T18:00:00Z ": want a time and a reason, such as "2026-01-31T18:00:00Z CVE-2026-1"`,
		},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if reason, held := got.Held("db-2"); !held || reason != "(no reason given)" {
		t.Error("a hold without a reason is a hold")
	}
	if _, held := got.Held("db-3"); held {
		t.Error("db-3 is not held")
	}
	end := got.Overrides["soak"].Until
	if len(got.Overridden(end.Add(-time.Second))) != 1 || len(got.Overridden(end)) != 0 {
		t.Error("an override ends at its time")
	}
}

func TestParseOperatorMalformed(t *testing.T) {
	for _, value := range []string{"", "all", "0", "-3", "1.5", "99999999999999999999"} {
		o := ParseOperator(leaseWith(map[string]string{ReleaseKey: value}))
		if o.Release != 0 || len(o.Problems) != 1 || !strings.HasSuffix(o.Problems[0], ": want the turn's epoch") {
			t.Errorf("release %q: %+v", value, o)
		}
	}
	if o := ParseOperator(leaseWith(map[string]string{HaltKey: ""})); !o.Halted || o.HaltReason != "(no reason given)" {
		t.Error("a halt without a reason halts")
	}
	for long, key := range map[string]string{
		strings.Repeat("n", 80):                 strings.Repeat("n", 63),
		strings.Repeat("n", 61) + ".-" + "zone": strings.Repeat("n", 61),
	} {
		if o := ParseOperator(leaseWith(map[string]string{HoldPrefix + key: ""})); len(o.Holds) != 1 {
			t.Error(o)
		} else if _, held := o.Held(long); !held {
			t.Errorf("%s is not held by its beginning", long)
		}
	}
}

func FuzzParseOperator(f *testing.F) {
	f.Add(HaltKey + "=stop\n" + ReleaseKey + "=12\n" + HoldPrefix + "a=why\n" + OverridePrefix + "soak=2026-01-31T18:00:00Z CVE")
	f.Add(ReleaseKey + "=-1\n" + OverridePrefix + "=\n" + HoldPrefix + "=")
	f.Fuzz(func(t *testing.T, lines string) {
		a := annotations(lines)
		o := ParseOperator(leaseWith(a))
		if _, halted := a[HaltKey]; halted != o.Halted {
			t.Error("a halt counts, whatever it says")
		}
		if o.Release < 0 {
			t.Errorf("release %d", o.Release)
		}
		for step, override := range o.Overrides {
			if override.Reason == "" || override.Until.IsZero() && !strings.HasPrefix(a[OverridePrefix+step], "0001-") {
				t.Errorf("%s: %+v", step, override)
			}
		}
	})
}
