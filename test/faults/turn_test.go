package faults

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sentinel-gate/sentinel-gate/gate/turn"
	"github.com/sentinel-gate/sentinel-gate/test/kit/cluster"
	"github.com/sentinel-gate/sentinel-gate/test/kit/daemon"
	"github.com/sentinel-gate/sentinel-gate/test/kit/suite"
)

const lockAnnotation = "weave.works/kured-node-lock"

// rollout is a scene in which several nodes have a gate, and want a reboot.
type rollout struct {
	*scene
	hosts []*daemon.Host
	gates []*daemon.Daemon
	turns string // the configuration's part about the turn
}

// newRollout starts the gates of the first nodes. Their turn is settled quickly.
func newRollout(t *testing.T, size int) *rollout {
	t.Helper()
	return newRolloutWith(t, size, "{settle: 2s, grantTimeout: 5m}")
}

func newRolloutWith(t *testing.T, size int, turns string) *rollout {
	t.Helper()
	r := &rollout{scene: newScene(t), hosts: make([]*daemon.Host, size), gates: make([]*daemon.Daemon, size), turns: turns}
	sets := r.cp.Client().AppsV1().DaemonSets("kube-system")
	labels := map[string]string{"name": "kured"}
	_, err := sets.Create(r.ctx(), &appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Name: "kured"},
		Spec: appsv1.DaemonSetSpec{Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: corev1.PodTemplateSpec{
			ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "kured", Image: "kured"}}},
		}},
	}, metav1.CreateOptions{})
	r.must(err)
	for i := range size {
		r.hosts[i], err = daemon.NewHost(r.dir(t), r.Nodes[i].BootID(), cluster.BootedAgo)
		r.must(err)
		r.must(r.hosts[i].RequireReboot())
		r.startGate(i)
	}
	return r
}

func (r *rollout) dir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "sentinel-gate-host-")
	r.must(err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func (r *rollout) startGate(i int) {
	r.t.Helper()
	r.gates[i] = r.start(func(o *daemon.Options) {
		o.Host, o.Node = r.hosts[i], r.Nodes[i].Name
		o.Settings, o.ShortTurn = quick+"\nturn: "+r.turns, true
	})
}

// holder awaits an open gate, and returns its index. At no look may there be two.
func (r *rollout) holder() int {
	r.t.Helper()
	var open []int
	r.poll("an open gate", func() bool {
		open = nil
		for i, h := range r.hosts {
			if h.Resolves() {
				open = append(open, i)
			}
		}
		return len(open) > 0
	})
	if len(open) > 1 {
		r.t.Fatalf("the gates of %v are open", open)
	}
	return open[0]
}

// alone watches for a while that no gate but the allowed one opens; -1: none.
func (r *rollout) alone(allowed int, while time.Duration) {
	r.t.Helper()
	for end := time.After(while); ; {
		select {
		case <-end:
			return
		case <-time.After(time.Millisecond):
		}
		for i, h := range r.hosts {
			if i != allowed && h.Resolves() {
				r.t.Fatalf("the gate of n%d is open\n%s", i+1, r.gates[i].Log())
			}
		}
	}
}

func (r *rollout) lease() *coordinationv1.Lease {
	r.t.Helper()
	lease, err := r.cp.Client().CoordinationV1().Leases(namespace).Get(r.ctx(), turn.LeaseName, metav1.GetOptions{})
	r.must(err)
	return lease
}

func (r *rollout) turn() turn.State {
	r.t.Helper()
	s, err := turn.Parse(r.lease())
	r.must(err)
	return s
}

func (r *rollout) awaitSoak() {
	r.t.Helper()
	r.poll("a soak", func() bool { return r.turn().Phase == turn.PhaseSoaking })
}

// annotate writes what a person would; nil removes it.
func (r *rollout) annotate(key string, value any) {
	r.t.Helper()
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]any{key: value}}})
	r.must(err)
	_, err = r.cp.Client().CoordinationV1().Leases(namespace).Patch(r.ctx(), turn.LeaseName, types.MergePatchType, patch, metav1.PatchOptions{})
	r.must(err)
}

// lock writes kured's lock; nil releases it.
func (r *rollout) lock(value any) {
	r.t.Helper()
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]any{lockAnnotation: value}}})
	r.must(err)
	_, err = r.cp.Client().AppsV1().DaemonSets("kube-system").Patch(r.ctx(), "kured", types.MergePatchType, patch, metav1.PatchOptions{})
	r.must(err)
}

