package turn

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"

	"github.com/sentinel-gate/sentinel-gate/gate/clock"
	"github.com/sentinel-gate/sentinel-gate/gate/cluster"
	"github.com/sentinel-gate/sentinel-gate/gate/record"
	"github.com/sentinel-gate/sentinel-gate/gate/soak"
	"github.com/sentinel-gate/sentinel-gate/gate/wiring"
)

// world is a simulated cluster, in virtual time, in which each gate's core runs. What
// a core wants done the world does, or fails to do. Nothing runs by itself: every
// action lets one part do one thing, so that all interleavings are possible.
type world struct {
	soak  time.Duration
	ahead time.Duration // how far the API server's clock is from the others
	rand  *rand.Rand
	clock time.Time // the machines'

	lease   *coordinationv1.Lease // nil: there is none
	history []Heard               // what happened to the Lease: the version of each is its place
	copies  []*coordinationv1.Lease
	late    func() // a write whose gate has given it up, and that lands later
	records map[string]*coordinationv1.Lease
	storm   bool            // a step that is about the cluster fails
	locked  map[string]bool // the nodes that kured's lock names
	nodes   []*node
	boots   int
	epoch   int64 // the highest that was ever written
	trace   []string
	hears   func(*gate, Event, Effects) // nil: nobody does
	disturb func()                      // in calm, now and then; nil: nothing does
	kured   wiring.Kured                // as it was started everywhere
	only    []*node                     // those that are waited for; nil: all

	exposure *soak.Rule // nil: one soak at a time
	lived    []life     // with exposure: every boot that there was
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
	tier     int
	erring   bool // its steps err, for want of a way to what they ask
	noLink   bool // the gated sentinel cannot be made there
	noKured  bool // no kured runs there
	doomed   bool // it is deleted when its gate is open
	claimed  bool // the operator said that kured will not act on what it saw
	body     body // with exposure
}

