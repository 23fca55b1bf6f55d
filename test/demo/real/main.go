// Command real tells the story of the demo on a real control plane and a real Prometheus. The first time it compiles both.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/sentinel-gate/sentinel-gate/test/demo/story"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := errors.New("usage: real <path of sentinel-gate>")
	if len(os.Args) == 2 {
		err = run(ctx, os.Args[1], os.Stdout, story.Minute)
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, binary string, out io.Writer, pace story.Pace) error {
	dir, err := os.MkdirTemp("", "sentinel-gate-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	fmt.Fprintln(out, `
A minute in the life of two gates. The gates, the control plane and Prometheus are real; the first time, compiling these
two takes many minutes. The five nodes have no kubelet: this program says what theirs would say. There is no kured: this
program looks where a kured would look, and says what it would see. Nothing on this machine is changed or rebooted.
The number on the left is seconds since the start.`)
	w, err := newWorld(ctx, out)
	if err != nil {
		return err
	}
	defer w.stop()
	return story.Play(ctx, out, w, binary, dir, pace)
}
