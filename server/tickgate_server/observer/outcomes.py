"""What became of each prediction: a delayed join of decisions with the trade prices that the journal has behind them.

The label is training's (`tickgate_training.labels.fixed_horizon`): a decision that reads trade i is entered at trade
i + LAG_TRADES and left `horizon_trades` later, both counted in trades of its symbol, and a silence longer than the
model's session gap inside [i, i + lag + horizon] leaves it without an outcome. Trade i is the symbol's latest when the
features were read, so a decision on a quote, on a symbol alone or on the caller's own features has one too.

A trade is a tick with one that changed state, with a question or published without: a repeat (`ACCEPTED_AGAIN`) was not
applied and is none. Where a model has a thread of its own, its tick counts where the STARTED control stands, and its
decision belongs to the latest trade there.

Outcomes do not overlap. There are two chains for each version and symbol, every prediction and those that would be
traded. In each, a decision is taken up only if its entry is not before the exit of the last one taken up, and that is
settled as it begins: an outcome that is then not there (a silence, a loss of records) still has kept others out, so
that no result decides which ones are counted.
"""

from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tickgate_server.journal.layout import SYMBOL_BYTES, Flags
from tickgate_server.journal.published import PublishedTicks
from tickgate_server.journal.segments import Rows
from tickgate_server.kernels import kernel
from tickgate_server.ticks.market import TRADE

LAG_TRADES = 1
"""Trades from decision to entry: training's default, and what its backtest executes with; manifests do not say it."""

SYMBOLS = 4096
VERSIONS = 64
RECENT_TRADES = 64
"""Trades remembered a symbol: a decision that was made while so many went by has no outcome."""

_PENDING = 2  # in a chain: one begins while the one before waits for its last `LAG_TRADES` trades
_CHAINS = 2
_VALUE, _CONFIDENCE, _SCALE, _ENTRY = range(4)
_BUFFER = 8192
_LATEST, _NOTHING = -1, 0  # of a column `at`: begin at the symbol's latest trade; begin nothing


class Chain(IntEnum):
    """Which decisions keep each other out."""

    PREDICTION = 0  # all that were scored
    TRADE = 1  # those at or above the decision threshold for which the sizing asked for a position


OUTCOME = np.dtype(
    [
        ("version", "<i4"),  # as given to `watch`
        ("symbol", "<i4"),  # a number for the symbol, good until `forget`
        ("chain", "u1"),  # Chain
        ("sequence", "<u8"),  # of the decision's record
        ("begin_ns", "<i8"),  # venue's time of trade i
        ("end_ns", "<i8"),  # venue's time of the exit
        ("value", "<f8"),  # 2 P(up) - 1
        ("confidence", "<f8"),
        ("move", "<f8"),  # exit / entry - 1, simple, unsigned by direction
        ("profit", "<f8"),  # currency: target x multiplier x (exit - entry), before costs
    ]
)
Outcomes = NDArray[np.void]

_PENDING_TYPES = "int64[:,:,:,::1], int64[:,:,:,::1], int64[:,:,:,::1], float64[:,:,:,:,::1]"
_OUT_TYPES = "int64[:,::1], float64[:,::1]"


