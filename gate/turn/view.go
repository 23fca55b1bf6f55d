package turn

// View is what a gate knows of the turn.
type View struct {
	State    State
	Operator Operator
	Move     Move
	// Problem is why the turn is not known; nothing is permitted then.
	Problem error
}

// Why is a sentence for a person.
func (v View) Why() string {
	if v.Problem != nil {
		return v.Problem.Error()
	}
	return v.Move.Why
}

// Concerns reports whether a node that waits for a reboot, or does not, has to do with
// the turn. A gate for which it does not follow it knows no more than how it once stood.
func (v View) Concerns(node string, pending bool) bool { return pending || v.State.Concerns(node) }

// Permits reports whether the gated sentinel may resolve.
func (v View) Permits() bool {
	return v.Problem == nil && v.Move.Permit && v.State.Phase == PhaseOpen
}

// Evaluates reports whether the steps are to be asked.
func (v View) Evaluates() bool { return v.Problem == nil && v.Move.Evaluate }

// String is a short form for logs: the phase and the holder.
func (v View) String() string {
	switch {
	case v.Problem != nil:
		return "unknown"
	case v.Operator.Halted:
		return "halted"
	case v.State.Phase == PhaseUnwritten:
		return "unused"
	case v.State.Holder == "" || v.State.Phase == PhaseFree:
		return string(v.State.Phase)
	}
	return string(v.State.Phase) + " " + v.State.Holder
}
