package checks

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/sentinel-gate/sentinel-gate/gate"
	"github.com/sentinel-gate/sentinel-gate/gate/cluster"
	kit "github.com/sentinel-gate/sentinel-gate/test/kit/cluster"
	"github.com/sentinel-gate/sentinel-gate/test/kit/controlplane"
	"github.com/sentinel-gate/sentinel-gate/test/kit/suite"
)

// guest is a pod on node a that runs, is Ready, and has the label app; its
// workload is "Kind name", or empty for none.
func guest(app, name, workload string, change ...func(*cluster.Resident)) cluster.Resident {
	p := cluster.Resident{Namespace: "shop", Name: name, Node: "a", Labels: map[string]string{"app": app}, Phase: corev1.PodRunning, Ready: true}
	if kind, owner, ok := strings.Cut(workload, " "); ok {
		p.Controller = &metav1.OwnerReference{APIVersion: "apps/v1", Kind: kind, Name: owner}
		if kind == "ReplicaSet" {
			p.Labels["pod-template-hash"] = owner[strings.LastIndex(owner, "-")+1:]
		}
	}
	for _, c := range change {
		c(&p)
	}
	return p
}

func unready(p *cluster.Resident)  { p.Ready = false }
func deleting(p *cluster.Resident) { p.Deleting = true }
func mirrored(p *cluster.Resident) { p.Mirror = true }
func inPhase(phase corev1.PodPhase) func(*cluster.Resident) {
	return func(p *cluster.Resident) { p.Phase = phase }
}

// allowance is a budget over the pods with the label app, as its controller
// would compute it.
func allowance(app, rule string, healthy, desired, expected int32, change ...func(*cluster.Budget)) cluster.Budget {
	b := cluster.Budget{
		Namespace: "shop", Name: app, Selector: labels.SelectorFromSet(labels.Set{"app": app}), Rule: rule,
		CountsPods: strings.HasPrefix(rule, "minAvailable") && !strings.HasSuffix(rule, "%"),
		Observed:   true, Allowed: max(healthy-desired, 0), Healthy: healthy, Desired: desired, Expected: expected,
	}
	if expected <= 0 {
		b.Allowed = 0
	}
	for _, c := range change {
		c(&b)
	}
	return b
}

