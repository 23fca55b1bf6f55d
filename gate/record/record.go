// Package record keeps what others need to know of a node: a Lease of its own,
// named after it, that only the node's gate writes, and only when something in
// it changes. The soak reads it to see a reboot that was too quick for the
// node's Ready condition to notice, and one after which the gate did not come
// back.
package record

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sentinel-gate/sentinel-gate/gate/soak"
)

// Label marks the Leases that are records.
const Label = "sentinel-gate.io/record"

// The annotations of a record.
const (
	bootID         = "sentinel-gate.io/boot-id"
	bootedAt       = "sentinel-gate.io/booted-at"
	previousBootID = "sentinel-gate.io/previous-boot-id"
	pendingSince   = "sentinel-gate.io/pending-since"
	state          = "sentinel-gate.io/state"
	blocking       = "sentinel-gate.io/blocking"
	configHash     = "sentinel-gate.io/config-hash"
	turnEpoch      = "sentinel-gate.io/turn-epoch-seen"
	opened         = "sentinel-gate.io/turn-opened"
	announced      = "sentinel-gate.io/booted-with-turn"
	soaked         = "sentinel-gate.io/soaked"
	parts          = "sentinel-gate.io/parts"
	partsAgainst   = "sentinel-gate.io/parts-against"
	partsPending   = "sentinel-gate.io/parts-pending"
)

// Record is what a gate tells of its node.
type Record struct {
	// Node is the node's name, and the Lease's.
	Node string
	// BootID is the kernel's random id of this boot, as the kubelet reports it
	// in status.nodeInfo.bootID.
	BootID string
	// BootedAt is when that boot was, by the API server's clock.
	BootedAt time.Time
	// PreviousBootID is the boot id that the record held before, and empty where
	// this boot is the first that was recorded under this name.
	PreviousBootID string
	// PendingSince is when the pending reboot was asked for, by the API server's clock,
	// and zero where none is.
	PendingSince time.Time
	// State is the gate's: Idle, Closed or Open.
	State string
	// Blocking are the names of the steps that hold the gate closed.
	Blocking []string
	// ConfigHash tells gates with different configurations apart.
	ConfigHash string
	// Opened: the turn is this node's, and its gate was opened in this boot.
	Opened bool
	// Announced: the turn was this node's when it booted. Soaked: it was quiet for the
	// whole soak of this boot.
	Announced, Soaked bool
	// Parts are in effect since the boot, PartsAgainst are those of them against which the
	// node has given evidence, PartsPending would be in effect after the next. Nil: the
	// gate does not tell.
	Parts, PartsAgainst, PartsPending []soak.Part
	// TurnEpoch is the turn's epoch that the gate had seen when it wrote. Only an
	// epoch that is demanded is a reason to write.
	TurnEpoch int64
}

// Parse reads a record from its Lease. It fails where the boot is missing or
// malformed: a record is either believed or reported. The turn's epoch is believed
// also then.
func Parse(lease *coordinationv1.Lease) (Record, error) {
	a := lease.Annotations
	r := Record{
		Node: lease.Name, BootID: a[bootID], PreviousBootID: a[previousBootID],
		State: a[state], ConfigHash: a[configHash],
		Opened: a[opened] == "true", Announced: a[announced] == "true", Soaked: a[soaked] == "true",
		Parts: soak.ParseParts(a[parts]), PartsAgainst: soak.ParseParts(a[partsAgainst]), PartsPending: soak.ParseParts(a[partsPending]),
	}
	var err error
	if n := a[turnEpoch]; n != "" {
		if r.TurnEpoch, err = strconv.ParseInt(n, 10, 64); err != nil {
			return r, fmt.Errorf("record %s/%s: %s: %w", lease.Namespace, lease.Name, turnEpoch, err)
		}
	}
	if r.BootID == "" {
		return r, fmt.Errorf("record %s/%s has no %s", lease.Namespace, lease.Name, bootID)
	}
	if r.BootedAt, err = time.Parse(time.RFC3339, a[bootedAt]); err != nil {
		return r, fmt.Errorf("record %s/%s: %s: %w", lease.Namespace, lease.Name, bootedAt, err)
	}
	if since := a[pendingSince]; since != "" {
		if r.PendingSince, err = time.Parse(time.RFC3339, since); err != nil {
			return r, fmt.Errorf("record %s/%s: %s: %w", lease.Namespace, lease.Name, pendingSince, err)
		}
	}
	if names := a[blocking]; names != "" {
		r.Blocking = strings.Split(names, ",")
	}
	return r, nil
}

// put writes the record into its Lease, beside annotations of others.
func (r Record) put(lease *coordinationv1.Lease, now time.Time) {
	lease.Name = r.Node
	if lease.Labels == nil {
		lease.Labels = map[string]string{}
	}
	lease.Labels[Label] = "true"
	if lease.Annotations == nil {
		lease.Annotations = map[string]string{}
	}
	for key, value := range map[string]string{
		bootID: r.BootID, bootedAt: text(r.BootedAt), previousBootID: r.PreviousBootID,
		pendingSince: text(r.PendingSince), state: r.State,
		blocking: strings.Join(r.Blocking, ","), configHash: r.ConfigHash,
		turnEpoch: number(r.TurnEpoch), opened: truth(r.Opened), announced: truth(r.Announced), soaked: truth(r.Soaked),
		parts: soak.PutParts(r.Parts), partsAgainst: soak.PutParts(r.PartsAgainst), partsPending: soak.PutParts(r.PartsPending),
	} {
		if value == "" {
			delete(lease.Annotations, key)
		} else {
			lease.Annotations[key] = value
		}
	}
	lease.Spec.HolderIdentity = &r.Node
	lease.Spec.RenewTime = &metav1.MicroTime{Time: now}
}

func (r Record) equal(other Record) bool {
	return r.Node == other.Node && r.BootID == other.BootID && r.BootedAt.Equal(other.BootedAt) &&
		r.PreviousBootID == other.PreviousBootID && text(r.PendingSince) == text(other.PendingSince) &&
		r.State == other.State && slices.Equal(r.Blocking, other.Blocking) && r.ConfigHash == other.ConfigHash &&
		r.Opened == other.Opened && r.Announced == other.Announced && r.Soaked == other.Soaked &&
		slices.Equal(r.Parts, other.Parts) && slices.Equal(r.PartsAgainst, other.PartsAgainst) && slices.Equal(r.PartsPending, other.PartsPending)
}

func truth(b bool) string {
	if b {
		return "true"
	}
	return ""
}

func number(n int64) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatInt(n, 10)
}

func text(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}
