"""The paper venue: what an order costs there, and what never happens, whatever orders and ticks come."""

import math
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tickgate.v1 import market_pb2
from tickgate_client.execution import (
    Account,
    CancelRefused,
    EmpiricalLatency,
    FixedLatency,
    Latency,
    LognormalLatency,
    NewOrder,
    OrderAccepted,
    OrderCancelled,
    OrderEvent,
    OrderExpired,
    OrderFilled,
    OrderInvalid,
    OrderRejected,
    OrderReused,
    OrderState,
    OrderUnknown,
    PaperBroker,
    PaperInstrument,
    PaperTerms,
    RejectReason,
    Side,
    impact_fraction,
)

S = 1_000_000_000
PLAIN = PaperTerms(latency=FixedLatency(0.0), impact=0.0, participation=math.inf)


def tick(at_ns: int, *, trade: tuple[float, float] | None = None, quote: tuple[float, float] | None = None) -> Any:
    found = market_pb2.Tick(symbol="A", exchange_ts_ns=at_ns)
    if trade is not None:
        found.trade.price, found.trade.size = trade
    if quote is not None:
        found.quote.bid, found.quote.ask, found.quote.bid_size, found.quote.ask_size = *quote, 1.0, 1.0
    return found


def order(number: int = 1, side: Side = Side.BUY, size: float = 1.0, limit: float = 200.0, **changes: Any) -> NewOrder:
    found = NewOrder(f"o{number}", "A", side, size, limit, 100 * S)
    return replace(found, **changes)


@dataclass
class Venue:
    """A broker that remembers what it said."""

    terms: PaperTerms = PLAIN
    instrument: PaperInstrument = field(default_factory=PaperInstrument)
    said: list[OrderEvent] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.broker = PaperBroker(self.terms, instruments={"A": self.instrument})
        self.broker.subscribe(self.said.append)

    @property
    def fills(self) -> list[tuple[float, float]]:
        return [(one.fill.size, one.fill.price) for one in self.said if isinstance(one, OrderFilled)]

    def kinds(self) -> list[str]:
        return [type(one).__name__ for one in self.said]


def opened(terms: PaperTerms = PLAIN, **changes: Any) -> Venue:
    """A venue that has a quote of 99 and 101 and a trade of 50 at 100."""
    venue = Venue(terms, **changes)
    venue.broker.on_tick(tick(S, trade=(100.0, 50.0), quote=(99.0, 101.0)))
    return venue


# -- what an order costs -----------------------------------------------------------------------------------------------


