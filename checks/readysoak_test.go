package checks

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	corev1 "k8s.io/api/core/v1"

	"github.com/sentinel-gate/sentinel-gate/gate"
	"github.com/sentinel-gate/sentinel-gate/gate/cluster"
	"github.com/sentinel-gate/sentinel-gate/gate/record"
	"github.com/sentinel-gate/sentinel-gate/gate/turn"
)

const day = 24 * time.Hour

// old is a node that has been a member, Ready and booted for a long time.
func old(name string, change ...func(*cluster.Node)) cluster.Node {
	n := cluster.Node{
		Name: name, Labels: map[string]string{"name": name}, BootID: "boot-of-" + name,
		Ready: corev1.ConditionTrue, Created: now.Add(-100 * day), Since: now.Add(-50 * day), Heartbeat: now.Add(-time.Minute),
	}
	for _, c := range change {
		c(&n)
	}
	return n
}

// recorded is the record of a node that booted so long ago.
func recorded(name string, ago time.Duration, change ...func(*cluster.Entry)) cluster.Entry {
	e := cluster.Entry{Node: name, Record: record.Record{Node: name, BootID: "boot-of-" + name, PreviousBootID: "earlier", BootedAt: now.Add(-ago)}}
	for _, c := range change {
		c(&e)
	}
	return e
}

func first(e *cluster.Entry) { e.PreviousBootID = "" }

func readyFor(d time.Duration) func(*cluster.Node) {
	return func(n *cluster.Node) { n.Since = now.Add(-d) }
}

func createdAgo(d time.Duration) func(*cluster.Node) {
	return func(n *cluster.Node) { n.Created = now.Add(-d) }
}

func opened(e *cluster.Entry) { e.State = "Open" }

func malformed(e *cluster.Entry) { e.Err = errors.New("record sentinel-gate/x: broken") }

