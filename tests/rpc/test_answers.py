"""What a caller gets from a server in replay: decisions to trade and not to."""

import itertools
import math

import numpy as np
import pytest
from tests.support.messages import SECOND_NS, START_NS, features, tick, zigzag
from tests.support.processes import Served

from tickgate.v1 import signal_pb2 as pb
from tickgate_server.features.micro10 import batch
from tickgate_server.features.schema import TICK_SESSION_GAP_NS, micro10
from tickgate_server.risk.checks import CHECKS


def send(server: Served, requests: list[pb.PredictRequest]) -> list[pb.PredictResponse]:
    return [server.predict(request) for request in requests]


def send_all_but_last(server: Served, requests: list[pb.PredictRequest]) -> pb.PredictRequest:
    send(server, requests[:-1])
    return requests[-1]


def hold(answer: pb.PredictResponse) -> int:
    """The reason of a HOLD, which says nothing else."""
    signal = answer.signal
    assert signal.action == pb.ACTION_HOLD
    assert (signal.size, signal.limit_price, signal.valid_for_us, signal.approved) == (0.0, 0.0, 0, False)
    return signal.reason


def without_the_desk(answer: pb.PredictResponse) -> tuple[pb.Prediction, pb.FeatureState, float]:
    """What the symbol's market alone decides: an order that was approved is on its way, and is not asked for again."""
    return answer.prediction, answer.features, answer.signal.target_position


_numbers = itertools.count()


@pytest.fixture
def symbol() -> str:
    """A name that no other test on the server has."""
    return f"SYMBOL{next(_numbers)}"


def test_the_first_ten_trades_are_not_ready_and_the_eleventh_is(shared: Served, symbol: str) -> None:
    answers = send(shared, zigzag(symbol, 11))
    assert [hold(answer) for answer in answers[:10]] == [pb.REASON_FEATURES_NOT_READY] * 10
    assert [answer.HasField("prediction") for answer in answers] == [False] * 10 + [True]
    assert [answer.features.ready for answer in answers] == [False] * 10 + [True]
    assert [answer.features.trades_in_window for answer in answers] == list(range(1, 12))


def test_a_symbol_without_known_volatility_is_not_sized(shared: Served, symbol: str) -> None:
    answer = send(shared, zigzag(symbol, 12))[-1]
    assert hold(answer) == pb.REASON_SIZING_NO_VOLATILITY
    assert answer.prediction.confidence == pytest.approx(1 / (1 + math.exp(-0.4)), rel=1e-6)


@pytest.mark.parametrize(("trades", "action"), [(30, pb.ACTION_BUY), (31, pb.ACTION_SELL)])
def test_an_approved_order_has_size_limit_price_and_validity(
    shared: Served, symbol: str, later: int, trades: int, action: int
) -> None:
    requests = zigzag(symbol, trades, start_ns=later)
    answer = send(shared, requests)[-1]
    last = requests[-1].tick.trade.price
    before = requests[-2].tick.trade.price
    up = 1 / (1 + math.exp(-400.0 * (last - before) / before))
    size = 1000.0 * abs(2 * up - 1) / (math.log(1.001) * math.sqrt(5)) / last
    signal = answer.signal
    buy = action == pb.ACTION_BUY
    assert (signal.action, signal.approved, signal.reason) == (action, True, pb.REASON_APPROVED)
    assert signal.size == pytest.approx(size, rel=1e-5)
    assert signal.target_position == (signal.size if buy else -signal.size)
    assert signal.limit_price == pytest.approx(last * (1.0005 if buy else 0.9995), abs=2e-8)
    assert signal.valid_for_us == 500_000
    assert (signal.order_id > 0, signal.reducing, signal.remaining_size) == (True, False, 0.0)
    assert (signal.regime, signal.trading_state) == (pb.REGIME_UNKNOWN, pb.TRADING_STATE_ACTIVE)
    assert answer.prediction.value == pytest.approx(2 * up - 1, rel=1e-5)
    assert answer.prediction.confidence == pytest.approx(max(up, 1 - up), rel=1e-5)
    assert answer.prediction.decision_threshold == 0.5


