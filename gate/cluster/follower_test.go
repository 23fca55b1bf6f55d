package cluster

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/client-go/rest"
)

// nodesAPI serves one node, and a watch that tells of a change for each line that it is given.
type nodesAPI struct {
	lists, watches atomic.Int64
	events         chan string
}

func (a *nodesAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	if !strings.Contains(r.URL.RawQuery, "watch=true") {
		a.lists.Add(1)
		fmt.Fprint(w, `{"kind":"NodeList","apiVersion":"v1","metadata":{"resourceVersion":"7"},"items":[{"metadata":{"name":"a"}}]}`)
		return
	}
	a.watches.Add(1)
	w.(http.Flusher).Flush()
	for {
		select {
		case <-r.Context().Done():
			return
		case event := <-a.events:
			fmt.Fprintln(w, event)
			w.(http.Flusher).Flush()
		}
	}
}

// F102: the steps of an open gate share one LIST and one watch of all nodes, and see every
// change.
func TestF102OneFollowerOfNodes(t *testing.T) {
	api := &nodesAPI{events: make(chan string)}
	server := httptest.NewServer(api)
	defer server.Close()
	c, err := New(&rest.Config{Host: server.URL}, "sentinel-gate", "a")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ctx = WithFollower(ctx)
	const steps = 5
	var seen [steps]atomic.Int64
	var all sync.WaitGroup
	for i := range steps {
		all.Go(func() {
			nodes, err := c.Nodes(ctx)
			if err != nil {
				t.Error(err)
				return
			}
			var mu sync.Mutex
			_ = c.FollowNodes(ctx, &mu, nodes, func(l Listing[Node]) { nodes = l; seen[i].Store(int64(len(l.Items))) })
		})
	}
	await := func(want int64) {
		t.Helper()
		for i := range seen {
			for end := time.Now().Add(30 * time.Second); seen[i].Load() != want; <-time.After(time.Millisecond) {
				if time.Now().After(end) {
					t.Fatalf("step %d sees %d nodes, want %d", i, seen[i].Load(), want)
				}
			}
		}
	}
	await(1)
	api.events <- `{"type":"ADDED","object":{"kind":"Node","apiVersion":"v1","metadata":{"name":"b"}}}`
	await(2)
	api.events <- `{"type":"DELETED","object":{"kind":"Node","apiVersion":"v1","metadata":{"name":"a"}}}`
	await(1)
	cancel()
	all.Wait()
	if api.lists.Load() != 1 || api.watches.Load() != 1 {
		t.Errorf("%d LISTs and %d watches for %d steps", api.lists.Load(), api.watches.Load(), steps)
	}
}
