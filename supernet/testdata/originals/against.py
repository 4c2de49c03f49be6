"""Compares nets.py with the code bases: the same weights into both, eval logits and every gradient, in float64.

The folder holds clones by the names of their repositories. mmrazor (branch main or 0.x) needs the mmcv, mmengine and
mmcls that it wants; the others need nothing but PyTorch. What is not there is passed over.
"""
import contextlib
import importlib
import io
import pathlib
import sys

import torch
import torch.nn.functional as F
from torch import nn

import golden
import nets as N
import variants as V

MODULES = ["blocks", "network", "torch_blocks", "super_model", "model", "models", "models.model", "models.block", "config"]


def module(path, name):
    """A module of a code base, whose modules share their names with those of others."""
    for m in MODULES:
        sys.modules.pop(m, None)
    sys.path.insert(0, str(path))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.pop(0)


def plain(root):
    """Yields variant, folder, module, how to make the net, how to run it on x and the variant's arch."""
    spos = "SinglePathOneShot/src"
    oneshot = lambda m, a: m.ShuffleNetV2_OneShot(architecture=[c[0] for c in a], channels_scales=[N.SCALES[c[1]] for c in a])
    subnet = lambda m, a: m.ShuffleNetV2_OneShot(architecture=a, channels_scales=[1.0] * len(a))
    supernet = lambda m, a: m.SuperNetwork()
    yield "spos-supernet", f"{spos}/Supernet", "network", lambda m, a: m.ShuffleNetV2_OneShot(), True
    yield "spos-supernet", f"{spos}/Search", "network", lambda m, a: m.ShuffleNetV2_OneShot(), True
    yield "spos-subnet", f"{spos}/Evaluation/template", "network", subnet, False
    yield "oneshot-subnet", "ShuffleNet-Series/OneShot", "network", oneshot, False
    yield "detnas-subnet", "ShuffleNet-Series/DetNAS", "network", lambda m, a: m.ShuffleNetV2DetNAS(model_size="COCO_FPN_300M"), False
    for family, name in ("SPOS", "anglenas"), ("FairNAS", "fairnas"):
        yield f"{name}-supernet", f"AngleNAS/{family}/searching", "super_model", supernet, True
        yield f"{name}-supernet", f"AngleNAS/{family}/shrinking", "super_model", supernet, True
        yield f"{name}-subnet", f"AngleNAS/{family}/training", "model", lambda m, a: m.Network(a), False
    for name in "macro-0210", "macro-2101":
        yield name, "NAS-Bench-Macro/train", "model", lambda m, a: m.Network(a), False
    cifar = "Single-Path-One-Shot-NAS"
    yield "cifar-supernet", cifar, "models.model", lambda m, a: m.SinglePath_OneShot("cifar10", False, 10, 20), True
    yield "cifar-subnet", cifar, "models.model", lambda m, a: m.SinglePath_Network("cifar10", False, 10, 20, a), False


def compare(label, theirs, run, variant, prefix=""):
    """run(x) is the original's forward, theirs the module that holds its tensors under the prefix."""
    arch = variant.full[0]
    ours = variant.net(full=True)
    ours.dropout = 0.0
    golden.fill(ours, 1)
    theirs.load_state_dict(ours.state_dict(prefix=prefix))
    ours.double(), theirs.double()
    for m in theirs.modules():
        if isinstance(m, (nn.Dropout, nn.Dropout2d)):
            m.p = 0.0
    classes = variant.family.full.classes
    x, labels = next(golden.batches(32 if classes == 10 else 224, classes, torch.float64, [2]))
    path = arch if variant.supernet else None
    theirs.eval(), ours.eval()
    with torch.no_grad():
        a, b = run(theirs, x), ours(x, path)
    print(f"{label}: logits differ by {(a - b).abs().max() / a.std():.0e} of their deviation,", end=" ")
    theirs.train(), ours.train()
    theirs.zero_grad(set_to_none=True)
    F.cross_entropy(run(theirs, x), labels).backward()
    F.cross_entropy(ours(x, path), labels).backward()
    grads = {n: p.grad for n, p in theirs.named_parameters() if p.grad is not None}
    mine = {prefix + n: p.grad for n, p in ours.named_parameters() if p.grad is not None}
    assert grads.keys() == mine.keys(), grads.keys() ^ mine.keys()
    largest = max(g.abs().max() for g in grads.values())
    worst = max((grads[n] - g).abs().max() for n, g in mine.items()) / largest
    print(f"{len(mine)} gradients by {worst:.0e} of the largest")


