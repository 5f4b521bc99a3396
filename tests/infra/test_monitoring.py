"""The dashboard and the alerts speak of metrics that there are, and the alerts ring when they should."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import promql_parser
import pytest
import ray
import yaml

from sess_ray.pipeline.explain.metering import METRICS, STAGES, exported
from tests.infra.files import INFRA, ROOT

RULES = yaml.safe_load((INFRA / "monitoring" / "alerts.yaml").read_text())["spec"]
DASHBOARD = json.loads((INFRA / "monitoring" / "dashboard.json").read_text())
OURS = set(map(exported, METRICS))
RECORDED = {rule["record"] for group in RULES["groups"] for rule in group["rules"] if "record" in rule}


def alerts():
    return [rule["expr"] for group in RULES["groups"] for rule in group["rules"]]


def panels():
    queries = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    return [query.replace("$__rate_interval", "5m").replace("$__range", "3h") for query in queries]


@pytest.mark.parametrize("query", [*alerts(), *panels()])
def test_a_query_asks_for_what_there_is(query):
    promql_parser.parse(query)
    names = set(re.findall(r"\b(?:ray|sess)[_:][a-z_]+", query))
    of_ray = {f"ray_{name}" for name in rays_own()}
    assert names
    assert names <= OURS | RECORDED | of_ray
    assert set(re.findall(r'stage="(\w+)"', query)) <= set(STAGES)


def rays_own():
    """Return the metrics of each node, by the code of the installed Ray."""
    agent = Path(ray.__file__).parent / "dashboard" / "modules" / "reporter" / "reporter_agent.py"
    return re.findall(r'Gauge\(\s*"(\w+)"', agent.read_text())


def test_all_metrics_are_shown_and_told_of():
    shown = " ".join(panels() + alerts())
    told = (ROOT / "docs" / "cluster.md").read_text()
    for name in OURS:
        assert name in shown
        assert f"`{name}`" in told


def test_panels_do_not_overlap():
    taken = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        assert place["x"] + place["w"] <= 24
        taken |= cells


def series(name, values, **labels):
    inside = ",".join(f'{key}="{value}"' for key, value in labels.items())
    return {"series": f"{name}{{{inside}}}", "values": values}


HOUR = 60  # minutes
CASES = {
    "all is well": (
        [
            series("ray_sess_running", f"1x{HOUR}"),
            series("ray_sess_images_total", f"0+60x{HOUR}"),
            series("ray_sess_errors_total", f"0+1x{HOUR}", stage="decode"),
            series("ray_node_gpus_utilization", f"90x{HOUR}"),
        ],
        [],
    ),
    "nothing comes": ([series("ray_sess_running", f"1x{HOUR}")], ["SessRayStalled"]),
    "it stops to come": (
        [series("ray_sess_running", f"1x{HOUR}"), series("ray_sess_images_total", f"0+60x10 600x{HOUR}")],
        ["SessRayStalled"],
    ),
    "no run": ([series("ray_sess_running", f"0x{HOUR}"), series("ray_node_gpus_utilization", f"0x{HOUR}")], []),
    "errors": (
        [
            series("ray_sess_running", f"1x{HOUR}"),
            series("ray_sess_images_total", f"0+60x{HOUR}"),
            series("ray_sess_errors_total", f"0+30x{HOUR}", stage="read"),
        ],
        ["SessRayErrors"],
    ),
    "errors alone": (
        [series("ray_sess_running", f"1x{HOUR}"), series("ray_sess_errors_total", f"0+30x{HOUR}", stage="read")],
        ["SessRayErrors"],
    ),
    "idle GPUs": (
        [
            series("ray_sess_running", f"1x{HOUR}"),
            series("ray_sess_images_total", f"0+60x{HOUR}"),
            series("ray_node_gpus_utilization", f"2x{HOUR}", GpuIndex="0"),
        ],
        ["SessRayGpusIdle"],
    ),
}


@pytest.mark.skipif(not shutil.which("promtool"), reason="needs promtool, of Debian's package prometheus")
def test_alerts_ring_when_they_should(tmp_path):
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(RULES))
    names = {rule["alert"] for group in RULES["groups"] for rule in group["rules"] if "alert" in rule}
    tests = [
        {
            "name": case,
            "interval": "1m",
            "input_series": given,
            "promql_expr_test": [
                {
                    "expr": f'count(ALERTS{{alertname="{name}",alertstate="firing"}}) or vector(0)',
                    "eval_time": "50m",
                    "exp_samples": [{"labels": "{}", "value": int(name in ringing)}],
                }
                for name in sorted(names)
            ],
        }
        for case, (given, ringing) in CASES.items()
    ]
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump({"rule_files": ["rules.yaml"], "tests": tests}))
    done = subprocess.run(
        ["promtool", "test", "rules", "tests.yaml"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert not done.returncode, done.stdout + done.stderr
