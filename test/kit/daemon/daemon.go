package daemon

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/sentinel-gate/sentinel-gate/test/kit/build"
)

// Binary builds sentinel-gate into dir. With race it has the race detector in it.
func Binary(ctx context.Context, dir string, race bool) (string, error) {
	root, err := build.Root()
	if err != nil {
		return "", err
	}
	return binary(ctx, dir, race, build.Product{Sources: root})
}

// BinaryOf is Binary for the sources of an earlier commit, which build.Sources has written.
func BinaryOf(ctx context.Context, dir string, race bool, sources, commit string) (string, error) {
	return binary(ctx, dir, race, build.Product{Sources: sources, Commit: commit})
}

func binary(ctx context.Context, dir string, race bool, p build.Product) (string, error) {
	p.Package, p.Flags = "./cmd/sentinel-gate", []string{"-trimpath", "-ldflags=-s -w"} // as make build does
	if race {
		p.Flags = []string{"-race"}
	}
	path := filepath.Join(dir, "sentinel-gate")
	return path, p.Build(ctx, path)
}

// Options say how a daemon is run.
type Options struct {
	Binary     string
	Host       *Host
	Node       string
	Namespace  string
	Kubeconfig string
	// Checks is the YAML of the configuration below "checks:". Settings is that
	// above it, beside the sentinel.
	Checks, Settings string
	// ShortTurn: a turn.settle and turn.grantTimeout that would be too short anywhere
	// else are accepted.
	ShortTurn bool
	// Config replaces the whole configuration.
	Config string
	// Mode is sentinel.mode; tether where empty.
	Mode string
	Args []string
	// Wrap is a command that runs the daemon, such as unshare.
	Wrap []string
	// User is the uid to run as; 0 for the test's own.
	User uint32
}

// Line is a line of the decision log.
type Line struct {
	Time, Level, Msg          string
	Node                      string
	Decision, State, Previous string
	RawSince, RetryAt         *time.Time
	Packages, Blocking        []string
	Turn                      string
	Steps                     []Step
	Error                     string
	ListenAddress             string
	Wiring                    string
	Text                      string `json:"-"`
}

// Step is one of its steps.
type Step struct {
	Name, Type, Verdict, Reason, Message string
	Seconds                              float64
	Since                                *time.Time
}

// Step returns the step of the name.
func (l Line) Step(name string) Step {
	i := slices.IndexFunc(l.Steps, func(s Step) bool { return s.Name == name })
	if i < 0 {
		return Step{}
	}
	return l.Steps[i]
}

// Daemon is a running daemon.
type Daemon struct {
	cmd    *exec.Cmd
	output *os.File
	stderr strings.Builder
	done   chan struct{}
	err    error

	mu    sync.Mutex
	lines []Line
	more  chan struct{} // closed and made anew with each line
}

// Command returns the command line, with the configuration written beside the
// host.
func Command(ctx context.Context, o Options) (*exec.Cmd, error) {
	config := o.Config
	if config == "" {
		mode := o.Mode
		if mode == "" {
			mode = "tether"
		}
		if _, err := os.Stat(o.Host.dpkg()); err == nil {
			mode += ", dpkgStatus: " + o.Host.dpkg()
		}
		config = fmt.Sprintf("apiVersion: sentinel-gate.io/v1alpha1\nkind: GateConfiguration\nsentinel: {raw: %s, gated: %s, mode: %s}\n%s\nchecks:\n%s\n",
			o.Host.Raw, o.Host.Gated, mode, o.Settings, "  "+strings.ReplaceAll(o.Checks, "\n", "\n  "))
	}
	path := filepath.Join(o.Host.Dir, o.Node+".yaml")
	if err := os.WriteFile(path, []byte(config), 0o644); err != nil {
		return nil, err
	}
	args := append([]string{}, o.Wrap...)
	args = append(args, o.Binary, "--config", path, "--node-name", o.Node, "--namespace", o.Namespace,
		"--host-proc", o.Host.Proc, "--listen-address", "127.0.0.1:0", "--kubeconfig", o.Kubeconfig)
	if o.ShortTurn {
		args = append(args, "--short-turn")
	}
	args = append(args, o.Args...)
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	if o.User != 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: o.User, Gid: o.User}}
	}
	return cmd, nil
}

