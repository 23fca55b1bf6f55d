// Package wiring finds out what the kured on this node looks at, from the
// process table that the gate shares with it: its arguments, and the mounts
// behind the path that they name. It needs no permission, and changes nothing.
// What it cannot see are KURED_ variables in kured's environment, which win over
// its arguments.
package wiring

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Reason says what was found; the zero value is Undetermined.
type Reason string

const (
	// Wired means that kured looks at the gated sentinel.
	Wired Reason = "Wired"
	// NoKured means that no kured runs on this node.
	NoKured Reason = "NoKured"
	// OtherFile means that kured looks at a file that nobody makes.
	OtherFile Reason = "OtherFile"
	// DirectoryReplaced means that kured's mount still shows a directory that
	// was deleted on the host, and perhaps made anew.
	DirectoryReplaced Reason = "DirectoryReplaced"
	// RawSentinel means that kured looks at the raw sentinel: it does not ask the gate.
	RawSentinel Reason = "RawSentinel"
	// SentinelCommand means that kured asks a command instead of a file: it does
	// not ask the gate either.
	SentinelCommand Reason = "SentinelCommand"
	// Undetermined means that it could not be found out.
	Undetermined Reason = "Undetermined"
)

// Reasons lists every reason, the ones that bypass the gate first: of several
// kureds on a node the worst is reported.
var Reasons = []Reason{SentinelCommand, RawSentinel, OtherFile, DirectoryReplaced, Undetermined, NoKured, Wired}

// Finding is what was found, and a sentence for a person.
type Finding struct {
	Reason  Reason
	Message string
	// Kured is how the kured was started; nil where none was found.
	Kured *Kured
}

// Bypassed reports whether kured reboots without asking the gate.
func (f Finding) Bypassed() bool { return f.Reason == RawSentinel || f.Reason == SentinelCommand }

// defaultSentinel is kured's own, where its arguments name none.
const defaultSentinel = "/var/run/reboot-required"

// Find looks at every kured of the process table below proc, and compares what
// it looks at with the gated and the raw sentinels as this process sees them.
func Find(proc, gated string, raw []string) Finding {
	own, err := readMounts(filepath.Join(proc, "self"))
	if err != nil {
		return Finding{Reason: Undetermined, Message: err.Error()}
	}
	var found []Finding
	entries, err := os.ReadDir(proc)
	if err != nil {
		return Finding{Reason: Undetermined, Message: fmt.Sprintf("reading the process table: %v", err)}
	}
	for _, entry := range entries {
		if _, err := strconv.Atoi(entry.Name()); err != nil {
			continue
		}
		dir := filepath.Join(proc, entry.Name())
		args := arguments(dir)
		if len(args) > 0 && filepath.Base(args[0]) == "kured" {
			found = append(found, judge(dir, args[1:], own, gated, raw))
		}
	}
	for _, reason := range Reasons {
		for _, f := range found {
			if f.Reason == reason {
				return f
			}
		}
	}
	return Finding{Reason: NoKured, Message: "no kured runs on this node: nobody looks at the gated sentinel"}
}

// arguments returns a process's command line, and nothing for one that ended.
func arguments(dir string) []string {
	data, err := os.ReadFile(filepath.Join(dir, "cmdline"))
	if err != nil || len(data) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(data), "\x00"), "\x00")
}

func judge(dir string, args []string, own []mount, gated string, raw []string) Finding {
	f := compare(dir, args, own, gated, raw)
	f.Kured = newKured(args)
	return f
}

