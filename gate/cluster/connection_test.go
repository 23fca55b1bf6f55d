package cluster

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// F103: one API server of several has lost its etcd. It takes connections and answers
// pings, but no request. A balancer keeps each connection where it is; a real API server
// cannot be made to do that at will.
func TestF103OneServerThatDoesNotAnswer(t *testing.T) {
	server := func(answers bool) *httptest.Server {
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !answers {
				<-r.Context().Done()
				return
			}
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "NodeList", APIVersion: "v1"}})
		}))
		s.EnableHTTP2 = true
		s.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
		s.StartTLS()
		t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
		return s
	}
	unwell, well := server(false), server(true)
	balancer, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = balancer.Close() })
	var connections atomic.Int64
	go func() {
		for {
			from, err := balancer.Accept()
			if err != nil {
				return
			}
			to := well
			if connections.Add(1) == 1 {
				to = unwell
			}
			go pipe(from, to.Listener.Addr().String())
		}
	}()
	c, err := New(&rest.Config{Host: "https://" + balancer.Addr().String(), TLSClientConfig: rest.TLSClientConfig{Insecure: true}}, "sentinel-gate", "a")
	if err != nil {
		t.Fatal(err)
	}
	for try := 1; ; try++ {
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		_, err := c.NodeClient().List(ctx, metav1.ListOptions{})
		cancel()
		if err == nil {
			if try != maxFailures+1 || connections.Load() != 2 {
				t.Errorf("answered at attempt %d, by connection %d", try, connections.Load())
			}
			return
		}
		if try > 2*maxFailures {
			t.Fatalf("%d connections, and still: %v", connections.Load(), err)
		}
	}
}

// pipe carries both directions until one side ends.
func pipe(from net.Conn, address string) {
	to, err := net.Dial("tcp", address) //nolint:noctx // it ends with its sides
	if err != nil {
		_ = from.Close()
		return
	}
	both := func() { _ = from.Close(); _ = to.Close() }
	copyTo := func(a, b net.Conn) {
		defer both()
		buffer := make([]byte, 32<<10)
		for {
			n, err := b.Read(buffer)
			if n > 0 {
				if _, err := a.Write(buffer[:n]); err != nil {
					return
				}
			}
			if err != nil {
				return
			}
		}
	}
	go copyTo(to, from)
	copyTo(from, to)
}
