package fleet

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"
)

// Role is what a key's holder may do.
type Role string

// A client may do everything; a device may take what is queued for it, and
// say what it is and what it found, and nothing else.
const (
	Client Role = "client"
	Device Role = "device"
)

// Grant gives one key its role.
type Grant struct {
	Role Role
	Name string // of a device: the device
	Key  string // "sha256:" and the hash of a token in hex, or the public half of a user nkey
}

// Access says who may do what at a broker. The zero value lets everybody in
// who can reach it.
type Access struct {
	Grants []Grant
	path   string // read again when it changes; "": never
}

// ReadAccess reads a file of lines `client NAME KEY` and `device NAME KEY`;
// see [Grant]. Empty lines and what follows # are nothing.
func ReadAccess(path string) (Access, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return Access{}, fmt.Errorf("fleet: read access: %w", err)
	}
	a, err := ParseAccess(text)
	if err != nil {
		return Access{}, fmt.Errorf("%s: %w", path, err)
	}
	a.path = path
	return a, nil
}

// ParseAccess is [ReadAccess] of a file's text.
func ParseAccess(text []byte) (Access, error) {
	var a Access
	s := bufio.NewScanner(bytes.NewReader(text))
	for n := 1; s.Scan(); n++ {
		line, _, _ := strings.Cut(s.Text(), "#")
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		if len(fields) != 3 {
			return Access{}, fmt.Errorf("fleet: line %d: want three words: client or device, a name, a key", n)
		}
		g := Grant{Role(fields[0]), fields[1], fields[2]}
		if err := g.check(); err != nil {
			return Access{}, fmt.Errorf("fleet: line %d: %w", n, err)
		}
		a.Grants = append(a.Grants, g)
	}
	if err := s.Err(); err != nil {
		return Access{}, fmt.Errorf("fleet: %w", err)
	}
	if len(a.Grants) == 0 {
		return Access{}, fmt.Errorf("fleet: no line grants anything")
	}
	return a, nil
}

func (g Grant) check() error {
	if g.Role != Client && g.Role != Device {
		return fmt.Errorf("%q is no role: want client or device", g.Role)
	}
	if err := CheckDevice(g.Name); err != nil {
		return err
	}
	if digest, ok := strings.CutPrefix(g.Key, "sha256:"); ok {
		if b, err := hex.DecodeString(digest); err != nil || len(b) != sha256.Size {
			return fmt.Errorf("key of %s: after sha256: want 64 hexadecimal digits", g.Name)
		}
		return nil
	}
	if !nkeys.IsValidPublicUserKey(g.Key) {
		return fmt.Errorf("key of %s: want sha256: and a token's hash, or a public user nkey (U…)", g.Name)
	}
	return nil
}

// String is the grant's line in a file.
func (g Grant) String() string { return fmt.Sprintf("%s %s %s", g.Role, g.Name, g.Key) }

// NewToken makes a secret and the grant that admits it.
func NewToken(role Role, name string) (secret string, g Grant, err error) {
	raw := make([]byte, 32)
	if _, err := rand.Read(raw); err != nil {
		return "", Grant{}, fmt.Errorf("fleet: %w", err)
	}
	secret = base64.RawURLEncoding.EncodeToString(raw)
	g = Grant{role, name, tokenKey(secret)}
	return secret, g, g.check()
}

// NewNKey makes a seed, to be kept in a file by who connects, and the grant
// that admits it.
func NewNKey(role Role, name string) (seed []byte, g Grant, err error) {
	pair, err := nkeys.CreateUser()
	if err != nil {
		return nil, Grant{}, fmt.Errorf("fleet: %w", err)
	}
	defer pair.Wipe()
	public, err := pair.PublicKey()
	if err != nil {
		return nil, Grant{}, fmt.Errorf("fleet: %w", err)
	}
	if seed, err = pair.Seed(); err != nil {
		return nil, Grant{}, fmt.Errorf("fleet: %w", err)
	}
	g = Grant{role, name, public}
	return bytes.Clone(seed), g, g.check()
}

func tokenKey(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// devicePermissions are what a device may do in its account.
func devicePermissions(device string) *server.Permissions {
	inbox := inboxPrefix(device) + ".>"
	return &server.Permissions{
		Publish:   &server.SubjectPermission{Allow: append(deviceServices(device), aliveSubject(device))},
		Subscribe: &server.SubjectPermission{Allow: []string{inbox, askSubject(device), aliveSubject(device)}},
		Response:  &server.ResponsePermission{MaxMsgs: 1, Expires: time.Hour},
	}
}
