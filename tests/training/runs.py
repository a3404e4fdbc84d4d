"""Runs of the pipeline that are small enough for tests."""

from pathlib import Path

import numpy as np
import polars as pl

from tickgate_training.config import TrainingConfig, parse_config
from tickgate_training.data.simulator import simulate
from tickgate_training.pipeline import Options, run
from tickgate_training.results import RunResult

LIGHTGBM = {"kind": "lightgbm", "trees": 30, "leaves": 7}
LOGISTIC = {"kind": "logistic"}
HERE = Options(jobs=1)
UNPUBLISHED = Options(jobs=1, publish=False)


def config(folder: Path, **more: object) -> TrainingConfig:
    """Six windows of simulated ticks with an edge; what is given is put in place."""
    document: dict[str, object] = {
        "data": {"kind": "simulated", "trades": 7000, "seed": 1, "edge": 0.3},
        "package": {"name": "sim", "repository": str(folder / "models")},
        "runs": str(folder / "runs"),
        "learners": [LOGISTIC],
        "label": {"horizon_trades": 5},
        "walk_forward": {"train_rows": 2000, "validation_rows": 800, "test_rows": 700, "embargo_rows": 10},
        "policy": {"decide_every_rows": 5, "risk_budget": 1000.0, "round_trips_minimum": 10},
    }
    return parse_config(document | more)


def short_run(folder: Path, options: Options = HERE, **more: object) -> RunResult:
    """A run of `config`, in this process."""
    return run(config(folder, **more), options)


def panel(symbols: str = "ABC", rows: int = 1500, edge: float = 0.44) -> pl.DataFrame:
    """Simulated ticks of several symbols: the second begins later, the last one pauses."""
    frames = [simulate(rows, seed=seed, edge=edge, symbol=name) for seed, name in enumerate(symbols)]
    frames[1] = frames[1].slice(rows // 3)
    frames[-1] = frames[-1].filter(~pl.int_range(pl.len()).is_between(rows // 2, rows // 2 + 100))
    return pl.concat(frames)


def same_series(one: RunResult, other: RunResult) -> bool:
    """Whether two runs found the same to the bit, trial by trial."""
    pairs = zip(
        [one.selected, *(trial.series for trial in one.trials)],
        [other.selected, *(trial.series for trial in other.trials)],
        strict=True,
    )
    return one.windows == other.windows and all(
        np.array_equal(a.result.net.view(np.int64), b.result.net.view(np.int64)) for a, b in pairs
    )
