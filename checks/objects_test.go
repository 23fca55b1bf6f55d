package checks

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
)

func readCloser(data []byte) io.ReadCloser { return io.NopCloser(bytes.NewReader(data)) }

func TestStreamList(t *testing.T) {
	for _, c := range []struct{ name, text, objects, next, err string }{
		{"a list", `{"kind": "L", "metadata": {"continue": "c", "resourceVersion": "7"}, "items": [{"a": 1}, {"a": 1.5, "b": [2]}]}`, "map[a:1] map[a:1.5 b:[2]]", "c", ""},
		{"its metadata last", `{"items": [{"a": 1}], "metadata": {"continue": "c"}}`, "map[a:1]", "c", ""},
		{"empty", `{"metadata": {}, "items": []}`, "", "", ""},
		{"null", `{"items": null}`, "", "", ""},
		{"an object that is null", `{"items": [null]}`, "map[]", "", ""},
		{"no list", `{"kind": "Status"}`, "", "", "the answer is no list"},
		{"no list of objects", `{"items": ["a"]}`, "", "", "json: cannot unmarshal string into Go value of type map[string]interface {}"},
		{"another type", `{"items": {}}`, "", "", "the answer is no list"},
		{"an array", `[{}]`, "", "", "the answer is no list"},
		{"nothing", ``, "", "", "unexpected EOF"},
		{"cut off after an object", `{"items": [{"a": 1}`, "map[a:1]", "", "unexpected EOF"},
		{"cut off within one", `{"items": [{"a": 1}, {"a"`, "map[a:1]", "", "unexpected EOF"},
		{"cut off after the objects", `{"items": [{"a": 1}]`, "map[a:1]", "", "unexpected EOF"},
		{"a page of another server", `<html>`, "", "", "invalid character '<' looking for beginning of value"},
		{"a number that is none", `{"items": [{"a": 1e999}]}`, "", "", `strconv.ParseFloat: parsing "1e999": value out of range`},
	} {
		t.Run(c.name, func(t *testing.T) {
			var objects []string
			meta, err := newStream(readCloser([]byte(c.text))).list(func(o object) error {
				objects = append(objects, fmt.Sprint(o))
				return nil
			})
			got := ""
			if err != nil {
				got = err.Error()
			}
			if strings.Join(objects, " ") != c.objects || got != c.err || err == nil && meta.Continue != c.next {
				t.Errorf("got %s, continue %q, %q", objects, meta.Continue, got)
			}
		})
	}
}

// endless answers with something, and then the same for ever.
type endless struct {
	start  io.Reader
	filler string
	sent   int
}

func (e *endless) Read(p []byte) (int, error) {
	if n, _ := e.start.Read(p); n > 0 {
		return n, nil
	}
	n := 0
	for n < len(p) {
		n += copy(p[n:], e.filler[(e.sent+n)%len(e.filler):])
	}
	e.sent += n
	return n, nil
}

func (*endless) Close() error { return nil }

// An object without an end is given up early; objects without an end are read
// one at a time, and no more is held at the millionth than at the first.
func TestStreamIsBounded(t *testing.T) {
	for _, start := range []string{`{"items": [{"a": "`, `{"`, `{"kind": "`, ``, `{"metadata": {"a": "`} {
		body := &endless{start: strings.NewReader(start), filler: " x"[:1+min(len(start), 1)]}
		_, err := newStream(body).list(func(object) error { return nil })
		if !errors.Is(err, errTooLarge) || body.sent > 2*maxObject {
			t.Errorf("%s: got %v after %d bytes", start, err, body.sent)
		}
	}

	held := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	enough := errors.New("enough")
	e := mustCompile(t, `object.a == "other"`)
	var found tally
	var first uint64
	_, err := newStream(&endless{start: strings.NewReader(`{"items": [{}`), filler: `,{"a": "` + strings.Repeat("x", 1000) + `"}`}).list(func(o object) error {
		if err := found.count(t.Context(), e, o, now); err != nil {
			return err
		}
		switch found.objects {
		case 1000:
			first = held()
		case 100_000:
			if last := held(); last > first+1<<20 {
				t.Errorf("%d bytes are held after 1,000 objects, and %d after 100,000", first, last)
			}
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) {
		t.Error(err)
	}
}
