"""The ledger as others see it."""

from collections.abc import Sequence

import numpy as np

from tickgate_server.desk.ledger import OPEN, Ledger
from tickgate_server.risk import gate
from tickgate_server.risk.book import (
    AVERAGE_COST,
    DEGRADED,
    EXPIRES_NS,
    FILLED,
    FRESH,
    GROSS,
    HELD,
    HIGHEST_ROW,
    MARK,
    NET_DOWN,
    NET_UP,
    OPEN_BUYS,
    OPEN_SELLS,
    ORDER_ID,
    ORDER_ROW,
    ORDER_STATE,
    PEAK,
    PNL,
    REALISED,
    UNREALISED,
    UNREALISED_BASE,
    UNUSED,
)
from tickgate_server.risk.reports import (
    OrderState,
    OrderView,
    PortfolioView,
    PositionView,
    Side,
)


def portfolio_view(ledger: Ledger, revision: int, symbols: Sequence[str] = ()) -> PortfolioView:
    """What is held and open now; of these symbols, or of all that have anything."""
    book = ledger.book
    account = book.account
    if symbols:
        wanted = [ledger.symbols.row(symbol) for symbol in symbols]
        rows = [row for row in wanted if row >= 0]
    else:
        rows = np.flatnonzero(book.facts[: book.state[HIGHEST_ROW], HELD]).tolist()
    held = set(rows)
    used = int(book.state[UNUSED])
    open_slots = np.flatnonzero(np.isin(book.order_facts[:used, ORDER_STATE], OPEN))
    return PortfolioView(
        revision=revision,
        state=ledger.state,
        positions=tuple(_position(ledger, row) for row in rows),
        orders=tuple(
            _order(ledger, slot)
            for slot in open_slots.tolist()
            if not symbols or book.order_facts[slot, ORDER_ROW] in held
        ),
        gross=float(account[GROSS]),
        net=max(float(account[NET_UP]), float(account[NET_DOWN]), key=abs),
        realised=float(book.rows[: book.state[HIGHEST_ROW], REALISED].sum()),
        unrealised=float(
            (
                book.rows[: book.state[HIGHEST_ROW], UNREALISED] - book.rows[: book.state[HIGHEST_ROW], UNREALISED_BASE]
            ).sum()
        ),
        drawdown=float(account[PEAK] - account[PNL]),
        value_at_risk=gate.portfolio_value_at_risk(book.table),
        base_currency=ledger.limits.base_currency,
        risk_data_fresh=bool(book.state[FRESH]),
        degraded=tuple(
            f"{name}:{version}"
            for (name, version), model in ledger.models.items()
            if book.models[model.number, DEGRADED]
        ),
    )


def _position(ledger: Ledger, row: int) -> PositionView:
    values = ledger.book.rows[row]
    instrument = ledger.symbols.universe.find(ledger.names[row])
    return PositionView(
        symbol=ledger.names[row],
        filled=float(values[FILLED]),
        open_buys=float(values[OPEN_BUYS]),
        open_sells=float(values[OPEN_SELLS]),
        average_cost=float(values[AVERAGE_COST]),
        mark=float(values[MARK]),
        realised=float(values[REALISED]),
        unrealised=float(values[UNREALISED] - values[UNREALISED_BASE]),
        currency=instrument.currency if instrument else "",
    )


def _order(ledger: Ledger, slot: int) -> OrderView:
    facts = ledger.book.order_facts[slot]
    signed, remaining = ledger.book.orders[slot].tolist()
    return OrderView(
        order_id=int(facts[ORDER_ID]),
        symbol=ledger.names[facts[ORDER_ROW]],
        side=Side.BUY if signed > 0.0 else Side.SELL,
        size=abs(signed),
        remaining=remaining,
        state=OrderState(int(facts[ORDER_STATE])),
        expires_ns=int(facts[EXPIRES_NS]),
    )
