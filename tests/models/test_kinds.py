"""Kinds of models that people bring, with a method of each sort: each works, or is refused in one line.

The table is in docs/models.md; ``python -m tests.models.test_kinds`` prints it.
"""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections import namedtuple
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import sess_ray
from sess_ray import SESS, SessError
from tests import nets
from tests.models import huggingface_zoo as zoo

DOCS = Path(__file__).parents[2] / "docs" / "models.md"
METHODS = {"gradcam": {}, "guided_backprop": {}, "scorecam": {}, "layercam": {}, "rise": {"masks": 12}}
Pair = namedtuple("Pair", ["logits", "features"])


class Classifier(nets.Small):
    """A small classifier whose features and logits may go through something."""

    def __init__(self, end=None, front=None, classes=5, channels=3):
        super().__init__(classes=classes, scale=2)
        self.end, self.front = end, front
        if channels != 3:
            self.first = nn.Conv2d(channels, 8, 5, stride=2)

    def forward(self, x):
        found = super().forward(x)
        return self.end(found) if self.end else found

    def features(self, x):
        return self.front(super().features, x) if self.front else super().features(x)


class Flat(nn.Module):
    """A classifier of inputs of one size."""

    def __init__(self):
        super().__init__()
        self.third = nn.Conv2d(3, 6, 5, stride=4)
        self.rectifier = nn.ReLU()
        self.classes = nn.Linear(6 * 7 * 7, 5)

    def forward(self, x):
        return self.classes(self.rectifier(self.third(x)).flatten(1))


class Headless(Classifier):
    def __init__(self):
        super().__init__()
        self.head = nn.Identity()

    def forward(self, x):
        return self.head(self.features(x).mean((2, 3)))


def without_gradients(features, x):
    with torch.no_grad():
        return features(x)


def quantised():
    torch.backends.quantized.engine = "qnnpack" if "qnnpack" in torch.backends.quantized.supported_engines else "x86"
    return torch.ao.quantization.quantize_dynamic(Classifier().eval(), {nn.Linear})


def script():
    return torch.jit.trace(nets.Small().eval(), nets.patches(1))


def weights(make):
    """Return how to load weights that are saved in a file of the working folder."""

    def load():
        torch.save(make(nets.Small().state_dict()), "w.pth")
        return {"weights": "w.pth"}

    return load


def behind(prefix, state):
    return {f"{prefix}{key}": value for key, value in state.items()}


def without(name, state):
    return {key: value for key, value in state.items() if not key.startswith(name)}


OF_ITSELF = {"input_size": None, "layer": None}
PROMPTS = {"prompts": ["a dog", "a cat"]}


def folder(kind, save=zoo.saved):
    """Return how to make a model of transformers, saved in the working folder."""

    def make():
        pytest.importorskip("transformers")
        save(kind, Path(kind))
        return f"hf:{kind}"

    return make


encoders = partial(folder, save=zoo.saved_encoders)


def of_open_clip():
    pytest.importorskip("open_clip")
    zoo.saved_open_clip("clip", Path("open_clip"))
    return "open_clip:local-dir:open_clip"


def of_timm():
    timm = pytest.importorskip("timm")
    module = timm.create_model("test_resnet", num_classes=5)
    timm.models.save_for_hf(module, "timm_folder", safe_serialization=True)
    return "local-dir:timm_folder"


