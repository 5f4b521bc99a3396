"""What docs/cluster.md and infra/cleanup/ tell the clouds: their CLIs know it, and what is made is deleted again."""

from __future__ import annotations

import os
import re
import runpy
import shlex
import shutil
import subprocess
from functools import cache
from pathlib import Path

import jsonschema
import pytest
import yaml

from tests.conftest import SHARED
from tests.infra.files import INFRA, KUBERAY, ROOT, flags, groups, pod, rayjob

TEXT = (ROOT / "docs" / "cluster.md").read_text()
WAYS = ("eks", "gke", "ec2", "gce")
KNOWN = {name: name.lower() for name in ("CLUSTER", "PROJECT", "BUCKET", "REGION", "ZONE", "ACCOUNT")}
# Answers a script's own questions, writes down what it is asked, and fails where FAILING says so.
STUB = """#!/usr/bin/env bash
{ printf '%s' "${0##*/}"; printf '\\t%s' "$@"; echo; } >> "$LOG"
case "$*" in *describe-instances*) echo "i-1 i-2";; *"instances list"*) echo "w-1 w-2";; esac
[ -z "${FAILING:-}" ] || [[ "$*" != *$FAILING* ]]
"""


def clean(tmp_path, way, *given, failing=""):
    """Run a script among stand-ins for all CLIs; return what became of it, and the commands that it gave."""
    tools = tmp_path / "bin"
    tools.mkdir(exist_ok=True)
    for name in ("aws", "gcloud", "kubectl", "eksctl", "uv"):
        (tools / name).write_text(STUB)
        (tools / name).chmod(0o755)
    log = tmp_path / "log"
    log.write_text("")
    environment = {**KNOWN, "PATH": f"{tools}:{os.environ['PATH']}", "LOG": str(log), "FAILING": failing}
    script = [INFRA / "cleanup" / f"{way}.sh", *given]
    done = subprocess.run(script, capture_output=True, text=True, env=environment, cwd=ROOT, check=False)
    return done, [line.split("\t") for line in log.read_text().splitlines()]


@pytest.fixture(scope="module")
def deleted(tmp_path_factory):
    """What each script said and did with --yes."""
    return {way: clean(tmp_path_factory.mktemp(way), way, "--yes") for way in WAYS}


@pytest.mark.parametrize("way", WAYS)
def test_without_yes_nothing_is_deleted_and_all_is_shown(way, tmp_path, deleted):
    done, commands = clean(tmp_path, way)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Nothing was deleted: add --yes." in done.stdout
    assert not [command for command in commands if not {"describe-instances", "list"} & set(command)]
    really, commands = deleted[way]
    assert really.returncode == 0
    shown = [shlex.split(line) for line in done.stdout.splitlines() if line.startswith("    ")]
    asked = [command for command in commands if "describe-instances" not in command and "instances" not in command[2:3]]
    assert [words for words in shown if "instances" not in words[2:3]] == asked


def test_a_step_that_fails_stops_none_after_it_and_is_told(tmp_path):
    done, commands = clean(tmp_path, "eks", "--yes", failing="delete cluster")
    assert done.returncode == 1
    assert "Not deleted, look above why:\n    the cluster, with its node groups and network\n" in done.stderr
    assert commands[-2][:3] == ["aws", "ecr", "delete-repository"]
    wrong, commands = clean(tmp_path, "eks", "--force")
    assert (wrong.returncode, wrong.stdout, commands) == (2, "", [])


@pytest.mark.parametrize(("way", "before", "after"), [
    ("eks", "delete cluster", "delete-policy"),
    ("eks", "delete iamserviceaccount", "delete cluster"),
    ("gke", "clusters delete", "service-accounts delete"),
    ("gke", "remove-iam-policy-binding", "roles delete"),
    ("ec2", "ray down", "terminate-instances"),
    ("ec2", "wait instance-terminated", "remove-role-from-instance-profile"),
    ("ec2", "delete-role-policy", "delete-role "),
    ("ec2", "wait instance-terminated", "delete-security-group"),
    ("gce", "instances delete", "service-accounts delete"),
])  # fmt: skip
def test_what_needs_another_goes_first(way, before, after, deleted):
    lines = [" ".join(command) + " " for command in deleted[way][1]]
    [first, *_], [*_, last] = ([place for place, line in enumerate(lines) if text in line] for text in (before, after))
    assert first < last


