package record

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coordinationclient "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/sentinel-gate/sentinel-gate/gate/clock"
	"github.com/sentinel-gate/sentinel-gate/test/kit/controlplane"
	"github.com/sentinel-gate/sentinel-gate/test/kit/suite"
)

const (
	namespace = "sentinel-gate"
	firstBoot = "0f1e2d3c-0000-4000-8000-000000000001"
	nextBoot  = "0f1e2d3c-0000-4000-8000-000000000002"
	uptime    = 50 * time.Hour
)

var shared = controlplane.Shared(controlplane.Options{Progress: os.Stderr, Audit: true}, func(ctx context.Context, cp *controlplane.ControlPlane) error {
	return errors.Join(cp.Namespace(ctx, namespace), applyRBAC(ctx, cp))
})

func TestMain(m *testing.M) { suite.Main(m, shared) }

// applyRBAC gives the ServiceAccount the permissions that are shipped.
func applyRBAC(ctx context.Context, cp *controlplane.ControlPlane) error {
	return cp.ApplyFile(ctx, "deploy/rbac.yaml")
}

// node is one whose record is written through a real API server, with the
// token of the ServiceAccount that is shipped.
type node struct {
	t      *testing.T
	ctx    context.Context //nolint:containedctx // the test's
	cp     *controlplane.ControlPlane
	node   string
	proc   string
	began  time.Time
	config *rest.Config
	log    lockedBuffer
}

type lockedBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}

func newNode(t *testing.T) *node {
	t.Helper()
	cp := shared.Get(t)
	ctx := suite.Context(t, time.Minute)
	n := &node{t: t, ctx: ctx, cp: cp, node: strings.ToLower(strings.NewReplacer("/", "-", "_", "-").Replace(t.Name())), proc: t.TempDir(), began: time.Now()}
	path, err := cp.ServiceAccountKubeconfig(ctx, namespace, "sentinel-gate")
	n.must(err)
	n.config, err = clientcmd.BuildConfigFromFlags("", path)
	n.must(err)
	n.config.UserAgent = t.Name() // by which its requests are told from others
	t.Cleanup(func() {
		err := cp.Client().CoordinationV1().Leases(namespace).Delete(context.Background(), n.node, metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			t.Error(err)
		}
	})
	writeProc(t, n.proc, firstBoot, fmt.Sprintf("%.2f 0.00\n", uptime.Seconds()))
	return n
}

func (n *node) must(err error) {
	n.t.Helper()
	if err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) poll(what string, f func() bool) {
	n.t.Helper()
	if err := controlplane.Poll(n.ctx, func() error {
		if !f() {
			return errors.New("not yet: " + what)
		}
		return nil
	}); err != nil {
		n.t.Fatalf("%v\n%s", err, n.log.String())
	}
}

// writer is a gate's writer, and how to stop it as the end of the gate does.
type writer struct {
	*Writer
	w    *node
	stop func()
	// witness is that of its answers.
	witness *clock.Witness
}

func (n *node) start(wrap ...func(http.RoundTripper) http.RoundTripper) *writer {
	n.t.Helper()
	config := rest.CopyConfig(n.config)
	for _, each := range wrap {
		config.Wrap(each)
	}
	witness := &clock.Witness{Persists: time.Second}
	config.Wrap(witness.Transport)
	client, err := coordinationclient.NewForConfig(config)
	n.must(err)
	made, err := NewWriter(client.Leases(namespace), n.node, "hash", n.proc, slog.New(slog.NewJSONHandler(&n.log, nil)))
	n.must(err)
	ctx, cancel := context.WithCancel(n.ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		made.Run(ctx)
	}()
	out := &writer{Writer: made, w: n, witness: witness, stop: func() { cancel(); <-done }}
	n.t.Cleanup(out.stop)
	return out
}

// set tells the writer, and awaits that it stands.
func (o *writer) set(state string, blocking []string, since time.Time) {
	o.w.t.Helper()
	o.Set(state, blocking, since, nil)
	o.w.poll("the record says "+state, o.Written)
}

func (n *node) lease() *coordinationv1.Lease {
	n.t.Helper()
	l, err := n.cp.Client().CoordinationV1().Leases(namespace).Get(n.ctx, n.node, metav1.GetOptions{})
	n.must(err)
	return l
}

