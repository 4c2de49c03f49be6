package dialect

import (
	"fmt"
	"strconv"

	"spos/internal/imaging"
)

// anglenas is megvii-model/AngleNAS, SPOS and FairNAS: the supernets of
// shrinking and searching, and training from scratch, whose list of blocks
// leaves identities out. Its files hold the state dict of a
// DistributedDataParallel.
var anglenas = Dialect{
	Name:    "anglenas",
	About:   "AngleNAS, MobileNet spaces of SPOS and FairNAS (shrinking, searching, training from scratch)",
	Recipe:  imaging.AngleNAS,
	Wrapped: true,
	prefix:  func(key string, _ bool) string { return "module." + key },
	name: func(l layer) (string, string) {
		switch {
		case l.single("stem"):
			return sequential("conv_bn", 0)
		case l.part == "stem" && l.index == 1 && l.block == "mbconv":
			return sequential("MBConv_ratio_1.conv", l.slot)
		case l.block == "mbconv" && l.part == "blocks" && l.alone:
			return sequential(fmt.Sprintf("features.%d.conv", l.nth), l.slot)
		case l.block == "mbconv" && l.part == "blocks":
			return sequential(fmt.Sprintf("features.%d._ops.%d.conv", l.index, l.choice), l.slot)
		case l.single("tail"):
			return sequential("conv_1x1_bn", 0)
		case l.part == "head" && l.alone: // after the dropout, which the supernet does not have
			return "classifier.1", ""
		case l.part == "head":
			return "classifier.0", ""
		}
		return "", ""
	},
}

// macro is xiusu/NAS-Bench-Macro, train/model.py, which has no supernet.
var macro = Dialect{
	Name:   "nasbench-macro",
	About:  "NAS-Bench-Macro, the stand-alone networks of the benchmark",
	Recipe: cifar10,
	prefix: func(key string, _ bool) string { return key },
	name: func(l layer) (string, string) {
		block := "features." + strconv.Itoa(l.index)
		switch {
		case !l.alone:
			return "", ""
		case l.single("stem"):
			return sequential("stem", 0)
		case l.part == "blocks" && l.block == "mbconv":
			return sequential(block+".conv", l.slot)
		case l.part == "blocks" && l.block == "identity":
			return sequential(block+".downsample", 0)
		case l.single("tail"):
			return sequential("out", 0)
		case l.part == "head":
			return "classifier", ""
		}
		return "", ""
	},
}
