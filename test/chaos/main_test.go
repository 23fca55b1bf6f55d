// Package chaos sends many real daemons, each on a host of its own and behind a
// proxy of its own, through simulated reboots and faults, and watches all gated
// paths meanwhile: never may two gates be open, nor one while kured acts on what
// it saw of another, nor any within a soak.
package chaos

import (
	"context"
	"flag"
	"os"
	"testing"
	"time"

	"github.com/sentinel-gate/sentinel-gate/test/kit/cluster"
	"github.com/sentinel-gate/sentinel-gate/test/kit/controlplane"
	"github.com/sentinel-gate/sentinel-gate/test/kit/daemon"
	"github.com/sentinel-gate/sentinel-gate/test/kit/suite"
)

var (
	seed    = flag.Uint64("seed", 0, "of the faults; 0 takes one from the clock")
	daemons = flag.Int("daemons", 4, "how many nodes")
	reboots = flag.Int("reboots", 2, "how many reboots, before the faults end")
	tell    = flag.Bool("timeline", false, "print what happens when it does")
	figures = flag.Bool("figures", false, "measure what docs/benchmarks.md states")
)

// running is what the tests share. Each starts a control plane of its own.
type running struct{ dir, binary string }

var shared = &suite.Shared[running]{Make: func(ctx context.Context, s *suite.Setup) (r running, err error) {
	if r.dir, err = s.TempDir(); err != nil {
		return r, err
	}
	// What is measured is what is shipped; what is tormented has the race detector.
	r.binary, err = daemon.Binary(ctx, r.dir, !*figures)
	return r, err
}}

func TestMain(m *testing.M) { suite.Main(m, shared) }

// start starts a control plane, and returns the kubeconfig of the ServiceAccount
// that is shipped.
func start(t *testing.T) (*controlplane.ControlPlane, string) {
	t.Helper()
	ctx := suite.Context(t, 30*time.Minute) // the first build
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
