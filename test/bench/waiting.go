package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/clientcmd"

	reads "github.com/sentinel-gate/sentinel-gate/gate/cluster"
	"github.com/sentinel-gate/sentinel-gate/gate/turn"
	"github.com/sentinel-gate/sentinel-gate/test/kit/cluster"
	"github.com/sentinel-gate/sentinel-gate/test/kit/controlplane"
	"github.com/sentinel-gate/sentinel-gate/test/kit/daemon"
)

const (
	// quiet is for how long it is counted what is asked while nothing happens. The
	// API server lets a watch live for longer, and for twice that at most.
	quiet     = 2 * time.Minute
	watchLife = quiet + 30*time.Second
	// crowdSoak is the soak of those who wait.
	crowdSoak = time.Hour
	// changes are made to the turn's Lease, one after the other.
	changes = 20
)

// waiting measures what a rollout asks of the API server while the first node's
// gate is open, the second one's is idle, and all others wait.
func (b *bench) waiting(ctx context.Context) error {
	for _, size := range []int{5, 100, 1000} {
		if err := b.rollout(ctx, size, false); err != nil {
			return err
		}
	}
	return b.rollout(ctx, 1000, true)
}

// rollout measures one of a size. Where they are late, the others begin to wait
// after the holder was chosen, so that the turn does not tell how many they are.
func (b *bench) rollout(ctx context.Context, size int, late bool) error {
	fmt.Fprintf(os.Stderr, "making %d nodes\n", size)
	s, err := b.site(ctx, size, controlplane.Options{Audit: true, APIServerFlags: []string{fmt.Sprintf("--min-request-timeout=%.0f", watchLife.Seconds())}})
	if err != nil {
		return err
	}
	defer s.cp.Stop()
	ctx, leave := context.WithCancel(ctx)
	defer leave()
	holder, err := b.member(ctx, s, 0)
	if err != nil {
		return err
	}
	defer holder.end()
	idle, err := b.member(ctx, s, 1)
	if err != nil {
		return err
	}
	defer idle.end()
	others := s.Nodes[2:]
	if !late {
		err = s.pend(ctx, others)
	}
	if err = errors.Join(err, holder.host.RequireReboot()); err != nil {
		return err
	}
	if err := await(ctx, "an open gate", holder.host.Resolves); err != nil {
		return fmt.Errorf("%w\n%s", err, holder.daemon.Log())
	}
	var alone time.Duration
	weighed := size == 1000 && !late
	if weighed {
		if alone, err = s.during(0, func() error { return pass(ctx, quiet) }); err != nil {
			return err
		}
	}
	c := &crowd{}
	if err := c.join(ctx, s, others); err != nil {
		return err
	}
	watching := time.Now()
	parties := []func() (traffic, error){holder.traffic(s, watching), idle.traffic(s, watching), c.traffic}
	before, err := all(parties)
	if err != nil {
		return err
	}
	together, err := s.during(0, func() error { return pass(ctx, quiet) })
	if err != nil {
		return err
	}
	after, err := all(parties)
	if err != nil {
		return err
	}
	hourly := make([]traffic, len(parties))
	for i := range hourly {
		hourly[i] = traffic{after[i].requests - before[i].requests, after[i].bytes - before[i].bytes}.times(float64(time.Hour) / float64(quiet))
	}
	figure := fmt.Sprintf("API requests per hour, %d nodes, of which %d wait for one whose gate is open", size, len(others))
	if late {
		figure += ", and began to after it was chosen"
	}
	b.add(figure, "a waiting node's independent of cluster size", "the open one: %s; one that waits: %s; all that wait: %s; an idle one: %s",
		hourly[0], hourly[2].times(1/float64(len(others))), hourly[2], hourly[1])
	if !weighed {
		return nil
	}
	b.add("the API server's processor time for that, its audit log included", "1,000 that wait: under 1% of a core", "%s of a core; %s before they waited", percent(together, quiet), percent(alone, quiet))
	return b.crowded(ctx, s, c, together.Seconds()/quiet.Seconds(), watching)
}

