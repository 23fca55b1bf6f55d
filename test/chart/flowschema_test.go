package chart

import (
	"net/http"
	"slices"
	"testing"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/sentinel-gate/sentinel-gate/test/kit/controlplane"
)

// In kube-system the API server takes the gates for leader elections, and would let them
// wait in one queue with the scheduler's and the controllers'. The chart says otherwise
// there, and only there.
func TestGatesDoNotCompeteWithLeaderElections(t *testing.T) {
	if kinds := render(t, "sentinel-gate", "").kinds(); slices.Contains(kinds, "FlowSchema") {
		t.Errorf("in a namespace of its own: %v", kinds)
	}
	ctx, c := testContext(t), cp(t)
	schema := find[flowcontrolv1.FlowSchema](t, render(t, "kube-system", "mode: sidecar"), "FlowSchema", "sentinel-gate")
	account := schema.Spec.Rules[0].Subjects[0].ServiceAccount.Name
	if err := c.Apply(ctx, []byte("{apiVersion: v1, kind: ServiceAccount, metadata: {namespace: kube-system, name: "+account+"}}")); err != nil {
		t.Fatal(err)
	}
	kubeconfig, err := c.ServiceAccountKubeconfig(ctx, "kube-system", account)
	if err != nil {
		t.Fatal(err)
	}
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	flow := func() string {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, config.Host+"/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/a", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		return resp.Header.Get("X-Kubernetes-Pf-Flowschema-Uid")
	}
	schemas := c.Client().FlowcontrolV1().FlowSchemas()
	elections, err := schemas.Get(ctx, "system-leader-election", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got := flow(); got != string(elections.UID) {
		t.Errorf("without the chart's FlowSchema it is in %s, and leader elections are in %s: is it needed?", got, elections.UID)
	}
	made, err := schemas.Create(ctx, schema, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = schemas.Delete(ctx, made.Name, metav1.DeleteOptions{}) })
	if err := controlplane.Poll(ctx, func() error {
		if got := flow(); got != string(made.UID) {
			return errNotYet(got)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

type errNotYet string

func (e errNotYet) Error() string { return "it is in " + string(e) }
