"""A venue on paper: limit orders against live or recorded ticks, with what a real one costs.

Time is the ticks' own. The same ticks, orders and seed give the same fills: what is drawn for an order depends on the
seed and the order's id, not on what else goes on.

- An order is on its way for as long as `latency` says; orders and cancels arrive in the order in which they were sent.
- One that can trade as it arrives crosses the quote in force then (without one: the last trade's price and the half
  spread), and pays square-root impact on top, never beyond its limit price. What its limit leaves no room for rests.
- What rests is filled at its limit price, once a trade prints beyond it or the other side's quote reaches it: where it
  stood in the queue nobody knows, so a trade at the price itself is not ours.
- All orders of a symbol together take at most `participation` of the volume that traded, in the order in which they
  came. So fills are partial, and what is not filled before its validity is over expires.
- A cancel that arrives after the last fill loses.
- Impact needs a volatility: before 20 returns are known nothing crosses, unless impact is switched off.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from tickgate.v1 import market_pb2
from tickgate_client.execution.account import Account
from tickgate_client.execution.engine import ExecutionEngine
from tickgate_client.execution.errors import OrderInvalid, OrderReused, OrderUnknown
from tickgate_client.execution.impact import largest_within, next_fraction
from tickgate_client.execution.orders import (
    CancelRefused,
    Fill,
    NewOrder,
    OrderAccepted,
    OrderCancelled,
    OrderEvent,
    OrderExpired,
    OrderFilled,
    OrderRejected,
    OrderState,
    OrderStatus,
    RejectReason,
    Side,
)
from tickgate_client.execution.paper_market import PaperMarket
from tickgate_client.execution.paper_terms import PaperInstrument, PaperTerms

KEPT = 65_536
"""Ended orders, and fills, that are remembered; the oldest go first."""

_ID_BYTES = 28
"""Longest order id here: a fill's id is the order's and a number of up to seven digits."""

_EXPIRE, _ARRIVE, _CANCEL = 0, 1, 2  # at one moment, an order's end comes first


@dataclass(slots=True)
class _Order:
    order: NewOrder
    expires_ns: int
    state: OrderState = OrderState.SENT
    filled: float = 0.0
    fills: int = 0
    rests: bool = False

    @property
    def remaining(self) -> float:
        return self.order.size - self.filled


class PaperBroker(ExecutionEngine):
    """A venue on paper; its time is that of the ticks that it is given. Safe to use from several threads.

    Listeners are called by whoever calls `on_tick` or `advance`, once the tick is done with.

    Args:
        terms: How it treats orders.
        instruments: By symbol; others have the defaults.
        account: What is held as it begins; None: nothing. It is the broker's from then on.

    Attributes:
        account: What its fills add up to.
        ignored_ticks: Trades and quotes that were no numbers, or crossed.
    """

    def __init__(
        self,
        terms: PaperTerms | None = None,
        *,
        instruments: Mapping[str, PaperInstrument] | None = None,
        account: Account | None = None,
    ) -> None:
        self.terms = terms or PaperTerms()
        self._instruments = dict(instruments or {})
        self.account = account or Account(lambda symbol: self._instrument(symbol).multiplier)
        self.ignored_ticks = 0
        self._lock = threading.RLock()
        self._now_ns = 0
        self._session_ns = 0  # when the last message that was sent arrives
        self._numbers = itertools.count()
        self._due: list[tuple[int, int, int, str]] = []
        self._orders: dict[str, _Order] = {}
        self._ended: deque[str] = deque()
        self._working: dict[str, list[_Order]] = {}
        self._open = 0
        self._markets: dict[str, PaperMarket] = {}
        self._fills: deque[Fill] = deque(maxlen=KEPT)
        self._events: deque[OrderEvent] = deque()
        self._listeners: list[Callable[[OrderEvent], None]] = []

    # -- what the market does ------------------------------------------------------------------------------------------

    def now_ns(self) -> int:
        """The latest tick's time; 0 before the first."""
        return self._now_ns

    def on_tick(self, tick: market_pb2.Tick) -> None:
        """Let time pass to the tick, apply it, and fill what it fills. A tick from before now counts as of now."""
        with self._lock:
            self._pass_time(tick.exchange_ts_ns)
            market = self._market(tick.symbol)
            if tick.HasField("quote"):
                quote = tick.quote
                if 0.0 < quote.bid <= quote.ask < math.inf:
                    market.on_quote(quote.bid, quote.ask, self._now_ns)
                else:
                    self.ignored_ticks += 1
            traded = math.nan
            if tick.HasField("trade"):
                trade = tick.trade
                if 0.0 < trade.price < math.inf and 0.0 <= trade.size < math.inf:
                    market.on_trade(trade.price, trade.size, self._now_ns)
                    traded = trade.price
                else:
                    self.ignored_ticks += 1
            for working in list(self._working.get(tick.symbol, ())):
                self._try(working, market, traded)
        self._deliver()

    def advance(self, now_ns: int) -> None:
        """Let time pass without a tick."""
        with self._lock:
            self._pass_time(now_ns)
        self._deliver()

    # -- ExecutionEngine -----------------------------------------------------------------------------------------------

    def submit(self, order: NewOrder) -> None:
        """See ExecutionEngine.submit."""
        order.check()
        if len(order.order_id.encode()) > _ID_BYTES:
            raise OrderInvalid(order.order_id, "order_id", found=order.order_id, expected=f"at most {_ID_BYTES} bytes")
        with self._lock:
            if order.order_id in self._orders:
                raise OrderReused(order.order_id)
            expires_ns = self._now_ns + order.valid_for_ns
            self._orders[order.order_id] = _Order(order, expires_ns)
            self._open += 1
            self._send(_ARRIVE, order.order_id, "order")
            heapq.heappush(self._due, (expires_ns, _EXPIRE, next(self._numbers), order.order_id))

    def cancel(self, order_id: str) -> None:
        """See ExecutionEngine.cancel."""
        with self._lock:
            self._known(order_id)
            self._send(_CANCEL, order_id, "cancel")

    def order(self, order_id: str) -> OrderStatus:
        """See ExecutionEngine.order."""
        with self._lock:
            return _status(self._known(order_id))

    def open_orders(self) -> list[OrderStatus]:
        """See ExecutionEngine.open_orders."""
        with self._lock:
            return [_status(one) for one in self._orders.values() if one.state.is_open]

    def positions(self) -> Mapping[str, float]:
        """See ExecutionEngine.positions."""
        with self._lock:
            return self.account.positions()

    def fills_since(self, exchange_ts_ns: int) -> Iterable[Fill]:
        """See ExecutionEngine.fills_since; of the last 65,536."""
        with self._lock:
            return [fill for fill in self._fills if fill.exchange_ts_ns >= exchange_ts_ns]

    def subscribe(self, listener: Callable[[OrderEvent], None]) -> Callable[[], None]:
        """See ExecutionEngine.subscribe."""
        self._listeners.append(listener)

        def unsubscribe() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return unsubscribe

    # -- the way to the venue ------------------------------------------------------------------------------------------

    def _send(self, action: int, order_id: str, what: str) -> None:
        """Put a message on its way: it arrives after those that were sent before."""
        latency_ns = self.terms.latency.draw_ns(self._draws(order_id, what))
        self._session_ns = max(self._session_ns, self._now_ns + latency_ns)
        heapq.heappush(self._due, (self._session_ns, action, next(self._numbers), order_id))

    def _draws(self, order_id: str, what: str) -> random.Random:
        return random.Random(f"{self.terms.seed}|{order_id}|{what}")

    def _pass_time(self, to_ns: int) -> None:
        to_ns = max(to_ns, self._now_ns)
        while self._due and self._due[0][0] <= to_ns:
            due_ns, action, _, order_id = heapq.heappop(self._due)
            self._now_ns = max(due_ns, self._now_ns)
            found = self._orders.get(order_id)
            if found is None:  # ended so long ago that it was forgotten
                continue
            if action == _ARRIVE:
                self._arrive(found)
            elif action == _CANCEL:
                self._cancel(found)
            elif found.state.is_open:
                self._end(found, OrderState.EXPIRED, OrderExpired(order_id, self._now_ns))
        self._now_ns = to_ns

    def _arrive(self, found: _Order) -> None:
        if found.state is not OrderState.SENT:  # its time was over on the way
            return
        order_id = found.order.order_id
        reason = self._reject_reason(found.order)
        if reason is not None:
            self._end(found, OrderState.REJECTED, OrderRejected(order_id, reason, "", self._now_ns))
            return
        found.state = OrderState.WORKING
        self._working.setdefault(found.order.symbol, []).append(found)
        self._events.append(OrderAccepted(order_id, self._now_ns))
        self._try(found, self._market(found.order.symbol), math.nan)

    def _reject_reason(self, order: NewOrder) -> RejectReason | None:
        terms, instrument = self.terms, self._instrument(order.symbol)
        notional = order.size * order.limit_price * instrument.multiplier
        lots = round(order.size / instrument.lot)
        if math.isnan(self._market(order.symbol).touch(order.side, self._now_ns)):
            return RejectReason.MARKET_UNKNOWN
        if not math.isclose(lots * instrument.lot, order.size, rel_tol=1e-9):
            return RejectReason.SIZE_LOT
        if not order.size <= terms.max_order_size:
            return RejectReason.LIMIT_SIZE
        if not notional <= terms.max_order_notional:
            return RejectReason.LIMIT_NOTIONAL
        if self._open > terms.max_open_orders:
            return RejectReason.LIMIT_OPEN_ORDERS
        refused = self._draws(order.order_id, "refusal").random() < terms.reject_probability
        return RejectReason.VENUE_REFUSED if refused else None

    def _cancel(self, found: _Order) -> None:
        order_id = found.order.order_id
        if found.state.is_open:
            self._end(found, OrderState.CANCELLED, OrderCancelled(order_id, self._now_ns))
        else:
            self._events.append(CancelRefused(order_id, found.state, self._now_ns))

    # -- fills ---------------------------------------------------------------------------------------------------------

    def _try(self, working: _Order, market: PaperMarket, traded: float) -> None:
        """Fill what the market now gives; `traded` is the price of the trade that just printed, or NaN."""
        if working.rests:
            self._try_resting(working, market, traded)
            return
        side, limit = working.order.side, working.order.limit_price
        touch = market.touch(side, self._now_ns)
        if math.isnan(touch):
            return
        room = side.sign * (limit / touch - 1.0)
        if room < 0.0:
            working.rests = True
            return
        y = self.terms.impact
        volume, volatility = market.volume(self._now_ns), market.volatility(self._now_ns)
        free = self._down_to_lot(working, market.allowance)
        within = largest_within(room, working.filled, free, volatility, volume, y)
        size = self._down_to_lot(working, within)
        if size > 0.0:
            price = touch * (1.0 + side.sign * next_fraction(working.filled, size, volatility, volume, y))
            self._fill(working, market, size, min(price, limit) if side is Side.BUY else max(price, limit))
        if within < free and not math.isnan(volatility):
            working.rests = True  # its limit price has no room for the rest

    def _try_resting(self, working: _Order, market: PaperMarket, traded: float) -> None:
        side, limit = working.order.side, working.order.limit_price
        beyond = traded < limit if side is Side.BUY else traded > limit
        if market.has_quote(self._now_ns):
            beyond = beyond or (market.ask <= limit if side is Side.BUY else market.bid >= limit)
        size = self._down_to_lot(working, market.allowance) if beyond else 0.0
        if size > 0.0:
            self._fill(working, market, size, limit)

    def _fill(self, working: _Order, market: PaperMarket, size: float, price: float) -> None:
        order = working.order
        market.take(size)
        working.fills += 1
        whole = size == working.remaining
        working.filled = order.size if whole else working.filled + size
        instrument = self._instrument(order.symbol)
        fee = size * price * instrument.multiplier * self.terms.fee_bps * 1e-4
        fill_id = f"{order.order_id}/{working.fills}"
        fill = Fill(
            fill_id,
            order.order_id,
            order.symbol,
            order.side,
            size,
            price,
            fee,
            self._now_ns,
        )
        self._fills.append(fill)
        self.account.book(fill)
        filled = OrderFilled(fill, 0.0 if whole else working.remaining)
        if whole:
            self._end(working, OrderState.FILLED, filled)
        else:
            self._events.append(filled)

    def _down_to_lot(self, working: _Order, size: float) -> float:
        """At most what remains, and a multiple of the lot unless it is all of that."""
        if size >= working.remaining:
            return working.remaining
        lot = self._instrument(working.order.symbol).lot
        return math.floor(size / lot) * lot

    # -- what is kept --------------------------------------------------------------------------------------------------

    def _end(self, found: _Order, state: OrderState, event: OrderEvent) -> None:
        if found.state is OrderState.WORKING:
            self._working[found.order.symbol].remove(found)
        found.state = state
        self._open -= 1
        self._events.append(event)
        self._ended.append(found.order.order_id)
        if len(self._ended) > KEPT:
            del self._orders[self._ended.popleft()]

    def _known(self, order_id: str) -> _Order:
        found = self._orders.get(order_id)
        if found is None:
            raise OrderUnknown(order_id)
        return found

    def _instrument(self, symbol: str) -> PaperInstrument:
        return self._instruments.get(symbol) or PaperInstrument()

    def _market(self, symbol: str) -> PaperMarket:
        if symbol not in self._markets:
            terms = self.terms
            self._markets[symbol] = PaperMarket(
                terms.half_spread_bps * 1e-4,
                int(terms.span_s * 1e9),
                int(terms.quote_max_age_s * 1e9),
                terms.participation,
            )
        return self._markets[symbol]

    def _deliver(self) -> None:
        while self._events:
            event = self._events.popleft()
            for listener in tuple(self._listeners):
                listener(event)


def _status(found: _Order) -> OrderStatus:
    return OrderStatus(found.order, found.state, found.filled)
