// Package embedded is an API server small enough to be compiled with whatever needs one, for a story or a first look:
// real HTTP, with LIST, WATCH, conflicts, resource versions, dates and errors as the real one gives them, for the few
// kinds that the gate reads. A client cannot tell it from the real one by what the gate asks; a test asks both the same
// and compares. It proves no promise: it authenticates, authorises, validates and defaults nothing, so whatever has to be
// proven is proven on test/kit/controlplane.
//
// Objects are read by HTTP. Of the gate, it takes Leases by HTTP; what kubelets, controllers and people write comes from
// the program itself, by Create and Change.
package embedded

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apimachinery/pkg/version"
)

// maxBody bounds what is read of a request, as the real server does.
const maxBody = 3 << 20

// Server is a running API server, without objects at first. Its methods may be used concurrently.
type Server struct {
	store   *store
	address string
	http    *http.Server
}

// Start returns a server that listens on loopback. Call Close.
func Start(ctx context.Context) (*Server, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("starting the embedded API server: %w", err)
	}
	s := &Server{store: newStore(), address: listener.Addr().String()}
	s.http = &http.Server{Handler: s.handler(), ReadHeaderTimeout: time.Minute}
	go func() { _ = s.http.Serve(listener) }()
	return s, nil
}

// Close ends all requests, watches among them.
func (s *Server) Close() { _ = s.http.Close() }

// URL is where the server listens.
func (s *Server) URL() string { return "http://" + s.address }

// WriteKubeconfig writes a file that lets a client reach the server.
func (s *Server) WriteKubeconfig(path string) error {
	return os.WriteFile(path, fmt.Appendf(nil, `apiVersion: v1
kind: Config
clusters: [{name: embedded, cluster: {server: %q}}]
contexts: [{name: embedded, context: {cluster: embedded}}]
current-context: embedded
`, s.URL()), 0o600)
}

// Create adds objects, their status included.
func (s *Server) Create(objects ...Object) error {
	for _, o := range objects {
		k := kindOf(o)
		if k == nil {
			return fmt.Errorf("creating a %T: the embedded API server does not keep it", o)
		}
		if _, err := s.store.create(key{k, o.GetNamespace(), o.GetName()}, o); err != nil {
			return err
		}
	}
	return nil
}

// Change changes an object, its status included, in one write. The namespace of a node is empty.
func Change[T any, O interface {
	*T
	Object
}](s *Server, namespace, name string, change func(O)) error {
	k := kindOf(O(new(T)))
	if k == nil {
		return fmt.Errorf("changing a %T: the embedded API server does not keep it", new(T))
	}
	_, err := s.store.update(key{k, namespace, name}, func(o Object) (Object, error) {
		change(o.(O))
		return o, nil
	})
	return err
}

func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /version", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(version.Info{Major: "1", Minor: "36", GitVersion: "v1.36.0+embedded"})
	})
	for _, k := range kinds {
		root := "/apis/" + k.Group + "/" + k.Version
		if k.Group == "" {
			root = "/api/" + k.Version
		}
		handle := func(method, path string, serve func(http.ResponseWriter, *http.Request, key) error) {
			mux.HandleFunc(method+" "+root+path, func(w http.ResponseWriter, r *http.Request) {
				if err := serve(w, r, key{k, r.PathValue("namespace"), r.PathValue("name")}); err != nil {
					refuse(w, r, err)
				}
			})
		}
		of := "/" + k.resource
		if k.namespaced {
			handle("GET", of, s.list)
			of = "/namespaces/{namespace}" + of
		}
		handle("GET", of, s.list)
		handle("POST", of, s.create)
		handle("GET", of+"/{name}", s.get)
		handle("PUT", of+"/{name}", s.update)
		handle("DELETE", of+"/{name}", s.delete)
	}
	return mux
}

func (s *Server) get(w http.ResponseWriter, r *http.Request, k key) error {
	o, err := s.store.get(k)
	if err != nil {
		return err
	}
	return answer(w, r, http.StatusOK, o, k.kind.GroupVersion())
}

