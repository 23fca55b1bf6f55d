package faults

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

// newServer serves what a real server cannot be made to answer.
func newServer(t *testing.T, h http.Handler) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
	return s.URL
}
