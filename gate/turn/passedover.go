package turn

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// passedOverKey is the annotation that tells who was passed over. It is not sealed:
// the order alone depends on it, and what cannot be read of it is left out.
const passedOverKey = "sentinel-gate.io/turn-passed-over"

const (
	// maxPassedOver is how many nodes are remembered; of more, the last.
	maxPassedOver = 20
	// passedOverFor is how long a node ranks last because it could not use the turn. One
	// that did not respond does so until it responds.
	passedOverFor = 24 * time.Hour
)

// Cause is why a node that had the turn did not use it. The zero value is none.
type Cause string

const (
	// CauseSilent means that its gate did not respond.
	CauseSilent Cause = "Silent"
	// CauseStepsErr means that steps err or time out there, and nobody knows yet whether
	// they do so elsewhere.
	CauseStepsErr Cause = "StepsErr"
	// CauseStepsErrThereAlone means that they err or time out there, and passed on the next node.
	CauseStepsErrThereAlone Cause = "StepsErrThereAlone"
	// CauseCannotOpen means that the gated sentinel could not be made.
	CauseCannotOpen Cause = "CannotOpen"
	// CauseCordoned means that somebody other than kured has cordoned the node.
	CauseCordoned Cause = "Cordoned"
	// CauseNoKured means that no kured runs there.
	CauseNoKured Cause = "NoKured"
	// CauseKuredWaits means that the kured there was told to wait for things of its own.
	CauseKuredWaits Cause = "KuredWaits"
	// CauseNotShown means that its Node object or its record does not show its present boot.
	CauseNotShown Cause = "NotShown"
	// CauseNoRecord means that its gate cannot write its record.
	CauseNoRecord Cause = "NoRecord"
)

var sentences = map[Cause]string{
	CauseSilent:             "its gate did not respond in time",
	CauseStepsErr:           "its steps err or time out",
	CauseStepsErrThereAlone: "its steps err or time out, and those of the next node do not: look at its network, and at its gate's log",
	CauseCannotOpen:         "its gate could not make the gated sentinel: look at its gate's log",
	CauseCordoned:           "it is cordoned, and not by kured: uncordon it, or hold it in the turn",
	CauseNoKured:            "no kured runs on it",
	CauseKuredWaits:         "its kured waits by its own --prometheus-url or --blocking-pod-selector: let the gate alone ask",
	CauseNotShown:           "its Node object or its record does not show its present boot",
	CauseNoRecord:           "its gate cannot write its record: look at its gate's log",
}

// String is a sentence for a person, without its subject, the node.
func (c Cause) String() string { return sentences[c] }

// PassedOver is a node that had the turn and could not use it. It ranks last.
type PassedOver struct {
	Node  string
	Cause Cause
	// At is when, by the API server's clock.
	At time.Time
}

// counts reports whether the node still ranks last for it.
func (p PassedOver) counts(now time.Time) bool {
	return p.Cause == CauseSilent || now.Sub(p.At) < passedOverFor
}

func (p PassedOver) String() string { return p.Node + " " + string(p.Cause) + " " + text(p.At) }

func parsePassedOver(value string) (all []PassedOver) {
	for entry := range strings.SplitSeq(value, ",") {
		fields := strings.Fields(entry)
		if len(fields) != 3 || len(all) == maxPassedOver {
			continue
		}
		at, err := time.Parse(time.RFC3339, fields[2])
		if _, known := sentences[Cause(fields[1])]; err == nil && known {
			all = append(all, PassedOver{fields[0], Cause(fields[1]), at})
		}
	}
	return all
}

func putPassedOver(all []PassedOver) string {
	entries := make([]string, len(all))
	for i, p := range all {
		entries[i] = p.String()
	}
	return strings.Join(entries, ",")
}

// passOver returns the state in which the node was passed over.
func (s State) passOver(node string, cause Cause, now time.Time) State {
	others := slices.DeleteFunc(slices.Clone(s.PassedOver), func(p PassedOver) bool { return p.Node == node || !p.counts(now) })
	others = append(others, PassedOver{node, cause, now.UTC().Truncate(time.Second)})
	s.PassedOver = others[max(0, len(others)-maxPassedOver):]
	return s
}

// unpass returns the state in which the node no longer is.
func (s State) unpass(node string) State {
	s.PassedOver = slices.DeleteFunc(slices.Clone(s.PassedOver), func(p PassedOver) bool { return p.Node == node })
	return s
}

// passed returns why the node was passed over; nil: it was not.
func (s State) passed(node string) *PassedOver {
	for i := range s.PassedOver {
		if s.PassedOver[i].Node == node {
			return &s.PassedOver[i]
		}
	}
	return nil
}

// ranksLast reports whether the node was passed over not long ago.
func (s State) ranksLast(node string, now time.Time) bool {
	p := s.passed(node)
	return p != nil && p.counts(now)
}

// responds reports that the gate of a node that counts as silent is there again.
func (s State) responds(node string) bool {
	p := s.passed(node)
	return p != nil && p.Cause == CauseSilent
}

// respond takes this node from those that did not respond.
func respond(c Config, s State) Move {
	next := s.unpass(c.Node)
	return Move{Write: &next, keepsSince: true, Why: "this node was passed over because its gate did not respond, and it responds again"}
}

// errElsewhere returns a node whose steps erred just before this one had the turn.
func (s State) errElsewhere(node string) string {
	for _, p := range s.PassedOver {
		if p.Cause == CauseStepsErr && p.Node != node {
			return p.Node
		}
	}
	return ""
}

// blame returns the state in which another gate opened: of those whose steps erred so
// shortly before, it was their own trouble, and of others that is not known.
func (s State) blame(now time.Time, shortly time.Duration) State {
	s.PassedOver = slices.DeleteFunc(slices.Clone(s.PassedOver), func(p PassedOver) bool {
		return p.Cause == CauseStepsErr && now.Sub(p.At) >= shortly
	})
	for i, p := range s.PassedOver {
		if p.Cause == CauseStepsErr {
			s.PassedOver[i].Cause = CauseStepsErrThereAlone
		}
	}
	return s
}

// tellPassedOver names those that were passed over, for a person.
func (s State) tellPassedOver() string {
	words := ""
	for _, p := range s.PassedOver {
		words += fmt.Sprintf("; %s was passed over at %s: %s", p.Node, text(p.At), p.Cause)
	}
	return words
}
