package node

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// aptRoot makes a root directory for apt with the two files under test and
// more files of apt.conf.d, and returns it with the environment that makes
// apt use it.
func aptRoot(t *testing.T, more map[string]string) (root, environment string) {
	t.Helper()
	root = t.TempDir()
	for _, dir := range []string{"etc/apt/apt.conf.d", "etc/apt/preferences.d", "etc/apt/sources.list.d",
		"etc/apt/trusted.gpg.d", "var/lib/apt/lists/partial", "var/lib/apt/periodic", "var/cache/apt/archives/partial",
		"var/lib/dpkg/updates", "var/log/apt", "var/log/unattended-upgrades", "var/run"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(root, "var/lib/dpkg/status"), "", 0o644)
	write(t, filepath.Join(root, upgradesTarget), read(t, upgradesSource), 0o644)
	write(t, filepath.Join(root, periodicTarget), read(t, periodicSource), 0o644)
	for name, content := range more {
		write(t, filepath.Join(root, "etc/apt/apt.conf.d", name), content, 0o644)
	}
	config := filepath.Join(root, "apt.conf")
	write(t, config, fmt.Sprintf("Dir %q;\nDir::State::status %q;\n", root, root+"/var/lib/dpkg/status"), 0o644)
	return root, "APT_CONFIG=" + config
}

// What the package unattended-upgrades brings: on Debian, and on Ubuntu.
const (
	debian50 = `Unattended-Upgrade::Origins-Pattern { "origin=Debian,codename=${distro_codename},label=Debian"; };
Unattended-Upgrade::Package-Blacklist { };
`
	ubuntu50 = `Unattended-Upgrade::Allowed-Origins {
  "${distro_id}:${distro_codename}";
  "${distro_id}:${distro_codename}-security";
  "${distro_id}:${distro_codename}-updates";
};
Unattended-Upgrade::Package-Blacklist { };
`
	disabled20 = `APT::Periodic::Update-Package-Lists "0";
APT::Periodic::Unattended-Upgrade "0";
`
)

// TestAptConfig lets apt read the files among those of the package, and compares what it made of them.
func TestAptConfig(t *testing.T) {
	need(t, "apt-config", "apt")
	_, environment := aptRoot(t, map[string]string{"20auto-upgrades": disabled20, "50unattended-upgrades": ubuntu50 + debian50})
	cmd := command(t, "apt-config", "dump")
	cmd.Env = append(cmd.Env, environment)
	values := map[string][]string{}
	line := regexp.MustCompile(`^(\S+) "(.*)";$`)
	for text := range strings.Lines(output(t, cmd)) {
		match := line.FindStringSubmatch(strings.TrimSpace(text))
		if match == nil {
			t.Fatalf("apt-config says: %s", text)
		}
		// A list has a line of its own, which is empty, before its entries.
		if match[2] != "" {
			values[match[1]] = append(values[match[1]], match[2])
		}
	}
	want := map[string][]string{
		"Unattended-Upgrade::Origins-Pattern::": {
			"origin=Debian,codename=${distro_codename},label=Debian-Security",
			"origin=Debian,codename=${distro_codename}-security,label=Debian-Security",
			"origin=Ubuntu,archive=${distro_codename}",
			"origin=Ubuntu,archive=${distro_codename}-security",
			"origin=UbuntuESM,archive=${distro_codename}-infra-security",
			"origin=UbuntuESMApps,archive=${distro_codename}-apps-security",
		},
		"Unattended-Upgrade::Allowed-Origins::": nil,
		"Unattended-Upgrade::Package-Blacklist::": {
			"containerd$", "containerd.io$", "runc$", "crun$", "cri-o", "cri-tools$", "kubernetes-cni$",
			"containernetworking-plugins$", "cni-plugins-", "calico-", "docker-ce", "docker.io$", "moby-",
			"nvidia-container-", "libnvidia-container", "kubelet$", "kubeadm$", "kubectl$",
		},
		"Unattended-Upgrade::Automatic-Reboot":                    {"false"},
		"Unattended-Upgrade::Automatic-Reboot-WithUsers":          {"false"},
		"Unattended-Upgrade::InstallOnShutdown":                   {"false"},
		"Dpkg::Options::":                                         {"--force-confdef", "--force-confold"},
		"Unattended-Upgrade::AutoFixInterruptedDpkg":              {"true"},
		"Unattended-Upgrade::MinimalSteps":                        {"true"},
		"Unattended-Upgrade::Remove-Unused-Kernel-Packages":       {"true"},
		"Unattended-Upgrade::Remove-New-Unused-Dependencies":      {"true"},
		"Unattended-Upgrade::Remove-Unused-Dependencies":          {"false"},
		"Unattended-Upgrade::Allow-downgrade":                     {"false"},
		"Unattended-Upgrade::DevRelease":                          {"false"},
		"Unattended-Upgrade::OnlyOnACPower":                       {"false"},
		"Unattended-Upgrade::Skip-Updates-On-Metered-Connections": {"false"},
		"Unattended-Upgrade::Mail":                                {"root"},
		"Unattended-Upgrade::MailReport":                          {"on-change"},
		"Unattended-Upgrade::Verbose":                             {"true"},
		"Unattended-Upgrade::SyslogEnable":                        {"true"},
		"Unattended-Upgrade::SyslogFacility":                      {"daemon"},
		"APT::Periodic::Enable":                                   {"1"},
		"APT::Periodic::Update-Package-Lists":                     {"1"},
		"APT::Periodic::Download-Upgradeable-Packages":            {"0"},
		"APT::Periodic::Unattended-Upgrade":                       {"1"},
		"APT::Periodic::AutocleanInterval":                        {"7"},
	}
	// apt spells a name as it first met it: DPkg here, Dpkg there.
	fold := map[string][]string{}
	for name, value := range values {
		fold[strings.ToLower(name)] = value
	}
	for name, value := range want {
		if got := fold[strings.ToLower(name)]; !slices.Equal(got, value) {
			t.Errorf("%s: %q, want %q", name, got, value)
		}
	}
	for name := range values {
		if _, ok := want[name]; !ok && (strings.HasPrefix(name, "Unattended-Upgrade::") || strings.HasPrefix(name, "APT::Periodic::")) {
			t.Errorf("%s is set, and not in this test", name)
		}
	}
}

