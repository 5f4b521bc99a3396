"""What a GPU's host has to do for an image, counted on the pretend device: 500 x 375 pixels, 157 windows, 12 scales."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models.resnet import Bottleneck, ResNet

from sess_ray import SESS, load_model
from sess_ray.models.model import Model
from tests.conftest import ROOT
from tests.device import counting, pretend


class Cheap(nn.Module):
    """Takes windows of 224 pixels, as a ResNet does, and gives it maps of 7 x 7; counts do not depend on the rest."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.cells = nn.Conv2d(3, 4, 32, stride=32)
        self.classes = nn.Linear(4, 10)

    def forward(self, x):
        return self.classes(self.cells(x).mean((2, 3)))


class Narrow(ResNet):
    """A ResNet of a sixteenth of the channels, which is quicker and no other operations."""

    def _make_layer(self, block, planes, *args, **kwargs):
        return super()._make_layer(block, planes // 16, *args, **kwargs)


@pytest.fixture
def counted(device, monkeypatch):
    """Explain images of one size twice; return what each counted an image: of a new size, and of a known one."""
    if device.type != pretend.NAME:
        pytest.skip("counts are the pretend device's")
    tap = Model.tap

    def forward(self, patches, **asked):
        with counting.COUNTS.under("forward"):
            return tap(self, patches, **asked)

    monkeypatch.setattr(Model, "tap", forward)
    cheap = load_model(Cheap(), layer="cells", input_size=224)
    generator = np.random.default_rng(0)

    def run(targets, images=1, size=(375, 500), model=cheap, **settings):
        sess = SESS(model, device=device, **settings)
        sess.model.scorer  # noqa: B018 - is made when it is first needed
        found = []
        for _ in range(2):
            counting.COUNTS.clear()
            pixels = [generator.integers(0, 256, (*size, 3), dtype=np.uint8) for _ in range(images)]
            list(sess.stream((one, targets) for one in pixels))
            counts = counting.COUNTS
            assert not counts.blocking, counts.blocking
            found.append((counts.launches["rest"] / images, sum(counts.waits.values()) / images))
        run.forward = counts.launches["forward"] / images
        return found

    return run


@pytest.mark.device
@pytest.mark.parametrize("targets", ["top1", "top3"])
@pytest.mark.parametrize("ratio", [0.0, 0.9])
def test_an_image_takes_few_launches_and_one_wait(counted, targets, ratio):
    (new, waits), (known, again) = counted(targets, pre_filter_ratio=ratio)
    assert new <= 350
    assert known <= 200
    assert waits == again == 1


@pytest.mark.device
def test_so_it_is_with_the_layers_of_resnet50(counted):
    """Its windows are two batches, and its norms are folded."""
    torch.manual_seed(0)
    net = Narrow(Bottleneck, [3, 4, 6, 3])
    net.fc = nn.Linear(128, 10)
    model = load_model(net, layer="layer4", input_size=224)
    (new, waits), (known, again) = counted("top1", model=model, size=(375, 500), pre_filter_ratio=0.9)
    assert new <= 350
    assert known <= 200
    assert waits == again == 1
    convolutions = sum(isinstance(layer, nn.Conv2d) for layer in net.modules())
    assert convolutions == 53
    assert counted.forward / 2 <= 53 + 49 + 16 + 10  # and rectifiers, sums, what is before and behind


@pytest.mark.device
def test_fusion_as_released_may_take_more_but_no_copy_blocks(counted):
    (new, _), (known, _) = counted("top1", fusion="reference", pre_filter_ratio=0.9, num_scales=2, size=(372, 500))
    assert new >= known > 0


@pytest.mark.device
def test_guided_windows_take_no_more_than_twice_as_many(counted):
    (new, _), (known, waits) = counted("top1", images=8, windows="guided", size=(374, 500))
    assert new <= 700
    assert known <= 400
    assert waits <= 4


@pytest.mark.device
def test_kept_windows_are_not_cut_again(counted):
    (_, _), (without, _) = counted("top1", pre_filter_ratio=0.9, size=(373, 500))
    (_, _), (known, waits) = counted("top1", pre_filter_ratio=0.9, method="gradient", size=(373, 500))
    assert known <= without + 40
    assert waits == 2


@pytest.mark.device
@pytest.mark.parametrize(
    ("function", "error"),
    [
        (lambda there: there + torch.ones(3), pretend.DevicesMixedError),
        (lambda there: torch.ones(3).add_(there), pretend.DevicesMixedError),
        (lambda there: there[torch.arange(3)], None),  # an index may be the CPU's, and is waited for
        (lambda there: there * torch.tensor(2.0), None),
        (
            lambda there: torch.randn(3, device=there.device, generator=torch.Generator("cpu")),
            pretend.DevicesMixedError,
        ),
        (lambda there: torch.randn(3, device=there.device, generator=torch.Generator(there.device)), None),
        (lambda there: there.numpy(), TypeError),
        (lambda there: there.to_mkldnn(), Exception),
    ],
)
def test_the_pretend_device_refuses_what_cuda_refuses(device, function, error):
    if device.type != pretend.NAME:
        pytest.skip("of the pretend device")
    there = torch.ones(3).to(device)
    if error is None:
        function(there)
    else:
        with pytest.raises(error):
            function(there)


@pytest.mark.device
def test_the_pretend_device_counts_what_a_host_waits_for(device):
    if device.type != pretend.NAME:
        pytest.skip("of the pretend device")
    there = torch.ones(3).to(device)
    for function, waits in (
        (lambda: there.sum().item(), 1),
        (there.nonzero, 1),
        (lambda: there[there > 0], 1),
        (there.cpu, 1),
        (lambda: torch.ones(3).to(device), 1),
        (lambda: torch.ones(3).to(device, non_blocking=True), 1),  # pageable
        (lambda: torch.ones(3).pin_memory().to(device, non_blocking=True), 0),
        (lambda: there * 2, 0),
    ):
        counting.COUNTS.clear()
        function()
        assert sum(counting.COUNTS.waits.values()) == waits


@pytest.mark.slow
def test_on_the_pretend_device():
    """All tests of the mark, in a process of its own."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "-m", "device", "--device", "pretend"]
    done = subprocess.run([*command, "tests/device"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:]