func TestSoaked(t *testing.T) {
	lost := func(n *cluster.Node) { n.Ready = corev1.ConditionUnknown }
	down := func(n *cluster.Node) { n.Ready = corev1.ConditionFalse }
	heartbeat := func(ago time.Duration) func(*cluster.Node) {
		return func(n *cluster.Node) { n.Heartbeat = now.Add(-ago) }
	}
	without := func(n *cluster.Node) { n.Ready, n.Since = "", time.Time{} }
	otherBoot := func(n *cluster.Node) { n.BootID = "new" }
	noBootID := func(n *cluster.Node) { n.BootID = "" }
	full := ReadySoakOptions{Duration: model.Duration(day)}
	with := func(change func(*ReadySoakOptions)) ReadySoakOptions {
		o := full
		change(&o)
		return o
	}
	notB := with(func(o *ReadySoakOptions) { o.Selector = selector(t, "name!=b") })
	noGateOnB := with(func(o *ReadySoakOptions) { o.GateSelector = selector(t, "name!=b") })
	a, aRecord := old("a"), recorded("a", 40*day)

	for _, c := range []struct {
		name    string
		nodes   []cluster.Node
		records []cluster.Entry
		options ReadySoakOptions
		want    wanted
		retry   time.Duration
	}{
		{
			"quiet", []cluster.Node{a}, []cluster.Entry{aRecord}, full,
			wanted{gate.Pass, "Soaked", "quiet for 960h0m0s, since node a booted"}, 0,
		},
		{"TestF02NoNodes", nil, []cluster.Entry{aRecord}, full, wanted{gate.Fail, "NoNodes", `no node matches the selector "", of 0 nodes`}, 0},
		{
			"TestF02NoneSelected", []cluster.Node{a}, []cluster.Entry{aRecord}, with(func(o *ReadySoakOptions) { o.Selector = selector(t, "pool=gone") }),
			wanted{gate.Fail, "NoNodes", `no node matches the selector "pool=gone", of 1 node`}, 0,
		},

		// The length of the soak.
		{
			"booted a second less than a day ago", []cluster.Node{a, old("b")}, []cluster.Entry{aRecord, recorded("b", day-time.Second)}, full,
			wanted{gate.Fail, "Soaking", "node b booted 23h59m59s ago; the soak of 1d ends at 2026-03-14T12:00:01Z"}, time.Second,
		},
		{
			"booted a day ago", []cluster.Node{a, old("b")}, []cluster.Entry{aRecord, recorded("b", day)}, full,
			wanted{gate.Pass, "Soaked", "quiet for 24h0m0s, since node b booted"}, 0,
		},
		{
			"became Ready a second less than a day ago", []cluster.Node{a, old("b", readyFor(day-time.Second))}, []cluster.Entry{aRecord, recorded("b", 40*day)}, full,
			wanted{gate.Fail, "Soaking", "node b became Ready=True 23h59m59s ago; the soak of 1d ends at 2026-03-14T12:00:01Z"}, time.Second,
		},
		{"became Ready a day ago", []cluster.Node{a, old("b", readyFor(day))}, []cluster.Entry{aRecord, recorded("b", 40*day)}, full, wanted{gate.Pass, "Soaked", ""}, 0},
		{
			"ceased to be Ready", []cluster.Node{a, old("b", down, readyFor(time.Hour))}, []cluster.Entry{aRecord, recorded("b", 40*day)}, full,
			wanted{gate.Fail, "Soaking", "node b became Ready=False 1h0m0s ago; the soak of 1d ends at 2026-03-15T11:00:00Z"}, 23 * time.Hour,
		},
		{
			"the latest of all counts", []cluster.Node{old("a", readyFor(2*time.Hour)), old("b", readyFor(9*time.Hour))},
			[]cluster.Entry{recorded("a", 3*time.Hour), recorded("b", time.Hour)}, full,
			wanted{gate.Fail, "Soaking", "node b booted 1h0m0s ago; the soak of 1d ends at 2026-03-15T11:00:00Z"}, 23 * time.Hour,
		},
		{
			// All of a second's fraction is waited for.
			"a fraction is left", []cluster.Node{a, old("b", readyFor(day-time.Millisecond))}, []cluster.Entry{aRecord, recorded("b", 40*day)}, full,
			wanted{gate.Fail, "Soaking", ""}, time.Millisecond,
		},

		// F32: clocks.
		{
			"TestF32TransitionInTheFuture", []cluster.Node{a, old("b", readyFor(-3*day))}, []cluster.Entry{aRecord, recorded("b", 40*day)}, full,
			wanted{gate.Fail, "Soaking", "node b became Ready=True, by a date in the future (2026-03-17T12:00:00Z): its clock was ahead, or the date is a mistake, and now counts"}, 0,
		},
		{
			"TestF32BootInTheFuture", []cluster.Node{a}, []cluster.Entry{recorded("a", -time.Hour)}, full,
			wanted{gate.Fail, "Soaking", "node a booted, by a date in the future (2026-03-14T13:00:00Z): its clock was ahead, or the date is a mistake, and now counts"}, 0,
		},
		{
			"booted this very second", []cluster.Node{a}, []cluster.Entry{recorded("a", 0)}, full,
			wanted{gate.Fail, "Soaking", "node a booted 0s ago; the soak of 1d ends at 2026-03-15T12:00:00Z"}, day,
		},
		{
			// Ready since 30 hours by a clock that is 20 behind: since 10 hours.
			"TestF32KubeletClockBehind", []cluster.Node{a, old("b", readyFor(30*time.Hour), heartbeat(20*time.Hour))}, []cluster.Entry{aRecord, recorded("b", 40*day)}, full,
			wanted{gate.Fail, "Soaking", "node b, whose clock is behind or whose last status is old (20h0m0s), became Ready=True 10h0m0s ago; the soak of 1d ends at 2026-03-15T02:00:00Z"}, 14 * time.Hour,
		},
		{
			"TestF32HeartbeatJustOld", []cluster.Node{a, old("b", readyFor(day), heartbeat(10*time.Minute+time.Second))}, []cluster.Entry{aRecord, recorded("b", 40*day)}, full,
			wanted{gate.Fail, "Soaking", ""}, 10*time.Minute + time.Second,
		},
		{
			"a heartbeat that is not too old", []cluster.Node{a, old("b", readyFor(day), heartbeat(10*time.Minute))}, []cluster.Entry{aRecord, recorded("b", 40*day)}, full,
			wanted{gate.Pass, "Soaked", ""}, 0,
		},
		{
			"TestF32NoHeartbeat", []cluster.Node{a, old("b", func(n *cluster.Node) { n.Heartbeat = time.Time{} })}, []cluster.Entry{aRecord, recorded("b", 40*day)}, full,
			wanted{gate.Fail, "Soaking", ""}, 0,
		},
		{
			// nodesReady with maxNotReady lets a node be away for good. Its last
			// heartbeat is then no sign of a clock that is behind.
			"dead for long", []cluster.Node{a, old("b", lost, readyFor(20*day), heartbeat(20*day+time.Minute))}, []cluster.Entry{aRecord, recorded("b", 40*day)}, full,
			wanted{gate.Pass, "Soaked", "quiet for 480h0m0s, since node b became Ready=Unknown"}, 0,
		},

		// F05, F37: what is not known.
		{
			"TestF05NoReadyCondition", []cluster.Node{a, old("b", without)}, []cluster.Entry{aRecord, recorded("b", 40*day)}, full,
			wanted{gate.Unknown, "NoReadyCondition", "cannot tell when 1 of 2 nodes last rebooted: b (no Ready condition)"}, 0,
		},
		{
			"TestF05NoTransitionTime", []cluster.Node{a, old("b", func(n *cluster.Node) { n.Since = time.Time{} })}, []cluster.Entry{aRecord, recorded("b", 40*day)}, full,
			wanted{gate.Unknown, "NoReadyCondition", ""}, 0,
		},
		{
			"TestF37NoRecord", []cluster.Node{a, old("b")}, []cluster.Entry{aRecord}, full,
			wanted{gate.Unknown, "NoRecord", "cannot tell when 1 of 2 nodes last rebooted: b (no record: its gate never ran; start it, or exclude the node with gateSelector)"}, 0,
		},
		{
			"TestF37BadRecord", []cluster.Node{a, old("b")}, []cluster.Entry{aRecord, recorded("b", 40*day, malformed)}, full,
			wanted{gate.Unknown, "BadRecord", "cannot tell when 1 of 2 nodes last rebooted: b (record sentinel-gate/x: broken)"}, 0,
		},
		{
			"TestF37NoBootID", []cluster.Node{a, old("b", noBootID)}, []cluster.Entry{aRecord, recorded("b", 40*day)}, full,
			wanted{gate.Unknown, "NoBootID", "cannot tell when 1 of 2 nodes last rebooted: b (its Node status has no bootID)"}, 0,
		},
		{
			// Two that are both empty are not the same boot.
			"TestF37NoBootIDAnywhere", []cluster.Node{a, old("b", noBootID)}, []cluster.Entry{aRecord, recorded("b", 40*day, func(e *cluster.Entry) { e.BootID = "" })}, full,
			wanted{gate.Unknown, "NoBootID", ""}, 0,
		},
		{
			"TestF37RebootNotRecorded", []cluster.Node{a, old("b", otherBoot)}, []cluster.Entry{aRecord, recorded("b", 40*day)}, full,
			wanted{gate.Unknown, "RebootNotRecorded", "cannot tell when 1 of 2 nodes last rebooted: b (rebooted, and its gate has not come back)"}, 0,
		},
		{
			// It cannot be told when the soak is over, so no time is announced.
			"what is not known comes before a soak", []cluster.Node{old("a", readyFor(time.Hour)), old("b", otherBoot)}, []cluster.Entry{aRecord, recorded("b", 40*day)}, full,
			wanted{gate.Unknown, "RebootNotRecorded", ""}, 0,
		},
		{
			"the first one's reason, and all the names", []cluster.Node{old("c", otherBoot), old("b", noBootID), a}, []cluster.Entry{recorded("c", 40*day), recorded("b", 40*day)}, full,
			wanted{gate.Unknown, "RebootNotRecorded", "cannot tell when 3 of 3 nodes last rebooted: a (no record: its gate never ran; start it, or exclude the node with gateSelector), b (its Node status has no bootID), c (rebooted, and its gate has not come back)"}, 0,
		},

		// Who counts.
		{"not selected", []cluster.Node{a, old("b", otherBoot, readyFor(0))}, []cluster.Entry{aRecord}, notB, wanted{gate.Pass, "Soaked", ""}, 0},
		{"not selected, and its boot", []cluster.Node{a, old("b")}, []cluster.Entry{aRecord, recorded("b", 0)}, notB, wanted{gate.Pass, "Soaked", ""}, 0},
		{"without a gate by design", []cluster.Node{a, old("b", noBootID)}, []cluster.Entry{aRecord}, noGateOnB, wanted{gate.Pass, "Soaked", ""}, 0},
		{"without a gate, a record of old", []cluster.Node{a, old("b", otherBoot)}, []cluster.Entry{aRecord, recorded("b", 0, malformed)}, noGateOnB, wanted{gate.Pass, "Soaked", ""}, 0},
		{
			"without a gate, its readiness counts", []cluster.Node{a, old("b", readyFor(time.Hour))}, []cluster.Entry{aRecord}, noGateOnB,
			wanted{gate.Fail, "Soaking", ""}, 23 * time.Hour,
		},
		{
			"nobody has a gate", []cluster.Node{a}, nil, with(func(o *ReadySoakOptions) { o.GateSelector = selector(t, "name=nobody") }),
			wanted{gate.Pass, "Soaked", "quiet for 1200h0m0s, since node a became Ready=True"}, 0,
		},

		// F15: the record of a node that is gone.
		{
			"TestF15DeletedNode", []cluster.Node{a}, []cluster.Entry{aRecord, recorded("gone", time.Hour)}, full,
			wanted{gate.Fail, "Soaking", "node gone, which is gone, booted 1h0m0s ago; the soak of 1d ends at 2026-03-15T11:00:00Z"}, 23 * time.Hour,
		},
		{
			// Its labels went with it, so nobody can say that it was not selected.
			"TestF15DeletedNodeWithASelector", []cluster.Node{a}, []cluster.Entry{aRecord, recorded("b", time.Hour)}, notB,
			wanted{gate.Fail, "Soaking", ""}, 23 * time.Hour,
		},
		{"deleted long ago", []cluster.Node{a}, []cluster.Entry{aRecord, recorded("gone", 2*day)}, full, wanted{gate.Pass, "Soaked", ""}, 0},
		{
			// It may tell of a boot a minute ago; nobody can read it.
			"TestF15MalformedRecordOfADeletedNode", []cluster.Node{a}, []cluster.Entry{aRecord, recorded("gone", 0, malformed)}, full,
			wanted{gate.Unknown, "BadRecord", "cannot tell when 1 of 1 node last rebooted: gone, which is gone (record sentinel-gate/x: broken)"}, 0,
		},
		{
			// kured may have acted on what it saw, and the node has not come back.
			"TestF15DeletedWhileItsGateWasOpen", []cluster.Node{a}, []cluster.Entry{aRecord, recorded("gone", 40*day, opened)}, full,
			wanted{gate.Unknown, "GoneWhileOpen", "cannot tell when 1 of 1 node last rebooted: gone (its Node object went away while its gate was open; find out why, then delete the record)"}, 0,
		},
		{"a node whose gate is open, and that is there", []cluster.Node{a}, []cluster.Entry{recorded("a", 40*day, opened)}, full, wanted{gate.Pass, "Soaked", ""}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := soaked(c.nodes, byNode(c.records), nil, now, c.options)
			c.want.compare(t, got)
			if got.RetryAfter != c.retry {
				t.Errorf("it may change after %s, want %s", got.RetryAfter, c.retry)
			}
		})
	}
}

