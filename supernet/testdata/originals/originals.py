"""The published code bases' modules, as PyTorch has them, for comparison with ours.

    originals.py golden             writes the fixtures of the tests beside this file
    originals.py counts             writes what the full-size nets cost as the published counters count
    originals.py list               names the variants that are compared in full size
    originals.py full DIR VARIANT   writes VARIANT.pth and VARIANT.json of the full-size net with the code base's own
                                    random initialisation: logits, and the losses of ten steps
    originals.py against DIR        compares these modules with the code bases themselves, cloned into DIR by their names
"""
import copy
import json
import math
import pathlib
import sys

import torch
from torch import nn

import golden
from variants import STEPS, VARIANTS

SIZES = [8, 6]  # of the batches that are trained on
TRAIN_SIDE = 64
# Without a checkpoint of their own: no code is published, or no shipped space is the network's.
LEFT_OUT = ["channels-supernet", "detnas-subnet"]
# Learning rates of the ten steps: as large as lets PyTorch's own float32 repeat float64's losses to 1e-4. Freshly
# initialised, these nets are steep: the gradient of the first layer is a thousand times its weights, and a rounding
# error that puts one activation on the other side of its ReLU is a hundredth of a gradient.
RATES = {"spos-supernet": 1e-8, "spos-subnet": 1e-9, "oneshot": 1e-8, "mmrazor0-shuffle": 2e-9, "mmrazor1-shuffle": 5e-9,
         "mmrazor0-mobile": 3e-7, "mmrazor1-mobile": 3e-7, "anglenas-supernet": 1e-6, "anglenas-subnet": 1e-5,
         "fairnas-supernet": 1e-6, "fairnas-subnet": 1e-5, "macro": 1e-4, "cifar": 1e-7}


def initialise(net, rule):
    """official: SinglePathOneShot and what follows it, network.py. mmcv: mmrazor's mobile nets, kaiming_init. Other
    nets are as PyTorch made them."""
    for name, m in net.named_modules():
        if isinstance(m, nn.Conv2d) and rule == "official":
            first = "first" in name or "conv1" in name
            nn.init.normal_(m.weight, 0, 0.01 if first else 1 / m.weight.shape[1])
        elif isinstance(m, nn.Conv2d) and rule == "mmcv":
            nn.init.normal_(m.weight, 0, math.sqrt(2 / (m.weight.shape[0] * m.kernel_size[0] ** 2)))
        elif isinstance(m, nn.BatchNorm2d) and m.affine and rule == "official":
            nn.init.constant_(m.bias, 0.0001)
        elif isinstance(m, nn.Linear) and rule != "torch":
            nn.init.normal_(m.weight, 0, 0.01)
            if m.bias is not None:
                nn.init.zeros_(m.bias)


def settle(net, path, x):
    """Statistics of one batch instead of zero and one, so that activations are as large as after some training."""
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    for m in norms:
        m.momentum = 1.0
    with torch.no_grad():
        net.train()(x, path)
    for m in norms:
        m.momentum = 0.1


def full(folder, name):
    """224 pixels for the stand-alone nets that are published at that size, 32 for CIFAR's, 64 otherwise."""
    torch.manual_seed(0)
    rate = next(r for prefix, r in RATES.items() if name.startswith(prefix))
    variant = VARIANTS[name]
    variant = variant._replace(recipe=variant.recipe._replace(lr=rate))
    family = variant.family
    net = variant.net(full=True)
    net.dropout = 0.0
    initialise(net, "mmcv" if "mmrazor" in name and "mobile" in name else "official" if "shuffle" in family.space else "torch")
    small = family.full.classes == 10
    side = 32 if small else 64 if variant.supernet else 224
    train_side = side if small else TRAIN_SIDE
    classes = family.full.classes
    paths = variant.full if variant.supernet else [None]
    x = next(golden.batches(side, classes, torch.float32, [2 if side == 224 else 16]))[0]
    for path in paths:
        settle(net, path, x)
    out = pathlib.Path(folder)
    golden.save(variant, net, out / f"{name}.pth", momenta=False)

    net.eval()
    with torch.no_grad():
        single = [net(x[:1], p).flatten().double() for p in paths]
        net.double()
        logits = [net(x[:1].double(), p).flatten() for p in paths]
    logit_stray = max(((a - b).abs().max() / (b.max() - b.min())).item() for a, b in zip(single, logits))

    def losses(dtype, recipe):
        data = list(golden.batches(train_side, classes, dtype, SIZES))
        return recipe.train(copy.deepcopy(net).to(dtype), data, paths, STEPS)
    trained = losses(torch.float64, variant.recipe)
    farthest = lambda other: max(abs(a - b) for a, b in zip(trained, other))
    described = {**golden.describe(variant, variant.full), "side": side, "train_side": train_side,
                 "logits": [v.tolist() for v in logits], "logit_stray": logit_stray, "losses": trained, "stray": farthest(losses(torch.float32, variant.recipe)),
                 "change": farthest(losses(torch.float64, variant.recipe._replace(lr=0.0)))}
    (out / f"{name}.json").write_text(json.dumps(described))


def main():
    match sys.argv[1:]:
        case ["golden"]:
            golden.main()
        case ["counts"]:
            import counts
            counts.main()
        case ["list"]:
            print("\n".join(n for n in VARIANTS if n not in LEFT_OUT))
        case ["full", folder, name]:
            full(folder, name)
        case ["against", folder]:
            import against
            against.main(folder)
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
