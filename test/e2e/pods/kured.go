package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"syscall"
	"time"

	"github.com/spf13/pflag"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	coreclient "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
)

// rebootSignal is SIGRTMIN+5, at which the first process of a node reboots it.
const rebootSignal = syscall.Signal(39)

// reboots does what kured does with a sentinel, as far as a gate can tell: it
// stats the file, takes the one lock of the cluster, cordons, reboots; and, back
// from the reboot, uncordons and releases the lock. It drains nothing, and does
// not make anybody wait for its first look.
type reboots struct {
	nodes      coreclient.NodeInterface
	sentinel   string
	node       string
	lock       lock
	period     time.Duration
	releaseLag time.Duration
}

// kured understands those of kured's own flags that the test sets.
func kured(ctx context.Context, args []string) error {
	r := reboots{node: os.Getenv("KURED_NODE_ID")}
	set := pflag.NewFlagSet("kured", pflag.ContinueOnError)
	set.StringVar(&r.sentinel, "reboot-sentinel", "/var/run/reboot-required", "")
	set.DurationVar(&r.period, "period", time.Hour, "")
	set.DurationVar(&r.releaseLag, "lock-release-delay", 0, "")
	set.StringVar(&r.lock.namespace, "ds-namespace", "kube-system", "")
	set.StringVar(&r.lock.name, "ds-name", "kured", "")
	concurrency := set.Int("concurrency", 1, "")
	method := set.String("reboot-method", "command", "")
	if err := set.Parse(args); err != nil {
		return err
	}
	if r.node == "" || *concurrency != 1 || *method != "signal" {
		return errors.New("this stand-in wants KURED_NODE_ID, --concurrency=1 and --reboot-method=signal")
	}
	config, err := rest.InClusterConfig()
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	r.nodes, r.lock.sets = client.CoreV1().Nodes(), client.AppsV1()
	for pause(ctx, r.period) {
		if err := r.look(ctx); err != nil && ctx.Err() == nil {
			log.Print(err)
		}
	}
	return nil
}

// look is one period's. It returns at the first request that fails, and where
// the lock is another's. The lock is this node's only after its reboot: before
// that look does not return.
func (r *reboots) look(ctx context.Context) error {
	holder, err := r.lock.holder(ctx)
	if err != nil {
		return err
	}
	if holder == r.node {
		log.Print("back from a reboot: uncordoning")
		if err := r.cordon(ctx, false); err != nil {
			return err
		}
		if !pause(ctx, r.releaseLag) {
			return nil
		}
		log.Print("releasing the lock")
		return r.lock.set(ctx, r.node, "")
	}
	if _, err := os.Stat(r.sentinel); err != nil {
		return nil //nolint:nilerr // no reboot is wanted, or the gate is closed
	}
	if err := r.lock.set(ctx, "", r.node); err != nil {
		return err
	}
	log.Printf("%s is there: cordoning and rebooting", r.sentinel)
	if err := r.cordon(ctx, true); err != nil {
		return err
	}
	if err := syscall.Kill(1, rebootSignal); err != nil {
		return fmt.Errorf("rebooting: %w", err)
	}
	<-ctx.Done()
	return nil
}

func (r *reboots) cordon(ctx context.Context, cordoned bool) error {
	patch := fmt.Appendf(nil, `{"spec":{"unschedulable":%t}}`, cordoned)
	if _, err := r.nodes.Patch(ctx, r.node, types.StrategicMergePatchType, patch, metav1.PatchOptions{}); err != nil {
		return fmt.Errorf("cordoning: %w", err)
	}
	return nil
}

// pause waits, and reports false if ctx ended meanwhile.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}
