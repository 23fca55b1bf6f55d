package embedded_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/util/retry"

	"github.com/sentinel-gate/sentinel-gate/test/kit/controlplane"
	"github.com/sentinel-gate/sentinel-gate/test/kit/embedded"
	"github.com/sentinel-gate/sentinel-gate/test/kit/suite"
)

const namespace = "conformance"

var shared = controlplane.Shared(controlplane.Options{Progress: os.Stderr}, prepare)

func TestMain(m *testing.M) { suite.Main(m, shared) }

// prepare puts into the real API server what start puts into the embedded one.
func prepare(ctx context.Context, cp *controlplane.ControlPlane) error {
	if err := cp.Namespace(ctx, namespace); err != nil {
		return err
	}
	for _, name := range []string{"n1", "n2"} {
		if _, err := cp.AddNode(ctx, name, func(n *corev1.Node) { n.Spec.Unschedulable = name == "n2" }); err != nil {
			return err
		}
		if _, err := cp.AddPod(ctx, namespace, "p-"+name, name, map[string]string{"app": "p"}, nil); err != nil {
			return err
		}
	}
	if _, err := cp.AddDaemonSet(ctx, namespace, "d", map[string]string{"app": "d"}); err != nil {
		return err
	}
	// One that has just started remembers no change before its start.
	cp.StopAPIServer()
	return cp.StartAPIServer(ctx)
}

func start(t *testing.T) *embedded.Server {
	t.Helper()
	server, err := embedded.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	for _, name := range []string{"n1", "n2"} {
		if err := server.Create(
			&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.NodeSpec{Unschedulable: name == "n2"}},
			&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "p-" + name, Labels: map[string]string{"app": "p"}}, Spec: corev1.PodSpec{NodeName: name}, Status: corev1.PodStatus{Phase: corev1.PodRunning}},
		); err != nil {
			t.Fatal(err)
		}
	}
	if err := server.Create(&appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "d", Labels: map[string]string{"app": "d"}}}); err != nil {
		t.Fatal(err)
	}
	return server
}

func config(t *testing.T, s *embedded.Server) *rest.Config {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := s.WriteKubeconfig(path); err != nil {
		t.Fatal(err)
	}
	c, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		t.Fatal(err)
	}
	c.QPS = -1 // as the gate's
	return c
}

// The embedded API server answers what the gate asks as the real one does: both are asked the same, and what each said is
// compared line by line, in each form that a client may ask for.
func TestConformance(t *testing.T) {
	cp := shared.Get(t)
	server := start(t)
	for form, contentType := range map[string]string{"JSON": "application/json", "protobuf": "application/vnd.kubernetes.protobuf"} {
		t.Run(form, func(t *testing.T) {
			ask := func(c *rest.Config) []string {
				c.ContentType, c.AcceptContentTypes = contentType, contentType
				return converse(t, c)
			}
			want, got := ask(cp.Config()), ask(config(t, server))
			if len(want) < 30 {
				t.Fatalf("only %d answers were compared", len(want))
			}
			for i := range max(len(want), len(got)) {
				w, g := line(want, i), line(got, i)
				if w == g {
					t.Log(w)
				} else {
					t.Errorf("the real API server says\n\t%s\nand the embedded one\n\t%s", w, g)
				}
			}
		})
	}
}

func line(lines []string, i int) string {
	if i < len(lines) {
		return lines[i]
	}
	return "nothing"
}

// conversation is what is asked, and what was answered as far as it does not differ from one server to the next.
type conversation struct {
	t        *testing.T
	ctx      context.Context //nolint:containedctx // one test's
	config   *rest.Config
	client   kubernetes.Interface
	answered []string
}

func converse(t *testing.T, config *rest.Config) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	c := &conversation{t: t, ctx: ctx, config: config, client: client}
	c.write()
	c.read()
	c.watch()
	c.speakHTTP()
	return c.answered
}

func (c *conversation) note(format string, args ...any) {
	c.answered = append(c.answered, fmt.Sprintf(format, args...))
}

// result is what an error says to a program.
func result(err error) string {
	if err == nil {
		return "ok"
	}
	var status apierrors.APIStatus
	if errors.As(err, &status) {
		return fmt.Sprintf("%d %s", status.Status().Code, status.Status().Reason)
	}
	return err.Error()
}

