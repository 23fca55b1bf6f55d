package checks

import (
	"context"
	"fmt"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	appsclient "k8s.io/client-go/kubernetes/typed/apps/v1"
	coordinationclient "k8s.io/client-go/kubernetes/typed/coordination/v1"
	coreclient "k8s.io/client-go/kubernetes/typed/core/v1"
	policyclient "k8s.io/client-go/kubernetes/typed/policy/v1"
	"k8s.io/client-go/rest"

	"github.com/sentinel-gate/sentinel-gate/gate"
	"github.com/sentinel-gate/sentinel-gate/gate/clock"
	"github.com/sentinel-gate/sentinel-gate/gate/record"
)

// page is how many objects one request lists: it bounds what is in memory at
// once in a large cluster.
const page = 500

// Cluster reads the API server for the checks: always the server itself, never
// a cache, and once per evaluation where several steps need the same.
type Cluster struct {
	// Namespace is the gate's own, where the records are.
	Namespace string
	// Node is the name of the gate's own Node object.
	Node string

	core         coreclient.CoreV1Interface
	apps         appsclient.AppsV1Interface
	coordination coordinationclient.CoordinationV1Interface
	policy       policyclient.PolicyV1Interface
}

// NewCluster returns the Cluster that config reaches.
func NewCluster(config *rest.Config, namespace, node string) (*Cluster, error) {
	config = rest.CopyConfig(config)
	config.Wrap(clock.Transport)
	config.QPS = -1 // the pages of one evaluation must not wait for each other; the API server protects itself
	config.ContentType = "application/vnd.kubernetes.protobuf"
	config.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, err
	}
	c := &Cluster{Namespace: namespace, Node: node}
	if c.core, err = coreclient.NewForConfigAndClient(config, client); err != nil {
		return nil, err
	}
	if c.apps, err = appsclient.NewForConfigAndClient(config, client); err != nil {
		return nil, err
	}
	if c.coordination, err = coordinationclient.NewForConfigAndClient(config, client); err != nil {
		return nil, err
	}
	if c.policy, err = policyclient.NewForConfigAndClient(config, client); err != nil {
		return nil, err
	}
	return c, nil
}

// Leases returns the client for the records.
func (c *Cluster) Leases() coordinationclient.LeaseInterface {
	return c.coordination.Leases(c.Namespace)
}

// Nodes returns the client for nodes, for the turn.
func (c *Cluster) Nodes() coreclient.NodeInterface { return c.core.Nodes() }

// DaemonSets returns the client for those of a namespace, for kured's lock.
func (c *Cluster) DaemonSets(namespace string) appsclient.DaemonSetInterface {
	return c.apps.DaemonSets(namespace)
}

// TurnRules are what the turn reads beside Leases: the holder's Node object, and
// kured's lock.
func TurnRules() []rbacv1.PolicyRule {
	return []rbacv1.PolicyRule{permit("", "nodes", "list"), permit("apps", "daemonsets", "list")}
}

// Reach returns an error where the API server cannot be used at all: there is
// none, or it does not know this token.
func (c *Cluster) Reach(ctx context.Context) error {
	return c.core.RESTClient().Get().AbsPath("/version").Do(ctx).Error()
}

// listing is what one LIST brought: of each object only what the checks need,
// and the API server's time before it.
type listing[T any] struct {
	items []T
	now   time.Time
	// version is where a watch takes up.
	version string
}

// list reads all pages. It fails where the answer does not tell the time.
func list[L metav1.ListInterface, T any](ctx context.Context, what string, options metav1.ListOptions, fetch func(context.Context, metav1.ListOptions) (L, error), items func(L, []T) []T) (listing[T], error) {
	ctx, reading := clock.Read(ctx)
	options.Limit = page
	var all listing[T]
	for {
		l, err := fetch(ctx, options)
		if err != nil {
			return listing[T]{}, fmt.Errorf("listing %s: %w", what, err)
		}
		all.items = items(l, all.items)
		if all.version == "" {
			all.version = l.GetResourceVersion()
		}
		if options.Continue = l.GetContinue(); options.Continue == "" {
			break
		}
	}
	var err error
	if all.now, err = reading.Now(); err != nil {
		return listing[T]{}, fmt.Errorf("listing %s: %w", what, err)
	}
	return all, nil
}

// node is what the checks need of a Node.
type node struct {
	name      string
	labels    map[string]string
	taints    []corev1.Taint
	created   time.Time
	bootID    string
	ready     corev1.ConditionStatus // empty: no such condition
	reason    string
	since     time.Time // of the Ready condition
	heartbeat time.Time

	unschedulable bool // cordoned
	allocatable   amounts
}

func newNode(n *corev1.Node) node {
	out := node{
		name: n.Name, labels: n.Labels, taints: n.Spec.Taints,
		created: n.CreationTimestamp.Time, bootID: n.Status.NodeInfo.BootID,
		unschedulable: n.Spec.Unschedulable, allocatable: amountsOf(n.Status.Allocatable),
	}
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			out.ready, out.reason = c.Status, c.Reason
			out.since, out.heartbeat = c.LastTransitionTime.Time, c.LastHeartbeatTime.Time
		}
	}
	return out
}

func (n node) isReady() bool { return n.ready == corev1.ConditionTrue }

type nodesKey struct{}

// nodes lists all nodes, once per evaluation: each step selects its own.
func (c *Cluster) nodes(ctx context.Context) (listing[node], error) {
	return gate.Shared(ctx, nodesKey{}, func(ctx context.Context) (listing[node], error) {
		return list(ctx, "nodes", metav1.ListOptions{}, c.core.Nodes().List, func(l *corev1.NodeList, nodes []node) []node {
			for i := range l.Items {
				nodes = append(nodes, newNode(&l.Items[i]))
			}
			return nodes
		})
	})
}

