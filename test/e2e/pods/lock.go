package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	appsclient "k8s.io/client-go/kubernetes/typed/apps/v1"
	"k8s.io/client-go/util/retry"
)

// annotation is kured's own.
const annotation = "weave.works/kured-node-lock"

// lock is the annotation of kured's DaemonSet that names the node which may
// reboot. Only the API server's compare-and-swap decides who gets it.
type lock struct {
	sets            appsclient.DaemonSetsGetter
	namespace, name string
}

// holder returns the name of the node, or nothing.
func (l lock) holder(ctx context.Context) (string, error) {
	set, err := l.sets.DaemonSets(l.namespace).Get(ctx, l.name, metav1.GetOptions{})
	if err != nil {
		return "", fmt.Errorf("reading the lock: %w", err)
	}
	return holder(set)
}

func holder(set *appsv1.DaemonSet) (string, error) {
	value, ok := set.Annotations[annotation]
	if !ok {
		return "", nil
	}
	var l struct{ NodeID string }
	if err := json.Unmarshal([]byte(value), &l); err != nil {
		return "", fmt.Errorf("reading the lock: %w", err)
	}
	return l.NodeID, nil
}

// set hands the lock from one holder to the next; nobody is "". It fails if the
// holder is another than from.
func (l lock) set(ctx context.Context, from, to string) error {
	sets := l.sets.DaemonSets(l.namespace)
	return retry.RetryOnConflict(retry.DefaultRetry, func() error {
		set, err := sets.Get(ctx, l.name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if has, err := holder(set); err != nil {
			return err
		} else if has != from {
			return fmt.Errorf("the lock is held by %q", has)
		}
		delete(set.Annotations, annotation)
		if to != "" {
			metav1.SetMetaDataAnnotation(&set.ObjectMeta, annotation, fmt.Sprintf(`{"nodeID":%q,"metadata":{"unschedulable":false},"created":%q,"TTL":0}`,
				to, time.Now().UTC().Format(time.RFC3339Nano)))
		}
		_, err = sets.Update(ctx, set, metav1.UpdateOptions{})
		return err
	})
}
