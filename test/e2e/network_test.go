package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
)

const (
	// bridge joins the nodes; its address is their default route.
	bridge        = "sg0"
	bridgeAddress = "10.77.0.1"
	// service is the first address of the control plane's range: that of the
	// Service of the API server.
	service = "10.96.0.1:443"
)

// makeNetwork makes what joins the nodes, in the network namespace of the tests,
// and stands in there for the one Service that anybody uses. It ends with ctx.
func makeNetwork(ctx context.Context, apiServer string) error {
	host, _, err := net.SplitHostPort(service)
	if err != nil {
		return err
	}
	if err := errors.Join(
		ip("link add %s type bridge", bridge),
		ip("address add %s/24 dev %s", bridgeAddress, bridge),
		ip("address add %s/32 dev %s", host, bridge),
		ip("link set %s up", bridge),
	); err != nil {
		return err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", service)
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { _ = listener.Close() })
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			go forward(ctx, client, apiServer)
		}
	}()
	return nil
}

func removeNetwork() error { return ip("link delete %s", bridge) }

// forward connects a client to the API server until one of them hangs up.
func forward(ctx context.Context, client net.Conn, apiServer string) {
	defer client.Close()
	server, err := (&net.Dialer{}).DialContext(ctx, "tcp", apiServer)
	if err != nil {
		return
	}
	defer server.Close()
	stop := context.AfterFunc(ctx, func() { _ = client.Close() })
	defer stop()
	go func() {
		_, _ = io.Copy(server, client)
		_ = server.Close()
	}()
	_, _ = io.Copy(client, server)
}

// attach gives the node with this process a network card on the bridge.
func (n *node) attach(pid int) error {
	outer := "sg-" + n.name
	// The kernel takes its time to remove the card of the last boot.
	_ = ip("link delete %s", outer)
	return errors.Join(
		ip("link add %s type veth peer name eth0 netns %d", outer, pid),
		ip("link set %s master %s up", outer, bridge),
		ip("route replace %s via %s", n.podCIDR(), n.address()),
	)
}

func ip(format string, args ...any) error {
	cmd := exec.Command("ip", strings.Fields(fmt.Sprintf(format, args...))...) //nolint:noctx // it does not wait for anything
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", cmd, err, out)
	}
	return nil
}
