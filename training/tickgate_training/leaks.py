"""The leak check: nothing may know what it must not, shown by taking it away.

A stage is computed again on rows that are cut short, and on rows whose future, or past, is replaced by garbage; what
was known before must come out the same bit for bit. `check_features`: row i knows rows up to i. `check_labels`: a label
knows the rows from the one after its decision up to the end of the interval that it declares. `check_windows`: a window
that fits into the rows before a cut (its rows, its weights) does not change with what comes after. Each raises
`LeakFound`. A few cuts at rows that the seed decides are enough for what leaks on every row, and cheap enough for every
training run: two computations a cut, three for labels.

`suspicions` asks the other way round: results too good to be true.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.stats import spearmanr  # type: ignore[import-untyped]

from tickgate_training.errors import LeakFound, TooFewRows
from tickgate_training.labels.labels import Labels
from tickgate_training.strict import Strict

Columns = Mapping[str, NDArray[Any]]
"""Inputs of a stage by name, each [n] with one value a row."""


class LeakConfig(Strict):
    """How many cuts are tried, and beyond which out-of-sample figures a result is suspicious; see `suspicions`."""

    cuts: int = Field(default=5, ge=1, le=100)
    accuracy_maximum: float = Field(default=0.9, gt=0.5, le=1.0)
    information_coefficient_maximum: float = Field(default=0.5, gt=0.0, le=1.0)
    suspicion_rows_minimum: int = Field(default=100, ge=10)


def check_features(
    compute: Callable[[Columns], NDArray[Any]],
    columns: Columns,
    *,
    what: str = "features",
    keep: Collection[str] = (),
    together: str | None = None,
    cuts: int = 5,
    seed: int = 0,
) -> None:
    """Check that what is computed for a row depends on no later row.

    Args:
        compute: The stage: columns [m] to an array [m] or [m, width]. It is given fewer rows, and rows with garbage
            that keeps what holds of ticks: signs, which values of a row are NaN, the order of bid and ask, and that of
            integers which do not decrease.
        columns: Its inputs.
        what: The stage's name, for the error.
        keep: Columns that garbage would make invalid: their later rows are only dropped.
        together: A column whose rows of equal value are never cut apart: the stamps of a panel, which is always whole
            to its last stamp.
        cuts: How many rows to cut at.
        seed: Decides rows and garbage.

    Raises:
        LeakFound: A row depends on one after it.
        TooFewRows: There are not two rows.
        ValueError: The stage does not give one value a row.
    """
    whole = _computed(compute, columns, what)
    for cut, rng in _cuts(columns, together, cuts, seed):
        for how, later in _futures(columns, cut, keep, rng):
            again = _computed(compute, later, what)
            changed = np.flatnonzero(_differs(whole[:cut], again[:cut]))
            if changed.size:
                raise LeakFound(what, int(changed[0]), cut, f"from {cut} on were {how}")


def check_labels(
    compute: Callable[[Columns], Labels],
    columns: Columns,
    *,
    forward: Collection[str],
    what: str = "labels",
    keep: Collection[str] = (),
    together: str | None = None,
    cuts: int = 5,
    seed: int = 0,
) -> None:
    """Check that labels look at the rows that they declare and at no others.

    A label whose interval ends before a cut must not change with the rows from the cut on; and no label may change with
    the prices up to and including its decision row, for a move that the features see is no forecast.

    Args:
        compute: Columns [m] to labels [m].
        columns: Its inputs: prices, and what is known at the decision (volatilities, a primary side, stamps), which
            must not be computed inside from the prices.
        forward: The columns that labels look ahead in: the prices.
        what: The stage's name, for the error.
        keep: Columns that garbage would make invalid.
        together: A column whose rows of equal value are never cut apart: the stamps of a panel, which is always whole
            to its last stamp.
        cuts: How many rows to cut at.
        seed: Decides rows and garbage.

    Raises:
        LeakFound: A label depends on a row outside its interval, or on its decision row or one before it.
        TooFewRows: There are not two rows.
    """
    whole = compute(columns)
    for cut, rng in _cuts(columns, together, cuts, seed):
        for how, later in _futures(columns, cut, keep, rng):
            again = compute(later)
            over = (whole.interval_end[:cut] < cut) | (again.interval_end[:cut] < cut)
            changed = np.flatnonzero(over & _labels_differ(whole, again, slice(0, cut)))
            if changed.size:
                raise LeakFound(what, int(changed[0]), cut, f"from {cut} on were {how}")
        again = compute(_garbled(columns, slice(0, cut + 1), set(columns) - set(forward), rng))
        changed = np.flatnonzero(_labels_differ(whole, again, slice(cut, None)))
        if changed.size:
            raise LeakFound(what, int(changed[-1]) + cut, cut, f"up to {cut} were replaced")


def check_windows(
    compute: Callable[[Columns], Sequence[tuple[NDArray[Any], ...]]],
    columns: Columns,
    *,
    what: str = "windows",
    keep: Collection[str] = (),
    together: str | None = None,
    cuts: int = 5,
    seed: int = 0,
) -> int:
    """Check that no window changes once its rows are there.

    Args:
        compute: Columns [m] to one tuple of arrays for each window that fits: train rows, weights, validation rows, a
            threshold.
        columns: Its inputs.
        what: The stage's name, for the error.
        keep: Columns that garbage would make invalid.
        together: A column whose rows of equal value are never cut apart: the stamps of a panel, which is always whole
            to its last stamp.
        cuts: How many rows to cut at.
        seed: Decides rows and garbage.

    Returns:
        How many windows were compared, each once a cut; 0: no window ends before the last cut, and nothing was shown.

    Raises:
        LeakFound: Its row is the number of the window that changed.
        TooFewRows: There are not two rows, or no window fits into all of them.
    """
    whole = compute(columns)
    compared = 0
    for cut, rng in _cuts(columns, together, cuts, seed):
        (_, past), (_, garbage) = _futures(columns, cut, keep, rng)
        try:
            known = compute(past)
        except TooFewRows:
            continue
        for how, again in (("dropped", known), ("replaced", compute(garbage))):
            for number in range(len(known)):
                if not _same_window(whole, again, number):
                    raise LeakFound(what, number, cut, f"from {cut} on were {how}")
        compared += len(known)
    return compared


class SuspicionReason(StrEnum):
    """Why a result is too good to be true."""

    ACCURACY_IMPLAUSIBLE = "LEAK_ACCURACY_IMPLAUSIBLE"
    INFORMATION_COEFFICIENT_IMPLAUSIBLE = "LEAK_INFORMATION_COEFFICIENT_IMPLAUSIBLE"


@dataclass(frozen=True, slots=True)
class Suspicion:
    """A figure beyond its bound.

    Attributes:
        reason: Which.
        measured: The figure.
        limit: The bound.
    """

    reason: SuspicionReason
    measured: float
    limit: float

    @property
    def text(self) -> str:
        """One plain sentence."""
        name = {
            SuspicionReason.ACCURACY_IMPLAUSIBLE: "balanced accuracy",
            SuspicionReason.INFORMATION_COEFFICIENT_IMPLAUSIBLE: "information coefficient",
        }[self.reason]
        return f"Out-of-sample {name} of {self.measured:.2f}, bound {self.limit:.2f} on either side: look for a leak."


def suspicions(
    probabilities: NDArray[np.float64], labels: Labels, config: LeakConfig | None = None
) -> tuple[Suspicion, ...]:
    """Out-of-sample figures that no market gives.

    Balanced accuracy is the mean of the shares of up and of down rows that were foreseen: a market that mostly rises
    makes it no larger. The information coefficient is Spearman's rank correlation of forecast and return (Grinold and
    Kahn, "Active Portfolio Management", 2nd ed. 2000, ch. 6, which has Pearson's; ranks keep one huge return from
    deciding it). Far on the wrong side is as suspicious as far on the right one.

    Args:
        probabilities: P(up) out of sample, float64 [n]; NaN rows are left out.
        labels: Of the same rows.
        config: Bounds; fewer rows than its minimum, of each direction for the accuracy, are no ground for suspicion.
            None: the defaults.
    """
    config = LeakConfig() if config is None else config
    found = []
    scored = np.isfinite(probabilities)
    up, down = scored & (labels.direction == 1), scored & (labels.direction == 0)
    if min(up.sum(), down.sum()) >= config.suspicion_rows_minimum:
        foreseen = probabilities >= 0.5
        accuracy = float(foreseen[up].mean() + (~foreseen[down]).mean()) / 2.0
        if not 1.0 - config.accuracy_maximum <= accuracy <= config.accuracy_maximum:
            found.append(Suspicion(SuspicionReason.ACCURACY_IMPLAUSIBLE, accuracy, config.accuracy_maximum))
    known = scored & np.isfinite(labels.returns)
    forecast, returns = probabilities[known], labels.returns[known]
    # Of a forecast that never varies there is no correlation, and nothing that it could have seen.
    if forecast.size >= config.suspicion_rows_minimum and np.ptp(forecast) > 0.0 and np.ptp(returns) > 0.0:
        coefficient = float(spearmanr(forecast, returns).statistic)
        limit = config.information_coefficient_maximum
        if not abs(coefficient) <= limit:
            found.append(Suspicion(SuspicionReason.INFORMATION_COEFFICIENT_IMPLAUSIBLE, coefficient, limit))
    return tuple(found)


def _cuts(columns: Columns, together: str | None, count: int, seed: int) -> Iterator[tuple[int, np.random.Generator]]:
    """Rows to cut at, and the numbers to make garbage with.

    One in each of `count` stretches of equal length; none in the first quarter, where windows are not full yet.
    """
    rows = min((values.shape[0] for values in columns.values()), default=0)
    if rows < 2:
        raise TooFewRows("leak check", rows, 2)
    rng = np.random.default_rng(seed)
    edges = np.linspace(max(rows // 4, 1), rows, count + 1).astype(np.int64)
    for low, high in pairwise(edges.tolist()):
        if low == high:
            continue
        cut = int(rng.integers(low, high))
        if together is not None:
            cut = int(np.searchsorted(columns[together], columns[together][cut]))
        if cut > 0:
            yield cut, rng


def _futures(
    columns: Columns, cut: int, keep: Collection[str], rng: np.random.Generator
) -> Iterator[tuple[str, Columns]]:
    yield "dropped", {name: values[:cut] for name, values in columns.items()}
    yield "replaced", _garbled(columns, slice(cut, None), keep, rng)


def _garbled(columns: Columns, rows: slice, keep: Collection[str], rng: np.random.Generator) -> Columns:
    """Columns with other values in `rows`: shuffled, and floats scaled, all by the same so that quotes stay quotes."""
    count = len(range(*rows.indices(next(iter(columns.values())).shape[0])))
    order, factors = rng.permutation(count), np.exp(rng.normal(0.0, 0.2, count))
    replaced = dict(columns)
    for name, values in columns.items():
        if name in keep or values.dtype.kind not in "fiub":
            continue
        garbage = values[rows][order]
        if values.dtype.kind == "f":
            garbage = garbage * factors
        elif values.dtype.kind in "iu" and (values[:-1] <= values[1:]).all():
            # Stamps and sequences go on ascending: their steps are shuffled, and the first is made longer.
            before = values[: rows.start or 0][-1:] if rows.start else values[:1]
            steps = np.diff(values[rows], prepend=before)[order]
            steps[:1] += 1
            garbage = before + np.cumsum(steps, dtype=values.dtype)
        replaced[name] = values.copy()
        replaced[name][rows] = garbage
    return replaced


def _computed(compute: Callable[[Columns], NDArray[Any]], columns: Columns, what: str) -> NDArray[Any]:
    rows = next(iter(columns.values())).shape[0]
    values = compute(columns)
    if values.ndim == 0 or values.shape[0] != rows:
        raise ValueError(f"{what}: {rows} rows gave an array of shape {values.shape}, expected one value a row")
    return values


def _differs(before: NDArray[Any], after: NDArray[Any]) -> NDArray[np.bool_]:
    """Rows that are not the same, bool [n]; NaN is the same as NaN."""
    differs = (before != after) & ~((before != before) & (after != after))  # noqa: PLR0124 - NaN of any dtype
    return np.asarray(differs.reshape(differs.shape[0], -1).any(axis=1))


def _labels_differ(before: Labels, after: Labels, rows: slice) -> NDArray[np.bool_]:
    return np.asarray(
        _differs(before.direction[rows], after.direction[rows])
        | _differs(before.returns[rows], after.returns[rows])
        | _differs(before.interval_end[rows], after.interval_end[rows])
    )


def _same_window(
    before: Sequence[tuple[NDArray[Any], ...]], after: Sequence[tuple[NDArray[Any], ...]], number: int
) -> bool:
    if number >= min(len(before), len(after)) or len(before[number]) != len(after[number]):
        return False
    return all(
        one.shape == other.shape and not _differs(one, other).any()
        for one, other in zip(before[number], after[number], strict=True)
    )
