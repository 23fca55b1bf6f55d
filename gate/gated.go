package gate

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sentinel-gate/sentinel-gate/gate/tether"
)

// Mode is how the gated sentinel is made.
type Mode string

const (
	// ModeTether makes it a symlink to threads of this process: it stops
	// resolving when the process dies, hangs or is stopped. It is the default.
	ModeTether Mode = "tether"
	// ModeFile makes it a plain file, for nodes where the gate cannot share the
	// host's pid namespace. A gate that is killed leaves it behind.
	ModeFile Mode = "file"
)

// The three hands that close an open gate whose evaluations stopped, from the
// gentlest to the hardest: the loop, the tether's own deadline, and the
// kernel's timer, which stands at maxAge itself.
const (
	loopMargin   = time.Second
	threadMargin = 500 * time.Millisecond
)

// MinMaxAge is the smallest maxAge that leaves the three hands apart.
const MinMaxAge = 2 * loopMargin

// Gated is the gated sentinel: the path that kured stats. Only Open makes it
// resolve.
type Gated struct {
	path, temporary string
	mode            Mode
	dir             *os.File // its lock is what keeps a second gate out
	timer           *tether.Timer
	tether          *tether.Tether
	made            os.FileInfo // the plain file of ModeFile
}

// Claim takes the gated sentinel for this process and closes it, whatever an
// earlier life left there. It fails where another gate holds the directory, or
// where the entry cannot be removed.
func Claim(path string, mode Mode) (*Gated, error) {
	path = filepath.Clean(path)
	dir := filepath.Dir(path)
	f, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, fmt.Errorf("opening the directory of the gated sentinel: %w (this process is uid %d): create it, owned by that uid", err, os.Getuid())
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("locking %s: another sentinel-gate on this node holds it; two would undo each other: stop one", dir)
		}
		return nil, fmt.Errorf("locking %s: %w", dir, err)
	}
	g := &Gated{path: path, temporary: filepath.Join(dir, "."+filepath.Base(path)+".new"), mode: mode, dir: f}
	if err := errors.Join(g.clear(g.path), g.clear(g.temporary)); err != nil {
		_ = f.Close()
		return nil, err
	}
	return g, nil
}

// Prove shows that this process can make, resolve and remove the gated
// sentinel. It is never open meanwhile: what resolves is an entry beside it,
// and what stands at its path dangles.
func (g *Gated) Prove() error {
	if g.mode == ModeTether {
		if tether.InOwnPidNamespace() {
			return errors.New("the gate runs in a pid namespace of its own, where kured could not see its threads: set hostPID: true for its pod, or sentinel.mode: file")
		}
		timer, err := tether.NewTimer()
		if err != nil {
			return err
		}
		g.timer = timer
	}
	if err := g.prove(); err != nil {
		return fmt.Errorf("proving that the gated sentinel can be made: %w (%s)", err, g.owner())
	}
	return nil
}

func (g *Gated) prove() error {
	if err := g.make(tether.Now() + time.Minute); err != nil {
		return err
	}
	if _, err := os.Stat(g.temporary); err != nil {
		return fmt.Errorf("what was made does not resolve: %w", err)
	}
	if g.tether != nil {
		g.tether.Cut()
		g.tether = nil
		if err := unresolved(g.temporary); err != nil {
			return err
		}
	}
	g.made = nil
	if err := os.Remove(g.temporary); err != nil {
		return err
	}
	if err := os.Symlink("proof", g.temporary); err != nil {
		return err
	}
	if err := os.Rename(g.temporary, g.path); err != nil {
		return err
	}
	return g.clear(g.path)
}

// unresolved waits for the kernel to take the threads of a cut tether away.
func unresolved(path string) error {
	for end := tether.Now() + time.Second; tether.Now() < end; {
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			return nil
		}
	}
	return fmt.Errorf("%s still resolves a second after its threads ended: is another process behind it?", path)
}

// Open makes the gated sentinel resolve until the deadline, a time of
// tether.Now, at the latest. In ModeFile only Close ends it. To make a tether
// takes a while, in which the world may change: permitted is asked once more in
// the last moment, and its error is returned.
func (g *Gated) Open(until time.Duration, permitted func() error) error {
	err := g.make(until - threadMargin)
	if err == nil && g.timer != nil {
		err = g.timer.Arm(until)
	}
	if err == nil {
		err = permitted()
	}
	if err == nil {
		err = os.Rename(g.temporary, g.path)
	}
	if err != nil {
		err = errors.Join(err, g.clear(g.temporary))
		return errors.Join(fmt.Errorf("opening the gated sentinel %s: %w (%s)", g.path, err, g.owner()), g.Close())
	}
	return nil
}

