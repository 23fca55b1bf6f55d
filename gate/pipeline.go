package gate

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/sentinel-gate/sentinel-gate/gate/cluster"
	"github.com/sentinel-gate/sentinel-gate/gate/turn"
)

// Reasons that the pipeline gives where the check itself gave no verdict.
const (
	// ReasonError: the check returned an error.
	ReasonError = "Error"
	// ReasonTimeout: the check gave no answer within the step's timeout.
	ReasonTimeout = "Timeout"
	// ReasonPanic: the check panicked.
	ReasonPanic = "Panic"
	// ReasonStillRunning: the run of an earlier evaluation has not returned.
	ReasonStillRunning = "StillRunning"
	// ReasonInvalidResult: the check returned no reason, or one that is not CamelCase.
	ReasonInvalidResult = "InvalidResult"
)

// maxMessage bounds a message, in bytes: it ends up in logs.
const maxMessage = 1024

var camelCase = regexp.MustCompile(`^[A-Z][A-Za-z0-9]*$`)

// maxReason bounds a reason, in bytes: it ends up in labels of metrics.
const maxReason = 64

// Reasons that a step with a NodeSelector gives without asking its check.
const (
	// ReasonNotOnThisNode: the NodeSelector does not match the gate's own node.
	ReasonNotOnThisNode = "NotOnThisNode"
	// ReasonOwnNodeUnknown: the gate's own node is not known.
	ReasonOwnNodeUnknown = "OwnNodeUnknown"
)

// Step is a named, configured instance of a check.
type Step struct {
	Name, Type string
	Check      Check
	// Timeout bounds one run.
	Timeout time.Duration
	// SoftUntil is until when the step only reports; zero: it always counts.
	SoftUntil time.Time
	// Scope says whom a failure of the step is about. With a NodeSelector that
	// is always the gate's own node.
	Scope Scope
	// NodeSelector chooses the nodes whose gates ask the check; all by default.
	// On the others the step passes without asking.
	NodeSelector cluster.Selector
	// OwnNode reads the gate's own node, for NodeSelector. The problem is why
	// the node is not known.
	OwnNode func(context.Context) (own cluster.Node, problem string, err error)

	running atomic.Bool
}

// Pipeline is the steps that must all pass.
type Pipeline struct {
	steps []*Step
	now   func(context.Context) (time.Time, error)
}

// NewPipeline returns the pipeline of the steps. It refuses an empty one, which
// would pass for want of questions, and steps that share a name. now tells the
// cluster's time, by which SoftUntil is judged: a node's clock that has fallen
// back would else keep a step soft for good. It is asked only for soft steps.
func NewPipeline(steps []*Step, now func(context.Context) (time.Time, error)) (*Pipeline, error) {
	if len(steps) == 0 {
		return nil, errors.New("a pipeline without steps would let every reboot through: configure at least one check")
	}
	names := map[string]bool{}
	for _, s := range steps {
		if s.Check == nil || s.Timeout <= 0 {
			return nil, fmt.Errorf("step %q has no check or no timeout", s.Name)
		}
		if !s.NodeSelector.Empty() && s.OwnNode == nil {
			return nil, fmt.Errorf("step %q has a node selector, and cannot read the node", s.Name)
		}
		if names[s.Name] {
			return nil, fmt.Errorf("two steps are named %q", s.Name)
		}
		names[s.Name] = true
	}
	return &Pipeline{steps, now}, nil
}

// Evaluate runs all steps at once, each within its timeout, none skipped
// because another failed: whoever is woken at night wants the whole list. It
// calls report, from one goroutine at a time, with each outcome as it comes.
// A step that panics, errs or does not return is Unknown. A step that does not
// pass holds nothing back while an override of it lasts.
func (p *Pipeline) Evaluate(ctx context.Context, overrides map[string]turn.Override, report func(Outcome)) Decision {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ctx = cluster.WithReads(ctx)
	decision := Decision{Began: time.Now(), Outcomes: make(Outcomes, len(p.steps))}
	var all sync.WaitGroup
	var reporting sync.Mutex
	for i, step := range p.steps {
		all.Go(func() {
			outcome := step.run(ctx)
			if !outcome.passed() {
				outcome.Soft = p.before(ctx, step, step.SoftUntil)
				if override := overrides[step.Name]; p.before(ctx, step, override.Until) {
					outcome.Override = override.Reason
				}
			}
			decision.Outcomes[i] = outcome
			if report != nil {
				reporting.Lock()
				defer reporting.Unlock()
				report(outcome)
			}
		})
	}
	all.Wait()
	return decision
}

