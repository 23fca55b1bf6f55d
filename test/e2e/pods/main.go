// Command pods is what runs in the pods of the end-to-end test besides the gate,
// by the name that it is called by: a kured, an agent of a CNI, the chown of the
// gate's own manifest, and the process that holds a pod's namespaces.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	err := run(ctx, filepath.Base(os.Args[0]), os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", filepath.Base(os.Args[0]), err)
		os.Exit(1)
	}
}

func run(ctx context.Context, name string, args []string) error {
	switch name {
	case "kured":
		return kured(ctx, args)
	case "flanneld":
		return flanneld(ctx)
	case "chown":
		return chown(args)
	case "pause":
		<-ctx.Done()
		return nil
	default:
		return fmt.Errorf("nothing here is called %q", name)
	}
}

// chown takes UID:GID FILE..., and no names: the image has no user database.
func chown(args []string) error {
	if len(args) < 2 {
		return fmt.Errorf("want UID:GID FILE..., not %q", args)
	}
	user, group, _ := strings.Cut(args[0], ":")
	uid, err := strconv.Atoi(user)
	if err != nil {
		return err
	}
	gid, err := strconv.Atoi(group)
	if err != nil {
		return err
	}
	for _, file := range args[1:] {
		if err := os.Chown(file, uid, gid); err != nil {
			return err
		}
	}
	return nil
}
