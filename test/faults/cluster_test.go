package faults

import (
	"context"
	"net/http"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/sentinel-gate/sentinel-gate/test/kit/cluster"
	"github.com/sentinel-gate/sentinel-gate/test/kit/daemon"
)

// A healthy cluster opens the gate: without this, every other test here would
// pass on a gate that never opens at all.
func TestOpensWhenAllIsWell(t *testing.T) {
	w := newWorld(t)
	d := w.start()
	w.await(d, 0, "an idle gate", func(l daemon.Line) bool { return l.State == "Idle" })
	w.must(w.host.RequireReboot("linux-image-6.12.0", "libc6"))
	w.open(d, 0)
	opened := w.await(d, 0, "the opening", func(l daemon.Line) bool { return l.State == "Open" })
	if got := strings.Join(opened.Packages, " "); got != "libc6 linux-image-6.12.0" {
		t.Errorf("packages: %q", got)
	}
	if opened.RawSince == nil || opened.Turn != "open n1" || opened.Previous != "Closed" || len(opened.Blocking) != 0 {
		t.Errorf("the line of the opening: %s", opened.Text)
	}
	w.poll("the record says Open", func() bool { return w.readRecord("n1").State == "Open" })
	r := w.readRecord("n1")
	if r.BootID != w.Nodes[0].BootID() || r.PendingSince.IsZero() {
		t.Errorf("record: %+v", r)
	}
	if off := time.Since(r.BootedAt) - cluster.BootedAgo; off.Abs() > time.Minute {
		t.Errorf("the record's boot is %s off", off)
	}

	mark := d.Lines()
	w.must(w.host.ClearReboot())
	w.await(d, mark, "an idle gate", func(l daemon.Line) bool { return l.State == "Idle" && l.Previous == "Open" })
	if w.host.Left() {
		t.Error("something is left at the gated path of an idle gate")
	}
}

// F01: the API server cannot be asked, and that counts as fine.
func TestF01ErrorsHoldClosed(t *testing.T) {
	t.Run("permission", func(t *testing.T) {
		for _, lost := range []struct{ group, resource, step string }{
			{"", "nodes", "nodes"}, {"", "pods", "cni"}, {"apps", "daemonsets", "cni"}, {"coordination.k8s.io", "leases", "soak"},
		} {
			t.Run(lost.resource, func(t *testing.T) {
				w := newWorld(t)
				d := w.start(alone)
				w.must(w.host.RequireReboot())
				w.open(d, 0)
				mark := d.Lines()
				revoke(w, lost.group, lost.resource)
				step := w.closedBy(d, mark, lost.step, "Unknown", "Error")
				if !strings.Contains(step.Message, "forbidden") || !strings.Contains(step.Message, lost.resource) {
					t.Errorf("message: %s", step.Message)
				}
			})
		}
	})
	t.Run("token", func(t *testing.T) {
		w := newWorld(t)
		broken, err := clientcmd.LoadFromFile(w.kubeconfig)
		w.must(err)
		for _, user := range broken.AuthInfos {
			*user = clientcmdapi.AuthInfo{Token: "not-a-token"}
		}
		path := filepath.Join(w.host.Dir, "kubeconfig")
		w.must(clientcmd.WriteToFile(*broken, path))
		never := w.neverOpens()
		defer never()
		w.must(w.host.RequireReboot())
		d := w.start(alone, func(o *daemon.Options) { o.Kubeconfig = path })
		step := w.closedBy(d, 0, "nodes", "Unknown", "Error")
		if !strings.Contains(step.Message, "listing nodes") || !strings.Contains(step.Message, "Unauthorized") {
			t.Errorf("message: %s", step.Message)
		}
	})
	t.Run("refused", func(t *testing.T) {
		w := newWorld(t)
		d := w.start(alone)
		w.await(d, 0, "an idle gate", func(l daemon.Line) bool { return l.State == "Idle" })
		w.cp.StopAPIServer()
		defer func() { w.must(w.cp.StartAPIServer(w.ctx())) }()
		never := w.neverOpens()
		defer never()
		w.must(w.host.RequireReboot())
		for _, name := range []string{"nodes", "cni", "soak"} {
			if step := w.closedBy(d, 0, name, "Unknown", "Error"); !strings.Contains(step.Message, "refused") {
				t.Errorf("%s: %s", name, step.Message)
			}
		}
	})
	t.Run("timeout", func(t *testing.T) {
		w := newWorld(t)
		d := w.start(alone)
		w.await(d, 0, "an idle gate", func(l daemon.Line) bool { return l.State == "Idle" })
		w.must(w.cp.PauseAPIServer())
		defer func() { w.must(w.cp.ResumeAPIServer()) }()
		never := w.neverOpens()
		defer never()
		w.must(w.host.RequireReboot())
		w.closedBy(d, 0, "nodes", "Unknown", "Timeout")
	})
}

