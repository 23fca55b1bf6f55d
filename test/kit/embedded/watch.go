package embedded

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
)

// watch tells of the changes of what matches, from the version that the request names, or with what there is now as the
// first of them where it names none. A version from which not every change is remembered is refused, as an event.
func (s *Server) watch(w http.ResponseWriter, r *http.Request, k key, matches func(Object) bool) error {
	form, err := negotiate(r)
	if err != nil {
		return err
	}
	if form.StreamSerializer == nil {
		return apierrors.NewBadRequest("a watch is served as JSON or as protobuf")
	}
	ctx, cancel, err := bounded(r)
	if err != nil {
		return err
	}
	defer cancel()
	var first []Object
	var version int64
	switch from := r.FormValue("resourceVersion"); from {
	case "", "0":
		first, version = s.store.list(k.kind, k.namespace)
	default:
		if version, err = strconv.ParseInt(from, 10, 64); err != nil || version < 0 {
			return apierrors.NewBadRequest(fmt.Sprintf("resourceVersion: Invalid value: %q", from))
		}
	}

	w.Header().Set("Content-Type", form.MediaType+";stream=watch")
	w.WriteHeader(http.StatusOK)
	_ = http.NewResponseController(w).Flush() // the client waits for the header, not for the first event
	tell := teller(w, form, k.kind)
	for _, o := range first {
		if matches(o) {
			if err := tell(watch.Added, o); err != nil {
				return nil // the client has gone, and the answer has begun
			}
		}
	}
	for {
		changes, more, ok := s.store.since(version)
		if !ok {
			expired := statusOf(apierrors.NewResourceExpired(fmt.Sprintf("too old resource version: %d", version)))
			_ = tell(watch.Error, expired)
			return nil
		}
		for _, c := range changes {
			version = c.version
			if c.kind != k.kind || k.namespace != "" && k.namespace != c.object.GetNamespace() {
				continue
			}
			if event, o := c.seenBy(matches); o != nil {
				if err := tell(event, o); err != nil {
					return nil
				}
			}
		}
		select {
		case <-more:
		case <-ctx.Done():
			return nil
		}
	}
}

// seenBy returns what the change is to who sees only what matches, and nil if it is nothing. What no longer matches is
// deleted, and as it was when it last did.
func (c change) seenBy(matches func(Object) bool) (watch.EventType, Object) {
	before := c.before != nil && matches(c.before)
	now := c.event != watch.Deleted && matches(c.object)
	switch {
	case before && now:
		return watch.Modified, clone(c.object)
	case now:
		return watch.Added, clone(c.object)
	case before:
		gone := clone(c.before)
		gone.SetResourceVersion(c.object.GetResourceVersion())
		return watch.Deleted, gone
	}
	return "", nil
}

// bounded returns a context that ends when the client goes, or when the watch has lasted as long as it asked for.
func bounded(r *http.Request) (context.Context, context.CancelFunc, error) {
	asked := r.FormValue("timeoutSeconds")
	if asked == "" {
		return r.Context(), func() {}, nil
	}
	seconds, err := strconv.ParseUint(asked, 10, 16)
	if err != nil {
		return nil, nil, apierrors.NewBadRequest("timeoutSeconds: " + err.Error())
	}
	ctx, cancel := context.WithTimeout(r.Context(), time.Duration(seconds)*time.Second)
	return ctx, cancel, nil
}

// teller returns what writes an event, and sends it at once.
func teller(w http.ResponseWriter, form runtime.SerializerInfo, k *kind) func(watch.EventType, runtime.Object) error {
	frames := form.StreamSerializer.NewFrameWriter(flushed{w})
	return func(event watch.EventType, o runtime.Object) error {
		version := k.GroupVersion()
		if event == watch.Error {
			version = metav1.Unversioned
		}
		raw, err := runtime.Encode(codecs.EncoderForVersion(form.Serializer, version), o)
		if err != nil {
			return err
		}
		return form.StreamSerializer.Encode(&metav1.WatchEvent{Type: string(event), Object: runtime.RawExtension{Raw: raw}}, frames)
	}
}

// flushed sends whatever is written.
type flushed struct{ http.ResponseWriter }

func (f flushed) Write(p []byte) (int, error) {
	n, err := f.ResponseWriter.Write(p)
	if err == nil {
		err = http.NewResponseController(f.ResponseWriter).Flush()
	}
	return n, err
}