// make puts a new entry at the temporary path, from where it is renamed: kured
// never sees half of one.
func (g *Gated) make(until time.Duration) error {
	if err := g.clear(g.temporary); err != nil {
		return err
	}
	if g.mode == ModeFile {
		f, err := os.OpenFile(g.temporary, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o444)
		if err != nil {
			return err
		}
		g.made, err = f.Stat()
		return errors.Join(err, f.Close())
	}
	t, err := tether.Start(until)
	if err != nil {
		return err
	}
	g.tether = t
	return os.Symlink(t.Target(), g.temporary)
}

// Extend moves the deadline of an open gate. After an error the gate must be
// closed.
func (g *Gated) Extend(until time.Duration) error {
	if g.tether == nil {
		return nil
	}
	if err := g.tether.Extend(until - threadMargin); err != nil {
		return err
	}
	return g.timer.Arm(until)
}

// Close makes sure that the gated sentinel does not resolve. An error means
// that an entry could not be removed; a tethered one dangles all the same.
func (g *Gated) Close() error {
	err := g.clear(g.path)
	if g.tether != nil {
		g.tether.Cut()
		g.tether = nil
	}
	g.made = nil
	if g.timer != nil {
		err = errors.Join(err, g.timer.Disarm())
	}
	return err
}

// Release closes the gated sentinel and gives the directory free.
func (g *Gated) Release() error { return errors.Join(g.Close(), g.dir.Close()) }

// Resolves reports whether kured sees a sentinel, whoever made it.
func (g *Gated) Resolves() bool {
	_, err := os.Stat(g.path)
	return err == nil
}

// Inspect returns nil where the gated path holds what this gate put there, and
// nothing while it is closed. Anything else is removed, and described in the
// error; the gate must then be closed.
func (g *Gated) Inspect() error {
	info, err := os.Lstat(g.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if g.tether != nil || g.made != nil {
			return fmt.Errorf("the gated sentinel %s was removed by somebody else while the gate was open", g.path)
		}
		return nil
	case err != nil:
		return fmt.Errorf("looking at the gated sentinel: %w", err)
	}
	found := info.Mode().String()
	if info.Mode()&fs.ModeSymlink != 0 {
		target, err := os.Readlink(g.path)
		if err == nil && g.tether != nil && target == g.tether.Target() {
			if _, err := os.Stat(g.path); err != nil {
				return fmt.Errorf("the gated sentinel %s is there but does not resolve: %w", g.path, err)
			}
			return nil
		}
		found = "link to " + target
	} else if g.made != nil && os.SameFile(info, g.made) {
		return nil
	}
	err = fmt.Errorf("a foreign entry was found at the gated sentinel %s (%s): kured would have taken it for an open gate; find out who made it", g.path, found)
	return errors.Join(err, g.clear(g.path))
}

// Misplaced returns an error where the directory that this gate locked is no
// longer the one at its path: what it writes is then seen by nobody, or by
// another gate.
func (g *Gated) Misplaced() error {
	locked, err := g.dir.Stat()
	if err != nil {
		return err
	}
	now, err := os.Stat(filepath.Dir(g.path))
	if err != nil {
		return fmt.Errorf("the directory of the gated sentinel is gone: %w", err)
	}
	if !os.SameFile(locked, now) {
		return fmt.Errorf("the directory %s was replaced under the running gate; restart the gate, and kured, which may still look at the old one", filepath.Dir(g.path))
	}
	return nil
}

// Persistent reports whether the gated path is on a file system that outlives
// a reboot, where a plain file left behind means another reboot.
func (g *Gated) Persistent() bool {
	var fsInfo unix.Statfs_t
	if err := unix.Fstatfs(int(g.dir.Fd()), &fsInfo); err != nil {
		return true
	}
	return fsInfo.Type != unix.TMPFS_MAGIC && fsInfo.Type != unix.RAMFS_MAGIC
}

// clear removes whatever is at path. A directory that is not empty is moved
// aside: to kured it is as good as a file.
func (g *Gated) clear(path string) error {
	// kured's mount may still show a directory that was moved away under us.
	_ = unix.Unlinkat(int(g.dir.Fd()), filepath.Base(path), 0)
	err := os.Remove(path)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	aside := fmt.Sprintf("%s.foreign-%d", path, time.Now().UnixNano())
	if os.Rename(path, aside) == nil {
		return nil
	}
	return fmt.Errorf("removing the entry at the gated sentinel's path: %w (%s)", err, g.owner())
}

// owner says who may write in the directory, and who this process is.
func (g *Gated) owner() string {
	dir := filepath.Dir(g.path)
	var stat unix.Stat_t
	if err := unix.Fstat(int(g.dir.Fd()), &stat); err != nil {
		return fmt.Sprintf("directory %s: %v", dir, err)
	}
	return fmt.Sprintf("directory %s has mode %#o and belongs to uid %d; this process is uid %d", dir, stat.Mode&0o7777, stat.Uid, os.Getuid())
}
