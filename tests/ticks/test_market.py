"""`market.apply` against a slow model of the rules, written from their definition."""

import math
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickgate_server.ticks import market
from tickgate_server.ticks.market import MarketState

NOW_NS, FUTURE_NS, STALE_NS = 1_000, 10, 20
HUGE = 2**64 - 1
NAN = math.nan


@dataclass(frozen=True)
class Tick:
    row: int = 0
    ts_ns: int = NOW_NS
    sequence: int = 0
    trade: tuple[float, float] | None = (100.0, 1.0)
    quote: tuple[float, float, float, float] | None = None


@dataclass
class Symbol:
    """What is remembered of one symbol."""

    latest: Tick | None = None
    numbers: list[int] = field(default_factory=list)
    prices: list[float] = field(default_factory=list)
    trade: tuple[float, float] = (NAN, NAN)
    trade_ns: int = 0
    quote: tuple[float, float, float, float] = (NAN, NAN, NAN, NAN)
    held: Tick | None = None

    def apply(self, tick: Tick, now_ns: int, sigmas: float = 10.0) -> int:
        verdict = self._judge(tick, now_ns)
        if verdict != market.ACCEPTED_NEW:
            return verdict
        if tick.trade is not None and sigmas:
            verdict, held = self._look_for_jump(tick, sigmas), self.held
            if verdict in {market.DUPLICATE, market.PRICE_JUMP}:
                return verdict
            self.held = None
            if verdict == market.ACCEPTED_BOTH:
                late = self.latest is not None and self.latest.ts_ns > held.ts_ns
                self._take(replace(held, quote=None) if late else held)
        self._take(tick)
        return verdict

    def _look_for_jump(self, tick: Tick, sigmas: float) -> int:
        price, last = tick.trade[0], self.trade[0]
        if self.held is not None:
            if tick == self.held:
                return market.PRICE_JUMP
            if tick.sequence and tick.sequence == self.held.sequence:
                return market.DUPLICATE
            jump = abs(math.log(self.held.trade[0] / last))
            if abs(math.log(price / self.held.trade[0])) <= jump / 2 and tick.ts_ns >= self.held.ts_ns:
                return market.ACCEPTED_BOTH
        change = abs(math.log(price / last)) if self.prices else 0.0
        if change > 0.005 and change > sigmas * self.volatility():  # false where that is not known
            self.held = tick
            return market.PRICE_JUMP
        return market.ACCEPTED_NEW

    def _take(self, tick: Tick) -> None:
        self.latest = tick
        if tick.sequence:
            self.numbers.append(tick.sequence)
        if tick.quote is not None:
            self.quote = tick.quote
        if tick.trade is not None:
            self.trade, self.trade_ns = tick.trade, tick.ts_ns
            self.prices.append(tick.trade[0])

    def _judge(self, tick: Tick, now_ns: int) -> int:
        known = tick.sequence != 0 and tick.sequence in self.numbers[-1024:]
        if known and tick != self.latest:
            return market.DUPLICATE
        if self.latest is not None and tick.ts_ns < self.latest.ts_ns:
            return market.OUT_OF_ORDER
        if now_ns and tick.ts_ns > now_ns + FUTURE_NS:
            return market.FROM_FUTURE
        if now_ns and tick.ts_ns < now_ns - STALE_NS:
            return market.STALE
        if tick.quote is not None and tick.quote[0] > tick.quote[1]:
            return market.CROSSED_QUOTE
        return market.ACCEPTED_AGAIN if known else market.ACCEPTED_NEW

    def volatility(self) -> float:
        returns = [math.log(after / before) for before, after in zip(self.prices, self.prices[1:], strict=False)]
        if len(returns) < 20:
            return NAN
        weights = [0.5 ** (age / 200.0) for age in reversed(range(len(returns)))]
        squares = math.fsum(w * r * r for w, r in zip(weights, returns, strict=True))
        return math.sqrt(squares / math.fsum(weights))


def apply(state: MarketState, tick: Tick, now_ns: int = 0, sigmas: float = 10.0) -> int:
    kind = (market.TRADE if tick.trade else 0) | (market.QUOTE if tick.quote else 0)
    # What a request left behind from the one before must not count.
    price, size = tick.trade or (7.0, 7.0)
    bid, ask, bid_size, ask_size = tick.quote or (9.0, 7.0, 7.0, 7.0)
    return market.apply(
        state.quotes_trades, state.volatilities, state.stamps, state.sequences, tick.row, kind, tick.ts_ns,
        tick.sequence, price, size, bid, ask, bid_size, ask_size, now_ns, FUTURE_NS, STALE_NS,
        sigmas, 0.005,
    )  # fmt: skip


