package faults

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/sentinel-gate/sentinel-gate/test/kit/cluster"
	"github.com/sentinel-gate/sentinel-gate/test/kit/daemon"
	"github.com/sentinel-gate/sentinel-gate/test/kit/suite"
)

// fails awaits a daemon that refuses to run, and returns what it said.
func (s *scene) fails(d *daemon.Daemon, status int) string {
	s.t.Helper()
	state, err := d.Wait(suite.Context(s.t, deadline))
	s.must(err)
	if state.ExitCode() != status {
		s.t.Errorf("exit status %s, not %d\n%s", state, status, d.Log())
	}
	return d.Log()
}

// gone awaits a gated sentinel that does not resolve, and returns how long it
// took.
func (s *scene) gone(since time.Time, within time.Duration) {
	s.t.Helper()
	for s.host.Resolves() {
		if time.Since(since) > within {
			s.t.Fatalf("the gated sentinel still resolves after %s", within)
		}
	}
}

// F08: the gate may not write where it must.
func TestF08NoRightToWrite(t *testing.T) {
	t.Run("another user's directory", func(t *testing.T) {
		s := newScene(t)
		s.must(s.host.RequireReboot())
		const nobody = 60001
		user := func(o *daemon.Options) { o.User = nobody }
		if os.Getuid() != 0 {
			s.must(os.Chmod(filepath.Dir(s.host.Gated), 0o555))
			user = func(*daemon.Options) {}
		}
		config, err := clientcmd.LoadFromFile(s.kubeconfig)
		s.must(err)
		s.must(clientcmdapi.FlattenConfig(config))
		readable := filepath.Join(s.host.Dir, "kubeconfig")
		s.must(clientcmd.WriteToFile(*config, readable))
		s.must(os.Chmod(readable, 0o644))
		said := s.fails(s.start(user, func(o *daemon.Options) { o.Kubeconfig = readable }), 1)
		for _, naming := range []string{filepath.Dir(s.host.Gated), "permission denied", "mode 0", "uid "} {
			if !strings.Contains(said, naming) {
				t.Errorf("it does not name %q: %s", naming, said)
			}
		}
	})
	t.Run("read-only mount", func(t *testing.T) {
		s := newScene(t)
		s.must(s.host.RequireReboot())
		dir := filepath.Dir(s.host.Gated)
		d := s.start(inMounts(fmt.Sprintf("mount --bind %[1]s %[1]s && mount -o remount,bind,ro %[1]s", dir)))
		if said := s.fails(d, 1); !strings.Contains(said, "read-only file system") || !strings.Contains(said, dir) {
			t.Errorf("it said: %s", said)
		}
	})
	t.Run("no directory", func(t *testing.T) {
		s := newScene(t)
		s.must(os.RemoveAll(filepath.Dir(s.host.Gated)))
		if said := s.fails(s.start(), 1); !strings.Contains(said, "opening the directory of the gated sentinel") {
			t.Errorf("it said: %s", said)
		}
	})
}

// inMounts runs the daemon in a mount namespace of its own, after a script.
func inMounts(script string) func(*daemon.Options) {
	return func(o *daemon.Options) {
		o.Wrap = append(unshare(), "--mount", "--propagation", "private", "sh", "-c", script+` && exec "$@"`, "sh")
	}
}

// unshare needs a user namespace where the tests do not run as root.
func unshare() []string {
	if os.Getuid() != 0 {
		return []string{"unshare", "--map-root-user"}
	}
	return []string{"unshare"}
}

// In a pid namespace of its own nobody could resolve the tether.
func TestOwnPidNamespaceIsRefused(t *testing.T) {
	s := newScene(t)
	wrap := func(o *daemon.Options) { o.Wrap = append(unshare(), "--pid", "--fork") }
	if said := s.fails(s.start(wrap), 1); !strings.Contains(said, "hostPID: true") {
		t.Errorf("it said: %s", said)
	}
}

// F09: the gate is killed and leaves its entry.
func TestF09KilledMeansClosed(t *testing.T) {
	s := newScene(t)
	s.must(s.host.RequireReboot())
	d := s.start()
	s.open(d, 0)
	s.must(d.Signal(syscall.SIGKILL))
	s.gone(time.Now(), time.Second)
	if !s.host.Left() {
		t.Error("nothing is left at the gated path, so this did not test the tether")
	}
	// The path stops resolving before the last thread has ended, and with it the
	// lock of the directory. A kubelet waits for that too.
	_, err := d.Wait(suite.Context(s.t, deadline))
	s.must(err)
	t.Run("SIGTERM", func(t *testing.T) {
		s.t = t
		d := s.start()
		s.open(d, 0)
		s.must(d.Signal(syscall.SIGTERM))
		s.fails(d, 0)
		if s.host.Left() {
			t.Error("a gate that was asked to stop left its entry")
		}
	})
}

