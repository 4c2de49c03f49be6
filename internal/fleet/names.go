package fleet

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// version is that of the envelopes. Programs of different versions do not
// work together, and say so; see [VersionError].
const version = 1

// What the streams of one device hold at most. The oldest goes first, except
// in the queue, which takes no more when it is full.
const (
	// AnswersKept is how long an answer can be asked for again.
	AnswersKept = 30 * 24 * time.Hour
	// JobsKept is how long a job waits for its device. Who still waits for the
	// answer submits the job again.
	JobsKept = 7 * 24 * time.Hour
	// BlobsKept is how long an attachment can be used without being sent again.
	BlobsKept = 24 * time.Hour

	answersBytes = 256 << 20
	jobsBytes    = 64 << 20
	blobsBytes   = 1 << 30

	// maxBlob leaves room for what the broker notes beside each piece: of an
	// attachment that does not fit the oldest pieces go, and it is never whole.
	maxBlob = blobsBytes / 8 * 7
)

// ackWait is how long the broker hears nothing of a job before it gives the
// job away; a worker speaks up several times in that time.
const ackWait = 5 * time.Second

const workerConsumer = "worker"

var deviceName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$`)

// CheckDevice tells whether a device can be called so.
func CheckDevice(name string) error {
	if !deviceName.MatchString(name) {
		return fmt.Errorf("fleet: %q cannot name a device: want up to 64 letters, digits, - and _, a letter or digit first", name)
	}
	return nil
}

func jobsStream(device string) string      { return "spos-jobs-" + device }
func keptStream(device string) string      { return "spos-kept-" + device }
func blobsStream(device string) string     { return "spos-blobs-" + device }
func jobSubject(device, key string) string { return "spos.job." + device + "." + key }
func answerSubject(device, key string) string {
	return "spos.answer." + device + "." + key
}
func toldSubject(device, key string) string  { return "spos.told." + device + "." + key }
func presenceSubject(device string) string   { return "spos.presence." + device }
func askSubject(device string) string        { return "spos.ask." + device }
func aliveSubject(device string) string      { return "spos.alive." + device }
func wantSubject(device, hash string) string { return "spos.want." + device + "." + hash }
func blobSubject(device, hash, piece string) string {
	return "spos.blob." + device + "." + hash + "." + piece
}

func pieceSubject(device, hash string, i int) string {
	return blobSubject(device, hash, strconv.Itoa(i))
}

func directSubject(stream, subject string) string {
	return "$JS.API.DIRECT.GET." + stream + "." + subject
}

// inboxPrefix is where answers to a connection arrive; a device may listen
// nowhere else.
func inboxPrefix(name string) string {
	if deviceName.MatchString(name) {
		return "_INBOX_" + name
	}
	return "_INBOX_" + keyOf(name)
}

// keyOf is a job's ID as a subject can hold it.
func keyOf(id string) string {
	sum := sha256.Sum256([]byte(id))
	return hex.EncodeToString(sum[:16])
}

func hashOf(blob []byte) string {
	sum := sha256.Sum256(blob)
	return hex.EncodeToString(sum[:])
}

// streamsOf are the streams of a device. The queue comes last: a device that
// has one has the others.
func streamsOf(device string) []jetstream.StreamConfig {
	return []jetstream.StreamConfig{
		{
			Name: keptStream(device), Description: "what " + device + " answered",
			Subjects:          []string{answerSubject(device, "*"), presenceSubject(device)},
			MaxMsgsPerSubject: 1, MaxBytes: answersBytes, MaxAge: AnswersKept, Discard: jetstream.DiscardOld,
			AllowDirect: true,
			RePublish:   &jetstream.RePublish{Source: answerSubject(device, "*"), Destination: "spos.told." + device + ".{{wildcard(1)}}"},
		},
		{
			Name: blobsStream(device), Description: "attachments for " + device,
			Subjects:          []string{blobSubject(device, "*", "*")},
			MaxMsgsPerSubject: 1, MaxBytes: blobsBytes, MaxAge: BlobsKept, Discard: jetstream.DiscardOld,
			AllowDirect: true,
		},
		{
			Name: jobsStream(device), Description: "what " + device + " is to do",
			Subjects: []string{jobSubject(device, "*")}, Retention: jetstream.WorkQueuePolicy,
			MaxMsgsPerSubject: 1, MaxBytes: jobsBytes, MaxAge: JobsKept, Discard: jetstream.DiscardNew,
			AllowDirect: true,
		},
	}
}

func consumerOf() jetstream.ConsumerConfig {
	return jetstream.ConsumerConfig{
		Durable: workerConsumer, AckPolicy: jetstream.AckExplicitPolicy, AckWait: ackWait,
		MaxAckPending: 1, // the device is held by one job at a time
	}
}
