package faults

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sentinel-gate/sentinel-gate/gate/record"
	"github.com/sentinel-gate/sentinel-gate/gate/turn"
	"github.com/sentinel-gate/sentinel-gate/test/kit/cluster"
	"github.com/sentinel-gate/sentinel-gate/test/kit/controlplane"
	"github.com/sentinel-gate/sentinel-gate/test/kit/daemon"
)

// Each of these ends where the next gate is open: that the turn is free is not enough.

// add starts the gate of one more node, whose reboot was asked for a while ago: the
// longer, the sooner it has the turn.
func (r *rollout) add(pending time.Duration, change ...func(*daemon.Options)) (i int) {
	r.t.Helper()
	i = len(r.hosts)
	host, err := daemon.NewHost(r.dir(r.t), r.Nodes[i].BootID(), cluster.BootedAgo)
	r.must(err)
	r.hosts, r.gates = append(r.hosts, host), append(r.gates, nil)
	r.must(host.RequireReboot())
	asked := time.Now().Add(-pending)
	r.must(os.Chtimes(host.Raw, asked, asked))
	r.gates[i] = r.start(append([]func(*daemon.Options){func(o *daemon.Options) {
		o.Host, o.Node = host, r.Nodes[i].Name
		o.Settings, o.ShortTurn = quick+"\nturn: "+r.turns, true
	}}, change...)...)
	return i
}

// opens awaits the open gate of one node, while no other is.
func (r *rollout) opens(i int) {
	r.t.Helper()
	if open := r.holder(); open != i {
		r.t.Fatalf("the gate of n%d is open, and it should be that of n%d\n%s", open+1, i+1, r.gates[i].Log())
	}
}

// passedOver checks why a node was passed over.
func (r *rollout) passedOver(i int, cause turn.Cause) {
	r.t.Helper()
	for _, p := range r.turn().PassedOver {
		if p.Node == r.Nodes[i].Name && p.Cause == cause {
			return
		}
	}
	r.t.Errorf("n%d was not passed over as %s: %v", i+1, cause, r.turn().PassedOver)
}

// F42: the records of deleted nodes wait for ever, and before all others.
func TestF42RecordsOfDeletedNodes(t *testing.T) {
	r := newRollout(t, 0)
	leases := r.cp.Client().CoordinationV1().Leases(namespace)
	for i := range 50 {
		ghost := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{
			Name: fmt.Sprintf("ghost-%02d", i), Labels: map[string]string{record.Label: "true"},
			Annotations: map[string]string{
				"sentinel-gate.io/boot-id": fmt.Sprintf("ghost-%02d", i), "sentinel-gate.io/booted-at": "2025-01-01T00:00:00Z",
				"sentinel-gate.io/pending-since": "2025-02-01T00:00:00Z", "sentinel-gate.io/state": "Closed",
			},
		}}
		_, err := leases.Create(r.ctx(), ghost, metav1.CreateOptions{})
		r.must(err)
	}
	began := time.Now()
	r.opens(r.add(time.Minute))
	// Each would cost two minutes of silence.
	if took := time.Since(began); took > 2*time.Minute {
		t.Errorf("it took %s", took)
	}
	if p := r.turn().PassedOver; len(p) > 0 {
		t.Errorf("passed over: %v", p)
	}
}

// F43: the node with the open gate is scaled in. The turn counts it as rebooted, and so
// does the step: after the soak the next gate opens.
func TestF43DeletedHolderAndThenTheNext(t *testing.T) {
	const quickSoak = `
- {name: nodes, type: nodesReady}
- {name: soak, type: readySoak, options: {duration: 6s, ignoreJoined: true}}
`
	r := newRollout(t, 0)
	soak := func(o *daemon.Options) { o.Checks = quickSoak }
	first, second := r.add(2*time.Hour, soak), r.add(time.Hour, soak)
	r.opens(first)
	r.must(r.gates[first].Signal(syscall.SIGKILL)) // its record says Open for ever
	r.must(r.Nodes[first].Delete(r.ctx()))
	r.must(r.cp.DeletePod(r.ctx(), cluster.CNINamespace, cluster.CNIPod(r.Nodes[first].Name)))
	r.awaitSoak()
	began := time.Now()
	r.opens(second)
	if took := time.Since(began); took < 4*time.Second {
		t.Errorf("it opened %s after the soak began", took)
	}
}

