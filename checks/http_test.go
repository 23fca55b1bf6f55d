package checks

import (
	"context"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sentinel-gate/sentinel-gate/gate"
)

func pattern(t testing.TB, text string) Pattern {
	t.Helper()
	if text == "" {
		return Pattern{}
	}
	var p Pattern
	if err := p.UnmarshalText([]byte(text)); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestPattern(t *testing.T) {
	const anything = " matches whatever is answered, even nothing: say what must be there, or leave it out"
	for _, c := range []struct{ text, want string }{
		{`HEALTH_OK`, ``},
		{`^\s*$`, ``},
		{`(?m)^ok$`, ``},
		{`"state":\s*"none"`, ``},
		{`.`, ``},
		{``, `""` + anything},
		{`.*`, `".*"` + anything},
		{`(?s)^.*$`, `"(?s)^.*$"` + anything},
		{`ok|`, `"ok|"` + anything},
		{`(`, "not a regular expression: error parsing regexp: missing closing ): `(`"},
	} {
		t.Run(c.text, func(t *testing.T) {
			var p Pattern
			got := ""
			if err := p.UnmarshalText([]byte(c.text)); err != nil {
				got = err.Error()
			}
			if got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestAnswered(t *testing.T) {
	large := []byte(strings.Repeat("x", maxHTTPBody) + "y")
	for _, c := range []struct {
		name   string
		status int
		body   string
		wanted []int
		match  string
		want   wanted
	}{
		{"as it should", 200, "", []int{200}, "", wanted{gate.Pass, "Answered", "h answered 200 OK"}},
		{"one of several", 204, "", []int{200, 204}, "", wanted{gate.Pass, "Answered", "h answered 204 No Content"}},
		{"another status", 503, "", []int{200}, "", wanted{gate.Unknown, "WrongStatus", "h answered 503 Service Unavailable, and should answer 200 OK"}},
		{"a status without a name", 599, "", []int{200, 204}, "", wanted{gate.Unknown, "WrongStatus", "h answered 599, and should answer 200 OK or 204 No Content"}},
		{"another status, whose body matches", 500, "ok", []int{200}, "ok", wanted{gate.Unknown, "WrongStatus", ""}},
		{"the body matches somewhere", 200, "all is ok.\n", []int{200}, "ok", wanted{gate.Pass, "BodyMatches", "h answered 200 OK, and its body matches"}},
		{"the body does not", 200, "HEALTH_WARN\n", []int{200}, "HEALTH_OK", wanted{gate.Fail, "BodyDoesNotMatch", `h answered 200 OK, but its body does not match "HEALTH_OK": it begins with "HEALTH_WARN\n"`}},
		{"no body", 200, "", []int{200}, "ok", wanted{gate.Fail, "BodyDoesNotMatch", `h answered 200 OK, but its body does not match "ok": it begins with ""`}},
		{
			"binary", 200, strings.Repeat("\xff", 200), []int{200}, "ok",
			wanted{gate.Fail, "BodyDoesNotMatch", `h answered 200 OK, but its body does not match "ok": it begins with "` + strings.Repeat(`\xff`, 100) + `"`},
		},
		{"as much as may be", 200, string(large[1:]), []int{200}, "y$", wanted{gate.Pass, "BodyMatches", ""}},
		{"too much, although it matches", 200, string(large), []int{200}, "x", wanted{gate.Unknown, "BodyTooLarge", "h answered 200 OK with a body of more than 1048576 bytes, which is not read to its end"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.want.compare(t, answered(answer{"h", c.status, []byte(c.body)}, HTTPOptions{Status: c.wanted, Body: pattern(t, c.match)}))
		})
	}
}

// A pass means that the status is wanted and the body matches.
func FuzzAnswered(f *testing.F) {
	f.Add(200, []byte("HEALTH_OK"), 200, "HEALTH_OK")
	f.Add(503, []byte("ok"), 200, "ok")
	f.Add(200, []byte("\xff\x00"), 200, "(?i)OK$")
	f.Add(200, []byte(""), 204, "")
	f.Fuzz(func(t *testing.T, status int, body []byte, want int, expression string) {
		o := HTTPOptions{Status: []int{want}}
		if expression != "" && o.Body.UnmarshalText([]byte(expression)) != nil {
			return
		}
		got := answered(answer{"h", status, body}, o)
		if got.Reason == "" || got.Message == "" {
			t.Errorf("%+v", got)
		}
		matches := expression == "" || regexp.MustCompile(expression).Match(body)
		if (got.Verdict == gate.Pass) != (status == want && matches) {
			t.Errorf("%d with %q, where %d with %q is wanted: %+v", status, body, want, expression, got)
		}
	})
}

func TestHTTPOptions(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*HTTPOptions)
		want   string
	}{
		{"right", func(*HTTPOptions) {}, ``},
		{"no URL", func(o *HTTPOptions) { o.URL = "" }, `options.url: want an http or https URL, not ""`},
		{"another scheme", func(o *HTTPOptions) { o.URL = "file:///etc/passwd" }, `options.url: want an http or https URL, not "file:///etc/passwd"`},
		{"secrets in it", func(o *HTTPOptions) { o.URL = "tcp://user:secret@host/path?token=secret" }, `options.url: want an http or https URL, not "...@host/path"`},
		{"no status", func(o *HTTPOptions) { o.Status = nil }, `options.status: want at least one`},
		{
			"all of it", func(o *HTTPOptions) { *o = HTTPOptions{Status: []int{200, 100, 600}} },
			"options.url: want an http or https URL, not \"\"\noptions.status[1]: want one from 200 to 599, not 100\noptions.status[2]: want one from 200 to 599, not 600",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := httpDefaults()
			o.URL = "http://freeze.example/status"
			c.change(&o)
			check, problems := newHTTP(o, nil)
			compareMistakes(t, check, problems, c.want)
		})
	}
}

// runHTTP builds the check from its options as JSON, and runs it as a step.
func runHTTP(t *testing.T, options string, timeout time.Duration) gate.Outcome {
	t.Helper()
	check, problems := New("http", []byte(options), nil)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	pipeline, err := gate.NewPipeline([]*gate.Step{{Name: "x", Type: "http", Check: check, Timeout: timeout}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return pipeline.Evaluate(t.Context(), nil, nil).Outcomes[0]
}

// Servers that answer, and servers that misbehave.
func TestHTTPCheck(t *testing.T) {
	endless := func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := io.WriteString(w, strings.Repeat("x", 1<<16)); err != nil {
				return
			}
		}
	}
	hangs := func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "HEALTH_")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}
	redirect := func(to string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", to)
			w.WriteHeader(http.StatusFound)
		}
	}
	for _, c := range []struct {
		name    string
		answer  http.HandlerFunc
		options string // besides the URL
		want    wanted
	}{
		{"healthy", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "HEALTH_OK") }, `, "body": "HEALTH_OK"`, wanted{gate.Pass, "BodyMatches", "HOST answered 200 OK, and its body matches"}},
		{"unavailable", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }, ``, wanted{gate.Unknown, "WrongStatus", "HOST answered 503 Service Unavailable, and should answer 200 OK"}},
		{"a body of 100 MB", func(w http.ResponseWriter, _ *http.Request) {
			for range 100 << 4 {
				_, _ = io.WriteString(w, strings.Repeat("x", 1<<16))
			}
		}, `, "body": "x"`, wanted{gate.Unknown, "BodyTooLarge", ""}},
		{"a body without an end", endless, `, "body": "x"`, wanted{gate.Unknown, "BodyTooLarge", ""}},
		{"a body that nobody asks for", endless, ``, wanted{gate.Pass, "Answered", ""}},
		{"a body that stops", hangs, `, "body": "HEALTH_OK"`, wanted{gate.Unknown, "Timeout", "no answer within its timeout of 500ms"}},
		{"no answer", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, ``, wanted{gate.Unknown, "Timeout", ""}},
		{"a body that breaks off", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, "ok")
		}, `, "body": "ok"`, wanted{gate.Unknown, "Error", "asking HOST: unexpected EOF"}},
		{"a redirect loop", redirect("/"), ``, wanted{gate.Unknown, "TooManyRedirects", "HOST redirected more than 5 times: is it a loop?"}},
		{"a redirect that is the answer", redirect("/"), `, "httpConfig": {"follow_redirects": false}, "status": [302]`, wanted{gate.Pass, "Answered", "HOST answered 302 Found"}},
		{"a redirect on the same server", func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/" {
				http.Redirect(w, r, "/there", http.StatusFound)
			}
		}, ``, wanted{gate.Pass, "Answered", ""}},
		{"a redirect to log in", redirect("https://login.example/?token=secret"), ``, wanted{gate.Unknown, "RedirectedElsewhere", "HOST redirected to https://login.example, which was not asked, for it would answer in its place: is a login required?"}},
		{"a redirect to no URL", redirect("http://[secret"), ``, wanted{gate.Unknown, "RedirectedElsewhere", "HOST redirected to what is not a URL"}},
		{"not HTTP", func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				_, _ = io.WriteString(conn, "SSH-2.0-OpenSSH_9.2\r\n")
				_ = conn.Close()
			}
		}, ``, wanted{gate.Unknown, "Error", `asking HOST: net/http: HTTP/1.x transport connection broken: malformed HTTP response "SSH-2.0-OpenSSH_9.2"`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			server := httptest.NewServer(c.answer)
			defer server.Close()
			defer server.CloseClientConnections()
			timeout := 20 * time.Second
			if c.want.reason == gate.ReasonTimeout {
				timeout = 500 * time.Millisecond
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			o := runHTTP(t, fmt.Sprintf(`{"url": %q%s}`, strings.Replace(server.URL, "://", "://user:secret@", 1)+"/?token=secret", c.options), timeout)
			runtime.ReadMemStats(&after)
			if strings.Contains(o.Message, "secret") {
				t.Errorf("it tells a secret: %s", o.Message)
			}
			o.Message = strings.ReplaceAll(o.Message, strings.TrimPrefix(server.URL, "http://"), "HOST")
			c.want.compare(t, gate.Result{Verdict: o.Verdict, Reason: o.Reason, Message: o.Message})
			// The server's own buffers are among it.
			if took := after.TotalAlloc - before.TotalAlloc; took > 16<<20 {
				t.Errorf("it allocated %d MiB", took>>20)
			}
		})
	}

	t.Run("nobody there", func(t *testing.T) {
		server := httptest.NewServer(nil)
		server.Close()
		o := runHTTP(t, fmt.Sprintf(`{"url": "%s/?token=secret"}`, server.URL), time.Minute)
		if o.Reason != gate.ReasonError || !strings.Contains(o.Message, "connection refused") || strings.Contains(o.Message, "secret") {
			t.Errorf("got %+v", o)
		}
	})
}

