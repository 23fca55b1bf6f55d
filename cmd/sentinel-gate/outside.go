package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/sentinel-gate/sentinel-gate/checks"
	"github.com/sentinel-gate/sentinel-gate/gate"
	"github.com/sentinel-gate/sentinel-gate/gate/record"
)

// outside is why --once cannot see what only the node itself can, and empty where it
// runs on the node: then the kernel's boot id is the one that the kubelet reports.
func outside(ctx context.Context, f flags, c *configuration) string {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(c.Timeout))
	defer cancel()
	here, err := record.ReadBootID(f.hostProc)
	if err != nil {
		return "" // what follows from that shows in what is looked at
	}
	own, problem, err := c.cluster.OwnNode(ctx)
	if err != nil || problem != "" || own.BootID == "" || own.BootID == here {
		return ""
	}
	return "not looked at: this command does not run on node " + f.nodeName
}

// withoutRecords says what it means that no gate has a record yet, a sentence to a
// line, and how the steps that need records judge without them.
func withoutRecords(ctx context.Context, c *configuration) []string {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(c.Timeout))
	defer cancel()
	records, err := c.cluster.Records(ctx)
	if err != nil || len(records.Items) > 0 {
		return nil
	}
	var lines []string
	for _, s := range c.steps {
		keeper, ok := s.Check.(checks.RecordKeeper)
		if !ok {
			continue
		}
		if len(lines) == 0 {
			lines = append(lines,
				"none in namespace "+c.cluster.Namespace+": no gate has run there yet",
				"without them a step cannot know of earlier reboots, and stays Unknown until every node's gate has run")
		}
		lines = append(lines, fmt.Sprintf("by the nodes' status alone, %s would be %s", s.Name, judged(ctx, keeper.WithoutRecords())))
	}
	return lines
}

func judged(ctx context.Context, check gate.Check) string {
	result, err := check.Check(ctx)
	if err != nil {
		return strings.ToUpper(gate.Unknown.String()) + ": " + oneLine(err.Error())
	}
	return inOneLine(result)
}
