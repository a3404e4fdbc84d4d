"""From cells to the types of the canonical table, exactly or not at all."""

import polars as pl

from tickgate_training.data.config import SideColumn, SignColumn, StampColumn
from tickgate_training.data.files import Cells
from tickgate_training.data.table import BUY, SELL, UNKNOWN
from tickgate_training.errors import ColumnInvalid

_DIGITS = {"ns": 0, "us": 3, "ms": 6, "s": 9}  # decimal places to a nanosecond
_FIRST_YEAR, _LAST_YEAR = 1970, 2261  # of int64 nanoseconds; polars wraps around beyond them
_FLAGS = {"true": True, "false": False, "1": True, "0": False}


def numbers(cells: Cells, name: str, *, optional: bool = False) -> pl.Series:
    """A column as Float64.

    NaN and infinities are numbers here: whether a tick may have them is for its rules to say.

    Args:
        cells: The file.
        name: The column.
        optional: An empty cell is NaN, not an error.

    Raises:
        ColumnInvalid: The column is absent, or neither text nor numeric.
        CellInvalid: A cell is no number.
    """
    column = cells.column(name)
    if not (column.dtype == pl.String or column.dtype.is_numeric() or column.dtype == pl.Null):
        raise ColumnInvalid(name, f"{column.dtype} in {cells.source}", "numbers")
    found = column.cast(pl.Float64, strict=False)
    cells.require(name, found.is_not_null() | (column.is_null() & optional), "this is a number")
    return found.fill_null(float("nan"))


def sequences(cells: Cells, name: str, *, optional: bool = False) -> pl.Series:
    """A column as UInt64; where it is `optional` an empty cell is 0, no number. Errors as in `numbers`."""
    column = cells.column(name)
    if not (column.dtype == pl.String or column.dtype.is_integer()):
        raise ColumnInvalid(name, f"{column.dtype} in {cells.source}", "integers")
    found = column.cast(pl.UInt64, strict=False)
    cells.require(name, found.is_not_null() | (column.is_null() & optional), "this is a whole number, not below 0")
    return found.fill_null(0)


def texts(cells: Cells, name: str) -> pl.Series:
    """A column of text in which no cell is empty; errors as in `numbers`."""
    column = cells.column(name)
    if isinstance(column.dtype, pl.Categorical | pl.Enum):
        column = column.cast(pl.String)
    if column.dtype != pl.String:
        raise ColumnInvalid(name, f"{column.dtype} in {cells.source}", "text")
    cells.require(name, column.is_not_null(), "this is not empty")
    return column


def buyer_is_maker(cells: Cells, name: str) -> pl.Series:
    """The aggressor, Int8, from a flag that says whether the buyer was the maker: then the aggressor sold."""
    column = cells.column(name)
    if column.dtype.is_integer() or column.dtype == pl.Boolean:
        column = column.cast(pl.String)
    if column.dtype != pl.String:
        raise ColumnInvalid(name, f"{column.dtype} in {cells.source}", "true or false")
    sides = {word: SELL if maker else BUY for word, maker in _FLAGS.items()}
    found = column.str.to_lowercase().replace_strict(sides, default=None, return_dtype=pl.Int8)
    cells.require(name, found.is_not_null(), "this is true or false")
    return found


def signs(cells: Cells, spec: SignColumn) -> pl.Series:
    """The aggressor, Int8, from 1, -1 and 0."""
    column = cells.column(spec.name)
    if not (column.dtype == pl.String or column.dtype.is_numeric()):
        raise ColumnInvalid(spec.name, f"{column.dtype} in {cells.source}", "1, 0 or -1")
    found = column.cast(pl.Float64, strict=False)
    cells.require(spec.name, found.is_in([float(BUY), float(SELL), float(UNKNOWN)]), "an aggressor is 1, 0 or -1")
    return found.cast(pl.Int8)


