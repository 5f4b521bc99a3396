"""What a caller may ask for: topK, p>T, names, groups, indices."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import sess_ray
from sess_ray import SESS, SessError
from sess_ray.engine.targets import MOST_ABOVE, above, checked
from tests import nets
from tests.methods.quick import crops

NAMES = ("ant", "bee, wild", "cat", "dog", "10")


@pytest.fixture(scope="module")
def model():
    return sess_ray.load_model(
        nets.Small(scale=3), layer="third", input_size=nets.SIDE, activation="sigmoid", class_names=NAMES
    )


@pytest.mark.parametrize("method", ["gradcam", "gradient"])
def test_classes_above_a_threshold_descending(method, model, photographs):
    images = crops(photographs, count=4)
    sess = SESS(model, method=method, num_scales=1, device="cpu")
    scores = [{found.target: found.score for found in per_image} for per_image in sess.explain(images, "top5")]
    for least in (0.0, 0.3, 0.5, max(max(own.values()) for own in scores) - 1e-4, 0.999):
        found = sess.explain(images, f"p > {least}")
        for own, per_image in zip(scores, found, strict=True):
            wanted = sorted((target for target, score in own.items() if score > least), key=own.get, reverse=True)
            assert [one.target for one in per_image] == wanted
    assert not any(sess.explain(images, "p>0.9999"))
    mixed = sess.explain(images, ["p>0.9999", [3], "p>0.9999", "top1"])
    assert [len(per_image) for per_image in mixed] == [0, 1, 0, 1]
    assert [index for index, _ in sess.stream(zip(images, ["p>0.9999", "top1"] * 2, strict=True))] == [0, 1, 2, 3]


def test_no_more_than_so_many():
    many = torch.linspace(0.6, 0.9, 30)
    assert above(many, 0.5) == [(index,) for index in range(29, 29 - MOST_ABOVE, -1)]
    assert above(many, 0.9) == []


def test_names_as_on_the_command_line(model):
    learning = model.with_groups({})
    assert checked("cat", learning) == [(2,)]
    assert checked(["Bee, wild", 3, {"two": ("ant", "dog")}, (1, 2)], learning) == [(1,), (3,), (5,), (1, 2)]
    assert checked("two=ant+dog", learning) == [(5,)]
    assert checked("top9", learning) == "top5"
    assert checked(torch.tensor([3, 1]), learning) == checked(np.array([3, 1]), learning) == [(3,), (1,)]
    assert checked(torch.tensor(3), learning) == [(3,)]
    for spec, message in (
        ("p>1", "targets 'p>1': use a probability from 0 to below 1, such as p>0.5"),
        ("p>half", "targets 'p>half': use a probability"),
        (["top3", 1], "targets 'top3' stand alone"),
        ("cow", "unknown class 'cow': choose one of"),
        ([], "an image without targets"),
        (None, "target None: give classes by index or name"),
        ([1.0], "target 1.0: give classes by index or name"),
        ([(1.0, 2)], "give classes by index or name"),
        ([None], "target None: give classes by index or name"),
    ):
        with pytest.raises(SessError, match=message):
            checked(spec, learning)


@pytest.mark.parametrize("targets", [3, None, {"cat": 2}, len])
def test_there_is_an_entry_for_each_image(targets, model, photographs):
    with pytest.raises(SessError, match="or a list with the targets of each image"):
        SESS(model, num_scales=1, device="cpu").explain(crops(photographs, count=1), targets)


def test_a_class_whose_name_is_a_number_is_known_by_it(model):
    """Names come before indices where words are given; numbers are indices."""
    assert model.class_index("10") == 4
    assert model.class_index("3") == 3
    with pytest.raises(SessError, match="class 10 is out of range"):
        model.class_index(10)
    digits = replace(model, classes=("0", "1", "10", "2", "3"), aliases={})
    assert [digits.class_index(name) for name in digits.classes] == [0, 1, 2, 3, 4]
    assert [digits.class_index(number) for number in range(5)] == [0, 1, 2, 3, 4]
    assert checked([2, "2", "two=2+10"], digits.with_groups({})) == [(2,), (3,), (5,)]


def test_of_a_group_of_labels_any_counts(model, photographs):
    images = crops(photographs, count=1)
    sess = SESS(model, num_scales=1, device="cpu")
    [[group, one, other]] = sess.explain(images, [[{"any": (1, 2)}, 1, 2]])
    assert group.score == pytest.approx(1 - (1 - one.score) * (1 - other.score), abs=1e-6)
    assert np.isfinite(group.saliency).all()


@pytest.mark.parametrize("scales", [1, None])
def test_a_threshold_costs_no_pass_of_its_own(model, photographs, scales):
    images = crops(photographs, count=2)
    sess, rows = SESS(model, num_scales=scales, device="cpu"), []
    handles = [
        module.register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))
        for module in {sess.model.module, sess.model.scorer}
    ]
    counts = {}
    for targets in ("top5", "p>0"):
        rows.clear()
        found = sess.explain(images, targets)
        counts[targets] = sum(rows)
        assert all(len(own) == 5 for own in found)
    for handle in handles:
        handle.remove()
    assert counts["p>0"] == counts["top5"] + (0 if scales else len(images))  # without SESS the image is a window, too
