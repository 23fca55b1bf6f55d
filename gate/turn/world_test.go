package turn

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	appsclient "k8s.io/client-go/kubernetes/typed/apps/v1"
	coordinationclient "k8s.io/client-go/kubernetes/typed/coordination/v1"
	coreclient "k8s.io/client-go/kubernetes/typed/core/v1"
	"pgregory.net/rapid"

	"github.com/sentinel-gate/sentinel-gate/gate/clock"
	"github.com/sentinel-gate/sentinel-gate/gate/record"
)

// world is a simulated cluster, in virtual time, whose gates run this package's
// own code against a simulated API server. Nothing runs by itself: every action
// lets one part do one thing, so that all interleavings are possible.
type world struct {
	t     *rapid.T
	soak  time.Duration
	ahead time.Duration // how far the API server's clock is from the others
	rand  *rand.Rand

	lease   *coordinationv1.Lease // nil: there is none
	version int
	history []watch.Event // what happened to the Lease
	copies  []*coordinationv1.Lease
	late    func() // a write whose gate has given it up, and that lands later
	records map[string]*coordinationv1.Lease
	storm   bool            // a step that is about the cluster fails
	locked  map[string]bool // the nodes that kured's lock names
	nodes   []*node
	boots   int
	epoch   int64 // the highest that was ever written
	trace   []string
}

// node is a machine with a kured and, while it is not nil, a gate.
type node struct {
	w        *world
	name     string
	boot     string
	bootedAt time.Time
	raw      bool
	gate     *gate
	cut      bool // the gate cannot reach the API server

	object     bool   // it has a Node object,
	objectBoot string // which tells this boot,
	cordoned   bool
	goneSince  time.Time

	saw      time.Time // when kured last saw the gated sentinel
	acting   bool      // it holds its lock
	rebooted time.Time // by kured
	ill      bool      // a step that is about this node fails
	claimed  bool      // the operator said that kured will not act on what it saw
}

// gate is the process: what it knows is lost with it.
type gate struct {
	n         *node
	turn      *Turn
	fault     fault
	following bool
	paused    bool // after an error
	pause     time.Duration
	seen      int // of the history
	actAt     time.Time

	view        View
	open        bool
	until       time.Time     // when the link dangles, come what may
	openFor     time.Duration // in this turn
	openForAt   time.Time
	openForTurn string
	closedSince time.Time
	blocked     time.Time // since when only the node's own steps hold it back
	permitted   time.Time // when the evaluation began that passed and was confirmed
	evaluateAt  time.Time
	wrote       string // the record tells
}

// fault is what becomes of the gate's next request.
type fault int

const (
	none   fault = iota
	fails        // without effect
	lost         // its answer is
	behind       // it lands after the gate has given it up
)

var errDown = errors.New("connection refused")

const (
	simInterval = 30 * time.Second
	simMaxAge   = time.Minute
	simSettle   = 15 * time.Minute
)

func newWorld(t *rapid.T) *world {
	w := &world{
		t: t, records: map[string]*coordinationv1.Lease{}, locked: map[string]bool{},
		soak:  rapid.SampledFrom([]time.Duration{time.Minute, time.Hour, 5 * time.Hour}).Draw(t, "soak"),
		ahead: rapid.SampledFrom([]time.Duration{0, -5 * time.Hour, 7 * time.Hour}).Draw(t, "ahead"),
		rand:  rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1)),
	}
	w.put(&coordinationv1.Lease{})
	for i := range rapid.IntRange(2, 4).Draw(t, "nodes") {
		n := &node{w: w, name: string(rune('a' + i)), object: true, raw: true}
		n.bootedAt = w.now().Add(-50 * time.Hour)
		n.boot = w.newBoot()
		n.objectBoot = n.boot
		w.nodes = append(w.nodes, n)
		n.start()
		n.gate.record()
	}
	return w
}

func (w *world) log(format string, args ...any) {
	w.trace = append(w.trace, time.Now().Format("02 15:04:05 ")+fmt.Sprintf(format, args...))
}

// violation is a property that does not hold, and what led to it.
type violation string

func (w *world) fatalf(format string, args ...any) {
	panic(violation(strings.Join(w.trace[max(0, len(w.trace)-100):], "\n") + "\n" + fmt.Sprintf(format, args...)))
}

func (w *world) now() time.Time { return time.Now().Add(w.ahead).UTC() }

