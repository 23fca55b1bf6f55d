package cluster

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"

	"k8s.io/client-go/util/connrotation"
)

const (
	// maxFailures is how many requests in a row may fail before every connection is
	// closed: they may all be to the one API server of several that is unwell, and
	// answers pings. Kubelets do the same.
	maxFailures = 3
	// closesEvery is the least time between two closings.
	closesEvery = 10 * time.Second
)

// connections are those to the API server.
type connections struct {
	dialer *connrotation.Dialer

	mu       sync.Mutex
	failures int // in a row
	closed   time.Time
}

func newConnections() *connections {
	dialer := &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}
	return &connections{dialer: connrotation.NewDialer(dialer.DialContext)}
}

// renew closes all of them, so that those made next may lead to another server.
func (c *connections) renew() {
	c.mu.Lock()
	c.failures = 0
	soon := time.Since(c.closed) < closesEvery
	if !soon {
		c.closed = time.Now()
	}
	c.mu.Unlock()
	if !soon {
		c.dialer.CloseAll()
	}
}

// count takes in how a request went.
func (c *connections) count(failed bool) {
	c.mu.Lock()
	if c.failures++; !failed {
		c.failures = 0
	}
	renew := c.failures >= maxFailures
	c.mu.Unlock()
	if renew {
		c.renew()
	}
}

// transport wraps next so that failures are counted.
func (c *connections) transport(next http.RoundTripper) http.RoundTripper {
	return counted{next, c}
}

type counted struct {
	next        http.RoundTripper
	connections *connections
}

func (t counted) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := t.next.RoundTrip(req)
	switch {
	case errors.Is(err, context.Canceled): // by whoever asked
	case err != nil:
		t.connections.count(true)
	default:
		t.connections.count(resp.StatusCode >= http.StatusInternalServerError)
	}
	return resp, err
}

// WrappedRoundTripper lets client-go reach the transport below.
func (t counted) WrappedRoundTripper() http.RoundTripper { return t.next }
