package turn

import (
	"encoding/json"
	"fmt"
)

// LockNames returns the nodes that kured's lock names. Its value is JSON in an
// annotation of kured's DaemonSet: one holder, or with a concurrency above 1 a
// list of them (kured 1.23, --lock-annotation).
func LockNames(value string) ([]string, error) {
	if value == "" {
		return nil, nil
	}
	type holder struct {
		NodeID string `json:"nodeID"`
	}
	var lock struct {
		holder
		Locks []holder `json:"locks"`
	}
	if err := json.Unmarshal([]byte(value), &lock); err != nil {
		return nil, fmt.Errorf("kured's lock %.200q cannot be read: %w", value, err)
	}
	var nodes []string
	for _, h := range append(lock.Locks, lock.holder) {
		if h.NodeID != "" {
			nodes = append(nodes, h.NodeID)
		}
	}
	if len(nodes) == 0 && len(lock.Locks) == 0 && value != "{}" {
		// Of another form, perhaps of a later kured.
		var form map[string]json.RawMessage
		if json.Unmarshal([]byte(value), &form) == nil {
			if _, known := form["locks"]; known {
				return nil, nil
			}
		}
		return nil, fmt.Errorf("kured's lock %.200q names no node", value)
	}
	return nodes, nil
}