// blacklist returns the entries of Package-Blacklist as they stand in the file.
func blacklist(t *testing.T) []string {
	t.Helper()
	block := regexp.MustCompile(`(?s)Package-Blacklist \{\n(.*?)\n\};`).FindStringSubmatch(read(t, upgradesSource))
	if block == nil {
		t.Fatal("no Package-Blacklist")
	}
	var entries []string
	for _, match := range regexp.MustCompile(`"(.*)";`).FindAllStringSubmatch(block[1], -1) {
		entries = append(entries, match[1])
	}
	return entries
}

// TestDNFExcludes: one list of packages is held back, whatever the package manager.
func TestDNFExcludes(t *testing.T) {
	match := regexp.MustCompile(`(?m)^excludepkgs = (.*)$`).FindStringSubmatch(read(t, "rhel/automatic.conf"))
	if match == nil {
		t.Fatal("no excludepkgs")
	}
	var want []string
	for _, entry := range blacklist(t) {
		name, whole := strings.CutSuffix(entry, "$")
		if !whole {
			name += "*"
		}
		want = append(want, name)
	}
	if got := strings.Split(match[1], ", "); !slices.Equal(got, want) {
		t.Errorf("excludepkgs in rhel/automatic.conf:\n%q, want as in the Package-Blacklist:\n%q", got, want)
	}
}

// A release is what lsb_release says of a machine, and a repository that it has.
type release struct {
	distributor, codename         string
	origin, label, suite, archive string // archive is the Codename of the repository
	allowed                       bool
}

