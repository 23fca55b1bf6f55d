package chaos

import (
	"context"
	"net"
	"sync"
	"time"

	"k8s.io/client-go/tools/clientcmd"
)

// proxy carries one node's connections to the API server, or does not.
type proxy struct {
	listener net.Listener
	target   string

	mu    sync.Mutex
	mode  mode
	delay time.Duration
	mend  chan struct{} // closed when silence ends
	conns map[net.Conn]bool
}

type mode int

const (
	passing mode = iota
	refusing
	silent // what is sent arrives when the silence is over
)

func newProxy(ctx context.Context, target string) (*proxy, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &proxy{listener: listener, target: target, mend: make(chan struct{}), conns: map[net.Conn]bool{}}
	go func() {
		<-ctx.Done()
		_ = listener.Close()
		p.set(refusing, 0)
	}()
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			go p.serve(ctx, client)
		}
	}()
	return p, nil
}

// kubeconfig writes one that leads through the proxy.
func (p *proxy) kubeconfig(of, path string) error {
	config, err := clientcmd.LoadFromFile(of)
	if err != nil {
		return err
	}
	for _, c := range config.Clusters {
		c.Server = "https://" + p.listener.Addr().String()
	}
	return clientcmd.WriteToFile(*config, path)
}

// set changes how the proxy behaves, with a delay each way.
func (p *proxy) set(m mode, delay time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mode == silent && m != silent {
		close(p.mend)
		p.mend = make(chan struct{})
	}
	p.mode, p.delay = m, delay
	if m == refusing {
		for c := range p.conns {
			_ = c.Close()
		}
		clear(p.conns)
	}
}

// keep reports whether the connections may go on.
func (p *proxy) keep(conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mode == refusing {
		return false
	}
	for _, c := range conns {
		p.conns[c] = true
	}
	return true
}

func (p *proxy) forget(conns ...net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		delete(p.conns, c)
	}
}

func (p *proxy) serve(ctx context.Context, client net.Conn) {
	defer client.Close()
	server, err := (&net.Dialer{}).DialContext(ctx, "tcp", p.target)
	if err != nil {
		return
	}
	defer server.Close()
	if !p.keep(client, server) {
		return
	}
	defer p.forget(client, server)
	go func() {
		defer client.Close()
		defer server.Close()
		p.carry(ctx, server, client)
	}()
	p.carry(ctx, client, server)
}

func (p *proxy) carry(ctx context.Context, to, from net.Conn) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			if !p.wait(ctx) {
				return
			}
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func (p *proxy) wait(ctx context.Context) bool {
	p.mu.Lock()
	mend, m, delay := p.mend, p.mode, p.delay
	p.mu.Unlock()
	if m == silent {
		select {
		case <-mend:
		case <-ctx.Done():
			return false
		}
	}
	return delay == 0 || pass(ctx, delay)
}

// pass lets some time go by, and reports whether ctx goes on.
func pass(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
