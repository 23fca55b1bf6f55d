package main

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"
)

// The demo is the first thing that anybody sees: it must tell its story to the
// end, in the order in which it is told.
func TestStory(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	var out bytes.Buffer
	if err := run(ctx, &out); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	rest := out.String()
	for _, want := range []string{
		"idle: no reboot is pending", "kured sees: no such file",
		"soak (Soaking)", "node n3 booted", "STEP ", "opens at",
		"open: every step passes", "kured sees: the file exists",
		"n4 goes NotReady", "stopped resolving", "closed: step", "n4 (Ready=False", "kured sees: no such file",
		"the soak starts anew", "kured sees: the file exists",
		"the operator halts", "stopped resolving", "halted: INC-1234", "kured sees: no such file", "kured sees: the file exists",
		"SIGKILL", "stopped resolving", "the link is still there", "kured sees: no such file",
	} {
		_, after, found := strings.Cut(rest, want)
		if !found {
			t.Fatalf("%q is missing, or comes too early, in:\n%s", want, out.String())
		}
		rest = after
	}
}
