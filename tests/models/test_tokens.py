"""A transformer whose head reads one token is computed for that one behind its last attention, and scores the same."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn
from torchvision.models import VisionTransformer

import sess_ray
from sess_ray.models.layers import hooked
from sess_ray.models.tokens import OneQuery, Only
from tests import nets
from tests.models import huggingface_zoo as zoo

CPU = torch.device("cpu")


class Block(nets.Block):
    """A layer of attention, and then of what is done to each token."""

    def __init__(self):
        super().__init__(fused=True)
        self.norm2, self.mlp = nn.LayerNorm(8), nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))

    def forward(self, x):
        x = super().forward(x)
        return x + self.mlp(self.norm2(x))


def transformer(reads, precision="fp32"):
    net = nets.Transformer(reads=reads)
    net.blocks = nn.ModuleList(Block() for _ in range(2))
    return sess_ray.load_model(net, layer="blocks.1.norm", input_size=nets.SIDE).prepared(CPU, precision)


def alone(module, kind=Only):
    """Return the tokens that are computed alone."""
    return [part.token for part in module.modules() if isinstance(part, kind)]


def by_hand(module, layer, patches, targets):
    """Return the logits of a whole module and d(logit of the target)/d(tokens of the layer)."""
    leaves = []

    def leave(_, __, output):
        leaves.append(output.detach().requires_grad_())
        return leaves[-1].clone()

    with hooked(module.get_submodule(layer), leave):
        logits = module(patches)
    (gradient,) = torch.autograd.grad(logits.gather(1, targets[:, None]).sum(), leaves)
    return logits.detach(), gradient


@pytest.mark.parametrize(
    ("reads", "tokens"), [(slice(0, 1), [0]), (slice(1, 2), [1]), (slice(0, 2), []), (slice(2, 18), [])]
)
def test_it_is_computed_for_the_token_that_the_head_reads(reads, tokens):
    model = transformer(reads)
    assert alone(model.scorer) == tokens
    assert alone(model.module) == []  # which stays as it was
    patches, targets = nets.patches(3), torch.tensor([0, 4, 1])
    tap = model.tap(patches)
    logits, gradient = by_hand(model.module, model.layer, patches, targets)
    torch.testing.assert_close(tap.logits, logits, atol=1e-5, rtol=1e-5)
    gradient = gradient[:, 2:].view(3, 4, 4, 8).permute(0, 3, 1, 2)
    torch.testing.assert_close(tap.gradients(targets), gradient, atol=1e-6, rtol=1e-5)
    assert gradient.abs().max() > 1e-3


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_layers_behind_see_one_token_alone(precision):
    model, seen = transformer(slice(0, 1), precision), []
    layer = model.scorer.get_submodule("blocks.1.mlp.0")
    layer.register_forward_hook(lambda _, given, __: seen.append(tuple(given[0].shape)))
    model.logits(nets.patches(3).to(model.probe().dtype))
    assert seen == [(3, 1, 8)]


class Sharp(nn.MultiheadAttention):
    def forward(self, query, *others, **options):
        return super().forward(1.1 * query, *others, **options)


def attention(kind=nn.MultiheadAttention, **options):
    """Return how to make an attention of two heads over tokens of 16 channels."""
    return partial(kind, 16, 2, batch_first=True, **options)


@pytest.mark.parametrize(
    ("norm", "make", "tokens", "queries"),
    [
        ("ln_1", attention(), [0], [0]),
        ("ln_1", attention(bias=False), [0], [0]),
        ("ln_2", attention(), [], []),
        ("ln_1", attention(add_zero_attn=True), [0], []),
        ("ln_1", attention(add_bias_kv=True), [0], []),
        ("ln_1", attention(Sharp), [0], []),
    ],
)
def test_torchs_own_attention(norm, make, tokens, queries):
    torch.manual_seed(7)
    net = VisionTransformer(32, 8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=5)
    nn.init.normal_(net.heads.head.weight)
    net.encoder.layers.encoder_layer_1.self_attention = make()
    layer = f"encoder.layers.encoder_layer_1.{norm}"
    model = sess_ray.load_model(net, layer=layer, input_size=32).prepared(CPU, "fp32")
    assert (alone(model.scorer), alone(model.scorer, OneQuery)) == (tokens, queries)
    patches, targets = nets.patches(3)[..., :32, :32], torch.tensor([0, 4, 1])
    tap = model.tap(patches)
    logits, gradient = by_hand(model.module, layer, patches, targets)
    torch.testing.assert_close(tap.logits, logits, atol=1e-5, rtol=1e-5)
    gradient = gradient[:, 1:].view(3, 4, 4, 16).permute(0, 3, 1, 2)
    torch.testing.assert_close(tap.gradients(targets), gradient, atol=1e-6, rtol=1e-5)


class Patches(nn.Sequential):
    """Tokens of a convolution, in a part of a net that holds nothing else."""

    def forward(self, x):
        return super().forward(x).flatten(2).transpose(1, 2)


class Stem(nn.Module):
    def __init__(self):
        super().__init__()
        self.patches = Patches(nn.Conv2d(3, 8, 8, stride=8))

    def forward(self, x):
        return self.patches(x)


class Mean(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.classes = Stem(), nn.Linear(8, 5)

    def forward(self, x):
        return self.classes(self.stem(x).mean(1))


def test_a_layer_in_a_part_that_fusing_dissolves():
    model = sess_ray.load_model(Mean(), layer="stem.patches", input_size=nets.SIDE).prepared(CPU, "fp32")
    patches = nets.patches(3)
    torch.testing.assert_close(model.logits(patches), model.module(patches), atol=1e-5, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "tokens"), [("vit", [0]), ("dinov2_with_registers", [])])
@pytest.mark.usefixtures("no_hub")
def test_models_of_transformers(kind, tokens, tmp_path):
    zoo.saved(kind, tmp_path)
    model = sess_ray.load_model(f"hf:{tmp_path}").prepared(CPU, "fp32")
    assert alone(model.scorer) == tokens
    patches = torch.randn(2, 3, model.input_size, model.input_size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(model.logits(patches), model.module(patches), atol=1e-5, rtol=1e-5)
