// Command demo walks through the life of a gate in about a minute, for real: an
// API server with five nodes, a Prometheus, and the daemon on one of the nodes.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sentinel-gate/sentinel-gate/gate/turn"
	"github.com/sentinel-gate/sentinel-gate/test/kit/cluster"
	"github.com/sentinel-gate/sentinel-gate/test/kit/controlplane"
	"github.com/sentinel-gate/sentinel-gate/test/kit/daemon"
	"github.com/sentinel-gate/sentinel-gate/test/kit/prometheus"
)

const (
	soak      = 15 * time.Second
	stabilize = 3 * time.Second
)

// checks is the mission's pipeline with its soak shortened.
const checks = `- {name: nodes, type: nodesReady}
- {name: cni, type: podsReady, options: {preset: auto}}
- {name: soak, type: readySoak, options: {duration: %s}}
- {name: alerts, type: alerts, options: {prometheus: {url: %q}, requireFiring: Watchdog, requireFiringAgo: 2s}}`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// story is what the demo plays on.
type story struct {
	out     io.Writer
	began   time.Time
	cluster *cluster.Cluster
	host    *daemon.Host
	daemon  *daemon.Daemon
	options daemon.Options
	told    int // lines of the daemon's log that were printed
}

func run(ctx context.Context, out io.Writer) error {
	dir, err := os.MkdirTemp("", "sentinel-gate-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	fmt.Fprintln(out, "Building what the demo needs; the first time this takes some minutes.")
	binary, err := daemon.Binary(ctx, dir, false)
	if err != nil {
		return err
	}
	cp, err := controlplane.Start(ctx, controlplane.Options{Progress: out})
	if err != nil {
		return err
	}
	defer cp.Stop()
	prom, err := prometheus.Start(ctx, prometheus.Options{Progress: out, Rules: "groups: [{name: demo, rules: [{alert: Watchdog, expr: vector(1)}]}]"})
	if err != nil {
		return err
	}
	defer prom.Stop()
	kubeconfig, err := cluster.Authorize(ctx, cp)
	if err != nil {
		return err
	}
	c, err := cluster.New(ctx, cp, 5)
	if err != nil {
		return err
	}
	host, err := daemon.NewHost(dir, c.Nodes[0].BootID(), cluster.BootedAgo)
	if err != nil {
		return err
	}
	s := &story{out: out, began: time.Now(), cluster: c, host: host, options: daemon.Options{
		Binary: binary, Host: host, Node: "n1", Namespace: cluster.Namespace, Kubeconfig: kubeconfig,
		Checks: fmt.Sprintf(checks, soak, prom.URL()), Settings: fmt.Sprintf("interval: 1s\nmaxAge: 5s\ntimeout: 2s\nstabilize: %s", stabilize),
	}}
	return s.play(ctx)
}

func (s *story) play(ctx context.Context) error {
	s.scene("A cluster of five nodes, with Calico and Prometheus. The gate starts on n1; kured would be pointed at %s.", s.host.Gated)
	var err error
	if s.daemon, err = daemon.Start(ctx, s.options); err != nil {
		return err
	}
	if err := s.await(ctx, "Idle"); err != nil {
		return err
	}

	n3, n4 := s.cluster.Nodes[2], s.cluster.Nodes[3]
	s.scene("n3 reboots, so fast that its Ready condition never flips; a moment later n1 wants a reboot of its own.")
	if _, err := n3.Reboot(ctx); err != nil {
		return err
	}
	if err := s.cluster.Record(ctx, n3, time.Now()); err != nil {
		return err
	}
	if err := s.host.RequireReboot("linux-image-6.12.0-amd64", "libc6"); err != nil {
		return err
	}
	if err := s.await(ctx, "Closed", "soak"); err != nil {
		return err
	}
	s.scene("The operator asks why (sentinel-gate --once):")
	if err := s.once(ctx); err != nil {
		return err
	}

	s.scene("The soak of %s ends, every step passes for %s more (stabilize), and the gate opens.", soak, stabilize)
	if err := s.await(ctx, "Open"); err != nil {
		return err
	}

	s.scene("n4 goes NotReady.")
	began := time.Now()
	if _, err := n4.SetReady(ctx, corev1.ConditionFalse, "KubeletNotReady", time.Now()); err != nil {
		return err
	}
	s.gone(began, "its kubelet began to tell the API server")
	if err := s.await(ctx, "Closed", "nodes"); err != nil {
		return err
	}

	s.scene("n4 is Ready again. That is a change too, so the soak starts anew; then the gate opens.")
	if _, err := n4.SetReady(ctx, corev1.ConditionTrue, "KubeletReady", time.Now()); err != nil {
		return err
	}
	if err := s.await(ctx, "Open"); err != nil {
		return err
	}

	s.scene("Something is wrong: the operator halts every gate, with one annotation of the Lease of the turn.")
	began = time.Now()
	if err := s.annotate(ctx, turn.HaltKey, "INC-1234"); err != nil {
		return err
	}
	s.gone(began, "the annotation was sent")
	if err := s.await(ctx, "Closed"); err != nil {
		return err
	}
	s.scene("It was a false alarm, and the annotation is removed.")
	if err := s.annotate(ctx, turn.HaltKey, nil); err != nil {
		return err
	}
	if err := s.await(ctx, "Open"); err != nil {
		return err
	}

	s.scene("The daemon is killed with SIGKILL while the gate is open. Nobody cleans up.")
	began = time.Now()
	if err := s.daemon.Signal(syscall.SIGKILL); err != nil {
		return err
	}
	s.gone(began, "the signal was sent")
	if target, err := os.Readlink(s.host.Gated); err == nil {
		s.say("the link is still there, and leads nowhere: -> %s", target)
	}
	s.kured()
	fmt.Fprintln(s.out, "\nThat was it. README.md says where to read on.")
	return nil
}

func (s *story) scene(format string, args ...any) {
	fmt.Fprintf(s.out, "\n%5.1fs  == %s\n", time.Since(s.began).Seconds(), fmt.Sprintf(format, args...))
}

// annotate writes in the turn what a person would; nil removes it.
func (s *story) annotate(ctx context.Context, key string, value any) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]any{key: value}}})
	if err != nil {
		return err
	}
	_, err = s.cluster.CP.Client().CoordinationV1().Leases(cluster.Namespace).Patch(ctx, turn.LeaseName, types.MergePatchType, patch, metav1.PatchOptions{})
	return err
}

