"""The server's own rules over recorded ticks: what it would have refused, training does not see either.

Each symbol's rows go, in order, through `tickgate_server.ticks.market.apply`, the kernel that judges live ticks, with
the clock of a replay: no tick is late or early. So a table that passed is one that the server accepts to the last row.
The reasons are those of the contract:

    INVALID_VALUE   a number out of range, or a quote that is not whole (`table.VALUE_RULES`); looked at first, as there
    DUPLICATE       a sequence among the symbol's last 1,024 accepted ones. The server answers the very latest tick,
                    sent once more, again and applies nothing: here that is a duplicate too, a row too many
    OUT_OF_ORDER    a stamp below the symbol's last
    CROSSED_QUOTE   a bid above its ask
    PRICE_JUMP      a trade too far from the last one, by the server's default limits, that the next one does not
                    confirm: one that is confirmed is accepted, in its place

What needs a live desk (a closed universe, the size of the symbol table, the clock) is not asked.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tickgate_server.ticks import market
from tickgate_training.data import table
from tickgate_training.data.config import Rules
from tickgate_training.data.feeds import Feed
from tickgate_training.data.rule_loop import CONFIRMED, INVALID, NUMBERS, RuleLoop
from tickgate_training.errors import TickRejected

ACCEPTED = market.ACCEPTED_NEW


class Reason(StrEnum):
    """Why a tick was rejected."""

    INVALID_VALUE = "INVALID_VALUE"
    DUPLICATE = "DUPLICATE"
    OUT_OF_ORDER = "OUT_OF_ORDER"
    CROSSED_QUOTE = "CROSSED_QUOTE"
    PRICE_JUMP = "PRICE_JUMP"


_REASONS = {
    INVALID: Reason.INVALID_VALUE,
    market.ACCEPTED_AGAIN: Reason.DUPLICATE,
    market.DUPLICATE: Reason.DUPLICATE,
    market.OUT_OF_ORDER: Reason.OUT_OF_ORDER,
    market.CROSSED_QUOTE: Reason.CROSSED_QUOTE,
    market.PRICE_JUMP: Reason.PRICE_JUMP,
}
_NO_JUMP = (
    f"a log return is up to {market.JUMP_SIGMAS:g} volatilities or {market.JUMP_LEAST:g}, or the next trade confirms it"
)
_NEW_SEQUENCE = f"a sequence is new among the symbol's last {market.RECENT}"


@dataclass(frozen=True, slots=True)
class Judged:
    """What the rules left.

    Attributes:
        frame: Canonical table of the accepted rows, by stamp, then symbol, then the order in which they came.
        rejected: Number of rows left out, by symbol and reason.
    """

    frame: pl.DataFrame
    rejected: dict[tuple[str, Reason], int]


def judge(feeds: Sequence[Feed], rules: Rules) -> Judged:
    """Hold the trades of files to the rules; a symbol's files follow each other in the order given.

    Args:
        feeds: What was read.
        rules: `refuse`: a rejected row is an error; `drop`: it is left out and counted.

    Raises:
        TickRejected: The first row that was rejected, with file, symbol, row and rule.
        TooFewRows: No row is left.
        ColumnInvalid: A feed lacks a canonical column.
    """
    frame = pl.concat([table.typed(feed.frame) for feed in feeds])
    found = verdicts(frame)
    rejected: dict[tuple[str, Reason], int] = {}
    if found.any():
        if rules == "refuse":
            raise _rejection(feeds, frame, found)
        codes = pl.Series("verdict", found)
        counts = frame.select("symbol", codes).filter(codes != ACCEPTED).group_by("symbol", "verdict").len()
        for symbol, verdict, count in counts.sort("symbol", "verdict").iter_rows():
            key = (symbol, _REASONS[verdict])
            rejected[key] = rejected.get(key, 0) + count
        frame = frame.filter(codes == ACCEPTED)
    return Judged(table.check(frame.sort("exchange_ts_ns", "symbol", maintain_order=True)), rejected)


def verdicts(frame: pl.DataFrame) -> NDArray[np.int8]:
    """What became of each row on the server, int8 [n]: `ACCEPTED`, `INVALID`, or a verdict of `ticks.market`.

    A rejected row changes nothing for those after it, as on the server; one that was held back and confirmed by the
    next is accepted.

    Args:
        frame: The canonical columns, without nulls; any number of symbols, in any order of symbols.
    """
    symbols = frame["symbol"].rank("dense").to_numpy().astype(np.int64) - 1
    loop = RuleLoop(int(symbols.max(initial=-1)) + 1)
    valid = frame.select(pl.all_horizontal(*(rule.holds for rule in table.VALUE_RULES))).to_series().to_numpy()
    judged = loop.judge(
        np.where(valid, symbols, -1),
        np.where(frame["bid"].is_nan().to_numpy(), market.TRADE, market.TRADE | market.QUOTE),
        table.values(frame, "exchange_ts_ns"),
        table.values(frame, "sequence"),
        np.ascontiguousarray(np.column_stack([table.values(frame, name) for name in NUMBERS])),
    )
    found, confirmed = judged.codes, judged.facts[:, CONFIRMED]
    found[found == market.ACCEPTED_BOTH] = ACCEPTED
    found[confirmed[confirmed >= 0]] = ACCEPTED
    return found


def _rejection(feeds: Sequence[Feed], frame: pl.DataFrame, found: NDArray[np.int8]) -> TickRejected:
    at = int(np.flatnonzero(found)[0])
    reason = _REASONS[int(found[at])]
    column, rule = _fault(frame.slice(at, 1), reason)
    first = np.cumsum([0, *(feed.frame.height for feed in feeds)])
    k = int(np.searchsorted(first, at, side="right")) - 1
    feed, row = feeds[k], int(feeds[k].rows[at - first[k]])
    return TickRejected(feed.source, frame["symbol"][at], column, row, repr(frame[column][at]), rule, reason.value)


def _fault(row: pl.DataFrame, reason: Reason) -> tuple[str, str]:
    """Column and rule of a rejected row."""
    if reason is Reason.INVALID_VALUE:
        broken = next(rule for rule in table.VALUE_RULES if not row.select(rule.holds).item())
        return broken.column, broken.text
    if reason is Reason.DUPLICATE:
        return "sequence", _NEW_SEQUENCE
    if reason is Reason.OUT_OF_ORDER:
        return "exchange_ts_ns", table.ORDER_RULE
    if reason is Reason.PRICE_JUMP:
        return "price", _NO_JUMP
    return table.CROSSED_RULE.column, table.CROSSED_RULE.text
