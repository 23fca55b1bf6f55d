package checks

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/common/model"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/sentinel-gate/sentinel-gate/gate"
	"github.com/sentinel-gate/sentinel-gate/gate/cluster"
	"github.com/sentinel-gate/sentinel-gate/gate/soak"
	"github.com/sentinel-gate/sentinel-gate/gate/turn"
)

// ReadySoakOptions are the options of readySoak.
type ReadySoakOptions struct {
	// Duration is how long it must have been quiet.
	Duration model.Duration `json:"duration"`
	// Selector chooses the nodes that count; all by default.
	Selector cluster.Selector `json:"selector"`
	// GateSelector chooses, of those, the nodes that are expected to run a gate,
	// and so to have a record; all by default.
	GateSelector cluster.Selector `json:"gateSelector"`
	// IgnoreJoined leaves the first boot and the first minutes of a node that
	// has newly joined out of account, so that an autoscaler does not keep the
	// soak from ending.
	IgnoreJoined bool `json:"ignoreJoined"`
	// Exposure lets more than one node soak at a time, by the evidence; absent: one.
	Exposure *ExposureOptions `json:"exposure"`
	// Flaps is how many nodes may flap within a soak, outside of their own, a count or a
	// percentage, with Exposure; 0: each begins everybody's soak anew.
	Flaps soak.Amount `json:"flaps"`
}

func readySoakDefaults() ReadySoakOptions {
	return ReadySoakOptions{Duration: model.Duration(24 * time.Hour)}
}

// joinWindow is how long after its Node object was made a joined node may take
// to become Ready and to have its first record.
const joinWindow = 15 * time.Minute

type readySoak struct {
	cluster *cluster.Cluster
	options ReadySoakOptions
}

var (
	_ gate.Watcher = readySoak{}
	_ Reader       = readySoak{}
	_ Soaker       = readySoak{}
	_ RecordKeeper = readySoak{}
	_ Verifier     = readySoak{}
	_ Exposer      = readySoak{}
)

func newReadySoak(o ReadySoakOptions, c *cluster.Cluster) (gate.Check, []error) {
	return readySoak{c, o}, o.validate()
}

// WithoutRecords returns the soak of Ready transitions alone: no node is expected to have
// a gate.
func (c readySoak) WithoutRecords() gate.Check {
	c.options.GateSelector = cluster.Selector{Selector: labels.Nothing()}
	return c
}

// Check reads all nodes and all records, and how the turn stands.
func (c readySoak) Check(ctx context.Context) (gate.Result, error) {
	nodes, records, stands, err := c.read(ctx)
	if err != nil {
		return gate.Result{}, err
	}
	return c.judge(nodes, byNode(records.Items), stands, earlier(nodes.Now, records.Now)), nil
}

// judge asks the pure part that the options want.
func (c readySoak) judge(nodes cluster.Listing[cluster.Node], records map[string]cluster.Entry, stands *turn.State, now time.Time) gate.Result {
	if c.options.Exposure == nil {
		return soaked(nodes.Items, records, stands, now, c.options)
	}
	own := ownNode{name: c.cluster.Node, firstAfter: c.cluster.GoFirstAfter}
	if c.cluster.Parts != nil {
		found := c.cluster.Parts()
		own.found = &found
	}
	return exposed(nodes.Items, records, stands, now, c.options, own)
}

func (c readySoak) read(ctx context.Context) (nodes cluster.Listing[cluster.Node], records cluster.Listing[cluster.Entry], stands *turn.State, err error) {
	if nodes, err = c.cluster.Nodes(ctx); err != nil {
		return nodes, records, nil, err
	}
	if records, err = c.cluster.Records(ctx); err != nil {
		return nodes, records, nil, err
	}
	exists := make(map[string]bool, len(nodes.Items))
	for _, n := range nodes.Items {
		exists[n.Name] = true
	}
	if slices.ContainsFunc(records.Items, func(e cluster.Entry) bool { return isOpen(e) && !exists[e.Node] }) {
		state, known, err := turn.Standing(ctx, c.cluster.LeaseClient())
		if err != nil || !known {
			return nodes, records, nil, err
		}
		stands = &state
	}
	return nodes, records, stands, nil
}

// isOpen reports whether the gate of the record's node was open when it was written.
func isOpen(e cluster.Entry) bool { return e.State == gate.Open.String() }

// settled reports whether the turn has moved on since the node's gate was open, which it
// does by a proof alone: the node has rebooted, or counts as if it had, and a whole soak
// runs or is over; or its own gate gave it up.
func settled(e cluster.Entry, stands *turn.State) bool {
	return stands != nil && e.TurnEpoch > 0 && stands.Epoch > e.TurnEpoch && !stands.HeldBy(e.Node)
}

