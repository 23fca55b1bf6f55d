package turn

import (
	"encoding/json"
	"errors"
	"fmt"
)

// LockNames returns the nodes that kured's lock names. Its value is JSON in an
// annotation of kured's DaemonSet: one holder, or with a concurrency above 1 a
// list of them (kured 1.23, --lock-annotation). It fails on any other form,
// perhaps of a later kured: who holds the lock is then not known.
func LockNames(value string) ([]string, error) {
	if value == "" || value == "{}" {
		return nil, nil
	}
	type holder struct {
		NodeID string `json:"nodeID"`
	}
	var lock struct {
		holder
		Locks json.RawMessage `json:"locks"`
	}
	var holders []holder
	err := json.Unmarshal([]byte(value), &lock)
	if err == nil && lock.Locks != nil {
		err = json.Unmarshal(lock.Locks, &holders)
	}
	if lock.Locks == nil || lock.NodeID != "" {
		holders = append(holders, lock.holder)
	}
	nodes := make([]string, len(holders))
	for i, h := range holders {
		if nodes[i] = h.NodeID; h.NodeID == "" && err == nil {
			err = errors.New("it names no node")
		}
	}
	if err != nil {
		return nil, fmt.Errorf("kured's lock %.200q cannot be read: %w", value, err)
	}
	return nodes, nil
}
