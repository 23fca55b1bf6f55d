package turn

import (
	"context"
	"log/slog"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/sentinel-gate/sentinel-gate/gate/clock"
	"github.com/sentinel-gate/sentinel-gate/gate/cluster"
)

// silent serves the turn's Lease. Its watches never say anything, as behind a proxy that
// has lost the server, or are not even answered. Nothing real is silent for hours.
type silent struct {
	lease                 atomic.Pointer[coordinationv1.Lease]
	unanswered            bool
	lists, watches, alive atomic.Int64
}

func (s *silent) List(ctx context.Context, _ metav1.ListOptions) (*coordinationv1.LeaseList, error) {
	s.lists.Add(1)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://api", http.NoBody)
	if err != nil {
		return nil, err
	}
	dated := roundTripper(func(req *http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Date": {time.Now().UTC().Format(http.TimeFormat)}}, Body: http.NoBody, Request: req}, nil
	})
	resp, err := new(clock.Witness).Transport(dated).RoundTrip(req)
	if err != nil {
		return nil, err
	}
	_ = resp.Body.Close()
	lease := s.lease.Load()
	return &coordinationv1.LeaseList{ListMeta: metav1.ListMeta{ResourceVersion: lease.ResourceVersion}, Items: []coordinationv1.Lease{*lease}}, nil
}

func (s *silent) Get(context.Context, string, metav1.GetOptions) (*coordinationv1.Lease, error) {
	return s.lease.Load(), nil
}

func (s *silent) Update(_ context.Context, lease *coordinationv1.Lease, _ metav1.UpdateOptions) (*coordinationv1.Lease, error) {
	return lease, nil
}

func (s *silent) Watch(ctx context.Context, _ metav1.ListOptions) (watch.Interface, error) {
	s.watches.Add(1)
	s.alive.Add(1)
	context.AfterFunc(ctx, func() { s.alive.Add(-1) })
	if s.unanswered {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return watch.NewFake(), nil
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// F49: a watch is silent, or is not even answered, and the halt that was lifted is
// believed for ever.
func TestF49SilentWatch(t *testing.T) {
	for name, unanswered := range map[string]bool{"silent": false, "unanswered": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: LeaseName, ResourceVersion: "1", Annotations: map[string]string{HaltKey: "INC-1"}}}
				(&State{Epoch: 4, Phase: PhaseSoaking, Since: time.Now(), RebootedAt: time.Now()}).Put(lease)
				s := &silent{unanswered: unanswered}
				s.lease.Store(lease)
				turn := New(Options{
					Config: Config{Node: "a", BootID: "1", MaxAge: time.Minute, Interval: 30 * time.Second, Settle: 15 * time.Minute, GrantTimeout: 30 * time.Minute},
					SoakOf: func(map[string]Override) time.Duration { return 1000 * time.Hour },
					Leases: s, Record: nothingRecorded{}, Log: slog.New(slog.DiscardHandler),
				})
				turn.Update(Gate{Pending: true})
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan struct{})
				go func() { defer close(done); turn.Run(ctx) }()
				time.Sleep(time.Minute)
				lifted := lease.DeepCopy()
				delete(lifted.Annotations, HaltKey)
				lifted.ResourceVersion = "2"
				s.lease.Store(lifted)
				time.Sleep(cluster.WatchFor + time.Minute)
				if v := turn.View(); v.Operator.Halted {
					t.Errorf("%s after the halt was lifted: %s", cluster.WatchFor, v.Why())
				}
				before := s.lists.Load()
				time.Sleep(10 * time.Hour)
				// Not without end either: a watch that is not answered is asked for twice a minute.
				if lists := s.lists.Load() - before; lists < 10 || lists > 10*60*3 {
					t.Errorf("%d reads in ten hours", lists)
				}
				if alive := s.alive.Load(); alive > 1 {
					t.Errorf("%d watches are under way", alive)
				}
				cancel()
				<-done
			})
		})
	}
}

type nothingRecorded struct{}

func (nothingRecorded) Recall(context.Context) (int64, time.Time, error) { return 0, noon, nil }
func (nothingRecorded) LookAgain()                                       {}
func (nothingRecorded) SetTurnEpoch(int64)                               {}
func (nothingRecorded) SetOpened(bool)                                   {}
func (nothingRecorded) RecordEpoch(context.Context, int64) error         { return nil }

// F104: an etcd that was restored has an old turn, and perhaps an old record too: the gate
// that notices looks at its own.
func TestF104SetBackTurnIsTold(t *testing.T) {
	w := newWorld(time.Minute, 0, 1, 1)
	w.calm(w.clock.Add(time.Hour), idle)
	told := 0
	w.hears = func(_ *gate, _ Event, e Effects) {
		if e.SetBack {
			told++
		}
	}
	w.put(w.copies[0])
	w.calm(w.clock.Add(time.Minute), idle)
	if told == 0 {
		t.Error("nobody is told")
	}
}
