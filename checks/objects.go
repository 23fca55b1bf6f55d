package checks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	jsonutil "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/sentinel-gate/sentinel-gate/gate/clock"
)

// maxObject is the most bytes that may be read without an object's end: more
// than the API server stores in one, so that an answer of any length needs no
// more memory.
const maxObject = 8 << 20

// object is an object of any type, as its JSON has it. Whole numbers are int64.
type object = map[string]any

// selection is which objects are read.
type selection struct {
	version        schema.GroupVersion
	resource       string // the plural
	namespace      string // empty: all
	labels, fields string // selectors
}

// String says what is selected, in the plural.
func (s selection) String() string {
	out := s.resource
	if s.version.Group != "" {
		out += "." + s.version.Group
	}
	if s.labels != "" {
		out += fmt.Sprintf(" with labels %q", s.labels)
	}
	if s.fields != "" {
		out += fmt.Sprintf(" with fields %q", s.fields)
	}
	if s.namespace != "" {
		out += " in namespace " + s.namespace
	}
	return out
}

// root is the path below which the API server serves the version.
func (s selection) root() string {
	if s.version.Group == "" {
		return "/api/" + s.version.Version
	}
	return "/apis/" + s.version.String()
}

// get sends the request, and returns its answer as a decoder that reads it as
// it is needed.
func (c *Cluster) get(ctx context.Context, s selection, options metav1.ListOptions) (*stream, error) {
	address := path.Join(s.root(), s.resource)
	if s.namespace != "" {
		address = path.Join(s.root(), "namespaces", s.namespace, s.resource)
	}
	options.LabelSelector, options.FieldSelector = s.labels, s.fields
	body, err := c.core.RESTClient().Get().AbsPath(address).VersionedParams(&options, scheme.ParameterCodec).
		SetHeader("Accept", "application/json").Stream(ctx)
	if err != nil {
		return nil, err
	}
	return newStream(body), nil
}

// eachObject lists all pages, and calls each with one object at a time: never
// is more than one held. It returns where a watch takes up.
func (c *Cluster) eachObject(ctx context.Context, s selection, each func(object, time.Time) error) (version string, now time.Time, err error) {
	ctx, reading := clock.Read(ctx)
	options := metav1.ListOptions{Limit: page}
	for {
		list, err := c.listPage(ctx, s, options, func(o object) error {
			if now.IsZero() {
				if now, err = reading.Now(); err != nil {
					return err
				}
			}
			return each(o, now)
		})
		if err != nil {
			return "", now, fmt.Errorf("listing %s: %w", s, err)
		}
		if version == "" {
			version = list.ResourceVersion
		}
		if options.Continue = list.Continue; options.Continue == "" {
			break
		}
	}
	if now, err = reading.Now(); err != nil {
		return "", now, fmt.Errorf("listing %s: %w", s, err)
	}
	return version, now, nil
}

func (c *Cluster) listPage(ctx context.Context, s selection, options metav1.ListOptions, each func(object) error) (metav1.ListMeta, error) {
	answer, err := c.get(ctx, s, options)
	if err != nil {
		return metav1.ListMeta{}, err
	}
	defer answer.body.Close()
	return answer.list(each)
}

