"""Readings of an observer's metrics, and what changed between two: None wherever there is no number, never 0."""

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from types import MappingProxyType

from prometheus_client.metrics_core import Metric

Labels = frozenset[tuple[str, str]]
_NONE: Mapping[Labels, float] = MappingProxyType({})


class Reading:
    """The samples of one scrape.

    Attributes:
        at_s: When it was taken, on the reader's monotonic clock.

    Args:
        families: As a collector gives them, or a parser of prometheus_client.
        at_s: As above.
    """

    def __init__(self, families: Iterable[Metric], at_s: float) -> None:
        self.at_s = at_s
        self._samples: dict[str, dict[Labels, float]] = {}
        for family in families:
            for sample in family.samples:
                by_labels = self._samples.setdefault(sample.name, {})
                by_labels[frozenset(sample.labels.items())] = sample.value

    def series(self, name: str) -> Mapping[Labels, float]:
        """Samples of that name by their labels; empty where there are none."""
        return self._samples.get(name, _NONE)

    def labelled(self, name: str, *labels: str) -> dict[tuple[str, ...], float | None]:
        """By the values of some labels, summed over the others; None where a NaN is among them."""
        found: dict[tuple[str, ...], float] = {}
        for key, value in self.series(name).items():
            said = dict(key)
            values = tuple(said.get(label, "") for label in labels)
            found[values] = found.get(values, 0.0) + value
        return {values: known(value) for values, value in found.items()}

    def total(self, name: str) -> float | None:
        """Over all labels; None where there is no sample, or a NaN among them."""
        return self.labelled(name).get(())

    def most(self, name: str) -> float | None:
        """The largest; None as `total`."""
        values = self.series(name).values()
        return None if not values or any(map(math.isnan, values)) else known(max(values))

    def least(self, name: str) -> float | None:
        """The smallest; None as `total`."""
        values = self.series(name).values()
        return None if not values or any(map(math.isnan, values)) else known(min(values))


class Change:
    """What was counted between two readings.

    A series that is new since began at 0, as collectors' do. One that went back, or is gone, tells nothing of what was
    counted, and neither does a sum that it is in: that is None.

    Attributes:
        seconds: Between the two; None where there is no earlier one.

    Args:
        now: The later reading.
        before: The earlier one.
    """

    def __init__(self, now: Reading, before: Reading | None) -> None:
        self._now = now
        self._before = before if before is not None and before.at_s < now.at_s else None
        self.seconds = now.at_s - self._before.at_s if self._before is not None else None

    def counted(self, name: str, **labels: str) -> dict[Labels, float | None]:
        """By labels, of the series that have those given; empty where the name is not in both readings."""
        before = self._before.series(name) if self._before is not None else _NONE
        now = self._now.series(name)
        if not before or not now:
            return {}
        wanted = frozenset(labels.items())
        return {key: _increase(now.get(key), before.get(key)) for key in {*now, *before} if wanted <= key}

    def per_s(self, name: str, **labels: str) -> float | None:
        """Rate a second over the series that have those labels."""
        counts = _sum(self.counted(name, **labels).values())
        return None if counts is None or self.seconds is None else counts / self.seconds

    def quantiles(self, name: str, shares: Sequence[float], **labels: str) -> tuple[float | None, ...]:
        """Of a histogram over the series that have those labels; None where nothing was counted."""
        by_bound: dict[float, list[float | None]] = {}
        for key, count in self.counted(f"{name}_bucket", **labels).items():
            bound = _bound(dict(key).get("le", ""))
            by_bound.setdefault(bound, []).append(count)
        sums = [(bound, _sum(counts)) for bound, counts in sorted(by_bound.items())]
        buckets = [(bound, count) for bound, count in sums if count is not None and not math.isnan(bound)]
        if len(buckets) < len(sums):
            return (None,) * len(shares)
        return tuple(quantile(share, buckets) for share in shares)


def quantile(share: float, buckets: Sequence[tuple[float, float]]) -> float | None:
    """A quantile from cumulative buckets, linear within the bucket that it falls in: an estimate.

    As Prometheus' `histogram_quantile`: the lowest bucket begins at 0, and in the one without an upper bound it is the
    highest bound that there is.

    Args:
        share: Of the values that are at most the quantile, in (0, 1).
        buckets: Upper bound and cumulative count, by bound; the last bound is infinite.

    Returns:
        In the bounds' unit; None without values, or without an infinite bucket above a finite one.
    """
    if len(buckets) < 2 or buckets[-1][0] != math.inf:
        return None
    bounds = [bound for bound, _ in buckets]
    counts = list(accumulate((count for _, count in buckets), max))
    if not counts[-1] > 0.0:
        return None
    rank = share * counts[-1]
    place = bisect_left(counts, rank)
    if place >= len(bounds) - 1:
        return bounds[-2]
    lower, below = (bounds[place - 1], counts[place - 1]) if place else (0.0, 0.0)
    return lower + (bounds[place] - lower) * (rank - below) / (counts[place] - below)


def known(value: float | None) -> float | None:
    """The value if it is a finite number."""
    return value if value is not None and math.isfinite(value) else None


def _increase(now: float | None, before: float | None) -> float | None:
    if now is None:
        return None
    gained = known(now - (before if before is not None else 0.0))
    return gained if gained is not None and gained >= 0.0 else None


def _sum(values: Iterable[float | None]) -> float | None:
    """None where there are none, or one of them is."""
    summed, found = 0.0, False
    for value in values:
        if value is None:
            return None
        summed, found = summed + value, True
    return summed if found else None


def _bound(le: str) -> float:
    """An upper bound; NaN for what is none."""
    try:
        return float(le)
    except ValueError:
        return math.nan
