package controlplane

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// AuditEvent is one request, as the API server's audit log has it.
type AuditEvent struct {
	ID        string
	User      string
	UserAgent string
	SourceIP  string // of the connection
	Verb      string // of Kubernetes: get, list, watch
	URI       string
	Code      int       // of HTTP
	Received  time.Time // when the API server had read the request
	// Completed is when the response ended, or zero while a watch runs.
	Completed time.Time
}

// Requests returns the requests of a user, or of everybody if user is empty, that the API server received at or after
// a time, in the order of their first answer. A watch is one request, from when it starts to stream.
//
// The API server writes an event just before it ends the response, so a request that has returned is counted. The
// exceptions are responses of more than some kilobytes: what has read all of one may be a moment early, and should
// poll. The log's own clock is the machine's, at microseconds.
func (cp *ControlPlane) Requests(user string, since time.Time) ([]AuditEvent, error) {
	file, err := os.Open(cp.path("audit.log"))
	if err != nil {
		return nil, fmt.Errorf("reading the audit log: %w", err)
	}
	defer file.Close()

	var events []AuditEvent
	index := map[string]int{}
	reader := bufio.NewReader(file)
	for {
		line, err := reader.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			// What follows the last newline is an event that is being written.
			return events, nil
		}
		if err != nil {
			return nil, fmt.Errorf("reading the audit log: %w", err)
		}
		// Most lines are somebody else's, and decoding is what takes the time.
		if !bytes.Contains(line, []byte(user)) {
			continue
		}
		var event struct {
			AuditID, Stage, Verb, RequestURI, UserAgent string
			User                                        struct{ Username string }
			SourceIPs                                   []string
			ResponseStatus                              struct{ Code int }
			RequestReceivedTimestamp, StageTimestamp    metav1.MicroTime
		}
		if err := json.Unmarshal(line, &event); err != nil {
			return nil, fmt.Errorf("reading the audit log: %w", err)
		}
		if user != "" && event.User.Username != user || event.RequestReceivedTimestamp.Time.Before(since) {
			continue
		}
		i, seen := index[event.AuditID]
		if !seen {
			i = len(events)
			index[event.AuditID] = i
			events = append(events, AuditEvent{
				ID: event.AuditID, User: event.User.Username, UserAgent: event.UserAgent, Verb: event.Verb,
				URI: event.RequestURI, Received: event.RequestReceivedTimestamp.Time,
			})
			if n := len(event.SourceIPs); n > 0 {
				events[i].SourceIP = event.SourceIPs[n-1]
			}
		}
		events[i].Code = event.ResponseStatus.Code
		if event.Stage != "ResponseStarted" {
			events[i].Completed = event.StageTimestamp.Time
		}
	}
}

func (cp *ControlPlane) auditFlags() ([]string, error) {
	policy := cp.path("audit.yaml")
	const content = "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules:\n- level: Metadata\n"
	if err := os.WriteFile(policy, []byte(content), 0o644); err != nil {
		return nil, fmt.Errorf("writing the audit policy: %w", err)
	}
	return []string{
		"--audit-policy-file=" + policy, "--audit-log-path=" + cp.path("audit.log"),
		"--audit-log-mode=blocking",
		// A rotated log would forget requests.
		"--audit-log-maxsize=100000",
	}, nil
}