// list answers both LIST and WATCH. A limit is not kept, which the API allows.
func (s *Server) list(w http.ResponseWriter, r *http.Request, k key) error {
	matches, err := selection(r, k.kind)
	if err != nil {
		return err
	}
	if on, _ := strconv.ParseBool(r.FormValue("watch")); on {
		return s.watch(w, r, k, matches)
	}
	objects, version := s.store.list(k.kind, k.namespace)
	selected := []runtime.Object{}
	for _, o := range objects {
		if matches(o) {
			selected = append(selected, o)
		}
	}
	list, err := scheme.New(k.kind.GroupVersion().WithKind(k.kind.Kind + "List"))
	if err != nil {
		return err
	}
	if err := meta.SetList(list, selected); err != nil {
		return err
	}
	accessor, err := meta.ListAccessor(list)
	if err != nil {
		return err
	}
	accessor.SetResourceVersion(strconv.FormatInt(version, 10))
	return answer(w, r, http.StatusOK, list, k.kind.GroupVersion())
}

// selection returns what the request's selectors select.
func selection(r *http.Request, k *kind) (func(Object) bool, error) {
	byLabel, err := labels.Parse(r.FormValue("labelSelector"))
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	byField, err := fields.ParseSelector(r.FormValue("fieldSelector"))
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	example, err := scheme.New(k.GroupVersionKind)
	if err != nil {
		return nil, err
	}
	known := k.selectable(example.(Object))
	for _, requirement := range byField.Requirements() {
		if !known.Has(requirement.Field) {
			return nil, apierrors.NewBadRequest("field label not supported: " + requirement.Field)
		}
	}
	return func(o Object) bool {
		return byLabel.Matches(labels.Set(o.GetLabels())) && byField.Matches(k.selectable(o))
	}, nil
}

func (s *Server) create(w http.ResponseWriter, r *http.Request, k key) error {
	o, err := decode(r, k)
	if err != nil {
		return err
	}
	if k.name = o.GetName(); k.name == "" {
		return apierrors.NewBadRequest("metadata.name is missing")
	}
	if o, err = s.store.create(k, o); err != nil {
		return err
	}
	return answer(w, r, http.StatusCreated, o, k.kind.GroupVersion())
}

func (s *Server) update(w http.ResponseWriter, r *http.Request, k key) error {
	o, err := decode(r, k)
	if err != nil {
		return err
	}
	if o.GetName() != k.name {
		return apierrors.NewBadRequest(fmt.Sprintf("the name of the object (%s) does not match the name on the URL (%s)", o.GetName(), k.name))
	}
	written, err := s.store.update(k, func(Object) (Object, error) {
		if o.GetResourceVersion() == "" {
			return nil, apierrors.NewInvalid(k.kind.GroupKind(), k.name, field.ErrorList{
				field.Invalid(field.NewPath("metadata", "resourceVersion"), "", "must be specified for an update"),
			})
		}
		return o, nil
	})
	status := http.StatusOK
	if apierrors.IsNotFound(err) {
		if o.GetResourceVersion() != "" || o.GetUID() != "" {
			return conflict(k, errors.New("the object was deleted"))
		}
		status = http.StatusCreated // a Lease may be created so
		written, err = s.store.create(k, o)
	}
	if err != nil {
		return err
	}
	return answer(w, r, status, written, k.kind.GroupVersion())
}

func (s *Server) delete(w http.ResponseWriter, r *http.Request, k key) error {
	if err := writable(k); err != nil {
		return err
	}
	uid, err := s.store.delete(k)
	if err != nil {
		return err
	}
	status := &metav1.Status{Status: metav1.StatusSuccess, Details: &metav1.StatusDetails{Name: k.name, Group: k.kind.Group, Kind: k.kind.resource, UID: uid}}
	return answer(w, r, http.StatusOK, status, metav1.Unversioned)
}

// writable refuses whatever the gate's permissions refuse.
func writable(k key) error {
	if k.kind.resource == "leases" {
		return nil
	}
	return apierrors.NewForbidden(k.kind.groupResource(), k.name, errors.New("the gate writes nothing but Leases"))
}