// F10: the loop hangs, or the process is stopped.
func TestF10HungOrStoppedMeansClosed(t *testing.T) {
	const maxAge = 3 * time.Second
	killed := func(s *scene, d *daemon.Daemon) {
		s.t.Helper()
		state, err := d.Wait(suite.Context(s.t, deadline))
		s.must(err)
		if status, ok := state.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
			s.t.Errorf("ended with %s, not killed by the kernel's timer", state)
		}
	}
	t.Run("stopped", func(t *testing.T) {
		s := newScene(t)
		s.must(s.host.RequireReboot())
		d := s.start()
		s.open(d, 0)
		s.must(d.Signal(syscall.SIGSTOP))
		s.gone(time.Now(), maxAge+200*time.Millisecond)
		killed(s, d)
	})
	t.Run("hung", func(t *testing.T) {
		s := newScene(t)
		s.must(s.host.RequireReboot())
		// The loop blocks for good when it logs into a pipe that nobody reads.
		read, write, err := os.Pipe()
		s.must(err)
		defer read.Close()
		_, err = unix.FcntlInt(write.Fd(), unix.F_SETPIPE_SZ, 1<<14)
		s.must(err)
		cmd, err := daemon.Command(t.Context(), s.options(func(o *daemon.Options) { o.Args = []string{"--log-level", "debug"} }))
		s.must(err)
		cmd.Stdout = write
		s.must(cmd.Start())
		s.must(write.Close())
		s.poll("an open gate", s.host.Resolves)
		err = cmd.Wait()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Errorf("ended with %v, not killed by the kernel's timer", err)
		}
		s.gone(time.Now(), 100*time.Millisecond)
	})
}

// F11: the gate starts into a world that has changed since it ended.
func TestF11ClosedIsTheFirstAct(t *testing.T) {
	leave := func(s *scene) {
		s.t.Helper()
		s.must(os.WriteFile(s.host.Gated, nil, 0o444))
	}
	t.Run("unreachable cluster", func(t *testing.T) {
		s := newScene(t)
		s.must(s.host.RequireReboot())
		leave(s)
		s.cp.StopAPIServer()
		defer func() { s.must(s.cp.StartAPIServer(s.ctx())) }()
		d := s.start(func(o *daemon.Options) { o.Mode = "file" })
		s.await(d, 0, "its start", func(l daemon.Line) bool { return l.Msg == "the gate starts, closed" })
		if s.host.Left() {
			t.Error("the file of the earlier life is still there")
		}
	})
	t.Run("broken configuration", func(t *testing.T) {
		s := newScene(t)
		leave(s)
		said := s.fails(s.start(func(o *daemon.Options) { o.Checks = "[{name: x, type: y}]" }), 2)
		if s.host.Left() {
			t.Errorf("the file of the earlier life is still there: %s", said)
		}
	})
}

// F20: forks, and memory that grows for days of closed.
func TestF20NoChildrenAndFlatMemory(t *testing.T) {
	s := newScene(t)
	s.must(s.host.RequireReboot())
	d := s.start(func(o *daemon.Options) {
		o.Checks = "[{name: nodes, type: nodesReady, options: {minimum: 6}}, {name: cni, type: podsReady, options: {preset: calico}}, {name: soak, type: readySoak}]"
		o.Settings = "interval: 10ms\nmaxAge: 3s\ntimeout: 1s"
	})
	evaluations := func() float64 { return s.metric(d, `sentinel_gate_evaluations_total{result="Fail"}`) }
	heap := func() float64 { return s.metric(d, "go_memstats_heap_inuse_bytes") }
	s.poll("200 evaluations", func() bool { return evaluations() > 200 })
	early := heap()
	s.poll("600 more evaluations", func() bool { return evaluations() > 800 })
	// It goes up and down between two collections; what is leaked stays.
	late := heap()
	for end := time.Now().Add(10 * time.Second); late > early+4<<20 && time.Now().Before(end); late = min(late, heap()) {
	}
	if late > early+4<<20 {
		t.Errorf("the heap grew from %.1f to %.1f MiB in 600 evaluations", early/(1<<20), late/(1<<20))
	}
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", d.PID()))
	s.must(err)
	for _, task := range tasks {
		children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", d.PID(), task.Name()))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		if len(children) > 0 {
			t.Errorf("the daemon has the children %s", children)
		}
	}
	if goroutines := s.metric(d, "go_goroutines"); goroutines > 100 {
		t.Errorf("%.0f goroutines", goroutines)
	}
}

