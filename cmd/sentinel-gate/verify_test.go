package main

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/sentinel-gate/sentinel-gate/test/kit/cluster"
)

func (s *scene) verify(config string) (exit int, stdout, stderr string) {
	exit, stdout, stderr = command(s.ctx, "--verify", "--config", config, "--kubeconfig", s.kubeconfig, "--node-name", "n1", "--namespace", cluster.Namespace, "--host-proc", s.proc())
	return exit, s.normal(stdout), stderr
}

// What each step looks at, and what would make it fail: the whole of it.
func TestVerify(t *testing.T) {
	s := newScene(t)
	before := files(t, s.dir)
	exit, stdout, stderr := s.verify(s.config)
	const want = `node n1, configuration HASH

nodes (nodesReady)
  looks at  3 of 3 nodes
  now       PASS NodesReady: all 3 nodes are Ready
  if        made NotReady: n1
            FAIL NodesNotReady: 1 of 3 nodes is not Ready, and 0 may be: n1 (Ready=False)
  if        without a Ready condition: n1
            FAIL NodesNotReady: 1 of 3 nodes is not Ready, and 0 may be: n1 (no Ready condition)

cni (podsReady)
  looks at  3 pods, 1 DaemonSet and 3 nodes
  now       PASS PodsReady: all 3 pods are Running and Ready
  if        made not Ready: kube-system/calico-node-n1
            FAIL PodsNotReady: 1 pod is missing or not ready, of 3 found: kube-system/calico-node-n1 on n1 (no Ready condition)
  if        removed: kube-system/calico-node-n1
            FAIL PodsMissing: 1 pod is missing or not ready, of 2 found: n1 (no pod of kube-system/calico-node)

soak (readySoak)
  looks at  3 nodes and 3 records
  now       PASS Soaked: quiet for 49h30m, since node n3 booted
  if        node n1 became Ready just now
            FAIL Soaking: node n1 became Ready=True 0s ago; the soak of 1d ends at TIME
  if        node n1 without a Ready condition
            UNKNOWN NoReadyCondition: cannot tell when 1 of 3 nodes last rebooted: n1 (no Ready condition)
  if        node n1 booted just now, and its gate came back
            FAIL Soaking: node n1 booted 0s ago; the soak of 1d ends at TIME
  if        node n1 booted, and its gate did not come back
            UNKNOWN RebootNotRecorded: cannot tell when 1 of 3 nodes last rebooted: n1 (rebooted, and its gate has not come back)
  if        node n1 without a record
            UNKNOWN NoRecord: cannot tell when 1 of 3 nodes last rebooted: n1 (no record: its gate never ran; start it, or exclude the node with gateSelector)

all 3 steps can fail
`
	if exit != exitOK || stdout != want || stderr != "" {
		t.Errorf("exit %d, stderr %q\n%s", exit, stderr, stdout)
	}
	if after := files(t, s.dir); after != before {
		t.Errorf("it touched files:\n%s\n%s", before, after)
	}
}

// A step that nothing can make fail is named, and so is one that cannot be asked.
func TestVerifyVacuous(t *testing.T) {
	s := newScene(t)
	vacuous := write(t, filepath.Join(s.dir, "vacuous.yaml"), header+`
checks:
  - {name: never, type: nodesReady, options: {maxNotReady: 3}}
  - {name: nodes, type: nodesReady}
  - {name: elsewhere, type: nodesReady, nodeSelector: no/such=label, options: {maxNotReady: 3}}
`)
	exit, stdout, stderr := s.verify(vacuous)
	if exit != exitBlocked || !strings.HasSuffix(stdout, "\n2 of 3 steps are vacuous: never, elsewhere\n") || strings.Count(stdout, "VACUOUS") != 2 || stderr != "" {
		t.Errorf("exit %d, stderr %q\n%s", exit, stderr, stdout)
	}
	failing := write(t, filepath.Join(s.dir, "failing.yaml"), header+"checks: [{name: four, type: nodesReady, options: {minimum: 4}}]\n")
	if exit, stdout, _ := s.verify(failing); exit != exitOK || !strings.Contains(stdout, "it does not pass now, and so is seen to be able to fail") {
		t.Errorf("a step that fails now: exit %d\n%s", exit, stdout)
	}
	unread := write(t, filepath.Join(s.dir, "unread.yaml"), header+"checks: [{name: nodes, type: nodesReady}, {name: drain, type: disruptionBudgets}]\n")
	if exit, stdout, _ := s.verify(unread); exit != exitUnusable || !strings.HasSuffix(stdout, "\n1 of 2 steps cannot be verified: drain\n") {
		t.Errorf("a step that may not read: exit %d\n%s", exit, stdout)
	}
}
