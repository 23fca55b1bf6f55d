package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sentinel-gate/sentinel-gate/test/kit/cluster"
	"github.com/sentinel-gate/sentinel-gate/test/kit/controlplane"
	"github.com/sentinel-gate/sentinel-gate/test/kit/daemon"
)

// onFive measures on five nodes.
func (b *bench) onFive(ctx context.Context) error {
	s, err := b.site(ctx, 5, controlplane.Options{})
	if err != nil {
		return err
	}
	defer s.cp.Stop()
	for _, measure := range []func(context.Context, *site) error{b.closing, b.killing, b.memory} {
		if err := measure(ctx, s); err != nil {
			return err
		}
	}
	return b.sideBySide(ctx, s, 5)
}

// closing measures, from the moment a node's kubelet begins to tell the API
// server that it is NotReady, until the gated path no longer resolves, and
// until a bare watch has seen the same event.
func (b *bench) closing(ctx context.Context, s *site) error {
	const trials = 200
	o, d, err := b.pending(ctx, s, 1, quick)
	if err != nil {
		return err
	}
	defer func() { _ = d.Signal(syscall.SIGKILL) }()
	node := s.Nodes[2]
	seen := make(chan time.Time, 16)
	if err := bareWatch(ctx, s, node.Name, seen); err != nil {
		return err
	}
	long := time.Now().Add(-cluster.BootedAgo)
	var watched, closed []time.Duration
	for range trials {
		if err := await(ctx, "an open gate", o.Host.Resolves); err != nil {
			return fmt.Errorf("%w\n%s", err, d.Log())
		}
		began := time.Now()
		told := make(chan error, 1)
		go func() {
			_, err := node.SetReady(ctx, corev1.ConditionFalse, "KubeletNotReady", long)
			told <- err
		}()
		took, err := spin(began, func() bool { return !o.Host.Resolves() })
		if err := errors.Join(err, <-told); err != nil {
			return err
		}
		closed = append(closed, took)
		watched = append(watched, (<-seen).Sub(began))
		if _, err := node.SetReady(ctx, corev1.ConditionTrue, "KubeletReady", long); err != nil {
			return err
		}
	}
	c, w := sorted(closed), sorted(watched)
	b.add("from NotReady sent to the API server to the gated path not resolving, 5 nodes, 200 trials",
		"median within 3 times a bare watch's, p99 under 250 ms",
		"median %s, p99 %s, worst %s; a bare watch: median %s, p99 %s; ratio of medians %.2f",
		ms(quantile(c, .5)), ms(quantile(c, .99)), ms(c[len(c)-1]), ms(quantile(w, .5)), ms(quantile(w, .99)),
		float64(quantile(c, .5))/float64(quantile(w, .5)))
	return nil
}

// pending starts a daemon on a host that wants a reboot.
func (b *bench) pending(ctx context.Context, s *site, minimum int, settings string) (daemon.Options, *daemon.Daemon, error) {
	o, err := b.options(s, minimum, settings)
	if err != nil {
		return o, nil, err
	}
	if err := o.Host.RequireReboot(); err != nil {
		return o, nil, err
	}
	d, err := daemon.Start(ctx, o)
	return o, d, err
}

// bareWatch tells when it saw the node NotReady.
func bareWatch(ctx context.Context, s *site, name string, seen chan<- time.Time) error {
	nodes := s.cp.Client().CoreV1().Nodes()
	current, err := nodes.List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	events, err := nodes.Watch(ctx, metav1.ListOptions{ResourceVersion: current.ResourceVersion})
	if err != nil {
		return err
	}
	go func() {
		for event := range events.ResultChan() {
			now := time.Now()
			node, ok := event.Object.(*corev1.Node)
			if !ok || node.Name != name {
				continue
			}
			for _, condition := range node.Status.Conditions {
				if condition.Type == corev1.NodeReady && condition.Status != corev1.ConditionTrue {
					seen <- now
				}
			}
		}
	}()
	return nil
}

