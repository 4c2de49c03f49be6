package export

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"spos/export/onnxpb"
	"spos/internal/arch"
)

// Keys of an exported file's metadata_props. Values are strings, JSON where
// said so.
const (
	KeyFormat     = "spos.format"      // version of this list: FormatVersion
	KeySpace      = "spos.space"       // name of the search space
	KeyArch       = "spos.arch"        // digit string
	KeyCost       = "spos.cost"        // JSON, arch.Cost of the net
	KeyNorm       = "spos.norm"        // NormFolded or NormKept
	KeyNormParams = "spos.norm_params" // decimal, trainable elements of the net's norms
	KeyPreprocess = "spos.preprocess"  // JSON, from a picture to the input
	KeyLabels     = "spos.labels"      // JSON array, one string for each logit
	KeyLineage    = "spos.lineage"     // JSON object of strings
	KeyLatency    = "spos.latency"     // JSON, what was measured; not written by [Model], see [SetMetadata]
)

// Values under [KeyFormat] and [KeyNorm].
const (
	FormatVersion = "1"
	NormFolded    = "folded" // each convolution took its norm in and has a bias
	NormKept      = "kept"   // BatchNormalization nodes
)

// metadata is the key-value list of the file, sorted by key.
func metadata(n *arch.Net, o Options) ([]*onnxpb.StringStringEntryProto, error) {
	cost, err := json.Marshal(n.Cost())
	if err != nil {
		return nil, err
	}
	props := map[string]string{
		KeyFormat:     FormatVersion,
		KeySpace:      n.Space,
		KeyArch:       string(n.Arch),
		KeyCost:       string(cost),
		KeyNorm:       NormFolded,
		KeyNormParams: strconv.Itoa(normParams(n)),
	}
	if o.KeepNorm {
		props[KeyNorm] = NormKept
	}
	if len(o.Preprocess) > 0 {
		if !json.Valid(o.Preprocess) {
			return nil, errors.New("preprocess is not JSON")
		}
		props[KeyPreprocess] = string(o.Preprocess)
	}
	if o.Labels != nil {
		if len(o.Labels) != n.Classes() {
			return nil, fmt.Errorf("%d labels for %d classes", len(o.Labels), n.Classes())
		}
		if err := setJSON(props, KeyLabels, o.Labels); err != nil {
			return nil, err
		}
	}
	if o.Lineage != nil {
		if err := setJSON(props, KeyLineage, o.Lineage); err != nil {
			return nil, err
		}
	}
	list := make([]*onnxpb.StringStringEntryProto, 0, len(props))
	for k, v := range props {
		list = append(list, &onnxpb.StringStringEntryProto{Key: &k, Value: &v})
	}
	slices.SortFunc(list, func(a, b *onnxpb.StringStringEntryProto) int {
		return strings.Compare(a.GetKey(), b.GetKey())
	})
	return list, nil
}

func normParams(n *arch.Net) int {
	sum := 0
	for v := range n.Views() {
		if v.Role == arch.NormGamma || v.Role == arch.NormBeta {
			sum += v.Numel()
		}
	}
	return sum
}

func setJSON(props map[string]string, key string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	props[key] = string(b)
	return nil
}
