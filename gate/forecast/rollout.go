package forecast

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/sentinel-gate/sentinel-gate/gate/soak"
	"github.com/sentinel-gate/sentinel-gate/gate/turn"
	"github.com/sentinel-gate/sentinel-gate/gate/wiring"
)

// Rollout is a cluster, and what is assumed of it.
type Rollout struct {
	// Now is when it begins, and State how the turn stands then.
	Now   time.Time
	State turn.State
	// Nodes are all nodes; those wait that want something.
	Nodes []Node
	// Config is the turn's; its Node and BootID are not used.
	Config turn.Config
	// Stabilize is how long every step must pass before a gate opens.
	Stabilize time.Duration
	// Kured says when kured looks, and for how long it keeps its lock.
	Kured wiring.Kured
	// PerNode is from one node's boot to the next one's where nothing but the turn, kured, the
	// drain and the boot takes time: what the records of a rollout show.
	PerNode time.Duration
	// FlapsPerYear is how often each node flaps.
	FlapsPerYear float64
	// ChangeEvery is how often every node gets a new version; 0: never.
	ChangeEvery time.Duration
	// Horizon is when the run ends at the latest; 0: three years, or twelve changes.
	Horizon time.Duration
}

// Node is one node.
type Node struct {
	soak.Node
	// Tier is its place in the order.
	Tier int
}

// Uniform are so many nodes that all wait for the same update, the last few of them of the
// control plane.
func Uniform(now time.Time, workers, controlPlane int) []Node {
	var nodes []Node
	for i := range workers + controlPlane {
		booted := now.Add(-100 * 24 * time.Hour)
		n := Node{Node: soak.Node{
			Name: fmt.Sprintf("node-%04d", i+1), BootedAt: booted, Announced: true, Joined: true, Soaked: true, Agrees: true, Ready: true, ReadySince: booted,
			Runs: []soak.Part{"before"}, Wants: []soak.Part{"update"}, WaitsSince: now,
		}}
		if i >= workers {
			n.ControlPlane, n.Tier = true, 1
		}
		nodes = append(nodes, n)
	}
	return nodes
}

func (r Rollout) changes() int {
	different := map[string]bool{}
	for _, n := range r.Nodes {
		if n.Wants != nil {
			different[soak.PutParts(n.Wants)] = true
		}
	}
	return len(different)
}

// course is how one run went.
type course struct {
	done, outpaced     bool
	lastBoot, lastSoak time.Duration
	delays             []time.Duration
	days               []Day
}

// run is a simulated cluster.
type run struct {
	Rollout
	rand       *rand.Rand
	now, end   time.Time
	state      turn.State
	candidates []turn.Candidate
	members    []soak.Node
	index      map[string]int
	boots      int

	flapAt, changeAt, dayAt time.Time // zero: never
	changedAt               time.Time
	changed                 int // how many changes there were
	behind                  map[string]time.Time
	rebooted                int
	lastEvent               time.Time // by which a soak without exposure is counted
	lastBoot                time.Time
	course                  course
}

const day = 24 * time.Hour

func (r Rollout) run(seed uint64) course {
	if r.Horizon == 0 {
		if r.Horizon = 3 * 365 * day; r.ChangeEvery > 0 {
			r.Horizon = 12 * r.ChangeEvery
		}
	}
	s := &run{
		Rollout: r, rand: rand.New(rand.NewPCG(seed, 7)), now: r.Now, end: r.Now.Add(r.Horizon), state: r.State, //nolint:gosec // to be repeated
		index: map[string]int{}, behind: map[string]time.Time{}, dayAt: r.Now.Add(day),
	}
	for i, n := range r.Nodes {
		s.members, s.index[n.Name] = append(s.members, n.Node), i
		c := turn.Candidate{Node: n.Name, BootID: "0", Member: !n.Gone, Tier: n.Tier, BootedAt: n.BootedAt}
		if n.Wants != nil {
			c.PendingSince, c.Parts = n.WaitsSince, soak.PutParts(n.Wants)
		}
		s.candidates = append(s.candidates, c)
		if n.BootedAt.After(s.lastEvent) {
			s.lastEvent = n.BootedAt
		}
	}
	if s.state.Phase == turn.PhaseUnwritten {
		s.state = turn.State{Phase: turn.PhaseFree, Since: r.Now, Exposed: r.Config.Exposure != nil}
	}
	if r.ChangeEvery > 0 {
		s.changeAt = r.Now.Add(r.ChangeEvery)
	}
	s.nextFlap()
	s.simulate()
	return s.course
}

