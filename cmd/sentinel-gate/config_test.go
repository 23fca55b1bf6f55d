package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"

	"github.com/sentinel-gate/sentinel-gate/checks"
	"github.com/sentinel-gate/sentinel-gate/gate"
	"github.com/sentinel-gate/sentinel-gate/test/kit/build"
)

func root(t *testing.T) string {
	t.Helper()
	dir, err := build.Root()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// header is what every configuration begins with.
const header = "apiVersion: sentinel-gate.io/v1alpha1\nkind: GateConfiguration\n"

const nodes = "checks: [{name: nodes, type: nodesReady}]\n"

// options is a configuration of one step.
func options(typeName, text string) string {
	return header + "checks: [{name: x, type: " + typeName + ", options: " + text + "}]\n"
}

// F21: a mistake is refused, never ignored. Every mistake is told at once, each
// with its path: what is compared is the whole message.
func TestF21BadConfigurations(t *testing.T) {
	types := strings.Join(checks.Types(), ", ")
	const (
		top      = "apiVersion, checks, interval, kind, maxAge, sentinel, stabilize, timeout, turn"
		name     = "name: want lower-case letters, digits and hyphens, at most 63, not "
		noChecks = "checks: want at least one: a gate without checks would let every reboot through"
		presets  = "antrea, aws-node, azure, calico, canal, cilium, flannel, kindnet, kube-router, ovn-kubernetes, weave"
		podOpts  = "maxNotReady, namespaces, nodeSelector, onEveryNode, preset, selector"
	)
	for _, c := range []struct{ name, text, want string }{
		// The file.
		{"not YAML", "checks: [", `yaml: line 1: did not find expected node content`},
		{"a tab", header + "\tinterval: 1m", `yaml: line 3: found a tab character that violates indentation`},
		{"a list", "[]", "must be a mapping, not []\napiVersion: want sentinel-gate.io/v1alpha1, not \"\"\nkind: want GateConfiguration, not \"\"\n" + noChecks},
		{
			"of another version and kind", "apiVersion: sentinel-gate.io/v1\nkind: gateConfiguration\n" + nodes,
			"apiVersion: want sentinel-gate.io/v1alpha1, not \"sentinel-gate.io/v1\"\nkind: want GateConfiguration, not \"gateConfiguration\"",
		},
		{"neither version nor kind", nodes, "apiVersion: want sentinel-gate.io/v1alpha1, not \"\"\nkind: want GateConfiguration, not \"\""},
		{
			"a key twice, at two levels, and another mistake", header + "interval: 20s\ninterval: 30s\nstabilise: 1m\nchecks:\n  - name: a\n    type: nodesReady\n    name: b\n",
			`yaml: unmarshal errors: line 4: key "interval" already set in map line 9: key "name" already set in map` + "\n" +
				`unknown field "stabilise": want one of ` + top,
		},
		{
			// What is below the second line of hyphens would never be read.
			"two documents", header + nodes + "---\nchecks: [{name: soak, type: readySoak}]\n",
			`more than one YAML document: only the first would count`,
		},

		// Misspelt fields, at each level, and in wrong case.
		{"top level", header + "intervall: 1m\n" + nodes, `unknown field "intervall": want one of ` + top},
		{"top level, case", header + "Interval: 1m\nMAXAGE: 5m\n" + nodes, `unknown field "Interval": want one of ` + top + "\n" + `unknown field "MAXAGE": want one of ` + top},
		{"the field of the checks", header + "check: [{name: a, type: nodesReady}]\n", `unknown field "check": want one of ` + top + "\n" + noChecks},
		{"sentinel", header + "sentinel: {raw: /run/reboot-required, gatd: /x, Mode: file}\n" + nodes, "sentinel: unknown field \"Mode\": want one of dpkgStatus, gated, mode, raw\nsentinel: unknown field \"gatd\": want one of dpkgStatus, gated, mode, raw"},
		{"step", header + "checks: [{name: a, type: nodesReady, option: {}, Timeout: 5s}]\n", "checks[0] \"a\": unknown field \"Timeout\": want one of name, nodeSelector, options, softUntil, timeout, type\nchecks[0] \"a\": unknown field \"option\": want one of name, nodeSelector, options, softUntil, timeout, type"},
		{
			"options of each type", header + `checks:
  - {name: nodes, type: nodesReady, options: {maxnotready: 1}}
  - {name: cni, type: podsReady, options: {preset: auto, selecter: a=b}}
  - {name: soak, type: readySoak, options: {ignorejoined: true}}
  - {name: alerts, type: alerts, options: {prometheus: {url: "http://p", httpconfig: {}}, requirefiring: ""}}
`,
			`checks[0] "nodes": options: unknown field "maxnotready": want one of maxNotReady, minimum, selector
checks[1] "cni": options: unknown field "selecter": want one of ` + podOpts + `
checks[2] "soak": options: unknown field "ignorejoined": want one of duration, exposure, flaps, gateSelector, ignoreJoined, selector
checks[3] "alerts": options.prometheus: unknown field "httpconfig": want one of httpConfig, url
checks[3] "alerts": options: unknown field "requirefiring": want one of alertmanager, ignore, match, prometheus, requireFiring, requireFiringAgo, requireFiringMatch`,
		},
		{
			"httpConfig", options("alerts", `{prometheus: {url: "http://p", httpConfig: {bearerToken: x}}}`),
			`checks[0] "x": options.prometheus.httpConfig: yaml: unmarshal errors: line 1: field bearerToken not found in type config.plain`,
		},

		{
			"soft until when", header + `checks:
  - {name: a, type: nodesReady}
  - {name: b, type: nodesReady, softUntil: tomorrow}
  - {name: c, type: nodesReady, softUntil: 2026-13-01}
  - {name: d, type: nodesReady, softUntil: 5, nodeSelector: "a=="}
`,
			`checks[1] "b": softUntil: want a date such as 2006-01-02 or a time such as 2006-01-02T15:04:05Z, not "tomorrow"
checks[2] "c": softUntil: want a date such as 2006-01-02 or a time such as 2006-01-02T15:04:05Z, not "2026-13-01"
checks[3] "d": softUntil: must be a string, not 5`,
		},
		{
			"which nodes", header + "checks: [{name: a, type: nodesReady, nodeSelector: a in b}]\n",
			`checks[0] "a": nodeSelector: not a label selector: unable to parse requirement: found 'b' expected: '('`,
		},
		{
			"nothing that counts", header + "checks: [{name: a, type: nodesReady, softUntil: 2026-12-01}, {name: b, type: readySoak, softUntil: 2026-12-01}]\n",
			`checks: every step has softUntil: want at least one that always counts`,
		},

		// Nulls.
		{
			"no values", header + "interval:\nsentinel: {raw: null}\nchecks:\n  - {name: a, type: nodesReady, options: null}\n  - {name: b, type: nodesReady, options: {minimum: }}\n  - {name: c, type: readySoak, timeout: ~}\n",
			`interval: has no value: give one, or leave the field out
sentinel.raw: has no value: give one, or leave the field out
checks[0] "a": options: has no value: give one, or leave the field out
checks[1] "b": options.minimum: has no value: give one, or leave the field out
checks[2] "c": timeout: has no value: give one, or leave the field out`,
		},
		{
			"a step without a value", header + "checks:\n  - {name: a, type: nodesReady}\n  -\n",
			"checks[1]: has no value: give one, or leave the field out\nchecks[1]: " + name + "\"\"\nchecks[1]: type: unknown type \"\": want one of " + types,
		},

		// Wrong types.
		{
			"top level", header + "interval: 30\nstabilize: [1m]\nsentinel: /run/x\nchecks: {name: a}\n",
			`checks: must be a list, not {"name":"a"}` + "\ninterval: must be a string, not 30\nsentinel: must be a mapping, not \"/run/x\"\nstabilize: must be a string, not [\"1m\"]\n" + noChecks,
		},
		{"sentinel", header + "sentinel: {raw: {a: b}, gated: 5, mode: true}\n" + nodes, "sentinel.gated: must be a string, not 5\nsentinel.mode: must be a string, not true\nsentinel.raw: want a path or a list of paths"},
		{"a step", header + "checks: [nodes]\n", "checks[0]: must be a mapping, not \"nodes\"\nchecks[0]: " + name + "\"\"\nchecks[0]: type: unknown type \"\": want one of " + types},
		{"a name that YAML takes for a boolean", header + "checks: [{name: y, type: nodesReady}]\n", "checks[0]: name: must be a string, not true\nchecks[0]: " + name + "\"\""},
		{"options", options("nodesReady", `[a]`), `checks[0] "x": options: must be a mapping, not ["a"]`},
		{
			"options of nodesReady", options("nodesReady", `{minimum: "3", maxNotReady: 1.5, selector: {a: b}}`),
			"checks[0] \"x\": options.maxNotReady: must be a whole number, not 1.5\nchecks[0] \"x\": options.minimum: must be a whole number, not \"3\"\nchecks[0] \"x\": options.selector: must be a string, not {\"a\":\"b\"}",
		},
		{
			"options of podsReady", options("podsReady", `{namespaces: kube-system, selector: a=b, onEveryNode: sometimes}`),
			"checks[0] \"x\": options.namespaces: must be a list, not \"kube-system\"\nchecks[0] \"x\": options.onEveryNode: must be true or false, not \"sometimes\"\nchecks[0] \"x\": options.namespaces: say where the selected pods are",
		},
		{
			"options of alerts", options("alerts", `{prometheus: "http://p", ignore: KubeJob.*, match: [5]}`),
			"checks[0] \"x\": options.ignore: must be a list, not \"KubeJob.*\"\nchecks[0] \"x\": options.match[0]: must be a string, not 5\nchecks[0] \"x\": options.prometheus: must be a mapping, not \"http://p\"\nchecks[0] \"x\": options.prometheus.url: want an http or https URL, not \"\"",
		},

		// Durations, and bounds.
		{
			"durations", header + "interval: 1.5m\nmaxAge: 1x\nstabilize: -1m\ntimeout: soon\n" + nodes,
			`interval: unknown unit "." in duration "1.5m"` + "\n" + `maxAge: unknown unit "x" in duration "1x"` + "\n" + `stabilize: not a valid duration string: "-1m"` + "\n" + `timeout: not a valid duration string: "soon"`,
		},
		{
			"no time at all", header + "interval: 0s\ntimeout: 0s\nmaxAge: 10s\nchecks: [{name: a, type: nodesReady, timeout: 0s}]\n",
			"interval: must be longer than 0s\ntimeout: must be longer than 0s\nchecks[0] \"a\": timeout: must be longer than 0s",
		},
		{"a turn that is settled too soon", header + "turn: {settle: 1s}\n" + nodes, "turn.settle: must be at least 1m, not 1s: kured needs as long from its look at the sentinel to its lock"},
		{"a turn without patience", header + "turn: {grantTimeout: 1m}\n" + nodes, "turn.grantTimeout: must be at least 5m, not 1m: a gate needs as long from its turn to its opening"},
		{"a turn without order", header + "turn: {goFirstAfter: 10m}\n" + nodes, "turn.goFirstAfter: must be at least 1h, not 10m: below that there would be no order"},
		{"an interval too short for its maxAge", header + "interval: 500ms\ntimeout: 10ms\n" + nodes, "maxAge: must be at least 2s, not 1s; it is twice the interval where it is not given"},
		{
			"no time between two evaluations", header + "interval: 30s\nmaxAge: 34s\n" + nodes,
			"maxAge: 34s leaves an open gate no time between two evaluations with an interval of 30s",
		},
		{
			"a maxAge that is too long", header + "interval: 10s\nmaxAge: 101s\n" + nodes,
			"maxAge: 1m41s is longer than a gate whose evaluations hang may stay open: with an interval of 10s it can be 1m40s at most",
		},
		{
			"a maxAge that is too long for a short interval", header + "interval: 1s\nmaxAge: 61s\n" + nodes,
			"maxAge: 1m1s is longer than a gate whose evaluations hang may stay open: with an interval of 1s it can be 1m at most",
		},
		{
			"too little for two of three steps", header + "interval: 10s\ntimeout: 8001ms\nchecks: [{name: a, type: nodesReady}, {name: b, type: nodesReady, timeout: 8s}, {name: c, type: nodesReady, timeout: 1m}]\n",
			"checks[0] \"a\": timeout: 8s1ms leaves an open gate no time between two evaluations: with an interval of 10s and a maxAge of 20s it can be 8s at most\n" +
				"checks[2] \"c\": timeout: 1m leaves an open gate no time between two evaluations: with an interval of 10s and a maxAge of 20s it can be 8s at most",
		},
		{"bounds of nodesReady", options("nodesReady", `{minimum: 0, maxNotReady: -1}`), "checks[0] \"x\": options.minimum: must be at least 1, not 0\nchecks[0] \"x\": options.maxNotReady: must be at least 0, not -1"},
		{
			"options of controlPlaneQuorum", options("controlPlaneQuorum", `{selector: "", members: -1, minimum: -1, allowsingle: true, pods: "a in"}`),
			"checks[0] \"x\": options: unknown field \"allowsingle\": want one of allowSingle, members, minimum, pods, selector\n" +
				"checks[0] \"x\": options.pods: not a label selector: unable to parse requirement: found '' expected: '('\n" +
				"checks[0] \"x\": options.members: must be at least 0, not -1\n" +
				"checks[0] \"x\": options.minimum: must be at least 0, not -1\n" +
				"checks[0] \"x\": options.selector: must not be empty: it says which nodes are the control plane",
		},
		{
			"controlPlaneQuorum at odds with itself", options("controlPlaneQuorum", `{members: 3, minimum: 3, allowSingle: true}`),
			"checks[0] \"x\": options.allowSingle: contradicts members above 1, and minimum\n" +
				"checks[0] \"x\": options.minimum: of 3 members, at most 2 are others, not 3",
		},
		{
			"options of cordons", options("cordons", `{selector: "a=(b", maxcordoned: 1, maxCordoned: -1}`),
			"checks[0] \"x\": options: unknown field \"maxcordoned\": want one of maxCordoned, selector\n" +
				"checks[0] \"x\": options.selector: not a label selector: unable to parse requirement: found '(', expected: identifier\n" +
				"checks[0] \"x\": options.maxCordoned: must be at least 0, not -1",
		},
		{
			"options of disruptionBudgets", options("disruptionBudgets", `{podSelector: "app in", podselector: a}`),
			"checks[0] \"x\": options.podSelector: not a label selector: unable to parse requirement: found '' expected: '('\n" +
				"checks[0] \"x\": options: unknown field \"podselector\": want one of podSelector",
		},
		{
			"options of headroom", options("headroom", `{resources: cpu, reserve: 10%, nodeSelector: "a in", Reserve: 1}`),
			"checks[0] \"x\": options: unknown field \"Reserve\": want one of nodeSelector, podSelector, reserve, resources\n" +
				"checks[0] \"x\": options.nodeSelector: not a label selector: unable to parse requirement: found '' expected: '('\n" +
				"checks[0] \"x\": options.reserve: must be a whole number, not \"10%\"\n" +
				"checks[0] \"x\": options.resources: must be a list, not \"cpu\"",
		},
		{
			"bounds of headroom", options("headroom", `{resources: [cpu, "", cpu], reserve: 100}`),
			"checks[0] \"x\": options.reserve: must be at most 99 percent, not 100\n" +
				"checks[0] \"x\": options.resources[1]: has no name\n" +
				"checks[0] \"x\": options.resources[2]: \"cpu\" is given twice",
		},
		{"less than nothing of headroom", options("headroom", `{reserve: -1}`), `checks[0] "x": options.reserve: must be at least 0, not -1`},
		{"bounds of readySoak", options("readySoak", `{duration: 0s}`), `checks[0] "x": options.duration: must be longer than 0s`},

		// Steps.
		{"an unknown type", header + "checks: [{name: a, type: nodeReady}, {name: b}]\n", "checks[0] \"a\": type: unknown type \"nodeReady\": want one of " + types + "\nchecks[1] \"b\": type: unknown type \"\": want one of " + types},
		{
			"names", header + "checks: [{type: nodesReady}, {name: Nodes, type: nodesReady}, {name: -a, type: nodesReady}, {name: a_b, type: nodesReady}, {name: " + strings.Repeat("a", 64) + ", type: nodesReady}]\n",
			"checks[0]: " + name + "\"\"\nchecks[1] \"Nodes\": " + name + "\"Nodes\"\nchecks[2] \"-a\": " + name + "\"-a\"\nchecks[3] \"a_b\": " + name + "\"a_b\"\n" +
				"checks[4] \"" + strings.Repeat("a", 64) + "\": " + name + "\"" + strings.Repeat("a", 64) + "\"",
		},
		{"a name twice", header + "checks: [{name: a, type: nodesReady}, {name: b, type: nodesReady}, {name: a, type: readySoak}]\n", `checks[2] "a": name: another step has it`},
		{"an unknown preset", options("podsReady", `{preset: callico}`), `checks[0] "x": options.preset: unknown preset "callico": want auto or one of ` + presets},
		{"no pods", options("podsReady", `{}`), `checks[0] "x": options: say which pods: a preset, or namespaces and a selector`},
		{"selectors", options("readySoak", `{selector: "a=(b", gateSelector: "a in"}`), "checks[0] \"x\": options.gateSelector: not a label selector: unable to parse requirement: found '' expected: '('\nchecks[0] \"x\": options.selector: not a label selector: unable to parse requirement: found '(', expected: identifier"},
		{
			// What is quoted is what was written.
			"an expression", options("alerts", `{prometheus: {url: "http://p"}, ignore: ["ok", "a["]}`),
			"checks[0] \"x\": options.ignore[1]: not a regular expression: error parsing regexp: missing closing ]: `[`",
		},
		{
			"matchers, and URL", options("alerts", `{prometheus: {url: "prometheus:9090"}, ignore: ["a.*"], match: ["severity=critical", "a=~\"(\"", "alertstate=\"pending\""], requireFiringAgo: 0s}`),
			"checks[0] \"x\": options.match[0]: not a label matcher: want, for example, severity=~\"critical|warning\", not \"severity=critical\"\n" +
				"checks[0] \"x\": options.match[1]: not a label matcher: \"(\": error parsing regexp: missing closing ): `(`\n" +
				"checks[0] \"x\": options.match[2]: not a label matcher: alertstate is the check's own\n" +
				"checks[0] \"x\": options.requireFiringAgo: must be longer than 0s\n" +
				"checks[0] \"x\": options.prometheus.url: want an http or https URL, not \"prometheus:9090\"",
		},
		{
			"httpConfig at odds with itself", options("alerts", `{prometheus: {url: "http://p", httpConfig: {basic_auth: {username: u}, authorization: {credentials: c}}}}`),
			`checks[0] "x": options.prometheus.httpConfig: at most one of basic_auth, oauth2 & authorization must be configured`,
		},
		{
			"httpConfig of a file that is not there", options("alerts", `{prometheus: {url: "https://p", httpConfig: {tls_config: {ca_file: /nowhere/ca.crt}}}}`),
			`checks[0] "x": options.prometheus.httpConfig: unable to read CA cert: unable to read file /nowhere/ca.crt: open /nowhere/ca.crt: no such file or directory`,
		},

		// Expressions, and what they are about.
		{
			"nothing of a resource", options("resource", `{}`),
			"checks[0] \"x\": options.apiVersion: want the objects' group and version, such as apps/v1 or v1, not \"\"\n" +
				"checks[0] \"x\": options.resource: want the plural in lower case, as kubectl api-resources has it, such as statefulsets, not \"\"\n" +
				"checks[0] \"x\": options.expression: say what must be true of each object, such as object.status.phase == \"Ready\"",
		},
		{
			"everything of a resource", options("resource", `{apiVersion: apps, resource: StatefulSet, namespace: A/b, selector: "a=(b", fieldSelector: a, minimum: -1, expression: "object.a"}`),
			"checks[0] \"x\": options.fieldSelector: not a field selector: invalid selector: 'a'; can't understand 'a'\n" +
				"checks[0] \"x\": options.selector: not a label selector: unable to parse requirement: found '(', expected: identifier\n" +
				"checks[0] \"x\": options.minimum: must be at least 0, not -1\n" +
				"checks[0] \"x\": options.apiVersion: want the objects' group and version, such as apps/v1 or v1, not \"apps\"\n" +
				"checks[0] \"x\": options.resource: want the plural in lower case, as kubectl api-resources has it, such as statefulsets, not \"StatefulSet\"\n" +
				"checks[0] \"x\": options.namespace: want the name of a namespace, not \"A/b\"\n" +
				"checks[0] \"x\": options.expression: line 1, column 7: the result must be true or false, and a field may be anything: compare it, as in object.spec.paused == false\n" +
				"    object.a\n" +
				"          ^",
		},
		{
			"a subresource, and a path", options("resource", `{apiVersion: "v1/../..", resource: pods/log, expression: object.a == 1}`),
			"checks[0] \"x\": options.apiVersion: want the objects' group and version, such as apps/v1 or v1, not \"v1/../..\"\n" +
				"checks[0] \"x\": options.resource: want the plural in lower case, as kubectl api-resources has it, such as statefulsets, not \"pods/log\"",
		},
		{
			"secrets", options("resource", `{apiVersion: v1, resource: secrets, expression: has(object.data)}`),
			`checks[0] "x": options.resource: secrets are not for a gate to read: what an expression reads is in messages, and so in logs`,
		},
		{
			"an expression of two lines with a mistake on each", header + `checks:
  - name: ceph
    type: resource
    options:
      apiVersion: ceph.rook.io/v1
      resource: cephclusters
      expression: |
        objct.status.ceph.health == "HEALTH_OK" &&
          now - timestamp(object.status.ceph.lastChecked) < 10
`,
			`checks[0] "ceph": options.expression: line 1, column 1: undeclared reference to 'objct'
    objct.status.ceph.health == "HEALTH_OK" &&
    ^
checks[0] "ceph": options.expression: line 2, column 51: found no matching overload for '_<_' applied to '(duration, int)'
      now - timestamp(object.status.ceph.lastChecked) < 10
                                                      ^`,
		},
		{
			"an expression that is cut off", options("resource", `{apiVersion: ceph.rook.io/v1, resource: cephclusters, expression: 'object.status.=="HEALTH_OK"'}`),
			"checks[0] \"x\": options.expression: line 1, column 15: Syntax error: no viable alternative at input '.=='\n" +
				"    object.status.==\"HEALTH_OK\"\n" +
				"                  ^",
		},
		{
			"options of a resource", options("resource", `{apiVersion: 1, resource: [pods], minimum: "1", expression: true, fieldSelector: 3}`),
			"checks[0] \"x\": options.apiVersion: must be a string, not 1\n" +
				"checks[0] \"x\": options.expression: must be a string, not true\n" +
				"checks[0] \"x\": options.fieldSelector: must be a string, not 3\n" +
				"checks[0] \"x\": options.minimum: must be a whole number, not \"1\"\n" +
				"checks[0] \"x\": options.resource: must be a string, not [\"pods\"]\n" +
				"checks[0] \"x\": options.apiVersion: want the objects' group and version, such as apps/v1 or v1, not \"\"\n" +
				"checks[0] \"x\": options.resource: want the plural in lower case, as kubectl api-resources has it, such as statefulsets, not \"\"\n" +
				"checks[0] \"x\": options.expression: say what must be true of each object, such as object.status.phase == \"Ready\"",
		},
		{
			"alertmanager", options("alerts", `{alertmanager: {url: "alertmanager:9093", httpconfig: {}}, requireFiring: ""}`),
			"checks[0] \"x\": options.alertmanager: unknown field \"httpconfig\": want one of httpConfig, url\n" +
				"checks[0] \"x\": options.alertmanager.url: want an http or https URL, not \"alertmanager:9093\"\n" +
				"checks[0] \"x\": options.requireFiring: an Alertmanager without alerts may be one that is sent none: name an alert that always fires",
		},
		{
			"options of promql", options("promql", `{prometheus: {url: "ftp://user:secret@p"}, query: " ", expect: 0, requireSeries: up, trustEmpty: maybe, querry: up}`),
			"checks[0] \"x\": options.expect: must be a string, not 0\n" +
				"checks[0] \"x\": options: unknown field \"querry\": want one of expect, prometheus, query, requireSeries, trustEmpty\n" +
				"checks[0] \"x\": options.trustEmpty: must be true or false, not \"maybe\"\n" +
				"checks[0] \"x\": options.query: say what to ask, in PromQL\n" +
				"checks[0] \"x\": options.prometheus.url: want an http or https URL, not \"...@p\"",
		},
		{
			"a query whose silence proves nothing", options("promql", `{prometheus: {url: "http://p"}, query: up == 0, expect: "= 0"}`),
			"checks[0] \"x\": options.expect: want empty, or a comparison with a number such as \"< 5\", not \"= 0\"\n" +
				"checks[0] \"x\": options.requireSeries: a query also returns nothing when its metric is missing or misspelt: say which series must be there for an empty answer to prove anything, or set trustEmpty",
		},
		{
			"options of http", options("http", `{url: "freeze?token=secret", status: 200, body: 5, method: POST}`),
			"checks[0] \"x\": options.body: must be a string, not 5\n" +
				"checks[0] \"x\": options: unknown field \"method\": want one of body, httpConfig, status, url\n" +
				"checks[0] \"x\": options.status: must be a list, not 200\n" +
				"checks[0] \"x\": options.url: want an http or https URL, not \"freeze\"",
		},
		{
			"an http that cannot fail, and one that cannot pass", header + "checks:\n  - {name: a, type: http, options: {url: 'http://h', body: '.*'}}\n  - {name: b, type: http, options: {url: 'http://h', status: [], body: '('}}\n  - {name: c, type: http, options: {url: 'https://h', status: [200, 99], httpConfig: {tls_config: {ca_file: /nowhere/ca.crt}}}}\n",
			"checks[0] \"a\": options.body: \".*\" matches whatever is answered, even nothing: say what must be there, or leave it out\n" +
				"checks[1] \"b\": options.body: not a regular expression: error parsing regexp: missing closing ): `(`\n" +
				"checks[1] \"b\": options.status: want at least one\n" +
				"checks[2] \"c\": options.httpConfig: unable to read CA cert: unable to read file /nowhere/ca.crt: open /nowhere/ca.crt: no such file or directory\n" +
				"checks[2] \"c\": options.status[1]: want one from 200 to 599, not 99",
		},
		{
			"an exposure that is none", options("readySoak", `{exposure: {growth: 11, max: 0, kind: [a]}, flaps: 101%}`),
			"checks[0] \"x\": options.exposure: unknown field \"kind\": want one of growth, kinds, max\n" +
				"checks[0] \"x\": options.flaps: \"101%\" is more than all\n" +
				"checks[0] \"x\": options.exposure.growth: want 1 to 10, not 11\n" +
				"checks[0] \"x\": options.exposure.max: want a count or a percentage above 0",
		},
		{
			"flaps without exposure", options("readySoak", `{flaps: 3}`), `checks[0] "x": options.flaps: needs exposure: without it every flap begins the soak anew`,
		},
		{
			"exposure without the turn", "turn: {enabled: false}\n" + options("readySoak", `{exposure: {}}`), `checks: readySoak has exposure, which needs the turn: turn.enabled is false`,
		},
		{
			"options of schedule", options("schedule", `{allow: [{times: [{start: "1:00", end_time: "05:00"}]}, {}], deny: [{months: [13], weekdays: [funday], location: Local}, {days_of_month: []}]}`),
			"checks[0] \"x\": options.allow[0].times[0]: unknown field \"start\": want one of end_time, start_time\n" +
				"checks[0] \"x\": options.deny[0].weekdays[0]: funday is not a valid weekday\n" +
				"checks[0] \"x\": options.allow[1]: is all of time: give times, weekdays, days_of_month, months or years\n" +
				"checks[0] \"x\": options.deny[0].months[0]: want months from 1 to 12, or by name\n" +
				"checks[0] \"x\": options.deny[0].location: Local may differ from node to node: name one, such as Europe/Berlin\n" +
				"checks[0] \"x\": options.deny[1].days_of_month: an empty list contains no time at all: leave it out",
		},
		{
			"a schedule of nothing", options("schedule", `{}`), `checks[0] "x": options: want an interval in allow, in deny, or in both`,
		},

		// Sentinels.
		{"an unknown mode", header + "sentinel: {mode: Tether}\n" + nodes, `sentinel.mode: want tether or file, not "Tether"`},
		{"no raw sentinel", header + "sentinel: {raw: []}\n" + nodes, `sentinel.raw: want at least one path`},
		{
			"paths that are not absolute", header + "sentinel: {raw: [run/a, \"\", /run/b], gated: gated}\n" + nodes,
			"sentinel.gated: want an absolute path, not \"gated\"\nsentinel.raw[0]: want an absolute path, not \"run/a\"\nsentinel.raw[1]: want an absolute path, not \"\"",
		},
		{"no gated path", header + "sentinel: {gated: /}\n" + nodes, `sentinel.gated: want an absolute path, not "/"`},
		{
			"gated beside one of the raw", header + "sentinel: {raw: [/elsewhere/a, /nowhere/b/../reboot-required], gated: /nowhere//gated}\n" + nodes,
			`sentinel.gated: needs a directory of its own, that only the gate may write in; /nowhere also holds the raw sentinel /nowhere/b/../reboot-required`,
		},
		{
			// At its start the gate would move that directory out of the way.
			"gated above the raw one", header + "sentinel: {raw: /nowhere/host/reboot-required, gated: /nowhere/host/}\n" + nodes,
			`sentinel.gated: needs a path of its own; /nowhere/host is a directory that holds the raw sentinel /nowhere/host/reboot-required`,
		},

		// All at once.
		{
			"mistakes everywhere", "apiVersion: v1\nintervall: 1m\nsentinel: {mode: tethr, rwa: /x}\ntimeout: 5\nchecks:\n  - {name: A, type: nodesReady}\n  - {name: cni, type: podsReady, tiemout: 5s, options: {presett: auto}}\n  - {name: cni, type: cni}\n",
			`unknown field "intervall": want one of ` + top + `
sentinel: unknown field "rwa": want one of dpkgStatus, gated, mode, raw
timeout: must be a string, not 5
sentinel.mode: want tether or file, not "tethr"
apiVersion: want sentinel-gate.io/v1alpha1, not "v1"
kind: want GateConfiguration, not ""
checks[0] "A": ` + name + `"A"
checks[1] "cni": unknown field "tiemout": want one of name, nodeSelector, options, softUntil, timeout, type
checks[1] "cni": options: unknown field "presett": want one of ` + podOpts + `
checks[1] "cni": options: say which pods: a preset, or namespaces and a selector
checks[2] "cni": name: another step has it
checks[2] "cni": type: unknown type "cni": want one of ` + types,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := write(t, filepath.Join(t.TempDir(), "config.yaml"), c.text)
			_, err := loaded(path)
			if err == nil {
				t.Fatalf("it was taken; want\n%s", c.want)
			}
			if want := path + ":\n" + c.want; err.Error() != want {
				t.Errorf("got\n%v\nwant\n%s", err, want)
			}
		})
	}
}

