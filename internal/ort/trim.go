package ort

/*
#include <stdlib.h>
#ifdef __GLIBC__
#include <malloc.h>
static void trim(void) { malloc_trim(0); }
#else
static void trim(void) {}
#endif
*/
import "C"

// Trim gives native memory that closed sessions have freed back to the
// system, where the C library would keep it for later. It takes a few
// milliseconds, so it is for after a Close, not after a run.
func Trim() { C.trim() }
