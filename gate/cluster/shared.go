package cluster

import (
	"context"
	"fmt"
	"sync"
)

// reads remembers what the steps of one evaluation have read, and is dropped
// with it: the next evaluation reads afresh.
type reads struct {
	mu    sync.Mutex
	byKey map[any]*read
	ctx   context.Context //nolint:containedctx // it is the evaluation's, whose reads these are
}

type read struct {
	done  chan struct{}
	value any
	err   error
}

type readsKey struct{}

// WithReads returns the context of one evaluation, in which Shared reads once.
func WithReads(ctx context.Context) context.Context {
	return context.WithValue(ctx, readsKey{}, &reads{byKey: map[any]*read{}, ctx: ctx})
}

// Shared returns what fetch returned the first time that it was called with
// this key in the evaluation of ctx, so that the nodes of a large cluster are
// listed once for all steps. Outside an evaluation it calls fetch each time.
// fetch runs until the evaluation ends; the caller waits only until ctx does.
func Shared[T any](ctx context.Context, key any, fetch func(context.Context) (T, error)) (T, error) {
	shared, ok := ctx.Value(readsKey{}).(*reads)
	if !ok {
		return fetch(ctx)
	}
	shared.mu.Lock()
	r, found := shared.byKey[key]
	if !found {
		r = &read{done: make(chan struct{})}
		shared.byKey[key] = r
		go func() {
			defer close(r.done)
			defer func() {
				if p := recover(); p != nil {
					r.err = fmt.Errorf("panic: %v", p)
				}
			}()
			r.value, r.err = fetch(shared.ctx)
		}()
	}
	shared.mu.Unlock()
	var zero T
	select {
	case <-r.done:
		if r.err != nil {
			return zero, r.err
		}
		return r.value.(T), nil
	case <-ctx.Done():
		return zero, ctx.Err()
	}
}
