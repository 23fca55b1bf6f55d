package cluster

import (
	"context"
	"sync"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sentinel-gate/sentinel-gate/gate/record"
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