func number(t *testing.T, version string) int64 {
	t.Helper()
	n, err := strconv.ParseInt(version, 10, 64)
	if err != nil || n < 1 || strconv.FormatInt(n, 10) != version {
		t.Fatalf("version %q is no number", version)
	}
	return n
}

func (c *conversation) write() {
	leases := c.client.CoordinationV1().Leases(namespace)
	_, err := leases.Get(c.ctx, "a", metav1.GetOptions{})
	c.note("get what is not there: %s", result(err))
	holder := "h"
	before := time.Now().Add(-2 * time.Second)
	a, err := leases.Create(c.ctx, &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Name: "a", Labels: map[string]string{"l": "1"}}, Spec: coordinationv1.LeaseSpec{HolderIdentity: &holder},
	}, metav1.CreateOptions{})
	c.note("create: %s", result(err))
	if err != nil {
		return
	}
	c.note("it has a UID of %d letters, namespace %s, holder %s, is of now: %t", len(a.UID), a.Namespace, *a.Spec.HolderIdentity,
		a.CreationTimestamp.After(before) && a.CreationTimestamp.Time.Before(time.Now().Add(time.Second)))
	_, err = leases.Create(c.ctx, &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: "a"}}, metav1.CreateOptions{})
	c.note("create what is there: %s", result(err))
	_, err = leases.Create(c.ctx, &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: "b", Namespace: "other"}}, metav1.CreateOptions{})
	c.note("create in another namespace than the URL's: %s", result(err))

	a.Annotations = map[string]string{"x": "1"}
	changed, err := leases.Update(c.ctx, a, metav1.UpdateOptions{})
	c.note("update: %s, the version grows: %t, the UID stays: %t", result(err),
		number(c.t, changed.ResourceVersion) > number(c.t, a.ResourceVersion), changed.UID == a.UID)
	_, err = leases.Update(c.ctx, a, metav1.UpdateOptions{})
	c.note("update from an old version: %s", result(err))
	same, err := leases.Update(c.ctx, changed, metav1.UpdateOptions{})
	c.note("update with what is there: %s, the version stays: %t", result(err), same.ResourceVersion == changed.ResourceVersion)
	foreign := changed.DeepCopy()
	foreign.UID = "00000000-0000-4000-8000-000000000000"
	_, err = leases.Update(c.ctx, foreign, metav1.UpdateOptions{})
	c.note("update of one with another UID: %s", result(err))
	missing := changed.DeepCopy()
	missing.Name = "missing"
	_, err = leases.Update(c.ctx, missing, metav1.UpdateOptions{})
	c.note("update of what is not there: %s", result(err))
	missing.UID, missing.ResourceVersion = "", ""
	_, err = leases.Update(c.ctx, missing, metav1.UpdateOptions{})
	c.note("the same without a version: %s", result(err))
	_, err = leases.Update(c.ctx, missing, metav1.UpdateOptions{})
	c.note("and again: %s", result(err))
	c.note("delete: %s", result(leases.Delete(c.ctx, "missing", metav1.DeleteOptions{})))
	read, err := leases.Get(c.ctx, "a", metav1.GetOptions{})
	c.note("get: %s, annotation %q, version as written: %t", result(err), read.Annotations["x"], read.ResourceVersion == changed.ResourceVersion)
}

