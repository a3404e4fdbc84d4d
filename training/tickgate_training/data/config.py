"""Where training data come from, as a part of a run's configuration: one model for each source, told apart by `kind`.

Every feed that is read from files says in `rules` what becomes of a tick that the server would reject: `refuse` (the
default) names it in an error, `drop` leaves it out and counts it; see `data.tick_rules`.
"""

from pathlib import Path
from typing import Annotated, Literal, Self, TypeAlias
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Field, model_validator

from tickgate_training.data.simulator import EDGE_LIMIT
from tickgate_training.data.table import SYMBOL_BYTES_MAXIMUM
from tickgate_training.strict import Strict

Rules: TypeAlias = Literal["refuse", "drop"]
Unit: TypeAlias = Literal["ns", "us", "ms", "s", "iso"]
Paths: TypeAlias = Annotated[tuple[Path, ...], Field(min_length=1)]


def _known_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:  # its not-found error is a KeyError
        raise ValueError(f"{name!r} is no time zone of the IANA database") from error
    return name


def _fits(symbol: str) -> str:
    if not 0 < len(symbol.encode()) <= SYMBOL_BYTES_MAXIMUM:
        raise ValueError(f"a symbol has 1 to {SYMBOL_BYTES_MAXIMUM} bytes")
    return symbol


TimeZone: TypeAlias = Annotated[str, AfterValidator(_known_zone)]
Symbol: TypeAlias = Annotated[str, AfterValidator(_fits)]


class BinanceData(Strict):
    """A raw capture of Binance's streams; see `data.binance`."""

    kind: Literal["binance"] = "binance"
    path: Path
    rules: Rules = "refuse"


class BinanceDumpData(Strict):
    """Files of Binance's public archive, in order of time for each symbol; see `data.binance_dump`.

    `symbol` is needed only where a file's name no longer begins with it, as in `BTCUSDT-trades-2024-08-08.zip`.
    """

    kind: Literal["binance_dump"] = "binance_dump"
    paths: Paths
    series: Literal["trades", "aggTrades"]
    symbol: Symbol | None = None
    rules: Rules = "refuse"


class DatabentoData(Strict):
    """CSV files in Databento's layout, schemas `trades`, `tbbo` or `mbp-1`; see `data.databento`.

    `symbol` is needed only where the files have no column `symbol`. `venue_sequences` takes the venue's message numbers
    as sequences: right only where no message carries two trades.
    """

    kind: Literal["databento"] = "databento"
    paths: Paths
    symbol: Symbol | None = None
    venue_sequences: bool = False
    rules: Rules = "refuse"


class StampColumn(Strict):
    """The column with the venue's time.

    `unit` counts from the Unix epoch; `iso` is ISO 8601 text or a date-time type. `time_zone` says what a time without
    an offset means, and must be left out where the times carry one.
    """

    name: str
    unit: Unit
    time_zone: TimeZone | None = None

    @model_validator(mode="after")
    def _zone_of_iso_only(self) -> Self:
        if self.time_zone is not None and self.unit != "iso":
            raise ValueError(f"time_zone goes with unit 'iso' only: {self.unit!r} counts from the epoch, in UTC")
        return self


class SymbolColumn(Strict):
    """The column with the symbol."""

    name: str


class SignColumn(Strict):
    """The aggressor as 1 (bought), -1 (sold) or 0 (unknown)."""

    form: Literal["sign"] = "sign"
    name: str


class BuyerIsMakerColumn(Strict):
    """The aggressor as a flag, true or false: whether the buyer was the maker, so that the aggressor sold."""

    form: Literal["buyer_is_maker"] = "buyer_is_maker"
    name: str


class SideColumn(Strict):
    """The aggressor as a word, exactly as the file spells it; `unknown` may be empty, as the cell."""

    form: Literal["side"] = "side"
    name: str
    buy: str = "B"
    sell: str = "S"
    unknown: str = ""

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        if len({self.buy, self.sell, self.unknown}) < 3:
            raise ValueError("buy, sell and unknown must differ")
        return self


class QuoteColumns(Strict):
    """The columns of the quote in force just before the trade; all empty or NaN: there was none."""

    bid: str
    ask: str
    bid_size: str
    ask_size: str


class ColumnMap(Strict):
    """Which column of a file is what.

    Without `sequence` trades have no number, without `aggressor` it is unknown, without `quote` there is none.
    """

    stamp: StampColumn
    price: str
    size: str
    sequence: str | None = None
    aggressor: Annotated[SignColumn | BuyerIsMakerColumn | SideColumn, Field(discriminator="form")] | None = None
    quote: QuoteColumns | None = None


class FileData(Strict):
    """CSV (plain, .gz, .zip, .zst) or Parquet files (`.parquet`) of any layout; see `data.mapped`.

    `symbol` is a constant (`symbol = "BTCUSDT"`) or a column (`symbol = { name = "pair" }`).
    """

    kind: Literal["file"] = "file"
    paths: Paths
    symbol: Symbol | SymbolColumn
    columns: ColumnMap
    rules: Rules = "refuse"


class DailyData(Strict):
    """Daily bars of an index; see `data.daily` for the names."""

    kind: Literal["daily"] = "daily"
    source: str = "sp500"


class PanelData(Strict):
    """Daily closes of several symbols; see `data.panels` for the names."""

    kind: Literal["panel"] = "panel"
    source: str = "sp500"


class SimulatedData(Strict):
    """The simulator; see `data.simulator` for the planted relation."""

    kind: Literal["simulated"] = "simulated"
    trades: int = Field(default=20_000, ge=1, le=10_000_000)
    seed: int = Field(default=1, ge=0)
    edge: float = Field(default=0.0, ge=0.0, le=EDGE_LIMIT)


DataConfig: TypeAlias = Annotated[
    BinanceData | BinanceDumpData | DatabentoData | FileData | DailyData | PanelData | SimulatedData,
    Field(discriminator="kind"),
]


class FundamentalsData(Strict):
    """A CSV or Parquet file of fundamentals; the names of its columns, and when each value became known.

    See `data.fundamentals`.
    """

    path: Path
    as_of: StampColumn
    symbol: str = "symbol"
    name: str = "name"
    value: str = "value"
