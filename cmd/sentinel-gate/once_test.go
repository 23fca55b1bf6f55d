package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/sentinel-gate/sentinel-gate/checks"
	"github.com/sentinel-gate/sentinel-gate/gate"
	"github.com/sentinel-gate/sentinel-gate/gate/turn"
	"github.com/sentinel-gate/sentinel-gate/test/kit/cluster"
	"github.com/sentinel-gate/sentinel-gate/test/kit/controlplane"
	"github.com/sentinel-gate/sentinel-gate/test/kit/suite"
)

// scene is a healthy cluster of three nodes, and a directory that stands in for
// the first node's file system.
type scene struct {
	*cluster.Cluster
	t                       *testing.T
	ctx                     context.Context //nolint:containedctx // the test's
	dir, config, kubeconfig string
}

// lastAgo is when n3 booted: nothing has happened in the cluster since.
const lastAgo = cluster.BootedAgo - 30*time.Minute

func newScene(t *testing.T) *scene {
	t.Helper()
	cp := shared.Get(t)
	ctx := suite.Context(t, time.Minute)
	s := &scene{t: t, ctx: ctx, dir: t.TempDir()}
	var err error
	s.kubeconfig, err = cluster.Authorize(ctx, cp)
	s.must(err)
	t.Cleanup(func() {
		if err := (&cluster.Cluster{CP: cp}).Clear(context.Background()); err != nil {
			t.Error(err)
		}
	})
	s.Cluster, err = cluster.New(ctx, cp, 3)
	s.must(err)
	s.must(s.Record(ctx, s.Nodes[0], time.Now().Add(-cluster.BootedAgo)))
	s.must(s.Record(ctx, s.Nodes[2], time.Now().Add(-lastAgo)))

	s.must(os.Mkdir(s.gatedDir(), 0o755))
	s.must(os.Mkdir(s.proc(), 0o755))
	s.must(os.Symlink("/proc/self", filepath.Join(s.proc(), "self")))
	s.config = write(t, filepath.Join(s.dir, "config.yaml"), header+fmt.Sprintf(`
sentinel: {raw: %s, gated: %s/gated}
checks:
  - {name: nodes, type: nodesReady}
  - {name: cni, type: podsReady, options: {preset: auto}}
  - {name: soak, type: readySoak}
`, s.raw(), s.gatedDir()))
	return s
}

func (s *scene) raw() string      { return filepath.Join(s.dir, "reboot-required") }
func (s *scene) gatedDir() string { return filepath.Join(s.dir, "gate") }

// proc is a process table of nobody but the gate.
func (s *scene) proc() string { return filepath.Join(s.dir, "proc") }

func (s *scene) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// once runs --once on n1.
func (s *scene) once(args ...string) (exit int, stdout, stderr string) {
	return command(s.ctx, append([]string{"--once", "--config", s.config, "--kubeconfig", s.kubeconfig, "--node-name", "n1", "--namespace", cluster.Namespace, "--host-proc", s.proc()}, args...)...)
}

// normal replaces what differs from run to run: times, durations, the hash.
func (s *scene) normal(text string) string {
	for _, r := range []struct{ expression, by string }{
		{`\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`, "TIME"},
		{`configuration [0-9a-f]{12}`, "configuration HASH"},
		{`\b\d+\.\d{3}s`, "0.000s"},
		{`\b49h3\dm\d+s`, "49h30m"},
		{`\b50h0m\d+s`, "50h"},
		{`\b\d+s ago`, "0s ago"},
		{regexp.QuoteMeta(s.dir), "DIR"},
	} {
		text = regexp.MustCompile(r.expression).ReplaceAllString(text, r.by)
	}
	return text
}

// files describes everything below the directory, down to the inode.
func files(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	if err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "%s %s %d %s %+v\n", path, info.Mode(), info.Size(), info.ModTime(), info.Sys())
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	// A directory that was listed, or a file that was read, has another atime.
	return regexp.MustCompile(`Atim:\{[^}]*\}`).ReplaceAllString(b.String(), "")
}