// reboot reboots the node: its gate is killed, its /run is empty, and its Node
// status tells of another boot.
func (r *rollout) reboot(i int) {
	r.t.Helper()
	r.must(r.gates[i].Signal(9))
	_, err := r.gates[i].Wait(suite.Context(r.t, deadline))
	r.must(err)
	r.must(r.hosts[i].ClearReboot())
	id, err := r.Nodes[i].Reboot(r.ctx())
	r.must(err)
	r.must(r.hosts[i].Boot(id, time.Second))
}

func (r *rollout) closedByStep(i int, step, reason string) {
	r.t.Helper()
	r.await(r.gates[i], 0, "n"+fmt.Sprint(i+1)+" closed by "+step, func(l daemon.Line) bool {
		return l.State == "Closed" && l.Previous == "Open" && l.Step(step).Reason == reason
	})
}

func (r *rollout) closed(i int, because string) {
	r.t.Helper()
	r.await(r.gates[i], 0, "n"+fmt.Sprint(i+1)+" closed: "+because, func(l daemon.Line) bool {
		return l.State == "Closed" && strings.Contains(l.Msg, because)
	})
}

// F13: all gates opened together, and only kured's lock stood between them.
func TestF13OneGateAtATime(t *testing.T) {
	r := newRollout(t, 3)
	open := r.holder()
	r.alone(open, 3*time.Second)
	if s := r.turn(); s.Phase != turn.PhaseOpen || s.Holder != r.Nodes[open].Name {
		t.Errorf("n%d is open, and the turn is %+v", open+1, s)
	}
	for i := range r.gates {
		if i != open {
			r.closed(i, r.Nodes[open].Name+" has the turn")
		}
	}
}

// F12: a reboot so fast that Ready never flipped. The boot id proves it, and no
// other gate opens before the soak is over.
func TestF12RebootBeginsTheSoak(t *testing.T) {
	r := newRollout(t, 2)
	open := r.holder()
	r.reboot(open)
	r.startGate(open)
	r.awaitSoak()
	if s := r.turn(); time.Since(s.RebootedAt) > time.Minute || s.Holder != r.Nodes[open].Name {
		t.Errorf("the turn is %+v", s)
	}
	r.closed(1-open, "soaking until")
	r.alone(-1, 2*time.Second)
}

// F15: the node that rebooted is deleted, with its record. The turn still knows.
func TestF15DeletedNodeKeepsItsSoak(t *testing.T) {
	r := newRollout(t, 2)
	open := r.holder()
	r.reboot(open)
	r.startGate(open)
	r.awaitSoak()
	r.must(r.gates[open].Signal(9))
	r.must(r.Nodes[open].Delete(r.ctx()))
	r.must(r.cp.DeletePod(r.ctx(), cluster.CNINamespace, cluster.CNIPod(r.Nodes[open].Name)))
	r.must(r.cp.Client().CoordinationV1().Leases(namespace).Delete(r.ctx(), r.Nodes[open].Name, metav1.DeleteOptions{}))
	r.alone(-1, 3*time.Second)
	if s := r.turn(); s.Phase != turn.PhaseSoaking {
		t.Errorf("the turn is %+v", s)
	}
}

// F26: the holder went down and never came back.
func TestF26HolderThatDoesNotComeBack(t *testing.T) {
	r := newRolloutWith(t, 2, "{settle: 2s, grantTimeout: 5s}")
	open := r.holder()
	r.must(r.gates[open].Signal(9))
	_, err := r.Nodes[open].SetReady(r.ctx(), corev1.ConditionUnknown, "NodeStatusUnknown", time.Now())
	r.must(err)
	r.alone(-1, 5*time.Second)
	loud := r.await(r.gates[1-open], 0, "a loud gate", func(l daemon.Line) bool {
		return strings.Contains(l.Msg, r.Nodes[open].Name+" has the turn") && strings.Contains(l.Msg, "check that node")
	})
	if loud.Level != "WARN" {
		t.Errorf("it is told as %s", loud.Level)
	}
	if s := r.turn(); s.Phase != turn.PhaseOpen || s.Holder != r.Nodes[open].Name {
		t.Errorf("the turn has moved on: %+v", s)
	}
}

// F27: the holder's Node object is deleted. Nobody waits for ever, and a whole
// soak runs.
func TestF27DeletedHolder(t *testing.T) {
	r := newRollout(t, 2)
	open := r.holder()
	r.must(r.gates[open].Signal(9))
	began := time.Now()
	r.must(r.Nodes[open].Delete(r.ctx()))
	r.awaitSoak()
	if s := r.turn(); s.RebootedAt.Before(began.Add(-time.Second)) || time.Since(began) < 3*time.Second {
		t.Errorf("taken over after %s: %+v", time.Since(began), s)
	}
	r.alone(-1, time.Second)
}