// Start starts a daemon, which ends with ctx.
func Start(ctx context.Context, o Options) (*Daemon, error) {
	cmd, err := Command(ctx, o)
	if err != nil {
		return nil, err
	}
	d := &Daemon{cmd: cmd, done: make(chan struct{}), more: make(chan struct{})}
	read, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	d.output = read
	cmd.Stdout, cmd.Stderr = write, &d.stderr
	started := make(chan error)
	go func() {
		// The kernel kills the daemon with the thread that started it, so that
		// it never outlives a test that was killed.
		runtime.LockOSThread()
		if cmd.SysProcAttr == nil {
			cmd.SysProcAttr = &syscall.SysProcAttr{}
		}
		cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
		err := cmd.Start()
		_ = write.Close()
		started <- err
		if err == nil {
			d.err = cmd.Wait()
			close(d.done)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("starting sentinel-gate: %w", err)
	}
	go d.read()
	return d, nil
}

func (d *Daemon) read() {
	scanner := bufio.NewScanner(d.output)
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		line := Line{Text: scanner.Text()}
		if json.Unmarshal(scanner.Bytes(), &line) != nil {
			line.Msg = line.Text
		}
		d.mu.Lock()
		d.lines = append(d.lines, line)
		close(d.more)
		d.more = make(chan struct{})
		d.mu.Unlock()
	}
}

// PID returns the process id.
func (d *Daemon) PID() int { return d.cmd.Process.Pid }

// Signal sends a signal.
func (d *Daemon) Signal(s syscall.Signal) error { return d.cmd.Process.Signal(s) }

// Wait waits for the end, and returns the state it ended in.
func (d *Daemon) Wait(ctx context.Context) (*os.ProcessState, error) {
	select {
	case <-d.done:
		return d.cmd.ProcessState, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("the daemon has not ended: %w\n%s", ctx.Err(), d.Log())
	}
}

// Log returns all that the daemon said.
func (d *Daemon) Log() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var b strings.Builder
	for _, l := range d.lines {
		b.WriteString(l.Text + "\n")
	}
	select {
	case <-d.done:
		b.WriteString(d.stderr.String())
	default:
	}
	return b.String()
}

// Lines returns how many lines there are so far, as a mark for Await.
func (d *Daemon) Lines() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.lines)
}

// Await returns the first line from the mark on that is wanted.
func (d *Daemon) Await(ctx context.Context, from int, what string, wanted func(Line) bool) (Line, error) {
	ended := false
	for {
		d.mu.Lock()
		for ; from < len(d.lines); from++ {
			if wanted(d.lines[from]) {
				l := d.lines[from]
				d.mu.Unlock()
				return l, nil
			}
		}
		more := d.more
		d.mu.Unlock()
		if ended {
			return Line{}, fmt.Errorf("waiting for %s: the daemon ended: %w\n%s", what, errors.Join(d.err), d.Log())
		}
		select {
		case <-more:
		case <-d.done:
			// Its last lines may still be on their way.
			select {
			case <-more:
			case <-time.After(100 * time.Millisecond):
				ended = true
			}
		case <-ctx.Done():
			return Line{}, fmt.Errorf("waiting for %s: %w\n%s", what, ctx.Err(), d.Log())
		}
	}
}

// Get returns the status and body of a path of the daemon's own server.
func (d *Daemon) Get(ctx context.Context, path string) (int, string, error) {
	started, err := d.Await(ctx, 0, "its address", func(l Line) bool { return l.ListenAddress != "" })
	if err != nil {
		return 0, "", err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+started.ListenAddress+path, nil)
	if err != nil {
		return 0, "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), err
}
