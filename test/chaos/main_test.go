// Package chaos sends many real daemons, each on a host of its own and behind a
// proxy of its own, through simulated reboots and faults, and watches all gated
// paths meanwhile: never may two gates be open, nor one while kured acts on what
// it saw of another, nor any within a soak.
package chaos

import (
	"context"
	"flag"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/sentinel-gate/sentinel-gate/test/kit/cluster"
	"github.com/sentinel-gate/sentinel-gate/test/kit/controlplane"
	"github.com/sentinel-gate/sentinel-gate/test/kit/daemon"
)

var (
	seed    = flag.Uint64("seed", 0, "of the faults; 0 takes one from the clock")
	daemons = flag.Int("daemons", 4, "how many nodes")
	reboots = flag.Int("reboots", 2, "how many reboots, before the faults end")
	tell    = flag.Bool("timeline", false, "print what happens when it does")
	figures = flag.Bool("figures", false, "measure what docs/benchmarks.md states")
)

var (
	dir    string // of all that is made
	binary string // of the daemon
)

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(testMain(m))
}

func testMain(m *testing.M) int {
	var err error
	if dir, err = os.MkdirTemp("", "sentinel-gate-chaos-"); err == nil {
		defer os.RemoveAll(dir)
		// What is measured is what is shipped; what is tormented has the race detector.
		binary, err = daemon.Binary(context.Background(), dir, !*figures)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// start starts a control plane, and returns the kubeconfig of the ServiceAccount
// that is shipped.
func start(t *testing.T) (*controlplane.ControlPlane, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Minute) // the first build
	defer cancel()
	cp, err := controlplane.Start(ctx, controlplane.Options{Progress: os.Stderr})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cp.Stop)
	kubeconfig, err := cluster.Authorize(ctx, cp)
	if err != nil {
		t.Fatal(err)
	}
	return cp, kubeconfig
}
