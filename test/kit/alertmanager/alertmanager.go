// Package alertmanager starts a real Alertmanager for a test, so that a silence
// and an inhibition are what Alertmanager makes of them.
package alertmanager

import (
	"bytes"
	"context"
	"encoding/json"
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

// Options are what tests differ in. The zero value is an Alertmanager that
// tells nobody of any alert, inhibits none, and has no peers.
type Options struct {
	// InhibitRules is the YAML of the configuration's inhibit_rules, a list.
	InhibitRules string
	// Args come after the harness's own.
	Args []string
	// Progress hears about builds, which take minutes the first time. It may be nil.
	Progress io.Writer
}

// Alertmanager is a running server. Its methods must not be used concurrently.
type Alertmanager struct {
	*controlplane.Server
	dir string
}

// Binary builds alertmanager, or finds it built, and returns its path. It has no user interface.
func Binary(ctx context.Context, progress io.Writer) (string, error) {
	root, err := build.Root()
	if err != nil {
		return "", err
	}
	const module = "test/kit/alertmanager/server"
	mod, err := os.ReadFile(filepath.Join(root, module, "go.mod"))
	if err != nil {
		return "", fmt.Errorf("reading the version of Alertmanager: %w", err)
	}
	version := regexp.MustCompile(`github\.com/prometheus/alertmanager v(\S+)`).FindSubmatch(mod)
	if version == nil {
		return "", fmt.Errorf("reading the version of Alertmanager: none in %s/go.mod", module)
	}
	return build.Binary(ctx, progress, build.Target{
		Title:   "test alertmanager",
		Module:  module,
		Package: "github.com/prometheus/alertmanager/cmd/alertmanager",
		LDFlags: fmt.Sprintf("-X github.com/prometheus/common/version.Version=%s", version[1]),
		// The user interface is made by npm, and is no part of the Go module.
		Lacks: build.Lack{Module: "github.com/prometheus/alertmanager", File: "ui/app/dist/index.html"},
	})
}

// Start returns once Alertmanager is ready. The context bounds the start, not the life, of the server: call Stop.
func Start(ctx context.Context, options Options) (*Alertmanager, error) {
	binary, err := Binary(ctx, options.Progress)
	if err != nil {
		return nil, err
	}
	supervisor, err := controlplane.ServerBinary(ctx, options.Progress)
	if err != nil {
		return nil, err
	}
	a := &Alertmanager{}
	if a.dir, err = os.MkdirTemp("", "sentinel-gate-alertmanager-"); err != nil {
		return nil, fmt.Errorf("starting Alertmanager: %w", err)
	}
	a.Server = &controlplane.Server{
		Name: "Alertmanager", Binary: supervisor, Command: binary, Log: a.path("alertmanager.log"), Ready: "/-/ready", Timeout: startTimeout,
		Args: func(port int) ([]string, error) {
			return append([]string{
				"--config.file=" + a.path("alertmanager.yaml"), "--storage.path=" + a.path("data"),
				fmt.Sprintf("--web.listen-address=127.0.0.1:%d", port), "--cluster.listen-address=",
			}, options.Args...), nil
		},
	}
	configuration := "route: {receiver: nobody}\nreceivers: [{name: nobody}]\n"
	if options.InhibitRules != "" {
		configuration += "inhibit_rules:\n" + options.InhibitRules
	}
	err = os.WriteFile(a.path("alertmanager.yaml"), []byte(configuration), 0o644)
	if err == nil {
		err = a.Start(ctx)
	}
	if err != nil {
		a.Stop()
		return nil, fmt.Errorf("starting Alertmanager: %w", err)
	}
	return a, nil
}

// Alert is one that Prometheus would send, and would go on sending.
type Alert struct {
	Labels   map[string]string `json:"labels"`
	StartsAt time.Time         `json:"startsAt"`
	// EndsAt is when it is resolved, unless it is sent again before.
	EndsAt time.Time `json:"endsAt"`
}

// Send posts alerts as Prometheus does.
func (a *Alertmanager) Send(ctx context.Context, alerts ...Alert) error {
	return a.post(ctx, "sending alerts", "/api/v2/alerts", alerts, nil)
}

// Silence silences the alerts that have the label, from now on for an hour, and returns the silence's ID.
func (a *Alertmanager) Silence(ctx context.Context, label, value string) (string, error) {
	var made struct {
		SilenceID string `json:"silenceID"`
	}
	err := a.post(ctx, "silencing", "/api/v2/silences", map[string]any{
		"matchers": []map[string]any{{"name": label, "value": value, "isRegex": false, "isEqual": true}},
		"startsAt": time.Now(), "endsAt": time.Now().Add(time.Hour), "createdBy": "test", "comment": "test",
	}, &made)
	return made.SilenceID, err
}

// Expire ends a silence.
func (a *Alertmanager) Expire(ctx context.Context, id string) error {
	return a.do(ctx, "expiring a silence", http.MethodDelete, "/api/v2/silence/"+id, nil, nil)
}

func (a *Alertmanager) post(ctx context.Context, doing, path string, body, answer any) error {
	content, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	return a.do(ctx, doing, http.MethodPost, path, bytes.NewReader(content), answer)
}

func (a *Alertmanager) do(ctx context.Context, doing, method, path string, body io.Reader, answer any) error {
	request, err := http.NewRequestWithContext(ctx, method, a.URL()+path, body)
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", doing, err)
	case response.StatusCode != http.StatusOK:
		return fmt.Errorf("%s: %s: %s", doing, response.Status, strings.TrimSpace(string(content)))
	case answer == nil:
		return nil
	}
	return json.Unmarshal(content, answer)
}

// Restart ends Alertmanager in good order and starts it at the same address. It comes back with its silences, and
// without the alerts that it knew.
func (a *Alertmanager) Restart(ctx context.Context) error {
	a.End()
	if err := a.Start(ctx); err != nil {
		return fmt.Errorf("restarting Alertmanager: %w", err)
	}
	return nil
}

// Stop ends Alertmanager for good, waits for it, and removes its directory.
func (a *Alertmanager) Stop() {
	a.End()
	_ = os.RemoveAll(a.dir)
}

func (a *Alertmanager) path(name string) string { return filepath.Join(a.dir, name) }
