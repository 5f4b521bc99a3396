"""Every piece of code of docs/export.md, of the tools that are installed."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.pipeline.export.runs import export, store_run

PAGE = Path(__file__).parents[2] / "docs" / "export.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
TOOLS = {"fiftyone": "fiftyone", "webdataset": "webdataset", "torch.utils.tensorboard": "tensorboard", "wandb": "wandb"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("page")
    run = store_run(root)
    (root / "out").mkdir()
    (root / "out" / "sess").symlink_to(run)
    for to in ("hf", "fiftyone", "webdataset"):
        export(run, root / "out" / to, to)
    return root


@pytest.mark.slow
def test_the_hub_is_pushed_what_datasets_reads(folder, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "cache")
    pushed = []
    monkeypatch.setattr(datasets.Dataset, "push_to_hub", lambda found, name: pushed.append((len(found), name)))
    exec("\n".join(block for block in BLOCKS if "datasets" in block or "push_to_hub" in block), {})
    assert pushed == [(8, "NAME")]


@pytest.mark.slow
@pytest.mark.parametrize("module", TOOLS)
def test_what_the_page_says_of_a_tool_runs(module, folder, monkeypatch):
    if find_spec(TOOLS[module]) is None:
        pytest.skip(f"needs {TOOLS[module]}: uv run --with {TOOLS[module]} pytest")
    monkeypatch.chdir(folder)
    if module == "fiftyone" and find_spec("mongomock"):
        from tests.pipeline.export.mongo import pretend

        pretend(monkeypatch)
    [block] = [block for block in BLOCKS if re.search(rf"^(import|from) {re.escape(module)}\b", block, re.MULTILINE)]
    exec(block.replace("[:20]", "[:2]"), {})
