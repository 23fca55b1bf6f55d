// Package turn decides whose gate may open. One Lease is the cluster's single
// record of that, and only the API server's compare-and-swap changes it. Its
// invariant: once a gate was open, nothing takes the turn from its node but a
// proof that kured will not act on what it saw there, or that it has; and after
// a reboot nobody has the turn until the soak is over.
//
// In file order: the Lease (state.go), what people write in it (operator.go), who is
// next (order.go) and who ranks last (passedover.go), the protocol as a pure function
// (decide.go, granted.go, open.go), how long anybody waits (bound.go), for how long kured
// may leave an open gate alone (patience.go), the core, which knows no API server: what it is
// told and wants (event.go), what it remembers (core.go), what it does next (act.go) and
// when (pace.go); and the driver
// around it (driver.go), which asks the API server (observe.go, lock.go) and tells the
// gate (view.go).
package turn

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
)

// LeaseName is the name of the turn's Lease, in the gates' namespace. No node may
// be called so.
const LeaseName = "sentinel-gate-turn"

// Phase is where the turn stands.
type Phase string

const (
	// PhaseUnwritten is the phase of a Lease that no gate has written yet. Nobody
	// knows what was before, so a whole soak begins.
	PhaseUnwritten Phase = ""
	// PhaseFree means that nobody has the turn.
	PhaseFree Phase = "free"
	// PhaseGranted means that the holder may evaluate its steps. Its gate has not
	// been open, so that the turn can still be given to another.
	PhaseGranted Phase = "granted"
	// PhaseOpen means that the holder's gate is open or was: kured may have seen it,
	// and may act on it, minutes later.
	PhaseOpen Phase = "open"
	// PhaseSoaking means that the holder has rebooted; its soak runs.
	PhaseSoaking Phase = "soaking"
)

// The gates' annotations. Those of people are in operator.go.
const (
	versionKey   = "sentinel-gate.io/turn-version"
	epochKey     = "sentinel-gate.io/turn-epoch"
	phaseKey     = "sentinel-gate.io/turn-phase"
	holderKey    = "sentinel-gate.io/turn-holder"
	bootKey      = "sentinel-gate.io/turn-boot-id"
	sinceKey     = "sentinel-gate.io/turn-since"
	rebootedKey  = "sentinel-gate.io/turn-rebooted-at"
	ackedKey     = "sentinel-gate.io/turn-acknowledged"
	withdrawnKey = "sentinel-gate.io/turn-withdrawn"
	unactedKey   = "sentinel-gate.io/turn-not-acted-on"
	nextKey      = "sentinel-gate.io/turn-next"
	waitingKey   = "sentinel-gate.io/turn-waiting"
	sealKey      = "sentinel-gate.io/turn-seal"
	nextAtKey    = "sentinel-gate.io/turn-next-at"
	nextWhyKey   = "sentinel-gate.io/turn-next-why"
	extendedKey  = "sentinel-gate.io/turn-extended-resources"
	soaksKey     = "sentinel-gate.io/turn-soaks"

	// version is of a turn without exposure, and exposedVersion of one with it: gates that
	// know nothing of exposure refuse that.
	version        = "1"
	exposedVersion = "2"
)

