package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	jsonutil "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/sentinel-gate/sentinel-gate/gate/clock"
)

// maxObject is the most bytes that may be read without an object's end: more
// than the API server stores in one, so that an answer of any length needs no
// more memory.
const maxObject = 8 << 20

// Object is an object of any type, as its JSON has it. Whole numbers are int64.
type Object = map[string]any

// Selection is which objects are read.
type Selection struct {
	Version        schema.GroupVersion
	Resource       string // the plural
	Namespace      string // empty: all
	Labels, Fields string // selectors
}

// String says what is selected, in the plural.
func (s Selection) String() string {
	out := s.Resource
	if s.Version.Group != "" {
		out += "." + s.Version.Group
	}
	if s.Labels != "" {
		out += fmt.Sprintf(" with labels %q", s.Labels)
	}
	if s.Fields != "" {
		out += fmt.Sprintf(" with fields %q", s.Fields)
	}
	if s.Namespace != "" {
		out += " in namespace " + s.Namespace
	}
	return out
}

// root is the path below which the API server serves the version.
func (s Selection) root() string {
	if s.Version.Group == "" {
		return "/api/" + s.Version.Version
	}
	return "/apis/" + s.Version.String()
}

// get sends the request, and returns its answer, to be read as it is needed.
func (c *Cluster) get(ctx context.Context, s Selection, options metav1.ListOptions) (io.ReadCloser, error) {
	address := path.Join(s.root(), s.Resource)
	if s.Namespace != "" {
		address = path.Join(s.root(), "namespaces", s.Namespace, s.Resource)
	}
	options.LabelSelector, options.FieldSelector = s.Labels, s.Fields
	return c.core.Get().AbsPath(address).VersionedParams(&options, parameters).SetHeader("Accept", "application/json").Stream(ctx)
}

// EachObject lists all pages, and calls each with one object at a time: never
// is more than one held. It returns where a watch takes up.
func (c *Cluster) EachObject(ctx context.Context, s Selection, each func(Object, time.Time) error) (version string, now time.Time, err error) {
	ctx, reading := clock.Read(ctx)
	options := metav1.ListOptions{Limit: page}
	for {
		list, err := c.listPage(ctx, s, options, func(o Object) error {
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

func (c *Cluster) listPage(ctx context.Context, s Selection, options metav1.ListOptions, each func(Object) error) (metav1.ListMeta, error) {
	answer, err := c.get(ctx, s, options)
	if err != nil {
		return metav1.ListMeta{}, err
	}
	defer answer.Close()
	return ReadList(answer, each)
}

// FollowObjects watches from where a listing was read, and calls changed with
// each change. It returns when the watch ends.
func (c *Cluster) FollowObjects(ctx context.Context, s Selection, version string, changed func(watch.EventType, Object) error) error {
	ctx, answer, end, err := OpenWatch(ctx, openWithin, func(ctx context.Context) (io.ReadCloser, error) {
		return c.get(ctx, s, metav1.ListOptions{Watch: true, ResourceVersion: version})
	}, func(answer io.ReadCloser) { _ = answer.Close() })
	if err != nil {
		return fmt.Errorf("watching %s: %w", s, err)
	}
	defer end()
	events := newStream(answer)
	for {
		event := struct {
			Type   watch.EventType
			Object Object
		}{}
		if err = events.decode(&event); err != nil {
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
		err = context.Cause(ctx)
	}
	return fmt.Errorf("watching %s: %w", s, err)
}

// Resources lists what the API server serves of a group and version.
func (c *Cluster) Resources(ctx context.Context, version schema.GroupVersion) ([]metav1.APIResource, error) {
	answer, err := c.core.Get().AbsPath(Selection{Version: version}.root()).SetHeader("Accept", "application/json").Do(ctx).Raw()
	if err != nil {
		return nil, err
	}
	var known metav1.APIResourceList
	if err := json.Unmarshal(answer, &known); err != nil {
		return nil, err
	}
	return known.APIResources, nil
}

// stream decodes JSON as it arrives, in bounded memory.
type stream struct {
	body io.Reader
	json *json.Decoder
	// left is how many bytes may still come before a value ends.
	left int
}

func newStream(body io.Reader) *stream {
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

// ReadList reads a list in JSON, and calls each with one object at a time. What
// is cut off, or is no list, is an error.
func ReadList(from io.Reader, each func(Object) error) (metav1.ListMeta, error) {
	s := newStream(from)
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

func (s *stream) items(each func(Object) error) error {
	open, err := s.json.Token()
	if err != nil || open == nil {
		return unended(err) // null is how a list without objects may be written
	}
	if open != json.Delim('[') {
		return errNoList
	}
	for s.json.More() {
		var o Object
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