// revoke takes one resource out of what the ServiceAccount may read, for the
// rest of the test.
func revoke(w *world, group, resource string) {
	w.t.Helper()
	without := func(rules []rbacv1.PolicyRule) []rbacv1.PolicyRule {
		var out []rbacv1.PolicyRule
		for _, r := range rules {
			var left []string
			for _, name := range r.Resources {
				if name != resource || r.APIGroups[0] != group {
					left = append(left, name)
				}
			}
			if r.Resources = left; len(left) > 0 {
				out = append(out, r)
			}
		}
		return out
	}
	roles := w.cp.Client().RbacV1()
	everywhere, err := roles.ClusterRoles().Get(w.ctx(), "sentinel-gate", metav1.GetOptions{})
	w.must(err)
	everywhere.Rules = without(everywhere.Rules)
	_, err = roles.ClusterRoles().Update(w.ctx(), everywhere, metav1.UpdateOptions{})
	w.must(err)
	role, err := roles.Roles(namespace).Get(w.ctx(), "sentinel-gate", metav1.GetOptions{})
	w.must(err)
	role.Rules = without(role.Rules)
	_, err = roles.Roles(namespace).Update(w.ctx(), role, metav1.UpdateOptions{})
	w.must(err)
	w.t.Cleanup(func() {
		if err := cluster.Grant(context.Background(), w.cp); err != nil {
			w.t.Logf("restoring the permissions: %v", err)
		}
	})
}