// State is what the gates write in the Lease.
type State struct {
	// Epoch grows with every write of a gate, and with nothing else.
	Epoch int64
	Phase Phase
	// Holder is the node that has the turn. In phase Soaking it is the one that
	// rebooted last, in phase Free the one that handed on last.
	Holder string
	// BootID is that of the holder when it was granted the turn.
	BootID string
	// Since is when the phase was written, RebootedAt from when the soak runs,
	// both by the API server's clock.
	Since, RebootedAt time.Time
	// Acknowledged: the holder has seen that it was granted the turn.
	Acknowledged bool
	// Withdrawn: the holder closed its gate, because kured did not act on it,
	// and will hand on.
	Withdrawn bool
	// NotActedOn counts the gates in a row that were open and not acted on.
	NotActedOn int
	// Next are the first few that waited when the holder was chosen, Waiting how
	// many there were.
	Next    []string
	Waiting int
	// Exposed: it was written by a gate with exposure. What follows is of that alone, and
	// RebootedAt and BootID are then kept in every phase: those of the last reboot.
	Exposed bool
	// NextAt is before when nobody may go by what is known, and NextWhy the reason of the
	// one that would be next; zero: that was not looked for yet.
	NextAt  time.Time
	NextWhy string
	// Soaks are how the soaks stood when somebody was chosen last.
	Soaks Soaks
	// Extended are the extended resources that the holder had before its reboot.
	Extended string
	// PassedOver are those that could not use the turn; they rank last.
	PassedOver []PassedOver
}

// Soaks is how the soaks of all nodes stand: how many are in soak, of at most how many; how
// many have soaked what they run, and how many gave evidence against it.
type Soaks struct{ InSoak, Limit, Soaked, Against int }

func (s Soaks) String() string {
	if s == (Soaks{}) {
		return ""
	}
	return fmt.Sprintf("in soak %d of %d, soaked %d, against %d", s.InSoak, s.Limit, s.Soaked, s.Against)
}

// parseSoaks reads what String wrote; of anything else nothing is known.
func parseSoaks(text string) (s Soaks) {
	if _, err := fmt.Sscanf(text, "in soak %d of %d, soaked %d, against %d", &s.InSoak, &s.Limit, &s.Soaked, &s.Against); err != nil {
		return Soaks{}
	}
	return s
}

// Concerns reports whether the node has the turn or, with exposure, rebooted last and has
// not been seen to be back.
func (s State) Concerns(node string) bool {
	return s.HeldBy(node) || s.Phase == PhaseSoaking && s.Exposed && s.Holder == node
}

// HeldBy reports whether the node has the turn: it was granted it, or its gate was opened.
func (s State) HeldBy(node string) bool {
	return s.Holder == node && (s.Phase == PhaseGranted || s.Phase == PhaseOpen)
}

// Parse reads the turn from its Lease. It fails where what the gates wrote is
// incomplete, of another version, or changed by hand.
func Parse(lease *coordinationv1.Lease) (State, error) {
	a := lease.Annotations
	var s State
	var problems []error
	number := func(key string) int64 {
		if a[key] == "" {
			return 0
		}
		n, err := strconv.ParseInt(a[key], 10, 64)
		if err != nil || n < 0 {
			problems = append(problems, fmt.Errorf("%s is %q, not a number", key, a[key]))
		}
		return n
	}
	moment := func(key string) time.Time {
		if a[key] == "" {
			return time.Time{}
		}
		t, err := time.Parse(time.RFC3339, a[key])
		if err != nil {
			problems = append(problems, fmt.Errorf("%s is %q, not a time", key, a[key]))
		}
		return t
	}
	s.Epoch, s.Phase, s.Holder, s.BootID = number(epochKey), Phase(a[phaseKey]), a[holderKey], a[bootKey]
	if s.Phase == PhaseUnwritten {
		// At most an epoch, which a person gives to a Lease that was made anew.
		if a[sealKey] != "" || s.Holder != "" {
			problems = append(problems, errors.New("it has no phase, but other parts of one"))
		}
		return s, unreadable(lease, problems)
	}
	s.Since, s.RebootedAt = moment(sinceKey), moment(rebootedKey)
	s.Acknowledged, s.Withdrawn = a[ackedKey] == "true", a[withdrawnKey] == "true"
	s.NotActedOn, s.Waiting = int(number(unactedKey)), int(number(waitingKey))
	s.PassedOver = parsePassedOver(a[passedOverKey])
	if s.Exposed = a[versionKey] == exposedVersion; s.Exposed {
		s.NextAt, s.NextWhy, s.Extended, s.Soaks = moment(nextAtKey), a[nextWhyKey], a[extendedKey], parseSoaks(a[soaksKey])
	}
	if a[nextKey] != "" {
		s.Next = strings.Split(a[nextKey], ",")
	}
	switch {
	case a[versionKey] != version && a[versionKey] != exposedVersion:
		problems = append(problems, fmt.Errorf("its version is %q, and this gate knows %s and %s", a[versionKey], version, exposedVersion))
	case a[sealKey] != seal(a):
		problems = append(problems, errors.New("it was changed by hand: its seal does not fit"))
	case s.Since.IsZero(),
		s.Phase == PhaseSoaking && s.RebootedAt.IsZero(),
		(s.Phase == PhaseGranted || s.Phase == PhaseOpen) && (s.Holder == "" || s.BootID == ""):
		problems = append(problems, errors.New("it is incomplete"))
	case s.Phase != PhaseFree && s.Phase != PhaseGranted && s.Phase != PhaseOpen && s.Phase != PhaseSoaking:
		problems = append(problems, fmt.Errorf("its phase is %q, which is none", s.Phase))
	}
	return s, unreadable(lease, problems)
}

