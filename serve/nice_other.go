//go:build !linux

package serve

import "errors"

func addNice(int) error { return errors.New("only Linux has priorities of threads") }