def test_an_order_crosses_the_quote_in_force_when_it_arrives_not_when_it_was_sent() -> None:
    venue = opened(replace(PLAIN, latency=FixedLatency(500_000.0)))
    venue.broker.submit(order())
    venue.broker.on_tick(tick(S + S // 4, quote=(104.0, 105.0)))
    venue.broker.on_tick(tick(2 * S, quote=(110.0, 111.0)))
    assert venue.fills == [(1.0, 105.0)]
    assert [one.exchange_ts_ns for one in venue.said if isinstance(one, OrderAccepted)] == [S + S // 2]


def test_a_seller_crosses_to_the_bid() -> None:
    venue = opened()
    venue.broker.submit(order(side=Side.SELL, limit=50.0))
    venue.broker.advance(2 * S)
    assert venue.fills == [(1.0, 99.0)]
    assert venue.broker.positions() == {"A": -1.0}


def test_without_a_quote_it_pays_the_half_spread_beyond_the_last_trade() -> None:
    venue = Venue(replace(PLAIN, half_spread_bps=10.0))
    venue.broker.on_tick(tick(S, trade=(100.0, 1.0)))
    venue.broker.submit(order())
    venue.broker.advance(2 * S)
    assert venue.fills == [(1.0, pytest.approx(100.1))]


def test_a_quote_that_is_too_old_counts_as_none() -> None:
    venue = opened(replace(PLAIN, half_spread_bps=0.0, quote_max_age_s=1.0))
    venue.broker.on_tick(tick(3 * S, trade=(120.0, 1.0)))
    venue.broker.submit(order())
    venue.broker.advance(4 * S)
    assert venue.fills == [(1.0, 120.0)]


def moving(terms: PaperTerms) -> Venue:
    """A venue whose price moved by 0.1 % up and down thirty times, each trade of 10 units."""
    venue = Venue(terms)
    for number in range(31):
        venue.broker.on_tick(tick(S + number, trade=(100.0 if number % 2 else 100.1, 10.0), quote=(100.0, 100.0)))
    return venue


def test_square_root_impact_comes_on_top() -> None:
    venue = moving(replace(PLAIN, impact=1.5))
    venue.broker.submit(order(size=3.1))
    venue.broker.advance(2 * S)
    volatility = math.sqrt(30) * math.log(100.1 / 100.0)
    assert venue.fills == [(3.1, pytest.approx(100.0 * (1.0 + 1.5 * volatility * math.sqrt(3.1 / 310.0))))]


def test_the_limit_price_cuts_what_impact_would_take_beyond_it_and_the_rest_waits_there() -> None:
    venue = moving(replace(PLAIN, impact=1.0))
    limit = 100.0 * (1.0 + impact_fraction(2.0, math.sqrt(30) * math.log(1.001), 310.0, 1.0))
    venue.broker.submit(order(size=5.0, limit=limit))
    venue.broker.on_tick(tick(2 * S, quote=(101.0, 102.0)))
    assert venue.fills == [(pytest.approx(2.0), pytest.approx(limit))]
    venue.broker.on_tick(tick(3 * S, trade=(limit - 0.01, 1.0)))
    assert venue.fills[1] == (pytest.approx(3.0), limit)


def test_nothing_crosses_with_impact_before_the_volatility_is_known() -> None:
    venue = opened(replace(PLAIN, impact=1.0))
    venue.broker.submit(order())
    venue.broker.on_tick(tick(2 * S, trade=(100.0, 1.0)))
    assert venue.kinds() == ["OrderAccepted"]


def test_participation_spreads_a_large_order_over_the_volume_that_trades() -> None:
    venue = Venue(replace(PLAIN, participation=0.1))
    venue.broker.on_tick(tick(S, trade=(100.0, 50.0), quote=(99.0, 101.0)))
    venue.broker.submit(order(size=7.0))
    for number in range(3):
        venue.broker.on_tick(tick(2 * S + number, trade=(100.0, 10.0)))
    assert [size for size, _ in venue.fills] == [5.0, 1.0, 1.0]
    assert venue.broker.order("o1").state is OrderState.FILLED


def test_orders_share_the_volume_in_the_order_in_which_they_came() -> None:
    venue = Venue(replace(PLAIN, participation=0.1))
    venue.broker.on_tick(tick(S, quote=(99.0, 101.0)))
    for number in (1, 2):
        venue.broker.submit(order(number, size=3.0))
    venue.broker.on_tick(tick(2 * S, trade=(100.0, 40.0)))
    assert [(one.order_id, one.fill.size) for one in venue.said if isinstance(one, OrderFilled)] == [
        ("o1", 3.0),
        ("o2", 1.0),
    ]


def test_what_rests_is_filled_at_its_limit_once_a_trade_prints_beyond_it_not_at_it() -> None:
    venue = opened()
    venue.broker.submit(order(limit=100.0))
    venue.broker.on_tick(tick(2 * S, trade=(100.0, 5.0)))
    assert venue.fills == []
    venue.broker.on_tick(tick(3 * S, trade=(99.9, 5.0)))
    assert venue.fills == [(1.0, 100.0)]


def test_fees_are_a_share_of_the_notional_and_the_multiplier_counts() -> None:
    venue = opened(replace(PLAIN, fee_bps=10.0), instrument=PaperInstrument(multiplier=5.0))
    venue.broker.submit(order(size=2.0))
    venue.broker.advance(2 * S)
    held = venue.broker.account.holdings["A"]
    assert held.fees == pytest.approx(2.0 * 101.0 * 5.0 * 0.001)
    assert held.cash == pytest.approx(-2.0 * 101.0 * 5.0 * 1.001)
    assert venue.broker.account.equity("A", 101.0) == pytest.approx(-held.fees)


# -- how an order ends -------------------------------------------------------------------------------------------------


def test_a_cancel_that_arrives_after_the_fill_loses() -> None:
    venue = opened(replace(PLAIN, latency=FixedLatency(100.0)))
    venue.broker.submit(order())
    venue.broker.cancel("o1")
    venue.broker.advance(2 * S)
    assert venue.kinds() == ["OrderAccepted", "OrderFilled", "CancelRefused"]
    assert venue.said[-1] == CancelRefused("o1", OrderState.FILLED, S + 100_000)


class Scripted(Latency):
    """Times as a test gives them, in nanoseconds."""

    def __init__(self, *times_ns: int) -> None:
        self._times_ns = list(times_ns)

    def draw_ns(self, draws: Any) -> int:
        del draws
        return self._times_ns.pop(0)


def test_a_cancel_does_not_overtake_the_order_that_was_sent_before_it() -> None:
    venue = opened(replace(PLAIN, latency=Scripted(1_000_000, 1_000)))
    venue.broker.submit(order())
    venue.broker.cancel("o1")
    venue.broker.advance(2 * S)
    assert [(type(one).__name__, one.exchange_ts_ns - S) for one in venue.said if not isinstance(one, OrderFilled)] == [
        ("OrderAccepted", 1_000_000),
        ("CancelRefused", 1_000_000),
    ]


def test_volume_of_long_ago_may_not_be_taken_part_in() -> None:
    venue = opened(replace(PLAIN, participation=0.1, span_s=10.0))
    venue.broker.on_tick(tick(100 * S, trade=(100.0, 2.0)))
    venue.broker.submit(order(size=5.0))
    venue.broker.advance(101 * S)
    assert [size for size, _ in venue.fills] == [pytest.approx(0.2)]


def test_a_cancel_that_arrives_in_time_keeps_what_was_filled_and_no_more_comes() -> None:
    venue = Venue(replace(PLAIN, participation=0.1))
    venue.broker.on_tick(tick(S, trade=(100.0, 10.0), quote=(99.0, 101.0)))
    venue.broker.submit(order(size=5.0))
    venue.broker.cancel("o1")
    venue.broker.on_tick(tick(2 * S, trade=(100.0, 1000.0)))
    assert venue.kinds() == ["OrderAccepted", "OrderFilled", "OrderCancelled"]
    assert venue.broker.order("o1") == venue.broker.order("o1")
    assert (venue.broker.order("o1").filled, venue.broker.order("o1").remaining) == (1.0, 0.0)


def test_nothing_is_filled_once_the_validity_is_over() -> None:
    venue = opened()
    venue.broker.submit(order(limit=100.0, valid_for_ns=S))
    venue.broker.on_tick(tick(2 * S, trade=(90.0, 5.0)))
    assert venue.kinds() == ["OrderAccepted", "OrderExpired"]
    assert isinstance(venue.said[-1], OrderExpired)
    assert venue.said[-1].exchange_ts_ns == 2 * S


def test_an_order_whose_validity_is_over_on_the_way_never_works() -> None:
    venue = opened(replace(PLAIN, latency=FixedLatency(1_000_000.0)))
    venue.broker.submit(order(valid_for_ns=S // 2))
    venue.broker.advance(5 * S)
    assert venue.kinds() == ["OrderExpired"]


@pytest.mark.parametrize(
    ("terms", "changes", "reason"),
    [
        ({"max_order_size": 1.0}, {"size": 1.5}, RejectReason.LIMIT_SIZE),
        ({"max_order_notional": 199.0}, {"size": 1.0}, RejectReason.LIMIT_NOTIONAL),
        ({"reject_probability": 1.0}, {}, RejectReason.VENUE_REFUSED),
        ({}, {"size": 0.25}, RejectReason.SIZE_LOT),
        ({}, {"symbol": "B"}, RejectReason.MARKET_UNKNOWN),
    ],
)
def test_each_limit_rejects_with_its_reason(terms: Any, changes: Any, reason: RejectReason) -> None:
    venue = opened(replace(PLAIN, **terms), instrument=PaperInstrument(lot=0.5))
    venue.broker.submit(order(**changes))
    venue.broker.advance(2 * S)
    assert venue.said == [OrderRejected("o1", reason, "", S)]


def test_one_order_too_many_is_rejected() -> None:
    venue = opened(replace(PLAIN, max_open_orders=1))
    venue.broker.submit(order(1, limit=50.0))
    venue.broker.submit(order(2, limit=50.0))
    venue.broker.advance(2 * S)
    # Both were open as the first arrived.
    assert {one.reason for one in venue.said if isinstance(one, OrderRejected)} == {RejectReason.LIMIT_OPEN_ORDERS}


def test_an_order_id_is_taken_once_and_an_unknown_one_is_said() -> None:
    venue = opened()
    venue.broker.submit(order())
    with pytest.raises(OrderReused):
        venue.broker.submit(order())
    for ask in (venue.broker.cancel, venue.broker.order):
        with pytest.raises(OrderUnknown):
            ask("o9")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"size": 0.0}, "size"),
        ({"size": math.nan}, "size"),
        ({"limit_price": math.inf}, "limit_price"),
        ({"valid_for_ns": 0}, "valid_for_ns"),
        ({"symbol": ""}, "symbol"),
        ({"order_id": "x" * 65}, "order_id"),
        ({"order_id": "x" * 29}, "order_id"),
    ],
)
def test_an_order_that_no_venue_could_take_is_refused_at_once(changes: Any, field: str) -> None:
    venue = opened()
    with pytest.raises(OrderInvalid) as refused:
        venue.broker.submit(order(**changes))
    assert refused.value.field == field
    assert venue.broker.open_orders() == []


def test_quotes_and_trades_that_are_no_numbers_are_passed_over() -> None:
    venue = opened()
    venue.broker.on_tick(tick(2 * S, trade=(math.nan, 1.0), quote=(105.0, 104.0)))
    venue.broker.submit(order())
    venue.broker.advance(3 * S)
    assert venue.fills == [(1.0, 101.0)]
    assert venue.broker.ignored_ticks == 2


def test_fills_are_given_again_from_a_time_on() -> None:
    venue = opened()
    for number in (1, 2):
        venue.broker.submit(order(number))
        venue.broker.advance((number + 1) * S)
    assert [fill.order_id for fill in venue.broker.fills_since(2 * S)] == ["o2"]


def test_an_account_goes_on_where_it_is_told_to() -> None:
    account = Account()
    first = opened()
    first.broker.submit(order(size=3.0))
    first.broker.advance(2 * S)
    for one in first.broker.fills_since(0):
        account.book(one)
    assert PaperBroker(PLAIN, account=account).positions() == {"A": 3.0}


@pytest.mark.parametrize(
    "terms",
    [
        {"participation": 0.0},
        {"participation": math.nan},
        {"impact": -1.0},
        {"reject_probability": 1.5},
        {"span_s": 0.0},
        {"half_spread_bps": math.nan},
        {"max_open_orders": 0},
    ],
)
def test_terms_that_are_none_are_refused(terms: Any) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(terms))} is .*, must be"):
        PaperTerms(**terms)