// Rows in which something in the cluster was wrong and the gate did not see it:
// each is made while the gate is open, and mended.
func TestClusterFaultsClose(t *testing.T) {
	w := newWorld(t)
	patch := func(node, patch string) {
		w.t.Helper()
		_, err := w.cp.Client().CoreV1().Nodes().Patch(w.ctx(), node, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
		w.must(err)
	}
	for _, member := range []string{"n1", "n2", "n3"} {
		patch(member, `{"metadata":{"labels":{"node-role.kubernetes.io/control-plane":""}}}`)
	}
	d := w.start(func(o *daemon.Options) {
		o.Checks += "- {name: cordons, type: cordons}\n- {name: quorum, type: controlPlaneQuorum}\n"
	})
	w.must(w.host.RequireReboot())
	w.open(d, 0)
	running := func(s *corev1.PodStatus) {
		s.Phase = corev1.PodRunning
		for i := range s.Conditions {
			s.Conditions[i].Status = corev1.ConditionTrue
		}
		s.ContainerStatuses[0].State = corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
	}
	for _, fault := range []struct {
		name                          string
		step, verdict, reason, naming string
		make, mend                    func()
	}{
		{
			"TestF03PodNotReady", "cni", "Fail", "PodsNotReady", "calico-node-n3",
			func() {
				setPod(w, "calico-node-n3", func(s *corev1.PodStatus) {
					for i := range s.Conditions {
						if s.Conditions[i].Type == corev1.PodReady {
							s.Conditions[i].Status = corev1.ConditionFalse
						}
					}
				})
			},
			func() { setPod(w, "calico-node-n3", running) },
		},
		{
			"TestF03CrashLoop", "cni", "Fail", "CrashLooping", "calico-node-n2",
			func() {
				setPod(w, "calico-node-n2", func(s *corev1.PodStatus) {
					s.ContainerStatuses[0].State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}}
				})
			},
			func() { setPod(w, "calico-node-n2", running) },
		},
		{
			"TestF04NodeWithoutPod", "cni", "Fail", "PodsMissing", "n4",
			func() { w.must(w.cp.DeletePod(w.ctx(), "kube-system", "calico-node-n4")) },
			func() { w.must(w.AddCNI(w.ctx(), "n4")) },
		},
		{
			"TestF05ReadyUnknown", "nodes", "Fail", "NodesNotReady", "n2 (Ready=Unknown",
			func() {
				_, err := w.Nodes[1].SetReady(w.ctx(), corev1.ConditionUnknown, "NodeStatusUnknown", time.Now().Add(-cluster.BootedAgo))
				w.must(err)
			},
			func() {
				_, err := w.Nodes[1].SetReady(w.ctx(), corev1.ConditionTrue, "KubeletReady", time.Now().Add(-cluster.BootedAgo))
				w.must(err)
			},
		},
		{
			"TestF05NoReadyCondition", "nodes", "Fail", "NodesNotReady", "n5 (no Ready condition)",
			func() { w.must(w.Nodes[4].RemoveReady(w.ctx())) },
			func() {
				_, err := w.Nodes[4].SetReady(w.ctx(), corev1.ConditionTrue, "KubeletReady", time.Now().Add(-cluster.BootedAgo))
				w.must(err)
			},
		},
		{
			"TestF24MemberDown", "quorum", "Fail", "QuorumAtRisk", "n3 (Ready=False",
			func() {
				_, err := w.Nodes[2].SetReady(w.ctx(), corev1.ConditionFalse, "KubeletNotReady", time.Now().Add(-cluster.BootedAgo))
				w.must(err)
			},
			func() {
				_, err := w.Nodes[2].SetReady(w.ctx(), corev1.ConditionTrue, "KubeletReady", time.Now().Add(-cluster.BootedAgo))
				w.must(err)
			},
		},
		{
			"TestF25AnotherNodeCordoned", "cordons", "Fail", "NodesCordoned", "n4",
			func() { patch("n4", `{"spec":{"unschedulable":true}}`) },
			func() { patch("n4", `{"spec":{"unschedulable":null}}`) },
		},
		{
			"TestF37GateDidNotComeBack", "soak", "Unknown", "RebootNotRecorded", "n3",
			func() {
				_, err := w.Nodes[2].Reboot(w.ctx())
				w.must(err)
			},
			func() { w.record(w.Nodes[2], time.Now().Add(-cluster.BootedAgo)) },
		},
		{
			"TestF37RecordMissing", "soak", "Unknown", "NoRecord", "n4",
			func() {
				w.must(w.cp.Client().CoordinationV1().Leases(namespace).Delete(w.ctx(), "n4", metav1.DeleteOptions{}))
			},
			func() { w.record(w.Nodes[3], time.Now().Add(-cluster.BootedAgo)) },
		},
		{
			// The reboot was so quick that Ready never flipped: the record tells.
			"TestRebootTooQuickForReady", "soak", "Fail", "Soaking", "n2 booted",
			func() {
				_, err := w.Nodes[1].Reboot(w.ctx())
				w.must(err)
				w.record(w.Nodes[1], time.Now())
			},
			func() { w.record(w.Nodes[1], time.Now().Add(-cluster.BootedAgo)) },
		},
	} {
		t.Run(fault.name, func(t *testing.T) {
			w.t = t
			mark := d.Lines()
			fault.make()
			// Found by a watch, or by the next evaluation: both say the same.
			step := w.closedBy(d, mark, fault.step, fault.verdict, fault.reason)
			if !strings.Contains(step.Message, fault.naming) {
				t.Errorf("message: %s", step.Message)
			}
			mark = d.Lines()
			fault.mend()
			if fault.reason == "Soaking" {
				return // the gate sleeps until the soak is over, as it announced
			}
			w.open(d, mark)
		})
		w.t = t
	}
}

// F02: nothing was found, and of nothing nothing failed.
func TestF02NothingFoundIsAFail(t *testing.T) {
	w := newWorld(t)
	never := w.neverOpens()
	defer never()
	w.must(w.host.RequireReboot())
	d := w.start(func(o *daemon.Options) {
		o.Checks = `
- {name: label, type: podsReady, options: {namespaces: [kube-system], selector: k8s-app=calico-nodes}}
- {name: namespace, type: podsReady, options: {namespaces: [calico-system], selector: k8s-app=calico-node}}
- {name: preset, type: podsReady, options: {preset: cilium}}
- {name: none, type: nodesReady, options: {selector: pool=missing}}
`
	})
	for name, naming := range map[string]string{
		"label": `"k8s-app=calico-nodes" in namespace kube-system`, "namespace": "in namespace calico-system", "preset": "k8s-app=cilium",
	} {
		if step := w.closedBy(d, 0, name, "Fail", "NoPods"); !strings.Contains(step.Message, naming) {
			t.Errorf("%s: %s", name, step.Message)
		}
	}
	w.closedBy(d, 0, "none", "Fail", "NoNodes")

	t.Run("auto", func(*testing.T) {
		w.must(w.cp.Client().AppsV1().DaemonSets("kube-system").Delete(w.ctx(), "calico-node", metav1.DeleteOptions{}))
		d := newWorldDaemon(w, `[{name: cni, type: podsReady, options: {preset: auto}}]`)
		w.closedBy(d, 0, "cni", "Fail", "NoCNI")
	})
}

