package faults

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/sentinel-gate/sentinel-gate/gate/wiring"
	"github.com/sentinel-gate/sentinel-gate/test/kit/daemon"
)

// kured runs a process that has kured's name and arguments, in a mount
// namespace where a directory of the host is at /mnt, as kured's pod has it at
// /sentinel.
func (s *scene) kured(hostDir string, args ...string) *exec.Cmd {
	s.t.Helper()
	script := fmt.Sprintf(`mount --bind %q /mnt && exec -a /usr/bin/kured bash -c 'read -r' bash "$@"`, hostDir)
	command := append(unshare(), "--mount", "--propagation", "private", "bash", "-c", script, "bash")
	command = append(command, args...)
	cmd := exec.CommandContext(s.t.Context(), command[0], command[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdin, err := cmd.StdinPipe() // it ends with the test, which holds this
	s.must(err)
	s.must(cmd.Start())
	s.must(s.host.Run(cmd.Process.Pid))
	s.t.Cleanup(func() {
		_ = stdin.Close()
		_ = cmd.Wait()
	})
	return cmd
}

func (s *scene) finding(d *daemon.Daemon, from int, reason wiring.Reason, naming, level string) {
	s.t.Helper()
	l := s.await(d, from, "a word about kured: "+string(reason), func(l daemon.Line) bool { return l.Wiring == string(reason) })
	if !strings.Contains(l.Msg, naming) || l.Level != level {
		s.t.Errorf("%s: %s", reason, l.Text)
	}
	s.poll("the metric of "+string(reason), func() bool {
		return s.metric(d, fmt.Sprintf(`sentinel_gate_kured_wired{reason=%q}`, reason)) == 1
	})
}

// F06: gate and kured looked at different directories, and for six days both
// logged success.
func TestF06KuredLooksElsewhere(t *testing.T) {
	s := newScene(t)
	dir := filepath.Dir(s.host.Gated)
	other := filepath.Join(s.host.Dir, "other")
	s.must(os.Mkdir(other, 0o755))
	s.must(s.host.RequireReboot())
	const arg = "--reboot-sentinel=/mnt/gated-reboot-required"

	d := s.start()
	s.finding(d, 0, wiring.NoKured, "nobody looks", "WARN")

	mark := d.Lines()
	kured := s.kured(other, arg)
	s.finding(d, mark, wiring.OtherFile, "/other/gated-reboot-required", "WARN")
	s.must(s.host.End(kured.Process.Pid))

	mark = d.Lines()
	kured = s.kured(dir, arg)
	s.finding(d, mark, wiring.Wired, "looks at the gated sentinel", "INFO")
	s.open(d, 0)
	s.must(s.host.End(kured.Process.Pid))
}

// F07: kured still looked at the raw sentinel, or asked a command.
func TestF07KuredBypassesTheGate(t *testing.T) {
	s := newScene(t)
	s.must(s.host.RequireReboot())
	d := s.start()
	mark := d.Lines()
	kured := s.kured(filepath.Dir(s.host.Raw), "--reboot-sentinel", "/mnt/reboot-required")
	s.finding(d, mark, wiring.RawSentinel, "THE GATE IS BYPASSED", "ERROR")
	s.must(s.host.End(kured.Process.Pid))

	mark = d.Lines()
	kured = s.kured(filepath.Dir(s.host.Gated), "--reboot-sentinel=/mnt/gated-reboot-required", "--reboot-sentinel-command=sh -c true")
	s.finding(d, mark, wiring.SentinelCommand, "sh -c true", "ERROR")

	cmd, err := daemon.Command(s.ctx(), s.options(func(o *daemon.Options) { o.Args = []string{"--once"} }))
	s.must(err)
	table, _ := cmd.Output() // its status is that of the steps
	if !strings.Contains(string(table), "kured:         SentinelCommand: ") {
		t.Errorf("--once says:\n%s", table)
	}
	s.must(s.host.End(kured.Process.Pid))
}
