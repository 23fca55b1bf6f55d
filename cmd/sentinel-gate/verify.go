package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/sentinel-gate/sentinel-gate/checks"
	"github.com/sentinel-gate/sentinel-gate/gate"
)

// verify shows of each step what it looks at, its verdict, and what would become
// of that if what was read were worse. It changes nothing.
func verify(ctx context.Context, f flags, stdout io.Writer) error {
	c, err := usable(ctx, f)
	if err != nil {
		return unusable{err}
	}
	fmt.Fprintf(stdout, "node %s, configuration %s\n", f.nodeName, c.hash)
	var vacuous, unread []string
	for _, s := range c.steps {
		v, err := verified(ctx, s)
		fmt.Fprintf(stdout, "\n%s (%s)\n", s.Name, s.Type)
		if err != nil {
			fmt.Fprintf(stdout, "  cannot be verified: %s\n", oneLine(err.Error()))
			unread = append(unread, s.Name)
			continue
		}
		fmt.Fprintf(stdout, "  looks at  %s\n  now       %s\n", oneLine(v.Looked), inOneLine(v.Result))
		for _, m := range v.Mutations {
			fmt.Fprintf(stdout, "  if        %s\n            %s\n", oneLine(m.Change), inOneLine(m.Result))
		}
		switch {
		case v.Result.Verdict != gate.Pass:
			fmt.Fprintln(stdout, "  it does not pass now, and so is seen to be able to fail")
		case v.Vacuous():
			fmt.Fprintln(stdout, "  VACUOUS: it passes whatever happens, and proves nothing")
			vacuous = append(vacuous, s.Name)
		}
	}
	fmt.Fprintln(stdout)
	switch {
	case len(unread) > 0:
		fmt.Fprintf(stdout, "%d of %d steps cannot be verified: %s\n", len(unread), len(c.steps), strings.Join(unread, ", "))
		return unusable{reported{errors.New("a step cannot be verified")}}
	case len(vacuous) > 0:
		fmt.Fprintf(stdout, "%d of %d steps are vacuous: %s\n", len(vacuous), len(c.steps), strings.Join(vacuous, ", "))
		return reported{errors.New("a step is vacuous")}
	}
	_, err = fmt.Fprintf(stdout, "all %d steps can fail\n", len(c.steps))
	return err
}

func verified(ctx context.Context, s *gate.Step) (v checks.Verification, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.Timeout)
	defer cancel()
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the check panicked: %v", p)
		}
	}()
	verifier, ok := s.Check.(checks.Verifier)
	if !ok {
		return v, errors.New("checks of its type cannot show that they can fail")
	}
	return verifier.Verify(ctx)
}

func inOneLine(r gate.Result) string {
	return fmt.Sprintf("%s %s: %s", strings.ToUpper(r.Verdict.String()), r.Reason, oneLine(r.Message))
}