// TestUnattendedUpgrade runs unattended-upgrade --dry-run against a repository
// of each kind, which has a newer version of everything that is installed.
func TestUnattendedUpgrade(t *testing.T) {
	need(t, "unattended-upgrade", "unattended-upgrades")
	need(t, "dpkg-deb", "dpkg")
	need(t, "unshare", "util-linux")
	needRoot(t, "unattended-upgrade insists, and gets directories of its own")
	if out, err := command(t, "unshare", "--mount", "--net", "mount", "-t", "tmpfs", "tmpfs", "/run").CombinedOutput(); err != nil {
		t.Skipf("nothing can be mounted here: %v: %s", err, out)
	}
	for name, release := range map[string]release{
		"Debian security":         {"Debian", "bookworm", "Debian", "Debian-Security", "oldstable-security", "bookworm-security", true},
		"Debian 10 security":      {"Debian", "buster", "Debian", "Debian-Security", "oldoldstable", "buster", true},
		"Debian main":             {"Debian", "bookworm", "Debian", "Debian", "oldstable", "bookworm", false},
		"Debian updates":          {"Debian", "bookworm", "Debian", "Debian", "oldstable-updates", "bookworm-updates", false},
		"Debian, another release": {"Debian", "bookworm", "Debian", "Debian-Security", "stable-security", "trixie-security", false},
		"Ubuntu security":         {"Ubuntu", "noble", "Ubuntu", "Ubuntu", "noble-security", "noble", true},
		"Ubuntu release":          {"Ubuntu", "noble", "Ubuntu", "Ubuntu", "noble", "noble", true},
		"Ubuntu updates":          {"Ubuntu", "noble", "Ubuntu", "Ubuntu", "noble-updates", "noble", false},
		"Ubuntu proposed":         {"Ubuntu", "noble", "Ubuntu", "Ubuntu", "noble-proposed", "noble", false},
		"Ubuntu ESM":              {"Ubuntu", "focal", "UbuntuESM", "UbuntuESM", "focal-infra-security", "focal", true},
		"Ubuntu ESM for apps":     {"Ubuntu", "focal", "UbuntuESMApps", "UbuntuESMApps", "focal-apps-security", "focal", true},
		"somebody's":              {"Debian", "bookworm", "Docker", "Docker CE", "bookworm", "bookworm", false},
	} {
		t.Run(name, func(t *testing.T) {
			out := dryRun(t, release, []string{"openssl-like", "containerd", "containerd.io", "runc", "cri-tools", "kubernetes-cni",
				"calico-node", "docker-ce", "docker-ce-cli", "kubelet", "kubeadm", "kubectl", "runc-docs"})
			want := ""
			if release.allowed {
				want = "openssl-like runc-docs"
			}
			match := regexp.MustCompile(`(?m)Packages that will be upgraded: *(.*)$`).FindStringSubmatch(out)
			if match == nil {
				if want != "" || !strings.Contains(out, "No packages found that can be upgraded unattended") {
					t.Fatalf("it says:\n%s", out)
				}
				return
			}
			got := strings.Fields(match[1])
			slices.Sort(got)
			if strings.Join(got, " ") != want {
				t.Errorf("would upgrade %q, want %q:\n%s", got, want, out)
			}
			if strings.Contains(strings.ToLower(out), "rebooting") {
				t.Errorf("it would reboot:\n%s", out)
			}
		})
	}
}

// dryRun returns what unattended-upgrade --dry-run says on a machine of that
// release, with the packages at version 1 and a repository with version 2, and
// with a reboot pending.
func dryRun(t *testing.T, release release, packages []string) string {
	t.Helper()
	root, _ := aptRoot(t, map[string]string{"50unattended-upgrades": debian50 + ubuntu50})
	repository := filepath.Join(root, "repository")
	var index, status strings.Builder
	for _, name := range packages {
		control := "Package: " + name + "\nVersion: %s\nArchitecture: all\nMaintainer: nobody <nobody@example.org>\nDescription: a stand-in\n"
		status.WriteString(fmt.Sprintf(control, "1") + "Status: install ok installed\n\n")
		source := filepath.Join(root, "source", name)
		write(t, filepath.Join(source, "DEBIAN/control"), fmt.Sprintf(control, "2"), 0o644)
		file := filepath.Join(repository, name+".deb")
		if err := os.MkdirAll(repository, 0o755); err != nil {
			t.Fatal(err)
		}
		output(t, command(t, "dpkg-deb", "--root-owner-group", "--build", source, file))
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&index, control+"Filename: ./%s.deb\nSize: %d\nSHA256: %x\n\n", "2", name, len(content), sha256.Sum256(content))
	}
	write(t, filepath.Join(root, "var/lib/dpkg/status"), status.String(), 0o644)
	write(t, filepath.Join(repository, "Packages"), index.String(), 0o644)
	write(t, filepath.Join(repository, "Release"), fmt.Sprintf("Origin: %s\nLabel: %s\nSuite: %s\nCodename: %s\nDate: Mon, 01 Jan 2024 00:00:00 UTC\nSHA256:\n %x %d Packages\n",
		release.origin, release.label, release.suite, release.archive, sha256.Sum256([]byte(index.String())), index.Len()), 0o644)
	write(t, filepath.Join(root, "etc/apt/sources.list"), "deb [trusted=yes] file:"+repository+" ./\n", 0o644)

	bin := filepath.Join(root, "bin")
	write(t, filepath.Join(bin, "lsb_release"), "#!/bin/sh\ncase \"$*\" in *-i*) echo "+release.distributor+";; *-c*) echo "+release.codename+";; *) echo "+release.distributor+" "+release.codename+";; esac\n", 0o755)
	// unattended-upgrade knows no other root than /. In a mount namespace of its
	// own it finds our directories there, a /run with a reboot pending, and no network.
	script := "mount -t tmpfs tmpfs /run && touch /run/reboot-required\n"
	for _, dir := range []string{"etc/apt", "var/lib/apt", "var/lib/dpkg", "var/cache/apt", "var/log"} {
		script += fmt.Sprintf("mount --bind %q %q\n", filepath.Join(root, dir), "/"+dir)
	}
	script += "apt-get -o APT::Sandbox::User=root update && exec unattended-upgrade --dry-run --debug\n"
	cmd := command(t, "unshare", "--mount", "--net", "sh", "-ec", script)
	cmd.Env = append(cmd.Env, "PATH="+bin+":"+os.Getenv("PATH"))
	return output(t, cmd)
}

