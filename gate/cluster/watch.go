package cluster

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

// WatchFor is how long a watch is believed that says nothing of its end: the API server
// ends one by itself, but a proxy in between may not tell. Up to a third is taken from
// it, so that not all gates read anew at once.
const WatchFor = 30 * time.Minute

var (
	errNoAnswer  = errors.New("the API server does not answer")
	errReadAnew  = errors.New("it has lasted for long, and is read anew")
	errWatchOver = errors.New("it was ended")
)

// OpenWatch opens a watch, for which the API server has so long. It lasts until end is
// called or the context that is returned ends, of which the cause tells why.
func OpenWatch[W any](ctx context.Context, within time.Duration, open func(context.Context) (W, error), stop func(W)) (watching context.Context, events W, end func(), err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	opening := time.AfterFunc(within, func() { cancel(errNoAnswer) })
	events, err = open(ctx)
	if !opening.Stop() && err == nil {
		stop(events)
		err = errNoAnswer
	}
	if err != nil {
		cancel(err)
		return ctx, events, func() {}, err
	}
	long := time.AfterFunc(time.Duration(float64(WatchFor)*(1-rand.Float64()/3)), func() { cancel(errReadAnew) })
	return ctx, events, func() { long.Stop(); cancel(errWatchOver); stop(events) }, nil
}
