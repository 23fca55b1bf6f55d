package build

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// Product is a command of this repository, as a test wants it.
type Product struct {
	// Sources is the directory of the root module: Root(), or another commit's that Sources has written.
	Sources string
	// Commit is set where the sources are another commit's, which never change: what was built of them stays.
	Commit  string
	Package string // "./cmd/sentinel-gate"
	Flags   []string
}

// Build builds the command and puts it at the given path. What was built last is kept, so that of many suites the
// first links it and the others find that it is up to date, which the go command decides.
func (p Product) Build(ctx context.Context, to string) error {
	if err := p.build(ctx, to); err != nil {
		return fmt.Errorf("building %s: %w", filepath.Base(p.Package), err)
	}
	return nil
}

func (p Product) build(ctx context.Context, to string) error {
	whose := p.Sources
	if p.Commit != "" {
		whose = p.Commit
	}
	name := filepath.Base(p.Package)
	cache, env := cacheDir()
	dir := filepath.Join(cache, fmt.Sprintf("%s-%x", name, sha256.Sum256(fmt.Appendf(nil, "%q %q", whose, p.Flags)))[:len(name)+17])
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	// Held until it is at its path: nobody may build another in its place before.
	unlock, err := lock(ctx, filepath.Join(dir, "lock"), func() {})
	if err != nil {
		return err
	}
	defer unlock()
	binary := filepath.Join(dir, name)
	if p.Commit == "" || !built(binary) {
		// A commit that nothing was changed by would have to be linked anew if the binary named it.
		args := append([]string{"build", "-buildvcs=false", "-o", binary}, p.Flags...)
		cmd := exec.CommandContext(ctx, "go", append(args, p.Package)...)
		cmd.Dir, cmd.Env = p.Sources, append(append(os.Environ(), "GOWORK=off"), env...)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%w\n%s", errors.Join(err, ctx.Err()), out)
		}
	}
	if os.Link(binary, to) == nil {
		return nil
	}
	// On another file system. Not copied by this process: a child that it starts meanwhile would hold the copy open for
	// writing, and then the kernel does not run it.
	if out, err := exec.CommandContext(ctx, "cp", binary, to).CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// Sources writes the files of an earlier commit into a directory, from the history of this repository.
func Sources(ctx context.Context, commit, dir string) error {
	root, err := Root()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	git := func(args ...string) *exec.Cmd {
		return exec.CommandContext(ctx, "git", append([]string{"-C", root}, args...)...)
	}
	if out, err := git("cat-file", "-e", commit+"^{commit}").CombinedOutput(); err != nil {
		return fmt.Errorf("commit %s is not in the history of %s, which this test needs (%w: %s); a shallow clone gets it with: git fetch --unshallow",
			commit, root, err, bytes.TrimSpace(out))
	}
	archive := filepath.Join(dir, "sources.tar")
	if out, err := git("archive", "--format=tar", "--output="+archive, commit).CombinedOutput(); err != nil {
		return fmt.Errorf("reading commit %s: %w: %s", commit, err, bytes.TrimSpace(out))
	}
	defer func() { _ = os.Remove(archive) }()
	if out, err := exec.CommandContext(ctx, "tar", "-xf", archive, "-C", dir).CombinedOutput(); err != nil {
		return fmt.Errorf("reading commit %s: %w: %s", commit, err, bytes.TrimSpace(out))
	}
	return nil
}
