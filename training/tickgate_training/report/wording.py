"""How numbers and times are written for people: sensible digits, and never a bare NaN."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Literal

from tickgate_training.metrics import Metrics

Form = Literal["percent", "number", "decimal", "count"]

UNDEFINED = "undefined"
INFINITE = ("infinite", "minus infinite")


@dataclass(frozen=True, slots=True)
class Labelled:
    """How a metric is shown.

    Attributes:
        field: Of `Metrics`.
        label: For people.
        form: How its values are written.
    """

    field: str
    label: str
    form: Form


_FIRST = (
    Labelled("total_return_summed", "total return, summed", "percent"),
    Labelled("total_return_compounded", "total return, compounded", "percent"),
    Labelled("sharpe", "Sharpe ratio", "number"),
    Labelled("t_statistic", "t statistic", "number"),
    Labelled("max_drawdown", "max drawdown", "percent"),
    Labelled("skewness", "skewness of returns", "number"),
    Labelled("kurtosis", "kurtosis of returns (normal: 3)", "number"),
    Labelled("autocorrelation", "autocorrelation of returns", "number"),
    Labelled("round_trips", "round trips", "count"),
    Labelled("win_rate", "win rate", "percent"),
    Labelled("mean_trip_return", "mean return a round trip", "percent"),
    Labelled("profit_factor", "profit factor", "number"),
    Labelled("turnover", "turnover a period", "percent"),
    Labelled("exposure", "exposure", "percent"),
    Labelled("mean_leverage", "mean leverage", "percent"),
    Labelled("periods", "periods", "count"),
)
_PROPER = {"sharpe": "Sharpe", "pbo": "PBO", "psr": "PSR", "dsr": "DSR", "psi": "PSI", "cscv": "CSCV"}
# Said once above the table.
_ELSEWHERE = {"undefined", "periods_per_year"}


def metric_rows() -> Iterator[Labelled]:
    """Every metric of `Metrics` in the order of a table; one without a label of its own goes by its name."""
    yield from _FIRST
    known = {row.field for row in _FIRST} | _ELSEWHERE
    for field in fields(Metrics):
        if field.name not in known:
            yield Labelled(field.name, spoken(field.name), "count" if field.type in {int, "int"} else "number")


def written(value: float | None, form: Form) -> str:
    """A value in its form; `undefined` where it is None or NaN."""
    return {"percent": percent, "number": number, "decimal": decimal, "count": count}[form](value)


def percent(value: float | None) -> str:
    """A fraction as a percentage: two decimals, more where it is below 1 %."""
    if (word := _no_number(value)) is not None:
        return word
    share = 100.0 * float(value or 0.0)
    return f"{share:,.0f}%" if abs(share) >= 1000.0 else f"{_digits(share)}%"


def number(value: float | None) -> str:
    """A number with two decimals, more where it is below 1, none where it is large or whole."""
    if (word := _no_number(value)) is not None:
        return word
    plain = float(value or 0.0)
    return f"{plain:,.0f}" if plain.is_integer() or abs(plain) >= 1000.0 else _digits(plain)


def decimal(value: float | None) -> str:
    """A number with four decimals, for scores whose small differences matter."""
    return _no_number(value) or f"{value:.4f}"


def count(value: float | None) -> str:
    """A whole number with separators."""
    return _no_number(value) or f"{int(value or 0):,}"


def date(stamp_ns: int) -> str:
    """A UTC time to the second; the date alone at midnight."""
    moment = datetime.fromtimestamp(stamp_ns // 1_000_000_000, UTC)
    midnight = moment.hour == moment.minute == moment.second == 0
    return moment.strftime("%Y-%m-%d" if midnight else "%Y-%m-%d %H:%M:%S UTC")


def span(start_ns: int, stop_ns: int) -> str:
    """Two UTC times."""
    return f"{date(start_ns)} to {date(stop_ns)}"


def spoken(name: str) -> str:
    """A name in code as words: deflated_sharpe_ratio is deflated Sharpe ratio."""
    return " ".join(_PROPER.get(word, word) for word in name.split("_"))


def plural(amount: int, noun: str) -> str:
    """The amount and its noun: 1 window, 224 windows."""
    return f"{amount:,} {noun}" + ("" if amount == 1 else "s")


def _no_number(value: float | None) -> str | None:
    if value is None or math.isnan(value):
        return UNDEFINED
    return INFINITE[value < 0.0] if math.isinf(value) else None


def _digits(value: float) -> str:
    size = abs(value)
    if size >= 1.0 or value == 0.0:
        return f"{value:.2f}"
    if size < 1e-4:
        return f"{value:.1e}"
    # Three significant digits.
    return f"{value:.{2 - math.floor(math.log10(size))}f}"
