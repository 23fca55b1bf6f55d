package controlplane

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Process is a server that cannot outlive the test binary: it ends when its standard input does, and this process
// holds the only write end.
type Process struct {
	name   string
	log    string
	pid    int
	tether io.Closer
	exited chan struct{}
	err    error // valid once exited
}

// Supervise runs a command that knows nothing of the tether, below the given server binary. Its output is appended to
// the log file. PID and Signal are about the command, not about its supervisor.
func Supervise(binary, log, command string, args ...string) (*Process, error) {
	read, write, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", filepath.Base(command), err)
	}
	defer read.Close()
	cmd := exec.Command(binary, append([]string{"supervise", command}, args...)...) //nolint:noctx // it ends with its standard input
	cmd.Env = append(os.Environ(), "SENTINEL_GATE_TEST_PID=1")
	cmd.ExtraFiles = []*os.File{write}
	process, err := start(cmd, filepath.Base(command), log)
	_ = write.Close()
	if err != nil {
		return nil, err
	}
	// Answers at once, or ends with the supervisor.
	if _, err := fmt.Fscanln(read, &process.pid); err != nil {
		process.Stop()
		return nil, process.failure("starting", errors.Join(err, process.err))
	}
	return process, nil
}

// startServer runs a subcommand of the server binary, which minds the tether itself.
func startServer(binary, log string, args ...string) (*Process, error) {
	return start(exec.Command(binary, args...), args[0], log) //nolint:noctx // it outlives the context of its start
}

func start(cmd *exec.Cmd, name, log string) (*Process, error) {
	file, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	defer file.Close()
	cmd.Stdout, cmd.Stderr = file, file
	if cmd.Env == nil {
		cmd.Env = os.Environ()
	}
	cmd.Env = append(cmd.Env, "SENTINEL_GATE_TEST_STDIN=1")
	tether, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	process := &Process{name: name, log: log, pid: cmd.Process.Pid, tether: tether, exited: make(chan struct{})}
	go func() {
		process.err = cmd.Wait()
		close(process.exited)
	}()
	return process, nil
}

// PID is the operating system's.
func (p *Process) PID() int { return p.pid }

// Signal sends a signal. It fails on a process that has ended, and on none.
func (p *Process) Signal(signal syscall.Signal) error {
	if p == nil {
		return fmt.Errorf("signalling a stopped server: %w", os.ErrProcessDone)
	}
	select {
	case <-p.exited:
		return fmt.Errorf("signalling %s: %w", p.name, os.ErrProcessDone)
	default:
	}
	if err := syscall.Kill(p.pid, signal); err != nil {
		return fmt.Errorf("signalling %s: %w", p.name, err)
	}
	return nil
}

// Pause makes the process hang: the kernel still accepts its connections, and nobody answers. It returns once every
// thread has stopped, for a signal alone leaves the time to answer another request.
func (p *Process) Pause() error {
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return Poll(ctx, func() error {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", p.pid))
		if err != nil {
			return err
		}
		for _, thread := range threads {
			// A thread that cannot be read has ended.
			stat, err := os.ReadFile(thread)
			if err == nil && !bytes.Contains(stat, []byte(") T ")) {
				return fmt.Errorf("pausing %s: a thread runs: %s", p.name, stat)
			}
		}
		return nil
	})
}

// Resume ends a pause.
func (p *Process) Resume() error { return p.Signal(syscall.SIGCONT) }

// Kill ends the process at once and waits for it.
func (p *Process) Kill() {
	_ = p.Signal(syscall.SIGKILL)
	<-p.exited
}

// Stop lets the process go and waits for it. A supervised one has a few seconds to end in good order.
func (p *Process) Stop() {
	_ = p.tether.Close()
	<-p.exited
}

// AwaitOK polls a URL until it answers 200. If the process ends before, or the context does, the process is killed
// and the error holds the end of its log.
func (p *Process) AwaitOK(ctx context.Context, client *http.Client, url string) error {
	err := Poll(ctx, func() error {
		select {
		case <-p.exited:
			return permanent{fmt.Errorf("it ended: %w", p.err)}
		default:
			return get(ctx, client, url)
		}
	})
	if err != nil {
		p.Kill()
		return p.failure("waiting for", err)
	}
	return nil
}

// Poll calls f until it returns nil, at short intervals. When the context ends, the error is what f last said.
func Poll(ctx context.Context, f func() error) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	var last error
	for {
		err := f()
		if err == nil {
			return nil
		}
		if final, ok := errors.AsType[permanent](err); ok {
			return final.error
		}
		// The last words of an interrupted f are only that it was interrupted.
		if last == nil || ctx.Err() == nil {
			last = err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%w, last: %w", ctx.Err(), last)
		}
	}
}

// permanent is an error that makes Poll give up.
type permanent struct{ error }

// get fails on any answer but 200.
func get(ctx context.Context, client *http.Client, url string) error {
	// A listener whose process hangs accepts the connection, and a poll has to notice more than that.
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(io.LimitReader(response.Body, 4<<10))
		return fmt.Errorf("GET %s: %s: %s", url, response.Status, body)
	}
	return nil
}

// failure is an error with the end of the log, which is where a server says why.
func (p *Process) failure(doing string, err error) error {
	content, _ := os.ReadFile(p.log)
	lines := strings.Split(strings.TrimSpace(string(content)), "\n")
	return fmt.Errorf("%s %s: %w; its log ends:\n%s", doing, p.name, err, strings.Join(lines[max(0, len(lines)-15):], "\n"))
}
