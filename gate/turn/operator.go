package turn

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
)

// The annotations that people write, and gates never do.
const (
	// HaltKey halts the whole rollout; its value is the reason.
	HaltKey = "sentinel-gate.io/halt"
	// ReleaseKey takes the turn from a holder that cannot come back; its value
	// is the epoch that is released, so that it can release no later holder.
	ReleaseKey = "sentinel-gate.io/release"
	// HoldPrefix and a node's name hold that node; the value is the reason.
	HoldPrefix = "hold.sentinel-gate.io/"
	// OverridePrefix and a step's name override that step; the value is a time,
	// and the reason behind it.
	OverridePrefix = "override.sentinel-gate.io/"
)

// maxKeyName is how long the part of an annotation's key behind the slash may
// be; it ends with a letter or a digit. A hold of a node with a longer name has as
// much of its beginning.
const maxKeyName = 63

// Operator is what people ask of the turn.
type Operator struct {
	Halted     bool
	HaltReason string
	// Release is the epoch that is released, and 0 where none is.
	Release int64
	// Holds are the reasons by the key's name.
	Holds map[string]string
	// Overrides are by the name of the step.
	Overrides map[string]Override
	// Problems are annotations that cannot be understood.
	Problems []string
}

// Override lets a step that does not pass hold nothing back for a while. Until is
// in UTC, so that two that say the same are equal.
type Override struct {
	Until  time.Time
	Reason string
}

// ParseOperator reads what people wrote. A malformed halt halts; whatever would
// open something must be well formed.
func ParseOperator(lease *coordinationv1.Lease) Operator {
	o := Operator{Holds: map[string]string{}, Overrides: map[string]Override{}}
	wrong := func(format string, args ...any) { o.Problems = append(o.Problems, fmt.Sprintf(format, args...)) }
	for key, value := range lease.Annotations {
		switch {
		case key == HaltKey:
			o.Halted, o.HaltReason = true, given(value)
		case key == ReleaseKey:
			epoch, err := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
			if err != nil || epoch <= 0 {
				wrong("%s is %q: want the turn's epoch", key, value)
				continue
			}
			o.Release = epoch
		case strings.HasPrefix(key, HoldPrefix):
			o.Holds[strings.TrimPrefix(key, HoldPrefix)] = given(value)
		case strings.HasPrefix(key, OverridePrefix):
			when, reason, _ := strings.Cut(strings.TrimSpace(value), " ")
			until, err := time.Parse(time.RFC3339, when)
			if err != nil || strings.TrimSpace(reason) == "" {
				wrong("%s is %q: want a time and a reason, such as \"2026-01-31T18:00:00Z CVE-2026-1\"", key, value)
				continue
			}
			o.Overrides[strings.TrimPrefix(key, OverridePrefix)] = Override{until.UTC(), strings.TrimSpace(reason)}
		}
	}
	slices.Sort(o.Problems)
	return o
}

func given(reason string) string {
	if strings.TrimSpace(reason) == "" {
		return "(no reason given)"
	}
	return reason
}

// Held returns the reason why the node is held, if it is.
func (o Operator) Held(node string) (reason string, held bool) {
	if len(node) > maxKeyName {
		node = strings.TrimRight(node[:maxKeyName], "-._")
	}
	reason, held = o.Holds[node]
	return reason, held
}

// Overridden returns the overrides that still count.
func (o Operator) Overridden(now time.Time) map[string]Override {
	current := map[string]Override{}
	for step, override := range o.Overrides {
		if now.Before(override.Until) {
			current[step] = override
		}
	}
	return current
}
