package pth_test

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"spos/internal/pth"
)

// record is an entry of a zip archive.
type record struct{ name, data string }

func archive(t testing.TB, records ...record) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, r := range records {
		w, err := z.CreateHeader(&zip.FileHeader{Name: r.name, Method: zip.Store})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(r.data)); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// around is an archive of a pickle and a storage "0" of twelve numbers.
func around(t testing.TB, pickle string) []byte {
	t.Helper()
	return archive(t, record{"a/data.pkl", pickle}, record{"a/data/0", string(ramp(12))})
}

func ramp(n int) (b []byte) {
	for i := range n {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(float32(i)))
	}
	return b
}

// Pieces of pickles.

func str(s string) string {
	return "X" + string(binary.LittleEndian.AppendUint32(nil, uint32(len(s)))) + s
}

func num(n int) string {
	return "\x8a\x08" + string(binary.LittleEndian.AppendUint64(nil, uint64(n)))
}

func nums(ns ...int) string {
	var s strings.Builder
	s.WriteString("(")
	for _, n := range ns {
		s.WriteString(num(n))
	}
	return s.String() + "t"
}

func global(module, name string) string { return "c" + module + "\n" + name + "\n" }

// storageID is a storage, as a persistent id.
func storageID(class, key string, n int) string {
	return "(" + str("storage") + global("torch", class) + str(key) + str("cpu") + num(n) + "tQ"
}

func rebuilt(storage string, offset int, shape, strides string) string {
	return global("torch._utils", "_rebuild_tensor_v2") + "(" + storage + num(offset) + shape + strides + "\x89)tR"
}

func tensor(offset int, shape, strides string) string {
	return rebuilt(storageID("FloatStorage", "0", 12), offset, shape, strides)
}

// of is a pickle of a dict with one key.
func of(key, value string) string { return "\x80\x02}" + str(key) + value + "s." }

