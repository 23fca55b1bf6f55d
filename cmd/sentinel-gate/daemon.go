package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"k8s.io/klog/v2"

	"github.com/sentinel-gate/sentinel-gate/gate"
	"github.com/sentinel-gate/sentinel-gate/gate/cluster"
	"github.com/sentinel-gate/sentinel-gate/gate/record"
	"github.com/sentinel-gate/sentinel-gate/gate/tether"
	"github.com/sentinel-gate/sentinel-gate/gate/wiring"
)

// daemon runs the gate until ctx ends. What an earlier life left open is closed
// first, also where the configuration is refused: unless the mistake is in the
// path itself, which then may be anybody's.
func daemon(ctx context.Context, f flags, stdout io.Writer) error {
	log, err := gate.NewLog(stdout, f.logFormat, f.logLevel, f.nodeName)
	klog.SetSlogLogger(log)
	cluster, clusterErr := connect(f)
	c, configErr := f.load(cluster)
	misuse := errors.Join(err, clusterErr, configErr)
	if misuse != nil && !c.sentinelSound {
		return unusable{fatal(log, misuse)}
	}
	gated, err := gate.Claim(c.Sentinel.Gated, c.Sentinel.Mode)
	if err == nil && misuse != nil {
		err = gated.Release()
	}
	if misuse != nil {
		return unusable{fatal(log, errors.Join(misuse, err))}
	}
	if err != nil {
		return fatal(log, err)
	}
	if err := c.served(ctx, f.config); err != nil {
		return unusable{fatal(log, errors.Join(err, gated.Release()))}
	}
	if err := work(ctx, f, c, cluster, gated, log); err != nil {
		return fatal(log, errors.Join(err, gated.Release()))
	}
	return gated.Release()
}

func fatal(log *slog.Logger, err error) error {
	log.Error("the gate cannot run; it is closed", "error", err)
	return reported{err}
}

// work wires the parts together.
func work(ctx context.Context, f flags, c *configuration, cluster *cluster.Cluster, gated *gate.Gated, log *slog.Logger) error {
	if err := gated.Prove(); err != nil {
		return err
	}
	pipeline, err := c.pipeline()
	if err != nil {
		return err
	}
	writer, err := record.NewWriter(cluster.LeaseClient(), f.nodeName, c.hash, f.hostProc, log)
	if err != nil {
		return err
	}
	cluster.Witness.Persists = c.soak(nil)
	reader, tell := c.readsPackages(f)
	if tell != nil {
		writer.TellParts(*tell)
	}
	warn(log, c, gated)
	if f.shortTurn {
		log.Warn("--short-turn is for tests: with a turn.settle that is shorter than kured takes from its look to its lock, two nodes may reboot at once")
	}
	taken, err := newTurn(f, c, writer, log)
	if err != nil {
		return err
	}
	changed, stopWatching, unwatched := gate.WatchFiles(append([]string{c.Sentinel.Gated}, c.Sentinel.Raw...))
	defer stopWatching()
	if unwatched != nil {
		log.Warn("not every directory can be watched: changes there are seen at the next interval", "error", unwatched, "interval", c.Interval.String())
	}
	registry := newRegistry(writer)
	metrics := gate.NewMetrics(registry)
	var looked atomic.Bool
	loop := &gate.Loop{
		Pipeline: pipeline, Gated: gated, RawPaths: c.Sentinel.Raw, Changed: changed,
		Interval: time.Duration(c.Interval), MaxAge: time.Duration(c.MaxAge), Stabilize: time.Duration(c.Stabilize),
		Wiring: func() wiring.Finding { return lookedAt(f, c) },
		Turn:   taken, Log: log,
		Report: func(s gate.Status) {
			metrics.Report(s)
			writer.Set(s.State.String(), s.Decision.Blocking().Names(), s.Raw.Since, s.Parts.Wants)
			looked.Store(true)
		},
	}
	if reader != nil {
		loop.Parts = reader.Read
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", f.listenAddress)
	if err != nil {
		return fmt.Errorf("listening for --listen-address: %w", err)
	}
	server := &http.Server{Handler: endpoints(registry, loop, &looked, writer), ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: time.Minute}
	log.Info("the gate starts, closed", "version", buildVersion(), "config", f.config, "configHash", c.hash, "checks", len(c.steps),
		"gated", c.Sentinel.Gated, "mode", string(c.Sentinel.Mode), "raw", []string(c.Sentinel.Raw), "listenAddress", listener.Addr().String())

	background, stop := context.WithCancel(ctx)
	var all sync.WaitGroup
	all.Go(func() { writer.Run(background) })
	all.Go(func() { _ = server.Serve(listener) })
	err = loop.Run(ctx)
	stop()
	_ = server.Close()
	all.Wait()
	return err
}

// lookedAt finds what kured looks at.
func lookedAt(f flags, c *configuration) wiring.Finding {
	return wiring.Find(f.hostProc, c.Sentinel.Gated, c.Sentinel.Raw)
}

// warn says what is allowed but not advisable.
func warn(log *slog.Logger, c *configuration, gated *gate.Gated) {
	if gated.Persistent() {
		log.Warn("the gated sentinel is on a file system that outlives a reboot: put it on a tmpfs, such as /run; a plain file left there would reboot the node again and again", "gated", c.Sentinel.Gated)
	}
	if c.Sentinel.Mode == gate.ModeTether && !tether.SeesKernelThreads() {
		log.Warn("no kernel threads in /proc: this is not the machine's own pid namespace. That is expected where the node itself is a container; otherwise kured cannot see the gate's threads: set hostPID: true for the pod")
	}
	if c.Sentinel.Mode == gate.ModeFile {
		log.Warn("sentinel.mode is file: a gate that is killed or hangs leaves the gated sentinel behind, and kured will act on it", "gated", c.Sentinel.Gated)
	}
}

func newRegistry(writer *record.Writer) *prometheus.Registry {
	registry := prometheus.NewRegistry()
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "sentinel_gate_build_info", Help: "1, with the version of the gate.",
	}, []string{"version", "goversion"})
	build.WithLabelValues(buildVersion(), runtime.Version()).Set(1)
	registry.MustRegister(build, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "sentinel_gate_record_write_failures_total", Help: "Failed attempts to write the node's record.",
		}, func() float64 { return float64(writer.Failures()) }))
	return registry
}

// endpoints serves the metrics; liveness, which fails when the loop hangs; and
// readiness, which waits for the first look and for the node's record.
func endpoints(registry *prometheus.Registry, loop *gate.Loop, looked *atomic.Bool, writer *record.Writer) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{Registry: registry}))
	answer := func(w http.ResponseWriter, ok bool, problem string) {
		if !ok {
			http.Error(w, problem, http.StatusServiceUnavailable)
			return
		}
		_, _ = io.WriteString(w, "ok\n")
	}
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, loop.Alive(), "the gate's loop is stuck")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !looked.Load() {
			answer(w, false, "the raw sentinel was not looked at yet")
			return
		}
		answer(w, writer.Written(), "the node's record is not written: see the log")
	})
	return mux
}
