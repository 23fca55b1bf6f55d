package node

import (
	"path/filepath"
	"testing"

	"github.com/sentinel-gate/sentinel-gate/gate/packages"
	"github.com/sentinel-gate/sentinel-gate/gate/soak"
)

const packagesScript = deploy + "/sentinel-gate-packages"

// rpm answers as rpm does: a query of all, and of one name, of which the newest is the last.
const rpm = `#!/bin/sh
case "$1 $4" in
"-qa ") printf '%s\n' kernel-core=5.14.0-362.el9.x86_64 kernel-core=5.14.0-427.el9.x86_64 glibc=2.34-100.el9.x86_64 'gpg-pubkey=1-2.(none)' bash=5.1-9.el9.x86_64 ;;
"-q kernel-core") printf '%s\n' kernel-core=5.14.0-362.el9.x86_64 kernel-core=5.14.0-427.el9.x86_64 ;;
"-q glibc") echo glibc=2.34-100.el9.x86_64 ;;
"-q ") [ "$2" = kernel-core ] ;;
*) echo "package $4 is not installed"; exit 1 ;;
esac
`

// What the script writes the gate reads: a kernel is the newest, and each name has its version.
func TestPackagesOfRPM(t *testing.T) {
	bin, run := path(t), t.TempDir()
	write(t, filepath.Join(bin, "rpm"), rpm, 0o755)
	raw := filepath.Join(run, "reboot-required")
	write(t, raw, "", 0o644)
	write(t, raw+".pkgs", "glibc\nkernel -> 5.14\n", 0o644)
	cmd := command(t, packagesScript, raw)
	cmd.Env = []string{"PATH=" + bin + ":/usr/bin:/bin"}
	for range 2 { // it writes them anew at every run
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		cmd = command(t, packagesScript, raw)
		cmd.Env = []string{"PATH=" + bin + ":/usr/bin:/bin"}
	}
	files := tree(t, run)
	if got, want := files["/reboot-required.pkgs"], "glibc=2.34-100.el9.x86_64\nkernel-core=5.14.0-427.el9.x86_64\n"; got != want {
		t.Errorf("asks for the reboot:\n%s\nwant\n%s", got, want)
	}
	found := (&packages.Reader{Database: filepath.Join(run, "none"), Raw: []string{raw}, Release: "5.14.0-362.el9.x86_64"}).Read()
	want := soak.PutParts([]soak.Part{soak.NewPart("glibc", "2.34-100.el9.x86_64"), soak.NewPart("kernel-core", "5.14.0-427.el9.x86_64")})
	if got := soak.PutParts(found.Wants); got != want || found.Problem != nil || len(found.Kernels) != 2 {
		t.Errorf("the gate finds %+v", found)
	}
}
