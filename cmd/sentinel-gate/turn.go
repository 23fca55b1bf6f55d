package main

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/common/model"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/sentinel-gate/sentinel-gate/checks"
	"github.com/sentinel-gate/sentinel-gate/gate/cluster"
	"github.com/sentinel-gate/sentinel-gate/gate/record"
	"github.com/sentinel-gate/sentinel-gate/gate/turn"
)

// turnConfig is the part of the configuration that is about the turn.
type turnConfig struct {
	// Enabled: the gate takes part in the turn.
	Enabled bool `json:"enabled"`
	// Order are the tiers, each a selector of nodes; who matches none goes last.
	Order []cluster.Selector `json:"order"`
	// Settle is how long a gate that was open must be closed before its node
	// gives the turn up.
	Settle model.Duration `json:"settle"`
	// GrantTimeout is how long a gate may be open without kured acting on it.
	GrantTimeout model.Duration `json:"grantTimeout"`
	// GoFirstAfter is for how long a node may wait before it goes before all that have
	// waited for less, whatever their tiers.
	GoFirstAfter model.Duration `json:"goFirstAfter"`
	// Deadline is within which time all pending reboots are wanted; 0: none.
	Deadline model.Duration `json:"deadline"`
}

func turnDefaults() turnConfig {
	workers, _ := labels.Parse("!node-role.kubernetes.io/control-plane")
	return turnConfig{
		Enabled: true, Order: []cluster.Selector{{Selector: workers}},
		Settle: model.Duration(15 * time.Minute), GrantTimeout: model.Duration(30 * time.Minute),
		GoFirstAfter: model.Duration(7 * 24 * time.Hour),
	}
}

// validate reports what is too short to be what it is for; short: that is accepted.
func (c turnConfig) validate(short bool) []error {
	var problems []error
	for _, d := range []struct {
		name  string
		value model.Duration
		least time.Duration
		why   string
	}{
		{"settle", c.Settle, turn.MinSettle, "kured needs as long from its look at the sentinel to its lock"},
		{"grantTimeout", c.GrantTimeout, turn.MinGrantTimeout, "a gate needs as long from its turn to its opening"},
		{"goFirstAfter", c.GoFirstAfter, turn.MinAging, "below that there would be no order"},
	} {
		if short {
			d.least = time.Second
		}
		if d.value < model.Duration(d.least) {
			problems = append(problems, fmt.Errorf("turn.%s: must be at least %s, not %s: %s", d.name, model.Duration(d.least), d.value, d.why))
		}
	}
	return problems
}

// turnConfig is what the turn is told.
func (c *configuration) turnConfig(node, bootID string) turn.Config {
	return turn.Config{
		Node: node, BootID: bootID, MaxAge: time.Duration(c.MaxAge), Interval: time.Duration(c.Interval),
		Settle: time.Duration(c.Turn.Settle), GrantTimeout: time.Duration(c.Turn.GrantTimeout), Aging: time.Duration(c.Turn.GoFirstAfter),
	}
}

// tiers are the selectors of the order.
func (c turnConfig) tiers() []labels.Selector {
	order := make([]labels.Selector, len(c.Order))
	for i, s := range c.Order {
		order[i] = labels.Everything()
		if s.Selector != nil {
			order[i] = s.Selector
		}
	}
	return order
}

// soak is the longest that a readySoak step wants, but for overridden ones.
func (c *configuration) soak(overridden map[string]turn.Override) time.Duration {
	var longest time.Duration
	for _, s := range c.steps {
		if _, ok := overridden[s.Name]; !ok {
			longest = max(longest, checks.SoakOf(s.Check))
		}
	}
	return longest
}

// newTurn returns the node's part in the turn, and nil where it takes none.
func newTurn(f flags, c *configuration, writer *record.Writer, log *slog.Logger) (*turn.Turn, error) {
	if !c.Turn.Enabled {
		log.Warn("turn.enabled is false: that only one node reboots at a time is left to kured's lock")
		return nil, nil
	}
	if f.nodeName == turn.LeaseName {
		return nil, errors.New("a node cannot be called " + turn.LeaseName + ": that is the Lease of the turn")
	}
	bootID, err := record.ReadBootID(f.hostProc)
	if err != nil {
		return nil, err
	}
	config := c.turnConfig(f.nodeName, bootID)
	rule, soaking := c.exposure()
	config.Exposure = rule
	return turn.New(turn.Options{
		Config: config, Soaking: soaking,
		SoakOf: c.soak, Leases: c.cluster.LeaseClient(), Nodes: c.cluster.NodeClient(),
		DaemonSets: func(namespace string) turn.DaemonSetLister { return c.cluster.DaemonSetClient(namespace) },
		Record:     writer, Order: c.Turn.tiers(), Log: log,
	}), nil
}
