"""What the networks cost as the published counters count, from the operations that PyTorch executes.

    originals.py counts             writes counts.tsv
"""
import pathlib

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from variants import VARIANTS


class Counter(TorchDispatchMode):
    """macs: convolutions and the linear layer (SinglePathOneShot, utils.get_flops of its template). mmcv: these, two an
    element of an affine norm's input and one of another's, one an element that an activation gives, one an element
    that is pooled (mmcv.cnn.get_model_complexity_info). thop: macs with (2·in − 1)·out for the linear layer (AngleNAS).
    params: elements of the weights that are read."""

    def __init__(self):
        super().__init__()
        self.macs = self.mmcv = self.thop = self.params = 0

    def read(self, *tensors):
        self.params += sum(t.numel() for t in tensors if t is not None)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        match func._overloadpacket.__name__:
            case "convolution":
                self.read(args[1], args[2])
                n = out.numel() * args[1][0].numel()
                self.macs, self.mmcv, self.thop = self.macs + n, self.mmcv + n, self.thop + n
            case "native_batch_norm" | "_native_batch_norm_legit_no_training":
                self.read(args[1], args[2])
                self.mmcv += args[0].numel() * (1 if args[1] is None else 2)
            case "relu" | "relu_" | "hardtanh" | "hardtanh_":
                self.mmcv += out.numel()
            case "mean":
                self.mmcv += args[0].numel()
            case "addmm" | "mm":
                x, w = args[-2:]
                self.read(w, *args[:-2])
                n = x.shape[1] * out.numel()
                self.macs, self.mmcv, self.thop = self.macs + n, self.mmcv + n, self.thop + n * 2 - out.numel()
            case "view" | "_unsafe_view" | "reshape" | "t" | "transpose" | "permute" | "slice" | "select" | "split" | \
                    "chunk" | "cat" | "clone" | "add" | "add_" | "detach" | "alias" | "dropout" | "unbind" | "narrow" | \
                    "split_with_sizes" | "contiguous" | "flatten" | "unsqueeze" | "squeeze" | "expand" | "empty" | "copy_":
                pass
            case other:
                raise NotImplementedError(other)
        return out


def count(variant, arch):
    """On the meta device: shapes are enough."""
    family, side = variant.family, 32 if variant.family.full.classes == 10 else 224
    with torch.device("meta"), torch.no_grad():
        net = variant.build(family.full, None if variant.supernet else arch).eval()
        x = torch.empty(1, 3, side, side)
        with Counter() as c:
            net(x, arch if variant.supernet else None)
    return family.space, "supernet" if variant.supernet else "net", family.arch(arch), c.params, c.macs, c.mmcv, c.thop


def main():
    rows = ["variant\tspace\tof\tarch\tparams\tmacs\tmmcv\tthop"]
    for name, variant in VARIANTS.items():
        archs = [a for v in VARIANTS.values() if v.family == variant.family for a in v.full]
        for arch in [a for i, a in enumerate(archs) if a not in archs[:i]]:
            rows.append("\t".join(map(str, (name, *count(variant, arch)))))
    (pathlib.Path(__file__).parent / "counts.tsv").write_text("\n".join(rows) + "\n")
