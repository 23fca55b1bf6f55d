package checks

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/sentinel-gate/sentinel-gate/gate"
	"github.com/sentinel-gate/sentinel-gate/gate/cluster"
)

// DisruptionBudgetsOptions are the options of disruptionBudgets.
type DisruptionBudgetsOptions struct {
	// PodSelector is kured's --drain-pod-selector: which pods it drains; all by
	// default.
	PodSelector cluster.Selector `json:"podSelector"`
}

func disruptionBudgetsDefaults() DisruptionBudgetsOptions { return DisruptionBudgetsOptions{} }

type disruptionBudgets struct {
	cluster *cluster.Cluster
	options DisruptionBudgetsOptions
}

var (
	_ Reader   = disruptionBudgets{}
	_ Verifier = disruptionBudgets{}
)

func newDisruptionBudgets(o DisruptionBudgetsOptions, c *cluster.Cluster) (gate.Check, []error) {
	return disruptionBudgets{c, o}, nil
}

// drain is what disruptionBudgets reads.
type drain struct {
	node    string
	nodes   []cluster.Node
	pods    []cluster.Resident // on the node
	budgets []cluster.Budget
	// covered are the pods of budgets that refuse an eviction, by their names.
	covered map[string][]cluster.Resident
}

// Check reads the pods on this node and all budgets; and, of a budget that would
// refuse an eviction, all pods, to say what ails it.
func (c disruptionBudgets) Check(ctx context.Context) (gate.Result, error) {
	d, err := c.read(ctx)
	if err != nil {
		return gate.Result{}, err
	}
	return drainable(d, c.options), nil
}

func (c disruptionBudgets) read(ctx context.Context) (drain, error) {
	d := drain{node: c.cluster.Node, covered: map[string][]cluster.Resident{}}
	nodes, err := c.cluster.Nodes(ctx)
	if err != nil {
		return drain{}, err
	}
	d.nodes = nodes.Items
	if _, problem := cluster.Own(d.nodes, d.node); problem != "" {
		return d, nil
	}
	if d.pods, err = c.cluster.Residents(ctx); err != nil {
		return drain{}, err
	}
	if d.budgets, err = c.cluster.Budgets(ctx); err != nil {
		return drain{}, err
	}
	for _, g := range guarded(d, c.options) {
		if len(g.refused) > 0 && len(g.budgets) == 1 {
			b := g.budgets[0]
			if d.covered[b.String()], err = c.cluster.CoveredBy(ctx, b); err != nil {
				return drain{}, err
			}
		}
	}
	return d, nil
}

// Rules name what Check reads. There is no watch: kured's own drain uses up the
// budgets, and each of its evictions would be a hint to close.
func (disruptionBudgets) Rules() []rbacv1.PolicyRule {
	return []rbacv1.PolicyRule{cluster.Permit("", "nodes", "list"), cluster.Permit("", "pods", "list"), cluster.Permit("policy", "poddisruptionbudgets", "list")}
}

// Verify uses up the budgets that count here, and puts a pod here under a budget
// that allows no eviction.
func (c disruptionBudgets) Verify(ctx context.Context) (Verification, error) {
	d, err := c.read(ctx)
	if err != nil {
		return Verification{}, err
	}
	var leaving []cluster.Resident
	for _, p := range d.pods {
		if p.Leaves(c.options.PodSelector) {
			leaving = append(leaving, p)
		}
	}
	v := Verification{
		Looked: fmt.Sprintf("%s to evict, of %d on %s, and %s", gate.Count(len(leaving), "pod"), len(d.pods), d.node, gate.Count(len(d.budgets), "budget")),
		Result: drainable(d, c.options),
	}
	if guards := guarded(d, c.options); len(guards) > 0 {
		used := d
		used.budgets = slices.Clone(d.budgets)
		var who names
		for i, b := range used.budgets {
			if slices.ContainsFunc(guards, func(g guard) bool {
				return slices.ContainsFunc(g.budgets, func(of cluster.Budget) bool { return of.String() == b.String() })
			}) {
				used.budgets[i].Allowed, used.budgets[i].Healthy = 0, min(b.Healthy, b.Desired)
				who = append(who, b.String())
			}
		}
		v.Mutations = append(v.Mutations, Mutation{fmt.Sprintf("used up: %s", who), drainable(used, c.options)})
	}
	under := d
	at := slices.IndexFunc(leaving, func(p cluster.Resident) bool { return !goesFreely(p) })
	if at < 0 {
		at = len(leaving)
		leaving = append(leaving, cluster.Resident{Namespace: "default", Name: "another", Node: d.node, Phase: corev1.PodRunning, Ready: true})
		under.pods = append(slices.Clone(d.pods), leaving[at])
	}
	p := leaving[at]
	under.budgets = append(slices.Clone(d.budgets), cluster.Budget{
		Namespace: p.Namespace, Name: "another", Rule: "maxUnavailable 0", Observed: true, Healthy: 1, Desired: 1, Expected: 1,
		Selector: labels.SelectorFromSet(p.Labels),
	})
	v.Mutations = append(v.Mutations, Mutation{fmt.Sprintf("put under a budget that allows no eviction: %s/%s", p.Namespace, p.Name), drainable(under, c.options)})
	return v, nil
}

