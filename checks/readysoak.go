package checks

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/common/model"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/sentinel-gate/sentinel-gate/gate"
)

// ReadySoakOptions are the options of readySoak.
type ReadySoakOptions struct {
	// Duration is how long it must have been quiet.
	Duration model.Duration `json:"duration"`
	// Selector chooses the nodes that count; all by default.
	Selector Selector `json:"selector"`
	// GateSelector chooses, of those, the nodes that are expected to run a gate,
	// and so to have a record; all by default.
	GateSelector Selector `json:"gateSelector"`
	// IgnoreJoined leaves the first boot and the first minutes of a node that
	// has newly joined out of account, so that an autoscaler does not keep the
	// soak from ending.
	IgnoreJoined bool `json:"ignoreJoined"`
}

func readySoakDefaults() ReadySoakOptions {
	return ReadySoakOptions{Duration: model.Duration(24 * time.Hour)}
}

// joinWindow is how long after its Node object was made a joined node may take
// to become Ready and to have its first record.
const joinWindow = 15 * time.Minute

// heartbeatLag is how much older than now the kubelet's last status may be
// before its clock is suspected: kubelets report every 5 minutes by default
// (nodeStatusReportFrequency).
const heartbeatLag = 10 * time.Minute

type readySoak struct {
	cluster *Cluster
	options ReadySoakOptions
}

func newReadySoak(o ReadySoakOptions, c *Cluster) (gate.Check, []error) {
	var problem error
	if o.Duration <= 0 {
		problem = errors.New("options.duration: must be longer than 0s")
	}
	return readySoak{c, o}, join(problem)
}

// Check reads all nodes and all records.
func (c readySoak) Check(ctx context.Context) (gate.Result, error) {
	nodes, records, err := c.read(ctx)
	if err != nil {
		return gate.Result{}, err
	}
	return soaked(nodes.items, byNode(records.items), earlier(nodes.now, records.now), c.options), nil
}

func (c readySoak) read(ctx context.Context) (listing[node], listing[entry], error) {
	nodes, err := c.cluster.nodes(ctx)
	if err != nil {
		return nodes, listing[entry]{}, err
	}
	records, err := c.cluster.records(ctx)
	return nodes, records, err
}

// Watch hints when a node changes its readiness or turns out to have rebooted.
func (c readySoak) Watch(ctx context.Context, hint func(gate.Result)) error {
	nodes, records, err := c.read(ctx)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	judge := func(update func()) {
		mu.Lock()
		defer mu.Unlock()
		update()
		if r := soaked(nodes.items, byNode(records.items), earlier(nodes.now, records.now), c.options); r.Verdict != gate.Pass {
			hint(r)
		}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var both sync.WaitGroup
	both.Go(func() {
		cancel(c.cluster.followNodes(ctx, func(l listing[node]) { judge(func() { nodes = l }) }))
	})
	both.Go(func() {
		cancel(c.cluster.followRecords(ctx, records, func(l listing[entry]) { judge(func() { records = l }) }))
	})
	both.Wait()
	return context.Cause(ctx)
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func byNode(entries []entry) map[string]entry {
	m := make(map[string]entry, len(entries))
	for _, e := range entries {
		m[e.node] = e
	}
	return m
}

// event is something that begins the soak anew.
type event struct {
	at   time.Time
	what string
}

// soaked is the pure part: now is the API server's time. What it cannot know it
// names: a node without a record, or with that of another boot, has rebooted
// without its gate coming back, and nobody can say when.
func soaked(nodes []node, records map[string]entry, now time.Time, o ReadySoakOptions) gate.Result {
	var last event
	happened := func(at time.Time, format string, args ...any) {
		if at.After(now) {
			at = now // a clock that is ahead does not end a soak early
		}
		if at.After(last.at) {
			last = event{at, fmt.Sprintf(format, args...)}
		}
	}
	var unsure names
	reason := ""
	wonder := func(why, who string) {
		if reason == "" {
			reason = why
		}
		unsure = append(unsure, who)
	}
	selected := 0
	exists := map[string]bool{}
	for _, n := range nodes {
		exists[n.name] = true
		if !o.Selector.Matches(labels.Set(n.labels)) {
			continue
		}
		selected++
		record, recorded := records[n.name]
		// A boot before the Node object was made, and no other boot recorded
		// under that name: the node was not a member when it booted.
		joined := o.IgnoreJoined && (!recorded && now.Sub(n.created) < joinWindow ||
			recorded && record.err == nil && record.PreviousBootID == "" && !record.BootedAt.After(n.created))

		switch {
		case n.ready == "" || n.since.IsZero():
			wonder("NoReadyCondition", n.name+" (no Ready condition)")
		case joined && n.since.Sub(n.created) < joinWindow:
		default:
			if lag := now.Sub(n.heartbeat); n.isReady() && lag > heartbeatLag {
				// A kubelet whose clock is behind dates all its times back.
				happened(n.since.Add(lag), "node %s, whose clock is behind or whose last status is old (%s), became Ready=%s", n.name, lag.Round(time.Second), n.ready)
			} else {
				happened(n.since, "node %s became Ready=%s", n.name, n.ready)
			}
		}
		if !o.GateSelector.Matches(labels.Set(n.labels)) {
			continue
		}
		switch {
		case !recorded && joined:
		case !recorded:
			wonder("NoRecord", n.name+" (no record: its gate never ran; start it, or exclude the node with gateSelector)")
		case record.err != nil:
			wonder("BadRecord", n.name+" ("+record.err.Error()+")")
		case n.bootID == "":
			wonder("NoBootID", n.name+" (its Node status has no bootID)")
		case record.BootID != n.bootID:
			wonder("RebootNotRecorded", n.name+" (rebooted, and its gate has not come back)")
		case !joined:
			happened(record.BootedAt, "node %s booted", n.name)
		}
	}
	// A deleted node does not take the trace of its reboot with it.
	for name, record := range records {
		if !exists[name] && record.err == nil && (!o.IgnoreJoined || record.PreviousBootID != "") {
			happened(record.BootedAt, "node %s, which is gone, booted", name)
		}
	}
	left := time.Duration(o.Duration) - now.Sub(last.at)
	switch {
	case selected == 0:
		return gate.Failed("NoNodes", "no node matches the selector %q, of %d nodes", o.Selector, len(nodes))
	case len(unsure) > 0:
		return gate.Undecided(reason, "of %d nodes, it is not known when these last rebooted: %s", selected, unsure)
	case left > 0:
		r := gate.Failed("Soaking", "%s %s ago; quiet for %s at %s", last.what, now.Sub(last.at).Round(time.Second), o.Duration, last.at.Add(time.Duration(o.Duration)).UTC().Format(time.RFC3339))
		r.RetryAfter = left
		return r
	case last.at.IsZero():
		return gate.Passed("Soaked", "no reboot and no change of readiness counts among %d nodes", selected)
	}
	return gate.Passed("Soaked", "quiet for %s: the last was that %s", now.Sub(last.at).Round(time.Second), last.what)
}
