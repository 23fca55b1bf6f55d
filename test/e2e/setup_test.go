package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sentinel-gate/sentinel-gate/test/kit/controlplane"
)

// cluster has a CNI and nodes that are Ready, and no gate.
type cluster struct {
	t       *testing.T
	dir     string
	cp      *controlplane.ControlPlane
	nodes   []*node
	kured   string // the name of its image
	history *history
}

// newCluster ends with the test, and shows what the nodes and their gates had to
// say if it failed.
func newCluster(ctx context.Context, t *testing.T) *cluster {
	t.Helper()
	c := &cluster{t: t, dir: filepath.Join(os.Getenv(shared), t.Name())}
	t.Cleanup(c.stop)
	if err := c.start(ctx); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *cluster) start(ctx context.Context) error {
	images, controlPlane := filepath.Join(c.dir, "images"), filepath.Join(c.dir, "controlplane")
	err := errors.Join(os.MkdirAll(images, 0o755), os.Mkdir(controlPlane, 0o755))
	if err != nil {
		return err
	}
	if c.kured, err = makeImages(filepath.Join(os.Getenv(shared), "bin"), images); err != nil {
		return err
	}
	if c.cp, err = controlplane.Start(ctx, controlplane.Options{
		Dir: controlPlane, Kubelets: true, ControllerManager: true, Scheduler: true,
		// A node that is slow must not count as down: this machine runs all of them.
		ControllerManagerFlags: []string{"--node-monitor-grace-period=40s"},
	}); err != nil {
		return err
	}
	address, err := url.Parse(c.cp.URL())
	if err != nil {
		return err
	}
	if err := makeNetwork(c.t.Context(), address.Host); err != nil {
		return err
	}
	c.history = watch(c.t.Context(), c.cp.Client())
	for i, name := range nodeNames {
		n := &node{name: name, number: i + 1, shared: os.Getenv(shared), dir: filepath.Join(c.dir, name)}
		if err := c.configure(n); err != nil {
			return fmt.Errorf("configuring node %s: %w", name, err)
		}
		c.nodes = append(c.nodes, n)
		n.powerOn()
	}
	if err := c.poll(ctx, func() error { return c.history.ready(len(nodeNames)) }); err != nil {
		return fmt.Errorf("waiting for the nodes: %w", err)
	}
	return c.installCNI(ctx)
}

// configure writes what a node finds on its disk.
func (c *cluster) configure(n *node) error {
	if err := os.MkdirAll(n.dir, 0o755); err != nil {
		return err
	}
	values := map[string]string{
		"Cgroup": n.cgroup(), "PodsImage": podsName + ":" + tag, "PodCIDR": n.podCIDR(),
	}
	for _, name := range []string{"kubelet.yaml", "containerd.toml", "cni.conflist"} {
		if err := renderTo(filepath.Join(n.dir, name), name, values); err != nil {
			return err
		}
	}
	return c.cp.WriteKubeletKubeconfig(filepath.Join(n.dir, "kubelet.kubeconfig"), "https://"+service, n.name)
}

func (c *cluster) stop() {
	if c.t.Failed() {
		c.show()
	}
	for _, n := range c.nodes {
		n.stop()
	}
	if c.cp != nil {
		c.cp.Stop()
	}
	_ = removeNetwork() // the next test says so if it is still there
	if err := os.RemoveAll(c.dir); err != nil {
		c.t.Error(err)
	}
}

// show logs what is needed to understand a failure.
func (c *cluster) show() {
	if c.history != nil {
		c.t.Logf("what happened, by the API server:\n%s", c.history)
	}
	for _, n := range c.nodes {
		console, _ := os.ReadFile(n.console())
		c.t.Logf("node %s booted %d times; its console:\n%s", n.name, n.bootCount(), console)
		c.t.Logf("the gate of %s:\n%s", n.name, n.logs("sentinel-gate"))
		c.t.Logf("kured of %s:\n%s", n.name, n.logs("kube-system"))
		c.t.Logf("the kubelet of %s:\n%s", n.name, n.kubeletLog())
	}
	if c.cp != nil {
		// The test's own context may have ended.
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		for _, args := range [][]string{{"nodes,pods", "-A", "-o", "wide"}, {"leases", "-n", "sentinel-gate", "-o", "yaml"}} {
			out, _ := c.cp.Kubectl(ctx, c.cp.Kubeconfig(), append([]string{"get"}, args...)...).CombinedOutput()
			c.t.Logf("%s", out)
		}
	}
}

// poll calls f until it returns nil, as long as no node has crashed.
func (c *cluster) poll(ctx context.Context, f func() error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	err := controlplane.Poll(ctx, func() error {
		if crash := c.crash(); crash != nil {
			cancel() // nothing will come of it
			return crash
		}
		return f()
	})
	return errors.Join(c.crash(), err)
}

func (c *cluster) crash() error {
	var problems []error
	for _, n := range c.nodes {
		problems = append(problems, n.problem())
	}
	return errors.Join(problems...)
}

// awaitDaemonSet waits until its pods are Ready on all nodes.
func (c *cluster) awaitDaemonSet(ctx context.Context, namespace, name string) error {
	if err := c.poll(ctx, func() error {
		set, err := c.cp.Client().AppsV1().DaemonSets(namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if s := set.Status; s.ObservedGeneration < set.Generation || int(s.NumberReady) < len(c.nodes) {
			return fmt.Errorf("%d of %d pods are ready", s.NumberReady, len(c.nodes))
		}
		return nil
	}); err != nil {
		return fmt.Errorf("waiting for daemon set %s/%s: %w", namespace, name, err)
	}
	return nil
}

// requireReboots makes the raw sentinel on every node.
func (c *cluster) requireReboots() error {
	var problems []error
	for _, n := range c.nodes {
		problems = append(problems, n.requireReboot())
	}
	return errors.Join(problems...)
}

// breakKernel updates the kernel of every node to one that breaks the CNI.
func (c *cluster) breakKernel() error {
	var problems []error
	for _, n := range c.nodes {
		problems = append(problems, n.breakNextBoot())
	}
	return errors.Join(problems...)
}

// stays fails at the first error of f within a time.
func (c *cluster) stays(ctx context.Context, d time.Duration, f func() error) error {
	tick, over := time.Tick(100*time.Millisecond), time.After(d)
	for {
		if err := errors.Join(c.crash(), f()); err != nil {
			return err
		}
		select {
		case <-tick:
		case <-over:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (c *cluster) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}