// What is sent: a plain GET that no cache may answer, with what the
// configuration says of credentials, and not to another server.
func TestHTTPRequest(t *testing.T) {
	var seen *http.Request
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen = r }))
	defer server.Close()
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("the-token"), 0o600); err != nil {
		t.Fatal(err)
	}
	for config, authorization := range map[string]string{
		`{}`: "",
		fmt.Sprintf(`{"authorization": {"credentials_file": %q}}`, file): "Bearer the-token",
		`{"basic_auth": {"username": "u", "password": "p"}}`:             "Basic dTpw",
	} {
		o := runHTTP(t, fmt.Sprintf(`{"url": "%s/a?b=c", "httpConfig": %s}`, server.URL, config), time.Minute)
		if o.Verdict != gate.Pass {
			t.Fatalf("%s: %+v", config, o)
		}
		if seen.Method != http.MethodGet || seen.URL.String() != "/a?b=c" || seen.Header.Get("Cache-Control") != "no-cache" ||
			seen.UserAgent() != "sentinel-gate" || seen.Header.Get("Authorization") != authorization {
			t.Errorf("%s: %s %s %v", config, seen.Method, seen.URL, seen.Header)
		}
	}
}

func TestHTTPRedirects(t *testing.T) {
	for _, c := range []struct {
		from, to string
		hops     int
		want     string
	}{
		{"http://a/", "http://a/b", 1, ""},
		{"http://a:80/", "https://a/", 1, ""},
		{"http://a:8080/", "https://a:8443/", 5, ""},
		{"http://a/", "http://a/b", 6, "too many redirects"},
		{"http://a/", "http://b/?x=secret", 1, "redirected to http://b"},
		{"https://a/", "http://a/", 1, "redirected to http://a"},
		{"http://a:80/", "http://a:8080/", 1, "redirected to http://a:8080"},
		{"https://a/", "https://user:secret@a.b/", 1, "redirected to https://a.b"},
	} {
		parse := func(text string) *http.Request {
			u, err := url.Parse(text)
			if err != nil {
				t.Fatal(err)
			}
			return &http.Request{URL: u}
		}
		text := ""
		if err := followed(parse(c.to), slices.Repeat([]*http.Request{parse(c.from)}, c.hops)); err != nil {
			text = err.Error()
		}
		if text != c.want {
			t.Errorf("from %s to %s: got %q, want %q", c.from, c.to, text, c.want)
		}
	}
}

