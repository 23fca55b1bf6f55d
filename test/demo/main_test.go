package main

import (
	"bytes"
	"context"
	"testing"
	"time"

	"github.com/sentinel-gate/sentinel-gate/test/demo/story"
	"github.com/sentinel-gate/sentinel-gate/test/kit/daemon"
)

// The demo is the first thing that anybody sees: it must tell its story to the end, in the order in which it is told.
func TestStory(t *testing.T) {
	binary, err := daemon.Binary(t.Context(), t.TempDir(), false)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var out bytes.Buffer
	if err := run(ctx, binary, &out, story.Pace{Soak: 4 * time.Second, Stabilize: time.Second}); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	if err := story.Complete(out.String()); err != nil {
		t.Error(err)
	}
}
