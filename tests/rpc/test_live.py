"""A server on the wall clock, with a closed universe and limits from the environment."""

import time
from collections.abc import Iterator

import pytest
from tests.support.messages import SECOND_NS, features, tick, zigzag
from tests.support.packages import publish_logistic
from tests.support.processes import Served, served

from tickgate.v1 import signal_pb2 as pb

INSTRUMENTS = """
[[instrument]]
symbol = "LIVE"
tick_size = 0.01
lot = 0.5

[[instrument]]
symbol = "WHOLE"
tick_size = 0.25
lot = 1
minimum_size = 5
multiplier = 50

[[instrument]]
symbol = "COARSE"
minimum_size = 1000000

[[instrument]]
symbol = "QUIET"

[[instrument]]
symbol = "JUDGED"
""" + "".join(
    f"""
[[instrument]]
symbol = "JUDGED-{number}"
"""
    for number in range(6)
)
LIMITS = {
    "TICKGATE_RISK__CONFIDENCE_THRESHOLD": "0.6",
    "TICKGATE_RISK__MAX_ORDER_SIZE": "2000",
    "TICKGATE_RISK__MAX_ORDER_NOTIONAL": "180000",
    "TICKGATE_RISK__MAX_POSITION_SIZE": "1500",
    "TICKGATE_RISK__MAX_POSITION_NOTIONAL": "160000",
    "TICKGATE_RISK__LIMIT_OFFSET_BPS": "20",
    "TICKGATE_RISK__VALID_FOR_US": "1",  # what one request reserves is free again at the next
}


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("live")
    (folder / "instruments.toml").write_text(INSTRUMENTS)
    # P(up) is about 0.62 after a rise of 0.1 %, 0.52 after a fall.
    publish_logistic(folder / "models", weight=200.0, bias=0.29, latency_budget_ms=60_000.0)
    publish_logistic(folder / "models", name="strict", decision_threshold=0.9, latency_budget_ms=60_000.0)
    arguments = ("--instruments", str(folder / "instruments.toml"), "--default-model", "tiny")
    environment = {**LIMITS, "TICKGATE_INSTRUMENTS__CLOSED": "true", "TICKGATE_CLOCK__STALE_LIMIT_S": "60"}
    with served(folder / "models", *arguments, environment=environment) as running:
        yield running


def warm(server: Served, symbol: str, trades: int = 30, price: float = 100.0) -> pb.PredictResponse:
    """Trades a microsecond apart up to now; the last answer."""
    start_ns = time.time_ns() - 100_000
    requests = zigzag(symbol, trades, start_ns=start_ns, step_ns=1_000, price=price)
    return [server.predict(request) for request in requests][-1]


def check(signal: pb.Signal, reason: "pb.Reason.ValueType") -> pb.RiskCheck:
    return next(check for check in signal.checks if check.reason == reason)


def test_a_symbol_that_is_not_in_a_closed_universe_is_unknown(live: Served) -> None:
    answer = live.predict(zigzag("OTHER", 1, start_ns=time.time_ns())[0])
    assert (answer.signal.action, answer.signal.reason) == (pb.ACTION_HOLD, pb.REASON_TICK_UNKNOWN_SYMBOL)


@pytest.mark.parametrize(("ahead_s", "reason"), [(-3600, pb.REASON_TICK_STALE), (3600, pb.REASON_TICK_FROM_FUTURE)])
def test_a_tick_far_from_the_servers_clock_is_held_and_changes_nothing(live: Served, ahead_s: int, reason: int) -> None:
    far = tick("QUIET", time.time_ns() + ahead_s * SECOND_NS, trade=(100.0, 1.0))
    answer = live.predict(far)
    assert (answer.signal.action, answer.signal.reason) == (pb.ACTION_HOLD, reason)
    good = live.predict(tick("QUIET", time.time_ns(), trade=(100.0, 1.0)))
    assert good.signal.reason == pb.REASON_FEATURES_NOT_READY