// newWorldDaemon runs a second daemon of the same node on a host of its own.
func newWorldDaemon(w *world, checks string) *daemon.Daemon {
	w.t.Helper()
	host, err := daemon.NewHost(filepath.Join(w.host.Dir, "second"), w.Nodes[0].BootID(), cluster.BootedAgo)
	w.must(err)
	w.must(host.RequireReboot())
	return w.start(func(o *daemon.Options) { o.Host, o.Checks = host, checks })
}

// The presets are judged as they are found, all of them.
func TestAutoFindsTheCNI(t *testing.T) {
	w := newWorld(t)
	w.must(w.host.RequireReboot())
	d := w.start(func(o *daemon.Options) { o.Checks = `[{name: cni, type: podsReady, options: {preset: auto}}]` })
	w.open(d, 0)
	mark := d.Lines()
	w.must(w.cp.DeletePod(w.ctx(), "kube-system", "calico-node-n4"))
	w.closedBy(d, mark, "cni", "Fail", "PodsMissing")
}

// F14: joining nodes keep resetting the soak.
func TestF14JoinedNodes(t *testing.T) {
	w := newWorld(t)
	w.must(w.host.RequireReboot())
	d := w.start(func(o *daemon.Options) {
		o.Checks = `[{name: soak, type: readySoak, options: {ignoreJoined: true}}]`
	})
	w.open(d, 0)
	mark := d.Lines()
	// It booted a minute ago, registered, became Ready, and its gate has written.
	booted := time.Now().Add(-time.Minute)
	n, err := w.cp.AddNode(w.ctx(), "autoscaled")
	w.must(err)
	w.record(n, booted)

	strict := newWorldDaemon(w, `[{name: soak, type: readySoak}]`)
	w.await(strict, 0, "a soak", func(l daemon.Line) bool { return l.State == "Closed" && l.Step("soak").Reason == "Soaking" })
	w.evaluated(d)
	if !w.host.Resolves() || d.Lines() != mark {
		t.Errorf("a joined node closed a gate that ignores them:\n%s", d.Log())
	}

	// The same node reboots: it is no longer one that has only just joined.
	mark = d.Lines()
	_, err = n.Reboot(w.ctx())
	w.must(err)
	w.closedBy(d, mark, "soak", "Unknown", "RebootNotRecorded")
}

// F32: the clock of the node that runs the gate, or of one that it looks at,
// is wrong. A proxy in front of the real API server answers with its Date.
func TestF32TimeIsTheAPIServers(t *testing.T) {
	w := newWorld(t)
	// A day's soak, and a boot 25 hours ago by this machine's clock.
	w.record(w.Nodes[1], time.Now().Add(-25*time.Hour))
	w.must(w.host.RequireReboot())
	for name, shift := range map[string]time.Duration{"behind": -2 * time.Hour, "right": 0} {
		t.Run(name, func(t *testing.T) {
			w.t = t
			host, err := daemon.NewHost(filepath.Join(w.host.Dir, name), w.Nodes[0].BootID(), cluster.BootedAgo)
			w.must(err)
			w.must(host.RequireReboot())
			path := shiftedDate(w, shift)
			d := w.start(func(o *daemon.Options) {
				o.Host, o.Kubeconfig, o.Checks = host, path, `[{name: soak, type: readySoak}]`
			})
			if shift == 0 {
				w.await(d, 0, "an open gate", func(l daemon.Line) bool { return l.State == "Open" })
				return
			}
			step := w.await(d, 0, "a soak by the API server's time", func(l daemon.Line) bool {
				return l.Step("soak").Reason == "Soaking"
			}).Step("soak")
			if !strings.Contains(step.Message, "23h") {
				t.Errorf("by the API server's time the boot was 23 hours ago: %s", step.Message)
			}
		})
		w.t = t
	}
	t.Run("without", func(t *testing.T) {
		w.t = t
		never := w.neverOpens()
		defer never()
		path := shiftedDate(w, noDate)
		d := w.start(alone, func(o *daemon.Options) { o.Kubeconfig = path })
		for _, step := range []string{"nodes", "soak"} {
			if s := w.closedBy(d, 0, step, "Unknown", "Error"); !strings.Contains(s.Message, "Date") {
				t.Errorf("%s: %s", step, s.Message)
			}
		}
	})
}

const noDate = time.Duration(1<<63 - 1)