@kernel(
    "int64(int64, int64, int64, int64, int64, float64, int64, int64, int64[::1], int64[::1],"
    f" {_PENDING_TYPES}, {_OUT_TYPES}, int64)"
)
def _step(
    version: int,
    symbol: int,
    chain: int,
    place: int,
    number: int,
    price: float,
    stamp_ns: int,
    silence_ns: int,
    horizons: NDArray[np.int64],
    gaps_ns: NDArray[np.int64],
    begun: NDArray[np.int64],
    begun_ns: NDArray[np.int64],
    sequences: NDArray[np.int64],
    values: NDArray[np.float64],
    integers: NDArray[np.int64],
    floats: NDArray[np.float64],
    found: int,
) -> int:
    """Take one pending decision past trade `number`; how many outcomes there are then."""
    at = (version, symbol, chain, place)
    passed = number - begun[at]
    if 0 < gaps_ns[version] < silence_ns:
        begun[at] = 0
    elif passed == LAG_TRADES:
        values[version, symbol, chain, place, _ENTRY] = price
    elif passed == LAG_TRADES + horizons[version]:
        entry = values[version, symbol, chain, place, _ENTRY]
        integers[found, 0] = version
        integers[found, 1] = symbol
        integers[found, 2] = chain
        integers[found, 3] = sequences[at]
        integers[found, 4] = begun_ns[at]
        integers[found, 5] = stamp_ns
        floats[found, 0] = values[version, symbol, chain, place, _VALUE]
        floats[found, 1] = values[version, symbol, chain, place, _CONFIDENCE]
        floats[found, 2] = price / entry - 1.0
        floats[found, 3] = values[version, symbol, chain, place, _SCALE] * (price - entry)
        begun[at] = 0
        return found + 1
    return found


@kernel(
    "UniTuple(int64, 3)(int64, boolean[::1], int64[::1], int64[::1], int64[::1], int64[::1], int64[::1],"
    " float64[:,::1], int64[::1], float64[:,::1], int64[:,::1], int64[::1], int64[::1], float64[::1], int64[:,:,::1],"
    f" {_PENDING_TYPES}, {_OUT_TYPES})"
)
def _advance(  # noqa: C901, PLR0912 - one pass over the records, in their order
    row: int,
    traded: NDArray[np.bool_],
    symbols: NDArray[np.int64],
    versions: NDArray[np.int64],
    at: NDArray[np.int64],
    stamps_ns: NDArray[np.int64],
    decisions: NDArray[np.int64],
    numbers: NDArray[np.float64],
    counts: NDArray[np.int64],
    recent_prices: NDArray[np.float64],
    recent_stamps_ns: NDArray[np.int64],
    horizons: NDArray[np.int64],
    gaps_ns: NDArray[np.int64],
    thresholds: NDArray[np.float64],
    free: NDArray[np.int64],
    begun: NDArray[np.int64],
    begun_ns: NDArray[np.int64],
    sequences: NDArray[np.int64],
    values: NDArray[np.float64],
    integers: NDArray[np.int64],
    floats: NDArray[np.float64],
) -> tuple[int, int, int]:
    """Take in records from `row` on while the buffer has room: the next row, outcomes found, decisions too late."""
    found = 0
    late = 0
    room = integers.shape[0] - _CHAINS * (horizons.size + 1)
    while row < symbols.size and found <= room:
        symbol = symbols[row]
        price = numbers[row, 0]
        stamp_ns = stamps_ns[row]
        if traded[row]:
            number = counts[symbol] + 1
            silence_ns = 0
            if number > 1:
                silence_ns = stamp_ns - recent_stamps_ns[symbol, (number - 1) % RECENT_TRADES]
            counts[symbol] = number
            recent_prices[symbol, number % RECENT_TRADES] = price
            recent_stamps_ns[symbol, number % RECENT_TRADES] = stamp_ns
            for version in range(horizons.size):
                if horizons[version] == 0:
                    continue
                for chain in range(_CHAINS):
                    for place in range(_PENDING):
                        if begun[version, symbol, chain, place] != 0:
                            found = _step(
                                version, symbol, chain, place, number, price, stamp_ns, silence_ns, horizons, gaps_ns,
                                begun, begun_ns, sequences, values, integers, floats, found,
                            )  # fmt: skip
        version = versions[row]
        trade = counts[symbol] if at[row] == _LATEST else at[row]
        if version < 0 or trade <= 0:
            row += 1
            continue
        if counts[symbol] - trade >= RECENT_TRADES:
            late += 1
            row += 1
            continue
        for chain in range(_CHAINS):
            # Written so that NaN is no trade.
            wanted = numbers[row, 2] >= thresholds[version] and np.isfinite(numbers[row, 3]) and numbers[row, 3] != 0.0
            if (chain == 1 and not wanted) or trade < free[version, symbol, chain]:
                continue
            place = 0
            while place < _PENDING and begun[version, symbol, chain, place] != 0:
                place += 1
            if place == _PENDING:  # cannot be: see _PENDING
                continue
            free[version, symbol, chain] = trade + horizons[version]
            begun[version, symbol, chain, place] = trade
            begun_ns[version, symbol, chain, place] = recent_stamps_ns[symbol, trade % RECENT_TRADES]
            sequences[version, symbol, chain, place] = decisions[row]
            values[version, symbol, chain, place, _VALUE] = numbers[row, 1]
            values[version, symbol, chain, place, _CONFIDENCE] = numbers[row, 2]
            values[version, symbol, chain, place, _SCALE] = numbers[row, 3]
            for number in range(trade + 1, counts[symbol] + 1):  # those that went by while the model ran
                if begun[version, symbol, chain, place] == trade:
                    slot = number % RECENT_TRADES
                    then_ns = recent_stamps_ns[symbol, slot]
                    silence_ns = then_ns - recent_stamps_ns[symbol, (number - 1) % RECENT_TRADES]
                    found = _step(
                        version, symbol, chain, place, number, recent_prices[symbol, slot], then_ns, silence_ns,
                        horizons, gaps_ns, begun, begun_ns, sequences, values, integers, floats, found,
                    )  # fmt: skip
        row += 1
    return row, found, late


