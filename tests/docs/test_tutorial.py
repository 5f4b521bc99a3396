"""Every command and every piece of code of the tutorial, in its order; FiftyOne, which wants a server, is left out."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from sess_ray.cli import main

pytestmark = pytest.mark.usefixtures("ray_session")

DOCS = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def test_everything_in_the_tutorial_runs(tmp_path, monkeypatch, capsys):
    (tmp_path / "docs").symlink_to(DOCS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    known = {}
    for kind, block in BLOCK.findall((DOCS / "tutorial.md").read_text()):
        if kind == "python":
            code = compile(block, "tutorial.md", "exec")
            if "fiftyone" not in block:
                exec(code, known)
            continue
        for line in block.splitlines():
            arguments = shlex.split(line)
            name, *given = arguments[arguments.index("sess-ray") + 1 :]
            assert main.run(name, given) == 0, line
    said = capsys.readouterr().out
    assert "5 images, 5 maps, 1 error" in said
    assert len(known["run"]) == 5
    assert len(known["maps"]) == 5
    assert known["losses"][-1] < 0.8 * known["losses"][0]
    index = (tmp_path / "out" / "gallery" / "data" / "index.js").read_text()
    assert '"285":"Egyptian cat"' in index.replace("\\", "")  # what the model takes the tabby for
    assert len(list((tmp_path / "out" / "labels" / "SegmentationClass").glob("*.png"))) == 5
