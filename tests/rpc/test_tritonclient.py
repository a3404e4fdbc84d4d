"""Triton's own Python client, unmodified and in a process of its own, over both transports."""

import json
import os
import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from tests.support.processes import Served

pytestmark = pytest.mark.skipif(find_spec("tritonclient") is None, reason="it needs protobuf < 7")

SESSION = Path(__file__).with_name("triton_session.py")


@pytest.fixture(scope="module")
def seen(inferring: Served, inference_repository: Path) -> dict[str, Any]:
    """What one session saw."""
    rows = str(inference_repository / "lightgbm-rows.npz")
    found = subprocess.run(
        [sys.executable, str(SESSION), inferring.service, inferring.admin, rows],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
    )
    assert found.returncode == 0, found.stderr
    result: dict[str, Any] = json.loads(found.stdout)
    return result


def test_it_is_the_client_of_the_second_line(seen: dict[str, Any]) -> None:
    assert seen["client"].startswith("2.")


def test_it_finds_the_server_live_and_ready_and_knows_who_it_is(seen: dict[str, Any]) -> None:
    assert seen["live"] is True
    assert seen["ready"] is True
    assert seen["server"] == {
        "name": "tickgate",
        "version": version("tickgate"),
        "extensions": ["model_configuration", "statistics", "parameters", "binary_tensor_data", "model_repository"],
    }


def test_it_finds_which_models_and_versions_are_ready(seen: dict[str, Any]) -> None:
    assert seen["model_ready"] == [True, True, False, False]
    assert seen["versions"] == ["1", "2", "10"]


def test_it_reads_what_a_model_takes_and_gives(seen: dict[str, Any]) -> None:
    whole = {"datatype": "INT32", "shape": ["-1", "16"]}
    assert seen["metadata"] == {
        "name": "simple",
        "versions": ["1"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "INPUT0", **whole}, {"name": "INPUT1", **whole}],
        "outputs": [{"name": "OUTPUT0", **whole}, {"name": "OUTPUT1", **whole}],
    }


def test_it_reads_how_a_model_is_served(seen: dict[str, Any]) -> None:
    config = seen["config"]
    assert (config["name"], config["platform"], config["backend"]) == ("batched", "onnxruntime_onnx", "onnxruntime")
    assert config["max_batch_size"] == 8
    assert [(one["name"], one["data_type"], one["dims"]) for one in config["input"]] == [
        ("INPUT0", "TYPE_FP32", ["4"]),
        ("INPUT1", "TYPE_FP32", ["4"]),
    ]
    assert [one["name"] for one in config["output"]] == ["OUTPUT0", "OUTPUT1"]
    assert config["version_policy"] == {"latest": {"num_versions": 1}}
    assert config["instance_group"] == [{"name": "batched", "count": 2, "kind": "KIND_CPU"}]


def test_it_reads_what_a_model_has_done(seen: dict[str, Any]) -> None:
    (found,) = seen["statistics"]
    assert (found["name"], found["version"]) == ("counted", "1")
    assert (found["inference_count"], found["execution_count"]) == ("3", "3")
    stages = found["inference_stats"]
    assert {
        name: stages[name]["count"] for name in ("success", "queue", "compute_input", "compute_infer")
    } == dict.fromkeys(("success", "queue", "compute_input", "compute_infer"), "3")
    parts = sum(int(stages[name]["ns"]) for name in ("queue", "compute_input", "compute_infer", "compute_output"))
    assert 0 < parts <= int(stages["success"]["ns"])


def test_it_infers_and_gets_its_id_and_the_outputs_in_its_order(seen: dict[str, Any]) -> None:
    assert seen["sync"] == ["seven", "1", ["OUTPUT1", "OUTPUT0"]]


def test_it_infers_asynchronously(seen: dict[str, Any]) -> None:
    assert seen["async"] == 20


def test_it_gets_lightgbms_own_probabilities_from_a_package(seen: dict[str, Any]) -> None:
    assert seen["lightgbm"] <= 1e-5


def test_it_sends_and_gets_strings_and_halves(seen: dict[str, Any]) -> None:
    assert seen["strings"] == ["é", "", "long " * 20]
    assert seen["half"] == [[0.5, -2.0]]


def test_its_errors_are_those_it_knows(seen: dict[str, Any]) -> None:
    assert seen["unknown"] == ["StatusCode.NOT_FOUND", "Request for unknown model: 'nowhere' is not found"]
    code, message = seen["width"]
    assert code == "StatusCode.INVALID_ARGUMENT"
    assert message == "unexpected shape for input 'INPUT0' for model 'simple'. Expected [-1,16], got [1,15]"
    code, message = seen["client_timeout"]
    assert code == "StatusCode.DEADLINE_EXCEEDED"
    assert message.startswith("Deadline Exceeded")  # whoever notices first, its gRPC or the server


def test_it_unloads_and_loads_a_model_on_the_admin_listener_alone(seen: dict[str, Any]) -> None:
    control = seen["control"]
    assert control["before"] == control["loaded"] == ["1", "READY", "", True]
    assert control["unloaded"] == ["1", "UNAVAILABLE", "unloaded", False]
    assert control["refused"] == [
        "StatusCode.NOT_FOUND",
        "Request for unknown model: 'swapped' has no available versions",
    ]
    code, message = control["missing"]
    assert code == "StatusCode.INTERNAL"
    assert message.startswith("failed to load 'nowhere', failed to poll from model repository")
    assert seen["elsewhere"] == "StatusCode.UNIMPLEMENTED"