func (c *conversation) read() {
	leases := c.client.CoordinationV1().Leases(namespace)
	_, err := leases.Create(c.ctx, &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: "b", Labels: map[string]string{"l": "2"}}}, metav1.CreateOptions{})
	c.note("create a second: %s", result(err))
	list := func(title string, options metav1.ListOptions) {
		l, err := leases.List(c.ctx, options)
		names := []string{}
		for _, i := range l.Items {
			names = append(names, i.Name)
			if number(c.t, i.ResourceVersion) > number(c.t, l.ResourceVersion) {
				c.t.Errorf("the list is of version %s, and %s in it of %s", l.ResourceVersion, i.Name, i.ResourceVersion)
			}
		}
		c.note("list %s: %s, %s", title, result(err), names)
	}
	list("all", metav1.ListOptions{})
	list("all that may be a little old", metav1.ListOptions{ResourceVersion: "0"})
	list("with a label", metav1.ListOptions{LabelSelector: "l"})
	list("with a label's value", metav1.ListOptions{LabelSelector: "l=2"})
	list("with a label's other value", metav1.ListOptions{LabelSelector: "l!=2"})
	list("by labels that are no selector", metav1.ListOptions{LabelSelector: "l=2=3"})
	list("by name", metav1.ListOptions{FieldSelector: "metadata.name=a"})
	list("by a name that is not there", metav1.ListOptions{FieldSelector: "metadata.name=z"})
	list("by a field that cannot be selected", metav1.ListOptions{FieldSelector: "spec.holderIdentity=h"})
	list("by fields that are no selector", metav1.ListOptions{FieldSelector: "metadata.name"})

	core := c.client.CoreV1()
	nodes, err := core.Nodes().List(c.ctx, metav1.ListOptions{FieldSelector: "metadata.name=n2"})
	c.note("nodes by name: %s, %s", result(err), names(nodes.Items, func(n corev1.Node) string { return n.Name }))
	nodes, err = core.Nodes().List(c.ctx, metav1.ListOptions{FieldSelector: "spec.unschedulable=true"})
	c.note("nodes that are cordoned: %s, %s", result(err), names(nodes.Items, func(n corev1.Node) string { return n.Name }))
	name := func(p corev1.Pod) string { return p.Namespace + "/" + p.Name }
	pods, err := core.Pods("").List(c.ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=n1"})
	c.note("pods of a node, in all namespaces: %s, %s", result(err), names(pods.Items, name))
	pods, err = core.Pods(namespace).List(c.ctx, metav1.ListOptions{FieldSelector: "spec.nodeName!=n1,status.phase=Running", LabelSelector: "app=p"})
	c.note("pods by labels and fields: %s, %s", result(err), names(pods.Items, name))
	pods, err = core.Pods("elsewhere").List(c.ctx, metav1.ListOptions{})
	c.note("pods of another namespace: %s, %s", result(err), names(pods.Items, name))
	pods, err = core.Pods("").List(c.ctx, metav1.ListOptions{FieldSelector: "spec.hostname=n1"})
	c.note("pods by a field that cannot be selected: %s, %s", result(err), names(pods.Items, name))
	sets, err := c.client.AppsV1().DaemonSets(namespace).List(c.ctx, metav1.ListOptions{FieldSelector: "metadata.name=d"})
	c.note("daemonsets by name: %s, %s", result(err), names(sets.Items, func(s appsv1.DaemonSet) string { return s.Name }))
	budgets, err := c.client.PolicyV1().PodDisruptionBudgets("").List(c.ctx, metav1.ListOptions{})
	c.note("budgets, of which there are none: %s, %d", result(err), len(budgets.Items))
}

func names[T any](items []T, name func(T) string) []string {
	out := []string{}
	for _, i := range items {
		out = append(out, name(i))
	}
	slices.Sort(out)
	return out
}

func (c *conversation) watch() {
	leases := c.client.CoordinationV1().Leases(namespace)
	list, err := leases.List(c.ctx, metav1.ListOptions{LabelSelector: "l"})
	if err != nil {
		c.t.Fatal(err)
	}
	update := func(name string, change func(*coordinationv1.Lease)) {
		l, err := leases.Get(c.ctx, name, metav1.GetOptions{})
		if err == nil {
			change(l)
			_, err = leases.Update(c.ctx, l, metav1.UpdateOptions{})
		}
		if err != nil {
			c.t.Fatal(err)
		}
	}
	// Before the watch begins, and told all the same.
	update("a", func(l *coordinationv1.Lease) { l.Annotations = map[string]string{"x": "2"} })
	byLabel := c.begin("by label", leases.Watch, metav1.ListOptions{LabelSelector: "l", ResourceVersion: list.ResourceVersion})
	byName := c.begin("by name", leases.Watch, metav1.ListOptions{FieldSelector: "metadata.name=b", ResourceVersion: list.ResourceVersion})
	fresh := c.begin("from no version", leases.Watch, metav1.ListOptions{LabelSelector: "l=2"})
	update("b", func(l *coordinationv1.Lease) { l.Labels = nil })
	update("b", func(l *coordinationv1.Lease) { l.Annotations = map[string]string{"y": "1"} })
	update("b", func(l *coordinationv1.Lease) { l.Labels = map[string]string{"l": "2"} })
	for _, name := range []string{"a", "b"} {
		c.note("delete: %s", result(leases.Delete(c.ctx, name, metav1.DeleteOptions{})))
	}
	c.note("delete what is not there: %s", result(leases.Delete(c.ctx, "a", metav1.DeleteOptions{})))
	byLabel(5)
	byName(4)
	fresh(4)

	one := int64(1)
	c.begin("for a second", leases.Watch, metav1.ListOptions{ResourceVersion: list.ResourceVersion, FieldSelector: "metadata.name=z", TimeoutSeconds: &one})(1)
	c.begin("from long ago", leases.Watch, metav1.ListOptions{ResourceVersion: "1"})(2)
	c.begin("by what cannot be selected", leases.Watch, metav1.ListOptions{FieldSelector: "spec.holderIdentity=h"})(1)
}

