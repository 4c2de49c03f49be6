package latency

import (
	"reflect"
	"strings"
	"unicode"
)

// printable is text without control characters, which a terminal would obey.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, text)
}

// clean makes all text [printable] that v, a pointer to what somebody else has
// sent, leads to.
func clean(v any) { cleanValue(reflect.ValueOf(v).Elem()) }

func cleanValue(v reflect.Value) {
	if !v.CanSet() { // a field of another package's
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(printable(v.String()))
	case reflect.Pointer:
		if !v.IsNil() {
			cleanValue(v.Elem())
		}
	case reflect.Struct:
		for _, field := range v.Fields() {
			cleanValue(field)
		}
	case reflect.Slice:
		if elem := v.Type().Elem().Kind(); elem == reflect.Int64 || elem == reflect.Int { // times, of which there are many
			return
		}
		for i := range v.Len() {
			cleanValue(v.Index(i))
		}
	case reflect.Map:
		if v.IsNil() {
			return
		}
		cleaned := reflect.MakeMapWithSize(v.Type(), v.Len())
		for entries := v.MapRange(); entries.Next(); {
			key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			key.Set(entries.Key())
			value.Set(entries.Value())
			cleanValue(key)
			cleanValue(value)
			cleaned.SetMapIndex(key, value)
		}
		v.Set(cleaned)
	}
}
