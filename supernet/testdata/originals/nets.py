"""Networks of the published code bases: supernets where no arch is given, stand-alone nets where one is.

An arch, and a path through a supernet, is a list of indices in the order of that code base: shuffle blocks 3, 5, 7,
xception; AngleNAS's -1 is identity; the channel space's are pairs (block, scale).
"""
from typing import NamedTuple, Optional

import torch.nn.functional as F
from torch import nn

import layers as L
from layers import RELU, RELU6, Layer

OPS = [3, 5, 7, "x"]
SCALES = [0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6]
MOBILE = [(3, 3), (3, 6), (5, 3), (5, 6), (7, 3), (7, 6)]  # kernel, expansion: AngleNAS's order
RAZOR_MOBILE = {f"mb_k{k}e{e}": (k, e) for e in (3, 6) for k in (3, 5, 7)}
RAZOR_SHUFFLE = dict(zip(["shuffle_3x3", "shuffle_5x5", "shuffle_7x7", "shuffle_xception"], OPS))
IDENTITY = -1


class Geometry(NamedTuple):
    """The numbers of a net: width of the stem, (width, blocks, stride) of the stages, width of the tail, classes, and
    where there is one the width of the fixed first MB block."""
    stem: int
    stages: list
    tail: int
    classes: int
    first: Optional[int] = None

    def blocks(self):
        """Stage, number in it, channels in and out, stride of each choice block."""
        cin = self.first or self.stem
        for s, (cout, repeat, stride) in enumerate(self.stages):
            for b in range(repeat):
                yield s, b, cin, cout, stride if b == 0 else 1
                cin = cout


class Net(nn.Module):
    """What the nets have in common: the order of things. A net names its parts and says how to run block i."""
    dropout = 0.0

    def forward(self, x, path=None):
        x = self.enter(x)
        for i, block in enumerate(self.choice_blocks()):
            x = block(x) if path is None else self.choose(block, path[i])(x)
        return self.leave(x)

    def unused(self, path):
        """Parts that a path leaves out of the tensors it uses, as masks, where the published way is to leave them be."""
        return []

    def pool(self, x):
        return F.dropout(x.mean((2, 3)), self.dropout, self.training)

    def choose(self, block, choice):
        return block[choice]