// crowded measures what else many that wait cost: their watches end now and then,
// the turn changes, and the turn frees.
func (b *bench) crowded(ctx context.Context, s *site, c *crowd, anyway float64, watching time.Time) error {
	before, _ := c.traffic()
	anew, err := s.during(anyway, func() error { return pass(ctx, time.Until(watching.Add(2*watchLife+10*time.Second))) })
	if err != nil {
		return err
	}
	after, _ := c.traffic()
	reads := after.requests - before.requests
	if reads == 0 {
		return errors.New("no watch has ended")
	}
	each := anew.Seconds() / reads
	// kube-apiserver's --min-request-timeout is half an hour, and a watch lives for
	// one to two times that; whoever watches anew reads first.
	hourly := 2 * float64(len(c.turns)) / 0.75
	b.add("the same for each watch that ends, which is read and watched anew, and for all of them in an hour", "stated",
		"%.1f ms for each of %.0f requests; some %.0f requests an hour: %.2f%% of a core", 1000*each, reads, hourly, hourly*each/36)

	changed, err := s.during(anyway, func() error {
		for i := range changes {
			if err := s.annotate(ctx, turn.LeaseName, turn.HoldPrefix+"nobody", fmt.Sprint(i)); err != nil {
				return err
			}
			if err := c.await(ctx, "all told", func(v turn.View) bool { return v.Operator.Holds["nobody"] == fmt.Sprint(i) }); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	b.add("the same for each change of the turn, of which a node's reboot takes four", "stated", "%.0f ms", float64(changed.Milliseconds())/changes)
	return b.freed(ctx, s, c, anyway)
}

// freed measures what happens when a soak is over.
func (b *bench) freed(ctx context.Context, s *site, c *crowd, anyway float64) error {
	leases := s.cp.Client().CoordinationV1().Leases(cluster.Namespace)
	lease, err := leases.Get(ctx, turn.LeaseName, metav1.GetOptions{})
	if err != nil {
		return err
	}
	over := time.Now().Add(10 * time.Second).Truncate(time.Second) // as the Lease keeps it
	(&turn.State{
		Epoch: c.turns[0].View().State.Epoch + 1, Phase: turn.PhaseSoaking, Holder: s.Nodes[0].Name,
		RebootedAt: over.Add(-crowdSoak), Since: over.Add(-crowdSoak), Waiting: len(c.turns),
	}).Put(lease)
	if _, err := leases.Update(ctx, lease, metav1.UpdateOptions{}); err != nil {
		return err
	}
	if err := c.await(ctx, "all soak", func(v turn.View) bool { return v.State.Phase == turn.PhaseSoaking }); err != nil {
		return err
	}
	began := time.Now()
	var named time.Duration
	used, err := s.during(anyway, func() error {
		if err := c.await(ctx, "the next holder", func(v turn.View) bool { return v.State.Phase == turn.PhaseGranted }); err != nil {
			return err
		}
		named = time.Since(over)
		return pass(ctx, 10*time.Second) // until all that were sent are answered
	})
	if err != nil {
		return err
	}
	events, err := s.cp.Requests(cluster.User, began)
	if err != nil {
		return err
	}
	lists := 0
	for _, e := range events {
		if e.Verb == "list" && strings.Contains(e.URI, "/leases") {
			lists++
		}
	}
	b.add("the same when a soak is over", "stated", "%.1f s, %d LISTs of a page of 500 records among it; %.1f s until all knew the next one", used.Seconds(), lists, named.Seconds())
	return nil
}

func percent(used, of time.Duration) string {
	return fmt.Sprintf("%.2f%%", 100*used.Seconds()/of.Seconds())
}

// traffic is what was asked of the API server, and how much it answered.
type traffic struct{ requests, bytes float64 }

// all asks the parties, one after the other.
func all(parties []func() (traffic, error)) ([]traffic, error) {
	told, problems := make([]traffic, len(parties)), make([]error, len(parties))
	for i, party := range parties {
		told[i], problems[i] = party()
	}
	return told, errors.Join(problems...)
}

func (t traffic) times(f float64) traffic { return traffic{t.requests * f, t.bytes * f} }

func (t traffic) String() string {
	digits := 0
	if t.requests < 10 {
		digits = 1
	}
	return fmt.Sprintf("%.*f (%.0f KiB)", digits, t.requests, t.bytes/1024)
}

// member is a node with a daemon of its own, that reaches the API server from an
// address of its own.
type member struct {
	host   *daemon.Host
	daemon *daemon.Daemon
	relay  *relay
}

func (m *member) end() {
	_ = m.daemon.Signal(syscall.SIGKILL)
	_ = m.relay.listener.Close()
}

// member starts the gate of a node.
func (b *bench) member(ctx context.Context, s *site, i int) (*member, error) {
	dir := filepath.Join(b.dir, fmt.Sprintf("member-%d", time.Now().UnixNano()))
	host, err := daemon.NewHost(dir, s.Nodes[i].BootID(), cluster.BootedAgo)
	if err != nil {
		return nil, err
	}
	relay, err := newRelay(ctx, s, net.IPv4(127, 0, 1, byte(i+1)))
	if err != nil {
		return nil, err
	}
	kubeconfig, err := relay.kubeconfig(s, dir)
	if err != nil {
		return nil, err
	}
	d, err := daemon.Start(ctx, daemon.Options{
		Binary: b.binary, Host: host, Node: s.Nodes[i].Name, Namespace: cluster.Namespace, Kubeconfig: kubeconfig,
		Checks: fmt.Sprintf(steps, 1, b.prom.URL()), Settings: "stabilize: 5s\nturn: {grantTimeout: 10h}",
	})
	return &member{host: host, daemon: d, relay: relay}, err
}

// traffic tells what m has asked since a time, and received ever.
func (m *member) traffic(s *site, since time.Time) func() (traffic, error) {
	return func() (traffic, error) {
		events, err := s.cp.Requests(cluster.User, since)
		t := traffic{bytes: float64(m.relay.received.Load())}
		for _, e := range events {
			if e.SourceIP == m.relay.source.String() {
				t.requests++
			}
		}
		return t, err
	}
}

// crowd is many nodes' parts in the turn, each with a connection of its own.
type crowd struct {
	turns           []*turn.Turn
	requests, bytes atomic.Int64
}

// join lets the nodes wait, until ctx ends.
func (c *crowd) join(ctx context.Context, s *site, nodes []*controlplane.Node) error {
	config, err := clientcmd.BuildConfigFromFlags("", s.kubeconfig)
	if err != nil {
		return err
	}
	config.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
		return counted{conn, &c.bytes}, err
	}
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return asking{next, &c.requests} })
	for _, n := range nodes {
		client, err := reads.New(config, cluster.Namespace, n.Name)
		if err != nil {
			return err
		}
		t := turn.New(turn.Options{
			Config: turn.Config{
				Node: n.Name, BootID: n.BootID(), MaxAge: time.Minute, Settle: 15 * time.Minute,
				GrantTimeout: 30 * time.Minute, Interval: 30 * time.Second,
			},
			SoakOf: func(map[string]turn.Override) time.Duration { return crowdSoak },
			Leases: client.LeaseClient(), Nodes: client.NodeClient(),
			DaemonSets: func(namespace string) turn.DaemonSetLister { return client.DaemonSetClient(namespace) },
			Order:      []labels.Selector{labels.Everything()}, Record: unwritten{}, Log: slog.New(slog.DiscardHandler),
		})
		t.Update(turn.Gate{Pending: true, ClosedSince: time.Now()})
		go t.Run(ctx)
		c.turns = append(c.turns, t)
	}
	return c.await(ctx, "all wait", func(v turn.View) bool { return v.State.Phase == turn.PhaseOpen })
}

