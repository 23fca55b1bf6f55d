package record

import (
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sentinel-gate/sentinel-gate/gate/soak"
)

func lease(annotations map[string]string) *coordinationv1.Lease {
	return &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: "sentinel-gate", Name: "n1", Annotations: annotations}}
}

func TestParse(t *testing.T) {
	good := map[string]string{
		bootID: "b2", bootedAt: "2026-03-14T12:00:00Z", previousBootID: "b1", pendingSince: "2026-03-14T15:00:00+02:00",
		state: "Closed", blocking: "cni,soak", configHash: "abc", "other": "ignored",
	}
	want := Record{
		Node: "n1", BootID: "b2", BootedAt: time.Date(2026, 3, 14, 12, 0, 0, 0, time.UTC), PreviousBootID: "b1",
		PendingSince: time.Date(2026, 3, 14, 13, 0, 0, 0, time.UTC), State: "Closed", Blocking: []string{"cni", "soak"}, ConfigHash: "abc",
	}
	got, err := Parse(lease(good))
	if err != nil || !got.equal(want) {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, c := range []struct{ name, key, value, want string }{
		{"no boot id", bootID, "", "record sentinel-gate/n1 has no sentinel-gate.io/boot-id"},
		{"no boot", bootedAt, "", `record sentinel-gate/n1: sentinel-gate.io/booted-at: parsing time "" as "2006-01-02T15:04:05Z07:00": cannot parse "" as "2006"`},
		{"not a time", bootedAt, "yesterday", `record sentinel-gate/n1: sentinel-gate.io/booted-at: parsing time "yesterday" as "2006-01-02T15:04:05Z07:00": cannot parse "yesterday" as "2006"`},
		{"a time without a zone", bootedAt, "2026-03-14T12:00:00", `record sentinel-gate/n1: sentinel-gate.io/booted-at: parsing time "2026-03-14T12:00:00" as "2006-01-02T15:04:05Z07:00": cannot parse "" as "Z07:00"`},
		{"not a time to be pending since", pendingSince, "1", `record sentinel-gate/n1: sentinel-gate.io/pending-since: parsing time "1" as "2006-01-02T15:04:05Z07:00": cannot parse "1" as "2006"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			bad := maps.Clone(good)
			bad[c.key] = c.value
			if r, err := Parse(lease(bad)); err == nil || err.Error() != c.want {
				t.Errorf("got %+v and\n%v\nwant\n%s", r, err, c.want)
			}
		})
	}
	if _, err := Parse(lease(nil)); err == nil {
		t.Error("a Lease without annotations is a record")
	}
}

// What is written leaves alone what others wrote beside it, and takes away what
// no longer holds.
func TestPut(t *testing.T) {
	l := lease(map[string]string{"other": "kept", pendingSince: "2026-03-14T12:00:00Z", blocking: "cni", previousBootID: "b0"})
	l.Labels = map[string]string{"theirs": "kept"}
	now := time.Date(2026, 3, 14, 12, 0, 0, 0, time.UTC)
	Record{Node: "n1", BootID: "b1", BootedAt: now, State: "Idle", ConfigHash: "abc"}.put(l, now)
	want := map[string]string{"other": "kept", bootID: "b1", bootedAt: "2026-03-14T12:00:00Z", state: "Idle", configHash: "abc"}
	if !maps.Equal(l.Annotations, want) {
		t.Errorf("annotations %v, want %v", l.Annotations, want)
	}
	if l.Labels["theirs"] != "kept" || l.Labels[Label] != "true" {
		t.Errorf("labels %v", l.Labels)
	}
	if l.Spec.HolderIdentity == nil || *l.Spec.HolderIdentity != "n1" || !l.Spec.RenewTime.Time.Equal(now) {
		t.Errorf("spec %+v", l.Spec)
	}
}

// Equal records need not be written again, so what tells two apart must be
// everything that is in them, but for the epoch, which rides along.
func TestEqualSeesEveryField(t *testing.T) {
	base := Record{Node: "n", BootID: "b", BootedAt: time.Unix(1, 0), PreviousBootID: "p", PendingSince: time.Unix(2, 0), State: "Closed", Blocking: []string{"x"}, ConfigHash: "h",
		Opened: true, Announced: true, Soaked: true, Parts: []soak.Part{"a"}, PartsAgainst: []soak.Part{"b"}, PartsPending: []soak.Part{"c"},
	}
	if !base.equal(base) {
		t.Error("a record differs from itself")
	}
	for i := range reflect.TypeFor[Record]().NumField() {
		other := base
		f := reflect.ValueOf(&other).Elem().Field(i)
		f.SetZero()
		if reflect.TypeFor[Record]().Field(i).Name == "TurnEpoch" {
			continue
		}
		if base.equal(other) || other.equal(base) {
			t.Errorf("two records differ in %s, and count as equal", reflect.TypeFor[Record]().Field(i).Name)
		}
	}
}

// Whatever is in the annotations, a record is either believed or reported, and
// one that is believed is the same when it is written and read again.
func FuzzParseRecord(f *testing.F) {
	f.Add("b1", "2026-03-14T12:00:00Z", "", "", "Idle", "", "")
	f.Add("b2", "2026-03-14T12:00:00.5+01:00", "b1", "2026-03-14T12:00:00Z", "Closed", "cni,soak", "abc")
	f.Add("", "", "b1", "yesterday", "Open", ",,", "\x00")
	f.Add("b", "0001-01-01T00:00:00Z", "b", "0000-01-01T00:00:00+01:00", "?", ",", "h")
	f.Fuzz(func(t *testing.T, boot, booted, previous, pending, stateName, blockers, hash string) {
		l := lease(map[string]string{
			bootID: boot, bootedAt: booted, previousBootID: previous, pendingSince: pending, state: stateName, blocking: blockers, configHash: hash,
		})
		r, err := Parse(l)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "record sentinel-gate/n1") {
				t.Errorf("%v does not name the record", err)
			}
			return
		}
		if r.BootID == "" || r.BootID != boot || r.Node != "n1" {
			t.Errorf("%+v is believed", r)
		}
		for _, at := range []time.Time{r.BootedAt, r.PendingSince} {
			if year := at.UTC().Year(); !at.IsZero() && (year < 1970 || year > 9000) {
				return // RFC 3339 cannot write all that it can read
			}
		}
		if r.BootedAt.IsZero() {
			return
		}
		// A record is written to the second.
		r.BootedAt, r.PendingSince = r.BootedAt.Truncate(time.Second), r.PendingSince.Truncate(time.Second)
		again := lease(nil)
		r.put(again, time.Now())
		back, err := Parse(again)
		if err != nil || !back.equal(r) {
			t.Errorf("%+v came back as %+v, %v", r, back, err)
		}
	})
}

func writeProc(t testing.TB, proc, id, uptime string) {
	t.Helper()
	dir := filepath.Join(proc, "sys/kernel/random")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string]string{filepath.Join(dir, "boot_id"): id, filepath.Join(proc, "uptime"): uptime} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestReadBoot(t *testing.T) {
	const id = "0f1e2d3c-0000-4000-8000-00000000000a"
	for _, c := range []struct {
		name, id, uptime string
		wantID, idError  string
		want             time.Duration
		uptimeError      string
	}{
		{"as the kernel writes it", id + "\n", "180000.57 355000.11\n", id, "", 180000*time.Second + 570*time.Millisecond, ""},
		{"just booted", id, "0.00 0.00\n", id, "", 0, ""},
		{"one number", id, "5\n", id, "", 5 * time.Second, ""},
		{"empty", "", "", "", `reading the boot id: PROC/sys/kernel/random/boot_id holds "", which is none`, 0, `reading the uptime: PROC/uptime holds ""`},
		{
			"another file", "boot-of-n1\n", "up 3 days\n",
			"", `reading the boot id: PROC/sys/kernel/random/boot_id holds "boot-of-n1", which is none`, 0, `reading the uptime: PROC/uptime holds "up 3 days\n"`,
		},
		{
			"upper case, and before the boot", strings.ToUpper(id), "-1.00 0.00\n",
			"", `reading the boot id: PROC/sys/kernel/random/boot_id holds "0F1E2D3C-0000-4000-8000-00000000000A", which is none`,
			0, `reading the uptime: PROC/uptime holds "-1.00 0.00\n"`,
		},
		{
			"long", strings.Repeat("x", 1000), strings.Repeat("9", 1000),
			"", `reading the boot id: PROC/sys/kernel/random/boot_id holds "` + strings.Repeat("x", 60) + `", which is none`,
			0, `reading the uptime: PROC/uptime holds "` + strings.Repeat("9", 60) + `"`,
		},
		{"not a number", id, "NaN 0.00\n", id, "", 0, `reading the uptime: PROC/uptime holds "NaN 0.00\n"`},
		{"three centuries, more than a Duration holds", id, "9999999999.00 0.00\n", id, "", 0, `reading the uptime: PROC/uptime holds "9999999999.00 0.00\n"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			proc := t.TempDir()
			writeProc(t, proc, c.id, c.uptime)
			gotID, err := ReadBootID(proc)
			compareError(t, proc, err, c.idError)
			if gotID != c.wantID {
				t.Errorf("boot id %q, want %q", gotID, c.wantID)
			}
			got, err := ReadUptime(proc)
			compareError(t, proc, err, c.uptimeError)
			if got != c.want {
				t.Errorf("uptime %s, want %s", got, c.want)
			}
		})
	}
	t.Run("nothing there", func(t *testing.T) {
		proc := t.TempDir()
		_, err := ReadBootID(proc)
		compareError(t, proc, err, "reading the boot id: open PROC/sys/kernel/random/boot_id: no such file or directory")
		_, err = ReadUptime(proc)
		compareError(t, proc, err, "reading the uptime: open PROC/uptime: no such file or directory")
		if w, err := NewWriter(nil, "n1", "hash", proc, nil); err == nil {
			t.Errorf("a writer that does not know its boot: %+v", w)
		}
		writeProc(t, proc, id, "?")
		w, err := NewWriter(nil, "n1", "hash", proc, nil)
		compareError(t, proc, err, `reading the uptime: PROC/uptime holds "?"`)
		if w != nil {
			t.Errorf("a writer that does not know its uptime: %+v", w)
		}
	})
}

func compareError(t *testing.T, proc string, err error, want string) {
	t.Helper()
	got := ""
	if err != nil {
		got = strings.ReplaceAll(err.Error(), proc, "PROC")
	}
	if got != want {
		t.Errorf("error\n got %s\nwant %s", got, want)
	}
}
