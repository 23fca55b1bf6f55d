package controlplane

import (
	"context"

	"github.com/sentinel-gate/sentinel-gate/test/kit/suite"
)

// Shared is one control plane for the tests of a package. What prepare does is done once, when it has started; it may
// be nil.
func Shared(options Options, prepare func(context.Context, *ControlPlane) error) *suite.Shared[*ControlPlane] {
	return &suite.Shared[*ControlPlane]{Make: func(ctx context.Context, s *suite.Setup) (*ControlPlane, error) {
		return Started(ctx, s, options, prepare)
	}}
}

// Started is what a suite does that shares more than a control plane.
func Started(ctx context.Context, s *suite.Setup, options Options, prepare func(context.Context, *ControlPlane) error) (*ControlPlane, error) {
	cp, err := Start(ctx, options)
	if err != nil {
		return nil, err
	}
	s.Cleanup(cp.Stop)
	if prepare == nil {
		return cp, nil
	}
	return cp, prepare(ctx, cp)
}
