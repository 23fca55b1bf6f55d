package gate

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"
)

// Bounds of what is read of a package list, which anybody who can write beside
// the raw sentinel may have filled.
const (
	maxPackageBytes = 64 << 10
	maxPackages     = 100
)

// packageName is what dpkg and rpm allow in a package's name.
var packageName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9+._-]*$`)

// maxPackageName is how long it may be: as long as a file's.
const maxPackageName = 255

// Raw is what the raw sentinel said when it was read. Its zero value says that
// no reboot is pending.
type Raw struct {
	// Pending: a reboot is asked for. It is false where Problem is set.
	Pending bool
	// Since is the modification time of the oldest raw sentinel, or the time of
	// reading where that lies in the future.
	Since time.Time
	// Packages are those that asked for the reboot, from the lists beside the
	// raw sentinels (update-notifier's reboot-required.pkgs): at most 100,
	// sorted, each once.
	Packages []string
	// Problem says that the raw sentinel cannot be understood: it is not a
	// regular file, dangles, or cannot be looked at. Whether a reboot is
	// pending is then not known, and the gate is closed.
	Problem error
}

// ReadRaw looks at each of the paths. A reboot is pending where one of them is
// a regular file, or a link to one, and none is a problem.
func ReadRaw(paths []string, now time.Time) Raw {
	var raw Raw
	var problems []error
	for _, path := range paths {
		info, err := os.Stat(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			if info, err := os.Lstat(path); err == nil && info.Mode()&fs.ModeSymlink != 0 {
				problems = append(problems, fmt.Errorf("raw sentinel %s is a dangling link: remove it, or what it points to was lost", path))
			}
			continue
		case err != nil:
			problems = append(problems, fmt.Errorf("looking at the raw sentinel: %w (uid %d)", err, os.Getuid()))
			continue
		case !info.Mode().IsRegular():
			problems = append(problems, fmt.Errorf("raw sentinel %s is not a regular file but %s: remove it", path, info.Mode().Type()))
			continue
		}
		since := info.ModTime()
		if since.After(now) {
			since = now
		}
		if !raw.Pending || since.Before(raw.Since) {
			raw.Since = since
		}
		raw.Pending = true
		raw.Packages = append(raw.Packages, readPackages(path+".pkgs")...)
	}
	slices.Sort(raw.Packages)
	raw.Packages = slices.Compact(raw.Packages)
	raw.Packages = raw.Packages[:min(len(raw.Packages), maxPackages)]
	if len(problems) > 0 {
		return Raw{Problem: errors.Join(problems...)}
	}
	return raw
}

// readPackages reads the list at path. Whatever is not a package's name is left
// out: the list is told to people and decides nothing.
func readPackages(path string) []string {
	// A FIFO must not block the loop.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil
	}
	data, err := io.ReadAll(io.LimitReader(f, maxPackageBytes))
	if err != nil {
		return nil
	}
	var names []string
	for line := range bytes.Lines(data) {
		if name := bytes.TrimSpace(line); len(name) <= maxPackageName && packageName.Match(name) {
			names = append(names, string(name))
		}
	}
	return names
}

// WatchFiles signals, without blocking, whenever something changes at one of
// the paths. It returns the directories that cannot be watched: for those there
// is only the look at every interval.
func WatchFiles(paths []string) (changed <-chan struct{}, closer func(), unwatched error) {
	signal := make(chan struct{}, 1)
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return signal, func() {}, fmt.Errorf("watching files with inotify: %w", err)
	}
	var problems []error
	for _, path := range paths {
		if err := watcher.Add(filepath.Dir(path)); err != nil {
			problems = append(problems, fmt.Errorf("watching %s with inotify: %w", filepath.Dir(path), err))
		}
	}
	go func() {
		for {
			select {
			case event, ok := <-watcher.Events:
				if !ok {
					return
				}
				if !slices.Contains(paths, event.Name) {
					continue
				}
			case _, ok := <-watcher.Errors: // events were lost: look
				if !ok {
					return
				}
			}
			select {
			case signal <- struct{}{}:
			default:
			}
		}
	}()
	return signal, func() { _ = watcher.Close() }, errors.Join(problems...)
}
