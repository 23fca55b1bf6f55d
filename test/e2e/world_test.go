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

// world is a cluster with a CNI whose nodes are Ready, and without a gate.
type world struct {
	t       *testing.T
	dir     string
	cp      *controlplane.ControlPlane
	nodes   []*node
	kured   string // the name of its image
	history *history
}

// newWorld ends with the test, and shows what the nodes and their gates had to
// say if it failed.
func newWorld(ctx context.Context, t *testing.T) *world {
	t.Helper()
	w := &world{t: t, dir: filepath.Join(os.Getenv(shared), t.Name())}
	t.Cleanup(w.stop)
	if err := w.start(ctx); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) start(ctx context.Context) error {
	images, controlPlane := filepath.Join(w.dir, "images"), filepath.Join(w.dir, "controlplane")
	err := errors.Join(os.MkdirAll(images, 0o755), os.Mkdir(controlPlane, 0o755))
	if err != nil {
		return err
	}
	if w.kured, err = makeImages(filepath.Join(os.Getenv(shared), "bin"), images); err != nil {
		return err
	}
	if w.cp, err = controlplane.Start(ctx, controlplane.Options{
		Dir: controlPlane, Kubelets: true, ControllerManager: true, Scheduler: true,
		// A node that is slow must not count as down: this machine runs all of them.
		ControllerManagerFlags: []string{"--node-monitor-grace-period=40s"},
	}); err != nil {
		return err
	}
	address, err := url.Parse(w.cp.URL())
	if err != nil {
		return err
	}
	if err := makeNetwork(w.t.Context(), address.Host); err != nil {
		return err
	}
	w.history = watch(w.t.Context(), w.cp.Client())
	for i, name := range nodeNames {
		n := &node{name: name, number: i + 1, shared: os.Getenv(shared), dir: filepath.Join(w.dir, name)}
		if err := w.configure(n); err != nil {
			return fmt.Errorf("configuring node %s: %w", name, err)
		}
		w.nodes = append(w.nodes, n)
		n.powerOn()
	}
	if err := w.poll(ctx, func() error { return w.history.ready(len(nodeNames)) }); err != nil {
		return fmt.Errorf("waiting for the nodes: %w", err)
	}
	return w.installCNI(ctx)
}

// configure writes what a node finds on its disk.
func (w *world) configure(n *node) error {
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
	return w.cp.WriteKubeletKubeconfig(filepath.Join(n.dir, "kubelet.kubeconfig"), "https://"+service, n.name)
}

func (w *world) stop() {
	if w.t.Failed() {
		w.show()
	}
	for _, n := range w.nodes {
		n.stop()
	}
	if w.cp != nil {
		w.cp.Stop()
	}
	_ = removeNetwork() // the next test says so if it is still there
	if err := os.RemoveAll(w.dir); err != nil {
		w.t.Error(err)
	}
}

// show logs what is needed to understand a failure.
func (w *world) show() {
	if w.history != nil {
		w.t.Logf("what happened, by the API server:\n%s", w.history)
	}
	for _, n := range w.nodes {
		console, _ := os.ReadFile(n.console())
		w.t.Logf("node %s booted %d times; its console:\n%s", n.name, n.bootCount(), console)
		w.t.Logf("the gate of %s:\n%s", n.name, n.logs("sentinel-gate"))
		w.t.Logf("kured of %s:\n%s", n.name, n.logs("kube-system"))
		w.t.Logf("the kubelet of %s:\n%s", n.name, n.kubeletLog())
	}
	if w.cp != nil {
		// The test's own context may have ended.
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		for _, args := range [][]string{{"nodes,pods", "-A", "-o", "wide"}, {"leases", "-n", "sentinel-gate", "-o", "yaml"}} {
			out, _ := w.cp.Kubectl(ctx, w.cp.Kubeconfig(), append([]string{"get"}, args...)...).CombinedOutput()
			w.t.Logf("%s", out)
		}
	}
}

// poll calls f until it returns nil, as long as no node has crashed.
func (w *world) poll(ctx context.Context, f func() error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	err := controlplane.Poll(ctx, func() error {
		if crash := w.crash(); crash != nil {
			cancel() // nothing will come of it
			return crash
		}
		return f()
	})
	return errors.Join(w.crash(), err)
}

func (w *world) crash() error {
	var problems []error
	for _, n := range w.nodes {
		problems = append(problems, n.problem())
	}
	return errors.Join(problems...)
}

// awaitDaemonSet waits until its pods are Ready on all nodes.
func (w *world) awaitDaemonSet(ctx context.Context, namespace, name string) error {
	if err := w.poll(ctx, func() error {
		set, err := w.cp.Client().AppsV1().DaemonSets(namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if s := set.Status; s.ObservedGeneration < set.Generation || int(s.NumberReady) < len(w.nodes) {
			return fmt.Errorf("%d of %d pods are ready", s.NumberReady, len(w.nodes))
		}
		return nil
	}); err != nil {
		return fmt.Errorf("waiting for daemon set %s/%s: %w", namespace, name, err)
	}
	return nil
}

// requireReboots makes the raw sentinel on every node.
func (w *world) requireReboots() error {
	var problems []error
	for _, n := range w.nodes {
		problems = append(problems, n.requireReboot())
	}
	return errors.Join(problems...)
}

// breakKernel updates the kernel of every node to one that breaks the CNI.
func (w *world) breakKernel() error {
	var problems []error
	for _, n := range w.nodes {
		problems = append(problems, n.breakNextBoot())
	}
	return errors.Join(problems...)
}

// stays fails at the first error of f within a time.
func (w *world) stays(ctx context.Context, d time.Duration, f func() error) error {
	tick, over := time.Tick(100*time.Millisecond), time.After(d)
	for {
		if err := errors.Join(w.crash(), f()); err != nil {
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

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}
