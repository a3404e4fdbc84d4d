"""A run's results for programs: plain JSON, the same bytes for the same run.

Nothing in it depends on when or where the run was made: no wall-clock time, no folder, no version number that the
repository gave. Keys are sorted and floats written so that they read back to the same bits. What is undefined or
infinite is null, and `undefined` beside it says why, by the name of its key.
"""

import json
import math
import platform
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tickgate_server.models.verdict import CHECKS, Check, CheckName, PromotionVerdict, failures
from tickgate_training.report.diagnostics import plateau, reliability
from tickgate_training.report.paths_section import paths_section
from tickgate_training.report.plain import metrics_section, section
from tickgate_training.results import Baseline, Overfitting, RunResult, Series, Spread, Trial, WindowResult

FORMAT_VERSION = 1
ONE_SERIES = "there is one series only, no draws to rank it among"
_LIBRARIES = (
    "tickgate",
    "lightgbm",
    "matplotlib",
    "numba",
    "numpy",
    "onnx",
    "onnxmltools",
    "onnxruntime",
    "optuna",
    "polars",
    "scikit-learn",
    "scipy",
    "skl2onnx",
)


def document(result: RunResult) -> dict[str, Any]:
    """Everything a program wants of a run.

    Args:
        result: Of the run.

    Returns:
        Of dicts, lists, strings, booleans, integers, finite floats and None; `undefined` beside a None says why.
    """
    found: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "run": _run(result),
        "configuration": result.config.model_dump(mode="json"),
        "libraries": {"python": platform.python_version()} | {name: version(name) for name in _LIBRARIES},
        "verdict": _verdict(result.verdict),
        "suspicions": [section(asdict(doubt) | {"reason": str(doubt.reason)}) for doubt in result.suspicions],
        "selected": _series(result.selected),
        "baselines": [_baseline(baseline, result.verdict) for baseline in result.baselines],
        "costs": _costs(result),
        "windows": [_window(window) for window in result.windows],
        "trials": [_trial(trial) for trial in result.trials],
        "overfitting": _overfitting(result.overfitting),
        "thresholds": _thresholds(result),
        "calibration": _calibration(result),
        "importance": _importance(result),
        "psi": _psi(result),
    }
    if result.paths is not None:
        found["paths"] = paths_section(result.paths)
    if result.published is not None:
        found["model"] = _model(result)
    return found


def encode(found: Mapping[str, Any]) -> bytes:
    """The document as JSON, UTF-8."""
    return (json.dumps(found, sort_keys=True, indent=1, allow_nan=False, ensure_ascii=False) + "\n").encode()


def _run(result: RunResult) -> dict[str, Any]:
    stamps_ns = result.selected.stamps_ns
    return {
        "symbols": list(result.symbols),
        "rows": result.rows,
        "fingerprint": result.fingerprint,
        "feature_names": list(result.feature_names),
        "windows": len(result.windows),
        "trials": len(result.trials),
        "periods": int(stamps_ns.size),
        "test_start_ns": min(window.test_start_ns for window in result.windows),
        "test_stop_ns": max(window.test_stop_ns for window in result.windows),
    }


def _verdict(verdict: PromotionVerdict) -> dict[str, Any]:
    there = {check.name for check in verdict.checks}
    found: dict[str, Any] = {
        "passed": verdict.passed,
        "promotable": verdict.promotable,
        "checks": [_check(check) for check in verdict.checks],
        "missing": [str(name) for name in failures(verdict.checks) if name not in there],
    }
    if verdict.override is not None:
        found["override"] = verdict.override.model_dump(mode="json")
    return found


def _check(check: Check) -> dict[str, Any]:
    rule = CHECKS[check.name]
    values = {
        "name": str(check.name),
        "meaning": rule.meaning,
        "required": rule.required,
        "at_least": rule.at_least,
        "passed": check.passed,
        "why": check.why,
    }
    numbers = {
        name: math.nan if value is None else value for name, value in (("value", check.value), ("limit", check.limit))
    }
    return section(values | numbers, otherwise=check.why)


def _spread(spread: Spread) -> dict[str, Any]:
    return section(asdict(spread), {"std": "fewer than two windows"})


def _series(series: Series) -> dict[str, Any]:
    shares = {"accuracy": series.accuracy, "majority_accuracy": series.majority_accuracy}
    return section(shares, otherwise="no test row has both a prediction and a label") | {
        "gross": metrics_section(series.gross),
        "net": metrics_section(series.net),
        "spread": _spread(series.spread),
    }


