package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

const lockAnnotation = "weave.works/kured-node-lock"

var errLocked = errors.New("another node has kured's lock")

// kured stands in for the one on a node: what it has once seen it acts on, sooner
// or later.
type kured struct {
	*member
	rng *rand.Rand
	// calm: it is neither late nor does it fail.
	calm bool
	// unsure: a write of the lock was not answered, and may still be carried out.
	unsure bool
}

func (k *kured) chance(p float64) bool { return k.rng.Float64() < p && !k.calm }

func (k *kured) upTo(d time.Duration) time.Duration {
	return time.Duration(k.rng.Float64() * float64(d))
}

func (k *kured) run(ctx context.Context) {
	k.requireReboot()
	for pass(ctx, 200*time.Millisecond+k.upTo(300*time.Millisecond)) {
		if k.unsure {
			_ = within(ctx, k.release)
		}
		if k.sees() {
			k.act(ctx)
		}
	}
}

// requireReboot makes the raw sentinel.
func (k *kured) requireReboot() {
	if k.exposure != nil {
		k.mu.Lock()
		version := k.exposure.version
		k.mu.Unlock()
		k.update(version, k.some(k.rng)...)
		return
	}
	if err := k.host.RequireReboot("linux-image"); err != nil {
		k.note("%s: %v", k.name, err)
	}
	k.note("%s: asks for a reboot", k.name)
}

// sees is kured's look at the sentinel.
func (k *kured) sees() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.host.Resolves() {
		return false
	}
	k.acting[k.member] = time.Now()
	k.noted("%s: kured sees the gate", k.name)
	return true
}

// done ends what sees began, where there was no reboot.
func (k *kured) done(why string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.acting, k.member)
	k.noted("%s: kured gives up: %s", k.name, why)
}

func (k *kured) act(ctx context.Context) {
	if k.chance(.2) {
		pass(ctx, k.upTo(settle/2))
	}
	if err := within(ctx, k.lock); err != nil {
		k.unsure = !errors.Is(err, errLocked) && !apierrors.IsConflict(err)
		if k.unsure { // it may have the lock all the same
			_ = until(ctx, k.release)
			k.unsure = true
		}
		k.done(err.Error())
		return
	}
	k.note("%s: kured has the lock", k.name)
	err := k.drain(ctx)
	if err != nil {
		_ = until(ctx, func(ctx context.Context) error { return k.cordon(ctx, false) })
		_ = until(ctx, k.release)
		k.done(err.Error())
		return
	}
	away := k.upTo(2 * time.Second)
	switch {
	case k.chance(.05):
		away = 20 * time.Second
	case k.chance(.01):
		away = 90 * time.Second
	}
	if err := k.reboot(ctx, away); err != nil {
		k.note("%s: %v", k.name, err)
		return
	}
	if k.chance(.5) {
		pass(ctx, k.upTo(2*time.Second))
	}
	_ = until(ctx, k.report)
	_ = until(ctx, func(ctx context.Context) error { return k.cordon(ctx, false) })
	_ = until(ctx, k.release)
	k.note("%s: kured is done", k.name)
	if pass(ctx, 2*time.Second+k.upTo(10*time.Second)) && !k.ended() {
		k.requireReboot()
	}
}

// report tells the API server of the boot, as the kubelet does.
func (k *kured) report(ctx context.Context) error {
	patch := fmt.Sprintf(`{"status":{"nodeInfo":{"bootID":%q}}}`, k.boot())
	if kernel := k.kernel(); kernel != "" {
		patch = fmt.Sprintf(`{"status":{"nodeInfo":{"bootID":%q,"kernelVersion":%q}}}`, k.boot(), kernel)
	}
	_, err := k.cp.Client().CoreV1().Nodes().Patch(ctx, k.name, types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{}, "status")
	return err
}

// drain cordons the node and moves its pods, which does not always succeed.
func (k *kured) drain(ctx context.Context) error {
	if err := within(ctx, func(ctx context.Context) error { return k.cordon(ctx, true) }); err != nil {
		return err
	}
	if pass(ctx, 100*time.Millisecond+k.upTo(time.Second)); k.chance(.1) {
		return errors.New("the drain fails")
	}
	return within(ctx, func(ctx context.Context) error {
		_, err := k.cp.Client().CoreV1().Nodes().Get(ctx, k.name, metav1.GetOptions{})
		return err
	})
}

func (k *kured) cordon(ctx context.Context, yes bool) error {
	patch := fmt.Sprintf(`{"spec":{"unschedulable":%t}}`, yes)
	_, err := k.cp.Client().CoreV1().Nodes().Patch(ctx, k.name, types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{})
	return err
}

func (k *kured) lock(ctx context.Context) error { return k.changeLock(ctx, "", k.name) }

func (k *kured) release(ctx context.Context) error {
	err := k.changeLock(ctx, k.name, "")
	if errors.Is(err, errLocked) {
		k.unsure = false
		return nil
	}
	if err == nil {
		k.unsure = false
	}
	return err
}

// changeLock hands kured's lock from one node to another; "" is nobody.
func (k *kured) changeLock(ctx context.Context, from, to string) error {
	sets := k.cp.Client().AppsV1().DaemonSets("kube-system")
	set, err := sets.Get(ctx, "kured", metav1.GetOptions{})
	if err != nil {
		return err
	}
	var holder struct {
		NodeID string `json:"nodeID"`
	}
	if value := set.Annotations[lockAnnotation]; value != "" {
		if err := json.Unmarshal([]byte(value), &holder); err != nil {
			return err
		}
	}
	if holder.NodeID != from {
		return errLocked
	}
	if set.Annotations == nil {
		set.Annotations = map[string]string{}
	}
	delete(set.Annotations, lockAnnotation)
	if to != "" {
		set.Annotations[lockAnnotation] = fmt.Sprintf(`{"nodeID":%q,"metadata":{"unschedulable":false},"created":%q,"TTL":0}`, to, time.Now().UTC().Format(time.RFC3339Nano))
	}
	_, err = sets.Update(ctx, set, metav1.UpdateOptions{})
	return err
}
