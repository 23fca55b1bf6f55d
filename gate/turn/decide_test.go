package turn

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestDecide: each row is a branch. The node is a; b and c wait too.
func TestDecide(t *testing.T) {
	config := Config{
		Node: "a", BootID: "1", Soak: time.Hour, MaxAge: 45 * time.Second, Settle: 15 * time.Minute,
		GrantTimeout: 30 * time.Minute, Interval: 30 * time.Second, Aging: 7 * 24 * time.Hour,
	}
	ago := func(d time.Duration) time.Time { return noon.Add(-d) }
	pending := Local{Pending: true, BootedAt: ago(50 * time.Hour), ClosedFor: time.Hour}
	local := func(change func(*Local)) Local { l := pending; change(&l); return l }
	granted := State{Epoch: 7, Phase: PhaseGranted, Holder: "a", BootID: "1", Since: ago(time.Minute), Acknowledged: true}
	open := State{Epoch: 7, Phase: PhaseOpen, Holder: "a", BootID: "1", Since: ago(time.Minute), Acknowledged: true}
	with := func(s State, change func(*State)) State { change(&s); return s }
	others := func(s State) State { s.Holder = "b"; return s }
	all := &[]Candidate{
		{Node: "a", BootID: "1", Member: true, PendingSince: ago(3 * time.Hour)},
		{Node: "b", BootID: "2", Member: true, PendingSince: ago(2 * time.Hour)},
		{Node: "c", BootID: "3", Member: true, PendingSince: ago(time.Hour)},
	}
	alone := &[]Candidate{(*all)[0]}
	here := Holder{NodeBootID: "1", RecordBootID: "1", LockKnown: true}
	there := func(change func(*Holder)) *Holder { h := here; change(&h); return &h }
	withdrawn := with(open, func(s *State) { s.Withdrawn, s.NotActedOn = true, 1 })

	for name, c := range map[string]struct {
		state    State
		operator Operator
		local    Local
		seen     Seen
		want     string
	}{
		// Where it is not known when a node booted it is taken for later than now by
		// the 7s that a request and two roundings can hide.
		"never used":                          {State{}, Operator{}, Local{}, Seen{}, "the turn has never been used"},
		"never used, and a reboot is pending": {State{Epoch: 9}, Operator{}, pending, Seen{}, "soaking(10, from 0s ago) the turn's Lease is new, so earlier reboots are unknown; a soak begins"},

		"F12 this node has rebooted":       {with(open, func(s *State) { s.BootID = "0" }), Operator{}, local(func(l *Local) { l.BootedAt = ago(30 * time.Second) }), Seen{}, "soaking a(8, from 30s ago) this node has rebooted; its soak begins"},
		"before it was granted":            {with(granted, func(s *State) { s.BootID = "0" }), Operator{}, pending, Seen{}, "soaking a(8, from 1m0s ago)"},
		"and nobody knows when":            {with(open, func(s *State) { s.BootID = "0" }), Operator{}, Local{}, Seen{}, "soaking a(8, from -7s ago)"},
		"and its clock is ahead":           {with(open, func(s *State) { s.BootID = "0" }), Operator{}, local(func(l *Local) { l.BootedAt = noon.Add(time.Hour) }), Seen{}, "soaking a(8, from -7s ago)"},
		"F75 with the same boot id":        {with(open, func(s *State) { s.Since = ago(time.Hour) }), Operator{}, local(func(l *Local) { l.BootedAt = ago(20 * time.Minute) }), Seen{}, "soaking a(8, from 20m0s ago) this node has rebooted; its soak begins"},
		"F65 a time in the future":         {State{Epoch: 7, Phase: PhaseSoaking, Holder: "b", Since: noon.AddDate(10, 0, 0), RebootedAt: noon.AddDate(10, 0, 0)}, Operator{}, pending, Seen{PhaseFor: 10 * time.Minute}, "LOUD soaking until 2026-01-31T12:52:00Z: b rebooted, by a time in the turn that is in the future"},
		"F65 and as long as a soak":        {State{Epoch: 7, Phase: PhaseSoaking, Holder: "b", Since: noon.AddDate(10, 0, 0), RebootedAt: noon.AddDate(10, 0, 0)}, Operator{}, pending, Seen{PhaseFor: 63 * time.Minute}, "NEEDS CANDIDATES the soak is over"},
		"F65 not over by the own clock":    {State{Epoch: 7, Phase: PhaseSoaking, Holder: "b", Since: ago(2 * time.Hour), RebootedAt: ago(2 * time.Hour)}, Operator{}, pending, Seen{SoakLeft: 40 * time.Minute}, "soaking until 2026-01-31T12:40:00Z: b rebooted again 40m0s"},
		"F65 granted too soon":             {granted, Operator{}, local(func(l *Local) { l.Ready = true }), Seen{SoakLeft: 40 * time.Minute, Holder: &here}, "LOUD this node has the turn; by its own clock the soak is over at 2026-01-31T12:40:00Z: the clock of an API server is or was ahead again 40m0s"},
		"F97 left cordoned in its soak":    {State{Epoch: 7, Phase: PhaseSoaking, Holder: "b", Since: ago(20 * time.Minute), RebootedAt: ago(20 * time.Minute)}, Operator{}, pending, Seen{LeftCordoned: true, Holder: &here}, "LOUD soaking until 2026-01-31T12:40:00Z: b rebooted; it is back and still cordoned, although kured's lock is free: kured's uncordon failed"},
		"F100 kured waits by its own rule": {open, Operator{}, local(func(l *Local) { l.Open, l.Cannot = true, CauseKuredWaits }), Seen{}, "LOUD open a(8, boot 1, acknowledged, withdrawn, passed over a KuredWaits)"},
		"F44 the link cannot be made":      {open, Operator{}, local(func(l *Local) { l.Cannot, l.ClosedFor = CauseCannotOpen, 0 }), Seen{}, "LOUD open a(8, boot 1, acknowledged, withdrawn, passed over a CannotOpen)"},
		"F99 not acted on, and why":        {open, Operator{}, local(func(l *Local) { l.Open, l.NotActedOn, l.KuredsLock = true, true, "kured's lock was left behind" }), Seen{}, "LOUD open a(8, boot 1, acknowledged, withdrawn, not acted on 1) kured did not act on this open gate; kured's lock was left behind; the gate"},
		"F45 its steps err":                {granted, Operator{}, local(func(l *Local) { l.Cannot = CauseStepsErr }), Seen{Candidates: all}, "EVALUATES LOUD granted b(8, boot 2, passed over a StepsErr, next [b c a] of 3)"},
		"F45 and alone":                    {granted, Operator{}, local(func(l *Local) { l.Cannot = CauseStepsErr }), Seen{Candidates: alone}, "EVALUATES LOUD this node cannot use the turn: its steps err or time out, and a is next again 14m1s"},
		"F45 as another's did":             {with(granted, func(s *State) { s.PassedOver = []PassedOver{{"b", CauseStepsErr, ago(time.Minute)}} }), Operator{}, local(func(l *Local) { l.Cannot = CauseStepsErr }), Seen{Candidates: all}, "EVALUATES LOUD this node has the turn; steps err or time out here, as they did on b: it is not this node's own trouble"},
		"F45 and whose fault it was":       {with(granted, func(s *State) { s.PassedOver = []PassedOver{{"b", CauseStepsErr, ago(time.Minute)}} }), Operator{}, local(func(l *Local) { l.Ready = true }), Seen{Holder: &here}, "EVALUATES PERMITS open a(8, boot 1, acknowledged, passed over b StepsErrThereAlone)"},
		"halted, but a reboot is a reboot": {with(open, func(s *State) { s.BootID = "0" }), Operator{Halted: true}, pending, Seen{}, "soaking a(8, from 1m0s ago)"},
		"F30 halted":                       {open, Operator{Halted: true, HaltReason: "an incident"}, local(func(l *Local) { l.Open, l.Ready = true, true }), Seen{}, "LOUD halted: an incident"},
		"released":                         {others(open), Operator{Release: 7}, pending, Seen{ReleasedFor: time.Minute}, "b was released from its turn; it counts as rebooted in 30s again 30s"},
		"released long enough":             {others(open), Operator{Release: 7}, pending, Seen{ReleasedFor: 90 * time.Second}, "soaking b(8, from -7s ago) b was released from its turn; a soak begins"},
		"F38 released of an earlier epoch": {others(open), Operator{Release: 6}, pending, Seen{ReleasedFor: time.Hour}, "NEEDS HOLDER b has the turn; its gate was opened at 2026-01-31T11:59:00Z"},
		"the holder itself is released":    {open, Operator{Release: 7}, local(func(l *Local) { l.Open = true }), Seen{}, "a was released from its turn; it counts as rebooted in 1m30s again 1m30s"},

		"soaking":                                {State{Epoch: 7, Phase: PhaseSoaking, Holder: "b", Since: ago(10 * time.Minute), RebootedAt: ago(20 * time.Minute)}, Operator{}, pending, Seen{}, "soaking until 2026-01-31T12:40:00Z: b rebooted again 40m0s"},
		"soaking, just written":                  {State{Epoch: 7, Phase: PhaseSoaking, Since: ago(time.Minute), RebootedAt: ago(3 * time.Hour)}, Operator{}, pending, Seen{}, "soaking until 2026-01-31T12:00:30Z: the turn's Lease is new, so earlier reboots are unknown again 30s"},
		"the soak is over":                       {State{Epoch: 7, Phase: PhaseSoaking, Holder: "b", Since: ago(2 * time.Hour), RebootedAt: ago(2 * time.Hour)}, Operator{}, pending, Seen{}, "NEEDS CANDIDATES the soak is over"},
		"and somebody is next":                   {State{Epoch: 7, Phase: PhaseSoaking, Holder: "b", Since: ago(2 * time.Hour), RebootedAt: ago(2 * time.Hour), NotActedOn: 2}, Operator{}, pending, Seen{Candidates: all}, "granted a(8, boot 1, acknowledged, next [a b c] of 3) the soak is over, and a is next"},
		"and it does not wait":                   {State{Epoch: 7, Phase: PhaseSoaking, Holder: "b", Since: ago(2 * time.Hour), RebootedAt: ago(2 * time.Hour)}, Operator{}, Local{}, Seen{}, "the soak is over"},
		"free":                                   {State{Epoch: 7, Phase: PhaseFree, Since: noon}, Operator{}, pending, Seen{}, "NEEDS CANDIDATES the turn is free"},
		"free, and it does not wait":             {State{Epoch: 7, Phase: PhaseFree, Holder: "b", Since: noon}, Operator{}, Local{}, Seen{}, "the turn is free"},
		"free, behind the one that handed on":    {State{Epoch: 7, Phase: PhaseFree, Holder: "a", Since: noon, NotActedOn: 1}, Operator{}, pending, Seen{Candidates: all}, "granted b(8, boot 2, not acted on 1, next [a b c] of 3)"},
		"free, and this node is held":            {State{Epoch: 7, Phase: PhaseFree, Since: noon}, Operator{Holds: map[string]string{"a": "why"}}, pending, Seen{Candidates: alone}, "the turn is free, but this node is held: why"},
		"free, and the own record is on its way": {State{Epoch: 7, Phase: PhaseFree, Since: noon}, Operator{}, pending, Seen{Candidates: &[]Candidate{}}, "the turn is free, but this node's record does not say yet that it waits again 5s"},
		"F38 another has seen a newer epoch":     {State{Epoch: 7, Phase: PhaseFree, Since: noon}, Operator{}, pending, Seen{Candidates: &[]Candidate{{Node: "b", Epoch: 8}}}, "LOUD the turn's epoch 7 is older than 8, which b has seen: an old copy of the Lease was restored"},

		"granted":                          {granted, Operator{}, pending, Seen{}, "EVALUATES this node has the turn again 14m1s"},
		"granted, not acknowledged":        {with(granted, func(s *State) { s.Acknowledged = false }), Operator{}, pending, Seen{}, "EVALUATES granted a(8, boot 1, acknowledged)"},
		"granted for long":                 {with(granted, func(s *State) { s.Since = ago(16 * time.Minute) }), Operator{}, pending, Seen{}, "EVALUATES granted a(8, boot 1, acknowledged)"},
		"granted and ready":                {granted, Operator{}, local(func(l *Local) { l.Ready = true }), Seen{}, "EVALUATES NEEDS HOLDER"},
		"granted, ready and seen":          {granted, Operator{}, local(func(l *Local) { l.Ready = true }), Seen{Holder: &here}, "EVALUATES PERMITS open a(8, boot 1, acknowledged) this node has the turn; its gate opens"},
		"granted, and the kubelet is late": {granted, Operator{}, local(func(l *Local) { l.Ready = true }), Seen{Holder: there(func(h *Holder) { h.NodeBootID = "0" })}, "EVALUATES this node has the turn, but its Node object or its record does not show this boot yet again 1m0s"},
		"granted, and the record is late":  {granted, Operator{}, local(func(l *Local) { l.Ready = true }), Seen{Holder: there(func(h *Holder) { h.RecordBootID = "0" })}, "EVALUATES this node has the turn, but its Node object or its record"},
		"granted, and no Node object":      {granted, Operator{}, local(func(l *Local) { l.Ready = true }), Seen{Holder: &Holder{Gone: true}}, "EVALUATES this node has the turn, but its Node object or its record"},
		"granted, but blocked":             {granted, Operator{}, local(func(l *Local) { l.NodeBlocked = true }), Seen{Candidates: all}, "EVALUATES granted b(8, boot 2, next [a b c] of 3) this node's own steps hold it back, and b is next"},
		"granted, blocked and alone":       {granted, Operator{}, local(func(l *Local) { l.NodeBlocked = true }), Seen{Candidates: alone}, "EVALUATES this node's own steps hold it back, and a is next again 14m1s"},
		"granted, and held":                {granted, Operator{Holds: map[string]string{"a": "why"}}, local(func(l *Local) { l.Ready = true }), Seen{Candidates: all}, "granted b(8, boot 2, next [b c] of 2) this node hands the turn on, and b is next again 30s"},
		"granted, and no longer pending":   {granted, Operator{}, Local{}, Seen{Candidates: alone}, "free a(8) no node waits; the turn becomes free again 30s"},

		"granted to another":                   {others(granted), Operator{}, pending, Seen{}, "b has the turn since 2026-01-31T11:59:00Z again 29m0s"},
		"granted to another, with some ahead":  {with(others(granted), func(s *State) { s.Next = []string{"b", "c", "a"} }), Operator{}, pending, Seen{}, "b has the turn since 2026-01-31T11:59:00Z; ahead: c again 29m0s"},
		"granted to another that says nothing": {with(others(granted), func(s *State) { s.Acknowledged, s.Since = false, ago(151*time.Second) }), Operator{}, pending, Seen{Candidates: all}, "granted a(8, boot 1, acknowledged, passed over b Silent, next [a c b] of 3) b was granted the turn but its gate did not respond in time, and a is next"},
		"and it may still say something":       {with(others(granted), func(s *State) { s.Acknowledged = false }), Operator{}, pending, Seen{}, "again 1m30s"},
		"and this one does not wait":           {with(others(granted), func(s *State) { s.Since = ago(time.Hour) }), Operator{}, Local{}, Seen{}, "b has the turn since 2026-01-31T11:00:00Z"},

		"open":                       {open, Operator{}, local(func(l *Local) { l.Open = true }), Seen{}, "EVALUATES PERMITS this node has the turn; its gate was opened"},
		"open, closed again":         {open, Operator{}, local(func(l *Local) { l.ClosedFor = time.Minute }), Seen{}, "EVALUATES PERMITS this node has the turn; its gate was opened again 14m0s"},
		"open, and held":             {open, Operator{Holds: map[string]string{"a": "why"}}, local(func(l *Local) { l.Open = true }), Seen{}, "this node is held: why"},
		"open, and not pending":      {open, Operator{}, Local{ClosedFor: time.Minute}, Seen{}, "this node has the turn; its gate was opened again 14m0s"},
		"open, closed for long":      {open, Operator{}, pending, Seen{}, "EVALUATES PERMITS NEEDS HOLDER"},
		"F36 kured has its lock":     {open, Operator{}, pending, Seen{Holder: there(func(h *Holder) { h.LockNamed = true })}, "EVALUATES PERMITS LOUD this node keeps the turn: kured's lock names it again 1m0s"},
		"F36 kured has cordoned":     {open, Operator{}, local(func(l *Local) { l.ClosedFor = 44 * time.Minute }), Seen{Holder: there(func(h *Holder) { h.Unschedulable = true })}, "EVALUATES PERMITS this node keeps the turn: it is cordoned again 1m0s"},
		"F97 its uncordon failed":    {open, Operator{}, pending, Seen{Candidates: all, Holder: there(func(h *Holder) { h.Unschedulable = true })}, "LOUD granted b(8, boot 2, passed over a Cordoned, next [b c a] of 3) this node is cordoned, although its gate is closed and kured's lock is free"},
		"kured's lock is not known":  {open, Operator{}, pending, Seen{Holder: there(func(h *Holder) { h.LockKnown = false })}, "EVALUATES PERMITS LOUD this node keeps the turn: kured's lock cannot be read"},
		"another boot in its status": {open, Operator{}, pending, Seen{Holder: there(func(h *Holder) { h.NodeBootID = "2" })}, "EVALUATES PERMITS LOUD this node keeps the turn: its Node object shows another boot"},
		"its Node object is gone":    {open, Operator{}, pending, Seen{Holder: &Holder{Gone: true}}, "EVALUATES PERMITS LOUD this node keeps the turn: its Node object is gone"},
		"kured does not have it":     {open, Operator{}, pending, Seen{Holder: &here}, "EVALUATES granted a(8, boot 1, acknowledged) the gate has been closed for 1h0m0s, and kured does not hold this node"},

		"not acted on":                   {open, Operator{}, local(func(l *Local) { l.Open, l.NotActedOn = true, true }), Seen{}, "LOUD open a(8, boot 1, acknowledged, withdrawn, not acted on 1) kured did not act on this open gate"},
		"withdrawn":                      {withdrawn, Operator{}, local(func(l *Local) { l.ClosedFor = time.Minute }), Seen{}, "LOUD kured did not act on this open gate; the gate is closed and will hand the turn on again 14m0s"},
		"withdrawn, and looked at":       {withdrawn, Operator{}, pending, Seen{Holder: &here}, "LOUD NEEDS CANDIDATES kured did not act on this open gate; the gate is closed and will hand the turn on again 30s"},
		"withdrawn, but kured has it":    {withdrawn, Operator{}, pending, Seen{Holder: there(func(h *Holder) { h.LockNamed = true })}, "LOUD this node keeps the turn: kured's lock names it again 1m0s"},
		"withdrawn, and handed on":       {withdrawn, Operator{}, pending, Seen{Holder: &here, Candidates: all}, "LOUD granted b(8, boot 2, not acted on 1, next [a b c] of 3)"},
		"the second that is not":         {with(open, func(s *State) { s.NotActedOn = 1 }), Operator{}, local(func(l *Local) { l.Open, l.NotActedOn = true, true }), Seen{}, "EVALUATES PERMITS LOUD open a(8, boot 1, acknowledged, not acted on 2) turn stopped"},
		"stopped":                        {with(open, func(s *State) { s.NotActedOn = 2 }), Operator{}, pending, Seen{}, "EVALUATES PERMITS LOUD turn stopped"},
		"stopped, and no longer pending": {with(open, func(s *State) { s.NotActedOn = 2 }), Operator{}, Local{ClosedFor: time.Hour}, Seen{Holder: &here}, "granted a(8, boot 1, acknowledged, not acted on 2)"},

		"F26 another's is open":        {others(open), Operator{}, pending, Seen{Holder: there(func(*Holder) {})}, "b has the turn; its gate was opened"},
		"F26 for long, and it is down": {others(with(open, func(s *State) { s.Since = ago(2 * config.GrantTimeout) })), Operator{}, pending, Seen{HolderDown: true, Holder: there(func(*Holder) {})}, "LOUD b has the turn"},
		"for long, and it is up":       {others(with(open, func(s *State) { s.Since = ago(2 * config.GrantTimeout) })), Operator{}, pending, Seen{Holder: there(func(*Holder) {})}, "b has the turn"},
		"it is down, not for long":     {others(open), Operator{}, pending, Seen{HolderDown: true, Holder: there(func(*Holder) {})}, "b has the turn"},
		"and this node does not wait":  {others(open), Operator{}, Local{}, Seen{}, "b has the turn; its gate was opened"},
		"F27 its Node is gone":         {others(open), Operator{}, pending, Seen{Holder: &Holder{Gone: true, GoneFor: time.Minute}}, "LOUD b has the turn, but its Node object is gone; it counts as rebooted in 30s again 30s"},
		"F15 it is gone for long":      {others(open), Operator{}, pending, Seen{Holder: &Holder{Gone: true, GoneFor: 90 * time.Second}}, "soaking b(8, from -7s ago) b had the turn and its Node object is gone: a soak begins"},
		"F12 its record tells":         {others(open), Operator{}, pending, Seen{Holder: &Holder{NodeBootID: "1", RecordBootID: "2", RecordBootedAt: ago(40 * time.Second)}}, "soaking b(8, from 40s ago) b has rebooted; its soak runs"},
		"F12 its status tells":         {others(open), Operator{}, pending, Seen{Holder: &Holder{NodeBootID: "2", RecordBootID: "1"}}, "soaking b(8, from -7s ago) b has rebooted but its gate has not come back: the soak runs from now"},
		"F75 the same boot id, later":  {others(with(open, func(s *State) { s.Since = ago(time.Hour) })), Operator{}, pending, Seen{Holder: &Holder{NodeBootID: "1", RecordBootID: "1", RecordBootedAt: ago(5 * time.Minute)}}, "soaking b(8, from 5m0s ago) b has rebooted; its soak runs"},
		"nothing is known of it":       {others(open), Operator{}, pending, Seen{Holder: &Holder{}}, "b has the turn; its gate was opened"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.seen.Now = noon; c.seen.PhaseFor == 0 && !c.state.Since.IsZero() { // it was seen from its beginning
				c.seen.PhaseFor = noon.Sub(c.state.Since)
			}
			d := Decide(config, c.state, c.operator, c.local, c.seen)
			if got := tells(d); !strings.Contains(got, c.want) || strings.HasPrefix(c.want, "b has the turn") && !strings.HasPrefix(got, c.want) {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
			if d.Write != nil && !d.Write.Since.Equal(noon) {
				t.Errorf("since %s", d.Write.Since)
			}
			if d.Again < 0 {
				t.Errorf("again %s", d.Again)
			}
		})
	}
}