func unreadable(lease *coordinationv1.Lease, problems []error) error {
	if len(problems) == 0 {
		return nil
	}
	return fmt.Errorf("the turn (Lease %s/%s) cannot be read: %w", lease.Namespace, lease.Name, errors.Join(problems...))
}

// Put writes the state into the Lease, beside the annotations of others.
func (s State) Put(lease *coordinationv1.Lease) {
	if lease.Annotations == nil {
		lease.Annotations = map[string]string{}
	}
	count := func(n int64) string {
		if n == 0 {
			return ""
		}
		return strconv.FormatInt(n, 10)
	}
	truth := func(b bool) string {
		if b {
			return "true"
		}
		return ""
	}
	written := version
	if s.Exposed {
		written = exposedVersion
	} else {
		s.NextAt, s.NextWhy, s.Extended, s.Soaks = time.Time{}, "", "", Soaks{}
	}
	for key, value := range map[string]string{
		versionKey: written, epochKey: strconv.FormatInt(s.Epoch, 10), phaseKey: string(s.Phase), holderKey: s.Holder, bootKey: s.BootID,
		sinceKey: text(s.Since), rebootedKey: text(s.RebootedAt), ackedKey: truth(s.Acknowledged), withdrawnKey: truth(s.Withdrawn),
		unactedKey: count(int64(s.NotActedOn)), nextKey: strings.Join(s.Next, ","), waitingKey: count(int64(s.Waiting)),
		passedOverKey: putPassedOver(s.PassedOver), nextAtKey: text(s.NextAt), nextWhyKey: s.NextWhy, extendedKey: s.Extended, soaksKey: s.Soaks.String(),
	} {
		if value == "" {
			delete(lease.Annotations, key)
		} else {
			lease.Annotations[key] = value
		}
	}
	lease.Annotations[sealKey] = seal(lease.Annotations)
	lease.Spec.HolderIdentity = nil
	if s.Phase == PhaseGranted || s.Phase == PhaseOpen {
		lease.Spec.HolderIdentity = &s.Holder
	}
}

// seal tells a state that a gate wrote from one that was changed by hand. It is
// no secret: it keeps people from mistakes, not from malice.
func seal(annotations map[string]string) string {
	hash := sha256.New()
	keys := []string{versionKey, epochKey, phaseKey, holderKey, bootKey, sinceKey, rebootedKey, ackedKey, withdrawnKey, unactedKey, nextKey, waitingKey}
	if annotations[versionKey] == exposedVersion {
		keys = append(keys, nextAtKey, nextWhyKey, extendedKey, soaksKey)
	}
	for _, key := range keys {
		fmt.Fprintf(hash, "%s=%s\n", key, annotations[key])
	}
	return hex.EncodeToString(hash.Sum(nil)[:6])
}

func text(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}