// simulate goes on until nobody waits and nothing changes any more, or until the horizon.
func (s *run) simulate() {
	for s.now.Before(s.end) {
		if i := s.waiting(); i < 0 && s.changeAt.IsZero() {
			s.finish(true)
			return
		} else if i < 0 {
			s.pass(s.changeAt)
			continue
		}
		if s.step(); s.stopped() {
			break
		}
	}
	s.finish(false)
}

// stopped reports whether evidence against what is waited for has stopped the rollout: time
// alone does not end that.
func (s *run) stopped() bool {
	if s.state.Phase != turn.PhaseFree || s.state.NextWhy != soak.ReasonAgainst || !s.changeAt.IsZero() {
		return false
	}
	return !slices.ContainsFunc(s.members, func(n soak.Node) bool { return s.now.Before(n.BootedAt.Add(s.Config.Soak)) })
}

func (s *run) finish(done bool) {
	c := &s.course
	c.done, c.lastBoot, c.lastSoak = done, never, never
	if done {
		c.lastBoot = s.lastBoot.Sub(s.Now)
		c.lastSoak = c.lastBoot + s.Config.Soak
	}
	until := s.lastBoot.Add(s.Config.Soak + day)
	for s.end = until; done && s.dayAt.Before(until); {
		s.pass(s.dayAt)
	}
}

// waiting returns one that waits; -1: nobody does.
func (s *run) waiting() int {
	return slices.IndexFunc(s.candidates, func(c turn.Candidate) bool { return !c.PendingSince.IsZero() && c.Member })
}

// step lets the turn move once.
func (s *run) step() {
	switch s.state.Phase {
	case turn.PhaseGranted:
		s.opens()
	case turn.PhaseOpen:
		s.reboots()
	case turn.PhaseSoaking:
		if s.state.Exposed {
			s.returns()
			return
		}
		s.chooses()
	default:
		s.chooses()
	}
}

// as asks the protocol on behalf of the node.
func (s *run) as(i int, l turn.Local, seen turn.Seen) turn.Move {
	c := s.Config
	c.Node, c.BootID = s.candidates[i].Node, s.candidates[i].BootID
	l.Parts = s.candidates[i].Parts
	seen.Now, seen.PhaseFor = s.now, s.now.Sub(s.state.Since)
	d := turn.Decide(c, s.state, turn.Operator{}, l, seen)
	if d.Write != nil {
		s.state = *d.Write
	}
	return d
}

// drawn is how long those who wait take to choose, on average.
const drawn = 3 * time.Second

// chooses lets one that waits choose, or sleep.
func (s *run) chooses() {
	i := s.waiting()
	d := s.as(i, turn.Local{Pending: true, Unseen: s.changedAt.After(s.state.Since)}, turn.Seen{Candidates: &s.candidates, Members: s.members})
	switch {
	case d.Write != nil:
		s.pass(s.now.Add(drawn))
	case d.Again > 0:
		s.passOrChange(s.now.Add(d.Again))
	default:
		s.passOrChange(s.now.Add(time.Hour))
	}
}

// opens lets the holder's steps pass for stabilize.
func (s *run) opens() {
	i := s.index[s.state.Holder]
	if s.Config.Exposure == nil { // the step counts every flap and every boot
		for s.now.Before(s.lastEvent.Add(s.Config.Soak)) {
			s.pass(s.lastEvent.Add(s.Config.Soak))
			if !s.now.Before(s.end) {
				return
			}
		}
	}
	s.pass(s.now.Add(s.stabilizes()))
	boot := s.candidates[i].BootID
	s.as(i, turn.Local{Pending: true, Ready: true}, turn.Seen{Holder: &turn.Holder{NodeBootID: boot, RecordBootID: boot, Ready: true}})
}

// reboots lets kured see the open gate, drain and reboot.
func (s *run) reboots() {
	i := s.index[s.state.Holder]
	at := s.Kured.ActsNext(s.now)
	if at.IsZero() {
		s.pass(s.end)
		return
	}
	s.pass(at.Add(s.Kured.Period / 2).Add(s.drainAndBoot()))
	n, c := &s.members[i], &s.candidates[i]
	s.boots++
	n.BootedAt, n.ReadySince, n.Ready = s.now, s.now, true
	n.Announced, n.Soaked, n.Agrees, n.Joined, n.Gone = true, false, true, false, false
	n.Runs, n.Wants, n.WaitsSince, n.Against = n.Wants, nil, time.Time{}, nil
	c.BootID, c.BootedAt, c.PendingSince, c.Parts = fmt.Sprint(s.boots), s.now, time.Time{}, ""
	s.rebooted++
	s.lastBoot, s.lastEvent = s.now, s.now
	if since, ok := s.behind[c.Node]; ok {
		s.course.delays = append(s.course.delays, s.now.Sub(since))
		delete(s.behind, c.Node)
	}
	s.as(i, turn.Local{BootedAt: s.now}, turn.Seen{})
}

