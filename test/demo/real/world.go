package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sentinel-gate/sentinel-gate/gate/turn"
	"github.com/sentinel-gate/sentinel-gate/test/demo/story"
	"github.com/sentinel-gate/sentinel-gate/test/kit/cluster"
	"github.com/sentinel-gate/sentinel-gate/test/kit/controlplane"
	"github.com/sentinel-gate/sentinel-gate/test/kit/prometheus"
)

// world is a cluster on a real control plane, with a real Prometheus.
type world struct {
	cp         *controlplane.ControlPlane
	prometheus *prometheus.Prometheus
	cluster    *cluster.Cluster
	kubeconfig string // with the permissions of deploy/rbac.yaml
	firing     map[string]bool
}

var _ story.World = &world{}

// newWorld returns the cluster that a story begins with. Call stop.
func newWorld(ctx context.Context, progress io.Writer) (*world, error) {
	w := &world{firing: map[string]bool{"Watchdog": true}}
	if err := w.start(ctx, progress); err != nil {
		w.stop()
		return nil, err
	}
	return w, nil
}

func (w *world) start(ctx context.Context, progress io.Writer) (err error) {
	if w.cp, err = controlplane.Start(ctx, controlplane.Options{Progress: progress}); err != nil {
		return err
	}
	if w.prometheus, err = prometheus.Start(ctx, prometheus.Options{Progress: progress, Rules: w.rules()}); err != nil {
		return err
	}
	if w.kubeconfig, err = cluster.Authorize(ctx, w.cp); err != nil {
		return err
	}
	w.cluster, err = cluster.New(ctx, w.cp, story.Nodes)
	return err
}

func (w *world) stop() {
	if w.prometheus != nil {
		w.prometheus.Stop()
	}
	if w.cp != nil {
		w.cp.Stop()
	}
}

// rules lets each alert that fires do so, in a group of its own, so that one does not disturb the other.
func (w *world) rules() string {
	text := "groups:\n"
	for _, name := range slices.Sorted(maps.Keys(w.firing)) {
		text += fmt.Sprintf("- {name: %s, rules: [{alert: %[1]s, expr: vector(1)}]}\n", name)
	}
	return text
}

func (w *world) node(name string) *controlplane.Node {
	i := slices.IndexFunc(w.cluster.Nodes, func(n *controlplane.Node) bool { return n.Name == name })
	return w.cluster.Nodes[i]
}

func (w *world) Kubeconfig() string        { return w.kubeconfig }
func (w *world) PrometheusURL() string     { return w.prometheus.URL() }
func (w *world) BootID(node string) string { return w.node(node).BootID() }

func (w *world) Reboot(ctx context.Context, node string) error {
	_, err := w.node(node).Reboot(ctx)
	return err
}

func (w *world) Record(ctx context.Context, node string) error {
	return w.cluster.Record(ctx, w.node(node), time.Now())
}

func (w *world) SetReady(ctx context.Context, node string, ready bool) error {
	status, reason := corev1.ConditionFalse, "KubeletNotReady"
	if ready {
		status, reason = corev1.ConditionTrue, "KubeletReady"
	}
	_, err := w.node(node).SetReady(ctx, status, reason, time.Now())
	return err
}

func (w *world) Annotate(ctx context.Context, key, value string) error {
	annotations := map[string]any{key: value}
	if value == "" {
		annotations[key] = nil
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": annotations}})
	if err != nil {
		return err
	}
	_, err = w.cp.Client().CoordinationV1().Leases(story.Namespace).Patch(ctx, turn.LeaseName, types.MergePatchType, patch, metav1.PatchOptions{})
	return err
}

func (w *world) Alert(ctx context.Context, name string, fires bool) error {
	if fires {
		w.firing[name] = true
	} else {
		delete(w.firing, name)
	}
	return w.prometheus.SetRules(ctx, w.rules())
}
