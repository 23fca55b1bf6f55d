package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// uptimeFile is what the node has at /proc/uptime.
const uptimeFile = "/run/node/uptime"

// makeRoot gives the node a root file system: the machine's, of which it can
// change nothing, below a tmpfs of its own. Only what is on its disk outlives it.
func (n *node) makeRoot() error {
	scratch, root := filepath.Join(n.dir, "scratch"), filepath.Join(n.dir, "root")
	upper, work := filepath.Join(scratch, "upper"), filepath.Join(scratch, "work")
	if err := errors.Join(
		mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""),
		mount("tmpfs", scratch, "tmpfs", 0, "mode=755"),
		os.Mkdir(upper, 0o755), os.Mkdir(work, 0o755),
		mount("overlay", root, "overlay", 0, fmt.Sprintf("lowerdir=/,upperdir=%s,workdir=%s", upper, work)),
		mount("proc", filepath.Join(root, "proc"), "proc", 0, ""),
		mount("/sys", filepath.Join(root, "sys"), "", syscall.MS_BIND|syscall.MS_REC, ""),
		mount("/dev", filepath.Join(root, "dev"), "", syscall.MS_BIND|syscall.MS_REC, ""),
		mount("tmpfs", filepath.Join(root, "run"), "tmpfs", 0, "mode=755"),
		mount(n.shared, filepath.Join(root, n.shared), "", syscall.MS_BIND, ""),
	); err != nil {
		return err
	}
	for _, dir := range []string{"var/lib/containerd", "var/lib/kubelet", "var/log"} {
		disk := filepath.Join(n.dir, "disk", dir)
		if err := errors.Join(os.MkdirAll(disk, 0o755), mount(disk, filepath.Join(root, dir), "", syscall.MS_BIND, "")); err != nil {
			return err
		}
	}
	if err := errors.Join(syscall.Chdir(root), syscall.PivotRoot(".", "."), syscall.Unmount(".", syscall.MNT_DETACH), syscall.Chdir("/")); err != nil {
		return fmt.Errorf("changing the root: %w", err)
	}
	return n.fill()
}

// fill makes the files that are this node's and this boot's own.
func (n *node) fill() error {
	network, err := os.ReadFile(filepath.Join(n.dir, "cni.conflist"))
	if err != nil {
		return err
	}
	const cni = "/etc/cni/net.d"
	if err := errors.Join(
		os.MkdirAll(cni, 0o755), os.WriteFile(filepath.Join(cni, "10-flannel.conflist"), network, 0o644),
		os.WriteFile("/etc/hostname", []byte(n.name+"\n"), 0o644),
		os.Mkdir(filepath.Dir(uptimeFile), 0o755), writeUptime(0), mount(uptimeFile, "/proc/uptime", "", syscall.MS_BIND, ""),
	); err != nil {
		return err
	}
	bootID, err := os.ReadFile("/proc/sys/kernel/random/uuid")
	if err != nil {
		return err
	}
	for name, value := range map[string]string{
		"kernel/random/boot_id": strings.TrimSpace(string(bootID)),
		// What a kubelet would set, for the whole machine.
		"kernel/keys/root_maxbytes": "25000000",
		"kernel/keys/root_maxkeys":  "1000000",
		"kernel/panic":              "10",
		"kernel/panic_on_oops":      "1",
		"vm/overcommit_memory":      "1",
		"vm/panic_on_oom":           "0",
	} {
		file := filepath.Join("/run/node", filepath.Base(name))
		if err := errors.Join(
			os.WriteFile(file, []byte(value+"\n"), 0o644),
			mount(file, filepath.Join("/proc/sys", name), "", syscall.MS_BIND, ""),
		); err != nil {
			return err
		}
	}
	return n.loadModules()
}

// loadModules does what the kernel of the next boot does: it has the module that
// the CNI needs, or it has not.
func (n *node) loadModules() error {
	const modules = "/run/modules"
	if err := os.Mkdir(modules, 0o755); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(n.dir, "no-vxlan")); err == nil {
		return nil
	}
	return os.WriteFile(filepath.Join(modules, "vxlan"), nil, 0o644)
}

// writeUptime writes in place, always the same number of bytes: who reads
// meanwhile reads one time or the other.
func writeUptime(uptime time.Duration) error {
	file, err := os.OpenFile(uptimeFile, os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer file.Close()
	_, err = fmt.Fprintf(file, "%010.2f 0.00\n", uptime.Seconds())
	return err
}

// mount makes the mount point where it is missing.
func mount(source, target, kind string, flags uintptr, data string) error {
	if info, err := os.Stat(source); err == nil && !info.IsDir() {
		// Bound to a file, which is there.
	} else if err := os.MkdirAll(target, 0o755); err != nil {
		return err
	}
	if err := syscall.Mount(source, target, kind, flags, data); err != nil {
		return fmt.Errorf("mounting %s: %w", target, err)
	}
	return nil
}
