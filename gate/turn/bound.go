package turn

import "time"

// LongestWait is within which time a node has the turn where the cluster is well and as
// many nodes are ahead of it: every one of them reboots, or cannot use the turn and hands
// it on, as slowly as the configuration allows. A soak may be running already. kured's
// own window is not counted: outside of it nothing moves.
func LongestWait(c Config, ahead int) time.Duration {
	// Granted and silent, or granted, open and not acted on, closed and settled; then the
	// boot, which GrantTimeout has room for, and the soak.
	one := c.silence() + 2*c.GrantTimeout + 2*c.Settle + c.gone() + c.Soak + spread
	return max(c.Soak, c.gone()) + time.Duration(ahead+1)*one
}