def snapshot(state: MarketState) -> list[bytes]:
    return [array.tobytes() for array in (state.quotes_trades, state.volatilities, state.stamps, state.sequences)]


prices = st.sampled_from([99.0, 100.0, 100.5, 101.0])
sizes = st.sampled_from([0.0, 1.0, 2.5])
ticks = st.builds(
    Tick,
    row=st.integers(0, 1),
    ts_ns=st.integers(NOW_NS - 25, NOW_NS + 15),
    sequence=st.sampled_from([0, 1, 2, 3, 4, 5, 2**63 - 1, 2**63, 2**63 + 1, HUGE - 1, HUGE]),
    trade=st.none() | st.tuples(prices, sizes),
    quote=st.none() | st.tuples(prices, prices, sizes, sizes),
).filter(lambda tick: tick.trade is not None or tick.quote is not None)
# A tick, or an earlier one sent again as it was (None) or with another stamp (its shift).
steps = st.one_of(ticks, st.tuples(st.integers(1, 4), st.none() | st.sampled_from([-1, 1])))


@given(
    stream=st.lists(steps, max_size=80),
    now_ns=st.sampled_from([0, NOW_NS]),
    sigmas=st.sampled_from([0.0, 0.37, 1.21]),  # at 10 no price here is a jump
    seed=st.integers(0, 2**32),
)
def test_every_verdict_and_every_state_is_that_of_the_slow_model(
    stream: list[Tick | tuple[int, int | None]], now_ns: int, sigmas: float, seed: int
) -> None:
    state = MarketState(2)
    model = [Symbol(), Symbol()]
    for price in (100.0 * np.exp(np.random.default_rng(seed).normal(0.0, 0.002, 30).cumsum())).tolist():
        warm = Tick(ts_ns=NOW_NS - 20, trade=(price, 1.0))  # else no volatility is known
        assert apply(state, warm, now_ns, sigmas) == model[0].apply(warm, now_ns, sigmas)
    sent: list[Tick] = []
    for step in stream:
        if isinstance(step, Tick):
            tick = step
        elif step[0] <= len(sent):
            tick = sent[-step[0]]
            tick = tick if step[1] is None else replace(tick, ts_ns=tick.ts_ns + step[1])
        else:
            continue
        sent.append(tick)
        before = snapshot(state)
        verdict = apply(state, tick, now_ns, sigmas)
        assert verdict == model[tick.row].apply(tick, now_ns, sigmas)
        if verdict not in {market.ACCEPTED_NEW, market.ACCEPTED_BOTH, market.PRICE_JUMP}:
            assert snapshot(state) == before
        for row, symbol in enumerate(model):
            held = state.quotes_trades[row].tolist()
            if verdict == market.ACCEPTED_BOTH and row == tick.row:
                assert state.held(row)[2] == symbol.prices[-2]
            assert held[: market.SIGMA] == pytest.approx([*symbol.quote, *symbol.trade], abs=0, rel=0, nan_ok=True)
            assert (state.stamps[row, market.HELD_KIND] > 0) == (symbol.held is not None)
            assert held[market.SIGMA] == pytest.approx(symbol.volatility(), rel=1e-9, nan_ok=True)
            assert state.stamps[row, market.LAST_TICK_NS] == (symbol.latest.ts_ns if symbol.latest else 0)
            assert state.stamps[row, market.LAST_TRADE_NS] == symbol.trade_ns


@given(seed=st.integers(0, 2**32), stream=st.integers(1, 4))
def test_the_memory_of_numbers_is_the_last_1024_whatever_their_order(seed: int, stream: int) -> None:
    rng = np.random.default_rng(seed)
    state = MarketState(1)
    model = Symbol()
    # Few enough numbers that they come again, more than are remembered.
    for number in rng.integers(0, 700 * stream, 3000).tolist():
        tick = Tick(sequence=number)
        assert apply(state, tick) == model.apply(tick, 0)


