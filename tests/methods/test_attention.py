"""Attention rollout and generic attention against plain steps in float64 over the attention of every layer."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.models import VisionTransformer

import sess_ray
from sess_ray import methods
from sess_ray.methods.attention import Attentions
from tests import nets
from tests.nets import Transformer

TARGETS = torch.tensor([3, 0])
CPU = torch.device("cpu")


def prepared(module):
    return sess_ray.load_model(module, layer="blocks.2.norm", input_size=nets.SIDE).prepared(CPU, "fp32")


def attentions_and_gradients(module, patch, target):
    """Return A and dy/dA of every layer, (heads, T, T), of a `Transformer` that is not fused, in float64."""
    with torch.enable_grad():
        logits = module(patch[None].double().requires_grad_())
        attentions = [block.attention for block in module.blocks]
        gradients = torch.autograd.grad(logits[0, target], attentions)
    return [one[0].detach() for one in attentions], [one[0] for one in gradients]


HEADS = {"mean": lambda a: a.mean(0), "max": lambda a: a.amax(0), "min": lambda a: a.amin(0)}


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("reads", [slice(0, 1), slice(2, 18)], ids=["class token", "patches"])
@pytest.mark.parametrize("heads", ["mean", "max", "min"])
def test_rollout(fused, reads, heads):
    patches, plain = nets.patches(2), Transformer(fused=False, reads=reads).double()
    model = prepared(Transformer(fused, reads))
    method = methods.get("attention_rollout")
    assert method.refusal(model) is None
    found = method.function(model, patches, TARGETS, same_as=torch.tensor([0, 1]), heads=heads)
    for one, patch in zip(found, patches, strict=True):
        product = torch.eye(18).double()
        for attention in attentions_and_gradients(plain, patch, 0)[0]:
            mixed = HEADS[heads](attention) + torch.eye(18)
            product = mixed / mixed.sum(1, keepdim=True) @ product
        expected = product[reads].mean(0)[2:].view(4, 4)
        torch.testing.assert_close(one.double(), expected, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("reads", [slice(0, 1), slice(2, 18)], ids=["class token", "patches"])
def test_generic_attention(fused, reads):
    patches, plain = nets.patches(2), Transformer(fused=False, reads=reads).double()
    model = prepared(Transformer(fused, reads))
    method = methods.get("generic_attention")
    assert method.refusal(model) is None
    for one, patch, target in zip(method.function(model, patches, TARGETS), patches, TARGETS.tolist(), strict=True):
        relevance = torch.eye(18).double()
        for attention, gradient in zip(*attentions_and_gradients(plain, patch, target), strict=True):
            relevance = relevance + (attention * gradient).clamp(min=0).mean(0) @ relevance
        expected = relevance[reads].mean(0)[2:].view(4, 4)
        torch.testing.assert_close(one.double(), expected, atol=1e-6, rtol=1e-4)


def test_generic_attention_of_a_group_is_between_those_of_its_classes():
    model = prepared(Transformer()).with_groups({"both": [0, 3]})
    patches, function = nets.patches(1), methods.get("generic_attention").function
    with torch.enable_grad():
        start = patches.clone().requires_grad_()
        with Attentions(lambda attention: attention) as seen:
            logits = model.module(start)
        gradients = torch.autograd.grad(logits[0, [0, 3]].logsumexp(0), seen.found)
    tokens = torch.eye(18)[:1]
    for attention, gradient in zip(seen.found[::-1], gradients[::-1], strict=True):
        tokens = tokens + tokens @ (attention * gradient)[0].relu().mean(0)
    torch.testing.assert_close(function(model, patches, torch.tensor([5])), tokens[:, 2:].detach().view(1, 4, 4))


def test_targets_of_a_patch_share_its_rollout():
    model, patches = prepared(Transformer()), nets.patches(1).expand(3, -1, -1, -1)
    seen = []
    model.module.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    methods.get("attention_rollout").refusal(model)
    seen.clear()
    found = methods.get("attention_rollout").function(
        model, patches, torch.tensor([0, 1, 2]), same_as=torch.tensor([0, 0, 0])
    )
    assert seen == [1]
    assert (found == found[0]).all()


@pytest.mark.parametrize("mask", [None, "added", "boolean"])
def test_attention_in_plain_steps_is_that_of_torch(mask):
    q, k, v = torch.randn(3, 2, 2, 5, 4, generator=torch.Generator().manual_seed(0))
    masks = {None: None, "added": torch.randn(5, 5), "boolean": torch.eye(5) + torch.randn(5, 5) > 0}
    given = {"attn_mask": masks[mask], "scale": 0.3}
    expected = nn.functional.scaled_dot_product_attention(q, k, v, **given)
    with Attentions(lambda attention: attention) as seen:
        found = nn.functional.scaled_dot_product_attention(q, k, v, **given)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(seen.found[0] @ v, found)


def test_torchvision_s_transformer_is_seen_and_left_as_it_was():
    module = VisionTransformer(
        image_size=32, patch_size=8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=5
    ).eval()
    nn.init.normal_(module.heads.head.weight)
    model = sess_ray.load_model(module, input_size=32).prepared(CPU, "fp32")
    patches = nets.patches(2)
    expected = model.module(patches)
    with torch.no_grad(), Attentions(lambda attention: attention) as seen:
        torch.testing.assert_close(model.module(patches), expected)
    layer = model.module.encoder.layers[0]
    tokens = model.module._process_input(patches)
    tokens = torch.cat([model.module.class_token.expand(2, -1, -1), tokens], 1) + model.module.encoder.pos_embedding
    normed = layer.ln_1(tokens)
    _, weights = layer.self_attention(normed, normed, normed, need_weights=True, average_attn_weights=False)
    assert [tuple(one.shape) for one in seen.found] == [(2, 2, 17, 17)] * 2
    torch.testing.assert_close(seen.found[0], weights)


class Windows(Transformer):
    """Attention within halves of the tokens."""

    def forward(self, x):
        tokens = self.cells(x).flatten(2).transpose(1, 2)
        tokens = tokens.unflatten(1, (2, 8)).flatten(0, 1)
        for block in self.blocks:
            tokens = block(tokens)
        return self.classes(tokens.unflatten(0, (-1, 2)).mean((1, 2)))


@pytest.mark.parametrize("name", ["attention_rollout", "generic_attention"])
def test_what_has_no_such_attention_is_refused(name):
    model = sess_ray.load_model(nets.Small(), layer="third", input_size=nets.SIDE).prepared(CPU, "fp32")
    assert methods.get(name).refusal(model) == "it has no attention"
    windows = sess_ray.load_model(Windows(), layer="cells", input_size=nets.SIDE).prepared(CPU, "fp32")
    assert methods.get(name).refusal(windows) == "its attention is not from all tokens to all tokens in every layer"
