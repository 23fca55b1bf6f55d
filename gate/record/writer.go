package record

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sentinel-gate/sentinel-gate/gate/clock"
	"github.com/sentinel-gate/sentinel-gate/gate/soak"
)

// Pauses between attempts to write.
const (
	firstPause = time.Second
	lastPause  = time.Minute
	// timeout bounds a look and a write: a webhook of somebody else's, of which a dead one
	// may take 30 seconds, stands before it.
	timeout = 35 * time.Second
)

// lookEvery is how often the record is read although nothing has changed, up to a third
// sooner: an etcd that was restored has an old one, and no gate would notice.
const lookEvery = 6 * time.Hour

// maxDrift is how far a recorded boot may be from the API server's time less
// the uptime before it is taken for a mistake.
const maxDrift = clock.Tolerance

// Writer writes one node's record. It asks nothing of the API server while
// nothing changes.
type Writer struct {
	leases     Leases
	proc       string
	log        *slog.Logger
	changed    chan struct{}
	mu         sync.Mutex
	wanted     Record
	written    bool // the wanted record stands in the API server
	failures   int
	known      bool          // the record was read
	remembered bool          // and the time that it tells of was told
	recalled   chan struct{} // and closed then
	earlier    int64         // the epoch that it told of then
	booted     time.Time
	demanded   int64         // the epoch that RecordEpoch waits for
	recorded   int64         // the epoch that the record tells of
	wrote      chan struct{} // closed, and made anew, when recorded grows
	again      bool          // the record is to be read again
	opens      bool          // SetOpened was called
	soaking    *Soaking      // nil: nothing is told of parts
	// What follows only Run's goroutine uses.
	lease      *coordinationv1.Lease // as last read or written
	bootedAt   time.Time
	previousID string
	date, at   time.Time // the API server's time, and when that was
	asked      asked
	boot       soak.Boot // this boot; zero: nothing is told of parts
	judged     bool      // its soak is over, and was judged
	judgeAfter time.Time // not before
}

// asked is when a reboot was asked for, by the node's clock and by the API server's.
type asked struct{ here, there time.Time }

// Leases are those of one namespace, as the API server has them.
type Leases interface {
	Get(ctx context.Context, name string, options metav1.GetOptions) (*coordinationv1.Lease, error)
	Create(ctx context.Context, lease *coordinationv1.Lease, options metav1.CreateOptions) (*coordinationv1.Lease, error)
	Update(ctx context.Context, lease *coordinationv1.Lease, options metav1.UpdateOptions) (*coordinationv1.Lease, error)
}

// NewWriter returns the writer of the record of node. Its leases are those of
// the gate's namespace and must be read through a clock.Witness; proc is
// where the host's /proc is.
func NewWriter(leases Leases, node, configHash, proc string, log *slog.Logger) (*Writer, error) {
	id, err := ReadBootID(proc)
	if err != nil {
		return nil, err
	}
	if _, err := ReadUptime(proc); err != nil {
		return nil, err
	}
	return &Writer{
		leases: leases, proc: proc, log: log, changed: make(chan struct{}, 1), recalled: make(chan struct{}), wrote: make(chan struct{}),
		wanted: Record{Node: node, BootID: id, ConfigHash: configHash},
	}, nil
}

// Set tells what the record should say from now on. pendingSince is by the node's clock,
// wants are the parts that are pending with it. It does not block.
func (w *Writer) Set(state string, blocking []string, pendingSince time.Time, wants []soak.Part) {
	w.mu.Lock()
	defer w.mu.Unlock()
	wanted := w.wanted
	wanted.State, wanted.Blocking, wanted.PendingSince = state, blocking, pendingSince
	if wanted.PartsPending = nil; w.soaking != nil && !pendingSince.IsZero() {
		wanted.PartsPending = wants
	}
	w.want(wanted)
}

// SetOpened tells whether the turn is this node's, and its gate was opened in this boot.
func (w *Writer) SetOpened(is bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.soaking == nil {
		return
	}
	wanted := w.wanted
	wanted.Opened, w.opens = is, true
	w.want(wanted)
}

// LookAgain reads the record again, and writes it where it is not what it should be.
func (w *Writer) LookAgain() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.again = true
	w.hasten()
}