func TestDrainable(t *testing.T) {
	const web, db = "ReplicaSet web-5d4f8b", "StatefulSet db"
	twoWebs := []cluster.Resident{guest("web", "web-1", web), guest("web", "web-2", web)}
	stuck := allowance("web", "maxUnavailable 0", 3, 3, 3)
	for _, c := range []struct {
		name    string
		pods    []cluster.Resident
		budgets []cluster.Budget
		covered []cluster.Resident // of the budget web
		want    wanted
	}{
		{"nothing here", nil, []cluster.Budget{stuck}, nil, wanted{gate.Pass, "DrainFree", "0 of 0 pods would be evicted, and no budget stands in the way"}},
		{"no budgets", twoWebs, nil, nil, wanted{gate.Pass, "DrainFree", "2 of 2 pods would be evicted, and no budget stands in the way"}},
		{"a budget with room", twoWebs[:1], []cluster.Budget{allowance("web", "minAvailable 2", 3, 2, 3)}, nil, wanted{gate.Pass, "DrainFree", "1 of 1 pod would be evicted, and no budget stands in the way"}},
		{"another's budget", twoWebs, []cluster.Budget{allowance("db", "maxUnavailable 0", 3, 3, 3)}, nil, wanted{gate.Pass, "DrainFree", ""}},
		{"another namespace's budget", twoWebs, []cluster.Budget{allowance("web", "maxUnavailable 0", 3, 3, 3, func(b *cluster.Budget) { b.Namespace = "bank" })}, nil, wanted{gate.Pass, "DrainFree", ""}},
		{
			"one after another", twoWebs, []cluster.Budget{allowance("web", "maxUnavailable 1", 3, 2, 3)}, nil,
			wanted{gate.Pass, "DrainStepwise", "2 of 2 pods would be evicted, some one after another as others become healthy elsewhere: shop/web (maxUnavailable 1) lets 1 of 2 go at once: Deployment web (web-1, web-2)"},
		},

		{
			"TestF23MaxUnavailable0", twoWebs, []cluster.Budget{stuck}, twoWebs,
			wanted{gate.Fail, "BudgetNeverMet", "a drain would wait for ever: shop/web (maxUnavailable 0) wants 3 of 3 pods healthy, and so allows no eviction: Deployment web (web-1, web-2)"},
		},
		{
			"TestF23AsManyAsReplicas", []cluster.Resident{guest("db", "db-0", db)}, []cluster.Budget{allowance("db", "minAvailable 1", 1, 1, 1)}, nil,
			wanted{gate.Fail, "BudgetNeverMet", "a drain would wait for ever: shop/db (minAvailable 1) wants 1 of 1 pod healthy, and so allows no eviction: StatefulSet db (db-0)"},
		},
		{"TestF23MoreThanReplicas", twoWebs, []cluster.Budget{allowance("web", "minAvailable 5", 3, 5, 3)}, nil, wanted{gate.Fail, "BudgetNeverMet", "a drain would wait for ever: shop/web (minAvailable 5) wants 5 of 3 pods healthy, and so allows no eviction: Deployment web (web-1, web-2)"}},
		{"TestF23Percent", twoWebs, []cluster.Budget{allowance("web", "minAvailable 100%", 2, 3, 3)}, nil, wanted{gate.Fail, "BudgetNeverMet", ""}},
		{
			// The controller counts the pod that failed a week ago, and so does not
			// see that all of the others must be there.
			"TestF23FinishedPodsDoNotHelp", twoWebs, []cluster.Budget{allowance("web", "minAvailable 2", 2, 2, 3)},
			append([]cluster.Resident{guest("web", "web-0", web, inPhase(corev1.PodFailed))}, twoWebs...),
			wanted{gate.Fail, "BudgetNeverMet", "a drain would wait for ever: shop/web (minAvailable 2) wants 2 of 2 pods healthy, and so allows no eviction: Deployment web (web-1, web-2)"},
		},
		{
			"TestF23PodsThatCannotBeScaled", []cluster.Resident{guest("web", "bare", "")}, []cluster.Budget{allowance("web", "maxUnavailable 1", 1, 0, 0)}, nil,
			wanted{gate.Fail, "BudgetNeverMet", "a drain would wait for ever: shop/web (maxUnavailable 1) covers no workload that can be scaled, and so allows no eviction: no controller (bare)"},
		},
		{
			"TestF23NobodyMakesThemAnew", []cluster.Resident{guest("web", "bare-1", ""), guest("web", "bare-2", "")}, []cluster.Budget{allowance("web", "minAvailable 1", 2, 1, 2)}, nil,
			wanted{gate.Fail, "BudgetNeverMet", "a drain would wait for ever: shop/web (minAvailable 1) lets 1 pod go, and nobody makes those without a controller anew: no controller (bare-1, bare-2)"},
		},
		{"one that nobody makes anew", []cluster.Resident{guest("web", "bare-1", "")}, []cluster.Budget{allowance("web", "minAvailable 1", 2, 1, 2)}, nil, wanted{gate.Pass, "DrainFree", ""}},
		{
			// If it goes first, the other never may.
			"TestF23OneOfThemNobodyMakesAnew", []cluster.Resident{guest("web", "bare", ""), guest("web", "web-1", web)}, []cluster.Budget{allowance("web", "minAvailable 1", 2, 1, 2)}, nil,
			wanted{gate.Fail, "BudgetNeverMet", ""},
		},

		{
			"TestF23NotNow", twoWebs[:1], []cluster.Budget{allowance("web", "maxUnavailable 1", 2, 2, 3)},
			[]cluster.Resident{twoWebs[0], guest("web", "web-2", web, func(p *cluster.Resident) { p.Node = "b" }), guest("web", "web-3", web, unready, func(p *cluster.Resident) { p.Node = "c" }), guest("web", "web-4", web, deleting, func(p *cluster.Resident) { p.Node = "" })},
			wanted{gate.Fail, "BudgetUsedUp", "a drain would wait for now: shop/web (maxUnavailable 1) wants 2 of 3 pods healthy, and 2 are (web-3 on c is not Ready, web-4 on no node is being deleted): Deployment web (web-1)"},
		},
		{
			"TestF23JustEvictedAnother", twoWebs[:1], []cluster.Budget{allowance("web", "maxUnavailable 1", 2, 2, 3, func(b *cluster.Budget) { b.Disrupted = 1 })}, nil,
			wanted{gate.Fail, "BudgetUsedUp", "a drain would wait for now: shop/web (maxUnavailable 1) wants 2 of 3 pods healthy, and 2 are (1 is just being evicted): Deployment web (web-1)"},
		},
		{
			"TestF23NotYetObserved", twoWebs[:1], []cluster.Budget{allowance("web", "maxUnavailable 1", 3, 2, 3, func(b *cluster.Budget) { b.Observed = false })}, nil,
			wanted{gate.Fail, "BudgetNotComputed", "a drain would wait for now: shop/web (maxUnavailable 1) was changed, and its controller has not seen that: Deployment web (web-1)"},
		},
		{
			"TestF23SyncFailed", twoWebs[:1], []cluster.Budget{allowance("web", "maxUnavailable 1", 0, 0, 0, func(b *cluster.Budget) { b.Failure = "found no controllers for pod \"web-1\"" })}, nil,
			wanted{gate.Fail, "BudgetNotComputed", `a drain would wait for now: shop/web (maxUnavailable 1) cannot be computed (found no controllers for pod "web-1"): Deployment web (web-1)`},
		},
		{
			"TestF23TooManyUnconfirmed", twoWebs[:1], []cluster.Budget{allowance("web", "maxUnavailable 1", 3, 2, 3, func(b *cluster.Budget) { b.Disrupted = maxDisrupted + 1 })}, nil,
			wanted{gate.Fail, "BudgetNotComputed", "a drain would wait for now: shop/web (maxUnavailable 1) has a status that the API server refuses, with 1 disruption allowed and 2001 evictions unconfirmed: Deployment web (web-1)"},
		},
		{
			"TestF23SeveralBudgets", twoWebs[:1],
			[]cluster.Budget{allowance("web", "maxUnavailable 1", 3, 2, 3), allowance("web", "minAvailable 1", 3, 1, 3, func(b *cluster.Budget) { b.Name = "all" })}, nil,
			wanted{gate.Fail, "SeveralBudgets", "a drain would wait for ever: Deployment web (web-1): the API server refuses to evict a pod that more than one budget covers, here shop/all (minAvailable 1), shop/web (maxUnavailable 1)"},
		},
		{
			"TestF23NeverComesBeforeNotNow", append([]cluster.Resident{guest("db", "db-0", db)}, twoWebs...),
			[]cluster.Budget{allowance("db", "maxUnavailable 1", 2, 2, 3), stuck}, nil,
			wanted{gate.Fail, "BudgetNeverMet", "a drain would wait for ever: shop/web (maxUnavailable 0) wants 3 of 3 pods healthy, and so allows no eviction: Deployment web (web-1, web-2); and for now: shop/db (maxUnavailable 1) wants 2 of 3 pods healthy, and 2 are: StatefulSet db (db-0)"},
		},

		{"one that is not Ready, of enough", []cluster.Resident{guest("web", "web-1", web, unready)}, []cluster.Budget{allowance("web", "maxUnavailable 1", 2, 2, 3)}, nil, wanted{gate.Pass, "DrainFree", ""}},
		{"TestF23NotReadyOfTooFew", []cluster.Resident{guest("web", "web-1", web, unready)}, []cluster.Budget{allowance("web", "maxUnavailable 1", 1, 2, 3)}, nil, wanted{gate.Fail, "BudgetUsedUp", ""}},
		{"one that is not Ready, always allowed", []cluster.Resident{guest("web", "web-1", web, unready)}, []cluster.Budget{allowance("web", "maxUnavailable 0", 1, 3, 3, func(b *cluster.Budget) { b.AlwaysAllow = true })}, nil, wanted{gate.Pass, "DrainFree", ""}},
		{"a Ready one, always allowed", twoWebs[:1], []cluster.Budget{allowance("web", "maxUnavailable 0", 1, 3, 3, func(b *cluster.Budget) { b.AlwaysAllow = true })}, nil, wanted{gate.Fail, "BudgetNeverMet", ""}},
		{
			"what stays, and what goes freely",
			[]cluster.Resident{
				guest("web", "ds", "DaemonSet web"), guest("web", "static", "Node a", mirrored), guest("web", "done", web, inPhase(corev1.PodSucceeded)),
				guest("web", "failed", "DaemonSet web", inPhase(corev1.PodFailed)), guest("web", "new", web, inPhase(corev1.PodPending)), guest("web", "old", web, deleting),
			},
			[]cluster.Budget{stuck}, nil, wanted{gate.Pass, "DrainFree", "4 of 6 pods would be evicted, and no budget stands in the way"},
		},
		{
			// kubectl knows the DaemonSets of apps/v1 only.
			"TestF23AnotherKindOfDaemonSet", []cluster.Resident{guest("web", "ds", "DaemonSet web", func(p *cluster.Resident) { p.Controller.APIVersion = "apps.kruise.io/v1alpha1" })}, []cluster.Budget{stuck}, nil,
			wanted{gate.Fail, "BudgetNeverMet", ""},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := drain{node: "a", nodes: nodesOf("a b"), pods: c.pods, budgets: c.budgets, covered: map[string][]cluster.Resident{}}
			for _, b := range c.budgets {
				if b.Name == "web" {
					d.covered[b.String()] = c.covered
				}
			}
			c.want.compare(t, drainable(d, DisruptionBudgetsOptions{}))
		})
	}
	t.Run("not drained", func(t *testing.T) {
		d := drain{node: "a", nodes: nodesOf("a b"), pods: twoWebs, budgets: []cluster.Budget{stuck}}
		wanted{gate.Pass, "DrainFree", "0 of 2 pods would be evicted, and no budget stands in the way"}.compare(t, drainable(d, DisruptionBudgetsOptions{PodSelector: selector(t, "app!=web")}))
	})
	t.Run("another node", func(t *testing.T) {
		wanted{gate.Unknown, "OwnNodeUnknown", `the gate's own node "c" is none of the 2 nodes of the cluster`}.compare(t, drainable(drain{node: "c", nodes: nodesOf("a b")}, DisruptionBudgetsOptions{}))
	})
}

