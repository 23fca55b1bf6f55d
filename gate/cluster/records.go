package cluster

import (
	"context"
	"fmt"
	"sync"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"

	"github.com/sentinel-gate/sentinel-gate/gate/record"
	"github.com/sentinel-gate/sentinel-gate/gate/turn"
)

// Entry is a record as it was read. It is malformed where Err is set.
type Entry struct {
	Node string
	record.Record
	Err error
}

// NewEntry reads the record in the Lease.
func NewEntry(l *coordinationv1.Lease) Entry {
	r, err := record.Parse(l)
	return Entry{Node: l.Name, Record: r, Err: err}
}

// Records lists the records of all gates.
func (c *Cluster) Records(ctx context.Context) (Listing[Entry], error) {
	return list(ctx, "records in namespace "+c.Namespace, metav1.ListOptions{LabelSelector: record.Label}, c.LeaseClient().List, func(l *coordinationv1.LeaseList, entries []Entry) []Entry {
		return compacted(l.Items, entries, NewEntry)
	})
}

// FollowRecords is FollowNodes of the records.
func (c *Cluster) FollowRecords(ctx context.Context, mu sync.Locker, records Listing[Entry], changed func(Listing[Entry])) error {
	return follow(ctx, mu, "records in namespace "+c.Namespace, records, func(e Entry) string { return e.Node }, c.LeaseClient().Watch,
		metav1.ListOptions{LabelSelector: record.Label}, NewEntry, changed)
}

// Turn reads how the turn stands. Where there is none, or none that can be read, nothing
// follows from it: known is false then.
func (c *Cluster) Turn(ctx context.Context) (stands turn.State, known bool, err error) {
	list, err := c.LeaseClient().List(ctx, metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, turn.LeaseName).String()})
	if err != nil {
		return turn.State{}, false, fmt.Errorf("reading the turn: %w", err)
	}
	if len(list.Items) == 0 {
		return turn.State{}, false, nil
	}
	stands, problem := turn.Parse(&list.Items[0])
	return stands, problem == nil, nil
}
