package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"k8s.io/client-go/tools/clientcmd"

	"github.com/sentinel-gate/sentinel-gate/test/kit/cluster"
	"github.com/sentinel-gate/sentinel-gate/test/kit/controlplane"
	"github.com/sentinel-gate/sentinel-gate/test/kit/daemon"
)

// onThousands measures on 5,000 nodes, each as large as a kubelet makes it,
// with a CNI pod and a record each.
func (b *bench) onThousands(ctx context.Context) error {
	fmt.Fprintln(os.Stderr, "making 5,000 nodes")
	s, err := b.site(ctx, 5000, controlplane.Options{})
	if err != nil {
		return err
	}
	defer s.cp.Stop()
	return b.sideBySide(ctx, s, 5000)
}

// cost is what one pass over the cluster took, at the median of some runs.
type cost struct {
	wall, cpu   time.Duration
	bytes, peak float64
}

// evaluate measures one evaluation by a process of its own, through the relay.
func (b *bench) evaluate(ctx context.Context, s *site, relay *relay, o daemon.Options) (cost, error) {
	var err error
	if o.Kubeconfig, err = relay.kubeconfig(s, b.dir); err != nil {
		return cost{}, err
	}
	o.Args = []string{"--once"}
	// The gate that wrote the first node's record, if there was one, has long ended.
	if err := s.Record(ctx, s.Nodes[0], time.Now().Add(-cluster.BootedAgo)); err != nil {
		return cost{}, err
	}
	return relay.measure(func() ([]*exec.Cmd, error) {
		cmd, err := daemon.Command(ctx, o)
		return []*exec.Cmd{cmd}, err
	})
}

// sideBySide evaluates once with the gate, and with the kubectl commands of a
// shell loop that asks the same of the same API server.
func (b *bench) sideBySide(ctx context.Context, s *site, size int) error {
	relay, err := newRelay(ctx, s, nil)
	if err != nil {
		return err
	}
	defer relay.listener.Close()
	kubeconfig, err := relay.kubeconfig(s, b.dir)
	if err != nil {
		return err
	}
	o, err := b.options(s, 1, "")
	if err != nil {
		return err
	}
	gate, err := b.evaluate(ctx, s, relay, o)
	if err != nil {
		return err
	}
	loop, err := relay.measure(func() ([]*exec.Cmd, error) {
		return []*exec.Cmd{
			s.cp.Kubectl(ctx, kubeconfig, "get", "nodes", "--no-headers"),
			s.cp.Kubectl(ctx, kubeconfig, "get", "pods", "-n", cluster.CNINamespace, "-l", "k8s-app=calico-node", "--no-headers"),
			s.cp.Kubectl(ctx, kubeconfig, "get", "nodes", "-o", "jsonpath={range .items[*]}{.metadata.name} {.status.conditions[?(@.type==\"Ready\")].lastTransitionTime}{\"\\n\"}{end}"),
		}, nil
	})
	if err != nil {
		return err
	}
	figure, target := "one evaluation of four steps, a process of its own (--once), 5 nodes", "stated"
	if size > 5 {
		figure = "one evaluation with 5,000 nodes and 5,000 CNI pods (--once)"
		target = "under 2 s, bytes stated, under 128 MiB"
	}
	b.add(figure, target, "%s", gate)
	b.add(fmt.Sprintf("the same by three kubectl commands, %d nodes (no records, no alerts)", size), "side by side", "%s; the gate takes %.2f of its time, %.2f of its processor time, %.2f of its bytes",
		loop, gate.wall.Seconds()/loop.wall.Seconds(), gate.cpu.Seconds()/loop.cpu.Seconds(), gate.bytes/loop.bytes)
	return nil
}

func (c cost) String() string {
	return words(fmt.Sprintf("%.2f s", c.wall.Seconds()), fmt.Sprintf("%.2f s of processor time", c.cpu.Seconds()),
		mib(c.bytes)+" from the API server", "peak memory "+mib(c.peak))
}

// relay counts what the API server sends, on its way through a TCP port.
type relay struct {
	listener net.Listener
	source   net.IP // what the API server takes for the client's address
	received atomic.Int64
}

func newRelay(ctx context.Context, s *site, source net.IP) (*relay, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &relay{listener: listener, source: source}
	target := strings.TrimPrefix(s.cp.URL(), "https://")
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			go r.serve(ctx, client, target)
		}
	}()
	return r, nil
}

func (r *relay) serve(ctx context.Context, client net.Conn, target string) {
	defer client.Close()
	server, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: r.source}}).DialContext(ctx, "tcp", target)
	if err != nil {
		return
	}
	defer server.Close()
	go func() { _, _ = io.Copy(server, client) }()
	_, _ = io.Copy(client, io.TeeReader(server, counter{&r.received}))
}

type counter struct{ n *atomic.Int64 }

func (c counter) Write(p []byte) (int, error) {
	c.n.Add(int64(len(p)))
	return len(p), nil
}

// kubeconfig is the gate's own, by way of the relay.
func (r *relay) kubeconfig(s *site, dir string) (string, error) {
	config, err := clientcmd.LoadFromFile(s.kubeconfig)
	if err != nil {
		return "", err
	}
	for _, c := range config.Clusters {
		c.Server = "https://" + r.listener.Addr().String()
	}
	path := filepath.Join(dir, "relay.kubeconfig")
	return path, clientcmd.WriteToFile(*config, path)
}

// measure runs the commands one after the other, five times, and returns the
// run of the median time.
func (r *relay) measure(commands func() ([]*exec.Cmd, error)) (cost, error) {
	const runs = 5
	var costs []cost
	for range runs {
		cmds, err := commands()
		if err != nil {
			return cost{}, err
		}
		var c cost
		before, began := r.received.Load(), time.Now()
		for _, cmd := range cmds {
			var stdout, stderr strings.Builder
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			if err := cmd.Start(); err != nil {
				return cost{}, err
			}
			peak := peakOf(cmd.Process.Pid)
			if err := cmd.Wait(); err != nil {
				return cost{}, fmt.Errorf("%s: %w\n%.2000s%s", cmd, err, stdout.String(), stderr.String())
			}
			c.cpu += cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
			c.peak = max(c.peak, <-peak)
		}
		c.wall, c.bytes = time.Since(began), float64(r.received.Load()-before)
		costs = append(costs, c)
	}
	median := 0
	for i := range costs {
		faster := 0
		for _, other := range costs {
			if other.wall < costs[i].wall {
				faster++
			}
		}
		if faster == runs/2 {
			median = i
		}
	}
	return costs[median], nil
}

// peakOf returns the most memory that the process had, once it has ended. Its
// rusage does not tell: that begins with what its parent had when it started it.
func peakOf(pid int) <-chan float64 {
	result := make(chan float64, 1)
	go func() {
		var peak float64
		for {
			status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
			_, line, found := strings.Cut(string(status), "VmHWM:")
			if err != nil || !found { // it is gone, or waits for its end to be seen
				result <- peak
				return
			}
			if kib, err := strconv.ParseFloat(strings.Fields(line)[0], 64); err == nil {
				peak = max(peak, kib*1024)
			}
			time.Sleep(time.Millisecond)
		}
	}()
	return result
}
