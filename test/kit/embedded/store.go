package embedded

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apimachinery/pkg/watch"
)

// remembered is how many changes a watch can go back.
const remembered = 1000

// store keeps the objects and the latest of their changes. There is one count of versions for all kinds, as in etcd:
// each change has the next. What is in it is never modified, only replaced.
type store struct {
	mu      sync.Mutex
	objects map[key]Object
	version int64         // of the last change
	changes []change      // the latest, without a gap
	more    chan struct{} // closed, and made anew, with each change
}

type key struct {
	kind            *kind
	namespace, name string
}

// change is what a watch tells of. An object that was deleted is as it was before, with the version of its deletion.
type change struct {
	version int64
	kind    *kind
	event   watch.EventType
	object  Object
	before  Object // nil where it was added
}

func newStore() *store {
	// A count that begins at 0 or 1 would give versions that mean something else in a request.
	return &store{objects: map[key]Object{}, version: 100, more: make(chan struct{})}
}

func clone[T runtime.Object](o T) T { return o.DeepCopyObject().(T) }

// equal compares as JSON does, to which what is empty and what is absent are mostly the same.
func equal(a, b Object) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}

var errModified = errors.New("the object has been modified; please apply your changes to the latest version and try again")

func conflict(k key, err error) error {
	return apierrors.NewConflict(k.kind.groupResource(), k.name, err)
}

func (s *store) get(k key) (Object, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, ok := s.objects[k]
	if !ok {
		return nil, apierrors.NewNotFound(k.kind.groupResource(), k.name)
	}
	return clone(o), nil
}

// list returns the objects of a namespace, or of all where it is empty, and the version of that.
func (s *store) list(k *kind, namespace string) ([]Object, int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []Object
	for key, o := range s.objects {
		if key.kind == k && (namespace == "" || namespace == key.namespace) {
			all = append(all, clone(o))
		}
	}
	slices.SortFunc(all, func(a, b Object) int {
		return cmp.Or(cmp.Compare(a.GetNamespace(), b.GetNamespace()), cmp.Compare(a.GetName(), b.GetName()))
	})
	return all, s.version
}

func (s *store) create(k key, o Object) (Object, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.objects[k]; ok {
		return nil, apierrors.NewAlreadyExists(k.kind.groupResource(), k.name)
	}
	o = clone(o)
	o.SetUID(uuid.NewUUID())
	o.SetCreationTimestamp(metav1.Now().Rfc3339Copy())
	return s.put(k, watch.Added, o, nil), nil
}

// update changes an object with optimistic locking: change is given a copy of what is there, and says what is to be
// there. An object that is not changed keeps its version.
func (s *store) update(k key, change func(Object) (Object, error)) (Object, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before, ok := s.objects[k]
	if !ok {
		return nil, apierrors.NewNotFound(k.kind.groupResource(), k.name)
	}
	o, err := change(clone(before))
	if err != nil {
		return nil, err
	}
	o = clone(o)
	switch {
	case o.GetUID() != "" && o.GetUID() != before.GetUID():
		return nil, conflict(k, fmt.Errorf("the UID is %s, not %s", before.GetUID(), o.GetUID()))
	case o.GetResourceVersion() != "" && o.GetResourceVersion() != before.GetResourceVersion():
		return nil, conflict(k, errModified)
	}
	// Nobody writes these but the server.
	o.SetUID(before.GetUID())
	o.SetCreationTimestamp(before.GetCreationTimestamp())
	o.SetResourceVersion(before.GetResourceVersion())
	if equal(o, before) {
		return o, nil
	}
	return s.put(k, watch.Modified, o, before), nil
}

func (s *store) delete(k key) (types.UID, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before, ok := s.objects[k]
	if !ok {
		return "", apierrors.NewNotFound(k.kind.groupResource(), k.name)
	}
	s.put(k, watch.Deleted, clone(before), before)
	delete(s.objects, k)
	return before.GetUID(), nil
}

// put gives the object its version, and returns a copy of it.
func (s *store) put(k key, event watch.EventType, o, before Object) Object {
	s.version++
	o.SetResourceVersion(strconv.FormatInt(s.version, 10))
	s.objects[k] = o
	s.changes = append(s.changes, change{s.version, k.kind, event, o, before})
	if len(s.changes) > 2*remembered {
		s.changes = slices.Clone(s.changes[remembered:])
	}
	close(s.more)
	s.more = make(chan struct{})
	return clone(o)
}

// since returns the changes after a version, and a channel that is closed with the next one. It returns false where not
// all of them are remembered.
func (s *store) since(version int64) ([]change, <-chan struct{}, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	first := s.version - int64(len(s.changes)) // the version before the first that is remembered
	if version < first {
		return nil, nil, false
	}
	return s.changes[min(int(version-first), len(s.changes)):], s.more, true
}
