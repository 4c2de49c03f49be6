//go:build !unix

package ort

import "errors"

// available needs a library that is found again by its name.
func available() ([]string, error) {
	return nil, errors.New("not known on this system")
}
