package controlplane

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"time"
)

// Server is a process that listens on a loopback port: an API server, a Prometheus. It can be restarted on the same
// port, killed as by a crash, and paused; it never outlives the test. Its methods must not be used concurrently.
type Server struct {
	// Name is what errors call it.
	Name string
	// Binary is the control plane's: ServerBinary. It minds that nothing outlives the test, and runs the Command, or,
	// where that is empty, whatever the arguments say.
	Binary, Command string
	// Args are the arguments for a port.
	Args func(port int) ([]string, error)
	// Log is the file that all it says is appended to.
	Log string
	// Scheme and Ready make the URL that answers 200 when it is ready. Scheme is http where empty.
	Scheme, Ready string
	// Client asks that, http.DefaultClient where nil. Args may set it.
	Client *http.Client
	// Timeout bounds one start.
	Timeout time.Duration

	port    int
	process *Process
}

// Start starts the server, or starts it again at the same address, and returns once it is ready. The context bounds
// the start, not the life, of the server.
func (s *Server) Start(ctx context.Context) error {
	if s.port != 0 {
		return s.start(ctx)
	}
	// Another process may take a port that was free a moment ago.
	var err error
	for range 3 {
		if s.port, err = FreePort(); err != nil {
			return err
		}
		if err = s.start(ctx); err == nil {
			return nil
		}
		s.port = 0
		if !strings.Contains(err.Error(), "address already in use") {
			break
		}
	}
	return err
}

func (s *Server) start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.Timeout)
	defer cancel()
	args, err := s.Args(s.port)
	if err != nil {
		return fmt.Errorf("starting %s: %w", s.Name, err)
	}
	var process *Process
	if s.Command == "" {
		process, err = startServer(s.Binary, s.Log, args...)
	} else {
		process, err = Supervise(s.Binary, s.Log, s.Command, args...)
	}
	if err != nil {
		return err
	}
	client := s.Client
	if client == nil {
		client = http.DefaultClient
	}
	if err := process.AwaitOK(ctx, client, s.URL()+s.Ready); err != nil {
		return err
	}
	s.process = process
	return nil
}

// URL is where the server listens, now and after a restart.
func (s *Server) URL() string {
	scheme := s.Scheme
	if scheme == "" {
		scheme = "http"
	}
	return fmt.Sprintf("%s://127.0.0.1:%d", scheme, s.port)
}

// PID is the process to measure.
func (s *Server) PID() int { return s.process.PID() }

// Pause makes the server hang: the kernel accepts connections, and nobody answers.
func (s *Server) Pause() error { return s.process.Pause() }

// Resume ends a pause.
func (s *Server) Resume() error { return s.process.Resume() }

// Kill ends the server as a crash does: connections are reset, then refused.
func (s *Server) Kill() {
	if s.process != nil {
		s.process.Kill()
		s.process = nil
	}
}

// End ends the server in good order, and waits for it.
func (s *Server) End() {
	if s.process != nil {
		// Paused, it would keep its supervisor waiting.
		_ = s.process.Resume()
		s.process.Stop()
		s.process = nil
	}
}

// FreePort returns a loopback port that nothing listens on, from below the range that the kernel takes clients' ports
// from. Within it an idle port can be taken by any connection of any process while a server restarts; and a client
// that keeps dialling a stopped server's port can be given that port as its own, and connect to itself.
func FreePort() (int, error) {
	var last error
	for range 100 {
		port := 10000 + rand.IntN(20000)
		listener, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			return port, listener.Close()
		}
		last = err
	}
	return 0, fmt.Errorf("finding a free port: %w", last)
}
