package record

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// maxUptime is 30 years, in seconds.
const maxUptime = 1e9

var bootIDFormat = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// ReadBootID returns the random id that the kernel chose at boot, from
// sys/kernel/random/boot_id below proc. The kubelet reports the same file.
func ReadBootID(proc string) (string, error) {
	path := filepath.Join(proc, "sys/kernel/random/boot_id")
	data, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("reading the boot id: %w", err)
	}
	id := strings.TrimSpace(string(data))
	if !bootIDFormat.MatchString(id) {
		return "", fmt.Errorf("reading the boot id: %s holds %.60q, which is none", path, id)
	}
	return id, nil
}

// ReadUptime returns the time since boot, from the file uptime below proc.
func ReadUptime(proc string) (time.Duration, error) {
	path := filepath.Join(proc, "uptime")
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, fmt.Errorf("reading the uptime: %w", err)
	}
	word, _, _ := strings.Cut(string(data), " ")
	seconds, err := strconv.ParseFloat(strings.TrimSpace(word), 64)
	if err != nil || !(seconds >= 0 && seconds < maxUptime) { // also not a number
		return 0, fmt.Errorf("reading the uptime: %s holds %.60q", path, data)
	}
	return time.Duration(seconds * float64(time.Second)), nil
}

// maxKernel is longer than any release or build that uname knows, in bytes.
const maxKernel = 128

// ReadKernel returns the release and the build of the running kernel, from
// sys/kernel/osrelease and sys/kernel/version below proc; empty where that cannot be read.
func ReadKernel(proc string) (release, build string) {
	read := func(name string) string {
		data, err := os.ReadFile(filepath.Join(proc, "sys/kernel", name))
		if text := strings.TrimSpace(string(data)); err == nil && len(text) <= maxKernel {
			return text
		}
		return ""
	}
	return read("osrelease"), read("version")
}
