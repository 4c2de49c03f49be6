"""Writes golden/want.json: what PyTorch computes for the net of golden/net.json.

    python golden.py        (after: go test ./supernet -run TestGolden -update)

Computed in double. Prints how far PyTorch's own float32 strays from that,
which is what the tolerances of the test go by.
"""
import json
import pathlib

import torch
import torch.nn.functional as F

import netpy

here = pathlib.Path(__file__).parent / "golden"
net, params, batches, config = (json.loads((here / f"{n}.json").read_text()) for n in ("net", "params", "batches", "config"))
torch.set_num_threads(1)


def tensors(dtype):
    return {p["Name"]: torch.tensor(p["Data"], dtype=dtype).reshape(p["Shape"]) for p in params}


def images(b, dtype):
    s = net["In"]
    return torch.tensor(b["Images"], dtype=dtype).reshape(-1, s["C"], s["H"], s["W"]), torch.tensor(b["Labels"])


def train(dtype, recipe):
    """Ten steps; also the first step's gradients, before any bound."""
    t = tensors(dtype)
    groups = []
    for v in netpy.views(net):
        if v["Role"] >= netpy.MEAN:
            continue
        t[v["Name"]].requires_grad_()
        decay = v["Role"] in (netpy.CONV_WEIGHT, netpy.DEPTHWISE_WEIGHT, netpy.LINEAR_WEIGHT)
        groups.append({"params": [t[v["Name"]]], "weight_decay": recipe["WeightDecay"] if decay else 0})
    opt = torch.optim.SGD(groups, lr=config["LR"], momentum=recipe["Momentum"], nesterov=recipe["Nesterov"])
    losses, grads = [], {}
    for step in range(config["Steps"]):
        x, y = images(batches[step % len(batches)], dtype)
        masks = {int(k): v for k, v in config["Masks"][step].items()}
        out = netpy.forward(net, t, x, True, masks)
        loss = F.cross_entropy(out, y, label_smoothing=recipe["LabelSmoothing"])
        opt.zero_grad()
        loss.backward()
        if step == 0:
            grads = {n: v.grad.flatten().tolist() for n, v in t.items() if v.grad is not None}
        leaves = [g["params"][0] for g in groups]
        if recipe["ClipValue"]:
            torch.nn.utils.clip_grad_value_(leaves, recipe["ClipValue"])
        if recipe["ClipNorm"]:
            torch.nn.utils.clip_grad_norm_(leaves, recipe["ClipNorm"])
        opt.step()
        losses.append(loss.item())
    return {"Losses": losses, "Grads": grads,
            "Tensors": {n: v.detach().flatten().tolist() for n, v in t.items()}}


@torch.no_grad()
def calibrated(dtype):
    """Statistics as the definition says them, and logits with them."""
    t = tensors(dtype)
    own, total = {}, 0
    for b in batches:
        x, _ = images(b, dtype)
        total += len(x)
        fresh = {n: v.clone() for n, v in t.items()}
        once = json.loads(json.dumps(net))
        for op in once["Ops"]:
            if op["Norm"]:
                op["Norm"]["Momentum"] = 1.0  # the running statistics become the batch's
        netpy.forward(once, fresh, x, True, {i: 0 for i in range(len(net["Ops"]))})
        for op in net["Ops"]:
            if op["Norm"]:
                for part in ("Mean", "Var"):
                    n = op["Norm"][part]["Name"]
                    own[n] = own.get(n, 0) + len(x) * fresh[n]
    for n, v in own.items():
        t[n] = v / total
    x, _ = images(batches[0], dtype)
    return {"Stats": {n: t[n].tolist() for n in own},
            "Logits": netpy.forward(net, t, x, False).flatten().tolist()}


def rounded(v):
    if isinstance(v, dict):
        return {k: rounded(x) for k, x in v.items()}
    if isinstance(v, list):
        return [rounded(x) for x in v]
    return float(f"{v:.9g}")


def golden(dtype):
    return {"Train": {n: train(dtype, r) for n, r in config["Recipes"].items()}, "Calibrated": calibrated(dtype)}


def farthest(a, b):
    """The largest difference, in units of each tensor's largest element."""
    if isinstance(a, dict):
        return max(farthest(a[k], b[k]) for k in a)
    scale = max(max(map(abs, b)), 1e-2)
    return max(abs(x - y) for x, y in zip(a, b)) / scale


exact, single = golden(torch.float64), golden(torch.float32)
for kind in "Losses", "Grads", "Tensors":
    print("float32 strays in", kind.lower(), "by", max(
        farthest(single["Train"][r][kind], exact["Train"][r][kind]) for r in exact["Train"]))
print("float32 strays in calibration by", farthest(single["Calibrated"], exact["Calibrated"]))
for name in exact["Train"]:
    if name != "paper":
        del exact["Train"][name]["Grads"]  # the same in every recipe
(here / "want.json").write_text(json.dumps(rounded(exact)))
