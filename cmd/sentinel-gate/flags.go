package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/prometheus/common/model"
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
	forecast                                bool
	whatIf                                  whatIf
}

// whatIf is what --forecast assumes in the place of what it finds.
type whatIf struct {
	nodes, controlPlane, growth int
	minutesPerNode, flaps       float64
	window, most                string
	changeEvery, soak           model.Duration
	given                       func(flag string) bool
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
	set.BoolVar(&f.forecast, "forecast", false, "tell how a rollout will go, of this cluster or, with --nodes, of one that is thought of, and exit")
	w := &f.whatIf
	set.IntVar(&w.nodes, "nodes", 0, "with --forecast: so many workers that all wait, and no cluster is asked")
	set.IntVar(&w.controlPlane, "control-plane-nodes", 0, "with --nodes: and so many of the control plane")
	set.Float64Var(&w.minutesPerNode, "minutes-per-node", 0, "with --forecast: from one node's boot to the next one's; by default as the records show it, else 15")
	set.StringVar(&w.window, "window", "", "with --forecast: kured's window, such as 22:00-02:00")
	set.Float64Var(&w.flaps, "flaps-per-node-year", 0, "with --forecast: how often each node flaps")
	changeEvery, soak := set.String("change-every", "", "with --forecast: how often every node gets a new version, such as 7d"), set.String("soak", "", "with --forecast: the soak")
	set.IntVar(&w.growth, "growth", 0, "with --forecast: growth of the exposure; 0: one node in soak at a time")
	set.StringVar(&w.most, "max", "", "with --forecast: max of the exposure, such as 25%")
	w.given = set.Changed
	// Tests cannot wait for as long as kured may take from its look to its lock.
	set.BoolVar(&f.shortTurn, "short-turn", false, "accept a turn.settle, turn.grantTimeout and turn.goFirstAfter that are too short to be safe; for tests alone")
	_ = set.MarkHidden("short-turn")
	if err := set.Parse(args); err != nil {
		if errors.Is(err, pflag.ErrHelp) {
			return f, err
		}
		return f, unusable{err}
	}
	for text, into := range map[*string]*model.Duration{changeEvery: &w.changeEvery, soak: &w.soak} {
		if *text == "" {
			continue
		}
		if err := into.Set(*text); err != nil {
			return f, unusable{err}
		}
	}
	if set.NArg() > 0 {
		return f, unusable{fmt.Errorf("unexpected argument %q", set.Arg(0))}
	}
	return f, nil
}