func (n *node) record() Record {
	n.t.Helper()
	r, err := Parse(n.lease())
	n.must(err)
	return r
}

// edit changes the Lease as somebody else does.
func (n *node) edit(change func(*coordinationv1.Lease)) {
	n.t.Helper()
	l := n.lease()
	change(l)
	_, err := n.cp.Client().CoordinationV1().Leases(namespace).Update(n.ctx, l, metav1.UpdateOptions{})
	n.must(err)
}

// requests are the verbs, and the statuses but 200 and 201, that this test's
// writers have caused so far.
func (n *node) requests() string {
	n.t.Helper()
	events, err := n.cp.Requests("system:serviceaccount:"+namespace+":sentinel-gate", n.began)
	n.must(err)
	var words []string
	for _, e := range events {
		if e.UserAgent != n.t.Name() {
			continue
		}
		word := e.Verb
		if e.Code != http.StatusOK && e.Code != http.StatusCreated {
			word += fmt.Sprintf("(%d)", e.Code)
		}
		words = append(words, word)
	}
	return strings.Join(words, " ")
}

func (n *node) wantRequests(want string) {
	n.t.Helper()
	if got := n.requests(); got != want {
		n.t.Errorf("requests: %s\nwant:     %s", got, want)
	}
}

// shifted answers with a Date that is off; without one where off is 0.
func shifted(off time.Duration) func(http.RoundTripper) http.RoundTripper {
	return func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(req *http.Request) (*http.Response, error) {
			resp, err := next.RoundTrip(req)
			if err == nil {
				resp.Header.Del("Date")
				if off != 0 {
					resp.Header.Set("Date", time.Now().Add(off).UTC().Format(http.TimeFormat))
				}
			}
			return resp, err
		})
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// F32: the boot is dated by the API server's clock and the kernel's uptime,
// never by the node's clock; rounding makes it look younger, never older.
func TestF32BootedAt(t *testing.T) {
	for name, off := range map[string]time.Duration{"right": time.Nanosecond, "behind": -5 * time.Hour, "ahead": 5 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			earliest := time.Now().Add(off - uptime)
			n.start(shifted(off)).set("Idle", nil, time.Time{})
			latest := time.Now().Add(off - uptime + 2*time.Second)
			r := n.record()
			if r.BootedAt.Before(earliest) || r.BootedAt.After(latest) {
				t.Errorf("booted at %s, which is not between %s and %s", r.BootedAt, earliest, latest)
			}
			if r.BootID != firstBoot || r.PreviousBootID != "" || r.State != "Idle" || r.ConfigHash != "hash" || r.Node != n.node {
				t.Errorf("record %+v", r)
			}
		})
	}
	t.Run("no date", func(t *testing.T) {
		n := newNode(t)
		o := n.start(shifted(0))
		o.Set("Idle", nil, time.Time{}, nil)
		n.poll("a failure", func() bool { return o.Failures() > 0 })
		if o.Written() {
			t.Error("a record is said to be written, although nobody knows what time it is")
		}
		_, err := n.cp.Client().CoordinationV1().Leases(namespace).Get(n.ctx, n.node, metav1.GetOptions{})
		if !apierrors.IsNotFound(err) {
			t.Errorf("a record was written: %v", err)
		}
		if !strings.Contains(n.log.String(), "reading the record of node "+n.node+": no answer carried a Date header") {
			t.Errorf("log: %s", n.log.String())
		}
	})
}

