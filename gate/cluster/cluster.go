// Package cluster has every read of the API server. Its invariant: what it
// returns was read from the server itself, never from a cache, in this
// evaluation, and with the server's own time. It judges nothing.
//
// One noun to a file: what is asked (cluster.go, client.go, scheme.go), how a
// list is read and then watched (follow.go), what steps of one evaluation share
// (shared.go, now.go), and what is kept of nodes, pods, records, drains, loads
// and of any other object.
package cluster

import (
	"context"
	"net/http"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"

	"github.com/sentinel-gate/sentinel-gate/gate/clock"
	"github.com/sentinel-gate/sentinel-gate/gate/packages"
)

// Cluster reads the API server: once per evaluation where several steps need
// the same.
type Cluster struct {
	// Namespace is the gate's own, where the records are.
	Namespace string
	// Node is the name of the gate's own Node object.
	Node string

	// Parts tells what the gate's own node would run after its next boot, and GoFirstAfter
	// for how long a node may wait before it goes first; both where exposure is configured.
	Parts        func() packages.Found
	GoFirstAfter time.Duration

	// Witness compares what the answers say of the time.
	Witness *clock.Witness

	core, apps, coordination, policy rest.Interface
}

// New returns the Cluster that config reaches. It sends nothing yet.
func New(config *rest.Config, namespace, node string) (*Cluster, error) {
	config = rest.CopyConfig(config)
	connections := newConnections()
	witness := &clock.Witness{Disagreed: connections.renew}
	config.Dial = connections.dialer.DialContext
	config.Wrap(witness.Transport)
	config.Wrap(connections.transport)
	config.QPS = -1 // the pages of one evaluation must not wait for each other; the API server protects itself
	config.ContentType = "application/vnd.kubernetes.protobuf"
	config.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	config.NegotiatedSerializer = codecs.WithoutConversion()
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, err
	}
	c := &Cluster{Namespace: namespace, Node: node, Witness: witness}
	for _, group := range []struct {
		client  *rest.Interface
		path    string
		version schema.GroupVersion
	}{
		{&c.core, "/api", corev1.SchemeGroupVersion},
		{&c.apps, "/apis", appsv1.SchemeGroupVersion},
		{&c.coordination, "/apis", coordinationv1.SchemeGroupVersion},
		{&c.policy, "/apis", policyv1.SchemeGroupVersion},
	} {
		if *group.client, err = restClient(config, client, group.path, group.version); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func restClient(config *rest.Config, client *http.Client, path string, version schema.GroupVersion) (rest.Interface, error) {
	config = rest.CopyConfig(config)
	config.APIPath, config.GroupVersion = path, &version
	return rest.RESTClientForConfigAndClient(config, client)
}

// LeaseClient returns the client for the Leases of the gate's namespace: the
// records and the turn. Only these are ever written.
func (c *Cluster) LeaseClient() *Client[*coordinationv1.Lease, *coordinationv1.LeaseList] {
	return newClient[coordinationv1.Lease, coordinationv1.LeaseList](c.coordination, "leases", c.Namespace)
}

// NodeClient returns the client for nodes.
func (c *Cluster) NodeClient() *Client[*corev1.Node, *corev1.NodeList] {
	return newClient[corev1.Node, corev1.NodeList](c.core, "nodes", "")
}

// DaemonSetClient returns the client for the DaemonSets of a namespace, of all
// where it is empty.
func (c *Cluster) DaemonSetClient(namespace string) *Client[*appsv1.DaemonSet, *appsv1.DaemonSetList] {
	return newClient[appsv1.DaemonSet, appsv1.DaemonSetList](c.apps, "daemonsets", namespace)
}

func (c *Cluster) podClient(namespace string) *Client[*corev1.Pod, *corev1.PodList] {
	return newClient[corev1.Pod, corev1.PodList](c.core, "pods", namespace)
}

func (c *Cluster) budgetClient() *Client[*policyv1.PodDisruptionBudget, *policyv1.PodDisruptionBudgetList] {
	return newClient[policyv1.PodDisruptionBudget, policyv1.PodDisruptionBudgetList](c.policy, "poddisruptionbudgets", "")
}

// Reach returns an error where the API server cannot be used at all: there is
// none, or it does not know this token.
func (c *Cluster) Reach(ctx context.Context) error {
	return c.core.Get().AbsPath("/version").Do(ctx).Error()
}
