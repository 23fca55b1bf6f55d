// Package docs tests what README.md, docs/ and deploy/node/README.md tell people to do. Every fenced block says by its
// info string what it is, and is held to it:
//
//	sh               is run, as it stands, against a real API server
//	sh fresh         the same, in a cluster of its own
//	sh cluster       needs nodes that run pods: what needs a kubelet is checked and not run, the rest is run
//	sh network       needs a registry or a chart repository: what goes there is checked and not run
//	sh node          is for a node, or a tool of its cloud: nothing is run, and every command must be a known one
//	sh elsewhere     is run by another test; what it names must exist
//	yaml             a GateConfiguration, which a test of cmd/sentinel-gate loads
//	yaml values      values of the chart, which is rendered with them
//	yaml manifest    objects for the API server, or for Argo CD or Flux
//	yaml file        any other file
//	text, json, promql, go
//
// A path behind "values" and so on is where the block is written for the commands that follow it. Words like NODE and
// REGISTRY are replaced: see placeholders.
package docs

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/sentinel-gate/sentinel-gate/test/kit/build"
)

// block is a fenced block of a page.
type block struct {
	line    int
	section string // anchor of the heading above it
	kind    string // sh, yaml, text, ...
	needs   string // the second word of the info string
	file    string // the third
	text    string
}

func (b block) String() string { return fmt.Sprintf("line %d", b.line) }

// page is a file of the documentation.
type page struct {
	name    string // from the root of the repository
	prose   string // without the fenced blocks
	anchors map[string]bool
	blocks  []block
}