// The boot of a boot id is dated once: a gate that restarts finds it in its
// record. A new boot id moves the old one to the previous.
func TestBootIsRecordedOnce(t *testing.T) {
	n := newNode(t)
	first := n.start()
	first.set("Idle", nil, time.Time{})
	was := n.record()
	first.stop()

	// As if the clocks had gone apart since, by less than would be a mistake.
	writeProc(t, n.proc, firstBoot, fmt.Sprintf("%.2f 0.00\n", (uptime-time.Minute).Seconds()))
	second := n.start()
	second.set("Closed", []string{"cni", "soak"}, time.Now())
	second.stop()
	r := n.record()
	if !r.BootedAt.Equal(was.BootedAt) || r.BootID != firstBoot || r.PreviousBootID != "" {
		t.Errorf("after a restart of the gate: %+v\nbefore: %+v", r, was)
	}
	if strings.Join(r.Blocking, " ") != "cni soak" {
		t.Errorf("blocking %q", r.Blocking)
	}

	writeProc(t, n.proc, nextBoot, "60.00 0.00\n")
	earliest := time.Now().Add(-time.Minute)
	third := n.start()
	third.set("Idle", nil, time.Time{})
	third.stop()
	r = n.record()
	if r.BootID != nextBoot || r.PreviousBootID != firstBoot || r.BootedAt.Before(earliest) || r.BootedAt.After(time.Now().Add(-58*time.Second)) {
		t.Errorf("after a reboot: %+v", r)
	}
	was = r

	fourth := n.start()
	fourth.set("Closed", nil, time.Now())
	r = n.record()
	if r.BootID != nextBoot || r.PreviousBootID != firstBoot || !r.BootedAt.Equal(was.BootedAt) {
		t.Errorf("after another restart of the gate: %+v\nbefore: %+v", r, was)
	}
}

// Since when a reboot is pending outlives the gate, and is never made younger;
// a reboot, or an idle gate, ends it.
func TestPendingSinceIsKept(t *testing.T) {
	n := newNode(t)
	base := time.Now().UTC().Truncate(time.Second)
	wantSince := func(when string, want time.Time) {
		t.Helper()
		// It is told by another clock, and to the second.
		if got := n.record().PendingSince; got.Sub(want).Abs() > 2*time.Second {
			t.Errorf("%s: pending since %s, want %s", when, got, want)
		}
	}
	first := n.start()
	first.set("Closed", nil, base.Add(-time.Hour))
	wantSince("pending", base.Add(-time.Hour))
	first.set("Open", nil, base)
	wantSince("asked for again", base.Add(-time.Hour))
	first.stop()

	second := n.start()
	second.set("Closed", nil, base)
	wantSince("after a restart", base.Add(-time.Hour))
	second.set("Closed", []string{"cni"}, base.Add(-2*time.Hour))
	wantSince("found to be older", base.Add(-2*time.Hour))
	second.set("Idle", nil, time.Time{})
	wantSince("no longer pending", time.Time{})
	second.set("Closed", nil, base)
	wantSince("pending anew", base)
	second.stop()

	writeProc(t, n.proc, nextBoot, "5.00 0.00\n")
	third := n.start()
	third.set("Closed", nil, base.Add(-time.Minute))
	wantSince("pending after a reboot", base.Add(-time.Minute))
	third.stop()

	writeProc(t, n.proc, firstBoot, "5.00 0.00\n")
	fourth := n.start()
	fourth.set("Closed", nil, time.Now().Add(time.Hour))
	wantSince("by a file from the future", time.Now())
}

// An idle gate costs the API server nothing: only a change is written, and a
// gate that restarts reads once.
func TestWritesOnlyWhatChanges(t *testing.T) {
	n := newNode(t)
	since := time.Now()
	first := n.start()
	first.set("Idle", nil, time.Time{})
	n.wantRequests("get(404) create")
	first.set("Idle", nil, time.Time{})
	first.set("Idle", []string{}, time.Time{})
	first.set("Closed", []string{"soak"}, since)
	n.wantRequests("get(404) create update")
	// The raw sentinel is touched within the second that a record can tell.
	first.set("Closed", []string{"soak"}, since.Truncate(time.Second))
	first.set("Open", nil, since)
	n.wantRequests("get(404) create update update")
	first.stop()

	second := n.start()
	second.set("Open", nil, since)
	n.wantRequests("get(404) create update update get")
	if second.Failures()+first.Failures() != 0 {
		t.Errorf("failures: %s", n.log.String())
	}
}

