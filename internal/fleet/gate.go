package fleet

import (
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"
)

// gate is Access as the server asks for it.
type gate struct {
	srv   *server.Server
	inner string // key of the broker's own connections
	log   *slog.Logger

	mu         sync.Mutex
	access     Access
	changed    time.Time // of the file that access is from
	came, gone []Grant   // since they were last asked for
}

// Check admits a connection and limits it to its role. The lock is held until
// the connection carries its grant, where [gate.expel] finds it.
func (g *gate) Check(c server.ClientAuthentication) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	grants := g.current()
	if len(grants) == 0 {
		return true
	}
	key := provenKey(c)
	if key == "" {
		return false
	}
	if subtle.ConstantTimeCompare([]byte(key), []byte(g.inner)) == 1 {
		return true
	}
	for _, grant := range grants {
		if subtle.ConstantTimeCompare([]byte(key), []byte(grant.Key)) == 1 {
			return g.admit(c, grant)
		}
	}
	return false
}

func (g *gate) admit(c server.ClientAuthentication, grant Grant) bool {
	u := &server.User{Username: grant.label()}
	if grant.Role == Device {
		account, err := deviceAccount(g.srv, grant.Name)
		if err != nil {
			g.log.Error("a device is not let in", "device", grant.Name, "err", err)
			return false
		}
		u.Account, u.Permissions = account, devicePermissions(grant.Name)
	}
	c.RegisterUser(u)
	return true
}

// provenKey is the key that a connection has shown to hold; "": none.
func provenKey(c server.ClientAuthentication) string {
	o := c.GetOpts()
	switch {
	case o.Nkey != "":
		pair, err := nkeys.FromPublicKey(o.Nkey)
		if err != nil || pair.Verify(c.GetNonce(), signature(o.Sig)) != nil {
			return ""
		}
		return o.Nkey
	case o.Token != "":
		return tokenKey(o.Token)
	}
	return ""
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

// current is what the file grants now. One that cannot be read, or grants
// nothing, changes nothing: a broker that was closed stays so. The caller has
// the lock.
func (g *gate) current() []Grant {
	if g.access.path == "" {
		return g.access.Grants
	}
	info, err := os.Stat(g.access.path)
	if err == nil && info.ModTime().Equal(g.changed) {
		return g.access.Grants
	}
	var a Access
	if err == nil {
		a, err = ReadAccess(g.access.path)
	}
	if err != nil {
		g.log.Error("access stays as it was", "err", err)
		return g.access.Grants
	}
	g.came = append(g.came, without(a.Grants, g.access.Grants)...)
	g.gone = append(g.gone, without(g.access.Grants, a.Grants)...)
	g.access, g.changed = a, info.ModTime()
	return a.Grants
}

// without are the grants of a list that another has not.
func without(list, other []Grant) []Grant {
	return slices.DeleteFunc(slices.Clone(list), func(g Grant) bool { return slices.Contains(other, g) })
}

// label is what the server calls a connection of the grant. One name may have
// several keys.
func (g Grant) label() string {
	return fmt.Sprintf("%s %s …%s", g.Role, g.Name, g.Key[len(g.Key)-6:])
}

// changes are the grants that came and went since the last call.
func (g *gate) changes() (came, gone []Grant) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.current()
	came, gone = g.came, g.gone
	g.came, g.gone = nil, nil
	return came, gone
}

// expel ends the connections that a grant let in, and returns how many.
func (g *gate) expel(grant Grant) (int, error) {
	list, err := g.srv.Connz(&server.ConnzOptions{Username: true, Limit: g.srv.NumClients() + 1})
	if err != nil {
		return 0, err
	}
	n := 0
	for _, c := range list.Conns {
		// The server knows who came with an nkey by that.
		if c.AuthorizedUser != grant.label() && c.AuthorizedUser != grant.Key {
			continue
		}
		if g.srv.DisconnectClientByID(c.Cid) == nil { // else it went by itself
			n++
		}
	}
	return n, nil
}