// TestConffilePrompt lets dpkg upgrade a package whose configuration file was
// changed both on the node and in the package, with nobody there to answer.
func TestConffilePrompt(t *testing.T) {
	need(t, "dpkg-deb", "dpkg")
	need(t, "apt-config", "apt")
	needRoot(t, "dpkg insists")
	_, environment := aptRoot(t, nil)
	cmd := command(t, "apt-config", "dump", "--format", "%v%n", "Dpkg::Options")
	cmd.Env = append(cmd.Env, environment)
	options := strings.Fields(output(t, cmd))

	build := func(version string) string {
		source := t.TempDir()
		write(t, filepath.Join(source, "DEBIAN/control"), "Package: conf\nVersion: "+version+"\nArchitecture: all\nMaintainer: nobody <nobody@example.org>\nDescription: a stand-in\n", 0o644)
		write(t, filepath.Join(source, "DEBIAN/conffiles"), "/etc/changed\n/etc/unchanged\n", 0o644)
		write(t, filepath.Join(source, "etc/changed"), "the package's, version "+version+"\n", 0o644)
		write(t, filepath.Join(source, "etc/unchanged"), "the package's, version "+version+"\n", 0o644)
		file := filepath.Join(t.TempDir(), "conf.deb")
		output(t, command(t, "dpkg-deb", "--root-owner-group", "--build", source, file))
		return file
	}
	first, second := build("1"), build("2")
	for _, test := range []struct {
		name    string
		options []string
		ok      bool
	}{{"with the options", options, true}, {"without", nil, false}} {
		t.Run(test.name, func(t *testing.T) {
			root := t.TempDir()
			for _, name := range []string{"status", "available"} {
				write(t, filepath.Join(root, "var/lib/dpkg", name), "", 0o644)
			}
			for _, name := range []string{"info", "updates", "triggers"} {
				if err := os.MkdirAll(filepath.Join(root, "var/lib/dpkg", name), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			dpkg := func(file string, options ...string) ([]byte, error) {
				return command(t, "dpkg", append(options, "--root="+root, "--log=/dev/null", "--install", file)...).CombinedOutput()
			}
			if out, err := dpkg(first); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			write(t, filepath.Join(root, "etc/changed"), "the node's own\n", 0o644)
			out, err := dpkg(second, test.options...)
			if (err == nil) != test.ok {
				t.Fatalf("%v\n%s", err, out)
			}
			if !test.ok {
				return
			}
			for name, want := range map[string]string{"changed": "the node's own\n", "unchanged": "the package's, version 2\n"} {
				got, err := os.ReadFile(filepath.Join(root, "etc", name))
				if err != nil || string(got) != want {
					t.Errorf("/etc/%s: %q (%v), want %q", name, got, err, want)
				}
			}
		})
	}
}
