"""Which layer is found, in small modules that are made as libraries make theirs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sess_ray import SESS, SessError, load_model
from sess_ray.models.layers import find_layer, is_grid, to_grid


class Block(nn.Module):
    """A transformer's block with the norms before the attention, or behind it."""

    def __init__(self, *, post):
        super().__init__()
        self.post = post
        self.norm1, self.norm2 = nn.LayerNorm(8), nn.LayerNorm(8)
        self.attn = nn.Sequential(nn.Linear(8, 8))
        self.mlp = nn.Linear(8, 8)

    def forward(self, x):
        if self.post:
            x = x + self.norm1(self.attn(x))
            return x + self.norm2(self.mlp(x))
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Transformer(nn.Module):
    def __init__(self, *, post=False, before=0, stride=4, pool=False):
        super().__init__()
        self.patches = nn.Conv2d(3, 8, stride, stride)
        self.before = nn.Parameter(torch.zeros(1, before, 8))
        self.blocks = nn.Sequential(Block(post=post), Block(post=post))
        self.norm = nn.LayerNorm(8)
        self.pool = nn.AdaptiveAvgPool1d(1) if pool else None
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = self.norm(self.blocks(torch.cat([self.before.expand(len(x), -1, -1), x], 1)))
        return self.head(self.pool(x.transpose(1, 2)).flatten(1) if self.pool else x.mean(1))


def test_the_first_norm_of_the_last_block():
    assert find_layer(Transformer(before=1), 16, None)[:2] == ("blocks.1.norm1", "NTC")


@pytest.mark.parametrize("pool", [False, True])
def test_norms_behind_the_attention_are_not_what_goes_through_a_block(pool):
    """What is left of a pool is no grid of channels either."""
    assert find_layer(Transformer(post=True, pool=pool), 16, None)[:2] == ("norm", "NTC")


def test_tokens_before_the_positions_are_not_taken_for_some():
    assert find_layer(Transformer(before=5), 16, None)[0] == "blocks.1.norm1"  # 4 x 4 + 5
    for layer in (None, "blocks.1.norm1"):
        with pytest.raises(SessError, match="gives 9 tokens, and which of them are the 2 x 2 positions is not clear"):
            find_layer(Transformer(before=5, stride=8), 16, layer)


class Last(nn.Module):
    """A convolution, and a block with its channels last."""

    def __init__(self, channels):
        super().__init__()
        self.patches, self.norm = nn.Conv2d(3, channels, 4, 4), nn.LayerNorm(channels)
        self.block = nn.Sequential(nn.Linear(channels, channels), nn.GELU())
        self.head = nn.Linear(channels, 5)

    def forward(self, x):
        return self.head(self.block(self.norm(self.patches(x).permute(0, 2, 3, 1))).mean((1, 2)))


