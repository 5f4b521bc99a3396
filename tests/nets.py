"""Small classifiers for tests, and their parts in float64."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

import sess_ray

SIDE = 32


class Small(nn.Module):
    """Convolutions, rectifiers of several kinds, a pool and a linear map."""

    def __init__(self, channels=6, classes=5, seed=0, scale=4):
        super().__init__()
        self.scale = scale
        torch.manual_seed(seed)
        self.first = nn.Conv2d(3, 8, 5, stride=2)
        self.rectifier = nn.ReLU(inplace=True)
        self.second = nn.Conv2d(8, channels, 3, stride=2)
        self.third = nn.Conv2d(channels, channels, 3, padding=1)
        self.classes = nn.Linear(channels, classes)

    def features(self, x):
        x = self.rectifier(self.first(x))
        x = F.relu6(self.second(x) * 3)
        return torch.relu(self.third(x))

    def forward(self, x):
        return self.scale * self.classes(self.features(x).amax((2, 3)))


class Pooled(nn.Module):
    """A mean and a linear map behind a convolution."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(4)
        self.cells = nn.Sequential(nn.Conv2d(3, 8, 5, stride=4), nn.ReLU())
        self.classes = nn.Linear(8, 5)

    def forward(self, x):
        return self.classes(self.cells(x).mean((2, 3)))


class Block(nn.Module):
    """A layer of attention over tokens (N, T, 8) with two heads, by softmax or by torch's fused kernel."""

    def __init__(self, fused):
        super().__init__()
        self.fused = fused
        self.inward, self.outward, self.norm = nn.Linear(8, 24), nn.Linear(8, 8), nn.LayerNorm(8)

    def forward(self, x):
        q, k, v = self.inward(self.norm(x)).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        if self.fused:
            out = nn.functional.scaled_dot_product_attention(q, k, v)
        else:
            self.attention = (q @ k.mT / 2).softmax(-1)
            out = self.attention @ v
        return x + self.outward(out.transpose(1, 2).flatten(2)).tanh()


class Transformer(nn.Module):
    """Three layers over a class token, a register and 4 x 4 patches; the head reads the class token, or the patches."""

    def __init__(self, fused=True, reads=slice(0, 1), layers=3):
        super().__init__()
        torch.manual_seed(6)
        self.reads = reads
        self.cells = nn.Conv2d(3, 8, 8, stride=8)
        self.first = nn.Parameter(torch.randn(1, 2, 8))
        self.places = nn.Parameter(torch.randn(1, 18, 8))
        self.blocks = nn.ModuleList(Block(fused) for _ in range(layers))
        self.classes = nn.Linear(8, 5)

    def forward(self, x):
        tokens = self.cells(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.first.expand(len(x), -1, -1), tokens], 1) + self.places
        for block in self.blocks:
            tokens = block(tokens)
        return 4 * self.classes(tokens[:, self.reads].mean(1))


def literally(function, model, pixels, target, **settings):
    """Call a function of tests.literal with what it must know of a model."""
    module = model.prepared(torch.device("cpu"), "fp32").module
    known = {"window": model.input_size, "mean": model.mean, "std": model.std}
    return function(module, model.layer, pixels, target, **known, **settings)


def small(dead=None, **options):
    """Return (prepared Model, the same module in float64) with a tap behind the third convolution.

    `dead` is a channel of it that is 0.3 everywhere.
    """
    module = Small(**options)
    if dead is not None:
        with torch.no_grad():
            module.third.weight[dead] = 0
            module.third.bias[dead] = 0.3
    model = sess_ray.load_model(module, layer="third", input_size=SIDE)
    return model.prepared(torch.device("cpu"), "fp32"), module.double().eval()


def activations_and_gradients(module, layer, patch, target):
    """Return A and d(logit)/dA of one patch by a whole backward pass, float64 (K, u, v)."""
    kept = {}
    handle = module.get_submodule(layer).register_forward_hook(
        lambda _, __, out: kept.update(a=out.clone()) or kept["a"].clone()
    )
    with torch.enable_grad():
        logit = module(patch[None].double().requires_grad_())[0, target]
    handle.remove()
    (gradient,) = torch.autograd.grad(logit, kept["a"])
    return kept["a"][0].detach(), gradient[0]


def probability(module, patch, target):
    with torch.no_grad():
        return module(patch[None].double()).softmax(1)[0, target]


def patches(count, seed=0):
    return torch.randn(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


def generators(count, seed=0):
    return [torch.Generator().manual_seed(seed + i) for i in range(count)]


def up(maps):
    """Return (u, v) at the size of a patch."""
    return F.interpolate(maps[None, None], size=(SIDE, SIDE), mode="bilinear", align_corners=False)[0, 0]


def min_max(value):
    return (value - value.min()) / (value.max() - value.min())


def noise(generator):
    """Return the next noise of a patch, drawn in the order of channels_last."""
    return torch.randn(SIDE, SIDE, 3, generator=generator).permute(2, 0, 1)