// hostile files, each with a part of the message that it must give.
func hostile(t testing.TB) map[string][]byte {
	ok := tensor(0, nums(12), nums(1))
	pickles := map[string]string{
		// numbers and lengths
		"8999999999999999999 bytes wanted": "\x80\x04\x8e" + string(binary.LittleEndian.AppendUint64(nil, 8999999999999999999)),
		"18446744073709551615 bytes":       "\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\xff",
		"frame of 1099511627776 bytes":     "\x80\x04\x95\x00\x00\x00\x00\x00\x01\x00\x00.",
		"4294967295 bytes wanted":          "\x80\x02X\xff\xff\xff\xff",
		"2147483648 bytes wanted":          "\x80\x02\x8b\x00\x00\x00\x80",
		"200 bytes wanted":                 "\x80\x02\x8a\xc8\x01",
		"no name of at most 255":           "\x80\x02c" + strings.Repeat("x", 300) + "\ny\n.",
		"a name of more than 255":          "\x80\x04" + str(strings.Repeat("x", 300)) + str("y") + "\x93.",
		// the machine
		"opcode 0x00: unknown":           "\x80\x02\x00.",
		"opcode 0xff: unknown":           "\x80\x02\xff.",
		"the stack is empty":             "\x80\x02.",
		"opcode 0x30: the stack":         "\x80\x02N(0.",
		"opcode 0x74: no mark":           "\x80\x02t.",
		"nothing was stored under 9":     "\x80\x02h\x09.",
		"nothing was stored under 65536": "\x80\x02j\x00\x00\x01\x00.",
		"a tuple of arguments wanted":    "\x80\x02" + global("a", "b") + "NR.",
		"items for a dict":               "\x80\x02}Na.",
		"items for a tuple":              "\x80\x02)Na.",
		"keys for a list":                "\x80\x02]NNs.",
		"a key without a value":          "\x80\x02}(Nu.",
		"opcode 0x64: a key without":     "\x80\x02(Nd.",
		"a class wants two strings":      "\x80\x04NN\x93.",
		"no class to make":               "\x80\x02(o.",
		`"w" appears twice in a dict`:    "\x80\x02}" + str("w") + "Ns" + str("w") + "Ns.",
		"or with a key twice":            "\x80\x02" + global("collections", "OrderedDict") + "](](" + str("w") + "Ne](" + str("w") + "Nee\x85R.",
		"or with a":                      "\x80\x02" + global("collections", "OrderedDict") + "](NNe\x85R.",
		"1 bytes after the end":          of("w", ok) + "N",
		// storages
		"persistent id is None":     "\x80\x02NQ.",
		"persistent id is no stor":  "\x80\x02(" + str("thing") + "NtQ.",
		"a class, a key, a place":   of("w", storageID("FloatStorage", "0", -1)),
		"a key, a place and a":      of("w", storageID("FloatStorage", "0", math.MaxInt64)),
		"12 of float32 and 11 of":   of("w", "("+storageID("FloatStorage", "0", 12)+storageID("FloatStorage", "0", 11)+"t"),
		"and 12 of int64":           of("w", "("+storageID("FloatStorage", "0", 12)+storageID("LongStorage", "0", 12)+"t"),
		`no entry "data/7"`:         of("w", rebuilt(storageID("FloatStorage", "7", 12), 0, nums(12), nums(1))),
		`no entry "data/../../x"`:   of("w", rebuilt(storageID("FloatStorage", "../../x", 12), 0, nums(12), nums(1))),
		"48 bytes, not the 52 of":   of("w", rebuilt(storageID("FloatStorage", "0", 13), 0, nums(12), nums(1))),
		"not the 96 of 12 float64":  of("w", rebuilt(storageID("DoubleStorage", "0", 12), 0, nums(12), nums(1))),
		"does not lie in its 12":    of("w", "("+str("storage")+global("torch", "FloatStorage")+str("0")+str("cpu")+num(12)+"("+str("v")+num(5)+num(8)+"ttQ"),
		"not three values":          of("w", "("+str("storage")+global("torch", "FloatStorage")+str("0")+str("cpu")+num(12)+num(1)+"tQ"),
		"arguments for a tensor":    of("w", global("torch._utils", "_rebuild_tensor_v2")+")R"),
		"strides of rank 8 at most": of("w", tensor(0, nums(1, 1, 1, 1, 1, 1, 1, 1, 1), nums(1, 1, 1, 1, 1, 1, 1, 1, 1))),
		// shapes
		"1 strides for a shape of 2":  of("w", tensor(0, nums(3, 4), nums(1))),
		"shape [-1 -12]":              of("w", tensor(0, nums(-1, -12), nums(1, 1))),
		"shape [2 -1] with":           of("w", tensor(0, nums(2, -1), nums(1, 1))),
		"with strides [-1]":           of("w", tensor(11, nums(12), nums(-1))),
		"more numbers than the file":  of("w", tensor(0, nums(1<<31, 1<<31, 1<<31), nums(0, 0, 0))),
		"begins at 12 of 12":          of("w", tensor(12, nums(1), nums(1))),
		"begins at -1 of 12":          of("w", tensor(-1, nums(1), nums(1))),
		"from 1 leaves its storage":   of("w", tensor(1, nums(12), nums(1))),
		"[4611686018427387904 1] fro": of("w", tensor(0, nums(5, 1), nums(1<<62, 1))),
		"[3 1] from 4 leaves":         of("w", tensor(4, nums(3, 3), nums(3, 1))),
		"overlaps itself":             of("w", tensor(0, nums(3, 3), nums(1, 1))),
		"strides [2 1] overlaps":      of("w", tensor(0, nums(3, 3), nums(2, 1))),
		`tensor "a.b" appears twice`:  "\x80\x02}" + str("w") + "}" + str("a.b") + ok + "s" + str("a") + "}" + str("b") + ok + "sss.",
	}
	self := "\x80\x02}q\x00" + str("w") + ok + "s" + str("a") + "h\x00s."
	pickles["dicts nested more than 16"] = self

	// Each dict holds the one before it twice.
	var d strings.Builder
	d.WriteString("\x80\x02}" + str("w") + ok + "sq\x01")
	for range 14 {
		d.WriteString("0}" + str("a") + "h\x01s" + str(strings.Repeat("b", 3000)) + "h\x01sq\x01")
	}
	pickles["names of the tensors take more"] = d.String() + "."

	files := map[string][]byte{}
	for want, p := range pickles {
		files[want] = around(t, p)
	}
	maps.Copy(files, containers(t, ok))
	return files
}

