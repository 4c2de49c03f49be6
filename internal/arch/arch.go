// Package arch is the floor of the project: search spaces, architectures and
// networks as plain values, and every number that follows from them. It knows
// no tensor, file or runtime, and imports the standard library only.
package arch

import (
	"errors"
	"fmt"
)

// Arch is one point of a [Space]: a string with one base-36 digit per choice
// block, in network order, always of full length. It can be compared, used as
// a map key or a file name.
type Arch string

// ErrNotInSpace is wrapped by every error about an [Arch] that is not a point
// of the space at hand.
var ErrNotInSpace = errors.New("not in the space")

const digits = "0123456789abcdefghijklmnopqrstuvwxyz"

// Make spells choices, one per block, as an Arch. It panics on a choice
// outside 0..35: spaces with more candidates do not decode.
func Make(choices []int) Arch {
	b := make([]byte, len(choices))
	for i, c := range choices {
		b[i] = digits[c]
	}
	return Arch(b)
}

// Choice is the candidate index at block i, or an error for a byte that is no
// digit.
func (a Arch) Choice(i int) (int, error) {
	switch c := a[i]; {
	case c >= '0' && c <= '9':
		return int(c - '0'), nil
	case c >= 'a' && c <= 'z':
		return int(c-'a') + 10, nil
	default:
		return 0, fmt.Errorf("block %d: %q is no base-36 digit: %w", i, c, ErrNotInSpace)
	}
}
