// Command sentinel-gate is the daemon that decides, for one node, whether kured
// may see that a reboot is required.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strconv"
	"syscall"

	"github.com/spf13/pflag"
)

// version is set by the linker; a plain go build leaves it to the module.
var version string

// Exit statuses.
const (
	exitOK       = 0
	exitBlocked  = 1 // --once: a step does not pass; --verify: one is vacuous; otherwise: the daemon failed
	exitUnusable = 2 // the flags, the configuration or the cluster cannot be used
)

// unusable is an error that ends with exitUnusable, reported one that the table or
// the log has shown already.
type (
	unusable struct{ error }
	reported struct{ error }
)

func (u unusable) Unwrap() error { return u.error }
func (r reported) Unwrap() error { return r.error }

func main() {
	if os.Getenv("GOGC") == "" {
		// The gate runs on every node and evaluates twice a minute: memory is
		// dearer to its nodes than the processor time of a collection.
		debug.SetGCPercent(50)
	}
	// The rest of the container's limit is for what is not the heap: pages of the
	// program's file above all.
	if limit, err := strconv.ParseInt(os.Getenv("MEMORY_LIMIT"), 10, 64); err == nil && limit > 0 && os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(limit / 5 * 4)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	os.Exit(status(err, os.Stderr))
}

func status(err error, stderr io.Writer) int {
	if err == nil || errors.Is(err, pflag.ErrHelp) {
		return exitOK
	}
	if !errors.As(err, new(reported)) {
		fmt.Fprintln(stderr, "sentinel-gate:", err)
	}
	if errors.As(err, new(unusable)) {
		return exitUnusable
	}
	return exitBlocked
}

func run(ctx context.Context, args []string, stdout io.Writer) error {
	f, err := parse(args, stdout)
	if err != nil {
		return err
	}
	switch {
	case f.version:
		fmt.Fprintln(stdout, "sentinel-gate", buildVersion())
		return nil
	case f.checkConfig:
		return checkConfig(f, stdout)
	case f.printRBAC:
		return printRBAC(f, stdout)
	case f.verify:
		return verify(ctx, f, stdout)
	case f.forecast:
		return tellForecast(ctx, f, stdout)
	case f.once:
		return once(ctx, f, stdout)
	}
	return daemon(ctx, f, stdout)
}

func buildVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}