// A hundred budgets that refuse are not a message of a hundred lines.
func TestDrainableTellsAFew(t *testing.T) {
	d := drain{node: "a", nodes: nodesOf("a b")}
	for i := range 100 {
		app := fmt.Sprintf("app-%02d", i)
		d.pods = append(d.pods, guest(app, app+"-0", "StatefulSet "+app))
		d.budgets = append(d.budgets, allowance(app, "maxUnavailable 0", 1, 1, 1))
	}
	got := drainable(d, DisruptionBudgetsOptions{})
	if !strings.HasSuffix(got.Message, "StatefulSet app-04 (app-04-0); and 95 more") {
		t.Errorf("got %s", got.Message)
	}
}

// Whatever pods and budgets there are: the gate opens only if the API server
// would evict each pod that is in the way by itself, and less allowance never
// makes a pass.
func FuzzDrainable(f *testing.F) {
	f.Add("web-1 web-2!", "ReplicaSet web-5d", int32(2), int32(1), int32(3), int32(0), int32(1), true)
	f.Add("bare web-1-", "", int32(1), int32(1), int32(1), int32(2001), int32(0), true)
	f.Add("x~ y+", "StatefulSet x", int32(-1), int32(0), int32(-5), int32(0), int32(-1), false)
	f.Fuzz(func(t *testing.T, text, workload string, healthy, desired, expected, disrupted, allowed int32, observed bool) {
		if strings.HasPrefix(workload, "ReplicaSet") && !strings.Contains(workload, "-") {
			return
		}
		d := drain{node: "a", nodes: nodesOf("a b"), covered: map[string][]cluster.Resident{}}
		for i, word := range strings.Fields(text) {
			p := guest("web", strconv.Itoa(i), workload)
			p.Ready = !strings.Contains(word, "!")
			p.Deleting = strings.Contains(word, "-")
			p.Mirror = strings.Contains(word, "+")
			if strings.Contains(word, "~") {
				p.Phase = corev1.PodSucceeded
			}
			d.pods = append(d.pods, p)
		}
		b := allowance("web", "minAvailable 1", healthy, desired, expected, func(b *cluster.Budget) {
			b.Observed, b.Disrupted, b.Allowed = observed, int(disrupted), allowed
		})
		d.budgets = []cluster.Budget{b}
		d.covered[b.String()] = d.pods
		got := drainable(d, DisruptionBudgetsOptions{})
		if got.Reason == "" || got.Message == "" {
			t.Errorf("%+v does not say why", got)
		}
		refused := 0
		for _, p := range d.pods {
			if status, _ := evict(p, d.budgets); status != http.StatusCreated && p.Leaves(cluster.Selector{}) {
				refused++
			}
		}
		if got.Verdict == gate.Pass && refused > 0 {
			t.Errorf("%d evictions would be refused: %+v", refused, got)
		}
		if got.Verdict == gate.Pass {
			return
		}
		d.budgets = []cluster.Budget{b}
		d.budgets[0].Allowed = min(allowed, 0)
		if after := drainable(d, DisruptionBudgetsOptions{}); after.Verdict == gate.Pass {
			t.Errorf("with nothing allowed %+v became %+v", got, after)
		}
	})
}

