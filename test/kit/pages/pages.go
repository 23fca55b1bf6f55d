// Package pages reads what the pages of the documentation show.
package pages

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"

	"sigs.k8s.io/yaml"

	"github.com/sentinel-gate/sentinel-gate/test/kit/build"
)

var yamlBlock = regexp.MustCompile("(?s)```yaml\n(.*?)```")

// Example returns the options, as JSON, of the first step of the type in the examples on its page. Who needs a step of
// every type takes them where a type cannot do without options, so that nobody has to write them down once more.
func Example(typeName string) ([]byte, error) {
	root, err := build.Root()
	if err != nil {
		return nil, err
	}
	page := filepath.Join(root, "docs/checks", typeName+".md")
	text, err := os.ReadFile(page)
	if err != nil {
		return nil, err
	}
	for _, block := range yamlBlock.FindAllSubmatch(text, -1) {
		var config struct {
			Checks []struct {
				Type    string          `json:"type"`
				Options json.RawMessage `json:"options"`
			} `json:"checks"`
		}
		if err := yaml.Unmarshal(block[1], &config); err != nil {
			return nil, fmt.Errorf("reading the examples of %s: %w", page, err)
		}
		for _, step := range config.Checks {
			if step.Type == typeName {
				return step.Options, nil
			}
		}
	}
	return nil, fmt.Errorf("%s has no example of a step of its type", page)
}
