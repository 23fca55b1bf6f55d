package e2e

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// soak is what a day is in production.
	soak = 45 * time.Second
	// timeout is for a kured that takes up to two minutes for its first look.
	timeout = 15 * time.Minute

	gatedSentinel = "/var/run/sentinel-gate/gated-reboot-required"
	rawSentinel   = "/var/run/reboot-required"
)

// Every node wants a reboot. Each gets one, alone, and none before the cluster
// has been quiet for the soak.
func TestRolloutOneByOne(t *testing.T) {
	need(t)
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	w := newWorld(ctx, t)
	w.must(w.installGate(ctx, soak))
	w.must(w.installKured(ctx, gatedSentinel))
	w.must(w.poll(ctx, func() error { return errors.Join(w.confined(), w.wired()) }))
	began := time.Now()
	before, err := w.bootedAt(ctx)
	w.must(err)
	w.must(w.requireReboots())
	w.must(w.poll(ctx, func() error {
		if err := w.oneOpen(ctx); err != nil {
			t.Error(err)
		}
		if rebooted := w.history.reboots(); len(rebooted) < len(w.nodes) {
			return fmt.Errorf("%d of %d nodes have rebooted", len(rebooted), len(w.nodes))
		}
		return errors.Join(w.history.ready(len(w.nodes)), w.lockIsFree(ctx), w.blocked(ctx, ""))
	}))

	for _, n := range w.nodes {
		if n.bootCount() != 2 {
			t.Errorf("%s has booted %d times: not once more than at first", n.name, n.bootCount())
		}
	}
	for _, moment := range w.history.together() {
		t.Errorf("more than one node was away: %s", moment)
	}
	after, err := w.bootedAt(ctx)
	w.must(err)
	var last time.Time // the latest boot so far
	for _, at := range before {
		last = later(last, at)
	}
	for _, r := range w.history.reboots() {
		quiet := r.cordoned.Sub(last)
		t.Logf("%s: cordoned %s after the last boot, back after %s", r.node, quiet.Round(time.Second), r.back.Sub(r.cordoned).Round(time.Second))
		if quiet < soak {
			t.Errorf("%s was cordoned %s after the last boot, and the soak is %s", r.node, quiet, soak)
		}
		last = later(last, after[r.node])
	}
	t.Logf("rolled out in %s", time.Since(began).Round(time.Second))
}

// With the kernel that every node is to boot the CNI's agent does not work. The
// rollout ends at the first node, although that is Ready, uncordoned, and its
// kured has released the lock.
func TestRolloutStopsAtBrokenNode(t *testing.T) {
	need(t)
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	w := newWorld(ctx, t)
	w.must(w.installGate(ctx, soak))
	w.must(w.installKured(ctx, gatedSentinel))
	w.must(w.breakKernel())
	w.must(w.requireReboots())
	// All is over but for the CNI: the lock is free, and the soak has passed.
	w.must(w.poll(ctx, func() error {
		if len(w.history.reboots()) == 0 {
			return errors.New("no node has rebooted")
		}
		return errors.Join(w.history.ready(len(w.nodes)), w.lockIsFree(ctx), w.blocked(ctx, "cni"))
	}))
	w.must(w.stays(ctx, soak, func() error {
		if n := len(w.history.reboots()); n != 1 {
			return fmt.Errorf("%d nodes have rebooted", n)
		}
		return w.noneOpen(ctx)
	}))
	t.Logf("only %s was lost", w.history.reboots()[0].node)
}

// The same without a gate, to show that it is the gate that stops it: kured alone
// takes one node after the other.
func TestRolloutOfKuredAlone(t *testing.T) {
	need(t)
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	w := newWorld(ctx, t)
	w.must(w.installKured(ctx, rawSentinel))
	w.must(w.breakKernel())
	began := time.Now()
	w.must(w.requireReboots())
	w.must(w.poll(ctx, func() error {
		set, err := w.cp.Client().AppsV1().DaemonSets("kube-flannel").Get(ctx, "kube-flannel-ds", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if n := len(w.history.reboots()); n < len(w.nodes) || set.Status.NumberReady > 0 {
			return fmt.Errorf("%d nodes have rebooted, and %d have a CNI", n, set.Status.NumberReady)
		}
		return nil
	}))
	t.Logf("all %d nodes were lost in %s", len(w.nodes), time.Since(began).Round(time.Second))
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
