package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// off is how long a node is off when it reboots: what a firmware takes, shortened.
const off = 3 * time.Second

var nodeNames = []string{"n1", "n2", "n3"}

// node is a machine that boots, as far as a kubelet can tell: with a kernel of
// its own boot id, a file system of its own and its own process 1.
type node struct {
	name   string
	number int
	shared string
	dir    string

	mu      sync.Mutex
	pid     int // of its process 1, as seen from here
	boots   int
	crashed error

	powerOff context.CancelFunc
	ended    chan struct{}
}

func (n *node) address() string { return fmt.Sprintf("10.77.0.%d", 10+n.number) }
func (n *node) cgroup() string  { return filepath.Join("/", filepath.Base(n.shared), n.name) }
func (n *node) podCIDR() string { return fmt.Sprintf("10.244.%d.0/24", n.number) }

// powerOn boots the node, again after each reboot, until stop.
func (n *node) powerOn() {
	ctx, cancel := context.WithCancel(context.Background())
	n.powerOff, n.ended = cancel, make(chan struct{})
	go func() {
		defer close(n.ended)
		for {
			if err := n.boot(ctx); err != nil && ctx.Err() == nil {
				n.mu.Lock()
				n.crashed = err
				n.mu.Unlock()
				return
			}
			select {
			case <-time.After(off):
			case <-ctx.Done():
				return
			}
		}
	}()
}

// boot returns when the node reboots, with nil, or crashes.
func (n *node) boot(ctx context.Context) error {
	bin := filepath.Join(n.shared, "bin")
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "node"), "--name", n.name, "--address", n.address()+"/24", "--gateway", bridgeAddress,
		"--shared", n.shared, "--dir", n.dir, "--images", filepath.Join(filepath.Dir(n.dir), "images"), "--kubelet", filepath.Join(bin, "kubelet"))
	console, err := os.OpenFile(n.console(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer console.Close()
	cmd.Stdout, cmd.Stderr = console, console
	// What the last boot left there is not found after a real one.
	if err := errors.Join(removeCgroups(n.cgroup()), makeCgroups(n.cgroup())); err != nil {
		return err
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC,
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	n.mu.Lock()
	n.pid = cmd.Process.Pid
	n.boots++
	n.mu.Unlock()
	if err := n.attach(cmd.Process.Pid); err != nil {
		return errors.Join(err, cmd.Process.Kill(), cmd.Wait())
	}
	if err := cmd.Wait(); err != nil {
		said, _ := os.ReadFile(n.console())
		return fmt.Errorf("node %s crashed: %w\n%s", n.name, err, said)
	}
	return nil
}

// stop pulls the plug, and waits until nothing runs any more.
func (n *node) stop() {
	if n.powerOff != nil {
		n.powerOff()
		<-n.ended
	}
}

// bootCount is how often the node has booted.
func (n *node) bootCount() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.boots
}

// problem says why a node is gone for good.
func (n *node) problem() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.crashed
}

// requireReboot makes the raw sentinel, as an update of the kernel does.
func (n *node) requireReboot() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return os.WriteFile(fmt.Sprintf("/proc/%d/root/run/reboot-required", n.pid), []byte("*** System restart required ***\n"), 0o644)
}

// breakNextBoot installs a kernel with which the CNI's agent does not work.
func (n *node) breakNextBoot() error {
	return os.WriteFile(filepath.Join(n.dir, "no-vxlan"), nil, 0o644)
}

func (n *node) console() string { return filepath.Join(n.dir, "console.log") }

// kubeletLog returns the end of what the kubelet said.
func (n *node) kubeletLog() string {
	content, _ := os.ReadFile(filepath.Join(n.dir, "disk/var/log/kubelet.log"))
	lines := strings.SplitAfter(string(content), "\n")
	return strings.Join(lines[max(0, len(lines)-40):], "")
}

// logs returns the logs of the pods of a namespace on this node, of all their
// containers since the node was new.
func (n *node) logs(namespace string) string {
	files, _ := filepath.Glob(filepath.Join(n.dir, "disk/var/log/pods", namespace+"_*", "*", "*.log"))
	var all string
	for _, file := range files {
		content, _ := os.ReadFile(file)
		all += string(content)
	}
	return all
}