// The gated sentinel's directory is found to be the raw one's through links
// too: /var/run is /run.
func TestF21GatedBesideRawThroughALink(t *testing.T) {
	dir := t.TempDir()
	run := filepath.Join(dir, "run")
	if err := os.MkdirAll(filepath.Join(run, "sentinel-gate"), 0o755); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(run, link); err != nil {
		t.Fatal(err)
	}
	load := func(raw, gated string) string {
		t.Helper()
		path := write(t, filepath.Join(dir, "config.yaml"), header+"sentinel: {raw: "+raw+", gated: "+gated+"}\n"+nodes)
		if _, err := loaded(path); err != nil {
			return strings.TrimPrefix(err.Error(), path+":\n")
		}
		return ""
	}
	want := "sentinel.gated: needs a directory of its own, that only the gate may write in; " + link + " also holds the raw sentinel " + run + "/reboot-required"
	if got := load(run+"/reboot-required", link+"/gated"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := load(run+"/reboot-required", link+"/sentinel-gate/gated"); got != "" {
		t.Errorf("a directory of its own is refused: %s", got)
	}
}

// F22: without a question there is no answer, and so no passing one.
func TestF22NoChecksIsRefused(t *testing.T) {
	const none = "checks: want at least one: a gate without checks would let every reboot through"
	const neither = "apiVersion: want sentinel-gate.io/v1alpha1, not \"\"\nkind: want GateConfiguration, not \"\"\n"
	for _, c := range []struct{ name, text, want string }{
		{"an empty list", header + "checks: []\n", none},
		{"no list", header, none},
		{"a list without a value", header + "checks:\n", "checks: has no value: give one, or leave the field out\n" + none},
		{"an empty mapping", header + "checks: {}\n", "checks: must be a list, not {}\n" + none},
		{"an empty file", "", neither + none},
		{"only a comment", "# nothing\n", neither + none},
		{"null", "null\n", neither + none},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := write(t, filepath.Join(t.TempDir(), "config.yaml"), c.text)
			if _, err := loaded(path); err == nil || err.Error() != path+":\n"+c.want {
				t.Errorf("got\n%v\nwant\n%s", err, c.want)
			}
		})
	}
}