// The first reason of several is given, and it is the same each time: one that
// changed from evaluation to evaluation would fill the log.
func TestReasonIsStable(t *testing.T) {
	records := []cluster.Entry{recorded("a", 40*day)}
	for i := range 4 {
		records = append(records, recorded(fmt.Sprintf("gone-%d", i), 40*day, malformed), recorded(fmt.Sprintf("open-%d", i), 40*day, opened))
	}
	first := soaked([]cluster.Node{old("a")}, byNode(records), nil, now, readySoakDefaults())
	for range 100 {
		if again := soaked([]cluster.Node{old("a")}, byNode(records), nil, now, readySoakDefaults()); again != first {
			t.Fatalf("the same cluster is\n%s: %s\nand\n%s: %s", first.Reason, first.Message, again.Reason, again.Message)
		}
	}
}

// F14: a node that has joined is told from one that has rebooted. The node here
// booted, became a member ten minutes later, Ready at once, and its gate wrote;
// unless the row says otherwise, that was five hours ago.
func TestF14Joined(t *testing.T) {
	const joinedAgo = 5 * time.Hour
	for _, c := range []struct {
		name     string
		node     func(*cluster.Node)
		record   func(*cluster.Entry) // nil: there is none
		strict   wanted               // with ignoreJoined: false
		tolerant wanted               // with ignoreJoined: true
	}{
		{
			"joined", func(*cluster.Node) {}, func(*cluster.Entry) {},
			wanted{gate.Fail, "Soaking", "node b became Ready=True 5h0m0s ago; the soak of 1d ends at 2026-03-15T07:00:00Z"},
			wanted{gate.Pass, "Soaked", "quiet for 960h0m0s, since node a booted"},
		},
		{
			"booted in the second in which it joined", func(*cluster.Node) {}, func(e *cluster.Entry) { e.BootedAt = now.Add(-joinedAgo) },
			wanted{gate.Fail, "Soaking", ""}, wanted{gate.Pass, "Soaked", ""},
		},
		{
			"rebooted after it had joined", func(*cluster.Node) {},
			func(e *cluster.Entry) { e.PreviousBootID, e.BootedAt = "earlier", now.Add(-4*time.Hour) },
			wanted{gate.Fail, "Soaking", "node b booted 4h0m0s ago; the soak of 1d ends at 2026-03-15T08:00:00Z"},
			wanted{gate.Fail, "Soaking", "node b booted 4h0m0s ago; the soak of 1d ends at 2026-03-15T08:00:00Z"},
		},
		{
			// Nothing earlier was recorded, yet it was a member when it booted.
			"rebooted before its first record", func(*cluster.Node) {}, func(e *cluster.Entry) { e.BootedAt = now.Add(-joinedAgo + time.Second) },
			wanted{gate.Fail, "Soaking", ""}, wanted{gate.Fail, "Soaking", "node b booted 4h59m59s ago; the soak of 1d ends at 2026-03-15T07:00:01Z"},
		},
		{
			// A machine installed anew under its old name.
			"its name has a past", func(*cluster.Node) {}, func(e *cluster.Entry) { e.PreviousBootID = "earlier" },
			wanted{gate.Fail, "Soaking", ""}, wanted{gate.Fail, "Soaking", "node b became Ready=True 5h0m0s ago; the soak of 1d ends at 2026-03-15T07:00:00Z"},
		},
		{
			"joined, and rebooted without its gate", func(n *cluster.Node) { n.BootID = "new" }, func(*cluster.Entry) {},
			wanted{gate.Unknown, "RebootNotRecorded", ""}, wanted{gate.Unknown, "RebootNotRecorded", ""},
		},
		{
			"joined, and its record is malformed", func(*cluster.Node) {}, malformed,
			wanted{gate.Unknown, "BadRecord", ""}, wanted{gate.Unknown, "BadRecord", ""},
		},
		{
			"joined, and no boot id in its status", func(n *cluster.Node) { n.BootID = "" }, func(*cluster.Entry) {},
			wanted{gate.Unknown, "NoBootID", ""}, wanted{gate.Unknown, "NoBootID", ""},
		},
		{
			"joined, and not Ready yet", func(n *cluster.Node) { n.Ready = "" }, func(*cluster.Entry) {},
			wanted{gate.Unknown, "NoReadyCondition", ""}, wanted{gate.Unknown, "NoReadyCondition", ""},
		},
		{
			"flapped within its first 15 minutes", readyFor(joinedAgo - 15*time.Minute + time.Second), func(*cluster.Entry) {},
			wanted{gate.Fail, "Soaking", ""}, wanted{gate.Pass, "Soaked", ""},
		},
		{
			// Dated a little before it was a member, by a clock a little behind.
			"became Ready 59 seconds too early", readyFor(joinedAgo + time.Minute - time.Second), func(*cluster.Entry) {},
			wanted{gate.Fail, "Soaking", ""}, wanted{gate.Pass, "Soaked", ""},
		},
		{
			// With a clock so far behind, this may be a flap of an hour ago.
			"TestF32JoinedWithItsClockBehind", readyFor(joinedAgo + time.Minute), func(*cluster.Entry) {},
			wanted{gate.Fail, "Soaking", ""},
			wanted{gate.Fail, "Soaking", "node b became Ready=True 5h1m0s ago; the soak of 1d ends at 2026-03-15T06:59:00Z"},
		},
		{
			// Ready since it joined, by a clock that is 4 hours behind: an hour ago.
			"TestF32JoinedAndItsStatusIsOld", func(n *cluster.Node) { n.Heartbeat = now.Add(-4 * time.Hour) }, func(*cluster.Entry) {},
			wanted{gate.Fail, "Soaking", ""},
			wanted{gate.Fail, "Soaking", "node b, whose clock is behind or whose last status is old (4h0m0s), became Ready=True 1h0m0s ago; the soak of 1d ends at 2026-03-15T11:00:00Z"},
		},
		{
			"flapped afterwards", readyFor(joinedAgo - 15*time.Minute), func(*cluster.Entry) {},
			wanted{gate.Fail, "Soaking", ""},
			wanted{gate.Fail, "Soaking", "node b became Ready=True 4h45m0s ago; the soak of 1d ends at 2026-03-15T07:15:00Z"},
		},
		{
			"no record yet", func(n *cluster.Node) { n.Created, n.Since = now.Add(-15*time.Minute+time.Second), now }, nil,
			wanted{gate.Unknown, "NoRecord", ""}, wanted{gate.Pass, "Soaked", "quiet for 960h0m0s, since node a booted"},
		},
		{
			"still no record", func(n *cluster.Node) { n.Created, n.Since = now.Add(-15*time.Minute), now.Add(-14*time.Minute) }, nil,
			wanted{gate.Unknown, "NoRecord", ""}, wanted{gate.Unknown, "NoRecord", ""},
		},
		{
			// The name is an old acquaintance's, whose boot was another.
			"joined under the name of a node that is gone", func(n *cluster.Node) { n.Created, n.Since = now, now },
			func(e *cluster.Entry) { e.BootID = "of the other" },
			wanted{gate.Unknown, "RebootNotRecorded", ""}, wanted{gate.Unknown, "RebootNotRecorded", ""},
		},
	} {
		for _, ignore := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, ignoreJoined %t", c.name, ignore), func(t *testing.T) {
				b := old("b", createdAgo(joinedAgo), readyFor(joinedAgo), c.node)
				records := []cluster.Entry{recorded("a", 40*day)}
				if c.record != nil {
					records = append(records, recorded("b", joinedAgo+10*time.Minute, first, c.record))
				}
				want := c.strict
				if ignore {
					want = c.tolerant
				}
				want.compare(t, soaked([]cluster.Node{old("a"), b}, byNode(records), nil, now, ReadySoakOptions{Duration: model.Duration(day), IgnoreJoined: ignore}))
			})
		}
	}
	for name, ignored := range map[string]bool{"only one boot": true, "two boots": false} {
		t.Run("gone, with "+name+" recorded", func(t *testing.T) {
			gone := recorded("gone", time.Hour)
			want := wanted{gate.Fail, "Soaking", "node gone, which is gone, booted 1h0m0s ago; the soak of 1d ends at 2026-03-15T11:00:00Z"}
			if ignored {
				first(&gone)
				want = wanted{gate.Pass, "Soaked", ""}
			}
			want.compare(t, soaked([]cluster.Node{old("a")}, byNode([]cluster.Entry{recorded("a", 40*day), gone}), nil, now, ReadySoakOptions{Duration: model.Duration(day), IgnoreJoined: true}))
		})
	}
	t.Run("only joined nodes", func(t *testing.T) {
		b := old("b", createdAgo(time.Hour), readyFor(time.Hour))
		wanted{gate.Pass, "Soaked", "no reboot and no change of readiness counts among 1 node"}.compare(t,
			soaked([]cluster.Node{b}, byNode([]cluster.Entry{recorded("b", 2*time.Hour, first)}), nil, now, ReadySoakOptions{Duration: model.Duration(day), IgnoreJoined: true}))
	})
}

