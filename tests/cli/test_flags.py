"""Flags, the file of settings and their help, of every command."""

from __future__ import annotations

import importlib
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from sess_ray.cli import command, main
from sess_ray.cli.telling import duration
from sess_ray.pipeline.cluster.flags import GROUPS

ROOT = Path(__file__).parents[2]


def parameters(name):
    app = importlib.import_module(f"sess_ray.cli.{name}").app
    return [one for one in app.assemble_argument_collection(parse_docstring=True) if one.show]


@pytest.mark.parametrize("name", main.COMMANDS)
def test_every_flag_has_a_help_text_and_a_group(name):
    found = parameters(name)
    assert len(found) > 5
    for one in found:
        text = one.parameter.help or ""
        assert len(text.split()) >= 2, f"{one.name} of {name} has no help"
        assert text.endswith("."), f"{one.name} of {name}: {text}"
        [group] = one.parameter.group
        assert group in GROUPS.values(), f"{one.name} of {name} is in no group"
    assert len({one.name for one in found}) == len(found)


@pytest.mark.parametrize("name", main.COMMANDS)
def test_help_names_the_command_and_the_choices_are_of_this_house(name, capsys):
    assert main.run(name, ["--help"]) == 0
    told = capsys.readouterr().out
    assert told.startswith(f"Usage: sess-ray {name} [OPTIONS]")
    assert "_dataset.py" not in told
    assert "--empty-" not in told
    assert not re.search(r"default:\W*(None|False|True|\(|\])", told)
    titles = [title for title in GROUPS if f"─ {title} ─" in told]
    places = [told.index(f"─ {title} ─") for title in titles]
    assert len(titles) > 2
    assert places == sorted(places)


NO_ACTORS = ("0", "1-0", "3-1", "-1", "2-", "-2", "1-2-3", "2.0", "two", "²", "٣", "9" * 30)
REFUSED = [
    (["--limit", "99999999999999999999"], "--limit 99999999999999999999: use at most 1,000,000,000,000,000"),
    (["--limit", "0"], "--limit 0: use 1 or more"),
    (["--max-pixels", "-1"], "--max-pixels -1: use 1 or more"),
    (["--max-bytes", "-1"], "--max-bytes -1: use 1 or more"),
    (["--max-patches", "-5"], "--max-patches -5: use 1 or more"),
    (["--max-map-side", "0"], "--max-map-side 0: use 1 pixel or more"),
    (["--max-errors", "-1"], "--max-errors -1: use 0 or more"),
    (["--overlays", "-8"], "--overlays -8: use 0 or more"),
    (["--gpus-per-actor", "nan"], "--gpus-per-actor nan: use 0 or more"),
    (["--gpus-per-actor", "inf"], "--gpus-per-actor inf: use at most 1,024"),
    (["--read-timeout", "nan"], "--read-timeout nan: use 0.001 or more"),
    (["--retry-seconds", "-1"], "--retry-seconds -1.0: use 0 or more"),
    (["--seed", "99999999999999999999"], "--seed 99999999999999999999: use at most 9,223,372,036,854,775,807"),
    (["--dry-run", "--gpus", "0"], "--gpus 0: use 1 or more"),
    (["--dry-run", "--price-per-gpu-hour", "nan"], "--price-per-gpu-hour nan: use 0 or more"),
    (["--num-scales", "99999999999999999999"], "--num-scales 99999999999999999999: use at most 1,000"),
    (["--batch-size", "0"], "--batch-size 0: use 1 or more"),
    (["--batch-size", "99999999999999999999"], "--batch-size 99999999999999999999: use at most 1,000,000"),
    (["--pre-filter-ratio", "nan"], "--pre-filter-ratio nan: use 0 or more"),
    (["--fade", "inf"], "--fade inf: use at most 0.5"),
    (["--whole-scales", "0"], "--whole-scales 0: use 1 or more"),
    (["--window-share", "-1"], "--window-share -1.0: use 0 or more"),
    (["--limit", "1.5"], "--limit: '1.5' is not a whole number (see --help)"),
    (["--limit", "1e3"], "--limit: '1e3' is not a whole number (see --help)"),
    (["--max-bytes", "1.5e9"], "--max-bytes: '1.5e9' is not a whole number (see --help)"),
    (["--fade", "some"], "--fade: 'some' is not a number (see --help)"),
    (["--dry-run=maybe"], "--dry-run: 'maybe' is not true or false (see --help)"),
    (["in", "--dry-run"], "in: give each value after its flag, such as --input FOLDER (see --help)"),
    (["--input"], "--input needs a value (see --help)"),
    (["--input", "a", "--input", "b"], "--input is given twice: give it once (see --help)"),
    (["--method-option", "a=1", "--method-option", "a=2"], "--method-option a=1 and a=2: give one of them"),
    (["--method-option", "=2"], "--method-option =2: use key=value"),
    *((["--actors", actors], f"--actors {actors}: use N or MIN-MAX, such as 4 or 2-16") for actors in NO_ACTORS),
    (["--output", ""], "--output is empty"),
    (["--input", " "], "--input is empty"),
    (["--class-map", "none.json"], "--class-map says what labels of --annotations"),
]