def _baseline(baseline: Baseline, verdict: PromotionVerdict) -> dict[str, Any]:
    drawn = next((check for check in verdict.checks if check.name == CheckName.RANDOM_P_VALUE), None)
    why = drawn.why if drawn is not None and baseline.name.startswith("random") else ONE_SERIES
    values = {"name": baseline.name, "p_value": baseline.p_value}
    return section(values, otherwise=why) | {"net": metrics_section(baseline.net)}


def _costs(result: RunResult) -> dict[str, Any]:
    series = result.selected
    paid = float((series.result.gross - series.result.net).sum())
    traded = float(series.result.traded.sum())
    charged = {
        "paid": paid,
        "traded": traded,
        "paid_bps": paid / traded * 1e4 if traded > 0.0 else math.nan,
        "settings": result.config.costs,
    }
    return section(charged, {"paid_bps": "nothing was traded"} if traded == 0.0 else {})


def _window(window: WindowResult) -> dict[str, Any]:
    reasons = {
        "accuracy": "no test row has both a prediction and a label",
        "parity_difference": "no test row is ready",
    }
    return section(asdict(window), reasons)


def _trial(trial: Trial) -> dict[str, Any]:
    values = {
        "number": trial.configuration.number,
        # What was tried, not where it was searched for: that stands in the configuration.
        "learner": trial.configuration.learner.model_dump(mode="json", exclude={"search"}, exclude_none=True),
        "validation_net_return": trial.validation_net_return,
        "chosen_windows": trial.chosen_windows,
    }
    return section(values) | {"series": _series(trial.series)}


def _overfitting(found: Overfitting) -> dict[str, Any]:
    values = {
        "trials": found.trials,
        "trials_variance": found.trials_variance,
        "sharpe": found.sharpe,
        "pbo": found.pbo,
        "logits": found.logits,
    }
    return section(values, found.undefined) | {"statistics": section(found.statistics, found.undefined)}


def _thresholds(result: RunResult) -> dict[str, Any]:
    laid = plateau(result.diagnostics.curves)
    few = "fewer than a quarter of the windows have candidates on both sides"
    return {
        "curves": [
            section({"window": curve.window, "thresholds": curve.thresholds, "net_returns": curve.net_returns})
            for curve in result.diagnostics.curves
        ],
        "plateau": section(asdict(laid), dict.fromkeys(("median", "lower", "upper"), few)),
    }


def _calibration(result: RunResult) -> dict[str, Any]:
    found = reliability(result.diagnostics.probabilities, result.diagnostics.directions)
    impossible = "what happened had a probability of 0"
    reasons = {"log_loss": impossible} if found.rows else {}
    return section(asdict(found), reasons, "no test row has both a prediction and a label")


def _importance(result: RunResult) -> dict[str, Any]:
    shares = result.diagnostics.importance
    known = shares[np.isfinite(shares).all(axis=1)]
    mean, lower, median, upper = _over_windows(known, shares.shape[1])
    values = {
        "features": list(result.feature_names),
        "windows": len(known),
        "mean": mean,
        "lower": lower,
        "median": median,
        "upper": upper,
        "by_window": shares,
    }
    return section(values, otherwise="the learners chosen there have no importance of features")


def _over_windows(known: NDArray[np.float64], width: int) -> tuple[NDArray[np.float64], ...]:
    """Mean, lower quartile, median and upper quartile of each column; NaN without rows."""
    if len(known) == 0:
        return (np.full(width, np.nan),) * 4
    lower, median, upper = np.quantile(known, (0.25, 0.5, 0.75), axis=0)
    return known.mean(axis=0), lower, median, upper


def _psi(result: RunResult) -> dict[str, Any]:
    psi, null = result.diagnostics.psi, result.diagnostics.psi_null
    finite = np.isfinite(psi)
    above = ((psi > null) & finite).sum(axis=0)
    measured = finite.sum(axis=0)
    comparable = (measured > 0) & np.isfinite(null)
    share = np.divide(above, measured, out=np.full(len(null), np.nan), where=comparable)
    reasons = {
        "by_window": "a window without rows to compare",
        "null": "the null's quantile is not known",
        "share_above_null": "nothing to compare, or the null's quantile is not known",
    }
    values = {"features": list(result.feature_names), "by_window": psi, "null": null, "share_above_null": share}
    return section(values, reasons)


def _model(result: RunResult) -> dict[str, Any]:
    package = result.published
    if package is None:
        return {}
    manifest = package.manifest
    values = {
        "name": manifest.name,
        "sha256": manifest.model_sha256,
        "schema_id": manifest.features.schema_id,
        "decision_threshold": manifest.decision_threshold,
        "parity_difference": package.parity_difference,
        "parity_rows": package.parity_rows,
    }
    return section(values)
