package fleet

import (
	"fmt"

	"github.com/nats-io/nats-server/v2/server"
)

// Subject permissions alone do not hold a device back: whoever may ask the
// broker for a message may name the subject that it is sent to, and the broker
// may publish everywhere. So each device has a NATS account of its own, from
// which the requests that it needs lead into the clients' account, and where
// answers arrive, whatever subject they are to go to.

// deviceServices are the requests of a device.
func deviceServices(device string) []string {
	return []string{
		"$JS.API.CONSUMER.INFO." + jobsStream(device) + "." + workerConsumer,
		"$JS.API.CONSUMER.MSG.NEXT." + jobsStream(device) + "." + workerConsumer,
		"$JS.ACK." + jobsStream(device) + "." + workerConsumer + ".>",
		directSubject(keptStream(device), ">"),
		directSubject(blobsStream(device), ">"),
		answerSubject(device, "*"),
		presenceSubject(device),
		wantSubject(device, "*"),
	}
}

// deviceAccount is the account of a device; it is made where it is not.
func deviceAccount(s *server.Server, device string) (*server.Account, error) {
	a, isNew := s.LookupOrRegisterAccount("device-" + device)
	if !isNew {
		return a, nil
	}
	clients, only := s.GlobalAccount(), []*server.Account{a}
	for _, subject := range deviceServices(device) {
		if err := clients.AddServiceExportWithResponse(subject, server.Streamed, only); err != nil {
			return nil, fmt.Errorf("fleet: account of %s: %w", device, err)
		}
		if err := a.AddServiceImport(clients, subject, subject); err != nil {
			return nil, fmt.Errorf("fleet: account of %s: %w", device, err)
		}
	}
	ask := askSubject(device)
	if err := a.AddServiceExportWithResponse(ask, server.Singleton, []*server.Account{clients}); err != nil {
		return nil, fmt.Errorf("fleet: account of %s: %w", device, err)
	}
	if err := clients.AddServiceImport(a, ask, ask); err != nil {
		return nil, fmt.Errorf("fleet: account of %s: %w", device, err)
	}
	return a, nil
}
