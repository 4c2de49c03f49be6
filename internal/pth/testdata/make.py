"""Writes the checkpoints in this folder, and want.json with what is in them.

    python make.py

needs torch and numpy. Tests read the result; another torch may write other
bytes of the same meaning, and the old format names storages by address.
"""

import argparse
import collections
import datetime
import decimal
import enum
import json
import pathlib
import sys
import types

import numpy as np
import torch

HERE = pathlib.Path(__file__).parent
want = {}


def flatten(d, prefix=""):
    for name, value in d.items():
        if isinstance(value, torch.Tensor):
            yield prefix + name, value
        elif isinstance(value, dict):
            yield from flatten(value, prefix + name + ".")


def save(name, what, weights, key, **options):
    torch.save(what, HERE / name, **options)
    want[name] = {"key": key, "tensors": []}
    for tensor_name, value in flatten(weights):
        tensor = {"name": tensor_name, "dtype": str(value.dtype).removeprefix("torch."), "shape": list(value.shape)}
        if value.dtype.is_floating_point:
            tensor["float32"] = value.detach().float().contiguous().numpy().astype("<f4").tobytes().hex()
        want[name]["tensors"].append(tensor)


def both(name, what, weights, key):
    save(name + ".pth", what, weights, key)
    save(name + ".legacy.pth", what, weights, key, _use_new_zipfile_serialization=False)


def dtypes():
    floats = [0.0, -0.0, 1.0, -2.5, 65504.0, 6e-8, 1e-5, float("inf"), float("-inf"), 1 / 3]
    d = collections.OrderedDict()
    for t in (torch.float32, torch.float16, torch.bfloat16, torch.float64):
        d[str(t)] = torch.tensor(floats, dtype=torch.float64).to(t)
    for t in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool, torch.complex64):
        d[str(t)] = torch.tensor([0, 1, 1]).to(t)
    return d


def views():
    base = torch.arange(60.0)
    matrix = base.view(6, 10)
    marked = torch.arange(3.0)
    marked.note = "a tensor with an attribute"
    return collections.OrderedDict(
        base=base,
        matrix=matrix,
        transposed=matrix.t(),
        offset=base[7:19],
        column=matrix[:, 3],
        block=matrix[1:4, 2:7],
        steps=base[1::7],
        every_other=matrix[::2, 1::3],
        permuted=base.view(3, 4, 5).permute(2, 0, 1),
        channels_last=base.view(1, 3, 4, 5).contiguous(memory_format=torch.channels_last),
        expanded=base[2:5].expand(4, 3),
        expanded_inner=base[2:5].unsqueeze(1).expand(3, 2),
        again=base,
        scalar=torch.tensor(3.5),
        element=base[33],
        empty=torch.zeros(0, 3),
        empty_view=base[5:5],
        one=torch.ones(1, 1, 1, 1),
        half_view=torch.arange(12.0).half().view(3, 4).t()[1:3],
        parameter=torch.nn.Parameter(torch.arange(4.0)),
        marked=marked,
    )


def net():
    torch.manual_seed(0)
    m = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, bias=False), torch.nn.BatchNorm2d(4))
    m[1].running_mean += torch.arange(4.0)
    return m


def fake(path, name, base=object, **members):
    """A class of a module that readers do not have."""
    parts = path.split(".")
    for i in range(len(parts)):
        sys.modules.setdefault(".".join(parts[: i + 1]), types.ModuleType(parts[i]))
    cls = type(name, (base,), {"__module__": path, **members})
    setattr(sys.modules[path], name, cls)
    return cls


def mmengine(weights):
    config_dict = fake("mmengine.config.config", "ConfigDict", dict)
    buffer = fake("mmengine.logging.history_buffer", "HistoryBuffer")
    level = fake("mmengine.logging.logger", "Level")
    loss = buffer()
    loss._log_history = np.linspace(0, 1, 50)
    loss._count_history = np.ones(50, dtype=np.int64)
    loss.statistics = {"min", "mean"}
    cfg = config_dict(model=config_dict(type="SearchableShuffleNetV2"), lr=0.5)
    cfg.itself = cfg
    ring = [1]
    ring.append(ring)
    meta = {
        "epoch": 12,
        "iter": 2**40,
        "cfg": cfg,
        "text": "x = 1\n" * 700,
        "time": datetime.datetime(2026, 11, 1, 12, 30),
        "best": np.float64(71.25),
        "dataset_meta": {"classes": ("a", "b"), "palette": [[1, 2, 3]]},
        "args": argparse.Namespace(path=pathlib.PurePosixPath("/tmp/x"), level=level()),
        "decimal": decimal.Decimal("1.5"),
        "big": 1 << 200,
        "huge": 1 << 33000,
        "negative": -(1 << 70),
        "bytes": b"\x00\x01" * 300,
        "complex": 1 + 2j,
        "ring": ring,
        "frozen": frozenset({1, 2}),
        "dtype": torch.float32,
        "nothing": None,
    }
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=0.1, momentum=0.9)
    optimizer.param_groups[0]["params"][0].grad = torch.ones(2)
    optimizer.step()
    return {
        "meta": meta,
        "state_dict": weights,
        "message_hub": {"log_scalars": collections.OrderedDict(loss=loss), "resumed_keys": {"loss": True}},
        "optimizer": optimizer.state_dict(),
        "param_schedulers": [{"_get_lr_called_within_step": False}],
        "ema_state_dict": weights,
    }


class Quantised:
    """A value that is built from a tensor by something that readers lack."""

    def __init__(self, t):
        self.t = t


Quantised.__module__ = "elsewhere"
sys.modules["elsewhere"] = types.ModuleType("elsewhere")
sys.modules["elsewhere"].Quantised = Quantised


def main():
    both("dtypes", dtypes(), dtypes(), ".")
    v = views()
    both("views", v, v, ".")
    weights = net().state_dict()
    both("bare", weights, weights, ".")
    for protocol in (3, 4, 5):
        save(f"protocol{protocol}.pth", weights, weights, ".", pickle_protocol=protocol)
    parallel = collections.OrderedDict(("module." + k, t) for k, t in weights.items())
    both("parallel", {"epoch": 3, "state_dict": parallel, "best_acc1": torch.tensor(71.5)}, parallel, "state_dict")
    both("mmengine", mmengine(weights), weights, "state_dict")
    save("net_acc.pth", {"net": weights, "acc": torch.tensor(0.5), "epoch": 9}, weights, "net")
    nested = {"backbone": {"conv": {"weight": torch.arange(4.0)}, "bias": torch.ones(2)}, "head": {"fc": torch.zeros(3)}}
    save("nested.pth", {"model": nested, "steps": [torch.ones(2)]}, nested, "model")
    # No want: tests name the key, or expect an error.
    torch.save({"model": weights, "model_ema": weights.copy()}, HERE / "ambiguous.pth")
    torch.save(net(), HERE / "module.pth")
    torch.save({"a.weight": torch.ones(2), "b.weight": Quantised(torch.ones(2)), "c.count": 4}, HERE / "foreign.pth")
    torch.save({"epoch": 3, "log": [1.0, 2.0]}, HERE / "weightless.pth")
    torch.save(torch.ones(2), HERE / "tensor.pth")
    (HERE / "want.json").write_text(json.dumps(want, indent=0) + "\n")


main()
