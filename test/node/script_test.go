package node

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const lineScript = deploy + "/bring-into-line.sh"

func TestScriptsParse(t *testing.T) {
	for script, shell := range map[string]string{lineScript: "bash", rebootScript: "sh"} {
		need(t, shell, shell)
		output(t, command(t, shell, "-n", script))
		info, err := os.Stat(script)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm()&0o111 == 0 {
			t.Errorf("%s is not executable", script)
		}
	}
}

func TestShellcheck(t *testing.T) {
	need(t, "shellcheck", "shellcheck")
	output(t, command(t, "shellcheck", lineScript, rebootScript))
}

// nodeRoot makes a fake node with some packages installed.
func nodeRoot(t *testing.T, release string, installed map[string]string) string {
	t.Helper()
	need(t, "bash", "bash")
	need(t, "dpkg-query", "dpkg")
	root := t.TempDir()
	write(t, filepath.Join(root, "etc/os-release"), release, 0o644)
	status(t, root, installed)
	return root
}

// status writes dpkg's status: each package with what is wanted of it, and its state.
func status(t *testing.T, root string, installed map[string]string) {
	t.Helper()
	var text strings.Builder
	for name, state := range installed {
		text.WriteString("Package: " + name + "\nStatus: " + state + "\nVersion: 1\nArchitecture: all\nMaintainer: nobody <nobody@example.org>\nDescription: a stand-in\n\n")
	}
	write(t, filepath.Join(root, "var/lib/dpkg/status"), text.String(), 0o644)
}

var someNode = map[string]string{
	"bash":                  "install ok installed",
	"containerd":            "install ok installed",
	"kubelet":               "hold ok installed",
	"kubectl":               "install ok installed",
	"runc":                  "deinstall ok config-files",
	"runc-docs":             "install ok installed",
	"python3-docker.io-web": "install ok installed",
}

const debianRelease = "ID=debian\nNAME='Debian GNU/Linux'\n"

// lines are those of a text that begin with prefix, without it.
func lines(text, prefix string) string {
	var found []string
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, prefix); ok {
			found = append(found, rest)
		}
	}
	return strings.Join(found, "")
}

// TestDryRun: all of it is printed, and nothing done.
func TestDryRun(t *testing.T) {
	root := nodeRoot(t, debianRelease, someNode)
	before := tree(t, root)
	out := output(t, command(t, lineScript, "--dry-run", "--root", root))
	if want := upgradesTarget + "\n" + periodicTarget + "\n" + tmpfilesTarget + "\n"; lines(out, "would write: ") != want {
		t.Errorf("would write:\n%swant:\n%s", lines(out, "would write: "), want)
	}
	chroot := "chroot " + root + " "
	want := chroot + `apt-mark hold containerd kubectl
` + chroot + `apt-get -o DPkg::Lock::Timeout=600 update
` + chroot + `env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 install -y --no-install-recommends unattended-upgrades
systemctl --root=` + root + ` unmask apt-daily.timer apt-daily-upgrade.timer
systemctl --root=` + root + ` enable apt-daily.timer apt-daily-upgrade.timer
`
	if got := lines(out, "would run: "); got != want {
		t.Errorf("would run:\n%swant:\n%s", got, want)
	}
	if got := lines(out, "in order: "); got != "kubelet is held\n" {
		t.Errorf("in order:\n%s", got)
	}
	after := tree(t, root)
	if len(after) != len(before) {
		t.Errorf("files: %d before, %d after", len(before), len(after))
	}
	for name, content := range before {
		if after[name] != content {
			t.Errorf("%s was changed", name)
		}
	}
}