def test_every_check_stands_beside_its_limit(shared: Served, symbol: str, later: int) -> None:
    answer = send(shared, zigzag(symbol, 30, start_ns=later))[-1]
    notional = pytest.approx(answer.signal.size * 100.0 * 1.001)
    assert [check.reason for check in answer.signal.checks] == [check.reason for check in CHECKS]
    measured = {check.reason: (check.value, check.limit, check.at_least) for check in answer.signal.checks}
    for reason, wanted in {
        pb.REASON_CONFIDENCE_BELOW_THRESHOLD: (answer.prediction.confidence, 0.55, True),
        pb.REASON_POSITION_ORDER_SIZE: (answer.signal.size, math.inf, False),
        pb.REASON_POSITION_ORDER_NOTIONAL: (notional, 100_000.0, False),
        pb.REASON_POSITION_SIZE: (answer.signal.size, math.inf, False),
        pb.REASON_POSITION_NOTIONAL: (notional, 250_000.0, False),
        pb.REASON_PRICE_COLLAR: (pytest.approx(0.0005, abs=1e-8), 0.05, False),
        pb.REASON_SIGNAL_REPEATED: (1.0, 20.0, False),
    }.items():
        assert measured[reason] == wanted
    # No risk data, and the desk chose to do without.
    waived = {
        pb.REASON_VAR_PORTFOLIO,
        pb.REASON_CORRELATION_PORTFOLIO,
        pb.REASON_EXPOSURE_GROSS,
        pb.REASON_EXPOSURE_NET,
    }
    waived |= {pb.REASON_RATE_SYMBOL, pb.REASON_RATE_TOTAL}
    assert {check.reason for check in answer.signal.checks if check.waived} == waived
    assert math.isnan(measured[pb.REASON_VAR_PORTFOLIO][0])
    assert all(check.passed for check in answer.signal.checks if not check.waived)


@pytest.mark.parametrize(("trades", "touch"), [(30, 100.2), (31, 99.8)])
def test_the_limit_price_counts_from_the_touch_where_there_is_a_quote(
    shared: Served, symbol: str, later: int, trades: int, touch: float
) -> None:
    requests = zigzag(symbol, trades, start_ns=later)
    quote = requests[-1].tick.quote
    quote.bid, quote.ask, quote.bid_size, quote.ask_size = 99.8, 100.2, 1.0, 1.0
    signal = send(shared, requests)[-1].signal
    wanted = touch * (1.0005 if touch > 100.0 else 0.9995)
    assert (signal.approved, signal.limit_price) == (True, pytest.approx(wanted, abs=2e-8))


def test_an_answer_says_whose_it_is_and_where_the_time_went(shared: Served, symbol: str) -> None:
    *history, last = zigzag(symbol, 12)
    send(shared, history)
    last.request_id = "order-17"
    last.budget_us = 20_000_000
    answer = shared.predict(last)
    assert (answer.request_id, answer.symbol) == ("order-17", symbol)
    assert (answer.model.name, answer.model.version, answer.model.schema_id) == ("trend", 2, micro10().schema_id)
    assert (answer.features.trades_in_window, answer.features.exchange_ts_ns) == (12, last.tick.exchange_ts_ns)
    timing = answer.timing
    parts = (timing.waiting_ns, timing.features_ns, timing.inference_ns, timing.risk_ns)
    assert min(parts) > 0
    assert sum(parts) <= timing.total_ns < timing.budget_ns <= 20_000_000_000
    assert timing.engine == pb.INFERENCE_ENGINE_ONNXRUNTIME
    assert timing.server_send_ts_ns > START_NS


def test_the_least_of_request_deadline_and_model_is_the_budget(shared: Served, symbol: str) -> None:
    request = zigzag(symbol, 1)[0]
    request.budget_us = 2**64 - 1
    # The 30 s of the call; how far gRPC rounds them up on the wire is its own business.
    assert shared.predict(request).timing.budget_ns < 31_000_000_000
    assert shared.stub.Predict(request).timing.budget_ns == 60_000_000_000  # the model's
    request.budget_us = 7_000_000
    assert shared.predict(request).timing.budget_ns == 7_000_000_000


def test_each_version_answers_under_its_own_reference(shared: Served, symbol: str) -> None:
    request = send_all_but_last(shared, zigzag(symbol, 12))
    values = {}
    for reference in ("", "trend", "trend@production", "trend:2", "trend:1"):
        request.model = reference
        answer = shared.predict(request)
        values[reference] = (answer.model.version, answer.prediction.value)
    assert {values[same] for same in ("", "trend", "trend@production", "trend:2")} == {values["trend:2"]}
    assert values["trend:2"][0] == 2
    assert values["trend:1"] == (1, pytest.approx(2 / (1 + math.exp(-0.9)) - 1, rel=1e-5))


def test_the_latest_tick_sent_again_is_scored_the_same_and_its_order_asked_for_once(
    shared: Served, symbol: str, later: int
) -> None:
    last = send_all_but_last(shared, zigzag(symbol, 30, start_ns=later))
    first = shared.predict(last)
    assert first.signal.approved
    again = [shared.predict(last) for _ in range(3)]
    assert [without_the_desk(answer) for answer in again] == [without_the_desk(first)] * 3
    assert [hold(answer) for answer in again] == [pb.REASON_SIZING_BELOW_MINIMUM] * 3


def test_a_request_with_an_id_gets_its_first_answer_again(shared: Served, symbol: str, later: int) -> None:
    last = send_all_but_last(shared, zigzag(symbol, 30, start_ns=later))
    last.request_id = symbol
    first = shared.predict(last)
    assert (first.signal.approved, first.repeated) == (True, False)
    for _ in range(3):
        again = shared.predict(last)
        assert (again.repeated, again.signal.order_id) == (True, first.signal.order_id)
        assert (again.signal.size, again.signal.limit_price) == (first.signal.size, first.signal.limit_price)
    last.tick.trade.size += 1.0
    assert hold(shared.predict(last)) == pb.REASON_REQUEST_ID_REUSED


