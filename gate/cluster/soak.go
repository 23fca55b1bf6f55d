package cluster

import (
	"slices"
	"strings"
	"time"

	"github.com/sentinel-gate/sentinel-gate/gate/soak"
)

// Soaking says which nodes count in a soak, and how they are told apart.
type Soaking struct {
	// Selector chooses the nodes that count, GateSelector those of them that are expected
	// to run a gate.
	Selector, GateSelector Selector
	// IgnoreJoined: a boot before the node was a member is no flap.
	IgnoreJoined bool
	// Kinds are the labels by which kinds of nodes are told apart.
	Kinds []string
}

// controlPlaneLabel is on the nodes of the control plane.
const controlPlaneLabel = "node-role.kubernetes.io/control-plane"

// joinWindow is how long after its Node object was made a joined node may take to become
// Ready and to have its first record.
const joinWindow = 15 * time.Minute

// joinSkew is how much before its Node object a joining kubelet may date its conditions.
const joinSkew = time.Minute

// Members are what is known of the nodes that count, by their Node objects and their
// records, for soak.Rule. Of which there is doubt when they booted or what they run is in
// soak on something Unknown from now.
func Members(nodes []Node, records map[string]Entry, s Soaking, now time.Time) []soak.Node {
	members := make([]soak.Node, 0, len(nodes))
	exists := make(map[string]bool, len(nodes))
	for _, n := range nodes {
		exists[n.Name] = true
		if s.Selector.Matches(n.Labels) {
			members = append(members, s.member(n, records, now))
		}
	}
	for name, record := range records {
		if exists[name] {
			continue
		}
		gone := soak.Node{Name: name, Gone: true, BootedAt: record.BootedAt, Announced: record.Announced, Runs: runs(record), Against: record.PartsAgainst,
			Joined: s.IgnoreJoined && record.PreviousBootID == ""}
		if record.Err != nil {
			gone.BootedAt = now
		}
		members = append(members, gone)
	}
	slices.SortFunc(members, func(a, b soak.Node) int { return strings.Compare(a.Name, b.Name) })
	return members
}

func (s Soaking) member(n Node, records map[string]Entry, now time.Time) soak.Node {
	record, recorded := records[n.Name]
	kernel := soak.NewPart(soak.KernelName, n.Kernel)
	_, isControlPlane := n.Labels[controlPlaneLabel]
	since, _ := n.ReadySince(now)
	m := soak.Node{Name: n.Name, Kind: s.kind(n), ControlPlane: isControlPlane, Ready: n.IsReady(), ReadySince: since, Joined: true}
	if record.PartsPending != nil {
		m.Wants, m.WaitsSince = slices.Clone(record.PartsPending), record.PendingSince
		if !slices.ContainsFunc(m.Wants, func(p soak.Part) bool { return !slices.Contains(record.Parts, p) }) {
			m.Wants = append(m.Wants, soak.Unknown) // a reboot is asked for, and for nothing that is known
		}
	}
	joined := s.IgnoreJoined && (!recorded && now.Sub(n.Created) < joinWindow || recorded && record.Err == nil && record.PreviousBootID == "" && !record.BootedAt.After(n.Created))
	switch {
	case !s.GateSelector.Matches(n.Labels), joined:
		// Of its boot nothing is known, or nothing counts: it neither vouches nor is in soak.
		if fresh := n.Since.Sub(n.Created); s.IgnoreJoined && n.IsReady() && fresh > -joinSkew && fresh < joinWindow {
			m.ReadySince = time.Time{}
		}
		return m
	case !recorded, record.Err != nil, n.BootID == "", record.BootID != n.BootID:
		m.BootedAt, m.Runs = now, []soak.Part{soak.Unknown}
		return m
	}
	m.BootedAt, m.Announced, m.Joined, m.Soaked, m.Against = record.BootedAt, record.Announced, false, record.Soaked, record.PartsAgainst
	m.Agrees = slices.Contains(record.Parts, kernel)
	m.Runs = append(append(statusParts(n), kernel), runs(record)...)
	return m
}

// statusParts are the parts that a node's status tells, but for the kernel. They are in effect
// now, and a boot may bring others: what a node would run they do not tell.
func statusParts(n Node) []soak.Part {
	return []soak.Part{
		soak.NewPart(soak.ImageName, n.Image), soak.NewPart(soak.RuntimeName, n.Runtime), soak.NewPart(soak.KubeletName, n.Kubelet),
	}
}

// runs are the parts that the record tells of.
func runs(record Entry) []soak.Part {
	if record.Parts == nil {
		return []soak.Part{soak.Unknown}
	}
	return slices.Clone(record.Parts)
}

func (s Soaking) kind(n Node) string {
	if len(s.Kinds) == 0 {
		return ""
	}
	values := make([]string, len(s.Kinds))
	for i, label := range s.Kinds {
		values[i] = label + "=" + n.Labels[label]
	}
	return strings.Join(values, ",")
}
