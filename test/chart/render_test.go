package chart

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/sentinel-gate/sentinel-gate/test/kit/daemon"
	"github.com/sentinel-gate/sentinel-gate/test/kit/suite"
)

// everything turns every optional object on.
const everything = `
namespace: {create: true}
podMonitor: {enabled: true, labels: {release: prometheus}}
prometheusRule: {enabled: true, labels: {release: prometheus}}
dashboard: {enabled: true}
`

// configurationFile is the part of the configuration that the chart computes.
type configurationFile struct {
	Sentinel struct {
		Raw   []string `json:"raw"`
		Gated string   `json:"gated"`
		Mode  string   `json:"mode"`
	} `json:"sentinel"`
}

func configuration(t *testing.T, objects rendered) configurationFile {
	t.Helper()
	var c configurationFile
	if err := yaml.Unmarshal([]byte(configurationText(t, objects)), &c); err != nil {
		t.Fatal(err)
	}
	return c
}

func configurationText(t *testing.T, objects rendered) string {
	t.Helper()
	return find[corev1.ConfigMap](t, objects, "ConfigMap", release).Data["config.yaml"]
}

// The chart with its own values is deploy/, but for what Helm adds.
func TestEqualToTheManifests(t *testing.T) {
	out, err := cp(t).Kubectl(testContext(t), os.DevNull, "kustomize", filepath.Join(root(t), "deploy")).Output()
	if err != nil {
		t.Fatal(err)
	}
	plain, charted := normal(t, parse(t, string(out))), normal(t, render(t, release, "namespace: {create: true}"))
	if p, c := slices.Sorted(maps.Keys(plain)), slices.Sorted(maps.Keys(charted)); !slices.Equal(p, c) {
		t.Fatalf("deploy/ has\n%v\nand the chart\n%v", p, c)
	}
	for name := range plain {
		if !reflect.DeepEqual(plain[name], charted[name]) {
			p, _ := yaml.Marshal(plain[name])
			c, _ := yaml.Marshal(charted[name])
			t.Errorf("%s is in deploy/\n%s\nand in the chart\n%s", name, p, c)
		}
	}
}

// normal takes away what must differ: labels of Helm, names of images, and how a
// change of the configuration rolls the pods.
func normal(t *testing.T, objects rendered) map[string]any {
	t.Helper()
	hashed := regexp.MustCompile(`^(sentinel-gate)-[0-9a-z]{10}$`)
	byName := map[string]any{}
	for _, o := range objects {
		o.SetLabels(common(o.GetLabels()))
		if o.GetKind() == "Lease" { // kubectl never deletes what an apply leaves out
			o.SetAnnotations(nil)
		}
		o.SetName(hashed.ReplaceAllString(o.GetName(), "$1"))
		switch o.GetKind() {
		case "ConfigMap":
			text, _, _ := unstructured.NestedString(o.Object, "data", "config.yaml")
			var parsed map[string]any
			if err := yaml.Unmarshal([]byte(text), &parsed); err != nil {
				t.Fatal(err)
			}
			sentinel := parsed["sentinel"].(map[string]any)
			if raw, ok := sentinel["raw"].(string); ok {
				sentinel["raw"], sentinel["mode"] = []any{raw}, "tether"
			}
			o.Object["data"] = parsed
		case "ClusterRole":
			o.Object["rules"] = verbs(t, o.Object["rules"])
		case "DaemonSet":
			template := o.Object["spec"].(map[string]any)["template"].(map[string]any)
			metadata, spec := template["metadata"].(map[string]any), template["spec"].(map[string]any)
			annotations := metadata["annotations"].(map[string]any)
			delete(annotations, "sentinel-gate.io/config-checksum")
			for _, set := range []map[string]any{metadata["labels"].(map[string]any), o.Object["spec"].(map[string]any)["selector"].(map[string]any)["matchLabels"].(map[string]any)} {
				maps.DeleteFunc(set, func(key string, _ any) bool { return key != "app.kubernetes.io/name" })
			}
			gate := spec["containers"].([]any)[0].(map[string]any)
			gate["image"], _, _ = strings.Cut(gate["image"].(string), ":")
			for _, v := range spec["volumes"].([]any) {
				if configMap, ok := v.(map[string]any)["configMap"].(map[string]any); ok {
					configMap["name"] = hashed.ReplaceAllString(configMap["name"].(string), "$1")
				}
			}
		}
		byName[o.GetKind()+"/"+o.GetName()] = o.Object
	}
	return byName
}

