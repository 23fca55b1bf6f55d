package turn

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/kubernetes"
	coordinationclient "k8s.io/client-go/kubernetes/typed/coordination/v1"
	coreclient "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/sentinel-gate/sentinel-gate/gate/clock"
	"github.com/sentinel-gate/sentinel-gate/gate/record"
	"github.com/sentinel-gate/sentinel-gate/test/kit/controlplane"
	"github.com/sentinel-gate/sentinel-gate/test/kit/suite"
)

const (
	namespace = "sentinel-gate"
	user      = "system:serviceaccount:sentinel-gate:sentinel-gate"
)

var shared = controlplane.Shared(controlplane.Options{Progress: os.Stderr, Audit: true}, func(ctx context.Context, cp *controlplane.ControlPlane) error {
	return errors.Join(cp.Namespace(ctx, namespace), cp.ApplyFile(ctx, "deploy/rbac.yaml"))
})

func TestMain(m *testing.M) { suite.Main(m, shared) }

// real is a cluster whose gates take their turns on a real API server, with the
// token that is shipped.
type real struct {
	t      *testing.T
	cp     *controlplane.ControlPlane
	leases coordinationclient.LeaseInterface // the administrator's
	config *rest.Config
	began  time.Time
}

func newReal(t *testing.T) *real {
	t.Helper()
	cp := shared.Get(t)
	r := &real{t: t, cp: cp, leases: cp.Client().CoordinationV1().Leases(namespace), began: time.Now()}
	path, err := cp.ServiceAccountKubeconfig(t.Context(), namespace, "sentinel-gate")
	r.must(err)
	r.config, err = clientcmd.BuildConfigFromFlags("", path)
	r.must(err)
	t.Cleanup(func() {
		ctx, now := context.Background(), *metav1.NewDeleteOptions(0)
		r.must(errors.Join(
			r.leases.DeleteCollection(ctx, now, metav1.ListOptions{}),
			cp.Client().CoreV1().Nodes().DeleteCollection(ctx, now, metav1.ListOptions{}),
		))
	})
	return r
}

func (r *real) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// make makes the turn's Lease.
func (r *real) make(s State) {
	r.t.Helper()
	lease := leaseWith(nil)
	if s.Phase != PhaseUnwritten {
		s.Put(lease)
	}
	_, err := r.leases.Create(r.t.Context(), lease, metav1.CreateOptions{})
	r.must(err)
}

func (r *real) remove() {
	r.t.Helper()
	r.must(r.leases.Delete(r.t.Context(), LeaseName, metav1.DeleteOptions{}))
}

// annotate does what kubectl annotate does; an empty value removes.
func (r *real) annotate(key, value string) {
	r.t.Helper()
	r.must(controlplane.Poll(r.t.Context(), func() error {
		lease, err := r.leases.Get(r.t.Context(), LeaseName, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if lease.Annotations == nil {
			lease.Annotations = map[string]string{}
		}
		if lease.Annotations[key] = value; value == "" {
			delete(lease.Annotations, key)
		}
		_, err = r.leases.Update(r.t.Context(), lease, metav1.UpdateOptions{})
		return err
	}))
}

// member is a gate's part in the turn.
type member struct {
	*Turn
	r      *real
	client string // the user agent
	failed atomic.Int64
	// interrupt is called before each request.
	interrupt atomic.Pointer[func(*http.Request)]
	// unrecorded: its record cannot be written; recorded is the epoch in it.
	unrecorded atomic.Bool
	recorded   atomic.Int64
	stop       func()
}

// Its record, which is the test's.

func (m *member) Recall(context.Context) (int64, time.Time, error) {
	return m.recorded.Load(), noon, nil
}

func (m *member) LookAgain() {}

func (m *member) SetTurnEpoch(int64) {}
func (m *member) SetOpened(bool)     {}

func (m *member) RecordEpoch(_ context.Context, epoch int64) error {
	if m.unrecorded.Load() {
		return errors.New("the record cannot be written")
	}
	m.recorded.Store(max(m.recorded.Load(), epoch))
	return nil
}

// nodes lists whole Nodes where names and labels are asked for.
type nodes struct{ coreclient.NodeInterface }

func (n nodes) ListMetadata(ctx context.Context, options metav1.ListOptions) (*metav1.PartialObjectMetadataList, error) {
	whole, err := n.List(ctx, options)
	if err != nil {
		return nil, err
	}
	list := &metav1.PartialObjectMetadataList{ListMeta: whole.ListMeta}
	for _, node := range whole.Items {
		list.Items = append(list.Items, metav1.PartialObjectMetadata{ObjectMeta: node.ObjectMeta})
	}
	return list, nil
}

// transport counts the requests that were not answered, and is interrupted.
type transport struct {
	http.RoundTripper
	m *member
}

func (t transport) RoundTrip(req *http.Request) (*http.Response, error) {
	if interrupt := t.m.interrupt.Load(); interrupt != nil {
		(*interrupt)(req)
	}
	resp, err := t.RoundTripper.RoundTrip(req)
	if err != nil {
		t.m.failed.Add(1)
	}
	return resp, err
}

// join adds a node that waits, with its record, and starts its gate's part.
func (r *real) join(name string, pendingSince time.Time) *member {
	r.t.Helper()
	ctx, boot := r.t.Context(), "boot-of-"+name
	_, err := r.cp.AddNode(ctx, name, func(n *corev1.Node) { n.Status.NodeInfo.BootID = boot })
	r.must(err)
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{
		Name: name, Labels: map[string]string{record.Label: "true"},
		Annotations: map[string]string{"sentinel-gate.io/boot-id": boot, "sentinel-gate.io/booted-at": text(noon), "sentinel-gate.io/pending-since": text(pendingSince)},
	}}
	_, err = r.leases.Create(ctx, lease, metav1.CreateOptions{})
	r.must(err)
	return r.start(name, boot)
}

