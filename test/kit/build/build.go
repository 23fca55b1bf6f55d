// Package build makes the servers that the tests talk to: an API server, a Prometheus. Their modules are nested, so
// that nothing of theirs reaches the module graph of the product. Each is built at most once per machine, for the
// result is kept in the user's cache under a name that covers all that went into it.
package build

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// Target is a main package of a module nested in this one.
type Target struct {
	Title   string // what progress lines call it: "test control plane"
	Module  string // directory of the nested module, from the root of the repository
	Package string // path of the main package: "." or an import path
	Name    string // name of the binary; the last element of Package if empty
	Tags    []string
	LDFlags string // besides -s -w
	// Lacks names what a dependency embeds, and only its releases have: it is
	// built from a copy that has this file, empty.
	Lacks Lack
}

// Lack is a file that the go command's copy of a module should have and has
// not, such as a user interface that npm builds. The zero value is none.
type Lack struct{ Module, File string }

// Binary returns the path of the built target. A first build takes minutes, and says so on progress every few
// seconds; of several processes that want the same binary one builds it and the others wait. Nothing is written to
// progress when the binary is there already.
func Binary(ctx context.Context, progress io.Writer, target Target) (string, error) {
	root, err := Root()
	if err != nil {
		return "", fmt.Errorf("building the %s: %w", target.Title, err)
	}
	binary, err := target.build(ctx, progress, filepath.Join(root, filepath.FromSlash(target.Module)))
	if err != nil {
		return "", fmt.Errorf("building the %s: %w", target.Title, err)
	}
	return binary, nil
}

// Root returns the directory of the root module's go.mod: above this source file, or above the working directory
// when the caller was built with -trimpath.
func Root() (string, error) {
	_, source, _, _ := runtime.Caller(0)
	starts := []string{filepath.Dir(source)}
	if wd, err := os.Getwd(); err == nil {
		starts = append(starts, wd)
	}
	for _, start := range starts {
		for dir := start; filepath.IsAbs(dir); dir = filepath.Dir(dir) {
			mod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
			if err == nil && bytes.Contains(mod, []byte("module github.com/sentinel-gate/sentinel-gate\n")) {
				return dir, nil
			}
			if dir == filepath.Dir(dir) {
				break
			}
		}
	}
	return "", fmt.Errorf("no go.mod of sentinel-gate above any of %q", starts)
}

func (t Target) build(ctx context.Context, progress io.Writer, module string) (string, error) {
	if progress == nil {
		progress = io.Discard
	}
	if t.Name == "" {
		t.Name = path.Base(t.Package)
	}
	key, err := t.key(module)
	if err != nil {
		return "", err
	}
	cache, env := cacheDir()
	dir := filepath.Join(cache, t.Name+"-"+key)
	binary := filepath.Join(dir, t.Name)
	if built(binary) {
		return binary, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	started := time.Now()
	unlock, err := lock(ctx, filepath.Join(dir, "lock"), func() {
		fmt.Fprintf(progress, "waiting for another process that builds the %s, %s\n", t.Title, since(started))
	})
	if err != nil {
		return "", err
	}
	defer unlock()
	if built(binary) {
		return binary, nil
	}

	temporary := fmt.Sprintf("%s.%d", binary, os.Getpid())
	defer func() { _ = os.Remove(temporary) }() // after the rename there is nothing to remove
	if err := t.compile(ctx, progress, module, env, temporary); err != nil {
		return "", err
	}
	return binary, os.Rename(temporary, binary)
}

// key covers everything that decides what the binary is.
func (t Target) key(module string) (string, error) {
	files, err := filepath.Glob(filepath.Join(module, "*.go"))
	if err != nil {
		return "", err
	}
	hash := sha256.New()
	fmt.Fprintf(hash, "%s %s/%s %q %q %q\n", runtime.Version(), runtime.GOOS, runtime.GOARCH, t.Package, t.Tags, t.LDFlags)
	if t.Lacks != (Lack{}) {
		fmt.Fprintf(hash, "%q\n", t.Lacks)
	}
	for _, file := range append([]string{filepath.Join(module, "go.mod"), filepath.Join(module, "go.sum")}, files...) {
		content, err := os.ReadFile(file)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(hash, "%s %x\n", filepath.Base(file), sha256.Sum256(content))
	}
	return fmt.Sprintf("%x", hash.Sum(nil)[:8]), nil
}

// compile runs the go command twice: to download the module's dependencies and count its packages, and to build.
func (t Target) compile(ctx context.Context, progress io.Writer, module string, env []string, output string) error {
	flags := []string{"-trimpath", "-tags=" + strings.Join(t.Tags, ",")}
	started := time.Now()
	var total, done atomic.Int64
	if t.Lacks != (Lack{}) {
		completed := output + ".src"
		defer os.RemoveAll(completed)
		modfile, err := t.complete(ctx, module, env, completed)
		if err != nil {
			return err
		}
		flags = append(flags, "-modfile="+modfile)
	}
	stop := every(5*time.Second, func() {
		if total.Load() == 0 {
			fmt.Fprintf(progress, "downloading the modules of the %s (first time only): %d, %s\n", t.Title, done.Load(), since(started))
			return
		}
		fmt.Fprintf(progress, "building the %s (first time only): %d of %d packages, %s\n", t.Title, done.Load(), total.Load(), since(started))
	})
	defer stop()

	packages, err := goCommand(ctx, module, env, &done, append(append([]string{"list", "-deps"}, flags...), t.Package)...)
	if err != nil {
		return err
	}
	done.Store(0)
	total.Store(int64(bytes.Count(packages, []byte("\n"))))
	_, err = goCommand(ctx, module, env, &done,
		append(append([]string{"build", "-v", "-o", output, "-ldflags", strings.TrimSpace("-s -w " + t.LDFlags)}, flags...), t.Package)...)
	return err
}

// complete makes a copy of what lacks a file, with that file, and a go.mod beside it that replaces the one by the other.
func (t Target) complete(ctx context.Context, module string, env []string, dir string) (modfile string, err error) {
	var lines atomic.Int64
	output, err := goCommand(ctx, module, env, &lines, "mod", "download", "-json", t.Lacks.Module)
	if err != nil {
		return "", err
	}
	var downloaded struct{ Dir string }
	if err := json.Unmarshal(output, &downloaded); err != nil {
		return "", err
	}
	source := filepath.Join(dir, "module")
	if err := os.CopyFS(source, os.DirFS(downloaded.Dir)); err != nil {
		return "", err
	}
	missing := filepath.Join(source, filepath.FromSlash(t.Lacks.File))
	if err := os.MkdirAll(filepath.Dir(missing), 0o755); err != nil {
		return "", err
	}
	if err := os.WriteFile(missing, nil, 0o644); err != nil {
		return "", err
	}
	for _, name := range []string{"go.mod", "go.sum"} {
		content, err := os.ReadFile(filepath.Join(module, name))
		if err != nil {
			return "", err
		}
		if name == "go.mod" {
			content = fmt.Appendf(content, "\nreplace %s => %s\n", t.Lacks.Module, source)
		}
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			return "", err
		}
	}
	return filepath.Join(dir, "go.mod"), nil
}

