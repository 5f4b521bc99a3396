"""What --dry-run and the exit code say of images that are not there."""

from __future__ import annotations

import pytest
from PIL import Image

from sess_ray.cli import command
from sess_ray.cli.explain import app
from sess_ray.pipeline.cluster import session
from sess_ray.pipeline.explain import job
from sess_ray.pipeline.explain.record import Summary, Total

MODEL = ("--model", "tests.fragile:model", "--num-scales", 1)


@pytest.fixture
def explain(tmp_path, monkeypatch, capfd):
    """Run the command on a manifest of some places; return the exit code, and what was printed."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lists").mkdir()

    def run(*places, flags=("--dry-run",)):
        (tmp_path / "lists" / "m.csv").write_text("\n".join(["uri", *places]))
        arguments = ["--input", "lists/m.csv", "--output", tmp_path / "out", *MODEL, *flags]
        code = command.run(app, list(map(str, arguments)))
        return code, *capfd.readouterr()

    return run


def test_places_where_nothing_is_are_told_before_a_run(explain, tmp_path):
    code, _, told = explain("a.jpg", "b/c.jpg", "/nowhere/d.jpg")
    assert code == 2
    assert len(told.strip().splitlines()) == 1
    assert (
        "error: none of the 3 images that were looked at can be explained, the first: 'a.jpg': no such file: " in told
    )
    assert f"{tmp_path}/lists/a.jpg" in told


@pytest.mark.parametrize(
    ("side", "said"), [(50, "50 x 50 pixels, more than the 2000"), (14_000, "more than the 2000 pixels")]
)
def test_images_beyond_the_limit_of_pixels_are_told_as_a_run_does(explain, tmp_path, side, said):
    Image.new("1", (side, side)).save(tmp_path / "lists" / "a.png")
    code, _, told = explain("a.png", flags=("--dry-run", "--max-pixels", 2000))
    assert code == 2
    assert f"the one image that was looked at cannot be explained: 'a.png': the image has {said}" in told


@pytest.mark.slow
def test_those_beside_good_images_are_told_too(explain, tmp_path):
    Image.new("RGB", (64, 48), "red").save(tmp_path / "lists" / "good.png")
    (tmp_path / "lists" / "text.png").write_text("no image")
    code, told, _ = explain("good.png", "gone.png", "text.png")
    assert code == 0
    lines = told.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("images:  3, of which 2 will end in err"))
    assert sorted(line.partition(":")[0] for line in lines[at + 1 : at + 3]) == ["  'gone.png'", "  'text.png'"]
    assert f"{tmp_path}/lists/gone.png" in told


@pytest.mark.parametrize(("images", "expected"), [(0, 1), (1, 0)])
def test_a_run_that_explains_nothing_has_failed(explain, monkeypatch, images, expected):
    monkeypatch.setattr(session, "start_early", lambda address: address)
    monkeypatch.setattr(job, "run", lambda *_: Summary(total=Total(images, images, 2)))
    assert explain("a.jpg", "b.jpg", "c.jpg", flags=())[0] == expected
