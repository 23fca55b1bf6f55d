package e2e

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/sentinel-gate/sentinel-gate/test/kit/controlplane"
)

const cgroups = "/sys/fs/cgroup"

// hierarchies are the roots of the machine's control groups: one with version 2,
// one for each controller with version 1.
func hierarchies() ([]string, error) {
	if _, err := os.Stat(filepath.Join(cgroups, "cgroup.procs")); err == nil {
		return []string{cgroups}, nil
	}
	procs, err := filepath.Glob(filepath.Join(cgroups, "*", "cgroup.procs"))
	if err == nil && len(procs) == 0 {
		err = fmt.Errorf("no control groups are mounted in %s", cgroups)
	}
	for i := range procs {
		procs[i] = filepath.Dir(procs[i])
	}
	return procs, err
}

// makeCgroups makes the control group with this path in each hierarchy. Who is in
// it finds all that is in the one above.
func makeCgroups(path string) error {
	roots, err := hierarchies()
	if err != nil {
		return err
	}
	for _, root := range roots {
		dir := filepath.Join(root, path)
		if err := makeCgroup(filepath.Dir(dir), dir); err != nil {
			return fmt.Errorf("making a control group: %w", err)
		}
	}
	return nil
}

func makeCgroup(parent, dir string) error {
	if controllers, err := os.ReadFile(filepath.Join(parent, "cgroup.controllers")); err == nil {
		for _, name := range strings.Fields(string(controllers)) {
			if !slices.Contains([]string{"cpu", "cpuset", "memory", "pids"}, name) {
				continue
			}
			if err := os.WriteFile(filepath.Join(parent, "cgroup.subtree_control"), []byte("+"+name), 0); err != nil {
				return err
			}
		}
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	// With version 1 a group begins without processors and memory.
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		value, err := os.ReadFile(filepath.Join(parent, file))
		if errors.Is(err, fs.ErrNotExist) || len(value) == 0 {
			continue
		}
		if err := errors.Join(err, os.WriteFile(filepath.Join(dir, file), value, 0)); err != nil {
			return err
		}
	}
	return nil
}

// removeCgroups removes the group and those below it. A process that has just
// ended may still be counted.
func removeCgroups(path string) error {
	roots, err := hierarchies()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	var problems []error
	for _, root := range roots {
		problems = append(problems, controlplane.Poll(ctx, func() error { return removeDirs(filepath.Join(root, path)) }))
	}
	return errors.Join(problems...)
}

// removeDirs removes a tree of directories. Their files are the kernel's.
func removeDirs(top string) error {
	var dirs []string
	if err := filepath.WalkDir(top, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && entry.IsDir() {
			dirs = append(dirs, path)
		}
		return err
	}); err != nil {
		return err
	}
	for _, dir := range slices.Backward(dirs) {
		if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