# A kind: what makes the module, and the keyword arguments of load_model beside its layer and its input.
KINDS = {
    "logits of classes": (Classifier, {}),
    "one logit": (partial(Classifier, classes=1), {}),
    "one logit, `--activation softmax`": (partial(Classifier, classes=1), {"activation": "softmax"}),
    "logits of labels, `--activation sigmoid`": (Classifier, {"activation": "sigmoid"}),
    "a softmax as its last layer": (lambda: Classifier(nn.Softmax(1)), {}),
    "a sigmoid as its last layer": (lambda: Classifier(nn.Sigmoid()), {}),
    "a softmax as its last layer, `--activation sigmoid`": (
        lambda: Classifier(nn.Softmax(1)),
        {"activation": "sigmoid"},
    ),
    "a softmax in its forward": (lambda: Classifier(lambda x: x.softmax(1)), {}),
    "a sigmoid in its forward": (lambda: Classifier(torch.sigmoid), {}),
    "log-probabilities": (lambda: Classifier(lambda x: x.log_softmax(1)), {}),
    "outputs between 0 and 1 of no known kind": (lambda: Classifier(lambda x: x.clamp(0.1, 0.9)), {}),
    "the same, `--activation none`": (lambda: Classifier(lambda x: x.clamp(0.1, 0.9)), {"activation": "none"}),
    "logits, `--activation none`": (Classifier, {"activation": "none"}),
    "a tuple that holds logits and a map": (lambda: Classifier(lambda x: (x, x[:, :, None, None])), {}),
    "a dict or a dataclass with `logits`": (lambda: Classifier(lambda x: Pair(x, x[:, :2])), {}),
    "two tensors (N, K) without names": (lambda: Classifier(lambda x: (x, x[:, :2])), {}),
    "`squeeze()` at its end": (lambda: Classifier(torch.squeeze, classes=1), {}),
    "a map of scores, (N, classes, H, W)": (lambda: Classifier(lambda x: x[:, :, None, None]), {}),
    "features, no classifier": (Headless, {}),
    "`torch.compile`": (lambda: torch.compile(Classifier()), {}),
    "`DataParallel`": (lambda: nn.DataParallel(Classifier()), {}),
    "half precision": (lambda: Classifier().half(), {}),
    "TorchScript": (script, {}),
    "quantised": (quantised, {}),
    "a backbone under `no_grad`": (lambda: Classifier(front=without_gradients), {}),
    "a stem that is detached": (lambda: Classifier(front=lambda features, x: features(x.detach())), {}),
    "one size of input, given": (Flat, {}),
    "one size of input, not given": (Flat, {"input_size": None}),
    "one channel": (lambda: Classifier(channels=1), {}),
    "four channels": (lambda: Classifier(channels=4), {}),
    "an input that is not square": (Classifier, {"input_size": (32, 48)}),
    "weights behind `module.` or `_orig_mod.`": (nets.Small, weights(partial(behind, "_orig_mod.module."))),
    "a Lightning checkpoint": (nets.Small, weights(lambda state: {"state_dict": behind("model.", state), "epoch": 3})),
    "a checkpoint with weights and their moving average": (nets.Small, weights(lambda s: {"model": s, "ema": s})),
    "weights of which some are missing": (nets.Small, weights(partial(without, "third"))),
    "weights beside optimiser, flags and NumPy's numbers": (
        nets.Small,
        weights(lambda state: {"model": state, "optimizer": {"state": {}}, "best": np.float64(0.9)}),
    ),
    "a whole model, pickled": (nets.Small, weights(lambda _: nets.Small())),
    "transformers: ViT": (folder("vit"), OF_ITSELF),
    "transformers: Swin": (folder("swin"), OF_ITSELF),
    "transformers: DINOv2 with registers": (folder("dinov2_with_registers"), OF_ITSELF),
    "transformers: ConvNeXt": (folder("convnext"), OF_ITSELF),
    "transformers: ResNet": (folder("resnet"), OF_ITSELF),
    "transformers: CLIP with prompts": (encoders("clip"), OF_ITSELF | PROMPTS),
    "transformers: SigLIP with prompts": (encoders("siglip"), OF_ITSELF | PROMPTS),
    "transformers: CLIP without prompts": (encoders("clip"), OF_ITSELF),
    "open_clip with prompts": (of_open_clip, OF_ITSELF | PROMPTS),
    "timm: a folder": (of_timm, OF_ITSELF),
}


def outcomes(kind, image):
    """Return what each method makes of a kind, yes or no, and why not."""
    make, given = KINDS[kind]
    try:
        options = given() if callable(given) else given
        options = {"input_size": nets.SIDE, "layer": "third", **options}
        model = sess_ray.load_model(make(), **options)
    except SessError as error:
        return ["no"] * len(METHODS), [str(error)]
    found, reasons = [], []
    for name, own in METHODS.items():
        try:
            explained = SESS(model, name, num_scales=1, device="cpu", method_options=own).explain([image], ["top1"])
        except SessError as error:
            found.append("no")
            reasons.append(str(error).partition("; these methods can")[0])
        else:
            assert explained[0][0].saliency.max() > explained[0][0].saliency.min()
            found.append("yes")
    return found, reasons


def row(kind, image):
    found, reasons = outcomes(kind, image)
    assert all("\n" not in reason for reason in reasons)
    assert len(reasons) == found.count("no") or len(reasons) == 1
    told = re.sub(r"images \(.*\):", "images (...):", reasons[0]) if reasons else ""  # of torch's words
    return (kind, *found, told)


def picture():
    return np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(one, marks=pytest.mark.slow if re.search("compile|transformers|timm|open_clip", one) else [])
        for one in KINDS
    ],
)
def test_it_works_or_is_refused_in_one_line_as_the_document_says(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with zoo.no_hub():
        line = written(row(kind, picture()))
    assert line in DOCS.read_text().splitlines(), line


def test_the_document_has_a_row_for_each_kind_and_no_other():
    rows = re.findall(r"^\| (.*?) \|(?: (?:yes|no) \|){5}", DOCS.read_text(), re.MULTILINE)
    assert rows == list(KINDS)


def written(cells):
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    print(written(("what you bring", *(f"`{name}`" for name in METHODS), "why not")))
    print("|---" * (len(METHODS) + 2) + "|")
    with tempfile.TemporaryDirectory() as place, contextlib.chdir(place):
        print(*(written(row(kind, picture())) for kind in KINDS), sep="\n")