def of_page():
    """Yield the commands of the page's blocks; in a loop, those of its body."""
    for block in re.findall(r"^```\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            yield from (shlex.split(part) for part in line.split(" | ") if part.strip() and "$(" not in part)


@cache
def all_commands():
    return [words for words in of_page() if words]


def test_what_the_page_creates_the_scripts_delete(deleted):
    made = {" ".join(words[1:3]) for words in all_commands() if words[0] == "aws" and words[2].startswith("create-")}
    gone = {" ".join(command[1:3]) for _, commands in deleted.values() for command in commands if command[0] == "aws"}
    assert made >= {"ecr create-repository", "iam create-policy", "iam create-role", "iam create-instance-profile"}
    assert {one.replace("create-", "delete-") for one in made} <= gone


@pytest.mark.slow
def test_aws_knows_its_commands(deleted):
    session = pytest.importorskip("botocore.session").get_session()
    words_of = pytest.importorskip("botocore").xform_name
    given = [words for words in all_commands() if words[0] == "aws"]
    given += [command for _, commands in deleted.values() for command in commands if command[0] == "aws"]
    assert len(given) > 30
    models = {}
    for _, service, operation, *rest in given:
        if (service, operation) in (("ecr", "get-login-password"), ("ec2", "wait")):  # the CLI's own
            continue
        model = models.setdefault(service, session.get_service_model(service))
        [name] = [name for name in model.operation_names if words_of(name, "-") == operation]
        members = model.operation_model(name).input_shape.members
        takes = {f"--{words_of(member, '-')}" for member in members}
        asked = {word for word in rest if word.startswith("--")}
        assert asked <= takes | {"--region", "--query", "--output", "--max-items"}, (operation, asked - takes)


@pytest.mark.slow
def test_gcloud_knows_its_commands(deleted):
    found = shutil.which("gcloud")
    table = Path(found).resolve().parents[1] / "data" / "cli" / "gcloud_completions.py" if found else Path("none")
    if not table.exists():
        pytest.skip("needs the table of commands that comes with gcloud")
    tree = runpy.run_path(str(table))["STATIC_COMPLETION_CLI_TREE"]
    given = [words for words in all_commands() if words[0] == "gcloud"]
    given += [command for _, commands in deleted.values() for command in commands if command[0] == "gcloud"]
    assert len(given) > 20
    for words in given:
        node, rest = tree, words[1:]
        while rest and rest[0] in node["commands"]:
            node, rest = node["commands"][rest[0]], rest[1:]
        assert not node["commands"], f"{words}: no command of gcloud"
        asked = {word.partition("=")[0] for word in rest if word.startswith("--")}
        assert asked <= set(node["flags"]) | set(tree["flags"]), words


def test_eksctl_takes_its_file():
    cluster = yaml.safe_load((INFRA / "eks.yaml").read_text())
    schema = SHARED.parent / "schemas" / "eksctl.schema.json"
    names = {group["name"] for group in cluster["managedNodeGroups"]}
    assert names == {"head", "gpu-spot", "cpu-spot"}
    for group in cluster["managedNodeGroups"]:
        wanted = pod(groups(rayjob("aws"))[group["name"]])["nodeSelector"]
        assert wanted["eks.amazonaws.com/capacityType"] == ("SPOT" if group.get("spot") else "ON_DEMAND")
        assert wanted.get("node.kubernetes.io/instance-type") in (None, *group.get("instanceTypes", ()))
        assert group["maxSize"] >= groups(rayjob("aws"))[group["name"]].get("maxReplicas", 1)
    assert [account["roleName"] for account in cluster["iam"]["serviceAccounts"] if "roleName" in account] == [
        "sess-ray"
    ]
    if schema.exists():
        jsonschema.validate(cluster, yaml.safe_load(schema.read_text()))


@pytest.mark.slow
def test_the_job_for_a_laptop_needs_no_gpu_and_writes_where_the_node_keeps_it():
    job, cluster = rayjob("kind"), yaml.safe_load((KUBERAY / "kind" / "cluster.yaml").read_text())
    _, given = flags(job["spec"]["entrypoint"])
    [place] = [mount["containerPath"] for node in cluster["nodes"] for mount in node["extraMounts"]]
    assert given["--output"].startswith(f"{place}/")
    assert given["--gpus-per-actor"] == "0"
    assert set(groups(job)) == {"head", "cpu-spot"}
    for group in groups(job).values():
        [container] = pod(group)["containers"]
        assert container["image"].endswith("-cpu")
        assert "nvidia.com/gpu" not in container["resources"]["limits"]
        assert pod(group)["volumes"] == [{"name": "data", "hostPath": {"path": place}}]
        assert container["volumeMounts"] == [{"name": "data", "mountPath": place}]
    schema = SHARED.parent / "schemas" / "rayjob-v1.schema.json"
    if schema.exists():
        jsonschema.validate(job, yaml.safe_load(schema.read_text()))