// verbs are what rules allow, however they are grouped: each as
// "verb group/resource".
func verbs(t *testing.T, rules any) []string {
	t.Helper()
	text, err := yaml.Marshal(rules)
	if err != nil {
		t.Fatal(err)
	}
	var parsed []rbacv1.PolicyRule
	if err := yaml.UnmarshalStrict(text, &parsed); err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, rule := range parsed {
		for _, group := range rule.APIGroups {
			for _, resource := range rule.Resources {
				for _, verb := range rule.Verbs {
					all = append(all, fmt.Sprintf("%s %s/%s", verb, group, resource))
				}
			}
		}
	}
	slices.Sort(all)
	return all
}

// The chart grants what the daemon says that its steps need, no more and no less.
func TestRulesFollowTheSteps(t *testing.T) {
	binary := gateBinary(t)
	const (
		quorum   = "{name: quorum, type: controlPlaneQuorum}"
		podless  = "{name: podless, type: controlPlaneQuorum, options: {pods: ''}}"
		sets     = "{name: sets, type: resource, options: {apiVersion: apps/v1, resource: statefulsets, expression: object.a == 1}}"
		ceph     = "{name: ceph, type: resource, options: {apiVersion: ceph.rook.io/v1, resource: cephclusters, expression: object.a == 1}}"
		maps     = "{name: maps, type: resource, options: {apiVersion: v1, resource: configmaps, expression: object.a == 1}}"
		freeze   = "{name: freeze, type: http, options: {url: 'http://h'}}"
		selected = "{name: selected, type: http, nodeSelector: a=b, options: {url: 'http://h'}}"
		drain    = "{name: drain, type: disruptionBudgets}, {name: room, type: headroom}, {name: cordons, type: cordons}"
	)
	for _, steps := range []string{
		"{name: a, type: nodesReady}", "{name: a, type: podsReady, options: {preset: auto}}", "{name: a, type: readySoak}",
		quorum, podless, sets, ceph, maps, freeze, selected, drain, strings.Join([]string{quorum, podless, sets, ceph, maps, freeze, selected, drain}, ", "),
	} {
		objects := render(t, release, "config: {checks: ["+steps+"]}")
		file := filepath.Join(t.TempDir(), "config.yaml")
		if err := os.WriteFile(file, []byte(configurationText(t, objects)), 0o644); err != nil {
			t.Fatal(err)
		}
		out, err := exec.CommandContext(testContext(t), binary, "--print-rbac", "--config", file).CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		granted, needed := verbs(t, find[rbacv1.ClusterRole](t, objects, "ClusterRole", release).Rules), verbs(t, parse(t, string(out))[0].Object["rules"])
		if !slices.Equal(granted, needed) {
			t.Errorf("%s\nthe chart grants %v\nand it needs     %v", steps, granted, needed)
		}
	}
}

func gateBinary(t *testing.T) string {
	t.Helper()
	suite.NeedsServers(t)
	binary, err := daemon.Binary(testContext(t), t.TempDir(), true)
	if err != nil {
		t.Fatal(err)
	}
	return binary
}

// common leaves labels that have a meaning beside Helm's bookkeeping: those of
// Pod Security.
func common(labels map[string]string) map[string]string {
	maps.DeleteFunc(labels, func(key, _ string) bool { return !strings.HasPrefix(key, "pod-security.kubernetes.io/") })
	if len(labels) == 0 {
		return nil
	}
	return labels
}