class Spos(Net):
    """SinglePathOneShot, src/Supernet (norms without gamma and beta) and src/Evaluation; ShuffleNet-Series/OneShot."""
    dropout = 0.1

    def __init__(self, g, arch=None):
        super().__init__()
        affine = arch is not None
        self.first_conv = L.flat([Layer(3, g.stem, 3, 2, act=RELU)], affine)
        modules = []
        for i, (_, _, cin, cout, stride) in enumerate(g.blocks()):
            if arch is None:
                modules.append(nn.ModuleList(self.block(op, cin, cout, stride) for op in OPS))
            else:
                op, scale = arch[i] if isinstance(arch[i], tuple) else (arch[i], SCALES.index(1.0))
                modules.append(L.SposBlock(OPS[op], cin, cout, stride, int(cout // 2 * SCALES[scale]), True))
        self.features = nn.ModuleList(modules)
        self.conv_last = L.flat([Layer(cout, g.tail, act=RELU)], affine)
        self.classifier = nn.Sequential(nn.Linear(g.tail, g.classes, bias=False))

    def block(self, op, cin, cout, stride):
        return L.SposBlock(op, cin, cout, stride, cout // 2, False)

    def enter(self, x):
        return self.first_conv(x)

    def choice_blocks(self):
        return self.features

    def leave(self, x):
        return self.classifier(self.pool(self.conv_last(x)))


class Channels(Spos):
    """The supernet over blocks and widths; a path is a list of (block, scale)."""

    def __init__(self, g):
        self.widths = [cout // 2 for _, _, _, cout, _ in g.blocks()]
        super().__init__(g)

    def block(self, op, cin, cout, stride):
        return L.SlicedBlock(op, cin, cout, stride, int(cout // 2 * max(SCALES)), False)

    def forward(self, x, path):
        x = self.enter(x)
        for block, half, (op, scale) in zip(self.features, self.widths, path):
            x = block[op](x, int(half * SCALES[scale]))
        return self.leave(x)

    def unused(self, path):
        """Weights outside of the slice: as those of other candidates, they neither decay nor drift."""
        for block, half, (op, scale) in zip(self.features, self.widths, path):
            yield from block[op].unused(int(half * SCALES[scale]))


class Detnas(Net):
    """ShuffleNet-Series/DetNAS. Its dropout of whole maps before the pool is dropout after it."""
    dropout = 0.2

    def __init__(self, g, arch):
        super().__init__()
        self.first_conv = L.Unit(Layer(3, g.stem, 3, 2, act=RELU), bias=True)
        self.features = nn.Sequential(*(
            L.DetnasBlock(OPS[arch[i]], cin, cout, stride, cout // 2, f"{s + 1}{chr(ord('a') + b)}")
            for i, (s, b, cin, cout, stride) in enumerate(g.blocks())))
        self.last_conv = L.Unit(Layer(g.stages[-1][0], g.tail, act=RELU), bias=True)
        self.fc = nn.ModuleDict({"fc": nn.Linear(g.tail, g.classes)})

    def enter(self, x):
        return self.first_conv(x)

    def choice_blocks(self):
        return self.features

    def leave(self, x):
        return self.fc["fc"](self.pool(self.last_conv(x)))


class Razor(Net):
    """mmrazor's ImageClassifier. held is the attribute of the candidates: `choices` in 0.x, `_candidates` in 1.x; a
    net that is fixed keeps the dictionary with one entry."""

    def __init__(self, g, arch=None, held="_candidates"):
        super().__init__()
        self.held = held
        self.backbone, self.head = nn.Module(), nn.Module()
        self.backbone.conv1 = L.Unit(Layer(3, g.stem, 3, 2, act=self.act))
        self.places = []
        self.build(g, arch)
        self.head.fc = nn.Linear(g.tail, g.classes)

    def place(self, parent, name, choices, chosen=None):
        """A choice block: a module with a dictionary of candidates."""
        m = nn.Module()
        kept = choices if chosen is None else {list(choices)[chosen]: list(choices.values())[chosen]}
        m.add_module(self.held, nn.ModuleDict({n: make() for n, make in kept.items()}))
        parent.add_module(name, m)
        self.places.append(m)

    def choice_blocks(self):
        return [getattr(m, self.held) if len(getattr(m, self.held)) > 1 else next(iter(getattr(m, self.held).values()))
                for m in self.places]

    def choose(self, block, choice):
        return list(block.values())[choice] if isinstance(block, nn.ModuleDict) else block

    def enter(self, x):
        return self.backbone.conv1(x)

    def leave(self, x):
        return self.head.fc(self.pool(self.last()(x)))


class RazorShuffle(Razor):
    """backbones/searchable_shufflenet_v2.py"""
    act = RELU

    def build(self, g, arch):
        stages = [nn.Module() for _ in g.stages]
        for i, (s, b, cin, cout, stride) in enumerate(g.blocks()):
            makers = {n: lambda op=op, a=(cin, cout, stride): L.RazorBlock(op, *a) for n, op in RAZOR_SHUFFLE.items()}
            self.place(stages[s], str(b), makers, arch and arch[i])
        self.backbone.layers = nn.ModuleList(stages + [L.Unit(Layer(g.stages[-1][0], g.tail, act=RELU))])

    def last(self):
        return self.backbone.layers[-1]


class RazorMobile(Razor):
    """backbones/searchable_mobilenet.py, searchable_mobilenet_v2.py in 1.x. The first stage has one candidate, fixed."""
    act = RELU6

    def build(self, g, arch):
        stages = [nn.Module() for _ in range(len(g.stages) + 1)]
        for s, m in enumerate(stages):
            self.backbone.add_module(f"layer{s + 1}", m)
        self.place(stages[0], "0", {"mb_k3e1": lambda: L.RazorMB(3, 1, g.stem, g.first, 1)})
        for i, (s, b, cin, cout, stride) in enumerate(g.blocks()):
            makers = {n: lambda ke=ke, a=(cin, cout, stride): L.RazorMB(*ke, *a) for n, ke in RAZOR_MOBILE.items()}
            makers["identity"] = lambda a=(cin, cout, stride): L.Identity(*a, L.Unit)
            self.place(stages[s + 1], str(b), makers, arch and arch[i])
        self.backbone.conv2 = L.Unit(Layer(g.stages[-1][0], g.tail, act=RELU6))

    def forward(self, x, path=None):
        return super().forward(x, path and [0] + list(path))

    def last(self):
        return self.backbone.conv2


class Angle(Net):
    """AngleNAS, SPOS and FairNAS: supernets without dropout; the net from scratch skips its identities."""

    def __init__(self, g, arch=None):
        super().__init__()
        self.conv_bn = L.flat([Layer(3, g.stem, 3, 2, act=RELU6)])
        self.MBConv_ratio_1 = L.MB(3, 1, g.stem, g.first, 1, RELU6)
        self.features = nn.ModuleList()
        for i, (_, _, *shape) in enumerate(g.blocks()):
            if arch is None:
                block = nn.Module()
                block._ops = nn.ModuleList(L.MB(*ke, *shape, RELU6) for ke in MOBILE)
                self.features.append(block)
            elif arch[i] != IDENTITY:
                self.features.append(L.MB(*MOBILE[arch[i]], *shape, RELU6))
        self.conv_1x1_bn = L.flat([Layer(g.stages[-1][0], g.tail, act=RELU6)])
        fc = nn.Linear(g.tail, g.classes)
        if arch is None:
            self.classifier = nn.Sequential(fc)
        else:
            self.dropout = 0.2
            self.classifier = nn.Sequential(nn.Identity(), fc)  # theirs has the dropout first

    def choose(self, block, choice):
        return nn.Identity() if choice == IDENTITY else block._ops[choice]

    def enter(self, x):
        return self.MBConv_ratio_1(self.conv_bn(x))

    def choice_blocks(self):
        return self.features

    def leave(self, x):
        return self.classifier(self.pool(self.conv_1x1_bn(x)))


class Macro(Net):
    """NAS-Bench-Macro, train/model.py: identity, k3 e3, k5 e6."""

    def __init__(self, g, arch):
        super().__init__()
        self.stem = L.flat([Layer(3, g.stem, 3, 1, act=RELU)])
        self.features = nn.Sequential(*(
            L.Identity(*shape, lambda l: L.flat([l])) if arch[i] == 0 else L.MB(*[(3, 3), (5, 6)][arch[i] - 1], *shape, RELU)
            for i, (_, _, *shape) in enumerate(g.blocks())))
        self.out = L.flat([Layer(g.stages[-1][0], g.tail, act=RELU)])
        self.classifier = nn.Linear(g.tail, g.classes)

    def enter(self, x):
        return self.stem(x)

    def choice_blocks(self):
        return self.features

    def leave(self, x):
        return self.classifier(self.pool(self.out(x)))


class Cifar(Net):
    """ShunLu91/Single-Path-One-Shot-NAS, models/model.py: SinglePath_OneShot and SinglePath_Network."""

    def __init__(self, g, arch=None):
        super().__init__()
        affine = arch is not None
        self.stem = L.flat([Layer(3, g.stem, 3, 1, act=RELU6)], affine)
        self.choice_block = nn.ModuleList()
        for i, (_, _, cin, cout, stride) in enumerate(g.blocks()):
            of = [L.CifarBlock(op, cin, cout, stride, cout // 2, affine) for op in (OPS if arch is None else [OPS[arch[i]]])]
            self.choice_block.append(of[0] if affine else nn.ModuleList(of))
        self.last_conv = L.flat([Layer(cout, g.tail, act=RELU6)], affine)
        self.classifier = nn.Linear(g.tail, g.classes, bias=False)

    def enter(self, x):
        return self.stem(x)

    def choice_blocks(self):
        return self.choice_block

    def leave(self, x):
        return self.classifier(self.pool(self.last_conv(x)))
