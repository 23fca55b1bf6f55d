// Command servers builds the servers that the tests talk to, with progress: go
// test would swallow it, and count the minutes against its timeout.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"

	"github.com/sentinel-gate/sentinel-gate/test/kit/alertmanager"
	"github.com/sentinel-gate/sentinel-gate/test/kit/controlplane"
	"github.com/sentinel-gate/sentinel-gate/test/kit/helm"
	"github.com/sentinel-gate/sentinel-gate/test/kit/prometheus"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	for _, binary := range []func(context.Context, io.Writer) (string, error){
		controlplane.ServerBinary, controlplane.OldestAPIServerBinary, helm.Binary,
	} {
		if _, err := binary(ctx, os.Stderr); err != nil {
			return err
		}
	}
	for _, name := range []string{"prometheus", "promtool"} {
		if _, err := prometheus.Binary(ctx, os.Stderr, name); err != nil {
			return err
		}
	}
	_, err := alertmanager.Binary(ctx, os.Stderr)
	return err
}