// begin begins a watch, and returns what notes so many of its events.
func (c *conversation) begin(title string, watcher func(context.Context, metav1.ListOptions) (watch.Interface, error), options metav1.ListOptions) func(int) {
	c.t.Helper()
	events, err := watcher(c.ctx, options)
	c.note("watch %s: %s", title, result(err))
	if err != nil {
		return func(int) {}
	}
	return func(count int) {
		defer events.Stop()
		last := int64(0)
		for range count {
			select {
			case <-c.ctx.Done():
				c.note("watch %s: nothing within the test's time", title)
				return
			case event, ok := <-events.ResultChan():
				if !ok {
					c.note("watch %s: ended", title)
					return
				}
				if event.Type == watch.Error {
					c.note("watch %s: %s %s", title, event.Type, result(apierrors.FromObject(event.Object)))
					continue
				}
				l := event.Object.(*coordinationv1.Lease)
				version := number(c.t, l.ResourceVersion)
				c.note("watch %s: %s %s, labels %v, annotations %v, later than the last: %t", title, event.Type, l.Name, l.Labels, l.Annotations, version > last)
				last = version
			}
		}
	}
}

// speakHTTP asks what a client does not show.
func (c *conversation) speakHTTP() {
	client, err := rest.HTTPClientFor(c.config)
	if err != nil {
		c.t.Fatal(err)
	}
	get := func(path, accept string) (status int, header http.Header, body []byte) {
		c.t.Helper()
		request, err := http.NewRequestWithContext(c.ctx, http.MethodGet, c.config.Host+path, nil)
		if err != nil {
			c.t.Fatal(err)
		}
		request.Header.Set("Accept", accept)
		response, err := client.Do(request)
		if err != nil {
			c.t.Fatal(err)
		}
		defer response.Body.Close()
		if body, err = io.ReadAll(response.Body); err != nil {
			c.t.Fatal(err)
		}
		return response.StatusCode, response.Header, body
	}
	const leases = "/apis/coordination.k8s.io/v1/namespaces/" + namespace + "/leases"
	for _, accept := range []string{
		"application/json", "application/vnd.kubernetes.protobuf", "application/vnd.kubernetes.protobuf,application/json", "application/json, */*",
		"application/json;as=Nothing;v=v1;g=meta.k8s.io,application/json", "text/csv",
	} {
		code, header, _ := get(leases, accept)
		date, err := http.ParseTime(header.Get("Date"))
		c.note("GET as %s: %d, %s, dated now: %t", accept, code, header.Get("Content-Type"), err == nil && time.Since(date).Abs() < 3*time.Second)
	}
	code, _, body := get(leases+"/missing", "application/json")
	var status metav1.Status
	err = json.Unmarshal(body, &status)
	c.note("GET what is not there: %d, %v, %s %s %s, details %v", code, err, status.APIVersion, status.Kind, status.Message, status.Details)
	code, _, body = get("/api/v1/nodes?fieldSelector=metadata.name%3Dz", "application/json")
	var list struct {
		APIVersion, Kind string
		Items            []any
	}
	err = json.Unmarshal(body, &list)
	c.note("LIST nothing: %d, %v, %s %s, items %v", code, err, list.APIVersion, list.Kind, list.Items)
	for _, accept := range []string{"application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1", "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"} {
		code, header, body := get("/api/v1/nodes", accept)
		var names struct {
			APIVersion, Kind string
			Items            []struct{ Metadata metav1.ObjectMeta }
		}
		err := json.Unmarshal(body, &names)
		c.note("LIST of metadata: %d, %s, read as JSON: %t, %s %s, %d items", code, header.Get("Content-Type"), err == nil, names.APIVersion, names.Kind, len(names.Items))
	}
	code, header, _ := get(leases+"?watch=1&timeoutSeconds=1&resourceVersion=1", "application/vnd.kubernetes.protobuf,application/json")
	c.note("WATCH: %d, %s", code, header.Get("Content-Type"))
	code, _, body = get("/version", "application/json")
	var version struct{ GitVersion string }
	err = json.Unmarshal(body, &version)
	c.note("version: %d, %v, of Kubernetes 1: %t", code, err, strings.HasPrefix(version.GitVersion, "v1."))
	code, _, _ = get("/apis/coordination.k8s.io/v1/namespaces/"+namespace+"/nothing", "application/json")
	c.note("what is not served: %d", code)
}

