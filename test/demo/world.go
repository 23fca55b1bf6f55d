package main

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/uuid"

	"github.com/sentinel-gate/sentinel-gate/gate/record"
	"github.com/sentinel-gate/sentinel-gate/gate/turn"
	"github.com/sentinel-gate/sentinel-gate/test/demo/story"
	"github.com/sentinel-gate/sentinel-gate/test/kit/embedded"
)

// world is a cluster in an embedded API server.
type world struct {
	api        *embedded.Server
	alerts     *embedded.Alerts
	kubeconfig string
	boots      map[string]string // the boot ID of each node
}

var _ story.World = &world{}

// newWorld returns the cluster that a story begins with. Call close.
func newWorld(ctx context.Context, dir string) (*world, error) {
	w := &world{kubeconfig: filepath.Join(dir, "kubeconfig"), boots: map[string]string{}}
	var err error
	if w.api, err = embedded.Start(ctx); err != nil {
		return nil, err
	}
	if w.alerts, err = embedded.StartAlerts(ctx, "Watchdog"); err != nil {
		w.api.Close()
		return nil, err
	}
	err = w.api.WriteKubeconfig(w.kubeconfig)
	if err == nil {
		err = w.populate()
	}
	if err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

func (w *world) close() {
	w.alerts.Close()
	w.api.Close()
}

func (w *world) populate() error {
	const namespace, calico = "kube-system", "calico-node"
	labels := map[string]string{"k8s-app": calico}
	set := &appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: calico, Labels: labels},
		Spec: appsv1.DaemonSetSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}},
		},
		Status: appsv1.DaemonSetStatus{DesiredNumberScheduled: story.Nodes, CurrentNumberScheduled: story.Nodes, NumberReady: story.Nodes},
	}
	free := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: story.Namespace, Name: turn.LeaseName}}
	turn.State{Phase: turn.PhaseFree, Since: time.Now()}.Put(free)
	objects := []embedded.Object{set, free}
	booted := time.Now().Add(-story.BootedAgo)
	for i := range story.Nodes {
		name := fmt.Sprintf("n%d", i+1)
		w.boots[name] = string(uuid.NewUUID())
		objects = append(objects, &corev1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelHostname: name}},
			Status: corev1.NodeStatus{
				Conditions: []corev1.NodeCondition{{
					Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady",
					LastHeartbeatTime: metav1.Now(), LastTransitionTime: metav1.NewTime(booted),
				}},
				NodeInfo: corev1.NodeSystemInfo{BootID: w.boots[name]},
			},
		}, &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: namespace, Name: calico + "-" + name, Labels: labels,
				OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(set, appsv1.SchemeGroupVersion.WithKind("DaemonSet"))},
			},
			Spec: corev1.PodSpec{NodeName: name},
			Status: corev1.PodStatus{
				Phase:             corev1.PodRunning,
				Conditions:        []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
				ContainerStatuses: []corev1.ContainerStatus{{Name: calico, Ready: true}},
			},
		})
		if i > 0 {
			objects = append(objects, w.record(name, booted))
		}
	}
	return w.api.Create(objects...)
}

// record is what the node's gate would write of its present boot.
func (w *world) record(node string, booted time.Time) *coordinationv1.Lease {
	return &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{
		Namespace: story.Namespace, Name: node, Labels: map[string]string{record.Label: "true"},
		Annotations: map[string]string{
			"sentinel-gate.io/boot-id": w.boots[node], "sentinel-gate.io/booted-at": booted.UTC().Format(time.RFC3339),
		},
	}}
}

func (w *world) Kubeconfig() string        { return w.kubeconfig }
func (w *world) PrometheusURL() string     { return w.alerts.URL() }
func (w *world) BootID(node string) string { return w.boots[node] }

func (w *world) Reboot(_ context.Context, node string) error {
	w.boots[node] = string(uuid.NewUUID())
	return embedded.Change(w.api, "", node, func(n *corev1.Node) { n.Status.NodeInfo.BootID = w.boots[node] })
}

func (w *world) Record(_ context.Context, node string) error {
	now := w.record(node, time.Now())
	return embedded.Change(w.api, story.Namespace, node, func(l *coordinationv1.Lease) { l.Annotations = now.Annotations })
}

func (w *world) SetReady(_ context.Context, node string, ready bool) error {
	return embedded.Change(w.api, "", node, func(n *corev1.Node) {
		c := &n.Status.Conditions[0]
		c.Status, c.Reason = corev1.ConditionFalse, "KubeletNotReady"
		if ready {
			c.Status, c.Reason = corev1.ConditionTrue, "KubeletReady"
		}
		c.LastHeartbeatTime, c.LastTransitionTime = metav1.Now(), metav1.Now()
	})
}

func (w *world) Annotate(_ context.Context, key, value string) error {
	return embedded.Change(w.api, story.Namespace, turn.LeaseName, func(l *coordinationv1.Lease) {
		if value == "" {
			delete(l.Annotations, key)
			return
		}
		l.Annotations[key] = value
	})
}

func (w *world) Alert(_ context.Context, name string, fires bool) error {
	if fires {
		w.alerts.Fire(name)
	} else {
		w.alerts.Resolve(name)
	}
	return nil
}
