"""What an evaluation says in words, and the page that it says it on."""

from __future__ import annotations

from html.parser import HTMLParser
from math import nan

import pytest

from sess_ray.metrics.metric import Summary
from sess_ray.pipeline.evaluate.page import Report, page
from sess_ray.pipeline.evaluate.pictures import Picture, chosen
from sess_ray.pipeline.evaluate.report import Line, as_records, from_records
from sess_ray.pipeline.evaluate.verdict import differences, settings_that_differ, verdict

BETTER, WORSE, EVEN = (0.03, 0.01, 0.05), (-0.03, -0.05, -0.01), (0.03, -0.01, 0.07)


def line(metric, numbers, base="base", run="sess"):
    return Line(run, base, "all", "", metric, Summary(40, *numbers))


@pytest.mark.parametrize(
    ("metric", "numbers", "side"),
    [
        ("pxap", BETTER, "better"),
        ("pxap", WORSE, "worse"),
        ("pxap", EVEN, "even"),
        ("pxap", (0.01, 0.0, 0.02), "even"),
        ("pxap", (0.01, nan, nan), "even"),
        ("deletion_rise", BETTER, "worse"),
        ("deletion_rise", WORSE, "better"),
    ],
)
def test_a_side_is_taken_where_the_interval_leaves_out_0(metric, numbers, side):
    [found] = differences([line(metric, numbers), line(metric, numbers, base=""), line(metric, (nan, nan, nan))])
    assert found.side == side


@pytest.mark.parametrize(
    ("measured", "head"),
    [
        ({"pxap": BETTER, "pointing_game": EVEN}, "sess is better than base."),
        ({"pxap": WORSE, "pointing_game": EVEN}, "sess is worse than base."),
        ({"pxap": BETTER, "pointing_game": WORSE}, "sess is better than base by some metrics and worse by others."),
        ({"pxap": EVEN}, "sess and base cannot be told apart: no difference is more than luck."),
        # What sharpening alone does makes nothing better.
        ({"pxap": EVEN, "energy_pointing_game": BETTER}, "sess and base cannot be told apart"),
        ({"energy_pointing_game": BETTER}, "Nothing decides between sess and base"),
    ],
)
def test_the_verdict_in_words(measured, head):
    told = verdict("sess", "base", differences([line(*one) for one in measured.items()]))
    assert told[0].startswith(head)
    text = " ".join(told)
    for metric, (mean, low, high) in measured.items():
        assert f"{metric} {100 * mean:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})" in text
    assert "over up to 40 maps" in text
    assert "So few maps" not in text
    few = Line("sess", "base", "all", "", "pxap", Summary(4, *BETTER))
    assert "So few maps vouch for little" in verdict("sess", "base", differences([few]))[-1]


def test_maps_of_one_image_decide_nothing():
    told = verdict("sess", "base", differences([line("pxap", (0.2, nan, nan))]))
    assert told[0] == "Nothing decides between sess and base: maps of one image have no intervals."
    assert told[1] == "May be luck, one image has no interval: pxap +20.0."
    lines = [line("pxap", BETTER), line("pointing_game_difficult", (0.2, nan, nan))]
    told = verdict("sess", "base", differences(lines))
    assert told[0] == "sess is better than base."
    assert "May be luck, one image has no interval: pointing_game_difficult +20.0." in told


def test_settings_that_do_not_make_a_map_are_no_difference():
    runs = {
        "a": {"method": "cam", "num_scales": 0, "output": "x", "batch_size": 1, "method_option": []},
        "b": {"method": "cam", "num_scales": 12, "output": "y", "batch_size": 8, "method_option": ["relu=true"]},
        "unknown": {},
    }
    assert settings_that_differ(runs) == [
        ["setting", "a", "b"],
        ["num_scales", "0", "12"],
        ["method_option", "-", "relu=true"],
    ]
    assert settings_that_differ({"a": runs["a"], "b": runs["a"]}) == []


def test_images_are_chosen_once_each():
    ours = {(f"{number:02}.jpg", 0): number / 20 for number in range(20)}
    theirs = dict.fromkeys(list(ours)[1:], 0.5)
    found = chosen({"sess": ours, "base": theirs}, ("sess", "base"), "higher")
    assert [(title, key[0]) for title, key in found] == [
        *(("Best", f"{number}.jpg") for number in (17, 16, 15, 14)),
        *(("Worst", f"{number:02}.jpg") for number in (0, 3, 4, 5)),
        *(("Most different", name) for name in ("01.jpg", "19.jpg", "02.jpg", "18.jpg")),
    ]
    assert chosen({"sess": ours}, None, "lower")[0] == ("Best", ("00.jpg", 0))
    assert len(chosen({"sess": {("a", 1): 0.2}}, None, "higher")) == 1


class Balanced(HTMLParser):
    """Collects text and attributes, and refuses tags that do not match."""

    def __init__(self):
        super().__init__()
        self.open, self.text, self.tags, self.links = [], "", [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, _):
        self.tags.append(tag)

    def handle_data(self, data):
        self.text += data


@pytest.mark.parametrize("compared", [True, False])
def test_the_page_is_whole_and_names_are_text(compared):
    evil = "<script>alert('&')</script>"
    runs = ["base", evil] if compared else [evil]
    lines = [line(metric, BETTER, base="", run=run) for run in runs for metric in ("pxap", "deletion_rise")]
    if compared:
        lines += [line("pxap", BETTER, run=evil), line("deletion_rise", BETTER, run=evil)]
    picture = Picture("Best", f"{evil}.jpg", evil, {evil: 0.5}, {"image": "data:image/jpeg;base64,", evil: "data:,"})
    report = Report(
        title=f"Evaluation of {evil}",
        subtitle="2 maps",
        notes="How to read it.\nAnd more.",
        runs=runs,
        metrics=["pxap", "deletion_rise"],
        settings={"base": {"num_scales": 0}, evil: {"num_scales": evil}} if compared else {evil: {}},
        lines=lines,
        problems=[(evil, "no map", 3)],
        ordered="By pxap ↑, in percent.",
        pictures=[picture, Picture("Worst", "gone.jpg", "cat", {}, {})],
    )
    found = Balanced()
    found.feed(page(report))
    assert found.open == []
    assert "script" not in found.tags
    assert found.links == ["data:image/jpeg;base64,", "data:,"]
    assert found.tags.count("svg") == 1
    assert ("rect" in found.tags) == compared  # worse: deletion has grown
    assert evil in found.text
    assert "The image cannot be read." in found.text
    verdict_ = f"{evil} is better than base by some metrics" if compared else "there is nothing to compare it with"
    assert verdict_ in found.text


def test_lines_are_read_back():
    lines = [line("pxap", BETTER), line("corloc", (0.1, nan, nan), base="")]
    assert str(from_records(as_records(lines))) == str(lines)
