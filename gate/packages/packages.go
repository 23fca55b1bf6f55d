// Package packages reads what the next boot of this node would bring into effect, and what
// is installed after it: from dpkg's database, or from the list of a script of the node
// layer (deploy/node). All of it was written by others: reads are bounded, and whatever is
// missing, malformed or cut off makes the parts Unknown.
package packages

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/sentinel-gate/sentinel-gate/gate/soak"
)

// Bounds of what is read.
const (
	maxDatabase  = 64 << 20
	maxAsked     = 64 << 10
	maxList      = 2 << 20
	maxLine      = 64 << 10
	maxInstalled = 20_000
	maxBroken    = 5
)

// The suffixes of the lists beside a raw sentinel: which packages ask for the reboot, and,
// where there is no dpkg, what of the packages that a boot reads is installed.
const (
	askedSuffix     = ".pkgs"
	installedSuffix = ".installed"
)

// Found is what was found on this node.
type Found struct {
	// Wants are the parts that the next boot would bring into effect: never nil.
	Wants []soak.Part
	// Installed are all that are installed; nil: not known. Kernels are those of them that
	// are kernels, and Running those that run, where their versions tell.
	Installed        map[soak.Part]bool
	Kernels, Running []soak.Part
	// Names tells the name and version of what this node knows.
	Names map[soak.Part]string
	// Broken are packages that are not configured.
	Broken []string
	// Problem is why something is not known.
	Problem error
}

// Reader reads. Its zero value knows of nothing.
type Reader struct {
	// Database is dpkg's status file, and Raw the raw sentinels.
	Database string
	Raw      []string
	// Release is the running kernel's.
	Release string

	mu    sync.Mutex
	stamp string
	found Found
}

// Read reads, where a file has changed since it was read last. What it returns is shared.
func (r *Reader) Read() Found {
	r.mu.Lock()
	defer r.mu.Unlock()
	stamp := r.stamps()
	if stamp != r.stamp || r.found.Wants == nil {
		r.found, r.stamp = r.read(), stamp
	}
	return r.found
}

// stamps tells one state of the files from the next.
func (r *Reader) stamps() string {
	var b strings.Builder
	for _, path := range r.files() {
		if info, err := os.Stat(path); err == nil {
			fmt.Fprintln(&b, path, info.Size(), info.ModTime().Format(time.RFC3339Nano), inode(info))
		}
	}
	return b.String()
}

func (r *Reader) files() []string {
	files := []string{r.Database}
	for _, raw := range r.Raw {
		files = append(files, raw, raw+askedSuffix, raw+installedSuffix)
	}
	return files
}

func inode(info fs.FileInfo) uint64 {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return stat.Ino
	}
	return 0
}

// bootReads are the packages that a boot reads, whoever asks for it: microcode, firmware,
// the initramfs, systemd, libc and the container runtime. Kernels are told apart below.
var bootReads = regexp.MustCompile(`^(intel-microcode|amd64-microcode|microcode_ctl|ucode-intel|ucode-amd|linux-firmware|firmware-[a-z0-9-]+|kernel-firmware-[a-z0-9-]+|` +
	`initramfs-tools|dracut|systemd|libc6|glibc|containerd|containerd\.io|cri-o|runc|docker\.io|docker-ce|flatcar)$`)

// kernelPackage is an installed kernel of Debian's and Ubuntu's, not a name that depends on the latest, or of RPM.
var kernelPackage = regexp.MustCompile(`^(linux-image-(unsigned-)?[0-9].*|kernel|kernel-core|kernel-default)$`)

type version struct{ name, version string }

func (v version) part() soak.Part { return soak.NewPart(v.name, v.version) }

// runs reports whether it is the kernel of that release, by its name or by its version.
func (v version) runs(release string) bool {
	return release != "" && kernelPackage.MatchString(v.name) && (strings.HasSuffix(v.name, "-"+release) || v.version == release)
}

func (r *Reader) read() Found {
	found := Found{Names: map[soak.Part]string{}}
	installed, broken, err := r.installed()
	if err != nil {
		found.Problem = err
		found.Wants = []soak.Part{soak.Unknown}
		return found
	}
	found.Broken = broken
	found.Installed = make(map[soak.Part]bool, len(installed))
	known := make(map[string][]version, len(installed))
	for _, v := range installed {
		part := v.part()
		found.Installed[part] = true
		known[v.name] = append(known[v.name], v)
		if kernelPackage.MatchString(v.name) {
			found.Kernels = append(found.Kernels, part)
		}
		if v.runs(r.Release) {
			found.Running = append(found.Running, part)
		}
	}
	asked, err := r.asked()
	if err != nil {
		found.Problem = err
		found.Wants = append(found.Wants, soak.Unknown)
	}
	want := func(v version) {
		part := v.part()
		found.Wants, found.Names[part] = append(found.Wants, part), v.name+" "+v.version
	}
	kernel := false
	for _, v := range asked {
		if v.name == "flatcar" { // an image: what is installed now is not what it would run
			delete(known, v.name)
		}
		kernel = kernel || kernelPackage.MatchString(v.name)
		switch versions := known[v.name]; {
		case v.version != "":
			want(v)
		case len(versions) > 0:
			for _, v := range versions {
				want(v)
			}
		default:
			found.Problem = errors.Join(found.Problem, fmt.Errorf("%s asks for the reboot, and is not installed", v.name))
			found.Wants = append(found.Wants, soak.Unknown)
		}
	}
	for _, v := range installed {
		if bootReads.MatchString(v.name) || !kernel && v.runs(r.Release) {
			want(v)
		}
	}
	found.Wants = soak.Sorted(found.Wants)
	return found
}

