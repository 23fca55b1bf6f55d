//go:build linux

package tether

import (
	"fmt"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Timer is the kernel's own hand on the process: armed, it kills the process
// with SIGKILL at the deadline. It is what ends a process that was stopped
// (SIGSTOP, a debugger) and so cannot end its own threads. A frozen cgroup v1
// defers even that until it is thawed.
type Timer struct{ id int32 }

// sigevent is struct sigevent of sigevent(3type) on 64-bit Linux.
type sigevent struct {
	value  uint64
	signo  int32
	notify int32
	_      [48]byte
}

const sigevSignal = 0 // SIGEV_SIGNAL of <asm-generic/siginfo.h>

// itimerspec is struct itimerspec of timer_settime(2).
type itimerspec struct{ interval, value unix.Timespec }

// NewTimer creates the timer, disarmed. It belongs at the start of a process:
// the kernel may refuse one later, when RLIMIT_SIGPENDING, which counts per
// user id, is used up.
func NewTimer() (*Timer, error) {
	event := sigevent{signo: int32(unix.SIGKILL), notify: sigevSignal}
	var id int32
	if _, _, errno := unix.Syscall(unix.SYS_TIMER_CREATE, unix.CLOCK_BOOTTIME, uintptr(unsafe.Pointer(&event)), uintptr(unsafe.Pointer(&id))); errno != 0 {
		return nil, fmt.Errorf("creating the kernel timer behind the tether: timer_create: %w (EAGAIN: raise RLIMIT_SIGPENDING of this user)", errno)
	}
	return &Timer{id: id}, nil
}

// Arm sets the deadline, a time of Now. A deadline in the past kills at once.
func (t *Timer) Arm(deadline time.Duration) error {
	// A value of zero would disarm.
	return t.set(max(deadline, 1))
}

// Disarm takes the deadline away.
func (t *Timer) Disarm() error { return t.set(0) }

func (t *Timer) set(deadline time.Duration) error {
	spec := itimerspec{value: unix.NsecToTimespec(int64(deadline))}
	const absolute = 1 // TIMER_ABSTIME of <linux/time.h>
	if _, _, errno := unix.Syscall6(unix.SYS_TIMER_SETTIME, uintptr(t.id), absolute, uintptr(unsafe.Pointer(&spec)), 0, 0, 0); errno != 0 {
		return fmt.Errorf("setting the kernel timer behind the tether: timer_settime: %w", errno)
	}
	return nil
}
