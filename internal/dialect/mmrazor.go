package dialect

import (
	"fmt"
	"strings"

	"spos/internal/arch"
	"spos/internal/imaging"
)

// mmrazor0 is open-mmlab/mmrazor, branch 0.x, with mmcls.
var mmrazor0 = Dialect{
	Name:       "mmrazor0",
	About:      "mmrazor 0.x, SPOS of ShuffleNetV2 and MobileNet (supernet, retraining)",
	Recipe:     imaging.MMRazor,
	Wiring:     "shuffle",
	Projection: "half",
	Wrapped:    true,
	prefix:     func(key string, _ bool) string { return "architecture.model." + classifier(key) },
	name:       func(l layer) (string, string) { return mmrazor(l, "choices") },
}

// mmrazor1 is open-mmlab/mmrazor, branch main (1.x), with mmcls. The subnet of
// its sub_model is the classifier itself.
var mmrazor1 = Dialect{
	Name:       "mmrazor1",
	About:      "mmrazor 1.x, SPOS of ShuffleNetV2 and MobileNet (supernet, sub_model)",
	Recipe:     imaging.MMRazor,
	Wiring:     "shuffle",
	Projection: "half",
	Wrapped:    true,
	prefix: func(key string, alone bool) string {
		if alone {
			return classifier(key)
		}
		return "architecture." + classifier(key)
	},
	name: func(l layer) (string, string) { return mmrazor(l, "_candidates") },
}

// classifier is a key in mmcls's ImageClassifier.
func classifier(key string) string {
	if strings.HasPrefix(key, "head.") {
		return key
	}
	return "backbone." + key
}

// mmrazor names a layer of SearchableShuffleNetV2 or SearchableMobileNet(V2).
// Every convolution lies in mmcv's ConvModule; a subnet keeps the level of the
// candidates, with the chosen one alone.
func mmrazor(l layer, candidates string) (conv, norm string) {
	module := func(path string) (string, string) { return path + ".conv", path + ".bn" }
	// Its mobile nets have a first stage of one fixed block, and stages by name.
	mobile := l.stems > 1
	block := fmt.Sprintf("layers.%d.%d.%s.%s", l.stage, l.place, candidates, l.candidate)
	if mobile {
		block = fmt.Sprintf("layer%d.%d.%s.%s", l.stage+2, l.place, candidates, l.candidate)
	}
	switch {
	case l.single("stem"):
		return module("conv1")
	case l.part == "stem" && l.index == 1 && l.block == "mbconv":
		return module(fmt.Sprintf("layer1.0.%s.%s.%s", candidates, l.candidate, l.inverted()))
	case l.block == "mbconv" && mobile:
		return module(block + "." + l.inverted())
	case l.block == "identity" && mobile:
		return module(block + ".downsample")
	case l.shuffled() && !mobile:
		return module(block + "." + l.shuffleBranch())
	case l.single("tail") && mobile:
		return module("conv2")
	case l.single("tail"):
		return module(fmt.Sprintf("layers.%d", l.stages))
	case l.part == "head":
		return "head.fc", ""
	}
	return "", ""
}

// inverted is what MBBlock calls its convolutions.
func (l layer) inverted() string {
	switch {
	case l.op.Groups > 1:
		return "depthwise_conv"
	case l.op.Act == arch.None:
		return "linear_conv"
	default:
		return "expand_conv"
	}
}

// shuffleBranch is where ShuffleBlock and ShuffleXception keep a convolution.
func (l layer) shuffleBranch() string {
	switch {
	case l.branch == "proj":
		return fmt.Sprintf("branch1.%d", l.n)
	case l.block == "shuffle":
		return fmt.Sprintf("branch2.%d", l.n)
	case l.op.Groups > 1: // DepthwiseSeparableConvModule
		return fmt.Sprintf("branch2.%d.depthwise_conv", l.n/2)
	default:
		return fmt.Sprintf("branch2.%d.pointwise_conv", l.n/2)
	}
}
