package cluster

import (
	"context"
	"slices"
	"sync"
)

// follower follows all nodes for everybody who asks in the context of WithFollower: a
// cluster of thousands is listed and watched once for all steps of an open gate, and not
// once for each.
type follower struct {
	ctx context.Context //nolint:containedctx // that of everybody who asks

	mu      sync.Mutex
	running *following // nil: none has begun
}

// following is one LIST and the watch behind it.
type following struct {
	listed, ended chan struct{}
	err           error // valid when ended

	mu          sync.Mutex // of what follows
	listing     Listing[Node]
	subscribers []*subscriber
}

type subscriber struct {
	mu      sync.Locker
	changed func(Listing[Node])
}

type followerKey struct{}

// WithFollower returns a context in which Nodes and FollowNodes share one watch, which
// ends with ctx.
func WithFollower(ctx context.Context) context.Context {
	return context.WithValue(ctx, followerKey{}, &follower{ctx: ctx})
}

func followerOf(ctx context.Context) *follower {
	f, _ := ctx.Value(followerKey{}).(*follower)
	return f
}

// current returns the watch that runs, and begins one where none does.
func (f *follower) current(c *Cluster) *following {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.running != nil {
		select {
		case <-f.running.ended:
		default:
			return f.running
		}
	}
	running := &following{listed: make(chan struct{}), ended: make(chan struct{})}
	f.running = running
	go func() {
		defer close(running.ended)
		nodes, err := c.listNodes(f.ctx, "nodes", everyNode)
		if err != nil {
			running.err = err
			return
		}
		running.listing = nodes
		close(running.listed)
		running.err = c.followNodes(f.ctx, running, nodes, running.tell)
	}()
	return running
}

// nodes returns the nodes as they are now.
func (r *following) nodes(ctx context.Context) (Listing[Node], error) {
	select {
	case <-r.listed:
	case <-r.ended:
		return Listing[Node]{}, r.err
	case <-ctx.Done():
		return Listing[Node]{}, ctx.Err()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	nodes := r.listing
	nodes.Items = slices.Clone(nodes.Items)
	return nodes, nil
}

// follow is FollowNodes.
func (r *following) follow(ctx context.Context, mu sync.Locker, changed func(Listing[Node])) error {
	select { // one that has begun just now knows of no node yet, which is not that there is none
	case <-r.listed:
	case <-r.ended:
		return r.err
	case <-ctx.Done():
		return ctx.Err()
	}
	s := &subscriber{mu, changed}
	r.mu.Lock()
	s.mu.Lock()
	changed(r.listing)
	s.mu.Unlock()
	r.subscribers = append(r.subscribers, s)
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.subscribers = slices.DeleteFunc(r.subscribers, func(other *subscriber) bool { return other == s })
	}()
	select {
	case <-r.ended:
		return r.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Lock locks the listing for all who read it.
func (r *following) Lock() {
	r.mu.Lock()
	for _, s := range r.subscribers {
		s.mu.Lock()
	}
}

// Unlock undoes Lock.
func (r *following) Unlock() {
	for _, s := range r.subscribers {
		s.mu.Unlock()
	}
	r.mu.Unlock()
}

// tell tells everybody of the nodes; the listing is locked.
func (r *following) tell(nodes Listing[Node]) {
	r.listing = nodes
	for _, s := range r.subscribers {
		s.changed(nodes)
	}
}
