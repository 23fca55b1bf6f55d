package chart

import (
	"strings"
	"testing"
)

// What is misspelt or of the wrong form is refused before anything is installed.
func TestSchemaRefuses(t *testing.T) {
	for _, bad := range []struct{ values, says string }{
		{"hostNetwerk: true", "additional properties 'hostNetwerk' not allowed"},
		{"mode: deployment", "at '/mode': value must be one of"},
		{"image: {repo: x}", "at '/image': additional properties 'repo' not allowed"},
		{"image: {repository: ''}", "at '/image/repository'"},
		{"image: {digest: abc}", "at '/image/digest'"},
		{"image: {pullPolicy: Sometimes}", "at '/image/pullPolicy': value must be one of"},
		{"sentinel: {raw: []}", "at '/sentinel/raw': minItems"},
		{"sentinel: {raw: /var/run/reboot-required}", "at '/sentinel/raw': got string, want array"},
		{"sentinel: {raw: [reboot-required]}", "at '/sentinel/raw/0'"},
		{"sentinel: {gated: relative}", "at '/sentinel/gated'"},
		{"sentinel: {mode: plain}", "at '/sentinel/mode': value must be one of"},
		{"port: 0", "at '/port': minimum"},
		{"maxUnavailable: 0", "at '/maxUnavailable'"},
		{"maxUnavailable: 0%", "at '/maxUnavailable'"},
		{"logLevel: loud", "at '/logLevel': value must be one of"},
		{"extraArgs: --x", "at '/extraArgs': got string, want array"},
		{"podMonitor: {enable: true}", "additional properties 'enable' not allowed"},
		{"networkPolicy: {enabled: yes please}", "at '/networkPolicy/enabled': got string, want boolean"},
		// The configuration, as the daemon's own decoder has it.
		{"config: {checks: []}", "at '/config/checks': minItems"},
		{"config: {checks: [{name: a}]}", "missing property 'type'"},
		{"config: {checks: [{name: a, type: nodesRedy}]}", "at '/config/checks/0/type': value must be one of"},
		{"config: {checks: [{name: A, type: nodesReady}]}", "at '/config/checks/0/name'"},
		{"config: {checks: [{name: a, type: nodesReady, options: {minimun: 1}}]}", "additional properties 'minimun' not allowed"},
		{"config: {checks: [{name: a, type: nodesReady, options: {minimum: two}}]}", "at '/config/checks/0/options/minimum': got string, want integer"},
		{"config: {checks: [{name: a, type: readySoak, options: {duration: 1 day}}]}", "at '/config/checks/0/options/duration'"},
		{"config: {checks: [{name: a, type: nodesReady, timeout: 10}]}", "at '/config/checks/0/timeout': got number, want string"},
		{"config: {interwal: 30s}", "additional properties 'interwal' not allowed"},
		{"config: {interval: soon}", "at '/config/interval'"},
		{"config: {sentinel: {raw: /x}}", "additional properties 'sentinel' not allowed"},
		{"config: {apiVersion: sentinel-gate.io/v2}", "additional properties 'apiVersion' not allowed"},
	} {
		t.Run(bad.values, func(t *testing.T) {
			_, err := offline(t).Run(testContext(t), append([]string{"template", release, chart(t)}, values(t, bad.values)...)...)
			if err == nil || !strings.Contains(err.Error(), bad.says) {
				t.Errorf("got %v\nwant %s", err, bad.says)
			}
		})
	}
	// What a schema cannot tell.
	for _, text := range []string{"{hostNetwork: true, networkPolicy: {enabled: true}}", "{mode: sidecar, networkPolicy: {enabled: true}}"} {
		if _, err := offline(t).Run(testContext(t), append([]string{"template", release, chart(t)}, values(t, text)...)...); err == nil || !strings.Contains(err.Error(), "a policy does not reach the host's network") {
			t.Errorf("%s: %v", text, err)
		}
	}
}