// pages are all that people read.
func pages(t *testing.T) []page {
	t.Helper()
	names := []string{"README.md", "CHANGELOG.md", "CONTRIBUTING.md", "deploy/node/README.md", "test/README.md"}
	for _, pattern := range []string{"docs/*.md", "docs/*/*.md"} {
		found, err := filepath.Glob(filepath.Join(root(t), pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range found {
			name, err := filepath.Rel(root(t), f)
			if err != nil {
				t.Fatal(err)
			}
			names = append(names, name)
		}
	}
	var all []page
	for _, name := range names {
		text, err := os.ReadFile(filepath.Join(root(t), name))
		if err != nil {
			t.Fatal(err)
		}
		p, err := parse(name, string(text))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	return all
}

func root(t *testing.T) string {
	t.Helper()
	dir, err := build.Root()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

var (
	fence   = regexp.MustCompile("^( *)```(.*)$")
	heading = regexp.MustCompile(`^#{1,6} +(.*?) *$`)
)

func parse(name, text string) (page, error) {
	p := page{name: name, anchors: map[string]bool{}}
	var (
		open   *block
		indent string
		prose  strings.Builder
		top    string
	)
	number := 0
	for line := range strings.Lines(text) {
		number++
		line = strings.TrimRight(line, "\n")
		m := fence.FindStringSubmatch(line)
		switch {
		case open == nil && m != nil:
			words := append(strings.Fields(m[2]), "", "", "")
			open, indent = &block{line: number, section: top, kind: words[0], needs: words[1], file: words[2]}, m[1]
			if len(words) > 6 {
				return p, fmt.Errorf("%s:%d: the info string %q has more than three words", name, number, m[2])
			}
		case open != nil && m != nil && m[2] == "":
			p.blocks = append(p.blocks, *open)
			open = nil
		case open != nil:
			open.text += strings.TrimPrefix(line, indent) + "\n"
		default:
			prose.WriteString(line + "\n")
			if h := heading.FindStringSubmatch(line); h != nil {
				top = anchor(h[1])
				for n, a := 1, top; p.anchors[top]; n++ {
					top = fmt.Sprintf("%s-%d", a, n)
				}
				p.anchors[top] = true
			}
		}
	}
	if open != nil {
		return p, fmt.Errorf("%s:%d: the block does not end", name, open.line)
	}
	p.prose = prose.String()
	return p, nil
}

// anchor is what a heading is called in links, by GitHub's rules.
func anchor(heading string) string {
	heading = regexp.MustCompile(`\[([^]]*)\]\([^)]*\)`).ReplaceAllString(heading, "$1")
	return strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case r == '-', r == '_', r >= '0' && r <= '9', r >= 'a' && r <= 'z', r > 127:
			return r
		default:
			return -1
		}
	}, strings.ToLower(heading))
}

// kinds are the info strings that there are: the words that may stand second.
var kinds = map[string][]string{
	"sh":   {"", "fresh", "cluster", "network", "node", "elsewhere"},
	"yaml": {"", "values", "manifest", "file"},
	"text": {""}, "json": {""}, "promql": {""}, "go": {""},
}

func TestEveryBlockSaysWhatItIs(t *testing.T) {
	found := 0
	for _, p := range pages(t) {
		for _, b := range p.blocks {
			found++
			if words, ok := kinds[b.kind]; !ok || !slices.Contains(words, b.needs) || b.file != "" && b.kind != "yaml" {
				t.Errorf("%s:%d: the info string \"%s %s %s\" says nothing to this test", p.name, b.line, b.kind, b.needs, b.file)
			}
		}
	}
	if found < 60 {
		t.Errorf("only %d blocks were found: does this test still read them rightly?", found)
	}
}

// A command that hides in a block of another kind would not be tested.
func TestCommandsAreInBlocksOfCommands(t *testing.T) {
	command := regexp.MustCompile(`(?m)^(kubectl|helm|sentinel-gate|sudo|systemctl|apt|apt-get|apt-mark|dnf|zypper|docker|promtool|make|go|curl|az|kops|ssh) .*$`)
	for _, p := range pages(t) {
		for _, b := range p.blocks {
			if b.kind != "sh" {
				if found := command.FindString(b.text); found != "" {
					t.Errorf("%s:%d: this is a command in a block of %s: %s", p.name, b.line, b.kind, found)
				}
			}
		}
	}
}

var (
	link = regexp.MustCompile(`\[[^]]*\]\(([^)\s]+)\)`)
	code = regexp.MustCompile("`[^`\n]*`")
)

func TestLinksLeadSomewhere(t *testing.T) {
	all := pages(t)
	anchors := map[string]map[string]bool{}
	for _, p := range all {
		anchors[p.name] = p.anchors
	}
	found := 0
	for _, p := range all {
		for _, m := range link.FindAllStringSubmatch(code.ReplaceAllString(p.prose, ""), -1) {
			if strings.HasPrefix(m[1], "https://") {
				continue
			}
			found++
			file, section, _ := strings.Cut(m[1], "#")
			target := p.name
			if file != "" {
				target = filepath.Join(filepath.Dir(p.name), file)
			}
			if _, err := os.Stat(filepath.Join(root(t), target)); err != nil {
				t.Errorf("%s: the link %s leads nowhere: %v", p.name, m[1], err)
			} else if section != "" && !anchors[target][section] {
				t.Errorf("%s: %s has no heading #%s", p.name, target, section)
			}
		}
	}
	if found < 50 {
		t.Errorf("only %d links were found", found)
	}
}

// Every page can be reached from the README.
func TestEveryPageIsLinked(t *testing.T) {
	linked := map[string]bool{"README.md": true, "CHANGELOG.md": true}
	all := pages(t)
	for range all {
		for _, p := range all {
			if !linked[p.name] {
				continue
			}
			for _, m := range link.FindAllStringSubmatch(p.prose, -1) {
				file, _, _ := strings.Cut(m[1], "#")
				linked[filepath.Join(filepath.Dir(p.name), file)] = true
			}
		}
	}
	for _, p := range all {
		if !linked[p.name] {
			t.Errorf("no way leads from README.md to %s", p.name)
		}
	}
}

// What the pages call a file of the repository is one.
func TestNamedFilesExist(t *testing.T) {
	ours := regexp.MustCompile(`(?:^|[\s` + "`" + `("=]|\./)((?:deploy|charts|docs)/[\w./*-]*[\w*])`)
	for _, p := range pages(t) {
		texts := code.FindAllString(p.prose, -1)
		for _, b := range p.blocks {
			if b.kind == "sh" || b.kind == "yaml" {
				texts = append(texts, b.text)
			}
		}
		for _, text := range texts {
			for _, m := range ours.FindAllStringSubmatch(text, -1) {
				if found, err := filepath.Glob(filepath.Join(root(t), m[1])); err != nil || len(found) == 0 {
					t.Errorf("%s names %s, which there is not", p.name, m[1])
				}
			}
		}
	}
}

// The map of the code has every file.
func TestMapOfTheCode(t *testing.T) {
	design, err := os.ReadFile(filepath.Join(root(t), "docs/design.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, pattern := range []string{"cmd/*/*.go", "gate/*.go", "gate/*/*.go", "checks/*.go"} {
		files, err := filepath.Glob(filepath.Join(root(t), pattern))
		if err != nil || len(files) == 0 {
			t.Fatal(pattern, err)
		}
		for _, file := range files {
			name := filepath.Base(file)
			if !strings.HasSuffix(name, "_test.go") && !regexp.MustCompile("[`/]"+regexp.QuoteMeta(name)+"`").Match(design) {
				t.Errorf("%s is not on the map of docs/design.md", file)
			}
		}
	}
}

func TestAnchors(t *testing.T) {
	for heading, want := range map[string]string{
		"Who owns the window?": "who-owns-the-window", "`sentinel.raw`": "sentinelraw", "/healthz and /readyz": "healthz-and-readyz",
		"A [link](x.md), too": "a-link-too", "Reasons of the pipeline": "reasons-of-the-pipeline",
	} {
		if got := anchor(heading); got != want {
			t.Errorf("%q is #%s, want #%s", heading, got, want)
		}
	}
}
