package turn

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the transcripts anew")

// TestTranscripts compares whole rollouts, event by event, with testdata/*.txt, which
// a person can read as stories.
func TestTranscripts(t *testing.T) {
	for _, story := range []struct {
		name, title string
		nodes       int
		tell        func(*teller)
	}{
		{"one-after-the-other", "Two nodes want a reboot. The second waits until the first has rebooted and the soak is over.", 2, func(s *teller) {
			s.free()
			s.until("a is open", func() bool { return s.w.named("a").resolves() })
			s.say("kured sees the gated sentinel, takes its lock, and reboots a")
			s.reboots("a")
			s.until("b is open, after the soak", func() bool { return s.w.named("b").resolves() })
		}},
		{"halt", "Somebody halts the rollout while a gate is open, and lets it go on.", 1, func(s *teller) {
			s.free()
			s.until("a is open", func() bool { return s.w.named("a").resolves() })
			s.say("an operator halts the rollout")
			s.w.edit(HaltKey, "INC-1")
			s.until("a is closed", func() bool { return !s.w.named("a").resolves() })
			s.say("the operator takes the halt back")
			s.w.edit(HaltKey, "")
			s.until("a is open again", func() bool { return s.w.named("a").resolves() })
		}},
		{"deleted-holder", "The node whose gate is open is deleted. The other waits until that gate is surely closed, and then for a whole soak.", 2, func(s *teller) {
			s.free()
			s.until("a is open", func() bool { return s.w.named("a").resolves() })
			s.say("a is scaled in: its machine is gone, and its Node object is deleted")
			s.w.named("a").stop()
			s.w.deleteNode(s.w.named("a"))
			s.until("the soak runs", func() bool { return s.w.state().Phase == PhaseSoaking })
			s.until("b is open, after the soak", func() bool { return s.w.named("b").resolves() })
		}},
		{"set-back", "An old copy of the Lease is saved by hand. Nothing opens, and nobody writes on top of it.", 2, func(s *teller) {
			s.free()
			old := s.w.lease
			s.until("a is open", func() bool { return s.w.named("a").resolves() })
			s.say("somebody saves the copy of the Lease that was made before")
			s.w.put(old)
			s.until("a is closed", func() bool { return !s.w.named("a").resolves() })
			s.say("b restarts, and knows nothing of what came after the copy but from the records")
			s.w.restart(s.w.named("b"))
			s.goOn(time.Minute)
		}},
		{"api-server-away", "The API server cannot be reached by the open gate for a minute.", 1, func(s *teller) {
			s.free()
			s.until("a is open", func() bool { return s.w.named("a").resolves() })
			s.say("a's connection breaks")
			s.w.named("a").cut = true
			s.w.named("a").gate.loses(errDown)
			s.goOn(time.Minute)
			s.say("the connection is back")
			s.w.named("a").cut = false
			s.until("a is open again", func() bool { return s.w.named("a").resolves() })
		}},
		{"not-acted-on", "kured looks at none of the open gates. The second one in a row stops the turn.", 2, func(s *teller) {
			s.free()
			s.until("the turn stops", func() bool { return s.w.state().NotActedOn > 1 })
		}},
	} {
		t.Run(story.name, func(t *testing.T) {
			s := &teller{t: t, w: newWorld(time.Hour, 0, story.nodes, 1), told: map[string]map[string]bool{}, muted: map[string][]string{}}
			s.w.hears = s.hears
			fmt.Fprintf(&s.out, "# %s\n# Each line: time, gate, event -> what follows for it; what it wants done. What an open gate asks at every interval\n# is left out where it stays open.\n", story.title)
			story.tell(s)
			path := filepath.Join("testdata", story.name+".txt")
			if *update {
				if err := os.WriteFile(path, []byte(s.out.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if got := s.out.String(); got != string(want) {
				t.Errorf("%s tells another story; if it is right, write it with -update\n%s", path, firstDifference(got, string(want)))
			}
		})
	}
}

func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(g), len(w)) {
		if g[i] != w[i] {
			return fmt.Sprintf("line %d\n got %s\nwant %s", i+1, g[i], w[i])
		}
	}
	return fmt.Sprintf("%d lines, want %d", len(g), len(w))
}

// teller lets a world go on, and writes down what the cores are told and want.
type teller struct {
	t   *testing.T
	w   *world
	out strings.Builder
	// told are the lines of each gate since the turn changed: none is told twice.
	told map[string]map[string]bool
	// muted are the lines of an open gate's evaluation: if it stays open they are left out.
	muted map[string][]string
}

func (s *teller) say(what string) { fmt.Fprintf(&s.out, "\n--- %s\n", what) }

// free makes the turn a free one, as after an earlier rollout.
func (s *teller) free() {
	lease := s.w.lease.DeepCopy()
	(&State{Epoch: 1, Phase: PhaseFree, Since: s.w.now().Add(-time.Hour)}).Put(lease)
	s.w.put(lease)
}

// until lets the world go on until something holds.
func (s *teller) until(what string, holds func() bool) {
	s.t.Helper()
	for end := s.w.clock.Add(5 * time.Hour); !holds(); s.goOn(time.Second) {
		if !s.w.clock.Before(end) {
			s.t.Fatalf("not within five hours: %s\n%s", what, s.out.String())
		}
	}
	s.say("now " + what)
}

func (s *teller) goOn(d time.Duration) { s.w.calm(s.w.clock.Add(d), idle) }

// reboots lets kured act on the node, and the node come back.
func (s *teller) reboots(name string) {
	n := s.w.named(name)
	n.look()
	n.lock()
	s.w.act(n)
	n.raw, n.objectBoot = false, n.boot
	n.start()
	n.welcome()
}

func (s *teller) hears(g *gate, e Event, effects Effects) {
	line := describe(e) + " -> " + g.core.view().Why()
	for _, want := range wants(effects) {
		line += "; " + want
	}
	name := g.n.name
	switch e.(type) {
	case Heard, Wrote, Unfollowed:
		s.told[name] = map[string]bool{}
	}
	why := "woken -> " + g.core.view().Why()
	if s.told[name] == nil {
		s.told[name] = map[string]bool{}
	}
	if s.told[name][line] {
		return
	}
	s.told[name][line], s.told[name][why] = true, true
	line = fmt.Sprintf("%s %s: %s\n", s.w.clock.UTC().Format("15:04:05"), name, line)
	_, muted := s.muted[name]
	switch _, asked := e.(Asked); {
	case effects.Answer != nil && effects.Answer.Permitted && muted:
		delete(s.muted, name)
	case effects.Answer != nil:
		s.out.WriteString(strings.Join(s.muted[name], "") + line)
		delete(s.muted, name)
	case muted || asked && g.open:
		s.muted[name] = append(s.muted[name], line)
	default:
		s.out.WriteString(line)
	}
}

// describe is an event in a few words.
func describe(e Event) string {
	failed := func(err error, words string) string {
		if err != nil {
			return words + ": " + err.Error()
		}
		return words
	}
	switch e := e.(type) {
	case Updated:
		switch {
		case e.Open:
			return "the gate is open"
		case e.Pending:
			return "the gate is closed, and a reboot is pending"
		}
		return "the gate is idle"
	case Asked:
		return "every step passes: may the gate open?"
	case Heard:
		if e.Deleted {
			return "the Lease is deleted"
		}
		return "the Lease is now " + summary(Read{Lease: e.Lease})
	case Unfollowed:
		return failed(e.Err, "the watch ended")
	case Recalled:
		return failed(e.Err, fmt.Sprintf("the record knows epoch %d", e.Epoch))
	case Read:
		return failed(e.Err, "read "+summary(e))
	case Looked:
		return failed(e.Err, fmt.Sprintf("looked at %s: gone %t, boot %s, record's boot %s, in kured's lock %t", e.Node, e.Gone, e.NodeBootID, e.RecordBootID, e.LockNamed))
	case Listed:
		return failed(e.Err, fmt.Sprintf("the records of %d nodes", len(e.Candidates)))
	case Wrote:
		return failed(e.Err, "written")
	case Recorded:
		return failed(e.Err, fmt.Sprintf("epoch %d is on record", e.Epoch))
	}
	return strings.ToLower(reflect.TypeOf(e).Name())
}

func summary(r Read) string {
	if r.Lease == nil {
		return "no Lease"
	}
	s, err := Parse(r.Lease)
	if err != nil {
		return err.Error()
	}
	words := fmt.Sprintf("%s, epoch %d", strings.TrimSpace(string(s.Phase)+" "+s.Holder), s.Epoch)
	if ParseOperator(r.Lease).Halted {
		words += ", halted"
	}
	return words
}

// wants is what the core wants done.
func wants(e Effects) []string {
	var words []string
	switch r := e.Request.(type) {
	case nil:
	case RecallRecord:
		words = append(words, "ask the record")
	case ReadLease:
		words = append(words, "read the Lease")
	case LookAtHolder:
		words = append(words, "look at "+r.Node)
	case ListRecords:
		words = append(words, "list the records")
	case WriteLease:
		words = append(words, fmt.Sprintf("WRITE %s, epoch %d", strings.TrimSpace(string(r.State.Phase)+" "+r.State.Holder), r.State.Epoch))
	case RecordEpoch:
		words = append(words, fmt.Sprintf("put epoch %d on record", r.Epoch))
	}
	if a := e.Answer; a != nil && a.Permitted {
		words = append(words, "THE GATE MAY OPEN")
	} else if a != nil {
		words = append(words, "the gate may not open: "+a.Refusal.Error())
	}
	return words
}