func TestReadySoakOptions(t *testing.T) {
	for _, d := range []time.Duration{0, -time.Second} {
		_, problems := newReadySoak(ReadySoakOptions{Duration: model.Duration(d)}, nil)
		if len(problems) != 1 || problems[0].Error() != "options.duration: must be longer than 0s" {
			t.Errorf("%s: %v", d, problems)
		}
	}
	if _, problems := newReadySoak(readySoakDefaults(), nil); len(problems) > 0 {
		t.Error(problems)
	}
}

// dice draws a cluster from the fuzzer's bytes.
type dice struct{ data []byte }

func (d *dice) roll(sides int) int {
	if len(d.data) == 0 {
		return 0
	}
	v := int(d.data[0]) % sides
	d.data = d.data[1:]
	return v
}

// spans are the times at which something changes.
var spans = []time.Duration{
	0, time.Second, joinWindow - time.Second, joinWindow, 10 * time.Minute, 10*time.Minute + time.Second,
	day - time.Second, day, day + time.Second, 100 * day, -time.Second, -2 * day,
}

func (d *dice) at() time.Time {
	if i := d.roll(len(spans) + 1); i < len(spans) {
		return now.Add(-spans[i])
	}
	return time.Time{}
}

func (d *dice) node(name string) cluster.Node {
	return cluster.Node{
		Name: name, Labels: map[string]string{"selected": fmt.Sprint(d.roll(4) > 0), "gated": fmt.Sprint(d.roll(4) > 0)},
		Ready:  []corev1.ConditionStatus{corev1.ConditionTrue, corev1.ConditionFalse, corev1.ConditionUnknown, ""}[d.roll(4)],
		BootID: []string{"one", "two", ""}[d.roll(3)], Created: d.at(), Since: d.at(), Heartbeat: d.at(),
	}
}

