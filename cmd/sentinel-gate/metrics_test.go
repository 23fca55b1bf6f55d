package main

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sentinel-gate/sentinel-gate/gate"
	"github.com/sentinel-gate/sentinel-gate/gate/record"
	"github.com/sentinel-gate/sentinel-gate/gate/turn"
)

// A gate that does not watch the turn has nothing to say of it: an alert would take
// what it saw once for what is.
func TestIdleGateTellsNothingOfTheTurn(t *testing.T) {
	registry := newRegistry(&record.Writer{})
	metrics := gate.NewMetrics(registry)
	s := gate.Status{TurnOn: true, Node: "a", State: gate.Idle, Turn: turn.View{State: turn.State{Phase: turn.PhaseOpen, Holder: "b"}}}
	for holder, want := range map[string]bool{"b": false, "a": true} {
		s.Turn.State.Holder = holder
		metrics.Report(s)
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		told := false
		for _, f := range families {
			told = told || strings.HasPrefix(f.GetName(), "sentinel_gate_turn")
		}
		if told != want {
			t.Errorf("the turn is %s's: told %t", holder, told)
		}
	}
}

// docs/metrics.md lists what is exported, with its type and its labels, and
// nothing else; no page shows a metric that there is not.
func TestEveryMetricIsDocumented(t *testing.T) {
	registry := newRegistry(&record.Writer{})
	gate.NewMetrics(registry).Report(gate.Status{
		TurnOn: true,
		Raw:    gate.Raw{Pending: true},
		State:  gate.Closed,
		Turn:   turn.View{State: turn.State{Exposed: true, PassedOver: []turn.PassedOver{{Node: "n", Cause: turn.CauseNoKured}}}},
		Decision: gate.Decision{Began: time.Now(), Outcomes: gate.Outcomes{
			{Name: "a", Type: "nodesReady", Verdict: gate.Fail, Reason: "NodesNotReady", Seconds: 1, Since: time.Now()},
		}},
	})
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	exported := map[string]string{}
	names := map[string]bool{}
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "sentinel_gate_") {
			continue
		}
		names[f.GetName()] = true
		if strings.ToLower(f.GetType().String()) == "histogram" {
			for _, suffix := range []string{"_bucket", "_sum", "_count"} {
				names[f.GetName()+suffix] = true
			}
		}
		var labels []string
		for _, l := range f.GetMetric()[0].GetLabel() {
			labels = append(labels, l.GetName())
		}
		exported[f.GetName()] = strings.ToLower(f.GetType().String()) + " " + strings.Join(labels, " ")
	}

	page, err := os.ReadFile(filepath.Join(root(t), "docs/metrics.md"))
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `(sentinel_gate_[a-z_]+)` \\| (\\w+) \\|(.*?)\\|").FindAllStringSubmatch(string(page), -1) {
		labels := strings.Fields(strings.NewReplacer("`", "", ",", " ").Replace(row[3]))
		slices.Sort(labels) // as the registry has them
		documented[row[1]] = row[2] + " " + strings.Join(labels, " ")
	}
	for _, name := range slices.Sorted(maps.Keys(exported)) {
		if documented[name] != exported[name] {
			t.Errorf("%s is exported as %q, and documented as %q", name, exported[name], documented[name])
		}
		delete(documented, name)
	}
	if len(documented) > 0 {
		t.Errorf("documented, and not exported: %v", documented)
	}

	pages, err := filepath.Glob(filepath.Join(root(t), "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range pages {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range regexp.MustCompile(`sentinel_gate_[a-z_]+`).FindAllString(string(text), -1) {
			if !names[name] {
				t.Errorf("%s shows %s, which is not exported", filepath.Base(path), name)
			}
		}
	}
}
