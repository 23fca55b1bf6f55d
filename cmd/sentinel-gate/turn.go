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
	// Deadline is within which time all pending reboots are wanted; 0: none.
	Deadline model.Duration `json:"deadline"`
}

func turnDefaults() turnConfig {
	workers, _ := labels.Parse("!node-role.kubernetes.io/control-plane")
	return turnConfig{
		Enabled: true, Order: []cluster.Selector{{Selector: workers}},
		Settle: model.Duration(15 * time.Minute), GrantTimeout: model.Duration(30 * time.Minute),
	}
}

func (c turnConfig) validate() []error {
	var problems []error
	if c.Settle < model.Duration(turn.MinSettle) {
		problems = append(problems, fmt.Errorf("turn.settle: must be at least %s, not %s", turn.MinSettle, c.Settle))
	}
	if c.GrantTimeout < model.Duration(turn.MinGrantTimeout) {
		problems = append(problems, fmt.Errorf("turn.grantTimeout: must be at least %s, not %s", turn.MinGrantTimeout, c.GrantTimeout))
	}
	return problems
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
	order := make([]labels.Selector, len(c.Turn.Order))
	for i, s := range c.Turn.Order {
		order[i] = labels.Everything()
		if s.Selector != nil {
			order[i] = s.Selector
		}
	}
	return turn.New(turn.Options{
		Config: turn.Config{
			Node: f.nodeName, BootID: bootID, MaxAge: time.Duration(c.MaxAge), Interval: time.Duration(c.Interval),
			Settle: time.Duration(c.Turn.Settle), GrantTimeout: time.Duration(c.Turn.GrantTimeout),
		},
		SoakOf: c.soak, Leases: c.cluster.LeaseClient(), Nodes: c.cluster.NodeClient(),
		DaemonSets: func(namespace string) turn.DaemonSetLister { return c.cluster.DaemonSetClient(namespace) },
		Record:     writer, Order: order, Log: log,
	}), nil
}
