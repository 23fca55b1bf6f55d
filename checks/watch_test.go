package checks

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sentinel-gate/sentinel-gate/gate"
	"github.com/sentinel-gate/sentinel-gate/gate/cluster"
	kit "github.com/sentinel-gate/sentinel-gate/test/kit/cluster"
	"github.com/sentinel-gate/sentinel-gate/test/kit/controlplane"
	"github.com/sentinel-gate/sentinel-gate/test/kit/suite"
)

var shared = controlplane.Shared(controlplane.Options{Progress: os.Stderr}, nil)

func TestMain(m *testing.M) { suite.Main(m, shared) }

// watched is a healthy cluster of three nodes, with a pod more on each of them
// in another namespace.
type watched struct {
	*kit.Cluster
	t       *testing.T
	ctx     context.Context //nolint:containedctx // the test's
	reading *cluster.Cluster
}

const elsewhere = "elsewhere"

func newWatched(t *testing.T) *watched {
	t.Helper()
	cp := shared.Get(t)
	ctx := suite.Context(t, time.Minute)
	w := &watched{t: t, ctx: ctx}
	var err error
	w.reading, err = cluster.New(cp.Config(), kit.Namespace, "")
	w.must(err)
	w.must(cp.Namespace(ctx, kit.Namespace))
	w.must(cp.Namespace(ctx, elsewhere))
	t.Cleanup(func() {
		pods := cp.Client().CoreV1().Pods(elsewhere)
		if err := errors.Join(
			(&kit.Cluster{CP: cp}).Clear(context.Background()),
			pods.DeleteCollection(context.Background(), *metav1.NewDeleteOptions(0), metav1.ListOptions{}),
		); err != nil {
			t.Error(err)
		}
	})
	w.Cluster, err = kit.New(ctx, cp, 3)
	w.must(err)
	w.must(w.Record(ctx, w.Nodes[0], time.Now().Add(-kit.BootedAgo)))
	for _, n := range w.Nodes {
		_, err = cp.AddPod(ctx, elsewhere, "p-"+n.Name, n.Name, map[string]string{"k8s-app": "calico-node"}, nil)
		w.must(err)
	}
	return w
}

func (w *watched) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// judge returns a function that runs the Check of a type by its defaults, and
// compares what it says.
func (w *watched) judge(typeName string) func(wanted) {
	w.t.Helper()
	check, problems := New(typeName, nil, w.reading)
	if len(problems) > 0 {
		w.t.Fatal(problems)
	}
	return func(want wanted) {
		w.t.Helper()
		got, err := check.Check(w.ctx)
		w.must(err)
		want.compare(w.t, got)
	}
}

// touch changes an annotation of a node's record, which means nothing.
func (w *watched) touch(name string) {
	w.t.Helper()
	leases := w.CP.Client().CoordinationV1().Leases(kit.Namespace)
	lease, err := leases.Get(w.ctx, name, metav1.GetOptions{})
	w.must(err)
	lease.Annotations["touched"] = time.Now().String()
	_, err = leases.Update(w.ctx, lease, metav1.UpdateOptions{})
	w.must(err)
}

// watch runs the Watch of a check, and returns its hints.
func (w *watched) watch(typeName, options string) <-chan gate.Result {
	w.t.Helper()
	check, problems := New(typeName, []byte(options), w.reading)
	if len(problems) > 0 {
		w.t.Fatal(problems)
	}
	if r, err := check.Check(w.ctx); err != nil || r.Verdict != gate.Pass {
		w.t.Fatalf("before anything has happened: %+v, %v", r, err)
	}
	hints := make(chan gate.Result, 1000)
	ctx, cancel := context.WithCancel(w.ctx)
	done := make(chan error, 1)
	go func() { done <- check.(gate.Watcher).Watch(ctx, func(r gate.Result) { hints <- r }) }()
	w.t.Cleanup(func() {
		cancel()
		if err := <-done; err == nil {
			w.t.Error("the watch ended without a word")
		}
	})
	return hints
}

// verify builds the check, verifies it against what it really reads, and wants
// a verification that shows how the step could fail.
func (w *watched) verify(typeName, options, looked string) Verification {
	w.t.Helper()
	check, problems := New(typeName, []byte(options), w.reading)
	if len(problems) > 0 {
		w.t.Fatal(problems)
	}
	v, err := verify(w.ctx, check)
	w.must(err)
	if v.Looked != looked {
		w.t.Errorf("it looked at %s, want %s", v.Looked, looked)
	}
	r, err := check.Check(w.ctx)
	w.must(err)
	if r != v.Result {
		w.t.Errorf("Check says %+v, and Verify %+v", r, v.Result)
	}
	return v
}

// changes are the mutations with their reasons, to compare.
func (v Verification) changes() string {
	var lines []string
	for _, m := range v.Mutations {
		lines = append(lines, m.Change+" -> "+m.Result.Verdict.String()+" "+m.Result.Reason)
	}
	return strings.Join(lines, "\n")
}