// goCommand counts the lines that the go command writes to its standard error, and returns the last of them as part
// of the error if it fails.
func goCommand(ctx context.Context, module string, env []string, lines *atomic.Int64, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = module
	// A workspace would replace the nested module's pinned versions.
	cmd.Env = append(append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off"), env...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	var stdout bytes.Buffer
	cmd.Stdout = &stdout
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	var tail []string
	for scanner := bufio.NewScanner(stderr); scanner.Scan(); lines.Add(1) {
		tail = append(tail, scanner.Text())
		tail = tail[max(0, len(tail)-20):]
	}
	if err := cmd.Wait(); err != nil {
		return nil, fmt.Errorf("go %s: %w\n%s", args[0], errors.Join(err, ctx.Err()), strings.Join(tail, "\n"))
	}
	return stdout.Bytes(), nil
}

// cacheDir is where binaries are kept. Without a home the go command has no caches either, so they are put beside.
func cacheDir() (dir string, env []string) {
	if user, err := os.UserCacheDir(); err == nil {
		return filepath.Join(user, "sentinel-gate"), nil
	}
	dir = filepath.Join(os.TempDir(), fmt.Sprintf("sentinel-gate-%d", os.Getuid()))
	for variable, sub := range map[string]string{"GOCACHE": "go-build", "GOPATH": "go"} {
		if os.Getenv(variable) == "" {
			env = append(env, variable+"="+filepath.Join(dir, sub))
		}
	}
	return dir, env
}

func built(binary string) bool {
	info, err := os.Stat(binary)
	return err == nil && info.Mode().IsRegular()
}

// lock takes an exclusive lock that the kernel releases when its holder dies, however it dies.
func lock(ctx context.Context, file string, waiting func()) (unlock func(), err error) {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	stop := every(5*time.Second, waiting)
	defer stop()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			_ = f.Close()
			return nil, fmt.Errorf("locking %s: %w", file, err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			_ = f.Close()
			return nil, fmt.Errorf("locking %s: %w", file, ctx.Err())
		}
	}
}

// every calls f at an interval until stop, which returns when f will not be called again.
func every(interval time.Duration, f func()) (stop func()) {
	quit, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				f()
			case <-quit:
				return
			}
		}
	}()
	return func() { close(quit); <-stopped }
}

func since(started time.Time) time.Duration { return time.Since(started).Round(time.Second) }
