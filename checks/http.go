package checks

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/sentinel-gate/sentinel-gate/gate"
	"github.com/sentinel-gate/sentinel-gate/gate/cluster"
)

// HTTPOptions are the options of http.
type HTTPOptions struct {
	// URL is what to get.
	URL string `json:"url"`
	// HTTPConfig is Prometheus' own HTTP client configuration.
	HTTPConfig HTTPConfig `json:"httpConfig"`
	// Status are the statuses, of which the answer must have one.
	Status []int `json:"status"`
	// Body must match somewhere in the answer's body, where it is given.
	Body Pattern `json:"body"`
}

func httpDefaults() HTTPOptions {
	return HTTPOptions{HTTPConfig: serverDefaults().HTTPConfig, Status: []int{http.StatusOK}}
}

// Pattern is a regular expression that matches anywhere in a text.
type Pattern struct{ *regexp.Regexp }

// UnmarshalText compiles the expression. It refuses one that no text can fail.
func (p *Pattern) UnmarshalText(text []byte) error {
	compiled, err := regexp.Compile(string(text))
	if err != nil {
		return fmt.Errorf("not a regular expression: %w", err)
	}
	if !slices.ContainsFunc([]string{"", "\n", "0", "another text"}, func(s string) bool { return !compiled.MatchString(s) }) {
		return fmt.Errorf("%.100q matches whatever is answered, even nothing: say what must be there, or leave it out", text)
	}
	p.Regexp = compiled
	return nil
}

const (
	// maxHTTPBody bounds what is read of a body.
	maxHTTPBody = 1 << 20
	// maxRedirects bounds how often one request is sent elsewhere.
	maxRedirects = 5
)

type httpGet struct {
	options HTTPOptions
	host    string
	client  *http.Client
}

var _ Verifier = httpGet{}

func newHTTP(o HTTPOptions, _ *cluster.Cluster) (gate.Check, []error) {
	client, host, problems := Server{o.URL, o.HTTPConfig}.client("options")
	if len(o.Status) == 0 {
		problems = append(problems, errors.New("options.status: want at least one"))
	}
	for i, status := range o.Status {
		if status < 200 || status > 599 {
			problems = append(problems, fmt.Errorf("options.status[%d]: want one from 200 to 599, not %d", i, status))
		}
	}
	if len(problems) > 0 {
		return nil, problems
	}
	if o.HTTPConfig.FollowRedirects {
		client.CheckRedirect = followed
	}
	return httpGet{o, host, client}, nil
}

// errTooManyRedirects ends what is likely a loop.
var errTooManyRedirects = errors.New("too many redirects")

// otherServer is the host that a redirect led to and that was not asked.
type otherServer string

func (o otherServer) Error() string { return "redirected to " + string(o) }

// followed refuses a redirect to another server, most often one to log in at,
// which would answer in the place of the one that was meant.
func followed(req *http.Request, via []*http.Request) error {
	from, to := via[len(via)-1].URL, req.URL
	same := from.Host == to.Host && from.Scheme == to.Scheme
	upgraded := from.Hostname() == to.Hostname() && from.Scheme == "http" && to.Scheme == "https"
	switch {
	case !same && !upgraded:
		return otherServer(to.Scheme + "://" + to.Host)
	case len(via) > maxRedirects:
		return errTooManyRedirects
	}
	return nil
}

// answer is what came back.
type answer struct {
	host   string
	status int
	// body is read where a pattern asks for it, to one byte more than may be.
	body []byte
}

// Check gets the URL.
func (c httpGet) Check(ctx context.Context) (gate.Result, error) {
	a, err := c.get(ctx)
	if err != nil {
		return c.unanswered(ctx, err)
	}
	return answered(a, c.options), nil
}

func (c httpGet) get(ctx context.Context) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.options.URL, nil)
	if err != nil {
		return answer{}, err
	}
	req.Header.Set("User-Agent", "sentinel-gate")
	req.Header.Set("Cache-Control", "no-cache") // every evaluation asks afresh
	resp, err := c.client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	a := answer{host: c.host, status: resp.StatusCode}
	if c.options.Body.Regexp != nil && slices.Contains(c.options.Status, a.status) {
		a.body, err = io.ReadAll(io.LimitReader(resp.Body, maxHTTPBody+1))
	}
	return a, err
}

