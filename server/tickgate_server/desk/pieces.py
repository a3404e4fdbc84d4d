"""The ledger stated in pieces that JSON can hold, and taken from them again: the same bits, in the same order."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tickgate_server.desk.ledger import OPEN, Ledger
from tickgate_server.risk import orders, valuation
from tickgate_server.risk.book import (
    ACCOUNT_TOKENS,
    ACCOUNT_TOKENS_NS,
    AVERAGE_COST,
    BEGINS_FROM,
    BEGINS_TO,
    BREACHED,
    DEGRADED,
    ENDED_TAIL,
    EXPIRES_NS,
    FILLED,
    HELD,
    HIGHEST_ROW,
    LAST_ORDER,
    MARK,
    NEXT_SESSION_NS,
    NOW_NS,
    ORDER_ID,
    ORDER_ROW,
    ORDER_STATE,
    PREVIOUS,
    REALISED,
    REPEATS,
    SESSION_END_NS,
    SESSION_PEAK,
    SIGNED_SIZE,
    TOKENS,
    TOKENS_NS,
    UNREALISED_BASE,
    UNUSED,
    Book,
)
from tickgate_server.risk.regimes import TradingState
from tickgate_server.risk.reports import (
    OrderState,
    StateView,
)
from tickgate_server.ticks.calendars import next_begin

_PIECE = 200  # rows or orders stated at once
_ENDED_STATED = 1024  # orders that ended and may still be reported on after a restart
_ROW_STATED = [FILLED, AVERAGE_COST, REALISED, UNREALISED_BASE, MARK, LAST_ORDER, TOKENS]
_ROW_FACTS_STATED = [REPEATS, TOKENS_NS]


class PieceUnknown(Exception):
    """A piece of the book was stated by another version of tickgate; nothing of it was taken in.

    Attributes:
        piece: Which.
        lacks: What this version expects in it.
    """

    def __init__(self, piece: str, lacks: str) -> None:
        super().__init__(f"the piece {piece!r} of the book lacks {lacks}: another version of tickgate stated it")
        self.piece = piece
        self.lacks = lacks


def pieces(ledger: Ledger) -> Iterator[dict[str, Any]]:
    """The ledger in pieces of a bounded size, the account first."""
    yield {"account": _account(ledger)}
    rows = _rows(ledger)
    for at in range(0, len(rows), _PIECE):
        yield {"rows": rows[at : at + _PIECE]}
    orders = _orders(ledger)
    for at in range(0, len(orders), _PIECE):
        yield {"orders": orders[at : at + _PIECE]}


def _account(ledger: Ledger) -> dict[str, Any]:
    """What is not of a row or an order."""
    state, account = ledger.book.state, ledger.book.account
    return {
        "now_ns": int(state[NOW_NS]),
        "sessions": [
            [calendar.name, int(facts[SESSION_END_NS]), float(values[SESSION_PEAK])]
            for calendar, facts, values in zip(
                ledger.book.calendars, ledger.book.session_facts, ledger.book.sessions, strict=True
            )
        ],
        "tokens": float(account[ACCOUNT_TOKENS]),
        "tokens_ns": int(state[ACCOUNT_TOKENS_NS]),
        "state": int(ledger.state.state),
        "reason": ledger.state.reason,
        "who": ledger.state.who,
        "since_ns": ledger.state.since_ns,
        "degraded": [
            [name, version]
            for (name, version), model in ledger.models.items()
            if ledger.book.models[model.number, DEGRADED]
        ],
    }


def _rows(ledger: Ledger) -> list[list[Any]]:
    """Of each row that has anything: its symbol, and what `_ROW_STATED` and `_ROW_FACTS_STATED` name."""
    book = ledger.book
    used = book.facts[: book.state[HIGHEST_ROW]]
    priced = ~np.isnan(book.rows[: len(used), MARK])
    rows = np.flatnonzero((used[:, HELD] != 0) | (used[:, REPEATS] != 0) | (used[:, TOKENS_NS] != 0) | priced)
    values = book.rows[rows][:, _ROW_STATED].tolist()
    facts = book.facts[rows][:, _ROW_FACTS_STATED].tolist()
    return [[ledger.names[row], *value, *fact] for row, value, fact in zip(rows, values, facts, strict=True)]


def _orders(ledger: Ledger) -> list[list[Any]]:
    """Every open order, behind the newest that ended: id, symbol, signed size, remaining, state, expiry."""
    book = ledger.book
    facts = book.order_facts
    ended: list[int] = []
    slot = int(book.state[ENDED_TAIL])
    while slot >= 0 and len(ended) < _ENDED_STATED:
        ended.append(slot)
        slot = int(facts[slot, PREVIOUS])
    used = int(book.state[UNUSED])
    opened = np.flatnonzero(np.isin(facts[:used, ORDER_STATE], OPEN))
    # By id: reservations of one validity were made in the order in which they end.
    opened = opened[np.argsort(facts[opened, ORDER_ID], kind="stable")]
    return [
        [
            int(facts[slot, ORDER_ID]),
            ledger.names[facts[slot, ORDER_ROW]],
            *book.orders[slot].tolist(),
            int(facts[slot, ORDER_STATE]),
            int(facts[slot, EXPIRES_NS]),
        ]
        for slot in [*reversed(ended), *opened.tolist()]
    ]


def take_piece(ledger: Ledger, piece: Mapping[str, Any]) -> None:
    """Take in a piece of a book that was stated; the account first.

    Raises:
        PieceUnknown: Another version stated it.
    """
    book = ledger.book
    if "account" in piece:
        found = piece["account"]
        if "sessions" not in found:
            raise PieceUnknown("account", "its sessions by calendar")
        book.state[[NOW_NS, ACCOUNT_TOKENS_NS]] = found["now_ns"], found["tokens_ns"]
        book.account[ACCOUNT_TOKENS] = found["tokens"]
        _take_sessions(book, found["sessions"])
        state = TradingState(found["state"])
        ledger.apply_state(StateView(state, found["reason"], found["who"], found["since_ns"]))
        for name, version in found["degraded"]:
            ledger.apply_degraded(name, version, degraded=1)
    peaks = book.sessions[:, SESSION_PEAK].copy()
    for symbol, *said in piece.get("rows", ()):
        row = ledger.row_of(symbol)
        count = len(_ROW_STATED)
        book.rows[row, _ROW_STATED], book.facts[row, _ROW_FACTS_STATED] = said[:count], said[count:]
        valuation.revalue(book.table, row)
    for order_id, symbol, signed, remaining, state, expires_ns in piece.get("orders", ()):
        _take_order(ledger, order_id, ledger.row_of(symbol), signed, remaining, OrderState(state), expires_ns)
    book.sessions[:, SESSION_PEAK] = peaks
    valuation.sum_account(book.table)
    book.state[BREACHED] = 0
    ledger.know_fills(piece.get("fills", ()))


def _take_sessions(book: Book, said: Sequence[tuple[str, int, float]]) -> None:
    """Sessions that were under way; a calendar that another instrument file brings is in the one that it has now."""
    stated = {name: (end_ns, peak) for name, end_ns, peak in said}
    now_ns = int(book.state[NOW_NS])
    for number, calendar in enumerate(book.calendars):
        facts = book.session_facts[number]
        begins_ns = book.session_begins[facts[BEGINS_FROM] : facts[BEGINS_TO]]
        end_ns = int(next_begin(begins_ns, now_ns)) if now_ns else 0
        facts[SESSION_END_NS], book.sessions[number, SESSION_PEAK] = stated.get(calendar.name, (end_ns, 0.0))
    book.state[NEXT_SESSION_NS] = book.session_facts[:, SESSION_END_NS].min()


def _take_order(
    ledger: Ledger, order_id: int, row: int, signed: float, remaining: float, state: OrderState, expires_ns: int
) -> None:
    table = ledger.book.table
    left = remaining if signed > 0.0 else -remaining
    slot = orders.open_order(table, row, left, expires_ns if state is OrderState.RESERVED else 0, order_id)
    ledger.took_slot(slot, order_id)
    ledger.book.orders[slot, SIGNED_SIZE] = signed
    if state not in OPEN:
        orders.end_order(table, slot, state)
        ledger.book.order_facts[slot, EXPIRES_NS] = expires_ns