def test_a_number_is_known_until_1024_later_ones_were_accepted() -> None:
    state = MarketState(1)
    numbers = range(1, 1025)
    assert all(apply(state, Tick(sequence=number)) == market.ACCEPTED_NEW for number in numbers)
    assert all(apply(state, Tick(sequence=number)) == market.DUPLICATE for number in numbers[:-1])
    assert apply(state, Tick(sequence=1025)) == market.ACCEPTED_NEW
    assert apply(state, Tick(sequence=2)) == market.DUPLICATE
    assert apply(state, Tick(sequence=1)) == market.ACCEPTED_NEW


def test_ticks_without_a_number_push_none_out_of_the_memory() -> None:
    state = MarketState(1)
    apply(state, Tick(sequence=1))
    for _ in range(2000):
        assert apply(state, Tick()) == market.ACCEPTED_NEW
    assert apply(state, Tick(sequence=1)) == market.DUPLICATE


def test_rejected_ticks_push_none_out_of_the_memory() -> None:
    state = MarketState(1)
    apply(state, Tick(sequence=1))
    for number in range(2, 2000):
        assert apply(state, Tick(sequence=number, quote=(2.0, 1.0, 1.0, 1.0))) == market.CROSSED_QUOTE
    assert apply(state, Tick(sequence=1)) == market.ACCEPTED_AGAIN


LATEST = Tick(sequence=7, trade=(100.0, 2.0), quote=(99.0, 101.0, 3.0, 4.0))


@pytest.mark.parametrize("number", [1, 7, 2**63 - 1, 2**63, HUGE])
def test_the_latest_tick_sent_again_is_accepted_and_changes_nothing(number: int) -> None:
    state = MarketState(1)
    tick = replace(LATEST, sequence=number)
    assert apply(state, tick) == market.ACCEPTED_NEW
    before = snapshot(state)
    assert [apply(state, tick), apply(state, tick)] == [market.ACCEPTED_AGAIN] * 2
    assert snapshot(state) == before


@pytest.mark.parametrize(
    "altered",
    [
        replace(LATEST, ts_ns=NOW_NS + 1),
        replace(LATEST, ts_ns=NOW_NS - 1),
        replace(LATEST, trade=None),
        replace(LATEST, quote=None),
        replace(LATEST, trade=(100.5, 2.0)),
        replace(LATEST, trade=(100.0, 2.5)),
        replace(LATEST, quote=(99.5, 101.0, 3.0, 4.0)),
        replace(LATEST, quote=(99.0, 100.5, 3.0, 4.0)),
        replace(LATEST, quote=(99.0, 101.0, 3.5, 4.0)),
        replace(LATEST, quote=(99.0, 101.0, 3.0, 4.5)),
        replace(LATEST, quote=(101.5, 101.0, 3.0, 4.0)),
    ],
    ids=lambda tick: f"{tick.ts_ns}-{tick.trade}-{tick.quote}",
)
def test_an_altered_copy_of_the_latest_tick_is_a_duplicate(altered: Tick) -> None:
    state = MarketState(1)
    apply(state, LATEST)
    before = snapshot(state)
    assert apply(state, altered) == market.DUPLICATE
    assert snapshot(state) == before


def test_a_tick_that_is_no_longer_the_latest_is_a_duplicate() -> None:
    state = MarketState(1)
    apply(state, LATEST)
    apply(state, Tick())
    assert apply(state, LATEST) == market.DUPLICATE


@pytest.mark.parametrize(
    ("ts_ns", "verdict"),
    [
        (NOW_NS + FUTURE_NS, market.ACCEPTED_NEW),
        (NOW_NS + FUTURE_NS + 1, market.FROM_FUTURE),
        (NOW_NS - STALE_NS, market.ACCEPTED_NEW),
        (NOW_NS - STALE_NS - 1, market.STALE),
    ],
)
def test_a_tick_exactly_at_the_clocks_limits_passes(ts_ns: int, verdict: int) -> None:
    assert apply(MarketState(1), Tick(ts_ns=ts_ns), NOW_NS) == verdict


def test_the_latest_tick_is_not_scored_again_once_it_is_stale() -> None:
    state = MarketState(1)
    assert apply(state, LATEST, NOW_NS) == market.ACCEPTED_NEW
    assert apply(state, LATEST, NOW_NS + STALE_NS + 1) == market.STALE


