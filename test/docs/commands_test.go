package docs

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sentinel-gate/sentinel-gate/test/kit/cluster"
	"github.com/sentinel-gate/sentinel-gate/test/kit/controlplane"
	"github.com/sentinel-gate/sentinel-gate/test/kit/prometheus"
)

// withoutGate are the pages that install it; the others expect it there.
var withoutGate = []string{"docs/install.md"}

// after says what must hold when the last command of a section was run.
var after = map[string]func(context.Context, *reader) error{
	"docs/runbook.md#take-kureds-lock":            lockHeldBy("halted-by-hand"),
	"docs/runbook.md#release-kureds-lock":         lockHeldBy(""),
	"docs/runbook.md#take-kureds-pods-away":       pods("kube-system", "name=kured", 0),
	"docs/runbook.md#bring-kureds-pods-back":      pods("kube-system", "name=kured", 3),
	"docs/runbook.md#take-the-gates-away":         pods(cluster.Namespace, "app.kubernetes.io/name=sentinel-gate", 0),
	"docs/runbook.md#bring-the-gates-back":        pods(cluster.Namespace, "app.kubernetes.io/name=sentinel-gate", 3),
	"docs/runbook.md#stop-a-drain-that-has-begun": lockHeldBy("halted-by-hand"),
	"docs/runbook.md#a-node-is-gone":              recordIsGone,
}

func TestCommands(t *testing.T) {
	// A control plane with controllers is most of what a page takes.
	looking := sync.OnceValue(func() *reader {
		r := newReader(t)
		r.startCluster(t, true)
		r.onlyLooks(t)
		return r
	})
	for _, p := range pages(t) {
		if slices.ContainsFunc(p.blocks, func(b block) bool { return b.kind == "sh" && b.needs != "elsewhere" }) {
			t.Run(p.name, func(t *testing.T) { runPage(t, p, looking) })
		}
	}
}

// looks are the commands of kubectl that change nothing.
var looks = regexp.MustCompile(`\bkubectl( (-n|--namespace)[ =]\S+)* (get|logs|exec|top|describe)\b`)

// onlyLooks reports whether a page changes nothing in the cluster. Of one that is taken for such and does, the API server
// refuses the command.
func (p page) onlyLooks() bool {
	return !slices.ContainsFunc(p.blocks, func(b block) bool {
		return b.kind == "sh" && b.needs != "elsewhere" &&
			(strings.Contains(b.text, "helm") || len(looks.FindAllString(b.text, -1)) < strings.Count(b.text, "kubectl"))
	})
}