# -- latency -----------------------------------------------------------------------------------------------------------


def test_latencies_are_what_they_say() -> None:
    import random  # noqa: PLC0415 - beside its use

    draws = random.Random(1)
    lognormal = sorted(LognormalLatency(200.0, 0.5, least_us=50.0).draw_ns(draws) for _ in range(4001))
    assert lognormal[0] >= 50_000
    assert lognormal[2000] == pytest.approx(250_000, rel=0.05)
    empirical = [EmpiricalLatency([30.0, 10.0]).draw_ns(draws) for _ in range(1000)]
    assert min(empirical) >= 10_000
    assert max(empirical) <= 30_000
    assert sum(empirical) / 1000 == pytest.approx(20_000, rel=0.05)
    assert EmpiricalLatency([7.0]).draw_ns(draws) == 7_000


@pytest.mark.parametrize(
    "make",
    [
        lambda: FixedLatency(-1.0),
        lambda: LognormalLatency(0.0, 1.0),
        lambda: LognormalLatency(1.0, math.nan),
        lambda: EmpiricalLatency([]),
        lambda: EmpiricalLatency([1.0, math.nan]),
    ],
)
def test_latencies_that_are_none_are_refused(make: Any) -> None:
    with pytest.raises(ValueError, match="must"):
        make()