func (w *world) newBoot() string {
	w.boots++
	return "boot" + strconv.Itoa(w.boots)
}

// put stores the Lease.
func (w *world) put(lease *coordinationv1.Lease) {
	w.version++
	lease = lease.DeepCopy()
	lease.Name, lease.ResourceVersion = LeaseName, strconv.Itoa(w.version)
	kind := watch.Modified
	if w.lease == nil {
		kind = watch.Added
	}
	w.lease = lease
	w.history = append(w.history, watch.Event{Type: kind, Object: lease})
	if s, err := Parse(lease); err == nil {
		w.epoch = max(w.epoch, s.Epoch)
		w.copies = append(w.copies, lease)
	}
}

func (w *world) remove() {
	w.version++
	lease := w.lease.DeepCopy()
	lease.ResourceVersion = strconv.Itoa(w.version)
	w.lease = nil
	w.history = append(w.history, watch.Event{Type: watch.Deleted, Object: lease})
}

// edit is what a person does.
func (w *world) edit(key, value string) {
	if w.lease == nil || w.lease.Annotations[key] == value {
		return
	}
	lease := w.lease.DeepCopy()
	if lease.Annotations == nil {
		lease.Annotations = map[string]string{}
	}
	lease.Annotations[key] = value
	if value == "" {
		delete(lease.Annotations, key)
	}
	w.put(lease)
}

func (w *world) state() State {
	if w.lease == nil {
		return State{}
	}
	s, err := Parse(w.lease)
	if err != nil {
		return State{}
	}
	return s
}

func (w *world) named(name string) *node {
	for _, n := range w.nodes {
		if n.name == name {
			return n
		}
	}
	return nil
}

// claim is the operator's word that no kured will act on what it has seen.
func (w *world) claim(n *node) {
	if n != nil && n.mayAct() {
		n.claimed = true
	}
}

// The simulated API server, as a gate reaches it.

type leases struct {
	coordinationclient.LeaseInterface
	g *gate
}

// request lets a request of the gate take place.
func (g *gate) request(ctx context.Context, effect func() error) error {
	w := g.n.w
	if g.n.cut || g.n.gate != g {
		return errDown
	}
	f := g.fault
	g.fault = none
	if f == fails {
		return errDown
	}
	if f == behind {
		w.late = func() { _ = effect() }
		return errDown
	}
	err := effect()
	if f == lost {
		return errDown
	}
	req, _ := http.NewRequestWithContext(ctx, http.MethodGet, "http://api", http.NoBody)
	if _, err := clock.Transport(date(w.now())).RoundTrip(req); err != nil { //nolint:bodyclose // there is none
		return err
	}
	return err
}

type date time.Time

func (d date) RoundTrip(*http.Request) (*http.Response, error) {
	return &http.Response{Header: http.Header{"Date": {time.Time(d).Format(http.TimeFormat)}}, Body: http.NoBody}, nil
}

var leaseResource = schema.GroupResource{Group: "coordination.k8s.io", Resource: "leases"}

func (l leases) Get(ctx context.Context, name string, _ metav1.GetOptions) (*coordinationv1.Lease, error) {
	var lease *coordinationv1.Lease
	err := l.g.request(ctx, func() error {
		if lease = l.g.n.w.records[name]; lease == nil {
			return apierrors.NewNotFound(leaseResource, name)
		}
		lease = lease.DeepCopy()
		return nil
	})
	return lease, err
}

func (l leases) List(ctx context.Context, options metav1.ListOptions) (*coordinationv1.LeaseList, error) {
	list := &coordinationv1.LeaseList{}
	err := l.g.request(ctx, func() error {
		if w := l.g.n.w; options.FieldSelector != "" { // the turn alone
			list.ResourceVersion = strconv.Itoa(w.version)
			if w.lease != nil {
				list.Items = append(list.Items, *w.lease.DeepCopy())
			}
			return nil
		}
		for _, name := range slices.Sorted(maps.Keys(l.g.n.w.records)) {
			list.Items = append(list.Items, *l.g.n.w.records[name].DeepCopy())
		}
		return nil
	})
	return list, err
}