// asked are the packages that ask for the reboot: of all raw sentinels that are there.
func (r *Reader) asked() (asked []version, err error) {
	for _, raw := range r.Raw {
		if _, err := os.Stat(raw); err != nil {
			continue
		}
		lines, err := readList(raw+askedSuffix, maxAsked)
		if err != nil {
			return asked, fmt.Errorf("which packages ask for the reboot is not known: %w", err)
		}
		if len(lines) == 0 {
			return asked, fmt.Errorf("which packages ask for the reboot is not known: %s is empty", raw+askedSuffix)
		}
		asked = append(asked, lines...)
	}
	return asked, nil
}

// installed is what dpkg's database has or, where there is none, the script's lists.
func (r *Reader) installed() (installed []version, broken []string, err error) {
	f, err := open(r.Database)
	if err == nil {
		defer f.Close()
		return readStatus(f)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("reading dpkg's database: %w", err)
	}
	found := false
	for _, raw := range r.Raw {
		lines, listErr := readList(raw+installedSuffix, maxList)
		if errors.Is(listErr, fs.ErrNotExist) {
			continue
		}
		if listErr != nil {
			return nil, nil, listErr
		}
		for _, v := range lines {
			if v.version == "" {
				return nil, nil, fmt.Errorf("%s has no version of %s", raw+installedSuffix, v.name)
			}
		}
		found, installed = true, append(installed, lines...)
	}
	if len(installed) == 0 && found {
		return nil, nil, fmt.Errorf("the list %s is empty", installedSuffix)
	}
	if !found {
		return nil, nil, fmt.Errorf("neither dpkg's database nor a list %s is there: which versions are installed is not known", installedSuffix)
	}
	return installed, nil, nil
}

// open opens a regular file. A FIFO must not block the loop.
func open(path string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Clean(path), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		_ = f.Close()
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	return f, nil
}

// Name and versionFormat are what dpkg and rpm allow.
var (
	nameFormat    = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9+._-]{0,254}$`)
	versionFormat = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9.+:~^_-]{0,254}$`)
)

// readList reads a list of names, or of names and versions as name=version, one a line.
func readList(path string, most int64) ([]version, error) {
	f, err := open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > most {
		return nil, fmt.Errorf("%s is longer than %d KiB", path, most>>10)
	}
	versions := map[version]bool{}
	for line := range bytes.Lines(data) {
		text := strings.TrimSpace(string(line))
		if text == "" || strings.HasPrefix(text, "***") { // update-notifier's own heading
			continue
		}
		name, v, given := strings.Cut(text, "=")
		if !nameFormat.MatchString(name) || given && !versionFormat.MatchString(v) {
			return nil, fmt.Errorf("%s has a line %.60q, which is no package", path, text)
		}
		versions[version{name, v}] = true
	}
	return slices.SortedFunc(maps.Keys(versions), func(a, b version) int {
		return strings.Compare(a.name+"="+a.version, b.name+"="+b.version)
	}), nil
}

// readStatus reads dpkg's database: stanzas of fields, of which three matter.
func readStatus(from io.Reader) (installed []version, broken []string, err error) {
	lines := bufio.NewScanner(&io.LimitedReader{R: from, N: maxDatabase})
	lines.Buffer(nil, maxLine)
	var v version
	var status string
	read := 0
	end := func() error {
		defer func() { v, status = version{}, "" }()
		switch fields := strings.Fields(status); {
		case v.name == "" && status == "":
			return nil
		case !nameFormat.MatchString(v.name) || len(fields) != 3:
			return fmt.Errorf("dpkg's database has a stanza that is no package, behind %d others", len(installed))
		case fields[2] == "installed" || fields[2] == "triggers-pending" || fields[2] == "triggers-awaited":
			if !versionFormat.MatchString(v.version) {
				return fmt.Errorf("dpkg's database has no version of %s", v.name)
			}
			installed = append(installed, v)
		case fields[2] == "unpacked" || fields[2] == "half-configured" || fields[2] == "half-installed":
			if len(broken) < maxBroken {
				broken = append(broken, v.name)
			}
		}
		if len(installed) > maxInstalled {
			return fmt.Errorf("dpkg's database has more than %d packages", maxInstalled)
		}
		return nil
	}
	for lines.Scan() {
		line := lines.Text()
		read += len(line) + 1
		name, value, _ := strings.Cut(line, ": ")
		switch {
		case line == "":
			if err := end(); err != nil {
				return nil, nil, err
			}
		case name == "Package":
			v.name = value
		case name == "Version":
			v.version = value
		case name == "Status":
			status = value
		}
	}
	if err := errors.Join(lines.Err(), end()); err != nil {
		return nil, nil, fmt.Errorf("reading dpkg's database: %w", err)
	}
	if read >= maxDatabase {
		return nil, nil, fmt.Errorf("dpkg's database is larger than %d MiB", maxDatabase>>20)
	}
	if len(installed) == 0 {
		return nil, nil, errors.New("dpkg's database has no package")
	}
	return installed, broken, nil
}
