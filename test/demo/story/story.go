// Package story is what the demo tells: two gates, on two nodes of five, live through a minute in which a reboot must
// wait, goes ahead, and makes another one wait. The gates are the real daemon, and whatever is printed of them is what
// they said. What the story plays on is a World; there is one that compiles quickly, and a real one.
package story

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/sentinel-gate/sentinel-gate/gate/turn"
	"github.com/sentinel-gate/sentinel-gate/test/kit/daemon"
)

// Nodes is how many nodes a World has: n1, n2 and so on.
const Nodes = 5

// BootedAgo is how long ago each of them booted, and became Ready.
const BootedAgo = 50 * time.Hour

// Namespace is that of the gates' records and of the turn.
const Namespace = "sentinel-gate"

// World is a cluster that is well at first: its nodes are Ready, Calico runs on each, every node but n1 has the record
// that its gate would have written, nobody has the turn, and of alerts only Watchdog fires.
type World interface {
	// Kubeconfig is a file that lets a gate reach the API server.
	Kubeconfig() string
	// PrometheusURL is where the check alerts asks.
	PrometheusURL() string
	// BootID is the node's present boot, as its Node object tells.
	BootID(node string) string
	// Reboot gives the node a new boot ID. Its Ready condition stays as it was.
	Reboot(ctx context.Context, node string) error
	// Record writes the record that the node's gate would write, of a boot just now.
	Record(ctx context.Context, node string) error
	// SetReady changes the node's Ready condition.
	SetReady(ctx context.Context, node string, ready bool) error
	// Annotate writes an annotation of the Lease of the turn, as a person would; an empty value removes it.
	Annotate(ctx context.Context, key, value string) error
	// Alert lets an alert fire, or ends it.
	Alert(ctx context.Context, name string, fires bool) error
}

// Pace is how long things take.
type Pace struct{ Soak, Stabilize time.Duration }

// Minute is the pace at which the story takes about a minute.
var Minute = Pace{Soak: 10 * time.Second, Stabilize: 2 * time.Second}

// checks are the example's, deploy/config.yaml, with the soak shortened.
const checks = `- {name: nodes, type: nodesReady}
- {name: cni, type: podsReady, options: {preset: auto}}
- {name: soak, type: readySoak, options: {duration: %s}}
- {name: alerts, type: alerts, options: {prometheus: {url: %q}, requireFiring: Watchdog, requireFiringAgo: 2s}}`

// gate is one node's gate, and the file system of that node as far as the gate and kured look at it.
type gate struct {
	node    string
	host    *daemon.Host
	options daemon.Options
	daemon  *daemon.Daemon
	read    int // lines of its log that were looked at
}

type story struct {
	out   io.Writer
	world World
	pace  Pace
	began time.Time
}

// Play tells the story. Binary is the daemon; dir is for the nodes' file systems.
func Play(ctx context.Context, out io.Writer, world World, binary, dir string, pace Pace) error {
	s := &story{out: out, world: world, pace: pace, began: time.Now()}
	first, err := s.newGate("n1", binary, dir)
	if err != nil {
		return err
	}
	second, err := s.newGate("n2", binary, dir)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer func() {
		stop()
		first.wait()
		second.wait()
	}()
	if err := s.play(ctx, first, second); err != nil {
		return err
	}
	fmt.Fprintln(out, "\nThat was it. README.md says where to read on.")
	return nil
}

func (s *story) newGate(node, binary, dir string) (*gate, error) {
	dir = filepath.Join(dir, node)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	host, err := daemon.NewHost(dir, s.world.BootID(node), BootedAgo)
	if err != nil {
		return nil, err
	}
	return &gate{node: node, host: host, options: daemon.Options{
		Binary: binary, Host: host, Node: node, Namespace: Namespace, Kubeconfig: s.world.Kubeconfig(),
		Checks:   fmt.Sprintf(checks, s.pace.Soak, s.world.PrometheusURL()),
		Settings: fmt.Sprintf("interval: 1s\nmaxAge: 5s\ntimeout: 2s\nstabilize: %s", s.pace.Stabilize),
	}}, nil
}

func (g *gate) start(ctx context.Context) (err error) {
	g.daemon, err = daemon.Start(ctx, g.options)
	g.read = 0
	return err
}

// skip leaves out what its daemon has logged so far.
func (g *gate) skip() { g.read = g.daemon.Lines() }

// wait waits for the end of its daemon, so that nothing writes in its directory any more.
func (g *gate) wait() {
	if g.daemon != nil {
		_, _ = g.daemon.Wait(context.Background()) // how it ended does not matter
	}
}