// shiftedDate returns a kubeconfig for a proxy whose Dates are shifted.
func shiftedDate(w *world, shift time.Duration) string {
	w.t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", w.kubeconfig)
	w.must(err)
	transport, err := rest.TransportFor(config)
	w.must(err)
	target, err := url.Parse(w.cp.URL())
	w.must(err)
	proxy := &httputil.ReverseProxy{
		Transport: transport, FlushInterval: -1,
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) },
		ModifyResponse: func(r *http.Response) error {
			if shift == noDate {
				r.Header.Del("Date")
				return nil
			}
			r.Header.Set("Date", time.Now().Add(shift).UTC().Format(http.TimeFormat))
			return nil
		},
	}
	server := newServer(w.t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if shift == noDate {
			rw.Header()["Date"] = nil // keeps net/http from adding its own
		}
		proxy.ServeHTTP(rw, r)
	}))
	path := filepath.Join(w.t.TempDir(), "kubeconfig")
	kube := clientcmdapi.NewConfig()
	kube.Clusters["c"] = &clientcmdapi.Cluster{Server: server}
	kube.Contexts["c"] = &clientcmdapi.Context{Cluster: "c"}
	kube.CurrentContext = "c"
	w.must(clientcmd.WriteToFile(*kube, path))
	return path
}

// F28: the cluster was well at one instant, during a flap.
func TestF28StabilizeOutlastsAFlap(t *testing.T) {
	w := newWorld(t)
	_, err := w.Nodes[1].SetReady(w.ctx(), corev1.ConditionFalse, "KubeletNotReady", time.Now())
	w.must(err)
	never := w.neverOpens()
	w.must(w.host.RequireReboot())
	d := w.start(func(o *daemon.Options) {
		o.Checks = `[{name: nodes, type: nodesReady}]`
		o.Settings = strings.Replace(o.Settings, "stabilize: 500ms", "stabilize: 2s", 1)
	})
	for range 2 {
		mark := d.Lines()
		w.closedBy(d, 0, "nodes", "Fail", "NodesNotReady")
		_, err = w.Nodes[1].SetReady(w.ctx(), corev1.ConditionTrue, "KubeletReady", time.Now())
		w.must(err)
		w.await(d, mark, "a passing evaluation", func(l daemon.Line) bool {
			return l.State == "Closed" && l.Decision == "Open" && l.Step("nodes").Verdict == "Pass"
		})
		mark = d.Lines()
		_, err = w.Nodes[1].SetReady(w.ctx(), corev1.ConditionFalse, "KubeletNotReady", time.Now())
		w.must(err)
		w.await(d, mark, "a failing evaluation", func(l daemon.Line) bool { return l.Step("nodes").Verdict == "Fail" })
	}
	never()
	mark := d.Lines()
	_, err = w.Nodes[1].SetReady(w.ctx(), corev1.ConditionTrue, "KubeletReady", time.Now())
	w.must(err)
	w.open(d, mark)
}

// F34: the API server goes away while the gate is open.
func TestF34UnreachableAPIServerCloses(t *testing.T) {
	for name, fault := range map[string]struct{ cut, mend func(*world) }{
		"refused": {
			func(w *world) { w.cp.StopAPIServer() },
			func(w *world) { w.must(w.cp.StartAPIServer(w.ctx())) },
		},
		"silent": {
			func(w *world) { w.must(w.cp.PauseAPIServer()) },
			func(w *world) { w.must(w.cp.ResumeAPIServer()) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			d := w.start()
			w.must(w.host.RequireReboot())
			w.open(d, 0)
			mark := d.Lines()
			fault.cut(w)
			cut := time.Now()
			defer fault.mend(w)
			w.poll("the gated sentinel no longer resolves", func() bool { return !w.host.Resolves() })
			if took := time.Since(cut); took > 3*time.Second {
				t.Errorf("closed %s after the API server was cut off; maxAge is 3s", took)
			}
			w.await(d, mark, "a closed gate", func(l daemon.Line) bool { return l.State == "Closed" })
		})
	}
}

// The daemon writes nothing but its own record.
func TestWritesOnlyItsRecord(t *testing.T) {
	w := newWorld(t)
	d := w.start()
	w.must(w.host.RequireReboot())
	w.open(d, 0)
	w.poll("the record says Open", func() bool { return w.readRecord("n1").State == "Open" })
	events, err := w.cp.Requests("system:serviceaccount:"+namespace+":sentinel-gate", time.Time{})
	w.must(err)
	if len(events) == 0 {
		t.Fatal("no request of the daemon in the audit log")
	}
	for _, e := range events {
		switch e.Verb {
		case "get", "list", "watch":
		case "create", "update":
			if !strings.HasPrefix(e.URI, "/apis/coordination.k8s.io/v1/namespaces/"+namespace+"/leases") {
				t.Errorf("the daemon wrote %s %s", e.Verb, e.URI)
			}
		default:
			t.Errorf("the daemon did %s %s", e.Verb, e.URI)
		}
	}
}
