//go:build linux

package ort

/*
#include <errno.h>
#include <stdint.h>
#include <time.h>

// The binding's C half. Weak, since cgo links each package by itself first.
extern void *RunSessionWithBinding(void *session, void *binding) __attribute__((weak));
extern const char *GetErrorMessage(void *status) __attribute__((weak));
extern void ReleaseOrtStatus(void *status) __attribute__((weak));

static int linked(void) { return RunSessionWithBinding && GetErrorMessage && ReleaseOrtStatus; }
static const char *message(void *status) { return GetErrorMessage(status); }
static void release(void *status) { ReleaseOrtStatus(status); }

static int64_t now(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void idle(int64_t ns) {
	int64_t until = now() + ns;
	struct timespec t = {until / 1000000000, until % 1000000000};
	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR) {}
}

static void *loop(void *session, void *binding, int64_t *ns, size_t n, int64_t pause, volatile char *evict, size_t size) {
	for (size_t i = 0; i < n; i++) {
		if (pause > 0) idle(pause);
		for (size_t j = 0; j < size; j += 64) evict[j]++;
		int64_t start = now();
		void *status = RunSessionWithBinding(session, binding);
		ns[i] = now() - start;
		if (status) return status;
	}
	return NULL;
}
*/
import "C"

import (
	"errors"
	"reflect"
	"time"
	"unsafe"
)

// native runs and times without returning to Go in between. The binding has no
// such call, so the two handles are read out of it; ok is false where it has
// changed and they are not where they were.
func (f *Fixed) native(times []time.Duration, idle time.Duration, evict []byte) (ok bool, err error) {
	session, binding := handle(f.s.core.session, "s", "ortSession"), handle(f.b.binding, "o")
	if session == nil || binding == nil || C.linked() == 0 {
		return false, nil
	}
	status := C.loop(session, binding, (*C.int64_t)(unsafe.Pointer(unsafe.SliceData(times))), C.size_t(len(times)),
		C.int64_t(idle), (*C.char)(unsafe.Pointer(unsafe.SliceData(evict))), C.size_t(len(evict)))
	if status != nil {
		err = errors.New(C.GoString(C.message(status)))
		C.release(status)
	}
	return true, err
}

// handle follows unexported fields of the binding's structs; nil where they
// are not there.
func handle(of any, path ...string) unsafe.Pointer {
	v := reflect.ValueOf(of)
	for _, name := range path {
		if v.Kind() != reflect.Pointer || v.IsNil() || v.Elem().Kind() != reflect.Struct {
			return nil
		}
		v = v.Elem().FieldByName(name)
	}
	if v.Kind() != reflect.Pointer {
		return nil
	}
	return v.UnsafePointer()
}
