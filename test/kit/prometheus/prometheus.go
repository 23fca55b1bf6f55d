// Package prometheus starts a real Prometheus for a test, so that what the product reads as an alert is what a rule
// became, with the states and the labels and the staleness that Prometheus gives it.
package prometheus

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/sentinel-gate/sentinel-gate/test/kit/build"
	"github.com/sentinel-gate/sentinel-gate/test/kit/controlplane"
)

const startTimeout = time.Minute

// Options are what tests differ in. The zero value is a Prometheus without rules and targets.
type Options struct {
	// Dir keeps configuration, log and data. It is made, and removed by Stop, if empty.
	Dir string
	// Rules is the content of a rules file.
	Rules string
	// ScrapeConfigs is the YAML of the configuration's scrape_configs, a list.
	ScrapeConfigs string
	// EvaluationInterval is the interval of both rules and scrapes; 200ms if zero.
	EvaluationInterval time.Duration
	// Args come after the harness's own.
	Args []string
	// Progress hears about builds, which take minutes the first time. It may be nil.
	Progress io.Writer
}

// Prometheus is a running server. Its methods must not be used concurrently.
type Prometheus struct {
	*controlplane.Server
	dir       string
	temporary bool
}

// Binary builds prometheus or promtool, or finds it built, and returns its path.
func Binary(ctx context.Context, progress io.Writer, name string) (string, error) {
	root, err := build.Root()
	if err != nil {
		return "", err
	}
	const module = "test/kit/prometheus/server"
	mod, err := os.ReadFile(filepath.Join(root, module, "go.mod"))
	if err != nil {
		return "", fmt.Errorf("reading the version of Prometheus: %w", err)
	}
	// The Go module of Prometheus 3.13.5 is v0.313.5.
	version := regexp.MustCompile(`github\.com/prometheus/prometheus v0\.(\d)(\d\d)\.(\d+)`).FindSubmatch(mod)
	if version == nil {
		return "", fmt.Errorf("reading the version of Prometheus: none in %s/go.mod", module)
	}
	return build.Binary(ctx, progress, build.Target{
		Title:   "test " + name,
		Module:  module,
		Package: "github.com/prometheus/prometheus/cmd/" + name,
		// Clients of every cloud are most of a plain build.
		Tags:    []string{"remove_all_sd"},
		LDFlags: fmt.Sprintf("-X github.com/prometheus/common/version.Version=%s.%s.%s", version[1], version[2], version[3]),
	})
}

// Start returns once Prometheus is ready to be queried, which is before its rules have been evaluated. The context
// bounds the start, not the life, of the server: call Stop.
func Start(ctx context.Context, options Options) (*Prometheus, error) {
	binary, err := Binary(ctx, options.Progress, "prometheus")
	if err != nil {
		return nil, err
	}
	supervisor, err := controlplane.ServerBinary(ctx, options.Progress)
	if err != nil {
		return nil, err
	}
	p := &Prometheus{dir: options.Dir}
	if p.dir == "" {
		p.temporary = true
		if p.dir, err = os.MkdirTemp("", "sentinel-gate-prometheus-"); err != nil {
			return nil, fmt.Errorf("starting Prometheus: %w", err)
		}
	}
	p.Server = &controlplane.Server{
		Name: "Prometheus", Binary: supervisor, Command: binary, Log: p.path("prometheus.log"), Ready: "/-/ready", Timeout: startTimeout,
		Args: func(port int) ([]string, error) {
			return append([]string{
				"--config.file=" + p.path("prometheus.yaml"), "--storage.tsdb.path=" + p.path("data"),
				fmt.Sprintf("--web.listen-address=127.0.0.1:%d", port), "--web.enable-lifecycle",
				// Targets are otherwise first scraped after 5 s.
				"--scrape.discovery-reload-interval=100ms",
			}, options.Args...), nil
		},
	}
	err = p.configure(options)
	if err == nil {
		err = p.Start(ctx)
	}
	if err != nil {
		p.Stop()
		return nil, fmt.Errorf("starting Prometheus: %w", err)
	}
	return p, nil
}

func (p *Prometheus) configure(options Options) error {
	interval := options.EvaluationInterval
	if interval == 0 {
		interval = 200 * time.Millisecond
	}
	config := fmt.Sprintf("global: {scrape_interval: %[1]dms, scrape_timeout: %[1]dms, evaluation_interval: %[1]dms}\nrule_files: [rules.yaml]\n",
		interval.Milliseconds())
	if options.ScrapeConfigs != "" {
		config += "scrape_configs:\n" + options.ScrapeConfigs
	}
	if err := os.WriteFile(p.path("prometheus.yaml"), []byte(config), 0o644); err != nil {
		return err
	}
	return p.writeRules(options.Rules)
}

func (p *Prometheus) writeRules(content string) error {
	return os.WriteFile(p.path("rules.yaml"), []byte(content), 0o644)
}

// SetRules replaces the rules file and returns once Prometheus has loaded it. An invalid file is an error, and leaves
// Prometheus with the rules it had.
func (p *Prometheus) SetRules(ctx context.Context, content string) error {
	if err := p.writeRules(content); err != nil {
		return fmt.Errorf("setting rules: %w", err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, p.URL()+"/-/reload", nil)
	if err != nil {
		return fmt.Errorf("setting rules: %w", err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("setting rules: %w", err)
	}
	defer response.Body.Close()
	if body, _ := io.ReadAll(response.Body); response.StatusCode != http.StatusOK {
		return fmt.Errorf("setting rules: %s: %s", response.Status, strings.TrimSpace(string(body)))
	}
	return nil
}

// Restart ends Prometheus in good order and starts it at the same address, with its data or, when wiped, without: as
// a Prometheus without a volume comes back from a node's reboot.
func (p *Prometheus) Restart(ctx context.Context, wipe bool) error {
	p.End()
	if wipe {
		if err := os.RemoveAll(p.path("data")); err != nil {
			return fmt.Errorf("restarting Prometheus: %w", err)
		}
	}
	if err := p.Start(ctx); err != nil {
		return fmt.Errorf("restarting Prometheus: %w", err)
	}
	return nil
}

// Stop ends Prometheus for good and waits for it. It removes the directory unless the caller chose it.
func (p *Prometheus) Stop() {
	p.End()
	if p.temporary {
		_ = os.RemoveAll(p.dir)
	}
}

func (p *Prometheus) path(name string) string { return filepath.Join(p.dir, name) }
