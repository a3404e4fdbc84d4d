"""Model packages made in a moment: real graphs, real manifests, no training."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tests.support import forests

from tickgate_server.features.schema import FeatureSet, micro10
from tickgate_server.models.package import (
    INPUT_NAME,
    MANIFEST_FILE,
    OUTPUT_NAME,
    FeatureSchema,
    FeatureStatistics,
    Golden,
    Manifest,
    Output,
    Validation,
    publish,
)
from tickgate_server.models.session import Session


def logistic_onnx(weights: NDArray[np.float32], bias: float) -> bytes:
    """sigmoid(x . weights + bias), float32 [N, width] -> float32 [N, 1]."""
    width = len(weights)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", [INPUT_NAME, "weights"], ["product"]),
            helper.make_node("Add", ["product", "bias"], ["score"]),
            helper.make_node("Sigmoid", ["score"], [OUTPUT_NAME]),
        ],
        "logistic",
        [helper.make_tensor_value_info(INPUT_NAME, TensorProto.FLOAT, ["N", width])],
        [helper.make_tensor_value_info(OUTPUT_NAME, TensorProto.FLOAT, ["N", 1])],
        [
            numpy_helper.from_array(weights.reshape(-1, 1).astype(np.float32), "weights"),
            numpy_helper.from_array(np.array([bias], np.float32), "bias"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def logistic(weights: NDArray[np.float32], bias: float, inputs: NDArray[np.float32]) -> NDArray[np.float64]:
    """What `logistic_onnx` computes, in double."""
    return np.asarray(1.0 / (1.0 + np.exp(-(inputs.astype(np.float64) @ weights.astype(np.float64) + bias))))


def make_manifest(
    model: bytes, features: FeatureSet, inputs: NDArray[np.float32], outputs: NDArray[np.float64], **changes: Any
) -> Manifest:
    values: dict[str, Any] = {
        "name": "tiny",
        "version": 1,
        "created": datetime(2024, 8, 9, tzinfo=UTC),
        "model_sha256": hashlib.sha256(model).hexdigest(),
        "features": FeatureSchema(
            feature_set=features.name,
            schema_id=features.schema_id,
            names=features.features,
            session_gap_ns=features.session_gap_ns,
            fundamentals=tuple(map(asdict, features.fundamentals)),
        ),
        "output": Output(horizon_trades=5),
        "decision_threshold": 0.5,
        "feature_statistics": {
            name: FeatureStatistics(mean=0.0, std=1.0, min=-4.0, max=4.0, quantiles=(-1.0, 0.0, 1.0))
            for name in features.features
        },
        "validation": Validation(trials=1, metrics={"sharpe_net": None}),
        "allowed_regimes": ("normal", "trending", "risk_off", "high_volatility", "unknown"),
        "golden": Golden(inputs=tuple(map(tuple, inputs.tolist())), outputs=tuple(outputs.tolist())),
        "data_fingerprint": "made for a test",
        "libraries": {"onnx": onnx.__version__},
    }
    return Manifest(**(values | changes))


def publish_logistic(
    repository: Path, *, bias: float = 0.0, weight: float = 400.0, features: FeatureSet | None = None, **changes: Any
) -> Path:
    """Publish a model that follows the last return: P(up) rises with `ret_1` x `weight` + `bias`."""
    features = features or micro10()
    weights = np.zeros(features.width, np.float32)
    weights[0] = weight
    model = logistic_onnx(weights, bias)
    rows = np.random.default_rng(7).normal(0.0, 1e-3, (64, features.width)).astype(np.float32)
    return publish(repository, make_manifest(model, features, rows, logistic(weights, bias, rows), **changes), model)


def constant_onnx(*, width: int = 1, fails: bool = False, work: int = 0) -> bytes:
    """0.5 from a graph with a fault or a weight of its own, float32 [N, 10] -> float32 [N, width].

    Args:
        width: Of the output; a server takes 1.
        fails: Opens and has the declared shape, and each run looks beyond the end of a table.
        work: Numbers that each run takes the sine of before it answers.
    """
    nodes = [helper.make_node("MatMul", [INPUT_NAME, "weights"], ["zero"])]
    last = "zero"
    if fails:
        nodes += [
            helper.make_node("Add", [last, "beyond"], ["place"]),
            helper.make_node("Cast", ["place"], ["index"], to=TensorProto.INT64),
            helper.make_node("Gather", ["table", "index"], ["found"]),
        ]
        last = "found"
    if work:
        nodes += [
            helper.make_node("Expand", [last, "work"], ["wide"]),
            helper.make_node("Sin", ["wide"], ["sines"]),
            helper.make_node("ReduceSum", ["sines", "axes"], ["sum"], keepdims=1),
        ]
        last = "sum"
    nodes.append(helper.make_node("Sigmoid", [last], [OUTPUT_NAME]))
    graph = helper.make_graph(
        nodes,
        "constant",
        [helper.make_tensor_value_info(INPUT_NAME, TensorProto.FLOAT, ["N", 10])],
        [helper.make_tensor_value_info(OUTPUT_NAME, TensorProto.FLOAT, ["N", width])],
        [
            numpy_helper.from_array(np.zeros((10, width), np.float32), "weights"),
            numpy_helper.from_array(np.array([99.0], np.float32), "beyond"),
            numpy_helper.from_array(np.zeros(5, np.float32), "table"),
            numpy_helper.from_array(np.array([1, work], np.int64), "work"),
            numpy_helper.from_array(np.array([1], np.int64), "axes"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def long_onnx(nodes: int, *, numbers: int = 50_000) -> bytes:
    """0.5 from a chain of nodes that each take the sine of so many numbers, none of them 0.5 ms: it can be stopped."""
    chain = [
        helper.make_node("MatMul", [INPUT_NAME, "weights"], ["zero"]),
        helper.make_node("Expand", ["zero", "shape"], ["x0"]),
        *(helper.make_node("Sin", [f"x{node}"], [f"x{node + 1}"]) for node in range(nodes)),
        helper.make_node("ReduceSum", [f"x{nodes}", "axes"], ["sum"], keepdims=1),
        helper.make_node("Sigmoid", ["sum"], [OUTPUT_NAME]),
    ]
    graph = helper.make_graph(
        chain,
        "long",
        [helper.make_tensor_value_info(INPUT_NAME, TensorProto.FLOAT, ["N", 10])],
        [helper.make_tensor_value_info(OUTPUT_NAME, TensorProto.FLOAT, ["N", 1])],
        [
            numpy_helper.from_array(np.zeros((10, 1), np.float32), "weights"),
            numpy_helper.from_array(np.array([1, numbers], np.int64), "shape"),
            numpy_helper.from_array(np.array([1], np.int64), "axes"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def publish_model(repository: Path, model: bytes, **changes: Any) -> Path:
    """Publish a graph under a manifest that says its outputs are all 0.5."""
    rows = np.random.default_rng(7).normal(0.0, 1e-3, (64, 10)).astype(np.float32)
    return publish(repository, make_manifest(model, micro10(), rows, np.full(64, 0.5), **changes), model)


def edit_manifest(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Rewrite a published manifest, NaN and all, as `change` leaves it."""
    path = folder / MANIFEST_FILE
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def publish_forest(
    repository: Path, *, trees: int = 60, seed: int = 3, features: FeatureSet | None = None, **changes: Any
) -> Path:
    """A forest of random trees: what the server compiles."""
    features = features or micro10()
    rng = np.random.default_rng(seed)
    rows = rng.normal(0.0, 1.0, (64, features.width)).astype(np.float32)
    forest = forests.grown(rng, trees, 5, features.width)
    model = forests.graph(features.width, [forests.regressor(forest), *forests.SIGMOID])
    session = Session(Path("forest.onnx"), model, features.width)
    outputs = np.array([session.score(row) for row in rows])
    return publish(repository, make_manifest(model, features, rows, outputs, **changes), model)