func TestHTTPVerifiesTLS(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	server.Config.ErrorLog = nil
	server.StartTLS()
	defer server.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o644); err != nil {
		t.Fatal(err)
	}
	host := strings.TrimPrefix(server.URL, "https://")
	for config, want := range map[string]wanted{
		`{}`: {gate.Unknown, "TLSNotVerified", host + ": tls: failed to verify certificate: x509: certificate signed by unknown authority"},
		fmt.Sprintf(`{"tls_config": {"ca_file": %q}}`, ca):                                 {gate.Pass, "Answered", ""},
		fmt.Sprintf(`{"tls_config": {"ca_file": %q, "server_name": "other.invalid"}}`, ca): {gate.Unknown, "TLSNotVerified", host + ": tls: failed to verify certificate: x509: certificate is valid for example.com, *.example.com, not other.invalid"},
		fmt.Sprintf(`{"tls_config": {"ca_file": %q, "max_version": "TLS11"}}`, ca):         {gate.Unknown, "Error", ""},
		`{"tls_config": {"insecure_skip_verify": true}}`:                                   {gate.Pass, "Answered", ""},
	} {
		o := runHTTP(t, fmt.Sprintf(`{"url": %q, "httpConfig": %s}`, server.URL+"/?token=secret", config), time.Minute)
		want.compare(t, gate.Result{Verdict: o.Verdict, Reason: o.Reason, Message: o.Message})
	}
}

