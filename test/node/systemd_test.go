package node

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestUnits lets systemd read the units. What they start is elsewhere on this machine, or not there at all.
func TestUnits(t *testing.T) {
	need(t, "systemd-analyze", "systemd")
	script, err := filepath.Abs(rebootScript)
	if err != nil {
		t.Fatal(err)
	}
	units := []string{
		"rhel/sentinel-gate-reboot-required.service",
		"rhel/sentinel-gate-reboot-required.timer",
		"opensuse/sentinel-gate-zypper-patch.service",
		"opensuse/sentinel-gate-zypper-patch.timer",
	}
	dir := t.TempDir()
	for _, unit := range units {
		text := read(t, unit)
		text = strings.ReplaceAll(text, "=/usr/local/libexec/sentinel-gate-reboot-required ", "="+script+" ")
		text = strings.ReplaceAll(text, "=/usr/bin/zypper ", "=/bin/sh ")
		write(t, filepath.Join(dir, filepath.Base(unit)), text, 0o644)
	}
	for _, unit := range units {
		if complaints := verify(t, filepath.Join(dir, filepath.Base(unit))); complaints != "" {
			t.Errorf("%s:\n%s", unit, complaints)
		}
	}
	// The proof that a mistake would be seen.
	wrong := filepath.Join(dir, "sentinel-gate-wrong.service")
	write(t, wrong, "[Service]\nType=oneshot\nExecStart=/bin/sh\nTimeoutStart=1h\n", 0o644)
	if verify(t, wrong) == "" {
		t.Error("systemd-analyze verify finds no fault with TimeoutStart=")
	}
}

// verify returns what systemd-analyze says against a unit of ours; the machine's own units do not matter.
func verify(t *testing.T, unit string) string {
	t.Helper()
	out, err := command(t, "systemd-analyze", "verify", "--man=no", unit).CombinedOutput()
	var complaints []string
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "sentinel-gate") {
			complaints = append(complaints, line)
		}
	}
	if err != nil && len(complaints) == 0 {
		t.Fatalf("systemd-analyze verify %s: %v\n%s", unit, err, out)
	}
	return strings.Join(complaints, "")
}

// TestTmpfiles lets systemd-tmpfiles make the directory below a root of its own.
func TestTmpfiles(t *testing.T) {
	need(t, "systemd-tmpfiles", "systemd")
	needRoot(t, "the directory is given to uid 9817")
	root := t.TempDir()
	write(t, filepath.Join(root, tmpfilesTarget), read(t, tmpfilesSource), 0o644)
	dir := filepath.Join(root, "run/sentinel-gate")
	check := func(when string) {
		t.Helper()
		if out := output(t, command(t, "systemd-tmpfiles", "--root="+root, "--create", filepath.Base(tmpfilesTarget))); out != "" {
			t.Errorf("%s systemd-tmpfiles says:\n%s", when, out)
		}
		info, err := os.Stat(dir)
		if err != nil {
			t.Fatal(err)
		}
		stat, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			t.Fatal("no owner")
		}
		if stat.Uid != 9817 || stat.Gid != 9817 || info.Mode() != os.ModeDir|0o755 {
			t.Errorf("%s uid %d, gid %d, mode %s", when, stat.Uid, stat.Gid, info.Mode())
		}
	}
	check("after a boot:")

	// A kubelet that was faster: hostPath with DirectoryOrCreate makes it as root.
	if err := os.Chown(dir, 0, 0); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	check("made by another before:")

	// Run under an open gate, it must leave the gated sentinel alone.
	link := filepath.Join(dir, "gated-reboot-required")
	if err := os.Symlink("/proc/1/stat", link); err != nil {
		t.Fatal(err)
	}
	output(t, command(t, "systemd-tmpfiles", "--root="+root, "--create", "--remove", "--clean", filepath.Base(tmpfilesTarget)))
	if _, err := os.Lstat(link); err != nil {
		t.Error(err)
	}
}
