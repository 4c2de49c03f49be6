"""Every family and variant: its net, tiny and in full size, its file's layout, its recipe, its archs."""
import collections
import sys
import types
from typing import Callable, NamedTuple

import numpy as np

import nets as N
import recipes as R
from nets import Geometry, IDENTITY

STEPS = 10


class Family(NamedTuple):
    """A search space, tiny and as published. digit turns a choice into its digit in our arch strings."""
    space: str
    tiny: Geometry
    full: Geometry
    digit: Callable = lambda c: c
    side: int = 16  # of tiny images

    def arch(self, choices):
        return "".join("0123456789abcdefghijklmnopqrstuvwxyz"[self.digit(c)] for c in choices)


TINY_SHUFFLE = Geometry(4, [(12, 3, 2), (16, 1, 2)], 20, 7)
FULL_SHUFFLE = Geometry(16, [(64, 4, 2), (160, 4, 2), (320, 8, 2), (640, 4, 2)], 1024, 1000)
TINY_MOBILE = Geometry(8, [(8, 2, 2), (12, 1, 1)], 20, 7, 4)
FULL_MOBILE = Geometry(40, [(32, 4, 2), (56, 4, 2), (112, 4, 2), (128, 4, 1), (256, 4, 2), (432, 1, 1)], 1728, 1000, 24)
FULL_FAIRNAS = Geometry(32, [(32, 2, 2), (40, 4, 2), (80, 4, 2), (96, 4, 1), (192, 4, 2), (320, 1, 1)], 1280, 1000, 16)

SPOS = Family("shufflenetv2-spos", TINY_SHUFFLE, FULL_SHUFFLE)
CHANNELS = Family("shufflenetv2-channels", TINY_SHUFFLE, FULL_SHUFFLE, lambda c: c[0] * len(N.SCALES) + c[1])
DETNAS = Family("shufflenetv2-detnas", TINY_SHUFFLE, FULL_SHUFFLE)
RAZOR = Family("shufflenetv2-mmrazor", TINY_SHUFFLE, FULL_SHUFFLE)
MOBILE = Family("mobilenet-proxylessgpu-mmrazor", TINY_MOBILE, FULL_MOBILE)
ANGLE = Family("mobilenet-proxylessgpu-anglenas", TINY_MOBILE, FULL_MOBILE, lambda c: 6 if c == IDENTITY else c)
FAIRNAS = Family("mobilenet-fairnas", TINY_MOBILE, FULL_FAIRNAS)
MACRO = Family("nasbench-macro", Geometry(4, [(8, 2, 2), (12, 2, 2)], 20, 7), Geometry(32, [(64, 2, 2), (128, 3, 2), (256, 3, 2)], 1280, 10), side=8)
CIFAR = Family("shufflenetv2-cifar", Geometry(8, [(12, 2, 1), (16, 2, 2)], 20, 7),
               Geometry(16, [(64, 4, 1), (160, 4, 2), (320, 8, 2), (640, 4, 1)], 1024, 10), side=8)


# Layouts of files.

def wrapped(state, optimizer):
    return {"state_dict": state}


def bare(state, optimizer):
    return state


def detnas(state, optimizer):
    return {"state_dict": state, "optimizer_state_dict": optimizer, "lr_scheduler_state_dict": {"last_epoch": 10, "_step_count": 11}}


def from_scratch(state, optimizer):
    return {"iters": 10, "state_dict": state, "best_acc_top1": 0.5, "optimizer": optimizer}


def mmcv(state, optimizer):
    meta = {"mmcv_version": "1.7.2", "epoch": 0, "iter": 10, "seed": None, "CLASSES": ("a", "b")}
    return {"meta": meta, "state_dict": state, "optimizer": optimizer}