func (c *Cluster) followNodes(ctx context.Context, mu sync.Locker, nodes listing[node], changed func(listing[node])) error {
	return follow(ctx, mu, "nodes", nodes, func(n node) string { return n.name }, c.core.Nodes().Watch, metav1.ListOptions{},
		newNode, changed)
}

// pod is what the checks need of a Pod.
type pod struct {
	namespace, name string
	node            string
	owner           string // the name of its DaemonSet
	problem         problem
	crashed         time.Time // lately and repeatedly; zero: not
}

func (c *Cluster) pods(ctx context.Context, namespace, selector string) (listing[pod], error) {
	return list(ctx, podsIn(namespace, selector), metav1.ListOptions{LabelSelector: selector}, c.core.Pods(namespace).List, func(l *corev1.PodList, pods []pod) []pod {
		for i := range l.Items {
			pods = append(pods, newPod(&l.Items[i]))
		}
		return pods
	})
}

func (c *Cluster) followPods(ctx context.Context, mu sync.Locker, namespace, selector string, pods listing[pod], changed func(listing[pod])) error {
	return follow(ctx, mu, podsIn(namespace, selector), pods, func(p pod) string { return p.name }, c.core.Pods(namespace).Watch,
		metav1.ListOptions{LabelSelector: selector}, newPod, changed)
}

func podsIn(namespace, selector string) string {
	return fmt.Sprintf("pods %q in namespace %s", selector, namespace)
}

// daemonSets lists those of a namespace, or of all where it is empty.
func (c *Cluster) daemonSets(ctx context.Context, namespace string) (listing[appsv1.DaemonSet], error) {
	what := "daemonsets"
	if namespace != "" {
		what += " in namespace " + namespace
	}
	return list(ctx, what, metav1.ListOptions{}, c.apps.DaemonSets(namespace).List, func(l *appsv1.DaemonSetList, sets []appsv1.DaemonSet) []appsv1.DaemonSet {
		return append(sets, l.Items...)
	})
}

// entry is a record as read: malformed where err is set.
type entry struct {
	node string
	record.Record
	err error
}

func newEntry(l *coordinationv1.Lease) entry {
	r, err := record.Parse(l)
	return entry{node: l.Name, Record: r, err: err}
}

func (c *Cluster) records(ctx context.Context) (listing[entry], error) {
	return list(ctx, "records in namespace "+c.Namespace, metav1.ListOptions{LabelSelector: record.Label}, c.Leases().List, func(l *coordinationv1.LeaseList, entries []entry) []entry {
		for i := range l.Items {
			entries = append(entries, newEntry(&l.Items[i]))
		}
		return entries
	})
}

func (c *Cluster) followRecords(ctx context.Context, mu sync.Locker, records listing[entry], changed func(listing[entry])) error {
	return follow(ctx, mu, "records in namespace "+c.Namespace, records, func(e entry) string { return e.node }, c.Leases().Watch,
		metav1.ListOptions{LabelSelector: record.Label}, newEntry, changed)
}

// follow watches from where the listing was read. It calls changed with that
// listing, and with it brought up to date after each event, its time moved on
// by this process's own monotonic clock. It holds mu while it changes the
// listing, in place, and while changed runs: what changed keeps may be read
// under mu alone. It returns when the watch ends.
func follow[O interface{ GetName() string }, T any](ctx context.Context, mu sync.Locker, what string, from listing[T], key func(T) string,
	watcher func(context.Context, metav1.ListOptions) (watch.Interface, error), options metav1.ListOptions, compact func(O) T, changed func(listing[T])) error {
	options.ResourceVersion = from.version
	events, err := watcher(ctx, options)
	if err != nil {
		return fmt.Errorf("watching %s: %w", what, err)
	}
	defer events.Stop()
	began, start := time.Now(), from.now
	index := make(map[string]int, len(from.items))
	for i, item := range from.items {
		index[key(item)] = i
	}
	update := func(event func()) {
		mu.Lock()
		defer mu.Unlock()
		event()
		from.now = start.Add(time.Since(began))
		changed(from)
	}
	update(func() {})
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case event, ok := <-events.ResultChan():
			if !ok {
				return fmt.Errorf("watching %s: the API server ended the watch", what)
			}
			object, ok := event.Object.(O)
			if !ok {
				return fmt.Errorf("watching %s: %s: %v", what, event.Type, event.Object)
			}
			update(func() {
				i, known := index[object.GetName()]
				switch {
				case event.Type == watch.Deleted && known:
					last := len(from.items) - 1
					from.items[i] = from.items[last]
					index[key(from.items[i])] = i
					from.items = from.items[:last]
					delete(index, object.GetName())
				case event.Type == watch.Deleted:
				case known:
					from.items[i] = compact(object)
				default:
					index[object.GetName()] = len(from.items)
					from.items = append(from.items, compact(object))
				}
			})
		}
	}
}

// together runs all of the functions, breaks them off when the first returns,
// and returns why. One that panics has returned.
func together(ctx context.Context, functions ...func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var all sync.WaitGroup
	for _, f := range functions {
		all.Go(func() {
			defer func() {
				if p := recover(); p != nil {
					cancel(fmt.Errorf("panic: %v", p))
				}
			}()
			cancel(f(ctx))
		})
	}
	all.Wait()
	return context.Cause(ctx)
}
