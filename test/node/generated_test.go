// Package node tests what deploy/node puts on the nodes with the programs that
// will read it: apt, unattended-upgrade, systemd, bash. Each gets a root
// directory of its own; nothing of the machine that runs the tests is changed.
package node

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

var update = flag.Bool("update", false, "write the generated files of deploy/node anew")

// deploy is the directory under test.
const deploy = "../../deploy/node"

// Where the sources go on a node.
const (
	upgradesSource = "apt/52-sentinel-gate-unattended-upgrades"
	upgradesTarget = "/etc/apt/apt.conf.d/52-sentinel-gate-unattended-upgrades"
	periodicSource = "apt/52-sentinel-gate-periodic"
	periodicTarget = "/etc/apt/apt.conf.d/52-sentinel-gate-periodic"
	tmpfilesSource = "tmpfiles.d/sentinel-gate.conf"
	tmpfilesTarget = "/etc/tmpfiles.d/sentinel-gate.conf"
	locksmithFile  = "flatcar/update.conf"
	locksmithPath  = "/etc/flatcar/update.conf"
)

// A template holds lines such as <<apt/file>>, alone but for their indentation.
// Each stands for the content of that file of deploy/node.
var include = regexp.MustCompile(`(?m)^( *)<<(.*)>>$`)

var generated = map[string]string{
	"cloud-init.yaml": `#cloud-config
# The files of this directory as cloud-init user data, for new Debian and Ubuntu nodes.
# Generated from them; a test fails when they differ. Change the files, then:
#   go test ./test/node -run TestGenerated -update
#
# Nothing is held with apt-mark here, since kubelet, containerd and so on are usually installed later.
# Let what installs them run bring-into-line.sh afterwards. The Package-Blacklist below is in force at once.
package_update: true
packages:
  - unattended-upgrades
write_files:
  - path: ` + upgradesTarget + `
    owner: root:root
    permissions: "0644"
    content: |
      <<` + upgradesSource + `>>
  - path: ` + periodicTarget + `
    owner: root:root
    permissions: "0644"
    content: |
      <<` + periodicSource + `>>
  - path: ` + tmpfilesTarget + `
    owner: root:root
    permissions: "0644"
    content: |
      <<` + tmpfilesSource + `>>
runcmd:
  - [systemd-tmpfiles, --create, ` + tmpfilesTarget + `]
  - [systemctl, unmask, apt-daily.timer, apt-daily-upgrade.timer]
  - [systemctl, enable, --now, apt-daily.timer, apt-daily-upgrade.timer]
`,
	"flatcar/butane.yaml": `# For Flatcar nodes that no kOps builds: merge this into your Butane configuration.
# Generated from update.conf and ../tmpfiles.d/sentinel-gate.conf; a test fails when they differ. Change them, then:
#   go test ./test/node -run TestGenerated -update
variant: flatcar
version: 1.0.0
storage:
  files:
    - path: ` + locksmithPath + `
      overwrite: true
      mode: 0644
      contents:
        inline: |
          <<` + locksmithFile + `>>
    - path: ` + tmpfilesTarget + `
      mode: 0644
      contents:
        inline: |
          <<` + tmpfilesSource + `>>
systemd:
  units:
    # update-engine downloads updates and asks for the reboot: /run/reboot-required. It must stay as it is.
    - name: locksmithd.service
      mask: true
`,
	"flatcar/kops.yaml": `# For kOps clusters on Flatcar: merge this into the Cluster (kops edit cluster), then kops update cluster --yes and
# kops rolling-update cluster --yes.
# Generated from update.conf and ../tmpfiles.d/sentinel-gate.conf; a test fails when they differ. Change them, then:
#   go test ./test/node -run TestGenerated -update
apiVersion: kops.k8s.io/v1alpha2
kind: Cluster
spec:
  # kOps masks locksmithd. An updatePolicy in an InstanceGroup overrides this one.
  updatePolicy: external
  fileAssets:
    - name: locksmith-off
      path: ` + locksmithPath + `
      mode: "0644"
      content: |
        <<` + locksmithFile + `>>
    - name: sentinel-gate-tmpfiles
      path: ` + tmpfilesTarget + `
      mode: "0644"
      content: |
        <<` + tmpfilesSource + `>>
`,
}

