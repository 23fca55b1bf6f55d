package main

import (
	"bytes"
	"testing"
	"time"

	"github.com/sentinel-gate/sentinel-gate/test/demo/story"
	"github.com/sentinel-gate/sentinel-gate/test/kit/daemon"
)

// The same story, on the real control plane and the real Prometheus.
func TestStory(t *testing.T) {
	binary, err := daemon.Binary(t.Context(), t.TempDir(), false)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := run(t.Context(), binary, &out, story.Pace{Soak: 4 * time.Second, Stabilize: time.Second}); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	if err := story.Complete(out.String()); err != nil {
		t.Error(err)
	}
}
