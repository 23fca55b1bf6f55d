package e2e

import (
	"slices"
	"testing"
	"time"
)

// What the rollouts are judged by would notice one that goes wrong.
func TestHistoryNotices(t *testing.T) {
	at := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	calm := func(node, boot string) state { return state{node: node, bootID: boot, ready: true} }
	cordoned := func(node, boot string) state {
		return state{at: at, node: node, bootID: boot, ready: true, cordoned: true}
	}
	starting := func(node, boot string) state { return state{node: node, bootID: boot} }
	for _, c := range []struct {
		name     string
		states   []state
		together int
		reboots  []string
	}{
		{"one after the other", []state{
			calm("a", "1"), calm("b", "1"),
			cordoned("a", "1"), cordoned("a", "2"), calm("a", "2"),
			cordoned("b", "1"), cordoned("b", "2"), calm("b", "2"),
		}, 0, []string{"a", "b"}},
		{"both cordoned", []state{calm("a", "1"), calm("b", "1"), cordoned("a", "1"), cordoned("b", "1")}, 1, nil},
		{"uncordoned, but not Ready", []state{
			calm("a", "1"), calm("b", "1"), cordoned("a", "1"), starting("a", "2"), cordoned("b", "1"),
		}, 1, []string{"a"}},
		{"a slow machine", []state{calm("a", "1"), starting("b", "1"), cordoned("a", "1")}, 0, nil},
		{"the same node twice", []state{calm("a", "1"), cordoned("a", "2"), cordoned("a", "3")}, 0, []string{"a", "a"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := &history{states: c.states}
			if got := h.together(); len(got) != c.together {
				t.Errorf("together: %v", got)
			}
			var nodes []string
			for _, r := range h.reboots() {
				nodes = append(nodes, r.node)
				if !r.cordoned.Equal(at) {
					t.Errorf("%s was cordoned at %s", r.node, r.cordoned)
				}
			}
			if !slices.Equal(nodes, c.reboots) {
				t.Errorf("reboots of %v, want %v", nodes, c.reboots)
			}
		})
	}
}
