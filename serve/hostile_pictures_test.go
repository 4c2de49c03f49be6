package serve_test

import (
	"bytes"
	"compress/zlib"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"image/color"
	"net"
	"os"
	"slices"
	"strings"
	"testing"

	"spos/serve"
)

// hostilePictures is numbers 33 to 41.
func hostilePictures(t *testing.T) []hostile {
	t.Helper()
	images := serve.SeedImages(t)
	jpeg, png := images["image/jpeg"], images["image/png"]
	cmyk, err := os.ReadFile("../internal/imaging/testdata/golden/cmyk_61x47.jpg")
	if err != nil {
		t.Fatal(err)
	}
	picture := func(data []byte, lines ...string) func(*ground) reply {
		return request("POST", "/v2/models/c/classify", string(data), lines...)
	}
	encoded := func(text string) func(*ground) reply {
		return picture([]byte(`{"image":"`+text+`"}`), "Content-Type: application/json")
	}
	sized := func(w, h uint16) []byte {
		b := bytes.Clone(jpeg)
		at := bytes.Index(b, []byte{0xff, 0xc0})
		binary.BigEndian.PutUint16(b[at+5:], h)
		binary.BigEndian.PutUint16(b[at+7:], w)
		return b
	}
	scans := func(n int) []byte { // a frame of great size with many empty scans
		b := sized(65535, 65535)
		b[bytes.Index(b, []byte{0xff, 0xc0})+1] = 0xc2
		sos := bytes.Index(b, []byte{0xff, 0xda})
		return slices.Concat(b, bytes.Repeat(b[sos:sos+14], n))
	}
	at := bytes.Index(png, []byte("IDAT")) - 4
	frames := chunk("acTL", "\x00\x00\x27\x10\x00\x00\x00\x00")
	for i := range 10_000 {
		frames = append(frames, chunk("fcTL", string(binary.BigEndian.AppendUint32(nil, uint32(i)))+strings.Repeat("\x00", 22))...)
	}
	encodedPNG := base64.StdEncoding.EncodeToString(png)
	twoKind, two := form(t, []string{"a.png", "b.png"}, png)
	manyKind, many := form(t, slices.Repeat([]string{"/field"}, 10_000), nil)
	fieldKind, field := form(t, []string{"/note"}, png)
	part := "--b\r\nContent-Disposition: form-data; name=image\r\nX-A: " + strings.Repeat("x", 1<<20) + "\r\n\r\nx\r\n--b--\r\n"
	rows := []hostile{
		{n: 33, name: "PNG", send: bytesOf(picture(pngHeader(60_000, 60_000)[:781]), 1<<20), codes: []int{413}, part: "too large"},
		{n: 33, name: "PNG of 2^31", send: bytesOf(picture(pngHeader(1<<31-1, 1<<31-1)[:781]), 1<<20), codes: []int{400, 413, 415}},
		{n: 33, name: "JPEG", send: bytesOf(picture(sized(60_000, 60_000)), 1<<20), codes: []int{413}},
		{n: 34, name: "zeros", send: bytesOf(picture(zeros(12_000, 12_000)), 8<<20), codes: []int{413}, part: "too large"},
		{n: 35, name: "progressive, 1,000 scans", send: bytesOf(picture(scans(1000)), 1<<20), codes: []int{413}},
		{n: 35, name: "arithmetic-coded", send: picture(reframed(t, jpeg, 0xc9, 8)), codes: []int{415}},
		{n: 35, name: "12 bits", send: picture(reframed(t, jpeg, 0xc1, 12)), codes: []int{415}},
		{n: 35, name: "lossless", send: picture(reframed(t, jpeg, 0xc3, 8)), codes: []int{415}},
		{n: 35, name: "CMYK", send: picture(cmyk), codes: status200}, // read as the usual training stacks do
		{n: 36, name: "cuts and flips", test: TestDamagedPictures},
		{n: 37, name: "1×1", send: picture(plain(t, 1, 1, color.White)), codes: status200},
		// A recipe makes any size of any other, so that a line is a picture like others.
		{n: 37, name: "1×10000", send: picture(plain(t, 1, 10_000, color.White)), codes: status200},
		{n: 37, name: "0×0", send: picture(pngHeader(0, 0)[:781]), codes: status400},
		{n: 37, name: "0×0 JPEG", send: picture(sized(0, 0)), codes: []int{400, 415}},
		{n: 37, name: "GIF of 10,000 frames", send: picture(append([]byte("GIF89a\x01\x00\x01\x00\x00\x00\x00"), bytes.Repeat([]byte("\x2c\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x01\x00\x00"), 10_000)...)), codes: []int{415}},
		{n: 37, name: "APNG, of which the first frame counts", send: picture(slices.Concat(png[:at], frames, png[at:])), codes: []int{200, 400}},
		// Only what base64 says counts: white space and wrong padding are none of it, and no address is followed.
		{n: 39, name: "data URL", send: encoded("data:image/png;base64," + encodedPNG), codes: status200},
		{n: 39, name: "data URL with a newline", send: encoded(`data:image/png;base64,` + encodedPNG[:20] + `\n` + encodedPNG[20:]), codes: status400, part: "base64"},
		{n: 39, name: "data URL with a space", send: encoded(`data:image/png;base64, ` + encodedPNG), codes: status400, part: "base64"},
		{n: 39, name: "data URL without base64", send: encoded("data:image/svg+xml,%3Csvg%3E"), codes: status400},
		{n: 39, name: "wrong padding", send: encoded(encodedPNG + "="), codes: status400, part: "base64"},
		{n: 39, name: "bits after the end", send: encoded("/9l="), codes: status400, part: "base64"},
		{n: 39, name: "address", test: testAddressIsNotFollowed},
		{n: 40, name: "10,000 parts", send: picture(many, "Content-Type: "+manyKind), codes: status400, part: "parts"},
		{n: 40, name: "a header of 1 MB", send: picture([]byte(part), "Content-Type: multipart/form-data; boundary=b"), codes: status400},
		{n: 40, name: "no file name", send: picture(field, "Content-Type: "+fieldKind), codes: status400, part: "no file"},
		{n: 40, name: "two files", send: picture(two, "Content-Type: "+twoKind), codes: status400, part: "more than one"},
		{n: 40, name: "no boundary", send: picture(two, "Content-Type: multipart/form-data"), codes: status400},
		{n: 40, name: "a boundary of 1 KB", send: picture(two, "Content-Type: multipart/form-data; boundary="+strings.Repeat("b", 1<<10)), codes: status400},
		{n: 40, name: "a file without end", send: picture([]byte("--b\r\nContent-Disposition: form-data; name=f; filename=f\r\n\r\n"+strings.Repeat("x", groundImage+1<<20)), "Content-Type: multipart/form-data; boundary=b"), codes: []int{413}},
		// Pixels are read as they are stored, as in training.
		{n: 41, name: "EXIF and profiles, ignored", test: TestOrientationIsIgnored},
	}
	for name, data := range map[string]string{
		"SVG": "<svg xmlns='http://www.w3.org/2000/svg'/>", "HEIC": "\x00\x00\x00\x18ftypheic", "AVIF": "\x00\x00\x00\x1cftypavif", "WebP": "RIFF\x24\x00\x00\x00WEBPVP8 ",
		"TIFF": "II*\x00\x08\x00\x00\x00", "big-endian TIFF": "MM\x00*\x00\x00\x00\x08", "BMP": "BM\x46\x00\x00\x00\x00\x00", "PDF": "%PDF-1.7\n%\xff\xd8\xff",
		"ZIP": "PK\x03\x04" + string(jpeg), "HTML": "<html><script>", "ICO": "\x00\x00\x01\x00", "JPEG XL": "\xff\x0a", "script": "#!/bin/sh\n", "JPEG after a byte": " " + string(jpeg),
	} {
		rows = append(rows, hostile{n: 38, name: name, send: picture([]byte(data), "Content-Type: image/jpeg"), codes: []int{415}, part: "neither JPEG nor PNG"})
	}
	return rows
}