// The configuration that is rendered is one that the daemon takes.
func TestConfigurationIsValid(t *testing.T) {
	binary := gateBinary(t)
	for name, text := range map[string]string{
		"daemonset": "", "sidecar": "mode: sidecar",
		"settings": "{config: {interval: 20s, maxAge: 1m, stabilize: 0s, timeout: 5s}, sentinel: {raw: [/run/a/x, /run/a/y, /run/b/z], mode: file}}",
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "config.yaml")
			if err := os.WriteFile(file, []byte(configurationText(t, render(t, release, text))), 0o644); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.CommandContext(testContext(t), binary, "--check-config", "--config", file).CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

func TestLint(t *testing.T) {
	for _, text := range []string{"", everything, "mode: sidecar", "networkPolicy: {enabled: true}"} {
		if out, err := offline(t).Run(testContext(t), append([]string{"lint", "--strict", chart(t)}, values(t, text)...)...); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	}
}

// A change of the configuration rolls the pods, in either mode.
func TestConfigurationRollsThePods(t *testing.T) {
	checksum := func(text string) string {
		objects := render(t, release, text)
		if slices.Contains(objects.kinds(), "DaemonSet/"+release) {
			return find[appsv1.DaemonSet](t, objects, "DaemonSet", release).Spec.Template.Annotations["sentinel-gate.io/config-checksum"]
		}
		return parseKured(t, find[corev1.ConfigMap](t, objects, "ConfigMap", release+"-kured-values").Data["values.yaml"]).PodAnnotations["sentinel-gate.io/config-checksum"]
	}
	for _, mode := range []string{"daemonset", "sidecar"} {
		before, same, after := checksum("mode: "+mode), checksum("{mode: "+mode+", logLevel: debug}"), checksum("{mode: "+mode+", config: {interval: 20s}}")
		if before == "" || before != same || before == after {
			t.Errorf("%s: before %q, with the same configuration %q, with another %q", mode, before, same, after)
		}
	}
}

// The sidecar can write in memory and nowhere else, and kured cannot take its
// file away.
func TestSidecarWritesNothingOnTheHost(t *testing.T) {
	spec := podSpec(t, render(t, "kube-system", "mode: sidecar"))
	if len(spec.InitContainers) != 1 || spec.InitContainers[0].RestartPolicy == nil || *spec.InitContainers[0].RestartPolicy != corev1.ContainerRestartPolicyAlways {
		t.Fatalf("not a native sidecar: %+v", spec.InitContainers)
	}
	volume := func(name string) corev1.Volume {
		return spec.Volumes[slices.IndexFunc(spec.Volumes, func(v corev1.Volume) bool { return v.Name == name })]
	}
	for _, c := range slices.Concat(spec.InitContainers, spec.Containers) {
		for _, m := range c.VolumeMounts {
			v := volume(m.Name)
			if m.ReadOnly || c.Name == "sentinel-gate" && v.EmptyDir != nil && v.EmptyDir.Medium == corev1.StorageMediumMemory {
				continue
			}
			t.Errorf("%s can write at %s", c.Name, m.MountPath)
		}
	}
	s := gateContainer(t, spec).SecurityContext
	if s.RunAsUser == nil || *s.RunAsUser != 9817 || s.RunAsNonRoot == nil || !*s.RunAsNonRoot || *s.AllowPrivilegeEscalation || !*s.ReadOnlyRootFilesystem ||
		!slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) || len(s.Capabilities.Add) > 0 || s.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
		t.Errorf("its security context: %+v", s)
	}
}

