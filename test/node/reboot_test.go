package node

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const rebootScript = deploy + "/rhel/sentinel-gate-reboot-required"

// What needs-restarting -r prints, with DNF 4 and 5, and with yum-utils.
const (
	needed = `Core libraries or services have been updated since boot-up:
  * glibc
  * kernel

Reboot is required to fully utilize these updates.
More information: https://access.redhat.com/solutions/27943`
	neededYum = `Core libraries or services have been updated:
  kernel -> 3.10.0-1160.el7

Reboot is required to ensure that your system benefits from these updates.`
	notNeeded = `No core libraries or services have been updated since boot-up.
Reboot should not be necessary.`
)

// stub makes a program in dir that prints text and exits with status.
func stub(t *testing.T, dir, name, text, status string) {
	t.Helper()
	write(t, filepath.Join(dir, name), "#!/bin/sh\n[ \"$LC_ALL\" = C ] || exit 99\necho \"$*\" >>\"$0.called\"\ncat <<'END'\n"+text+"\nEND\nexit "+status+"\n", 0o755)
}

// TestNeedsRestarting runs the script of the service with each answer that needs-restarting may give.
func TestNeedsRestarting(t *testing.T) {
	tests := []struct {
		name, stub, text, status string
		ok, made                 bool
		packages, says           string
	}{
		{name: "not needed", stub: "needs-restarting", text: notNeeded, status: "0", ok: true, says: "no reboot is needed"},
		{name: "needed", stub: "needs-restarting", text: needed, status: "1", ok: true, made: true, packages: "glibc\nkernel\n", says: "made "},
		{name: "needed, by yum-utils", stub: "needs-restarting", text: neededYum, status: "1", ok: true, made: true, says: "made "},
		{name: "needed, by dnf", stub: "dnf", text: needed, status: "1", ok: true, made: true, packages: "glibc\nkernel\n", says: "made "},
		{name: "an error of dnf", stub: "needs-restarting", text: "Error: Failed to download metadata for repo 'baseos'", status: "1", says: "not because a reboot is needed"},
		{name: "no such plugin", stub: "dnf", text: "No such command: needs-restarting.", status: "1", says: "not because a reboot is needed"},
		{name: "nothing but 1", stub: "needs-restarting", status: "1", says: "not because a reboot is needed"},
		{name: "another status", stub: "needs-restarting", text: needed, status: "2", says: "exited with 2"},
		{name: "killed", stub: "needs-restarting", text: needed, status: "137", says: "exited with 137"},
		{name: "not installed", stub: "", says: "is missing"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			bin, run := path(t), t.TempDir()
			if test.stub != "" {
				stub(t, bin, test.stub, test.text, test.status)
			}
			sentinel := filepath.Join(run, "reboot-required")
			cmd := command(t, rebootScript, sentinel)
			cmd.Env = []string{"PATH=" + bin}
			out, err := cmd.CombinedOutput()
			if (err == nil) != test.ok || !strings.Contains(string(out), test.says) {
				t.Errorf("%v, want success %v, and %q in\n%s", err, test.ok, test.says, out)
			}
			files := tree(t, run)
			want := map[string]string{}
			if test.made {
				want["/reboot-required"] = ""
				want["/reboot-required.pkgs"] = test.packages
			}
			if len(files) != len(want) || files["/reboot-required.pkgs"] != want["/reboot-required.pkgs"] {
				t.Errorf("made %q, want %q", files, want)
			}
		})
	}
}

// TestNeedsRestartingAlreadyThere: the age of a sentinel tells since when a reboot is pending.
func TestNeedsRestartingAlreadyThere(t *testing.T) {
	bin, run := path(t), t.TempDir()
	stub(t, bin, "needs-restarting", needed, "1")
	sentinel := filepath.Join(run, "reboot-required")
	write(t, sentinel, "by somebody else\n", 0o644)
	then := time.Now().Add(-48 * time.Hour).Truncate(time.Second)
	if err := os.Chtimes(sentinel, then, then); err != nil {
		t.Fatal(err)
	}
	cmd := command(t, rebootScript, sentinel)
	cmd.Env = []string{"PATH=" + bin}
	if out := output(t, cmd); !strings.Contains(out, "is there already") {
		t.Errorf("it says:\n%s", out)
	}
	info, err := os.Stat(sentinel)
	if err != nil {
		t.Fatal(err)
	}
	if !info.ModTime().Equal(then) {
		t.Errorf("pending since %s, want %s", info.ModTime(), then)
	}
	if files := tree(t, run); len(files) != 1 || files["/reboot-required"] != "by somebody else\n" {
		t.Errorf("files: %q", files)
	}
	if _, err := os.Stat(filepath.Join(bin, "needs-restarting.called")); err == nil {
		t.Error("needs-restarting was asked though there was nothing to ask")
	}
}

// TestNeedsRestartingMadeMeanwhile: somebody else makes the sentinel while needs-restarting runs.
func TestNeedsRestartingMadeMeanwhile(t *testing.T) {
	bin, run := path(t), t.TempDir()
	sentinel := filepath.Join(run, "reboot-required")
	write(t, filepath.Join(bin, "needs-restarting"), "#!/bin/sh\necho other >'"+sentinel+"'\necho 'Reboot is required now.'\nexit 1\n", 0o755)
	cmd := command(t, rebootScript, sentinel)
	cmd.Env = []string{"PATH=" + bin}
	if out := output(t, cmd); !strings.Contains(out, "is there already") {
		t.Errorf("it says:\n%s", out)
	}
	if files := tree(t, run); files["/reboot-required"] != "other\n" {
		t.Errorf("files: %q", files)
	}
}

// TestNeedsRestartingCannotWrite: a directory that is missing is a failure that shows.
func TestNeedsRestartingCannotWrite(t *testing.T) {
	bin := path(t)
	stub(t, bin, "needs-restarting", needed, "1")
	cmd := command(t, rebootScript, filepath.Join(t.TempDir(), "missing", "reboot-required"))
	cmd.Env = []string{"PATH=" + bin}
	if out, err := cmd.CombinedOutput(); err == nil {
		t.Errorf("it succeeded:\n%s", out)
	}
}

// path makes a directory with the few programs that the script needs, and not those of this machine.
func path(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, program := range []string{"sh", "cat", "grep", "sed"} {
		found := false
		for _, bin := range []string{"/usr/bin/", "/bin/"} {
			if _, err := os.Stat(bin + program); err == nil && !found {
				found = true
				if err := os.Symlink(bin+program, filepath.Join(dir, program)); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	return dir
}