// chunk is a chunk of a PNG.
func chunk(kind, data string) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(data)))
	b = append(b, kind+data...)
	return binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b[4:]))
}

// zeros is a whole PNG of that size, of a bit a pixel.
func zeros(w, h uint32) []byte {
	var data bytes.Buffer
	z := zlib.NewWriter(&data)
	row := make([]byte, 1+(w+7)/8)
	for range h {
		_, _ = z.Write(row) // a buffer takes everything
	}
	_ = z.Close()
	head := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, w), h)
	return slices.Concat([]byte("\x89PNG\r\n\x1a\n"), chunk("IHDR", string(head)+"\x01\x00\x00\x00\x00"), chunk("IDAT", data.String()), chunk("IEND", ""))
}

// testAddressIsNotFollowed gives the address of a listener that must hear nothing, and others.
func testAddressIsNotFollowed(t *testing.T) {
	spy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	heard := make(chan error, 1)
	go func() {
		_, err := spy.Accept()
		heard <- err
	}()
	url := start(t, serve.Options{}, serve.Classifier()) + "/v2/models/c"
	for _, address := range []string{"http://" + spy.Addr().String() + "/a.png", "http://169.254.169.254/latest", "file:///etc/passwd", "//localhost/x", "data:;base64,file:///etc/passwd"} {
		for path, body := range map[string]string{
			"/classify": `{"images":[%q]}`, "/classify?k=1": `{"image":%q}`, "/infer": `{"inputs":[{"name":"input","datatype":"BYTES","shape":[1],"data":[%q]}]}`,
		} {
			wantError(t, send(t, "POST", url+path, map[string]string{"Content-Type": "application/json"}, fmt.Appendf(nil, body, address)), 400, "base64")
		}
	}
	if err := spy.Close(); err != nil {
		t.Error(err)
	}
	if err := <-heard; err == nil {
		t.Error("an address was followed")
	}
}
