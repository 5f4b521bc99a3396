"""What the files of infra/ say agrees with the schemas, with the package, and with what its actors ask for."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import jsonschema
import pytest
import ray
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from sess_ray.pipeline.cluster.session import BLOCK_BYTES, SPARE_CPUS, TASK_CPUS
from sess_ray.pipeline.cluster.settings import actor_range
from sess_ray.pipeline.explain.config import ExplainConfig
from tests.conftest import SHARED
from tests.infra.files import INFRA, KUBERAY, ROOT, amount, containers, flags, groups, kustomized, pod, rayjob

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DOCKERFILE = INFRA / "docker" / "Dockerfile"
LOCK = INFRA / "docker" / "requirements.txt"
OVERLAYS = ("aws", "gcp")
JOBS = ("base", *OVERLAYS)
CLOUDS = {"aws": "s3", "gcp": "gs"}


def launcher(cloud):
    return yaml.safe_load((INFRA / f"{cloud}.yaml").read_text())


@pytest.mark.parametrize("cloud", CLOUDS)
def test_ray_up_takes_its_file(cloud):
    schema = Path(ray.__file__).parent / "autoscaler" / "ray-schema.json"
    jsonschema.validate(launcher(cloud), json.loads(schema.read_text()))


@pytest.mark.slow
@pytest.mark.parametrize("name", JOBS)
def test_kuberay_takes_the_job(name):
    schema = SHARED.parent / "schemas" / "rayjob-v1.schema.json"
    if not schema.exists():
        pytest.skip("needs the schema of KubeRay's RayJob: ../shared/schemas/rayjob-v1.schema.json")
    jsonschema.validate(rayjob(name), json.loads(schema.read_text()))


@pytest.mark.parametrize("name", JOBS)
def test_versions_are_those_of_the_package(name):
    job = rayjob(name)
    images = {container["image"] for container in containers(job)}
    assert len(images) == 1
    assert images.pop().rpartition(":")[2] == PROJECT["version"]
    assert job["spec"]["rayClusterSpec"]["rayVersion"] == pinned()["ray"]


@pytest.mark.parametrize("cloud", CLOUDS)
def test_the_launcher_uses_the_image_of_the_overlay(cloud):
    [image] = {container["image"] for container in containers(rayjob(cloud))}
    assert launcher(cloud)["docker"]["image"] == image


@pytest.mark.parametrize("name", JOBS)
def test_the_entrypoint_is_one_that_the_command_takes(name):
    (program, script), given = flags(rayjob(name)["spec"]["entrypoint"])
    assert program == "python"
    assert (ROOT / script).exists()
    names = {flag.removeprefix("--").replace("-", "_"): value for flag, value in given.items()}
    known = ExplainConfig.__dataclass_fields__
    ExplainConfig(
        **{name: float(value) if "float" in str(known[name].type) else value for name, value in names.items()}
    )
    assert "overwrite" not in names  # each attempt would start anew


@pytest.mark.parametrize("cloud", CLOUDS)
def test_an_overlay_changes_what_is_of_its_cloud_alone(cloud):
    base, overlay = rayjob(), rayjob(cloud)
    assert overlay["spec"]["entrypoint"] == base["spec"]["entrypoint"].replace("s3://", f"{CLOUDS[cloud]}://")
    for name, group in groups(overlay).items():
        changed = pod(group) | {"containers": None, "nodeSelector": None, "terminationGracePeriodSeconds": None}
        before = pod(groups(base)[name])
        assert changed == before | {"containers": None, "nodeSelector": None, "terminationGracePeriodSeconds": None}
    accounts = [found for found in kustomized(KUBERAY / cloud) if found["kind"] == "ServiceAccount"]
    assert [account["metadata"]["annotations"].keys() for account in accounts]


@pytest.mark.parametrize("name", JOBS)
def test_pods_hold_what_runs_in_them(name):
    job = rayjob(name)
    _, given = flags(job["spec"]["entrypoint"])
    low, high = actor_range(given["--actors"])
    gpus_per_actor = float(given["--gpus-per-actor"])
    found = groups(job)
    head, gpu = found["head"], found["gpu-spot"]
    assert head["rayStartParams"]["num-cpus"] == "0"
    assert low == gpu["maxReplicas"] * float(gpu["rayStartParams"]["num-gpus"]) / gpus_per_actor == high
    for group in found.values():
        [container] = pod(group)["containers"]
        resources = container["resources"]
        assert resources["requests"] == resources["limits"]
        assert resources["limits"].get("nvidia.com/gpu", "0") == group["rayStartParams"].get("num-gpus", "0")
        assert pod(group)["serviceAccountName"] == "sess-ray"
        assert {"containerPort": 8080, "name": "metrics"} in container["ports"]
        # Ray leaves about a third of the memory to objects by itself: more is taken from what actors and tasks need.
        store = int(group["rayStartParams"]["object-store-memory"])
        assert store <= amount(resources["limits"]["memory"]) * 0.36
        if group is head:
            continue
        cpus = amount(resources["limits"]["cpu"])
        actors = int(float(group["rayStartParams"]["num-gpus"]) / gpus_per_actor)
        tasks = (cpus - actors) / TASK_CPUS
        assert cpus - actors >= SPARE_CPUS
        assert store >= 2 * (tasks + 4 * actors) * BLOCK_BYTES  # in and out of each task, and of those that wait
        env = {entry["name"]: entry["value"] for entry in container["env"]}
        assert float(env["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"]) < pod(group)["terminationGracePeriodSeconds"]


@pytest.mark.parametrize("cloud", CLOUDS)
def test_the_launched_cluster_is_of_the_same_shape(cloud):
    settings, job = launcher(cloud), groups(rayjob(cloud))
    types = settings["available_node_types"]
    assert types["head"]["resources"] == {"CPU": 0}
    assert types["gpu-spot"]["max_workers"] == settings["max_workers"] == job["gpu-spot"]["maxReplicas"]
    assert types["gpu-spot"]["resources"]["GPU"] == int(job["gpu-spot"]["rayStartParams"]["num-gpus"])
    for kind, group in (("head", "head"), ("worker", "gpu-spot")):
        start = settings[f"{kind}_start_ray_commands"][-1]
        assert f"--object-store-memory={job[group]['rayStartParams']['object-store-memory']}" in start
        assert "--metrics-export-port=8080" in start
    assert f"cd {workdir()};" in settings["head_start_ray_commands"][-1]


def workdir():
    return re.findall(r"^WORKDIR (.+)$", DOCKERFILE.read_text(), re.MULTILINE)[-1]


def test_policies_allow_what_is_used_and_no_more():
    policies = {path.name: json.loads(path.read_text()) for path in (INFRA / "policies").glob("*.json")}
    for name, policy in policies.items():
        if name.startswith("aws"):
            assert policy["Version"] == "2012-10-17"
            assert all(statement["Effect"] == "Allow" for statement in policy["Statement"])
            assert "*" not in [action for statement in policy["Statement"] for action in listed(statement["Action"])]
        else:
            assert policy.keys() == {"title", "description", "stage", "includedPermissions"}
    allowed = {
        (action, statement["Resource"])
        for statement in policies["aws-bucket.json"]["Statement"]
        for action in listed(statement["Action"])
    }
    images, maps = "arn:aws:s3:::BUCKET/images/*", "arn:aws:s3:::BUCKET/saliency/*"
    assert {action for action, place in allowed if place == images} == {"s3:GetObject"}
    assert {("s3:PutObject", maps), ("s3:GetObject", maps), ("s3:DeleteObject", maps)} < allowed


def listed(value):
    return value if isinstance(value, list) else [value]


def test_the_dockerfile_passes_its_linter():
    linter = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([linter, DOCKERFILE], capture_output=True, text=True, check=False)
    assert not done.returncode, done.stdout + done.stderr


def test_the_image_holds_what_it_is_built_from():
    text = DOCKERFILE.read_text()
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    sources = [name for line in re.findall(r"^COPY (?!--)(.+) \S+$", text, re.MULTILINE) for name in line.split()]
    assert sources
    for name in sources:
        assert (ROOT / name).exists()
        assert f"!{name}" in ignore
    assert re.search(r"^USER (?!0$)\d+$", text, re.MULTILINE)
    assert f"sess-ray:{PROJECT['version']}" in text


def pinned():
    return dict(re.findall(r"^([a-z0-9.-]+)==(\S+)", LOCK.read_text(), re.MULTILINE))


def test_the_lock_is_whole():
    text = LOCK.read_text()
    entries = re.split(r"^(?=[a-z0-9])", text.partition("\n#")[2].partition("\n")[2], flags=re.MULTILINE)
    assert all("--hash=sha256:" in entry for entry in entries if entry.strip())
    assert "://" not in text
    command = text.splitlines()[1]
    extras = re.findall(r"--extra (\S+)", command)
    asked = [*PROJECT["dependencies"], *(one for extra in extras for one in PROJECT["optional-dependencies"][extra])]
    asked += [line for line in (INFRA / "docker" / "requirements.in").read_text().splitlines() if line[0] != "#"]
    found = pinned()
    for requirement in map(Requirement, asked):
        name = canonicalize_name(requirement.name)
        assert requirement.specifier.contains(found[name]), f"{name}: lock again\n{command}"
    [python] = set(re.findall(r"python[:=](\d\.\d+)", DOCKERFILE.read_text()))
    assert f"--python-version {python}" in command
