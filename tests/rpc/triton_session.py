"""What an unmodified tritonclient sees of a server; a process of its own, without tickgate in it.

    python triton_session.py SERVICE ADMIN ROWS

Prints one JSON object; an unexpected error ends it.
"""

import json
import queue
import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException


def tensor(name: str, array: Any, datatype: str) -> Any:
    found = triton.InferInput(name, array.shape, datatype)
    found.set_data_from_numpy(array)
    return found


def add_sub_inputs(width: int = 16, rows: int = 1) -> tuple[Any, Any, list[Any]]:
    array = np.arange(rows * width, dtype=np.int32).reshape(rows, width)
    ones = np.ones((rows, width), np.int32)
    return array, ones, [tensor("INPUT0", array, "INT32"), tensor("INPUT1", ones, "INT32")]


def sync(client: Any) -> list[Any]:
    first, second, inputs = add_sub_inputs(rows=3)
    outputs = [triton.InferRequestedOutput("OUTPUT1"), triton.InferRequestedOutput("OUTPUT0")]
    result = client.infer("simple", inputs, request_id="seven", outputs=outputs, timeout=10_000_000)
    np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), first + second)
    np.testing.assert_array_equal(result.as_numpy("OUTPUT1"), first - second)
    response = result.get_response()
    return [response.id, response.model_version, [output.name for output in response.outputs]]


def asynchronous(client: Any) -> int:
    first, second, inputs = add_sub_inputs()
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    for _ in range(20):
        client.async_infer("simple", inputs, callback=lambda result, error: answers.put((result, error)))
    for _ in range(20):
        result, error = answers.get(timeout=30)
        if error is not None:
            raise error
        np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), first + second)
    return 20


def lightgbm(client: Any, path: str) -> float:
    data = np.load(path)
    result = client.infer("lightgbm", [tensor("features", data["rows"], "FP32")])
    return float(np.abs(result.as_numpy("probability_up")[:, 0] - data["expected"]).max())


def strings(client: Any) -> list[str]:
    array = np.array([["é", "", "long " * 20]], dtype=np.object_)
    found = client.infer("identity_BYTES", [tensor("x", array, "BYTES")]).as_numpy("y")
    return [value.decode() for value in found.flat]


def half(client: Any) -> Any:
    array = np.array([[0.5, -2.0]], np.float16)
    return client.infer("identity_FP16", [tensor("x", array, "FP16")]).as_numpy("y").tolist()


def refused(call: Callable[..., Any], *arguments: Any, **named: Any) -> list[str]:
    try:
        call(*arguments, **named)
    except InferenceServerException as error:
        return [error.status(), error.message()]
    raise AssertionError("expected a refusal")


def control(admin: Any, client: Any) -> dict[str, Any]:
    """Unload and load again, by its repository calls."""
    states: dict[str, Any] = {}

    def look(when: str) -> None:
        entry = next(model for model in admin.get_model_repository_index().models if model.name == "swapped")
        states[when] = [entry.version, entry.state, entry.reason, client.is_model_ready("swapped")]

    look("before")
    admin.unload_model("swapped", unload_dependents=False)
    look("unloaded")
    states["refused"] = refused(client.infer, "swapped", add_sub_inputs()[2])
    admin.load_model("swapped")
    look("loaded")
    client.infer("swapped", add_sub_inputs()[2])
    states["missing"] = refused(admin.load_model, "nowhere")
    return states


def main(service: str, admin_address: str, rows: str) -> dict[str, Any]:
    client = triton.InferenceServerClient(service)
    admin = triton.InferenceServerClient(admin_address)
    for _ in range(3):
        client.infer("counted", add_sub_inputs(rows=2)[2])
    return {
        "client": version("tritonclient"),
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model_ready": [
            client.is_model_ready("simple"), client.is_model_ready("simple", "1"), client.is_model_ready("simple", "2"),
            client.is_model_ready("nowhere"),
        ],
        "server": client.get_server_metadata(as_json=True),
        "metadata": client.get_model_metadata("simple", as_json=True),
        "versions": list(client.get_model_metadata("versioned").versions),
        "config": client.get_model_config("batched", as_json=True)["config"],
        "statistics": client.get_inference_statistics("counted", as_json=True)["model_stats"],
        "sync": sync(client),
        "async": asynchronous(client),
        "lightgbm": lightgbm(client, rows),
        "strings": strings(client),
        "half": half(client),
        "unknown": refused(client.infer, "nowhere", add_sub_inputs()[2]),
        "width": refused(client.infer, "simple", add_sub_inputs(width=15)[2]),
        "client_timeout": refused(
            client.infer, "long", [tensor("x", np.zeros((1, 1), np.float32), "FP32")], client_timeout=0.05
        ),
        "control": control(admin, client),
        "elsewhere": refused(client.get_model_repository_index)[0],
    }  # fmt: skip


if __name__ == "__main__":
    json.dump(main(*sys.argv[1:]), sys.stdout)