@pytest.mark.parametrize(("before", "size"), [(0, (16, 32)), (1, (16, 32)), (5, (48, 32))])
def test_tokens_of_an_input_that_is_not_square_have_the_grid_of_the_convolution(before, size):
    for layer in (None, "blocks.1.norm1"):
        found = find_layer(Transformer(before=before), size, layer)
        assert found == ("blocks.1.norm1", "NTC", 5, (size[0] // 4, size[1] // 4))
    tokens = torch.arange(before + found.positions[0] * found.positions[1])[None, :, None]
    grid = to_grid(tokens, found.layout, found.positions)[0, 0]
    assert grid.shape == found.positions
    assert grid[0, 1] - grid[0, 0] == 1
    assert grid[1, 0] - grid[0, 0] == size[1] // 4
    assert grid[-1, -1] == tokens.max()


def test_tokens_of_no_known_grid_are_refused():
    class Unfolded(Transformer):
        def forward(self, x):
            x = F.unfold(x, 4, stride=4).transpose(1, 2)[..., :8]
            return self.head(self.norm(self.blocks(x)).mean(1))

    message = "'blocks.1.norm1' gives 32 tokens, and their grid over 16 x 32 pixels is not clear: name another layer"
    with pytest.raises(SessError, match=message):
        find_layer(Unfolded(), (16, 32), None)
    assert find_layer(Unfolded(), 16, None)[:2] == ("blocks.1.norm1", "NTC")
    few = Transformer(before=9, stride=8)  # 2 x 4 positions, and of 17 tokens 3 x 5 could be some
    with pytest.raises(SessError, match="gives 17 tokens, and which of them are the 2 x 4 positions is not clear"):
        find_layer(few, (16, 32), None)


@pytest.mark.parametrize("channels", [8, 16])
def test_channels_may_be_last_where_an_input_is_not_square(channels):
    """A shape (4, 8, 16) could hold a grid of 4 x 8 or of 8 x 16 cells: the norm says which axis has the channels."""
    for layer, layout in (("norm", "NHWC"), ("block", "NHWC"), ("block.1", "NHWC"), ("patches", "NCHW")):
        assert find_layer(Last(channels), (16, 32), layer)[:2] == (layer, layout)
    assert find_layer(Last(channels), (16, 32), None)[:2] == ("block", "NHWC")


@pytest.mark.parametrize(
    ("grid", "size", "fits"),
    [
        ((13, 122), (64, 500), True),  # four convolutions of 5 and 2 pools: three cells less along each axis
        ((8, 1), (256, 32), True),
        ((6, 10), (32, 48), True),
        ((7, 7), (224, 220), True),
        ((197, 197), (224, 160), False),
        ((1, 1), (64, 32), False),
        ((8, 96), (128, 256), False),
        ((8, 4), (128, 256), False),
    ],
)
def test_what_is_a_grid_over_an_input(grid, size, fits):
    assert is_grid(*grid, size) == is_grid(*grid[::-1], size[::-1]) == fits


class Resized(nn.Module):
    """A net that takes images of another shape than its wrapper."""

    def __init__(self, net, shape):
        super().__init__()
        self.net, self.window, self.shape = net, nn.Identity(), shape

    def forward(self, x):
        return self.net(F.interpolate(self.window(x), self.shape, mode="bilinear", antialias=True))


def test_positions_that_are_no_square_are_refused():
    """The last 25 of 4 x 8 tokens are no map of 5 x 5."""
    wide = Resized(Transformer(before=1), (16, 32)).eval()
    for layer in (None, "net.blocks.1.norm1"):
        with pytest.raises(SessError, match="gives tokens of 4 x 8 positions, and maps need a square of them"):
            find_layer(wide, 32, layer)
    with pytest.raises(SessError, match=r"no grid of positions to make a map of \(it gives \(1, 8, 4, 8\)\)"):
        find_layer(wide, 32, "net.patches")
    assert find_layer(wide, 32, "window")[:2] == ("window", "NCHW")


def test_positions_of_another_shape_than_the_input_are_refused():
    tall = Resized(Transformer(before=1), (32, 16)).eval()
    with pytest.raises(SessError, match="tokens of 8 x 4 positions, and maps need a grid of them over 16 x 32 pixels"):
        find_layer(tall, (16, 32), None)


@pytest.mark.parametrize("method", ["rise", "gradient"])
def test_what_needs_pixels_and_scores_alone_explains_a_net_of_another_shape(method):
    model = load_model(Resized(Transformer(before=1), (16, 32)), layer="window", input_size=32)
    options = {"masks": 12} if method == "rise" else {}
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    [[found]] = SESS(model, method, num_scales=1, device="cpu", method_options=options).explain([image])
    assert found.saliency.std() > 0


SWIN = {"patch_size": 4, "window_size": 4, "embed_dim": 16, "depths": (2, 2), "num_heads": (1, 2)}


def swins(version):
    """Small nets of 5 classes as torchvision, timm and transformers make them, and what each calls its classifier."""
    timm, transformers = pytest.importorskip("timm"), pytest.importorskip("transformers")
    from torchvision.models import swin_transformer

    theirs = {"patch_size": [4, 4], "window_size": [4, 4], "num_classes": 5}
    if version == 2:
        theirs |= {
            "block": swin_transformer.SwinTransformerBlockV2,
            "downsample_layer": swin_transformer.PatchMergingV2,
        }
    yield swin_transformer.SwinTransformer(**SWIN | theirs), "head"
    kind = timm.models.SwinTransformer if version == 1 else timm.models.SwinTransformerV2
    yield kind(**SWIN, img_size=64, num_classes=5), "head.fc"
    name = "Swin" if version == 1 else "Swinv2"
    config = getattr(transformers, f"{name}Config")(**SWIN, image_size=64, num_labels=5)
    net = getattr(transformers, f"{name}ForImageClassification")(config)
    net.register_forward_hook(lambda _, __, output: output.logits)
    yield net, "classifier"


@pytest.mark.slow
@pytest.mark.parametrize("version", [1, 2])
def test_swin_is_read_at_the_same_place_in_all_libraries(version):
    """Version 1 where the last block begins, version 2 where only the mean and the classifier follow."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, 3, 64, 64, generator=generator)
    for net, head in swins(version):
        for parameter in net.eval().requires_grad_(requires_grad=False).parameters():
            parameter.normal_(0, 0.5, generator=generator)  # fresh blocks and norms of version 2 change next to nothing
        name, layout, classes, _ = find_layer(net, 64, None)
        passed = {}

        def keep(layer, given, output, passed=passed):
            if given:
                passed[layer] = (given[0], output[0] if isinstance(output, tuple) else output)

        for layer in net.modules():
            layer.register_forward_hook(keep)
        logits = net(image)
        given, found = passed[net.get_submodule(name)]
        grid = to_grid(found, layout)
        assert (grid.shape, classes) == ((1, 32, 8, 8), 5)
        if version == 1:
            last = name.rpartition(".")[0]
            blocks, _, number = last.rpartition(".")
            assert [int(child) for child, _ in net.get_submodule(blocks).named_children()][-1] == int(number)
            before = f"{blocks}.{int(number) - 1}"
            assert torch.equal(given.flatten(), passed[net.get_submodule(before)][1].flatten())
            assert isinstance(net.get_submodule(name), nn.LayerNorm)
        else:
            classifier = net.get_submodule(head)
            expected = F.linear(grid.mean((2, 3)), classifier.weight, classifier.bias)
            torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)
