"""Writes the fixtures of originals_test.go: a tiny net of each variant as a file of its code base, and what PyTorch
computes with it in double precision.

NAME.pth.gz is the file. NAME.json has the archs, the recipe, the losses, checksums of the tensors after ten steps, and
how far PyTorch's own float32 strays from all that, in units of each tensor's largest element. NAME.safetensors has the
arrays: PATH/eval, PATH/train (logits), PATH/grad/TENSOR and PATH/state/TENSOR (running statistics after one forward
pass in train mode). Images are not stored: both sides make them of splitmix64.
"""
import copy
import gzip
import io
import json
import math
import pathlib
import struct

import numpy as np
import torch

from variants import STEPS, VARIANTS

HERE = pathlib.Path(__file__).parent
SIZES = [5, 4]  # of the two batches
MARGIN = 1e-5  # of what enters a ReLU from its kinks: thirty times the error of float32


def uniform(seed, n):
    """n numbers in [-1, 1), exact in float32: 24 bits of splitmix64's outputs 1, 2, … from this state."""
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return (z >> np.uint64(40)).astype(np.float64) / 2**23 - 1


def batches(side, classes, dtype, sizes=SIZES):
    """Batch b starts from state b; label i of it is (3i + b) mod classes."""
    for b, n in enumerate(sizes):
        x = uniform(b, n * 3 * side * side).reshape(n, 3, side, side)
        yield torch.tensor(x, dtype=dtype), torch.tensor([(3 * i + b) % classes for i in range(n)])


def coarse(state, shape):
    """Weights of eight bits, so that the files compress."""
    return torch.tensor(np.round(uniform(state, math.prod(shape)) * 128) / 128, dtype=torch.float32).reshape(shape)


def fill(net, seed):
    """Random weights of a size that keeps activations near one, and statistics that are not the initial ones."""
    state = net.state_dict()
    for i, (name, t) in enumerate(state.items()):
        if t.dtype == torch.int64:
            t.fill_(3)
            continue
        u = coarse(1000 * seed + i, t.shape)
        if t.dim() > 1:
            t.copy_(u * 2.0 ** round(math.log2(1.7 / math.sqrt(t[0].numel()))))
        elif name.endswith(("running_var", "weight")):
            t.copy_(1 + u / 2)
        else:
            t.copy_(u / 4)


def save(variant, net, out, momenta=True):
    """Writes the net as its code base does, the optimizer's momenta zero."""
    opt = variant.recipe.optimizer(net)
    for group in opt.param_groups if momenta else []:
        for p in group["params"]:
            opt.state[p]["momentum_buffer"] = torch.zeros_like(p)
    content = variant.layout(net.state_dict(prefix=variant.prefix), opt.state_dict())
    torch.save(content, out, _use_new_zipfile_serialization=not variant.legacy)


def computed(variant, net, paths, data):
    """Everything that is compared, from these weights on."""
    arrays, facts = {}, {"train_loss": []}
    for i, path in enumerate(paths):
        net.eval()
        with torch.no_grad():
            arrays[f"{i}/eval"] = net(data[0][0], path)
        once = copy.deepcopy(net).train()
        before = {n: t.clone() for n, t in once.state_dict().items()}
        logits = once(data[0][0], path)
        loss = variant.recipe.loss(logits, data[0][1])
        loss.backward()
        facts["train_loss"].append(loss.item())
        arrays[f"{i}/train"] = logits.detach()
        for n, p in once.named_parameters():
            if p.grad is not None:
                arrays[f"{i}/grad/{n}"] = p.grad
        for n, t in once.state_dict().items():
            if t.is_floating_point() and not torch.equal(t, before[n]):
                arrays[f"{i}/state/{n}"] = t
    trained = copy.deepcopy(net)
    facts["losses"] = variant.recipe.train(trained, data, paths, STEPS)
    used = {n.split("/", 2)[2] for n in arrays if n.count("/") > 1}
    after = {n: t for n, t in trained.state_dict().items() if n in used}
    facts["after"] = {n: checksum(t) for n, t in after.items()}
    return arrays, facts, after


class Kink(Exception):
    """An activation lies so near a kink of its ReLU that rounding may decide its side, and so its gradient."""


def look(module, args):
    x = args[0]
    nearest = x.abs().min() if isinstance(module, torch.nn.ReLU) else torch.minimum(x.abs(), (x - 6).abs()).min()
    if nearest < MARGIN:
        raise Kink


