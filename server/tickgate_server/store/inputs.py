"""Records of the journal to the ticks that changed state, in the order applied.

That are those of DECISION records that were applied or held back, of STARTED controls, whose DECISION comes later, and
of TICKS records as far as they were accepted, confirmed or held back. A TICK control is none: what it tells comes about
again with the tick that confirmed it.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tickgate_server.journal.layout import NO_ROW, TICKS, Flags, RecordKind, TickOutcome
from tickgate_server.journal.segments import Rows
from tickgate_server.records import TICK

NUMBERS = ("price", "size", "bid", "ask", "bid_size", "ask_size")
INPUT = np.dtype(
    [
        ("row", "<i8"),  # of the symbol, in the replica
        ("kind", "<i8"),  # bits ticks.market.TRADE, QUOTE
        ("exchange_ts_ns", "<i8"),
        ("tick_sequence", "<u8"),
        ("clock_ns", "<i8"),  # wall clock that was read for it; 0 in replay mode
        ("record", "<u8"),  # that tells of it
        ("held_back", "<i8"),  # 1: as a price jump, 0: accepted
        *((name, "<f8") for name in NUMBERS),
    ]
)
"""One tick that changed state."""

Inputs = NDArray[np.void]
RowOf = Callable[[str], int]

_ACCEPTED = [TickOutcome.ACCEPTED, TickOutcome.CONFIRMED]
_CHANGED = [*_ACCEPTED, TickOutcome.HELD_BACK]
_OF_DECISION = {name: name for name in ("exchange_ts_ns", "tick_sequence", "clock_ns", *NUMBERS)}


def inputs(rows: Rows, row_of: RowOf, row_of_engine: NDArray[np.int64]) -> Inputs:
    """The ticks of some records of one server's run.

    Args:
        rows: DECISION [n]; TICKS among them.
        row_of: Called with each symbol of a decision's tick; its row.
        row_of_engine: The row of each row of the engine, see `ControlKind.SYMBOLS`; -1: not known.

    Returns:
        INPUT [m], in the order applied.

    Raises:
        ValueError: A published tick has a row that no SYMBOLS control told.
    """
    found = np.concatenate([of_decisions(rows, row_of), of_published(rows, row_of_engine)])
    return found[np.argsort(found["record"], kind="stable")]


def of_decisions(rows: Rows, row_of: RowOf) -> Inputs:
    """The ticks of decisions; see `inputs`."""
    held = rows["flags"] & Flags.HELD_BACK != 0
    chosen = (rows["kind"] == RecordKind.DECISION) & (rows["input"] == TICK) & (rows["applied"] | held)
    # That of one with a ticket was applied before, with its STARTED control.
    chosen &= (rows["ticket"] == 0) & (rows["flags"] & Flags.REPEATED == 0)
    rows, held = rows[chosen], held[chosen]
    found = np.zeros(rows.size, INPUT)
    for name, source in _OF_DECISION.items():
        found[name] = rows[source]
    found["record"], found["kind"], found["held_back"] = rows["sequence"], rows["tick_kind"], held
    # numpy drops NUL characters at a text's end, the length beside it does not.
    names = zip(rows["symbol"].tolist(), rows["symbol_bytes"].tolist(), strict=True)
    found["row"] = [row_of(name.ljust(length, b"\0").decode()) for name, length in names]
    return found


def of_published(rows: Rows, row_of_engine: NDArray[np.int64]) -> Inputs:
    """The ticks of TICKS records; see `inputs`."""
    records = rows[rows["kind"] == RecordKind.TICKS].view(TICKS)
    used = np.arange(TICKS["ticks"].shape[0]) < records["tick_count"][:, None]
    ticks = records["ticks"]
    chosen = used & np.isin(ticks["outcome"], _CHANGED)
    at, _ = np.nonzero(chosen)
    told = ticks[chosen]
    if (told["row"] == NO_ROW).any() or (told["row"] >= row_of_engine.size).any():
        raise ValueError("a published tick that was applied has no row")
    found = np.zeros(told.size, INPUT)
    for name in ("exchange_ts_ns", "tick_sequence", "kind", *NUMBERS):
        found[name] = told[name]
    found["record"], found["clock_ns"] = records["sequence"][at], records["clock_ns"][at]
    found["held_back"] = told["outcome"] == TickOutcome.HELD_BACK
    found["row"] = row_of_engine[told["row"]]
    if (found["row"] < 0).any():
        raise ValueError("a published tick has a row that no record names the symbol of")
    return found


def of_started(request: Mapping[str, Any], sequence: int, clock_ns: int, row_of: RowOf) -> Inputs:
    """The tick of a STARTED control; none where its request gave none. One that was applied before changes nothing."""
    if request["input"] != TICK:
        return np.zeros(0, INPUT)
    found = np.zeros(1, INPUT)
    found["tick_sequence"] = request["sequence"]
    for name in ("kind", "exchange_ts_ns", *NUMBERS):
        found[name] = request[name]
    found["record"], found["clock_ns"], found["row"] = sequence, clock_ns, row_of(request["symbol"])
    return found
