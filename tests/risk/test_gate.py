"""One deny-test for each limit and stage, by its reason; not a number, infinite or missing denies; exits pass."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from tests.support.messages import START_NS
from tests.support.risk import (
    BUDGET,
    PRICE,
    GateBench,
    Verdict,
    check_of,
    instrument,
    limits,
    risk_data,
)

from tickgate_server.journal.layout import ControlKind
from tickgate_server.risk import book as layout
from tickgate_server.risk import gate, orders, portfolio
from tickgate_server.risk.checks import CHECKS, Check
from tickgate_server.risk.gate import limit_price, passes
from tickgate_server.risk.reasons import Reason
from tickgate_server.risk.regimes import Regime, TradingState
from tickgate_server.risk.reports import OrderState
from tickgate_server.risk.sizing import round_to_lot
from tickgate_server.ticks import market

NAN, INF = math.nan, math.inf
NOT_NUMBERS = [NAN, INF, -INF]
every_check = pytest.mark.parametrize("check", CHECKS, ids=[check.reason.name for check in CHECKS])


# -- just beyond each limit, and exactly at it ------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """An order that one check alone denies beyond its limit.

    Attributes:
        beyond: What the gate says of it there.
        inside: What it says of it exactly at the limit, or with nothing amiss.
    """

    beyond: Callable[[], Verdict]
    inside: Callable[[], Verdict]


def nothing(_: GateBench) -> None:
    """An empty desk."""


def limited(
    name: str,
    prepare: Callable[[GateBench], object] = nothing,
    *,
    target: float = 10.0,
    price: float = PRICE,
    **risk: Any,
) -> Case:
    """A limit that is set to what was measured, and to the next double below it."""
    (reason,) = (reason for reason, own in LIMIT_OF.items() if own == name)

    def judged(towards: float | None) -> Verdict:
        bench = GateBench(risk=risk_data("AB", **risk))
        prepare(bench)
        measured = bench.ask(target, price=price).value_of(reason)
        assert measured > 0.0
        bench.set_limits(**{name: measured if towards is None else math.nextafter(measured, towards)})
        return bench.ask(target, price=price)

    return Case(lambda: judged(-1.0), lambda: judged(None))


def either(make: Callable[[GateBench], object], *, inside: Callable[[GateBench], object] = nothing) -> Case:
    """Something that is so or not."""

    def judged(change: Callable[[GateBench], object]) -> Verdict:
        bench = GateBench(instrument("A", restricted=False), "B")
        change(bench)
        return bench.ask(10.0)

    return Case(lambda: judged(make), lambda: judged(inside))


def at_confidence(towards: float | None) -> Verdict:
    bench = GateBench()
    measured = bench.ask(10.0).value_of(Reason.CONFIDENCE_BELOW_THRESHOLD)
    return bench.ask(10.0, threshold=measured if towards is None else math.nextafter(measured, towards))


def to_state(state: TradingState) -> Callable[[GateBench], object]:
    return lambda bench: bench.desk.set_state(state, reason="a test", who="tester")


def own_limits(**own: Any) -> Callable[[GateBench], object]:
    return lambda bench: bench.set_limits(symbols={"A": own})


def in_regime(regime: Regime, *allowed: str) -> Callable[[GateBench], object]:
    def make(bench: GateBench) -> None:
        bench.take(risk_data("AB", regime=regime))
        bench.set_limits(allowed_regimes=allowed)

    return make


def degrade(bench: GateBench, kind: ControlKind = ControlKind.MODEL_DEGRADED) -> None:
    bench.desk.apply(kind, {"name": "tiny", "version": 1}, 0, bench.now_ns)


def degrade_and_reopen(bench: GateBench) -> None:
    degrade(bench)
    degrade(bench, ControlKind.MODEL_REOPENED)


def repeat_twice(bench: GateBench) -> None:
    for _ in range(2):
        bench.approve(10.0)
        bench.pass_time(5.0)


def rate(name: str, symbols: str, seconds: float) -> Callable[[GateBench], object]:
    """Two orders at once where two a second may be, and then some time."""

    def make(bench: GateBench) -> None:
        bench.set_limits(**{name: 2.0, "max_repeats": INF})
        for symbol in symbols:
            bench.approve(20.0 + 10.0 * bench.book.rows[bench.row(symbol), layout.OPEN_BUYS], symbol)
        bench.pass_time(seconds)

    return make


def down(bench: GateBench) -> None:
    bench.hold("B", 10.0)
    bench.price("B", 97.0)


def up_then_down(bench: GateBench) -> None:
    bench.hold("B", 10.0)
    bench.price("B", 110.0)
    bench.price("B", 105.0)


LIMIT_OF = {
    Reason.POSITION_ORDER_SIZE: "max_order_size",
    Reason.POSITION_ORDER_NOTIONAL: "max_order_notional",
    Reason.POSITION_SIZE: "max_position_size",
    Reason.POSITION_NOTIONAL: "max_position_notional",
    Reason.VAR_PORTFOLIO: "max_var",
    Reason.CORRELATION_PORTFOLIO: "max_correlation",
    Reason.PRICE_COLLAR: "max_price_deviation",
    Reason.ORDER_SELF_TRADE: "max_open_opposite",
    Reason.SIGNAL_REPEATED: "max_repeats",
    Reason.EXPOSURE_GROSS: "max_gross_exposure",
    Reason.EXPOSURE_NET: "max_net_exposure",
    Reason.LOSS_DAILY: "max_daily_loss",
    Reason.LOSS_DRAWDOWN: "max_drawdown",
}
CASES = {
    Reason.TRADING_STATE_HALTED: either(to_state(TradingState.HALTED)),
    Reason.CONFIDENCE_BELOW_THRESHOLD: Case(lambda: at_confidence(1.0), lambda: at_confidence(None)),
    Reason.TRADING_STATE_REDUCING: either(to_state(TradingState.REDUCING)),
    Reason.RESTRICTED_SYMBOL: either(own_limits(restricted=True), inside=own_limits(restricted=False)),
    Reason.POSITION_ORDER_SIZE: limited("max_order_size"),
    Reason.POSITION_ORDER_NOTIONAL: limited("max_order_notional"),
    Reason.POSITION_SIZE: limited("max_position_size", lambda bench: bench.hold("A", 4.0)),
    Reason.POSITION_NOTIONAL: limited("max_position_notional", lambda bench: bench.hold("A", 4.0)),
    Reason.VAR_PORTFOLIO: limited("max_var", lambda bench: bench.hold("B", -7.0), correlation=0.3),
    Reason.CORRELATION_PORTFOLIO: limited("max_correlation", lambda bench: bench.hold("B", 7.0), correlation=0.3),
    Reason.REGIME_NOT_ALLOWED: either(
        in_regime(Regime.RISK_OFF, "normal", "trending"), inside=in_regime(Regime.TRENDING, "normal", "trending")
    ),
    Reason.MODEL_DEGRADED: either(degrade, inside=degrade_and_reopen),
    Reason.PRICE_COLLAR: limited("max_price_deviation", price=101.0),
    Reason.ORDER_SELF_TRADE: limited("max_open_opposite", lambda bench: bench.open("A", -3.0)),
    Reason.SIGNAL_REPEATED: limited("max_repeats", repeat_twice),
    Reason.RATE_SYMBOL: either(
        rate("max_orders_per_s_symbol", "AA", 0.49), inside=rate("max_orders_per_s_symbol", "AA", 0.5)
    ),
    Reason.RATE_TOTAL: either(rate("max_orders_per_s", "AB", 0.49), inside=rate("max_orders_per_s", "AB", 0.5)),
    Reason.EXPOSURE_GROSS: limited("max_gross_exposure", lambda bench: bench.hold("B", -7.0)),
    Reason.EXPOSURE_NET: limited("max_net_exposure", lambda bench: bench.hold("B", 7.0)),
    Reason.LOSS_DAILY: limited("max_daily_loss", down),
    Reason.LOSS_DRAWDOWN: limited("max_drawdown", up_then_down),
}


@every_check
def test_each_check_alone_denies_just_beyond_its_limit(check: Check) -> None:
    found = CASES[check.reason].beyond()
    assert found.reason is check.reason
    denying = {other.reason for other, passed in zip(CHECKS, found.passed, strict=True) if not passed}
    # What is halted does not only reduce.
    assert denying - {Reason.TRADING_STATE_REDUCING} | {check.reason} == {check.reason}
    assert not any(found.waived)
    assert found.limit_price == 0.0


@every_check
def test_exactly_at_each_limit_an_order_passes(check: Check) -> None:
    found = CASES[check.reason].inside()
    assert found.reason is Reason.APPROVED
    assert all(found.passed)
    assert found.limit_price > 0.0


@pytest.mark.parametrize("failing", [(0, 1, 5, 20), (1, 2), (2, 3, 8), (12, 13), (19, 20), tuple(range(21))])
def test_all_checks_are_measured_and_the_first_that_fails_is_the_reason(failing: tuple[int, ...]) -> None:
    bench = GateBench()
    bench.book.bounds[list(failing)] = -1.0
    bench.book.row_limits[0] = [-1.0 if 4 + column in failing else INF for column in range(4)]
    found = bench.ask(10.0, threshold=2.0 if 1 in failing else 0.5)
    assert found.reason is CHECKS[failing[0]].reason
    assert [index for index, passed in enumerate(found.passed) if not passed] == list(failing)
    assert all(map(math.isfinite, found.values))


# -- not a number, infinite, missing ----------------------------------------------------------------------------


@pytest.mark.parametrize("at_least", [False, True])
@pytest.mark.parametrize("value", NOT_NUMBERS)
@pytest.mark.parametrize("limit", [0.0, *NOT_NUMBERS])
def test_a_value_that_is_no_finite_number_passes_under_no_limit(value: float, limit: float, *, at_least: bool) -> None:
    assert not passes(value, limit, at_least)


@every_check
def test_a_limit_that_is_not_a_number_denies(check: Check) -> None:
    bench = GateBench()
    bench.hold("B", 1.0)
    number = check_of(check.reason)
    bench.book.bounds[number] = NAN
    if 4 <= number < 8:
        bench.book.row_limits[0, number - 4] = NAN
    found = bench.ask(10.0, threshold=NAN if check.at_least else 0.5)
    assert found.reason is check.reason


def in_rows(column: int) -> Callable[[GateBench, float], None]:
    def corrupt(bench: GateBench, value: float) -> None:
        bench.book.rows[0, column] = value

    return corrupt


def in_account(column: int) -> Callable[[GateBench, float], None]:
    def corrupt(bench: GateBench, value: float) -> None:
        bench.book.account[column] = value

    return corrupt


def in_policy(bench: GateBench, value: float) -> None:
    bench.book.policy[layout.RISK_BUDGET] = value


def in_mark(bench: GateBench, value: float) -> None:
    bench.book.rows[0, layout.POINT_VALUE if math.isnan(value) else layout.MARK] = value


def in_covariance(bench: GateBench, value: float) -> None:
    bench.book.exposures.covariance[0, 0] = value


def in_sigma_w(bench: GateBench, value: float) -> None:
    bench.set_limits(max_var="off")
    bench.book.exposures.sigma_w[0] = value


def in_last_price(bench: GateBench, value: float) -> None:
    bench.quotes_trades[0, market.PRICE] = value


# What is measured of these follows from numbers, which something may have spoilt.
CORRUPT: dict[Reason, Callable[[GateBench, float], None]] = {
    Reason.POSITION_ORDER_SIZE: in_policy,
    Reason.POSITION_ORDER_NOTIONAL: in_rows(layout.POINT_VALUE),
    Reason.POSITION_SIZE: in_rows(layout.FILLED),
    Reason.POSITION_NOTIONAL: in_mark,
    Reason.VAR_PORTFOLIO: in_covariance,
    Reason.CORRELATION_PORTFOLIO: in_sigma_w,
    Reason.PRICE_COLLAR: in_last_price,
    Reason.EXPOSURE_GROSS: in_account(layout.GROSS),
    Reason.EXPOSURE_NET: in_account(layout.NET_UP),
    Reason.LOSS_DAILY: in_account(layout.PNL),
    Reason.LOSS_DRAWDOWN: in_account(layout.PEAK),
}


def set_trading(bench: GateBench) -> None:
    bench.book.state[layout.TRADING] = 99


def set_fact(column: int, value: int) -> Callable[[GateBench], None]:
    def change(bench: GateBench) -> None:
        bench.book.facts[0, column] = value

    return change


def set_degraded(bench: GateBench) -> None:
    bench.book.models[bench.model, layout.DEGRADED] = 99


def never_set_back(bench: GateBench) -> None:
    bench.book.rows[0, layout.LAST_ORDER] = 10.0
    bench.book.facts[0, layout.REPEATS] = 1 << 62
    bench.set_limits(max_repeats=1e9)


def empty_bucket(bench: GateBench) -> None:
    bench.book.rows[0, layout.TOKENS] = -INF
    bench.book.facts[0, layout.TOKENS_NS] = bench.now_ns


def empty_account_bucket(bench: GateBench) -> None:
    bench.book.account[layout.ACCOUNT_TOKENS] = -INF
    bench.book.state[layout.ACCOUNT_TOKENS_NS] = bench.now_ns


def opposite(value: float) -> Callable[[GateBench], None]:
    def change(bench: GateBench) -> None:
        bench.book.rows[0, layout.OPEN_SELLS] = value

    return change


# Those of integers can be out of their range, and no more.
OUT_OF_RANGE: dict[Reason, list[Callable[[GateBench], None]]] = {
    Reason.TRADING_STATE_HALTED: [set_trading],
    Reason.TRADING_STATE_REDUCING: [set_trading],
    Reason.RESTRICTED_SYMBOL: [set_fact(layout.RESTRICTED, 99), set_fact(layout.RESTRICTED, 1)],
    Reason.REGIME_NOT_ALLOWED: [set_fact(layout.REGIME, 60), set_fact(layout.REGIME, 0)],
    Reason.MODEL_DEGRADED: [set_degraded],
    Reason.SIGNAL_REPEATED: [never_set_back],
    Reason.RATE_SYMBOL: [empty_bucket],
    Reason.RATE_TOTAL: [empty_account_bucket],
    Reason.ORDER_SELF_TRADE: [opposite(NAN), opposite(INF), opposite(-INF)],
}
UNSIZED = {Reason.SIZING_NO_VOLATILITY}
# Where the order itself has no size any more, that is the reason.
GIVEN_INSTEAD = dict.fromkeys(
    (
        Reason.POSITION_ORDER_SIZE,
        Reason.POSITION_ORDER_NOTIONAL,
        Reason.POSITION_SIZE,
        Reason.POSITION_NOTIONAL,
        Reason.ORDER_SELF_TRADE,
    ),
    UNSIZED,
)


@every_check
def test_a_measured_value_that_is_no_finite_number_is_denied(check: Check) -> None:
    if check.reason is Reason.CONFIDENCE_BELOW_THRESHOLD:
        return  # P(up) itself is looked at: see the model's output below
    spoilt = [lambda bench, value=value: CORRUPT[check.reason](bench, value) for value in NOT_NUMBERS]
    for spoil in OUT_OF_RANGE.get(check.reason) or spoilt:
        bench = GateBench()
        bench.hold("B", 1.0)
        spoil(bench)
        found = bench.ask(10.0)
        unsized = found.reason is Reason.SIZING_NO_VOLATILITY  # then an order has no side either
        assert not found.passes(check.reason) or (unsized and check.reason is Reason.ORDER_SELF_TRADE)
        halted = {Reason.TRADING_STATE_HALTED} if found.values[0] > 3.0 else set()
        assert found.reason in GIVEN_INSTEAD.get(check.reason, set()) | halted | {check.reason}


@pytest.mark.parametrize("probability", [*NOT_NUMBERS, math.nextafter(0.0, -1.0), math.nextafter(1.0, 2.0), -1.0, 2.0])
def test_an_output_of_the_model_that_is_no_probability_is_denied(probability: float) -> None:
    assert GateBench().judge(probability).reason is Reason.MODEL_INVALID_OUTPUT


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_a_probability_of_exactly_0_or_1_is_one(probability: float) -> None:
    assert GateBench().judge(probability).reason is Reason.APPROVED


def missing_risk_data(bench: GateBench) -> None:
    bench.desk.judge_age(vouched=False)


def risk_data_too_old(bench: GateBench) -> None:
    bench.pass_time(345_601.0)
    bench.desk.judge_age(vouched=True)


def not_in_the_covariance(bench: GateBench) -> None:
    bench.take(risk_data("B"))


def another_not_in_the_covariance(bench: GateBench) -> None:
    bench.take(risk_data("A"))
    bench.hold("B", 1.0)


def too_few_scenarios(method: str) -> Callable[[GateBench], None]:
    def make(bench: GateBench) -> None:
        bench.set_limits(var_method=method)
        bench.take(risk_data("AB", scenarios=99))

    return make


@pytest.mark.parametrize(
    "make",
    [
        missing_risk_data,
        risk_data_too_old,
        not_in_the_covariance,
        another_not_in_the_covariance,
        too_few_scenarios("historical"),
        too_few_scenarios("cornish_fisher"),
    ],
)
def test_without_a_value_at_risk_an_order_is_denied(make: Callable[[GateBench], None]) -> None:
    bench = GateBench()
    make(bench)
    found = bench.ask(10.0)
    assert found.reason is Reason.VAR_PORTFOLIO
    assert math.isnan(found.value_of(Reason.VAR_PORTFOLIO))
    assert bench.ask(10.0).values[:8] == found.values[:8]


@pytest.mark.parametrize("make", [missing_risk_data, risk_data_too_old, not_in_the_covariance])
def test_without_risk_data_the_regime_is_unknown_and_no_model_allows_it_unasked(
    make: Callable[[GateBench], None],
) -> None:
    bench = GateBench()
    bench.set_limits(allowed_regimes=("normal", "trending", "risk_off", "high_volatility"), max_var="off")
    assert bench.ask(10.0).reason is Reason.APPROVED
    make(bench)
    assert bench.ask(10.0).reason is Reason.REGIME_NOT_ALLOWED


def test_without_risk_data_the_correlation_with_another_exposure_is_missing_and_denies() -> None:
    bench = GateBench()
    bench.set_limits(max_var="off")
    missing_risk_data(bench)
    assert bench.ask(10.0).reason is Reason.APPROVED  # there is nothing to correlate with
    bench.hold("B", 1.0)
    assert bench.ask(10.0).reason is Reason.CORRELATION_PORTFOLIO


def test_what_is_missing_passes_where_the_desk_chose_so_and_is_shown_as_waived() -> None:
    bench = GateBench()
    bench.set_limits(max_var="off", max_correlation="off")
    bench.hold("B", 1.0)
    missing_risk_data(bench)
    found = bench.ask(10.0)
    assert found.reason is Reason.APPROVED
    waived = [check.reason for check, one in zip(CHECKS, found.waived, strict=True) if one]
    assert waived == [Reason.VAR_PORTFOLIO, Reason.CORRELATION_PORTFOLIO]
    assert not found.passes(Reason.VAR_PORTFOLIO)


def test_without_a_volatility_nothing_is_sized() -> None:
    bench = GateBench()
    bench.quotes_trades[0, market.SIGMA] = NAN
    found = bench.ask(10.0)
    assert found.reason is Reason.SIZING_NO_VOLATILITY
    assert math.isnan(found.target)
    assert math.isnan(found.order)


def test_without_a_last_price_the_collar_denies() -> None:
    bench = GateBench()
    bench.quotes_trades[0, market.PRICE] = NAN
    assert bench.ask(10.0).reason is Reason.PRICE_COLLAR


def test_a_currency_without_a_rate_denies_until_it_has_one() -> None:
    bench = GateBench(instrument("A", currency="EUR"), "B")
    found = bench.ask(10.0)
    assert found.reason is Reason.SIZING_NO_VOLATILITY
    assert not found.passes(Reason.POSITION_ORDER_NOTIONAL)
    bench.set_limits(currencies={"EUR": 2.0})
    found = bench.ask(10.0)
    assert found.reason is Reason.APPROVED
    assert (found.order, found.value_of(Reason.POSITION_ORDER_NOTIONAL)) == (5.0, 1000.0)


@pytest.mark.parametrize("method", ["historical", "cornish_fisher"])
def test_value_at_risk_by_scenarios_denies_and_passes_by_its_own_value(method: str) -> None:
    bench = GateBench(risk=risk_data("AB", scenarios=250))
    bench.set_limits(var_method=method)
    measured = bench.ask(10.0).value_of(Reason.VAR_PORTFOLIO)
    assert 0.0 < measured < 100.0
    bench.set_limits(var_method=method, max_var=measured)
    assert bench.ask(10.0).reason is Reason.APPROVED
    bench.set_limits(var_method=method, max_var=math.nextafter(measured, 0.0))
    assert bench.ask(10.0).reason is Reason.VAR_PORTFOLIO


def test_a_hedge_has_a_negative_correlation_and_passes() -> None:
    bench = GateBench(risk=risk_data("AB", correlation=0.9))
    bench.hold("B", 7.0)
    bench.set_limits(max_correlation=0.0)
    assert bench.ask(10.0).reason is Reason.CORRELATION_PORTFOLIO
    assert bench.ask(-10.0).reason is Reason.APPROVED


# -- sizing, and the book's room ----------------------------------------------------------------------------------


def test_an_order_below_the_minimum_size_is_held_and_one_of_it_passes() -> None:
    bench = GateBench(instrument("A", minimum_size=10.0))
    assert bench.ask(9.0).reason is Reason.SIZING_BELOW_MINIMUM
    assert bench.ask(10.0).reason is Reason.APPROVED


def test_no_order_is_held_as_below_the_minimum() -> None:
    bench = GateBench()
    bench.hold("A", 10.0)
    found = bench.ask(10.0)
    assert (found.reason, found.order) == (Reason.SIZING_BELOW_MINIMUM, 0.0)


def test_a_buy_below_one_tick_has_no_limit_price_and_is_held() -> None:
    bench = GateBench(instrument("A", tick_size=1.0))
    bench.price("A", 0.5)
    assert bench.ask(10.0, price=0.5).reason is Reason.SIZING_PRICE_BELOW_TICK
    bench.price("A", 1.0)
    assert bench.ask(10.0, price=1.0).reason is Reason.APPROVED


def test_an_order_that_finds_no_slot_is_held_until_an_order_ends() -> None:
    bench = GateBench()
    slots = [bench.open("B", 1.0) for _ in range(layout.ORDERS_LIMIT)]
    assert bench.open("B", 1.0) == -1
    assert bench.ask(10.0).reason is Reason.PORTFOLIO_ORDERS_FULL
    orders.end_order(bench.book.table, slots[7], OrderState.CANCELLED)
    assert bench.ask(10.0).reason is Reason.APPROVED
    assert bench.open("A", 1.0) == slots[7]


def test_a_quote_beyond_the_collar_denies_though_the_reference_price_is_within() -> None:
    bench = GateBench()
    bench.quotes_trades[0, [market.BID, market.ASK]] = 94.0, 106.0
    found = bench.ask(10.0)
    assert found.reason is Reason.PRICE_COLLAR
    assert found.value_of(Reason.PRICE_COLLAR) == pytest.approx(0.06)


# -- exits --------------------------------------------------------------------------------------------------------


def test_only_halting_and_the_price_collar_bind_an_exit() -> None:
    assert [check.reason for check in CHECKS if check.always] == [Reason.TRADING_STATE_HALTED, Reason.PRICE_COLLAR]


@every_check
def test_an_exit_passes_whatever_the_other_checks_say(check: Check) -> None:
    bench = GateBench()
    bench.hold("A", 10.0)
    number = check_of(check.reason)
    bench.book.bounds[number] = NAN
    if 4 <= number < 8:
        bench.book.row_limits[0, number - 4] = NAN
    found = bench.ask(4.0, threshold=NAN if check.at_least else 0.5)
    assert (found.order, found.reducing) == (-6.0, True)
    assert not found.passes(check.reason)
    assert found.reason is (check.reason if check.always else Reason.APPROVED)
    assert found.waived == [not one.always for one in CHECKS]


def over_every_limit(bench: GateBench) -> None:
    bench.set_limits(
        max_order_size=0.0,
        max_order_notional=0.0,
        max_position_size=0.0,
        max_position_notional=0.0,
        max_var=0.0,
        max_correlation=-1.0,
        max_gross_exposure=0.0,
        max_net_exposure=0.0,
        max_open_opposite=0.0,
        max_repeats=0.0,
        confidence_threshold=1.0,
    )


def at_a_loss(bench: GateBench) -> None:
    bench.set_limits(max_daily_loss=1.0, max_drawdown=1.0)
    bench.price("A", 97.0)
    bench.price("A", 100.0)
    bench.price("B", 90.0)


def rates_exhausted(bench: GateBench) -> None:
    empty_bucket(bench)
    empty_account_bucket(bench)


def bids_at_work(bench: GateBench) -> None:
    bench.set_limits(max_open_opposite=0.0)
    bench.open("A", 2.0)


CONDITIONS: dict[str, Callable[[GateBench], object]] = {
    "a desk that only reduces": to_state(TradingState.REDUCING),
    "over every limit": over_every_limit,
    "no risk data": missing_risk_data,
    "a symbol without covariance": not_in_the_covariance,
    "a regime that nobody allows": in_regime(Regime.RISK_OFF, "normal"),
    "a degraded model": degrade,
    "a restricted symbol": own_limits(restricted=True),
    "a loss and a drawdown over their limits": at_a_loss,
    "exhausted rates": rates_exhausted,
    "the same signal again and again": never_set_back,
    "bids of our own": bids_at_work,
}


@pytest.mark.parametrize("make", CONDITIONS.values(), ids=CONDITIONS)
@pytest.mark.parametrize("side", [1.0, -1.0])
def test_a_position_can_be_left_with(make: Callable[[GateBench], object], side: float) -> None:
    bench = GateBench()
    bench.hold("A", side * 10.0)
    bench.hold("B", 3.0)
    make(bench)
    bench.price("A", PRICE)
    found = bench.ask(0.0, threshold=1.0)
    assert (found.reason, found.reducing) == (Reason.APPROVED, True)
    if make is not bids_at_work:
        assert found.order == side * -10.0
    bench.desk.set_state(TradingState.HALTED, reason="a test", who="tester")
    assert bench.ask(0.0).reason is Reason.TRADING_STATE_HALTED


def test_an_exit_far_from_the_last_price_is_denied_by_the_collar() -> None:
    bench = GateBench()
    bench.hold("A", 10.0)
    assert bench.ask(0.0, price=105.01).reason is Reason.PRICE_COLLAR
    assert bench.ask(0.0, price=104.99).reason is Reason.APPROVED


def test_more_than_what_is_left_to_exit_does_not_reduce() -> None:
    bench = GateBench()
    bench.hold("A", 10.0)
    bench.desk.set_state(TradingState.REDUCING, reason="a test", who="tester")
    slot = bench.open("A", -7.0)
    assert bench.ask(0.0).order == -3.0
    assert bench.ask(0.0).reducing
    orders.accept_order(bench.book.table, slot)
    bench.open("A", -3.0)
    bench.open("A", 2.0)  # target 0 now asks for 2 to be sold, and exits of all are at work
    found = bench.ask(0.0)
    assert (found.order, found.reducing, found.reason) == (-2.0, False, Reason.TRADING_STATE_REDUCING)


def test_an_addition_is_not_reducing() -> None:
    bench = GateBench()
    bench.hold("A", -10.0)
    assert not bench.ask(-12.0).reducing
    assert bench.ask(-9.0).reducing


@given(st.sampled_from([0.1, 0.3, 0.001, 1.0]), st.integers(1, 40), st.sampled_from([1.0, -1.0]))
def test_all_of_a_position_of_many_fills_can_be_left(lot: float, fills: int, side: float) -> None:
    bench = GateBench(instrument("A", lot=lot))
    for _ in range(fills):  # 8 x 0.1 adds up to 0.7999999999999999
        portfolio.book_fill(bench.book.table, 0, -1, side * lot, PRICE, 0.0, lot)
    bench.desk.set_state(TradingState.REDUCING, reason="a test", who="tester")
    found = bench.ask(0.0)
    assert (found.reason, found.reducing) == (Reason.APPROVED, True)
    assert abs(found.order) == pytest.approx(fills * lot)
    portfolio.book_fill(bench.book.table, 0, -1, found.order, PRICE, 0.0, lot)
    assert bench.book.rows[0, layout.FILLED] == 0.0


@pytest.mark.parametrize("side", [1.0, -1.0])
def test_an_order_that_crosses_zero_is_split_into_exit_and_entry(side: float) -> None:
    bench = GateBench()
    bench.hold("A", side * 10.0)
    found = bench.ask(side * -5.0)
    assert (found.order, found.remaining, found.reducing) == (side * -10.0, side * -5.0, True)


def test_a_crossing_order_whose_exit_is_below_the_minimum_goes_whole_and_faces_every_check() -> None:
    bench = GateBench(instrument("A", minimum_size=20.0))
    bench.hold("A", 10.0)
    found = bench.ask(-15.0)
    assert (found.order, found.remaining, found.reducing) == (-25.0, 0.0, False)
    assert not any(found.waived)


# -- against a slow model of the portfolio ------------------------------------------------------------------------

SYMBOLS = (
    instrument("A"),
    instrument("B", multiplier=50.0, tick_size=0.25),
    instrument("C", currency="EUR", lot=5.0),
    instrument("D", minimum_size=4.0),
)
RATES = {"EUR": 1.25}
POINTS = {"A": 1.0, "B": 50.0, "C": 1.25, "D": 1.0}
sizes = st.integers(-40, 40).map(float)


@dataclass
class SlowRow:
    """One symbol as a list of its orders."""

    filled: float
    orders: list[float]
    mark: float

    def worst(self, order: float, point: float) -> tuple[float, float, float]:
        """Worst size, and the signed notionals with all buys, or all sells, filled."""
        buys = sum(one for one in [*self.orders, order] if one > 0.0)
        sells = sum(one for one in [*self.orders, order] if one < 0.0)
        up, down = self.filled + buys, self.filled + sells
        return max(up, down, key=abs), up * self.mark * point, down * self.mark * point


@given(
    st.lists(
        st.tuples(sizes, st.lists(sizes.filter(bool), max_size=4), st.floats(20.0, 500.0)), min_size=4, max_size=4
    ),
    st.sampled_from("ABCD"),
    st.integers(-60, 60),
    st.floats(0.96, 1.04),
)
def test_sizes_and_exposures_are_those_of_a_slow_model(
    rows: list[tuple[float, list[float], float]], symbol: str, target: int, off: float
) -> None:
    bench = GateBench(*SYMBOLS, found=limits(currencies=RATES, max_price_deviation=1.0))
    slow = {}
    for one, (filled, opened, price) in zip(SYMBOLS, rows, strict=True):
        slow[one.symbol] = SlowRow(filled, opened, price)
        bench.price(one.symbol, price)
        bench.hold(one.symbol, filled)
        for order in opened:
            bench.open(one.symbol, order)
    own = slow[symbol]
    price = own.mark * off
    found = bench.judge(0.5 + target / 200.0, symbol, price=price)
    # The order: target - filled - open orders, rounded to the lot; its exit alone where it would cross zero.
    lot = bench.table.contracts[bench.row(symbol), 1]
    wanted = round_to_lot(BUDGET * (target / 100.0) / 0.01 / (price * POINTS[symbol]), lot)
    assume(math.isclose(found.target, wanted, abs_tol=1e-9))
    whole = round_to_lot(wanted - own.filled - sum(own.orders), lot)
    exits = sum(abs(order) for order in own.orders if order * own.filled < 0.0)
    room = round_to_lot(max(abs(own.filled) - exits, 0.0), lot)
    split = whole * own.filled < 0.0 and 0.0 < room < abs(whole) and room >= (4.0 if symbol == "D" else 0.0)
    order = math.copysign(room, whole) if split else whole
    assert found.order == order
    assert found.remaining == whole - order
    assert found.reducing == (order * own.filled < 0.0 and abs(order) <= room)
    # What everything is worth with it.
    point = POINTS[symbol]
    worst, _, _ = own.worst(order, point)
    sums = [one.worst(order if name == symbol else 0.0, POINTS[name]) for name, one in slow.items()]
    gross = sum(max(abs(up), abs(down)) for _, up, down in sums)
    net = max(abs(sum(up for _, up, _ in sums)), abs(sum(down for _, _, down in sums)))
    measured = {
        Reason.POSITION_ORDER_SIZE: abs(order),
        Reason.POSITION_ORDER_NOTIONAL: abs(order) * price * point,
        Reason.POSITION_SIZE: abs(worst),
        Reason.POSITION_NOTIONAL: abs(worst) * own.mark * point,
        Reason.EXPOSURE_GROSS: gross,
        Reason.EXPOSURE_NET: net,
        Reason.ORDER_SELF_TRADE: sum(abs(one) for one in own.orders if one * (1.0 if order > 0.0 else -1.0) < 0.0),
    }
    for reason, value in measured.items():
        assert found.value_of(reason) == pytest.approx(value, rel=1e-12, abs=1e-6), reason


@given(st.floats(1e-2, 1e6), st.floats(0.0, 0.05), st.sampled_from([1e-4, 0.01, 0.05, 0.25, 1.0]))
def test_a_limit_price_is_on_the_tick_grid_and_the_last_one_that_the_offset_allows(
    touch: float, offset: float, tick_size: float
) -> None:
    assume(touch > 2 * tick_size)
    slack = tick_size * 1e-8 + touch * 1e-12
    highest, lowest = touch * (1.0 + offset), touch * (1.0 - offset)
    buy = limit_price(1.0, touch, offset, tick_size)
    sell = limit_price(-1.0, touch, offset, tick_size)
    assert highest - tick_size - slack <= buy <= highest + slack
    assert lowest - slack <= sell <= lowest + tick_size + slack
    assert [buy, sell] == [round(buy / tick_size) * tick_size, round(sell / tick_size) * tick_size]


def test_a_touch_on_the_grid_without_offset_is_its_own_limit_price() -> None:
    # 0.3 / 0.1 is 2.9999999999999996 in doubles.
    assert [limit_price(side, 0.3, 0.0, 0.1) for side in (1.0, -1.0)] == pytest.approx([0.3, 0.3])


def test_the_limit_price_lies_beyond_the_touch_by_the_offset_or_beyond_the_price_without_a_quote() -> None:
    bench = GateBench()
    bench.set_limits(limit_offset_bps=10.0)
    assert bench.ask(10.0).limit_price == pytest.approx(100.1)
    bench.quotes_trades[0, [market.BID, market.ASK]] = 99.5, 100.5
    assert bench.ask(10.0).limit_price == pytest.approx(100.6)
    assert bench.ask(-10.0).limit_price == pytest.approx(99.41)


def test_nothing_is_changed_by_asking() -> None:
    bench = GateBench()
    bench.hold("A", 10.0)
    bench.open("A", -3.0)
    arrays = (bench.book.rows, bench.book.facts, bench.book.account, bench.book.state, bench.book.exposures.weights)
    before = [array.copy() for array in arrays]
    assert bench.ask(30.0).reason is Reason.APPROVED
    assert all(np.array_equal(one, other, equal_nan=True) for one, other in zip(before, arrays, strict=True))
    assert bench.now_ns == START_NS
    assert gate.PASSED == -1
