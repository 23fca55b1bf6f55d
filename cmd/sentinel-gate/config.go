package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	yamlv3 "go.yaml.in/yaml/v3"
	"sigs.k8s.io/yaml"

	"github.com/sentinel-gate/sentinel-gate/checks"
	"github.com/sentinel-gate/sentinel-gate/gate"
	"github.com/sentinel-gate/sentinel-gate/gate/cluster"
)

const (
	apiVersion = "sentinel-gate.io/v1alpha1"
	kind       = "GateConfiguration"
)

// configuration is the file, docs/configuration.md.
type configuration struct {
	APIVersion string         `json:"apiVersion"`
	Kind       string         `json:"kind"`
	Sentinel   sentinel       `json:"sentinel"`
	Interval   model.Duration `json:"interval"`
	// MaxAge is 0 in the file's absence, and then twice the interval.
	MaxAge    model.Duration `json:"maxAge"`
	Stabilize model.Duration `json:"stabilize"`
	Timeout   model.Duration `json:"timeout"`
	Turn      turnConfig     `json:"turn"`
	// Checks are decoded one by one, so that each mistake names its step.
	Checks []json.RawMessage `json:"checks"`

	hash    string
	steps   []*gate.Step
	cluster *cluster.Cluster
	// sentinelSound: nothing is wrong with the sentinels' paths.
	sentinelSound bool
}

type sentinel struct {
	Raw   paths     `json:"raw"`
	Gated string    `json:"gated"`
	Mode  gate.Mode `json:"mode"`
	// DpkgStatus is dpkg's database, which is read where readySoak has exposure.
	DpkgStatus string `json:"dpkgStatus"`
}

// paths is one path or a list of them.
type paths []string

// UnmarshalJSON accepts both forms.
func (p *paths) UnmarshalJSON(data []byte) error {
	var one string
	if err := json.Unmarshal(data, &one); err == nil {
		*p = paths{one}
		return nil
	}
	var many []string
	if err := json.Unmarshal(data, &many); err != nil {
		return errors.New("want a path or a list of paths")
	}
	*p = many
	return nil
}

type step struct {
	Name    string          `json:"name"`
	Type    string          `json:"type"`
	Timeout model.Duration  `json:"timeout"`
	Options json.RawMessage `json:"options"`
	// NodeSelector chooses the nodes whose gates run the step; all by default.
	NodeSelector cluster.Selector `json:"nodeSelector"`
	// SoftUntil is until when the step only reports.
	SoftUntil instant `json:"softUntil"`
}

// instant is a date, which is its first moment in UTC, or a time.
type instant time.Time

// UnmarshalText accepts both forms.
func (i *instant) UnmarshalText(text []byte) error {
	for _, layout := range []string{time.DateOnly, time.RFC3339} {
		if parsed, err := time.Parse(layout, string(text)); err == nil && !parsed.IsZero() {
			*i = instant(parsed)
			return nil
		}
	}
	return fmt.Errorf("want a date such as 2006-01-02 or a time such as 2006-01-02T15:04:05Z, not %.40q", text)
}

func defaults() configuration {
	return configuration{
		Sentinel: sentinel{
			Raw:   paths{"/var/run/reboot-required"},
			Gated: "/var/run/sentinel-gate/gated-reboot-required",
			Mode:  gate.ModeTether,

			DpkgStatus: "/var/lib/dpkg/status",
		},
		Interval:  model.Duration(30 * time.Second),
		Stabilize: model.Duration(time.Minute),
		Timeout:   model.Duration(10 * time.Second),
		Turn:      turnDefaults(),
	}
}

