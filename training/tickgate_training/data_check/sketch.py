"""Quantiles of positive numbers in bounded memory."""

import math

import numpy as np
from numpy.typing import NDArray

RELATIVE_ERROR = 0.01
_GAMMA = (1.0 + RELATIVE_ERROR) / (1.0 - RELATIVE_ERROR)
_LEAST = 1e-6
_BINS = math.ceil(math.log(1e18) / math.log(_GAMMA))  # up to 1e12


class Sketch:
    """Counts in bins whose borders grow by one factor: DDSketch with a fixed range.

    A quantile is within `RELATIVE_ERROR` of a value that has that rank (Masson, Rim and Lee, "DDSketch: a fast and
    fully-mergeable quantile sketch with relative-error guarantees", PVLDB 12(12), 2019, section 2.1: a value x is
    counted in bin ceil(log_gamma x), gamma = (1 + e)/(1 - e), and told as 2 gamma^i/(gamma + 1)). Values up to 1e-6,
    zeros among them, are one bin and told as 0; values over 1e12 are told as 1e12. Least and greatest are exact.

    Attributes:
        total: Values taken.
        least, greatest: Of these; NaN where there is none.
    """

    __slots__ = ("_counts", "greatest", "least", "total")

    def __init__(self) -> None:
        self._counts = np.zeros(0, np.int64)  # a thousand symbols have no late tick: their bins come with the first
        self.total = 0
        self.least = self.greatest = math.nan

    def take(self, values: NDArray[np.float64]) -> None:
        """Count values, float64 [n], finite and not below 0."""
        if not values.size:
            return
        scaled = np.log(np.maximum(values, _LEAST) / _LEAST) / math.log(_GAMMA)
        places = np.clip(np.ceil(scaled), 0, _BINS + 1).astype(np.int64)
        if not self.total:
            self._counts = np.zeros(_BINS + 2, np.int64)
        self._counts += np.bincount(places, minlength=_BINS + 2)
        self.total += values.size
        self.least = float(np.fmin(self.least, values.min()))
        self.greatest = float(np.fmax(self.greatest, values.max()))

    def quantile(self, share: float) -> float:
        """The value of rank floor(share (n - 1)), share from 0 to 1; NaN where there is none."""
        if not self.total:
            return math.nan
        rank = math.floor(share * (self.total - 1))
        place = int(np.searchsorted(np.cumsum(self._counts), rank, side="right"))
        return float(np.clip(_value(place), self.least, self.greatest))

    def histogram(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Values of the bins that hold any, ascending, and their counts."""
        places = np.flatnonzero(self._counts)
        return np.array([_value(int(place)) for place in places]), self._counts[places]


def _value(place: int) -> float:
    return 0.0 if place == 0 else float(_LEAST * 2.0 * _GAMMA**place / (_GAMMA + 1.0))
