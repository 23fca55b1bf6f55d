package forecast

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/sentinel-gate/sentinel-gate/gate/soak"
)

// maxRows is how many days are shown: of more, some.
const maxRows = 16

// Measured is the middle of the times from one boot with the turn to the next, where they
// followed each other as fast as they could, and of how many.
func Measured(nodes []soak.Node, soakFor time.Duration) (perNode time.Duration, count int) {
	var boots []time.Time
	for _, n := range nodes {
		if n.Announced {
			boots = append(boots, n.BootedAt)
		}
	}
	slices.SortFunc(boots, time.Time.Compare)
	var gaps []time.Duration
	for i := range boots {
		if i == 0 {
			continue
		}
		if gap := boots[i].Sub(boots[i-1]); gap > time.Minute && gap < soakFor/4 {
			gaps = append(gaps, gap)
		}
	}
	if len(gaps) == 0 {
		return 0, 0
	}
	slices.Sort(gaps)
	return gaps[len(gaps)/2], len(gaps)
}

// Tell prints how the rollout will go, what that assumes, and, where there is a deadline,
// whether it is met and by which setting it would be.
func Tell(w io.Writer, r Rollout, assumed []string, deadline time.Duration) error {
	f := Of(r)
	rows := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(rows, "DATE\tREBOOTED\tIN SOAK\tLIMIT\tSOAKED\t")
	shown := func(i int) bool {
		return len(f.Days) <= maxRows || i == len(f.Days)-1 || i%(len(f.Days)/maxRows+1) == 0
	}
	for i, d := range f.Days {
		if shown(i) {
			fmt.Fprintf(rows, "%s\t%d\t%d\t%d\t%d\t\n", d.At.UTC().Format("2006-01-02 15:04"), d.Rebooted, d.InSoak, d.Limit, d.Soaked)
		}
	}
	if err := rows.Flush(); err != nil {
		return err
	}
	var b strings.Builder
	say := func(what, format string, args ...any) {
		fmt.Fprintf(&b, "%-16s"+format+"\n", append([]any{what}, args...)...)
	}
	b.WriteString("\n")
	if r.ChangeEvery > 0 {
		say("a new version:", "runs on the node in the middle after %s, on nine of ten after %s", words(f.Delay.P50), words(f.Delay.P90))
	} else {
		say("the last boot:", "%s", f.LastBoot.after(r.Now))
		say("its soak ends:", "%s", f.LastSoak.after(r.Now))
	}
	if f.Changes > 1 {
		say("waiting:", "for %d different sets of packages", f.Changes)
	}
	if f.Outpaced {
		say("OUTPACED:", "the next change comes before every node runs the last one: hold packages on nodes that wait, or stage updates on one day of the week (docs/exposure.md)")
	}
	if f.Unfinished > 0 && r.ChangeEvery == 0 {
		say("UNFINISHED:", "%d of %d runs: flaps or evidence against what is rolled out hold it for good", f.Unfinished, f.Runs)
	}
	if deadline > 0 && r.ChangeEvery == 0 {
		say("the deadline:", "%s", f.against(r, deadline))
	}
	say("exposure:", "%s", rule(r.Config.Exposure, r.Config.Soak))
	for i, sentence := range assumed {
		what := ""
		if i == 0 {
			what = "assumed:"
		}
		say(what, "%s", sentence)
	}
	if f.Runs > 1 {
		say("", "%d simulated rollouts; the table is the one in the middle", f.Runs)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// against says whether the deadline is met, and by which setting it would be.
func (f Forecast) against(r Rollout, deadline time.Duration) string {
	if f.LastBoot.P90 > 0 && f.LastBoot.P90 <= deadline {
		return words(deadline) + ": met"
	}
	for _, try := range []soak.Rule{{Growth: 2, Max: soak.Amount{Percent: 25}}, {Growth: 2, Max: soak.Amount{Percent: 50}}, {Growth: 3, Max: soak.Amount{Percent: 50}}} {
		if now := r.Config.Exposure; now != nil && (try.Growth < now.Growth || try.Max.Of(100) < now.Max.Of(100)) {
			continue
		}
		for _, divide := range []time.Duration{1, 2, 4} {
			other := r
			other.Config.Exposure, other.Config.Soak = &try, r.Config.Soak/divide
			if g := Of(other); g.LastBoot.P90 > 0 && g.LastBoot.P90 <= deadline {
				return fmt.Sprintf("%s: CANNOT BE MET; it would be with %s: %s", words(deadline), rule(&try, other.Config.Soak), words(g.LastBoot.P90))
			}
		}
	}
	return words(deadline) + ": CANNOT BE MET, nor by exposure: shorten the soak or the time each node takes, or widen kured's window"
}

func rule(r *soak.Rule, soakFor time.Duration) string {
	if r == nil {
		return fmt.Sprintf("none: one node in soak at a time, %s each", words(soakFor))
	}
	return fmt.Sprintf("growth %d, max %s, a soak of %s each", r.Growth, r.Max, words(soakFor))
}

func (s Spread) after(now time.Time) string {
	one := func(d time.Duration) string {
		if d == 0 {
			return "never"
		}
		return fmt.Sprintf("%s (%s)", now.Add(d).UTC().Format("2006-01-02 15:04"), words(d))
	}
	if s.P50 == s.P90 {
		return one(s.P50)
	}
	return fmt.Sprintf("%s; in nine of ten cases %s", one(s.P50), one(s.P90))
}

// words is a duration as people say it.
func words(d time.Duration) string {
	switch {
	case d == 0:
		return "never"
	case d < 48*time.Hour:
		return fmt.Sprintf("%.3g hours", d.Hours())
	}
	return fmt.Sprintf("%.1f days", d.Hours()/24)
}
