"""ONNX parity in full: every learner with every calibration through a whole walk-forward on daily bars, unpublished.

In each window the chosen configuration's graph is held to its source on every ready test row, as in any run; what the
run would refuse (a row off by more than 1e-5, or on the other side of the threshold) stops it with an error.
"""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.table import Table

from tickgate_training.calibration import Kind
from tickgate_training.config import TrainingConfig, load_config
from tickgate_training.export import PARITY_TOLERANCE
from tickgate_training.pipeline import Options, run

CONFIG = Path(__file__).resolve().parents[1] / "training" / "configs" / "daily.toml"
LEARNERS: dict[str, dict[str, Any]] = {
    "lightgbm": {"trees": 60, "leaves": 7, "learning_rate": 0.05},
    "logistic": {"c": 0.1},
    "random_forest": {"trees": 30, "depth": 5},
    "gradient_boosting": {"trees": 30},
    "mlp": {"iterations": 60},
    "sgd_logistic": {},
}
CALIBRATIONS: tuple[Kind, ...] = ("platt", "isotonic", "none")


def configurations(folder: Path, data: str | None = None) -> Iterator[tuple[str, Kind, TrainingConfig]]:
    """Every learner with every calibration, as the example for daily bars has the rest."""
    for kind, parameters in LEARNERS.items():
        for how in CALIBRATIONS:
            plain = load_config(CONFIG, data=data, runs=folder / "runs", models=folder / "models")
            document = plain.model_dump(mode="json")
            document |= {"learners": [{"kind": kind} | parameters], "calibration": how}
            yield kind, how, TrainingConfig.model_validate(document)


def parity(data: str | None = None) -> Table:
    """Windows, rows and the largest difference of graph and source, for each."""
    table = Table(title=f"ONNX parity over whole walk-forwards, at most {PARITY_TOLERANCE:g} allowed")
    for heading in ("learner", "calibration", "windows", "calibrated", "rows", "largest |ONNX - source|", "s"):
        table.add_column(heading, justify="left" if heading in {"learner", "calibration"} else "right")
    with tempfile.TemporaryDirectory(prefix="tickgate-bench-parity-") as name:
        for kind, how, config in configurations(Path(name), data):
            started = time.perf_counter()
            windows = run(config, Options(publish=False)).windows
            table.add_row(
                kind,
                how,
                f"{len(windows)}",
                f"{sum(not window.calibration_identity for window in windows)}",
                f"{sum(window.parity_rows for window in windows):,}",
                f"{max(window.parity_difference for window in windows if window.parity_rows):.1e}",
                f"{time.perf_counter() - started:.0f}",
            )
    return table
