package cli

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"
)

// campaignFile holds the name under which remote devices know a piece of
// work, in the directory of that work.
const campaignFile = ".campaign"

// Campaign is the name that the work in a directory has had since it began, or
// a new one.
func Campaign(dir string) (string, error) {
	text, err := os.ReadFile(filepath.Join(dir, campaignFile))
	if errors.Is(err, fs.ErrNotExist) {
		return strings.ToLower(rand.Text()), nil
	}
	if err != nil {
		return "", err
	}
	name := strings.TrimSpace(string(text))
	if name == "" || len(name) > 64 || strings.ContainsFunc(name, func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') }) {
		return "", fmt.Errorf("%s does not hold the name of a campaign: remove it, and what remote devices have measured is measured again",
			filepath.Join(dir, campaignFile))
	}
	return name, nil
}

// KeepCampaign writes the name into the directory, for the work to find its
// measurements again.
func KeepCampaign(dir, name string) error {
	return renameio.WriteFile(filepath.Join(dir, campaignFile), []byte(name+"\n"), 0o644)
}
