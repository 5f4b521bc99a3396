"""Modules whose outputs are not logits of several classes as they are: what is made of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

import sess_ray
from sess_ray import SESS, SessError, methods
from tests import nets
from tests.methods.quick import QUICK, crops, net_of

FEW = {**QUICK, "augmented_gradcam": {"samples": 3, "aggregation": "mean"}}  # its optimiser enlarges last digits


class Ends(nn.Module):
    """A net whose logits go through something."""

    def __init__(self, end, base=None):
        super().__init__()
        self.base = base or nets.Small(scale=2)
        self.end = end

    def forward(self, x):
        return self.end(self.base(x))


SLOW = {
    *("extremal_perturbation", "xrai", "cameras", "augmented_gradcam", "sscam", "rise", "smooth_gradcam++"),
    *("integrated_gradients", "smoothgrad", "excitation_backprop"),
}
EVERY = [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in methods.names()]


def load(module, layer="base.third", **options):
    return sess_ray.load_model(module, layer=layer, input_size=nets.SIDE, **options)


def rows(net, *wanted):
    """Return a copy of a net of `nets` with some rows of its classifier, None for one of zeros."""
    net = nets.Small(scale=net.scale) if isinstance(net, nets.Small) else type(net)()
    weight, bias = net.classes.weight.detach(), net.classes.bias.detach()
    net.classes = nn.Linear(weight.shape[1], len(wanted))
    with torch.no_grad():
        for own, row in enumerate(wanted):
            net.classes.weight[own] = 0 if row is None else weight[row]
            net.classes.bias[own] = 0 if row is None else bias[row]
    return net


def explained(module, layer, name, images, targets, **options):
    model = load(module, layer, **options)
    method = methods.get(name)
    unchecked = methods.Method(name, method.family, method.function)  # a class without weights is none for cam
    sess = SESS(model, unchecked, num_scales=1, device="cpu", method_options=FEW.get(name), pre_filter_ratio=0.4)
    return [found for per_image in sess.explain(images, [targets] * len(images)) for found in per_image]


def same(ours, theirs):
    assert ours.score == pytest.approx(theirs.score, abs=1e-5)
    np.testing.assert_allclose(ours.patches["score"], theirs.patches["score"], atol=1e-5)
    assert abs(ours.saliency - theirs.saliency).max() < 1e-5


@pytest.mark.parametrize("name", EVERY)
def test_one_logit_is_the_twin_with_two(name, photographs):
    """A softmax knows logits up to a constant: each class is explained with the other's logit at 0."""
    net, layer = net_of(name)
    images = crops(photographs, count=1)
    ours = explained(rows(net, 3), layer, name, images, [1, 0])
    [present] = explained(rows(net, None, 3), layer, name, images, [1])
    same(ours[0], present)
    net.classes.weight.data[3] *= -1
    net.classes.bias.data[3] *= -1
    with torch.no_grad():
        twin = rows(net, 3, None)
        twin.classes.weight[0], twin.classes.bias[0] = net.classes.weight[3], net.classes.bias[3]
    [absent] = explained(twin, layer, name, images, [0])
    same(ours[1], absent)
    assert ours[0].score + ours[1].score == pytest.approx(1)


@pytest.mark.parametrize("name", [one for one in EVERY if "finercam" not in one.values])  # it compares classes
def test_labels_do_not_compete(name, photographs):
    """Each label of a model with several has the map of a model with that label alone."""
    net, layer = net_of(name)
    images = crops(photographs, count=2)
    both = explained(rows(net, 3, 1), layer, name, images, [0, 1], activation="sigmoid")
    for slot, row in enumerate((3, 1)):
        alone = explained(rows(net, row), layer, name, images, [1])
        for ours, theirs in zip(both[slot::2], alone, strict=True):
            same(ours, theirs)


@pytest.mark.parametrize(
    ("end", "activation"), [(nn.Softmax(1), "softmax"), (nn.Sigmoid(), "sigmoid"), (nn.Identity(), "softmax")]
)
@pytest.mark.parametrize("name", ["gradcam", "gradcam++", "guided_backprop", "scorecam", "rise", "excitation_backprop"])
def test_an_activation_of_its_own_at_the_end_is_left_out(name, end, activation, photographs):
    images = crops(photographs, count=1)
    model = load(Ends(end))
    assert model.activation == activation
    assert bool(model.notes) == (not isinstance(end, nn.Identity))
    ours = explained(Ends(end), "base.third", name, images, [3])
    theirs = explained(Ends(nn.Identity()), "base.third", name, images, [3], activation=activation)
    for one, wanted in zip(ours, theirs, strict=True):
        same(one, wanted)


def log_softmax(x):
    return x.log_softmax(1)


