package record

import (
	"context"
	"fmt"
	"time"

	"github.com/sentinel-gate/sentinel-gate/gate/soak"
)

// Soaking is what a writer needs to tell of parts, and of the soak that ends.
type Soaking struct {
	// Soak is how long a node must be quiet after its boot.
	Soak time.Duration
	// Machine tells what this node runs and has installed.
	Machine func() soak.Machine
	// Ready reads this node's own Node object: its boot id, and its Ready condition.
	Ready func(context.Context) (bootID string, ready bool, since time.Time, err error)
}

// TellParts makes the record tell of parts. It is to be called before Run.
func (w *Writer) TellParts(s Soaking) { w.soaking = &s }

// takeBoot makes what the record knows, by when it is read first, the boot that is told of.
func (w *Writer) takeBoot(before Record, readable bool) error {
	if w.soaking == nil || w.boot.ID != "" {
		return nil
	}
	earlier := soak.Boot{}
	if readable {
		earlier = soak.Boot{ID: before.BootID, At: before.BootedAt, Announced: before.Announced, Parts: before.Parts, Against: before.PartsAgainst, Soaked: before.Soaked}
	}
	if id := w.wanted.BootID; earlier.ID == id && earlier.Parts != nil {
		earlier.At = w.bootedAt
		w.boot = earlier
		return nil
	} else if earlier.ID == id { // told for the first time, in the middle of a boot
		earlier = soak.Boot{}
	}
	boot, doubt := soak.After(earlier, before.PartsPending, w.soaking.Machine(), w.wanted.BootID, w.bootedAt, before.Opened, w.soaking.Soak)
	w.boot = boot
	switch {
	case doubt == soak.DoubtFirst:
		w.log.Info("this boot counts as new for the soak of others: " + doubt)
	case doubt != "":
		w.log.Warn("this boot proves nothing to others, and counts as new: " + doubt)
	}
	if len(boot.Against) > 0 && !boot.Announced {
		w.log.Warn("this node booted without the turn within its own soak: that is evidence against what it ran, on every node", "parts", len(boot.Against))
	}
	return nil
}

// soakLeft is how long until the soak of this boot is to be judged; soaks: it is to be.
func (w *Writer) soakLeft() (left time.Duration, soaks bool) {
	if w.soaking == nil || w.boot.ID == "" || w.boot.Soaked || w.judged {
		return 0, false
	}
	now := w.date.Add(time.Since(w.at))
	return max(w.bootedAt.Add(w.soaking.Soak).Sub(now), time.Until(w.judgeAfter)), true
}

// judgePause lies between attempts to judge a soak.
const judgePause = time.Minute

// judgeSoak says, once the soak is over, whether it was quiet: a change of readiness long
// after would else be taken for one within. Where that cannot be told yet it is tried again,
// and the record is written all the same.
func (w *Writer) judgeSoak(ctx context.Context) {
	if left, soaks := w.soakLeft(); !soaks || left > 0 {
		return
	}
	id, ready, since, err := w.soaking.Ready(ctx)
	if err == nil && id != w.boot.ID {
		err = fmt.Errorf("its Node object shows the boot %.40q", id)
	}
	if err != nil {
		w.judgeAfter = time.Now().Add(judgePause)
		w.log.Warn("whether this node was quiet in its soak, which is over, cannot be told yet; until then it proves nothing if it flaps", "error", err, "retryIn", judgePause.String())
		return
	}
	node := soak.Node{BootedAt: w.bootedAt, Announced: w.boot.Announced, Ready: ready, ReadySince: since}
	w.judged = true
	switch {
	case node.Disturbed(w.soaking.Soak, w.date.Add(time.Since(w.at))):
		w.boot.Against = w.boot.Known()
		w.log.Warn("this node was not quiet in its soak: that is evidence against what it runs, on every node", "readySince", since)
	case node.Quiet(w.soaking.Soak):
		w.boot.Soaked = true
		w.log.Info("this node has soaked what it runs")
	}
}