class OutcomeJoin:
    """Predictions that wait for their outcome, in memory of a fixed size: 65 MB, touched where symbols are used.

    What happens at a bound: decisions on symbols beyond `symbols` have no outcome, and neither have those made while
    `RECENT_TRADES` trades of their symbol went by; both are counted. Of pending ones there cannot be more than two a
    version, symbol and chain.

    Attributes:
        beyond: Records of symbols for which there was no room.
        late: Decisions that came too late for what is remembered of their symbol.
        nothing: OUTCOME [0].
        multipliers: Currency per unit and point of price by symbol; 1 where it has none. Read when a symbol is new.

    Args:
        symbols: Most of them.
        versions: Most versions at a time.
    """

    def __init__(self, symbols: int = SYMBOLS, versions: int = VERSIONS) -> None:
        self.nothing = np.empty(0, OUTCOME)
        self.beyond = 0
        self.late = 0
        self.multipliers: dict[str, float] = {}
        self._capacity = symbols
        self._horizons = np.zeros(versions, np.int64)  # 0: not watched
        self._gaps_ns = np.zeros(versions, np.int64)
        self._thresholds = np.full(versions, np.nan)
        self._integers = np.zeros((_BUFFER, 6), np.int64)
        self._floats = np.zeros((_BUFFER, 4))
        self.forget()

    def watch(self, version: int, horizon_trades: int, session_gap_ns: int, threshold: float) -> None:
        """Join the decisions of a version from here on; what another had under that number is forgotten.

        Args:
            version: A number below `versions`.
            horizon_trades: At least 1.
            session_gap_ns: As the manifest's features have it; 0: none.
            threshold: Least confidence of a trade.

        Raises:
            ValueError: The horizon is below 1.
        """
        if horizon_trades < 1:
            raise ValueError(f"horizon must be at least 1, got {horizon_trades}")
        self._horizons[version] = horizon_trades
        self._gaps_ns[version] = session_gap_ns
        self._thresholds[version] = threshold
        self.restart(version)

    def restart(self, version: int) -> None:
        """Forget what is pending of a version."""
        self._free[version] = 0
        self._begun[version] = 0

    def forget(self) -> None:
        """Forget all symbols and what is pending: a server began anew, or records are missing."""
        shape = (self._horizons.size, self._capacity, _CHAINS, _PENDING)
        self._rows: dict[bytes, int] = {}
        self._tickets: dict[int, int] = {}
        self._counts = np.zeros(self._capacity, np.int64)
        self._tick_sequences = np.zeros(self._capacity, np.uint64)
        self._multipliers = np.ones(self._capacity)
        self._recent_prices = np.zeros((self._capacity, RECENT_TRADES))
        self._recent_stamps_ns = np.zeros((self._capacity, RECENT_TRADES), np.int64)
        self._free = np.zeros(shape[:3], np.int64)  # first trade that the next decision may belong to
        self._begun = np.zeros(shape, np.int64)
        self._begun_ns = np.zeros(shape, np.int64)
        self._sequences = np.zeros(shape, np.int64)
        self._values = np.zeros((*shape, 4))

    def start(self, ticket: int, symbol: str) -> None:
        """A STARTED control: the decision with this ticket, which comes later, belongs to the latest trade of now.

        Args:
            ticket: That the decision will have.
            symbol: Of the request.
        """
        row = self._row(_key(symbol))
        if row >= 0:
            self._tickets[ticket] = int(self._counts[row])

    def publish(self, symbol: str, kind: int, price: float, stamp_ns: int, tick_sequence: int) -> Outcomes:
        """Take in a tick that was accepted and that no decision record brings: a TICK's, or a STARTED request's.

        Args:
            symbol: Of the tick.
            kind: Bits TRADE and QUOTE.
            price: Of the trade.
            stamp_ns: Venue's time.
            tick_sequence: The feed's number; 0: none. A tick with that of the symbol's latest is that one, asked about
                again, and was not applied.

        Returns:
            OUTCOME [n] that ended with it.
        """
        row = self._row(_key(symbol))
        if row < 0:
            self.beyond += 1
            return self.nothing
        if tick_sequence != 0 and int(self._tick_sequences[row]) == tick_sequence:
            return self.nothing
        self._tick_sequences[row] = tick_sequence
        if not kind & TRADE:
            return self.nothing
        one, nobody, decision = np.array([row]), np.array([-1]), np.array([0])
        numbers = np.array([[price, np.nan, np.nan, np.nan]])
        return self._run(np.array([True]), one, nobody, nobody, np.array([stamp_ns]), decision, numbers)

    def feed(self, decisions: Rows, versions: NDArray[np.int64], published: PublishedTicks | None = None) -> Outcomes:
        """Take in records in the journal's order.

        Args:
            decisions: DECISION [n], decisions only.
            versions: int64 [n]: the version that each belongs to, -1 where it is not watched.
            published: Ticks that were published between them; None: there are none.

        Returns:
            OUTCOME [m] that ended with them, in the order in which they ended.
        """
        of_ticket = decisions["ticket"] != 0
        applied = decisions["applied"] & ~of_ticket
        scored = decisions["scored"] & (versions >= 0) & np.isfinite(decisions["value"])
        scored &= (decisions["flags"] & Flags.REPEATED) == 0  # an earlier decision's answer
        # Columns by themselves: records are wide, and a dictionary is faster than sorting names.
        kept = np.flatnonzero(applied | scored)
        names = decisions["symbol"][kept].tolist()
        symbols = np.array([self._row(name) for name in names], np.int64)
        if (symbols < 0).any():
            self.beyond += int((symbols < 0).sum())
            kept, symbols = kept[symbols >= 0], symbols[symbols >= 0]
        applied, scored = applied[kept], scored[kept]
        at = np.where(scored, _LATEST, _NOTHING)
        for index in np.flatnonzero(of_ticket[kept]).tolist():
            started = self._tickets.pop(int(decisions["ticket"][kept[index]]), _NOTHING)
            at[index] = started if scored[index] else _NOTHING
        numbers = np.empty((kept.size, 4))
        for column, name in enumerate(("price", "value", "confidence", "target")):
            numbers[:, column] = decisions[name][kept]
        numbers[:, 3] *= self._multipliers[symbols]
        trades = applied & ((decisions["tick_kind"][kept] & TRADE) != 0)
        stamps_ns, sequences = decisions["exchange_ts_ns"][kept], decisions["sequence"][kept].astype(np.int64)
        events = _Events(trades, symbols, versions[kept], at, stamps_ns, sequences, numbers)
        latest = (sequences[applied], symbols[applied], decisions["tick_sequence"][kept[applied]])
        if published is not None and len(published):
            applied_too = published.applied()
            rows = applied_too.numbered(self._row)
            room = rows >= 0
            self.beyond += int((~room).sum())
            own = (applied_too.sequences.astype(np.int64), rows, applied_too.ticks["tick_sequence"])
            latest = tuple(np.concatenate((one, other[room])) for one, other in zip(latest, own, strict=True))  # type: ignore[assignment]  # three
            events = events.merged(_trades(applied_too, rows, own[0]))
        # Of a symbol that comes more than once the last one counts.
        order = np.argsort(latest[0], kind="stable")
        self._tick_sequences[latest[1][order]] = latest[2][order]
        return self._run(*events) if events.symbols.size else self.nothing

    def _row(self, symbol: bytes) -> int:
        """Number of a symbol; -1 where there is no room or it has no name."""
        row = self._rows.get(symbol, -1)
        if row < 0 and symbol and len(self._rows) < self._capacity:
            row = self._rows[symbol] = len(self._rows)
            self._multipliers[row] = self.multipliers.get(symbol.decode(errors="replace"), 1.0)
        return row

    def _run(
        self,
        trades: NDArray[np.bool_],
        symbols: NDArray[np.int64],
        versions: NDArray[np.int64],
        at: NDArray[np.int64],
        stamps_ns: NDArray[np.int64],
        sequences: NDArray[np.int64],
        numbers: NDArray[np.float64],
    ) -> Outcomes:
        pieces = []
        row = 0
        while row < symbols.size:
            row, found, late = _advance(
                row, trades, symbols, versions, at, stamps_ns, sequences, numbers,
                self._counts, self._recent_prices, self._recent_stamps_ns,
                self._horizons, self._gaps_ns, self._thresholds, self._free,
                self._begun, self._begun_ns, self._sequences, self._values, self._integers, self._floats,
            )  # fmt: skip
            self.late += late
            pieces.append(self._taken(found))
        return np.concatenate(pieces)

    def _taken(self, count: int) -> Outcomes:
        found = np.empty(count, OUTCOME)
        for column, name in enumerate(("version", "symbol", "chain", "sequence", "begin_ns", "end_ns")):
            found[name] = self._integers[:count, column]
        for column, name in enumerate(("value", "confidence", "move", "profit")):
            found[name] = self._floats[:count, column]
        return found