func (d *dice) entry(name string) cluster.Entry {
	e := cluster.Entry{Node: name, Record: record.Record{
		Node: name, BootID: []string{"one", "two"}[d.roll(2)], PreviousBootID: []string{"", "zero"}[d.roll(2)], BootedAt: d.at(),
	}}
	switch d.roll(8) {
	case 6:
		opened(&e)
	case 7:
		malformed(&e)
	}
	return e
}

// later moves a time by nothing, or later.
func (d *dice) later(at time.Time) time.Time {
	if at.IsZero() {
		return at // not an event, but the want of one
	}
	return at.Add(max(0, spans[d.roll(len(spans))]))
}

// A soak that is not over, or of which that is not known, is not made so by a
// further node, nor by anything that happened later; and what passes was quiet.
func FuzzSoaked(f *testing.F) {
	f.Add([]byte{}, false)
	f.Add([]byte{2, 1, 1, 0, 0, 9, 9, 1, 1, 0, 1, 9, 0}, false)
	f.Add([]byte{3, 1, 1, 0, 0, 1, 1, 1, 1, 0, 0, 1, 0, 2, 2, 1, 1, 9, 9, 9}, true)
	f.Add([]byte{1, 1, 1, 0, 0, 8, 8, 1, 1, 0, 1, 8, 0, 1, 0, 1, 9, 0, 6, 6, 6}, false)
	f.Add([]byte{4, 1, 1, 1, 1, 11, 11, 5, 1, 1, 0, 11, 7, 0, 0, 3, 2, 12, 12, 12}, true)
	f.Fuzz(func(t *testing.T, data []byte, ignoreJoined bool) {
		d := &dice{data}
		o := ReadySoakOptions{Duration: model.Duration(day), Selector: selector(t, "selected=true"), GateSelector: selector(t, "gated=true"), IgnoreJoined: ignoreJoined}
		var nodes []cluster.Node
		records := map[string]cluster.Entry{}
		for i := range d.roll(5) {
			name := fmt.Sprintf("n%d", i)
			nodes = append(nodes, d.node(name))
			if d.roll(4) > 0 {
				records[name] = d.entry(name)
			}
		}
		if d.roll(2) > 0 {
			records["gone"] = d.entry("gone")
		}

		got := soaked(nodes, records, nil, now, o)
		switch {
		case got.Reason == "" || got.Message == "":
			t.Errorf("a result without words: %+v", got)
		case got.Reason == "Soaking" && (got.RetryAfter == 0) != strings.Contains(got.Message, "in the future"),
			got.Reason != "Soaking" && got.RetryAfter != 0:
			t.Errorf("%s (%s) announces a change after %s", got.Reason, got.Message, got.RetryAfter)
		case got.RetryAfter < 0 || got.RetryAfter > day:
			t.Errorf("a soak of a day is announced to last another %s", got.RetryAfter)
		}
		if got.Verdict == gate.Pass {
			if !ignoreJoined {
				provenQuiet(t, nodes, records)
			}
			return
		}

		shifted := slices.Clone(nodes)
		for i := range shifted {
			if ignoreJoined && shifted[i].Since.Before(shifted[i].Created) {
				continue // dated before it joined it is suspect, and counts; later, it would be part of joining
			}
			shifted[i].Since = d.later(shifted[i].Since)
		}
		moved := maps.Clone(records)
		for _, name := range slices.Sorted(maps.Keys(moved)) {
			e := moved[name]
			e.BootedAt = d.later(e.BootedAt)
			moved[name] = e
		}
		if r := soaked(shifted, moved, nil, now, o); r.Verdict == gate.Pass {
			t.Errorf("%s (%s) passes when events are moved later: %s\nbefore %+v %+v\nafter  %+v %+v", got.Reason, got.Message, r.Message, nodes, records, shifted, moved)
		}

		if got.Reason == "NoNodes" {
			return // a node is what it wants
		}
		more := maps.Clone(records)
		if d.roll(4) > 0 {
			more["added"] = d.entry("added")
		}
		added := append(slices.Clone(nodes), d.node("added"))
		if r := soaked(added, more, nil, now, o); r.Verdict == gate.Pass {
			t.Errorf("%s (%s) passes with a node more: %s\n%+v %+v", got.Reason, got.Message, r.Message, added, more)
		}
	})
}

