package turn

import (
	"reflect"
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
)

var noon = time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)

func leaseWith(annotations map[string]string) *coordinationv1.Lease {
	lease := &coordinationv1.Lease{}
	lease.Namespace, lease.Name, lease.Annotations = "sentinel-gate", LeaseName, annotations
	return lease
}

func TestPutIsParsed(t *testing.T) {
	for name, s := range map[string]State{
		"free":      {Epoch: 1, Phase: PhaseFree, Since: noon},
		"handed on": {Epoch: 2, Phase: PhaseFree, Holder: "a", Since: noon, NotActedOn: 1},
		"granted":   {Epoch: 3, Phase: PhaseGranted, Holder: "a", BootID: "1", Since: noon, Next: []string{"a", "b"}, Waiting: 7},
		"open":      {Epoch: 4, Phase: PhaseOpen, Holder: "a", BootID: "1", Since: noon, Acknowledged: true, Withdrawn: true, NotActedOn: 2},
		"soaking":   {Epoch: 5, Phase: PhaseSoaking, Holder: "a", Since: noon, RebootedAt: noon.Add(-time.Hour)},
	} {
		t.Run(name, func(t *testing.T) {
			// Whatever another state left goes; what people wrote stays.
			lease := leaseWith(map[string]string{HaltKey: "stop", withdrawnKey: "true", nextKey: "x", rebootedKey: text(noon)})
			s.Put(lease)
			got, err := Parse(lease)
			if err != nil || !reflect.DeepEqual(got, s) {
				t.Errorf("got %+v, want %+v: %v", got, s, err)
			}
			if lease.Annotations[HaltKey] != "stop" {
				t.Error("the operator's annotation is gone")
			}
			if holds := lease.Spec.HolderIdentity != nil; holds != (s.Phase == PhaseGranted || s.Phase == PhaseOpen) {
				t.Errorf("holderIdentity: %t", holds)
			}
		})
	}
}

func TestParse(t *testing.T) {
	open := State{Epoch: 4, Phase: PhaseOpen, Holder: "a", BootID: "1", Since: noon}
	with := func(s State, changes ...string) map[string]string {
		lease := leaseWith(nil)
		s.Put(lease)
		for i := 0; i < len(changes); i += 2 {
			lease.Annotations[changes[i]] = changes[i+1]
		}
		return lease.Annotations
	}
	sealed := func(a map[string]string) map[string]string {
		a[sealKey] = seal(a)
		return a
	}
	for name, c := range map[string]struct {
		annotations map[string]string
		want        string // of the error
	}{
		"never written":                  {nil, ""},
		"made anew with an epoch":        {map[string]string{epochKey: "12"}, ""},
		"operator's keys alone":          {map[string]string{HaltKey: "stop", HoldPrefix + "a": ""}, ""},
		"written by a gate":              {with(open), ""},
		"and halted":                     {with(open, HaltKey, ""), ""},
		"F38 another holder, by hand":    {with(open, holderKey, "b"), "changed by hand"},
		"F38 another epoch, by hand":     {with(open, epochKey, "3"), "changed by hand"},
		"another phase, by hand":         {with(open, phaseKey, "free"), "changed by hand"},
		"the phase is removed":           {with(open, phaseKey, ""), "no phase, but other parts"},
		"an epoch that is none":          {map[string]string{epochKey: "many"}, `turn-epoch is "many", not a number`},
		"a negative epoch":               {map[string]string{epochKey: "-1"}, "not a number"},
		"a holder alone":                 {map[string]string{holderKey: "a"}, "no phase, but other parts"},
		"a time that is none":            {sealed(with(open, sinceKey, "noon")), `turn-since is "noon", not a time`},
		"another version":                {sealed(with(open, versionKey, "3")), `its version is "3", and this gate knows 1 and 2`},
		"no version":                     {sealed(with(open, versionKey, "")), `its version is ""`},
		"another phase, of a later gate": {sealed(with(open, phaseKey, "parked")), `its phase is "parked", which is none`},
		"open without a boot":            {sealed(with(open, bootKey, "")), "incomplete"},
		"granted to nobody":              {with(State{Epoch: 1, Phase: PhaseGranted, BootID: "1", Since: noon}), "incomplete"},
		"soaking since ever":             {with(State{Epoch: 1, Phase: PhaseSoaking, Since: noon}), "incomplete"},
		"free since ever":                {with(State{Epoch: 1, Phase: PhaseFree}), "incomplete"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse(leaseWith(c.annotations))
			switch {
			case c.want == "" && err != nil:
				t.Error(err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("got %v, want %q", err, c.want)
			case err != nil && !strings.HasPrefix(err.Error(), "the turn (Lease sentinel-gate/sentinel-gate-turn) cannot be read: "):
				t.Error(err)
			}
		})
	}
}

// annotations makes a Lease of lines with "=".
func annotations(lines string) map[string]string {
	a := map[string]string{}
	for line := range strings.Lines(lines) {
		if key, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "="); ok {
			a[key] = value
		}
	}
	return a
}

// FuzzParse: whatever is read is written as it was read, and nothing else has
// its seal.
func FuzzParse(f *testing.F) {
	for _, s := range []State{
		{Epoch: 1, Phase: PhaseFree, Since: noon},
		{Epoch: 4, Phase: PhaseOpen, Holder: "a", BootID: "1", Since: noon, Withdrawn: true, NotActedOn: 2, Next: []string{"a", "b"}, Waiting: 3},
		{Epoch: 5, Phase: PhaseSoaking, Holder: "a", Since: noon, RebootedAt: noon},
	} {
		lease, lines := leaseWith(nil), ""
		s.Put(lease)
		for key, value := range lease.Annotations {
			lines += key + "=" + value + "\n"
		}
		f.Add(lines, true)
		f.Add(lines, false)
	}
	f.Fuzz(func(t *testing.T, lines string, sealed bool) {
		lease := leaseWith(annotations(lines))
		if sealed {
			lease.Annotations[sealKey] = seal(lease.Annotations)
		}
		s, err := Parse(lease)
		if err != nil || s.Phase == PhaseUnwritten {
			return
		}
		again := leaseWith(nil)
		s.Put(again)
		got, err := Parse(again)
		if err != nil || text(got.Since) != text(s.Since) || got.Epoch != s.Epoch || got.Holder != s.Holder || got.Phase != s.Phase || got.BootID != s.BootID {
			t.Errorf("%+v was written as %+v: %v", s, got, err)
		}
	})
}
