package tether

import (
	"errors"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

func resolves(t *testing.T, path string) bool {
	t.Helper()
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false
	}
	if err != nil {
		t.Fatal(err)
	}
	if !info.Mode().IsRegular() {
		t.Fatalf("%s resolves as %s, not as a regular file", path, info.Mode())
	}
	return true
}

func eventuallyGone(t *testing.T, path string, within time.Duration) {
	t.Helper()
	for end := time.Now().Add(within); resolves(t, path); {
		if time.Now().After(end) {
			t.Fatalf("%s still resolves after %s", path, within)
		}
	}
}

func TestTetherResolvesUntilCut(t *testing.T) {
	tether, err := Start(Now() + time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if !resolves(t, tether.Target()) {
		t.Fatalf("%s does not resolve", tether.Target())
	}
	tether.Cut()
	eventuallyGone(t, tether.Target(), time.Second)
	tether.Cut()
	if err := tether.Extend(Now() + time.Hour); err == nil {
		t.Fatal("a cut tether was extended")
	}
}

func TestTetherEndsAtItsDeadline(t *testing.T) {
	first := Now() + 2*time.Second // to burn threads takes a while on a busy machine
	tether, err := Start(first)
	if err != nil {
		t.Fatal(err)
	}
	defer tether.Cut()
	deadline := first + 500*time.Millisecond
	if err := tether.Extend(deadline); err != nil {
		t.Fatal(err)
	}
	var last time.Duration
	for resolves(t, tether.Target()) {
		if last = Now(); last > deadline+time.Second {
			t.Fatal("resolves a second after its deadline")
		}
	}
	if last < deadline-50*time.Millisecond {
		t.Fatalf("ended %s before its extended deadline", deadline-last)
	}
	if err := tether.Extend(Now() + time.Hour); err == nil {
		t.Fatal("a tether was revived after its deadline")
	}
	if resolves(t, tether.Target()) {
		t.Fatal("resolves again")
	}
}

func TestTetherRefusesAPastDeadline(t *testing.T) {
	if _, err := Start(Now()); err == nil {
		t.Fatal("started with a deadline that has passed")
	}
}

// The ids of a tether must not be those that another process with the same
// pid would have: right behind the pid, or side by side (F40).
func TestF40ThreadsStandFarApart(t *testing.T) {
	for range 20 {
		tether, err := Start(Now() + time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		tether.Cut()
		parts := strings.Split(tether.Target(), "/")
		var ids []int
		for _, i := range []int{2, 4, 6} {
			id, err := strconv.Atoi(parts[i])
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, id)
		}
		for i := range ids {
			for j := range i {
				if d := max(ids[i]-ids[j], ids[j]-ids[i]); d < distance {
					t.Errorf("%s: ids %d and %d are only %d apart", tether.Target(), ids[i], ids[j], d)
				}
			}
		}
	}
}

func TestTethersDoNotLeakThreads(t *testing.T) {
	count := func() int {
		entries, err := os.ReadDir("/proc/self/task")
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	before := count()
	for range 20 {
		tether, err := Start(Now() + time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		tether.Cut()
	}
	if after := count(); after > before+20 {
		t.Fatalf("%d threads before, %d after 20 tethers", before, after)
	}
}

func TestTimerArmsAndDisarms(t *testing.T) {
	timer, err := NewTimer()
	if err != nil {
		t.Fatal(err)
	}
	if err := timer.Arm(Now() + time.Hour); err != nil {
		t.Fatal(err)
	}
	if err := timer.Disarm(); err != nil {
		t.Fatal(err)
	}
}