# -- what never happens ------------------------------------------------------------------------------------------------

PRICES = st.integers(95, 105).map(float)
TICKS = st.tuples(st.just("tick"), st.integers(0, 3), PRICES, st.integers(0, 40).map(float), st.integers(0, 2))
ORDERS = st.tuples(st.just("order"), st.sampled_from(Side), st.integers(1, 20), PRICES, st.integers(1, 20))
CANCELS = st.tuples(st.just("cancel"), st.integers(1, 10))
STEPS = st.lists(st.one_of(TICKS, TICKS, ORDERS, CANCELS), max_size=60)
TERMS = st.builds(
    PaperTerms,
    seed=st.integers(0, 9),
    latency=st.sampled_from([FixedLatency(0.0), LognormalLatency(500_000.0, 1.0)]),
    impact=st.sampled_from([0.0, 1.0]),
    participation=st.sampled_from([0.05, 0.5, math.inf]),
    fee_bps=st.sampled_from([0.0, 2.0]),
    reject_probability=st.sampled_from([0.0, 0.3]),
    span_s=st.just(30.0),
)


def play(terms: PaperTerms, steps: list[Any]) -> tuple[Venue, dict[str, NewOrder], float, dict[str, int]]:
    """Orders, units that traded, and when each order was sent."""
    venue = Venue(terms)
    sent: dict[str, NewOrder] = {}
    when: dict[str, int] = {}
    now, traded = S, 0.0
    # Enough returns for a volatility.
    for number in range(25):
        now += S // 100
        traded += 1.0
        venue.broker.on_tick(tick(now, trade=(100.0 + number % 2 / 10, 1.0), quote=(99.9, 100.1)))
    for step in steps:
        if step[0] == "tick":
            now += step[1] * S // 2
            traded += step[3]
            quote = None if step[4] == 0 else (step[2] - 0.5 * step[4], step[2] + 0.5)
            venue.broker.on_tick(tick(now, trade=(step[2], step[3]), quote=quote))
        elif step[0] == "order":
            new = order(len(sent) + 1, step[1], float(step[2]), step[3], valid_for_ns=step[4] * S)
            sent[new.order_id] = new
            when[new.order_id] = now
            venue.broker.submit(new)
        elif f"o{step[1]}" in sent:
            venue.broker.cancel(f"o{step[1]}")
    venue.broker.advance(now + 100 * S)
    return venue, sent, traded, when