func TestDefaults(t *testing.T) {
	c, err := loaded(write(t, filepath.Join(t.TempDir(), "config.yaml"), header+nodes))
	if err != nil {
		t.Fatal(err)
	}
	want := defaults()
	if c.Interval != model.Duration(30*time.Second) || c.MaxAge != 2*c.Interval || c.Stabilize != model.Duration(time.Minute) {
		t.Errorf("interval %s, maxAge %s, stabilize %s", c.Interval, c.MaxAge, c.Stabilize)
	}
	if strings.Join(c.Sentinel.Raw, " ") != "/var/run/reboot-required" || c.Sentinel.Gated != want.Sentinel.Gated || c.Sentinel.Mode != gate.ModeTether {
		t.Errorf("sentinel %+v", c.Sentinel)
	}
	if len(c.steps) != 1 || c.steps[0].Name != "nodes" || c.steps[0].Type != "nodesReady" || c.steps[0].Timeout != 10*time.Second || c.steps[0].Check == nil {
		t.Errorf("steps %+v", c.steps)
	}
	if !c.sentinelSound || !regexp.MustCompile(`^[0-9a-f]{12}$`).MatchString(c.hash) {
		t.Errorf("sound %t, hash %q", c.sentinelSound, c.hash)
	}

	c, err = loaded(write(t, filepath.Join(t.TempDir(), "config.yaml"), header+`
sentinel: {raw: /run/one, gated: /run//own/./gated, mode: file}
interval: 1m
maxAge: 0s
stabilize: 0s
timeout: 7s
checks: [{name: a, type: nodesReady}, {name: "on", type: readySoak, timeout: 20s}]
`))
	if err != nil {
		t.Fatal(err)
	}
	if c.MaxAge != model.Duration(2*time.Minute) || c.Stabilize != 0 || c.steps[0].Timeout != 7*time.Second || c.steps[1].Timeout != 20*time.Second {
		t.Errorf("maxAge %s, stabilize %s, timeouts %s and %s", c.MaxAge, c.Stabilize, c.steps[0].Timeout, c.steps[1].Timeout)
	}
	if strings.Join(c.Sentinel.Raw, " ") != "/run/one" || c.Sentinel.Gated != "/run/own/gated" || c.Sentinel.Mode != gate.ModeFile {
		t.Errorf("sentinel %+v", c.Sentinel)
	}
	if c, err := loaded(write(t, filepath.Join(t.TempDir(), "config.yaml"), "---\n"+header+"interval: 1m\nmaxAge: 10m\n"+nodes)); err != nil || c.MaxAge != model.Duration(10*time.Minute) {
		t.Errorf("maxAge %s, %v", c.MaxAge, err)
	}
}

