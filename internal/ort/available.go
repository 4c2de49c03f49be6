//go:build unix

package ort

/*
#cgo linux LDFLAGS: -ldl
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>

// The library's interface is a table of functions that only ever grows at its
// end (OrtApi in onnxruntime_c_api.h), so a place in it is for good.
enum { places_list = 125, places_release = 126, api_version = 24 };

typedef struct {
	const void *const *(*table)(uint32_t version);
	const char *(*version)(void);
} api_base;

// The binding has opened the library; this finds the same one again.
static const void *const *table(const char *path) {
	void *library = dlopen(path, RTLD_LAZY | RTLD_NOLOAD);
	if (library == NULL) return NULL;
	const api_base *(*base)(void) = (const api_base *(*)(void))dlsym(library, "OrtGetApiBase");
	const void *const *t = base == NULL ? NULL : base()->table(api_version);
	dlclose(library);
	return t;
}

static int list_providers(const void *const *t, char ***names) {
	int n = 0;
	void *(*list)(char ***, int *) = (void *(*)(char ***, int *))t[places_list];
	return list(names, &n) == NULL ? n : -1;
}

static void release_providers(const void *const *t, char **names, int n) {
	((void *(*)(char **, int))t[places_release])(names, n);
}
*/
import "C"

import (
	"errors"
	"slices"
	"unsafe"
)

// available asks the opened library for what the binding does not tell: the
// providers that it was built with, in its order of preference.
func available() ([]string, error) {
	if opened.rt == nil {
		return nil, ErrLibrary
	}
	path := C.CString(opened.rt.path)
	defer C.free(unsafe.Pointer(path))
	table := C.table(path)
	if table == nil {
		return nil, errors.New("the library is not open under its name")
	}
	var list **C.char
	n := C.list_providers(table, &list)
	if n < 0 {
		return nil, errors.New("the library does not tell")
	}
	defer C.release_providers(table, list, n)
	names := make([]string, n)
	for i, name := range unsafe.Slice(list, int(n)) {
		names[i] = ProviderName(C.GoString(name))
	}
	slices.Sort(names)
	return names, nil
}
