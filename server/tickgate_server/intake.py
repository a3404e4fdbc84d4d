"""A request's input taken in: validated, applied to its symbol's state, and turned into the vector to score."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tickgate_server.errors import FieldInvalid
from tickgate_server.features.fundamentals import KnownFundamentals
from tickgate_server.features.schema import FeatureSet
from tickgate_server.features.store import FeatureStore
from tickgate_server.models.loading import LoadedModel
from tickgate_server.records import FEATURES, SYMBOL, TICK, Decision, Request
from tickgate_server.risk.reasons import Reason
from tickgate_server.states.waiting import WaitingStates
from tickgate_server.ticks import market, symbols
from tickgate_server.ticks.instruments import SYMBOL_BYTES
from tickgate_server.ticks.market import MarketState
from tickgate_server.ticks.symbols import SymbolTable

_REJECTED = {
    market.DUPLICATE: Reason.TICK_DUPLICATE,
    market.OUT_OF_ORDER: Reason.TICK_OUT_OF_ORDER,
    market.FROM_FUTURE: Reason.TICK_FROM_FUTURE,
    market.STALE: Reason.TICK_STALE,
    market.CROSSED_QUOTE: Reason.TICK_CROSSED_QUOTE,
    market.PRICE_JUMP: Reason.TICK_PRICE_JUMP,
}
_NO_ROW = {symbols.UNKNOWN: Reason.TICK_UNKNOWN_SYMBOL, symbols.FULL: Reason.TICK_SYMBOL_TABLE_FULL}
_NAN = float("nan")


class Intake:
    """The state that ticks change: market and features of each symbol.

    Attributes:
        symbols: Rows of the symbols.
        market: Each row's market state.
        stores: Its features, for each feature set.
        fundamentals: What is known beside ticks, for sets that take it.
        future_limit_ns, stale_limit_ns, price_jump_sigmas, price_jump_least: As given.
        waiting: States of a store that wait for their symbol's next tick.
        on_resumed: Called with the row that such a state was put in force in.

    Args:
        table: Rows of the symbols.
        capacity: Most of them.
        models: Whose feature sets are kept.
        clock_ns: What time it is, in nanoseconds since the epoch; None: time is the ticks' own.
        future_limit_ns, stale_limit_ns, feature_age_limit_ns, price_jump_sigmas, price_jump_least: As `EngineSettings`.
        continuation_gap_ns: As above.
    """

    def __init__(
        self,
        table: SymbolTable,
        capacity: int,
        models: list[LoadedModel],
        clock_ns: Callable[[], int] | None,
        future_limit_ns: int,
        stale_limit_ns: int,
        feature_age_limit_ns: int,
        price_jump_sigmas: float,
        price_jump_least: float,
        continuation_gap_ns: int = 0,
    ) -> None:
        self.symbols = table
        self.waiting = WaitingStates(continuation_gap_ns)
        self.on_resumed: Callable[[int], None] = lambda row: None  # noqa: ARG005 - nobody asked
        self.market = MarketState(capacity)
        self.fundamentals = KnownFundamentals(capacity)
        # One store for each distinct feature set: bounded by the models that were loaded.
        self._store_of = {
            schema_id: FeatureStore(features, capacity, self.fundamentals)
            for schema_id, features in {model.schema_id: model.features for model in models}.items()
        }
        self.stores = list(self._store_of.values())
        self._capacity = capacity
        self._clock_ns = clock_ns
        self.future_limit_ns = future_limit_ns
        self.stale_limit_ns = stale_limit_ns
        self._feature_age_limit_ns = feature_age_limit_ns
        self.price_jump_sigmas = price_jump_sigmas
        self.price_jump_least = price_jump_least

    def keep(self, features: Mapping[str, FeatureSet]) -> None:
        """Keep the windows of these feature sets, by schema id, and no others; new ones begin empty."""
        if self._store_of.keys() != features.keys():
            self._store_of = {
                schema_id: self._store_of.get(schema_id) or FeatureStore(found, self._capacity, self.fundamentals)
                for schema_id, found in features.items()
            }
            self.stores = list(self._store_of.values())

    def take(
        self, request: Request, decision: Decision, model: LoadedModel
    ) -> tuple[float, NDArray[np.float32] | None]:
        """Apply a request's input.

        Returns:
            Reference price, and the vector to score, float32 [width]; no vector where `decision.reason` says why there
            is none. The vector is the store's own, unless the caller sent it.

        Raises:
            FieldInvalid: The caller's error; nothing changed.
            SymbolElsewhere: Another worker's symbol; nothing changed.
        """
        if request.input == TICK:
            row, decision.reason = self._apply(request, decision)
        else:
            row, decision.reason = self._look_up(request, decision, model)
        decision.row = row
        if decision.reason:
            return _NAN, None
        if request.input == FEATURES:
            decision.ready = True
            decision.features_ts_ns = request.exchange_ts_ns
            return request.reference_price, np.array(request.values, np.float32)
        store = self._store_of[model.schema_id]
        decision.ready = store.complete(row, int(self.market.stamps[row, market.LAST_TICK_NS]))
        decision.trades_in_window = int(store.counts[row])
        decision.features_ts_ns = int(self.market.stamps[row, market.LAST_TRADE_NS])
        if not decision.ready:
            decision.reason = Reason.FEATURES_NOT_READY
            return _NAN, None
        return float(self.market.quotes_trades[row, market.PRICE]), store.vectors[row]

    def _apply(self, request: Request, decision: Decision) -> tuple[int, int]:
        """Validate a tick and take it in; its row, and 0 or the reason it was rejected for."""
        _check_symbol(request.symbol, "tick.symbol")
        _check_tick(request)
        row = self.symbols.row(request.symbol)
        new = row == symbols.UNKNOWN
        if new:
            row = self.symbols.offer(request.symbol)
            if row < 0:
                return row, _NO_ROW[row]
        decision.clock_ns = now_ns = 0 if self._clock_ns is None else self._clock_ns()
        decision.age_ns = max(now_ns - request.exchange_ts_ns, 0)
        state = self.market
        fits = None
        if self.waiting:
            at = (request.exchange_ts_ns, request.sequence)
            fits = self.waiting.try_on(request.symbol, row, *at, state, self.stores)
        verdict = market.apply(
            state.quotes_trades,
            state.volatilities,
            state.stamps,
            state.sequences,
            row,
            request.kind,
            request.exchange_ts_ns,
            request.sequence,
            request.price,
            request.size,
            request.bid,
            request.ask,
            request.bid_size,
            request.ask_size,
            now_ns,
            self.future_limit_ns,
            self.stale_limit_ns,
            self.price_jump_sigmas,
            self.price_jump_least,
        )
        if fits is not None and self.waiting.settle(request.symbol, row, verdict, state, self.stores, fits=fits):
            self.resumed(row, new=new)
            new = False
        if verdict in {market.ACCEPTED_NEW, market.ACCEPTED_BOTH}:
            decision.applied = True
            decision.confirmed = verdict == market.ACCEPTED_BOTH
            if new:
                self.symbols.keep()
            for store in self.stores:
                if verdict == market.ACCEPTED_BOTH:
                    store.take(row, *state.held(row))
                store.take(
                    row,
                    request.kind,
                    request.exchange_ts_ns,
                    request.price,
                    request.size,
                    request.bid,
                    request.ask,
                    request.bid_size,
                    request.ask_size,
                )
            return row, 0
        if verdict == market.ACCEPTED_AGAIN:
            return row, 0
        decision.held_back = verdict == market.PRICE_JUMP
        return row, _REJECTED[verdict]

    def resume(self, symbol: str) -> None:
        """Put the state that waits for a symbol in force, as a repeat of its latest tick did.

        Raises:
            KeyError: None waits for it.
            SymbolElsewhere: Another worker has it.
        """
        row = self.symbols.row(symbol)
        new = row == symbols.UNKNOWN
        if new:
            row = self.symbols.offer(symbol)
        self.waiting.resume(symbol, row, self.market, self.stores)
        self.resumed(row, new=new)

    def resumed(self, row: int, *, new: bool) -> None:
        """A stored state was put in force in a row; `new`: the row is on offer, and is kept now."""
        if new:
            self.symbols.keep()
        self.on_resumed(row)

    def _look_up(self, request: Request, decision: Decision, model: LoadedModel) -> tuple[int, int]:
        """Row of a request that brings no tick, and 0 or the reason why it cannot be served."""
        if request.input == FEATURES:
            _check_symbol(request.symbol, "features.symbol")
            _check_features(request, model)
            stamp_ns = request.exchange_ts_ns
        elif request.input == SYMBOL:
            _check_symbol(request.symbol, "symbol")
            stamp_ns = 0  # its latest tick's
        else:
            raise FieldInvalid("input", "one of tick, features or symbol", None)
        row = self.symbols.row(request.symbol)
        if row < 0:
            self.symbols.require_own(request.symbol)
            return row, Reason.TICK_UNKNOWN_SYMBOL
        if self._clock_ns is not None:
            stamp_ns = stamp_ns or int(self.market.stamps[row, market.LAST_TICK_NS])
            decision.clock_ns = self._clock_ns()
            age_ns = decision.clock_ns - stamp_ns if stamp_ns else 0  # a listed symbol without a tick is not ready
            decision.age_ns = max(age_ns, 0)
            if age_ns > self._feature_age_limit_ns:
                return row, Reason.TICK_STALE
            if -age_ns > self.future_limit_ns:
                return row, Reason.TICK_FROM_FUTURE
        return row, 0


def stated_held(symbol: str, row: int, state: MarketState) -> dict[str, Any]:
    """A tick that was held back and applied after all, for the journal: before the one that confirmed it."""
    kind, stamp_ns, price, size, bid, ask, bid_size, ask_size = state.held(row)
    payload: dict[str, Any] = {"symbol": symbol, "kind": kind, "exchange_ts_ns": stamp_ns}
    payload |= {"sequence": int(state.sequences[row, market.HELD_SEQUENCE])}
    payload |= {"price": price, "size": size}
    if kind & market.QUOTE:
        payload |= {"bid": bid, "ask": ask, "bid_size": bid_size, "ask_size": ask_size}
    return payload


def _check_symbol(symbol: str, where: str) -> None:
    # Most symbols are short ASCII: characters bound bytes from below, and four times their number from above.
    length = len(symbol)
    if length == 0 or (length > SYMBOL_BYTES // 4 and len(symbol.encode()) > SYMBOL_BYTES):
        raise FieldInvalid(where, f"1 to {SYMBOL_BYTES} bytes of UTF-8", symbol)


def _check_tick(request: Request) -> None:  # noqa: C901 - one line a field
    """Every number in range; the comparisons are false for NaN."""
    if not request.kind:
        raise FieldInvalid("tick", "a trade, a quote, or both", "neither")
    if request.exchange_ts_ns <= 0:
        raise FieldInvalid("tick.exchange_ts_ns", "nanoseconds since the epoch, > 0", request.exchange_ts_ns)
    if request.kind & market.TRADE:
        if not 0.0 < request.price < math.inf:
            raise FieldInvalid("tick.trade.price", "a finite number > 0", request.price)
        if not 0.0 <= request.size < math.inf:
            raise FieldInvalid("tick.trade.size", "a finite number >= 0", request.size)
    if request.kind & market.QUOTE:
        if not 0.0 < request.bid < math.inf:
            raise FieldInvalid("tick.quote.bid", "a finite number > 0", request.bid)
        if not 0.0 < request.ask < math.inf:
            raise FieldInvalid("tick.quote.ask", "a finite number > 0", request.ask)
        if not 0.0 <= request.bid_size < math.inf:
            raise FieldInvalid("tick.quote.bid_size", "a finite number >= 0", request.bid_size)
        if not 0.0 <= request.ask_size < math.inf:
            raise FieldInvalid("tick.quote.ask_size", "a finite number >= 0", request.ask_size)


def _check_features(request: Request, model: LoadedModel) -> None:
    if request.schema_id not in {"", model.schema_id}:
        raise FieldInvalid("features.schema_id", f"{model.schema_id!r}, the model's", request.schema_id)
    width = model.features.width
    if len(request.values) != width:
        raise FieldInvalid("features.values", f"{width} values", f"{len(request.values)} values")
    for index, value in enumerate(request.values):
        if not math.isfinite(value):
            raise FieldInvalid(f"features.values[{index}]", "a finite number", value)
    if request.exchange_ts_ns <= 0:
        raise FieldInvalid("features.exchange_ts_ns", "nanoseconds since the epoch, > 0", request.exchange_ts_ns)
    if not 0.0 < request.reference_price < math.inf:
        raise FieldInvalid("features.reference_price", "a finite number > 0", request.reference_price)
