package turn

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
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

// F48, F99: kured's lock by kured's own rule: what has expired holds nothing, and each
// form is read by a kured of the other concurrency in its own wrong way.
func TestF48F99KuredsOwnRule(t *testing.T) {
	created := noon.Add(-90 * time.Minute).Format(time.RFC3339)
	one := func(node string, ttl time.Duration) string {
		return fmt.Sprintf(`{"nodeID":%q,"metadata":{"unschedulable":false},"created":%q,"TTL":%d}`, node, created, ttl)
	}
	for name, c := range map[string]struct {
		value       string
		concurrency int
		want        []string
		stuck       string
	}{
		"F48 no TTL":                       {one("a", 0), 1, []string{"a"}, ""},
		"F48 within its TTL":               {one("a", 2*time.Hour), 1, []string{"a"}, ""},
		"F48 expired":                      {one("a", time.Hour), 1, nil, ""},
		"F48 one of several has expired":   {`{"maxOwners":2,"locks":[` + one("a", time.Hour) + "," + one("b", 0) + `]}`, 2, []string{"b"}, ""},
		"F48 all of several":               {`{"maxOwners":2,"locks":[` + one("a", time.Hour) + `]}`, 2, nil, ""},
		"F99 a list that was left behind":  {`{"maxOwners":2,"locks":[]}`, 1, nil, "one with 1 takes it for held for ever"},
		"F99 and one that names a node":    {`{"maxOwners":2,"locks":[` + one("a", 0) + `]}`, 1, []string{"a"}, "one with 1 takes it for held for ever"},
		"F99 a person's, at two":           {`{"nodeID":"halted-by-hand"}`, 2, []string{"halted-by-hand"}, "it holds nothing"},
		"F99 a person's, at one":           {`{"nodeID":"halted-by-hand"}`, 1, []string{"halted-by-hand"}, ""},
		"F99 the concurrency is not known": {`{"maxOwners":2,"locks":[]}`, 0, nil, ""},
		"of an old kured, without dates":   {`{"nodeID":"a","metadata":{"unschedulable":false}}`, 1, []string{"a"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			lock, err := ParseKuredLock(c.value, c.concurrency, noon)
			if err != nil || !slices.Equal(lock.Holders, c.want) || (lock.Stuck == "") != (c.stuck == "") || !strings.Contains(lock.Stuck, c.stuck) {
				t.Errorf("got %+v, %v", lock, err)
			}
		})
	}
}
