//go:build linux

// Package tether makes a permission that dies with its process. A Tether is a
// pair of operating-system threads, and its Target is a path below /proc that
// resolves only while both are alive. A symlink to the Target needs nobody to
// clean it up: it dangles as soon as the process is killed, or its deadline
// has passed, whatever the rest of the process is doing.
package tether

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// distance is how far, in thread ids, the two threads of a tether stand from
// the process id and from each other. The kernel hands ids out in sequence, so
// a later process that is given the same pid has its own threads right behind
// it; it would need this many to make an old link resolve again, and the two
// at the same ids.
const distance = 512

// maxAttempts bounds the search for thread ids far enough away.
const maxAttempts = 16 * distance

// Now returns the time since boot, suspension included (CLOCK_BOOTTIME). It is
// the clock of every deadline in this package.
func Now() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic("clock_gettime(CLOCK_BOOTTIME): " + err.Error()) // cannot happen since Linux 2.6.39
	}
	return time.Duration(ts.Nano())
}

// Tether is one permission, from Start until its deadline or Cut. It cannot be
// used again: a new permission has threads of its own, so that a link to an
// old one never resolves again.
type Tether struct {
	target string
	expiry int // a timerfd: readable once the deadline has passed
	cut    int // an eventfd: readable once Cut was called
	ended  sync.WaitGroup

	mu       sync.Mutex
	deadline time.Duration
	closed   bool
}

// Start makes a tether that ends at the deadline, a time of Now.
func Start(deadline time.Duration) (*Tether, error) {
	if deadline <= Now() {
		return nil, errors.New("starting a tether: its deadline has passed")
	}
	expiry, err := unix.TimerfdCreate(unix.CLOCK_BOOTTIME, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("starting a tether: timerfd_create: %w", err)
	}
	cut, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		_ = unix.Close(expiry)
		return nil, fmt.Errorf("starting a tether: eventfd: %w", err)
	}
	t := &Tether{expiry: expiry, cut: cut, deadline: deadline}
	if err := t.setExpiry(deadline); err != nil {
		t.Cut()
		return nil, err
	}
	pid := os.Getpid()
	first, err := t.thread(pid)
	if err != nil {
		t.Cut()
		return nil, err
	}
	second, err := t.thread(pid, first)
	if err != nil {
		t.Cut()
		return nil, err
	}
	t.target = fmt.Sprintf("/proc/%d/task/%d/../%d/stat", pid, first, second)
	return t, nil
}

// Target returns the path that resolves, to a regular file, while the tether
// holds.
func (t *Tether) Target() string { return t.target }

// Extend moves the deadline. It fails once the old one has passed: a
// permission that ended is not revived.
func (t *Tether) Extend(deadline time.Duration) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed || t.deadline <= Now() {
		return errors.New("extending the tether: its deadline has passed")
	}
	if err := t.setExpiry(deadline); err != nil {
		return err
	}
	t.deadline = deadline
	return nil
}

// Cut ends the tether. When it returns both threads have been told to end; the
// kernel removes them within about a millisecond. Cut may be called again.
func (t *Tether) Cut() {
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return
	}
	t.closed = true
	t.mu.Unlock()
	one := [8]byte{1} // the eventfd's counter, little endian or not: any value but zero wakes
	_, _ = unix.Write(t.cut, one[:])
	t.ended.Wait()
	_ = unix.Close(t.cut)
	_ = unix.Close(t.expiry)
}

func (t *Tether) setExpiry(deadline time.Duration) error {
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(deadline))}
	if err := unix.TimerfdSettime(t.expiry, unix.TFD_TIMER_ABSTIME, &spec, nil); err != nil {
		return fmt.Errorf("setting the tether's deadline: timerfd_settime: %w", err)
	}
	return nil
}

// thread starts a thread that lives as long as the tether, and returns its id.
// It burns threads until one stands at the distance from each of the ids.
func (t *Tether) thread(from ...int) (int, error) {
	found := make(chan struct{})
	defer close(found)
	for attempt := range maxAttempts {
		tid := make(chan int)
		t.ended.Add(1)
		go func() {
			defer t.ended.Done()
			runtime.LockOSThread()
			id := unix.Gettid()
			if id == os.Getpid() {
				// The main thread cannot end before the process does. It is
				// kept busy, or the next goroutine would land on it again.
				tid <- 0
				<-found
				runtime.UnlockOSThread()
				return
			}
			// From here on the goroutine ends locked, and its thread with it.
			if attempt < distance || !far(id, from) {
				tid <- 0
				return
			}
			tid <- id
			t.hold()
		}()
		if id := <-tid; id != 0 {
			return id, nil
		}
	}
	return 0, fmt.Errorf("starting a tether: no thread id at a distance of %d from %v in %d attempts", distance, from, maxAttempts)
}

func far(id int, from []int) bool {
	for _, other := range from {
		if id-other < distance && other-id < distance {
			return false
		}
	}
	return true
}

// hold blocks its thread in the kernel, out of reach of Go's scheduler and
// timers, until the deadline has passed or the tether is cut.
func (t *Tether) hold() {
	fds := []unix.PollFd{{Fd: int32(t.expiry), Events: unix.POLLIN}, {Fd: int32(t.cut), Events: unix.POLLIN}}
	for {
		if _, err := unix.Poll(fds, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return
		}
		if fds[1].Revents != 0 {
			return
		}
		// An expiry that Extend moved in time reads as armed again.
		var left unix.ItimerSpec
		if err := unix.TimerfdGettime(t.expiry, &left); err != nil || left.Value.Nano() == 0 {
			return
		}
	}
}

// SeesKernelThreads reports whether the kernel's own threads are in /proc: they
// are in the machine's first pid namespace alone. Behind an init of its own a
// container cannot be told from a node that is one by InOwnPidNamespace.
func SeesKernelThreads() bool {
	comm, err := os.ReadFile("/proc/2/comm")
	return err == nil && string(comm) == "kthreadd\n"
}

// InOwnPidNamespace reports whether the process is the first of a pid
// namespace of its own, where nobody outside could resolve its Target: its
// parent's pid reads 0 (getppid(2)).
func InOwnPidNamespace() bool { return os.Getppid() == 0 }
