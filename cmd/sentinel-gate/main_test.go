package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/sentinel-gate/sentinel-gate/test/kit/controlplane"
	"github.com/sentinel-gate/sentinel-gate/test/kit/suite"
)

var shared = controlplane.Shared(controlplane.Options{Progress: os.Stderr, Audit: true}, nil)

func TestMain(m *testing.M) {
	// What a developer's shell, or the pod that runs the tests, has set must
	// not decide what they see.
	for _, name := range []string{"NODE_NAME", "POD_NAMESPACE", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"} {
		if err := os.Unsetenv(name); err != nil {
			panic(err)
		}
	}
	suite.Main(m, shared)
}

// command runs the command line as main does.
func command(ctx context.Context, args ...string) (exit int, stdout, stderr string) {
	var out, errs bytes.Buffer
	exit = status(run(ctx, args, &out), &errs)
	return exit, out.String(), errs.String()
}

func wantOutput(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s\n got %s\nwant %s", what, got, want)
	}
}

func TestCheckConfig(t *testing.T) {
	dir := t.TempDir()
	good := write(t, filepath.Join(dir, "good.yaml"), header+"checks: [{name: a, type: nodesReady}, {name: b, type: readySoak}]\n")
	bad := write(t, filepath.Join(dir, "bad.yaml"), header+"intervall: 1m\nchecks: []\n")
	text, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(text)

	exit, stdout, stderr := command(t.Context(), "--check-config", "--config", good)
	if exit != 0 {
		t.Errorf("exit status %d of a good file", exit)
	}
	wantOutput(t, "stdout", stdout, fmt.Sprintf("%s is a valid GateConfiguration with 2 checks (hash %x)\n", good, sum[:6]))
	wantOutput(t, "stderr", stderr, "")

	exit, stdout, stderr = command(t.Context(), "--check-config", "--config", bad)
	if exit != 2 {
		t.Errorf("exit status %d of a bad file", exit)
	}
	wantOutput(t, "stdout", stdout, "")
	wantOutput(t, "stderr", stderr, "sentinel-gate: "+bad+`:
unknown field "intervall": want one of apiVersion, checks, interval, kind, maxAge, sentinel, stabilize, timeout, turn
checks: want at least one: a gate without checks would let every reboot through
`)

	missing := filepath.Join(dir, "missing.yaml")
	exit, _, stderr = command(t.Context(), "--check-config", "--config", missing)
	if exit != 2 {
		t.Errorf("exit status %d without a file", exit)
	}
	wantOutput(t, "stderr", stderr, "sentinel-gate: reading the configuration: open "+missing+": no such file or directory\n")
}

func TestFlags(t *testing.T) {
	for _, c := range []struct {
		name   string
		args   []string
		exit   int
		stderr string
	}{
		{"unknown", []string{"--no-such-flag"}, 2, "sentinel-gate: unknown flag: --no-such-flag\n"},
		{"misspelt", []string{"--onec"}, 2, "sentinel-gate: unknown flag: --onec\n"},
		{"without its value", []string{"--config"}, 2, "sentinel-gate: flag needs an argument: --config\n"},
		{"of another type", []string{"--once=perhaps"}, 2, "sentinel-gate: invalid argument \"perhaps\" for \"--once\" flag: strconv.ParseBool: parsing \"perhaps\": invalid syntax\n"},
		{"not a flag", []string{"--check-config", "config.yaml"}, 2, "sentinel-gate: unexpected argument \"config.yaml\"\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			exit, _, stderr := command(t.Context(), c.args...)
			if exit != c.exit {
				t.Errorf("exit status %d, want %d", exit, c.exit)
			}
			wantOutput(t, "stderr", stderr, c.stderr)
		})
	}
}

func TestVersion(t *testing.T) {
	defer func(before string) { version = before }(version)
	version = "v1.2.3"
	exit, stdout, stderr := command(t.Context(), "--version")
	if exit != 0 {
		t.Errorf("exit status %d", exit)
	}
	wantOutput(t, "stdout", stdout, "sentinel-gate v1.2.3\n")
	wantOutput(t, "stderr", stderr, "")
	// A plain go build has none of the linker's.
	version = ""
	if _, stdout, _ := command(t.Context(), "--version"); !regexp.MustCompile(`^sentinel-gate \S+\n$`).MatchString(stdout) {
		t.Errorf("without a version it says %q", stdout)
	}
}

// --help lists the flags, and docs/configuration.md the same with the same
// defaults.
func TestHelpAndItsPage(t *testing.T) {
	exit, stdout, stderr := command(t.Context(), "--help")
	if exit != 0 {
		t.Errorf("exit status %d", exit)
	}
	wantOutput(t, "stderr", stderr, "")
	page, err := os.ReadFile(filepath.Join(root(t), "docs/configuration.md"))
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `--([a-z-]+)` \\| (\\S+) \\|").FindAllStringSubmatch(string(page), -1) {
		documented[row[1]] = strings.Trim(row[2], "`")
	}
	delete(documented, "help") // it is, and not listed by itself
	listed := regexp.MustCompile(`(?m)^ +--([a-z-]+)(?: string)? .*?(?:\(default "(.*)"\))?$`).FindAllStringSubmatch(stdout, -1)
	if len(listed) < 10 {
		t.Fatalf("only %d flags are listed:\n%s", len(listed), stdout)
	}
	for _, flag := range listed {
		name, byDefault := flag[1], flag[2]
		told, ok := documented[name]
		delete(documented, name)
		switch {
		case !ok:
			t.Errorf("docs/configuration.md does not tell of --%s", name)
		case byDefault != "" && told != byDefault:
			t.Errorf("--%s is %s by default, and %s in docs/configuration.md", name, byDefault, told)
		case byDefault == "" && told != "none" && told != "off" && !strings.HasPrefix(told, "$"):
			t.Errorf("--%s has no default, and %s in docs/configuration.md", name, told)
		}
	}
	if len(documented) > 0 {
		t.Errorf("docs/configuration.md tells of flags that there are not: %v", documented)
	}
}

// Neither the node nor the namespace nor the API server is guessed, and each
// that is missing is told beside the configuration's mistakes.
func TestNothingIsGuessed(t *testing.T) {
	bad := write(t, filepath.Join(t.TempDir(), "bad.yaml"), header+"checks: []\n")
	exit, stdout, stderr := command(t.Context(), "--once", "--config", bad)
	if exit != 2 || stdout != "" {
		t.Errorf("exit status %d, and it printed %q", exit, stdout)
	}
	wantOutput(t, "stderr", stderr, "sentinel-gate: "+bad+`:
checks: want at least one: a gate without checks would let every reboot through
the node's name is not known: set --node-name or NODE_NAME (in a pod from fieldRef spec.nodeName)
the gate's namespace is not known: set --namespace or POD_NAMESPACE (in a pod from fieldRef metadata.namespace)
finding the API server from inside a pod: unable to load in-cluster configuration, KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT must be defined; outside of one, set --kubeconfig
`)
	good := write(t, filepath.Join(t.TempDir(), "good.yaml"), header+nodes)
	missing := filepath.Join(t.TempDir(), "kubeconfig")
	_, _, stderr = command(t.Context(), "--once", "--config", good, "--node-name", "n1", "--namespace", "ns", "--kubeconfig", missing)
	wantOutput(t, "stderr", stderr, "sentinel-gate: reading --kubeconfig: stat "+missing+": no such file or directory\n")
}
