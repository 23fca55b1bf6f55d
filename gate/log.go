package gate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/sentinel-gate/sentinel-gate/gate/packages"
	"github.com/sentinel-gate/sentinel-gate/gate/turn"
	"github.com/sentinel-gate/sentinel-gate/gate/wiring"
)

// Status is what the gate is at one moment, and why: what the decision log, the
// metrics and the node's record tell.
type Status struct {
	State, Previous State
	// Since is when the state was entered.
	Since time.Time
	// Why is a sentence for a person.
	Why string
	Raw Raw
	// Parts are what a pending reboot would bring into effect, where that is of interest.
	Parts packages.Found
	// Decision is the last one, and empty before the first.
	Decision Decision
	// RetryAt is when the next evaluation begins, and zero where none is due.
	RetryAt time.Time
	// Evaluations counts the evaluations by their worst verdict.
	Evaluations [Pass + 1]int
	// Wiring is what the kured on this node looks at; its reason is empty before
	// the first look.
	Wiring wiring.Finding
	// Turn is what is known of the turn; TurnOn says whether the gate takes part.
	Turn   turn.View
	TurnOn bool
	// Node is the node's name.
	Node string
	// Foreign counts the entries found at the gated path that were not this
	// gate's.
	Foreign int
}

// followsTurn reports whether the gate watches the turn. One that neither waits
// nor has the turn knows no more than how it once stood.
func (s Status) followsTurn() bool {
	return s.TurnOn && s.Turn.Concerns(s.Node, s.Raw.Pending)
}

// TurnOff is the turn of a gate that does not take part in one: that only one
// node reboots at a time is then left to kured's own lock.
const TurnOff = "off"

// NewLog returns the logger of the node's decision log. The format is "json"
// or "text"; level is one of slog's names. With an error it returns one all the
// same, to tell it.
func NewLog(w io.Writer, format, level, node string) (*slog.Logger, error) {
	var problems []error
	var least slog.Level
	if err := least.UnmarshalText([]byte(level)); err != nil {
		problems = append(problems, fmt.Errorf("--log-level %q: want debug, info, warn or error", level))
	}
	options := &slog.HandlerOptions{Level: least}
	var handler slog.Handler = slog.NewJSONHandler(w, options)
	switch format {
	case "json":
	case "text":
		handler = slog.NewTextHandler(w, options)
	default:
		problems = append(problems, fmt.Errorf("--log-format %q: want json or text", format))
	}
	return slog.New(handler).With("node", node), errors.Join(problems...)
}

// log writes one line of the decision log. Its fields are documented in
// docs/decision-log.md; people parse them.
func (s Status) log(log *slog.Logger, level slog.Level) {
	asks := Idle
	if s.Raw.Pending || s.Raw.Problem != nil {
		asks = s.Decision.Asks()
	}
	if level == slog.LevelInfo && s.State == Closed && (s.Raw.Problem != nil || s.Raw.Pending && (s.Turn.Problem != nil && s.TurnOn || s.Turn.Move.Loud) || len(s.Decision.Outcomes) > 0 && s.Decision.Result() == Unknown) {
		level = slog.LevelWarn
	}
	packages, steps := s.Raw.Packages, s.Decision.Outcomes
	if packages == nil {
		packages = []string{}
	}
	if steps == nil {
		steps = Outcomes{}
	}
	log.LogAttrs(context.Background(), level, s.Why,
		slog.String("decision", asks.String()),
		slog.String("state", s.State.String()),
		slog.String("previous", s.Previous.String()),
		timeOrNull("rawSince", s.Raw.Since),
		slog.Any("packages", packages),
		slog.String("turn", s.turn()),
		slog.Any("steps", steps),
		slog.Any("blocking", s.Decision.Blocking().Names()),
		timeOrNull("retryAt", s.RetryAt),
	)
}

func (s Status) turn() string {
	if !s.TurnOn {
		return TurnOff
	}
	return s.Turn.String()
}

func timeOrNull(key string, t time.Time) slog.Attr {
	if t.IsZero() {
		return slog.Any(key, nil)
	}
	return slog.Time(key, t.UTC())
}
