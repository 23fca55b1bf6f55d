// Command demo walks two gates through a minute. The gates are the real daemon. The API server and the alerts are
// embedded here, so that the demo compiles about as quickly as the daemon; test/demo/real is the same on the real ones.
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
	err := errors.New("usage: demo <path of sentinel-gate>")
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
A minute in the life of two gates. The gates are the real sentinel-gate. The API server with its five nodes, and the
Prometheus, are small ones inside this program. There is no kured: this program looks where a kured would look, and says
what it would see. Nothing on this machine is changed or rebooted. The number on the left is seconds since the start.`)
	w, err := newWorld(ctx, dir)
	if err != nil {
		return err
	}
	defer w.close()
	return story.Play(ctx, out, w, binary, dir, pace)
}