// F33: the raw sentinel flaps, or is not what it should be.
func TestF33StrangeRawSentinel(t *testing.T) {
	s := newScene(t)
	never := s.neverOpens()
	d := s.start()
	s.await(d, 0, "an idle gate", func(l daemon.Line) bool { return l.State == "Idle" })
	for name, strange := range map[string]struct {
		make func() error
		says string
	}{
		"directory":     {func() error { return os.Mkdir(s.host.Raw, 0o755) }, "is not a regular file"},
		"dangling link": {func() error { return os.Symlink("/nowhere", s.host.Raw) }, "dangling link"},
		"fifo":          {func() error { return syscall.Mkfifo(s.host.Raw, 0o644) }, "is not a regular file"},
		"loop":          {func() error { return os.Symlink(s.host.Raw, s.host.Raw) }, "too many levels"},
	} {
		mark := d.Lines()
		s.must(strange.make())
		l := s.await(d, mark, "a word about the "+name, func(l daemon.Line) bool { return l.State == "Closed" })
		if !strings.Contains(l.Msg, strange.says) || l.Level != "WARN" {
			t.Errorf("%s: %s", name, l.Text)
		}
		mark = d.Lines()
		s.must(os.Remove(s.host.Raw))
		s.await(d, mark, "an idle gate", func(l daemon.Line) bool { return l.State == "Idle" })
	}
	never()

	mark := d.Lines()
	before := s.metric(d, `sentinel_gate_evaluations_total{result="Pass"}`)
	began := time.Now()
	for range 2000 {
		s.must(os.WriteFile(s.host.Raw, nil, 0o644))
		s.must(os.Remove(s.host.Raw))
	}
	s.must(os.WriteFile(s.host.Raw+".pkgs", []byte(strings.Repeat("\x00\xff binary\n", 100_000)+"libc6\n"), 0o644))
	s.must(os.WriteFile(s.host.Raw, nil, 0o644))
	s.open(d, mark)
	opened := s.await(d, mark, "the opening", func(l daemon.Line) bool { return l.State == "Open" })
	if len(opened.Packages) != 0 {
		t.Errorf("packages out of a megabyte of binary: %q", opened.Packages)
	}
	seconds := time.Since(began).Seconds()
	if lines := d.Lines() - mark; float64(lines) > 10+5*seconds {
		t.Errorf("%d lines in %.1f seconds of flapping", lines, seconds)
	}
	if made := s.metric(d, `sentinel_gate_evaluations_total{result="Pass"}`) - before; made > 5+4*seconds {
		t.Errorf("%.0f evaluations in %.1f seconds of flapping", made, seconds)
	}
}

// F35: the gated path is on a disk and survives the reboot.
func TestF35PersistentDirectory(t *testing.T) {
	s := newScene(t)
	s.must(s.host.RequireReboot())
	d := s.start(func(o *daemon.Options) { o.Mode = "file" })
	s.open(d, 0)
	s.must(d.Signal(syscall.SIGKILL))
	_, err := d.Wait(suite.Context(s.t, deadline))
	s.must(err)
	if !s.host.Resolves() {
		t.Fatal("file mode left nothing behind: the test is not about what it says")
	}
	// The node has rebooted, and the raw sentinel is gone.
	s.must(s.host.ClearReboot())
	s.must(s.host.Boot("0aaaaaaa-0000-4000-8000-000000000001", time.Minute))
	d = s.start(func(o *daemon.Options) { o.Mode = "file" })
	s.await(d, 0, "an idle gate", func(l daemon.Line) bool { return l.State == "Idle" })
	if s.host.Left() {
		t.Error("the file of the earlier life is still there")
	}
	s.await(d, 0, "the warning about the mode", func(l daemon.Line) bool { return strings.Contains(l.Msg, "sentinel.mode is file") })
	if !onTmpfs(t, s.host.Dir) {
		s.await(d, 0, "the warning about the disk", func(l daemon.Line) bool { return strings.Contains(l.Msg, "outlives a reboot") })
	}
}

