package ort

import "io"

// Settled is what a session is really made with.
func Settled(o Options) Options { return o.settled() }

// PlaceProfile is the placement that a profile tells of.
func PlaceProfile(r io.Reader, provider string) (Placement, error) {
	kernels, err := readProfile(r)
	if err != nil {
		return Placement{}, err
	}
	return place(kernels, provider), nil
}
