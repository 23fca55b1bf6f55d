package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sentinel-gate/sentinel-gate/test/kit/cluster"
)

// A what-if needs no file and no cluster.
func TestForecastOfACluster(t *testing.T) {
	for _, c := range []struct {
		args string
		exit int
		want []string // on standard output, or where the exit status is not 0 on the other
	}{
		{"--nodes 5 --max 2", 0, []string{"(2.0 days)", "growth 2, max 2, a soak of 24 hours each", "no node flaps, and none crashes"}},
		{"--nodes 30 --growth 0", 0, []string{"(29.3 days)", "none: one node in soak at a time, 24 hours each"}},
		{"--nodes 30 --soak 12h --minutes-per-node 20", 0, []string{"a soak of 12 hours each", "20m0s from one boot to the next: as given"}},
		{"--nodes 30 --control-plane-nodes 3 --window 22:00-02:00", 0, []string{"the last boot:", "assumed:"}},
		{"--nodes 30 --change-every 1d", 0, []string{"OUTPACED:"}},
		{"--nodes 30 --window tonight", exitUnusable, []string{`--window: want two times of the day, such as 22:00-02:00, not "tonight"`}},
		{"--nodes 30 --max much", exitUnusable, []string{`--max: "much" is neither a number nor a percentage`}},
		{"--nodes 30 --soak long", exitUnusable, []string{`not a valid duration string`}},
	} {
		t.Run(c.args, func(t *testing.T) {
			exit, stdout, stderr := command(t.Context(), append([]string{"--forecast", "--config", filepath.Join(t.TempDir(), "none")}, strings.Fields(c.args)...)...)
			said := stdout
			if c.exit != 0 {
				said = stderr
			}
			if exit != c.exit {
				t.Errorf("exit status %d, want %d\n%s%s", exit, c.exit, stdout, stderr)
			}
			for _, want := range c.want {
				if !strings.Contains(said, want) {
					t.Errorf("it does not say %q:\n%s", want, said)
				}
			}
		})
	}
}

// Without --nodes it is of the cluster that there is: who waits, who is in soak. --once tells the same in short.
func TestForecastOfThisCluster(t *testing.T) {
	s := newScene(t)
	text, err := os.ReadFile(s.config)
	s.must(err)
	s.must(os.WriteFile(s.config, []byte(strings.Replace(string(text), "type: readySoak}", "type: readySoak, options: {exposure: {max: 2}}}\nturn: {deadline: 1h}", 1)), 0o644))
	forecast := func() string {
		t.Helper()
		exit, stdout, stderr := command(s.ctx, "--forecast", "--config", s.config, "--kubeconfig", s.kubeconfig, "--namespace", cluster.Namespace, "--host-proc", s.proc())
		if exit != 0 {
			t.Fatalf("exit status %d\n%s%s", exit, stdout, stderr)
		}
		return stdout
	}
	said := forecast()
	for _, want := range []string{"nobody waits now: as if every node waited", "growth 2, max 2", "CANNOT BE MET", "15m from one boot to the next: no rollout is on record"} {
		if !strings.Contains(said, want) {
			t.Errorf("nobody waits, and it does not say %q:\n%s", want, said)
		}
	}

	leases := s.CP.Client().CoordinationV1().Leases(cluster.Namespace)
	for _, name := range []string{"n1", "n2"} {
		lease, err := leases.Get(s.ctx, name, metav1.GetOptions{})
		s.must(err)
		lease.Annotations["sentinel-gate.io/pending-since"] = time.Now().UTC().Format(time.RFC3339)
		lease.Annotations["sentinel-gate.io/parts-pending"] = "0123456789ab"
		_, err = leases.Update(s.ctx, lease, metav1.UpdateOptions{})
		s.must(err)
	}
	if said = forecast(); !regexp.MustCompile(`(?m)^ *\S+ \S+ +2 +\d`).MatchString(said) {
		t.Errorf("two of three nodes wait:\n%s", said)
	}
	exit, stdout, stderr := s.once()
	if exit != exitBlocked || !strings.Contains(stdout, "exposure:      0 in soak of at most 2") || !strings.Contains(stdout, "the last node that waits has booted by") {
		t.Errorf("exit status %d\n%s%s", exit, stdout, stderr)
	}
}
