package e2e

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// packages are Debian's names for what has each of the programs.
var packages = []struct{ program, debian string }{
	{"containerd", "containerd"},
	{"ctr", "containerd"},
	{"containerd-shim-runc-v2", "containerd"},
	{"runc", "runc"},
	{"/usr/lib/cni/bridge", "containernetworking-plugins"},
	{"/usr/lib/cni/host-local", "containernetworking-plugins"},
	{"ip", "iproute2"},
}

// missing lists all that keeps the tests from running here, and what to do.
func missing() []string {
	if os.Getenv(wanted) == "" {
		return []string{"takes minutes: make e2e runs it"}
	}
	var list, install []string
	if os.Geteuid() != 0 {
		list = append(list, "must run as root, for namespaces and mounts")
	}
	for _, p := range packages {
		if _, err := exec.LookPath(p.program); err != nil {
			list = append(list, p.program+" is missing")
			if len(install) == 0 || install[len(install)-1] != p.debian {
				install = append(install, p.debian)
			}
		}
	}
	if len(install) > 0 {
		list = append(list, "Debian: apt-get install "+strings.Join(install, " "))
	}
	if _, err := hierarchies(); err != nil {
		list = append(list, err.Error())
	}
	return list
}

// need skips the test where something is missing, and names all of it.
func need(t *testing.T) {
	t.Helper()
	if list := missing(); len(list) > 0 {
		t.Skip(strings.Join(list, "; "))
	}
}
