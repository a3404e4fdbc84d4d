"""Values as JSON has them, and the reason beside each that it has not."""

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from pydantic import BaseModel

from tickgate_training.metrics import Metrics


def section(values: Mapping[str, Any], reasons: Mapping[str, str] | None = None, otherwise: str = "") -> dict[str, Any]:
    """Values as JSON has them, with the reason for each that it has not: the given one, `otherwise`, or what it is."""
    found: dict[str, Any] = {}
    undefined: dict[str, str] = {}
    for name, value in values.items():
        found[name], flaw = plain(value)
        if flaw:
            undefined[name] = (reasons or {}).get(name) or otherwise or flaw
    return found | ({"undefined": undefined} if undefined else {})


def plain(value: Any) -> tuple[Any, str]:
    """A value as JSON has it, and what it was where JSON has no word for it."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, float) and not math.isfinite(value):
        return None, "not known" if math.isnan(value) else "infinite" if value > 0.0 else "minus infinite"
    if isinstance(value, list | tuple):
        parts = [plain(part) for part in value]
        return [part for part, _ in parts], next((flaw for _, flaw in parts if flaw), "")
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json"), ""
    return value, ""


def metrics_section(metrics: Metrics) -> dict[str, Any]:
    """Metrics with the reason for each that is undefined."""
    values = asdict(metrics)
    reasons = values.pop("undefined")
    return section(values, reasons)
