package checks

import (
	"time"

	"github.com/sentinel-gate/sentinel-gate/gate/cluster"
)

// crashLoopWindow is how long after its last crash a container that has crashed
// more than once still counts as crash-looping, although it runs: as long as
// the kubelet takes to forget its back-off.
const crashLoopWindow = 10 * time.Minute

// troubleOf says why the pod is not fine now, if it is not, and whether that is
// because a container crashes again and again. Between two crashes it may be
// Running and Ready.
func troubleOf(p cluster.Pod, now time.Time) (trouble string, looping bool) {
	if p.Trouble == "" && !p.Crashed.IsZero() && now.Sub(p.Crashed) < crashLoopWindow {
		return "crashed again at " + p.Crashed.UTC().Format(time.RFC3339), true
	}
	return p.Trouble, p.Looping
}
