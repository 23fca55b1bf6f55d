// Package clock reads the time of a server from its answers. Wherever a
// decision depends on a time that others wrote, "now" is the Date header of
// the answer that brought it, never the node's own clock: clocks of nodes
// disagree, and one that booted hours behind would end a soak early.
package clock

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"
)

// ErrNoDate is returned by Reading.Now when no answer carried a Date header.
var ErrNoDate = errors.New("no answer carried a Date header, so the server's time is not known: is a proxy in between removing it?")

// Reading is the server's time as its answers told it.
type Reading struct {
	mu      sync.Mutex
	now     time.Time
	problem error
	set     bool
	witness *Witness
}

// Now returns the Date of the first answer, to the second. The first is the
// earliest, so that an age computed from it is never too great. It returns
// ErrNoDate when there was none, and an error of Witness.Believe when one of them is
// not believed.
func (r *Reading) Now() (time.Time, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.problem != nil:
		return time.Time{}, r.problem
	case r.now.IsZero():
		return time.Time{}, ErrNoDate
	}
	return r.now, nil
}

// Set reports whether an answer was believed although it did not fit earlier ones: what
// earlier times say of how long something has lasted is not known then.
func (r *Reading) Set() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.set
}

// Remember tells the witness of the answers what the time is now by something that was
// known before, and returns an error if the answers do not fit it.
func (r *Reading) Remember(date time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.witness == nil || r.problem != nil {
		return r.problem
	}
	now := time.Now()
	r.witness.Remember(date, now)
	_, r.problem = r.witness.Believe(r.now, now)
	return r.problem
}

func (r *Reading) observe(date string, witness *Witness) {
	now, err := http.ParseTime(date)
	if err != nil {
		return
	}
	set, err := witness.Believe(now, time.Now())
	r.mu.Lock()
	defer r.mu.Unlock()
	r.set = r.set || set
	if r.witness = witness; r.now.IsZero() {
		r.now = now
	}
	if r.problem == nil {
		r.problem = err
	}
}

type readingKey struct{}

// Read returns a context whose requests, made through a transport of
// Transport, tell their answers' time to the Reading.
func Read(ctx context.Context) (context.Context, *Reading) {
	reading := &Reading{}
	return context.WithValue(ctx, readingKey{}, reading), reading
}

// Transport wraps next so that answers are observed by the Reading of their
// request's context, and bear witness to each other. It fits rest.Config.Wrap.
func (w *Witness) Transport(next http.RoundTripper) http.RoundTripper { return transport{next, w} }

type transport struct {
	next    http.RoundTripper
	witness *Witness
}

func (t transport) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := t.next.RoundTrip(req)
	if err == nil {
		if reading, ok := req.Context().Value(readingKey{}).(*Reading); ok {
			reading.observe(resp.Header.Get("Date"), t.witness)
		}
	}
	return resp, err
}

// WrappedRoundTripper lets client-go reach the transport below, to close idle
// connections and to cancel requests.
func (t transport) WrappedRoundTripper() http.RoundTripper { return t.next }
