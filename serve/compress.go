package serve

import (
	"compress/gzip"
	"compress/zlib"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
)

const (
	// minPacked is the shortest answer that is compressed: the logits of a thousand classes in JSON, which take longer
	// on a slow link than in the compressor. Numbers in binary hardly get shorter.
	minPacked = 8 << 10
	// maxPacking bounds the compressors, of nearly a megabyte each, that clients who read slowly keep.
	maxPacking = 64
)

// packer is a compressor that can be used again.
type packer interface {
	io.WriteCloser
	Reset(w io.Writer)
}

// packers hands compressors out, at most maxPacking at a time.
type packers struct {
	places    chan struct{}
	gzip, zip sync.Pool
}

func newPackers() *packers {
	p := &packers{places: make(chan struct{}, maxPacking)}
	p.gzip.New = func() any { w, _ := gzip.NewWriterLevel(nil, gzip.BestSpeed); return w }
	p.zip.New = func() any { w, _ := zlib.NewWriterLevel(nil, zlib.BestSpeed); return w }
	return p
}

func (p *packers) pool(coding string) *sync.Pool {
	if coding == "gzip" {
		return &p.gzip
	}
	return &p.zip
}

// take returns nil when all places are taken.
func (p *packers) take(coding string, to io.Writer) packer {
	select {
	case p.places <- struct{}{}:
	default:
		return nil
	}
	w := p.pool(coding).Get().(packer)
	w.Reset(to)
	return w
}

func (p *packers) give(coding string, w packer) {
	p.pool(coding).Put(w)
	<-p.places
}

// pack decides on the compression of an answer whose header is complete.
func (r *recorder) pack(code int) {
	h := r.Header()
	n, err := strconv.Atoi(h.Get("Content-Length"))
	if err != nil || n < minPacked || r.head || code != http.StatusOK || h.Get("Content-Encoding") != "" {
		return
	}
	h.Add("Vary", "Accept-Encoding")
	if r.coding = preferredCoding(r.accept); r.coding == "" {
		return
	}
	if r.packer = r.packers.take(r.coding, (*wire)(r)); r.packer == nil {
		return
	}
	h.Set("Content-Encoding", r.coding)
	h.Del("Content-Length")
}

// finish ends a compressed answer and gives its compressor back.
func (r *recorder) finish() {
	if r.packer == nil {
		return
	}
	if !r.broken {
		// A client that does not read the end of its answer has gone away; there is nobody to tell.
		_ = r.packer.Close()
	}
	r.packers.give(r.coding, r.packer)
	r.packer = nil
}

// wire is a recorder behind its compressor.
type wire recorder

func (w *wire) Write(b []byte) (int, error) {
	n, err := w.ResponseWriter.Write(b)
	w.written += int64(n)
	return n, err
}

// preferredCoding chooses gzip, deflate or "" by the values of Accept-Encoding (RFC 9110, 12.5.3). An item that is
// malformed counts for nothing, and a client that forbids everything gets its answer as it is.
func preferredCoding(values []string) string {
	quality := map[string]int{}
	for item := range strings.SplitSeq(strings.Join(values, ","), ",") {
		coding, parameter, _ := strings.Cut(item, ";")
		coding = strings.ToLower(strings.TrimSpace(coding))
		switch coding {
		case "x-gzip":
			coding = "gzip"
		case "gzip", "deflate", "identity", "*":
		default:
			continue
		}
		if q, ok := parseQuality(parameter); ok {
			quality[coding] = q
		}
	}
	of := func(coding string) int {
		if q, ok := quality[coding]; ok {
			return q
		}
		return quality["*"]
	}
	best, most := "", max(quality["identity"], 1)
	for _, coding := range []string{"gzip", "deflate"} {
		if q := of(coding); q > most || q == most && best == "" {
			best, most = coding, q
		}
	}
	return best
}

// parseQuality reads "q=0.5" as 500. Without a parameter it is 1000.
func parseQuality(s string) (int, bool) {
	s = strings.TrimSpace(s)
	if s == "" {
		return 1000, true
	}
	name, value, _ := strings.Cut(s, "=")
	whole, part, _ := strings.Cut(value, ".")
	if !strings.EqualFold(name, "q") || whole != "0" && whole != "1" || len(part) > 3 {
		return 0, false
	}
	n, err := strconv.ParseUint(whole+(part + "000")[:3], 10, 16)
	return int(n), err == nil && n <= 1000
}