// start starts the gate's part, of which the API server knows already.
func (r *real) start(name, boot string) *member {
	r.t.Helper()
	config := rest.CopyConfig(r.config)
	config.UserAgent = r.t.Name() + "/" + name
	config.Wrap(new(clock.Witness).Transport)
	m := &member{r: r, client: config.UserAgent}
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return transport{next, m} })
	client, err := kubernetes.NewForConfig(config)
	r.must(err)
	m.Turn = New(Options{
		Config: Config{Node: name, BootID: boot, MaxAge: time.Minute, Settle: time.Minute, GrantTimeout: time.Hour, Interval: 500 * time.Millisecond},
		SoakOf: func(map[string]Override) time.Duration { return time.Hour },
		Leases: client.CoordinationV1().Leases(namespace), Nodes: nodes{client.CoreV1().Nodes()},
		DaemonSets: func(ns string) DaemonSetLister { return client.AppsV1().DaemonSets(ns) },
		Order:      []labels.Selector{labels.Everything()}, Record: m, Log: slog.New(slog.DiscardHandler),
	})
	m.Update(Gate{Pending: true, ClosedSince: time.Now().Add(-time.Hour)})
	ctx, cancel := context.WithCancel(r.t.Context())
	done := make(chan struct{})
	go func() { defer close(done); m.Run(ctx) }()
	m.stop = func() { cancel(); <-done }
	r.t.Cleanup(m.stop)
	return m
}

// await waits until the gate's view says so.
func (m *member) await(what string, is func(View) bool) {
	m.r.t.Helper()
	ctx, cancel := context.WithTimeout(m.r.t.Context(), 30*time.Second)
	defer cancel()
	for {
		if is(m.View()) {
			return
		}
		select {
		case <-m.Views():
		case <-ctx.Done():
			m.r.t.Fatalf("%s: not %s: %s, %s", m.Node, what, m.View(), m.View().Why())
		}
	}
}

func (m *member) awaitWhy(want string) {
	m.r.t.Helper()
	m.await("because "+want, func(v View) bool { return strings.Contains(v.Why(), want) })
}

func says(want string) func(View) bool { return func(v View) bool { return v.String() == want } }

// open opens the gate, as an evaluation that passed does.
func (m *member) open() {
	m.r.t.Helper()
	m.await("granted", View.Evaluates)
	m.r.must(m.Confirm(m.r.t.Context()))
	if !m.Permits() {
		m.r.t.Fatal("confirmed, and not permitted")
	}
	m.Update(Gate{Pending: true, Open: true})
}

func TestLeaseIsMissing(t *testing.T) {
	r := newReal(t)
	m := r.join("a", noon)
	m.awaitWhy("the turn's Lease sentinel-gate-turn does not exist")
	r.make(State{})
	m.awaitWhy("soaking until")
	r.remove()
	m.awaitWhy("the turn's Lease was deleted")
	r.make(State{})
	m.awaitWhy("the turn's epoch is 0, but 1 was already seen")
	r.remove()
	r.make(State{Epoch: 7, Phase: PhaseFree, Since: time.Now()})
	// A soak was seen to begin, and nobody waited for its end.
	m.awaitWhy("by its own clock the soak is over at")
	m.stop()
	r.start("a", "boot-of-a").open()
}

