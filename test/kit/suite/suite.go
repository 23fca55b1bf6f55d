// Package suite is what every package of tests has in common that needs something started or built: one main, one way
// to share what takes long to make, and one deadline.
package suite

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"
)

// Main runs the tests of a package, stops what they shared, and exits. It is the whole of a TestMain.
func Main(m *testing.M, shared ...interface{ Stop() }) {
	// With the race detector every process sleeps for a second before it exits, unless it is told otherwise. What the
	// tests start inherits this.
	if os.Getenv("GORACE") == "" {
		_ = os.Setenv("GORACE", "atexit_sleep_ms=0")
	}
	status := m.Run()
	for _, s := range shared {
		s.Stop()
	}
	os.Exit(status)
}

// Context is the test's, with a deadline: within it a test succeeds on a machine that does other things too, and after
// it there is nothing to wait for.
func Context(t testing.TB, deadline time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	t.Cleanup(cancel)
	return ctx
}

// NeedsServers says of a test that it starts a server, or builds a program. With go test -short it is skipped.
func NeedsServers(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("-short: it starts a server or builds a program")
	}
}

// Shared is made by the first test that asks for it, so that the others, and the fuzzer's workers, do without.
type Shared[T any] struct {
	// Make may be slow. Its context bounds nothing but itself, and what it does in the end is to be told to the Setup.
	Make func(context.Context, *Setup) (T, error)

	once  sync.Once
	setup Setup
	made  T
	err   error
}

// Get returns it. A test that cannot have it fails; with go test -short it is skipped.
func (s *Shared[T]) Get(t testing.TB) T {
	t.Helper()
	NeedsServers(t)
	s.once.Do(func() { s.made, s.err = s.Make(context.Background(), &s.setup) })
	if s.err != nil {
		t.Fatal(s.err)
	}
	return s.made
}

// Stop undoes what the making did, the last first.
func (s *Shared[T]) Stop() {
	for i := len(s.setup.undo) - 1; i >= 0; i-- {
		s.setup.undo[i]()
	}
}

// Setup is what the making of a Shared is told to.
type Setup struct{ undo []func() }

// Cleanup has f called when the tests of the package are over, also where the making fails.
func (s *Setup) Cleanup(f func()) { s.undo = append(s.undo, f) }

// TempDir returns a directory that other users can read, which is removed when the tests of the package are over.
func (s *Setup) TempDir() (string, error) {
	dir, err := os.MkdirTemp("", "sentinel-gate-test-")
	if err != nil {
		return "", fmt.Errorf("making a directory: %w", err)
	}
	s.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir, os.Chmod(dir, 0o755)
}