func (w *watched) await(hints <-chan gate.Result, reason string) {
	w.t.Helper()
	for {
		select {
		case r := <-hints:
			if r.Verdict == gate.Pass {
				w.t.Errorf("a hint that passes: %+v", r)
			}
			if r.Reason == reason {
				return
			}
		case <-w.ctx.Done():
			w.t.Fatalf("no hint of %s", reason)
		}
	}
}

const podsInBoth = `{"namespaces": ["kube-system", "elsewhere"], "selector": "k8s-app=calico-node"}`

// F28: what an open gate depends on changes, and the watch says so, without
// waiting for the next evaluation.
func TestF28WatchHints(t *testing.T) {
	for _, c := range []struct {
		name, typeName, options, reason string
		change                          func(*watched) error
	}{
		{"not Ready", "nodesReady", `{}`, "NodesNotReady", func(w *watched) error {
			_, err := w.Nodes[1].SetReady(w.ctx, corev1.ConditionUnknown, "NodeStatusUnknown", time.Now())
			return err
		}},
		{"deleted", "nodesReady", `{"minimum": 3}`, "TooFewNodes", func(w *watched) error { return w.Nodes[0].Delete(w.ctx) }},
		{"added, and not Ready", "nodesReady", `{}`, "NodesNotReady", func(w *watched) error {
			_, err := w.CP.AddNode(w.ctx, "n9", func(n *corev1.Node) { n.Status.Conditions = nil })
			return err
		}},
		{"pod not Ready", "podsReady", podsInBoth, "PodsNotReady", func(w *watched) error {
			_, err := w.CP.SetPodStatus(w.ctx, elsewhere, "p-n2", func(s *corev1.PodStatus) { s.Phase = corev1.PodFailed })
			return err
		}},
		{"pod deleted", "podsReady", podsInBoth, "PodsMissing", func(w *watched) error {
			return w.CP.DeletePod(w.ctx, kit.CNINamespace, kit.CNIPod("n1"))
		}},
		{"rebooted, without a change of readiness", "readySoak", `{}`, "RebootNotRecorded", func(w *watched) error {
			_, err := w.Nodes[2].Reboot(w.ctx)
			return err
		}},
		{"record deleted", "readySoak", `{}`, "NoRecord", func(w *watched) error {
			return w.CP.Client().CoordinationV1().Leases(kit.Namespace).Delete(w.ctx, "n1", metav1.DeleteOptions{})
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWatched(t)
			hints := w.watch(c.typeName, c.options)
			w.must(c.change(w))
			w.await(hints, c.reason)
		})
	}
}

// F101: an API server that has just started knows of no change before its start. What
// has not changed since is watched all the same.
func TestF101WatchesBeginAtThePresent(t *testing.T) {
	w := newWatched(t)
	w.touch("n1") // the records' last change is not the others'
	w.CP.StopAPIServer()
	w.must(w.CP.StartAPIServer(w.ctx))
	soak, pods := w.watch("readySoak", `{}`), w.watch("podsReady", podsInBoth)
	nodes := w.watch("resource", `{"apiVersion": "v1", "resource": "nodes", "expression": "object.metadata.name != 'n9'"}`)
	_, err := w.Nodes[2].Reboot(w.ctx)
	w.must(err)
	w.await(soak, "RebootNotRecorded")
	w.must(w.CP.DeletePod(w.ctx, kit.CNINamespace, kit.CNIPod("n1")))
	w.await(pods, "PodsMissing")
	_, err = w.CP.AddNode(w.ctx, "n9")
	w.must(err)
	w.await(nodes, "ExpressionFalse")
}

// A check that watches two things judges both whenever one changes. It must not
// read the one while the other's watch writes it: run with -race.
func TestWatchesOfOneCheckDoNotRace(t *testing.T) {
	const rounds = 20
	t.Run("nodes and records", func(t *testing.T) {
		w := newWatched(t)
		hints := w.watch("readySoak", `{}`)
		for range rounds {
			w.must(w.Nodes[0].Heartbeat(w.ctx))
			w.touch("n1")
		}
		_, err := w.Nodes[2].Reboot(w.ctx)
		w.must(err)
		w.await(hints, "RebootNotRecorded")
	})
	t.Run("pods of two namespaces", func(t *testing.T) {
		w := newWatched(t)
		hints := w.watch("podsReady", podsInBoth)
		for i := range rounds {
			for namespace, name := range map[string]string{kit.CNINamespace: kit.CNIPod("n1"), elsewhere: "p-n1"} {
				_, err := w.CP.SetPodStatus(w.ctx, namespace, name, func(s *corev1.PodStatus) { s.Message = fmt.Sprint(i) })
				w.must(err)
			}
		}
		_, err := w.CP.SetPodStatus(w.ctx, elsewhere, "p-n2", func(s *corev1.PodStatus) { s.Phase = corev1.PodFailed })
		w.must(err)
		w.await(hints, "PodsNotReady")
	})
}