// Where the mistake is in the sentinels' paths, what stands there may be
// anybody's, and the daemon must not remove it.
func TestMistakesInThePathsAreKnown(t *testing.T) {
	for text, sound := range map[string]bool{
		header + "interval: x\nchecks: [{name: a, type: b}]\n":      true,
		header + "sentinel: {gated: gated}\n" + nodes:               false,
		header + "sentinel: {raw: /run/a, gated: /run/b}\n" + nodes: false,
		header + "sentinel: {gatd: /run/sg/gated}\n" + nodes:        false,
		header + "sentinel: [/run/sg/gated]\n" + nodes:              false,
		// Which of the two is meant nobody can say.
		header + "sentinel: {gated: /run/sg/a, gated: /run/sg/b}\n" + nodes:             false,
		header + "sentinel: {gated: /run/sg/a}\nsentinel: {gated: /run/sg/b}\n" + nodes: false,
	} {
		c, err := loaded(write(t, filepath.Join(t.TempDir(), "config.yaml"), text))
		if err == nil || c == nil {
			t.Fatalf("%s was taken", text)
		}
		if c.sentinelSound != sound {
			t.Errorf("sound %t, want %t:\n%s%v", c.sentinelSound, sound, text, err)
		}
	}
}

// Every configuration that is shown to people is one.
func TestDocumentedConfigurationsLoad(t *testing.T) {
	dir := root(t)
	files := []string{filepath.Join(dir, "README.md")}
	if err := filepath.WalkDir(filepath.Join(dir, "docs"), func(path string, _ fs.DirEntry, err error) error {
		if strings.HasSuffix(path, ".md") {
			files = append(files, path)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile("(?ms)^ *```yaml\n(.*?)^ *```")
	otherKind := regexp.MustCompile(`(?m)^kind: (\w+)$`)
	found := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if os.IsNotExist(err) {
			continue // a README is not everywhere
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range block.FindAllStringSubmatch(string(text), -1) {
			if k := otherKind.FindStringSubmatch(b[1]); k != nil && k[1] != kind {
				continue // a manifest of Kubernetes
			}
			found++
			if _, err := loaded(write(t, filepath.Join(t.TempDir(), filepath.Base(file)+".yaml"), b[1])); err != nil {
				t.Errorf("%s: %v\n%s", file, err, b[1])
			}
		}
	}
	if found < 5 {
		t.Errorf("only %d examples were found: does this test still read them rightly?", found)
	}
	if _, err := loaded(filepath.Join(dir, "deploy/config.yaml")); err != nil {
		t.Error(err)
	}
}

// The example that shows every top-level field says that its values are the
// defaults.
func TestDocumentedDefaults(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root(t), "docs/configuration.md"))
	if err != nil {
		t.Fatal(err)
	}
	example := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindStringSubmatch(string(text))
	if example == nil {
		t.Fatal("docs/configuration.md has no example")
	}
	shown, err := loaded(write(t, filepath.Join(t.TempDir(), "config.yaml"), example[1]))
	if err != nil {
		t.Fatal(err)
	}
	bare, err := loaded(write(t, filepath.Join(t.TempDir(), "config.yaml"), header+nodes))
	if err != nil {
		t.Fatal(err)
	}
	if shown.Interval != bare.Interval || shown.MaxAge != bare.MaxAge || shown.Stabilize != bare.Stabilize || shown.Timeout != bare.Timeout ||
		strings.Join(shown.Sentinel.Raw, " ") != strings.Join(bare.Sentinel.Raw, " ") || shown.Sentinel.Gated != bare.Sentinel.Gated || shown.Sentinel.Mode != bare.Sentinel.Mode {
		t.Errorf("the example has\n%+v\nand the defaults are\n%+v", shown, bare)
	}
	for _, field := range []string{"apiVersion", "kind", "sentinel", "interval", "maxAge", "stabilize", "timeout", "checks"} {
		if !regexp.MustCompile("(?m)^" + field + ":").MatchString(example[1]) {
			t.Errorf("the example does not show %s", field)
		}
	}
}

// loaded is the configuration of a file.
func loaded(path string) (*configuration, error) { return flags{config: path}.load(nil) }