@pytest.mark.parametrize(
    ("end", "logits", "activation"),
    [
        (lambda x: torch.softmax(x, 1), log_softmax, "softmax"),
        (lambda x: (x.softmax(1) + x.softmax(1)) / 2, log_softmax, "softmax"),  # as an ensemble's
        (lambda x: torch.sigmoid(x).squeeze(-1), lambda x: x, "sigmoid"),
    ],
)
def test_one_in_a_function_is_taken_back(end, logits, activation, photographs):
    images = crops(photographs, count=1)
    for name in ("gradcam", "gradient", "scorecam"):
        [ours] = explained(Ends(end), "base.third", name, images, [3])
        [theirs] = explained(Ends(logits), "base.third", name, images, [3], activation=activation)
        assert abs(ours.saliency - theirs.saliency).max() < 1e-3
        assert ours.score == pytest.approx(theirs.score, abs=1e-5)


def test_one_output_that_is_a_probability():
    module = load(Ends(lambda x: x.softmax(1)[:, 3])).module
    logits = nets.Small(scale=2).eval()(nets.patches(2))[:, [0, 3]]
    two = load(Ends(lambda x: x[:, [0, 3]].softmax(1)[:, 1])).module(nets.patches(2))
    torch.testing.assert_close(two[:, 1], logits[:, 1] - logits[:, 0], rtol=1e-3, atol=1e-4)
    assert module(nets.patches(2)).shape == (2, 2)
    kept = load(Ends(lambda x: x.softmax(1)[:, 3]), activation="none")
    assert (kept.num_classes, kept.activation) == (2, "none")
    torch.testing.assert_close(kept.probabilities(kept.module(nets.patches(2))).sum(1), torch.ones(2))


@dataclass
class Answer:
    logits: torch.Tensor
    hidden: torch.Tensor


FORMS = {
    "dataclass": lambda x: Answer(x, x[:, :2]),
    "dict": lambda x: {"features": x[:, :2], "logits": x},
    "dict of one": lambda x: {"out": x},
    "tuple": lambda x: (x, x[:, :, None, None]),
    "list": lambda x: [x],
}


@pytest.mark.parametrize("form", FORMS)
def test_logits_in_something(form, photographs):
    images = crops(photographs, count=1)
    for name in ("gradcam", "guided_backprop", "rise"):
        [ours] = explained(Ends(FORMS[form]), "base.third", name, images, [3])
        [theirs] = explained(nets.Small(scale=2), "third", name, images, [3])
        same(ours, theirs)