// evictionAnswer asks the real API server what it would answer, and evicts
// nothing. The client would wait and ask again where it is told to.
func evictionAnswer(ctx context.Context, cp *controlplane.ControlPlane, namespace, name string) (status int, message string) {
	result := cp.Client().PolicyV1().RESTClient().Post().
		AbsPath("/api/v1/namespaces", namespace, "pods", name, "eviction").
		Param("dryRun", metav1.DryRunAll).MaxRetries(0).
		Body(&policyv1.Eviction{
			ObjectMeta:    metav1.ObjectMeta{Namespace: namespace, Name: name},
			DeleteOptions: &metav1.DeleteOptions{DryRun: []string{metav1.DryRunAll}},
		}).Do(ctx)
	result.StatusCode(&status)
	if err := result.Error(); err != nil {
		message = err.Error()
	}
	return status, message
}

// compareEvictions compares, for every pod on the node, the prediction with the
// answer of the real API server. It returns how often each status was given.
func compareEvictions(ctx context.Context, t *testing.T, cp *controlplane.ControlPlane, reading *cluster.Cluster) map[int]int {
	t.Helper()
	pods, err := reading.Residents(ctx)
	if err != nil {
		t.Fatal(err)
	}
	budgets, err := reading.Budgets(ctx)
	if err != nil {
		t.Fatal(err)
	}
	answers := map[int]int{}
	for _, p := range pods {
		var over []cluster.Budget
		for _, b := range budgets {
			if b.Covers(p) {
				over = append(over, b)
			}
		}
		predicted, _ := evict(p, over)
		answer, message := evictionAnswer(ctx, cp, p.Namespace, p.Name)
		answers[answer]++
		if answer != predicted {
			t.Errorf("%s/%s under %s: the API server answers %d (%s), and the prediction is %d", p.Namespace, p.Name, budgetNames(over), answer, message, predicted)
		}
	}
	return answers
}

