package record

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/sentinel-gate/sentinel-gate/gate/soak"
)

// machine runs a kernel and has packages, by their versions.
func machine(kernel string, installed ...soak.Part) func() soak.Machine {
	m := soak.Machine{Kernel: soak.NewPart("kernel", kernel), Build: soak.NewPart("kernel-build", kernel), Installed: map[soak.Part]bool{}}
	for _, p := range installed {
		m.Installed[p] = true
	}
	m.Kernels, m.Running = []soak.Part{soak.NewPart("linux", "1"), soak.NewPart("linux", "2")}, []soak.Part{soak.NewPart("linux", kernel)}
	return func() soak.Machine { return m }
}

// What a record tells of parts, from one boot to the next: nothing is known of the first; of one with the turn what was
// named before it and is installed after it; and one without, in the soak, is evidence against that.
func TestPartsFromBootToBoot(t *testing.T) {
	n := newNode(t)
	linux1, linux2, libc := soak.NewPart("linux", "1"), soak.NewPart("linux", "2"), soak.NewPart("libc", "1")
	begin := func(s Soaking) *writer {
		t.Helper()
		o := n.start()
		o.TellParts(s)
		return o
	}
	first := begin(Soaking{Soak: 24 * time.Hour, Machine: machine("1", linux1, libc), Ready: quiet})
	first.set("Idle", nil, time.Time{})
	if r := n.record(); soak.PutParts(r.Parts) != soak.PutParts([]soak.Part{soak.Unknown, soak.NewPart("kernel", "1"), soak.NewPart("kernel-build", "1")}) || r.Announced || r.PartsPending != nil {
		t.Errorf("of the first boot: %+v", r)
	}
	first.SetOpened(true)
	first.Set("Open", nil, time.Now(), []soak.Part{linux2, libc})
	n.poll("what is pending", func() bool { r := n.record(); return r.Opened && len(r.PartsPending) == 2 })
	first.stop()

	// A gate that starts again in the same boot keeps what it does not know yet.
	again := begin(Soaking{Soak: 24 * time.Hour, Machine: machine("1", linux1, libc), Ready: quiet})
	again.Set("Closed", nil, time.Now(), []soak.Part{linux2, libc})
	n.poll("the record", again.Written)
	if r := n.record(); !r.Opened || len(r.Parts) != 3 {
		t.Errorf("after a restart of the gate: %+v", r)
	}
	again.stop()

	writeProc(t, n.proc, nextBoot, "60.00 0.00\n")
	second := begin(Soaking{Soak: 24 * time.Hour, Machine: machine("2", linux1, linux2, libc), Ready: never})
	second.set("Idle", nil, time.Time{})
	second.stop()
	want := soak.PutParts([]soak.Part{linux2, libc, soak.NewPart("kernel", "2"), soak.NewPart("kernel-build", "2")})
	if r := n.record(); soak.PutParts(r.Parts) != want || !r.Announced || r.Opened || len(r.PartsAgainst) > 0 {
		t.Errorf("after a boot with the turn: %+v\nwant the parts %s", r, want)
	}

	writeProc(t, n.proc, "0f1e2d3c-0000-4000-8000-0000000000ff", "30.00 0.00\n")
	third := begin(Soaking{Soak: 24 * time.Hour, Machine: machine("2", linux1, linux2, libc), Ready: never})
	third.set("Idle", nil, time.Time{})
	third.stop()
	if r := n.record(); soak.PutParts(r.Parts) != want || soak.PutParts(r.PartsAgainst) != want || r.Announced || r.Soaked {
		t.Errorf("F95: after a crash in its soak: %+v", r)
	}
}

// quiet is what is seen of a node that has been Ready since before its first boot.
func quiet(context.Context) (string, bool, time.Time, error) {
	return firstBoot, true, time.Now().Add(-1000 * time.Hour), nil
}

func never(context.Context) (string, bool, time.Time, error) {
	return "", false, time.Time{}, fmt.Errorf("its soak is not over")
}

// When the soak of a boot is over, and only then, the node is looked at once, and the record says whether it was quiet.
func TestSoakIsJudgedOnce(t *testing.T) {
	for name, c := range map[string]struct {
		since  func(booted time.Time) time.Time
		ready  bool
		soaked bool
	}{
		"quiet":                 {func(booted time.Time) time.Time { return booted.Add(-time.Hour) }, true, true},
		"F95 not quiet":         {func(booted time.Time) time.Time { return booted.Add(time.Minute) }, true, false},
		"F95 it is not Ready":   {func(booted time.Time) time.Time { return booted }, false, false},
		"a flap while it boots": {func(booted time.Time) time.Time { return booted.Add(20 * time.Second) }, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			writeProc(t, n.proc, firstBoot, "117.00 0.00\n") // the soak of two minutes is over in some seconds
			booted := time.Now().Add(-117 * time.Second)
			var mu sync.Mutex
			var looks []time.Time
			o := n.start()
			o.TellParts(Soaking{Soak: 2 * time.Minute, Machine: machine("1"), Ready: func(context.Context) (string, bool, time.Time, error) {
				mu.Lock()
				defer mu.Unlock()
				looks = append(looks, time.Now())
				return firstBoot, c.ready, c.since(booted), nil
			}})
			o.set("Idle", nil, time.Time{})
			if r := n.record(); r.Soaked || len(r.PartsAgainst) > 0 {
				t.Errorf("the soak is not over: %+v", r)
			}
			n.poll("a verdict", func() bool { r := n.record(); return r.Soaked == c.soaked && (len(r.PartsAgainst) > 0) != c.soaked })
			o.LookAgain()
			o.Set("Closed", nil, time.Now(), nil)
			n.poll("another write", func() bool { return n.record().State == "Closed" })
			mu.Lock()
			defer mu.Unlock()
			if len(looks) != 1 || looks[0].Before(booted.Add(2*time.Minute)) {
				t.Errorf("booted at %s, looked at %v", booted, looks)
			}
		})
	}
}