// want wakes Run where the record should say something else.
func (w *Writer) want(r Record) {
	if w.wanted.equal(r) {
		return
	}
	w.wanted, w.written = r, false
	w.hasten()
}

// hasten wakes Run.
func (w *Writer) hasten() {
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

// SetTurnEpoch tells the turn's epoch that was seen, which is written when
// something else is.
func (w *Writer) SetTurnEpoch(epoch int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wanted.TurnEpoch = max(w.wanted.TurnEpoch, epoch)
}

// RecordEpoch returns once the record tells of the turn's epoch, or of a later one,
// and with an error when ctx ends before.
func (w *Writer) RecordEpoch(ctx context.Context, epoch int64) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wanted.TurnEpoch, w.demanded = max(w.wanted.TurnEpoch, epoch), max(w.demanded, epoch)
	for w.recorded < epoch {
		w.hasten()
		wrote := w.wrote
		w.mu.Unlock()
		select {
		case <-wrote:
		case <-ctx.Done():
		}
		w.mu.Lock()
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("writing the turn's epoch %d into the record of this node: %w", epoch, err)
		}
	}
	return nil
}

// Recall returns the turn's epoch that the record told of when the gate started, which
// an earlier life of it had seen, and when this boot was by the API server's clock. It
// returns an error when ctx ends before the record was read.
func (w *Writer) Recall(ctx context.Context) (epoch int64, bootedAt time.Time, err error) {
	w.hasten()
	select {
	case <-w.recalled:
	case <-ctx.Done():
		return 0, time.Time{}, fmt.Errorf("reading the record of this node: %w", ctx.Err())
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.earlier, w.booted, nil
}

// Written reports whether the record in the API server says what was Set.
func (w *Writer) Written() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.written
}

// Failures returns how many attempts to write have failed.
func (w *Writer) Failures() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.failures
}

// Run writes the record whenever it should say something else, and tries
// again, at growing pauses, where that fails. Until it is written, the soak of
// every other gate is Unknown for this node, so nothing opens for want of it.
func (w *Writer) Run(ctx context.Context) {
	retry := time.NewTimer(0)
	defer retry.Stop()
	pause := firstPause
	look := time.NewTimer(lookEvery)
	defer look.Stop()
	over := time.NewTimer(lookEvery)
	over.Stop()
	defer over.Stop()
	for {
		again := false
		select {
		case <-ctx.Done():
			return
		case <-w.changed:
		case <-retry.C:
		case <-look.C:
			again = true
		case <-over.C:
			again = true
		}
		w.mu.Lock()
		wanted := w.wanted
		again, w.again = again || w.again, false
		w.mu.Unlock()
		if again {
			w.lease = nil
			look.Reset(time.Duration(float64(lookEvery) * (1 - rand.Float64()/3)))
		}
		if wanted.State == "" {
			continue // nothing was Set yet
		}
		if err := w.write(ctx, wanted); err != nil {
			if ctx.Err() != nil {
				return
			}
			w.lease = nil
			w.mu.Lock()
			w.failures++
			w.mu.Unlock()
			w.log.Warn("the node's record could not be written; until it is, the soak of every gate is Unknown for this node", "error", err, "retryIn", pause.String())
			retry.Reset(pause)
			pause = min(2*pause, lastPause)
			continue
		}
		pause = firstPause
		w.mu.Lock()
		w.written = w.wanted.equal(wanted)
		w.mu.Unlock()
		if in, soaks := w.soakLeft(); soaks {
			over.Reset(max(in, firstPause))
		}
	}
}

