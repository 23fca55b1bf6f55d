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
	apierrors "k8s.io/apimachinery/pkg/api/errors"
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
	s := newScene(t)
	d := s.start()
	s.await(d, 0, "an idle gate", func(l daemon.Line) bool { return l.State == "Idle" })
	s.must(s.host.RequireReboot("linux-image-6.12.0", "libc6"))
	s.open(d, 0)
	opened := s.await(d, 0, "the opening", func(l daemon.Line) bool { return l.State == "Open" })
	if got := strings.Join(opened.Packages, " "); got != "libc6 linux-image-6.12.0" {
		t.Errorf("packages: %q", got)
	}
	if opened.RawSince == nil || opened.Turn != "open n1" || opened.Previous != "Closed" || len(opened.Blocking) != 0 {
		t.Errorf("the line of the opening: %s", opened.Text)
	}
	s.poll("the record says Open", func() bool { return s.readRecord("n1").State == "Open" })
	r := s.readRecord("n1")
	if r.BootID != s.Nodes[0].BootID() || r.PendingSince.IsZero() {
		t.Errorf("record: %+v", r)
	}
	if off := time.Since(r.BootedAt) - cluster.BootedAgo; off.Abs() > time.Minute {
		t.Errorf("the record's boot is %s off", off)
	}

	mark := d.Lines()
	s.must(s.host.ClearReboot())
	s.await(d, mark, "an idle gate", func(l daemon.Line) bool { return l.State == "Idle" && l.Previous == "Open" })
	if s.host.Left() {
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
				s := newScene(t)
				d := s.start(alone)
				s.must(s.host.RequireReboot())
				s.open(d, 0)
				mark := d.Lines()
				revoke(s, lost.group, lost.resource)
				step := s.closedBy(d, mark, lost.step, "Unknown", "Error")
				if !strings.Contains(step.Message, "forbidden") || !strings.Contains(step.Message, lost.resource) {
					t.Errorf("message: %s", step.Message)
				}
			})
		}
	})
	t.Run("token", func(t *testing.T) {
		s := newScene(t)
		broken, err := clientcmd.LoadFromFile(s.kubeconfig)
		s.must(err)
		for _, user := range broken.AuthInfos {
			*user = clientcmdapi.AuthInfo{Token: "not-a-token"}
		}
		path := filepath.Join(s.host.Dir, "kubeconfig")
		s.must(clientcmd.WriteToFile(*broken, path))
		never := s.neverOpens()
		defer never()
		s.must(s.host.RequireReboot())
		d := s.start(alone, func(o *daemon.Options) { o.Kubeconfig = path })
		step := s.closedBy(d, 0, "nodes", "Unknown", "Error")
		if !strings.Contains(step.Message, "listing nodes") || !strings.Contains(step.Message, "Unauthorized") {
			t.Errorf("message: %s", step.Message)
		}
	})
	t.Run("refused", func(t *testing.T) {
		s := newScene(t)
		d := s.start(alone)
		s.await(d, 0, "an idle gate", func(l daemon.Line) bool { return l.State == "Idle" })
		s.cp.StopAPIServer()
		defer func() { s.must(s.cp.StartAPIServer(s.ctx())) }()
		never := s.neverOpens()
		defer never()
		s.must(s.host.RequireReboot())
		for _, name := range []string{"nodes", "cni", "soak"} {
			if step := s.closedBy(d, 0, name, "Unknown", "Error"); !strings.Contains(step.Message, "refused") {
				t.Errorf("%s: %s", name, step.Message)
			}
		}
	})
	t.Run("timeout", func(t *testing.T) {
		s := newScene(t)
		d := s.start(alone)
		s.await(d, 0, "an idle gate", func(l daemon.Line) bool { return l.State == "Idle" })
		s.must(s.cp.PauseAPIServer())
		defer func() { s.must(s.cp.ResumeAPIServer()) }()
		never := s.neverOpens()
		defer never()
		s.must(s.host.RequireReboot())
		s.closedBy(d, 0, "nodes", "Unknown", "Timeout")
	})
}

