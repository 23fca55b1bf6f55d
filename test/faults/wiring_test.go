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
func (w *world) kured(hostDir string, args ...string) *exec.Cmd {
	w.t.Helper()
	script := fmt.Sprintf(`mount --bind %q /mnt && exec -a /usr/bin/kured bash -c 'read -r' bash "$@"`, hostDir)
	command := append(unshare(), "--mount", "--propagation", "private", "bash", "-c", script, "bash")
	command = append(command, args...)
	cmd := exec.CommandContext(w.t.Context(), command[0], command[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdin, err := cmd.StdinPipe() // it ends with the test, which holds this
	w.must(err)
	w.must(cmd.Start())
	w.must(w.host.Run(cmd.Process.Pid))
	w.t.Cleanup(func() {
		_ = stdin.Close()
		_ = cmd.Wait()
	})
	return cmd
}

func (w *world) finding(d *daemon.Daemon, from int, reason wiring.Reason, naming, level string) {
	w.t.Helper()
	l := w.await(d, from, "a word about kured: "+string(reason), func(l daemon.Line) bool { return l.Wiring == string(reason) })
	if !strings.Contains(l.Msg, naming) || l.Level != level {
		w.t.Errorf("%s: %s", reason, l.Text)
	}
	w.poll("the metric of "+string(reason), func() bool {
		return w.metric(d, fmt.Sprintf(`sentinel_gate_kured_wired{reason=%q}`, reason)) == 1
	})
}

// F06: gate and kured looked at different directories, and for six days both
// logged success.
func TestF06KuredLooksElsewhere(t *testing.T) {
	w := newWorld(t)
	dir := filepath.Dir(w.host.Gated)
	other := filepath.Join(w.host.Dir, "other")
	w.must(os.Mkdir(other, 0o755))
	w.must(w.host.RequireReboot())
	const arg = "--reboot-sentinel=/mnt/gated-reboot-required"

	d := w.start()
	w.finding(d, 0, wiring.NoKured, "nobody looks", "WARN")

	mark := d.Lines()
	kured := w.kured(other, arg)
	w.finding(d, mark, wiring.OtherFile, "/other/gated-reboot-required", "WARN")
	w.must(w.host.End(kured.Process.Pid))

	mark = d.Lines()
	kured = w.kured(dir, arg)
	w.finding(d, mark, wiring.Wired, "looks at the gated sentinel", "INFO")
	w.open(d, 0)
	w.must(w.host.End(kured.Process.Pid))
}

// F07: kured still looked at the raw sentinel, or asked a command.
func TestF07KuredBypassesTheGate(t *testing.T) {
	w := newWorld(t)
	w.must(w.host.RequireReboot())
	d := w.start()
	mark := d.Lines()
	kured := w.kured(filepath.Dir(w.host.Raw), "--reboot-sentinel", "/mnt/reboot-required")
	w.finding(d, mark, wiring.RawSentinel, "THE GATE IS BYPASSED", "ERROR")
	w.must(w.host.End(kured.Process.Pid))

	mark = d.Lines()
	kured = w.kured(filepath.Dir(w.host.Gated), "--reboot-sentinel=/mnt/gated-reboot-required", "--reboot-sentinel-command=sh -c true")
	w.finding(d, mark, wiring.SentinelCommand, "sh -c true", "ERROR")

	cmd, err := daemon.Command(w.ctx(), w.options(func(o *daemon.Options) { o.Args = []string{"--once"} }))
	w.must(err)
	table, _ := cmd.Output() // its status is that of the steps
	if !strings.Contains(string(table), "kured:         SentinelCommand: ") {
		t.Errorf("--once says:\n%s", table)
	}
	w.must(w.host.End(kured.Process.Pid))
}
