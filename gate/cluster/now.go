package cluster

import (
	"context"
	"fmt"
	"time"

	"github.com/sentinel-gate/sentinel-gate/gate/clock"
)

type nowKey struct{}

// Now returns the API server's time, to the second: that of a small answer
// that everybody may have.
func (c *Cluster) Now(ctx context.Context) (time.Time, error) {
	return Shared(ctx, nowKey{}, func(ctx context.Context) (time.Time, error) {
		ctx, reading := clock.Read(ctx)
		err := c.Reach(ctx)
		now := time.Time{}
		if err == nil {
			now, err = reading.Now()
		}
		if err != nil {
			return now, fmt.Errorf("reading the API server's time: %w", err)
		}
		return now, nil
	})
}