func (l leases) Update(ctx context.Context, lease *coordinationv1.Lease, _ metav1.UpdateOptions) (*coordinationv1.Lease, error) {
	w := l.g.n.w
	var written *coordinationv1.Lease
	err := l.g.request(ctx, func() error {
		if w.lease == nil {
			return apierrors.NewNotFound(leaseResource, lease.Name)
		}
		if w.lease.ResourceVersion != lease.ResourceVersion {
			return apierrors.NewConflict(leaseResource, lease.Name, errors.New("modified"))
		}
		before, err := Parse(w.lease)
		if err != nil {
			w.fatalf("%s overwrites what cannot be read: %v", l.g.n.name, err)
		}
		after, err := Parse(lease)
		if err != nil || after.Epoch != before.Epoch+1 {
			w.fatalf("%s writes epoch %d after %d: %v", l.g.n.name, after.Epoch, before.Epoch, err)
		}
		for name, r := range w.records {
			if recordedEpoch(r) > before.Epoch {
				w.fatalf("%s writes on top of an old copy: %s has seen %d, and it is %d", l.g.n.name, name, recordedEpoch(r), before.Epoch)
			}
		}
		for _, keys := range []map[string]string{w.lease.Annotations, lease.Annotations} {
			for key := range keys {
				if !strings.Contains(key, "/turn-") && w.lease.Annotations[key] != lease.Annotations[key] {
					w.fatalf("%s writes the operator's %s", l.g.n.name, key)
				}
			}
		}
		w.put(lease)
		written = w.lease.DeepCopy()
		w.log("%s writes %+v", l.g.n.name, after)
		return nil
	})
	return written, err
}

type nodeObjects struct {
	coreclient.NodeInterface
	g *gate
}

func (o nodeObjects) List(ctx context.Context, options metav1.ListOptions) (*corev1.NodeList, error) {
	list := &corev1.NodeList{}
	err := o.g.request(ctx, func() error {
		n := o.g.n.w.named(strings.TrimPrefix(options.FieldSelector, "metadata.name="))
		if n != nil && n.object {
			var object corev1.Node
			object.Name, object.Status.NodeInfo.BootID, object.Spec.Unschedulable = n.name, n.objectBoot, n.cordoned
			list.Items = append(list.Items, object)
		}
		return nil
	})
	return list, err
}

type daemonSets struct {
	appsclient.DaemonSetInterface
	g *gate
}

func (d daemonSets) List(ctx context.Context, _ metav1.ListOptions) (*appsv1.DaemonSetList, error) {
	set := appsv1.DaemonSet{}
	err := d.g.request(ctx, func() error {
		var names []string
		for _, name := range slices.Sorted(maps.Keys(d.g.n.w.locked)) {
			names = append(names, fmt.Sprintf(`{"nodeID":%q}`, name))
		}
		set.Annotations = map[string]string{"lock": `{"locks":[` + strings.Join(names, ",") + `]}`}
		return nil
	})
	return &appsv1.DaemonSetList{Items: []appsv1.DaemonSet{set}}, err
}

// start starts the node's gate, as gate.Loop does.
func (n *node) start() {
	w := n.w
	g := &gate{n: n, pause: firstPause, closedSince: time.Now(), actAt: time.Now(), evaluateAt: time.Now()}
	n.gate = g
	g.turn = &Turn{
		Config: Config{Node: n.name, BootID: n.boot, MaxAge: simMaxAge, Interval: simInterval, Settle: simSettle, GrantTimeout: 30 * time.Minute},
		SoakOf: func(o map[string]Override) time.Duration {
			if _, ok := o["soak"]; ok {
				return 0
			}
			return w.soak
		},
		Leases: leases{g: g}, Nodes: nodeObjects{g: g}, DaemonSets: func(string) DaemonSetLister { return daemonSets{g: g} },
		Kured:  func() Kured { return Kured{Annotation: "lock"} },
		OnTier: func(int) {}, OnEpoch: func(int64) {}, Log: slog.New(slog.DiscardHandler),
		RecordEpoch: func(ctx context.Context, epoch int64) error {
			if old, ok := w.records[n.name]; ok && recordedEpoch(old) >= epoch {
				return nil
			}
			return g.request(ctx, func() error { g.tells(); return nil })
		},
	}
	g.turn.Start()
	g.turn.random = w.rand.Float64
	g.view = g.turn.View()
	g.tick()
}

// stop kills it; its link dangles.
func (n *node) stop() { n.gate = nil }

