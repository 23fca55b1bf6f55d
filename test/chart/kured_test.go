package chart

import (
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// kuredValues are what the gate sets of the values of kured's own chart, 6.1.0. A
// field that is not here does not exist there.
type kuredValues struct {
	Configuration struct {
		RebootSentinel            string `json:"rebootSentinel"`
		UseRebootSentinelHostPath bool   `json:"useRebootSentinelHostPath"`
		RebootSentinelCommand     string `json:"rebootSentinelCommand"`
		Period                    string `json:"period"`
		Concurrency               int    `json:"concurrency"`
		DrainTimeout              string `json:"drainTimeout"`
		ForceReboot               bool   `json:"forceReboot"`
		LockTTL                   int    `json:"lockTtl"`
		LockReleaseDelay          string `json:"lockReleaseDelay"`
	} `json:"configuration"`
	VolumeMounts   []corev1.VolumeMount `json:"volumeMounts"`
	Volumes        []corev1.Volume      `json:"volumes"`
	InitContainers []corev1.Container   `json:"initContainers"`
	PodAnnotations map[string]string    `json:"podAnnotations"`
}

func parseKured(t *testing.T, text string) kuredValues {
	t.Helper()
	var v kuredValues
	if err := yaml.UnmarshalStrict([]byte(text), &v); err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	return v
}

// kuredsPod is the pod that kured's chart makes of the values: with
// useRebootSentinelHostPath it mounts the directory of the sentinel from the host at
// /sentinel and passes the file's name below that; without, it passes the path as
// it is. Volumes, mounts and initContainers are taken over.
func kuredsPod(t *testing.T, text string) corev1.PodSpec {
	t.Helper()
	v := parseKured(t, text)
	kured := corev1.Container{Name: "kured", Image: "kured", Command: []string{"/usr/bin/kured"}, VolumeMounts: v.VolumeMounts}
	spec := corev1.PodSpec{HostPID: true, ServiceAccountName: "kured", InitContainers: v.InitContainers, Volumes: v.Volumes}
	sentinel := v.Configuration.RebootSentinel
	if v.Configuration.UseRebootSentinelHostPath {
		kured.VolumeMounts = append(kured.VolumeMounts, corev1.VolumeMount{Name: "sentinel", MountPath: "/sentinel", ReadOnly: true})
		directory := corev1.HostPathDirectory
		spec.Volumes = append(spec.Volumes, corev1.Volume{Name: "sentinel", VolumeSource: corev1.VolumeSource{
			HostPath: &corev1.HostPathVolumeSource{Path: path.Dir(sentinel), Type: &directory},
		}})
		sentinel = "/sentinel/" + path.Base(sentinel)
	}
	kured.Args = []string{"--reboot-sentinel=" + sentinel}
	spec.Containers = []corev1.Container{kured}
	return spec
}

// source is the volume behind a path in a container, with the path below it.
func source(t *testing.T, spec corev1.PodSpec, c corev1.Container, file string) string {
	t.Helper()
	for _, m := range c.VolumeMounts {
		below, ok := strings.CutPrefix(file, m.MountPath+"/")
		if !ok {
			continue
		}
		for _, v := range spec.Volumes {
			switch {
			case v.Name == m.Name && v.HostPath != nil:
				return "host:" + path.Join(v.HostPath.Path, below)
			case v.Name == m.Name:
				return "volume " + path.Join(v.Name, below)
			}
		}
	}
	t.Fatalf("%s in container %s is in no volume", file, c.Name)
	return ""
}

// F06: in each mode, with whatever paths, kured looks at the file that the gate
// makes. The values are those that NOTES.txt prints.
func TestF06KuredLooksWhereTheGateWrites(t *testing.T) {
	for name, text := range map[string]string{
		"daemonset":             "",
		"daemonset, other path": "sentinel: {gated: /run/elsewhere/gated}",
		"sidecar":               "mode: sidecar",
		"sidecar, other path":   "{mode: sidecar, sentinel: {gated: /run/elsewhere/gated}}",
	} {
		t.Run(name, func(t *testing.T) {
			objects := render(t, "somewhere", text)
			notes := notes(t, text)
			kureds := kuredsPod(t, notes)
			gates := podSpec(t, objects)
			looked := source(t, kureds, kureds.Containers[0], strings.TrimPrefix(kureds.Containers[0].Args[0], "--reboot-sentinel="))
			c := configuration(t, objects)
			if made := source(t, gates, gateContainer(t, gates), c.Sentinel.Gated); made != looked {
				t.Errorf("the gate makes %s, and kured looks at %s", made, looked)
			}
			if raw := source(t, gates, gateContainer(t, gates), c.Sentinel.Raw[0]); raw != "host:/var/run/reboot-required" {
				t.Errorf("the gate watches %s", raw)
			}
		})
	}
}

// notes are the values that NOTES.txt prints.
func notes(t *testing.T, text string) string {
	t.Helper()
	out, err := offline(t).Run(testContext(t), append([]string{"install", release, chart(t), "--namespace", "somewhere", "--dry-run=client"}, values(t, text)...)...)
	if err != nil {
		t.Fatal(err)
	}
	_, after, began := strings.Cut(out, "# --- values for kured\n")
	printed, _, ended := strings.Cut(after, "# --- end")
	if !began || !ended {
		t.Fatalf("NOTES.txt prints no values for kured:\n%s", out)
	}
	return printed
}

// NOTES.txt, the ConfigMap and deploy/kured/values.yaml are one thing.
func TestKuredValuesAreTheSameEverywhere(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root(t), "deploy/kured/values.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if shipped, printed := parseKured(t, string(text)).Configuration, parseKured(t, notes(t, "")).Configuration; shipped != printed {
		t.Errorf("deploy/kured/values.yaml has\n%+v\nand NOTES.txt\n%+v", shipped, printed)
	}
	const sidecar = "mode: sidecar"
	shipped, printed := find[corev1.ConfigMap](t, render(t, "somewhere", sidecar), "ConfigMap", release+"-kured-values").Data["values.yaml"], notes(t, sidecar)
	if strings.TrimSpace(shipped) != strings.TrimSpace(printed) {
		t.Errorf("the ConfigMap has\n%s\nand NOTES.txt\n%s", shipped, printed)
	}
}