// revoke takes one resource out of what the ServiceAccount may read, for the
// rest of the test.
func revoke(s *scene, group, resource string) {
	s.t.Helper()
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
	roles := s.cp.Client().RbacV1()
	everywhere, err := roles.ClusterRoles().Get(s.ctx(), "sentinel-gate", metav1.GetOptions{})
	s.must(err)
	everywhere.Rules = without(everywhere.Rules)
	_, err = roles.ClusterRoles().Update(s.ctx(), everywhere, metav1.UpdateOptions{})
	s.must(err)
	role, err := roles.Roles(namespace).Get(s.ctx(), "sentinel-gate", metav1.GetOptions{})
	s.must(err)
	role.Rules = without(role.Rules)
	_, err = roles.Roles(namespace).Update(s.ctx(), role, metav1.UpdateOptions{})
	s.must(err)
	s.t.Cleanup(func() {
		if err := cluster.Grant(context.Background(), s.cp); err != nil {
			s.t.Logf("restoring the permissions: %v", err)
		}
	})
}

// Rows in which something in the cluster was wrong and the gate did not see it:
// each is made while the gate is open, and mended.
func TestClusterFaultsClose(t *testing.T) {
	s := newScene(t)
	patch := func(node, patch string) {
		s.t.Helper()
		_, err := s.cp.Client().CoreV1().Nodes().Patch(s.ctx(), node, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
		s.must(err)
	}
	for _, member := range []string{"n1", "n2", "n3"} {
		patch(member, `{"metadata":{"labels":{"node-role.kubernetes.io/control-plane":""}}}`)
	}
	d := s.start(func(o *daemon.Options) {
		o.Checks += "- {name: cordons, type: cordons}\n- {name: quorum, type: controlPlaneQuorum}\n"
	})
	s.must(s.host.RequireReboot())
	s.open(d, 0)
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
				setPod(s, "calico-node-n3", func(s *corev1.PodStatus) {
					for i := range s.Conditions {
						if s.Conditions[i].Type == corev1.PodReady {
							s.Conditions[i].Status = corev1.ConditionFalse
						}
					}
				})
			},
			func() { setPod(s, "calico-node-n3", running) },
		},
		{
			"TestF03CrashLoop", "cni", "Fail", "CrashLooping", "calico-node-n2",
			func() {
				setPod(s, "calico-node-n2", func(s *corev1.PodStatus) {
					s.ContainerStatuses[0].State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}}
				})
			},
			func() { setPod(s, "calico-node-n2", running) },
		},
		{
			"TestF04NodeWithoutPod", "cni", "Fail", "PodsMissing", "n4",
			func() { s.must(s.cp.DeletePod(s.ctx(), "kube-system", "calico-node-n4")) },
			func() { s.must(s.AddCNI(s.ctx(), "n4")) },
		},
		{
			"TestF05ReadyUnknown", "nodes", "Fail", "NodesNotReady", "n2 (Ready=Unknown",
			func() {
				_, err := s.Nodes[1].SetReady(s.ctx(), corev1.ConditionUnknown, "NodeStatusUnknown", time.Now().Add(-cluster.BootedAgo))
				s.must(err)
			},
			func() {
				_, err := s.Nodes[1].SetReady(s.ctx(), corev1.ConditionTrue, "KubeletReady", time.Now().Add(-cluster.BootedAgo))
				s.must(err)
			},
		},
		{
			"TestF05NoReadyCondition", "nodes", "Fail", "NodesNotReady", "n5 (no Ready condition)",
			func() { s.must(s.Nodes[4].RemoveReady(s.ctx())) },
			func() {
				_, err := s.Nodes[4].SetReady(s.ctx(), corev1.ConditionTrue, "KubeletReady", time.Now().Add(-cluster.BootedAgo))
				s.must(err)
			},
		},
		{
			"TestF24MemberDown", "quorum", "Fail", "QuorumAtRisk", "n3 (Ready=False",
			func() {
				_, err := s.Nodes[2].SetReady(s.ctx(), corev1.ConditionFalse, "KubeletNotReady", time.Now().Add(-cluster.BootedAgo))
				s.must(err)
			},
			func() {
				_, err := s.Nodes[2].SetReady(s.ctx(), corev1.ConditionTrue, "KubeletReady", time.Now().Add(-cluster.BootedAgo))
				s.must(err)
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
				_, err := s.Nodes[2].Reboot(s.ctx())
				s.must(err)
			},
			func() { s.record(s.Nodes[2], time.Now().Add(-cluster.BootedAgo)) },
		},
		{
			"TestF37RecordMissing", "soak", "Unknown", "NoRecord", "n4",
			func() {
				s.must(s.cp.Client().CoordinationV1().Leases(namespace).Delete(s.ctx(), "n4", metav1.DeleteOptions{}))
			},
			func() { s.record(s.Nodes[3], time.Now().Add(-cluster.BootedAgo)) },
		},
		{
			// The reboot was so quick that Ready never flipped: the record tells.
			"TestRebootTooQuickForReady", "soak", "Fail", "Soaking", "n2 booted",
			func() {
				_, err := s.Nodes[1].Reboot(s.ctx())
				s.must(err)
				s.record(s.Nodes[1], time.Now())
			},
			func() { s.record(s.Nodes[1], time.Now().Add(-cluster.BootedAgo)) },
		},
	} {
		t.Run(fault.name, func(t *testing.T) {
			s.t = t
			mark := d.Lines()
			fault.make()
			// Found by a watch, or by the next evaluation: both say the same.
			step := s.closedBy(d, mark, fault.step, fault.verdict, fault.reason)
			if !strings.Contains(step.Message, fault.naming) {
				t.Errorf("message: %s", step.Message)
			}
			mark = d.Lines()
			fault.mend()
			if fault.reason == "Soaking" {
				return // the gate sleeps until the soak is over, as it announced
			}
			s.open(d, mark)
		})
		s.t = t
	}
}

