"""A record held against objectives: what the report says, before it is a table or a picture."""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from hdrh.histogram import HdrHistogram

from tickgate_client.sla.objectives import Objective
from tickgate_client.sla.record import SlaRecord
from tickgate_client.sla.windows import Slice


@dataclass(frozen=True, slots=True)
class Judgement:
    """One objective over one period.

    Attributes:
        objective: What is promised.
        period: `1 min`, `run`.
        calls: Calls, those among them that stalls kept from being made.
        bad: Calls that were not good.
        good_share: 1 - bad / calls; NaN without calls.
        burn_rate: See `objectives`; NaN without calls.
        at_target_us: The round trip's percentile at the target, by nearest rank; NaN without calls.
    """

    objective: Objective
    period: str
    calls: int
    bad: int
    good_share: float
    burn_rate: float
    at_target_us: float

    @property
    def met(self) -> bool:
        """Whether the objective held; without calls nothing shows that it did."""
        return self.good_share >= self.objective.target


def judge_record(record: SlaRecord, further: Sequence[Objective] = ()) -> list[Judgement]:
    """Every objective over every period, the record's own first.

    Args:
        record: What was seen.
        further: Objectives that the monitor did not have: judged by the histograms, to a thousandth of the limit.
    """
    judged = []
    for at, objective in enumerate(record.objectives):
        judged += [_judgement(objective, period.name, period.calls, period.calls.bad[at]) for period in record.periods]
    for objective in further:
        for period in record.periods:
            judged.append(_judgement(objective, period.name, period.calls, bad_calls(period.calls, objective.limit_ns)))
    return judged


def bad_calls(calls: Slice, limit_ns: int) -> int:
    """Calls that failed or took longer than the limit; a bucket that the limit lies in counts as within it."""
    slow = _above(calls.round_trip, limit_ns)
    if calls.failed is None:
        return slow
    failed: int = calls.failed.get_total_count()
    return slow + failed - _above(calls.failed, limit_ns)


def curve(histogram: HdrHistogram, points: int = 400) -> list[tuple[float, float]]:
    """The percentile curve: (1 / (1 - p), value in microseconds), evenly spaced in the logarithm of the first.

    From p = 0 to where one call is left, the largest one.
    """
    count = histogram.get_total_count()
    if count == 0:
        return []
    largest_ns = histogram.max_value
    first = histogram.get_counts_array_index(histogram.get_min_value())
    running = list(itertools.accumulate(histogram.counts[first : histogram.get_counts_array_index(largest_ns) + 1]))
    found: list[tuple[float, float]] = []
    for step in range(points):
        left = count ** (step / (points - 1))
        rank = min(max(math.ceil(count * (1 - 1 / left)), 1), count)
        index = first + bisect_left(running, rank)
        value_ns = histogram.get_highest_equivalent_value(histogram.get_value_from_index(index))
        found.append((left, min(value_ns, largest_ns) / 1e3))
    found.append((float(count), largest_ns / 1e3))
    return found


def _judgement(objective: Objective, period: str, calls: Slice, bad: int) -> Judgement:
    count = calls.calls
    return Judgement(
        objective=objective,
        period=period,
        calls=count,
        bad=bad,
        good_share=math.nan if count == 0 else 1 - bad / count,
        burn_rate=objective.burn_rate(bad, count),
        at_target_us=_at_us(calls.round_trip, objective.target),
    )


def _at_us(histogram: HdrHistogram, share: float) -> float:
    count = histogram.get_total_count()
    if count == 0:
        return math.nan
    running = list(itertools.accumulate(histogram.counts[: histogram.get_counts_array_index(histogram.max_value) + 1]))
    # A share such as 0.999 is a rounded number: 0.999 x 1,000 is the 999th, whatever the last bit says.
    index = bisect_left(running, math.ceil(round(count * share, 6)))
    value_ns = histogram.get_highest_equivalent_value(histogram.get_value_from_index(index))
    return float(min(value_ns, histogram.max_value)) / 1e3


def _above(histogram: HdrHistogram, limit_ns: int) -> int:
    if limit_ns >= histogram.max_value:
        return 0
    return sum(histogram.counts[histogram.get_counts_array_index(limit_ns) + 1 :])