def mmengine(state, optimizer):
    """A runner's checkpoint: its message hub has objects of mmengine's own class, which hold arrays of numpy."""
    name = "mmengine.logging.history_buffer"
    for part in ("mmengine", "mmengine.logging", name):
        sys.modules.setdefault(part, types.ModuleType(part))
    if not hasattr(sys.modules[name], "HistoryBuffer"):
        sys.modules[name].HistoryBuffer = type("HistoryBuffer", (), {"__module__": name})
    buffer = sys.modules[name].HistoryBuffer()
    buffer.__dict__.update(_max_length=1000000, _log_history=np.array([2.0, 1.5]), _count_history=np.array([1, 1]))
    hub = {"log_scalars": collections.OrderedDict({"train/loss": buffer}), "runtime_info": collections.OrderedDict(iter=10), "resumed_keys": {}}
    schedulers = [{"begin": 0, "end": 10, "last_step": 10, "_last_lr": [0.1]}]
    meta = {"epoch": 1, "iter": 10, "mmengine_version": "0.10.7", "seed": 1, "dataset_meta": {"classes": ("a", "b")}}
    return {"meta": meta, "state_dict": state, "message_hub": hub, "optimizer": optimizer, "param_schedulers": schedulers}


class Variant(NamedTuple):
    """build(geometry, arch) makes the net; a supernet's arch is None and its paths are the archs. Without tiny archs
    there is no fixture: another variant has the same modules."""
    family: Family
    build: Callable
    tiny: list
    full: list
    recipe: R.Recipe
    supernet: bool = False
    prefix: str = ""
    layout: Callable = bare
    legacy: bool = False  # torch.save as it was before PyTorch 1.6

    def net(self, full, i=0):
        archs = self.full if full else self.tiny
        return self.build(self.family.full if full else self.family.tiny, None if self.supernet else archs[i])


def razor(cls, held):
    return lambda g, arch: cls(g, arch, held)


PAPER = [2, 1, 0, 1, 2, 0, 2, 0, 2, 0, 2, 3, 0, 0, 0, 0, 3, 2, 3, 3]
SEARCHED = [2, 0, 2, 0, 3, 1, 1, 0, 0, 1, 0, 1, 0, 3, 1, 2, 2, 0, 1, 3]
BLOCKS = [0, 0, 3, 1, 1, 1, 0, 0, 2, 0, 2, 1, 1, 0, 2, 0, 2, 1, 3, 2]
WIDTHS = [6, 5, 3, 5, 2, 6, 3, 4, 2, 5, 7, 5, 4, 6, 7, 4, 4, 5, 4, 3]
COCO = [2, 1, 2, 0, 2, 1, 1, 2, 3, 3, 1, 3, 0, 0, 3, 1, 3, 1, 3, 2]
ABS = [2, 2, -1, 0, 0, -1, -1, 0, 5, -1, 4, 4, 0, 0, 4, 2, 3, 4, 4, 4, 3]
ABS_RAZOR = [[0, 3, 1, 4, 2, 5, 6][c] for c in ABS]
ABS_FAIRNAS = [4, 2, 4, 2, 2, 2, 5, 2, 4, 4, 2, 2, 2, 4, 5, 4, 2, 2, 5]
SHUNLU = [1, 0, 3, 1, 3, 0, 3, 0, 0, 3, 3, 0, 1, 0, 1, 2, 2, 1, 1, 3]

# The tiny archs of a family use every candidate, those of shuffle blocks at both strides.
TWO = [[2, 3, 1, 0], [3, 0, 2, 1]]
WIDE = [[(2, 1), (3, 7), (1, 4), (0, 2)], [(3, 3), (0, 6), (2, 0), (1, 5)]]
THREE_RAZOR = [[6, 0, 5], [2, 6, 4], [3, 1, 6]]
THREE_ANGLE = [[4, -1, 1], [0, 2, 5], [3, 0, 4]]

OFFICIAL = R.Recipe(0.05, R.matrices)
RAZOR0 = R.Recipe(0.05, R.matrices, first=0)
RAZOR1 = R.Recipe(0.05, R.dense, first=0)
SEARCHING = R.Recipe(0.05, R.kernels_and_head, clip_value=5)
SCRATCH = R.Recipe(0.05, R.kernels, clip_norm=5)
BENCH = R.Recipe(0.1, R.everything, 5e-4, smoothing=0, first=-1)
SMALL = R.Recipe(0.025, R.everything, 3e-4, smoothing=0, first=-1)