def sides(cells: Cells, spec: SideColumn) -> pl.Series:
    """The aggressor, Int8, from the file's words."""
    column = cells.column(spec.name)
    if isinstance(column.dtype, pl.Categorical | pl.Enum):
        column = column.cast(pl.String)
    if column.dtype not in {pl.String, pl.Null}:
        raise ColumnInvalid(spec.name, f"{column.dtype} in {cells.source}", "text")
    words = {spec.buy: BUY, spec.sell: SELL, spec.unknown: UNKNOWN}
    found = column.cast(pl.String).fill_null("").replace_strict(words, default=None, return_dtype=pl.Int8)
    cells.require(spec.name, found.is_not_null(), f"a side is one of {', '.join(map(repr, words))}")
    return found


def stamps_ns(cells: Cells, spec: StampColumn) -> pl.Series:
    """A column of times as Int64 nanoseconds since the epoch, to the digit.

    Raises:
        ColumnInvalid: The column is absent, or of a type that does not hold such times: floats least of all, which
            resolve a second of this century to 240 ns.
        CellInvalid: A cell is no such time, or lies outside 1970 to 2261.
    """
    column = cells.column(spec.name)
    if spec.unit == "iso":
        return _instants(cells, spec, column)
    if column.dtype.is_integer():
        column = column.cast(pl.String)  # one way for both; text costs little beside a wrong digit
    if column.dtype != pl.String:
        raise ColumnInvalid(spec.name, f"{column.dtype} in {cells.source}", f"whole numbers or text, in {spec.unit}")
    digits = _DIGITS[spec.unit]
    places = f"at most {digits} decimal places" if digits else "no decimal places"
    rule = f"a time in {spec.unit} is a number above 0 with {places}, before {_LAST_YEAR + 1}"
    shaped = column.str.contains(rf"^\d{{1,{19 - digits}}}(\.\d{{1,{digits}}})?$" if digits else r"^\d{1,19}$")
    cells.require(spec.name, shaped, rule)
    parts = column.str.splitn(".", 2)
    whole, fraction = parts.struct.field("field_0"), parts.struct.field("field_1").fill_null("")
    found = (whole + fraction.str.pad_end(digits, "0")).cast(pl.Int64, strict=False)
    cells.require(spec.name, found.is_not_null() & (found > 0), rule)
    return found


def _instants(cells: Cells, spec: StampColumn, column: pl.Series) -> pl.Series:
    if isinstance(column.dtype, pl.Datetime):
        zoned = column.dtype.time_zone is not None
        if zoned == (spec.time_zone is not None):
            raise ColumnInvalid(spec.name, f"{column.dtype} in {cells.source}", _zone_rule(spec))
        cells.require(spec.name, column.dt.year().is_between(_FIRST_YEAR, _LAST_YEAR), _year_rule())
        found = column.dt.cast_time_unit("ns")
    elif column.dtype == pl.String:
        year = column.str.slice(0, 4).cast(pl.Int32, strict=False)
        cells.require(spec.name, year.is_between(_FIRST_YEAR, _LAST_YEAR), _year_rule())
        text = column.str.replace(" ", "T", literal=True)
        layout = "%Y-%m-%dT%H:%M:%S%.f"
        if spec.time_zone is None:
            found = text.str.to_datetime(f"{layout}%#z", time_unit="ns", time_zone="UTC", strict=False)
        else:
            found = text.str.to_datetime(layout, time_unit="ns", strict=False)
        cells.require(spec.name, found.is_not_null(), _zone_rule(spec))
    else:
        raise ColumnInvalid(spec.name, f"{column.dtype} in {cells.source}", "text or date-times")
    if spec.time_zone is not None:
        found = found.dt.replace_time_zone(spec.time_zone, ambiguous="null", non_existent="null")
        cells.require(spec.name, found.is_not_null(), f"a time happens once in {spec.time_zone}, not never or twice")
    stamps = found.dt.timestamp("ns")
    cells.require(spec.name, stamps > 0, _year_rule())
    return stamps


def _zone_rule(spec: StampColumn) -> str:
    if spec.time_zone is None:
        return "a time is ISO 8601, date and time with its offset from UTC; times without one need time_zone"
    return f"a time is ISO 8601, date and time without an offset, as time_zone says {spec.time_zone}"


def _year_rule() -> str:
    return f"a time is ISO 8601, after the start of {_FIRST_YEAR} and before {_LAST_YEAR + 1}"
