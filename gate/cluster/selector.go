package cluster

import (
	"fmt"

	"k8s.io/apimachinery/pkg/labels"
)

// Selector is a label selector in Kubernetes' own syntax, "a=b,c in (d,e)".
// The zero value selects everything.
type Selector struct{ labels.Selector }

// UnmarshalText parses the selector.
func (s *Selector) UnmarshalText(text []byte) error {
	parsed, err := labels.Parse(string(text))
	if err != nil {
		return fmt.Errorf("not a label selector: %w", err)
	}
	s.Selector = parsed
	return nil
}

// Matches reports whether an object with the labels is selected.
func (s Selector) Matches(of map[string]string) bool {
	return s.Selector == nil || s.Selector.Matches(labels.Set(of))
}

// Empty reports whether everything is selected.
func (s Selector) Empty() bool { return s.Selector == nil || s.Selector.Empty() }

// String returns the selector in Kubernetes' syntax, empty for everything.
func (s Selector) String() string {
	if s.Selector == nil {
		return ""
	}
	return s.Selector.String()
}