// before reports whether it is before the moment by the cluster's time. Where
// that is not known it is not.
func (p *Pipeline) before(ctx context.Context, s *Step, moment time.Time) bool {
	if moment.IsZero() {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, s.Timeout)
	defer cancel()
	now, err := p.now(ctx)
	return err == nil && now.Before(moment)
}

// watch passes on what the check, which is a Watcher, sees. On a node that the
// NodeSelector does not match it is silent.
func (s *Step) watch(ctx context.Context, w Watcher, hint func(Result)) error {
	if !s.NodeSelector.Empty() {
		own, problem, err := s.OwnNode(ctx)
		if err != nil {
			return err
		}
		if problem == "" && !s.NodeSelector.Matches(own.Labels) {
			<-ctx.Done()
			return ctx.Err()
		}
	}
	return w.Watch(ctx, hint)
}

// ask asks the check, where the step is one of this node's.
func (s *Step) ask(ctx context.Context) (Result, error) {
	if s.NodeSelector.Empty() {
		return s.Check.Check(ctx)
	}
	own, problem, err := s.OwnNode(ctx)
	switch {
	case err != nil:
		return Result{}, err
	case problem != "":
		return Undecided(ReasonOwnNodeUnknown, "%s", problem), nil
	case !s.NodeSelector.Matches(own.Labels):
		return Passed(ReasonNotOnThisNode, "this node does not match the step's nodeSelector %q: nothing was asked", s.NodeSelector), nil
	}
	return s.Check.Check(ctx)
}

// scope is whom a failure of the step is about.
func (s *Step) scope() Scope {
	if !s.NodeSelector.Empty() {
		return NodeScope
	}
	return s.Scope
}

func (s *Step) run(ctx context.Context) Outcome {
	began := time.Now()
	result := s.result(ctx)
	return s.outcome(result, time.Since(began))
}

// result does not wait for a check that ignores its context. Such a check is
// not started again until it returns, so that it cannot pile up.
func (s *Step) result(ctx context.Context) Result {
	if !s.running.CompareAndSwap(false, true) {
		return Undecided(ReasonStillRunning, "its last run has not returned, although its timeout of %s is over", s.Timeout)
	}
	stepCtx, cancel := context.WithTimeout(ctx, s.Timeout)
	defer cancel()
	results := make(chan Result, 1)
	go func() {
		r := s.guarded(stepCtx)
		s.running.Store(false) // first: the next evaluation may begin at once
		results <- r
	}()
	select {
	case r := <-results:
		return r
	case <-stepCtx.Done():
		if ctx.Err() != nil {
			return Undecided(ReasonError, "the evaluation was broken off: %v", ctx.Err())
		}
		return s.timedOut()
	}
}

func (s *Step) timedOut() Result {
	return Undecided(ReasonTimeout, "no answer within its timeout of %s", s.Timeout)
}

func (s *Step) guarded(ctx context.Context) (r Result) {
	defer func() {
		if p := recover(); p != nil {
			r = Undecided(ReasonPanic, "the check panicked: %v", p)
		}
	}()
	r, err := s.ask(ctx)
	switch {
	case err == nil:
		return r
	case errors.Is(err, context.DeadlineExceeded) && ctx.Err() != nil:
		return s.timedOut()
	default:
		return Undecided(ReasonError, "%v", err)
	}
}

// outcome makes a result fit for logs and metrics.
func (s *Step) outcome(r Result, took time.Duration) Outcome {
	if r.Verdict < Unknown || r.Verdict > Pass {
		r = Undecided(ReasonInvalidResult, "the check answered with the verdict %d, which is none: %s", int(r.Verdict), r.Message)
	}
	if len(r.Reason) > maxReason || !camelCase.MatchString(r.Reason) {
		r = Undecided(ReasonInvalidResult, "the check answered %s with the reason %.64q, which is not short and CamelCase: %s", r.Verdict, r.Reason, r.Message)
	}
	if r.Verdict == Pass {
		r.RetryAfter = 0 // a pass is never taken on trust
	}
	scope := s.scope()
	if r.ThisNode {
		scope = NodeScope
	}
	return Outcome{
		Name: s.Name, Type: s.Type,
		Verdict: r.Verdict, Reason: r.Reason, Message: clip(r.Message),
		Seconds: took.Seconds(), retryAfter: max(r.RetryAfter, 0), scope: scope,
	}
}

func clip(message string) string {
	message = strings.ToValidUTF8(message, "\uFFFD")
	if len(message) <= maxMessage {
		return message
	}
	cut := maxMessage
	for !utf8.RuneStart(message[cut]) {
		cut--
	}
	return message[:cut] + "…"
}
