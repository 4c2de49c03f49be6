//go:build !linux

package cli

func patiently() (undo func()) { return func() {} }
