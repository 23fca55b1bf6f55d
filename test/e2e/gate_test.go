package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// confinement is what /proc has of a gate that runs as its manifest says: a user
// of its own, no capability, no way to get one, and the runtime's seccomp profile.
var confinement = []string{
	"Uid:\t9817\t9817\t9817\t9817\n", "Gid:\t9817\t9817\t9817\t9817\n", "CapEff:\t0000000000000000\n", "CapBnd:\t0000000000000000\n",
	"NoNewPrivs:\t1\n", "Seccomp:\t2\n",
}

// confined returns nil if there is one gate on each node, and all are confined.
func (c *cluster) confined() error {
	commands, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return err
	}
	var problems []error
	gates := 0
	for _, file := range commands {
		command, err := os.ReadFile(file)
		if err != nil || !strings.HasPrefix(string(command), "/sentinel-gate\x00") {
			continue // another's, or one that has ended
		}
		gates++
		status, err := os.ReadFile(filepath.Join(filepath.Dir(file), "status"))
		if err != nil {
			problems = append(problems, err)
		}
		for _, want := range confinement {
			if !strings.Contains(string(status), "\n"+want) {
				problems = append(problems, fmt.Errorf("a gate runs without %q in\n%s", want, status))
			}
		}
	}
	if gates != len(c.nodes) {
		problems = append(problems, fmt.Errorf("%d gates run on %d nodes", gates, len(c.nodes)))
	}
	return errors.Join(problems...)
}

// wired returns nil if every gate has found that its kured looks at it.
func (c *cluster) wired() error {
	var problems []error
	for _, n := range c.nodes {
		if !strings.Contains(n.logs("sentinel-gate"), `"wiring":"Wired"`) {
			problems = append(problems, fmt.Errorf("the gate of %s does not say that kured looks at it", n.name))
		}
	}
	return errors.Join(problems...)
}
