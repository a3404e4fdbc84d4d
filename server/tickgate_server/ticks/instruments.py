"""Instruments: what the desk trades, read from a TOML or CSV file.

TOML: one `[[instrument]]` table each; CSV: a header with the same names, tags separated by spaces. Only `symbol` is
required. Without a file every symbol is open with the defaults of `Instrument`, for trying things out.
"""

import csv
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, field_validator

from tickgate_server.ticks.calendars import ROUND_THE_CLOCK, SessionCalendar, round_the_clock, session_calendar

SYMBOL_BYTES = 32

Positive = Annotated[FiniteFloat, Field(gt=0.0)]


class Instrument(BaseModel):
    """One instrument.

    `tick_size` is in currency, `lot` and `minimum_size` in units, `multiplier` in currency per unit and point.
    `calendar` says when its sessions begin: `24/7`, or a calendar of `exchange_calendars`; an alias becomes its name.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    symbol: str
    tick_size: Positive = 1e-8
    lot: Positive = 1e-8
    minimum_size: Annotated[FiniteFloat, Field(ge=0.0)] = 0.0
    multiplier: Positive = 1.0
    currency: str = "USD"
    calendar: str = ROUND_THE_CLOCK
    tags: tuple[str, ...] = ()
    restricted: bool = False

    @field_validator("symbol")
    @classmethod
    def _fits(cls, symbol: str) -> str:
        if not 0 < len(symbol.encode()) <= SYMBOL_BYTES:
            raise ValueError(f"must be 1 to {SYMBOL_BYTES} bytes of UTF-8")
        return symbol

    @field_validator("calendar")
    @classmethod
    def _known(cls, calendar: str) -> str:
        return session_calendar(calendar).name

    @field_validator("tags", mode="before")
    @classmethod
    def _split(cls, tags: Any) -> Any:
        return tuple(tags.split()) if isinstance(tags, str) else tags


class InstrumentFileInvalid(Exception):
    """An instrument file cannot be used; says which file, which entry and what was expected.

    Attributes:
        path: The file.
        why: Entry, key, and what was expected.
    """

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path}: {why}")
        self.path = path
        self.why = why


@dataclass(frozen=True, slots=True)
class Universe:
    """The instruments, and whether others may be added as they appear."""

    instruments: dict[str, Instrument]
    closed: bool

    def find(self, symbol: str) -> Instrument | None:
        """The instrument, one with defaults in an open universe, or None in a closed one."""
        known = self.instruments.get(symbol)
        if known is None and not self.closed:
            return Instrument(symbol=symbol)
        return known

    @property
    def calendars(self) -> tuple[SessionCalendar, ...]:
        """Those of the instruments, by name, behind `24/7`, which symbols that the file lacks are of."""
        named = {instrument.calendar for instrument in self.instruments.values()} - {ROUND_THE_CLOCK}
        return (round_the_clock(), *map(session_calendar, sorted(named)))


def read_instruments(path: Path) -> dict[str, Instrument]:
    """Read an instrument file by its ending, `.toml` or `.csv`.

    Raises:
        InstrumentFileInvalid: It cannot be read, has another ending, an unknown key, a bad value, or a symbol twice.
    """
    try:
        entries = _read_toml(path) if path.suffix == ".toml" else _read_csv(path)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, csv.Error) as error:
        raise InstrumentFileInvalid(path, f"cannot be read ({error})") from error
    found: dict[str, Instrument] = {}
    for number, entry in enumerate(entries, start=1):
        try:
            instrument = Instrument.model_validate(entry)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"]))
            raise InstrumentFileInvalid(
                path, f"entry {number}: {key}: {first['msg']} (got {first['input']!r})"
            ) from error
        if instrument.symbol in found:
            raise InstrumentFileInvalid(path, f"entry {number}: symbol {instrument.symbol!r} is there already")
        found[instrument.symbol] = instrument
    return found


def _read_toml(path: Path) -> list[Any]:
    with path.open("rb") as file:
        document = tomllib.load(file)
    entries = document.pop("instrument", None)
    if document or not isinstance(entries, list):
        unknown = f"unknown key {next(iter(document))!r}; " if document else ""
        raise InstrumentFileInvalid(path, f"{unknown}expected a list of [[instrument]] tables and nothing else")
    return entries


def _read_csv(path: Path) -> list[Any]:
    if path.suffix != ".csv":
        raise InstrumentFileInvalid(path, "expected a file ending in .toml or .csv")
    with path.open(newline="", encoding="utf-8-sig") as file:
        # An empty cell means the default, as an absent key does in TOML.
        return [{key: cell for key, cell in row.items() if cell != ""} for row in csv.DictReader(file)]