// The server forgets old changes, and says so to a watch that would need them.
func TestForgets(t *testing.T) {
	server := start(t)
	client, err := kubernetes.NewForConfig(config(t, server))
	if err != nil {
		t.Fatal(err)
	}
	nodes := client.CoreV1().Nodes()
	first, err := nodes.List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3000 {
		if err := embedded.Change(server, "", "n1", func(n *corev1.Node) { n.Status.NodeInfo.BootID = strconv.Itoa(i) }); err != nil {
			t.Fatal(err)
		}
	}
	last, err := nodes.List(t.Context(), metav1.ListOptions{})
	if err != nil || number(t, last.ResourceVersion) != number(t, first.ResourceVersion)+3000 {
		t.Fatalf("versions %s and %s, %v", first.ResourceVersion, last.ResourceVersion, err)
	}
	next := func(version string) watch.Event {
		t.Helper()
		events, err := nodes.Watch(t.Context(), metav1.ListOptions{ResourceVersion: version})
		if err != nil {
			t.Fatal(err)
		}
		defer events.Stop()
		select {
		case event := <-events.ResultChan():
			return event
		case <-time.After(10 * time.Second):
			t.Fatalf("a watch from %s tells nothing", version)
			return watch.Event{}
		}
	}
	if event := next(first.ResourceVersion); event.Type != watch.Error || !apierrors.IsResourceExpired(apierrors.FromObject(event.Object)) {
		t.Errorf("a watch from long ago: %v", event)
	}
	if event := next(strconv.FormatInt(number(t, last.ResourceVersion)-1, 10)); event.Type != watch.Modified || event.Object.(*corev1.Node).Status.NodeInfo.BootID != "2999" {
		t.Errorf("a watch from just now: %v", event)
	}
}

// Of many that write at the same time each is told of those before it, and a watch tells of every write, in order.
func TestManyWriters(t *testing.T) {
	server := start(t)
	client, err := kubernetes.NewForConfig(config(t, server))
	if err != nil {
		t.Fatal(err)
	}
	leases := client.CoordinationV1().Leases(namespace)
	created, err := leases.Create(t.Context(), &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: "a"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	const writers, each = 4, 10
	events, err := leases.Watch(t.Context(), metav1.ListOptions{ResourceVersion: created.ResourceVersion, FieldSelector: "metadata.name=a"})
	if err != nil {
		t.Fatal(err)
	}
	defer events.Stop()
	var all sync.WaitGroup
	for range writers {
		all.Go(func() {
			for range each {
				if err := retry.RetryOnConflict(wait.Backoff{Steps: 1000}, func() error {
					l, err := leases.Get(t.Context(), "a", metav1.GetOptions{})
					if err != nil {
						return err
					}
					n, _ := strconv.Atoi(l.Annotations["n"])
					l.Annotations = map[string]string{"n": strconv.Itoa(n + 1)}
					_, err = leases.Update(t.Context(), l, metav1.UpdateOptions{})
					return err
				}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	for n := range writers * each {
		select {
		case event := <-events.ResultChan():
			l, ok := event.Object.(*coordinationv1.Lease)
			if !ok || l.Annotations["n"] != strconv.Itoa(n+1) {
				t.Fatalf("write %d: %v", n+1, event)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("the watch tells of %d writes, and there were %d", n, writers*each)
		}
	}
}