// load reads and validates the configuration. Its error joins every mistake,
// each with its path; what could be read is returned beside it. The cluster may
// be nil where the checks will not be run.
func (f flags) load(cluster *cluster.Cluster) (*configuration, error) {
	path, c := f.config, defaults()
	c.sentinelSound, c.cluster = true, cluster
	data, err := os.ReadFile(path)
	if err != nil {
		return &c, fmt.Errorf("reading the configuration: %w", err)
	}
	sum := sha256.Sum256(data)
	c.hash = hex.EncodeToString(sum[:6])
	var problems []error
	if err := oneDocument(data); err != nil {
		problems = append(problems, err)
	}
	asJSON, err := yaml.YAMLToJSONStrict(data)
	if err != nil {
		problems = append(problems, errors.New(strings.Join(strings.Fields(err.Error()), " ")))
		c.sentinelSound = !regexp.MustCompile(`"(sentinel|gated)"`).MatchString(err.Error())
		// A key that is given twice need not hide the other mistakes.
		if asJSON, err = yaml.YAMLToJSON(data); err != nil {
			return &c, mistakes(path, problems)
		}
	}
	problems = append(problems, checks.Decode("", asJSON, &c)...)
	if cluster != nil {
		cluster.GoFirstAfter = time.Duration(c.Turn.GoFirstAfter)
	}
	problems = append(problems, c.validateSentinel()...)
	c.sentinelSound = c.sentinelSound && !slices.ContainsFunc(problems, func(err error) bool { return strings.HasPrefix(err.Error(), "sentinel") })
	problems = append(problems, c.validate(f.shortTurn)...)
	for i, raw := range c.Checks {
		problems = append(problems, c.addStep(i, raw)...)
	}
	if len(c.steps) > 0 && !slices.ContainsFunc(c.steps, func(s *gate.Step) bool { return s.SoftUntil.IsZero() }) {
		problems = append(problems, errors.New("checks: every step has softUntil: want at least one that always counts"))
	}
	if rule, _ := c.exposure(); rule != nil && !c.Turn.Enabled {
		problems = append(problems, errors.New("checks: readySoak has exposure, which needs the turn: turn.enabled is false"))
	}
	return &c, mistakes(path, problems)
}

// oneDocument refuses what the decoder would drop without a word: whatever
// comes after the first document.
func oneDocument(data []byte) error {
	decoder := yamlv3.NewDecoder(bytes.NewReader(data))
	var document yamlv3.Node
	// What cannot be read at all is for the strict decoder to report.
	if decoder.Decode(&document) == nil && !errors.Is(decoder.Decode(&document), io.EOF) {
		return errors.New("more than one YAML document: only the first would count")
	}
	return nil
}

func mistakes(path string, problems []error) error {
	if len(problems) == 0 {
		return nil
	}
	return fmt.Errorf("%s:\n%w", path, errors.Join(problems...))
}

func (c *configuration) validate(shortTurn bool) []error {
	var problems []error
	wrong := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	if c.APIVersion != apiVersion {
		wrong("apiVersion: want %s, not %q", apiVersion, c.APIVersion)
	}
	if c.Kind != kind {
		wrong("kind: want %s, not %q", kind, c.Kind)
	}
	if c.Interval <= 0 {
		wrong("interval: must be longer than 0s")
	}
	if c.Timeout <= 0 {
		wrong("timeout: must be longer than 0s")
	}
	if c.MaxAge == 0 {
		c.MaxAge = 2 * c.Interval
	}
	if c.MaxAge < model.Duration(gate.MinMaxAge) {
		wrong("maxAge: must be at least %s, not %s; it is twice the interval where it is not given", gate.MinMaxAge, c.MaxAge)
	} else if longest := max(10*c.Interval, model.Duration(time.Minute)); c.MaxAge > longest {
		wrong("maxAge: %s is longer than a gate whose evaluations hang may stay open: with an interval of %s it can be %s at most", c.MaxAge, c.Interval, longest)
	} else if c.longestTimeout() <= 0 {
		wrong("maxAge: %s leaves an open gate no time between two evaluations with an interval of %s", c.MaxAge, c.Interval)
	}
	problems = append(problems, c.Turn.validate(shortTurn)...)
	if len(c.Checks) == 0 {
		wrong("checks: want at least one: a gate without checks would let every reboot through")
	}
	return problems
}