func (s *scene) leases() string {
	s.t.Helper()
	list, err := s.CP.Client().CoordinationV1().Leases(cluster.Namespace).List(s.ctx, metav1.ListOptions{})
	s.must(err)
	var b strings.Builder
	for _, l := range list.Items {
		fmt.Fprintf(&b, "%s %s\n", l.Name, l.ResourceVersion)
	}
	return b.String()
}

func TestOncePasses(t *testing.T) {
	s := newScene(t)
	exit, stdout, stderr := s.once()
	if exit != 0 {
		t.Errorf("exit status %d", exit)
	}
	wantOutput(t, "stderr", stderr, "")
	wantOutput(t, "stdout", s.normal(stdout), `node n1, TIME, configuration HASH

STEP   TYPE        VERDICT  REASON      TOOK    MESSAGE
nodes  nodesReady  PASS     NodesReady  0.000s  all 3 nodes are Ready
cni    podsReady   PASS     PodsReady   0.000s  all 3 pods are Running and Ready
soak   readySoak   PASS     Soaked      0.000s  quiet for 49h30m, since node n3 booted

raw sentinel:  none at DIR/reboot-required: no reboot is pending
steps:         all 3 pass
stabilize:     the gate opens after every step has passed for 1m
kured:         NoKured: no kured runs on this node: nobody looks at the gated sentinel
turn:          free, epoch 0, since TIME
               0 nodes wait for a reboot; this one does not
`)
}

// From outside the cluster, before anything is installed in it: what only the node can
// see is not looked at, what the missing records mean is said, and the rest is judged.
func TestOnceFromOutside(t *testing.T) {
	s := newScene(t)
	s.must(s.CP.Client().CoordinationV1().Leases(cluster.Namespace).DeleteCollection(s.ctx, *metav1.NewDeleteOptions(0), metav1.ListOptions{}))
	elsewhere := filepath.Join(s.proc(), "sys/kernel/random")
	s.must(os.MkdirAll(elsewhere, 0o755))
	write(t, filepath.Join(elsewhere, "boot_id"), "11111111-2222-3333-4444-555555555555\n")
	before := files(t, s.dir)
	exit, stdout, stderr := command(s.ctx, "--once", "--config", s.config, "--kubeconfig", s.CP.Kubeconfig(), "--node-name", "n1", "--host-proc", s.proc())
	if exit != 1 {
		t.Errorf("exit status %d", exit)
	}
	if after := files(t, s.dir); after != before {
		t.Errorf("files\nbefore %s\nafter  %s", before, after)
	}
	wantOutput(t, "stderr", stderr, "")
	wantOutput(t, "stdout", s.normal(stdout), `node n1, TIME, configuration HASH

STEP   TYPE        VERDICT  REASON      TOOK    MESSAGE
nodes  nodesReady  PASS     NodesReady  0.000s  all 3 nodes are Ready
cni    podsReady   PASS     PodsReady   0.000s  all 3 pods are Running and Ready
soak   readySoak   UNKNOWN  NoRecord    0.000s  cannot tell when 3 of 3 nodes last rebooted: n1 (no record: its gate never ran; start it, or exclude the node with gateSelector), n2 (no record: its gate never ran; start it, or exclude the node with gateSelector), n3 (no record: its gate never ran; start it, or exclude the node with gateSelector)

raw sentinel:  not looked at: this command does not run on node n1
steps:         blocked by 1 of 3: soak
stabilize:     the gate opens after every step has passed for 1m
kured:         not looked at: this command does not run on node n1
records:       none in namespace sentinel-gate: no gate has run there yet
               without them a step cannot know of earlier reboots, and stays Unknown until every node's gate has run
               by the nodes' status alone, soak would be PASS Soaked: quiet for 50h, since node n1 became Ready=True
turn:          unknown, so the gate is closed: the turn's Lease sentinel-gate-turn does not exist: create it as docs/turn.md describes
`)
}

