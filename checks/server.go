package checks

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/prometheus/common/config"
)

// Server is where to ask over HTTP, and how.
type Server struct {
	URL string `json:"url"`
	// HTTPConfig is Prometheus' own HTTP client configuration.
	HTTPConfig HTTPConfig `json:"httpConfig"`
}

func serverDefaults() Server {
	return Server{HTTPConfig: HTTPConfig{config.DefaultHTTPClientConfig}}
}

// client validates the server's options, and returns its client and its host,
// which is all that messages tell of the URL: the rest may hold a secret.
func (s Server) client(path string) (client *http.Client, host string, problems []error) {
	u, err := url.Parse(s.URL)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		problems = append(problems, fmt.Errorf("%s.url: want an http or https URL, not %q", path, withoutSecrets(s.URL)))
	}
	if err := s.HTTPConfig.Validate(); err != nil {
		problems = append(problems, fmt.Errorf("%s.httpConfig: %w", path, err))
	}
	if len(problems) > 0 {
		return nil, "", problems
	}
	client, err = config.NewClientFromConfig(s.HTTPConfig.HTTPClientConfig, "sentinel-gate")
	if err != nil {
		return nil, "", []error{fmt.Errorf("%s.httpConfig: %w", path, err)}
	}
	return client, u.Host, nil
}

// withoutSecrets is what may be told of a text that should be a URL and is not.
func withoutSecrets(text string) string {
	text, _, _ = strings.Cut(text, "?")
	if at := strings.LastIndexByte(text, '@'); at >= 0 {
		text = "..." + text[at:]
	}
	return text
}

// HTTPConfig is config.HTTPClientConfig, decoded as strictly as Prometheus
// decodes it.
type HTTPConfig struct{ config.HTTPClientConfig }

// UnmarshalJSON decodes what is JSON, and so YAML, with Prometheus' own loader.
func (c *HTTPConfig) UnmarshalJSON(data []byte) error {
	loaded, err := config.LoadHTTPConfig(string(data))
	if err != nil {
		return errors.New(strings.Join(strings.Fields(err.Error()), " "))
	}
	c.HTTPClientConfig = *loaded
	return nil
}

// withoutURL takes the request's URL out of an error: its query may hold a token.
func withoutURL(err error) error {
	var failure *url.Error
	if errors.As(err, &failure) {
		return failure.Err
	}
	return err
}

// statusText is an HTTP status as a person knows it.
func statusText(status int) string {
	return strings.TrimSpace(strconv.Itoa(status) + " " + http.StatusText(status))
}