func TestHTTPNameThatDoesNotResolve(t *testing.T) {
	// Nobody answers there, as where the cluster's DNS is down.
	silent, err := (&net.ListenConfig{}).ListenPacket(t.Context(), "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := silent.LocalAddr().String()
	_ = silent.Close()
	before := net.DefaultResolver
	defer func() { net.DefaultResolver = before }()
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", address)
	}}
	o := runHTTP(t, `{"url": "http://freeze.invalid/?token=secret"}`, time.Minute)
	if o.Verdict != gate.Unknown || o.Reason != "NameNotResolved" || !strings.HasPrefix(o.Message, "freeze.invalid: lookup freeze.invalid") || strings.Contains(o.Message, "secret") {
		t.Errorf("got %+v", o)
	}
}

func TestHTTPVerify(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "state: open, text\n") }))
	defer server.Close()
	for options, want := range map[string]string{
		``:                                       "the answer of HOST: Answered\nthe status was 500 Internal Server Error: WrongStatus",
		`, "status": [200, 500], "body": "open"`: "the answer of HOST, with a body of 18 bytes: BodyMatches\nthe status was 404 Not Found: WrongStatus\nthe body was empty: BodyDoesNotMatch\nthe body was another text: BodyDoesNotMatch\nthe body was without what matches: BodyDoesNotMatch",
		// What is too broad is seen.
		`, "body": "text"`: "the answer of HOST, with a body of 18 bytes: BodyMatches\nthe status was 500 Internal Server Error: WrongStatus\nthe body was empty: BodyDoesNotMatch\nthe body was another text: BodyMatches\nthe body was without what matches: BodyDoesNotMatch",
	} {
		check, problems := New("http", fmt.Appendf(nil, `{"url": %q%s}`, server.URL, options), nil)
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		v, text := verified(t, check)
		if text = strings.ReplaceAll(text, strings.TrimPrefix(server.URL, "http://"), "HOST"); text != want || v.Vacuous() {
			t.Errorf("vacuous %t; got\n%s\nwant\n%s", v.Vacuous(), text, want)
		}
	}
	check, _ := New("http", []byte(`{"url": "http://127.0.0.1:1/"}`), nil)
	if _, err := verify(t.Context(), check); err == nil || !strings.HasPrefix(err.Error(), "asking 127.0.0.1:1: ") {
		t.Errorf("got %v", err)
	}
}
