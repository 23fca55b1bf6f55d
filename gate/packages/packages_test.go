package packages

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sentinel-gate/sentinel-gate/gate/soak"
)

const status = `Package: linux-image-5.15.0-105-generic
Status: install ok installed
Version: 5.15.0-105.115
Description: Signed kernel image generic
 a line that goes on
 Package: not-a-package

Package: linux-image-5.15.0-106-generic
Status: install ok installed
Architecture: amd64
Version: 5.15.0-106.116

Package: libc6
Status: install ok installed
Version: 2.35-0ubuntu3.8

Package: containerd.io
Status: hold ok installed
Version: 1.7.24-1

Package: left-over
Status: deinstall ok config-files
Version: 1.0

Package: dbus
Status: install ok triggers-pending
Version: 1.12.20-2ubuntu4.1
`

type node struct {
	*Reader
	t *testing.T
}

func newNode(t *testing.T) node {
	dir := t.TempDir()
	return node{&Reader{Database: filepath.Join(dir, "status"), Raw: []string{filepath.Join(dir, "reboot-required"), filepath.Join(dir, "reboot-needed")}, Release: "5.15.0-105-generic"}, t}
}

func (n node) write(path, text string) {
	n.t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		n.t.Fatal(err)
	}
}

func (n node) words(f Found) string {
	var words []string
	for _, p := range f.Wants {
		words = append(words, soak.Names(f.Names)(p))
	}
	slices.Sort(words)
	return strings.Join(words, "; ")
}

const unknown = "something of which the version is not known"

func TestRead(t *testing.T) {
	for _, c := range []struct {
		name, status, asked, installed string
		want, problem                  string
	}{
		{"a new kernel", status, "linux-image-5.15.0-106-generic\n", "", "containerd.io 1.7.24-1; libc6 2.35-0ubuntu3.8; linux-image-5.15.0-106-generic 5.15.0-106.116", ""},
		{"no new kernel: the one that runs", status, "dbus\nlibc6\n", "", "containerd.io 1.7.24-1; dbus 1.12.20-2ubuntu4.1; libc6 2.35-0ubuntu3.8; linux-image-5.15.0-105-generic 5.15.0-105.115", ""},
		{"F94: an empty list", status, "", "", "containerd.io 1.7.24-1; libc6 2.35-0ubuntu3.8; linux-image-5.15.0-105-generic 5.15.0-105.115; " + unknown, ".pkgs is empty"},
		{"F94: no list", status, "-", "", "containerd.io 1.7.24-1; libc6 2.35-0ubuntu3.8; linux-image-5.15.0-105-generic 5.15.0-105.115; " + unknown, "no such file"},
		{"F94: a line that is no package", status, "libc6\nrm -rf /\n", "", "containerd.io 1.7.24-1; libc6 2.35-0ubuntu3.8; linux-image-5.15.0-105-generic 5.15.0-105.115; " + unknown, `"rm -rf /", which is no package`},
		{"F94: one that is not installed", status, "libc6\nlinux-image-6\n", "", "containerd.io 1.7.24-1; libc6 2.35-0ubuntu3.8; " + unknown, "linux-image-6 asks for the reboot, and is not installed"},
		{"F94: a list that is cut off", status, strings.Repeat("libc6\n", maxAsked), "", "containerd.io 1.7.24-1; libc6 2.35-0ubuntu3.8; linux-image-5.15.0-105-generic 5.15.0-105.115; " + unknown, "is longer than 64 KiB"},
		{"F94: a database without packages", "\n", "libc6\n", "", unknown, "dpkg's database has no package"},
		{"F94: a database of something else", "Package: a b\nStatus: install ok installed\nVersion: 1\n", "libc6\n", "", unknown, "a stanza that is no package"},
		{"F94: a package without a version", "Package: libc6\nStatus: install ok installed\n", "libc6\n", "", unknown, "no version of libc6"},
		{"F94: a line without end", "Package: libc6\nStatus: install ok installed\nVersion: " + strings.Repeat("1", maxLine), "libc6\n", "", unknown, "token too long"},
		{"no dpkg, and a script's lists", "-", "kernel-core=5.14.0-427.el9\n", "kernel-core=5.14.0-427.el9\nsystemd=252-32.el9\n", "kernel-core 5.14.0-427.el9; systemd 252-32.el9", ""},
		{"no dpkg, and no list of what is installed", "-", "kernel-core=5.14.0-427.el9\n", "", unknown, "neither dpkg's database nor a list"},
		{"no dpkg, and a list without versions", "-", "kernel-core=5.14.0-427.el9\n", "systemd\n", unknown, "has no version of systemd"},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := newNode(t)
			for path, text := range map[string]string{n.Database: c.status, n.Raw[0] + askedSuffix: c.asked, n.Raw[0] + installedSuffix: c.installed} {
				if text != "-" && (text != "" || !strings.HasSuffix(path, installedSuffix)) {
					n.write(path, text)
				}
			}
			n.write(n.Raw[0], "")
			f := n.Read()
			if got := n.words(f); got != c.want {
				t.Errorf("the next boot would bring\n%s\nwant\n%s", got, c.want)
			}
			switch {
			case c.problem == "" && f.Problem != nil, c.problem != "" && (f.Problem == nil || !strings.Contains(f.Problem.Error(), c.problem)):
				t.Errorf("the problem is %v, want one with %q", f.Problem, c.problem)
			}
		})
	}
}

// What changes is seen, and what is not configured is named.
func TestReadAgain(t *testing.T) {
	n := newNode(t)
	n.write(n.Database, status)
	n.write(n.Raw[0], "")
	n.write(n.Raw[0]+askedSuffix, "libc6\n")
	before := n.Read()
	if len(before.Broken) > 0 || before.Problem != nil {
		t.Fatalf("%v, %v", before.Broken, before.Problem)
	}
	n.write(n.Database, strings.ReplaceAll(status, "2.35-0ubuntu3.8", "2.35-0ubuntu3.9")+"\nPackage: systemd\nStatus: install ok half-configured\nVersion: 249\n")
	after := n.Read()
	if !slices.Equal(after.Broken, []string{"systemd"}) {
		t.Errorf("not configured: %v", after.Broken)
	}
	if slices.Equal(before.Wants, after.Wants) || !strings.Contains(n.words(after), "libc6 2.35-0ubuntu3.9") {
		t.Errorf("after an update: %s", n.words(after))
	}
	if after.Installed[soak.NewPart("left-over", "1.0")] {
		t.Error("a package that was removed counts as installed")
	}
}

// Whatever is in the files, it is either understood or doubted.
func FuzzReadStatus(f *testing.F) {
	f.Add(status)
	f.Add("Package: a\nStatus: install ok installed\nVersion: 1\n\n\n\nVersion: 2\n")
	f.Add("Status: a\n\nPackage: \n")
	f.Fuzz(func(t *testing.T, text string) {
		installed, _, err := readStatus(strings.NewReader(text))
		if err == nil && len(installed) == 0 {
			t.Error("nothing is installed, and no doubt")
		}
		for _, v := range installed {
			if v.part() == soak.Unknown {
				t.Errorf("%q is installed in version %q", v.name, v.version)
			}
		}
	})
}
