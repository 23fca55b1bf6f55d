package turn

import (
	"slices"
	"strings"
	"testing"
)

func TestParseKuredLock(t *testing.T) {
	for name, c := range map[string]struct {
		value string
		want  []string
		err   string
	}{
		"no lock":              {"", nil, ""},
		"nobody":               {"{}", nil, ""},
		"one":                  {`{"nodeID":"a","metadata":{"unschedulable":false},"created":"2026-01-31T12:00:00Z","TTL":0}`, []string{"a"}, ""},
		"several":              {`{"maxOwners":2,"locks":[{"nodeID":"a"},{"nodeID":"b"}]}`, []string{"a", "b"}, ""},
		"several, and none":    {`{"maxOwners":2,"locks":[]}`, nil, ""},
		"several, and null":    {`{"maxOwners":2,"locks":null}`, nil, ""},
		"no JSON":              {"a", nil, `kured's lock "a" cannot be read`},
		"another form":         {`{"owner":"a"}`, nil, `kured's lock "{\"owner\":\"a\"}" cannot be read: it names no node`},
		"a list":               {`[{"nodeID":"a"}]`, nil, "cannot be read"},
		"an empty name":        {`{"nodeID":""}`, nil, "names no node"},
		"locks of no node":     {`{"locks":[{"node":"a"}]}`, nil, "names no node"},
		"one of them nameless": {`{"locks":[{"nodeID":"a"},{}]}`, nil, "names no node"},
		"null":                 {"null", nil, "names no node"},
	} {
		t.Run(name, func(t *testing.T) {
			lock, err := ParseKuredLock(c.value, 0, noon)
			if got := lock.Holders; !slices.Equal(got, c.want) || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("got %v, %v; want %v, %q", lock, err, c.want, c.err)
			}
		})
	}
}

// FuzzParseKuredLock: a lock that cannot be understood is never free.
func FuzzParseKuredLock(f *testing.F) {
	f.Add(`{"nodeID":"a"}`)
	f.Add(`{"maxOwners":2,"locks":[{"nodeID":"a"},{"nodeID":"b"}]}`)
	f.Add(`{"locks":[{}]}`)
	f.Fuzz(func(t *testing.T, value string) {
		lock, err := ParseKuredLock(value, 0, noon)
		names := lock.Holders
		if err != nil && names != nil || slices.Contains(names, "") {
			t.Errorf("%q, %v", names, err)
		}
		if err == nil && len(names) == 0 && value != "" && strings.TrimSpace(value) != "{}" && !strings.Contains(strings.ToLower(value), "locks") {
			// A key may be written with escapes.
			if !strings.Contains(value, `\u`) {
				t.Errorf("%q is taken for a free lock", value)
			}
		}
	})
}
