package gate_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sentinel-gate/sentinel-gate/gate"
)

// backups is a check: a thin shell that reads, over a pure function of what was
// read.
type backups struct {
	read func(context.Context) (running int, err error)
}

// Check reads afresh in every evaluation. What it cannot read it returns as an
// error: the step is Unknown then, which holds the gate closed.
func (b backups) Check(ctx context.Context) (gate.Result, error) {
	running, err := b.read(ctx)
	if err != nil {
		return gate.Result{}, fmt.Errorf("asking for running backups: %w", err)
	}
	return idle(running), nil
}

// idle is the pure part, with the words for a person.
func idle(running int) gate.Result {
	if running > 0 {
		return gate.Failed("BackupsRunning", "backups still run: %d", running)
	}
	return gate.Passed("NoBackups", "no backup runs")
}

// A check answers one question. Steps of a pipeline ask it, each under a name
// and within a timeout.
func ExampleCheck() {
	step := func(name string, running int, err error) *gate.Step {
		check := backups{func(context.Context) (int, error) { return running, err }}
		return &gate.Step{Name: name, Type: "backups", Check: check, Timeout: time.Second}
	}
	pipeline, err := gate.NewPipeline([]*gate.Step{
		step("databases", 0, nil), step("files", 2, nil), step("mail", 0, errors.New("connection refused")),
	}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	decision := pipeline.Evaluate(context.Background(), nil, nil)
	for _, o := range decision.Outcomes {
		fmt.Printf("%s: %s %s: %s\n", o.Name, o.Verdict, o.Reason, o.Message)
	}
	fmt.Println("the gate may open:", decision.Passes())
	// Output:
	// databases: Pass NoBackups: no backup runs
	// files: Fail BackupsRunning: backups still run: 2
	// mail: Unknown Error: asking for running backups: connection refused
	// the gate may open: false
}
