"""Executes an arch.Net, as encoding/json writes it, with plain PyTorch.

The referee of supernet's tests and the other side of its benchmark: nothing
here is shared with the Go code but the description of the net.
"""
import torch
import torch.nn.functional as F

CONV, LINEAR, POOL, DROPOUT, TAKE, CONCAT, SHUFFLE, ADD = range(8)
NONE, RELU, RELU6 = range(3)
CONV_WEIGHT, DEPTHWISE_WEIGHT, LINEAR_WEIGHT, LINEAR_BIAS, GAMMA, BETA, MEAN, VAR = range(8)


def views(net):
    """Yields every view of the net, in op order."""
    for op in net["Ops"]:
        if op["Weight"]:
            yield op["Weight"]
        if op["Bias"]:
            yield op["Bias"]
        norm = op["Norm"]
        if norm:
            if norm["Gamma"]:
                yield norm["Gamma"]
            if norm["Beta"]:
                yield norm["Beta"]
            yield norm["Mean"]
            yield norm["Var"]


def part(view, tensors):
    t = tensors[view["Name"]]
    for d, s in enumerate(view["Take"] or []):
        t = t.narrow(d, s["Start"], s["Len"])
    return t


def forward(net, tensors, x, training, masks=None):
    """Logits of the net; masks are the seeds of dropout by op index."""
    values = {-1: x}
    last = {}
    for i, op in enumerate(net["Ops"]):
        for j in op["Inputs"]:
            last[j] = i
    for i, op in enumerate(net["Ops"]):
        x = values[op["Inputs"][0]]
        kind = op["Kind"]
        if kind == CONV:
            y = F.conv2d(x, part(op["Weight"], tensors), None, op["Stride"], op["Pad"], 1, op["Groups"])
            n = op["Norm"]
            y = F.batch_norm(
                y, part(n["Mean"], tensors), part(n["Var"], tensors),
                part(n["Gamma"], tensors) if n["Gamma"] else None,
                part(n["Beta"], tensors) if n["Beta"] else None,
                training, n["Momentum"], n["Eps"])
            if op["Act"] == RELU:
                y = F.relu(y, inplace=True)
            elif op["Act"] == RELU6:
                y = F.relu6(y, inplace=True)
        elif kind == LINEAR:
            y = F.linear(x.flatten(1), part(op["Weight"], tensors), part(op["Bias"], tensors) if op["Bias"] else None)
        elif kind == POOL:
            y = F.adaptive_avg_pool2d(x, 1)
        elif kind == DROPOUT:
            y = x
            if training and masks is None:
                y = F.dropout(x, op["Rate"])
            elif training:
                g = torch.Generator().manual_seed(masks[i])
                keep = 1 - op["Rate"]
                y = x * torch.empty(x.shape).bernoulli_(keep, generator=g).div_(keep)
        elif kind == TAKE:
            start, step, c = op["Start"], op["Step"], op["Out"]["C"]
            y = x[:, start:start + step * (c - 1) + 1:step]
        elif kind == CONCAT:
            y = torch.cat([values[j] for j in op["Inputs"]], 1)
        elif kind == SHUFFLE:
            n, c, h, w = x.shape
            g = op["Groups"]
            y = x.view(n, g, c // g, h, w).transpose(1, 2).reshape(n, c, h, w)
        elif kind == ADD:
            y = x + values[op["Inputs"][1]]
        else:
            raise ValueError(f"kind {kind}")
        values[i] = y
        for j in op["Inputs"]:
            if last[j] == i and j in values:
                del values[j]
    return values[len(net["Ops"]) - 1]