// TestBringIntoLine runs the script on a fake node: what it would do in a
// chroot is noted, all else is done. Twice, for it must be safe to run again.
func TestBringIntoLine(t *testing.T) {
	needRoot(t, "the script insists")
	need(t, "apt-config", "apt")
	root := nodeRoot(t, "ID=ubuntu\nID_LIKE=debian\n", someNode)
	called := filepath.Join(t.TempDir(), "called")
	bin := t.TempDir()
	write(t, filepath.Join(root, "apt.conf"), `Dir "`+root+`";`, 0o644)
	write(t, filepath.Join(bin, "chroot"), "#!/bin/sh\nshift\ncase $1 in apt-config) APT_CONFIG='"+root+"/apt.conf' exec \"$@\";; esac\necho \"$*\" >>"+called+"\n", 0o755)
	write(t, filepath.Join(bin, "systemctl"), "#!/bin/sh\necho \"systemctl $*\" >>"+called+"\n", 0o755)
	run := func() (string, error) {
		cmd := command(t, lineScript, "--root", root+"/")
		cmd.Env = append(cmd.Env, "PATH="+bin+":"+os.Getenv("PATH"))
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	calls := func() string {
		content, err := os.ReadFile(called)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(called); err != nil {
			t.Fatal(err)
		}
		return string(content)
	}
	timers := "systemctl --root=" + root + " unmask apt-daily.timer apt-daily-upgrade.timer\n" +
		"systemctl --root=" + root + " enable apt-daily.timer apt-daily-upgrade.timer\n"

	out, err := run()
	if err != nil || !strings.HasSuffix(out, "\nin line\n") {
		t.Fatalf("%v\n%s", err, out)
	}
	for target, source := range map[string]string{upgradesTarget: upgradesSource, periodicTarget: periodicSource, tmpfilesTarget: tmpfilesSource} {
		content, err := os.ReadFile(filepath.Join(root, target))
		if err != nil || string(content) != read(t, source) {
			t.Errorf("%s is not %s: %v", target, source, err)
		}
		if info, err := os.Stat(filepath.Join(root, target)); err == nil && info.Mode().Perm() != 0o644 {
			t.Errorf("%s: mode %s", target, info.Mode())
		}
	}
	if got, want := calls(), `apt-mark hold containerd kubectl
apt-get -o DPkg::Lock::Timeout=600 update
env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 install -y --no-install-recommends unattended-upgrades update-notifier-common
`+timers; got != want {
		t.Errorf("ran:\n%swant:\n%s", got, want)
	}

	// As it is when all that was done.
	again := map[string]string{"unattended-upgrades": "install ok installed", "update-notifier-common": "install ok installed"}
	for name, state := range someNode {
		again[name] = state
	}
	again["containerd"], again["kubectl"] = "hold ok installed", "hold ok installed"
	status(t, root, again)
	before := tree(t, root)
	out, err = run()
	if err != nil || lines(out, "written: ") != "" {
		t.Errorf("the second time: %v\n%s", err, out)
	}
	if got := calls(); got != timers {
		t.Errorf("the second time it ran:\n%s", got)
	}
	for name, content := range tree(t, root) {
		if before[name] != content {
			t.Errorf("%s was changed the second time", name)
		}
	}

	// Somebody's file is read later and has the node reboot itself.
	write(t, filepath.Join(root, "etc/apt/apt.conf.d/99-mine"), "Unattended-Upgrade::Automatic-Reboot \"true\";\n", 0o644)
	if out, err = run(); err == nil || !strings.Contains(out, `not in force: Unattended-Upgrade::Automatic-Reboot "false"`) {
		t.Errorf("another file turned reboots on: %v\n%s", err, out)
	}
}

// TestOtherSystems: refused before anything is done, and so is what is not understood.
func TestOtherSystems(t *testing.T) {
	root := nodeRoot(t, "ID=fedora\n", someNode)
	flatcar := nodeRoot(t, "ID=flatcar\nID_LIKE=coreos\n", someNode)
	empty := t.TempDir()
	for _, args := range [][]string{{"--root", root}, {"--root", flatcar}, {"--root", empty}, {"--root", "/nonexistent"}, {"--root"}, {"--wet-run"}} {
		out, err := command(t, lineScript, append([]string{"--dry-run"}, args...)...).CombinedOutput()
		if err == nil {
			t.Errorf("%q succeeded:\n%s", args, out)
		}
	}
	mint := nodeRoot(t, "ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n", someNode)
	if out := output(t, command(t, lineScript, "--dry-run", "--root", mint)); !strings.Contains(out, "update-notifier-common") {
		t.Errorf("a relative of Ubuntu is not taken for one:\n%s", out)
	}
}
