package gate

import (
	"context"
	"fmt"
	"time"

	"github.com/sentinel-gate/sentinel-gate/gate/wiring"
)

// lookFor is how long a look at kured's process is waited for. What is read there is of
// another process, and one that cannot be read must stop nothing.
const lookFor = 5 * time.Second

// kuredLook looks at the kured on this node, one look at a time.
type kuredLook struct {
	find func() wiring.Finding
	free chan struct{} // has an element while no look is under way
}

func newKuredLook(find func() wiring.Finding) *kuredLook {
	k := &kuredLook{find, make(chan struct{}, 1)}
	k.free <- struct{}{}
	return k
}

// look returns what was found. It is Undetermined where that takes too long.
func (k *kuredLook) look(ctx context.Context) wiring.Finding {
	ctx, cancel := context.WithTimeout(ctx, lookFor)
	defer cancel()
	found := make(chan wiring.Finding, 1)
	select {
	case <-k.free:
		go func() {
			found <- k.find()
			k.free <- struct{}{}
		}()
	case <-ctx.Done():
	}
	select {
	case f := <-found:
		return f
	case <-ctx.Done():
		return wiring.Finding{Reason: wiring.Undetermined, Message: fmt.Sprintf("looking through the processes of this node for kured has not ended within %s: one of them cannot be read", lookFor)}
	}
}