// play is the whole story, a chapter a function.
func (s *story) play(ctx context.Context, first, second *gate) error {
	for _, chapter := range []func(context.Context, *gate, *gate) error{
		s.idle, s.mustWait, s.opens, s.second, s.nodeFails, s.alertFires, s.halted, s.reboots, s.killed,
	} {
		if err := chapter(ctx, first, second); err != nil {
			return err
		}
	}
	return nil
}

func (s *story) idle(ctx context.Context, first, second *gate) error {
	s.scene("Five nodes, n1 to n5, run Calico. A gate starts on n1 and on n2. On each of them kured would be told to look at "+
		"the gate's file instead of /var/run/reboot-required; on n1 that is %s.", first.host.Gated)
	for _, g := range []*gate{first, second} {
		if err := g.start(ctx); err != nil {
			return err
		}
	}
	for _, g := range []*gate{first, second} {
		if err := s.await(ctx, g, "Idle"); err != nil {
			return err
		}
	}
	return nil
}

func (s *story) mustWait(ctx context.Context, first, _ *gate) error {
	s.scene("n3 reboots, so fast that its Ready condition never changes. A moment later security updates on n1 ask for a "+
		"reboot. The gate must notice the reboot of n3, and wait: the cluster has to be quiet for %s first (24 hours by default).", s.pace.Soak)
	if err := s.world.Reboot(ctx, "n3"); err != nil {
		return err
	}
	if err := s.world.Record(ctx, "n3"); err != nil {
		return err
	}
	if err := first.host.RequireReboot("linux-image-6.12.0-amd64", "libc6"); err != nil {
		return err
	}
	if err := s.await(ctx, first, "Closed", blockedBy("soak")); err != nil {
		return err
	}
	s.scene("You want to know why, and ask on n1 (sentinel-gate --once):")
	return s.once(ctx, first)
}

func (s *story) opens(ctx context.Context, first, _ *gate) error {
	s.scene("The quiet time ends, every check passes for %s more (stabilize), and the gate opens.", s.pace.Stabilize)
	return s.await(ctx, first, "Open")
}

func (s *story) second(ctx context.Context, _, second *gate) error {
	s.scene("Now n2 needs a reboot too. Only one node may go at a time, and n1 is ahead.")
	if err := second.host.RequireReboot("libssl3"); err != nil {
		return err
	}
	return s.await(ctx, second, "Closed", turn1)
}

func (s *story) nodeFails(ctx context.Context, first, _ *gate) error {
	s.scene("While the gate of n1 is open, n4 fails: it becomes NotReady. The gate watches, and closes.")
	began := time.Now()
	if err := s.world.SetReady(ctx, "n4", false); err != nil {
		return err
	}
	if err := s.gone(ctx, first, began, "n4 was reported NotReady"); err != nil {
		return err
	}
	if err := s.await(ctx, first, "Closed", blockedBy("nodes")); err != nil {
		return err
	}
	s.scene("n4 is Ready again. A node that comes and goes is not quiet, so the %s start again; then the gate opens.", s.pace.Soak)
	if err := s.world.SetReady(ctx, "n4", true); err != nil {
		return err
	}
	return s.await(ctx, first, "Open")
}

func (s *story) alertFires(ctx context.Context, first, _ *gate) error {
	const alert = "EtcdNoLeader"
	s.scene("An alert fires. Alerts are asked for at every evaluation, here once a second (30 s by default).")
	if err := s.world.Alert(ctx, alert, true); err != nil {
		return err
	}
	if err := s.await(ctx, first, "Closed", blockedBy("alerts")); err != nil {
		return err
	}
	s.scene("The alert is resolved.")
	if err := s.world.Alert(ctx, alert, false); err != nil {
		return err
	}
	return s.await(ctx, first, "Open")
}

func (s *story) halted(ctx context.Context, first, _ *gate) error {
	s.scene("You do not like what you see, and halt every gate: one annotation of one Lease (kubectl annotate).")
	began := time.Now()
	if err := s.world.Annotate(ctx, turn.HaltKey, "INC-1234"); err != nil {
		return err
	}
	if err := s.gone(ctx, first, began, "the annotation was sent"); err != nil {
		return err
	}
	if err := s.await(ctx, first, "Closed"); err != nil {
		return err
	}
	s.scene("It was a false alarm, and you remove the annotation.")
	if err := s.world.Annotate(ctx, turn.HaltKey, ""); err != nil {
		return err
	}
	return s.await(ctx, first, "Open")
}

