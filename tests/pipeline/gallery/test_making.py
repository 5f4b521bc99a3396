"""What a gallery is made of, and when it is refused."""

from __future__ import annotations

import numpy as np
import pytest

from sess_ray.cli import command, gallery
from sess_ray.pipeline.gallery import pages
from sess_ray.pipeline.gallery.config import GalleryConfig
from sess_ray.pipeline.gallery.prepare import prepare
from tests.pipeline.gallery.browsing import COUNT


def test_disagreement_is_one_less_correlation():
    one = np.array([[0, 1], [2, 3]], np.uint8)
    assert pages.disagreement([one, 2 * one]) == pytest.approx(0)
    assert pages.disagreement([one, one, 3 - one]) == pytest.approx(2)
    assert pages.disagreement([one, np.full((2, 2), 7, np.uint8)]) == pytest.approx(1)
    assert pages.disagreement([one]) is None
    assert pages.disagreement([one, np.zeros((3, 2), np.uint8)]) is None
    three = np.array([[5, 1], [0, 4]], np.uint8)
    assert pages.disagreement([one, three]) == pytest.approx(1 - np.corrcoef(one.ravel(), three.ravel())[0, 1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to show: give --run NAME=OUTPUT"),
        (["--run", "a=x", "--image", "y"], "give either --run or --image"),
        (["--image", "nowhere.jpg"], "cannot read nowhere.jpg: no such file"),
        (["--run", "out"], "--run out: use NAME=OUTPUT"),
        (["--run", "a=nowhere"], "--run nowhere has no maps"),
        (["--run", "a=x", "--run", "a=y"], "two runs have the same name"),
        (["--run", "a=x", "--limit", "0"], "--limit 0: use 1 or more"),
    ],
)
def test_wrong_usage_is_one_line(arguments, message, tmp_path, capsys):
    assert command.run(gallery.app, [*arguments, "--output", str(tmp_path / "out")]) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert len(errors.strip().splitlines()) == 1


@pytest.mark.usefixtures("ray_session")
def test_a_gallery_is_replaced_on_request_only(output, capsys):
    runs = ["--run", f"sess={output.parent}/sess", "--limit", "3"]
    assert command.run(gallery.app, [*runs, "--output", str(output.parent / "small")]) == 0
    assert command.run(gallery.app, [*runs, "--output", str(output.parent / "small")]) == 2
    assert "has a gallery already: add --overwrite" in capsys.readouterr().err
    config = GalleryConfig(run=(f"sess={output.parent}/sess",), output=str(output.parent / "small"), overwrite=True)
    assert len(prepare(config).rows) == COUNT


@pytest.mark.parametrize("name", ["gallery", "patches"])
def test_the_files_of_a_page_come_with_the_package(name):
    files = pages.page(name)
    scripts = [f"page/{script}.js" for script in pages.SCRIPTS[name]]
    assert list(files) == ["page/gallery.css", *scripts, "index.html"]
    places = [files["index.html"].index(f'src="{script}"'.encode()) for script in (*scripts, pages.DATA[name])]
    assert places == sorted(places)
    assert b"@" not in files["index.html"]  # every place is filled
