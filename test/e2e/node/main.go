// Command node is the first process of a node that is no machine of its own: in
// namespaces of its own it makes a root file system, starts containerd and a
// kubelet there, and reboots when it gets the signal that reboots systemd. With
// it ends all that runs on the node, and all that is mounted there.
package main

import (
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// reboot is SIGRTMIN+5.
const reboot = syscall.Signal(39)

// startTimeout bounds each step of a boot.
const startTimeout = time.Minute

// path is where a node's programs are.
const path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

type node struct {
	name, address, gateway string
	// dir is the node's own, images and kubelet are for all nodes; both are below shared.
	shared, dir, images, kubelet string
}

func main() {
	var n node
	flag.StringVar(&n.name, "name", "", "name of the Node object")
	flag.StringVar(&n.address, "address", "", "address with prefix of eth0, which somebody else makes")
	flag.StringVar(&n.gateway, "gateway", "", "address of the default route")
	flag.StringVar(&n.shared, "shared", "", "directory that the node sees under the same name")
	flag.StringVar(&n.dir, "dir", "", "directory with the node's configuration and disk")
	flag.StringVar(&n.images, "images", "", "directory of archives to import at the first boot")
	flag.StringVar(&n.kubelet, "kubelet", "", "path of the kubelet")
	flag.Parse()
	if os.Getpid() != 1 {
		log.Fatal("this is no node: not the first process of a pid namespace")
	}
	log.SetPrefix(n.name + " ")
	log.SetFlags(log.Ltime | log.Lmicroseconds | log.LUTC)
	if err := n.run(); err != nil {
		log.Fatal(err)
	}
}

// run returns nil when the node reboots.
func (n *node) run() error {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, reboot)
	log.Print("booting")
	started := time.Now()
	if err := errors.Join(syscall.Sethostname([]byte(n.name)), n.makeRoot()); err != nil {
		return err
	}
	if err := n.connect(); err != nil {
		return err
	}
	log.Print("starting containerd")
	containerd, err := n.start("containerd", "--config", filepath.Join(n.dir, "containerd.toml"))
	if err != nil {
		return err
	}
	if err := await("containerd", func() error { return run("ctr", "version") }); err != nil {
		return err
	}
	if err := n.importImages(); err != nil {
		return err
	}
	log.Print("starting the kubelet")
	ip, _, _ := strings.Cut(n.address, "/")
	// Without its address it asks a DNS that is not there, and waits.
	kubelet, err := n.start(n.kubelet, "--config", filepath.Join(n.dir, "kubelet.yaml"),
		"--kubeconfig", filepath.Join(n.dir, "kubelet.kubeconfig"), "--hostname-override", n.name, "--node-ip", ip)
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- reap(map[int]string{containerd: "containerd", kubelet: "kubelet"}) }()
	for tick := time.Tick(time.Second); ; {
		select {
		case <-signals:
			log.Print("rebooting")
			return nil
		case err := <-ended:
			return err
		case <-tick:
			if err := writeUptime(time.Since(started)); err != nil {
				return err
			}
		}
	}
}

// reap waits for every process that lost its parent, until one of these ends.
func reap(needed map[int]string) error {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("waiting for processes: %w", err)
		}
		if name, ok := needed[pid]; ok {
			return fmt.Errorf("%s ended: exit status %d, signal %d", name, status.ExitStatus(), status.Signal())
		}
	}
}

func (n *node) connect() error {
	if err := await("eth0", func() error { return run("ip", "link", "show", "dev", "eth0") }); err != nil {
		return err
	}
	return errors.Join(
		run("ip", "link", "set", "lo", "up"),
		run("ip", "address", "add", n.address, "dev", "eth0"),
		run("ip", "link", "set", "eth0", "up"),
		run("ip", "route", "add", "default", "via", n.gateway),
		os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0),
	)
}

// importImages loads the images once: they stay on the disk.
func (n *node) importImages() error {
	done := filepath.Join(n.dir, "imported")
	if _, err := os.Stat(done); err == nil {
		return nil
	}
	archives, err := filepath.Glob(filepath.Join(n.images, "*.tar"))
	if err != nil {
		return err
	}
	for _, archive := range archives {
		if err := run("ctr", "--namespace", "k8s.io", "images", "import", archive); err != nil {
			return err
		}
	}
	return os.WriteFile(done, nil, 0o644)
}

// start starts a server with a log of its own, and returns its process id.
func (n *node) start(program string, args ...string) (int, error) {
	name := filepath.Base(program)
	binary, err := exec.LookPath(program)
	if err != nil {
		return 0, err
	}
	file, err := os.OpenFile(filepath.Join("/var/log", name+".log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	// Not by package exec: reap is who waits.
	process, err := os.StartProcess(binary, append([]string{binary}, args...), &os.ProcAttr{Env: []string{path}, Files: []*os.File{nil, file, file}})
	if err != nil {
		return 0, fmt.Errorf("starting %s: %w", name, err)
	}
	return process.Pid, nil
}

func run(name string, args ...string) error {
	cmd := exec.Command(name, args...) //nolint:noctx // it ends with the node
	cmd.Env = []string{path}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", cmd, err, out)
	}
	return nil
}

// await polls until f returns nil.
func await(what string, f func() error) error {
	deadline, tick := time.After(startTimeout), time.Tick(50*time.Millisecond)
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-tick:
		case <-deadline:
			return fmt.Errorf("waiting for %s: %w", what, err)
		}
	}
}
