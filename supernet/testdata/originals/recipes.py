"""How the code bases train: loss, weight decay, learning rate, bounds of gradients."""
import contextlib
from typing import Callable, NamedTuple

import torch
import torch.nn.functional as F


def matrices(name, p):
    """SinglePathOneShot, utils.py: get_parameters; mmrazor 0.x, whose biases and norms do not decay."""
    return "weight" in name and p.dim() > 1


def dense(name, p):
    """mmrazor 1.x: depthwise kernels do not decay either."""
    return matrices(name, p) and not (p.dim() == 4 and p.shape[1] == 1)


def kernels(name, p):
    """AngleNAS, train_from_scratch.py: looks for classifier.0, where the dropout is, so the linear layer is left out."""
    return p.dim() == 4


def kernels_and_head(name, p):
    """AngleNAS, searching and shrinking: the linear layer is classifier.0, and its bias decays."""
    return p.dim() == 4 or "classifier.0" in name


def everything(name, p):
    """NAS-Bench-Macro and ShunLu91: torch.optim.SGD over all parameters."""
    return True


class Recipe(NamedTuple):
    lr: float
    decay: Callable
    weight_decay: float = 4e-5
    smoothing: float = 0.1
    first: int = 1  # linear: the learning rate of step i of n is lr·(1 − (i + first)/n); −1: constant
    clip_value: float = 0
    clip_norm: float = 0

    def rates(self, steps):
        return [self.lr * (1 - (i + self.first) / steps) if self.first >= 0 else self.lr for i in range(steps)]

    def loss(self, logits, labels):
        classes = logits.shape[1]
        target = F.one_hot(labels, classes).to(logits) * (1 - self.smoothing) + self.smoothing / classes
        return (-target * logits.log_softmax(1)).sum(1).mean()

    def optimizer(self, net):
        groups = [{"params": [p], "weight_decay": self.weight_decay if self.decay(n, p) else 0.0} for n, p in net.named_parameters()]
        return torch.optim.SGD(groups, lr=self.lr, momentum=0.9)

    def train(self, net, batches, paths, steps):
        """Takes steps and returns their losses. Tensors that a path does not use have no gradient and stay."""
        opt, losses = self.optimizer(net), []
        net.train()
        for i, rate in enumerate(self.rates(steps)):
            x, labels = batches[i % len(batches)]
            for group in opt.param_groups:
                group["lr"] = rate
            opt.zero_grad(set_to_none=True)
            loss = self.loss(net(x, paths[i // 2 % len(paths)]), labels)
            loss.backward()
            if self.clip_value:
                torch.nn.utils.clip_grad_value_(net.parameters(), self.clip_value)
            if self.clip_norm:
                torch.nn.utils.clip_grad_norm_(net.parameters(), self.clip_norm)
            with untouched(opt, net.unused(paths[i // 2 % len(paths)])):
                opt.step()
            losses.append(loss.item())
        return losses


@contextlib.contextmanager
def untouched(opt, parts):
    """Keeps parts of parameters, (parameter, boolean mask) each, and their momenta as they are through a step."""
    before = [(p, mask, p.detach().clone(), momentum(opt, p).clone()) for p, mask in parts]
    yield
    with torch.no_grad():
        for p, mask, value, velocity in before:
            p[mask] = value[mask]
            momentum(opt, p)[mask] = velocity[mask]


def momentum(opt, p):
    v = opt.state[p].get("momentum_buffer") if p in opt.state else None
    return torch.zeros_like(p) if v is None else v