// TestGenerated compares the generated files with what the sources give, or
// with -update writes them.
func TestGenerated(t *testing.T) {
	for name, template := range generated {
		want := include.ReplaceAllStringFunc(template, func(line string) string {
			match := include.FindStringSubmatch(line)
			return indent(read(t, match[2]), match[1])
		})
		if *update {
			if err := os.WriteFile(filepath.Join(deploy, name), []byte(want), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if read(t, name) != want {
			t.Errorf("deploy/node/%s differs from its sources; go test ./test/node -run TestGenerated -update", name)
		}
	}
}

// indent puts prefix before each line that is not empty, and drops the last newline.
func indent(text, prefix string) string {
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	for i, line := range lines {
		if line != "" {
			lines[i] = prefix + line
		}
	}
	return strings.Join(lines, "\n")
}

// read returns a file of deploy/node.
func read(t *testing.T, name string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(deploy, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// parse decodes a YAML file of deploy/node strictly into v.
func parse(t *testing.T, name string, v any) {
	t.Helper()
	decoder := yaml.NewDecoder(strings.NewReader(read(t, name)))
	decoder.KnownFields(true)
	if err := decoder.Decode(v); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

func TestCloudInit(t *testing.T) {
	if first, _, _ := strings.Cut(read(t, "cloud-init.yaml"), "\n"); first != "#cloud-config" {
		t.Errorf("the first line is %q, and cloud-init would not read the file", first)
	}
	var config struct {
		PackageUpdate bool     `yaml:"package_update"`
		Packages      []string `yaml:"packages"`
		WriteFiles    []struct {
			Path, Owner, Permissions, Content string
		} `yaml:"write_files"`
		RunCmd [][]string `yaml:"runcmd"`
	}
	parse(t, "cloud-init.yaml", &config)
	if !config.PackageUpdate || len(config.Packages) != 1 || config.Packages[0] != "unattended-upgrades" {
		t.Errorf("packages: %v, updated first: %v", config.Packages, config.PackageUpdate)
	}
	contents := map[string]string{}
	for _, file := range config.WriteFiles {
		if file.Owner != "root:root" || file.Permissions != "0644" {
			t.Errorf("%s: owner %q, permissions %q", file.Path, file.Owner, file.Permissions)
		}
		contents[file.Path] = file.Content
	}
	sameFiles(t, contents, map[string]string{
		upgradesTarget: upgradesSource,
		periodicTarget: periodicSource,
		tmpfilesTarget: tmpfilesSource,
	})
	if len(config.RunCmd) == 0 || strings.Join(config.RunCmd[0], " ") != "systemd-tmpfiles --create "+tmpfilesTarget {
		t.Errorf("runcmd does not begin with the directory of the gated sentinel: %q", config.RunCmd)
	}
}

// TestCloudInitSchema asks cloud-init itself.
func TestCloudInitSchema(t *testing.T) {
	need(t, "cloud-init", "cloud-init")
	if out, err := command(t, "cloud-init", "schema", "--config-file", filepath.Join(deploy, "cloud-init.yaml")).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestButane(t *testing.T) {
	var config struct {
		Variant, Version string
		Storage          struct {
			Files []struct {
				Path      string
				Overwrite bool
				Mode      int
				Contents  struct{ Inline string }
			}
		}
		Systemd struct {
			Units []struct {
				Name string
				Mask bool
			}
		}
	}
	parse(t, "flatcar/butane.yaml", &config)
	if config.Variant != "flatcar" || config.Version == "" {
		t.Errorf("variant %q, version %q", config.Variant, config.Version)
	}
	contents := map[string]string{}
	for _, file := range config.Storage.Files {
		if file.Mode != 0o644 {
			t.Errorf("%s: mode %#o", file.Path, file.Mode)
		}
		contents[file.Path] = file.Contents.Inline
	}
	sameFiles(t, contents, map[string]string{locksmithPath: locksmithFile, tmpfilesTarget: tmpfilesSource})
	if len(config.Systemd.Units) != 1 || config.Systemd.Units[0].Name != "locksmithd.service" || !config.Systemd.Units[0].Mask {
		t.Errorf("units: %v; locksmithd must be masked, and update-engine must not be", config.Systemd.Units)
	}
}

func TestKops(t *testing.T) {
	var cluster struct {
		APIVersion string `yaml:"apiVersion"`
		Kind       string
		Spec       struct {
			UpdatePolicy string `yaml:"updatePolicy"`
			FileAssets   []struct {
				Name, Path, Mode, Content string
			} `yaml:"fileAssets"`
		}
	}
	parse(t, "flatcar/kops.yaml", &cluster)
	if cluster.Kind != "Cluster" || cluster.Spec.UpdatePolicy != "external" {
		t.Errorf("kind %q, updatePolicy %q", cluster.Kind, cluster.Spec.UpdatePolicy)
	}
	contents := map[string]string{}
	for _, file := range cluster.Spec.FileAssets {
		contents[file.Path] = file.Content
	}
	sameFiles(t, contents, map[string]string{locksmithPath: locksmithFile, tmpfilesTarget: tmpfilesSource})
}

// sameFiles compares the contents by path with the sources that they are to come from, byte for byte.
func sameFiles(t *testing.T, contents, sources map[string]string) {
	t.Helper()
	for path, source := range sources {
		if contents[path] != read(t, source) {
			t.Errorf("%s is not deploy/node/%s:\n%s", path, source, contents[path])
		}
	}
	if len(contents) != len(sources) {
		t.Errorf("%d files, want %d", len(contents), len(sources))
	}
}

// TestUID: the directory must belong to the user that the gate runs as.
func TestUID(t *testing.T) {
	const uid = "9817"
	if !strings.Contains(read(t, tmpfilesSource), "\nd /run/sentinel-gate 0755 "+uid+" "+uid+" -\n") {
		t.Errorf("no line for uid and gid %s in %s", uid, tmpfilesSource)
	}
	manifest, err := os.ReadFile(filepath.Join(deploy, "..", "daemonset.yaml"))
	if os.IsNotExist(err) {
		t.Skip("there is no deploy/daemonset.yaml")
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"runAsUser", "runAsGroup"} {
		values := regexp.MustCompile(`(?m)\b`+key+`: *(\d+)`).FindAllStringSubmatch(string(manifest), -1)
		found := false
		for _, value := range values {
			found = found || value[1] == uid
			// An init container that makes the directory may run as root.
			if value[1] != uid && value[1] != "0" {
				t.Errorf("deploy/daemonset.yaml: %s, want %s", value[0], uid)
			}
		}
		if !found {
			t.Errorf("deploy/daemonset.yaml: no %s is %s", key, uid)
		}
	}
}