def razor(root):
    """Both generations have the same classes of blocks; which one is cloned shows in where they lie."""
    sys.path.insert(0, str(root))
    if (root / "mmrazor" / "registry").exists():
        razor1(root / "configs" / "_base_" / "nas_backbones")
    else:
        razor0(root / "configs" / "nas" / "spos")


def names(variant, mobile):
    table = list(N.RAZOR_MOBILE) + ["identity"] if mobile else list(N.RAZOR_SHUFFLE)
    return (["mb_k3e1"] if mobile else []) + [table[c] for c in variant.full[0]]


def razor1(configs):
    from mmengine.config import Config
    from mmrazor.models.mutables import OneShotMutableOP
    from mmrazor.registry import MODELS
    from mmrazor.registry.registry import sub_model
    from mmrazor.utils import register_all_modules
    register_all_modules(True)
    for family, width in ("shuffle", 1024), ("mobile", 1728):
        file = "spos_shufflenet_supernet.py" if family == "shuffle" else "spos_mobilenet_supernet.py"
        cfg = dict(_scope_="mmcls", type="ImageClassifier", data_preprocessor=None,
                   backbone=Config.fromfile(str(configs / file)).nas_backbone.to_dict(), neck=dict(type="GlobalAveragePooling"),
                   head=dict(type="LinearClsHead", num_classes=1000, in_channels=width))
        run = lambda m, x: m(x, mode="tensor")
        variant = V.VARIANTS[f"mmrazor1-{family}-supernet"]
        net = MODELS.build(dict(type="mmrazor.SPOS", architecture=cfg, mutator=dict(type="mmrazor.NasMutator")))
        blocks = [(n, m) for n, m in net.named_modules() if isinstance(m, OneShotMutableOP)]
        chosen = names(variant, family == "mobile")
        for (_, m), c in zip(blocks, chosen):
            m.current_choice = c
        compare(f"mmrazor1-{family}-supernet", net, run, variant, "architecture.")
        fixed = {n.removeprefix("architecture."): dict(chosen=c) for (n, _), c in zip(blocks, chosen)}
        variant = V.VARIANTS[f"mmrazor1-{family}-subnet"]
        compare(f"mmrazor1-{family}-subnet", sub_model(cfg, fixed), run, variant)


def razor0(configs):
    import mmrazor.models  # registers
    from mmcv import Config
    from mmrazor.models.builder import build_algorithm

    def run(m, x):
        x = m.architecture.model.extract_feat(x)
        return m.architecture.model.head.fc(x[-1] if isinstance(x, tuple) else x)
    for family, file in ("shuffle", "spos_supernet_shufflenetv2_8xb128_in1k.py"), ("mobile", "spos_supernet_mobilenet_proxyless_gpu_8xb128_in1k.py"):
        variant = V.VARIANTS[f"mmrazor0-{family}-supernet"]
        net = build_algorithm(Config.fromfile(str(configs / file)).algorithm)  # prints what each module costs
        spaces, chosen = net.mutator.search_spaces, names(variant, family == "mobile")
        net.mutator.set_subnet({
            k: torch.eye(len(s["choice_names"]))[s["choice_names"].index(c)] for (k, s), c in zip(spaces.items(), chosen)})
        compare(f"mmrazor0-{family}-supernet", net, run, variant, "architecture.model.")
        net.mutator.deploy_subnet(net.architecture, {k: {"chosen": [c]} for k, c in zip(spaces, chosen)})
        compare(f"mmrazor0-{family}-subnet", net, run, V.VARIANTS[f"mmrazor0-{family}-subnet"], "architecture.model.")


def main(folder):
    root = pathlib.Path(folder)
    for name, where, file, make, path in plain(root):
        if not (root / where).exists():
            continue
        variant = V.VARIANTS[name]
        arch = variant.full[0]
        with contextlib.redirect_stdout(io.StringIO()):  # they print each block
            net = make(module(root / where, file), arch)
        compare(f"{name} ({where})", net, (lambda m, x: m(x, arch)) if path else (lambda m, x: m(x)), variant)
    if (root / "mmrazor").exists():
        razor(root / "mmrazor")
