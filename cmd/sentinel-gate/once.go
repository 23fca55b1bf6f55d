package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/prometheus/common/model"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"

	"github.com/sentinel-gate/sentinel-gate/gate"
	"github.com/sentinel-gate/sentinel-gate/gate/clock"
	"github.com/sentinel-gate/sentinel-gate/gate/turn"
	"github.com/sentinel-gate/sentinel-gate/gate/wiring"
)

// once evaluates the steps once, whether or not a reboot is pending, and prints
// what a person wants to know. It touches no file.
func once(ctx context.Context, f flags, stdout io.Writer) error {
	c, err := usable(ctx, f)
	if err != nil {
		return unusable{err}
	}
	pipeline, err := c.pipeline()
	if err != nil {
		return unusable{err}
	}
	out := outside(ctx, f, c)
	if out == "" { // else the packages and the kernel here are another machine's
		c.readsPackages(f)
	}
	stands, overrides := readTurn(ctx, f, c)
	decision := pipeline.Evaluate(ctx, overrides, nil)
	raw, kured := seenOnNode(ctx, f, c, out)
	fmt.Fprintf(stdout, "node %s, %s, configuration %s\n\n", f.nodeName, decision.Began.UTC().Format(time.RFC3339), c.hash)
	if err := errors.Join(table(stdout, decision), describe(stdout,
		about{"raw sentinel", []string{raw}},
		about{"steps", whole(decision)},
		about{"stabilize", []string{fmt.Sprintf("the gate opens after every step has passed for %s", c.Stabilize)}},
		about{"kured", kured},
		about{"records", withoutRecords(ctx, c)},
		about{"turn", stands},
		about{"exposure", c.exposureNow(ctx, f)},
	)); err != nil {
		return err
	}
	if !decision.Passes() {
		return reported{errors.New("a step does not pass")}
	}
	return nil
}

// usable returns the configuration, for a cluster that answers this token. From
// then on client-go is silent: what is printed is for a person.
func usable(ctx context.Context, f flags) (*configuration, error) {
	klog.SetOutput(io.Discard)
	klog.LogToStderr(false)
	cluster, clusterErr := connect(f)
	c, err := f.load(cluster)
	if err := errors.Join(err, clusterErr); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(c.Timeout))
	defer cancel()
	if err := cluster.Reach(ctx); err != nil {
		return nil, fmt.Errorf("reaching the API server: %w", err)
	}
	return c, c.served(ctx, f.config)
}

// about is what is said of something, a sentence to a line.
type about struct {
	what      string
	sentences []string
}