func (s *story) reboots(ctx context.Context, first, second *gate) error {
	s.scene("kured on n1 acts: it drains n1 and reboots it (here only pretended). n1 comes back with its updates.")
	second.skip() // what it logged meanwhile, of the halt
	if err := first.daemon.Signal(syscall.SIGKILL); err != nil {
		return err
	}
	first.wait()
	if err := s.world.Reboot(ctx, first.node); err != nil {
		return err
	}
	if err := errors.Join(first.host.ClearReboot(), first.host.Boot(s.world.BootID(first.node), time.Second), first.start(ctx)); err != nil {
		return err
	}
	if err := s.await(ctx, first, "Idle"); err != nil {
		return err
	}
	s.scene("n2 still waits: first the cluster has to be quiet for %s after the reboot of n1.", s.pace.Soak)
	if err := s.await(ctx, second, "Closed", soaking1); err != nil {
		return err
	}
	s.scene("Nothing broke, so it is the turn of n2.")
	return s.await(ctx, second, "Open")
}

func (s *story) killed(ctx context.Context, _, second *gate) error {
	s.scene("The gate of n2 is killed with SIGKILL while it is open. Nobody cleans up.")
	began := time.Now()
	if err := second.daemon.Signal(syscall.SIGKILL); err != nil {
		return err
	}
	if err := s.gone(ctx, second, began, "the signal was sent"); err != nil {
		return err
	}
	if target, err := os.Readlink(second.host.Gated); err == nil {
		s.say("the link is still there, and leads nowhere: -> %s", target)
	}
	s.kured(second)
	return nil
}

// blockedBy reports whether the step holds the gate closed.
func blockedBy(step string) func(daemon.Line) bool {
	return func(l daemon.Line) bool {
		verdict := l.Step(step).Verdict
		return verdict != "" && verdict != "Pass"
	}
}

// turn1 and soaking1 report whether n1 has the turn, and whether its reboot was seen.
func turn1(l daemon.Line) bool    { return strings.HasSuffix(l.Turn, " n1") }
func soaking1(l daemon.Line) bool { return l.Turn == "soaking n1" }

func (s *story) scene(format string, args ...any) {
	fmt.Fprintln(s.out)
	for i, line := range wrapped(fmt.Sprintf(format, args...), 100) {
		if i == 0 {
			fmt.Fprintf(s.out, "%5.1fs  == %s\n", time.Since(s.began).Seconds(), line)
		} else {
			fmt.Fprintf(s.out, "           %s\n", line)
		}
	}
}

func (s *story) say(format string, args ...any) {
	fmt.Fprintf(s.out, "%5.1fs     %s\n", time.Since(s.began).Seconds(), fmt.Sprintf(format, args...))
}

func wrapped(text string, width int) []string {
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		if line != "" && len(line)+1+len(word) > width {
			lines, line = append(lines, line), ""
		}
		line = strings.TrimSpace(line + " " + word)
	}
	return append(lines, line)
}

// await prints what the gate logs until it is in the state, and in all that is wanted besides, and then what kured sees.
func (s *story) await(ctx context.Context, g *gate, state string, wanted ...func(daemon.Line) bool) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	_, err := g.daemon.Await(ctx, g.read, "the gate of "+g.node+" to be "+state, func(l daemon.Line) bool {
		g.read++
		if l.State == "" || l.Msg == "" {
			return false
		}
		s.say("gate of %s: %s", g.node, l.Msg)
		for _, step := range l.Steps {
			if step.Verdict != "Pass" {
				s.say("    %s: %s", step.Name, step.Message)
			}
		}
		for _, want := range wanted {
			if !want(l) {
				return false
			}
		}
		return l.State == state
	})
	if err != nil {
		return err
	}
	s.kured(g)
	return nil
}

// kured prints what a stat of the gated sentinel says.
func (s *story) kured(g *gate) {
	if g.host.Resolves() {
		s.say("kured on %[1]s sees: the file exists, so it may drain %[1]s and reboot it", g.node)
		return
	}
	s.say("kured on %s sees: no such file, so there is nothing to do", g.node)
}

// gone tells how long after an event the gated sentinel stopped resolving.
func (s *story) gone(ctx context.Context, g *gate, began time.Time, event string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	look := time.NewTicker(100 * time.Microsecond)
	defer look.Stop()
	for g.host.Resolves() {
		select {
		case <-look.C:
		case <-ctx.Done():
			return fmt.Errorf("the file of %s still exists %.0f s after %s: %w", g.node, time.Since(began).Seconds(), event, ctx.Err())
		}
	}
	s.say("the file of %s was gone %.1f ms after %s", g.node, float64(time.Since(began).Microseconds())/1000, event)
	return nil
}

func (s *story) once(ctx context.Context, g *gate) error {
	options := g.options
	options.Args = []string{"--once"}
	cmd, err := daemon.Command(ctx, options)
	if err != nil {
		return err
	}
	table, err := cmd.Output()
	if err != nil && !strings.Contains(err.Error(), "exit status 1") {
		return fmt.Errorf("sentinel-gate --once: %w", err)
	}
	for line := range strings.Lines(string(table)) {
		fmt.Fprint(s.out, "           ", line)
	}
	return nil
}
