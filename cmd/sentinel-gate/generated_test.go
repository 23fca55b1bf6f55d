package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/yaml"

	"github.com/sentinel-gate/sentinel-gate/checks"
	"github.com/sentinel-gate/sentinel-gate/test/kit/pages"
)

var update = flag.Bool("update", false, "write what is made from the types of check")

// generated are the files, or the parts of them, that are made from the types
// of check. Each is made from what the file has now.
var generated = []struct {
	file string
	make func(now string) (string, error)
}{
	{"charts/sentinel-gate/values.schema.json", schemaOfTheChart},
	{"charts/sentinel-gate/files/permissions.yaml", permissionsOfTheChart},
	{"README.md", region("types", wrapped("  ", linksTo("docs/checks/")))},
	{"docs/configuration.md", region("types", strings.Join(linksTo("checks/"), ", "))},
	{"docs/design.md", region("checks", "`checks/"+strings.Join(checkFiles(), "`, `")+"`")},
}

// make generate writes what is generated, and make test fails where it is not
// what would be written.
func TestGenerated(t *testing.T) {
	for _, g := range generated {
		t.Run(g.file, func(t *testing.T) {
			path := filepath.Join("../..", g.file)
			now, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			made, err := g.make(string(now))
			switch {
			case err != nil:
				t.Fatal(err)
			case made == string(now):
			case !*update:
				t.Errorf("%s is not what the types of check make it: run make generate", g.file)
			default:
				if err := os.WriteFile(path, []byte(made), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// region makes the part of a Markdown file between two comments.
func region(name, text string) func(string) (string, error) {
	begin, end := "<!-- made by make generate: "+name+" -->", "<!-- /"+name+" -->"
	return func(now string) (string, error) {
		before, rest, ok := strings.Cut(now, begin)
		_, after, ended := strings.Cut(rest, end)
		if !ok || !ended || strings.Contains(after, begin) {
			return "", fmt.Errorf("want %s, and later %s, once", begin, end)
		}
		return before + begin + text + end + after, nil
	}
}

func linksTo(folder string) []string {
	var links []string
	for _, typeName := range checks.Types() {
		links = append(links, fmt.Sprintf("[%s](%s%[1]s.md)", typeName, folder))
	}
	return links
}

func checkFiles() []string {
	var files []string
	for _, typeName := range checks.Types() {
		files = append(files, strings.ToLower(typeName)+".go")
	}
	return files
}

// wrapped lists the words, on lines of their own that begin with the indent.
func wrapped(indent string, words []string) string {
	const width = 120
	text, line := "", ""
	for i, word := range words {
		if i < len(words)-1 {
			word += ","
		}
		if line != "" && len(indent)+len(line)+1+len(word) > width {
			text += "\n" + indent + line
			line = ""
		}
		line = strings.TrimPrefix(line+" "+word, " ")
	}
	return text + "\n" + indent + line
}

// schemaOfTheChart lets the chart refuse what the daemon's decoder refuses.
func schemaOfTheChart(now string) (string, error) {
	var schema map[string]any
	if err := json.Unmarshal([]byte(now), &schema); err != nil {
		return "", err
	}
	schema["$defs"] = definitions()
	var made bytes.Buffer
	encoder := json.NewEncoder(&made)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	err := encoder.Encode(schema)
	return made.String(), err
}

// permissionsOfTheChart lets the chart know what each type needs by default, or
// with the options of its example where it cannot do without.
func permissionsOfTheChart(string) (string, error) {
	byType := map[string][]rbacv1.PolicyRule{}
	for _, typeName := range checks.Types() {
		check, problems := checks.New(typeName, nil, nil)
		if len(problems) > 0 {
			example, err := pages.Example(typeName)
			if err != nil {
				return "", err
			}
			if check, problems = checks.New(typeName, example, nil); len(problems) > 0 {
				return "", fmt.Errorf("the example of %s: %v", typeName, problems)
			}
		}
		if rules := checks.RulesOf(check); len(rules) > 0 && typeName != "resource" { // which the chart reads from the step's options
			byType[typeName] = rules
		}
	}
	text, err := yaml.Marshal(byType)
	return "# What each type of check needs by default. Made by make generate: do not edit.\n" + string(text), err
}
