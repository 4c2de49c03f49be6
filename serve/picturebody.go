package serve

import (
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/textproto"
)

const (
	maxParts  = 16      // of a form
	maxHeader = 8 << 10 // of a part, in bytes
)

// readPictures reads the encoded pictures in any of the forms. several says that they came as a list, also one of one.
func (s *Server) readPictures(w http.ResponseWriter, r *http.Request, mem *arena) (pictures [][]byte, several bool, err error) {
	const wrapping = 64 << 10
	kind, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil {
		kind = "" // the bytes say what they are
	}
	limit := s.opt.MaxImage
	switch kind {
	case "multipart/form-data":
		limit += wrapping
	case "application/json":
		limit = max(limit/3*4+wrapping, s.opt.MaxBody)
	}
	b, err := s.openBody(w, r, limit)
	if err != nil {
		return nil, false, err
	}
	defer b.clear()
	switch kind {
	case "multipart/form-data":
		data, err := readPart(multipart.NewReader(b, params["boundary"]), mem)
		if err == nil {
			_, err = io.Copy(io.Discard, b) // what follows the last boundary
		}
		return [][]byte{data}, false, err
	case "application/json":
		text, err := mem.readAll(b, b.size)
		if err != nil {
			return nil, false, err
		}
		return picturesOfJSON(text, mem)
	}
	data, err := mem.readAll(b, b.size)
	return [][]byte{data}, false, err
}

// readPart finds the one part of a form that is a file, or is called image.
func readPart(form *multipart.Reader, mem *arena) (data []byte, err error) {
	for n := 0; ; n++ {
		part, err := form.NextRawPart()
		switch {
		case err == io.EOF && data != nil: //nolint:errorlint // a form that is cut wraps io.EOF
			return data, nil
		case err == io.EOF: //nolint:errorlint // likewise
			return nil, badRequest("the form has no file and no field image")
		case n >= maxParts:
			return nil, badRequest("the form has more than %d parts", maxParts)
		case err != nil:
			if _, ok := errors.AsType[*httpError](err); ok || isNetwork(err) {
				return nil, err
			}
			return nil, badRequest("the form is malformed")
		}
		if headerSize(part.Header) > maxHeader {
			return nil, badRequest("a part of the form has a header of more than %d bytes", maxHeader)
		}
		if part.FileName() == "" && part.FormName() != "image" {
			continue
		}
		if data != nil {
			return nil, badRequest("the form has more than one picture")
		}
		if data, err = mem.readAll(part, -1); err != nil {
			return nil, err
		}
	}
}

func headerSize(h textproto.MIMEHeader) (n int) {
	for k, values := range h {
		for _, v := range values {
			n += len(k) + len(v)
		}
	}
	return n
}

// picturesOfJSON decodes {"image": base64} or {"images": [base64, …]}.
func picturesOfJSON(text []byte, mem *arena) (pictures [][]byte, several bool, err error) {
	r := jsonReader{b: text}
	keys := once{known: []string{"image", "images"}}
	take := func() error {
		p, err := r.picture(mem)
		pictures = append(pictures, p)
		return err
	}
	err = r.object("the request", func(key string) error {
		if err := keys.see(&r, key); err != nil {
			return err
		}
		switch key {
		case "image":
			return take()
		case "images":
			several = true
			return r.array("images", take)
		}
		return r.skip()
	})
	if err == nil {
		err = r.end()
	}
	switch {
	case err != nil:
		return nil, false, err
	case keys.seen == 1|2:
		return nil, false, badRequest("image and images are both there: use one")
	case len(pictures) == 0:
		return nil, false, badRequest("image is missing: a string of base64")
	}
	return pictures, several, nil
}

// picture reads a string of base64 into the memory of the request.
func (r *jsonReader) picture(mem *arena) ([]byte, error) {
	if r.peek() != '"' {
		return nil, r.unexpected("a picture, a string of base64,")
	}
	raw, escaped, err := r.quoted()
	if err != nil {
		return nil, err
	}
	if escaped {
		buf, err := mem.alloc(len(raw))
		if err != nil {
			return nil, err
		}
		if raw, err = r.unescape(buf[:0], raw); err != nil {
			return nil, err
		}
	}
	return decodeBase64(raw, mem)
}
