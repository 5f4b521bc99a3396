from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from sess_ray import SESS, SessError, load_model, methods
from sess_ray.engine import guided
from sess_ray.windows import sess_plan
from tests import literal, nets


def scored(explanation):
    return set(np.flatnonzero(explanation.patches["scored"]))


@pytest.fixture(scope="module")
def small():
    """A net of 32 x 32 pixels, for what does not need weights that see."""
    return load_model(nets.Small(scale=15), layer="third", input_size=nets.SIDE)


@pytest.fixture(scope="module")
def pictures(photographs):
    return [
        photographs[name][:90, : 120 + 30 * i] for i, name in enumerate(("chelsea.png", "coffee.png", "rocket.jpg"))
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "target"), [("chelsea.png", 281), ("rocket.jpg", 657)])
def test_windows_are_chosen_as_literally_defined(lite0, photographs, name, target):
    pixels = np.asarray(Image.fromarray(photographs[name]).resize((160, 110)))
    expected = nets.literally(literal.guided, lite0, pixels, target, num_scales=6, whole=2, share=0.4)
    sess = SESS(lite0, num_scales=6, windows="guided", whole_scales=2, window_share=0.4, device="cpu")
    [[found]] = sess.explain([pixels], [[target]])
    assert scored(found) == expected
    assert found.num_scored == guided.least_scored(found.plan, 2, 0.4) < found.num_patches


def test_all_windows_of_guided_are_all(small, pictures):
    settings = {"num_scales": 4, "device": "cpu", "pre_filter_ratio": 0.5}
    everything = SESS(small, **settings).explain(pictures, [[1, 2], [3], [0]])
    same = SESS(small, windows="guided", window_share=1.0, **settings).explain(pictures, [[1, 2], [3], [0]])
    fine = SESS(small, windows="guided", whole_scales=9, window_share=0.1, **settings).explain(
        pictures, [[1, 2], [3], [0]]
    )
    for expected, *others in zip(everything, same, fine, strict=True):
        for found in others:
            for one, other in zip(found, expected, strict=True):
                np.testing.assert_allclose(one.saliency, other.saliency, atol=1e-5)
                np.testing.assert_allclose(one.patches["score"], other.patches["score"], atol=1e-6)
                assert one.num_scored == one.num_forwards == other.num_patches


@pytest.mark.slow
@pytest.mark.parametrize("method", ["gradcam", "gradcam++", "gradient", "groupcam"])
def test_neither_batches_nor_other_images_nor_targets_matter(small, pictures, method):
    options = {"groups": 2} if method == "groupcam" else {}
    settings = {"num_scales": 4, "whole_scales": 2, "windows": "guided", "pre_filter_ratio": 0.8, "device": "cpu"}
    settings |= {"method": methods.get(method), "method_options": options}
    targets = [[1, 2], [3], [0, 1, 4]]
    one_by_one = SESS(small, batch_size=13, **settings)
    alone = [
        [one_by_one.explain([pixels], [[target]])[0][0] for target in wanted]
        for pixels, wanted in zip(pictures, targets, strict=True)
    ]
    for batch_size in (1, 5, 64):
        together = SESS(small, batch_size=batch_size, **settings).explain(pictures, targets)
        assert [[found.target for found in image] for image in together] == targets
        for image, expected in zip(together, alone, strict=True):
            assert image[0].num_forwards <= sum(found.num_scored for found in image)
            for found, own in zip(image, expected, strict=True):
                assert scored(found) == scored(own)
                assert own.num_forwards == own.num_scored
                np.testing.assert_array_equal(found.patches["kept"], own.patches["kept"])
                # Masks of a whole group and its rectified score pass the last digit on, a little larger.
                np.testing.assert_allclose(found.saliency, own.saliency, atol=1e-3 if method == "groupcam" else 1e-5)


def test_images_come_in_order_and_only_as_many_wait_as_fill_a_batch(small, pictures):
    asked = []

    def images():
        for number in range(12):
            asked.append(number)
            yield pictures[number % 3], [1]

    sess = SESS(small, num_scales=4, whole_scales=2, windows="guided", window_share=0.2, device="cpu", batch_size=8)
    ahead = [(position, len(asked) - position) for position, _ in sess.stream(images())]
    assert [position for position, _ in ahead] == list(range(12))
    assert max(number for _, number in ahead) <= 2  # the oldest one's windows come first


def test_batches_are_full(small, pictures):
    sess = SESS(small, num_scales=4, whole_scales=2, windows="guided", window_share=0.2, device="cpu", batch_size=8)
    sizes, begun = [], []

    def images():
        for pixels in pictures * 4:
            begun.append(pixels)
            yield pixels, [1]

    handle = sess.model.scorer.register_forward_pre_hook(lambda _, inputs: sizes.append((len(inputs[0]), len(begun))))
    found = list(sess.stream(images()))
    handle.remove()
    assert sum(size for size, _ in sizes) == sum(explanation.num_scored + 1 for _, [explanation] in found)
    before = [size for size, number in sizes if number < 12]  # at the end the last images wait for themselves
    assert before == [8] * len(before)
    assert len(before) > len(sizes) / 2


def test_kept_are_the_best_of_the_scored_and_as_many_as_of_all(small, pictures):
    for ratio in (0.0, 0.5, 0.9):
        settings = {"num_scales": 4, "whole_scales": 2, "windows": "guided", "window_share": 0.2, "device": "cpu"}
        sess = SESS(small, pre_filter_ratio=ratio, **settings)
        for [found] in sess.explain(pictures, [[1]] * 3):
            table = found.patches[found.patches["scored"]]
            assert np.isnan(found.patches["score"][~found.patches["scored"]]).all()
            best = max(1, found.num_patches - int(found.num_patches * ratio))
            assert table["kept"].sum() == min(best, len(table)) == found.num_kept
            assert table["score"][table["kept"]].min() >= table["score"][~table["kept"]].max(initial=0)


def test_the_share_of_a_scale_is_rounded_up_but_not_by_floating_point():
    plan = sess_plan(500, 500, 224, 12, 224)
    assert [guided.num_windows(scale, 0.3) for scale in plan.scales if scale.num_windows == 9] == [3] * 4
    assert guided.least_scored(plan, 3, 0.3) / plan.num_patches < 0.4
    ten = sess_plan(224, 2240, 224, 1, 224).scales[0]
    assert (ten.num_windows, guided.num_windows(ten, 0.3), guided.num_windows(ten, 0.31)) == (10, 3, 4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"windows": "some"}, "windows"),
        ({"whole_scales": 0}, "whole_scales is 0"),
        ({"window_share": 0.0}, "window_share is 0"),
        ({"window_share": 1.5}, "window_share is 1.5"),
    ],
)
def test_wrong_settings_are_named(small, settings, message):
    with pytest.raises(SessError, match=message):
        SESS(small, device="cpu", **settings)
