package cli

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// newHealthCommand is `serve health`.
func newHealthCommand() *cobra.Command {
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "health [URL]",
		Short: "Ask a server whether it is ready; the exit status is the answer",
		Long: `Ask a server, http://127.0.0.1:8000 unless another is named, whether it is ready.
The exit status is 0 if it is and 1 if not, for the health checks of containers
without a shell. A server on this machine may show any certificate.`,
		Example: `  spos serve health http://127.0.0.1:8002`,
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			at := "http://127.0.0.1:8000"
			if len(args) == 1 {
				at = args[0]
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			return healthFunc(ctx, at)
		},
	}
	cmd.Flags().DurationVar(&timeout, "timeout", 5*time.Second, "time to wait for the answer")
	return cmd
}

func healthFunc(ctx context.Context, at string) error {
	u, err := url.Parse(at)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return fmt.Errorf("%q is no address of a server: write http://host:port or https://host:port", at)
	}
	u.Path = "/v2/health/ready"
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return err
	}
	ip := net.ParseIP(u.Hostname())
	local := u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
	client := &http.Client{Transport: &http.Transport{
		// Nothing secret is said, and who answers on this machine is not in doubt.
		TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: local},
	}}
	resp, err := client.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	if err != nil {
		return err
	}
	return fmt.Errorf("%s is not ready: %s: %s", at, resp.Status, strings.TrimSpace(string(text)))
}
