package turn

import (
	"fmt"
	"testing"
	"time"
)

// A gate whose node neither waits nor has the turn recalls its record and reads the
// turn once, at its start. Whatever its own gate says, and however much time passes, it
// asks nothing more; when its node begins to wait it reads afresh.
func TestIdleAsksNothing(t *testing.T) {
	w := newWorld(time.Hour, 0, 2, 1)
	w.named("a").raw = false
	w.named("a").start()
	g := w.named("a").gate
	var asked []string
	w.hears = func(of *gate, _ Event, e Effects) {
		if of == g && e.Request != nil {
			asked = append(asked, fmt.Sprintf("%T", e.Request))
		}
	}
	w.calm(w.clock.Add(time.Minute), idle)
	g.closedSince = w.clock // it has something to say
	w.calm(w.clock.Add(10*time.Hour), idle)
	if got := fmt.Sprint(asked); got != "[turn.ReadLease]" { // the record was asked at once
		t.Errorf("an idle gate asked %s", got)
	}
	if !g.wakeAt.IsZero() || g.follow != "" {
		t.Errorf("it is woken at %s, and watches from %q", g.wakeAt, g.follow)
	}
	asked = nil
	w.named("a").raw = true
	w.calm(w.clock.Add(time.Second), idle)
	if len(asked) == 0 || asked[0] != "turn.ReadLease" {
		t.Errorf("a gate that begins to wait asked %v", asked)
	}
}

// While an evaluation asks whether the gate may open, a halt is heard of although a
// request is under way, and the gate does not open.
func TestHaltWhileARequestIsUnderWay(t *testing.T) {
	w := newWorld(time.Minute, 0, 1, 1)
	n := w.named("a")
	w.calm(w.clock.Add(time.Hour), idle)
	if !n.resolves() {
		t.Fatalf("not open: %s", n.gate.view.Why())
	}
	n.gate.evaluate(true, false, 0)
	if n.gate.request == nil {
		t.Fatal("nothing is asked for an evaluation that passed")
	}
	w.edit(HaltKey, "INC-1")
	for n.gate.unseen() {
		n.gate.seen++
		n.gate.step(w.history[n.gate.seen-1])
	}
	if n.gate.open || n.gate.view.Why() != "halted: INC-1" {
		t.Errorf("open %t: %s", n.gate.open, n.gate.view.Why())
	}
	for n.gate.due() {
		n.gate.run()
	}
	if !n.gate.permitted.IsZero() || n.gate.open {
		t.Error("it may open, and is halted")
	}
}

// F38: what a gate has written is put on record before anything follows, also where an
// operator has edited the Lease between the write and its answer.
func TestWrittenEpochIsPutOnRecordAlthoughTheLeaseHasChanged(t *testing.T) {
	w := newWorld(time.Minute, 0, 1, 1)
	g := w.named("a").gate
	wrote := func() bool { _, ok := g.reply.(Wrote); return ok }
	for end := w.clock.Add(time.Hour); !wrote() && w.clock.Before(end); {
		if !g.due() {
			w.clock = w.clock.Add(time.Second)
			continue
		}
		g.run()
	}
	if !wrote() {
		t.Fatalf("nothing was written: %s", g.view.Why())
	}
	w.edit(HoldPrefix+"b", "a migration")
	for g.unseen() {
		g.seen++
		g.step(w.history[g.seen-1])
	}
	written := g.reply.(Wrote)
	g.request, g.reply = nil, nil
	g.step(written)
	if r, ok := g.request.(RecordEpoch); !ok || r.Epoch != written.Epoch {
		t.Errorf("epoch %d was written, and it wants %#v", written.Epoch, g.request)
	}
}

// A Lease that the watch has seen made is not taken for missing by a LIST that was
// answered before.
func TestReadThatIsOlderThanWhatWasHeard(t *testing.T) {
	w := newWorld(time.Minute, 0, 1, 1)
	g := w.named("a").gate
	w.calm(w.clock.Add(time.Hour), idle)
	w.remove()
	for g.due() {
		g.run()
	}
	w.clock = w.clock.Add(time.Second)
	g.step(Asked{})
	answer := g.carryOut(g.request)
	if read, ok := answer.(Read); !ok || read.Lease != nil {
		t.Fatalf("asked %T, and got %+v", g.request, answer)
	}
	w.put(w.copies[len(w.copies)-1]) // made again meanwhile
	for g.unseen() {
		g.seen++
		g.step(w.history[g.seen-1])
	}
	g.request = nil
	g.step(answer)
	if g.core.problem != nil {
		t.Errorf("it was heard of, and then: %v", g.core.problem)
	}
}
