// Package daemon runs the real sentinel-gate as a process of its own, on a
// directory that stands in for a node's file system.
package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Host is a node's file system, as far as the gate and kured look at it.
type Host struct {
	Dir, Raw, Gated, Proc string
}

// NewHost makes one below dir, which other users can read, for a kernel that
// booted with this id so long ago.
func NewHost(dir, bootID string, uptime time.Duration) (*Host, error) {
	h := &Host{
		Dir: dir, Raw: filepath.Join(dir, "run/reboot-required"),
		Gated: filepath.Join(dir, "run/sentinel-gate/gated-reboot-required"), Proc: filepath.Join(dir, "proc"),
	}
	for _, d := range []string{filepath.Dir(h.Gated), filepath.Join(h.Proc, "sys/kernel/random")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, err
		}
	}
	self := filepath.Join(h.Proc, "self")
	if err := os.Symlink("/proc/self", self); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	return h, h.Boot(bootID, uptime)
}

// Run shows the process on the host: no other is in its process table.
func (h *Host) Run(pid int) error {
	return os.Symlink(fmt.Sprintf("/proc/%d", pid), filepath.Join(h.Proc, fmt.Sprint(pid)))
}

// End takes it away again.
func (h *Host) End(pid int) error { return os.Remove(filepath.Join(h.Proc, fmt.Sprint(pid))) }

// Boot writes what the kernel tells so long after a boot.
func (h *Host) Boot(bootID string, uptime time.Duration) error {
	return errors.Join(
		replace(filepath.Join(h.Proc, "sys/kernel/random/boot_id"), []byte(bootID+"\n")),
		replace(filepath.Join(h.Proc, "uptime"), fmt.Appendf(nil, "%.2f 0.00\n", uptime.Seconds())),
	)
}

// replace writes a file of which nobody sees a half.
func replace(path string, data []byte) error {
	return errors.Join(os.WriteFile(path+".new", data, 0o644), os.Rename(path+".new", path))
}

// RequireReboot makes the raw sentinel, as a package's installation does.
func (h *Host) RequireReboot(packages ...string) error {
	list := strings.Join(packages, "\n") + "\n"
	return errors.Join(
		os.WriteFile(h.Raw+".pkgs", []byte(list), 0o644),
		os.WriteFile(h.Raw, []byte("*** System restart required ***\n"), 0o644),
	)
}

// ClearReboot removes the raw sentinel.
func (h *Host) ClearReboot() error { return errors.Join(os.Remove(h.Raw), os.Remove(h.Raw+".pkgs")) }

// Resolves reports what kured sees: whether a stat of the gated sentinel
// succeeds.
func (h *Host) Resolves() bool {
	_, err := os.Stat(h.Gated)
	return err == nil
}

// Left reports whether there is an entry at the gated path, resolving or not.
func (h *Host) Left() bool {
	_, err := os.Lstat(h.Gated)
	return !errors.Is(err, fs.ErrNotExist)
}

// Pending reports whether there is a raw sentinel.
func (h *Host) Pending() bool {
	_, err := os.Stat(h.Raw)
	return err == nil
}
