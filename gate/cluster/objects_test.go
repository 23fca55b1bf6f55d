package cluster

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
)

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
			meta, err := ReadList(strings.NewReader(c.text), func(o Object) error {
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

// An object without an end is given up early.
func TestStreamIsBounded(t *testing.T) {
	for _, start := range []string{`{"items": [{"a": "`, `{"`, `{"kind": "`, ``, `{"metadata": {"a": "`} {
		body := &endless{start: strings.NewReader(start), filler: " x"[:1+min(len(start), 1)]}
		_, err := ReadList(body, func(Object) error { return nil })
		if !errors.Is(err, errTooLarge) || body.sent > 2*maxObject {
			t.Errorf("%s: got %v after %d bytes", start, err, body.sent)
		}
	}
}
