package cli

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/google/renameio/v2"
)

// CampaignFile holds the name under which remote devices know a piece of
// work, in the directory of that work.
const CampaignFile = ".campaign"

// Campaign is the name in a file, which the work has had since it began, or a
// new one where there is no such file.
func Campaign(path string) (string, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return strings.ToLower(rand.Text()), nil
	}
	if err != nil {
		return "", err
	}
	name := strings.TrimSpace(string(text))
	if name == "" || len(name) > 64 || strings.ContainsFunc(name, func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') }) {
		return "", fmt.Errorf("%s does not hold the name of a campaign: remove it, and what remote devices have measured is measured again", path)
	}
	return name, nil
}

// KeepCampaign writes the name into the file, for the work to find its
// measurements again.
func KeepCampaign(path, name string) error {
	return renameio.WriteFile(path, []byte(name+"\n"), 0o644)
}
