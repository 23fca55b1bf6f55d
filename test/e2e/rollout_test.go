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
	c := newCluster(ctx, t)
	c.must(c.installGate(ctx, soak))
	c.must(c.installKured(ctx, gatedSentinel))
	c.must(c.poll(ctx, func() error { return errors.Join(c.confined(), c.wired()) }))
	began := time.Now()
	before, err := c.bootedAt(ctx)
	c.must(err)
	c.must(c.requireReboots())
	c.must(c.poll(ctx, func() error {
		if err := c.oneOpen(ctx); err != nil {
			t.Error(err)
		}
		if rebooted := c.history.reboots(); len(rebooted) < len(c.nodes) {
			return fmt.Errorf("%d of %d nodes have rebooted", len(rebooted), len(c.nodes))
		}
		return errors.Join(c.history.ready(len(c.nodes)), c.lockIsFree(ctx), c.blocked(ctx, ""))
	}))

	for _, n := range c.nodes {
		if n.bootCount() != 2 {
			t.Errorf("%s has booted %d times: not once more than at first", n.name, n.bootCount())
		}
	}
	for _, moment := range c.history.together() {
		t.Errorf("more than one node was away: %s", moment)
	}
	after, err := c.bootedAt(ctx)
	c.must(err)
	var last time.Time // the latest boot so far
	for _, at := range before {
		last = later(last, at)
	}
	for _, r := range c.history.reboots() {
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
	c := newCluster(ctx, t)
	c.must(c.installGate(ctx, soak))
	c.must(c.installKured(ctx, gatedSentinel))
	c.must(c.breakKernel())
	c.must(c.requireReboots())
	// All is over but for the CNI: the lock is free, and the soak has passed.
	c.must(c.poll(ctx, func() error {
		if len(c.history.reboots()) == 0 {
			return errors.New("no node has rebooted")
		}
		return errors.Join(c.history.ready(len(c.nodes)), c.lockIsFree(ctx), c.blocked(ctx, "cni"))
	}))
	c.must(c.stays(ctx, soak, func() error {
		if n := len(c.history.reboots()); n != 1 {
			return fmt.Errorf("%d nodes have rebooted", n)
		}
		return c.noneOpen(ctx)
	}))
	t.Logf("only %s was lost", c.history.reboots()[0].node)
}

// The same without a gate, to show that it is the gate that stops it: kured alone
// takes one node after the other.
func TestRolloutOfKuredAlone(t *testing.T) {
	need(t)
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	c := newCluster(ctx, t)
	c.must(c.installKured(ctx, rawSentinel))
	c.must(c.breakKernel())
	began := time.Now()
	c.must(c.requireReboots())
	c.must(c.poll(ctx, func() error {
		set, err := c.cp.Client().AppsV1().DaemonSets("kube-flannel").Get(ctx, "kube-flannel-ds", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if n := len(c.history.reboots()); n < len(c.nodes) || set.Status.NumberReady > 0 {
			return fmt.Errorf("%d nodes have rebooted, and %d have a CNI", n, set.Status.NumberReady)
		}
		return nil
	}))
	t.Logf("all %d nodes were lost in %s", len(c.nodes), time.Since(began).Round(time.Second))
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