// provenQuiet asks of what passed, in other words than soaked does, whether
// everything in it is known and a day old.
func provenQuiet(t *testing.T, nodes []cluster.Node, records map[string]cluster.Entry) {
	t.Helper()
	limit := now.Add(-day)
	exists := map[string]bool{}
	for _, n := range nodes {
		exists[n.Name] = true
		if n.Labels["selected"] != "true" {
			continue
		}
		if n.Ready == "" || n.Since.IsZero() || n.Since.After(limit) {
			t.Errorf("it passes with the node %+v", n)
		}
		e, recorded := records[n.Name]
		if n.Labels["gated"] == "true" && (!recorded || e.Err != nil || n.BootID == "" || e.BootID != n.BootID || e.BootedAt.After(limit)) {
			t.Errorf("it passes with the record %+v of %+v", e, n)
		}
	}
	for name, e := range records {
		if !exists[name] && (e.Err != nil || e.State == "Open" || e.BootedAt.After(limit)) {
			t.Errorf("it passes with the record %+v of a node that is gone", e)
		}
	}
}

// F14: a node that runs no gate has no record either, and joins all the same.
func TestF14JoinedWithoutAGate(t *testing.T) {
	windows := cluster.Node{
		Name: "w", Labels: map[string]string{"kubernetes.io/os": "windows"}, Created: now.Add(-5 * time.Hour),
		BootID: "w-boot", Ready: "True", Since: now.Add(-5*time.Hour + time.Minute), Heartbeat: now,
	}
	o := readySoakDefaults()
	o.GateSelector = selector(t, "kubernetes.io/os!=windows")
	wanted{gate.Fail, "Soaking", ""}.compare(t, soaked([]cluster.Node{windows}, nil, nil, now, o))
	o.IgnoreJoined = true
	wanted{gate.Pass, "Soaked", "no reboot and no change of readiness counts among 1 node"}.compare(t, soaked([]cluster.Node{windows}, nil, nil, now, o))
	windows.Since = now.Add(-time.Hour)
	wanted{gate.Fail, "Soaking", ""}.compare(t, soaked([]cluster.Node{windows}, nil, nil, now, o))
}