// containers are broken around a pickle that may be sound.
func containers(t testing.TB, weight string) map[string][]byte {
	sound := of("w", weight)
	storage := record{"a/data/0", string(ramp(12))}
	legacy := func(parts ...string) []byte {
		return []byte("\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}." + strings.Join(parts, ""))
	}
	count := func(n uint64) string { return string(binary.LittleEndian.AppendUint64(nil, n)) }
	keys := "\x80\x02]" + str("0") + "a."
	return map[string][]byte{
		"too few for a checkpoint":     {0x80, 2},
		"neither the zip archive nor":  []byte("{\"a\": 1}"),
		"no sound directory":           []byte("PK\x03\x04 and nothing else"),
		`no entry "data.pkl"`:          archive(t, storage),
		`entry "a/data/0" appears twi`: archive(t, record{"a/data.pkl", sound}, storage, storage),
		"is not in the folder":         archive(t, record{"a/data.pkl", sound}, record{"b/data/0", storage.data}),
		"a TorchScript archive":        archive(t, record{"a/constants.pkl", ""}, record{"a/data.pkl", sound}, storage),
		`byteorder is "middle"`:        archive(t, record{"a/byteorder", "middle"}, record{"a/data.pkl", sound}, storage),
		`byteorder is "little little`:  archive(t, record{"a/byteorder", "little little little"}, record{"a/data.pkl", sound}, storage),
		"is compressed or encrypted":   bomb(t),
		"ends after the file":          replaced(t, archive(t, record{"a/data.pkl", sound}, storage), 0, 48, 1<<30),
		"has no header":                replaced(t, archive(t, record{"a/data.pkl", sound}, storage), 1, 0, 3),
		"but not of torch.save":        []byte("\x80\x02N."),
		"magic number: pickle, byte":   []byte("\x80\x02\x8a\x0a"),
		"not version 1001":             []byte("\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02K\x01."),
		"data: pickle, byte 0":         legacy(),
		"storage keys: pickle":         legacy(sound),
		"storage keys: a dict":         legacy(sound, "\x80\x02}."),
		"listed twice or belongs":      legacy(sound, "\x80\x02]"+str("1")+"a."),
		`"0" is listed twice`:          legacy(sound, "\x80\x02]("+str("0")+str("0")+"e.", count(12), string(ramp(12)), count(12)),
		`"" is listed twice`:           legacy(sound, "\x80\x02]Na."),
		`storage "0" is not in`:        legacy(sound, "\x80\x02]."),
		"begins at byte":               legacy(sound, keys, "abc"),
		"has 13 numbers, not 12":       legacy(sound, keys, count(13), string(ramp(12))),
		"of 48 bytes at byte":          legacy(sound, keys, count(12), string(ramp(11))),
		"4 bytes after the last":       legacy(sound, keys, count(12), string(ramp(13))),
		"of unknown size":              legacy(of("w", rebuilt(storageID("OddStorage", "0", 12), 0, nums(12), nums(1))), keys, count(12)),
	}
}

// bomb is an archive whose storage is compressed.
func bomb(t testing.TB) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, r := range []record{
		{"a/data.pkl", of("w", rebuilt(storageID("FloatStorage", "0", 1<<20), 0, nums(1024), nums(1)))},
		{"a/data/0", string(make([]byte, 4<<20))},
	} {
		w, err := z.Create(r.name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(r.data)); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// replaced sets both sizes of the entry with the given number in the
// directory of an archive (at 20 bytes into it), or the offset of its header.
func replaced(t testing.TB, b []byte, entry int, size, offset uint32) []byte {
	t.Helper()
	at := bytes.Index(b, []byte("PK\x01\x02"))
	for range entry {
		at += 4 + bytes.Index(b[at+4:], []byte("PK\x01\x02"))
	}
	if size > 0 {
		binary.LittleEndian.PutUint32(b[at+20:], offset)
		binary.LittleEndian.PutUint32(b[at+24:], offset)
	} else {
		binary.LittleEndian.PutUint32(b[at+42:], offset)
	}
	return b
}

func TestHostile(t *testing.T) {
	for want, b := range hostile(t) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := pth.Read(bytes.NewReader(b), int64(len(b)), "bad.pth", "")
		runtime.ReadMemStats(&after)
		if !errors.Is(err, pth.ErrCorrupt) && !errors.Is(err, pth.ErrFormat) {
			t.Errorf("%q: %v wraps no sentinel", want, err)
			continue
		}
		if !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "bad.pth") {
			t.Errorf("want %q, got %v", want, err)
		}
		if got := after.TotalAlloc - before.TotalAlloc; got > 100<<20 {
			t.Errorf("%q: allocated %d bytes for a file of %d", want, got, len(b))
		}
	}
}