func (c *configuration) validateSentinel() []error {
	var problems []error
	wrong := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	if len(c.Sentinel.Raw) == 0 {
		wrong("sentinel.raw: want at least one path")
	}
	if !filepath.IsAbs(c.Sentinel.Gated) || filepath.Clean(c.Sentinel.Gated) == "/" {
		wrong("sentinel.gated: want an absolute path, not %q", c.Sentinel.Gated)
	}
	c.Sentinel.Gated = filepath.Clean(c.Sentinel.Gated)
	for i, path := range c.Sentinel.Raw {
		if !filepath.IsAbs(path) {
			wrong("sentinel.raw[%d]: want an absolute path, not %q", i, path)
			continue
		}
		c.Sentinel.Raw[i] = filepath.Clean(path)
		// At its start the gate moves a directory at its path out of the way.
		if strings.HasPrefix(c.Sentinel.Raw[i], c.Sentinel.Gated+"/") {
			wrong("sentinel.gated: needs a path of its own; %s is a directory that holds the raw sentinel %s", c.Sentinel.Gated, c.Sentinel.Raw[i])
		}
		if directory(path) == directory(c.Sentinel.Gated) {
			wrong("sentinel.gated: needs a directory of its own, that only the gate may write in; %s also holds the raw sentinel %s", filepath.Dir(c.Sentinel.Gated), path)
		}
	}
	if !filepath.IsAbs(c.Sentinel.DpkgStatus) {
		wrong("sentinel.dpkgStatus: want an absolute path, not %q", c.Sentinel.DpkgStatus)
	}
	if c.Sentinel.Mode != gate.ModeTether && c.Sentinel.Mode != gate.ModeFile {
		wrong("sentinel.mode: want %s or %s, not %q", gate.ModeTether, gate.ModeFile, c.Sentinel.Mode)
	}
	return problems
}

// directory is that of the path, wherever links lead: /var/run is /run.
func directory(path string) string {
	dir := filepath.Dir(filepath.Clean(path))
	if resolved, err := filepath.EvalSymlinks(dir); err == nil {
		return resolved
	}
	return dir
}

func (c *configuration) longestTimeout() time.Duration {
	return gate.LongestTimeout(time.Duration(c.Interval), time.Duration(c.MaxAge))
}

var stepName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// addStep decodes and builds the step at the index.
func (c *configuration) addStep(i int, raw []byte) []error {
	s := step{Timeout: c.Timeout}
	problems := checks.Decode("", raw, &s)
	path := fmt.Sprintf("checks[%d]", i)
	if s.Name != "" {
		path += fmt.Sprintf(" %q", s.Name)
	}
	switch {
	case !stepName.MatchString(s.Name):
		problems = append(problems, fmt.Errorf("name: want lower-case letters, digits and hyphens, at most 63, not %q", s.Name))
	case slices.ContainsFunc(c.steps, func(other *gate.Step) bool { return other.Name == s.Name }):
		problems = append(problems, errors.New("name: another step has it"))
	}
	if longest := c.longestTimeout(); s.Timeout <= 0 {
		problems = append(problems, errors.New("timeout: must be longer than 0s"))
	} else if longest > 0 && time.Duration(s.Timeout) > longest {
		problems = append(problems, fmt.Errorf("timeout: %s leaves an open gate no time between two evaluations: with an interval of %s and a maxAge of %s it can be %s at most", s.Timeout, c.Interval, c.MaxAge, longest.Round(time.Millisecond)))
	}
	check, wrong := checks.New(s.Type, s.Options, c.cluster)
	problems = append(problems, wrong...)
	c.steps = append(c.steps, &gate.Step{
		Name: s.Name, Type: s.Type, Timeout: time.Duration(s.Timeout), Check: check, Scope: checks.ScopeOf(s.Type), SoftUntil: time.Time(s.SoftUntil),
		NodeSelector: s.NodeSelector, OwnNode: c.cluster.OwnNode,
	})
	for i, problem := range problems {
		problems[i] = fmt.Errorf("%s: %w", path, problem)
	}
	return problems
}

// served returns every step that reads what the API server says that it does
// not serve. It is no part of load: the gate is closed first, and only then is
// the API server waited for.
func (c *configuration) served(ctx context.Context, path string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(c.Timeout))
	defer cancel()
	var problems []error
	for i, s := range c.steps {
		validator, ok := s.Check.(checks.Validator)
		if !ok {
			continue
		}
		if err := validator.Validate(ctx); err != nil {
			problems = append(problems, fmt.Errorf("checks[%d] %q: %w", i, s.Name, err))
		}
	}
	return mistakes(path, problems)
}

// pipeline returns the pipeline of the steps.
func (c *configuration) pipeline() (*gate.Pipeline, error) {
	return gate.NewPipeline(c.steps, c.cluster.Now)
}

func checkConfig(f flags, stdout io.Writer) error {
	c, err := f.load(nil)
	if err != nil {
		return unusable{err}
	}
	fmt.Fprintf(stdout, "%s is a valid %s with %s (hash %s)\n", f.config, kind, gate.Count(len(c.steps), "check"), c.hash)
	return nil
}
