package docs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
)

// The commands of a block find nothing on their PATH but these: links to this test's own binary, which decides what
// becomes of each, and a few real tools. So nothing that a page tells a node to do happens to the machine of the test.
var (
	standins = []string{"kubectl", "helm", "sentinel-gate", "promtool", "sudo", "ssh", "docker", "bash"}
	// onNodes are the commands of nodes, which are not run.
	onNodes = []string{
		"apt-cache", "apt-get", "apt-mark", "cat", "dnf", "grub-reboot", "grep", "install", "journalctl", "ls", "needs-restarting", "rm",
		"stat", "systemctl", "systemd-tmpfiles", "test", "touch", "unattended-upgrade", "update_engine_client", "zypper", "uname", "rke2", "k3s", "az", "kops",
	}
	tools = []string{"awk", "cat", "cp", "cut", "curl", "date", "diff", "env", "git", "grep", "head", "jq", "ls", "mkdir", "rm", "sed", "sort", "tail", "tee", "test", "tr", "wc"}
)

// What the stand-ins know of the block that runs them.
const (
	needsVariable   = "SENTINEL_GATE_DOCS_NEEDS"
	kubectlVariable = "SENTINEL_GATE_DOCS_KUBECTL" // the real ones
	helmVariable    = "SENTINEL_GATE_DOCS_HELM"
	gateVariable    = "SENTINEL_GATE_DOCS_GATE"
	promVariable    = "SENTINEL_GATE_DOCS_PROMTOOL"
	logVariable     = "SENTINEL_GATE_DOCS_LOG" // what the pods of the gate have logged
)

// standIn is the whole of a process that a block started. It is none where this is the test itself.
func standIn() (status int, is bool) {
	if os.Getenv(kubectlVariable) == "" {
		return 0, false
	}
	if err := command(context.Background(), filepath.Base(os.Args[0]), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1, true
	}
	return 0, true
}

func command(ctx context.Context, name string, args []string) error {
	needs := os.Getenv(needsVariable)
	switch name {
	case "kubectl":
		if needs == "" || needs == "fresh" || !needsKubelet(args) {
			return become(os.Getenv(kubectlVariable), append([]string{"kubectl"}, args...))
		}
		if err := kubectlFlags(ctx, args); err != nil {
			return err
		}
		if slices.Contains(args, "logs") {
			text, err := os.ReadFile(os.Getenv(logVariable))
			fmt.Print(string(text))
			return err
		}
		return nil
	case "helm":
		if needs == "network" && (args[0] == "repo" || slices.ContainsFunc(args, func(a string) bool { return strings.HasPrefix(a, "kubereboot/") })) {
			return errors.Join(helmFlags(ctx, args), filesExist(args))
		}
		return become(os.Getenv(helmVariable), args)
	case "sentinel-gate":
		return become(os.Getenv(gateVariable), args)
	case "promtool":
		return become(os.Getenv(promVariable), args)
	case "docker":
		if needs == "network" && slices.Contains([]string{"build", "push"}, args[0]) {
			if _, err := os.Stat("Dockerfile"); args[0] == "build" && err != nil {
				return err
			}
			return nil
		}
	case "bash":
		if needs == "node" {
			return become("/bin/bash", append([]string{"-n"}, args[0]))
		}
	case "sudo":
		if needs == "node" {
			return again(args)
		}
	case "ssh":
		if needs == "node" && len(args) > 1 {
			return again(args[1:])
		}
	default:
		if needs == "node" && slices.Contains(onNodes, name) {
			return nil
		}
	}
	return fmt.Errorf("%s: not in a block of \"sh %s\"", name, needs)
}

// again looks a command up among the stand-ins, and becomes it.
func again(args []string) error {
	if len(args) == 0 {
		return errors.New("no command")
	}
	path, err := exec.LookPath(args[0])
	if err != nil {
		return err
	}
	return become(path, args[1:])
}

func become(path string, args []string) error {
	if path == "" {
		return errors.New("this command is not there for pages of this kind")
	}
	return syscall.Exec(path, append([]string{filepath.Base(path)}, args...), os.Environ())
}

// words are the arguments of kubectl that are no flags, nor the values of those that come before the subcommand.
func words(args []string) []string {
	var all []string
	for i := 0; i < len(args); i++ {
		switch {
		case args[i] == "--":
			return all
		case slices.Contains([]string{"-n", "--namespace", "--context"}, args[i]):
			i++
		case !strings.HasPrefix(args[i], "-"):
			all = append(all, args[i])
		}
	}
	return all
}

func needsKubelet(args []string) bool {
	w := words(args)
	return len(w) > 0 && slices.Contains([]string{"attach", "cp", "debug", "drain", "exec", "logs", "port-forward", "top", "wait"}, w[0]) ||
		len(w) > 1 && w[0] == "rollout" && w[1] == "status"
}

// kubectlFlags asks kubectl for help with the command: it refuses flags and subcommands that it does not have. So does
// the gate, where it is the command in a pod.
func kubectlFlags(ctx context.Context, args []string) error {
	args, inside := slices.Clone(args), []string(nil)
	if i := slices.Index(args, "--"); i >= 0 {
		args, inside = args[:i], args[i+1:]
	}
	out, err := exec.CommandContext(ctx, os.Getenv(kubectlVariable), append(append([]string{"kubectl"}, args...), "--help")...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, out)
	}
	w := words(args)
	if len(w) == 0 || !bytes.Contains(out, []byte("\n  kubectl "+w[0])) || w[0] == "rollout" && !bytes.Contains(out, []byte("\n  kubectl rollout "+w[1])) {
		return fmt.Errorf("kubectl has no such command: %s", strings.Join(args, " "))
	}
	if len(inside) > 0 && inside[0] == "sentinel-gate" {
		return gateFlags(ctx, inside[1:])
	}
	return nil
}

func gateFlags(ctx context.Context, args []string) error {
	if out, err := exec.CommandContext(ctx, os.Getenv(gateVariable), append(slices.Clone(args), "--help")...).CombinedOutput(); err != nil {
		return fmt.Errorf("sentinel-gate %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

func helmFlags(ctx context.Context, args []string) error {
	out, err := exec.CommandContext(ctx, os.Getenv(helmVariable), append(slices.Clone(args), "--help")...).CombinedOutput()
	if err == nil && !regexp.MustCompile(`(?m)^  helm `+args[0]).Match(out) {
		err = errors.New("no such command")
	}
	if err != nil {
		return fmt.Errorf("helm %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

// filesExist looks for the files of values that a command names.
func filesExist(args []string) error {
	for i, a := range args {
		if a == "--values" && i+1 < len(args) {
			if _, err := os.Stat(args[i+1]); err != nil {
				return err
			}
		}
	}
	return nil
}