// resolves reports whether kured would see the gated sentinel.
func (n *node) resolves() bool {
	return n.gate != nil && n.gate.open && time.Now().Before(n.gate.until)
}

// mayAct reports whether kured may still act on what it saw. The protocol takes
// it that it does not when its Node object has been gone for long: it cannot
// drain, and its pod is collected.
func (n *node) mayAct() bool {
	if !n.object && time.Since(n.goneSince) > simMaxAge {
		return false
	}
	return n.acting || !n.saw.IsZero() && time.Since(n.saw) < simSettle
}

// recordedBoot is rounded so that it is not too early.
func (n *node) recordedBoot() time.Time {
	return n.bootedAt.Add(2 * time.Second).Truncate(time.Second)
}

// tick is what the loop does by itself, and what it tells the turn.
func (g *gate) tick() {
	now := time.Now()
	if whose := fmt.Sprint(g.view.State.Holder, g.view.State.NotActedOn, g.view.State.RebootedAt); whose != g.openForTurn || g.view.State.Phase != Open {
		g.openForTurn, g.openFor = whose, 0
	}
	if g.open {
		g.openFor += now.Sub(g.openForAt)
	}
	g.openForAt = now
	if g.open && (!now.Before(g.until) || !g.n.raw) {
		g.open, g.closedSince = false, now
		if g.until.Before(now) {
			g.closedSince = g.until
		}
	}
	g.turn.Tell(Gate{
		Pending: g.n.raw, BootedAt: g.n.recordedBoot(), Open: g.open, ClosedSince: g.closedSince,
		NodeBlocked: !g.blocked.IsZero() && now.Sub(g.blocked) >= simInterval,
		Overdue:     g.openFor >= g.turn.Config.GrantTimeout,
	})
}

// hear takes the turn's latest view, as Loop.onTurn does.
func (g *gate) hear() {
	select {
	case g.view = <-g.turn.Views():
	default:
		return
	}
	if g.open && !g.view.Permits() {
		g.open, g.closedSince = false, time.Now()
	}
	if !g.view.Evaluates() {
		g.permitted, g.blocked = time.Time{}, time.Time{}
	} else if g.evaluateAt.IsZero() {
		g.evaluateAt = time.Now()
	}
	g.tick()
}

// run lets the gate's part in the turn do one thing, as Turn.Run does.
func (g *gate) run() {
	t := g.turn
	ctx := context.Background()
	g.tick()
	defer func() {
		g.hear()
		g.tick()
		if g.actAt = time.Now().Add(1000 * time.Hour); g.following { // an idle gate waits until it is told something
			g.actAt = time.Now().Add(t.again())
		}
		if g.paused = !g.following && t.problem != nil; g.paused {
			g.actAt = time.Now().Add(g.pause)
			g.pause = min(2*g.pause, lastPause)
		} else {
			g.pause = firstPause
		}
	}()
	var err error
	switch {
	case !g.following:
		g.woken()
		_, concerned, failed := t.readAndAct(ctx)
		g.seen, err = len(g.n.w.history), failed
		g.following = err == nil && concerned
		return
	case g.seen < len(g.n.w.history) && !g.n.cut:
		g.seen++
		event := g.n.w.history[g.seen-1]
		err = t.onEvent(ctx, watch.Event{Type: event.Type, Object: event.Object.(*coordinationv1.Lease).DeepCopy()}) //nolint:forcetypeassert // it is
	case g.woken():
		err = t.woken(ctx)
	default:
		err = t.lockAndAct(ctx)
	}
	g.following = err == nil && t.concerned()
}

// woken reports whether the gate has told the turn something.
func (g *gate) woken() bool {
	select {
	case <-g.turn.wake:
		return true
	default:
		return false
	}
}

// loses ends the watch.
func (g *gate) loses() {
	if g.following {
		g.following = false
		_ = g.turn.lockAndFail(errDown)
		g.hear()
	}
}

// evaluate asks the steps, which say so. It began a while ago.
func (g *gate) evaluate(passes, node bool, ago time.Duration) {
	g.tick()
	if !g.view.Evaluates() || !g.n.raw {
		return
	}
	now := time.Now()
	g.evaluateAt = now.Add(simInterval)
	switch {
	case passes:
		g.blocked = time.Time{}
		if g.turn.Confirm(context.Background()) == nil {
			g.permitted = now.Add(-ago)
		} else if g.open {
			g.open, g.closedSince = false, now
		}
	case node && g.blocked.IsZero():
		g.blocked = now
	case !node:
		g.blocked = time.Time{}
	}
	if !passes && g.open {
		g.open, g.closedSince = false, now
	}
	g.hear()
	g.tick()
}