// describe prints what is said of each thing, beside its name.
func describe(w io.Writer, all ...about) error {
	var b strings.Builder
	for _, a := range all {
		label := a.what + ":"
		for _, sentence := range a.sentences {
			fmt.Fprintf(&b, "%-15s%s\n", label, sentence)
			label = ""
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// seenOnNode says what only the node itself can see, its raw sentinel and its kured, and
// of that also what stands in its way.
func seenOnNode(ctx context.Context, f flags, c *configuration, outside string) (rawSentinel string, kured []string) {
	if outside != "" {
		return outside, []string{outside}
	}
	finding := lookedAt(f, c)
	kured = []string{fmt.Sprintf("%s: %s", finding.Reason, oneLine(finding.Message))}
	if finding.Kured != nil {
		kured = append(append(kured, finding.Kured.Warnings()...), stuckLock(ctx, c, *finding.Kured)...)
	}
	switch raw := gate.ReadRaw(c.Sentinel.Raw, time.Now()); {
	case raw.Problem != nil:
		return oneLine(raw.Problem.Error()), kured
	case !raw.Pending:
		return fmt.Sprintf("none at %s: no reboot is pending", strings.Join(c.Sentinel.Raw, ", ")), kured
	default:
		return fmt.Sprintf("a reboot is pending since %s%s", raw.Since.UTC().Format(time.RFC3339), forPackages(raw.Packages)), kured
	}
}

// stuckLock says why no kured can take its lock, where that is so.
func stuckLock(ctx context.Context, c *configuration, k wiring.Kured) []string {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(c.Timeout))
	defer cancel()
	ctx, reading := clock.Read(ctx)
	sets, err := c.cluster.DaemonSets(ctx, k.Namespace)
	if err != nil {
		return []string{"kured's lock cannot be read: " + oneLine(err.Error())}
	}
	now, err := reading.Now()
	if err != nil {
		return []string{"kured's lock cannot be judged: " + oneLine(err.Error())}
	}
	for _, set := range sets.Items {
		if set.Name != k.DaemonSet {
			continue
		}
		lock, err := turn.ParseKuredLock(set.Annotations[k.LockAnnotation], k.Concurrency, now)
		switch {
		case err != nil:
			return []string{oneLine(err.Error())}
		case lock.Stuck != "":
			return []string{lock.Stuck}
		}
	}
	return nil
}

// whole says what follows from all outcomes.
func whole(d gate.Decision) []string {
	blocking := d.Blocking()
	if len(blocking) == 0 {
		return []string{fmt.Sprintf("all %d pass%s", len(d.Outcomes), butFor("soft", d.Soft())+butFor("overridden", d.Overridden()))}
	}
	sentences := []string{fmt.Sprintf("blocked by %d of %d: %s", len(blocking), len(d.Outcomes), strings.Join(blocking.Names(), ", "))}
	if wait := d.RetryAfter(); wait > 0 {
		sentences = append(sentences, "not before "+d.Began.Add(wait).UTC().Format(time.RFC3339))
	}
	return sentences
}

// table prints the outcomes, and an empty line.
func table(w io.Writer, d gate.Decision) error {
	rows := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(rows, "STEP\tTYPE\tVERDICT\tREASON\tTOOK\tMESSAGE")
	for _, o := range d.Outcomes {
		verdict := strings.ToUpper(o.Verdict.String())
		switch {
		case o.Override != "":
			verdict += " (overridden)"
		case o.Soft:
			verdict += " (soft)"
		}
		fmt.Fprintf(rows, "%s\t%s\t%s\t%s\t%.3fs\t%s\n", o.Name, o.Type, verdict, o.Reason, o.Seconds, oneLine(o.Message))
	}
	if err := rows.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintln(w)
	return err
}

// readTurn says how the turn stands, a sentence to a line, and which steps are
// overridden.
func readTurn(ctx context.Context, f flags, c *configuration) (stands []string, overrides map[string]turn.Override) {
	if !c.Turn.Enabled {
		return []string{gate.TurnOff + ": which node is next is left to kured's own lock"}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(c.Timeout))
	defer cancel()
	ctx, reading := clock.Read(ctx)
	lease, err := c.cluster.LeaseClient().Get(ctx, turn.LeaseName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return []string{fmt.Sprintf("unknown, so the gate is closed: %v", turn.ErrMissing)}, nil
	}
	if err != nil {
		return []string{fmt.Sprintf("unknown, so the gate is closed: reading the turn: %v", err)}, nil
	}
	now, err := reading.Now()
	if err != nil {
		return []string{fmt.Sprintf("unknown, so the gate is closed: %v", err)}, nil
	}
	o := turn.ParseOperator(lease)
	for _, problem := range o.Problems {
		stands = append(stands, "ignored: "+problem)
	}
	for _, name := range slices.Sorted(maps.Keys(o.Overridden(now))) {
		override := o.Overrides[name]
		stands = append(stands, fmt.Sprintf("step %s is overridden until %s: %s", name, override.Until.UTC().Format(time.RFC3339), override.Reason))
	}
	if reason, held := o.Held(f.nodeName); held {
		stands = append(stands, "this node is held: "+reason)
	}
	if o.Halted {
		stands = append([]string{"HALTED, every gate is closed: " + o.HaltReason}, stands...)
	}
	state, err := turn.Parse(lease)
	if err != nil {
		return append([]string{fmt.Sprintf("unknown, so the gate is closed: %v", err)}, stands...), o.Overridden(now)
	}
	first := fmt.Sprintf("%s, epoch %d", turn.View{State: state}, state.Epoch)
	if !state.Since.IsZero() {
		first += ", since " + state.Since.UTC().Format(time.RFC3339)
	}
	stands = append([]string{first}, stands...)
	nodes, err := turn.ListWaiting(ctx, c.cluster.LeaseClient(), c.cluster.NodeClient(), c.Turn.tiers())
	if err != nil {
		return append(stands, fmt.Sprintf("cannot tell which nodes wait: %v", err)), o.Overridden(now)
	}
	if err := state.SetBack(nodes); err != nil {
		return append([]string{fmt.Sprintf("unknown, so the gate is closed: %v", err)}, stands...), o.Overridden(now)
	}
	ranked := turn.Rank(nodes, state.PassedOver, time.Duration(c.Turn.GoFirstAfter), now)
	stands = append(stands, waits(ranked, f.nodeName))
	soak := c.soak(o.Overridden(now))
	config := c.turnConfig(f.nodeName, "")
	config.Soak = soak
	config.Exposure, _ = c.exposure()
	if _, held := o.Held(f.nodeName); !held && !o.Halted {
		stands = append(stands, overdue(config, state, ranked, now)...)
	}
	if need := time.Duration(len(ranked)) * soak; config.Exposure == nil && c.Turn.Deadline > 0 && need > time.Duration(c.Turn.Deadline) {
		stands = append(stands, fmt.Sprintf("the deadline of %s CANNOT BE MET: %s to reboot, and a soak of %s each takes %s", c.Turn.Deadline, gate.Count(len(ranked), "node"), model.Duration(soak), model.Duration(need)))
	}
	return stands, o.Overridden(now)
}

// waits says how many nodes wait, and who is ahead of this one.
func waits(ranked []turn.Candidate, node string) string {
	text := gate.Count(len(ranked), "node") + " wait for a reboot"
	if len(ranked) == 1 {
		text = "1 node waits for a reboot"
	}
	here := slices.IndexFunc(ranked, func(c turn.Candidate) bool { return c.Node == node })
	switch here {
	case -1:
		return text + "; this one does not"
	case 0:
		return text + "; this one ranks first"
	}
	const most = 5
	var names []string
	for _, c := range ranked[:min(here, most)] {
		names = append(names, c.Node)
	}
	text += "; ahead of this one: " + strings.Join(names, ", ")
	if here > most {
		text += fmt.Sprintf(" and %d more", here-most)
	}
	return text
}

// overdue says who was passed over, until when this node has the turn at the latest, and
// where that is over what stands in the way.
func overdue(c turn.Config, s turn.State, ranked []turn.Candidate, now time.Time) []string {
	var lines []string
	for _, p := range s.PassedOver {
		lines = append(lines, fmt.Sprintf("%s was passed over at %s: %s", p.Node, p.At.UTC().Format(time.RFC3339), p.Cause))
	}
	here := slices.IndexFunc(ranked, func(candidate turn.Candidate) bool { return candidate.Node == c.Node })
	if here < 0 || s.HeldBy(c.Node) {
		return lines
	}
	bound := turn.LongestWait(c, here)
	since := ranked[here].PendingSince
	if latest := since.Add(bound); now.After(latest) {
		return append(lines, fmt.Sprintf("this node waits since %s, longer than the %s that it takes at most where the cluster is well and in kured's own window: IN ITS WAY is %s, since %s",
			since.UTC().Format(time.RFC3339), model.Duration(bound.Round(time.Minute)), turn.View{State: s}, s.Since.UTC().Format(time.RFC3339)))
	}
	return append(lines, fmt.Sprintf("this node has the turn after %s at the latest, where the cluster is well and in kured's own window", model.Duration(bound.Round(time.Minute))))
}

func butFor(what string, some gate.Outcomes) string {
	if len(some) == 0 {
		return ""
	}
	return ", but for " + what + " ones: " + some.Reasons()
}

func forPackages(packages []string) string {
	if len(packages) == 0 {
		return ""
	}
	return ", for " + strings.Join(packages, ", ")
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