// maxDisrupted is how many evictions of a budget may be unconfirmed before the
// API server refuses more.
const maxDisrupted = 2000

// goesFreely reports whether the API server evicts the pod without a look at
// the budgets.
func goesFreely(p cluster.Resident) bool {
	return p.Finished() || p.Phase == corev1.PodPending || p.Deleting
}

// evict is what the API server would answer to an eviction of a pod which the
// budgets cover, as HTTP status, and whether that would spend one of the
// disruptions that the budget allows
// (https://github.com/kubernetes/kubernetes/blob/v1.36.3/pkg/registry/core/pod/storage/eviction.go).
func evict(p cluster.Resident, budgets []cluster.Budget) (status int, spends bool) {
	switch {
	case goesFreely(p) || len(budgets) == 0:
		return http.StatusCreated, false
	case len(budgets) > 1:
		return http.StatusInternalServerError, false
	}
	b := budgets[0]
	switch {
	case !p.Ready && (b.AlwaysAllow || b.Healthy >= b.Desired && b.Desired > 0):
		return http.StatusCreated, false
	case !b.Observed:
		return http.StatusTooManyRequests, false
	case b.Allowed < 0 || b.Disrupted > maxDisrupted:
		return http.StatusForbidden, false
	case b.Allowed == 0:
		return http.StatusTooManyRequests, false
	}
	return http.StatusCreated, true
}

// guard is the pods on the node whose eviction the same budgets decide on.
type guard struct {
	budgets []cluster.Budget
	spend   []cluster.Resident // evicted now if it were the only one
	refused []cluster.Resident
}

// guarded returns the guards in order of their budgets' names.
func guarded(d drain, o DisruptionBudgetsOptions) []guard {
	guards := map[string]*guard{}
	for _, p := range d.pods {
		if !p.Leaves(o.PodSelector) || goesFreely(p) {
			continue
		}
		var over []cluster.Budget
		key := ""
		for _, b := range d.budgets {
			if b.Covers(p) {
				over = append(over, b)
				key += b.String() + " "
			}
		}
		status, spends := evict(p, over)
		if status == http.StatusCreated && !spends {
			continue
		}
		if guards[key] == nil {
			guards[key] = &guard{budgets: over}
		}
		if spends {
			guards[key].spend = append(guards[key].spend, p)
		} else {
			guards[key].refused = append(guards[key].refused, p)
		}
	}
	var out []guard
	for _, key := range slices.Sorted(maps.Keys(guards)) {
		out = append(out, *guards[key])
	}
	return out
}

