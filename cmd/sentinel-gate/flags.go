package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/pflag"
)

// flags are the command line.
type flags struct {
	config, nodeName, namespace, kubeconfig string
	listenAddress, logLevel, logFormat      string
	hostProc                                string
	once, checkConfig, version              bool
	verify, printRBAC                       bool
	shortTurn                               bool
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
	set.StringVar(&f.hostProc, "host-proc", "/proc", "where the host's boot id, uptime and processes are read")
	set.BoolVar(&f.once, "once", false, "evaluate once, print a table and touch nothing; exit 0 if every step passes, 1 if one does not, 2 if that cannot be found out")
	set.BoolVar(&f.checkConfig, "check-config", false, "report every mistake in the configuration, and exit")
	set.BoolVar(&f.verify, "verify", false, "show of each step what it looks at and what would make it fail, and touch nothing; exit 0 if every step can fail, 1 if one cannot, 2 if that cannot be found out")
	set.BoolVar(&f.printRBAC, "print-rbac", false, "print the ClusterRole that the configured steps need, and exit")
	set.BoolVar(&f.version, "version", false, "print the version, and exit")
	// Tests cannot wait for as long as kured may take from its look to its lock.
	set.BoolVar(&f.shortTurn, "short-turn", false, "accept a turn.settle, turn.grantTimeout and turn.goFirstAfter that are too short to be safe; for tests alone")
	_ = set.MarkHidden("short-turn")
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