// F38: an epoch of the turn that is demanded is in the record when RecordEpoch
// returns, and is no reason to write otherwise.
func TestF38EpochIsRecorded(t *testing.T) {
	n := newNode(t)
	first := n.start()
	first.set("Idle", nil, time.Time{})
	first.SetTurnEpoch(3)
	n.must(first.RecordEpoch(n.ctx, 5))
	if got := n.record().TurnEpoch; got != 5 {
		t.Errorf("the record tells of epoch %d", got)
	}
	n.must(first.RecordEpoch(n.ctx, 4))
	n.wantRequests("get(404) create update")
	first.stop()

	second := n.start()
	second.set("Idle", nil, time.Time{})
	n.must(second.RecordEpoch(n.ctx, 5)) // as the first has
	n.wantRequests("get(404) create update get")
	second.stop()
	ctx, cancel := context.WithCancel(n.ctx)
	cancel()
	if err := second.RecordEpoch(ctx, 6); err == nil || !strings.Contains(err.Error(), "writing the turn's epoch 6 into the record of this node") {
		t.Errorf("nobody writes, and it returns %v", err)
	}
}

// F64: since when a reboot is pending is told by the API server's clock, as since when
// the node is up: who has waited for longest is found by comparing them.
func TestF64PendingSinceIsByTheAPIServersClock(t *testing.T) {
	for _, off := range []time.Duration{-3 * time.Hour, 5 * time.Hour} {
		t.Run(off.String(), func(t *testing.T) {
			n := newNode(t)
			o := n.start(shifted(off))
			ago := 20 * time.Minute
			o.set("Closed", nil, time.Now().Add(-ago))
			r := n.record()
			if want := time.Now().Add(off - ago); r.PendingSince.Sub(want).Abs() > 5*time.Second {
				t.Errorf("pending since %s, want %s", r.PendingSince, want)
			}
			o.set("Open", nil, time.Now().Add(-ago))
			if again := n.record(); !again.PendingSince.Equal(r.PendingSince) {
				t.Errorf("it moved from %s to %s", r.PendingSince, again.PendingSince)
			}
		})
	}
}

// F65: a gate that starts while the API server's clock is off knows by its record and by
// the kernel's clock that it is: it writes nothing until it is right again.
func TestF65StartsWhileAClockIsOff(t *testing.T) {
	for _, off := range []time.Duration{8 * time.Hour, -8 * time.Hour} {
		t.Run(off.String(), func(t *testing.T) {
			n := newNode(t)
			first := n.start()
			first.set("Idle", nil, time.Time{})
			was := n.record()
			first.stop()
			var mended atomic.Bool
			second := n.start(func(next http.RoundTripper) http.RoundTripper {
				wrong := shifted(off)(next)
				return roundTripper(func(req *http.Request) (*http.Response, error) {
					if mended.Load() {
						return next.RoundTrip(req)
					}
					return wrong.RoundTrip(req)
				})
			})
			second.witness.Persists = time.Hour
			second.Set("Closed", nil, time.Now(), nil)
			n.poll("two failures", func() bool { return second.Failures() >= 2 })
			if r := n.record(); !r.BootedAt.Equal(was.BootedAt) || r.State != "Idle" {
				t.Errorf("the clock is off: %+v", r)
			}
			if !strings.Contains(n.log.String(), "what earlier answers said, by this machine's own clock") {
				t.Errorf("the log does not say why: %s", n.log.String())
			}
			mended.Store(true)
			n.poll("the record is written", second.Written)
			if r := n.record(); !r.BootedAt.Equal(was.BootedAt) || r.State != "Closed" {
				t.Errorf("the clock was mended: %+v", r)
			}
		})
	}
}

// F104: etcd was restored, and with it an older record, whose gate believes it written.
func TestF104RestoredRecordIsWrittenAgain(t *testing.T) {
	n := newNode(t)
	o := n.start()
	o.set("Idle", nil, time.Time{})
	was := n.record()
	n.edit(func(l *coordinationv1.Lease) { l.Annotations[bootID] = nextBoot })
	o.LookAgain()
	n.poll("the record is as it was", func() bool { r := n.record(); return r.BootID == firstBoot && r.BootedAt.Equal(was.BootedAt) })
}