// F02: nothing was found, and of nothing nothing failed.
func TestF02NothingFoundIsAFail(t *testing.T) {
	s := newScene(t)
	never := s.neverOpens()
	defer never()
	s.must(s.host.RequireReboot())
	d := s.start(func(o *daemon.Options) {
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
		if step := s.closedBy(d, 0, name, "Fail", "NoPods"); !strings.Contains(step.Message, naming) {
			t.Errorf("%s: %s", name, step.Message)
		}
	}
	s.closedBy(d, 0, "none", "Fail", "NoNodes")

	t.Run("auto", func(*testing.T) {
		s.must(s.cp.Client().AppsV1().DaemonSets("kube-system").Delete(s.ctx(), "calico-node", metav1.DeleteOptions{}))
		d := secondDaemon(s, `[{name: cni, type: podsReady, options: {preset: auto}}]`)
		s.closedBy(d, 0, "cni", "Fail", "NoCNI")
	})
}

// secondDaemon runs a second daemon of the same node on a host of its own.
func secondDaemon(s *scene, checks string) *daemon.Daemon {
	s.t.Helper()
	host, err := daemon.NewHost(filepath.Join(s.host.Dir, "second"), s.Nodes[0].BootID(), cluster.BootedAgo)
	s.must(err)
	s.must(host.RequireReboot())
	return s.start(func(o *daemon.Options) { o.Host, o.Checks = host, checks })
}

// The presets are judged as they are found, all of them.
func TestAutoFindsTheCNI(t *testing.T) {
	s := newScene(t)
	s.must(s.host.RequireReboot())
	d := s.start(func(o *daemon.Options) { o.Checks = `[{name: cni, type: podsReady, options: {preset: auto}}]` })
	s.open(d, 0)
	mark := d.Lines()
	s.must(s.cp.DeletePod(s.ctx(), "kube-system", "calico-node-n4"))
	s.closedBy(d, mark, "cni", "Fail", "PodsMissing")
}

// F14: joining nodes keep resetting the soak.
func TestF14JoinedNodes(t *testing.T) {
	s := newScene(t)
	s.must(s.host.RequireReboot())
	d := s.start(func(o *daemon.Options) {
		o.Checks = `[{name: soak, type: readySoak, options: {ignoreJoined: true}}]`
	})
	s.open(d, 0)
	mark := d.Lines()
	// It booted a minute ago, registered, became Ready, and its gate has written.
	booted := time.Now().Add(-time.Minute)
	n, err := s.cp.AddNode(s.ctx(), "autoscaled")
	s.must(err)
	s.record(n, booted)

	strict := secondDaemon(s, `[{name: soak, type: readySoak}]`)
	s.await(strict, 0, "a soak", func(l daemon.Line) bool { return l.State == "Closed" && l.Step("soak").Reason == "Soaking" })
	s.evaluated(d)
	if !s.host.Resolves() || d.Lines() != mark {
		t.Errorf("a joined node closed a gate that ignores them:\n%s", d.Log())
	}

	// The same node reboots: it is no longer one that has only just joined.
	mark = d.Lines()
	_, err = n.Reboot(s.ctx())
	s.must(err)
	s.closedBy(d, mark, "soak", "Unknown", "RebootNotRecorded")
}

// F32: the clock of the node that runs the gate, or of one that it looks at,
// is wrong. A proxy in front of the real API server answers with its Date.
func TestF32TimeIsTheAPIServers(t *testing.T) {
	s := newScene(t)
	// A day's soak, and a boot 25 hours ago by this machine's clock.
	s.record(s.Nodes[1], time.Now().Add(-25*time.Hour))
	s.must(s.host.RequireReboot())
	for name, shift := range map[string]time.Duration{"behind": -2 * time.Hour, "right": 0} {
		t.Run(name, func(t *testing.T) {
			s.t = t
			// What the other one was told of this boot would be held against this clock (F65).
			if err := s.cp.Client().CoordinationV1().Leases(namespace).Delete(s.ctx(), s.Nodes[0].Name, metav1.DeleteOptions{}); !apierrors.IsNotFound(err) {
				s.must(err)
			}
			host, err := daemon.NewHost(filepath.Join(s.host.Dir, name), s.Nodes[0].BootID(), cluster.BootedAgo)
			s.must(err)
			s.must(host.RequireReboot())
			path := shiftedDate(s, shift)
			d := s.start(func(o *daemon.Options) {
				o.Host, o.Kubeconfig, o.Checks = host, path, `[{name: soak, type: readySoak}]`
			})
			if shift == 0 {
				s.await(d, 0, "an open gate", func(l daemon.Line) bool { return l.State == "Open" })
				return
			}
			step := s.await(d, 0, "a soak by the API server's time", func(l daemon.Line) bool {
				return l.Step("soak").Reason == "Soaking"
			}).Step("soak")
			if !strings.Contains(step.Message, "23h") {
				t.Errorf("by the API server's time the boot was 23 hours ago: %s", step.Message)
			}
		})
		s.t = t
	}
	t.Run("without", func(t *testing.T) {
		s.t = t
		never := s.neverOpens()
		defer never()
		path := shiftedDate(s, noDate)
		d := s.start(alone, func(o *daemon.Options) { o.Kubeconfig = path })
		for _, step := range []string{"nodes", "soak"} {
			if got := s.closedBy(d, 0, step, "Unknown", "Error"); !strings.Contains(got.Message, "Date") {
				t.Errorf("%s: %s", step, got.Message)
			}
		}
	})
}

const noDate = time.Duration(1<<63 - 1)

// shiftedDate returns a kubeconfig for a proxy whose Dates are shifted.
func shiftedDate(s *scene, shift time.Duration) string {
	s.t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", s.kubeconfig)
	s.must(err)
	transport, err := rest.TransportFor(config)
	s.must(err)
	target, err := url.Parse(s.cp.URL())
	s.must(err)
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
	server := newServer(s.t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if shift == noDate {
			rw.Header()["Date"] = nil // keeps net/http from adding its own
		}
		proxy.ServeHTTP(rw, r)
	}))
	path := filepath.Join(s.t.TempDir(), "kubeconfig")
	kube := clientcmdapi.NewConfig()
	kube.Clusters["c"] = &clientcmdapi.Cluster{Server: server}
	kube.Contexts["c"] = &clientcmdapi.Context{Cluster: "c"}
	kube.CurrentContext = "c"
	s.must(clientcmd.WriteToFile(*kube, path))
	return path
}