// runPage runs the commands of a page from its top to its end, as one reader. Those that only look share a cluster.
func runPage(t *testing.T, p page, looking func() *reader) {
	ctx, r := testContext(t), newReader(t)
	below := ""
	if filepath.Dir(p.name) == "deploy/node" {
		below = "deploy/node"
	}
	names := func(word string) bool {
		return slices.ContainsFunc(p.blocks, func(b block) bool { return b.kind == "sh" && strings.Contains(b.text, word) })
	}
	if names("PROMETHEUS") {
		rules, err := os.ReadFile(filepath.Join(r.dir, "deploy/alerts/rules.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		prom, err := prometheus.Start(ctx, prometheus.Options{Progress: os.Stderr, Rules: string(rules)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(prom.Stop)
		r.words["PROMETHEUS"] = prom.URL()
	}
	for i, b := range p.blocks {
		if b.file != "" {
			file := filepath.Join(r.dir, below, b.file)
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(r.fill(b.text)), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if b.kind != "sh" || b.needs == "elsewhere" {
			continue
		}
		if b.needs == "fresh" && r.cp != nil {
			r.cp.Stop()
			r.cp = nil
		}
		if r.cp == nil && (names("kubectl") || names("helm")) {
			if p.onlyLooks() {
				r.borrowCluster(looking())
			} else {
				r.startCluster(t, !slices.Contains(withoutGate, p.name))
			}
		}
		if out, err := r.run(ctx, b, below); err != nil {
			t.Errorf("%s:%d: %v\n%s\n%s", p.name, b.line, err, r.fill(b.text), out)
		}
		last := !slices.ContainsFunc(p.blocks[i+1:], func(later block) bool { return later.kind == "sh" && later.section == b.section })
		if check := after[p.name+"#"+b.section]; last && check != nil {
			if err := check(ctx, r); err != nil {
				t.Errorf("%s: after section %q: %v", p.name, b.section, err)
			}
		}
	}
}

// What is run by another test must at least be there.
func TestCommandsOfOtherTestsExist(t *testing.T) {
	makefile, err := os.ReadFile(filepath.Join(root(t), "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pages(t) {
		for _, b := range p.blocks {
			if b.kind != "sh" || b.needs != "elsewhere" {
				continue
			}
			for line := range strings.Lines(b.text) {
				var err error
				words := strings.Fields(strings.TrimPrefix(line, "sudo "))
				switch {
				case words[0] == "make":
					if !bytes.Contains(makefile, []byte("\n"+words[1]+":")) {
						err = fmt.Errorf("the Makefile has no target %s", words[1])
					}
				case words[0] == "go" && words[1] == "test":
					_, err = os.Stat(filepath.Join(root(t), words[2]))
				case strings.HasPrefix(words[0], "./"):
					_, err = os.Stat(filepath.Join(root(t), filepath.Dir(p.name), words[0]))
				default:
					err = fmt.Errorf("no other test is known to run it")
				}
				if err != nil {
					t.Errorf("%s:%d: %s: %v", p.name, b.line, strings.TrimSpace(line), err)
				}
			}
		}
	}
}

// Every block of commands is one that bash can read, and so is what is meant for a node.
func TestSyntaxOfCommands(t *testing.T) {
	for _, p := range pages(t) {
		for _, b := range p.blocks {
			if b.kind != "sh" {
				continue
			}
			cmd := exec.CommandContext(testContext(t), "/bin/bash", "-n")
			cmd.Stdin = strings.NewReader(b.text)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%s:%d: %v\n%s", p.name, b.line, err, out)
			}
		}
	}
}

// The commands within sentences and tables have flags that there are.
func TestCommandsInSentences(t *testing.T) {
	ctx, real := testContext(t), shared.Get(t)
	for name, path := range map[string]string{kubectlVariable: real.kubectl, helmVariable: real.helm, gateVariable: real.gate} {
		t.Setenv(name, path)
	}
	found := 0
	for _, p := range pages(t) {
		for _, c := range code.FindAllString(p.prose, -1) {
			words := shellWords(strings.ReplaceAll(strings.Trim(c, "`"), `\|`, "|"))
			if len(words) < 2 {
				continue
			}
			var err error
			switch words[0] {
			case "kubectl":
				err = kubectlFlags(ctx, words[1:])
			case "helm":
				err = helmFlags(ctx, words[1:])
			case "sentinel-gate":
				err = gateFlags(ctx, words[1:])
			default:
				continue
			}
			found++
			if err != nil {
				t.Errorf("%s: %s: %v", p.name, c, err)
			}
		}
	}
	if found < 10 {
		t.Errorf("only %d were found", found)
	}
}

// shellWords splits a command at spaces outside of quotes, up to a pipe.
func shellWords(text string) []string {
	var all []string
	for _, w := range regexp.MustCompile(`(?:[^\s'"]|'[^']*'|"[^"]*")+`).FindAllString(text, -1) {
		if w == "|" || w == ">" {
			break
		}
		all = append(all, strings.NewReplacer("'", "", `"`, "").Replace(w))
	}
	return all
}

// exampleLog has the lines of the decision log that its page shows.
func exampleLog(t *testing.T) string {
	t.Helper()
	var log bytes.Buffer
	for _, p := range pages(t) {
		for _, b := range p.blocks {
			if p.name != "docs/decision-log.md" || b.kind != "json" {
				continue
			}
			if err := json.Compact(&log, []byte(b.text)); err != nil {
				t.Fatal(err)
			}
			log.WriteByte('\n')
		}
	}
	if log.Len() == 0 {
		t.Fatal("docs/decision-log.md shows no line of the log")
	}
	return log.String()
}

func pods(namespace, selector string, want int) func(context.Context, *reader) error {
	return func(ctx context.Context, r *reader) error {
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		return controlplane.Poll(ctx, func() error {
			pods, err := r.pods(ctx, namespace, selector)
			if err == nil && len(pods) != want {
				err = fmt.Errorf("there are %d pods of %s, want %d", len(pods), selector, want)
			}
			return err
		})
	}
}

// lockHeldBy reads the annotation as kured does.
func lockHeldBy(want string) func(context.Context, *reader) error {
	return func(ctx context.Context, r *reader) error {
		ds, err := r.cp.Client().AppsV1().DaemonSets("kube-system").Get(ctx, "kured", metav1.GetOptions{})
		if err != nil {
			return err
		}
		var value struct {
			NodeID string `json:"nodeID"`
			TTL    int64  `json:"TTL"`
		}
		if text, held := ds.Annotations["weave.works/kured-node-lock"]; held {
			if err := json.Unmarshal([]byte(text), &value); err != nil {
				return fmt.Errorf("kured would not read its lock: %w", err)
			}
		}
		if value.NodeID != want || value.TTL != 0 {
			return fmt.Errorf("the lock is %+v, want that of %q without an end", value, want)
		}
		return nil
	}
}

func recordIsGone(ctx context.Context, r *reader) error {
	_, err := r.cp.Client().CoordinationV1().Leases(cluster.Namespace).Get(ctx, r.words["NODE"], metav1.GetOptions{})
	if !apierrors.IsNotFound(err) {
		return fmt.Errorf("the record is still there: %w", err)
	}
	return nil
}