// F23: what the check predicts of an eviction is what the real API server
// answers, whatever state the pod and its budgets are in.
func TestF23PredictsTheAPIServersAnswer(t *testing.T) {
	w := newWatched(t)
	w.reading.Node = "n1"
	client := w.CP.Client()
	status := func(allowed, healthy, desired, expected int32) policyv1.PodDisruptionBudgetStatus {
		return policyv1.PodDisruptionBudgetStatus{
			ObservedGeneration: 1, DisruptionsAllowed: allowed, CurrentHealthy: healthy, DesiredHealthy: desired, ExpectedPods: expected,
		}
	}
	onWeb := &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}
	always, ifHealthy := policyv1.AlwaysAllow, policyv1.IfHealthyBudget
	type budgetOf struct {
		selector *metav1.LabelSelector
		policy   *policyv1.UnhealthyPodEvictionPolicyType
		status   policyv1.PodDisruptionBudgetStatus
	}
	one := func(s policyv1.PodDisruptionBudgetStatus) []budgetOf { return []budgetOf{{onWeb, nil, s}} }
	notReady := func(s *corev1.PodStatus) {
		for i := range s.Conditions {
			s.Conditions[i].Status = corev1.ConditionFalse
		}
	}
	phase := func(phase corev1.PodPhase) func(*corev1.PodStatus) {
		return func(s *corev1.PodStatus) { s.Phase = phase }
	}
	disrupted := func(count int) policyv1.PodDisruptionBudgetStatus {
		s := status(1, 3, 2, 3)
		s.DisruptedPods = map[string]metav1.Time{}
		for i := range count {
			s.DisruptedPods["p"+strconv.Itoa(i)] = metav1.Now()
		}
		return s
	}
	failed := status(0, 0, 0, 0)
	failed.Conditions = []metav1.Condition{{Type: policyv1.DisruptionAllowedCondition, Status: metav1.ConditionFalse, Reason: policyv1.SyncFailedReason, Message: "no scale", LastTransitionTime: metav1.Now()}}
	lagging := status(1, 3, 2, 3)
	lagging.ObservedGeneration = 0

	for i, c := range []struct {
		name    string
		change  func(*corev1.PodStatus) // of the pod, which runs and is Ready
		budgets []budgetOf
		answer  int
	}{
		{"no budget", nil, nil, 201},
		{"one disruption allowed", nil, one(status(1, 3, 2, 3)), 201},
		{"none allowed", nil, one(status(0, 3, 3, 3)), 429},
		{"none allowed, too few healthy", nil, one(status(0, 1, 2, 3)), 429},
		{"the last change not observed", nil, one(lagging), 429},
		{"not computed", nil, one(failed), 429},
		{"two budgets", nil, append(one(status(1, 3, 2, 3)), budgetOf{onWeb, nil, status(1, 3, 2, 3)}), 500},
		{"two budgets, a pod that starts", phase(corev1.PodPending), append(one(status(1, 3, 2, 3)), budgetOf{onWeb, nil, status(1, 3, 2, 3)}), 201},
		{"a budget of all pods", nil, []budgetOf{{&metav1.LabelSelector{}, nil, status(0, 3, 3, 3)}}, 429},
		{"a budget of no pods", nil, []budgetOf{{nil, nil, status(0, 3, 3, 3)}}, 201},
		{"a budget of other pods", nil, []budgetOf{{&metav1.LabelSelector{MatchLabels: map[string]string{"app": "db"}}, nil, status(0, 3, 3, 3)}}, 201},
		{"a budget by expression", nil, []budgetOf{{&metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "app", Operator: metav1.LabelSelectorOpNotIn, Values: []string{"db"}}}}, nil, status(0, 3, 3, 3)}}, 429},
		{"succeeded", phase(corev1.PodSucceeded), one(status(0, 3, 3, 3)), 201},
		{"failed", phase(corev1.PodFailed), one(status(0, 3, 3, 3)), 201},
		{"pending", phase(corev1.PodPending), one(status(0, 3, 3, 3)), 201},
		{"of unknown phase", phase(corev1.PodUnknown), one(status(0, 3, 3, 3)), 429},
		{"not Ready, enough healthy", notReady, one(status(0, 2, 2, 3)), 201},
		{"not Ready, too few healthy", notReady, one(status(0, 1, 2, 3)), 429},
		{"not Ready, none desired", notReady, one(status(0, 0, 0, 1)), 429},
		{"not Ready, none desired, one allowed", notReady, one(status(1, 1, 0, 1)), 201},
		{"not Ready, too few healthy, one allowed", notReady, one(status(1, 1, 2, 3)), 201},
		{"not Ready, enough healthy, not observed", notReady, one(policyv1.PodDisruptionBudgetStatus{CurrentHealthy: 2, DesiredHealthy: 2, ExpectedPods: 3}), 201},
		{"not Ready, too few healthy, always allowed", notReady, []budgetOf{{onWeb, &always, status(0, 1, 2, 3)}}, 201},
		{"not Ready, too few healthy, if healthy", notReady, []budgetOf{{onWeb, &ifHealthy, status(0, 1, 2, 3)}}, 429},
		{"Ready, always allowed", nil, []budgetOf{{onWeb, &always, status(0, 3, 3, 3)}}, 429},
		{"some evictions unconfirmed", nil, one(disrupted(3)), 201},
		{"as many unconfirmed as may be", nil, one(disrupted(maxDisrupted)), 201},
		{"too many unconfirmed", nil, one(disrupted(maxDisrupted + 1)), 403},
		{"without a Ready condition", func(s *corev1.PodStatus) { s.Conditions = nil }, one(status(0, 1, 2, 3)), 429},
	} {
		t.Run(c.name, func(t *testing.T) {
			w.t = t
			namespace := fmt.Sprintf("f23-%d", i)
			w.must(w.CP.Namespace(w.ctx, namespace))
			_, err := w.CP.AddPod(w.ctx, namespace, "web-1", "n1", map[string]string{"app": "web"}, nil)
			w.must(err)
			t.Cleanup(func() { w.must(w.CP.DeletePod(w.ctx, namespace, "web-1")) })
			if c.change != nil {
				_, err = w.CP.SetPodStatus(w.ctx, namespace, "web-1", c.change)
				w.must(err)
			}
			most := intstr.FromInt32(1)
			for j, b := range c.budgets {
				made, err := client.PolicyV1().PodDisruptionBudgets(namespace).Create(w.ctx, &policyv1.PodDisruptionBudget{
					ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("b%d", j)},
					Spec:       policyv1.PodDisruptionBudgetSpec{Selector: b.selector, MaxUnavailable: &most, UnhealthyPodEvictionPolicy: b.policy},
				}, metav1.CreateOptions{})
				w.must(err)
				made.Status = b.status
				_, err = client.PolicyV1().PodDisruptionBudgets(namespace).UpdateStatus(w.ctx, made, metav1.UpdateOptions{})
				w.must(err)
			}
			t.Cleanup(func() {
				w.must(client.PolicyV1().PodDisruptionBudgets(namespace).DeleteCollection(w.ctx, metav1.DeleteOptions{}, metav1.ListOptions{}))
			})
			answers := compareEvictions(w.ctx, t, w.CP, w.reading)
			if answers[c.answer] == 0 || c.answer != 201 && answers[c.answer] != 1 {
				t.Errorf("the API server answered %v, want %d for this pod", answers, c.answer)
			}
		})
	}
	w.t = t
	t.Run("being deleted", func(t *testing.T) {
		w.t = t
		w.must(w.CP.Namespace(w.ctx, "f23-deleting"))
		_, err := w.CP.AddPod(w.ctx, "f23-deleting", "web-1", "n1", map[string]string{"app": "web"}, nil)
		w.must(err)
		most := intstr.FromInt32(0)
		_, err = client.PolicyV1().PodDisruptionBudgets("f23-deleting").Create(w.ctx, &policyv1.PodDisruptionBudget{
			ObjectMeta: metav1.ObjectMeta{Name: "b"}, Spec: policyv1.PodDisruptionBudgetSpec{Selector: onWeb, MaxUnavailable: &most},
		}, metav1.CreateOptions{})
		w.must(err)
		if answers := compareEvictions(w.ctx, t, w.CP, w.reading); answers[429] != 1 {
			t.Errorf("before: %v", answers)
		}
		w.must(client.CoreV1().Pods("f23-deleting").Delete(w.ctx, "web-1", *metav1.NewDeleteOptions(60)))
		t.Cleanup(func() {
			w.must(w.CP.DeletePod(w.ctx, "f23-deleting", "web-1"))
			w.must(client.PolicyV1().PodDisruptionBudgets("f23-deleting").Delete(w.ctx, "b", metav1.DeleteOptions{}))
		})
		if answers := compareEvictions(w.ctx, t, w.CP, w.reading); answers[429] != 0 {
			t.Errorf("after: %v", answers)
		}
	})
	w.t = t
}

