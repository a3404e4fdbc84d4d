"""Years of a daily data set: `NAME`, `NAME:2018` or `NAME:2003-2007`, both ends in the range."""

import polars as pl

from tickgate_training.errors import SourceUnreadable


def named(source: str, known: tuple[str, ...]) -> tuple[str, str]:
    """Name and years of a source; the years are empty where it has none.

    Raises:
        SourceUnreadable: There is no set of this name.
    """
    name, _, years = source.partition(":")
    if name not in known:
        raise SourceUnreadable(source, f"no data set {name!r}; known: {', '.join(known)}")
    return name, years


def chosen(frame: pl.DataFrame, source: str, years: str) -> pl.DataFrame:
    """The sessions of a canonical table in a range of years; all where `years` is empty.

    Raises:
        SourceUnreadable: The range is not one, or it has no session.
    """
    if not years:
        return frame
    first, dash, last = years.partition("-")
    last = last if dash else first
    if not (first.isdecimal() and last.isdecimal() and int(first) <= int(last)):
        raise SourceUnreadable(source, f"the range {years!r} is neither a year nor two: sp500:2018, sp500:2003-2007")
    year = frame.select(pl.from_epoch("exchange_ts_ns", time_unit="ns").dt.year()).to_series()
    found = frame.filter(year.is_between(int(first), int(last)))
    if found.height == 0:
        span = f"{year.to_numpy().min()} to {year.to_numpy().max()}"
        raise SourceUnreadable(source, f"no session in {years}; the set spans {span}")
    return found
