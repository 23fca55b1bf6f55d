package controlplane

import (
	"context"
	"sync"
)

// Shared is one control plane for the tests of a package. It is started by the first test that asks for it, so that the
// others, and the fuzzer's workers, do without.
type Shared struct {
	Options Options
	// Prepare is done once, when the control plane has started. It may be nil.
	Prepare func(context.Context, *ControlPlane) error

	once sync.Once
	cp   *ControlPlane
	err  error
}

// Get returns the control plane, or why there is none.
func (s *Shared) Get() (*ControlPlane, error) {
	s.once.Do(func() {
		ctx := context.Background()
		if s.cp, s.err = Start(ctx, s.Options); s.err == nil && s.Prepare != nil {
			s.err = s.Prepare(ctx, s.cp)
		}
	})
	return s.cp, s.err
}

// Run runs the tests, which are a *testing.M, and stops what they have started. It returns their exit status.
func (s *Shared) Run(tests interface{ Run() int }) int {
	status := tests.Run()
	if s.cp != nil {
		s.cp.Stop()
	}
	return status
}
