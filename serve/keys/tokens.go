package keys

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
)

// Scope is a set of things that a token allows.
type Scope uint8

// The scopes. None includes another.
const (
	Infer   Scope = 1 << iota // to see models and to use them
	Admin                     // to load and unload models, and to profile the process
	Metrics                   // to read the metrics
)

var scopeNames = []string{"infer", "admin", "metrics"}

// String is the names of a set's scopes, with commas between.
func (s Scope) String() string {
	var names []string
	for i, name := range scopeNames {
		if s&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, ",")
}

// ParseScope reads what String writes.
func ParseScope(text string) (Scope, error) {
	var s Scope
	for name := range strings.SplitSeq(text, ",") {
		i := slices.Index(scopeNames, name)
		if i < 0 {
			return 0, fmt.Errorf("%q is no scope: there are %s", name, strings.Join(scopeNames, ", "))
		}
		s |= 1 << i
	}
	return s, nil
}

// Limits of a tokens file and what is in it.
const (
	maxTokens = 1024 // each is compared for each request
	maxName   = 64
	minSecret = 16
	// MaxSecret is the longest token that there can be, in bytes.
	MaxSecret = 512
)

const hashPrefix = "sha256:"

// Token is a token without its secret.
type Token struct {
	Name   string
	Scopes Scope
	sum    [sha256.Size]byte
}

// Tokens are those of a file. Its methods are safe for concurrent use.
type Tokens struct {
	path string
	file watched
	list atomic.Pointer[[]Token]
}

// OpenTokens reads a file of tokens: a line each, of a name, scopes with commas between, and "sha256:" with the hash of
// the secret in hexadecimal, or, which is warned of, the secret itself. A name may have several lines, so that a secret
// can be replaced while the old one still works. Lines that begin with # are comments. The file must not be readable by
// everyone. A file without tokens admits nobody.
func OpenTokens(path string, log *slog.Logger) (*Tokens, error) {
	t := &Tokens{path: path}
	t.file = watched{what: "tokens", paths: []string{path}, load: t.load, log: log}
	if err := t.file.open(); err != nil {
		return nil, fmt.Errorf("read tokens: %w", err)
	}
	return t, nil
}

// Find is the token of a secret. How long it takes does not depend on how much of a secret is right.
func (t *Tokens) Find(secret string) (Token, bool) {
	t.file.refresh()
	if len(secret) > MaxSecret {
		return Token{}, false
	}
	list, sum, at := *t.list.Load(), sha256.Sum256([]byte(secret)), -1
	for i := range list {
		at = subtle.ConstantTimeSelect(subtle.ConstantTimeCompare(sum[:], list[i].sum[:]), i, at)
	}
	if at < 0 {
		return Token{}, false
	}
	return list[at], true
}

func (t *Tokens) load() error {
	text, info, err := read(t.path)
	if err != nil {
		return err
	}
	if info.Mode().Perm()&0o007 != 0 {
		return fmt.Errorf("%s has mode %v, everyone on this machine may read or write it: chmod 600 %s",
			t.path, info.Mode().Perm(), t.path)
	}
	list, plain, err := parseTokens(string(text))
	if err != nil {
		return &fs.PathError{Op: "read", Path: t.path, Err: err}
	}
	if len(list) == 0 {
		t.file.log.Warn("the file of tokens has none: nobody is admitted")
	}
	if len(plain) > 0 {
		t.file.log.Warn("tokens are written out in their file, a hash is enough: make one with `spos serve token`", "tokens", plain)
	}
	t.list.Store(&list)
	return nil
}

// parseTokens also returns the names of those whose secret is written out. Its errors repeat no part of a secret.
func parseTokens(text string) (list []Token, plain []string, err error) {
	number := 0
	for line := range strings.Lines(text) {
		number++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		token, hashed, err := parseToken(strings.Fields(line))
		if err != nil {
			return nil, nil, fmt.Errorf("line %d: %w", number, err)
		}
		if slices.ContainsFunc(list, func(o Token) bool { return o.sum == token.sum }) {
			return nil, nil, fmt.Errorf("line %d: the secret of %q has a line already", number, token.Name)
		}
		if !hashed {
			plain = append(plain, token.Name)
		}
		if list = append(list, token); len(list) > maxTokens {
			return nil, nil, fmt.Errorf("more than %d tokens", maxTokens)
		}
	}
	return list, plain, nil
}

func parseToken(fields []string) (t Token, hashed bool, err error) {
	if len(fields) != 3 {
		return t, false, errors.New("three words are wanted: a name, scopes, and sha256:HASH or the secret")
	}
	t.Name = fields[0]
	if !isName(t.Name) {
		return t, false, fmt.Errorf("a name is of up to %d letters, digits, dots, dashes and underscores", maxName)
	}
	if t.Scopes, err = ParseScope(fields[1]); err != nil {
		return t, false, fmt.Errorf("%s: %w", t.Name, err)
	}
	text, hashed := strings.CutPrefix(fields[2], hashPrefix)
	if !hashed {
		if _, err := hex.DecodeString(text); err == nil && len(text) == 2*sha256.Size {
			return t, false, fmt.Errorf("%s: this looks like a hash, and would be a secret: put %q before it", t.Name, hashPrefix)
		}
		if len(text) < minSecret || len(text) > MaxSecret || !isSecret(text) {
			return t, false, fmt.Errorf("%s: a secret is %d to %d characters of A-Z a-z 0-9 - . _ ~ + / =", t.Name, minSecret, MaxSecret)
		}
		t.sum = sha256.Sum256([]byte(text))
		return t, false, nil
	}
	if n, err := hex.Decode(t.sum[:], []byte(text[:min(len(text), 2*sha256.Size)])); err != nil || n != sha256.Size || len(text) != 2*sha256.Size {
		return t, true, fmt.Errorf("%s: %q is followed by %d hexadecimal digits", t.Name, hashPrefix, 2*sha256.Size)
	}
	return t, true, nil
}

func isName(s string) bool {
	for i := range len(s) {
		if c := s[i]; !isAlnum(c) && c != '.' && c != '-' && c != '_' {
			return false
		}
	}
	return s != "" && len(s) <= maxName
}

// isSecret holds a token to what RFC 6750 lets a header carry.
func isSecret(s string) bool {
	for i := range len(s) {
		if !isAlnum(s[i]) && !strings.ContainsRune("-._~+/=", rune(s[i])) {
			return false
		}
	}
	return s != ""
}

func isAlnum(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

// NewToken makes a secret of 128 random bits or more, and the line of a tokens file that admits who has it.
func NewToken(name string, scopes Scope) (secret, line string, err error) {
	if !isName(name) {
		return "", "", fmt.Errorf("%q cannot name a token: up to %d letters, digits, dots, dashes and underscores", name, maxName)
	}
	secret = "spos_" + rand.Text()
	sum := sha256.Sum256([]byte(secret))
	return secret, name + " " + scopes.String() + " " + hashPrefix + hex.EncodeToString(sum[:]), nil
}
