package turn

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/sentinel-gate/sentinel-gate/gate/record"
)

// Holder is what was seen of the node that has the turn.
type Holder struct {
	// Gone: it has no Node object. GoneFor is how long that has been seen, by
	// the monotonic clock.
	Gone    bool
	GoneFor time.Duration
	// NodeBootID is of its Node status, RecordBootID and RecordBootedAt are of
	// its record; empty where there is none.
	NodeBootID, RecordBootID string
	RecordBootedAt           time.Time
	Unschedulable            bool
	// Down: it is not Ready, or it is cordoned.
	Down bool
	// LockKnown: kured's lock was read. LockNamed: it names the node.
	LockKnown, LockNamed bool
}

// only selects the one object of the name: the right to list is all it needs,
// and one that is absent is no error.
func only(name string) metav1.ListOptions {
	return metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, name).String()}
}

// look looks at a node: its Node object, its record, and kured's lock where that is
// asked for.
func (t *Turn) look(ctx context.Context, l LookAtHolder) (Holder, error) {
	nodes, err := t.Nodes.List(ctx, only(l.Node))
	if err != nil {
		return Holder{}, fmt.Errorf("reading the node %s, which has the turn: %w", l.Node, err)
	}
	h := Holder{Gone: len(nodes.Items) == 0}
	if !h.Gone {
		node := nodes.Items[0]
		h.NodeBootID, h.Unschedulable = node.Status.NodeInfo.BootID, node.Spec.Unschedulable
		h.Down = h.Unschedulable || !slices.ContainsFunc(node.Status.Conditions, func(c corev1.NodeCondition) bool {
			return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
		})
	}
	lease, err := t.Leases.Get(ctx, l.Node, metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return Holder{}, fmt.Errorf("reading the record of %s, which has the turn: %w", l.Node, err)
	}
	if err == nil {
		if r, err := record.Parse(lease); err == nil {
			h.RecordBootID, h.RecordBootedAt = r.BootID, r.BootedAt
		}
	}
	if l.Lock != nil {
		holders, err := t.lockHolders(ctx, *l.Lock)
		if err != nil {
			t.Log.Warn("kured's lock cannot be read, so the turn stays where it is", "daemonSet", l.Lock.Namespace+"/"+l.Lock.DaemonSet, "error", err)
		}
		h.LockKnown, h.LockNamed = err == nil, slices.Contains(holders, l.Node)
	}
	return h, nil
}

// lockHolders returns the nodes that kured's lock names.
func (t *Turn) lockHolders(ctx context.Context, l Lock) ([]string, error) {
	sets, err := t.DaemonSets(l.Namespace).List(ctx, only(l.DaemonSet))
	if err != nil {
		return nil, err
	}
	if len(sets.Items) == 0 {
		return nil, errors.New("there is no such DaemonSet")
	}
	return LockNames(sets.Items[0].Annotations[l.Annotation])
}

// findTier reads the labels of the node, and puts its tier into its record.
func (t *Turn) findTier(ctx context.Context) error {
	nodes, err := t.Nodes.List(ctx, only(t.Node))
	if err != nil {
		return err
	}
	if len(nodes.Items) == 0 {
		return fmt.Errorf("there is no Node %s", t.Node)
	}
	set := labels.Set(nodes.Items[0].Labels)
	tier := slices.IndexFunc(t.Order, func(s labels.Selector) bool { return s.Matches(set) })
	if tier < 0 {
		tier = len(t.Order)
	}
	t.Record.SetTier(tier)
	return nil
}

// List returns all nodes that have a record, also those that do not wait: they too
// have seen an epoch. Whose record cannot be read does not wait.
func List(ctx context.Context, leases LeaseLister) ([]Candidate, error) {
	var candidates []Candidate
	options := metav1.ListOptions{LabelSelector: record.Label, Limit: 500}
	for {
		list, err := leases.List(ctx, options)
		if err != nil {
			return nil, fmt.Errorf("listing the records: %w", err)
		}
		for i := range list.Items {
			r, err := record.Parse(&list.Items[i])
			if err != nil {
				r.PendingSince = time.Time{}
			}
			candidates = append(candidates, Candidate{Node: r.Node, BootID: r.BootID, Tier: r.Tier, PendingSince: r.PendingSince, BootedAt: r.BootedAt, Epoch: r.TurnEpoch})
		}
		if options.Continue = list.Continue; options.Continue == "" {
			return candidates, nil
		}
	}
}