// tells is a move in a line.
func tells(d Move) string {
	var words []string
	for _, w := range []struct {
		is   bool
		word string
	}{{d.Evaluate, "EVALUATES"}, {d.Permit, "PERMITS"}, {d.Loud, "LOUD"}, {d.Need == NeedHolder, "NEEDS HOLDER"}, {d.Need == NeedCandidates, "NEEDS CANDIDATES"}} {
		if w.is {
			words = append(words, w.word)
		}
	}
	if s := d.Write; s != nil {
		what := []string{fmt.Sprint(s.Epoch)}
		add := func(is bool, format string, args ...any) {
			if is {
				what = append(what, fmt.Sprintf(format, args...))
			}
		}
		add(s.Phase == PhaseSoaking, "from %s ago", noon.Sub(s.RebootedAt))
		add(s.BootID != "", "boot %s", s.BootID)
		add(s.Acknowledged, "acknowledged")
		add(s.Withdrawn, "withdrawn")
		add(s.NotActedOn > 0, "not acted on %d", s.NotActedOn)
		for _, p := range s.PassedOver {
			add(true, "passed over %s %s", p.Node, string(p.Cause))
		}
		add(s.Waiting > 0, "next %v of %d", s.Next, s.Waiting)
		words = append(words, strings.TrimSpace(string(s.Phase)+" "+s.Holder)+"("+strings.Join(what, ", ")+")")
	}
	words = append(words, d.Why)
	if d.Again != 0 {
		words = append(words, "again "+d.Again.String())
	}
	return strings.Join(words, " ")
}