// What each value does.
func TestValues(t *testing.T) {
	spec := func(text string) corev1.PodSpec { return podSpec(t, render(t, release, text)) }
	gate := func(text string) corev1.Container { return gateContainer(t, spec(text)) }
	for name, ok := range map[string]bool{
		"image by tag":          gate("image: {repository: r/g, tag: v1}").Image == "r/g:v1",
		"image by digest":       gate("image: {repository: r/g, tag: v1, digest: sha256:"+strings.Repeat("a", 64)+"}").Image == "r/g@sha256:"+strings.Repeat("a", 64),
		"pull secrets":          spec("imagePullSecrets: [{name: s}]").ImagePullSecrets[0].Name == "s",
		"own directory off":     len(spec("ownDirectory: {enabled: false}").InitContainers) == 0,
		"host network":          spec("hostNetwork: true").HostNetwork && spec("hostNetwork: true").DNSPolicy == corev1.DNSClusterFirstWithHostNet,
		"no host network":       !spec("").HostNetwork && spec("").DNSPolicy == "",
		"SELinux":               spec("seLinuxOptions: {type: spc_t}").SecurityContext.SELinuxOptions.Type == "spc_t",
		"SELinux, sidecar":      gate("{mode: sidecar, seLinuxOptions: {type: spc_t}}").SecurityContext.SELinuxOptions.Type == "spc_t",
		"port":                  gate("port: 1234").Ports[0].ContainerPort == 1234 && slices.Contains(gate("port: 1234").Args, "--listen-address=:1234"),
		"log":                   slices.Contains(gate("logLevel: debug").Args, "--log-level=debug") && slices.Contains(gate("logFormat: text").Args, "--log-format=text"),
		"arguments come last":   gate("extraArgs: [--host-proc=/p]").Args[3] == "--host-proc=/p",
		"volumes":               spec("extraVolumes: [{name: ca, secret: {secretName: ca}}]").Volumes[3].Name == "ca",
		"mounts":                gate("extraVolumeMounts: [{name: ca, mountPath: /ca}]").VolumeMounts[3].MountPath == "/ca",
		"tolerations":           spec("tolerations: [{key: a, operator: Exists}]").Tolerations[0].Key == "a",
		"priority":              spec("priorityClassName: other").PriorityClassName == "other",
		"resources":             gate("resources: {limits: {memory: 200Mi}}").Resources.Limits["memory"].Equal(resource.MustParse("200Mi")),
		"several raw sentinels": slices.Equal(configuration(t, render(t, release, "sentinel: {raw: [/run/a/x, /run/a/y, /run/b/z]}")).Sentinel.Raw, []string{"/host/run/a/x", "/host/run/a/y", "/host/run/b/z"}),
		"their directories":     source(t, spec("sentinel: {raw: [/run/a/x, /run/a/y, /run/b/z]}"), gate("sentinel: {raw: [/run/a/x, /run/a/y, /run/b/z]}"), "/host/run/b/z") == "host:/run/b/z",
	} {
		if !ok {
			t.Errorf("%s: not so", name)
		}
	}
	ds := find[appsv1.DaemonSet](t, render(t, release, "{podLabels: {a: b}, podAnnotations: {c: d}, maxUnavailable: 3}"), "DaemonSet", release)
	if ds.Spec.Template.Labels["a"] != "b" || ds.Spec.Template.Annotations["c"] != "d" || ds.Spec.UpdateStrategy.RollingUpdate.MaxUnavailable.IntValue() != 3 {
		t.Errorf("%+v", ds.Spec)
	}
	find[appsv1.DaemonSet](t, render(t, release, "fullnameOverride: other"), "DaemonSet", "other")
}