// F30: the halt works within a second, and is seen.
func TestF30Halt(t *testing.T) {
	r := newRollout(t, 2)
	open := r.holder()
	mark := r.gates[open].Lines()
	r.annotate(turn.HaltKey, "INC-1234")
	halted := time.Now()
	r.poll("all gates closed", func() bool { return !r.hosts[open].Resolves() })
	if took := time.Since(halted); took > time.Second {
		t.Errorf("it took %s", took)
	}
	l := r.await(r.gates[open], mark, "the halt", func(l daemon.Line) bool { return l.Turn == "halted" })
	if l.State != "Closed" || !strings.Contains(l.Msg, "halted: INC-1234") {
		t.Errorf("the log says %s", l.Text)
	}
	r.await(r.gates[1-open], 0, "the halt of one that waits", func(l daemon.Line) bool { return l.Turn == "halted" })
	if r.metric(r.gates[1-open], "sentinel_gate_turn_halted") != 1 {
		t.Error("it is not exported")
	}
	r.alone(-1, 2*time.Second)
	r.annotate(turn.HaltKey, nil)
	if next := r.holder(); next != open {
		t.Errorf("n%d was opened, and n%d had the turn", next+1, open+1)
	}
}

// A held node is passed over, and closes.
func TestHold(t *testing.T) {
	r := newRollout(t, 2)
	open := r.holder()
	r.annotate(turn.HoldPrefix+r.Nodes[open].Name, "its disk is being replaced")
	r.closed(open, "this node is held: its disk is being replaced")
	// Closed for settle, not cordoned, and not in kured's lock: it hands on.
	if next := r.holder(); next != 1-open {
		t.Errorf("n%d is open, and it is held", next+1)
	}
}

// An overridden step holds nothing back, and is seen.
func TestOverride(t *testing.T) {
	r := newRollout(t, 1)
	open := r.holder()
	_, err := r.Nodes[3].SetReady(r.ctx(), corev1.ConditionTrue, "KubeletReady", time.Now())
	r.must(err)
	r.closedByStep(open, "soak", "Soaking")
	// There is little to ask before the soak is over, if nobody overrides it.
	r.poll("a gate that sleeps for minutes", func() bool {
		next := r.metric(r.gates[open], "sentinel_gate_next_evaluation_timestamp_seconds")
		return time.Unix(int64(next), 0).After(time.Now().Add(8 * time.Minute))
	})
	r.annotate(turn.OverridePrefix+"soak", time.Now().Add(time.Hour).UTC().Format(time.RFC3339)+" CVE-2026-1")
	mark := r.gates[open].Lines()
	r.holder()
	l := r.await(r.gates[open], mark, "the override", func(l daemon.Line) bool { return l.State == "Open" })
	if !strings.Contains(l.Msg, "OVERRIDDEN: soak (Soaking), because: CVE-2026-1") {
		t.Errorf("the log says %s", l.Text)
	}
	r.annotate(turn.OverridePrefix+"soak", nil)
	r.poll("a closed gate", func() bool { return !r.hosts[open].Resolves() })
}

// F36: kured had looked before the gate closed. While its lock names the node,
// or the node is cordoned, the turn stays.
func TestF36WhatKuredHasSeen(t *testing.T) {
	r := newRollout(t, 2)
	open := r.holder()
	name := r.Nodes[open].Name
	r.lock(fmt.Sprintf(`{"nodeID":%q,"metadata":{"unschedulable":false},"created":"2026-01-01T00:00:00Z","TTL":0}`, name))
	r.annotate(turn.HoldPrefix+name, "so that it closes")
	r.poll("a closed gate", func() bool { return !r.hosts[open].Resolves() })
	r.alone(-1, 5*time.Second) // settle is 2s
	cordon := func(unschedulable bool) {
		patch := fmt.Appendf(nil, `{"spec":{"unschedulable":%t}}`, unschedulable)
		_, err := r.cp.Client().CoreV1().Nodes().Patch(r.ctx(), name, types.MergePatchType, patch, metav1.PatchOptions{})
		r.must(err)
	}
	cordon(true)
	r.lock(nil)
	r.alone(-1, 3*time.Second)
	if s := r.turn(); s.Phase != turn.PhaseOpen || s.Holder != name {
		t.Fatalf("the turn has moved on: %+v", s)
	}
	cordon(false)
	if next := r.holder(); next != 1-open {
		t.Errorf("n%d is open", next+1)
	}
}