def test_a_module_that_is_read_keeps_its_names_and_weights_and_fuses():
    model = load(Ends(FORMS["dict"])).prepared(torch.device("cpu"), "fp32")
    plain = load(Ends(nn.Identity())).prepared(torch.device("cpu"), "fp32")
    assert model.fused is not None
    assert model.weights_sha256() == plain.weights_sha256()
    torch.testing.assert_close(model.logits(nets.patches(2)), plain.module(nets.patches(2)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("end", "options", "message"),
    [
        (lambda x: (x, x[:, :2]), {}, "gives 2 tensors .0, 1., and nothing says which are the logits"),
        (lambda x: {"pooled": x, "last": x}, {}, "gives 2 tensors .pooled, last."),
        (lambda x: x[:, :, None], {}, r"gives \(4, 5, 1\) for 4 images: it must map"),
        (lambda x: x.clamp(0.1, 0.9), {}, "say with activation= .--activation. whether it is probabilities"),
        (lambda x: x, {"activation": "none"}, "takes what Ends gives as probabilities"),
        (lambda x: x[:, 0], {"activation": "softmax"}, "gives one logit, of which a softmax is always 1"),
        (nn.Softmax(1), {"activation": "sigmoid"}, "ends with a softmax of its own, and a sigmoid of that is no"),
        (nn.Sigmoid(), {"activation": "softmax"}, "ends with a sigmoid of its own, and a softmax of that is no"),
    ],
)
def test_what_may_be_read_in_two_ways_is_refused(end, options, message):
    with pytest.raises(SessError, match=message) as raised:
        load(Ends(end), **options)
    assert "\n" not in str(raised.value)


@pytest.mark.slow
def test_wrappers_and_halves_work():
    plain = load(nets.Small(), "third")
    for module in (
        nn.DataParallel(nets.Small()),
        torch.compile(nets.Small()),
        nn.DataParallel(torch.compile(nets.Small())),
    ):
        assert load(module, "third").weights_sha256() == plain.weights_sha256()
    half = nets.Small().half()
    model = load(half, "third")
    assert next(half.parameters()).dtype == torch.float16
    assert model.module(nets.patches(1)).dtype == torch.float32


class Grey(nn.Module):
    """A net of one channel."""

    def __init__(self):
        super().__init__()
        self.net = nets.Small(scale=2)
        weight = self.net.first.weight.detach()
        self.net.first = nn.Conv2d(1, 8, 5, stride=2)
        self.net.first.weight.data.copy_(weight.sum(1, keepdim=True))

    def forward(self, x):
        return self.net(x)


@pytest.mark.parametrize("name", ["gradcam", "guided_backprop", "scorecam", "rise"])
def test_a_net_of_one_channel_sees_grey(name, photographs):
    """As Pillow makes it: of a coloured image what it says of that in grey, and of grey what the net itself says."""
    [image] = crops(photographs, count=1)
    grey = np.repeat((image @ [0.299, 0.587, 0.114]).round()[..., None], 3, 2).astype(np.uint8)
    told = {"mean": 0.4, "std": 0.2}

    def maps(pixels, num_scales=1):
        model = load(Grey(), "net.third", **told)
        settings = {"pre_filter_ratio": 0, "device": "cpu", "method_options": FEW.get(name)}
        sess = SESS(model, name, num_scales=num_scales, **settings)
        [[found]] = sess.explain([pixels], [[3]])
        return model, found

    model, coloured = maps(image)
    _, plain = maps(grey)
    assert abs(coloured.saliency - plain.saliency).max() < 2e-2  # grey is rounded to 8 bits
    assert model.notes == ("it takes one channel: images are made grey, 0.299 R + 0.587 G + 0.114 B",)
    _, whole = maps(grey[:32, :32], None)
    by_hand = Grey().eval()((torch.from_numpy(grey[None, None, :32, :32, 0]) / 255 - 0.4) / 0.2)
    assert whole.score == pytest.approx(by_hand.softmax(1)[0, 3].item(), abs=1e-5)


def test_four_channels_are_refused():
    four = nets.Small()
    four.first = nn.Conv2d(4, 8, 5, stride=2)
    with pytest.raises(SessError, match="images are RGB, so give a model that takes those"):
        load(four, "third")


@pytest.mark.parametrize("rows", [slice(None), slice(3, 4)])
def test_outputs_that_are_squeezed(rows, photographs):
    """They have a dimension less where the image is alone."""
    images = crops(photographs, count=1)
    for name in ("gradcam", "rise"):
        ours = explained(Ends(lambda x: x[:, rows].squeeze()), "base.third", name, images, [1])
        theirs = explained(Ends(lambda x: x[:, rows]), "base.third", name, images, [1])
        same(ours[0], theirs[0])


def test_what_has_no_layers_no_gradients_or_no_head_is_refused():
    net = nets.Small().eval()
    quantised = torch.ao.quantization.quantize_dynamic(nets.Small().eval(), {nn.Linear})
    headless = nets.Pooled()
    headless.fc, headless.classes = nn.Identity(), nn.Identity()
    headless.forward = lambda x: headless.fc(headless.cells(x).mean((2, 3)))
    counted = nets.Small()
    counted.num_classes = 0
    for module, message in (
        (torch.jit.trace(net, nets.patches(1)), "is TorchScript, which hides its layers"),
        (quantised, "is quantised and has no gradients"),
        (headless, "has no classifier and gives features"),
        (counted, "has no classifier and gives features"),
    ):
        with pytest.raises(SessError, match=message):
            load(module, None)


def test_a_model_of_ones_own_is_asked_whether_it_gives_probabilities():
    model = load(nets.Small(), "third")
    with pytest.raises(SessError, match="activation none takes what Small gives as probabilities, and it gives some"):
        sess_ray.load_model(model, activation="none")
    assert sess_ray.load_model(model, activation="sigmoid").activation == "sigmoid"
    assert (
        sess_ray.load_model(load(Ends(lambda x: x.softmax(1)), activation="none"), activation="none").activation
        == "none"
    )


class Towers(nets.Small):
    """As CLIP is in transformers, which takes text as well."""

    def get_text_features(self):
        """Encode texts."""


class OfOpenClip(nets.Small):
    def encode_text(self):
        """Encode texts."""


@pytest.mark.parametrize("prompts", [None, ["a dog", "a cat"]])
@pytest.mark.parametrize(("kind", "how"), [(Towers, "hf:NAME_OR_FOLDER"), (OfOpenClip, "open_clip:NAME/TAG")])
def test_a_module_that_compares_images_with_texts_is_given_by_name(kind, how, prompts):
    message = f"^{kind.__name__} compares images with texts: give it by name, {how}, with --prompts FILE"
    for module in (kind(), nn.DataParallel(kind())):
        with pytest.raises(SessError, match=message):
            sess_ray.load_model(module, input_size=nets.SIDE, prompts=prompts)


@pytest.mark.parametrize(
    ("end", "options", "message"),
    [
        (lambda x: x.argmax(1), {}, "gives int64, which is neither logits nor probabilities"),
        (lambda x: x + 0j, {}, "gives complex64, which is neither"),
        (lambda x: 100 * x.softmax(1), {}, "gives percentages, which add up to 100"),
        (nn.functional.logsigmoid, {}, "ends with the logarithm of a sigmoid"),
        (lambda x: x.log_softmax(1), {"activation": "sigmoid"}, "ends with a log_softmax of its own, and a sigmoid"),
        (lambda x: {"last_hidden_state": x[:, None], "pooler_output": x}, {}, "has no classifier and gives features"),
    ],
)
def test_what_would_be_explained_as_something_else_is_refused(end, options, message):
    with pytest.raises(SessError, match=message):
        load(Ends(end), **options)


def test_what_has_no_values_or_no_layers_is_refused():
    exported = type("Exported", (nets.Small,), {"__module__": "torch.export._unlift"})  # to export takes seconds
    for module, message in (
        (exported(), "is exported, which leaves no layers: give the module that it was made of"),
        (nets.Small().to("meta"), "is on the device meta, where weights have no values"),
    ):
        with pytest.raises(SessError, match=message):
            load(module, None)