// The optional objects are those of deploy/, and what the alerts rely on.
func TestMonitoring(t *testing.T) {
	objects := render(t, release, everything)
	rules, err := os.ReadFile(filepath.Join(root(t), "deploy/alerts/rules.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var plain map[string]any
	if err := yaml.Unmarshal(rules, &plain); err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		switch o.GetKind() {
		case "PrometheusRule":
			if !reflect.DeepEqual(o.Object["spec"], plain) {
				t.Error("the PrometheusRule is not deploy/alerts/rules.yaml")
			}
		case "PodMonitor":
			endpoints, _, _ := unstructured.NestedSlice(o.Object, "spec", "podMetricsEndpoints")
			relabelings := endpoints[0].(map[string]any)["relabelings"].([]any)
			if !reflect.DeepEqual(relabelings[0], map[string]any{"sourceLabels": []any{"__meta_kubernetes_pod_node_name"}, "targetLabel": "node"}) {
				t.Errorf("the alerts rely on a label node: %v", relabelings)
			}
		}
	}
	if want := []string{
		"ClusterRole/sentinel-gate", "ClusterRoleBinding/sentinel-gate", "ConfigMap/sentinel-gate", "ConfigMap/sentinel-gate-dashboard", "DaemonSet/sentinel-gate", "Lease/sentinel-gate-turn",
		"Namespace/sentinel-gate", "PodMonitor/sentinel-gate", "PrometheusRule/sentinel-gate", "Role/sentinel-gate", "RoleBinding/sentinel-gate", "ServiceAccount/sentinel-gate",
		"ValidatingAdmissionPolicy/sentinel-gate", "ValidatingAdmissionPolicyBinding/sentinel-gate",
	}; !slices.Equal(objects.kinds(), want) {
		t.Errorf("got %v\nwant %v", objects.kinds(), want)
	}
	policy := find[networkingv1.NetworkPolicy](t, render(t, release, "networkPolicy: {enabled: true, from: [{namespaceSelector: {}}]}"), "NetworkPolicy", release)
	if len(policy.Spec.Egress) != 0 || !slices.Equal(policy.Spec.PolicyTypes, []networkingv1.PolicyType{"Ingress"}) || len(policy.Spec.Ingress[0].From) != 1 || policy.Spec.Ingress[0].Ports[0].Port.IntValue() != 9817 {
		t.Errorf("%+v", policy.Spec)
	}
}

// With exposure the gate is shown dpkg's database, kured lets go of its lock at once, and no
// alert fires for a day after each boot (F96).
func TestExposureInTheChart(t *testing.T) {
	const values = `{prometheusRule: {enabled: true}, config: {checks: [{name: soak, type: readySoak, options: {exposure: {}}}]}}`
	for _, mode := range []string{"daemonset", "sidecar"} {
		objects := render(t, release, strings.Replace(values, "{prom", "{mode: "+mode+", prom", 1))
		config := find[corev1.ConfigMap](t, objects, "ConfigMap", release).Data["config.yaml"]
		if !strings.Contains(config, "dpkgStatus: /host/var/lib/dpkg/status") {
			t.Errorf("%s: %s", mode, config)
		}
		if mode == "daemonset" {
			pod := find[appsv1.DaemonSet](t, objects, "DaemonSet", release).Spec.Template.Spec
			mounted := slices.ContainsFunc(pod.Containers[0].VolumeMounts, func(m corev1.VolumeMount) bool {
				return m.Name == "dpkg" && m.MountPath == "/host/var/lib/dpkg" && m.ReadOnly
			})
			if !mounted || !slices.ContainsFunc(pod.Volumes, func(v corev1.Volume) bool { return v.Name == "dpkg" && v.HostPath.Path == "/var/lib/dpkg" }) {
				t.Errorf("dpkg's database is not mounted: %+v", pod.Containers[0].VolumeMounts)
			}
		}
		for _, o := range objects {
			if text := fmt.Sprint(o.Object); o.GetKind() == "PrometheusRule" && (strings.Contains(text, "RecentNodeReboot") || !strings.Contains(text, "StatefulSetDown")) {
				t.Errorf("%s: the rules are %s", mode, text)
			}
		}
		if printed := notes(t, strings.Replace(values, "{prom", "{mode: "+mode+", prom", 1)); !strings.Contains(printed, "lockReleaseDelay: 0\n") {
			t.Errorf("%s: kured's values are\n%s", mode, printed)
		}
	}
	if strings.Contains(find[corev1.ConfigMap](t, render(t, release, ""), "ConfigMap", release).Data["config.yaml"], "dpkg") {
		t.Error("without exposure dpkg's database is of no interest")
	}
}

// Every metric that the dashboard asks for exists.
func TestDashboard(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(chart(t), "files/dashboard.json"))
	if err != nil {
		t.Fatal(err)
	}
	metrics, err := os.ReadFile(filepath.Join(root(t), "docs/metrics.md"))
	if err != nil {
		t.Fatal(err)
	}
	asked := regexp.MustCompile(`sentinel_gate_[a-z_]+`).FindAllString(string(text), -1)
	for _, name := range asked {
		if !strings.Contains(string(metrics), "`"+strings.TrimSuffix(name, "_bucket")+"`") {
			t.Errorf("the dashboard asks for %s, which docs/metrics.md does not have", name)
		}
	}
	if len(asked) < 10 {
		t.Errorf("only %v were found: does this test still read the dashboard rightly?", asked)
	}
	if data := find[corev1.ConfigMap](t, render(t, release, everything), "ConfigMap", release+"-dashboard").Data["sentinel-gate.json"]; strings.TrimSpace(data) != strings.TrimSpace(string(text)) {
		t.Error("the ConfigMap is not the file")
	}
}
