"""KPCA-CAM, Finer-CAM, Shapley-CAM, Ablation-CAM and IS-CAM against their definitions, and other libraries."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

import sess_ray
from sess_ray import methods
from sess_ray.engine.scoring import of_layer
from sess_ray.methods.registry import Scored
from tests import nets
from tests.methods.oracles import TARGETS, grad_cam, oracle, same, with_sign

GROUP = {"both": [0, 3]}
CLOSE = {"atol": 2e-5, "rtol": 1e-4}


def run(name, model, patches, targets=TARGETS, same_as=None, rows=slice(None), **options):
    """Return a method's maps, by what the engine gives it."""
    method, tap = methods.get(name), model.tap(patches)
    if method.family == "T":
        if "scored" in method.given:
            logits, wanted = tap.logits[rows], targets[rows]
            options["scored"] = Scored(model, wanted, logits, lambda weights: tap.pull(weights, rows))
        return method.function(*of_layer(tap, targets, rows, method.looks_at).values(), **options)
    offers = {"activations": tap.activations, "same_as": torch.arange(len(patches)) if same_as is None else same_as}
    offers |= {"batch_size": 5}
    return method.function(
        model, patches, targets, **{key: offers[key] for key in method.given if key in offers}, **options
    )


@pytest.fixture(scope="module")
def small():
    return nets.small(channels=10, dead=4)


@pytest.fixture(scope="module")
def patches():
    return nets.patches(3)


@pytest.fixture(scope="module")
def curved():
    """A net whose head is not linear behind the layer, so that logits have a Hessian."""
    torch.manual_seed(2)
    net = nn.Sequential(
        nn.Conv2d(3, 6, 5, stride=4), nn.GELU(), nn.Conv2d(6, 6, 3), nn.GELU(), nn.Flatten(), nn.Linear(150, 5)
    )
    return sess_ray.load_model(net, layer="1", input_size=nets.SIDE).prepared(torch.device("cpu"), "fp32")


def logits_of_head(module, activations):
    """Return the logits of `nets.Small` behind its third convolution."""
    return module.scale * module.classes(torch.relu(activations).amax((2, 3)))


# --- KPCA-CAM