def test_a_tick_known_and_no_longer_the_latest_is_a_duplicate(shared: Served, symbol: str) -> None:
    requests = zigzag(symbol, 30)
    send(shared, requests)
    assert [hold(shared.predict(request)) for request in requests[:-1]] == [pb.REASON_TICK_DUPLICATE] * 29


def test_an_older_tick_is_out_of_order_and_changes_nothing(shared: Served, symbol: str) -> None:
    requests = zigzag(symbol, 30)
    before = without_the_desk(send(shared, requests)[-1])
    late = tick(symbol, requests[-1].tick.exchange_ts_ns - 1, sequence=99, trade=(50.0, 1.0))
    assert hold(shared.predict(late)) == pb.REASON_TICK_OUT_OF_ORDER
    assert without_the_desk(shared.predict(requests[-1])) == before


def test_a_crossed_quote_is_held_and_changes_nothing(shared: Served, symbol: str) -> None:
    requests = zigzag(symbol, 30)
    before = without_the_desk(send(shared, requests)[-1])
    crossed = tick(symbol, requests[-1].tick.exchange_ts_ns + 1, sequence=99, quote=(101.0, 100.0, 1.0, 1.0))
    assert hold(shared.predict(crossed)) == pb.REASON_TICK_CROSSED_QUOTE
    assert without_the_desk(shared.predict(requests[-1])) == before


def test_a_rejected_tick_ran_no_model_and_no_check(shared: Served, symbol: str) -> None:
    answer = shared.predict(tick(symbol, START_NS, quote=(101.0, 100.0, 1.0, 1.0)))
    assert hold(answer) == pb.REASON_TICK_CROSSED_QUOTE
    assert not answer.HasField("prediction")
    assert list(answer.signal.checks) == []
    assert answer.timing.engine == pb.INFERENCE_ENGINE_UNSPECIFIED


def test_a_symbol_whose_first_tick_was_rejected_is_still_unknown(shared: Served, symbol: str) -> None:
    shared.predict(tick(symbol, START_NS, quote=(101.0, 100.0, 1.0, 1.0)))
    assert hold(shared.predict(pb.PredictRequest(symbol=symbol))) == pb.REASON_TICK_UNKNOWN_SYMBOL


def test_asking_about_a_symbol_gives_its_latest_answer(shared: Served, symbol: str) -> None:
    latest = without_the_desk(send(shared, zigzag(symbol, 30))[-1])
    assert without_the_desk(shared.predict(pb.PredictRequest(symbol=symbol))) == latest


def test_a_long_silence_starts_the_windows_anew(shared: Served, symbol: str) -> None:
    send(shared, zigzag(symbol, 30))
    after = tick(symbol, START_NS + 29 * SECOND_NS + TICK_SESSION_GAP_NS + 1, sequence=31, trade=(100.0, 1.0))
    answer = shared.predict(after)
    assert (hold(answer), answer.features.trades_in_window) == (pb.REASON_FEATURES_NOT_READY, 1)


def test_quotes_move_no_feature_window(shared: Served, symbol: str) -> None:
    send(shared, zigzag(symbol, 11))
    answers = send(
        shared,
        [tick(symbol, START_NS + (20 + n) * SECOND_NS, sequence=100 + n, quote=(99, 101, 1, 1)) for n in range(3)],
    )
    assert [answer.features.trades_in_window for answer in answers] == [11] * 3
    assert [answer.features.exchange_ts_ns for answer in answers] == [START_NS + 10 * SECOND_NS] * 3


@pytest.mark.parametrize("schema_id", ["", micro10().schema_id])
def test_the_same_features_from_the_caller_give_the_same_signal(shared: Served, symbol: str, schema_id: str) -> None:
    requests = zigzag(symbol, 30)
    by_tick = send(shared, requests)[-1]
    trades = [request.tick for request in requests]
    vectors = batch(
        np.array([trade.exchange_ts_ns for trade in trades]),
        np.array([trade.trade.price for trade in trades]),
        np.array([trade.trade.size for trade in trades]),
        TICK_SESSION_GAP_NS,
    )
    last = trades[-1]
    by_features = shared.predict(
        features(symbol, vectors[-1].tolist(), at_ns=last.exchange_ts_ns, price=last.trade.price, schema_id=schema_id)
    )
    assert by_features.prediction == by_tick.prediction
    assert by_features.signal.target_position == by_tick.signal.target_position


def test_features_of_the_caller_change_no_state(shared: Served, symbol: str) -> None:
    last = send_all_but_last(shared, zigzag(symbol, 30))
    before = without_the_desk(shared.predict(last))
    shared.predict(features(symbol, [0.01] * 10, price=7.0))
    assert without_the_desk(shared.predict(last)) == before