// F38: a stale copy of the Lease is saved by hand, and one that was edited. Every
// gate closes, names it, and leaves it as it is.
func TestF38StaleCopy(t *testing.T) {
	for name, spoil := range map[string]func(stale, current *coordinationv1.Lease){
		"older epoch":    func(stale, current *coordinationv1.Lease) { current.Annotations = stale.Annotations },
		"edited by hand": func(_, current *coordinationv1.Lease) { current.Annotations["sentinel-gate.io/turn-holder"] = "n2" },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRollout(t, 2)
			r.poll("the first grant", func() bool { return r.turn().Epoch > 0 })
			stale := r.lease()
			open := r.holder()
			r.poll("a later epoch", func() bool { return r.turn().Epoch > 1 })
			spoiled := r.lease()
			spoil(stale, spoiled)
			leases := r.cp.Client().CoordinationV1().Leases(namespace)
			for {
				spoiled.ResourceVersion = r.lease().ResourceVersion
				_, err := leases.Update(r.ctx(), spoiled, metav1.UpdateOptions{})
				if !apierrors.IsConflict(err) {
					r.must(err)
					break
				}
			}
			r.poll("a closed gate", func() bool { return !r.hosts[open].Resolves() })
			for _, d := range r.gates {
				r.await(d, 0, "a gate that does not know the turn", func(l daemon.Line) bool {
					return l.State == "Closed" && l.Turn == "unknown" && strings.Contains(l.Msg, "turn")
				})
			}
			r.alone(-1, 2*time.Second)
			after, before := r.lease().Annotations, spoiled.Annotations
			if fmt.Sprint(after) != fmt.Sprint(before) {
				t.Errorf("it was overwritten\nbefore %v\nafter  %v", before, after)
			}
		})
	}
}

// Without its Lease there is no turn.
func TestNoTurnNoOpening(t *testing.T) {
	s := newScene(t)
	s.must(s.cp.Client().CoordinationV1().Leases(namespace).Delete(context.Background(), turn.LeaseName, metav1.DeleteOptions{}))
	d := s.start()
	s.must(s.host.RequireReboot())
	s.await(d, 0, "a closed gate", func(l daemon.Line) bool {
		return l.State == "Closed" && l.Turn == "unknown" && strings.Contains(l.Msg, "does not exist")
	})
}

// F101: the turn has not changed for a while, as in a soak or before kured's
// window, while other Leases have. An API server then no longer knows what came after
// the Lease's own version: this one because it was started anew, others two minutes
// later. A gate that begins to watch, in the same life or in a new one, follows the
// turn all the same: it stays open, and hears of a halt at once.
func TestF101WatchBeginsLongAfterTheLastChange(t *testing.T) {
	r := newRolloutWith(t, 1, "{settle: 15m, grantTimeout: 5h}") // nothing writes the turn
	r.holder()
	version := r.lease().ResourceVersion
	other := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{GenerateName: "another-"}}
	_, err := r.cp.Client().CoordinationV1().Leases("kube-system").Create(r.ctx(), other, metav1.CreateOptions{})
	r.must(err)
	r.cp.StopAPIServer()
	r.poll("a closed gate", func() bool { return !r.hosts[0].Resolves() })
	r.must(r.cp.StartAPIServer(r.ctx()))
	r.staysOpen(0, 3*time.Second)

	r.must(r.gates[0].Signal(syscall.SIGKILL))
	_, err = r.gates[0].Wait(suite.Context(r.t, deadline))
	r.must(err)
	r.startGate(0)
	r.staysOpen(0, 3*time.Second)

	if now := r.lease().ResourceVersion; now != version {
		t.Fatalf("the turn was written meanwhile (version %s, %s before): this test shows nothing", now, version)
	}
	r.annotate(turn.HaltKey, "an incident")
	halted := time.Now()
	r.poll("a halted gate", func() bool { return !r.hosts[0].Resolves() })
	if took := time.Since(halted); took > time.Second {
		t.Errorf("it was halted after %s", took)
	}
}

// staysOpen awaits an open gate, and watches that it stays so.
func (r *rollout) staysOpen(i int, while time.Duration) {
	r.t.Helper()
	r.holder()
	for end := time.Now().Add(while); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if !r.hosts[i].Resolves() {
			r.t.Fatalf("the gate did not stay open\n%s", r.gates[i].Log())
		}
	}
}