func TestOnceBlocked(t *testing.T) {
	s := newScene(t)
	write(t, s.raw(), "")
	write(t, s.raw()+".pkgs", "linux-base\nlibc6\n")
	_, err := s.Nodes[1].SetReady(s.ctx, corev1.ConditionFalse, "KubeletNotReady", time.Now().Add(-lastAgo))
	s.must(err)
	s.must(s.CP.DeletePod(s.ctx, cluster.CNINamespace, cluster.CNIPod("n3")))
	_, err = s.Nodes[2].Reboot(s.ctx)
	s.must(err)
	exit, stdout, stderr := s.once()
	if exit != 1 {
		t.Errorf("exit status %d", exit)
	}
	// The table has said it all.
	wantOutput(t, "stderr", stderr, "")
	wantOutput(t, "stdout", s.normal(stdout), `node n1, TIME, configuration HASH

STEP   TYPE        VERDICT  REASON             TOOK    MESSAGE
nodes  nodesReady  FAIL     NodesNotReady      0.000s  1 of 3 nodes is not Ready, and 0 may be: n2 (Ready=False, KubeletNotReady)
cni    podsReady   FAIL     PodsMissing        0.000s  1 pod is missing or not ready, of 2 found: n3 (no pod of kube-system/calico-node)
soak   readySoak   UNKNOWN  RebootNotRecorded  0.000s  cannot tell when 1 of 3 nodes last rebooted: n3 (rebooted, and its gate has not come back)

raw sentinel:  a reboot is pending since TIME, for libc6, linux-base
steps:         blocked by 3 of 3: nodes, cni, soak
stabilize:     the gate opens after every step has passed for 1m
kured:         NoKured: no kured runs on this node: nobody looks at the gated sentinel
turn:          free, epoch 0, since TIME
               0 nodes wait for a reboot; this one does not
`)
}

