"""The server's rules over a recording's pieces: each row's reason, as the server would have given it.

Rows of symbols are given out by the server's own table, and every other rule is the kernel's that judges live ticks
(`data.rule_loop`). The clock rules need to know when a tick arrived. Where a file says so, its arrival stamps stand for
the server's clock; where it does not, these rules are not asked, and the report says that.

**Clocks.** Who recorded the file had a clock of their own. Nothing arrives before it was sent: where the first piece
has arrivals before their exchange time, the clocks differ by at least the most of that, and all arrivals are moved by
it, unless the user says by how much. The report tells the figure: a server on that host has to live with it.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from tickgate_server.ticks import market, symbols
from tickgate_server.ticks.instruments import SYMBOL_BYTES, Universe
from tickgate_server.ticks.symbols import SymbolTable
from tickgate_training.data.rule_loop import FACTS, FAULTS, INVALID, Limits, RuleLoop, Verdicts, faults
from tickgate_training.data_check.recording import Piece

_ACCEPTED = (market.ACCEPTED_NEW, market.ACCEPTED_BOTH)
_SYMBOL_RULE = f"symbol: found {{found}}, but a symbol has 1 to {SYMBOL_BYTES} bytes"


class Reason(IntEnum):
    """Why a row was rejected, in the order in which the rules are asked; ACCEPTED: it was not."""

    ACCEPTED = 0
    INVALID_VALUE = 1
    UNKNOWN_SYMBOL = 2
    SYMBOL_TABLE_FULL = 3
    DUPLICATE = 4
    OUT_OF_ORDER = 5
    FROM_FUTURE = 6
    STALE = 7
    CROSSED_QUOTE = 8
    PRICE_JUMP = 9


CLOCK_REASONS = frozenset({Reason.FROM_FUTURE, Reason.STALE})
_OF_VERDICT = np.zeros(market.ACCEPTED_BOTH + 2, np.int8)  # by verdict + 1
_OF_VERDICT[[INVALID + 1, market.ACCEPTED_AGAIN + 1, market.DUPLICATE + 1]] = (
    Reason.INVALID_VALUE,
    Reason.DUPLICATE,
    Reason.DUPLICATE,
)
for _name in ("OUT_OF_ORDER", "FROM_FUTURE", "STALE", "CROSSED_QUOTE", "PRICE_JUMP"):
    _OF_VERDICT[getattr(market, _name) + 1] = Reason[_name]


@dataclass(frozen=True, slots=True)
class Screened:
    """What the rules said of a piece.

    Attributes:
        piece: As it was read.
        reasons: int8 [n], of `Reason`; a trade that was held back is PRICE_JUMP, also if a later one confirms it.
        again: bool [n]: a DUPLICATE that is the symbol's latest tick word for word, which the server answers again.
        verdicts: As `data.rule_loop` gives them.
        first: Number of the piece's first row among all.
        delays_ns: Arrival less exchange time, int64 [n], as moved; meaningless where `timed` is false.
        timed: bool [n]: the row's arrival is known.
    """

    piece: Piece
    reasons: NDArray[np.int8]
    again: NDArray[np.bool_]
    verdicts: Verdicts
    first: int
    delays_ns: NDArray[np.int64]
    timed: NDArray[np.bool_]


class Screening:
    """Judges pieces in order.

    Attributes:
        offset_ns: What arrival stamps are moved by; None: no arrival was seen yet.

    Args:
        universe: The instruments, and whether there are others.
        capacity: Most symbols.
        limits: What the rules are held to.
        offset_ns: As above; None: it is found, see the module.
    """

    def __init__(self, universe: Universe, capacity: int, limits: Limits, offset_ns: int | None = None) -> None:
        self.offset_ns = offset_ns
        self._table = SymbolTable(universe, capacity)
        self._loop = RuleLoop(capacity, limits)

    def waits(self, symbol: str) -> bool:
        """Whether a symbol's last trade is held back still."""
        row = self._table.row(symbol)
        return row >= 0 and self._loop.holds(row)

    def judge(self, piece: Piece) -> Screened:
        """What the server would have said of the next rows."""
        first = self._loop.taken
        broken = faults(piece.kinds, piece.stamps_ns, piece.values) > 0
        fits = {symbol: 0 < len(symbol.encode()) <= SYMBOL_BYTES for symbol in set(piece.symbols)}
        broken |= ~np.array([fits[symbol] for symbol in piece.symbols], np.bool_)
        timed = (piece.arrivals_ns > 0) & ~broken
        clocks_ns = self._clocks_ns(piece, timed)
        verdicts, without_row = self._judge(piece, broken, clocks_ns)
        reasons = _OF_VERDICT[verdicts.codes + 1]
        reasons[without_row > 0] = without_row[without_row > 0]
        return Screened(
            piece=piece,
            reasons=reasons,
            again=verdicts.codes == market.ACCEPTED_AGAIN,
            verdicts=verdicts,
            first=first,
            delays_ns=clocks_ns - piece.stamps_ns,
            timed=timed,
        )

    def _clocks_ns(self, piece: Piece, timed: NDArray[np.bool_]) -> NDArray[np.int64]:
        if self.offset_ns is None and timed.any():
            least_ns = int((piece.arrivals_ns[timed] - piece.stamps_ns[timed]).min())
            self.offset_ns = max(0, -least_ns)
        return np.where(timed, piece.arrivals_ns + (self.offset_ns or 0), 0)

    def _judge(
        self, piece: Piece, broken: NDArray[np.bool_], clocks_ns: NDArray[np.int64]
    ) -> tuple[Verdicts, NDArray[np.int8]]:
        """Verdicts, and the reason of rows whose symbol has no row in the table, 0 elsewhere.

        A symbol gets its row with its first accepted tick, as on the server: so what comes before that is judged first.
        """
        count = len(piece.symbols)
        rows = np.array([self._table.row(symbol) for symbol in piece.symbols], np.int64)
        new = np.flatnonzero((rows == symbols.UNKNOWN) & ~broken)
        rows[broken] = -1
        without_row = np.zeros(count, np.int8)
        parts: list[Verdicts] = []
        begin = 0
        for at in new.tolist():
            symbol = piece.symbols[at]
            rows[at] = self._table.row(symbol)
            if rows[at] >= 0:
                continue
            offered = self._table.offer(symbol)
            if offered < 0:
                without_row[at] = Reason.UNKNOWN_SYMBOL if offered == symbols.UNKNOWN else Reason.SYMBOL_TABLE_FULL
                continue
            rows[at] = offered
            parts.append(self._apply(piece, rows, clocks_ns, begin, at))
            parts.append(self._apply(piece, rows, clocks_ns, at, at + 1))
            if parts[-1].codes[0] in _ACCEPTED:
                self._table.keep()
            begin = at + 1
        parts.append(self._apply(piece, rows, clocks_ns, begin, count))
        return _joined(parts), without_row

    def _apply(
        self, piece: Piece, rows: NDArray[np.int64], clocks_ns: NDArray[np.int64], begin: int, end: int
    ) -> Verdicts:
        part = slice(begin, end)
        return self._loop.judge(
            rows[part],
            piece.kinds[part],
            piece.stamps_ns[part],
            piece.sequences[part],
            piece.values[part],
            clocks_ns[part],
        )


def fault_text(piece: Piece, at: int) -> str:
    """What is wrong with a row that is INVALID_VALUE."""
    symbol = piece.symbols[at]
    if not 0 < len(symbol.encode()) <= SYMBOL_BYTES:
        return _SYMBOL_RULE.format(found=repr(symbol[: SYMBOL_BYTES + 8]))
    one = slice(at, at + 1)
    place = int(faults(piece.kinds[one], piece.stamps_ns[one], piece.values[one])[0])
    field, rule = FAULTS[place]
    found = {1: "neither trade nor quote", 2: str(piece.stamps_ns[at])}.get(place) or f"{piece.values[at, place - 3]:g}"
    return f"{field}: found {found}, but {rule}"


def _joined(parts: list[Verdicts]) -> Verdicts:
    if len(parts) == 1:
        return parts[0]
    return Verdicts(
        np.concatenate([part.codes for part in parts]),
        np.concatenate([part.facts for part in parts]).reshape(-1, FACTS),
        np.concatenate([part.moves for part in parts]),
    )