class _Events(NamedTuple):
    """What `_advance` takes in, a row an event."""

    traded: NDArray[np.bool_]
    symbols: NDArray[np.int64]
    versions: NDArray[np.int64]
    at: NDArray[np.int64]
    stamps_ns: NDArray[np.int64]
    sequences: NDArray[np.int64]
    numbers: NDArray[np.float64]

    def merged(self, other: "_Events") -> "_Events":
        """Both, in the order of the journal."""
        order = np.argsort(np.concatenate((self.sequences, other.sequences)), kind="stable")
        return _Events(*(np.concatenate(pair)[order] for pair in zip(self, other, strict=True)))


def _trades(applied: PublishedTicks, symbols: NDArray[np.int64], sequences: NDArray[np.int64]) -> _Events:
    """Trades that were published; of symbols below 0, for which there was no room, none."""
    traded = (symbols >= 0) & (applied.ticks["kind"] & TRADE != 0)
    count = int(traded.sum())
    numbers = np.full((count, 4), np.nan)
    numbers[:, 0] = applied.ticks["price"][traded]
    nobody = np.full(count, -1, np.int64)
    stamps_ns = applied.ticks["exchange_ts_ns"][traded]
    return _Events(np.ones(count, np.bool_), symbols[traded], nobody, nobody, stamps_ns, sequences[traded], numbers)


def _key(symbol: str) -> bytes:
    """A symbol as numpy reads it from a record."""
    return symbol.encode(errors="replace")[:SYMBOL_BYTES].rstrip(b"\0")