// --once says how the turn stands, what people have written, who is ahead, and
// whether everybody can be done in time.
func TestOnceTellsTheTurn(t *testing.T) {
	s := newScene(t)
	leases := s.CP.Client().CoordinationV1().Leases(cluster.Namespace)
	annotate := func(name, key, value string) {
		t.Helper()
		_, err := leases.Patch(s.ctx, name, types.MergePatchType, fmt.Appendf(nil, `{"metadata":{"annotations":{%q:%q}}}`, key, value), metav1.PatchOptions{})
		s.must(err)
	}
	turnOf := func() string {
		t.Helper()
		_, stdout, _ := s.once()
		_, tells, _ := strings.Cut(s.normal(stdout), "turn:          ")
		return tells
	}
	f, err := os.OpenFile(s.config, os.O_APPEND|os.O_WRONLY, 0)
	s.must(err)
	_, err = f.WriteString("turn: {deadline: 2d}\n")
	s.must(errors.Join(err, f.Close()))
	_, err = s.Nodes[1].SetReady(s.ctx, corev1.ConditionTrue, "KubeletReady", time.Now())
	s.must(err)

	now := time.Now()
	s.must(s.SetTurn(s.ctx, turn.State{Epoch: 7, Phase: turn.PhaseOpen, Holder: "n2", BootID: "b", Since: now, Next: []string{"n2", "n3"}, Waiting: 2}))
	for i, node := range []string{"n2", "n3", "n1"} {
		annotate(node, "sentinel-gate.io/pending-since", now.Add(time.Duration(i)*time.Hour).UTC().Format(time.RFC3339))
	}
	wantOutput(t, "turn", turnOf(), `open n2, epoch 7, since TIME
               3 nodes wait for a reboot; ahead of this one: n2, n3
               this node has the turn after 4d4h44m at the latest, where the cluster is well and in kured's own window
               the deadline of 2d CANNOT BE MET: 3 nodes to reboot, and a soak of 1d each takes 3d
`)

	// It waits for longer than anything that is well takes, and somebody was passed over.
	s.must(s.SetTurn(s.ctx, turn.State{Epoch: 8, Phase: turn.PhaseOpen, Holder: "n2", BootID: "b", Since: now, PassedOver: []turn.PassedOver{{Node: "n3", Cause: turn.CauseCannotOpen, At: now}}}))
	annotate("n1", "sentinel-gate.io/pending-since", now.Add(-30*24*time.Hour).UTC().Format(time.RFC3339))
	wantOutput(t, "turn", turnOf(), `open n2, epoch 8, since TIME
               3 nodes wait for a reboot; ahead of this one: n2
               n3 was passed over at TIME: its gate could not make the gated sentinel: look at its gate's log
               this node waits since TIME, longer than the 3d3h9m that it takes at most where the cluster is well and in kured's own window: IN ITS WAY is open n2, since TIME
               the deadline of 2d CANNOT BE MET: 3 nodes to reboot, and a soak of 1d each takes 3d
`)
	s.must(s.SetTurn(s.ctx, turn.State{Epoch: 7, Phase: turn.PhaseOpen, Holder: "n2", BootID: "b", Since: now, Next: []string{"n2", "n3"}, Waiting: 2}))
	annotate("n1", "sentinel-gate.io/pending-since", now.Add(2*time.Hour).UTC().Format(time.RFC3339))

	annotate(turn.LeaseName, turn.HaltKey, "INC-1234")
	annotate(turn.LeaseName, turn.HoldPrefix+"n1", "")
	annotate(turn.LeaseName, turn.OverridePrefix+"soak", now.Add(time.Hour).UTC().Format(time.RFC3339)+" CVE-2026-1")
	annotate(turn.LeaseName, turn.OverridePrefix+"cni", "for ever")
	wantOutput(t, "turn", turnOf(), `open n2, epoch 7, since TIME
               HALTED, every gate is closed: INC-1234
               ignored: override.sentinel-gate.io/cni is "for ever": want a time and a reason, such as "TIME CVE-2026-1"
               step soak is overridden until TIME: CVE-2026-1
               this node is held: (no reason given)
               3 nodes wait for a reboot; ahead of this one: n2, n3
`)
	_, stdout, _ := s.once()
	if !regexp.MustCompile(`(?m)^soak .* FAIL \(overridden\) `).MatchString(stdout) {
		t.Errorf("the step is not told to be overridden:\n%s", stdout)
	}

	s.must(s.SetTurn(s.ctx, turn.State{Epoch: 7, Phase: turn.PhaseFree, Since: now}))
	annotate("n3", "sentinel-gate.io/turn-epoch-seen", "9")
	wantOutput(t, "turn", turnOf(), `unknown, so the gate is closed: the turn's epoch 7 is older than 9, which n3 has seen: an old copy of the Lease was restored; see docs/turn.md
               free, epoch 7, since TIME
`)
	annotate(turn.LeaseName, "sentinel-gate.io/turn-holder", "n1")
	wantOutput(t, "turn", turnOf(), `unknown, so the gate is closed: the turn (Lease sentinel-gate/sentinel-gate-turn) cannot be read: it was changed by hand: its seal does not fit
`)
	s.must(leases.Delete(s.ctx, turn.LeaseName, metav1.DeleteOptions{}))
	wantOutput(t, "turn", turnOf(), `unknown, so the gate is closed: the turn's Lease sentinel-gate-turn does not exist: create it as docs/turn.md describes
`)
}

// A soak knows when it can be over, and the table says so where nothing else
// holds the gate closed.
func TestOnceSaysNotBefore(t *testing.T) {
	s := newScene(t)
	s.must(os.Mkdir(s.raw(), 0o755))
	_, err := s.Nodes[1].SetReady(s.ctx, corev1.ConditionTrue, "KubeletReady", time.Now().Add(-time.Second))
	s.must(err)
	exit, stdout, _ := s.once()
	if exit != 1 {
		t.Errorf("exit status %d", exit)
	}
	wantOutput(t, "stdout", s.normal(stdout), `node n1, TIME, configuration HASH

STEP   TYPE        VERDICT  REASON      TOOK    MESSAGE
nodes  nodesReady  PASS     NodesReady  0.000s  all 3 nodes are Ready
cni    podsReady   PASS     PodsReady   0.000s  all 3 pods are Running and Ready
soak   readySoak   FAIL     Soaking     0.000s  node n2 became Ready=True 0s ago; the soak of 1d ends at TIME

raw sentinel:  raw sentinel DIR/reboot-required is not a regular file but d---------: remove it
steps:         blocked by 1 of 3: soak
               not before TIME
stabilize:     the gate opens after every step has passed for 1m
kured:         NoKured: no kured runs on this node: nobody looks at the gated sentinel
turn:          free, epoch 0, since TIME
               0 nodes wait for a reboot; this one does not
`)
}

