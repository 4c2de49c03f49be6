"""Layers and blocks of the published code bases.

Each block holds its tensors under the names, and in the order, of the code base
that it stands for, so that checkpoints pass both ways. What a block computes is
written once, as lists of Layer; how its modules are called is the rest.
"""
from typing import NamedTuple, Optional

import torch
import torch.nn.functional as F
from torch import nn

RELU, RELU6 = nn.ReLU, nn.ReLU6


class Layer(NamedTuple):
    """A convolution without bias, batch norm, activation."""
    cin: int
    cout: int
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    act: Optional[type] = None

    def conv(self, bias=False):
        return nn.Conv2d(self.cin, self.cout, self.kernel, self.stride, self.kernel // 2, groups=self.groups, bias=bias)


def pointwise(cin, cout, act=None):
    return Layer(cin, cout, act=act)


def depthwise(width, kernel, stride, act=None):
    return Layer(width, width, kernel, stride, width, act)


def main_branch(op, cin, mid, cout, stride):
    """The main branch of a shuffle block; op is a kernel size or "x" for xception (arXiv 1904.00420, figure 5)."""
    if op != "x":
        return [pointwise(cin, mid, RELU), depthwise(mid, op, stride), pointwise(mid, cout, RELU)]
    return [depthwise(cin, 3, stride), pointwise(cin, mid, RELU), depthwise(mid, 3, 1), pointwise(mid, mid, RELU),
            depthwise(mid, 3, 1), pointwise(mid, cout, RELU)]


def projection(op, cin, cout, stride):
    return [depthwise(cin, 3 if op == "x" else op, stride), pointwise(cin, cout, RELU)]


def inverted_residual(kernel, expand, cin, cout, stride, act):
    mid = cin * expand
    grow = [pointwise(cin, mid, act)] if expand > 1 else []
    return grow + [depthwise(mid, kernel, stride, act), pointwise(mid, cout)]


def flat(layers, affine=True):
    """Convolutions, norms and activations side by side in one Sequential."""
    modules = []
    for l in layers:
        modules += [l.conv(), nn.BatchNorm2d(l.cout, affine=affine)]
        if l.act:
            modules.append(l.act())
    return nn.Sequential(*modules)


class Unit(nn.Module):
    """A layer as mmcv's ConvModule names it, or with a bias as DetNAS does."""

    def __init__(self, layer, bias=False):
        super().__init__()
        self.conv = layer.conv(bias)
        self.bn = nn.BatchNorm2d(layer.cout)
        self.activate = layer.act() if layer.act else nn.Identity()

    def forward(self, x):
        return self.activate(self.bn(self.conv(x)))


def units(layers):
    return nn.Sequential(*map(Unit, layers))


class Separable(nn.Module):
    """mmcv's DepthwiseSeparableConvModule."""

    def __init__(self, depth, point):
        super().__init__()
        self.depthwise_conv, self.pointwise_conv = Unit(depth), Unit(point)

    def forward(self, x):
        return self.pointwise_conv(self.depthwise_conv(x))


class SposBlock(nn.Module):
    """SinglePathOneShot and ShuffleNet-Series/OneShot, blocks.py: at stride one the even channels pass and the odd
    ones enter the main branch; otherwise all enter it, and a projection as wide as the input stands beside it."""
    main, proj = "branch_main", "branch_proj"

    def __init__(self, op, cin, cout, stride, mid, affine):
        super().__init__()
        self.stride = stride
        enters = cin if stride == 2 else cin // 2
        self.add_module(self.main, self.branch(main_branch(op, enters, mid, cout - enters, stride), affine))
        if stride == 2:
            self.add_module(self.proj, self.branch(projection(op, cin, cin, stride), affine))

    branch = staticmethod(flat)

    def split(self, x):
        return x[:, 0::2], x[:, 1::2]

    def join(self, side, main):
        return torch.cat((side, main), 1)

    def forward(self, x):
        main = getattr(self, self.main)
        if self.stride == 2:
            return self.join(getattr(self, self.proj)(x), main(x))
        side, enters = self.split(x)
        return self.join(side, main(enters))


class CifarBlock(SposBlock):
    """ShunLu91/Single-Path-One-Shot-NAS, models/block.py: the even channels enter the main branch, which comes first."""
    main, proj = "cb_main", "cb_proj"

    def split(self, x):
        return x[:, 1::2], x[:, 0::2]

    def join(self, side, main):
        return torch.cat((main, side), 1)


class DetnasBlock(SposBlock):
    """ShuffleNet-Series/DetNAS, blocks.py: the official block, each module called after its place and its kind."""
    main, proj = "conv", "proj_conv"

    def __init__(self, op, cin, cout, stride, mid, place):
        self.place, self.kind = place, "xception_3x3" if op == "x" else f"shufflenet_{op}x{op}"
        super().__init__(op, cin, cout, stride, mid, True)

    def branch(self, layers, _):
        if hasattr(self, self.main):  # the projection comes second
            return self.pair(f"{self.place}_proj", *layers, RELU)
        pairs, pending = [], None
        for l in layers:
            if l.groups > 1 and l.kernel > 1:
                pending = l
                continue
            letter = "abc"[len(pairs)]
            pairs.append(self.pair(f"{self.place}_{self.kind}_branch2{letter}", pending, l, l.act))
            pending = None
        return nn.Sequential(*pairs)

    @staticmethod
    def pair(name, depth, point, act):
        s = nn.Sequential()
        if depth:
            s.add_module(f"interstellar{name}_s", depth.conv())
            s.add_module(f"interstellar{name}_s_bn", nn.BatchNorm2d(depth.cout))
        s.add_module(f"interstellar{name}", point.conv())
        s.add_module(f"bn{name}", nn.BatchNorm2d(point.cout))
        if act:
            s.add_module(f"relu{name}", act())
        return s


class RazorBlock(nn.Module):
    """mmrazor, ops/shufflenet_series.py: halves at the entry of a stride-one block, both branches half as wide as the
    output, a channel shuffle of two groups at every exit."""

    def __init__(self, op, cin, cout, stride):
        super().__init__()
        half = cout // 2
        if stride == 2:
            self.branch1 = units(projection(op, cin, half, stride))
        layers = main_branch(op, cin if stride == 2 else half, half, half, stride)
        self.branch2 = nn.Sequential(*map(Separable, layers[0::2], layers[1::2])) if op == "x" else units(layers)

    def forward(self, x):
        if hasattr(self, "branch1"):
            x = torch.cat((self.branch1(x), self.branch2(x)), 1)
        else:
            side, enters = x.chunk(2, 1)
            x = torch.cat((side, self.branch2(enters)), 1)
        n, c, h, w = x.shape
        return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


class RazorMB(nn.Module):
    """mmrazor, ops/mobilenet_series.py."""

    def __init__(self, kernel, expand, cin, cout, stride):
        super().__init__()
        layers = inverted_residual(kernel, expand, cin, cout, stride, RELU6)
        names = ["expand_conv", "depthwise_conv", "linear_conv"][-len(layers):]
        for name, layer in zip(names, layers):
            self.add_module(name, Unit(layer))
        self.residual = stride == 1 and cin == cout

    def forward(self, x):
        y = x
        for m in self.children():
            y = m(y)
        return x + y if self.residual else y


class MB(nn.Module):
    """AngleNAS, torch_blocks.py, and NAS-Bench-Macro, model.py."""

    def __init__(self, kernel, expand, cin, cout, stride, act):
        super().__init__()
        self.conv = flat(inverted_residual(kernel, expand, cin, cout, stride, act))
        self.residual = stride == 1 and cin == cout

    def forward(self, x):
        return x + self.conv(x) if self.residual else self.conv(x)


class Identity(nn.Module):
    """Does nothing, or fits the shape with a convolution under `downsample`, made by style (units' or flat's)."""

    def __init__(self, cin, cout, stride, style):
        super().__init__()
        if stride != 1 or cin != cout:
            self.downsample = style(Layer(cin, cout, 1, stride))

    def forward(self, x):
        return self.downsample(x) if hasattr(self, "downsample") else x


class SlicedBlock(SposBlock):
    """A block of the channel space, whose training code is not published: one set of tensors as wide as the widest
    candidate, of which a candidate uses the leading channels (arXiv 1904.00420, section 3.4)."""

    def forward(self, x, mid):
        if self.stride == 2:
            return self.join(self.branch_proj(x), self.sliced(x, mid))
        side, enters = self.split(x)
        return self.join(side, self.sliced(enters, mid))

    def sliced(self, x, mid):
        parts = self.parts(mid)
        for m in self.branch_main:
            c = x.shape[1]
            if isinstance(m, nn.BatchNorm2d):
                x = F.batch_norm(x, m.running_mean[:c], m.running_var[:c], None, None, m.training, m.momentum, m.eps)
            elif isinstance(m, nn.Conv2d):
                x = F.conv2d(x, m.weight[parts[m]], None, m.stride, m.padding, 1, 1 if m.groups == 1 else c)
            else:
                x = m(x)
        return x

    def parts(self, mid):
        """The leading part of each weight: the block's own input and output are whole."""
        convs = [m for m in self.branch_main if isinstance(m, nn.Conv2d)]
        parts = {}
        for i, m in enumerate(convs):
            enters = slice(None) if i == 0 or i == 1 and convs[0].groups > 1 else slice(mid)
            leaves = slice(None) if m is convs[-1] else slice(mid)
            parts[m] = (enters,) if m.groups > 1 else (leaves, enters)
        return parts

    def unused(self, mid):
        for m, part in self.parts(mid).items():
            mask = torch.ones_like(m.weight, dtype=torch.bool)
            mask[part] = False
            yield m.weight, mask