// F43: a node is gone whose gate was open. What the turn has settled, by a takeover and a
// whole soak, is settled for the step too.
func TestF43TheTurnHasSettledIt(t *testing.T) {
	day := 24 * time.Hour
	now := time.Date(2026, 3, 14, 12, 0, 0, 0, time.UTC)
	alive := cluster.Node{Name: "a", BootID: "a", Ready: "True", Created: now.Add(-90 * day), Since: now.Add(-90 * day), Heartbeat: now}
	records := map[string]cluster.Entry{
		"a":    {Node: "a", Record: record.Record{Node: "a", BootID: "a", BootedAt: now.Add(-90 * day), State: "Closed"}},
		"spot": {Node: "spot", Record: record.Record{Node: "spot", BootID: "s", BootedAt: now.Add(-90 * day), State: "Open", TurnEpoch: 7}},
	}
	o := ReadySoakOptions{Duration: model.Duration(day)}
	for name, c := range map[string]struct {
		stands *turn.State
		want   wanted
	}{
		"without a turn":        {nil, wanted{gate.Unknown, "GoneWhileOpen", ""}},
		"it still has the turn": {&turn.State{Epoch: 7, Phase: turn.PhaseOpen, Holder: "spot"}, wanted{gate.Unknown, "GoneWhileOpen", ""}},
		"and it was touched":    {&turn.State{Epoch: 8, Phase: turn.PhaseOpen, Holder: "spot"}, wanted{gate.Unknown, "GoneWhileOpen", ""}},
		"an older turn":         {&turn.State{Epoch: 5, Phase: turn.PhaseGranted, Holder: "a"}, wanted{gate.Unknown, "GoneWhileOpen", ""}},
		"its soak runs":         {&turn.State{Epoch: 8, Phase: turn.PhaseSoaking, Holder: "spot", RebootedAt: now.Add(-time.Hour)}, wanted{gate.Fail, "Soaking", "node spot, which is gone, counts as rebooted 1h0m0s ago; the soak of 1d ends at 2026-03-15T11:00:00Z"}},
		"its soak was over":     {&turn.State{Epoch: 9, Phase: turn.PhaseGranted, Holder: "a"}, wanted{gate.Pass, "Soaked", ""}},
	} {
		t.Run(name, func(t *testing.T) {
			c.want.compare(t, soaked([]cluster.Node{alive}, records, c.stands, now, o))
		})
	}
}

// F75: nodes that are containers of one machine have one boot id, and their reboots do not
// show: Unknown, by name.
func TestF75OneBootIDOnTwoNodes(t *testing.T) {
	now := time.Date(2026, 3, 14, 12, 0, 0, 0, time.UTC)
	long := now.Add(-90 * 24 * time.Hour)
	var nodes []cluster.Node
	records := map[string]cluster.Entry{}
	for _, name := range []string{"a", "b"} {
		nodes = append(nodes, cluster.Node{Name: name, BootID: "same", Ready: "True", Created: long, Since: long, Heartbeat: now})
		records[name] = cluster.Entry{Node: name, Record: record.Record{Node: name, BootID: "same", BootedAt: long, State: "Closed"}}
	}
	wanted{gate.Unknown, "SharedBootID", "cannot tell when 1 of 2 nodes last rebooted: b (has the bootID of a: nodes that are containers of one machine, whose reboots do not show)"}.compare(t,
		soaked(nodes, records, nil, now, readySoakDefaults()))
}
