"""A transformer whose head reads one token is computed for that one behind its last attention, and scores the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.models import VisionTransformer

import sess_ray
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


def transformer(reads):
    net = nets.Transformer(reads=reads)
    net.blocks = nn.ModuleList(Block() for _ in range(2))
    return sess_ray.load_model(net, layer="blocks.1.norm", input_size=nets.SIDE).prepared(CPU, "fp32")


def alone(module):
    """Return the tokens that are computed alone."""
    return [part.token for part in module.modules() if isinstance(part, Only)]


@pytest.mark.parametrize(
    ("reads", "tokens"), [(slice(0, 1), [0]), (slice(1, 2), [1]), (slice(0, 2), []), (slice(2, 18), [])]
)
def test_it_is_computed_for_the_token_that_the_head_reads(reads, tokens):
    model = transformer(reads)
    assert alone(model.scorer) == tokens
    assert alone(model.module) == []  # which stays as it was
    patches, targets = nets.patches(3), torch.tensor([0, 4, 1])
    tap = model.tap(patches)
    leaves = []

    def leave(_, __, output):
        leaves.append(output.detach().requires_grad_())
        return leaves[-1].clone()

    model.module.blocks[1].norm.register_forward_hook(leave)
    expected = model.module(patches)
    (gradient,) = torch.autograd.grad(expected.gather(1, targets[:, None]).sum(), leaves)
    torch.testing.assert_close(tap.logits, expected.detach(), atol=1e-5, rtol=1e-5)
    gradient = gradient[:, 2:].view(3, 4, 4, 8).permute(0, 3, 1, 2)
    torch.testing.assert_close(tap.gradients(targets), gradient, atol=1e-6, rtol=1e-5)
    assert gradient.abs().max() > 1e-3


def test_the_layers_behind_see_one_token_alone():
    model, seen = transformer(slice(0, 1)), []
    layer = model.scorer.get_submodule("blocks.1.mlp.0")
    layer.register_forward_hook(lambda _, given, __: seen.append(tuple(given[0].shape)))
    model.logits(nets.patches(3))
    assert seen == [(3, 1, 8)]


@pytest.mark.parametrize(("norm", "tokens"), [("ln_1", [0]), ("ln_2", [])])
def test_torchs_own_attention(norm, tokens):
    torch.manual_seed(7)
    net = VisionTransformer(32, 8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=5)
    nn.init.normal_(net.heads.head.weight)
    layer = f"encoder.layers.encoder_layer_1.{norm}"
    model = sess_ray.load_model(net, layer=layer, input_size=32).prepared(CPU, "fp32")
    assert alone(model.scorer) == tokens
    assert [part.token for part in model.scorer.modules() if isinstance(part, OneQuery)] == tokens
    patches, targets, leaves = nets.patches(3)[..., :32, :32], torch.tensor([0, 4, 1]), []
    tap = model.tap(patches)

    def leave(_, __, output):
        leaves.append(output.detach().requires_grad_())
        return leaves[-1].clone()

    model.module.get_submodule(layer).register_forward_hook(leave)
    expected = model.module(patches)
    (gradient,) = torch.autograd.grad(expected.gather(1, targets[:, None]).sum(), leaves)
    torch.testing.assert_close(tap.logits, expected.detach(), atol=1e-5, rtol=1e-5)
    gradient = gradient[:, 1:].view(3, 4, 4, 16).permute(0, 3, 1, 2)
    torch.testing.assert_close(tap.gradients(targets), gradient, atol=1e-6, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "tokens"), [("vit", [0]), ("dinov2_with_registers", [])])
def test_models_of_transformers(kind, tokens, tmp_path):
    pytest.importorskip("transformers")
    zoo.saved(kind, Path(tmp_path, kind))
    with zoo.no_hub():
        model = sess_ray.load_model(f"hf:{Path(tmp_path, kind)}").prepared(CPU, "fp32")
    assert alone(model.scorer) == tokens
    patches = torch.randn(2, 3, model.input_size, model.input_size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(model.logits(patches), model.module(patches), atol=1e-5, rtol=1e-5)