func (s *story) say(format string, args ...any) {
	fmt.Fprintf(s.out, "%5.1fs     %s\n", time.Since(s.began).Seconds(), fmt.Sprintf(format, args...))
}

// await prints what the gate logs until it is in the state, held there by the
// step if one is named, and then what kured sees.
func (s *story) await(ctx context.Context, state string, step ...string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	_, err := s.daemon.Await(ctx, s.told, "the gate to be "+state, func(l daemon.Line) bool {
		s.told++
		if l.State == "" || l.Msg == "" {
			return false
		}
		s.say("gate: %s", l.Msg)
		for _, o := range l.Steps {
			if o.Verdict != "Pass" {
				s.say("      %s: %s", o.Name, o.Message)
			}
		}
		return l.State == state && (len(step) == 0 || l.Step(step[0]).Verdict != "Pass" && l.Step(step[0]).Verdict != "")
	})
	s.kured()
	return err
}

// kured prints what a stat of the gated sentinel says.
func (s *story) kured() {
	if s.host.Resolves() {
		s.say("kured sees: the file exists, so it may take its lock, drain and reboot n1")
		return
	}
	s.say("kured sees: no such file, so there is nothing to do")
}

// gone tells how long after an event the gated sentinel stopped resolving.
func (s *story) gone(began time.Time, event string) {
	for s.host.Resolves() {
		if time.Since(began) > 10*time.Second {
			s.say("the gated sentinel still resolves 10 s after %s", event)
			return
		}
	}
	s.say("the gated sentinel stopped resolving within %.1f ms after %s", float64(time.Since(began).Microseconds())/1000, event)
}

func (s *story) once(ctx context.Context) error {
	options := s.options
	options.Args = []string{"--once"}
	cmd, err := daemon.Command(ctx, options)
	if err != nil {
		return err
	}
	table, err := cmd.Output()
	if err != nil && !strings.Contains(err.Error(), "exit status 1") {
		return errors.Join(errors.New("sentinel-gate --once"), err)
	}
	for line := range strings.Lines(string(table)) {
		fmt.Fprint(s.out, "           ", line)
	}
	return nil
}