func compare(dir string, args []string, own []mount, gated string, raw []string) Finding {
	who := "kured (pid " + filepath.Base(dir) + ")"
	if command := flag(args, "reboot-sentinel-command"); command != "" {
		return Finding{Reason: SentinelCommand, Message: fmt.Sprintf("%s asks the command %.100q and no file: THE GATE IS BYPASSED; remove --reboot-sentinel-command", who, command)}
	}
	sentinel := cmp.Or(flag(args, "reboot-sentinel"), defaultSentinel)
	mounts, err := readMounts(dir)
	if err != nil {
		return Finding{Reason: Undetermined, Message: fmt.Sprintf("%s: %v", who, err)}
	}
	sees := locate(mounts, sentinel, unlinked(sentinel))
	if sees.deleted {
		return Finding{Reason: DirectoryReplaced, Message: fmt.Sprintf("%s looks at %s in a directory that was deleted on the host: restart its pod", who, sentinel)}
	}
	for _, path := range raw {
		if sees == locate(own, path, resolved(path)) {
			return Finding{Reason: RawSentinel, Message: fmt.Sprintf("%s looks at the raw sentinel %s itself, as %s: THE GATE IS BYPASSED; point kured at %s", who, path, sentinel, gated)}
		}
	}
	if publishes := locate(own, gated, resolved(gated)); sees != publishes {
		return Finding{Reason: OtherFile, Message: fmt.Sprintf("%s looks at %s, which is %s; the gate publishes %s, which is %s: nothing will ever reboot; both must be the same directory of the host and the same name", who, sentinel, sees, gated, publishes)}
	}
	return Finding{Reason: Wired, Message: fmt.Sprintf("%s looks at the gated sentinel, as %s", who, sentinel)}
}

// flag returns the last value of a flag, as pflag reads it.
func flag(args []string, name string) string {
	values := flags(args, name)
	if len(values) == 0 {
		return ""
	}
	return values[len(values)-1]
}

// flags returns all values of a flag that may be given several times.
func flags(args []string, name string) []string {
	var values []string
	for i, arg := range args {
		if v, ok := strings.CutPrefix(arg, "--"+name+"="); ok {
			values = append(values, v)
		} else if arg == "--"+name && i+1 < len(args) {
			values = append(values, args[i+1])
		}
	}
	return values
}

// unlinked is the path behind the usual link from /var/run to /run, in a root
// file system that cannot be looked into.
func unlinked(path string) string {
	if rest, ok := strings.CutPrefix(path, "/var/run/"); ok {
		return "/run/" + rest
	}
	return path
}

// resolved follows the links of the path's directory, as far as it exists.
func resolved(path string) string {
	if dir, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil {
		return filepath.Join(dir, filepath.Base(path))
	}
	return path
}

// mount is a line of mountinfo (proc_pid_mountinfo(5)).
type mount struct{ device, root, point string }

func readMounts(dir string) ([]mount, error) {
	data, err := os.ReadFile(filepath.Join(dir, "mountinfo"))
	if err != nil {
		return nil, fmt.Errorf("reading mounts: %w", err)
	}
	var mounts []mount
	for line := range strings.Lines(string(data)) {
		if fields := strings.Fields(line); len(fields) > 4 {
			mounts = append(mounts, mount{fields[2], unescape(fields[3]), unescape(fields[4])})
		}
	}
	if len(mounts) == 0 {
		return nil, errors.New("reading mounts: there are none")
	}
	return mounts, nil
}

// unescape undoes the octal escapes of white space and backslashes.
func unescape(field string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(field)
}

// place is where a path is, for all who have its file system mounted: two
// processes see the same file where their places are equal.
type place struct {
	device, path string
	deleted      bool
}

func (p place) String() string { return fmt.Sprintf("%s of file system %s", p.path, p.device) }

// locate finds the mount that holds the path, given as one or more names for
// it: the one with the longest mount point, and of several at the same point the
// last, which covers the others.
func locate(mounts []mount, names ...string) place {
	var best mount
	var below string
	for _, name := range names {
		for _, m := range mounts {
			prefix := strings.TrimSuffix(m.point, "/") + "/"
			if rest, ok := strings.CutPrefix(filepath.Clean(name), prefix); ok && len(m.point) >= len(best.point) {
				best, below = m, rest
			}
		}
	}
	root, deleted := strings.CutSuffix(best.root, "//deleted")
	return place{best.device, filepath.Join(root, below), deleted}
}