// unanswered says why there is no answer, where that is likely to be a matter
// of configuration.
func (c httpGet) unanswered(ctx context.Context, err error) (gate.Result, error) {
	var other otherServer
	var unverified *tls.CertificateVerificationError
	var unresolved *net.DNSError
	var request *url.Error
	switch {
	case ctx.Err() != nil:
	case errors.Is(err, errTooManyRedirects):
		return gate.Undecided("TooManyRedirects", "%s redirected more than %d times: is it a loop?", c.host, maxRedirects), nil
	case errors.As(err, &other):
		return gate.Undecided("RedirectedElsewhere", "%s redirected to %s, which was not asked, for it would answer in its place: is a login required?", c.host, string(other)), nil
	case errors.As(err, &unverified):
		return gate.Undecided("TLSNotVerified", "%s: %v", c.host, unverified), nil
	case errors.As(err, &unresolved):
		return gate.Undecided("NameNotResolved", "%s: %v", c.host, unresolved), nil
	case errors.As(err, &request) && strings.Contains(request.Err.Error(), "Location header"):
		// It quotes the header, in which a token may stand.
		return gate.Undecided("RedirectedElsewhere", "%s redirected to what is not a URL", c.host), nil
	}
	return gate.Result{}, fmt.Errorf("asking %s: %w", c.host, withoutURL(err))
}

// Verify has another status answered. Where a body is asked for, it has an
// empty one, another one, and the same one without what matched.
func (c httpGet) Verify(ctx context.Context) (Verification, error) {
	a, err := c.get(ctx)
	if err != nil {
		r, err := c.unanswered(ctx, err)
		if err == nil {
			err = errors.New(r.Message)
		}
		return Verification{}, err
	}
	v := Verification{Looked: "the answer of " + c.host, Result: answered(a, c.options)}
	mutate := func(change string, changed answer) {
		v.Mutations = append(v.Mutations, Mutation{change, answered(changed, c.options)})
	}
	for _, status := range []int{http.StatusInternalServerError, http.StatusNotFound, http.StatusOK} {
		if !slices.Contains(c.options.Status, status) {
			mutate("the status was "+statusText(status), answer{a.host, status, a.body})
			break
		}
	}
	if c.options.Body.Regexp != nil {
		v.Looked += ", with a body of " + gate.Count(len(a.body), "byte")
		mutate("the body was empty", answer{a.host, a.status, nil})
		mutate("the body was another text", answer{a.host, a.status, []byte("another text")})
		mutate("the body was without what matches", answer{a.host, a.status, c.options.Body.ReplaceAll(a.body, nil)})
	}
	return v, nil
}

// answered is the pure part. Another status may come from anybody on the way: a
// proxy, an ingress, a page to log in at. So it is no answer to the question.
func answered(a answer, o HTTPOptions) gate.Result {
	if !slices.Contains(o.Status, a.status) {
		return gate.Undecided("WrongStatus", "%s answered %s, and should answer %s", a.host, statusText(a.status), statusTexts(o.Status))
	}
	switch {
	case o.Body.Regexp == nil:
		return gate.Passed("Answered", "%s answered %s", a.host, statusText(a.status))
	case len(a.body) > maxHTTPBody:
		return gate.Undecided("BodyTooLarge", "%s answered %s with a body of more than %d bytes, which is not read to its end", a.host, statusText(a.status), maxHTTPBody)
	case !o.Body.Match(a.body):
		return gate.Failed("BodyDoesNotMatch", "%s answered %s, but its body does not match %.100q: it begins with %.100q", a.host, statusText(a.status), o.Body, a.body)
	}
	return gate.Passed("BodyMatches", "%s answered %s, and its body matches", a.host, statusText(a.status))
}

func statusTexts(statuses []int) string {
	var texts []string
	for _, s := range statuses {
		texts = append(texts, statusText(s))
	}
	return strings.Join(texts, " or ")
}
