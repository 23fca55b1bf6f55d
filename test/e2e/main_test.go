// Package e2e tests a rollout from end to end: real nodes (kubelet, containerd,
// runc) of a real control plane, the project's own chart and image, and a
// kured that reboots the nodes. What it starts lives in namespaces that end with
// the test: no process and no mount outlives it, however it is killed.
package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"github.com/sentinel-gate/sentinel-gate/test/kit/build"
	"github.com/sentinel-gate/sentinel-gate/test/kit/controlplane"
	"github.com/sentinel-gate/sentinel-gate/test/kit/helm"
)

const (
	// wanted is set by make e2e.
	wanted = "SENTINEL_GATE_E2E"
	// part says what this process is of the three that a run is made of:
	//
	//   the test binary as go test starts it, which only waits;
	//   a keeper, which survives it just long enough to clean up;
	//   the tests, as the first process of their namespaces.
	part = "SENTINEL_GATE_E2E_PART"
	// shared is the directory that the keeper made for the tests.
	shared = "SENTINEL_GATE_E2E_DIR"
)

func TestMain(m *testing.M) {
	status, err := 0, error(nil)
	switch role := os.Getenv(part); {
	case role == "keeper":
		status, err = keep()
	case role == "" && len(missing()) == 0:
		status, err = startKeeper()
	default:
		if role == "tests" {
			err = isolate()
		}
		if err == nil {
			status = m.Run()
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		status = 1
	}
	os.Exit(status)
}

// startKeeper waits for a keeper, which notices by its standard input if this
// process dies. It is in a process group of its own, for whoever interrupts or
// kills the test does not mean the cleaning up.
func startKeeper() (int, error) {
	keeper := self("keeper")
	keeper.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if _, err := keeper.StdinPipe(); err != nil {
		return 0, err
	}
	return exitCode(keeper.Run())
}

// keep builds, runs the tests in namespaces of their own, and removes what they
// leave on the machine: a directory and control groups.
func keep() (status int, err error) {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		stop()
	}()
	// What is left to say goes nowhere when the test is dead. Not ignored, for
	// that is inherited by all that is started here.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	dir, err := os.MkdirTemp("", "sentinel-gate-e2e-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := buildAll(ctx, filepath.Join(dir, "bin")); err != nil {
		return 0, err
	}
	if err := makeCgroups(filepath.Base(dir)); err != nil {
		return 0, errors.Join(err, removeCgroups(filepath.Base(dir)))
	}
	defer func() { err = errors.Join(err, removeCgroups(filepath.Base(dir))) }()

	// The kernel kills the tests with the thread that started them.
	runtime.LockOSThread()
	tests := self("tests")
	tests.Env = append(tests.Env, shared+"="+dir)
	tests.SysProcAttr = &syscall.SysProcAttr{
		Pdeathsig:  syscall.SIGKILL,
		Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC,
	}
	if err := tests.Start(); err != nil {
		return 0, err
	}
	killed := context.AfterFunc(ctx, func() { _ = tests.Process.Kill() })
	defer killed()
	// When the first process of a pid namespace has ended, all others have.
	return exitCode(tests.Wait())
}

// isolate hides the machine's process table, keeps mounts from it, and makes
// 127.0.0.1 work.
func isolate() error {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making mounts private: %w", err)
	}
	if err := syscall.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mounting /proc: %w", err)
	}
	return ip("link set lo up")
}

// self is this program again, as another part of the run.
func self(as string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...) //nolint:noctx // it ends with its standard input
	cmd.Env = append(os.Environ(), part+"="+as)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd
}

func exitCode(err error) (int, error) {
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return max(exit.ExitCode(), 1), nil
	}
	return 0, err
}

// buildAll puts the programs of a run into dir: the tests have no network.
func buildAll(ctx context.Context, dir string) error {
	if _, err := controlplane.ServerBinary(ctx, os.Stderr); err != nil {
		return err
	}
	if _, err := helm.Binary(ctx, os.Stderr); err != nil {
		return err
	}
	kubelet, err := controlplane.KubeletBinary(ctx, os.Stderr)
	if err != nil {
		return err
	}
	root, err := build.Root()
	if err != nil {
		return err
	}
	// As the Dockerfile does.
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -X main.version=e2e", "-o", dir+"/",
		"./cmd/sentinel-gate", "./test/e2e/node", "./test/e2e/pods")
	cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building sentinel-gate and the programs of the test: %w\n%s", err, out)
	}
	// A node sees the directory of the run, and the cache perhaps not.
	return copyFile(kubelet, filepath.Join(dir, "kubelet"))
}

func copyFile(from, to string) error {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(target, source)
	return errors.Join(err, target.Close())
}