// leastBoot is how long a drain and a boot take at least.
const leastBoot = time.Minute

// drainAndBoot is what is left of PerNode for them.
func (s *run) drainAndBoot() time.Duration {
	return max(leastBoot, s.PerNode-2*drawn-s.stabilizes()-s.Kured.Period/2)
}

// stabilizes is how long the steps pass before the gate opens.
func (s *run) stabilizes() time.Duration {
	rounds := (s.Stabilize + s.Config.Interval - 1) / s.Config.Interval
	return rounds * s.Config.Interval
}

// returns lets the node be back, with kured's lock free.
func (s *run) returns() {
	i := s.index[s.state.Holder]
	s.pass(s.now.Add(s.Kured.LockReleaseDelay + drawn))
	boot := s.candidates[i].BootID
	d := s.as(i, turn.Local{}, turn.Seen{Holder: &turn.Holder{NodeBootID: boot, RecordBootID: boot, Ready: true, LockKnown: true}})
	if d.Write == nil { // its soak was over before anybody waited again
		s.chooses()
	}
}

// passOrChange lets time pass until then, or until something new is waited for.
func (s *run) passOrChange(until time.Time) {
	if !s.changeAt.IsZero() && s.changeAt.Before(until) {
		until = s.changeAt
	}
	s.pass(until)
}

// pass lets time pass, and what happens by itself happen.
func (s *run) pass(until time.Time) {
	if until.After(s.end) {
		until = s.end
	}
	for {
		next, happens := until, (func())(nil)
		for _, event := range []struct {
			at   time.Time
			does func()
		}{{s.dayAt, s.day}, {s.flapAt, s.flap}, {s.changeAt, s.change}} {
			if !event.at.IsZero() && !event.at.After(next) {
				next, happens = event.at, event.does
			}
		}
		s.now = next
		if happens == nil {
			return
		}
		happens()
		if !s.now.Before(until) {
			return
		}
	}
}

// day notes how things stand.
func (s *run) day() {
	s.dayAt = s.dayAt.Add(day)
	d := Day{At: s.now, Rebooted: s.rebooted, Limit: 1}
	for _, n := range s.members {
		switch {
		case n.BootedAt.Before(s.Now):
		case s.now.Before(n.BootedAt.Add(s.Config.Soak)):
			d.InSoak++
		default:
			d.Soaked++
		}
	}
	if s.Config.Exposure != nil {
		d.Limit = s.limit()
	}
	s.course.days = append(s.course.days, d)
}

// limit is how many may be in soak on what is waited for or, where nobody waits, on what was
// brought last.
func (s *run) limit() int {
	rule := *s.Config.Exposure
	rule.Soak = s.Config.Soak
	standing := rule.Judge(s.members, s.now)
	parts := s.members[0].Runs
	if i := s.waiting(); i >= 0 {
		parts = s.members[i].Wants
	}
	limit := standing.Limit
	for _, part := range parts {
		limit = min(limit, standing.LimitOf(part))
	}
	return limit
}

func (s *run) nextFlap() {
	if s.FlapsPerYear <= 0 {
		return
	}
	mean := 365 * day.Hours() / s.FlapsPerYear / float64(len(s.members))
	s.flapAt = s.now.Add(time.Duration(s.rand.ExpFloat64() * mean * float64(time.Hour)))
}

// flap lets one node's readiness change, and back.
func (s *run) flap() {
	n := &s.members[s.rand.IntN(len(s.members))]
	if !n.Soaked && !s.now.Before(n.BootedAt.Add(s.Config.Soak)) && n.Quiet(s.Config.Soak) {
		n.Soaked = true // by its own record, when its soak was over
	}
	n.ReadySince, s.lastEvent = s.now, s.now
	s.nextFlap()
}

// change brings a new version to every node.
func (s *run) change() {
	s.course.outpaced = s.course.outpaced || s.changed > 0 && len(s.behind) > 0
	s.changed++
	s.changedAt, s.changeAt = s.now, s.now.Add(s.ChangeEvery)
	part := soak.Part(fmt.Sprintf("change-%d", s.changed))
	for i := range s.members {
		n, c := &s.members[i], &s.candidates[i]
		n.Wants = []soak.Part{part}
		if n.WaitsSince.IsZero() {
			n.WaitsSince, c.PendingSince = s.now, s.now
		}
		c.Parts = soak.PutParts(n.Wants)
		if _, waits := s.behind[c.Node]; !waits {
			s.behind[c.Node] = s.now
		}
	}
	if !s.changeAt.Before(s.end) {
		s.changeAt = time.Time{}
	}
}