@settings(max_examples=120)
@given(TERMS, STEPS)
def test_fills_keep_to_size_limit_validity_and_volume_and_every_order_ends_once(
    terms: PaperTerms, steps: list[Any]
) -> None:
    venue, sent, traded, when = play(terms, steps)
    total = 0.0
    for order_id, new in sent.items():
        own = [one for one in venue.said if one.order_id == order_id and not isinstance(one, CancelRefused)]
        fills = [one for one in own if isinstance(one, OrderFilled)]
        filled = math.fsum(one.fill.size for one in fills)
        total += filled
        assert filled <= new.size * (1.0 + 1e-12)
        assert all(one.fill.size > 0.0 for one in fills)
        sign = new.side.sign
        assert all(sign * one.fill.price <= sign * new.limit_price for one in fills)
        assert all(when[order_id] <= one.fill.exchange_ts_ns < when[order_id] + new.valid_for_ns for one in fills)
        ends = [one for one in own if isinstance(one, OrderRejected | OrderCancelled | OrderExpired)]
        ends += [one for one in fills if one.remaining == 0.0]
        assert ends == own[-1:]
        assert len({one.fill.fill_id for one in fills}) == len(fills)
        status = venue.broker.order(order_id)
        assert not status.state.is_open
        assert (status.state is OrderState.FILLED) == (status.filled == new.size)
        assert not (fills and isinstance(own[-1], OrderRejected))
    assert total <= terms.participation * traded * (1.0 + 1e-9)
    assert venue.broker.open_orders() == []


@settings(max_examples=60)
@given(TERMS, STEPS)
def test_position_and_cash_are_the_sum_of_the_fills(terms: PaperTerms, steps: list[Any]) -> None:
    venue, *_ = play(terms, steps)
    fills = list(venue.broker.fills_since(0))
    position = math.fsum(fill.side.sign * fill.size for fill in fills)
    cash = -math.fsum(fill.side.sign * fill.size * fill.price + fill.fee for fill in fills)
    assert venue.broker.account.position("A") == pytest.approx(position, abs=1e-9)
    assert venue.broker.account.equity("A", 0.0) == pytest.approx(cash, abs=1e-6)
    assert [one.fill for one in venue.said if isinstance(one, OrderFilled)] == fills


@settings(max_examples=30)
@given(TERMS, STEPS)
def test_the_same_seed_ticks_and_orders_give_the_same_events(terms: PaperTerms, steps: list[Any]) -> None:
    assert play(terms, steps)[0].said == play(terms, steps)[0].said


def test_another_seed_draws_other_latencies() -> None:
    def arrival(seed: int) -> int:
        venue = opened(PaperTerms(seed=seed))
        venue.broker.submit(order())
        venue.broker.advance(90 * S)
        return next(one.exchange_ts_ns for one in venue.said if isinstance(one, OrderAccepted))

    assert len({arrival(seed) for seed in range(5)}) == 5
    assert arrival(3) == arrival(3)