IN0, IN1, DATA = "architecture.model.", "architecture.", "module."
VARIANTS = {
    "spos-supernet": Variant(SPOS, N.Spos, TWO, [PAPER, BLOCKS], OFFICIAL, True, DATA, wrapped),
    "spos-subnet": Variant(SPOS, N.Spos, TWO[:1], [PAPER], OFFICIAL, prefix=DATA, layout=wrapped),
    "oneshot-subnet": Variant(CHANNELS, N.Spos, WIDE[:1], [list(zip(BLOCKS, WIDTHS))], OFFICIAL, prefix=DATA, layout=wrapped),
    "channels-supernet": Variant(CHANNELS, lambda g, _: N.Channels(g), WIDE, [list(zip(BLOCKS, WIDTHS))], OFFICIAL, True, layout=wrapped),
    "detnas-subnet": Variant(DETNAS, N.Detnas, TWO[1:], [COCO], OFFICIAL, prefix=DATA, layout=detnas),
    "mmrazor0-shuffle-supernet": Variant(RAZOR, razor(N.RazorShuffle, "choices"), TWO, [PAPER], RAZOR0, True, IN0, mmcv, True),
    "mmrazor0-shuffle-subnet": Variant(RAZOR, razor(N.RazorShuffle, "choices"), TWO[:1], [PAPER], RAZOR0, False, IN0, mmcv, True),
    "mmrazor1-shuffle-supernet": Variant(RAZOR, razor(N.RazorShuffle, "_candidates"), TWO, [SEARCHED], RAZOR1, True, IN1, mmengine),
    "mmrazor1-shuffle-subnet": Variant(RAZOR, razor(N.RazorShuffle, "_candidates"), TWO[1:], [SEARCHED], RAZOR1, False, "", mmengine),
    "mmrazor0-mobile-supernet": Variant(MOBILE, razor(N.RazorMobile, "choices"), [], [ABS_RAZOR], RAZOR0, True, IN0, mmcv, True),
    "mmrazor0-mobile-subnet": Variant(MOBILE, razor(N.RazorMobile, "choices"), THREE_RAZOR[1:2], [ABS_RAZOR], RAZOR0, False, IN0, mmcv),
    "mmrazor1-mobile-supernet": Variant(MOBILE, razor(N.RazorMobile, "_candidates"), THREE_RAZOR, [ABS_RAZOR], RAZOR1, True, IN1, mmengine),
    "mmrazor1-mobile-subnet": Variant(MOBILE, razor(N.RazorMobile, "_candidates"), THREE_RAZOR[:1], [ABS_RAZOR], RAZOR1, False, IN1, wrapped),
    "anglenas-supernet": Variant(ANGLE, N.Angle, THREE_ANGLE, [ABS], SEARCHING, True, DATA, wrapped),
    "anglenas-subnet": Variant(ANGLE, N.Angle, THREE_ANGLE[:1], [ABS], SCRATCH, False, DATA, from_scratch),
    "fairnas-supernet": Variant(FAIRNAS, N.Angle, [], [ABS_FAIRNAS], SEARCHING, True),
    "fairnas-subnet": Variant(FAIRNAS, N.Angle, THREE_ANGLE[1:2], [ABS_FAIRNAS], SCRATCH, False, DATA, from_scratch),
    "macro-0210": Variant(MACRO, N.Macro, [[0, 2, 1, 0]], [[2, 2, 2, 1, 2, 2, 2, 0]], BENCH),
    "macro-2101": Variant(MACRO, N.Macro, [[2, 1, 0, 1]], [[0, 1, 0, 2, 1, 0, 0, 1]], BENCH),
    "cifar-supernet": Variant(CIFAR, N.Cifar, TWO, [SHUNLU], SMALL, True),
    "cifar-subnet": Variant(CIFAR, N.Cifar, TWO[:1], [SHUNLU], SMALL),
}