// F28: the cluster was well at one instant, during a flap.
func TestF28StabilizeOutlastsAFlap(t *testing.T) {
	s := newScene(t)
	_, err := s.Nodes[1].SetReady(s.ctx(), corev1.ConditionFalse, "KubeletNotReady", time.Now())
	s.must(err)
	never := s.neverOpens()
	s.must(s.host.RequireReboot())
	d := s.start(func(o *daemon.Options) {
		o.Checks = `[{name: nodes, type: nodesReady}]`
		o.Settings = strings.Replace(o.Settings, "stabilize: 500ms", "stabilize: 2s", 1)
	})
	for range 2 {
		mark := d.Lines()
		s.closedBy(d, 0, "nodes", "Fail", "NodesNotReady")
		_, err = s.Nodes[1].SetReady(s.ctx(), corev1.ConditionTrue, "KubeletReady", time.Now())
		s.must(err)
		s.await(d, mark, "a passing evaluation", func(l daemon.Line) bool {
			return l.State == "Closed" && l.Decision == "Open" && l.Step("nodes").Verdict == "Pass"
		})
		mark = d.Lines()
		_, err = s.Nodes[1].SetReady(s.ctx(), corev1.ConditionFalse, "KubeletNotReady", time.Now())
		s.must(err)
		s.await(d, mark, "a failing evaluation", func(l daemon.Line) bool { return l.Step("nodes").Verdict == "Fail" })
	}
	never()
	mark := d.Lines()
	_, err = s.Nodes[1].SetReady(s.ctx(), corev1.ConditionTrue, "KubeletReady", time.Now())
	s.must(err)
	s.open(d, mark)
}