// permit makes the link, or extends its time, after an evaluation.
func (g *gate) permit() {
	g.hear()
	began := g.permitted
	g.permitted = time.Time{}
	until := began.Add(simMaxAge)
	if began.IsZero() || !g.n.raw || !time.Now().Before(until) || !g.open && !g.turn.Permits() {
		return
	}
	if !g.open {
		g.n.w.log("%s opens", g.n.name)
		g.tick()
		g.open, g.n.claimed = true, g.n.claimed && g.n.mayAct()
	}
	g.until = until
	g.tick()
}

func recordedEpoch(of *coordinationv1.Lease) int64 {
	epoch, _ := strconv.ParseInt(of.Annotations["sentinel-gate.io/turn-epoch-seen"], 10, 64)
	return epoch
}

// record writes the node's record when something in it changes.
func (g *gate) record() {
	n := g.n
	tells := fmt.Sprint(n.boot, n.raw, g.open)
	if n.cut || tells == g.wrote {
		return
	}
	g.wrote = tells
	g.tells()
}

// tells writes the record as it is to be.
func (g *gate) tells() {
	w, n := g.n.w, g.n
	var seen int64
	if old, ok := w.records[n.name]; ok {
		seen = recordedEpoch(old)
	}
	lease := &coordinationv1.Lease{}
	lease.Name, lease.Labels = n.name, map[string]string{record.Label: "true"}
	lease.Annotations = map[string]string{
		"sentinel-gate.io/boot-id": n.boot, "sentinel-gate.io/booted-at": text(n.recordedBoot()),
		"sentinel-gate.io/turn-epoch-seen": strconv.FormatInt(max(seen, g.turn.epoch), 10),
	}
	if n.raw {
		lease.Annotations["sentinel-gate.io/pending-since"] = text(n.bootedAt.Add(time.Hour))
	}
	w.records[n.name] = lease
}

// reboot reboots the machine: all that ran on it is gone.
func (n *node) reboot(byKured bool) {
	w := n.w
	if s := w.state(); byKured || s.Phase == Open && s.Holder == n.name && s.BootID == n.boot {
		if !n.claimed {
			n.rebooted = time.Now()
		}
	}
	w.log("%s reboots, by kured: %t", n.name, byKured)
	n.boot, n.bootedAt = w.newBoot(), w.now()
	n.saw, n.acting, n.claimed = time.Time{}, false, false
	n.stop()
}

// kured's part. It looks, takes its lock and cordons, and then reboots or fails.
func (n *node) look() {
	if n.object && !n.acting && n.resolves() {
		n.w.log("kured sees %s", n.name)
		n.saw = time.Now()
	}
}

func (n *node) lock() {
	if n.object && !n.acting && n.mayAct() {
		n.acting, n.w.locked[n.name] = true, true
	}
}

func (n *node) fail() {
	if n.object && n.acting {
		n.saw, n.acting, n.cordoned, n.claimed = time.Time{}, false, false, false
		delete(n.w.locked, n.name)
	}
}

// welcome is what kured does when it starts.
func (n *node) welcome() {
	if !n.acting && n.w.locked[n.name] {
		n.cordoned = false
		delete(n.w.locked, n.name)
	}
}

// check checks what must hold at any time.
func (w *world) check() {
	if w.lease != nil && len(ParseOperator(w.lease).Overridden(w.now())) > 0 {
		for _, n := range w.nodes {
			n.rebooted = time.Time{} // what opens now may stay open
		}
	}
	var exposed []string
	for _, n := range w.nodes {
		if n.resolves() || n.mayAct() && !n.claimed {
			exposed = append(exposed, n.name)
		}
		if !n.resolves() {
			continue
		}
		for _, other := range w.nodes {
			if quiet := time.Since(other.rebooted); !other.rebooted.IsZero() && quiet < w.soak {
				w.fatalf("%s is open %s after %s rebooted (soak %s)", n.name, quiet, other.name, w.soak)
			}
		}
	}
	if len(exposed) > 1 {
		w.fatalf("kured may act on %v", exposed)
	}
}
