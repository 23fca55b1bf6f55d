// Command bench measures what docs/benchmarks.md states, and prints its table.
// It takes about three quarters of an hour, most of which it waits for gates to do
// nothing. Every figure comes from the real daemon on a real API server.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/sentinel-gate/sentinel-gate/test/kit/cluster"
	"github.com/sentinel-gate/sentinel-gate/test/kit/controlplane"
	"github.com/sentinel-gate/sentinel-gate/test/kit/daemon"
	"github.com/sentinel-gate/sentinel-gate/test/kit/prometheus"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// row is a line of the table.
type row struct{ figure, target, measured string }

// bench is what the measurements share.
type bench struct {
	dir, binary string
	prom        *prometheus.Prometheus
	rows        []row
	hosts       int
}

func (b *bench) add(figure, target, format string, args ...any) {
	b.rows = append(b.rows, row{figure, target, fmt.Sprintf(format, args...)})
	fmt.Fprintf(os.Stderr, "%s: %s\n", figure, b.rows[len(b.rows)-1].measured)
}

func run(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "sentinel-gate-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b := &bench{dir: dir}
	if b.binary, err = daemon.Binary(ctx, dir, false); err != nil {
		return err
	}
	if b.prom, err = prometheus.Start(ctx, prometheus.Options{Progress: os.Stderr, Rules: "groups: [{name: bench, rules: [{alert: Watchdog, expr: vector(1)}]}]"}); err != nil {
		return err
	}
	defer b.prom.Stop()

	parts := map[string]func(context.Context) error{"5": b.onFive, "types": b.allOnFive, "1000": b.onAThousand, "5000": b.onThousands, "waiting": b.waiting}
	names := os.Args[1:]
	if len(names) == 0 {
		names = []string{"5", "types", "1000", "5000", "waiting", "idle"}
	}
	idle := make(chan error, 1)
	var idleRow row
	if slices.Contains(names, "idle") {
		go func() {
			var err error
			idleRow, err = b.idle(ctx)
			idle <- err
		}()
	}
	for _, name := range names {
		part, ok := parts[name]
		switch {
		case ok:
			err = part(ctx)
		case name == "idle":
			fmt.Fprintln(os.Stderr, "waiting for the ten minutes of the idle gate to end")
			err = <-idle
			b.rows = append(b.rows, idleRow)
		default:
			err = fmt.Errorf("there is no part %q: want 5, types, 1000, 5000, waiting or idle", name)
		}
		if err != nil {
			return err
		}
	}
	b.print()
	return nil
}

func (b *bench) print() {
	fmt.Printf("%s/%s, %d cores, %s, API server of Kubernetes 1.36, loopback\n\n", runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.Version())
	fmt.Println("| figure | target | measured |")
	fmt.Println("|---|---|---|")
	for _, r := range b.rows {
		fmt.Printf("| %s | %s | %s |\n", r.figure, r.target, r.measured)
	}
}

// site is a control plane with a cluster, and the gate's own kubeconfig.
type site struct {
	*cluster.Cluster
	cp         *controlplane.ControlPlane
	kubeconfig string
}

func (b *bench) site(ctx context.Context, size int, o controlplane.Options) (*site, error) {
	o.Progress = os.Stderr
	cp, err := controlplane.Start(ctx, o)
	if err != nil {
		return nil, err
	}
	s := &site{cp: cp}
	if s.kubeconfig, err = cluster.Authorize(ctx, cp); err == nil {
		s.Cluster, err = cluster.New(ctx, cp, size)
	}
	if err != nil {
		cp.Stop()
		return nil, err
	}
	return s, nil
}

const (
	steps = `- {name: nodes, type: nodesReady, options: {minimum: %d}}
- {name: cni, type: podsReady, options: {preset: auto}}
- {name: soak, type: readySoak}
- {name: alerts, type: alerts, options: {prometheus: {url: %q}, requireFiringAgo: 2s}}`
	quick = "interval: 500ms\nmaxAge: 5s\ntimeout: 2s\nstabilize: 0s"
)

// options are those of a daemon of the first node, on a host of its own, that
// wants so many nodes.
func (b *bench) options(s *site, minimum int, settings string) (daemon.Options, error) {
	b.hosts++
	host, err := daemon.NewHost(filepath.Join(b.dir, fmt.Sprint(b.hosts)), s.Nodes[0].BootID(), cluster.BootedAgo)
	return daemon.Options{
		Binary: b.binary, Host: host, Node: s.Nodes[0].Name, Namespace: cluster.Namespace, Kubeconfig: s.kubeconfig,
		Checks: fmt.Sprintf(steps, minimum, b.prom.URL()), Settings: settings,
	}, err
}

// await polls, at a pace that leaves the cores to what is measured.
func await(ctx context.Context, what string, f func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	return controlplane.Poll(ctx, func() error {
		if !f() {
			return fmt.Errorf("not yet: %s", what)
		}
		return nil
	})
}

// spin waits for f as exactly as it can be told, and returns how long that took.
func spin(since time.Time, f func() bool) (time.Duration, error) {
	for !f() {
		if time.Since(since) > 30*time.Second {
			return 0, fmt.Errorf("nothing happened in 30 s")
		}
		runtime.Gosched()
	}
	return time.Since(since), nil
}

func quantile(sorted []time.Duration, q float64) time.Duration {
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

func sorted(d []time.Duration) []time.Duration {
	d = slices.Clone(d)
	slices.Sort(d)
	return d
}

func ms(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000) }

func mib(bytes float64) string { return fmt.Sprintf("%.1f MiB", bytes/(1<<20)) }

// idle counts what an idle gate asks of the API server in ten minutes.
func (b *bench) idle(ctx context.Context) (row, error) {
	const watched = 10 * time.Minute
	s, err := (&bench{dir: b.dir}).site(ctx, 5, controlplane.Options{Audit: true})
	if err != nil {
		return row{}, err
	}
	defer s.cp.Stop()
	o, err := (&bench{dir: filepath.Join(b.dir, "idle"), binary: b.binary, prom: b.prom}).options(s, 1, "")
	if err != nil {
		return row{}, err
	}
	d, err := daemon.Start(ctx, o)
	if err != nil {
		return row{}, err
	}
	defer func() { _ = d.Signal(syscall.SIGKILL) }()
	if err := await(ctx, "a ready gate", func() bool {
		status, _, err := d.Get(ctx, "/readyz")
		return err == nil && status == 200
	}); err != nil {
		return row{}, fmt.Errorf("%w\n%s", err, d.Log())
	}
	started, err := s.cp.Requests(cluster.User, time.Time{})
	if err != nil {
		return row{}, err
	}
	select {
	case <-time.After(watched):
	case <-ctx.Done():
		return row{}, ctx.Err()
	}
	all, err := s.cp.Requests(cluster.User, time.Time{})
	if err != nil {
		return row{}, err
	}
	return row{
		"API requests by an idle gate in ten minutes, after its start", "0",
		fmt.Sprintf("%d (and %d at its start)", len(all)-len(started), len(started)),
	}, nil
}

func words(parts ...string) string { return strings.Join(parts, "; ") }
