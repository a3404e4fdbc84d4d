"""Weights of the rows that a model or a calibration is fitted on.

Only their proportions mean anything: they are scaled to a mean of 1, so that a learner's own units (a penalty, a least
sum of curvature in a leaf) mean the same with weights as without.
"""

import math

import numpy as np
from numpy.typing import NDArray

from tickgate_training.errors import TrainingError


class WeightsInvalid(TrainingError):
    """A weight is negative or no finite number, or all are 0, or there is not one a row.

    Attributes:
        row: The first row at fault, from 0; None where all are.
        rule: What must hold.
    """

    def __init__(self, row: int | None, found: str, rule: str) -> None:
        where = "weights" if row is None else f"weight of row {row}"
        super().__init__(f"{where}: found {found}, but {rule}")
        self.row = row
        self.rule = rule


class WeightsRefused(TrainingError):
    """A learner that cannot weigh rows was given weights.

    Attributes:
        learner: Its kind.
    """

    def __init__(self, learner: str, why: str) -> None:
        super().__init__(f"{learner!r} cannot weigh rows: {why}")
        self.learner = learner


def checked(weights: NDArray[np.float64], rows: int) -> NDArray[np.float64]:
    """The weights scaled to a mean of 1, float64 [n].

    Raises:
        WeightsInvalid: They are not `rows` finite numbers from 0 up, at least one of them above 0.
    """
    found = np.asarray(weights, np.float64)
    if found.shape != (rows,):
        raise WeightsInvalid(None, f"shape {found.shape}", f"there must be one a row: ({rows},)")
    wrong = ~(np.isfinite(found) & (found >= 0.0))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise WeightsInvalid(row, repr(float(found[row])), "it must be finite and at least 0")
    largest = float(found.max(initial=0.0))
    if largest == 0.0:
        raise WeightsInvalid(None, f"{rows} weights of 0", "one at least must be above 0")
    # In units of the largest first: the sum of finite numbers may be none.
    parts = found / largest
    return np.asarray(parts * (rows / math.fsum(parts)), np.float64)
