"""Trades that changed the market's state, out of polled records: what bars are made of."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tickgate_server.journal.entries import ControlEntry
from tickgate_server.journal.layout import DECISION, SYMBOL_BYTES, ControlKind
from tickgate_server.journal.published import PublishedTicks
from tickgate_server.journal.segments import Rows
from tickgate_server.records import TICK
from tickgate_server.ticks.market import TRADE

_COLUMNS = ["sequence", "symbol", "exchange_ts_ns", "price"]
_TRADE = np.dtype([(name, DECISION[name]) for name in _COLUMNS])


@dataclass(frozen=True, slots=True, eq=False)
class Trades:
    """Applied ticks with a trade, in the order of the journal.

    Attributes:
        after_start: A server began just before them.
        symbols: UTF-8, bytes [n].
        stamps_ns: Venue times, int64 [n].
        prices: float64 [n].
    """

    after_start: bool
    symbols: NDArray[np.bytes_]
    stamps_ns: NDArray[np.int64]
    prices: NDArray[np.float64]


def trades_of(
    decisions: Rows, controls: Sequence[ControlEntry], published: PublishedTicks | None = None
) -> Iterator[Trades]:
    """Trades of one batch, cut where a server began.

    Args:
        decisions: Records of `layout.DECISION`, ascending.
        controls: Those of the same batch, ascending; SETTINGS and TICK count. A TICK's payload has `symbol`,
            `exchange_ts_ns`, `kind` and `price`, as `records.stated` names them.
        published: Ticks that were published, of the same batch; None: there are none.
    """
    applied = (decisions["input"] == TICK) & decisions["applied"] & (decisions["tick_kind"] & TRADE != 0)
    trades = decisions[_COLUMNS][applied].astype(_TRADE)
    pieces = [trades]
    stated = [found for control in controls if control.code == ControlKind.TICK for found in _stated(control)]
    if stated:
        pieces.append(np.array(stated, _TRADE))
    if published is not None and len(published):
        pieces.append(_published(published))
    if len(pieces) > 1:
        trades = np.concatenate(pieces)
        trades = trades[np.argsort(trades["sequence"], kind="stable")]
    starts = [control.sequence for control in controls if control.code == ControlKind.SETTINGS]
    for after_start, piece in enumerate(np.split(trades, np.searchsorted(trades["sequence"], starts))):
        if piece.size or after_start:
            yield Trades(bool(after_start), piece["symbol"], piece["exchange_ts_ns"], piece["price"])


def _published(published: PublishedTicks) -> NDArray[np.void]:
    """Published ticks that were accepted and have a trade, as rows of trades."""
    accepted = published.applied().trades()
    found = np.empty(len(accepted), _TRADE)
    found["sequence"], found["symbol"] = accepted.sequences, accepted.symbols
    found["exchange_ts_ns"], found["price"] = accepted.ticks["exchange_ts_ns"], accepted.ticks["price"]
    return found


def _stated(control: ControlEntry) -> list[tuple[Any, ...]]:
    """A TICK as a row of trades; nothing where it has no trade."""
    payload = control.payload
    if not int(payload.get("kind", 0)) & TRADE:
        return []
    symbol = str(payload["symbol"]).encode()[:SYMBOL_BYTES]
    return [(control.sequence, symbol, int(payload["exchange_ts_ns"]), float(payload["price"]))]
