package clock

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"testing"
	"time"
)

// answers gives one answer per request, each with the next Date; none where it
// is empty, and an error where it is "error".
type answers struct {
	mu    sync.Mutex
	dates []string
}

func (a *answers) RoundTrip(req *http.Request) (*http.Response, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	date := a.dates[0]
	a.dates = a.dates[1:]
	if date == "error" {
		return nil, errors.New("connection refused")
	}
	header := http.Header{}
	if date != "" {
		header.Set("Date", date)
	}
	return &http.Response{StatusCode: http.StatusOK, Header: header, Body: http.NoBody, Request: req}, nil
}

func ask(ctx context.Context, t *testing.T, transport http.RoundTripper) {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://api", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := transport.RoundTrip(req)
	if err == nil {
		_ = resp.Body.Close()
	}
}

const (
	early = "Sat, 14 Mar 2026 12:00:00 GMT"
	late  = "Sat, 14 Mar 2026 12:00:07 GMT"
)

// F32: now is what the first answer says that it is, for what was read from it
// cannot be older.
func TestF32NowIsTheFirstAnswers(t *testing.T) {
	noon := time.Date(2026, 3, 14, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		name  string
		dates []string
		want  time.Time // zero: not known
	}{
		{"one", []string{early}, noon},
		{"the first wins", []string{early, late}, noon},
		{"also where it is later", []string{late, early}, noon.Add(7 * time.Second)},
		{"an error, then an answer", []string{"error", early}, noon},
		{"an answer without a date, then one with it", []string{"", early}, noon},
		{"not a date", []string{"today", early}, noon},
		{"a date of another form", []string{"2026-03-14T12:00:00Z"}, time.Time{}},
		{"only answers without", []string{"", ""}, time.Time{}},
		{"only errors", []string{"error"}, time.Time{}},
		{"nothing was asked", nil, time.Time{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, reading := Read(t.Context())
			transport := new(Witness).Transport(&answers{dates: c.dates})
			for range len(c.dates) {
				ask(ctx, t, transport)
			}
			got, err := reading.Now()
			if c.want.IsZero() {
				if !errors.Is(err, ErrNoDate) || !got.IsZero() {
					t.Errorf("got %s, %v; want ErrNoDate", got, err)
				}
				return
			}
			if err != nil || !got.Equal(c.want) {
				t.Errorf("got %s, %v; want %s", got, err, c.want)
			}
		})
	}
}

// Each reading has its own time, although the transport is the same.
func TestReadingsAreApart(t *testing.T) {
	transport := new(Witness).Transport(&answers{dates: []string{early, late, early}})
	outer, first := Read(t.Context())
	ask(outer, t, transport)
	inner, second := Read(outer)
	ask(inner, t, transport)
	ask(t.Context(), t, transport) // nobody reads this one
	a, errA := first.Now()
	b, errB := second.Now()
	if errA != nil || errB != nil || b.Sub(a) != 7*time.Second {
		t.Errorf("got %s, %v and %s, %v", a, errA, b, errB)
	}
}

// The pages of one list, and the steps of one evaluation, may answer at once.
func TestReadingIsConcurrent(t *testing.T) {
	dates := make([]string, 100)
	for i := range dates {
		dates[i] = early
	}
	transport := new(Witness).Transport(&answers{dates: dates})
	ctx, reading := Read(t.Context())
	var all sync.WaitGroup
	for range dates {
		all.Go(func() {
			ask(ctx, t, transport)
			if _, err := reading.Now(); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}

// client-go looks for what is below, to cancel requests and close connections.
func TestTransportUnwraps(t *testing.T) {
	next := &answers{}
	wrapped, ok := new(Witness).Transport(next).(interface{ WrappedRoundTripper() http.RoundTripper })
	if !ok || wrapped.WrappedRoundTripper() != next {
		t.Error("what the transport wraps cannot be reached")
	}
}
