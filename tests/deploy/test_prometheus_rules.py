"""What deploy/ gives Prometheus and Grafana is what these take, and says only what the documents know."""

import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support.prometheus import promtool

from tickgate_server.observer.catalogue import GROUPS
from tickgate_server.observer.counters import BOUNDS_NS

ROOT = Path(__file__).resolve().parents[2]
PROMETHEUS, GRAFANA = ROOT / "deploy" / "prometheus", ROOT / "deploy" / "grafana"
RULE_FILES = ("tickgate.rules.yml", "tickgate.alerts.yml")
TESTS = sorted(PROMETHEUS.glob("*.test.yml"))
PANELS = {"timeseries", "stat", "heatmap", "row"}


def rules() -> list[dict[str, Any]]:
    files = [yaml.safe_load((PROMETHEUS / name).read_text()) for name in RULE_FILES]
    return [rule for file in files for group in file["groups"] for rule in group["rules"]]


def expressions() -> list[str]:
    panels = json.loads((GRAFANA / "dashboards" / "tickgate.json").read_text())["panels"]
    return [rule["expr"] for rule in rules()] + [
        target["expr"] for panel in panels for target in panel.get("targets", [])
    ]


def test_promtool_takes_the_configuration_and_the_rules() -> None:
    checked = promtool("check", "config", str(PROMETHEUS / "prometheus.yml"))
    assert checked.returncode == 0, checked.stderr
    checked = promtool("check", "rules", "--lint=all", "--lint-fatal", *(str(PROMETHEUS / name) for name in RULE_FILES))
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_rules_say_what_their_tests_say() -> None:
    checked = promtool("test", "rules", *map(str, TESTS))
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_every_alert_has_a_test_or_belongs_to_a_pair_that_has_and_its_runbook() -> None:
    tests = "".join(file.read_text() for file in TESTS)
    runbooks = (ROOT / "docs" / "runbooks.md").read_text()
    alerts = [rule for rule in rules() if "alert" in rule]
    assert [rule["alert"] for rule in alerts if f"alertname: {rule['alert']}" not in tests] == []
    for rule in alerts:
        assert rule["annotations"]["runbook_url"] == f"docs/runbooks.md#{rule['alert'].lower()}"
        assert f"\n## {rule['alert']}\n" in runbooks
        assert rule["labels"]["severity"] in {"critical", "warning"}


def test_rules_and_panels_name_metrics_that_there_are() -> None:
    known = {described.exposed for group in GROUPS.values() for described in group}
    known |= {rule["record"] for rule in rules() if "record" in rule}
    used = {name for expression in expressions() for name in re.findall(r"\btickgate[\w:]+", expression)}
    assert {name for name in used if re.sub(r"_(bucket|count|sum)$", "", name) not in known} == set()


def test_the_latency_objective_lies_on_a_bound_of_the_histogram() -> None:
    bounds = {f"{bound / 1e9:g}" for bound in BOUNDS_NS.tolist()}
    asked = {bound for expression in expressions() for bound in re.findall(r'le="([\d.e-]+)"', expression)}
    assert asked
    assert asked <= bounds


@pytest.fixture
def generator() -> dict[str, Any]:
    return runpy.run_path(str(GRAFANA / "generate.py"))


def test_the_committed_dashboard_is_what_is_generated(generator: dict[str, Any]) -> None:
    committed = json.loads((GRAFANA / "dashboards" / "tickgate.json").read_text())
    assert committed == json.loads(json.dumps(generator["dashboard"]()))


def test_the_dashboard_has_the_structure_that_grafana_documents() -> None:
    board = json.loads((GRAFANA / "dashboards" / "tickgate.json").read_text())
    assert board["uid"] == "tickgate"
    assert isinstance(board["schemaVersion"], int)
    assert {variable["name"] for variable in board["templating"]["list"]} == {"datasource", "job"}
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        assert panel["type"] in PANELS
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert max(x for x, _ in cells) < 24
        assert not cells & taken, f"{panel['title']} lies over another"
        taken |= cells
        if panel["type"] == "row":
            continue
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["targets"]
        assert [target["refId"] for target in panel["targets"]] == list("ABCDEFGH"[: len(panel["targets"])])
        assert {"defaults", "overrides"} == panel["fieldConfig"].keys()


def test_what_provisions_grafana_names_the_dashboards_folder_and_one_default_source() -> None:
    (source,) = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "prometheus.yaml").read_text())[
        "datasources"
    ]
    assert (source["type"], source["isDefault"]) == ("prometheus", True)
    provisioned = yaml.safe_load((GRAFANA / "provisioning" / "dashboards" / "tickgate.yaml").read_text())
    assert provisioned["apiVersion"] == 1
    assert [provider["type"] for provider in provisioned["providers"]] == ["file"]
