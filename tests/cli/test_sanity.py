"""The sanity checks from the command line, in this process."""

from __future__ import annotations

import json
from math import nan

import pytest
from PIL import Image

from sess_ray.cli import command, sanity
from sess_ray.metrics.metric import Summary


def test_the_result_is_written_and_read_in_words(tmp_path, photographs, capsys):
    Image.fromarray(photographs["chelsea.png"]).resize((96, 80)).save(tmp_path / "cat.png")
    given = f"--input {tmp_path} --output {tmp_path}/out --model tests.fragile:model --num-scales 0 --steps 2"
    given += " --ssim gaussian"
    assert command.run(sanity.app, given.split()) == 0
    told = capsys.readouterr().out
    text = (tmp_path / "out" / "sanity.md").read_text()
    assert text in told
    record = json.loads((tmp_path / "out" / "sanity.json").read_text())
    assert (record["images"], record["ssim"], record["steps"]) == (["cat.png"], "gaussian", 2)
    names = list(record["similarity"])
    assert names[0] == "the second class instead of the first"
    assert [name.rpartition(" ")[0] for name in names[1:]] == ["cascading down to"] * 2 + ["only"] * 2
    for name, means in record["similarity"].items():
        assert f"| {name} " in text
        assert -1 <= means["spearman"]["mean"] <= 1
    assert command.run(sanity.app, given.split()) == 2
    assert "has sanity checks already: add --overwrite" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("--targets top5", "sess-ray sanity has no use for --targets: leave it out"),
        ("--actors 2 --dry-run", "sess-ray sanity has no use for --actors, --dry-run: leave them out"),
    ],
)
def test_what_has_no_effect_is_refused(given, told, capsys):
    assert command.run(sanity.app, given.split()) == 2
    assert told in capsys.readouterr().err


def test_images_may_be_in_a_column_of_any_name(tmp_path, photographs):
    Image.fromarray(photographs["chelsea.png"]).resize((48, 40)).save(tmp_path / "cat.png")
    (tmp_path / "m.csv").write_text("scan\ncat.png\n")
    given = f"--input {tmp_path}/m.csv --image-column scan --output {tmp_path}/out --model tests.fragile:model"
    assert command.run(sanity.app, [*given.split(), "--num-scales", "0", "--steps", "2"]) == 0
    assert json.loads((tmp_path / "out" / "sanity.json").read_text())["images"] == ["cat.png"]


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ((0.1, 0.0, 0.2), "the maps depend on what the model has learnt"),
        ((0.8, 0.7, 0.9), "the maps show the image more than the model"),
        ((0.3, 0.1, 0.5), "more images would decide"),
        ((0.1, nan, nan), "Spearman 0.10: one image has no interval; more images would decide"),
    ],
)
def test_how_to_read_them(numbers, expected):
    other, some = Summary(8, 0.9, 0.85, 0.95), Summary(8, 0.9, 0.8, 1.0)
    whole = Summary(8, *numbers)
    changed = {sanity.ANOTHER_CLASS: other, "cascading down to b": some, "cascading down to a": whole, "only a": some}
    told = sanity.reading({name: {"ssim": some, "spearman": found} for name, found in changed.items()})
    assert expected in told[2]
    assert told[2].startswith("cascading down to a: Spearman")
    assert "the maps of two classes are much alike" in told[3]