func TestLeaseIsChangedByHand(t *testing.T) {
	r := newReal(t)
	r.make(State{Epoch: 7, Phase: PhaseFree, Since: time.Now()})
	m := r.join("a", noon)
	m.open()
	r.annotate(holderKey, "b")
	m.awaitWhy("it was changed by hand")
	if m.Permits() || m.Confirm(t.Context()) == nil {
		t.Error("permitted")
	}
	r.annotate(holderKey, "a")
	m.await("open again", View.Permits)
}

// F38: a copy that was saved earlier holds nothing open, and is not believed by
// a gate that has not seen what came after it either.
func TestLeaseIsSetBack(t *testing.T) {
	r := newReal(t)
	r.make(State{Epoch: 7, Phase: PhaseFree, Since: time.Now()})
	a := r.join("a", noon)
	a.open()
	if _, err := r.leases.Patch(t.Context(), "a", "application/merge-patch+json", []byte(fmt.Sprintf(`{"metadata":{"annotations":{"sentinel-gate.io/turn-epoch-seen":"%d"}}}`, a.View().State.Epoch)), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	r.remove()
	r.make(State{Epoch: 6, Phase: PhaseGranted, Holder: "b", BootID: "boot-of-b", Since: time.Now()})
	a.awaitWhy("an old copy of the Lease was restored")
	b := r.join("b", noon)
	b.awaitWhy("was already seen") // before it acknowledges
	if err := b.Confirm(t.Context()); err == nil || !strings.Contains(err.Error(), "was already seen") {
		t.Errorf("got %v", err)
	}
	b.awaitWhy("was already seen")
}

// Another gate writes the turn, and records it, between this one's looks at both: its
// Lease is not an old copy.
func TestAnotherIsQuicker(t *testing.T) {
	r := newReal(t)
	r.make(State{Epoch: 7, Phase: PhaseSoaking, Holder: "z", Since: time.Now().Add(-2 * time.Hour), RebootedAt: time.Now().Add(-time.Hour + 3*time.Second)})
	b := r.join("b", noon)
	b.await("waiting", says("soaking z"))
	var quicker sync.Once
	written := make(chan struct{})
	interrupt := func(req *http.Request) {
		if !strings.Contains(req.URL.RawQuery, "labelSelector") {
			return
		}
		quicker.Do(func() {
			defer close(written)
			lease, err := r.leases.Get(t.Context(), LeaseName, metav1.GetOptions{})
			if err == nil {
				(&State{Epoch: 8, Phase: PhaseGranted, Holder: "a", BootID: "boot-of-a", Since: time.Now(), Acknowledged: true}).Put(lease)
				_, err = r.leases.Update(t.Context(), lease, metav1.UpdateOptions{})
			}
			if err == nil {
				_, err = r.leases.Create(t.Context(), &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{
					Name: "a", Labels: map[string]string{record.Label: "true"},
					Annotations: map[string]string{"sentinel-gate.io/boot-id": "boot-of-a", "sentinel-gate.io/booted-at": text(noon), "sentinel-gate.io/turn-epoch-seen": "8"},
				}}, metav1.CreateOptions{})
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	b.interrupt.Store(&interrupt)
	b.await("told of a's turn", func(v View) bool {
		if v.Problem != nil {
			t.Fatalf("a problem: %v", v.Problem)
		}
		return v.String() == "granted a"
	})
	<-written
}

// F38: what is not on record does not open.
func TestEpochIsRecordedFirst(t *testing.T) {
	r := newReal(t)
	r.make(State{Epoch: 7, Phase: PhaseFree, Since: time.Now()})
	m := r.join("a", noon)
	m.await("granted", View.Evaluates)
	if got, want := m.recorded.Load(), m.View().State.Epoch; got != want {
		t.Errorf("epoch %d is on record, and %d was written", got, want)
	}
	m.unrecorded.Store(true)
	if err := m.Confirm(t.Context()); err == nil || m.Permits() {
		t.Errorf("permitted (%v), and not on record", err)
	}
	m.unrecorded.Store(false)
	m.await("open, by the Lease; nothing has opened yet", says("open a"))
	m.stop() // and what it had seen is forgotten
	again := r.start("a", "boot-of-a")
	again.await("open still", says("open a"))
	r.must(again.Confirm(t.Context()))
	if got, want := again.recorded.Load(), again.View().State.Epoch; got != want {
		t.Errorf("epoch %d is on record, and the gate opens by %d", got, want)
	}
}

func TestOperator(t *testing.T) {
	r := newReal(t)
	r.make(State{Epoch: 7, Phase: PhaseFree, Since: time.Now()})
	m := r.join("a", noon)
	m.open()

	began := time.Now()
	r.annotate(HaltKey, "an incident")
	m.await("closed", func(v View) bool { return !v.Permits() })
	if took := time.Since(began); took > time.Second {
		t.Errorf("F30: halted after %s", took)
	}
	m.awaitWhy("halted: an incident")
	if err := m.Confirm(t.Context()); err == nil || err.Error() != "halted: an incident" {
		t.Errorf("got %v", err)
	}
	r.annotate(HaltKey, "")
	m.await("open again", View.Permits)

	r.annotate(HoldPrefix+"a", "a migration")
	m.awaitWhy("this node is held: a migration")
	r.annotate(HoldPrefix+"a", "")
	m.await("open again", View.Permits)

	r.annotate(ReleaseKey, fmt.Sprint(m.View().State.Epoch))
	m.awaitWhy("a was released from its turn; it counts as rebooted in 2m0s")
	if m.Permits() {
		t.Error("released, and permitted")
	}
}

// While the API server is away the pauses between attempts grow. An evaluation that
// reaches it again ends them: the gate that opens must hear of a halt at once.
func TestConfirmEndsThePause(t *testing.T) {
	r := newReal(t)
	r.make(State{Epoch: 7, Phase: PhaseFree, Since: time.Now()})
	m := r.join("a", noon)
	m.open()
	r.cp.StopAPIServer()
	m.await("unknown", func(v View) bool { return v.Problem != nil })
	r.must(controlplane.Poll(t.Context(), func() error {
		if m.failed.Load() < 5 { // the next attempt is eight seconds away at least
			return errors.New("not yet")
		}
		return nil
	}))
	r.must(r.cp.StartAPIServer(t.Context()))
	r.must(controlplane.Poll(t.Context(), func() error { return m.Confirm(t.Context()) }))
	r.annotate(HaltKey, "an incident")
	began := time.Now()
	m.awaitWhy("halted: an incident")
	// A server that has just started may refuse what it has not read the roles for.
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("halted after %s", took)
	}
}

// A holder that reboots is recognised by its boot, by itself.
func TestHolderReboots(t *testing.T) {
	r := newReal(t)
	r.make(State{Epoch: 7, Phase: PhaseOpen, Holder: "a", BootID: "an earlier boot", Since: time.Now().Add(-time.Minute)})
	m := r.join("a", noon)
	m.await("soaking", says("soaking a"))
}

// asked returns what the gate has asked, each with its verb. A LIST must be of one object.
func (m *member) asked() (asked []string) {
	m.r.t.Helper()
	events, err := m.r.cp.Requests(user, m.r.began)
	m.r.must(err)
	one := regexp.MustCompile(`\bmetadata\.name%3D(` + m.Node + `|` + LeaseName + `)\b`)
	for _, e := range events {
		if e.UserAgent != m.client {
			continue
		}
		path, query, _ := strings.Cut(e.URI, "?")
		if e.Verb == "list" && !one.MatchString(query) {
			m.r.t.Errorf("LIST %s", e.URI)
		}
		asked = append(asked, e.Verb+" "+path[strings.LastIndex(path, "/")+1:])
	}
	return asked
}

// What a gate that waits asks does not grow with the cluster: the turn once, and a watch.
func TestWaitingIsCheap(t *testing.T) {
	r := newReal(t)
	r.make(State{Epoch: 7, Phase: PhaseGranted, Holder: "b", BootID: "boot-of-b", Since: time.Now(), Acknowledged: true})
	a := r.join("a", noon)
	a.await("waiting", says("granted b"))
	r.annotate(HoldPrefix+"c", "one change")
	a.await("told", func(v View) bool { return len(v.Operator.Holds) == 1 })
	r.must(controlplane.Poll(t.Context(), func() error {
		if asked := a.asked(); len(asked) < 2 {
			return fmt.Errorf("asked only %v", asked)
		}
		return nil
	}))
	r.annotate(HoldPrefix+"d", "another")
	a.await("told", func(v View) bool { return len(v.Operator.Holds) == 2 })
	asked := a.asked()
	slices.Sort(asked) // the watch begins beside the other requests
	if got, want := strings.Join(asked, ", "), "list leases, watch leases"; got != want {
		t.Errorf("asked %s\nwant  %s", got, want)
	}
}

// However many wait, and also if the turn does not tell how many, they look at the
// holder as often as a few would.
func TestLooksAreShared(t *testing.T) {
	for name, c := range map[string]struct {
		counted, since int // how many the turn tells of, and how many wait
		least, most    float64
	}{
		"one":                          {1, 1, 1, 1},
		"three":                        {3, 3, 1, 1},
		"a thousand":                   {1000, 1000, 1.5, 2},
		"one, whom it does not tell":   {0, 1, 1. / crowd, 1. / crowd},
		"a thousand, whom it does not": {1, 1001, 1, 1 + 1000./crowd},
	} {
		t.Run(name, func(t *testing.T) {
			state := State{Waiting: c.counted}
			for i := range min(c.counted, nextNames) {
				state.Next = append(state.Next, fmt.Sprint(i))
			}
			rate := 0.0
			for i := range c.since {
				waits := &core{config: Config{Node: fmt.Sprint(i), Interval: 30 * time.Second}, known: known{state: state}, random: func() float64 { return 0.5 }}
				rate += float64(waits.config.checkEvery()) / float64(waits.lookPause())
			}
			if rate < c.least-0.01 || rate > c.most+0.01 {
				t.Errorf("%.2f looks in %s, want %.2f to %.2f", rate, Config{Interval: 30 * time.Second}.checkEvery(), c.least, c.most)
			}
		})
	}
}

// When a soak is over the first to list the records is alone for long enough to be
// seen, however many wait.
func TestFewList(t *testing.T) {
	const seenAfter = 100 * time.Millisecond
	random := rand.New(rand.NewPCG(1, 1))
	for _, waiting := range []int{1, 20, 1000, 10_000} {
		lists, rounds := 0, 50
		for range rounds {
			began, draws := noon, make([]time.Duration, waiting)
			for i := range draws {
				waits := &core{config: Config{Interval: 30 * time.Second}, known: known{state: State{Waiting: waiting}}, random: random.Float64, now: noon}
				waits.drawn()
				if draws[i] = waits.chooseAt.Sub(began); draws[i] > spread+time.Second {
					t.Fatalf("it draws %s", draws[i])
				}
			}
			first := slices.Min(draws)
			for _, d := range draws {
				if d <= first+seenAfter {
					lists++
				}
			}
		}
		if mean := float64(lists) / float64(rounds); mean > 2 {
			t.Errorf("of %d that wait, %.1f list", waiting, mean)
		}
	}
}

// A holder that is blocked by its own steps hands on; one on which kured has its
// lock keeps the turn.
func TestHandsOn(t *testing.T) {
	r := newReal(t)
	r.make(State{Epoch: 7, Phase: PhaseFree, Since: time.Now()})
	a, b := r.join("a", noon), r.join("b", noon.Add(time.Hour))
	a.await("granted", View.Evaluates)
	a.Update(Gate{Pending: true, ClosedSince: time.Now(), NodeBlocked: true})
	b.open()
	a.awaitWhy("b has the turn; its gate was opened")

	set, err := r.cp.AddDaemonSet(t.Context(), "kube-system", "kured", map[string]string{"app": "kured"})
	r.must(err)
	t.Cleanup(func() {
		r.must(r.cp.Client().AppsV1().DaemonSets("kube-system").Delete(context.Background(), "kured", metav1.DeleteOptions{}))
	})
	r.lock(set, `{"nodeID":"b"}`)
	settled := Gate{Pending: true, ClosedSince: time.Now().Add(-time.Hour)}
	b.stop()
	b = r.start("b", "boot-of-b") // closed since long before it asked
	b.Update(settled)
	b.awaitWhy("this node keeps the turn: kured's lock names it")
	r.lock(set, "")
	settled.NodeBlocked = true // only to be told
	b.Update(settled)
	b.await("granted anew", says("granted b"))
}

func (r *real) lock(set *appsv1.DaemonSet, value string) {
	r.t.Helper()
	patch := fmt.Sprintf(`{"metadata":{"annotations":{"weave.works/kured-node-lock":%q}}}`, value)
	_, err := r.cp.Client().AppsV1().DaemonSets(set.Namespace).Patch(r.t.Context(), set.Name, "application/merge-patch+json", []byte(patch), metav1.PatchOptions{})
	r.must(err)
}
