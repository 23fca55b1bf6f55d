package turn

import (
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"

	"github.com/sentinel-gate/sentinel-gate/gate/soak"
	"github.com/sentinel-gate/sentinel-gate/gate/wiring"
)

// Event is something that the core is told: first those from outside, then the
// answers to its requests.
type Event interface{ event() }

type (
	// Updated says how the gate is.
	Updated struct{ Gate }
	// Asked says that every step has passed for long enough, and asks: may the gate open, or stay open?
	Asked struct{}
	// Unasked says that nobody waits for that answer any more.
	Unasked struct{}
	// Woken says that the time has come that was asked for.
	Woken struct{}
	// Heard says that the watch saw the Lease, or saw that it was deleted; then it is as it was last.
	Heard struct {
		Lease   *coordinationv1.Lease
		Deleted bool
	}
	// Unfollowed says that the watch has ended, as watches do where Err is nil.
	Unfollowed struct{ Err error }

	// Recalled answers RecallRecord.
	Recalled struct {
		Epoch    int64
		BootedAt time.Time
		Err      error
	}
	// Read answers ReadLease. Lease is nil where there is none. Version is where a watch
	// takes up: not the Lease's own, which is soon older than what an API server keeps.
	// Asked is when it was asked for, on the own clock, Date the API server's time then. Set:
	// that does not fit what was known of it before, but is believed from now on.
	Read struct {
		Lease       *coordinationv1.Lease
		Version     string
		Asked, Date time.Time
		Set         bool
		Err         error
	}
	// Looked answers LookAtHolder.
	Looked struct {
		Node string
		Holder
		Err error
	}
	// Listed answers ListRecords. Nodes: the Node objects were listed too. Members are what
	// is known of the soaks, with exposure.
	Listed struct {
		Candidates []Candidate
		Members    []soak.Node
		Nodes      bool
		Err        error
	}
	// Wrote answers WriteLease: Epoch was written. Conflict: somebody else has written
	// meanwhile.
	Wrote struct {
		Lease    *coordinationv1.Lease
		Epoch    int64
		Conflict bool
		Err      error
	}
	// Recorded answers RecordEpoch.
	Recorded struct {
		Epoch int64
		Err   error
	}
)

func (Updated) event()    {}
func (Asked) event()      {}
func (Unasked) event()    {}
func (Woken) event()      {}
func (Heard) event()      {}
func (Unfollowed) event() {}
func (Recalled) event()   {}
func (Read) event()       {}
func (Looked) event()     {}
func (Listed) event()     {}
func (Wrote) event()      {}
func (Recorded) event()   {}

// Effects are what the core wants done after an event.
type Effects struct {
	// Request is to be carried out, and answered by an event; nil: none, or one is
	// under way already.
	Request Request
	// Follow is the version from which the Lease is to be watched for as long as it is
	// the same; empty: it is not to be watched.
	Follow string
	// WakeAt is when Woken is wanted; zero: never.
	WakeAt time.Time
	// Answer answers Asked; nil: not yet.
	Answer *Answer
	// SetBack: the Lease that was read is older than one that was seen before.
	SetBack bool
}

// Answer says whether the gate may open; the zero value refuses.
type Answer struct {
	Permitted bool
	// Refusal is why not.
	Refusal error
}

// Request is something to ask the API server.
type Request interface{ request() }

type (
	// RecallRecord asks what the node's record knows of the turn and of this boot.
	RecallRecord struct{}
	// ReadLease reads the turn's Lease from the API server itself.
	ReadLease struct{}
	// LookAtHolder looks at a node, at its record, and, where Lock is set, at kured's lock.
	LookAtHolder struct {
		Node string
		Lock *Lock
	}
	// ListRecords lists the records of all nodes and, where Nodes is set, who of them
	// has a Node object, and its tier.
	ListRecords struct{ Nodes bool }
	// WriteLease writes State into the Lease, if that is still as it is here.
	WriteLease struct {
		Lease         *coordinationv1.Lease
		Before, State State
		Why           string
	}
	// RecordEpoch puts the epoch into the node's record: an older copy of the Lease that
	// somebody restores is then refused also by gates that have not seen, or have
	// forgotten, what came after it.
	RecordEpoch struct{ Epoch int64 }
)

func (RecallRecord) request() {}
func (ReadLease) request()    {}
func (LookAtHolder) request() {}
func (ListRecords) request()  {}
func (WriteLease) request()   {}
func (RecordEpoch) request()  {}

// Gate is what the gate says of itself.
type Gate struct {
	// Pending: its node waits for a reboot.
	Pending bool
	// Open: its gated sentinel resolves. ClosedSince is since when it has not.
	Open        bool
	ClosedSince time.Time
	// FailingSince is since when the gated sentinel could not be made, although every
	// step passed; zero: the last attempt was none, or succeeded.
	FailingSince time.Time
	// NodeBlocked: for an interval at least, only steps that are about this node
	// have held it back.
	NodeBlocked bool
	// StepsErr: for several intervals, only steps that are about this node and such as
	// err or time out have held it back, and of these one at least.
	StepsErr bool
	// Parts are those that it would run after its next boot, as soak.PutParts writes them.
	Parts string
	// Kured is how the kured on this node was started when it was last seen; nil where
	// that is not known. NoKured: none runs now.
	Kured   *wiring.Kured
	NoKured bool
}

// Lock is where a kured keeps its lock, and how many may have it; 0: not known.
type Lock struct {
	Namespace, DaemonSet, Annotation string
	Concurrency                      int
}

func (g Gate) lock() *Lock {
	kured := g.Kured
	if kured == nil {
		defaults := wiring.Defaults()
		defaults.Concurrency = 0
		kured = &defaults
	}
	return &Lock{kured.Namespace, kured.DaemonSet, kured.LockAnnotation, kured.Concurrency}
}
