"""Times training steps of arch.Nets in PyTorch eager: the benchmark's other side.

Reads from standard input one JSON line {"Nets": [...], "Params": [...],
"Batch": n, "Threads": n, "Classes": n}, answers "ready", and then for every
line holding a number i runs one step of net i and answers its seconds, wall
and CPU.
"""
import json
import os
import sys
import time

import torch
import torch.nn.functional as F

import netpy

setup = json.loads(sys.stdin.readline())
nets = setup["Nets"]
torch.set_num_threads(setup["Threads"])
torch.manual_seed(0)
shape = nets[0]["In"]


def tensor(p):
    t = torch.empty(p["Shape"]).normal_(p["Init"]["Mean"], p["Init"]["Std"] or 1e-12)
    if t.dim() == 4:
        t = t.contiguous(memory_format=torch.channels_last)
    return t.requires_grad_(p["Role"] < netpy.MEAN)


tensors = {p["Name"]: tensor(p) for p in setup["Params"]}
weights = (netpy.CONV_WEIGHT, netpy.DEPTHWISE_WEIGHT, netpy.LINEAR_WEIGHT)
trained = [(tensors[p["Name"]], p["Role"] in weights) for p in setup["Params"] if p["Role"] < netpy.MEAN]
# Gradients stay None on other paths, so the optimiser passes over them.
optimizer = torch.optim.SGD([
    {"params": [t for t, d in trained if d], "weight_decay": 4e-5},
    {"params": [t for t, d in trained if not d], "weight_decay": 0},
], lr=1e-3, momentum=0.9, foreach=True)
x = torch.randn(setup["Batch"], shape["C"], shape["H"], shape["W"])
y = torch.randint(setup["Classes"], (setup["Batch"],))


def step(net):
    optimizer.zero_grad(set_to_none=True)
    out = netpy.forward(net, tensors, x.contiguous(memory_format=torch.channels_last), True)
    loss = F.cross_entropy(out, y, label_smoothing=0.1)
    loss.backward()
    optimizer.step()
    return loss.item()


def cpu():
    t = os.times()
    return t.user + t.system


print("ready", flush=True)
for line in sys.stdin:
    wall, used = time.perf_counter(), cpu()
    step(nets[int(line)])
    print(time.perf_counter() - wall, cpu() - used, flush=True)