// F104: nobody tells a gate that is idle. It looks by itself, in some hours.
func TestF104LooksNowAndThen(t *testing.T) {
	proc := t.TempDir()
	writeProc(t, proc, firstBoot, "5.00 0.00\n")
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		client, err := coordinationclient.NewForConfig(&rest.Config{Host: "http://api", QPS: -1, WrapTransport: new(clock.Witness).Transport, Transport: roundTripper(func(req *http.Request) (*http.Response, error) {
			asked.Add(1)
			lease := &coordinationv1.Lease{}
			Record{Node: "n1", BootID: firstBoot, BootedAt: time.Now(), State: "Idle", ConfigHash: "hash"}.put(lease, time.Now())
			lease.ResourceVersion = "1"
			data, err := json.Marshal(lease)
			return &http.Response{
				StatusCode: http.StatusOK, Request: req, Body: io.NopCloser(bytes.NewReader(data)),
				Header: http.Header{"Content-Type": {"application/json"}, "Date": {time.Now().UTC().Format(http.TimeFormat)}},
			}, err
		})})
		if err != nil {
			t.Fatal(err)
		}
		w, err := NewWriter(client.Leases(namespace), "n1", "hash", proc, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); w.Run(ctx) }()
		w.Set("Idle", nil, time.Time{}, nil)
		time.Sleep(time.Minute) // of the bubble's time
		before := asked.Load()
		time.Sleep(3 * lookEvery)
		if looks := asked.Load() - before; looks < 3 || looks > 2*4 {
			t.Errorf("%d requests in %s", looks, 3*lookEvery)
		}
		cancel()
		<-done
	})
}

// Of many changes at once the last one stands in the end.
func TestLastSetWins(t *testing.T) {
	n := newNode(t)
	o := n.start()
	var last string
	for i := range 50 {
		last = fmt.Sprintf("step-%d", i)
		o.Set("Closed", []string{last}, time.Time{}, nil)
	}
	n.poll("the last is written", o.Written)
	if got := strings.Join(n.record().Blocking, ","); got != last {
		t.Errorf("the record says %s, and the last was %s", got, last)
	}
}

// Somebody else has changed the Lease in between: theirs stays, ours is added.
func TestConflictIsRetried(t *testing.T) {
	n := newNode(t)
	o := n.start()
	o.set("Idle", nil, time.Time{})
	n.edit(func(l *coordinationv1.Lease) { l.Annotations["sentinel-gate.io/hold"] = "by hand" })
	o.set("Closed", []string{"cni"}, time.Now())
	l := n.lease()
	if l.Annotations["sentinel-gate.io/hold"] != "by hand" || l.Annotations[state] != "Closed" {
		t.Errorf("annotations %v", l.Annotations)
	}
	if o.Failures() != 1 {
		t.Errorf("%d failures", o.Failures())
	}
	n.wantRequests("get(404) create update(409) get update")
}

// The permission goes and comes back: nothing is given up meanwhile.
func TestForbiddenRecovers(t *testing.T) {
	n := newNode(t)
	o := n.start()
	o.set("Idle", nil, time.Time{})
	bindings := n.cp.Client().RbacV1().RoleBindings(namespace)
	n.must(bindings.Delete(n.ctx, "sentinel-gate", metav1.DeleteOptions{}))
	t.Cleanup(func() {
		if err := applyRBAC(context.Background(), n.cp); err != nil {
			t.Error(err)
		}
	})
	probe, err := coordinationclient.NewForConfig(n.config)
	n.must(err)
	n.poll("the permission is gone", func() bool {
		_, err := probe.Leases(namespace).Get(n.ctx, n.node, metav1.GetOptions{})
		return apierrors.IsForbidden(err)
	})
	o.Set("Closed", []string{"cni"}, time.Now(), nil)
	n.poll("two failures", func() bool { return o.Failures() >= 2 })
	if o.Written() {
		t.Error("what was refused is said to be written")
	}
	if r := n.record(); r.State != "Idle" {
		t.Errorf("the record says %s", r.State)
	}
	for _, says := range []string{"the node's record could not be written", "of node " + n.node + ": ", "forbidden", `"level":"WARN"`} {
		if !strings.Contains(n.log.String(), says) {
			t.Errorf("the log does not say %q: %s", says, n.log.String())
		}
	}
	n.must(applyRBAC(n.ctx, n.cp))
	n.poll("the record is written", o.Written)
	if r := n.record(); r.State != "Closed" {
		t.Errorf("the record says %s", r.State)
	}
	failures := o.Failures()
	o.set("Open", nil, time.Now())
	if o.Failures() != failures {
		t.Errorf("%d failures more with the permission", o.Failures()-failures)
	}
}