// drainable is the pure part. It tells what would never end from what does not
// end now, although both hold the gate closed: the one waits for a person.
func drainable(d drain, o DisruptionBudgetsOptions) gate.Result {
	if _, why := cluster.Own(d.nodes, d.node); why != "" {
		return gate.Undecided("OwnNodeUnknown", "%s", why)
	}
	leaving := 0
	for _, p := range d.pods {
		if p.Leaves(o.PodSelector) {
			leaving++
		}
	}
	var never, notNow, steps []string
	reasons := map[string]bool{}
	complain := func(reason string, about *[]string, format string, args ...any) {
		reasons[reason] = true
		*about = append(*about, fmt.Sprintf(format, args...))
	}
	for _, g := range guarded(d, o) {
		if len(g.budgets) > 1 {
			complain("SeveralBudgets", &never, "%s: the API server refuses to evict a pod that more than one budget covers, here %s", workloads(g.refused), budgetNames(g.budgets))
			continue
		}
		b := g.budgets[0]
		bare, managed := 0, 0
		for _, p := range g.spend {
			if p.Controller == nil {
				bare++
			} else {
				managed++
			}
		}
		should, unready := stateOf(b, d.covered[b.String()])
		switch {
		case len(g.refused) == 0 && bare+min(managed, 1) > int(b.Allowed):
			complain("BudgetNeverMet", &never, "%s lets %s go, and nobody makes those without a controller anew: %s", b, gate.Count(b.Allowed, "pod"), workloads(g.spend))
		case len(g.refused) == 0 && len(g.spend) > int(b.Allowed):
			steps = append(steps, fmt.Sprintf("%s lets %d of %d go at once: %s", b, b.Allowed, len(g.spend), workloads(g.spend)))
		case len(g.refused) == 0:
		case !b.Observed:
			complain("BudgetNotComputed", &notNow, "%s was changed, and its controller has not seen that: %s", b, workloads(g.refused))
		case b.Failure != "":
			complain("BudgetNotComputed", &notNow, "%s cannot be computed (%s): %s", b, b.Failure, workloads(g.refused))
		case b.Allowed < 0 || b.Disrupted > maxDisrupted:
			complain("BudgetNotComputed", &notNow, "%s has a status that the API server refuses, with %s allowed and %s unconfirmed: %s", b, gate.Count(b.Allowed, "disruption"), gate.Count(b.Disrupted, "eviction"), workloads(g.refused))
		case should <= 0:
			complain("BudgetNeverMet", &never, "%s covers no workload that can be scaled, and so allows no eviction: %s", b, workloads(g.refused))
		case int(b.Desired) >= should:
			complain("BudgetNeverMet", &never, "%s wants %d of %s healthy, and so allows no eviction: %s", b, b.Desired, gate.Count(should, "pod"), workloads(g.refused))
		default:
			complain("BudgetUsedUp", &notNow, "%s wants %d of %s healthy, and %d %s%s: %s", b, b.Desired, gate.Count(should, "pod"), b.Healthy, agree(b.Healthy, "is", "are"), unready, workloads(g.refused))
		}
	}
	for _, reason := range []string{"BudgetNeverMet", "SeveralBudgets", "BudgetNotComputed", "BudgetUsedUp"} {
		if reasons[reason] {
			return gate.Failed(reason, "a drain would wait %s", strings.Join(append(inWords("for ever", never), inWords("for now", notNow)...), "; and "))
		}
	}
	if len(steps) > 0 {
		return gate.Passed("DrainStepwise", "%d of %s would be evicted, some one after another as others become healthy elsewhere: %s", leaving, gate.Count(len(d.pods), "pod"), strings.Join(inWords("", steps), ""))
	}
	return gate.Passed("DrainFree", "%d of %s would be evicted, and no budget stands in the way", leaving, gate.Count(len(d.pods), "pod"))
}

// stateOf returns how many healthy pods the budget can have at best, and which of
// those that it covers keep it from that, where they are known.
func stateOf(b cluster.Budget, covered []cluster.Resident) (should int, unready string) {
	should = int(b.Expected)
	var who names
	count := 0
	for _, p := range covered {
		switch {
		case p.Finished():
			continue
		case p.Deleting:
			who = append(who, p.Name+" on "+orNone(p.Node)+" is being deleted")
		case !p.Ready:
			who = append(who, p.Name+" on "+orNone(p.Node)+" is not Ready")
		}
		count++
	}
	// Finished pods lie around for long, and the controller counts them.
	if b.CountsPods && len(covered) > 0 {
		should = count
	}
	if len(who) == 0 && b.Disrupted > 0 {
		return should, fmt.Sprintf(" (%d %s just being evicted)", b.Disrupted, agree(b.Disrupted, "is", "are"))
	}
	if len(who) == 0 {
		return should, ""
	}
	return should, " (" + who.String() + ")"
}

// workloads names the pods by their controllers.
func workloads(pods []cluster.Resident) string {
	byWorkload := map[string]names{}
	for _, p := range pods {
		workload := p.Workload()
		byWorkload[workload] = append(byWorkload[workload], p.Name)
	}
	var parts names
	for workload, pods := range byWorkload {
		parts = append(parts, fmt.Sprintf("%s (%s)", workload, pods))
	}
	return parts.String()
}

func budgetNames(budgets []cluster.Budget) names {
	var out names
	for _, b := range budgets {
		out = append(out, b.String())
	}
	return out
}