// F34: the API server goes away while the gate is open.
func TestF34UnreachableAPIServerCloses(t *testing.T) {
	for name, fault := range map[string]struct{ cut, mend func(*scene) }{
		"refused": {
			func(s *scene) { s.cp.StopAPIServer() },
			func(s *scene) { s.must(s.cp.StartAPIServer(s.ctx())) },
		},
		"silent": {
			func(s *scene) { s.must(s.cp.PauseAPIServer()) },
			func(s *scene) { s.must(s.cp.ResumeAPIServer()) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			d := s.start()
			s.must(s.host.RequireReboot())
			s.open(d, 0)
			mark := d.Lines()
			fault.cut(s)
			cut := time.Now()
			defer fault.mend(s)
			s.poll("the gated sentinel no longer resolves", func() bool { return !s.host.Resolves() })
			if took := time.Since(cut); took > 3*time.Second {
				t.Errorf("closed %s after the API server was cut off; maxAge is 3s", took)
			}
			s.await(d, mark, "a closed gate", func(l daemon.Line) bool { return l.State == "Closed" })
		})
	}
}

// The daemon writes nothing but its own record.
func TestWritesOnlyItsRecord(t *testing.T) {
	s := newScene(t)
	d := s.start()
	s.must(s.host.RequireReboot())
	s.open(d, 0)
	s.poll("the record says Open", func() bool { return s.readRecord("n1").State == "Open" })
	events, err := s.cp.Requests("system:serviceaccount:"+namespace+":sentinel-gate", time.Time{})
	s.must(err)
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