def refused(name, arguments, capsys):
    """Run a command that must refuse; return the one line that it says."""
    assert main.run(name, arguments) == 2
    told = capsys.readouterr()
    assert told.out == ""
    [line] = told.err.splitlines()
    return line


@pytest.mark.parametrize(("arguments", "message"), REFUSED)
def test_values_out_of_range_are_refused_in_one_line(arguments, message, capsys):
    assert refused("explain", arguments, capsys).startswith(f"error: {message}")


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("evaluate", ["--run", "a=b", "--class-map", "x.json"], "--class-map says what"),
        ("evaluate", ["--run", "a=b", "--max-pixels", "-1"], "--max-pixels -1: use 1"),
        ("evaluate", ["--run", "a=b", "--output", ""], "--output is empty"),
        ("gallery", ["--run", "a=b", "--limit", "-3"], "--limit -3: use 1"),
        ("gallery", ["--image", "x.png", "--output", ""], "--output is empty"),
        ("gallery", ["--image", "", "--output", "out"], "--image is empty"),
        ("gallery", ["--image", "x.png", "--num-scales", "-1"], "--num-scales -1: use 0"),
        ("gallery", ["--image", "x.png", "--fade", "nan"], "--fade nan: use 0"),
        ("evaluate", ["--run", "a=b", "--batch-size", "-8"], "--batch-size -8: use 1"),
        ("evaluate", ["--run", "a=b", "--limit", "2.5"], "--limit: '2.5' is not a whole number"),
        ("sanity", ["--pre-filter-ratio", "-1"], "--pre-filter-ratio -1.0: use 0"),
        ("sanity", ["--num-scales", "99999999999999999999"], "--num-scales 99999999999999999999: use at most 1,000"),
        ("sweep", ["--sweep", "num_scales=1,99999999999999999999"], "--num-scales 99999999999999999999: use at most"),
        ("benchmark", ["--batch-size", "8", "--batch-size", "0"], "--batch-size 0: use 1"),
        ("benchmark", ["--num-scales", "-1"], "--num-scales -1: use 0"),
        ("labels", ["--run", ""], "--run is empty"),
        ("export", ["--shard-images", "0"], "--shard-images 0: use 1"),
        ("export", ["--to", "coco"], 'Invalid value "coco" for --to. Choose from'),
        ("export", ["--run", "no/such/run"], "--run no/such/run has no maps: give the --output of sess-ray explain"),
        ("sweep", ["--sweep", "limit=0"], "--limit 0: use 1"),
        ("sanity", ["--steps", "0"], "--steps 0: use 1"),
        ("benchmark", ["--images", "0"], "--images 0: use 1"),
    ],
)
def test_the_other_commands_refuse_the_same(name, arguments, message, capsys):
    assert refused(name, arguments, capsys).startswith(f"error: {message}")


FILES = [
    ("scales: 3\n", "scales"),
    ("num_scales: 3\nNum_Scales: 4\n", "Num_Scales"),
    ("explain: {num_scales: 3}\n", "unknown setting explain.num_scales in c.yaml"),
    ("model: {name: resnet50}\n", "model"),
    ("num_scale: 3\n", "unknown setting num_scale in c.yaml: did you mean num_scales?"),
    ("num_scales: 3\nnum-scales: 4\n", "num-scales in c.yaml is given twice"),
    ("input:\n", "'input' has no value: give it one, leave it out, or write null"),
    ("targets: [1, 2]\n", """targets in c.yaml: '["1", "2"]' is not one value"""),
    ("smooth: maybe\n", "smooth in c.yaml: 'maybe' is not true or false"),
    ("num_scales: 1.5\n", "num_scales in c.yaml: '1.5' is not a whole number"),
    ("num_scales: 1:30\n", "num_scales in c.yaml: '1:30' is not a whole number"),
    ("num_scales: 3\nnum_scales: 4\n", "'num_scales' is there twice"),
    ("num_scales: many\n", "num_scales in c.yaml: 'many' is not a whole number"),
    ("num_scales: -3\n", "--num-scales -3: use 1 or more"),
    ("- num_scales\n- 3\n", "is no list of settings"),
    ("just words\n", "is no list of settings"),
    ("3: 4\n", "is no list of settings"),
    ("num_scales: [1\n", "cannot read --config"),
    ("config: other.yaml\n", "names another file"),
    ("output: ''\n", "--output is empty"),
]


