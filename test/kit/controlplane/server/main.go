// Command server is a whole control plane in one binary, so that a test needs one build and no downloads:
//
//	server etcd|kube-apiserver|kube-controller-manager|kube-scheduler|kubectl ARGS...
//	server supervise COMMAND ARGS...
//
// With SENTINEL_GATE_TEST_STDIN=1 a server lives no longer than the writer of its standard input. A test binary that
// panics, times out or is killed with SIGKILL runs no cleanup, but the kernel closes its pipes.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	kubectl "k8s.io/kubectl/pkg/cmd"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
)

// grace is how long a supervised command has between SIGTERM and SIGKILL.
const grace = 5 * time.Second

func main() {
	if len(os.Args) < 2 {
		usage()
	}
	name, args := os.Args[1], os.Args[2:]
	// Every one of these reads os.Args itself and expects its own name in front.
	os.Args = os.Args[1:]

	switch name {
	case "kubectl":
		os.Exit(cli.Run(kubectl.NewDefaultKubectlCommand()))
	case "supervise":
		os.Exit(supervise(args))
	}

	if tethered() {
		go func() {
			awaitEOF()
			// Nothing here is worth a clean shutdown, which takes an API server up to a minute.
			os.Exit(1)
		}()
	}
	switch name {
	case "etcd":
		etcdmain.Main(os.Args)
	case "kube-apiserver":
		serve(apiserver.NewAPIServerCommand())
	case "kube-controller-manager":
		serve(controllermanager.NewControllerManagerCommand())
	case "kube-scheduler":
		serve(scheduler.NewSchedulerCommand())
	default:
		usage()
	}
}

func usage() {
	fmt.Fprintln(os.Stderr, "usage: server etcd|kube-apiserver|kube-controller-manager|kube-scheduler|kubectl|supervise ARGS...")
	os.Exit(2)
}

func serve(command *cobra.Command) { os.Exit(cli.Run(command)) }

func tethered() bool { return os.Getenv("SENTINEL_GATE_TEST_STDIN") == "1" }

func awaitEOF() { _, _ = io.Copy(io.Discard, os.Stdin) }

// supervise runs a command that knows nothing of the tether and returns its exit code, or 128 plus the number of the
// signal that ended it. The supervisor stays awake while a test pauses the command with SIGSTOP, so a paused command
// cannot outlive the test either. With SENTINEL_GATE_TEST_PID=1 it writes the command's process ID to descriptor 3.
func supervise(args []string) int {
	if len(args) == 0 {
		usage()
	}
	stdin, pid := tethered(), os.Getenv("SENTINEL_GATE_TEST_PID") == "1"
	// The command may be this very program, whose standard input would then be /dev/null.
	_ = os.Unsetenv("SENTINEL_GATE_TEST_STDIN")
	_ = os.Unsetenv("SENTINEL_GATE_TEST_PID")
	if pid {
		syscall.CloseOnExec(3)
	}
	child := exec.Command(args[0], args[1:]...)
	child.Stdout, child.Stderr = os.Stdout, os.Stderr
	if err := child.Start(); err != nil {
		fmt.Fprintf(os.Stderr, "starting %s: %v\n", args[0], err)
		return 127
	}
	if pid {
		report := os.NewFile(3, "pid")
		fmt.Fprintln(report, child.Process.Pid)
		_ = report.Close()
	}

	terminate := make(chan os.Signal, 1)
	signal.Notify(terminate, syscall.SIGTERM, syscall.SIGINT)
	if stdin {
		go func() {
			awaitEOF()
			terminate <- syscall.SIGTERM
		}()
	}
	go func() {
		<-terminate
		_ = child.Process.Signal(syscall.SIGTERM)
		// A command that is paused, or that drains for a minute, acts on nothing but SIGKILL.
		time.AfterFunc(grace, func() { _ = child.Process.Kill() })
	}()

	err := child.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		fmt.Fprintf(os.Stderr, "waiting for %s: %v\n", args[0], err)
		return 1
	}
	if status := child.ProcessState.Sys().(syscall.WaitStatus); status.Signaled() {
		return 128 + int(status.Signal())
	}
	return child.ProcessState.ExitCode()
}
