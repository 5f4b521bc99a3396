"""The files of infra/, as those read them who use them."""

from __future__ import annotations

import shlex
from pathlib import Path

import jsonpatch
import yaml

ROOT = Path(__file__).parents[2]
INFRA = ROOT / "infra"
KUBERAY = INFRA / "kuberay"


def rayjob(name="base"):
    """Return the RayJob of the base or of an overlay."""
    [found] = [resource for resource in kustomized(KUBERAY / name) if resource["kind"] == "RayJob"]
    return found


def kustomized(folder):
    """Return the resources of a kustomization, as far as ours go: resources, images and JSON patches."""
    settings = yaml.safe_load((folder / "kustomization.yaml").read_text())
    assert settings.keys() <= {"apiVersion", "kind", "resources", "images", "patches"}, settings.keys()
    resources = []
    for name in settings["resources"]:
        place = folder / name
        resources += kustomized(place) if place.is_dir() else yaml.safe_load_all(place.read_text())
    for patch in settings.get("patches", []):
        kind, name = patch["target"]["kind"], patch["target"]["name"]
        chosen = [
            n
            for n, resource in enumerate(resources)
            if (resource["kind"], resource["metadata"]["name"]) == (kind, name)
        ]
        assert chosen, f"nothing to patch: {patch['target']}"
        for n in chosen:
            resources[n] = jsonpatch.apply_patch(resources[n], yaml.safe_load(patch["patch"]))
    for image in settings.get("images", []):
        for container in containers(resources):
            if container["image"].partition(":")[0] == image["name"]:
                container["image"] = f"{image['newName']}:{image['newTag']}"
    return resources


def containers(found):
    """Return the containers anywhere in resources."""
    if isinstance(found, list):
        return [container for item in found for container in containers(item)]
    if not isinstance(found, dict):
        return []
    here = found.get("containers", []) if isinstance(found.get("containers"), list) else []
    return here + containers([value for key, value in found.items() if key != "containers"])


def flags(entrypoint):
    """Return the program of an entrypoint and its flags, each of which has a value."""
    program, script, *given = shlex.split(entrypoint)
    return [program, script], dict(zip(given[::2], given[1::2], strict=True))


def groups(job):
    """Return the pods' templates and Ray parameters of a RayJob by the group's name."""
    cluster = job["spec"]["rayClusterSpec"]
    workers = {group["groupName"]: group for group in cluster["workerGroupSpecs"]}
    return {"head": cluster["headGroupSpec"], **workers}


def pod(group):
    return group["template"]["spec"]


def amount(text):
    """Return a quantity of Kubernetes as a number.

    >>> amount("3"), amount("2Gi")
    (3.0, 2147483648.0)
    """
    units = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
    return float(text[:-2]) * units[text[-2:]] if text[-2:] in units else float(text)
