package fleet

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
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
			return fmt.Errorf("key of %s: want 64 hexadecimal digits after sha256:", g.Name)
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

// gate is Access as the server asks for it.
type gate struct {
	access Access
	inner  string // key of the broker's own connections
}

// Check admits a connection and limits it to its role.
func (g *gate) Check(c server.ClientAuthentication) bool {
	if len(g.access.Grants) == 0 {
		return true
	}
	o := c.GetOpts()
	key := ""
	switch {
	case o.Nkey != "":
		pair, err := nkeys.FromPublicKey(o.Nkey)
		if err != nil || pair.Verify(c.GetNonce(), signature(o.Sig)) != nil {
			return false
		}
		key = o.Nkey
	case o.Token != "":
		key = tokenKey(o.Token)
	default:
		return false
	}
	if subtle.ConstantTimeCompare([]byte(key), []byte(g.inner)) == 1 {
		return true
	}
	for _, grant := range g.access.Grants {
		if subtle.ConstantTimeCompare([]byte(key), []byte(grant.Key)) == 1 {
			u := &server.User{Username: string(grant.Role) + " " + grant.Name}
			if grant.Role == Device {
				u.Permissions = DevicePermissions(grant.Name)
			}
			c.RegisterUser(u)
			return true
		}
	}
	return false
}

func signature(text string) []byte {
	sig, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		sig, err = base64.StdEncoding.DecodeString(text)
	}
	if err != nil {
		return nil
	}
	return sig
}

// DevicePermissions is all that a device needs: with an existing cluster, give
// its user these. It makes no streams and no consumers: with those a device
// could have the broker deliver messages where it may not publish itself.
func DevicePermissions(device string) *server.Permissions {
	return &server.Permissions{
		Publish: &server.SubjectPermission{Allow: []string{
			"$JS.API.CONSUMER.INFO." + jobsStream(device) + "." + workerConsumer,
			"$JS.API.CONSUMER.MSG.NEXT." + jobsStream(device) + "." + workerConsumer,
			"$JS.ACK." + jobsStream(device) + "." + workerConsumer + ".>",
			directSubject(keptStream(device), ">"),
			directSubject(blobsStream(device), ">"),
			answerSubject(device, "*"),
			presenceSubject(device),
			aliveSubject(device),
			wantSubject(device, "*"),
		}},
		Subscribe: &server.SubjectPermission{Allow: []string{
			inboxPrefix(device) + ".>",
			askSubject(device),
			aliveSubject(device),
		}},
		Response: &server.ResponsePermission{MaxMsgs: 1, Expires: time.Hour},
	}
}