// F44: every step passes, and the gated sentinel cannot be made, for want of an inode.
func TestF44NoInodesLeft(t *testing.T) {
	r := newRollout(t, 0)
	host, err := daemon.NewHost(r.dir(t), r.Nodes[0].BootID(), cluster.BootedAgo)
	r.must(err)
	dir := filepath.Dir(host.Gated)
	r.must(syscall.Mount("tmpfs", dir, "tmpfs", 0, "nr_inodes=16"))
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	idle := r.start(func(o *daemon.Options) {
		o.Host, o.Settings, o.ShortTurn = host, quick+"\nturn: "+r.turns, true
	})
	r.hosts, r.gates = append(r.hosts, host), append(r.gates, idle)
	r.await(idle, 0, "an idle gate", func(l daemon.Line) bool { return l.State == "Idle" })
	for i := 0; err == nil; i++ {
		err = os.WriteFile(filepath.Join(dir, fmt.Sprintf("another's-%d", i)), nil, 0o600)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	r.must(host.RequireReboot())
	asked := time.Now().Add(-2 * time.Hour)
	r.must(os.Chtimes(host.Raw, asked, asked))
	r.poll("the first has the turn", func() bool { return r.turn().HeldBy(r.Nodes[0].Name) })
	second := r.add(time.Hour)
	r.opens(second)
	r.passedOver(0, turn.CauseCannotOpen)
	l := r.await(idle, 0, "a loud word", func(l daemon.Line) bool {
		return l.Level == "WARN" && l.Turn == "open "+r.Nodes[0].Name && l.State == "Closed"
	})
	t.Log(l.Msg)
}

// F45: one node alone cannot reach what a step asks.
func TestF45HolderAloneCannotAsk(t *testing.T) {
	asked := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer asked.Close()
	ask := func(url string) func(*daemon.Options) {
		return func(o *daemon.Options) {
			o.Checks = pipeline + fmt.Sprintf("- {name: web, type: http, options: {url: %q}}\n", url)
		}
	}
	t.Run("it alone", func(t *testing.T) {
		r := newRollout(t, 0)
		first, second := r.add(2*time.Hour, ask("http://127.0.0.1:1")), r.add(time.Hour, ask(asked.URL))
		r.opens(second)
		r.passedOver(first, turn.CauseStepsErrThereAlone)
	})
	t.Run("nobody can", func(t *testing.T) {
		r := newRollout(t, 0)
		r.add(2*time.Hour, ask("http://127.0.0.1:1"))
		r.poll("the first has the turn", func() bool { return r.turn().HeldBy(r.Nodes[0].Name) })
		second := r.add(time.Hour, ask("http://127.0.0.1:1"))
		r.await(r.gates[second], 0, "whose fault it is", func(l daemon.Line) bool {
			return l.Level == "WARN" && l.Turn == "granted "+r.Nodes[second].Name
		})
		r.alone(-1, 3*time.Second)
		if s := r.turn(); !s.HeldBy(r.Nodes[second].Name) {
			t.Errorf("the turn goes round: %+v", s)
		}
	})
}

// F48: kured's lock carries a TTL, which has passed: kured itself takes it for free.
func TestF48ExpiredLock(t *testing.T) {
	r := newRollout(t, 0)
	first, second := r.add(2*time.Hour), r.add(time.Hour)
	r.opens(first)
	created := time.Now().Add(-2 * time.Hour).UTC().Format(time.RFC3339)
	r.lock(fmt.Sprintf(`{"nodeID":%q,"metadata":{"unschedulable":false},"created":%q,"TTL":3600000000000}`, r.Nodes[first].Name, created))
	r.annotate(turn.HoldPrefix+r.Nodes[first].Name, "so that it closes")
	r.poll("the first is closed", func() bool { return !r.hosts[first].Resolves() })
	r.opens(second)
}

// F70, and F97 once its gate was open: the own node is cordoned, and not by kured.
func TestF97Cordoned(t *testing.T) {
	r := newRolloutWith(t, 0, "{settle: 1s, grantTimeout: 3s}")
	cordon := func(i int) {
		_, err := r.cp.Client().CoreV1().Nodes().Patch(r.ctx(), r.Nodes[i].Name, types.MergePatchType, []byte(`{"spec":{"unschedulable":true}}`), metav1.PatchOptions{})
		r.must(err)
	}
	cordon(0)
	first, second := r.add(3*time.Hour), r.add(2*time.Hour)
	r.opens(second)
	r.passedOver(first, turn.CauseCordoned)
	// Its drain fails, the node stays cordoned, and the lock is free.
	cordon(second)
	r.annotate(turn.HoldPrefix+r.Nodes[second].Name, "so that it closes")
	r.poll("the second is closed", func() bool { return !r.hosts[second].Resolves() })
	r.opens(r.add(time.Hour))
}

// F105: a webhook of somebody else's, whose backend is dead, lets each write through
// after ten seconds.
func TestF105SlowWrites(t *testing.T) {
	r := newRollout(t, 0)
	dead, err := (&net.ListenConfig{}).Listen(r.ctx(), "tcp", "127.0.0.1:0")
	r.must(err)
	t.Cleanup(func() { _ = dead.Close() })
	url, seconds, ignore, none := "https://"+dead.Addr().String()+"/", int32(10), admissionv1.Ignore, admissionv1.SideEffectClassNone
	_, err = r.cp.Client().AdmissionregistrationV1().ValidatingWebhookConfigurations().Create(r.ctx(), &admissionv1.ValidatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: "dead"},
		Webhooks: []admissionv1.ValidatingWebhook{{
			Name: "dead.example.com", ClientConfig: admissionv1.WebhookClientConfig{URL: &url}, TimeoutSeconds: &seconds, FailurePolicy: &ignore,
			SideEffects: &none, AdmissionReviewVersions: []string{"v1"},
			Rules: []admissionv1.RuleWithOperations{{
				Operations: []admissionv1.OperationType{admissionv1.Create, admissionv1.Update},
				Rule:       admissionv1.Rule{APIGroups: []string{"coordination.k8s.io"}, APIVersions: []string{"v1"}, Resources: []string{"leases"}},
			}},
			NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"kubernetes.io/metadata.name": namespace}},
		}},
	}, metav1.CreateOptions{})
	r.must(err)
	slow := func() bool {
		began := time.Now()
		_, err := r.cp.Client().CoordinationV1().Leases(namespace).Patch(r.ctx(), turn.LeaseName, types.MergePatchType, []byte(`{"metadata":{"labels":{"x":"y"}}}`), metav1.PatchOptions{})
		r.must(err)
		return time.Since(began) > 8*time.Second
	}
	r.must(controlplane.Poll(r.ctx(), func() error {
		if !slow() {
			return errors.New("writes are not slow yet")
		}
		return nil
	}))
	r.opens(r.add(time.Hour))
}
