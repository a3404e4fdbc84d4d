"""Combinatorial purged cross-validation as the report's document has it: a figure's distribution over the paths."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tickgate_training.metrics import Metrics
from tickgate_training.report.plain import metrics_section, section
from tickgate_training.results import Paths, PathTrial

DISTRIBUTED = ("sharpe", "total_return_summed", "max_drawdown")
"""The metrics whose distribution is told."""


def paths_section(paths: Paths) -> dict[str, Any]:
    """What a program wants of the paths: each one's metrics, and how far they lie apart."""
    sizes = {
        "splits": paths.splits,
        "paths": len(paths.selected),
        "fewest_train_rows": paths.fewest_train_rows,
        "parity_difference": paths.parity_difference,
        "parity_rows": paths.parity_rows,
    }
    return section(sizes, {"parity_difference": "no test row is ready"}) | {
        "by_path": [metrics_section(metrics) for metrics in paths.selected],
        "selected": _distributions(paths.selected),
        "trials": [_trial(trial) for trial in paths.trials],
    }


def _trial(trial: PathTrial) -> dict[str, Any]:
    return {
        "number": trial.configuration,
        "chosen_splits": trial.chosen_splits,
        "net": _distributions(trial.net),
    }


def _distributions(paths: Sequence[Metrics]) -> dict[str, Any]:
    return {name: _distribution(np.array([getattr(metrics, name) for metrics in paths])) for name in DISTRIBUTED}


def _distribution(values: NDArray[np.float64]) -> dict[str, Any]:
    """Over the paths where the figure is defined; the standard deviation with ddof 1."""
    known = values[np.isfinite(values)]
    if known.size:
        least, lower, median, upper, greatest = np.quantile(known, (0.0, 0.25, 0.5, 0.75, 1.0)).tolist()
        mean, above = float(known.mean()), float((known > 0.0).mean())
    else:
        least = lower = median = upper = greatest = mean = above = np.nan
    found = {
        "defined_paths": int(known.size),
        "mean": mean,
        "std": float(known.std(ddof=1)) if known.size > 1 else np.nan,
        "least": least,
        "lower": lower,
        "median": median,
        "upper": upper,
        "greatest": greatest,
        "positive_share": above,
    }
    none = "it is defined on no path"
    return section(found, {} if known.size == 0 else {"std": "it is defined on one path only"}, none)
