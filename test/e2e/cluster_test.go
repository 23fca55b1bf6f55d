package e2e

import (
	"context"
	"errors"
	"fmt"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sentinel-gate/sentinel-gate/gate/record"
	"github.com/sentinel-gate/sentinel-gate/gate/turn"
)

// stateOf is Idle, Closed or Open.
const stateOf = "sentinel-gate.io/state"

// records returns what each node's gate wrote of it.
func (c *cluster) records(ctx context.Context) ([]coordinationv1.Lease, error) {
	list, err := c.cp.Client().CoordinationV1().Leases("sentinel-gate").List(ctx, metav1.ListOptions{LabelSelector: record.Label})
	if err != nil {
		return nil, err
	}
	if len(list.Items) != len(c.nodes) {
		return nil, fmt.Errorf("%d of %d nodes have a record", len(list.Items), len(c.nodes))
	}
	return list.Items, nil
}

// bootedAt returns when each node last booted, by the API server's clock.
func (c *cluster) bootedAt(ctx context.Context) (map[string]time.Time, error) {
	records, err := c.records(ctx)
	if err != nil {
		return nil, err
	}
	at := map[string]time.Time{}
	for _, r := range records {
		if at[r.Name], err = time.Parse(time.RFC3339, r.Annotations["sentinel-gate.io/booted-at"]); err != nil {
			return nil, fmt.Errorf("reading the record of %s: %w", r.Name, err)
		}
	}
	return at, nil
}

// blocked returns nil if just these steps hold the gate closed that has the turn,
// and the others wait; "" is for no gate wants to open.
func (c *cluster) blocked(ctx context.Context, steps string) error {
	records, err := c.records(ctx)
	if err != nil {
		return err
	}
	lease, err := c.cp.Client().CoordinationV1().Leases("sentinel-gate").Get(ctx, turn.LeaseName, metav1.GetOptions{})
	if err != nil {
		return err
	}
	state, err := turn.Parse(lease)
	if err != nil {
		return err
	}
	var problems []error
	if steps != "" && state.Phase != turn.PhaseGranted {
		problems = append(problems, fmt.Errorf("nobody has the turn: %+v", state))
	}
	waiting := 0
	for _, r := range records {
		want := ""
		if r.Name == state.Holder { // whoever has not the turn asks no step
			want = steps
		}
		state, blocking := r.Annotations[stateOf], r.Annotations["sentinel-gate.io/blocking"]
		if state == "Idle" {
			continue
		}
		waiting++
		if state != "Closed" || blocking != want {
			problems = append(problems, fmt.Errorf("the gate of %s is %s, blocked by %q", r.Name, state, blocking))
		}
	}
	if (waiting == 0) != (steps == "") {
		problems = append(problems, fmt.Errorf("%d gates want to open", waiting))
	}
	return errors.Join(problems...)
}

// oneOpen returns nil if no more than one gate is open.
func (c *cluster) oneOpen(ctx context.Context) error {
	records, err := c.records(ctx)
	var open []string
	for _, r := range records {
		if r.Annotations[stateOf] == "Open" {
			open = append(open, r.Name)
		}
	}
	if len(open) > 1 {
		return fmt.Errorf("the gates of %v are open at once", open)
	}
	return err
}

// noneOpen returns nil if no gate is open.
func (c *cluster) noneOpen(ctx context.Context) error {
	records, err := c.records(ctx)
	for _, r := range records {
		if r.Annotations[stateOf] == "Open" {
			err = errors.Join(err, fmt.Errorf("the gate of %s is open", r.Name))
		}
	}
	return err
}

// lockIsFree returns nil if no node holds kured's lock.
func (c *cluster) lockIsFree(ctx context.Context) error {
	set, err := c.cp.Client().AppsV1().DaemonSets("kube-system").Get(ctx, "kured", metav1.GetOptions{})
	if err != nil {
		return err
	}
	if holder, held := set.Annotations["weave.works/kured-node-lock"]; held {
		return fmt.Errorf("kured's lock is held: %s", holder)
	}
	return nil
}