// followObjects watches from where a listing was read, and calls changed with
// each change. It returns when the watch ends.
func (c *Cluster) followObjects(ctx context.Context, s selection, version string, changed func(watch.EventType, object) error) error {
	answer, err := c.get(ctx, s, metav1.ListOptions{Watch: true, ResourceVersion: version})
	if err != nil {
		return fmt.Errorf("watching %s: %w", s, err)
	}
	defer answer.body.Close()
	for {
		event := struct {
			Type   watch.EventType
			Object object
		}{}
		if err = answer.decode(&event); err != nil {
			break // the API server ends each watch after a while
		}
		if err = jsonutil.ConvertMapNumbers(event.Object, 0); err != nil {
			break
		}
		if event.Type == watch.Error {
			err = fmt.Errorf("the API server ended the watch: %v", event.Object["message"])
			break
		}
		if err = changed(event.Type, event.Object); err != nil {
			break
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("watching %s: %w", s, err)
}

// serves returns an error where the API server says that it does not serve the
// selection. Where it does not answer, or may not be asked, there is none.
func (c *Cluster) serves(ctx context.Context, s selection) error {
	answer, err := c.core.RESTClient().Get().AbsPath(s.root()).SetHeader("Accept", "application/json").Do(ctx).Raw()
	if apierrors.IsNotFound(err) {
		return fmt.Errorf("options.apiVersion: the API server does not serve %s: is its CustomResourceDefinition installed?", s.version)
	}
	var known metav1.APIResourceList
	if err != nil || json.Unmarshal(answer, &known) != nil {
		return nil //nolint:nilerr // it is not known, and each evaluation asks again
	}
	for i := range known.APIResources {
		if r := &known.APIResources[i]; r.Name == s.resource {
			if s.namespace != "" && !r.Namespaced {
				return fmt.Errorf("options.namespace: %s are in no namespace", s.resource)
			}
			return nil
		}
	}
	return fmt.Errorf("options.resource: the API server serves no %q in %s: see kubectl api-resources --api-group=%s", s.resource, s.version, s.version.Group)
}

// stream decodes JSON as it arrives, in bounded memory.
type stream struct {
	body io.ReadCloser
	json *json.Decoder
	// left is how many bytes may still come before a value ends.
	left int
}

func newStream(body io.ReadCloser) *stream {
	s := &stream{body: body, left: maxObject}
	s.json = json.NewDecoder(s)
	s.json.UseNumber()
	return s
}

var errTooLarge = fmt.Errorf("the answer has an object of more than %d MiB", maxObject>>20)

// Read reads the body for the decoder.
func (s *stream) Read(p []byte) (int, error) {
	if s.left == 0 {
		return 0, errTooLarge
	}
	n, err := s.body.Read(p[:min(len(p), s.left)])
	s.left -= n
	return n, err
}

func (s *stream) decode(into any) error {
	s.left = maxObject
	return unended(s.json.Decode(into))
}

// unended makes an end in the middle of an answer what it is.
func unended(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// list reads a list, and calls each with its objects. An answer that is cut
// off, or is no list, is an error.
func (s *stream) list(each func(object) error) (metav1.ListMeta, error) {
	var meta metav1.ListMeta
	isList := false
	if err := s.expect(json.Delim('{')); err != nil {
		return meta, err
	}
	for s.json.More() {
		key, err := s.json.Token()
		if err != nil {
			return meta, unended(err)
		}
		switch key {
		case "metadata":
			err = s.decode(&meta)
		case "items":
			isList = true
			err = s.items(each)
		default:
			err = s.decode(new(json.RawMessage))
		}
		if err != nil {
			return meta, err
		}
	}
	if err := s.expect(json.Delim('}')); err != nil {
		return meta, err
	}
	if !isList {
		return meta, errNoList
	}
	return meta, nil
}

var errNoList = errors.New("the answer is no list")

func (s *stream) items(each func(object) error) error {
	open, err := s.json.Token()
	if err != nil || open == nil {
		return unended(err) // null is how a list without objects may be written
	}
	if open != json.Delim('[') {
		return errNoList
	}
	for s.json.More() {
		var o object
		if err := s.decode(&o); err != nil {
			return err
		}
		if err := jsonutil.ConvertMapNumbers(o, 0); err != nil {
			return err
		}
		if err := each(o); err != nil {
			return err
		}
	}
	return s.expect(json.Delim(']'))
}

func (s *stream) expect(want json.Token) error {
	got, err := s.json.Token()
	if err == nil && got != want {
		err = errNoList
	}
	return unended(err)
}
