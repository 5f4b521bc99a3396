"""What docs/cluster.md says is there; its `ray job` commands are run in test_rayjob.py."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import ray

from tests.infra.files import ROOT

TEXT = (ROOT / "docs" / "cluster.md").read_text()
COMMANDS = "\n".join(re.findall(r"^```\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL))
MESSAGES = re.findall(r"^\| ((?:`[^`]+`(?:, )?)+) \|", TEXT.partition("## What a message means")[2], re.MULTILINE)
OF_OTHERS = {"OOMKilled": None, "No available agent to submit job": Path(ray.__file__).parent / "dashboard/modules/job"}


def test_files_are_there():
    links = {link.partition("#")[0] for link in re.findall(r"\]\(([^)h][^)]*)\)", TEXT)} - {""}
    named = set(re.findall(r"\b(?:infra|jobs)/[\w./-]*[\w]", COMMANDS))
    assert links
    assert named
    assert not [link for link in links if not (ROOT / "docs" / link).exists()]
    assert not [name for name in named if not (ROOT / name).exists()]


def test_the_search_for_what_to_change_finds_it():
    [command] = re.findall(r"^grep .*$", COMMANDS, re.MULTILINE)
    found = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in ("kuberay/aws", "kuberay/gcp", "aws.yaml", "gcp.yaml", "policies/aws-bucket.json"):
        assert f"infra/{name}" in found


@pytest.mark.slow
def test_the_benchmark_takes_its_flags():
    [line] = re.findall(r"^sess-ray benchmark (.*)$", COMMANDS, re.MULTILINE)
    script = ROOT / "jobs" / "benchmark.py"
    shown = subprocess.run([sys.executable, script, "--help"], capture_output=True, text=True, check=True).stdout
    assert not [flag for flag in re.findall(r"--[\w-]+", line) if flag not in shown]


@cache
def said(folder):
    """Return the constant parts of all texts of some modules."""
    trees = [ast.parse(path.read_text()) for path in sorted(folder.rglob("*.py"))]
    constants = [node.value for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    return "\n".join(value for value in constants if isinstance(value, str))


@pytest.mark.slow
@pytest.mark.parametrize("message", [message for row in MESSAGES for message in re.findall("`([^`]+)`", row)])
def test_a_message_is_one_that_is_printed(message):
    if message in OF_OTHERS:
        source = OF_OTHERS[message]
        assert source is None or message in said(source)
        return
    source = said(ROOT / "sess_ray") + said(ROOT / "jobs")
    parts = [part.strip(" :;()") for part in re.split(r"\.\.\.|;|\(|: |,|^cannot ", message)]
    assert any(parts)
    assert not [part for part in parts if part not in source]