// A file asks for functions to be called in every way that a pickle has. It
// gets its weight read and nothing done.
func TestNothingRuns(t *testing.T) {
	t.Chdir(t.TempDir())
	system := global("os", "system")
	args := "(" + str("touch pwned") + "t"
	evil := map[string]string{
		"REDUCE":       system + args + "R",
		"NEWOBJ":       system + args + "\x81",
		"NEWOBJ_EX":    system + args + "}\x92",
		"INST":         "(" + str("touch pwned") + "ios\nsystem\n",
		"OBJ":          "(" + system + str("touch pwned") + "o",
		"STACK_GLOBAL": str("os") + str("system") + "\x93" + args + "R",
		"BUILD":        global("a", "B") + ")R}" + str("__setstate__") + system + "sb",
		"of a type":    global("torch._tensor", "_rebuild_from_type_v2") + "(" + system + global("torch", "Tensor") + args + "}tR",
		"EXT1":         "\x82\x01" + args + "R",
		"a tensor's":   tensor(0, nums(1), nums(1)) + args + "R",
		"subclass":     global("a", "List") + ")R(" + system + args + "Re",
	}
	var all strings.Builder
	all.WriteString("\x80\x02}" + str("w") + tensor(0, nums(3, 4), nums(4, 1)) + "s")
	for key, call := range evil {
		all.WriteString(str(key) + call + "s")
	}
	b := around(t, all.String()+".")
	f, err := pth.Read(bytes.NewReader(b), int64(len(b)), "evil", "")
	if err != nil {
		t.Fatal(err)
	}
	got, err := f.Tensor("w")
	if err != nil || len(got.Data) != 12 || got.Data[11] != 11 {
		t.Errorf("%v, %v", got, err)
	}
	if left, _ := os.ReadDir("."); len(left) != 0 {
		t.Errorf("something ran: %v", left)
	}
	for _, name := range f.Names() {
		if name != "w" && name != "a tensor's" {
			t.Errorf("%q is listed: no tensor went into it", name)
		}
	}
}

// What a pickle of single bytes can make a machine allocate is bounded, and so
// is what a directory of empty entries costs.
func TestBombs(t *testing.T) {
	entries := make([]record, 90000)
	for i := range entries {
		entries[i].name = fmt.Sprintf("a/data/%0100d", i)
	}
	for name, tt := range map[string]struct {
		b    []byte
		want string
	}{
		"lists":     {around(t, "\x80\x02"+strings.Repeat("]", 4<<20)), "more than 2097152 operations"},
		"memo":      {around(t, "\x80\x04"+strings.Repeat("}\x94", 2<<20)), "more than 2097152 operations"},
		"nested":    {around(t, "\x80\x02"+strings.Repeat("]", 1<<20)+strings.Repeat("a", 1<<20-1)+"."), "a list, not a dict"},
		"pairs":     {around(t, "\x80\x02]q\x00("+strings.Repeat("N", 1<<20)+"e\x85q\x010"+strings.Repeat(global("collections", "OrderedDict")+"h\x01R", 2000)+"."), "operations"},
		"directory": {archive(t, entries...), "a directory of more than"},
	} {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := pth.Read(bytes.NewReader(tt.b), int64(len(tt.b)), "bomb", "")
			runtime.ReadMemStats(&after)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("want %q, got %v", tt.want, err)
			}
			got := (after.TotalAlloc - before.TotalAlloc) >> 20
			t.Logf("%d MB in all for a file of %d kB", got, len(tt.b)>>10)
			if got > 400 {
				t.Errorf("allocated %d MB in all", got)
			}
		})
	}
}

// Many tensors in one storage must not add up to much more than the file.
func TestReuseIsBounded(t *testing.T) {
	var p strings.Builder
	p.WriteString("\x80\x02}")
	for i := range 400 {
		p.WriteString(str(fmt.Sprint(i)) + rebuilt(storageID("FloatStorage", "0", 1<<16), 0, nums(2), nums(1<<16-1)) + "s")
	}
	b := archive(t, record{"a/data.pkl", p.String() + "."}, record{"a/data/0", string(make([]byte, 4<<16))})
	_, err := pth.Read(bytes.NewReader(b), int64(len(b)), "reuse", "")
	if !errors.Is(err, pth.ErrCorrupt) || !strings.Contains(err.Error(), "more than 16 times") {
		t.Error(err)
	}
}

// A big-endian file is the same numbers with their bytes turned around.
func TestBigEndian(t *testing.T) {
	var floats, halves, wide []byte
	for i := range 12 {
		floats = binary.BigEndian.AppendUint32(floats, math.Float32bits(float32(i)))
		wide = binary.BigEndian.AppendUint64(wide, math.Float64bits(float64(i)))
		halves = binary.BigEndian.AppendUint16(halves, uint16(math.Float32bits(float32(i))>>16))
	}
	var p strings.Builder
	p.WriteString("\x80\x02}")
	for i, class := range []string{"FloatStorage", "DoubleStorage", "BFloat16Storage"} {
		p.WriteString(str(class) + rebuilt(storageID(class, fmt.Sprint(i), 12), 0, nums(4, 3), nums(1, 4)) + "s")
	}
	b := archive(t, record{"a/data.pkl", p.String() + "."}, record{"a/byteorder", "big"},
		record{"a/data/0", string(floats)}, record{"a/data/1", string(wide)}, record{"a/data/2", string(halves)})
	f, err := pth.Read(bytes.NewReader(b), int64(len(b)), "big", "")
	if err != nil {
		t.Fatal(err)
	}
	want := []float32{0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11}
	for _, name := range f.Names() {
		if got, err := f.Tensor(name); err != nil || !same(got.Data, want) {
			t.Errorf("%s: %v, %v", name, got.Data, err)
		}
	}
}