func onTmpfs(t *testing.T, dir string) bool {
	t.Helper()
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		t.Fatal(err)
	}
	return s.Type == unix.TMPFS_MAGIC
}

// F39: two gates run on one node.
func TestF39SecondGateIsRefused(t *testing.T) {
	s := newScene(t)
	s.must(s.host.RequireReboot())
	first := s.start()
	s.open(first, 0)
	if said := s.fails(s.start(), 1); !strings.Contains(said, "another sentinel-gate on this node") {
		t.Errorf("it said: %s", said)
	}
	if !s.host.Resolves() {
		t.Error("the second gate took the first one's sentinel away")
	}
}

// Something foreign at the gated path is an open gate to kured.
func TestForeignEntriesAreRemoved(t *testing.T) {
	s := newScene(t)
	d := s.start()
	s.await(d, 0, "an idle gate", func(l daemon.Line) bool { return l.State == "Idle" })
	for name, make := range map[string]func() error{
		"file": func() error { return os.WriteFile(s.host.Gated, nil, 0o644) },
		"link": func() error { return os.Symlink("/proc/self/stat", s.host.Gated) },
		"directory": func() error {
			aside := filepath.Join(s.host.Dir, "aside") // in one piece: the gate is quick
			return errors.Join(os.MkdirAll(filepath.Join(aside, "full"), 0o755), os.Rename(aside, s.host.Gated))
		},
	} {
		mark := d.Lines()
		s.must(make())
		l := s.await(d, mark, "a shout about the "+name, func(l daemon.Line) bool { return l.Level == "ERROR" })
		if !strings.Contains(l.Error, "a foreign entry") || s.host.Left() {
			t.Errorf("%s: left %t: %s", name, s.host.Left(), l.Text)
		}
	}
	if count := s.metric(d, "sentinel_gate_foreign_entries_removed_total"); count < 3 {
		t.Errorf("sentinel_gate_foreign_entries_removed_total is %g", count)
	}
	s.must(s.host.RequireReboot())
	s.open(d, 0)
	mark := d.Lines()
	s.must(os.Remove(s.host.Gated))
	s.await(d, mark, "a shout", func(l daemon.Line) bool {
		return l.Level == "ERROR" && strings.Contains(l.Error, "removed by somebody else")
	})
	s.await(d, mark, "a gate that opens again", func(l daemon.Line) bool { return l.State == "Open" })
}

// F40: another process is given the pid of a dead gate. The kernel lets root
// choose the next pid, so the test does not have to wait for the ids to come
// around.
func TestF40ReusedPidDoesNotResolve(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("choosing a process id needs root; TestF40ThreadsStandFarApart shows the distance without")
	}
	s := newScene(t)
	s.must(s.host.RequireReboot())
	for range 5 {
		d := s.start()
		mark := d.Lines()
		s.open(d, mark)
		pid := d.PID()
		s.must(d.Signal(syscall.SIGKILL))
		_, err := d.Wait(suite.Context(s.t, deadline))
		s.must(err)
		if !s.host.Left() || s.host.Resolves() {
			t.Fatalf("left %t, resolves %t", s.host.Left(), s.host.Resolves())
		}
		reuse(s, pid)
	}
}

// reuse runs the daemon's own program, with its threads, under the pid.
func reuse(s *scene, pid int) {
	s.t.Helper()
	ctx, cancel := context.WithCancel(s.ctx())
	defer cancel()
	other, err := daemon.NewHost(filepath.Join(s.host.Dir, "other"), s.Nodes[0].BootID(), cluster.BootedAgo)
	s.must(err)
	for range 100 {
		s.must(os.WriteFile("/proc/sys/kernel/ns_last_pid", []byte(strconv.Itoa(pid-1)), 0o644))
		d, err := daemon.Start(ctx, s.options(func(o *daemon.Options) { o.Host = other }))
		s.must(err)
		if d.PID() == pid {
			s.await(d, 0, "an idle gate", func(l daemon.Line) bool { return l.State == "Idle" })
			if s.host.Resolves() {
				s.t.Error("the link of the dead gate resolves again")
			}
			_ = d.Signal(syscall.SIGKILL)
			_, err = d.Wait(suite.Context(s.t, deadline))
			s.must(err)
			return
		}
		_ = d.Signal(syscall.SIGKILL)
		_, err = d.Wait(suite.Context(s.t, deadline))
		s.must(err)
	}
	s.t.Fatalf("pid %d was not given again in 100 attempts", pid)
}
