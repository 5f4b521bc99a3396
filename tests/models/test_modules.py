"""Modules as people write them: with hooks, casts and steps in place, and transformers of their own."""

from __future__ import annotations

import io
import threading

import numpy as np
import pytest
import torch
from torch import nn

import sess_ray
from sess_ray import SESS, SessError
from tests import nets


def load(module, layer="third", **options):
    return sess_ray.load_model(module, layer=layer, input_size=nets.SIDE, **options)


def explained(module, layer="third", method="gradcam", **options):
    sess = SESS(load(module, layer, **options), method, num_scales=1, device="cpu")
    [[found]] = sess.explain([np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)], [[3]])
    return found


class Kept(nets.Small):
    """A net that keeps what it made."""

    def forward(self, x):
        self.seen = super().features(x)
        return super().forward(x)


def watched():
    module = nets.Small()
    module.seen = []
    module.third.register_forward_hook(lambda _, __, output: module.seen.append(output))
    return module


@pytest.mark.parametrize("make", [Kept, watched])
def test_a_module_may_keep_what_its_forward_made(make):
    module = make()
    module(nets.patches(1))
    assert np.array_equal(explained(module).saliency, explained(nets.Small()).saliency)


class Locked(nets.Small):
    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()


class Double(nets.Small):
    def __init__(self):
        super().__init__()
        self.double()

    def forward(self, x):
        return super().forward(x.double())


class Hooked(nets.Small):
    """A net as a well-known tutorial has it."""

    def forward(self, x):
        x = super().forward(x)
        x.register_hook(print)
        return x


class Asking(nets.Small):
    def forward(self, x, _):
        return super().forward(x)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Locked, "Locked cannot be copied .*: leave out of it what is no part of a network"),
        (Double, "it runs in float32, so leave casts out of its forward"),
        (Hooked, "leave the hooks on tensors out of its forward"),
        (Asking, "its forward is called with the images alone"),
    ],
)
def test_what_cannot_run_is_told_in_one_line(make, message):
    with pytest.raises(SessError, match=message) as raised:
        explained(make())
    assert "\n" not in str(raised.value)


def test_double_precision_is_read_in_single():
    assert np.array_equal(explained(nets.Small().double()).saliency, explained(nets.Small()).saliency)


class InPlace(nets.Small):
    def forward(self, x):
        x -= 0.5
        return super().forward(x)


class Beside(nets.Small):
    def forward(self, x):
        return super().forward(x - 0.5)


@pytest.mark.parametrize("method", ["gradcam", "gradient", "scorecam"])
def test_a_module_may_change_its_images_in_place(method):
    assert np.array_equal(explained(InPlace(), method=method).saliency, explained(Beside(), method=method).saliency)


class Ended(nets.Small):
    def __init__(self, end, classes=5):
        super().__init__(classes=classes, scale=2)
        self.end = end

    def forward(self, x):
        return self.end(super().forward(x))


@pytest.mark.parametrize(
    ("end", "classes"),
    [
        (nn.Hardsigmoid(), 5),
        (lambda x: x.clamp(0, 1), 5),
        (lambda x: (x.softmax(1) * 10).round() / 10, 5),
        (lambda x: 1 / (1 + (-x).exp()), 1),
        (nn.Hardsigmoid(), 1),
    ],
)
def test_numbers_of_0_to_1_are_not_taken_for_logits(end, classes):
    with pytest.raises(SessError, match="say with activation="):
        load(Ended(end, classes))
    assert load(Ended(end, classes), activation="none").activation == "none"


def test_small_logits_of_a_linear_layer_are_logits():
    module = nets.Small(classes=1)
    with torch.no_grad():
        module.classes.weight.mul_(1e-3)
        module.classes.bias.fill_(0.5)
    assert load(module).activation == "sigmoid"


class Patches(nn.Module):
    """A transformer of torch's own layers, which has its norms after the attention by default."""

    def __init__(self, *, norm_first=False, token=True):
        super().__init__()
        torch.manual_seed(0)
        self.cut = nn.Conv2d(3, 16, 8, 8)
        self.token = nn.Parameter(torch.randn(1, 1, 16)) if token else None
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, norm_first=norm_first)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        x = self.cut(x).flatten(2).transpose(1, 2)
        if self.token is None:
            return self.head(self.encoder(x).mean(1))
        return self.head(self.encoder(torch.cat([self.token.expand(len(x), -1, -1), x], 1))[:, 0])


@pytest.mark.parametrize(
    ("norm_first", "token", "layer"),
    [
        (True, True, "encoder.layers.1.norm1"),
        (True, False, "encoder.layers.1.norm1"),
        (False, True, "encoder.layers.0"),
    ],
)
def test_the_layer_is_in_front_of_the_last_attention(norm_first, token, layer):
    module = Patches(norm_first=norm_first, token=token)
    assert load(module, None).layer == layer
    gradients = load(module, None).prepared(torch.device("cpu"), "fp32").tap(nets.patches(1)).gradients
    assert gradients(torch.tensor([3])).any(1).sum() > 1


def test_what_another_library_cannot_do_with_a_layer_is_told():
    pytest.importorskip("pytorch_grad_cam")
    with pytest.raises(SessError, match="AblationCAM cannot explain Patches: pytorch_grad_cam says: AttributeError"):
        explained(Patches(norm_first=True), None, "pytorch_grad_cam:AblationCAM")


def leaving():
    raise SystemExit(3)


def test_a_function_that_leaves_python_is_told():
    with pytest.raises(SessError, match="failed with SystemExit: 3"):
        sess_ray.load_model("tests.models.test_modules:leaving")


def test_a_stream_is_no_image_and_bfloat16_is_one():
    sess = SESS(load(nets.Small()), num_scales=None, device="cpu")
    with pytest.raises(SessError, match="give a path, a Pillow image"):
        sess.explain([io.BytesIO(b"x")], [[3]])
    image = torch.rand(3, 40, 60, generator=torch.Generator().manual_seed(0)).bfloat16()
    [[half], [full]] = sess.explain([image, image.float()], [[3], [3]])
    assert np.array_equal(half.saliency, full.saliency)