// decode reads the object that the request brings.
func decode(r *http.Request, k key) (Object, error) {
	if err := writable(k); err != nil {
		return nil, err
	}
	body, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, maxBody))
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	decoded, gvk, err := codecs.UniversalDeserializer().Decode(body, &k.kind.GroupVersionKind, nil)
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	o, ok := decoded.(Object)
	if !ok || *gvk != k.kind.GroupVersionKind {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("the object is a %s, not a %s", gvk.Kind, k.kind.Kind))
	}
	if o.GetNamespace() == "" {
		o.SetNamespace(k.namespace)
	}
	if o.GetNamespace() != k.namespace {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("the namespace of the object (%s) does not match the namespace on the URL (%s)", o.GetNamespace(), k.namespace))
	}
	return o, nil
}

// negotiate returns the first form that the client accepts and the server writes.
func negotiate(r *http.Request) (runtime.SerializerInfo, error) {
	for clause := range strings.SplitSeq(r.Header.Get("Accept"), ",") {
		form, parameters, err := mime.ParseMediaType(clause)
		if err != nil || form == "*/*" || form == "application/*" {
			form = runtime.ContentTypeJSON
		}
		// As a table, or of an object only its metadata: the real server does that, and clients that ask for it also
		// accept the object.
		if parameters["as"] != "" && !metadataOnly(parameters) {
			continue
		}
		if info, ok := runtime.SerializerInfoForMediaType(codecs.SupportedMediaTypes(), form); ok {
			return info, nil
		}
	}
	return runtime.SerializerInfo{}, &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusNotAcceptable, Reason: metav1.StatusReasonNotAcceptable,
		Message: "only JSON, YAML and protobuf are served",
	}}
}

// metadataOnly reports whether of the objects of a list only the metadata is asked for.
func metadataOnly(parameters map[string]string) bool {
	return parameters["as"] == "PartialObjectMetadataList" && parameters["g"] == metav1.GroupName && parameters["v"] == "v1"
}

// metadataOf is what is left of a list of which only the metadata is asked for.
func metadataOf(r *http.Request, o runtime.Object, version schema.GroupVersion) (runtime.Object, schema.GroupVersion) {
	first, _, _ := strings.Cut(r.Header.Get("Accept"), ",")
	_, parameters, err := mime.ParseMediaType(first)
	whole, isList := o.(metav1.ListInterface)
	if err != nil || !isList || !metadataOnly(parameters) {
		return o, version
	}
	list := &metav1.PartialObjectMetadataList{ListMeta: metav1.ListMeta{
		ResourceVersion: whole.GetResourceVersion(), Continue: whole.GetContinue(), RemainingItemCount: whole.GetRemainingItemCount(),
	}}
	_ = meta.EachListItem(o, func(item runtime.Object) error {
		if object, err := meta.Accessor(item); err == nil {
			list.Items = append(list.Items, *meta.AsPartialObjectMetadata(object))
		}
		return nil
	})
	return list, metav1.SchemeGroupVersion
}

func answer(w http.ResponseWriter, r *http.Request, status int, o runtime.Object, version schema.GroupVersion) error {
	form, err := negotiate(r)
	if err != nil {
		return err
	}
	o, version = metadataOf(r, o, version)
	body, err := runtime.Encode(codecs.EncoderForVersion(form.Serializer, version), o)
	if err != nil {
		return err
	}
	write(w, status, form.MediaType, body)
	return nil
}

func write(w http.ResponseWriter, status int, mediaType string, body []byte) {
	w.Header().Set("Content-Type", mediaType)
	w.WriteHeader(status)
	_, _ = w.Write(body) // a client that has gone needs no answer
}

// refuse answers with the Status of the error.
func refuse(w http.ResponseWriter, r *http.Request, err error) {
	status := statusOf(err)
	if err := answer(w, r, int(status.Code), status, metav1.Unversioned); err != nil {
		body, _ := json.Marshal(statusOf(err))
		write(w, int(statusOf(err).Code), runtime.ContentTypeJSON, body)
	}
}

func statusOf(err error) *metav1.Status {
	var known apierrors.APIStatus
	if !errors.As(err, &known) {
		known = apierrors.NewInternalError(err)
	}
	status := known.Status()
	return &status
}
