package upgrade

import (
	"context"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sentinel-gate/sentinel-gate/test/kit/cluster"
	"github.com/sentinel-gate/sentinel-gate/test/kit/controlplane"
	"github.com/sentinel-gate/sentinel-gate/test/kit/daemon"
)

// soak is long enough to replace all daemons meanwhile.
const soak = 20 * time.Second

// What stands in the Leases is read as another version reads it: by the names that it has there.
const (
	turnLease     = "sentinel-gate-turn"
	epochKey      = "sentinel-gate.io/turn-epoch"
	phaseKey      = "sentinel-gate.io/turn-phase"
	rebootedAtKey = "sentinel-gate.io/turn-rebooted-at"
	bootKey       = "sentinel-gate.io/boot-id"
	epochSeenKey  = "sentinel-gate.io/turn-epoch-seen"
)

// lasting is what a record tells for as long as its node has not rebooted, whichever version writes it.
var lasting = []string{
	bootKey, "sentinel-gate.io/booted-at", "sentinel-gate.io/previous-boot-id", "sentinel-gate.io/pending-since",
	"sentinel-gate.io/config-hash", "sentinel-gate.io/tier",
}

// rollout is a cluster whose nodes all have a gate, and want a reboot.
type rollout struct {
	*versions
	members []*member
	looks   *looks
	// exposure: gates that are started have it in their configuration.
	exposure bool
}

// member is a node of the rollout.
type member struct {
	node   *controlplane.Node
	host   *daemon.Host
	daemon *daemon.Daemon
	binary string
}

// newRollout starts the gates as they were.
func newRollout(ctx context.Context, t *testing.T, v *versions, size int) *rollout {
	t.Helper()
	r := &rollout{versions: v}
	t.Cleanup(func() {
		must(t, (&cluster.Cluster{CP: v.cp}).Clear(context.Background()))
	})
	c, err := cluster.New(ctx, v.cp, size)
	must(t, err)
	_, err = v.cp.AddDaemonSet(ctx, "kube-system", "kured", map[string]string{"name": "kured"})
	must(t, err)
	for _, n := range c.Nodes {
		host, err := daemon.NewHost(t.TempDir(), n.BootID(), cluster.BootedAgo)
		must(t, err)
		must(t, host.RequireReboot("linux-image-6.12.0-amd64"))
		r.members = append(r.members, &member{node: n, host: host})
	}
	r.looks = r.look(ctx, t)
	for _, m := range r.members {
		r.start(t, m, v.old)
	}
	return r
}

// start starts the node's gate, always with the same configuration file, but for exposure.
func (r *rollout) start(t *testing.T, m *member, binary string) {
	t.Helper()
	options := fmt.Sprintf("duration: %s", soak)
	if r.exposure && binary == r.present {
		options += ", exposure: {max: 2}, flaps: 100%"
		must(t, m.host.Install(map[string]string{"linux-image-6.12.0-amd64": "1"}))
		must(t, m.host.RunKernel("6.12.0"))
	} else {
		must(t, m.host.Uninstall())
	}
	d, err := daemon.Start(t.Context(), daemon.Options{
		Binary: binary, Host: m.host, Node: m.node.Name, Namespace: cluster.Namespace, Kubeconfig: r.kubeconfig,
		Settings: "interval: 400ms\nmaxAge: 3s\ntimeout: 1s\nstabilize: 500ms\nturn: {settle: 15m, grantTimeout: 30m}",
		Checks: fmt.Sprintf(`
- {name: nodes, type: nodesReady}
- {name: cni, type: podsReady, options: {preset: calico}}
- {name: soak, type: readySoak, options: {%s}}
`, options),
	})
	must(t, err)
	m.daemon, m.binary = d, binary
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("decision log of %s, run as %s:\n%s", m.node.Name, binary, d.Log())
		}
	})
}

// end ends the node's gate.
func (m *member) end(ctx context.Context, t *testing.T, signal syscall.Signal) {
	t.Helper()
	must(t, m.daemon.Signal(signal))
	_, err := m.daemon.Wait(ctx)
	must(t, err)
}

// awaitOpen awaits an open gate.
func (r *rollout) awaitOpen(ctx context.Context, t *testing.T) *member {
	t.Helper()
	var open *member
	must(t, controlplane.Poll(ctx, func() error {
		for _, m := range r.members {
			if m.host.Resolves() {
				open = m
				return nil
			}
		}
		return fmt.Errorf("no gate is open")
	}))
	t.Logf("%s is open, turn %s", open.node.Name, r.annotations(ctx, t, turnLease)[epochKey])
	return open
}

// reboot reboots the node, too quickly for anybody to notice but by its boot id, and returns when the soak will be over
// by the turn's Lease. Until then no gate may open.
func (r *rollout) reboot(ctx context.Context, t *testing.T, m *member) time.Time {
	t.Helper()
	m.end(ctx, t, syscall.SIGKILL)
	r.looks.forbidUntil(time.Now().Add(time.Hour))
	must(t, m.host.ClearReboot())
	id, err := m.node.Reboot(ctx)
	must(t, err)
	must(t, m.host.Boot(id, time.Second))
	r.start(t, m, m.binary)
	var end time.Time
	must(t, controlplane.Poll(ctx, func() error {
		turn, record := r.annotations(ctx, t, turnLease), r.annotations(ctx, t, m.node.Name)
		if turn[phaseKey] != "soaking" || record[bootKey] != id {
			return fmt.Errorf("the turn is %q, and %s has recorded boot %s", turn[phaseKey], m.node.Name, record[bootKey])
		}
		rebooted, err := time.Parse(time.RFC3339, turn[rebootedAtKey])
		end = rebooted.Add(soak)
		return err
	}))
	r.looks.forbidUntil(end)
	return end
}