@pytest.mark.parametrize(("ahead_s", "reason"), [(-3600, pb.REASON_TICK_STALE), (3600, pb.REASON_TICK_FROM_FUTURE)])
def test_features_far_from_the_servers_clock_are_held(live: Served, ahead_s: int, reason: int) -> None:
    answer = live.predict(features("LIVE", [0.0] * 10, at_ns=time.time_ns() + ahead_s * SECOND_NS))
    assert (answer.signal.action, answer.signal.reason) == (pb.ACTION_HOLD, reason)


def test_a_symbol_that_had_no_tick_is_held(live: Served) -> None:
    answer = live.predict(pb.PredictRequest(symbol="COARSE"))
    assert (answer.signal.action, answer.signal.reason) == (pb.ACTION_HOLD, pb.REASON_FEATURES_NOT_READY)


def test_an_order_is_in_lots_and_its_limit_price_on_the_tick_grid(live: Served) -> None:
    signal = warm(live, "LIVE").signal
    assert (signal.action, signal.reason, signal.valid_for_us) == (pb.ACTION_BUY, pb.REASON_APPROVED, 1)
    assert signal.size % 0.5 == 0.0
    assert signal.limit_price == pytest.approx(100.3, abs=1e-9)  # 100.1 and 20 bp, down to 0.01


def test_the_multiplier_counts_in_size_and_notional(live: Served) -> None:
    signal = warm(live, "WHOLE").signal
    assert (signal.reason, signal.size % 1.0) == (pb.REASON_APPROVED, 0.0)
    assert check(signal, pb.REASON_POSITION_ORDER_NOTIONAL).value == pytest.approx(signal.size * 50 * 100.1)
    assert 15 < signal.size < 30


def test_an_order_below_the_instruments_minimum_is_held(live: Served) -> None:
    signal = warm(live, "COARSE").signal
    assert (signal.action, signal.reason) == (pb.ACTION_HOLD, pb.REASON_SIZING_BELOW_MINIMUM)


# The caller's ret_1 sets the edge and with it the notional; the price sets how many units that is. After the warm-up
# the volatility over the horizon is 0.2235 %, so a notional is 447,000 x edge.
DENIALS = [
    (0.0, 100.0, pb.REASON_CONFIDENCE_BELOW_THRESHOLD),
    (0.001, 20.0, pb.REASON_POSITION_ORDER_SIZE),
    (0.01, 1000.0, pb.REASON_POSITION_ORDER_NOTIONAL),
    (0.001, 60.0, pb.REASON_POSITION_SIZE),
    (0.00245, 1000.0, pb.REASON_POSITION_NOTIONAL),
    (0.001, 100.0, pb.REASON_APPROVED),
]


@pytest.mark.parametrize("number", range(len(DENIALS)))
def test_each_limit_denies_with_its_own_reason(live: Served, number: int) -> None:
    ret_1, price, reason = DENIALS[number]
    symbol = f"JUDGED-{number}"
    warm(live, symbol, price=price)
    asked = features(symbol, [ret_1] + [0.0] * 9, at_ns=time.time_ns(), price=price)
    answer = live.predict(asked)
    assert answer.signal.reason == reason
    approved = reason == pb.REASON_APPROVED
    assert (answer.signal.approved, answer.signal.size > 0.0) == (approved, approved)
    failed = [check.reason for check in answer.signal.checks if not check.passed and not check.waived]
    assert failed[:1] == ([] if approved else [reason])
    again = live.predict(asked).signal
    assert (again.action, again.size, again.reason) == (answer.signal.action, answer.signal.size, reason)


@pytest.mark.parametrize(("model", "threshold"), [("tiny", 0.6), ("strict", 0.9)])
def test_the_larger_of_the_policys_and_the_models_threshold_holds(live: Served, model: str, threshold: float) -> None:
    warm(live, "JUDGED")
    asked = features("JUDGED", [0.0] * 10, at_ns=time.time_ns())
    asked.model = model
    signal = live.predict(asked).signal
    assert signal.reason == pb.REASON_CONFIDENCE_BELOW_THRESHOLD
    confidence = check(signal, pb.REASON_CONFIDENCE_BELOW_THRESHOLD)
    assert (confidence.limit, confidence.passed) == (threshold, False)
