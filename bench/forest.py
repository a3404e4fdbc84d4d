"""One row through a tree ensemble: the compiled forest beside ONNX Runtime with bound buffers, from Python.

Hot: the same call again and again, on changing rows. Cold: 8 MB of other memory are
written before each call. Times in microseconds, the clock's own 0.05 included.
"""

import gc
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, perf_counter_ns

import lightgbm
import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from tests.support import forests

from tickgate_server.models.forest import NotCompiled, compile_forest
from tickgate_server.models.forest_check import random_vectors, ulps_apart
from tickgate_server.models.session import Session
from tickgate_training.calibration import Platt
from tickgate_training.export import export
from tickgate_training.learners import LightGBMModel

HOT_CALLS = 20_000
COLD_CALLS = 1_000
COLD_BYTES = 8 << 20
ROWS = 1_000

Score = Callable[[NDArray[np.float32]], float]


def lightgbm_graph(trees: int, leaves: int, width: int = 10) -> bytes:
    """A binary LightGBM model with a Platt calibration, as training exports it."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20_000, width)).astype(np.float32)
    y = np.sin(3.0 * x[:, 0]) + x[:, 1] * x[:, 2] + rng.normal(size=len(x)) > 0.0
    parameters = {"objective": "binary", "num_leaves": leaves, "num_threads": 1, "verbose": -1}
    booster = lightgbm.train(parameters, lightgbm.Dataset(x, y.astype(int)), trees)
    return export(LightGBMModel(booster), Platt(1.1, 0.03))


def random_graph(shape: tuple[int, int]) -> bytes:
    """Full trees of STAC-ML's sizes."""
    forest = forests.of_shape(np.random.default_rng(1), shape)
    return forests.graph(shape[0], [forests.regressor(forest), *forests.SIGMOID])


def hot_us(score: Score, rows: list[NDArray[np.float32]]) -> NDArray[np.float64]:
    """Times of calls one after the other, [HOT_CALLS]."""
    took = np.empty(HOT_CALLS)
    for call in range(HOT_CALLS):
        row = rows[call % ROWS]
        start = perf_counter_ns()
        score(row)
        took[call] = perf_counter_ns() - start
    return took / 1e3


def cold_us(score: Score, rows: list[NDArray[np.float32]]) -> NDArray[np.float64]:
    """Times of calls after other memory was written, [COLD_CALLS]."""
    other = np.zeros(COLD_BYTES // 8)
    took = np.empty(COLD_CALLS)
    for call in range(COLD_CALLS):
        other += 1.0
        row = rows[call % ROWS]
        start = perf_counter_ns()
        score(row)
        took[call] = perf_counter_ns() - start
    return took / 1e3


def _rows(table: Table, name: str, model: bytes, width: int, folder: Path) -> None:
    start = perf_counter()
    forest = compile_forest(model, width)
    compile_s = perf_counter() - start
    if isinstance(forest, NotCompiled):
        table.add_row(name, forest.reason)
        return
    session = Session(folder / "model.onnx", model, width)
    rows = list(random_vectors(forest, np.tile([-2.0, 2.0], (width, 1)), ROWS))
    ulps = max(ulps_apart(forest.score(row), session.score(row)) for row in rows)
    size = f"{forest.nodes.size - 1:,}", f"{forest.size_bytes / 1024:,.0f}", f"{compile_s:.2f}", f"{ulps:.0f}"
    for engine, score in (("forest", forest.score), ("ONNX Runtime", session.score)):
        cells = (np.percentile(times(score, rows), (50, 99)) for times in (hot_us, cold_us))
        about = (name, *size) if engine == "forest" else ("", "", "", "", "")
        table.add_row(about[0], engine, *(f"{p:.1f}" for pair in cells for p in pair), *about[1:])


def forest_table(*, largest: bool = False) -> Table:
    """LightGBM's usual sizes and STAC-ML's; `largest`: GBT_C too, whose 4,000,000 nodes take minutes to read."""
    table = Table(title="one row through a tree ensemble, us; cold: 8 MB of other memory written before each call")
    for heading in ("model", "engine", "p50", "p99", "cold p50", "p99", "nodes", "KiB", "read in s", "ulp apart"):
        table.add_column(heading, justify="left" if heading in ("model", "engine") else "right")
    shapes = [("GBT_A", forests.GBT_A), ("GBT_B", forests.GBT_B), ("GBT_C", forests.GBT_C)]
    enabled = gc.isenabled()
    gc.disable()
    try:
        with tempfile.TemporaryDirectory() as folder:
            for leaves in (15, 31):
                _rows(table, f"LightGBM, 200 x {leaves} leaves", lightgbm_graph(200, leaves), 10, Path(folder))
            for name, shape in shapes if largest else shapes[:2]:
                _rows(table, f"{name}, {shape[0]} features", random_graph(shape), shape[0], Path(folder))
    finally:
        if enabled:
            gc.enable()
    return table
