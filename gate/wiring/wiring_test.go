package wiring

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The mounts of a gate's pod, of a kured's from its chart, and of one that was
// given another directory, as containerd makes them.
const (
	gateMounts = `1 0 0:50 / / ro - overlay overlay rw
2 1 0:25 / /var/run ro - tmpfs tmpfs rw
3 2 0:25 /sentinel-gate /var/run/sentinel-gate rw - tmpfs tmpfs rw
`
	kuredRoot = "1 0 0:51 / / ro - overlay overlay rw\n"
)

// table makes a process table of the gate and of kureds.
func table(t *testing.T, kureds ...[2]string) string {
	t.Helper()
	proc := t.TempDir()
	add := func(name, cmdline, mounts string) {
		dir := filepath.Join(proc, name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for file, content := range map[string]string{"cmdline": strings.ReplaceAll(cmdline, " ", "\x00") + "\x00", "mountinfo": mounts} {
			if err := os.WriteFile(filepath.Join(dir, file), []byte(content), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	add("self", "/sentinel-gate", gateMounts)
	add("1", "/sbin/init", "")
	add("77", "/usr/bin/kured-exporter", "")
	for i, k := range kureds {
		add(fmt.Sprint(100+i), k[0], kuredRoot+k[1])
	}
	return proc
}

const (
	gatedPath  = "/var/run/sentinel-gate/gated-reboot-required"
	chartArgs  = "/usr/bin/kured --ds-name=kured --reboot-sentinel=/sentinel/gated-reboot-required --period=1m"
	chartMount = "2 1 0:25 /sentinel-gate /sentinel ro - tmpfs tmpfs rw\n"
	hostRun    = "2 1 0:25 / /sentinel ro - tmpfs tmpfs rw\n"
)

func TestFind(t *testing.T) {
	for name, c := range map[string]struct {
		kureds [][2]string
		want   Reason
		naming string
	}{
		"kured's chart with our values": {[][2]string{{chartArgs, chartMount}}, Wired, "/sentinel/gated-reboot-required"},
		"the whole of /run, and a path below it": {
			[][2]string{{"/usr/bin/kured --reboot-sentinel /sentinel/sentinel-gate/gated-reboot-required", hostRun}}, Wired, "",
		},
		"a sidecar, through the link at /var/run": {
			[][2]string{{"/kured --reboot-sentinel=" + gatedPath, "2 1 0:25 /sentinel-gate /run/sentinel-gate ro - tmpfs tmpfs rw\n"}}, Wired, "",
		},
		"the last flag counts": {
			[][2]string{{"/kured --reboot-sentinel=/a --reboot-sentinel=/sentinel/gated-reboot-required", chartMount}}, Wired, "",
		},
		"no kured": {nil, NoKured, ""},

		// F06: for six days both logged success, and nothing rebooted.
		"F06 another directory": {
			[][2]string{{chartArgs, "2 1 0:25 /other /sentinel ro - tmpfs tmpfs rw\n"}}, OtherFile, "/other/gated-reboot-required of file system 0:25",
		},
		"F06 another name":        {[][2]string{{"/kured --reboot-sentinel=/sentinel/gated", chartMount}}, OtherFile, ""},
		"F06 no mount":            {[][2]string{{chartArgs, ""}}, OtherFile, ""},
		"F06 another file system": {[][2]string{{chartArgs, "2 1 8:1 /sentinel-gate /sentinel ro - ext4 /dev/sda1 rw\n"}}, OtherFile, ""},
		"F06 covered by another mount": {
			[][2]string{{chartArgs, chartMount + "3 2 0:99 / /sentinel ro - tmpfs tmpfs rw\n"}}, OtherFile, "",
		},
		"F06 the directory was made anew": {
			[][2]string{{chartArgs, "2 1 0:25 /sentinel-gate//deleted /sentinel ro - tmpfs tmpfs rw\n"}}, DirectoryReplaced, "restart its pod",
		},

		// F07: the gate was decoration.
		"F07 the raw sentinel":            {[][2]string{{"/kured --reboot-sentinel=/sentinel/reboot-required", hostRun}}, RawSentinel, "BYPASSED"},
		"F07 a command":                   {[][2]string{{chartArgs + " --reboot-sentinel-command=needs-restarting", chartMount}}, SentinelCommand, "needs-restarting"},
		"F07 one of two kureds":           {[][2]string{{chartArgs, chartMount}, {"/kured --reboot-sentinel=/sentinel/reboot-required", hostRun}}, RawSentinel, ""},
		"F07 kured's default, on a host":  {[][2]string{{"/usr/bin/kured", "2 1 0:25 / /run ro - tmpfs tmpfs rw\n"}}, RawSentinel, ""},
		"an empty command is no command":  {[][2]string{{chartArgs + " --reboot-sentinel-command=", chartMount}}, Wired, ""},
		"F06 one of two kureds":           {[][2]string{{chartArgs, ""}, {chartArgs, chartMount}}, OtherFile, ""},
		"another program of a like name":  {nil, NoKured, ""},
		"a path with a blank in its name": {[][2]string{{"/kured --reboot-sentinel=/sentinel/gated-reboot-required", `2 1 0:25 /sentinel-gate /sentinel\040x ro - tmpfs tmpfs rw` + "\n"}}, OtherFile, ""},
	} {
		t.Run(name, func(t *testing.T) {
			got := Find(table(t, c.kureds...), gatedPath, []string{"/var/run/reboot-required"})
			if got.Reason != c.want || !strings.Contains(got.Message, c.naming) {
				t.Errorf("got %s, want %s: %s", got.Reason, c.want, got.Message)
			}
		})
	}
}

func TestFindWithoutAProcessTable(t *testing.T) {
	if got := Find(t.TempDir(), gatedPath, nil); got.Reason != Undetermined {
		t.Errorf("%+v", got)
	}
}
