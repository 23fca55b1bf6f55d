package main

import (
	"context"
	"fmt"
	"time"

	"github.com/sentinel-gate/sentinel-gate/checks"
	"github.com/sentinel-gate/sentinel-gate/gate/cluster"
	"github.com/sentinel-gate/sentinel-gate/gate/packages"
	"github.com/sentinel-gate/sentinel-gate/gate/record"
	"github.com/sentinel-gate/sentinel-gate/gate/soak"
)

// exposure is the rule by which more than one node may be in soak at a time, and which
// nodes count; nil: one at a time, which is so wherever one readySoak step wants that.
func (c *configuration) exposure() (rule *soak.Rule, soaking cluster.Soaking) {
	for _, s := range c.steps {
		e, ok := s.Check.(checks.Exposer)
		if !ok {
			continue
		}
		r, of := e.Exposure()
		if r == nil {
			return nil, cluster.Soaking{}
		}
		if rule == nil || r.Soak > rule.Soak {
			rule, soaking = r, of
		}
	}
	return rule, soaking
}

// readsPackages lets the steps and the record know what this node would run, and runs,
// where exposure is configured; tell is what the record needs, nil where it is not.
func (c *configuration) readsPackages(f flags) (reader *packages.Reader, tell *record.Soaking) {
	rule, _ := c.exposure()
	if rule == nil {
		return nil, nil
	}
	release, build := record.ReadKernel(f.hostProc)
	reader = &packages.Reader{Database: c.Sentinel.DpkgStatus, Raw: c.Sentinel.Raw, Release: release}
	c.cluster.Parts = reader.Read
	return reader, &record.Soaking{
		Soak: rule.Soak,
		Machine: func() soak.Machine {
			found := reader.Read()
			return soak.Machine{
				Kernel: soak.NewPart(soak.KernelName, release), Build: soak.NewPart(soak.BuildName, build),
				Installed: found.Installed, Kernels: found.Kernels, Running: found.Running,
			}
		},
		Ready: c.ownReady,
	}
}

// ownReady reads this node's own Ready condition.
func (c *configuration) ownReady(ctx context.Context) (bootID string, ready bool, since time.Time, err error) {
	own, problem, err := c.cluster.OwnNode(cluster.WithReads(ctx))
	if err != nil {
		return "", false, time.Time{}, err
	}
	if problem != "" {
		return "", false, time.Time{}, fmt.Errorf("%s", problem)
	}
	return own.BootID, own.IsReady(), own.Since, nil
}
