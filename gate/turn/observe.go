package turn

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/sentinel-gate/sentinel-gate/gate/clock"
	"github.com/sentinel-gate/sentinel-gate/gate/cluster"
	"github.com/sentinel-gate/sentinel-gate/gate/record"
	"github.com/sentinel-gate/sentinel-gate/gate/soak"
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
	Unschedulable, Ready     bool
	// Extended are its extended resources, as extended returns them.
	Extended string
	// Down: it is not Ready, or it is cordoned.
	Down bool
	// LockKnown: kured's lock was read. LockNamed: it names the node.
	LockKnown, LockNamed bool
	// LockStuck is KuredLock.Stuck.
	LockStuck string
}

// only selects the one object of the name: the right to list is all it needs,
// and one that is absent is no error.
func only(name string) metav1.ListOptions {
	return metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, name).String()}
}

// Standing reads how the turn stands. Where there is none, or none that can be read,
// nothing follows from it: known is false then.
func Standing(ctx context.Context, leases LeaseLister) (stands State, known bool, err error) {
	list, err := leases.List(ctx, only(LeaseName))
	if err != nil {
		return State{}, false, fmt.Errorf("reading the turn: %w", err)
	}
	if len(list.Items) == 0 {
		return State{}, false, nil
	}
	stands, problem := Parse(&list.Items[0])
	return stands, problem == nil, nil
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
		h.Ready = slices.ContainsFunc(node.Status.Conditions, func(c corev1.NodeCondition) bool {
			return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
		})
		h.Down, h.Extended = h.Unschedulable || !h.Ready, extended(node.Status.Allocatable)
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
		lock, err := t.readLock(ctx, *l.Lock)
		if err != nil {
			t.Log.Warn("kured's lock cannot be read, so the turn stays where it is", "daemonSet", l.Lock.Namespace+"/"+l.Lock.DaemonSet, "error", err)
		}
		h.LockKnown, h.LockNamed, h.LockStuck = err == nil, slices.Contains(lock.Holders, l.Node), lock.Stuck
	}
	return h, nil
}

// readLock reads kured's lock. One whose time is over counts until it has been over for
// as long as the gate settles: whose it was may still be at work, and clocks differ.
func (t *Turn) readLock(ctx context.Context, l Lock) (KuredLock, error) {
	ctx, reading := clock.Read(ctx)
	sets, err := t.DaemonSets(l.Namespace).List(ctx, only(l.DaemonSet))
	if err != nil {
		return KuredLock{}, err
	}
	if len(sets.Items) == 0 {
		return KuredLock{}, errors.New("there is no such DaemonSet")
	}
	now, err := reading.Now()
	if err != nil {
		return KuredLock{}, err
	}
	return ParseKuredLock(sets.Items[0].Annotations[l.Annotation], l.Concurrency, now.Add(-t.Settle))
}

// perListing bounds a listing with all its pages.
const perListing = time.Minute

// maxExtended bounds what is kept of a node's extended resources, in bytes.
const maxExtended = 1 << 10

// extended returns the extended resources, GPUs for one, that are not none, as
// name=count,... in order.
func extended(allocatable corev1.ResourceList) string {
	var words []string
	for name, quantity := range allocatable {
		domain, _, isExtended := strings.Cut(string(name), "/")
		if isExtended && !strings.HasSuffix(domain, "kubernetes.io") && quantity.Value() > 0 {
			words = append(words, fmt.Sprintf("%s=%d", name, quantity.Value()))
		}
	}
	slices.Sort(words)
	text := strings.Join(words, ",")
	return text[:min(len(text), maxExtended)]
}

// lacks reports whether of one of the extended resources before there are fewer now.
func lacks(before, now string) bool {
	counts := func(text string) map[string]int64 {
		counts := map[string]int64{}
		for word := range strings.SplitSeq(text, ",") {
			name, count, _ := strings.Cut(word, "=")
			counts[name], _ = strconv.ParseInt(count, 10, 64)
		}
		return counts
	}
	had, has := counts(before), counts(now)
	for name, count := range had {
		if has[name] < count {
			return true
		}
	}
	return false
}

// List returns all nodes that have a record, also those that do not wait: they too
// have seen an epoch. Whose record cannot be read does not wait.
func List(ctx context.Context, leases LeaseLister) ([]Candidate, error) {
	candidates, _, err := list(ctx, leases)
	return candidates, err
}

func list(ctx context.Context, leases LeaseLister) ([]Candidate, map[string]cluster.Entry, error) {
	var candidates []Candidate
	entries := map[string]cluster.Entry{}
	err := cluster.Pages(ctx, metav1.ListOptions{LabelSelector: record.Label}, leases.List, func(list *coordinationv1.LeaseList) {
		for i := range list.Items {
			r := cluster.NewEntry(&list.Items[i])
			if entries[r.Node] = r; r.Err != nil {
				r.PendingSince = time.Time{}
			}
			candidates = append(candidates, Candidate{Node: r.Node, BootID: r.BootID, PendingSince: r.PendingSince, BootedAt: r.BootedAt, Epoch: r.TurnEpoch, Parts: soak.PutParts(r.PartsPending)})
		}
	})
	if err != nil {
		return nil, nil, fmt.Errorf("listing the records: %w", err)
	}
	return candidates, entries, nil
}

// ListSoaks returns what ListWaiting does, and with it what is known of the soaks of all
// nodes.
func ListSoaks(ctx context.Context, leases LeaseLister, nodes NodeLister, order []labels.Selector, soaking cluster.Soaking) ([]Candidate, []soak.Node, error) {
	ctx, reading := clock.Read(ctx)
	candidates, entries, err := list(ctx, leases)
	if err != nil {
		return nil, nil, err
	}
	var all []cluster.Node
	tiers := map[string]int{}
	err = cluster.Pages(ctx, metav1.ListOptions{}, nodes.List, func(list *corev1.NodeList) {
		for i := range list.Items {
			node := cluster.NewNode(&list.Items[i])
			all, tiers[node.Name] = append(all, node), tierOf(node.Labels, order)
		}
	})
	if err != nil {
		return nil, nil, fmt.Errorf("listing the nodes: %w", err)
	}
	now, err := reading.Now()
	if err != nil {
		return nil, nil, fmt.Errorf("listing the nodes: %w", err)
	}
	return placed(candidates, tiers), cluster.Members(all, entries, soaking, now), nil
}

// ListWaiting returns what List does, with who has a Node object, and in which tier: the
// first selector of the order that the node's labels match. Who matches none is last.
func ListWaiting(ctx context.Context, leases LeaseLister, nodes NodeLister, order []labels.Selector) ([]Candidate, error) {
	candidates, err := List(ctx, leases)
	if err != nil {
		return nil, err
	}
	tiers := map[string]int{}
	err = cluster.Pages(ctx, metav1.ListOptions{}, nodes.ListMetadata, func(list *metav1.PartialObjectMetadataList) {
		for _, node := range list.Items {
			tiers[node.Name] = tierOf(node.Labels, order)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("listing the nodes: %w", err)
	}
	return placed(candidates, tiers), nil
}

func tierOf(of map[string]string, order []labels.Selector) int {
	tier := slices.IndexFunc(order, func(s labels.Selector) bool { return s.Matches(labels.Set(of)) })
	if tier < 0 {
		return len(order)
	}
	return tier
}

func placed(candidates []Candidate, tiers map[string]int) []Candidate {
	for i := range candidates {
		tier, member := tiers[candidates[i].Node]
		candidates[i].Tier, candidates[i].Member = tier, member
	}
	return candidates
}
