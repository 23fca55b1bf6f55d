package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"
)

// module is there where the node's kernel has what the CNI needs.
const module = "/modules/vxlan"

// flanneld is the agent that a CNI runs on each node: it is Ready where the
// node's kernel lets it work, and ends at once where it does not, as after an
// update to a kernel that lacks a module.
func flanneld(ctx context.Context) error {
	if _, err := os.Stat(module); err != nil {
		return fmt.Errorf("making device flannel.1: operation not supported: is there no module vxlan? %w", err)
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", ":8090")
	if err != nil {
		return err
	}
	server := &http.Server{
		Handler:           http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}),
		ReadHeaderTimeout: time.Second,
	}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	if err := server.Serve(listener); ctx.Err() == nil {
		return err
	}
	return nil
}