// Watch hints when a node changes its readiness or turns out to have rebooted.
func (c readySoak) Watch(ctx context.Context, hint func(gate.Result)) error {
	nodes, records, stands, err := c.read(ctx)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	judge := func() {
		if r := c.judge(nodes, byNode(records.Items), stands, earlier(nodes.Now, records.Now)); r.Verdict != gate.Pass {
			hint(r)
		}
	}
	return cluster.Together(ctx,
		func(ctx context.Context) error {
			return c.cluster.FollowNodes(ctx, &mu, nodes, func(l cluster.Listing[cluster.Node]) { nodes = l; judge() })
		},
		func(ctx context.Context) error {
			return c.cluster.FollowRecords(ctx, &mu, records, func(l cluster.Listing[cluster.Entry]) { records = l; judge() })
		})
}

// Rules name what Check and Watch read in the cluster; the records are in the
// gate's own namespace, where its Role allows them.
func (readySoak) Rules() []rbacv1.PolicyRule { return []rbacv1.PolicyRule{cluster.ReadNodes} }

// Verify lets a node become Ready just now, takes a Ready condition away, and
// of a node with a gate lets it boot just now, gives it another boot ID and
// takes away its record.
func (c readySoak) Verify(ctx context.Context) (Verification, error) {
	nodes, records, stands, err := c.read(ctx)
	if err != nil {
		return Verification{}, err
	}
	now := earlier(nodes.Now, records.Now)
	known := byNode(records.Items)
	v := Verification{
		Looked: fmt.Sprintf("%s and %s", gate.Count(len(nodes.Items), "node"), gate.Count(len(records.Items), "record")),
		Result: c.judge(nodes, known, stands, now),
	}
	mutate := func(change string, i int, worsen func(n *cluster.Node, records map[string]cluster.Entry)) {
		changed, entries := slices.Clone(nodes.Items), maps.Clone(known)
		worsen(&changed[i], entries)
		worse := nodes
		worse.Items = changed
		v.Mutations = append(v.Mutations, Mutation{fmt.Sprintf(change, changed[i].Name), c.judge(worse, entries, stands, now)})
	}
	chosen := func(n cluster.Node) bool { return c.options.Selector.Matches(n.Labels) }
	if i := slices.IndexFunc(nodes.Items, chosen); i >= 0 {
		if c.options.Flaps == (soak.Amount{}) { // else that is allowed
			mutate("node %s became Ready just now", i, func(n *cluster.Node, _ map[string]cluster.Entry) { n.Since, n.Heartbeat = now, now })
		}
		mutate("node %s without a Ready condition", i, func(n *cluster.Node, _ map[string]cluster.Entry) { n.Ready = "" })
	}
	if i := slices.IndexFunc(nodes.Items, func(n cluster.Node) bool {
		return chosen(n) && c.options.GateSelector.Matches(n.Labels) && known[n.Name].BootID != ""
	}); i >= 0 {
		if c.options.Flaps == (soak.Amount{}) {
			mutate("node %s booted just now, and its gate came back", i, func(n *cluster.Node, records map[string]cluster.Entry) {
				e := records[n.Name]
				e.PreviousBootID, e.BootedAt, e.Announced = e.BootID, now, false
				records[n.Name] = e
			})
		}
		mutate("node %s booted, and its gate did not come back", i, func(n *cluster.Node, _ map[string]cluster.Entry) { n.BootID = "another" })
		mutate("node %s without a record", i, func(n *cluster.Node, records map[string]cluster.Entry) { delete(records, n.Name) })
	}
	return v, nil
}

// Soak is the configured duration.
func (c readySoak) Soak() time.Duration { return time.Duration(c.options.Duration) }

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func byNode(entries []cluster.Entry) map[string]cluster.Entry {
	m := make(map[string]cluster.Entry, len(entries))
	for _, e := range entries {
		m[e.Node] = e
	}
	return m
}

// joinSkew is how much before its Node object a joining kubelet may date its
// first conditions.
const joinSkew = time.Minute

// event is something that begins the soak anew.
type event struct {
	at    time.Time
	what  string
	ahead bool // it was dated in the future
}

// soaked is the pure part: stands is how the turn stands, and nil where that is not
// known; now is the API server's time. What it cannot know it names: a node without a
// record, or with that of another boot, has rebooted without its gate coming back, and
// nobody can say when.
func soaked(nodes []cluster.Node, records map[string]cluster.Entry, stands *turn.State, now time.Time, o ReadySoakOptions) gate.Result {
	selected, last, doubt := review(nodes, records, stands, now, o)
	left := time.Duration(o.Duration) - now.Sub(last.at)
	switch {
	case doubt != nil:
		return *doubt
	case left > 0 && last.ahead:
		// No end is announced: it would move with the clock.
		return gate.Failed("Soaking", "%s", last.what)
	case left > 0:
		r := gate.Failed("Soaking", "%s %s ago; the soak of %s ends at %s", last.what, now.Sub(last.at).Round(time.Second), o.Duration, last.at.Add(time.Duration(o.Duration)).UTC().Format(time.RFC3339))
		r.RetryAfter = left
		return r
	case last.at.IsZero():
		return gate.Passed("Soaked", "no reboot and no change of readiness counts among %s", gate.Count(selected, "node"))
	}
	return gate.Passed("Soaked", "quiet for %s, since %s", now.Sub(last.at).Round(time.Second), last.what)
}

