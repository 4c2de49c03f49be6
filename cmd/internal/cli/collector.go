package cli

// newBallast is memory that is never touched, so that no machine has to have it. It counts as live when the runtime
// decides how much garbage may gather before it is collected: as much as is live. A server that is idle but for one
// client holds little beside the pictures that it decodes, and would collect at every second one.
func newBallast() []byte { return make([]byte, 32<<20) }
