//go:build !linux

package ort

import "time"

func (f *Fixed) native([]time.Duration, time.Duration, []byte) (ok bool, err error) {
	return false, nil
}