// review looks through nodes and records: how many nodes are selected, the last event that
// begins a soak, and what is in doubt; nil: nothing.
func review(nodes []cluster.Node, records map[string]cluster.Entry, stands *turn.State, now time.Time, o ReadySoakOptions) (selected int, last event, doubt *gate.Result) {
	happened := func(at time.Time, format string, args ...any) {
		ahead := at.After(now)
		if ahead {
			format, args = format+", by a date in the future (%s): its clock was ahead, or the date is a mistake, and now counts", append(args, at.UTC().Format(time.RFC3339))
			at = now
		}
		if at.After(last.at) {
			last = event{at, fmt.Sprintf(format, args...), ahead}
		}
	}
	var unsure names
	reason := ""
	undecided := func(why, who string) {
		if reason == "" {
			reason = why
		}
		unsure = append(unsure, who)
	}
	exists, booted := map[string]bool{}, map[string]string{}
	for _, n := range nodes {
		exists[n.Name] = true
		if !o.Selector.Matches(n.Labels) {
			continue
		}
		selected++
		record, recorded := records[n.Name]
		// A boot before the Node object was made, and no other boot recorded
		// under that name: the node was not a member when it booted.
		gated := o.GateSelector.Matches(n.Labels)
		joined := o.IgnoreJoined && (!recorded && (!gated || now.Sub(n.Created) < joinWindow) ||
			recorded && record.Err == nil && record.PreviousBootID == "" && !record.BootedAt.After(n.Created))

		since, lag := n.ReadySince(now)
		behind := ""
		if lag > 0 {
			behind = fmt.Sprintf(", whose clock is behind or whose last status is old (%s),", lag.Round(time.Second))
		}
		fresh := since.Sub(n.Created)
		switch {
		case n.Ready == "" || n.Since.IsZero():
			undecided("NoReadyCondition", n.Name+" (no Ready condition)")
		case joined && fresh > -joinSkew && fresh < joinWindow:
		default:
			happened(since, "node %s%s became Ready=%s", n.Name, behind, n.Ready)
		}
		if !gated {
			continue
		}
		switch {
		case !recorded && joined:
		case !recorded:
			undecided("NoRecord", n.Name+" (no record: its gate never ran; start it, or exclude the node with gateSelector)")
		case record.Err != nil:
			undecided("BadRecord", n.Name+" ("+record.Err.Error()+")")
		case n.BootID == "":
			undecided("NoBootID", n.Name+" (its Node status has no bootID)")
		case booted[n.BootID] != "":
			undecided("SharedBootID", n.Name+" (has the bootID of "+booted[n.BootID]+": nodes that are containers of one machine, whose reboots do not show)")
		case record.BootID != n.BootID:
			undecided("RebootNotRecorded", n.Name+" (rebooted, and its gate has not come back)")
		case !joined:
			happened(record.BootedAt, "node %s booted", n.Name)
		}
		booted[n.BootID] = n.Name
	}
	// A deleted node does not take the trace of its last recorded boot with it,
	// and one that went away while its gate was open may have rebooted since.
	for _, name := range slices.Sorted(maps.Keys(records)) { // in order, so that the reason is stable
		record := records[name]
		switch {
		case exists[name]:
		case record.Err != nil:
			undecided("BadRecord", name+", which is gone ("+record.Err.Error()+")")
		case isOpen(record) && settled(record, stands):
			if stands.Phase == turn.PhaseSoaking && stands.Holder == name {
				happened(stands.RebootedAt, "node %s, which is gone, counts as rebooted", name)
			}
		case isOpen(record):
			undecided("GoneWhileOpen", name+" (its Node object went away while its gate was open; find out why, then delete the record)")
		case !o.IgnoreJoined || record.PreviousBootID != "":
			happened(record.BootedAt, "node %s, which is gone, booted", name)
		}
	}
	switch {
	case selected == 0:
		r := gate.Failed("NoNodes", "%s", noneOf(o.Selector, len(nodes)))
		doubt = &r
	case len(unsure) > 0:
		r := gate.Undecided(reason, "cannot tell when %d of %s last rebooted: %s", len(unsure), gate.Count(selected, "node"), unsure)
		doubt = &r
	}
	return selected, last, doubt
}