// replace replaces the daemons one by one by those of another version, before the soak is over. It returns what the
// records tell, for recordsStay.
func (r *rollout) replace(ctx context.Context, t *testing.T, binary string, soakEnds time.Time) map[string]map[string]string {
	t.Helper()
	records := r.records(ctx, t)
	for _, m := range r.members {
		m.end(ctx, t, syscall.SIGTERM)
		r.start(t, m, binary)
		_, err := m.daemon.Await(ctx, 0, "a gate that knows of the soak", func(l daemon.Line) bool {
			// One whose node wants no reboot does not ask about the turn.
			return l.State == "Idle" || l.State == "Closed" && strings.HasPrefix(l.Turn, "soaking")
		})
		must(t, err)
	}
	if late := time.Since(soakEnds); late > 0 {
		t.Fatalf("the soak was over %s before the last daemon was replaced: this machine is too slow for this test", late)
	}
	t.Logf("all are replaced %s before the soak is over", time.Until(soakEnds).Round(time.Millisecond))
	return records
}

// records are the lasting parts of all records.
func (r *rollout) records(ctx context.Context, t *testing.T) map[string]map[string]string {
	t.Helper()
	all := map[string]map[string]string{}
	for _, m := range r.members {
		tells, annotations := map[string]string{}, r.annotations(ctx, t, m.node.Name)
		for _, key := range lasting {
			tells[key] = annotations[key]
		}
		all[m.node.Name] = tells
	}
	return all
}

// recordsStay asserts that the records tell what they told.
func (r *rollout) recordsStay(ctx context.Context, t *testing.T, before map[string]map[string]string) {
	t.Helper()
	for node, now := range r.records(ctx, t) {
		if !maps.Equal(now, before[node]) {
			t.Errorf("the record of %s has changed\nbefore %v\nnow    %v", node, before[node], now)
		}
	}
}

func (r *rollout) annotations(ctx context.Context, t *testing.T, lease string) map[string]string {
	t.Helper()
	l, err := r.cp.Client().CoordinationV1().Leases(cluster.Namespace).Get(ctx, lease, metav1.GetOptions{})
	must(t, err)
	return l.Annotations
}

// looks look at all gated sentinels as kured does, all the time, and at all that is written in the Leases. They fail the
// test at its end for what must never be seen.
type looks struct {
	mu     sync.Mutex
	closed time.Time // no gate may be open before
	epochs map[string]int64
	wrong  map[string]bool
}

func (r *rollout) look(ctx context.Context, t *testing.T) *looks {
	t.Helper()
	l := &looks{epochs: map[string]int64{}, wrong: map[string]bool{}}
	leases, err := r.cp.Client().CoordinationV1().Leases(cluster.Namespace).List(ctx, metav1.ListOptions{})
	must(t, err)
	written, err := r.cp.Client().CoordinationV1().Leases(cluster.Namespace).Watch(ctx, metav1.ListOptions{ResourceVersion: leases.ResourceVersion})
	must(t, err)
	stop, all := make(chan struct{}), sync.WaitGroup{}
	all.Go(func() {
		for event := range written.ResultChan() {
			if lease, ok := event.Object.(*coordinationv1.Lease); ok {
				l.lease(lease)
			}
		}
		if ctx.Err() == nil {
			l.saw("the end of the watch of the Leases: what was written after is not known")
		}
	})
	all.Go(func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				l.sentinels(r.members)
			case <-stop:
				return
			}
		}
	})
	t.Cleanup(func() {
		close(stop)
		written.Stop()
		all.Wait()
		for what := range l.wrong {
			t.Errorf("seen: %s", what)
		}
	})
	return l
}

func (l *looks) forbidUntil(end time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = end
}

func (l *looks) saw(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wrong[fmt.Sprintf(format, args...)] = true
}

func (l *looks) sentinels(members []*member) {
	l.mu.Lock()
	closed := l.closed
	l.mu.Unlock()
	var open []string
	for _, m := range members {
		if m.host.Resolves() {
			open = append(open, m.node.Name)
		}
	}
	if len(open) > 1 {
		l.saw("the gates of %v open at once", open)
	}
	if len(open) > 0 && time.Now().Before(closed) {
		l.saw("the gate of %s open before the soak is over", open[0])
	}
}

// lease looks at one that was written: the turn's epoch goes forward only, and so does what each record has seen of it.
func (l *looks) lease(lease *coordinationv1.Lease) {
	key := epochSeenKey
	if lease.Name == turnLease {
		key = epochKey
	}
	text := lease.Annotations[key]
	if text == "" {
		text = "0"
	}
	epoch, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		l.saw("in Lease %s: %v", lease.Name, err)
		return
	}
	l.mu.Lock()
	earlier := l.epochs[lease.Name]
	l.epochs[lease.Name] = max(earlier, epoch)
	l.mu.Unlock()
	if epoch < earlier {
		l.saw("in Lease %s epoch %d after %d", lease.Name, epoch, earlier)
	}
}