// F01: a permission that is missing is a step that cannot decide, by name.
func TestF01OnceWithoutPermission(t *testing.T) {
	s := newScene(t)
	bindings := s.CP.Client().RbacV1().RoleBindings(cluster.Namespace)
	s.must(bindings.Delete(s.ctx, "sentinel-gate", metav1.DeleteOptions{}))
	s.must(controlplane.Poll(s.ctx, func() error {
		exit, stdout, stderr := s.once()
		const says = `soak   readySoak   UNKNOWN  Error       0.000s  listing records in namespace sentinel-gate: leases.coordination.k8s.io is forbidden: User "system:serviceaccount:sentinel-gate:sentinel-gate" cannot list resource "leases" in API group "coordination.k8s.io" in the namespace "sentinel-gate"` + "\n"
		if exit != 1 || stderr != "" || !strings.Contains(s.normal(stdout), says) {
			return fmt.Errorf("exit status %d, stderr %q, and\n%s\nwithout\n%s", exit, stderr, s.normal(stdout), says)
		}
		return nil
	}))
	s.must(cluster.Grant(s.ctx, s.CP))
	s.must(controlplane.Poll(s.ctx, func() error {
		if exit, stdout, _ := s.once(); exit != 0 {
			return fmt.Errorf("exit status %d, although the permission is back:\n%s", exit, stdout)
		}
		return nil
	}))
}

// 2: it cannot be told.
func TestOnceUnusable(t *testing.T) {
	s := newScene(t)
	good, err := clientcmd.LoadFromFile(s.kubeconfig)
	s.must(err)
	port, err := controlplane.FreePort()
	s.must(err)

	elsewhere := good.DeepCopy()
	elsewhere.Clusters["test"].Server = fmt.Sprintf("https://127.0.0.1:%d", port)
	stranger := good.DeepCopy()
	stranger.AuthInfos["test"].Token = "not-a-token"
	distrusting := good.DeepCopy()
	distrusting.Clusters["test"].CertificateAuthority = ""
	for _, c := range []struct{ name, kubeconfig, config, want string }{
		{
			"broken configuration", s.kubeconfig, write(t, filepath.Join(s.dir, "broken.yaml"), header+"checks: [{name: a, type: b}]\n"),
			`sentinel-gate: DIR/broken.yaml:
checks[0] "a": type: unknown type "b": want one of ` + strings.Join(checks.Types(), ", ") + `
`,
		},
		{
			"resources that are not served", s.kubeconfig, write(t, filepath.Join(s.dir, "unserved.yaml"), header+`checks:
  - {name: a, type: nodesReady}
  - {name: ceph, type: resource, options: {apiVersion: ceph.rook.io/v1, resource: cephclusters, expression: object.status.ceph.health == "HEALTH_OK"}}
  - {name: sets, type: resource, options: {apiVersion: apps/v1, resource: statefullsets, expression: object.status.replicas == 3}}
`),
			`sentinel-gate: DIR/unserved.yaml:
checks[1] "ceph": options.apiVersion: the API server does not serve ceph.rook.io/v1: is its CustomResourceDefinition installed?
checks[2] "sets": options.resource: the API server serves no "statefullsets" in apps/v1: see kubectl api-resources --api-group=apps
`,
		},
		{"unreachable", s.kubeconfigOf(elsewhere), s.config, fmt.Sprintf("sentinel-gate: reaching the API server: Get \"https://127.0.0.1:%d/version\": dial tcp 127.0.0.1:%[1]d: connect: connection refused\n", port)},
		{"invalid token", s.kubeconfigOf(stranger), s.config, "sentinel-gate: reaching the API server: Unauthorized\n"},
		{"unknown authority", s.kubeconfigOf(distrusting), s.config, "sentinel-gate: reaching the API server: Get \"" + s.CP.URL() + "/version\": tls: failed to verify certificate: x509: certificate signed by unknown authority\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := files(t, s.dir)
			exit, stdout, stderr := s.once("--kubeconfig", c.kubeconfig, "--config", c.config)
			if exit != 2 || stdout != "" {
				t.Errorf("exit status %d, and it printed %q", exit, stdout)
			}
			wantOutput(t, "stderr", strings.ReplaceAll(stderr, s.dir, "DIR"), c.want)
			if after := files(t, s.dir); after != before {
				t.Errorf("it touched a file\nbefore\n%s\nafter\n%s", before, after)
			}
		})
	}

	t.Run("hangs", func(t *testing.T) {
		s.must(s.CP.PauseAPIServer())
		defer func() { s.must(s.CP.ResumeAPIServer()) }()
		config := write(t, filepath.Join(s.dir, "quick.yaml"), header+"timeout: 500ms\n"+nodes)
		exit, stdout, stderr := s.once("--config", config)
		if exit != 2 || stdout != "" || !strings.HasPrefix(stderr, "sentinel-gate: reaching the API server: ") {
			t.Errorf("exit status %d, stdout %q, stderr %q", exit, stdout, stderr)
		}
	})
}

