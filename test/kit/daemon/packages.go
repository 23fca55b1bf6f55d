package daemon

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// dpkg is where the host has dpkg's database.
func (h *Host) dpkg() string { return filepath.Join(h.Dir, "dpkg/status") }

// Install makes the packages, by their versions, all that dpkg has as installed. From then
// on a daemon is told where that is.
func (h *Host) Install(versions map[string]string) error {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(versions)) {
		fmt.Fprintf(&b, "Package: %s\nStatus: install ok installed\nVersion: %s\n\n", name, versions[name])
	}
	if err := os.MkdirAll(filepath.Dir(h.dpkg()), 0o755); err != nil {
		return err
	}
	return replace(h.dpkg(), []byte(b.String()))
}

// Uninstall takes dpkg's database away, and a daemon is told of none.
func (h *Host) Uninstall() error { return os.RemoveAll(filepath.Dir(h.dpkg())) }

// RunKernel makes the release that of the running kernel.
func (h *Host) RunKernel(release string) error {
	dir := filepath.Join(h.Proc, "sys/kernel")
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "osrelease"), []byte(release+"\n"), 0o644),
		os.WriteFile(filepath.Join(dir, "version"), []byte("#1 SMP "+release+"\n"), 0o644),
	)
}
