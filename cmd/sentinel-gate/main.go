// Command sentinel-gate is the daemon that decides, for one node, whether kured
// may see that a reboot is required.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/pflag"
)

// version is set by the linker; a plain go build leaves it to the module.
var version string

// Exit statuses.
const (
	exitOK       = 0
	exitBlocked  = 1 // --once: a step does not pass; otherwise: the daemon failed
	exitUnusable = 2 // the flags, the configuration or the cluster cannot be used
)

// unusable is an error that ends with exitUnusable, told one that the table or
// the log has shown already.
type (
	unusable struct{ error }
	told     struct{ error }
)

func (u unusable) Unwrap() error { return u.error }
func (t told) Unwrap() error     { return t.error }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	os.Exit(status(err, os.Stderr))
}

func status(err error, stderr io.Writer) int {
	if err == nil || errors.Is(err, pflag.ErrHelp) {
		return exitOK
	}
	if !errors.As(err, new(told)) {
		fmt.Fprintln(stderr, "sentinel-gate:", err)
	}
	if errors.As(err, new(unusable)) {
		return exitUnusable
	}
	return exitBlocked
}

// flags are the command line.
type flags struct {
	config, nodeName, namespace, kubeconfig string
	listenAddress, logLevel, logFormat      string
	hostProc                                string
	once, checkConfig, version              bool
}

func parse(args []string, stdout io.Writer) (flags, error) {
	var f flags
	set := pflag.NewFlagSet("sentinel-gate", pflag.ContinueOnError)
	set.SortFlags = false
	set.SetOutput(stdout)
	set.StringVar(&f.config, "config", "/etc/sentinel-gate/config.yaml", "file with the GateConfiguration")
	set.StringVar(&f.nodeName, "node-name", os.Getenv("NODE_NAME"), "name of this Node object; by default $NODE_NAME")
	set.StringVar(&f.namespace, "namespace", os.Getenv("POD_NAMESPACE"), "namespace of the records; by default $POD_NAMESPACE")
	set.StringVar(&f.kubeconfig, "kubeconfig", "", "kubeconfig file; by default the pod's own ServiceAccount")
	set.StringVar(&f.listenAddress, "listen-address", ":9817", "address of /metrics, /healthz and /readyz")
	set.StringVar(&f.logLevel, "log-level", "info", "debug, info, warn or error")
	set.StringVar(&f.logFormat, "log-format", "json", "json or text")
	set.StringVar(&f.hostProc, "host-proc", "/proc", "where the host's boot id and uptime are read")
	set.BoolVar(&f.once, "once", false, "evaluate once, print a table and touch nothing; exit 0 if every step passes, 1 if one does not, 2 if it cannot be told")
	set.BoolVar(&f.checkConfig, "check-config", false, "report every mistake in the configuration, and exit")
	set.BoolVar(&f.version, "version", false, "print the version, and exit")
	if err := set.Parse(args); err != nil {
		if errors.Is(err, pflag.ErrHelp) {
			return f, err
		}
		return f, unusable{err}
	}
	if set.NArg() > 0 {
		return f, unusable{fmt.Errorf("unexpected argument %q", set.Arg(0))}
	}
	return f, nil
}

func run(ctx context.Context, args []string, stdout io.Writer) error {
	f, err := parse(args, stdout)
	if err != nil {
		return err
	}
	switch {
	case f.version:
		fmt.Fprintln(stdout, "sentinel-gate", buildVersion())
		return nil
	case f.checkConfig:
		return checkConfig(f, stdout)
	case f.once:
		return once(ctx, f, stdout)
	}
	return daemon(ctx, f, stdout)
}

func buildVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}
