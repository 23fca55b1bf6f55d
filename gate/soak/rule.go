package soak

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Rule is what the operator allows.
type Rule struct {
	// Soak is how long a node must be quiet after its boot.
	Soak time.Duration
	// Growth is how many more may soak for each that has soaked; at least 1.
	Growth int
	// Max is how many may be in soak together.
	Max Amount
	// Flaps is how many nodes may flap within a soak without holding anybody up.
	Flaps Amount
	// FirstAfter is for how long one of the control plane may wait for workers to soak what
	// it would run.
	FirstAfter time.Duration
}

// MaxGrowth is the most that Growth may be: beyond that it is no growth by evidence.
const MaxGrowth = 10

// Amount is a count or a percentage of the nodes. The zero value is 0.
type Amount struct {
	Count, Percent int
}

// ParseAmount reads "3" or "25%".
func ParseAmount(text string) (Amount, error) {
	number, percent := strings.CutSuffix(text, "%")
	n, err := strconv.Atoi(number)
	switch {
	case err != nil || n < 0:
		return Amount{}, fmt.Errorf("%q is neither a number nor a percentage, such as 3 or 25%%", text)
	case percent && n > 100:
		return Amount{}, fmt.Errorf("%q is more than all", text)
	case percent:
		return Amount{Percent: n}, nil
	}
	return Amount{Count: n}, nil
}

// String is what ParseAmount reads.
func (a Amount) String() string {
	if a.Percent > 0 {
		return fmt.Sprintf("%d%%", a.Percent)
	}
	return strconv.Itoa(a.Count)
}

// MarshalText writes what ParseAmount reads.
func (a Amount) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (a *Amount) UnmarshalText(text []byte) (err error) {
	*a, err = ParseAmount(string(text))
	return err
}

// UnmarshalJSON reads a number as well as a text.
func (a *Amount) UnmarshalJSON(data []byte) error {
	return a.UnmarshalText([]byte(strings.Trim(string(data), `"`)))
}

// Of is the amount among so many nodes, rounded down.
func (a Amount) Of(nodes int) int { return a.Count + nodes*a.Percent/100 }
