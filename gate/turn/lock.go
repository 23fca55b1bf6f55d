package turn

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

// KuredLock is kured's lock as kured itself would judge it (kured 1.23, pkg/daemonsetlock).
type KuredLock struct {
	// Holders are the nodes that it names, but for those whose time is over.
	Holders []string
	// Stuck is why no kured can take the lock although no node has it, or why the lock
	// that somebody holds by hand holds nothing; empty: neither is so.
	Stuck string
}

// owner is one holder in kured's lock.
type owner struct {
	NodeID string `json:"nodeID"`
	// Created is by the clock of the holder's node. TTL is in nanoseconds, and 0 where
	// kured has no --lock-ttl: it never ends.
	Created time.Time     `json:"created"`
	TTL     time.Duration `json:"TTL"`
}

// over reports whether kured takes the lock for free by then.
func (o owner) over(now time.Time) bool { return o.TTL > 0 && now.Sub(o.Created) >= o.TTL }

// ParseKuredLock reads kured's lock, which is JSON in an annotation of its DaemonSet: one
// holder, or with a concurrency above 1 a list of them. now is a time at which a lock
// whose TTL has passed counts no more. A concurrency of 0 is not known. It fails on any
// form that kured does not write, perhaps of a later kured: who has the lock is then not
// known.
func ParseKuredLock(value string, concurrency int, now time.Time) (KuredLock, error) {
	if value == "" || value == "{}" {
		return KuredLock{}, nil
	}
	var lock struct {
		owner
		Locks json.RawMessage `json:"locks"`
	}
	var owners []owner
	err := json.Unmarshal([]byte(value), &lock)
	multiple := lock.Locks != nil
	if err == nil && multiple {
		err = json.Unmarshal(lock.Locks, &owners)
	}
	if !multiple || lock.NodeID != "" {
		owners = append(owners, lock.owner)
	}
	if err == nil && slices.ContainsFunc(owners, func(o owner) bool { return o.NodeID == "" }) {
		err = errors.New("it names no node")
	}
	if err != nil {
		return KuredLock{}, fmt.Errorf("kured's lock %.200q cannot be read: %w", value, err)
	}
	var out KuredLock
	for _, o := range owners {
		if !o.over(now) {
			out.Holders = append(out.Holders, o.NodeID)
		}
	}
	switch {
	case multiple && lock.NodeID == "" && concurrency == 1:
		out.Stuck = "kured's lock was left behind by a kured with --concurrency above 1, and one with 1 takes it for held for ever: remove the annotation while no node reboots (docs/turn.md)"
	case !multiple && concurrency > 1:
		out.Stuck = "kured's lock is of the form for one holder, which a kured with --concurrency above 1 ignores: it holds nothing (docs/turn.md)"
	}
	return out, nil
}
