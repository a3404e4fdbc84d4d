"""How long an order is on its way to the venue. Drawn from a seed and the order's id, so that it is always the same."""

from __future__ import annotations

import math
import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass


class Latency(ABC):
    """A distribution of times, in nanoseconds, none below 0."""

    @abstractmethod
    def draw_ns(self, draws: random.Random) -> int:
        """One time."""


@dataclass(frozen=True, slots=True)
class FixedLatency(Latency):
    """Always the same.

    Attributes:
        latency_us: Microseconds, >= 0.
    """

    latency_us: float

    def __post_init__(self) -> None:
        if not 0.0 <= self.latency_us < math.inf:
            raise ValueError(f"latency_us is {self.latency_us}, must be finite and at least 0")

    def draw_ns(self, draws: random.Random) -> int:  # noqa: ARG002 - the same for all
        """One time."""
        return int(self.latency_us * 1e3)


@dataclass(frozen=True, slots=True)
class LognormalLatency(Latency):
    """A least time, and lognormal beyond it: the shape that networks and matching engines have.

    Attributes:
        median_us: Of what comes on top of the least time, microseconds, > 0.
        sigma: Standard deviation of its logarithm, >= 0; at 0.5 the 99th percentile is 3.2 medians.
        least_us: Microseconds, >= 0.
    """

    median_us: float
    sigma: float
    least_us: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 < self.median_us < math.inf:
            raise ValueError(f"median_us is {self.median_us}, must be finite and above 0")
        for name, value in (("sigma", self.sigma), ("least_us", self.least_us)):
            if not 0.0 <= value < math.inf:
                raise ValueError(f"{name} is {value}, must be finite and at least 0")

    def draw_ns(self, draws: random.Random) -> int:
        """One time."""
        return int((self.least_us + draws.lognormvariate(math.log(self.median_us), self.sigma)) * 1e3)


class EmpiricalLatency(Latency):
    """Times that were measured: the inverse of their distribution function, linear between neighbours.

    Args:
        samples_us: Microseconds, each finite and >= 0; at least one.
    """

    def __init__(self, samples_us: Sequence[float]) -> None:
        if not samples_us:
            raise ValueError("samples_us is empty, must have at least one time")
        wrong = [sample for sample in samples_us if not 0.0 <= sample < math.inf]
        if wrong:
            raise ValueError(f"samples_us has {wrong[0]}, must be finite and at least 0")
        self._sorted_us = sorted(samples_us)

    def draw_ns(self, draws: random.Random) -> int:
        """One time."""
        place = draws.random() * (len(self._sorted_us) - 1)
        low = int(place)
        high = min(low + 1, len(self._sorted_us) - 1)
        below, above = self._sorted_us[low], self._sorted_us[high]
        return int((below + (place - low) * (above - below)) * 1e3)