@pytest.mark.parametrize("form", ["--config {}", "--config={}"])
@pytest.mark.parametrize(("text", "message"), FILES)
def test_a_file_with_something_that_is_no_setting_is_refused(text, message, form, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("c.yaml").write_text(text)
    assert message in refused("explain", [*form.format("c.yaml").split(), "--dry-run"], capsys)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config=none.yaml"], "cannot read --config none.yaml: No such file"),
        (["--config", "none.yaml"], "cannot read --config none.yaml: No such file"),
        (["--config", "."], "cannot read --config .: Is a directory"),
        (["--config="], "--config needs a YAML file"),
        (["--config"], "--config needs a YAML file"),
        (["--config", "--dry-run"], "--config needs a YAML file"),
        (["--config=a.yaml", "--config", "b.yaml"], "give one file"),
    ],
)
@pytest.mark.parametrize("name", main.COMMANDS)
def test_a_file_that_is_not_there_is_refused_by_every_command(name, arguments, message, capsys):
    assert message in refused(name, arguments, capsys)


@pytest.mark.parametrize("form", ["--config {}", "--config={}"])
def test_a_file_of_settings_is_honoured_and_flags_win(form, tmp_path, monkeypatch):
    seen = []
    app = importlib.import_module("sess_ray.cli.explain").app
    monkeypatch.setattr("sess_ray.pipeline.explain.prepare.prepare", seen.append)
    monkeypatch.setattr("sess_ray.cli.explain._describe", lambda *_: None)
    (tmp_path / "c.yaml").write_text(
        "\ufeffnum-scales: 3\nstep_size: 100\nmethod_option: [a=1, b=2]\ndry_run: true\nsmooth: false\nlayer: null\n"
    )
    arguments = [*form.format(tmp_path / "c.yaml").split(), "--step-size", "50"]
    assert command.run(app, arguments) == 0
    [config] = seen
    assert (config.num_scales, config.step_size, config.smooth, config.layer) == (3, 50, False, None)
    assert config.method_options() == {"a": "1", "b": "2"}


def test_values_in_a_file_mean_what_they_mean_behind_flags(tmp_path, monkeypatch):
    seen = []
    app = importlib.import_module("sess_ray.cli.explain").app
    monkeypatch.setattr("sess_ray.pipeline.explain.prepare.prepare", seen.append)
    monkeypatch.setattr("sess_ray.cli.explain._describe", lambda *_: None)
    (tmp_path / "c.yaml").write_text(
        "input: no\nimage_column: on\noutput: 2026-01-02\ntargets: 010\nactors: 1_0\nstd: 1:30\n"
        "smooth: no\nnormalize: off\nresume_anyway: on\ndry_run: yes\nmax_pixels: 1_000_000\nlayer: ~\nfade: null\n"
    )
    assert command.run(app, ["--config", str(tmp_path / "c.yaml"), "--actors", "2"]) == 2  # std is no number
    assert command.run(app, ["--config", str(tmp_path / "c.yaml"), "--actors", "2", "--std", "1"]) == 0
    [config] = seen
    assert (config.input, config.image_column, config.output, config.targets) == ("no", "on", "2026-01-02", "010")
    assert (config.smooth, config.normalize, config.resume_anyway) == (False, False, True)
    assert (config.max_pixels, config.layer, config.fade) == (1_000_000, None, None)


@pytest.mark.slow
def test_letters_that_a_terminal_has_not_do_not_end_a_run(tmp_path):
    Image.new("RGB", (40, 40), "gray").save(tmp_path / "café ☕.png")
    command_line = [sys.executable, str(ROOT / "jobs" / "explain_dataset.py"), "--dry-run", "--input", tmp_path]
    command_line += ["--model", "tests.fragile:model", "--targets", "0", "--output", tmp_path / "öut"]
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command_line, capture_output=True, check=False, cwd=tmp_path, env=ascii_only)
    assert done.returncode == 0, done.stderr.decode()
    assert b"caf\\xe9 \\u2615.png" in done.stdout
    done.stderr.decode("ascii")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.031, "0.031 s"),
        (4.21, "4.2 s"),
        (19.04, "19 s"),
        (119.4, "119 s"),
        (250, "4.2 minutes"),
        (7199, "120 minutes"),
        (7200, "2 hours"),
        (40_000, "11 hours"),
        (1e6, "12 days"),
        (1e9, "11,574 days"),
    ],
)
def test_a_duration_is_told_in_the_unit_of_people(seconds, text):
    assert duration(seconds) == text


def test_a_stream_that_is_no_terminal_is_left_alone(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["sess-ray", "--version"])
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with pytest.raises(SystemExit, match="0"):
        main.main()
    assert capsys.readouterr().out.strip()