// unwritten is the record of a gate whose record is not measured.
type unwritten struct{}

func (unwritten) Recall(context.Context) (int64, time.Time, error) { return 0, time.Time{}, nil }
func (unwritten) LookAgain()                                       {}
func (unwritten) SetTurnEpoch(int64)                               {}
func (unwritten) SetOpened(bool)                                   {}
func (unwritten) RecordEpoch(context.Context, int64) error         { return nil }

// await waits until each has seen it.
func (c *crowd) await(ctx context.Context, what string, seen func(turn.View) bool) error {
	return await(ctx, what, func() bool {
		return !slices.ContainsFunc(c.turns, func(t *turn.Turn) bool { return !seen(t.View()) })
	})
}

func (c *crowd) traffic() (traffic, error) {
	return traffic{float64(c.requests.Load()), float64(c.bytes.Load())}, nil
}

type counted struct {
	net.Conn
	read *atomic.Int64
}

func (c counted) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.read.Add(int64(n))
	return n, err
}

type asking struct {
	next  http.RoundTripper
	asked *atomic.Int64
}

func (a asking) RoundTrip(req *http.Request) (*http.Response, error) {
	a.asked.Add(1)
	return a.next.RoundTrip(req)
}

// pend writes into the nodes' records that they wait, for less long than others.
func (s *site) pend(ctx context.Context, nodes []*controlplane.Node) error {
	for _, n := range nodes {
		if err := s.annotate(ctx, n.Name, "sentinel-gate.io/pending-since", time.Now().Add(time.Hour).UTC().Format(time.RFC3339)); err != nil {
			return err
		}
	}
	return nil
}

func (s *site) annotate(ctx context.Context, lease, key, value string) error {
	patch := fmt.Sprintf(`{"metadata":{"annotations":{%q:%q}}}`, key, value)
	_, err := s.cp.Client().CoordinationV1().Leases(cluster.Namespace).Patch(ctx, lease, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	return err
}

// processorTime returns what the API server has used since it started.
func (s *site) processorTime() (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.cp.APIServerPID()))
	if err != nil {
		return 0, err
	}
	// proc_pid_stat(5): utime and stime, in hundredths of a second.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	var ticks int64
	for _, field := range fields[11:13] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil
}

// during returns the processor time that the API server uses while f runs, less
// the part of a core that it uses anyway.
func (s *site) during(anyway float64, f func() error) (time.Duration, error) {
	before, err := s.processorTime()
	if err != nil {
		return 0, err
	}
	began := time.Now()
	if err := f(); err != nil {
		return 0, err
	}
	took := time.Since(began)
	after, err := s.processorTime()
	return after - before - time.Duration(anyway*float64(took)), err
}

func pass(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