@pytest.mark.parametrize("ts_ns", [1, 2**63 - 1])
def test_stamps_at_the_ends_of_int64_are_judged_by_the_clock(ts_ns: int) -> None:
    wanted = market.STALE if ts_ns == 1 else market.FROM_FUTURE
    assert apply(MarketState(1), Tick(ts_ns=ts_ns), 1_723_161_600_000_000_000) == wanted


def test_equal_stamps_are_in_order() -> None:
    state = MarketState(1)
    assert [apply(state, Tick(sequence=number)) for number in (2, 1)] == [market.ACCEPTED_NEW] * 2


def test_a_locked_quote_is_accepted() -> None:
    assert apply(MarketState(1), Tick(quote=(100.0, 100.0, 1.0, 1.0))) == market.ACCEPTED_NEW


def warm(sigma: float = 0.001) -> tuple[MarketState, Symbol]:
    """Thirty trades with about this volatility, the last at 100."""
    state, model = MarketState(1), Symbol()
    for index in range(30):
        tick = Tick(trade=(100.0 * math.exp(sigma * (index % 2)), 1.0))
        apply(state, tick)
        model.apply(tick, 0)
    tick = Tick(trade=(100.0, 1.0))
    assert apply(state, tick) == market.ACCEPTED_NEW
    return state, model


def test_a_spike_that_the_next_trade_does_not_confirm_is_dropped() -> None:
    state, _ = warm()
    before = snapshot(state)[1]
    assert apply(state, Tick(trade=(103.0, 1.0))) == market.PRICE_JUMP
    assert snapshot(state)[1] == before
    assert state.quotes_trades[0, market.PRICE] == 100.0
    assert apply(state, Tick(trade=(100.1, 1.0))) == market.ACCEPTED_NEW
    assert apply(state, Tick(trade=(103.0, 1.0))) == market.PRICE_JUMP  # held anew: the first is forgotten


def test_a_move_that_the_next_trade_confirms_is_accepted_with_it() -> None:
    state, _ = warm()
    assert apply(state, Tick(ts_ns=NOW_NS + 1, trade=(103.0, 2.0))) == market.PRICE_JUMP
    assert apply(state, Tick(ts_ns=NOW_NS + 2, trade=(102.0, 3.0))) == market.ACCEPTED_BOTH
    assert state.held(0)[:4] == (market.TRADE, NOW_NS + 1, 103.0, 2.0)
    assert state.quotes_trades[0, market.PRICE] == 102.0


@pytest.mark.parametrize(("change", "verdict"), [(0.00999, market.ACCEPTED_NEW), (0.0102, market.PRICE_JUMP)])
def test_ten_volatilities_are_no_jump_yet(change: float, verdict: int) -> None:
    state, _ = warm()
    assert apply(state, Tick(trade=(100.0 * math.exp(change), 1.0))) == verdict


@pytest.mark.parametrize(("change", "verdict"), [(0.00499, market.ACCEPTED_NEW), (0.00501, market.PRICE_JUMP)])
def test_half_a_percent_is_no_jump_however_quiet_it_was(change: float, verdict: int) -> None:
    state, _ = warm(sigma=1e-6)
    assert apply(state, Tick(trade=(100.0 * math.exp(change), 1.0))) == verdict


def test_the_same_tick_again_confirms_nothing() -> None:
    for sequence in (0, 9):
        state, _ = warm()
        spike = Tick(sequence=sequence, trade=(103.0, 1.0))
        assert [apply(state, spike) for _ in range(3)] == [market.PRICE_JUMP] * 3


def test_quotes_go_on_while_a_trade_is_held_back_and_its_own_is_then_not_in_force() -> None:
    state, _ = warm()
    spike = Tick(ts_ns=NOW_NS + 1, trade=(103.0, 1.0), quote=(102.0, 104.0, 1.0, 1.0))
    assert apply(state, spike) == market.PRICE_JUMP
    quote = Tick(ts_ns=NOW_NS + 2, trade=None, quote=(102.5, 103.5, 1.0, 1.0))
    assert apply(state, quote) == market.ACCEPTED_NEW
    assert apply(state, Tick(ts_ns=NOW_NS + 3, trade=(103.1, 1.0))) == market.ACCEPTED_BOTH
    assert state.held(0)[0] == market.TRADE
    assert state.quotes_trades[0, market.BID] == 102.5