func (s *scene) kubeconfigOf(config *clientcmdapi.Config) string {
	s.t.Helper()
	path := filepath.Join(s.t.TempDir(), "kubeconfig")
	s.must(clientcmd.WriteToFile(*config, path))
	return path
}

// It may be run beside a running gate, at any time: it touches no file, locks
// nothing and writes nothing to the cluster, whatever the verdict.
func TestOnceTouchesNothing(t *testing.T) {
	s := newScene(t)
	write(t, s.raw(), "*** System restart required ***\n")
	write(t, s.raw()+".pkgs", "linux-base\n")
	running, err := gate.Claim(filepath.Join(s.gatedDir(), "gated"), gate.ModeFile)
	s.must(err)
	defer func() { s.must(running.Release()) }()
	s.must(running.Prove())
	s.must(running.Open(time.Minute, func() error { return nil }))
	s.must(s.CP.Client().CoordinationV1().Leases(cluster.Namespace).Delete(s.ctx, "n1", metav1.DeleteOptions{}))

	beforeFiles, beforeLeases, began := files(t, s.dir), s.leases(), time.Now()
	if !strings.Contains(beforeFiles, "/gate/gated ") || strings.Contains(beforeLeases, "n1") {
		t.Fatalf("the gate is not open, or the record is there: the test is not about what it says\n%s%s", beforeFiles, beforeLeases)
	}
	exit, stdout, _ := s.once()
	if exit != 1 || !strings.Contains(stdout, "n1 (no record") {
		t.Errorf("exit status %d, and it printed\n%s", exit, stdout)
	}
	if after := files(t, s.dir); after != beforeFiles {
		t.Errorf("it touched a file\nbefore\n%s\nafter\n%s", beforeFiles, after)
	}
	if after := s.leases(); after != beforeLeases {
		t.Errorf("it wrote a record\nbefore\n%s\nafter\n%s", beforeLeases, after)
	}
	if err := running.Inspect(); err != nil {
		t.Errorf("the running gate's sentinel: %v", err)
	}
	events, err := s.CP.Requests(cluster.User, began)
	s.must(err)
	lists := map[string]int{}
	for _, e := range events {
		if e.Verb != "list" && e.URI != "/version" && !strings.HasSuffix(e.URI, "/leases/"+turn.LeaseName) {
			t.Errorf("it did %s %s", e.Verb, e.URI)
		}
		path, _, _ := strings.Cut(e.URI, "?")
		lists[path]++
	}
	// Two steps need the nodes, and they are listed once for both; and their names and
	// labels for the turn.
	if lists["/api/v1/nodes"] != 2 || lists["/version"] != 1 {
		t.Errorf("it asked for %v", lists)
	}
}
