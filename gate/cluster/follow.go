package cluster

import (
	"context"
	"fmt"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/sentinel-gate/sentinel-gate/gate/clock"
)

// openWithin is how long the API server may take to begin a watch.
const openWithin = 10 * time.Second

// Listing is what one LIST brought: of each object only what is needed of it.
type Listing[T any] struct {
	Items []T
	// Now is the API server's time before it answered.
	Now time.Time
	// version is where a watch takes up.
	version string
}

// list reads all pages, or all at once where the options ask for that. It fails where the
// answer does not tell the time.
func list[L metav1.ListInterface, T any](ctx context.Context, what string, options metav1.ListOptions, fetch func(context.Context, metav1.ListOptions) (L, error), items func(L, []T) []T) (Listing[T], error) {
	ctx, reading := clock.Read(ctx)
	var all Listing[T]
	err := Pages(ctx, options, fetch, func(l L) {
		all.Items = items(l, all.Items)
		if all.version == "" {
			all.version = l.GetResourceVersion()
		}
	})
	if err != nil {
		return Listing[T]{}, fmt.Errorf("listing %s: %w", what, err)
	}
	if all.Now, err = reading.Now(); err != nil {
		return Listing[T]{}, fmt.Errorf("listing %s: %w", what, err)
	}
	return all, nil
}

// compacted appends what is kept of each of the objects.
func compacted[O, T any](objects []O, to []T, compact func(*O) T) []T {
	for i := range objects {
		to = append(to, compact(&objects[i]))
	}
	return to
}

// follow watches from where the listing was read. It calls changed with that
// listing, and with it brought up to date after each event, its time moved on
// by this process's own monotonic clock. It holds mu while it changes the
// listing, in place, and while changed runs: what changed keeps may be read
// under mu alone. It returns when the watch ends.
func follow[O interface{ GetName() string }, T any](ctx context.Context, mu sync.Locker, what string, from Listing[T], key func(T) string,
	watcher func(context.Context, metav1.ListOptions) (watch.Interface, error), options metav1.ListOptions, compact func(O) T, changed func(Listing[T])) error {
	options.ResourceVersion = from.version
	ctx, events, end, err := OpenWatch(ctx, openWithin, func(ctx context.Context) (watch.Interface, error) { return watcher(ctx, options) }, watch.Interface.Stop)
	if err != nil {
		return fmt.Errorf("watching %s: %w", what, err)
	}
	defer end()
	began, start := time.Now(), from.Now
	index := make(map[string]int, len(from.Items))
	for i, item := range from.Items {
		index[key(item)] = i
	}
	update := func(event func()) {
		mu.Lock()
		defer mu.Unlock()
		event()
		from.Now = start.Add(time.Since(began))
		changed(from)
	}
	update(func() {})
	for {
		select {
		case <-ctx.Done():
			return fmt.Errorf("watching %s: %w", what, context.Cause(ctx))
		case event, ok := <-events.ResultChan():
			if !ok {
				return fmt.Errorf("watching %s: the API server ended the watch", what)
			}
			object, ok := event.Object.(O)
			if !ok {
				return fmt.Errorf("watching %s: %s: %v", what, event.Type, event.Object)
			}
			update(func() {
				i, known := index[object.GetName()]
				switch {
				case event.Type == watch.Deleted && known:
					last := len(from.Items) - 1
					from.Items[i] = from.Items[last]
					index[key(from.Items[i])] = i
					from.Items = from.Items[:last]
					delete(index, object.GetName())
				case event.Type == watch.Deleted:
				case known:
					from.Items[i] = compact(object)
				default:
					index[object.GetName()] = len(from.Items)
					from.Items = append(from.Items, compact(object))
				}
			})
		}
	}
}

// Together runs all of the functions, breaks them off when the first returns,
// and returns why. One that panics has returned.
func Together(ctx context.Context, functions ...func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var all sync.WaitGroup
	for _, f := range functions {
		all.Go(func() {
			defer func() {
				if p := recover(); p != nil {
					cancel(fmt.Errorf("panic: %v", p))
				}
			}()
			cancel(f(ctx))
		})
	}
	all.Wait()
	return context.Cause(ctx)
}
