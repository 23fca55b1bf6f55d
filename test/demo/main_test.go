package main

import (
	"bytes"
	"testing"
	"time"

	"github.com/sentinel-gate/sentinel-gate/test/demo/story"
	"github.com/sentinel-gate/sentinel-gate/test/kit/daemon"
	"github.com/sentinel-gate/sentinel-gate/test/kit/suite"
)

// The demo is the first thing that anybody sees: it must tell its story to the end, in the order in which it is told.
func TestStory(t *testing.T) {
	suite.NeedsServers(t)
	binary, err := daemon.Binary(t.Context(), t.TempDir(), true)
	if err != nil {
		t.Fatal(err)
	}
	ctx := suite.Context(t, 2*time.Minute)
	var out bytes.Buffer
	if err := run(ctx, binary, &out, story.Pace{Soak: 4 * time.Second, Stabilize: time.Second}); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	if err := story.Complete(out.String()); err != nil {
		t.Error(err)
	}
}