// What old writers did: Python 2 made an OrderedDict of pairs and wrote byte
// strings, and torch kept views of storages in the persistent id.
func TestOldWriters(t *testing.T) {
	short := func(s string) string { return "U" + string(rune(len(s))) + s }
	view := "(" + short("storage") + global("torch.cuda", "FloatStorage") + short("0") + short("cuda:0") + "K\x0c(" + short("v") + "K\x04K\x05ttQ"
	w := global("torch._utils", "_rebuild_tensor") + "(" + view + "K\x01K\x02\x85K\x02\x85tR"
	pair := "](" + short("w") + w + "e"
	p := "\x80\x02" + global("collections", "OrderedDict") + "](" + pair + "e\x85R}" + short("_metadata") + "Nsb."
	b := around(t, p)
	f, err := pth.Read(bytes.NewReader(b), int64(len(b)), "old", "")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := f.Tensor("w"); err != nil || !same(got.Data, []float32{5, 7}) {
		t.Errorf("%v, %v", got, err)
	}
}

func seeds(f *testing.F) {
	for _, b := range hostile(f) {
		if len(b) < 1<<16 {
			f.Add(b)
		}
	}
	names, err := filepath.Glob("testdata/*.pth")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
}

// readAll reads what can be read of a file that may be anything.
func readAll(t *testing.T, b []byte) {
	f, err := pth.Read(bytes.NewReader(b), int64(len(b)), "fuzz", pth.Root)
	if err != nil {
		if !errors.Is(err, pth.ErrCorrupt) && !errors.Is(err, pth.ErrFormat) && !errors.Is(err, pth.ErrChoice) {
			t.Fatalf("wraps no sentinel: %v", err)
		}
		return
	}
	total := 0
	for _, name := range f.Names() {
		x, err := f.Tensor(name)
		if err == nil {
			total += len(x.Data)
		}
	}
	if total > 16*len(b) {
		t.Fatalf("%d numbers out of %d bytes", total, len(b))
	}
}

func FuzzRead(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, b []byte) { readAll(t, b) })
}

func FuzzPickle(f *testing.F) {
	f.Add([]byte(of("w", tensor(0, nums(3, 4), nums(4, 1)))))
	f.Add([]byte("\x80\x04\x95\x0f\x00\x00\x00\x00\x00\x00\x00}\x94\x8c\x01a\x94K\x01s."))
	f.Add([]byte("\x80\x02" + global("collections", "OrderedDict") + "](](" + str("w") + tensor(1, nums(2, 0), nums(0, 5)) + "ee\x85R}b."))
	f.Fuzz(func(t *testing.T, p []byte) {
		// Not the writer of archives of the other tests: its checksums cost more
		// than what is tested.
		readAll(t, stored(string(p), string(ramp(12))))
	})
}

// stored is an archive of data.pkl and data/0, put together by hand.
func stored(pickle, storage string) []byte {
	le := binary.LittleEndian
	var b, dir []byte
	for _, r := range []record{{"a/data.pkl", pickle}, {"a/data/0", storage}} {
		var h []byte
		h = le.AppendUint32(h, crc32.ChecksumIEEE([]byte(r.data)))
		h = le.AppendUint32(h, uint32(len(r.data)))
		h = le.AppendUint32(h, uint32(len(r.data)))
		h = le.AppendUint16(h, uint16(len(r.name)))
		at := uint32(len(b))
		b = append(append(append(b, "PK\x03\x04\x14\x00\x00\x00\x00\x00\x00\x00\x00\x00"...), h...), 0, 0)
		b = append(append(b, r.name...), r.data...)
		dir = append(append(append(dir, "PK\x01\x02\x14\x00\x14\x00\x00\x00\x00\x00\x00\x00\x00\x00"...), h...), make([]byte, 12)...)
		dir = append(le.AppendUint32(dir, at), r.name...)
	}
	end := append([]byte("PK\x05\x06\x00\x00\x00\x00"), 2, 0, 2, 0)
	end = le.AppendUint32(end, uint32(len(dir)))
	end = le.AppendUint32(end, uint32(len(b)))
	return append(append(append(b, dir...), end...), 0, 0)
}
