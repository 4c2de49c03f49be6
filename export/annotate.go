package export

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"spos/export/onnxpb"
)

// metadataField is the number of metadata_props in a ModelProto.
const metadataField protowire.Number = 14

// SetMetadata returns an ONNX file with value under key in its metadata, in
// place of what was there. All else is kept byte for byte, so that files of
// other programs lose nothing. Errors wrap [ErrNotONNX].
func SetMetadata(file []byte, key, value string) ([]byte, error) {
	out := make([]byte, 0, len(file)+len(key)+len(value)+16)
	for rest := file; len(rest) > 0; {
		num, typ, n := protowire.ConsumeField(rest)
		if n < 0 {
			return nil, fmt.Errorf("set metadata: %w: %w", ErrNotONNX, protowire.ParseError(n))
		}
		field := rest[:n]
		rest = rest[n:]
		if num == metadataField && typ == protowire.BytesType {
			old, err := metadataKey(field)
			if err != nil {
				return nil, err
			}
			if old == key {
				continue
			}
		}
		out = append(out, field...)
	}
	entry, err := proto.MarshalOptions{Deterministic: true}.Marshal(&onnxpb.StringStringEntryProto{Key: &key, Value: &value})
	if err != nil {
		return nil, fmt.Errorf("set metadata: %w", err)
	}
	out = protowire.AppendTag(out, metadataField, protowire.BytesType)
	return protowire.AppendBytes(out, entry), nil
}

// metadataKey is the key of an encoded entry.
func metadataKey(field []byte) (string, error) {
	_, _, n := protowire.ConsumeTag(field)
	body, _ := protowire.ConsumeBytes(field[n:])
	var entry onnxpb.StringStringEntryProto
	if err := proto.Unmarshal(body, &entry); err != nil {
		return "", fmt.Errorf("set metadata: %w: %w", ErrNotONNX, err)
	}
	return entry.GetKey(), nil
}
