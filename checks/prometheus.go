package checks

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/api"
	promapi "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"

	"github.com/sentinel-gate/sentinel-gate/gate/clock"
)

// prometheusAPI is a server of Prometheus' HTTP API: Prometheus itself, Thanos,
// Mimir, VictoriaMetrics.
type prometheusAPI struct {
	host string
	api  promapi.API
}

func newPrometheus(path string, s Server) (*prometheusAPI, []error) {
	client, host, problems := s.client(path)
	if len(problems) > 0 {
		return nil, problems
	}
	client.Transport = new(clock.Witness).Transport(whole{client.Transport})
	server, err := api.NewClient(api.Config{Address: s.URL, Client: client})
	if err != nil {
		return nil, []error{fmt.Errorf("%s.url: %w", path, err)}
	}
	return &prometheusAPI{host, promapi.NewAPI(server)}, nil
}

// maxBody bounds what is read of one answer.
const maxBody = 16 << 20

// whole fails an answer that is not the whole answer: larger than maxBody, with
// a warning, which Thanos gives for what it could not reach, or partial by
// VictoriaMetrics' own word. client_golang drops some of these.
type whole struct{ next http.RoundTripper }

func (w whole) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := w.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(http.MaxBytesReader(nil, resp.Body, maxBody))
	if err != nil {
		return nil, err
	}
	var envelope struct {
		Status    string   `json:"status"`
		Warnings  []string `json:"warnings"`
		IsPartial bool     `json:"isPartial"`
		Data      *noData  `json:"data"`
	}
	_ = json.Unmarshal(body, &envelope)
	switch {
	case resp.StatusCode/100 == 2 && (envelope.Status != "success" || envelope.Data == nil):
		return nil, fmt.Errorf("the answer is not one of Prometheus' API: %.100q", body)
	case len(envelope.Warnings) > 0:
		return nil, incomplete(fmt.Sprintf("the answer may be incomplete: it came with the warning %q", strings.Join(envelope.Warnings, "; ")))
	case envelope.IsPartial:
		return nil, incomplete("the answer is partial, by its own word (isPartial)")
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return resp, nil
}

// noData skips whatever it decodes: it tells only that there was something.
type noData struct{}

// UnmarshalJSON keeps nothing.
func (*noData) UnmarshalJSON([]byte) error { return nil }

// incomplete says why an answer may lack something.
type incomplete string

func (i incomplete) Error() string { return string(i) }

// query answers an instant query at the server's own time.
func (p *prometheusAPI) query(ctx context.Context, query string) (model.Value, error) {
	value, _, err := p.api.Query(ctx, query, time.Time{}) // whole refuses warnings
	if err != nil {
		return nil, fmt.Errorf("asking %s for %s: %w", p.host, query, withoutURL(err))
	}
	return value, nil
}

// vector answers an instant query whose answer must be a vector.
func (p *prometheusAPI) vector(ctx context.Context, query string) (model.Vector, error) {
	value, err := p.query(ctx, query)
	if err != nil {
		return nil, err
	}
	vector, ok := value.(model.Vector)
	if !ok {
		return nil, fmt.Errorf("asking %s for %s: the answer is of the type %s, not a vector", p.host, query, value.Type())
	}
	return vector, nil
}

// rules reads the rule groups; served is false where the server has no such API.
func (p *prometheusAPI) rules(ctx context.Context) (groups []promapi.RuleGroup, served bool, err error) {
	result, err := p.api.Rules(ctx, nil)
	var failure *promapi.Error
	if errors.As(err, &failure) && (failure.Type == promapi.ErrClient || failure.Type == promapi.ErrServer) {
		// client_golang tells the status only in this text.
		for _, status := range []string{": 404", ": 405", ": 501"} {
			if strings.HasSuffix(failure.Msg, status) {
				return nil, false, nil
			}
		}
	}
	if err != nil {
		return nil, false, fmt.Errorf("asking %s for its rules: %w", p.host, withoutURL(err))
	}
	return result.Groups, true, nil
}