// F23, from end to end: budgets of real Deployments, whose status the real
// disruption controller writes.
func TestF23Budgets(t *testing.T) {
	suite.NeedsServers(t)
	ctx := suite.Context(t, 3*time.Minute)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	cp, err := controlplane.Start(ctx, controlplane.Options{
		Progress: os.Stderr, ControllerManager: true,
		// Not the node controllers: nobody here renews a lease.
		ControllerManagerFlags: []string{"--controllers=disruption-controller,deployment-controller,replicaset-controller"},
	})
	must(err)
	defer cp.Stop()
	for _, n := range []string{"n1", "n2"} {
		_, err = cp.AddNode(ctx, n)
		must(err)
	}
	reading, err := cluster.New(cp.Config(), kit.Namespace, "n1")
	must(err)
	check, problems := New("disruptionBudgets", nil, reading)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	client := cp.Client()
	integer, percent := intstr.FromInt32, intstr.FromString

	for _, c := range []struct {
		name         string
		here, there  int // replicas, on n1 and on n2
		unready      int // of those on n2
		spec         policyv1.PodDisruptionBudgetSpec
		bare         int // pods on n1 without a controller
		verdict      gate.Verdict
		reason, says string
	}{
		{"free", 1, 1, 0, policyv1.PodDisruptionBudgetSpec{MinAvailable: new(integer(1))}, 0, gate.Pass, "DrainFree", "1 of 1 pod would be evicted"},
		{"stepwise", 2, 1, 0, policyv1.PodDisruptionBudgetSpec{MaxUnavailable: new(integer(1))}, 0, gate.Pass, "DrainStepwise", "lets 1 of 2 go at once: Deployment stepwise (stepwise-"},
		{"zero", 1, 1, 0, policyv1.PodDisruptionBudgetSpec{MaxUnavailable: new(integer(0))}, 0, gate.Fail, "BudgetNeverMet", "zero/zero (maxUnavailable 0) wants 2 of 2 pods healthy, and so allows no eviction: Deployment zero (zero-"},
		{"all", 1, 1, 0, policyv1.PodDisruptionBudgetSpec{MinAvailable: new(integer(2))}, 0, gate.Fail, "BudgetNeverMet", "all/all (minAvailable 2) wants 2 of 2 pods healthy"},
		{"percent", 1, 1, 0, policyv1.PodDisruptionBudgetSpec{MinAvailable: new(percent("51%"))}, 0, gate.Fail, "BudgetNeverMet", "percent/percent (minAvailable 51%) wants 2 of 2 pods healthy"},
		{"alone", 1, 0, 0, policyv1.PodDisruptionBudgetSpec{MinAvailable: new(integer(1))}, 0, gate.Fail, "BudgetNeverMet", "alone/alone (minAvailable 1) wants 1 of 1 pod healthy"},
		{"busy", 1, 2, 1, policyv1.PodDisruptionBudgetSpec{MaxUnavailable: new(integer(1))}, 0, gate.Fail, "BudgetUsedUp", "busy/busy (maxUnavailable 1) wants 2 of 3 pods healthy, and 2 are (busy-"},
		{"scarce", 1, 2, 1, policyv1.PodDisruptionBudgetSpec{MinAvailable: new(integer(2))}, 0, gate.Fail, "BudgetUsedUp", "scarce/scarce (minAvailable 2) wants 2 of 3 pods healthy, and 2 are (scarce-"},
		{"bare", 0, 0, 0, policyv1.PodDisruptionBudgetSpec{MaxUnavailable: new(integer(1))}, 1, gate.Fail, "BudgetNeverMet", "bare/bare (maxUnavailable 1) covers no workload that can be scaled"},
		{"lost", 0, 0, 0, policyv1.PodDisruptionBudgetSpec{MinAvailable: new(integer(1))}, 2, gate.Fail, "BudgetNeverMet", "lost/lost (minAvailable 1) lets 1 pod go, and nobody makes those without a controller anew: no controller (bare-0, bare-1)"},
		{"neither", 1, 1, 0, policyv1.PodDisruptionBudgetSpec{}, 0, gate.Fail, "BudgetNeverMet", "neither/neither (no rule) covers no workload that can be scaled"},
	} {
		t.Run(c.name, func(t *testing.T) {
			namespace, app := c.name, map[string]string{"app": c.name}
			must(cp.Namespace(ctx, namespace))
			pods := client.CoreV1().Pods(namespace)
			replicas := int32(c.here + c.there)
			if replicas > 0 {
				_, err := client.AppsV1().Deployments(namespace).Create(ctx, &appsv1.Deployment{
					ObjectMeta: metav1.ObjectMeta{Name: c.name},
					Spec: appsv1.DeploymentSpec{
						Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: app},
						Template: corev1.PodTemplateSpec{
							ObjectMeta: metav1.ObjectMeta{Labels: app},
							Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "example.com/main:1"}}},
						},
					},
				}, metav1.CreateOptions{})
				must(err)
			}
			t.Cleanup(func() {
				_ = client.AppsV1().Deployments(namespace).Delete(ctx, c.name, metav1.DeleteOptions{})
				must(controlplane.Poll(ctx, func() error {
					// No collector runs: what a Deployment has left would make its pods anew.
					must(client.AppsV1().ReplicaSets(namespace).DeleteCollection(ctx, *metav1.NewDeleteOptions(0), metav1.ListOptions{}))
					must(pods.DeleteCollection(ctx, *metav1.NewDeleteOptions(0), metav1.ListOptions{}))
					left, err := pods.List(ctx, metav1.ListOptions{})
					if err == nil && len(left.Items) > 0 {
						err = fmt.Errorf("%d pods are left", len(left.Items))
					}
					return err
				}))
			})
			var made []corev1.Pod
			must(controlplane.Poll(ctx, func() error {
				l, err := pods.List(ctx, metav1.ListOptions{})
				if err == nil && len(l.Items) != int(replicas) {
					err = fmt.Errorf("%d pods of %d", len(l.Items), replicas)
				}
				made = l.Items
				return err
			}))
			for i := range made {
				node := "n2"
				if i < c.here {
					node = "n1"
				}
				must(pods.Bind(ctx, &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: made[i].Name}, Target: corev1.ObjectReference{Kind: "Node", Name: node}}, metav1.CreateOptions{}))
				_, err := cp.SetPodStatus(ctx, namespace, made[i].Name, func(s *corev1.PodStatus) {
					s.Phase = corev1.PodRunning
					if i < c.here || i >= c.here+c.unready {
						s.Conditions = append(s.Conditions, corev1.PodCondition{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()})
					}
				})
				must(err)
			}
			for i := range c.bare {
				_, err := cp.AddPod(ctx, namespace, fmt.Sprintf("bare-%d", i), "n1", app, nil)
				must(err)
			}
			c.spec.Selector = &metav1.LabelSelector{MatchLabels: app}
			_, err := client.PolicyV1().PodDisruptionBudgets(namespace).Create(ctx, &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Name: c.name}, Spec: c.spec}, metav1.CreateOptions{})
			must(err)
			ready := c.here + c.there - c.unready + c.bare
			must(controlplane.Poll(ctx, func() error {
				b, err := client.PolicyV1().PodDisruptionBudgets(namespace).Get(ctx, c.name, metav1.GetOptions{})
				if err == nil && (b.Status.ObservedGeneration != b.Generation || int(b.Status.CurrentHealthy) != ready) {
					err = fmt.Errorf("the budget's status is %+v", b.Status)
				}
				return err
			}))

			compareEvictions(ctx, t, cp, reading)
			got, err := check.Check(ctx)
			must(err)
			wanted{verdict: c.verdict, reason: c.reason}.compare(t, got)
			if !strings.Contains(got.Message, c.says) {
				t.Errorf("message: %s\nwant in it: %s", got.Message, c.says)
			}
			v, err := verify(ctx, check)
			must(err)
			if v.Vacuous() || v.Result != got {
				t.Errorf("it could not fail, or judged otherwise: %+v\n%s", v.Result, v.changes())
			}
			if c.name == "free" && !strings.HasPrefix(v.changes(), "used up: free/free (minAvailable 1) -> Fail BudgetUsedUp\nput under a budget") {
				t.Errorf("mutations:\n%s", v.changes())
			}
		})
	}
}

// Verify shows that the step can fail on a node without pods and budgets, too.
func TestDisruptionBudgetsVerify(t *testing.T) {
	w := newWatched(t)
	w.reading.Node = "n1"
	v := w.verify("disruptionBudgets", ``, "1 pod to evict, of 2 on n1, and 0 budgets")
	if got := v.changes(); got != "put under a budget that allows no eviction: elsewhere/p-n1 -> Fail BudgetNeverMet" {
		t.Errorf("mutations:\n%s", got)
	}
	w.must(w.CP.DeletePod(w.ctx, elsewhere, "p-n1"))
	v = w.verify("disruptionBudgets", ``, "0 pods to evict, of 1 on n1, and 0 budgets")
	if got := v.changes(); got != "put under a budget that allows no eviction: default/another -> Fail BudgetNeverMet" {
		t.Errorf("mutations without pods:\n%s", got)
	}
	if v := w.verify("disruptionBudgets", `{"podSelector": "drain=me"}`, "0 pods to evict, of 1 on n1, and 0 budgets"); !v.Vacuous() {
		t.Errorf("no pod is drained, and it says that it could fail: %s", v.changes())
	}
}