// F15: the Lease is deleted under the writer. What it knew of this boot, and of
// the one before, is in the next one.
func TestF15DeletedRecordIsMadeAgain(t *testing.T) {
	n := newNode(t)
	first := n.start()
	first.set("Idle", nil, time.Time{})
	first.stop()
	writeProc(t, n.proc, nextBoot, "60.00 0.00\n")
	second := n.start()
	second.set("Idle", nil, time.Time{})
	was := n.record()
	n.must(n.cp.Client().CoordinationV1().Leases(namespace).Delete(n.ctx, n.node, metav1.DeleteOptions{}))
	second.set("Closed", nil, time.Now())
	r := n.record()
	if r.BootID != nextBoot || r.PreviousBootID != firstBoot || !r.BootedAt.Equal(was.BootedAt) || r.State != "Closed" {
		t.Errorf("after the deletion: %+v\nbefore: %+v", r, was)
	}
}

// What somebody spoilt by hand is repaired by the next start, as the page of
// readySoak promises.
func TestSpoiltRecordIsRepaired(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(*coordinationv1.Lease)
	}{
		{"no boot time", func(l *coordinationv1.Lease) { delete(l.Annotations, bootedAt) }},
		{"malformed boot time", func(l *coordinationv1.Lease) { l.Annotations[bootedAt] = "yesterday" }},
		{"a boot in the future", func(l *coordinationv1.Lease) { l.Annotations[bootedAt] = "2126-01-01T00:00:00Z" }},
		{"a boot of long ago", func(l *coordinationv1.Lease) { l.Annotations[bootedAt] = "2020-01-01T00:00:00Z" }},
		{"malformed pending time", func(l *coordinationv1.Lease) { l.Annotations[pendingSince] = "?" }},
		{"no annotations", func(l *coordinationv1.Lease) { l.Annotations = nil }},
		// Without its label nobody finds it.
		{"no label", func(l *coordinationv1.Lease) { l.Labels = nil }},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := newNode(t)
			first := n.start()
			first.set("Idle", nil, time.Time{})
			was := n.record()
			first.stop()
			n.edit(c.spoil)
			n.start().set("Idle", nil, time.Time{})
			if n.lease().Labels[Label] != "true" {
				t.Errorf("the label is gone: %v", n.lease().Labels)
			}
			r := n.record()
			if off := r.BootedAt.Sub(was.BootedAt); off.Abs() > time.Minute || r.BootID != firstBoot || r.State != "Idle" || !r.PendingSince.IsZero() {
				t.Errorf("it became %+v\nand was   %+v", r, was)
			}
		})
	}
}

// Nothing is asked before there is something to say, and an API server that is
// down is asked ever more rarely, up to once a minute.
func TestPausesGrow(t *testing.T) {
	proc := t.TempDir()
	writeProc(t, proc, firstBoot, "5.00 0.00\n")
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var mu sync.Mutex
		var asked []time.Duration
		client, err := coordinationclient.NewForConfig(&rest.Config{Host: "http://api", QPS: -1, Transport: roundTripper(func(*http.Request) (*http.Response, error) {
			mu.Lock()
			defer mu.Unlock()
			asked = append(asked, time.Since(began))
			return nil, errors.New("connection refused")
		})})
		if err != nil {
			t.Fatal(err)
		}
		w, err := NewWriter(client.Leases(namespace), "n1", "hash", proc, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			w.Run(ctx)
		}()
		time.Sleep(time.Hour) // of the bubble's time
		w.Set("Idle", nil, time.Time{}, nil)
		time.Sleep(5 * time.Minute)
		cancel()
		<-done
		var want []time.Duration
		for _, seconds := range []int{0, 1, 3, 7, 15, 31, 63, 123, 183, 243} {
			want = append(want, time.Hour+time.Duration(seconds)*time.Second)
		}
		mu.Lock()
		defer mu.Unlock()
		if fmt.Sprint(asked) != fmt.Sprint(want) {
			t.Errorf("asked after %v\nwant        %v", asked, want)
		}
		if w.Failures() != len(want) || w.Written() {
			t.Errorf("%d failures, written %t", w.Failures(), w.Written())
		}
	})
}
