package dialect

import "spos/internal/imaging"

// spos is megvii-model/SinglePathOneShot, src/{Supernet,Search,Evaluation},
// and, under the same names, megvii-model/ShuffleNet-Series, OneShot, whose
// supernet is not published: of the channel space the widths of a block share
// its place. Its files hold the state dict of a DataParallel.
var spos = Dialect{
	Name:       "spos",
	About:      "the authors' SinglePathOneShot (supernet, search, evaluation) and ShuffleNet-Series OneShot",
	Recipe:     imaging.OfficialSPOS,
	Wiring:     "deinterleave",
	Projection: "input",
	Wrapped:    true,
	prefix:     func(key string, _ bool) string { return "module." + key },
	name: func(l layer) (string, string) {
		switch {
		case l.single("stem"):
			return sequential("first_conv", 0)
		case l.shuffled():
			return sequential("features."+l.chosen()+".branch_"+l.branch, l.slot)
		case l.single("tail"):
			return sequential("conv_last", 0)
		case l.part == "head":
			return "classifier.0", ""
		}
		return "", ""
	},
}

// shunlu91 is ShunLu91/Single-Path-One-Shot-NAS, models/model.py.
var shunlu91 = Dialect{
	Name:       "shunlu91",
	About:      "ShunLu91's Single-Path-One-Shot-NAS for CIFAR-10 (supernet, retraining)",
	Recipe:     cifar10,
	Wiring:     "main_first",
	Projection: "input",
	prefix:     func(key string, _ bool) string { return key },
	name: func(l layer) (string, string) {
		switch {
		case l.single("stem"):
			return sequential("stem", 0)
		case l.shuffled():
			return sequential("choice_block."+l.chosen()+".cb_"+l.branch, l.slot)
		case l.single("tail"):
			return sequential("last_conv", 0)
		case l.part == "head":
			return "classifier", ""
		}
		return "", ""
	},
}

// cifar10 is the evaluation of CIFAR-10 that several code bases share:
// ToTensor, and Normalize with the mean and deviation of its training images.
func cifar10() imaging.Recipe {
	return imaging.Recipe{
		Color: imaging.RGB, Height: 32, Width: 32,
		Mean: []float32{0.49139968, 0.48215827, 0.44653124}, Std: []float32{0.24703233, 0.24348505, 0.26158768},
	}
}
