package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// history is what the API server says of the nodes over time.
type history struct {
	mu     sync.Mutex
	states []state
}

// state is one node's, from a time on.
type state struct {
	at              time.Time // when it was seen, some milliseconds after it was written
	node, bootID    string
	ready, cordoned bool
	why             string // it is not ready
}

func (s state) String() string {
	return fmt.Sprintf("%s %s boot %.8s ready=%t cordoned=%t %s", s.at.UTC().Format("15:04:05.000"), s.node, s.bootID, s.ready, s.cordoned, s.why)
}

// watch writes a history until ctx ends.
func watch(ctx context.Context, client kubernetes.Interface) *history {
	h := &history{}
	factory := informers.NewSharedInformerFactory(client, 0)
	// The handler is called for every change, in their order.
	_, _ = factory.Core().V1().Nodes().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{ // fails only where it is stopped
		AddFunc:    h.see,
		UpdateFunc: func(_, object any) { h.see(object) },
	})
	factory.Start(ctx.Done())
	return h
}

func (h *history) see(object any) {
	node := object.(*corev1.Node)
	s := state{at: time.Now(), node: node.Name, bootID: node.Status.NodeInfo.BootID, cordoned: node.Spec.Unschedulable}
	for _, c := range node.Status.Conditions {
		if c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue {
			s.ready = true
		} else if c.Type == corev1.NodeReady {
			s.why = c.Message
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	last := latest(h.states)[s.node]
	last.at = s.at
	if s != last {
		h.states = append(h.states, s)
	}
}

// latest is the present state of each node.
func latest(states []state) map[string]state {
	now := map[string]state{}
	for _, s := range states {
		now[s.node] = s
	}
	return now
}

func (h *history) all() []state {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.states)
}

// ready returns nil if so many nodes are there, Ready and not cordoned.
func (h *history) ready(want int) error {
	now := latest(h.all())
	var problems []error
	if len(now) != want {
		problems = append(problems, fmt.Errorf("%d of %d nodes are there", len(now), want))
	}
	for _, s := range now {
		if s.cordoned || !s.ready {
			problems = append(problems, fmt.Errorf("away: %s", s))
		}
	}
	return errors.Join(problems...)
}

// together returns the moments at which more than one node was away: cordoned,
// or not yet Ready after that. A node that was never cordoned is not away for the
// rollout, but because this machine is slow.
func (h *history) together() []string {
	var found []string
	away := map[string]state{}
	for _, s := range h.all() {
		if _, before := away[s.node]; s.cordoned || before && !s.ready {
			away[s.node] = s
		} else {
			delete(away, s.node)
		}
		if len(away) > 1 {
			found = append(found, fmt.Sprint(slices.Collect(maps.Values(away))))
		}
	}
	return found
}

// reboot is a node's, as far as the API server knows: cordoned for it, and then
// of another boot id.
type reboot struct {
	node     string
	cordoned time.Time
	back     time.Time
}

// reboots returns all of them, in their order.
func (h *history) reboots() []reboot {
	var found []reboot
	last, cordoned := map[string]state{}, map[string]time.Time{}
	for _, s := range h.all() {
		before, known := last[s.node]
		if s.cordoned && !before.cordoned {
			cordoned[s.node] = s.at
		}
		if known && s.bootID != before.bootID {
			found = append(found, reboot{node: s.node, cordoned: cordoned[s.node], back: s.at})
		}
		last[s.node] = s
	}
	return found
}

func (h *history) String() string {
	var all string
	for _, s := range h.all() {
		all += s.String() + "\n"
	}
	return all
}