func (w *Writer) write(ctx context.Context, r Record) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if w.lease == nil {
		if err := w.read(ctx, r); err != nil {
			return fmt.Errorf("reading the record of node %s: %w", r.Node, err)
		}
	}
	r.BootedAt, r.PreviousBootID = w.bootedAt, w.previousID
	w.mu.Lock()
	demanded, opens := w.demanded, w.opens
	w.mu.Unlock()
	w.judgeSoak(ctx)
	r.Announced, r.Soaked, r.Parts, r.PartsAgainst = w.boot.Announced, w.boot.Soaked, w.boot.Parts, w.boot.Against
	before, err := Parse(w.lease)
	r.TurnEpoch = max(r.TurnEpoch, before.TurnEpoch) // what an earlier life of the gate has seen was seen
	r.PendingSince = w.there(r.PendingSince)
	if err == nil && before.BootID == r.BootID && !r.PendingSince.IsZero() && !before.PendingSince.IsZero() && before.PendingSince.Before(r.PendingSince.Add(maxDrift)) {
		r.PendingSince = before.PendingSince // asked for again, or by a gate that restarted
	}
	if err == nil && before.BootID == r.BootID && !opens {
		r.Opened = before.Opened // an earlier life of the gate knew
	}
	if err == nil && before.equal(r) && before.TurnEpoch >= demanded && w.lease.Labels[Label] == "true" {
		w.recordedIs(before)
		return nil
	}
	lease := w.lease.DeepCopy()
	r.put(lease, time.Now())
	if lease.ResourceVersion == "" {
		lease, err = w.leases.Create(ctx, lease, metav1.CreateOptions{})
	} else {
		lease, err = w.leases.Update(ctx, lease, metav1.UpdateOptions{})
	}
	if err != nil {
		return fmt.Errorf("writing the record of node %s: %w", r.Node, err)
	}
	w.lease = lease
	w.recordedIs(r)
	return nil
}

// there is a time of the node's clock by the API server's: as long ago. Clocks of nodes
// disagree, and who waits for longest is compared.
func (w *Writer) there(here time.Time) time.Time {
	switch {
	case here.IsZero():
		return here
	case here.Equal(w.asked.here):
		return w.asked.there
	}
	now := w.date.Add(time.Since(w.at))
	ago := max(time.Now().Round(0).Sub(here), 0) // by the wall clock alone
	w.asked = asked{here, now.Add(-ago)}
	return w.asked.there
}

// recordedIs takes note of what the record tells.
func (w *Writer) recordedIs(r Record) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if r.TurnEpoch > w.recorded {
		w.recorded = r.TurnEpoch
		close(w.wrote)
		w.wrote = make(chan struct{})
	}
}

// read gets the Lease as it is, and with it what is known of this boot: as it
// was recorded, or, for a boot that was not, the API server's time less the
// kernel's uptime. Rounding makes that boot look a moment younger.
func (w *Writer) read(ctx context.Context, r Record) error {
	uptime, err := ReadUptime(w.proc)
	if err != nil {
		return err
	}
	ctx, reading := clock.Read(ctx)
	lease, err := w.leases.Get(ctx, r.Node, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		lease, err = &coordinationv1.Lease{}, nil
	}
	if err != nil {
		return err
	}
	now, err := reading.Now()
	if err != nil {
		return err
	}
	before, err := Parse(lease)
	w.mu.Lock()
	first := !w.known && !w.remembered
	w.remembered = true
	w.mu.Unlock()
	if first && err == nil && before.BootID == r.BootID {
		// What an earlier life of this gate was told at boot, and the kernel's clock
		// since: a server whose clock is wrong now is told by it.
		if err := reading.Remember(before.BootedAt.Add(uptime)); err != nil {
			return err
		}
	}
	w.date, w.at = now, time.Now()
	// Computed once per boot: a recorded time stands, unless it cannot be right.
	computed := now.Add(time.Second - uptime).Truncate(time.Second).Add(time.Second)
	off := before.BootedAt.Sub(computed)
	if err == nil && before.BootID == r.BootID && (off.Abs() < maxDrift || off > 0 && !before.BootedAt.After(now)) {
		w.bootedAt = before.BootedAt // within one boot it only moves later
	} else if off := w.bootedAt.Sub(computed); off.Abs() >= maxDrift {
		w.bootedAt = computed
	}
	if err := w.takeBoot(before, err == nil); err != nil {
		return err
	}
	switch before.BootID {
	case "": // keeps what this writer knew of a record that is gone
	case r.BootID:
		w.previousID = before.PreviousBootID
	default:
		w.previousID = before.BootID
	}
	w.lease = lease
	w.mu.Lock()
	defer w.mu.Unlock()
	w.booted = w.bootedAt
	if w.earlier = max(w.earlier, before.TurnEpoch); !w.known {
		w.known = true
		close(w.recalled)
	}
	return nil
}
