package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"k8s.io/klog/v2"

	"github.com/sentinel-gate/sentinel-gate/gate"
)

// once evaluates the steps once, whether or not a reboot is pending, and prints
// what a person wants to know. It touches no file.
func once(ctx context.Context, f flags, stdout io.Writer) error {
	klog.SetOutput(io.Discard)
	klog.LogToStderr(false)
	c, err := usable(ctx, f)
	if err != nil {
		return unusable{err}
	}
	pipeline, err := c.pipeline()
	if err != nil {
		return unusable{err}
	}
	decision := pipeline.Evaluate(ctx, nil)
	if err := table(stdout, f, c, decision, gate.ReadRaw(c.Sentinel.Raw, time.Now())); err != nil {
		return err
	}
	if !decision.Passes() {
		return told{errors.New("a step does not pass")}
	}
	return nil
}

// usable returns the configuration, for a cluster that answers this token.
func usable(ctx context.Context, f flags) (*configuration, error) {
	cluster, clusterErr := connect(f)
	c, err := load(f.config, cluster)
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

func table(w io.Writer, f flags, c *configuration, d gate.Decision, raw gate.Raw) error {
	fmt.Fprintf(w, "node %s, %s, configuration %s\n\n", f.nodeName, d.Began.UTC().Format(time.RFC3339), c.hash)
	rows := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(rows, "STEP\tTYPE\tVERDICT\tREASON\tTOOK\tMESSAGE")
	for _, o := range d.Outcomes {
		verdict := strings.ToUpper(o.Verdict.String())
		if o.Soft {
			verdict += " (soft)"
		}
		fmt.Fprintf(rows, "%s\t%s\t%s\t%s\t%.3fs\t%s\n", o.Name, o.Type, verdict, o.Reason, o.Seconds, oneLine(o.Message))
	}
	if err := rows.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w)
	switch {
	case raw.Problem != nil:
		fmt.Fprintf(w, "raw sentinel:  %s\n", oneLine(raw.Problem.Error()))
	case !raw.Pending:
		fmt.Fprintf(w, "raw sentinel:  none at %s: no reboot is pending\n", strings.Join(c.Sentinel.Raw, ", "))
	default:
		fmt.Fprintf(w, "raw sentinel:  a reboot is pending since %s%s\n", raw.Since.UTC().Format(time.RFC3339), forPackages(raw.Packages))
	}
	if blocking := d.Blocking(); len(blocking) > 0 {
		fmt.Fprintf(w, "steps:         %d of %d hold the gate closed: %s\n", len(blocking), len(d.Outcomes), strings.Join(blocking.Names(), ", "))
		if wait := d.RetryAfter(); wait > 0 {
			fmt.Fprintf(w, "               not before %s\n", d.Began.Add(wait).UTC().Format(time.RFC3339))
		}
	} else {
		fmt.Fprintf(w, "steps:         all %d pass%s\n", len(d.Outcomes), butSoft(d.Soft()))
	}
	fmt.Fprintf(w, "stabilize:     the gate opens after every step has passed for %s\n", c.Stabilize)
	kured := lookedAt(f, c)
	fmt.Fprintf(w, "kured:         %s: %s\n", kured.Reason, oneLine(kured.Message))
	_, err := fmt.Fprintf(w, "turn:          %s: which node is next is left to kured's own lock\n", gate.TurnOff)
	return err
}

func butSoft(soft gate.Outcomes) string {
	if len(soft) == 0 {
		return ""
	}
	words := make([]string, len(soft))
	for i, o := range soft {
		words[i] = fmt.Sprintf("%s (%s)", o.Name, o.Reason)
	}
	return ", but for soft ones: " + strings.Join(words, ", ")
}

func forPackages(packages []string) string {
	if len(packages) == 0 {
		return ""
	}
	return ", for " + strings.Join(packages, ", ")
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