@pytest.mark.parametrize("kernel", ["sigmoid", "rbf", "poly"])
@pytest.mark.parametrize("gamma", [0.0, 0.3])
def test_kpca_cam_is_the_first_component_of_the_kernel(kernel, gamma):
    activations = torch.rand(2, 7, 4, 5, generator=torch.Generator().manual_seed(3)) ** 3
    found = methods.get("kpcacam").function(activations, kernel=kernel, gamma=gamma)
    for map_, one in zip(found, activations.double(), strict=True):
        rows = [position - one.mean((1, 2)) for position in one.flatten(1).T]
        factor = gamma or 1 / 7
        kernels = {
            "sigmoid": lambda x, y, f=factor: torch.tanh(f * x @ y + 1),
            "rbf": lambda x, y, f=factor: torch.exp(-f * (x - y).square().sum()),
            "poly": lambda x, y, f=factor: (f * x @ y + 1) ** 3,
        }
        products = torch.stack([torch.stack([kernels[kernel](x, y) for y in rows]) for x in rows])
        centre = torch.eye(20).double() - 1 / 20
        _, vectors = torch.linalg.eigh(centre @ products @ centre)
        first = vectors[:, -1]
        first = first * torch.sign(first @ torch.stack(rows).mean(1))
        expected = first.relu().view(4, 5)
        torch.testing.assert_close(map_.double() / map_.max(), expected / expected.max(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("kernel", ["sigmoid", "rbf"])
def test_kpca_cam_of_grad_cam(kernel, small, patches):
    library = oracle("pytorch_grad_cam.utils.svd_on_activations")
    activations = small[0].tap(patches).activations
    means = (activations - activations.mean((2, 3), keepdim=True)).mean(1).numpy()
    expected = with_sign(library.get_2d_projection_kernel(activations.numpy(), kernel), means)
    same(run("kpcacam", small[0], patches, kernel=kernel), expected, atol=1e-4)


# --- Finer-CAM


def finer(module, patch, target, classes, alpha, members=()):
    """Return Finer-CAM's gradient at the third layer: of y_c - alpha sum_j w_j y_j."""
    activations, _ = nets.activations_and_gradients(module, "third", patch, 0)
    leaf = activations[None].requires_grad_()
    with torch.enable_grad():
        logits = logits_of_head(module, leaf)[0]
        own = logits[list(members)].logsumexp(0) if members else logits[target]
        others = [j for j in range(5) if j not in (members or (target,))]
        near = sorted(others, key=lambda j: (logits[j] - own).abs().item())[:classes]
        weights = logits.softmax(0)[near]
        compared = (weights / weights.sum() * (own - alpha * logits[near])).sum()
        (gradient,) = torch.autograd.grad(compared, leaf)
    return activations, gradient[0]


@pytest.mark.parametrize(("classes", "alpha"), [(3, 1.0), (2, 0.6), (9, 0.5)])
def test_finer_cam(classes, alpha, small, patches):
    model, module = small
    found = run("finercam", model, patches, classes=classes, alpha=alpha)
    for one, patch, target in zip(found, patches, TARGETS.tolist(), strict=True):
        activations, gradient = finer(module, patch, target, classes, alpha)
        expected = (gradient.mean((1, 2))[:, None, None] * activations).sum(0).relu()
        torch.testing.assert_close(one.double(), expected, **CLOSE)


def test_finer_cam_of_a_group_compares_it_with_classes_outside(small, patches):
    model, module = small
    found = run("finercam", model.with_groups(GROUP), patches, torch.tensor([5, 5, 5]), classes=2, base="hirescam")
    for one, patch in zip(found, patches, strict=True):
        activations, gradient = finer(module, patch, None, 2, 1.0, members=(0, 3))
        torch.testing.assert_close(one.double(), (gradient * activations).sum(0).relu(), **CLOSE)


def test_finer_cam_pulls_no_more_classes_than_it_compares(small, patches):
    model, tap, pulled = small[0], small[0].tap(patches), []

    def pull(weights):
        pulled.append(int((weights != 0).sum(1).max()))
        return tap.pull(weights)

    scored = Scored(model, TARGETS, tap.logits, pull)
    methods.get("finercam").function(tap.activations, scored=scored, classes=2)
    assert pulled == [3]  # the target's own, too


def test_finer_cam_without_comparison_is_its_base(small, patches):
    for base in ("gradcam", "layercam", "gradcam++"):
        found = run("finercam", small[0], patches, alpha=0.0, base=base)
        torch.testing.assert_close(found, run(base, small[0], patches))


def test_finer_cam_of_some_rows(small, patches):
    rows = torch.tensor([2, 0])
    torch.testing.assert_close(
        run("finercam", small[0], patches, rows=rows), run("finercam", small[0], patches)[rows], **CLOSE
    )


def test_finer_cam_has_the_known_gradient_of_squeezenet():
    model = sess_ray.load_model("squeezenet1_1", "random", input_size=64).prepared(torch.device("cpu"), "fp32")
    inputs = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    tap, targets = model.tap(inputs), torch.tensor([7, 281])
    weights = torch.zeros(2, 1000)
    weights[0, 3], weights[0, 7], weights[1, 999] = -0.5, 2.0, 1.5
    expected = 2 * tap.gradients(targets)[0] - 0.5 * tap.gradients(torch.tensor([3, 3]))[0]
    torch.testing.assert_close(tap.pull(weights)[0], expected)
    torch.testing.assert_close(tap.pull(weights)[1], 1.5 * tap.gradients(torch.tensor([999, 999]))[1])
    assert run("finercam", model, inputs, targets).isfinite().all()


def test_finer_cam_of_grad_cam(small, patches):
    library = oracle("pytorch_grad_cam.utils.model_targets")
    model, (logits, lines) = small[0], (small[0].logits(patches), [])
    for row, target in zip(logits, TARGETS.tolist(), strict=True):
        near = (row - row[target]).abs().argsort()[1:4].tolist()
        lines.append(library.FinerWeightedTarget(target, near, 1.0))
    with oracle("pytorch_grad_cam").GradCAM(model.module, [model.module.third]) as cam:
        expected = cam(patches.clone().requires_grad_(), lines)
    up = torch.stack([nets.up(one) for one in run("finercam", model, patches)])
    same(up, expected, atol=0.02)  # enlarged by another library


# --- Shapley-CAM


def test_shapley_cam_has_the_whole_hessian(curved, patches):
    found = run("shapleycam", curved, patches)
    head = nn.Sequential(*list(curved.module.children())[2:]).double()
    layer = nn.Sequential(*list(curved.module.children())[:2]).double()
    for one, patch, target in zip(found[:1], patches, TARGETS.tolist(), strict=False):
        activations = layer(patch[None].double())

        def utility(values, target=target):
            logits = head(values)[0]
            return logits[target] + logits.log_softmax(0)[target]

        gradient = torch.autograd.functional.jacobian(utility, activations)
        size = activations.numel()
        hessian = torch.autograd.functional.hessian(utility, activations).view(size, size)
        values = gradient - (hessian @ activations.flatten()).view_as(activations) / 2
        expected = (values.mean((2, 3))[..., None, None] * activations).sum(1)[0].relu()
        torch.testing.assert_close(one.double(), expected, **CLOSE)
    curved.module.float()


def test_shapley_cam_of_grad_cam(curved, patches):
    target = oracle("pytorch_grad_cam.utils.model_targets").ClassifierOutputReST
    with oracle("pytorch_grad_cam").ShapleyCAM(curved.module, [curved.module[1]]) as cam:
        expected = cam(patches.clone(), [target(int(one)) for one in TARGETS])
    up = torch.stack([nets.up(one) for one in run("shapleycam", curved, patches)])
    same(up, expected, atol=0.02)  # enlarged by another library


def test_shapley_cam_of_a_sure_and_of_a_hopeless_class_is_finite(curved, patches):
    module = nn.Sequential(curved.module, Times(1000.0))
    model = replace(curved, module=module, layer="0.1")
    assert run("shapleycam", model, patches).isfinite().all()


class Times(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return self.factor * x


@pytest.mark.parametrize("activation", ["softmax", "sigmoid", "none"])
def test_the_logarithm_of_a_probability(activation, small):
    model = replace(small[0], activation=activation).with_groups(GROUP)
    logits = torch.randn(6, 5, generator=torch.Generator().manual_seed(1)).double()
    logits = logits.sigmoid() if activation == "none" else logits
    targets = torch.arange(6)
    expected = model.probabilities(logits).gather(1, targets[:, None])[:, 0].log()
    torch.testing.assert_close(model.log_probability_of(logits, targets), expected)


# --- Ablation-CAM


def ablation(module, patch, targets):
    """Return (map, activations) with channels left out one by one; `targets` are the classes of a group."""
    activations, _ = nets.activations_and_gradients(module, "third", patch, 0)

    def logit(values):
        return logits_of_head(module, values[None])[0, targets].logsumexp(0)

    whole, losses = logit(activations), []
    for channel in range(len(activations)):
        without = activations.clone()
        without[channel] = 0
        losses.append(whole - logit(without))
    return sum(loss * one for loss, one in zip(losses, activations, strict=True)).relu()


@torch.no_grad()
def test_ablation_cam(small, patches):
    model, module = small
    found = run("ablationcam", model.with_groups(GROUP), patches, torch.tensor([3, 0, 5]))
    for one, patch, members in zip(found, patches, ([3], [0], [0, 3]), strict=True):
        torch.testing.assert_close(one.double(), ablation(module, patch, members), **CLOSE)


def test_ablation_cam_of_several_targets_is_theirs_alone(small, patches):
    twice = patches[[0, 0, 1]]
    found = run("ablationcam", small[0], twice, TARGETS, same_as=torch.tensor([0, 0, 2]))
    torch.testing.assert_close(found, run("ablationcam", small[0], twice, TARGETS))


class Counting(nets.Pooled):
    """A head that counts on as many rows as there are images."""

    def forward(self, x):
        return self.classes(self.cells(x).mean((2, 3)).view(x.shape[0], 8))


def test_ablation_cam_where_the_head_counts_rows(patches):
    model = sess_ray.load_model(Counting(), layer="cells", input_size=nets.SIDE).prepared(torch.device("cpu"), "fp32")
    activations = model.tap(patches).activations
    weights = model.module.classes.weight[TARGETS] * activations.mean((2, 3))  # what a linear head loses
    expected = (weights[..., None, None] * activations).sum(1).relu()
    torch.testing.assert_close(run("ablationcam", model, patches), expected, **CLOSE)


def test_ablation_cam_of_grad_cam(patches):
    # That library divides by the logit, so these are above 0; it takes channels to 0 where the least activation is 0.
    model = sess_ray.load_model(Counting(), layer="cells", input_size=nets.SIDE)
    model = model.prepared(torch.device("cpu"), "fp32")
    model.module.classes.weight.data.abs_()
    model.module.classes.bias.data.zero_()
    expected = grad_cam("AblationCAM")(model, patches, TARGETS)
    up = torch.stack([nets.up(one) for one in run("ablationcam", model, patches)])
    same(up, expected, atol=0.02)


# --- IS-CAM


def test_is_cam(small, patches):
    model, module = small
    plain = run("iscam", model, patches, samples=4)
    other = run("iscam", model, patches, samples=4, cumulative=True, softmax=True)
    for first, second, patch, target in zip(plain, other, patches, TARGETS.tolist(), strict=True):
        activations, _ = nets.activations_and_gradients(module, "third", patch, target)
        ups = [nets.up(one) for one in activations if one.max() - one.min() > 1e-9]
        assert len(ups) == 9

        def weights(steps, patch=patch, target=target, ups=ups):
            scores = [[nets.probability(module, patch * nets.min_max(up) * s, target) for s in steps] for up in ups]
            return torch.tensor(scores).mean(1)

        expected = sum(w * up for w, up in zip(weights([0.25, 0.5, 0.75, 1.0]), ups, strict=True)).relu()
        torch.testing.assert_close(first.double(), expected, **CLOSE)
        cumulative = weights([0.25, 0.75, 1.5, 2.5]).softmax(0)
        expected = sum(w * up for w, up in zip(cumulative, ups, strict=True)).relu()
        torch.testing.assert_close(second.double(), expected, **CLOSE)


def test_is_cam_of_one_step_is_score_cam(small, patches):
    torch.testing.assert_close(
        run("iscam", small[0], patches, samples=1), run("scorecam", small[0], patches), atol=1e-6, rtol=1e-5
    )


def test_is_cam_of_torchcam():
    from tests.methods.oracles import LAYER, Net

    model = sess_ray.load_model(Net(), layer=LAYER, input_size=nets.SIDE).prepared(torch.device("cpu"), "fp32")
    inputs = nets.patches(3)
    library = oracle("torchcam.methods")
    probabilities = nn.Sequential(model.module, nn.Softmax(1))
    with library.ISCAM(probabilities, f"0.{LAYER}", num_samples=3, input_shape=(3, nets.SIDE, nets.SIDE)) as extractor:
        probabilities(inputs)
        expected = extractor(TARGETS.tolist(), normalized=False)[0]
    found = run("iscam", model, inputs, samples=3, cumulative=True, softmax=True)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