def steady(variant, paths, data, first):
    """Random weights for which the comparison is one of arithmetic alone: no activation is near a kink throughout,
    and no gradient is the small difference of large numbers. Returns the net, what float32 and float64 make of it, and
    the seed, at which the next search begins."""
    for seed in range(first, first + 5000):
        net = variant.net(full=False)
        net.dropout = 0.0
        fill(net, seed)
        watched = copy.deepcopy(net).double()
        for m in watched.modules():
            if isinstance(m, (torch.nn.ReLU, torch.nn.ReLU6)):
                m.register_forward_pre_hook(look)
        try:
            computed(variant, watched, paths, data[torch.float64])
        except Kink:
            continue
        runs = [computed(variant, copy.deepcopy(net).to(t), paths, d) for t, d in data.items()]
        if strays(*runs)["grad"] < 4e-6:
            return net, runs, seed
    raise SystemExit("no weights stay clear of kinks")


def checksum(t):
    """Norm, and product with a fixed vector."""
    v = t.flatten().double()
    return [v.norm().item(), v.dot(torch.tensor(uniform(99, v.numel()))).item()]


def stray(single, double):
    """The largest difference in units of the largest element; elements all below a hundredth count as that."""
    return max(((a.double() - double[n]).abs().max() / max(double[n].abs().max().item(), 1e-2)).item() for n, a in single.items())


def strays(single, double):
    (a, f, s), (b, g, d) = single, double
    kinds = {}
    for kind in "eval", "train", "grad", "state":
        # Of a bias before a norm the gradient is zero, and float32's is its rounding errors.
        of = [n for n in b if n.split("/")[1] == kind and not n.endswith("_conv.conv.bias")]
        kinds[kind] = stray({n: a[n] for n in of}, b)
    kinds["after"] = stray(s, d)
    kinds["losses"] = max(abs(x - y) for x, y in zip(f["losses"] + f["train_loss"], g["losses"] + g["train_loss"]))
    return {n: float(f"{v:.2g}") for n, v in kinds.items()}


def safetensors(path, arrays):
    """float32, in the order of the dictionary."""
    head, at = {}, 0
    for n, t in arrays.items():
        head[n] = {"dtype": "F32", "shape": list(t.shape), "data_offsets": [at, at + 4 * t.numel()]}
        at += 4 * t.numel()
    text = json.dumps(head, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    body = b"".join(t.float().contiguous().numpy().tobytes() for t in arrays.values())
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


def rounded(v):
    if isinstance(v, dict):
        return {k: rounded(x) for k, x in v.items()}
    if isinstance(v, list):
        return [rounded(x) for x in v]
    return float(f"{v:.10g}") if isinstance(v, float) else v


def describe(variant, archs):
    r = variant.recipe
    recipe = {"decay": r.decay.__name__, "weight_decay": r.weight_decay, "smoothing": r.smoothing,
              "clip_value": r.clip_value, "clip_norm": r.clip_norm, "rates": r.rates(STEPS)}
    return {"space": variant.family.space, "supernet": variant.supernet, "archs": [variant.family.arch(a) for a in archs],
            "recipe": recipe}


def write(name, variant):
    family = variant.family
    paths = variant.tiny if variant.supernet else [None]
    data = {t: list(batches(family.side, family.tiny.classes, t)) for t in (torch.float32, torch.float64)}
    described = HERE / f"{name}.json"
    first = json.loads(described.read_text()).get("seed", 1) if described.exists() else 1
    net, runs, seed = steady(variant, paths, data, first)
    file = io.BytesIO()
    save(variant, net, file)
    (HERE / f"{name}.pth.gz").write_bytes(gzip.compress(file.getvalue(), mtime=0))
    arrays, facts, _ = runs[1]
    text = {**describe(variant, variant.tiny), "tiny": {"side": family.side, **family.tiny._asdict()}, "seed": seed,
            "prefix": variant.prefix, **facts, "strays": strays(*runs)}
    described.write_text(json.dumps(rounded(text), indent=1) + "\n")
    safetensors(HERE / f"{name}.safetensors", arrays)
    return text["strays"]


def main():
    torch.set_num_threads(1)
    worst = {}
    for name, variant in VARIANTS.items():
        if not variant.tiny:
            continue
        s = write(name, variant)
        print(f"{name:28}", *(f"{k} {v:.1e}" for k, v in s.items()))
        worst = {k: max(v, worst.get(k, 0)) for k, v in s.items()}
    print("float32 strays at most by", worst)