// killing measures from SIGKILL to the gated path not resolving.
func (b *bench) killing(ctx context.Context, s *site) error {
	const trials = 50
	o, err := b.options(s, 1, quick)
	if err != nil {
		return err
	}
	if err := o.Host.RequireReboot(); err != nil {
		return err
	}
	var took []time.Duration
	for range trials {
		d, err := daemon.Start(ctx, o)
		if err != nil {
			return err
		}
		if err := await(ctx, "an open gate", o.Host.Resolves); err != nil {
			return fmt.Errorf("%w\n%s", err, d.Log())
		}
		began := time.Now()
		if err := d.Signal(syscall.SIGKILL); err != nil {
			return err
		}
		t, err := spin(began, func() bool { return !o.Host.Resolves() })
		if err != nil {
			return err
		}
		took = append(took, t)
		if _, err := d.Wait(ctx); err != nil {
			return err
		}
	}
	t := sorted(took)
	b.add("from SIGKILL to not resolving, 50 trials", "under 20 ms", "median %s, worst %s", ms(quantile(t, .5)), ms(t[len(t)-1]))
	return nil
}

// memory watches a gate that stays closed for 30,000 evaluations.
func (b *bench) memory(ctx context.Context, s *site) error {
	const evaluations = 30_000 // more than were asked for, so that a slope can be told from noise
	_, d, err := b.pending(ctx, s, 6, "interval: 5ms\nmaxAge: 5s\ntimeout: 2s")
	if err != nil {
		return err
	}
	defer func() { _ = d.Signal(syscall.SIGKILL) }()
	var xs, ys []float64
	var worst float64
	for next := 1000.0; next <= evaluations; next += 1000 {
		var done float64
		if err := await(ctx, "more evaluations", func() bool {
			done = metric(ctx, d, `sentinel_gate_evaluations_total{result="Fail"}`)
			return done >= next
		}); err != nil {
			return fmt.Errorf("%w\n%s", err, d.Log())
		}
		resident, own, err := residentBytes(d.PID())
		if err != nil {
			return err
		}
		worst = max(worst, resident)
		if done > 2000 {
			xs, ys = append(xs, done), append(ys, own)
		}
	}
	b.add("resident memory, pending for 30,000 evaluations on 5 nodes", "under 40 MiB, and no slope",
		"worst %s, of which %s are not pages of the program's file; slope of those %+.3f MiB per 1,000 evaluations", mib(worst), mib(slices.Max(ys)), slope(xs, ys)*1000/(1<<20))
	return nil
}

func metric(ctx context.Context, d *daemon.Daemon, name string) float64 {
	_, body, err := d.Get(ctx, "/metrics")
	if err != nil {
		return -1
	}
	for line := range strings.Lines(body) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			f, _ := strconv.ParseFloat(strings.TrimSpace(value), 64)
			return f
		}
	}
	return -1
}

// residentBytes returns what the process has in memory, and how much of it is
// its own: the rest are pages of its program's file.
func residentBytes(pid int) (all, own float64, err error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(data)) {
		for key, to := range map[string]*float64{"VmRSS:": &all, "RssAnon:": &own} {
			if value, ok := strings.CutPrefix(line, key); ok {
				kib, err := strconv.ParseFloat(strings.Fields(value)[0], 64)
				if err != nil {
					return 0, 0, err
				}
				*to = kib * 1024
			}
		}
	}
	return all, own, nil
}

// slope is that of the least-squares line.
func slope(xs, ys []float64) float64 {
	var sx, sy, sxx, sxy float64
	n := float64(len(xs))
	for i := range xs {
		sx, sy, sxx, sxy = sx+xs[i], sy+ys[i], sxx+xs[i]*xs[i], sxy+xs[i]*ys[i]
	}
	return (n*sxy - sx*sy) / (n*sxx - sx*sx)
}
