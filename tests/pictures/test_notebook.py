"""What a notebook shows of maps and runs."""

from __future__ import annotations

import io
import re
import sys
from base64 import b64decode
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

import sess_ray
from sess_ray import SessError, demo, runs
from sess_ray.io.reading import read_items
from sess_ray.pictures.notebook import SIDE, figure
from sess_ray.pictures.overlay import OPACITY, blend, colours

OLD = Path(__file__).parents[1] / "golden" / "output-0.1.0"


def pictures(text):
    sources = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', text)
    return [np.asarray(Image.open(io.BytesIO(b64decode(source)))) for source in sources]


def test_a_figure_is_the_image_under_its_map_and_texts_stay_texts():
    draw = np.random.default_rng(0)
    saliency = np.linspace(0, 1, 60 * 80, dtype=np.float32).reshape(60, 80)
    image = np.full((60, 80, 3), draw.integers(0, 255, 3), np.uint8)
    text = figure(saliency, image, "<b>x</b>", 'a "quoted" & <i>line</i>')
    [shown] = pictures(text)
    expected = np.asarray(blend(image, saliency), float)
    assert np.abs(shown - expected).mean() < 3  # JPEG
    assert "<i>" not in text
    assert "&lt;b&gt;x&lt;/b&gt;" in text
    [alone] = pictures(figure(saliency, None, "x"))
    assert np.abs(alone - np.asarray(colours(saliency), float)).mean() < 3
    [small] = pictures(figure(np.zeros((40, 2000), np.float32), None, "wide"))
    assert small.shape[1] == SIDE


def test_an_explanation_and_a_run_show_themselves():
    run = sess_ray.open_run(str(OLD))
    text = run._repr_html_()
    assert text == sess_ray.show(str(OLD))._repr_html_()
    assert len(pictures(text)) == len(run) == 3
    assert f"{len(run)} maps" in text
    assert "the first 2" in sess_ray.show(run, most=2).text
    places = {item.image_id: item.uri for item in demo.images()}
    moved = sess_ray.open_run(str(OLD), images=str(Path(next(iter(places.values()))).parent))
    first = moved[0]
    [shown] = pictures(first._repr_html_())
    picture = blend(first.image(), first.saliency)
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    assert np.abs(shown - np.asarray(picture, float)).mean() < 4
    gone = sess_ray.open_run(str(OLD))[0]
    object.__setattr__(gone, "uri", "nowhere.jpg")
    assert "cannot read nowhere.jpg" in gone._repr_html_()


def test_an_explanation_lies_over_the_image_that_is_given(squeezenet):
    image = np.full((90, 120, 3), (40, 160, 90), np.uint8)
    [[found]] = sess_ray.SESS(squeezenet, num_scales=None, device="cpu").explain([image], [[3]])
    assert f"{found.target_name}: {found.score:.1%}" in found._repr_html_()
    assert "one window" in found._repr_html_()
    [alone], [over] = pictures(found._repr_html_()), pictures(found.show(Image.fromarray(image)).text)
    assert np.abs(alone - np.asarray(colours(found.saliency), float)).mean() < 3
    assert np.abs(over - np.asarray(blend(image, found.saliency), float)).mean() < 4
    with pytest.raises(SessError, match="give the image that was explained"):
        found.show(image[:50])


def test_sliders_go_over_maps_and_over_their_opacity(monkeypatch):
    pytest.importorskip("ipywidgets", reason="needs ipywidgets: uv sync --extra dev")
    places = {item.image_id: item.uri for item in demo.images()}
    run = sess_ray.open_run(str(OLD), images=str(Path(next(iter(places.values()))).parent))
    read = []
    monkeypatch.setattr(runs, "read_items", lambda uris: read.append(uris) or read_items(uris))
    box = sess_ray.browse(run)
    [sliders, shown] = box.children
    number, opacity = sliders.children
    assert (number.min, number.max, opacity.value) == (0, len(run) - 1, OPACITY)
    assert shown.value == run[0]._repr_html_()
    number.value = 1
    assert shown.value == run[1]._repr_html_()
    opened = len(read)
    opacity.value = 0.0
    [picture] = pictures(shown.value)
    alone = Image.fromarray(run[1].image())
    alone.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    assert np.abs(picture - np.asarray(alone, float)).mean() < 4
    assert len(read) == opened + 1  # by this test: the slider has the image


def test_without_ipywidgets_one_line_says_what_does_without(monkeypatch):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    with pytest.raises(SessError, match=r"need ipywidgets: pip install ipywidgets; sess_ray.show does without"):
        sess_ray.browse(str(OLD))


def test_the_image_is_taken_as_it_was_explained(squeezenet):
    """One that lies on its side by its EXIF, under a map that is smaller."""
    image = Image.fromarray(np.full((120, 90, 3), (40, 160, 90), np.uint8))
    image.getexif()[ExifTags.Base.Orientation] = 6
    [[found]] = sess_ray.SESS(squeezenet, num_scales=None, device="cpu", max_map_side=60).explain([image], [[3]])
    [shown] = pictures(found.show(image).text)
    assert shown.shape[:2] == found.saliency.shape == (45, 60)
    expected = np.asarray(blend(np.full((45, 60, 3), (40, 160, 90), np.uint8), found.saliency), float)
    assert np.abs(shown - expected).mean() < 4