// gate is the process: what it knows is lost with it. It does for its core what a
// Turn does, and for both what a Loop does.
type gate struct {
	n       *node
	core    *core
	fault   fault
	said    Gate    // what the core was told last
	request Request // nil: none is under way
	reply   Event   // to it, on its way; nil: it was not carried out yet
	wroteAs int64   // the epoch that it wrote last, for all that it knows
	readAt  time.Time
	follow  string
	since   time.Time // when it began to follow
	silent  bool      // and hears nothing, nor that the watch is over
	seen    int       // of the history
	wakeAt  time.Time
	witness clock.Witness
	skew    time.Duration // of the API server that it is connected to
	minute  time.Time     // in which
	asks    int           // it sent so many requests
	skewed  time.Time     // since when
	told    bool          // the time, by one that is right

	view        View // as it was heard of
	open        bool
	until       time.Time // when the link dangles, come what may
	closedSince time.Time
	blocked     time.Time // since when only the node's own steps hold it back
	erring      time.Time // since when its steps err
	failing     time.Time // since when the link cannot be made
	asked       time.Time // when the evaluation began that asks whether the gate may open,
	askedAt     time.Time // and when it asked
	permitted   time.Time // when the one began that may open it
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

func newWorld(soak, ahead time.Duration, nodes int, seed uint64) *world {
	w := &world{
		soak: soak, ahead: ahead, rand: rand.New(rand.NewPCG(seed, 1)), clock: noon,
		records: map[string]*coordinationv1.Lease{}, locked: map[string]bool{}, kured: wiring.Defaults(),
	}
	w.kured.Period = 30 * time.Second
	w.put(&coordinationv1.Lease{})
	for i := range nodes {
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
	w.trace = append(w.trace, w.clock.Format("02 15:04:05 ")+fmt.Sprintf(format, args...))
}

// violation is a property that does not hold, and what led to it.
type violation string

func (w *world) fatalf(format string, args ...any) {
	panic(violation(strings.Join(w.trace[max(0, len(w.trace)-100):], "\n") + "\n" + fmt.Sprintf(format, args...)))
}

// now is the API server's time.
func (w *world) now() time.Time { return w.clock.Add(w.ahead).UTC() }

// ghost leaves the record of a node that is gone, and that waited for long.
func (w *world) ghost() {
	name := fmt.Sprintf("ghost-%03d", len(w.records))
	lease := &coordinationv1.Lease{}
	lease.Name, lease.Labels = name, map[string]string{record.Label: "true"}
	lease.Annotations = map[string]string{
		"sentinel-gate.io/boot-id": name, "sentinel-gate.io/booted-at": text(w.now().Add(-400 * 24 * time.Hour)),
		"sentinel-gate.io/pending-since": text(w.now().Add(-300 * 24 * time.Hour)),
	}
	w.records[name] = lease
}

func (w *world) since(t time.Time) time.Duration { return w.clock.Sub(t) }

func (w *world) newBoot() string {
	w.boots++
	return "boot" + strconv.Itoa(w.boots)
}

// put stores the Lease.
func (w *world) put(lease *coordinationv1.Lease) {
	lease = lease.DeepCopy()
	lease.Name, lease.ResourceVersion = LeaseName, strconv.Itoa(len(w.history)+1)
	w.lease = lease
	w.history = append(w.history, Heard{Lease: lease})
	if s, err := Parse(lease); err == nil {
		w.epoch = max(w.epoch, s.Epoch)
		w.copies = append(w.copies, lease)
	}
}

func (w *world) remove() {
	lease := w.lease.DeepCopy()
	lease.ResourceVersion = strconv.Itoa(len(w.history) + 1)
	w.lease = nil
	w.history = append(w.history, Heard{lease, true})
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

// carryOut carries a request of the gate out, or fails to, and returns its answer.
func (g *gate) carryOut(r Request) Event {
	w := g.n.w
	asked := w.clock
	if w.since(g.minute) >= time.Minute {
		g.minute, g.asks = w.clock, 0
	}
	if g.asks++; g.asks > 200 {
		w.fatalf("%s asks without end: %d requests in %s, the last %T", g.n.name, g.asks, w.since(g.minute), r)
	}
	f := g.fault
	g.fault = none
	if g.n.cut {
		f = fails
	}
	var answer Event
	switch f {
	case fails:
	case behind:
		w.late = func() { g.serve(r, asked) }
	default:
		answer = g.serve(r, asked)
	}
	if f != none {
		switch r.(type) {
		case RecallRecord:
			return Recalled{Err: errDown}
		case ReadLease:
			return Read{Err: errDown}
		case LookAtHolder:
			return Looked{Err: errDown}
		case ListRecords:
			return Listed{Err: errDown}
		case WriteLease:
			return Wrote{Err: errDown}
		case RecordEpoch:
			return Recorded{Err: errDown}
		}
	}
	return answer
}

// serve is the API server's part.
func (g *gate) serve(r Request, asked time.Time) Event {
	w, n := g.n.w, g.n
	switch r := r.(type) {
	case RecallRecord:
		return Recalled{Epoch: recordedEpoch(w.records[n.name]), BootedAt: n.recordedBoot()}
	case ReadLease:
		date := w.now().Add(g.skew).Truncate(time.Second)
		set, err := g.witness.Believe(date, w.clock)
		if err != nil {
			return Read{Err: err}
		}
		g.told = true
		read := Read{Version: strconv.Itoa(len(w.history)), Asked: asked, Date: date, Set: set}
		if w.lease != nil {
			read.Lease = w.lease.DeepCopy()
		}
		return read
	case LookAtHolder:
		h := Holder{Gone: true, LockKnown: r.Lock != nil, LockNamed: w.locked[r.Node]}
		if seen := w.named(r.Node); seen != nil && seen.object {
			h.Gone, h.NodeBootID, h.Unschedulable, h.Down = false, seen.objectBoot, seen.cordoned, true
			h.Ready = seen.objectBoot == seen.boot
		}
		if lease := w.records[r.Node]; lease != nil {
			if r, err := record.Parse(lease); err == nil {
				h.RecordBootID, h.RecordBootedAt = r.BootID, r.BootedAt
			}
		}
		return Looked{Node: r.Node, Holder: h}
	case ListRecords:
		listed := Listed{Nodes: r.Nodes}
		for _, name := range slices.Sorted(maps.Keys(w.records)) {
			r, err := record.Parse(w.records[name])
			if err != nil {
				w.fatalf("the record of %s: %v", name, err)
			}
			of := w.named(name)
			listed.Candidates = append(listed.Candidates, Candidate{Node: r.Node, Member: of != nil && of.object, Tier: of.tierNow(), BootID: r.BootID, PendingSince: r.PendingSince, BootedAt: r.BootedAt, Epoch: r.TurnEpoch, Parts: soak.PutParts(r.PartsPending)})
		}
		if w.exposure != nil && r.Nodes {
			listed.Members = w.members()
		}
		return listed
	case WriteLease:
		return g.write(r)
	case RecordEpoch:
		if recordedEpoch(w.records[n.name]) < r.Epoch {
			g.tells()
		}
		return Recorded{Epoch: r.Epoch}
	}
	panic(fmt.Sprintf("%T", r))
}

func (n *node) tierNow() int {
	if n == nil {
		return 0
	}
	return n.tier
}

func (g *gate) write(r WriteLease) Event {
	w := g.n.w
	if w.lease == nil || w.lease.ResourceVersion != r.Lease.ResourceVersion {
		return Wrote{Conflict: true, Err: errors.New("modified")}
	}
	lease := r.Lease.DeepCopy()
	r.State.Put(lease)
	before, err := Parse(w.lease)
	if err != nil {
		w.fatalf("%s overwrites what cannot be read: %v", g.n.name, err)
	}
	after, err := Parse(lease)
	if err != nil || after.Epoch != before.Epoch+1 {
		w.fatalf("%s writes epoch %d after %d: %v", g.n.name, after.Epoch, before.Epoch, err)
	}
	if recorded := recordedEpoch(w.records[g.n.name]); recorded < g.wroteAs && !g.core.handsOn() {
		w.fatalf("%s writes again, and what it wrote last, epoch %d, is not in its record (%d)", g.n.name, g.wroteAs, recorded)
	}
	for name, r := range w.records {
		if recordedEpoch(r) > before.Epoch {
			w.fatalf("%s writes on top of an old copy: %s has seen %d, and it is %d", g.n.name, name, recordedEpoch(r), before.Epoch)
		}
	}
	for _, keys := range []map[string]string{w.lease.Annotations, lease.Annotations} {
		for key := range keys {
			if !strings.Contains(key, "/turn-") && w.lease.Annotations[key] != lease.Annotations[key] {
				w.fatalf("%s writes the operator's %s", g.n.name, key)
			}
		}
	}
	w.put(lease)
	w.log("%s writes %+v", g.n.name, after)
	return Wrote{Lease: w.lease.DeepCopy(), Epoch: after.Epoch}
}

// start starts the node's gate.
func (n *node) start() {
	w := n.w
	g := &gate{n: n, closedSince: w.clock, evaluateAt: w.clock}
	n.gate = g
	g.witness.Persists = w.soak
	if r := w.records[n.name]; r != nil && r.Annotations["sentinel-gate.io/boot-id"] == n.boot {
		g.witness.Remember(w.now(), w.clock) // by the boot in its record
		g.told = true
	}
	g.core = newCore(
		Config{Exposure: w.exposure, Node: n.name, BootID: n.boot, MaxAge: simMaxAge, Interval: simInterval, Settle: simSettle, GrantTimeout: 30 * time.Minute, Aging: 7 * 24 * time.Hour},
		func(o map[string]Override) time.Duration {
			if _, ok := o["soak"]; ok {
				return 0
			}
			return w.soak
		}, w.rand.Float64)
	g.view = g.core.view()
	g.tick()
	g.said = g.is()
	g.step(Updated{g.said})
}

// stop kills it; its link dangles.
func (n *node) stop() { n.gate = nil }

// resolves reports whether kured would see the gated sentinel.
func (n *node) resolves() bool {
	return n.gate != nil && n.gate.open && n.w.clock.Before(n.gate.until)
}

// mayAct reports whether kured may still act on what it saw. The protocol takes
// it that it does not when its Node object has been gone for long: it cannot
// drain, and its pod is collected.
func (n *node) mayAct() bool {
	if !n.object && n.w.since(n.goneSince) > simMaxAge {
		return false
	}
	return n.acting || !n.saw.IsZero() && n.w.since(n.saw) < simSettle
}

// recordedBoot is rounded so that it is not too early.
func (n *node) recordedBoot() time.Time {
	return n.bootedAt.Add(2 * time.Second).Truncate(time.Second)
}

// tick is what the loop does by itself.
func (g *gate) tick() {
	now := g.n.w.clock
	if g.open && (!now.Before(g.until) || !g.n.raw) {
		g.open, g.closedSince = false, now
		if g.until.Before(now) {
			g.closedSince = g.until
		}
	}
}

// is how the gate is.
func (g *gate) is() Gate {
	return Gate{
		Pending: g.n.raw, Parts: g.n.wants(), Open: g.open, ClosedSince: g.closedSince,
		NodeBlocked:  !g.blocked.IsZero() && g.n.w.since(g.blocked) >= simInterval,
		StepsErr:     !g.erring.IsZero() && g.n.w.since(g.erring) >= 5*simInterval,
		FailingSince: g.failing, Kured: &g.n.w.kured, NoKured: g.n.noKured,
	}
}

// changed reports whether the core has something to be told by its own gate.
func (g *gate) changed() bool { return g.is() != g.said }

// unseen reports whether the watch has something to tell.
func (g *gate) unseen() bool {
	return g.follow != "" && !g.n.cut && !g.silent && g.seen < len(g.n.w.history)
}

// overdue reports whether the driver ends the watch, of which it has heard nothing else.
func (g *gate) overdue() bool {
	return g.follow != "" && g.n.w.since(g.since) >= cluster.WatchFor
}

// due reports whether there is something to do at once.
func (g *gate) due() bool {
	return g.request != nil || g.unseen() || g.overdue() || g.changed() || !g.wakeAt.IsZero() && !g.n.w.clock.Before(g.wakeAt)
}

// run lets the gate's part in the turn do one thing, as Turn.Run does.
func (g *gate) run() {
	g.tick()
	switch r := g.request; {
	case g.overdue() && r == nil:
		g.loses(nil)
	case g.unseen() && (r == nil || g.n.w.rand.IntN(2) == 0):
		g.seen++
		heard := g.n.w.history[g.seen-1]
		g.step(Heard{heard.Lease.DeepCopy(), heard.Deleted})
	case g.changed() && (r == nil || g.n.w.rand.IntN(2) == 0):
		g.said = g.is()
		g.step(Updated{g.said})
	case r != nil && g.reply == nil:
		g.reply = g.carryOut(r)
	case r != nil:
		reply := g.reply
		g.request, g.reply = nil, nil
		g.step(reply)
	default:
		g.step(Woken{})
	}
	g.tick()
}

// step tells the core an event, and takes its answer.
func (g *gate) step(e Event) {
	w := g.n.w
	busy := g.request != nil
	switch e := e.(type) {
	case Wrote:
		if e.Err == nil {
			g.wroteAs = e.Epoch
		}
	case Read:
		if e.Err == nil {
			g.readAt = e.Asked
		}
	}
	effects := g.core.step(w.clock, e)
	if w.hears != nil {
		w.hears(g, e, effects)
	}
	if effects.Request != nil {
		if busy {
			w.fatalf("%s wants %T while %T is under way", g.n.name, effects.Request, g.request)
		}
		g.request = effects.Request
	}
	if effects.Follow != g.follow {
		if g.follow, g.since, g.silent = effects.Follow, w.clock, false; g.follow != "" {
			g.seen, _ = strconv.Atoi(g.follow)
		}
	}
	g.wakeAt = effects.WakeAt
	if st := g.core.state; g.core.problem == nil {
		g.n.body.opened = st.Phase == PhaseOpen && st.HeldBy(g.n.name) && st.BootID == g.n.boot
	}
	g.hear(g.core.view())
	if a := effects.Answer; a != nil && !g.asked.IsZero() {
		switch {
		case a.Permitted && g.readAt.Before(g.askedAt):
			w.fatalf("%s may open by a turn that was read at %s, and asked at %s", g.n.name, g.readAt, g.askedAt)
		case a.Permitted && recordedEpoch(w.records[g.n.name]) < g.core.epoch:
			w.fatalf("%s may open, and epoch %d is not in its record", g.n.name, g.core.epoch)
		}
		if a.Permitted {
			g.permitted = g.asked
		} else if g.open {
			g.open, g.closedSince = false, w.clock
		}
		g.asked = time.Time{}
	}
}

// hear takes a view, as Loop.onTurn does.
func (g *gate) hear(v View) {
	g.view = v
	if g.open && !g.view.Permits() {
		g.open, g.closedSince = false, g.n.w.clock
	}
	if !g.view.Evaluates() {
		g.permitted, g.blocked, g.erring, g.failing = time.Time{}, time.Time{}, time.Time{}, time.Time{}
	} else if g.evaluateAt.IsZero() {
		g.evaluateAt = g.n.w.clock
	}
	g.tick()
}

// loses ends the watch.
func (g *gate) loses(err error) {
	if g.follow != "" {
		g.step(Unfollowed{err})
	}
}

// evaluate asks the steps, which say so. It began a while ago.
func (g *gate) evaluate(passes, node bool, ago time.Duration) {
	g.tick()
	if !g.view.Evaluates() || !g.n.raw || !g.asked.IsZero() {
		return
	}
	now := g.n.w.clock
	g.evaluateAt = now.Add(simInterval)
	if g.n.erring {
		passes, node = false, false
		if g.erring.IsZero() {
			g.erring = now
		}
	}
	switch {
	case passes:
		g.blocked, g.erring = time.Time{}, time.Time{}
		g.asked, g.askedAt = now.Add(-ago), now
		g.step(Asked{})
	case node && g.blocked.IsZero():
		g.blocked = now
	case !node:
		g.blocked = time.Time{}
	}
	if !passes && g.open {
		g.open, g.closedSince = false, now
	}
	g.tick()
}

// breakOff ends an evaluation that asks whether the gate may open.
func (g *gate) breakOff() {
	if !g.asked.IsZero() {
		g.asked = time.Time{}
		g.step(Unasked{})
	}
}

// permit makes the link, or extends its time, after an evaluation.
func (g *gate) permit() {
	began := g.permitted
	g.permitted = time.Time{}
	until := began.Add(simMaxAge)
	if began.IsZero() || !g.n.raw || !g.n.w.clock.Before(until) || !g.open && !g.view.Permits() {
		return
	}
	if g.n.noLink && !g.open {
		if g.failing.IsZero() {
			g.failing = g.n.w.clock
		}
		return
	}
	g.failing = time.Time{}
	if !g.open {
		g.n.w.log("%s opens", g.n.name)
		if w := g.n.w; w.exposure != nil {
			w.judgeOpening(g.n)
		}
		g.tick()
		g.open, g.n.claimed = true, g.n.claimed && g.n.mayAct()
	}
	g.until = until
	g.tick()
}

func recordedEpoch(of *coordinationv1.Lease) int64 {
	if of == nil {
		return 0
	}
	epoch, _ := strconv.ParseInt(of.Annotations["sentinel-gate.io/turn-epoch-seen"], 10, 64)
	return epoch
}

// record writes the node's record when something in it changes.
func (g *gate) record() {
	n := g.n
	tells := fmt.Sprint(n.boot, n.raw, g.open, n.tellsSoak())
	if n.cut || tells == g.wrote {
		return
	}
	g.wrote = tells
	g.tells()
}

// tells writes the record as it is to be.
func (g *gate) tells() {
	w, n := g.n.w, g.n
	seen := recordedEpoch(w.records[n.name])
	lease := &coordinationv1.Lease{}
	lease.Name, lease.Labels = n.name, map[string]string{record.Label: "true"}
	lease.Annotations = map[string]string{
		"sentinel-gate.io/boot-id": n.boot, "sentinel-gate.io/booted-at": text(n.recordedBoot()),
		"sentinel-gate.io/turn-epoch-seen": strconv.FormatInt(max(seen, g.core.epoch), 10),
	}
	if n.raw {
		lease.Annotations["sentinel-gate.io/pending-since"] = text(n.bootedAt.Add(time.Hour))
	}
	w.records[n.name] = lease
	if w.exposure != nil {
		n.tellParts(lease)
	}
}

// reboot reboots the machine: all that ran on it is gone.
func (n *node) reboot(byKured bool) {
	w := n.w
	if s := w.state(); byKured || s.Epoch == w.epoch && s.Phase == PhaseOpen && s.Holder == n.name && s.BootID == n.boot {
		if !n.claimed {
			n.rebooted = w.clock
		}
	}
	w.log("%s reboots, by kured: %t", n.name, byKured)
	n.lives(byKured)
	n.boot, n.bootedAt = w.newBoot(), w.now()
	n.runs()
	n.saw, n.acting, n.claimed = time.Time{}, false, false
	n.stop()
}

// kured's part. It looks, takes its lock and cordons, and then reboots or fails.
func (n *node) look() {
	if n.object && !n.acting && !n.noKured && n.resolves() {
		n.w.log("kured sees %s", n.name)
		n.saw = n.w.clock
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
		if w.exposure != nil {
			continue
		}
		for _, other := range w.nodes {
			if quiet := w.since(other.rebooted); !other.rebooted.IsZero() && quiet < w.soak {
				w.fatalf("%s is open %s after %s rebooted (soak %s)", n.name, quiet, other.name, w.soak)
			}
		}
	}
	if len(exposed) > 1 {
		w.fatalf("kured may act on %v", exposed)
	}
}
