"""What is served is what the engine decides: the same ticks in process, over unary calls and over a stream."""

from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tests.support.messages import START_NS, features, tick, untimed
from tests.support.processes import Served, served

from tickgate.v1 import signal_pb2 as pb
from tickgate_server.engine import Engine, EngineSettings
from tickgate_server.errors import FieldInvalid
from tickgate_server.models.registry import load_repository
from tickgate_server.records import FEATURES, SYMBOL, TICK, Decision, Request
from tickgate_server.risk.checks import CHECKS
from tickgate_server.risk.limits import Limits
from tickgate_server.ticks.market import QUOTE, TRADE

NO_TICK = 0.07


def random_requests(seed: int, count: int) -> list[pb.PredictRequest]:
    """Three symbols; trades, quotes and both; late, repeated, altered, crossed and invalid ticks among them."""
    rng = np.random.default_rng(seed)
    prices = {"A": 100.0, "B": 0.02, "C": 60_000.0}
    stamps = dict.fromkeys(prices, START_NS)
    requests: list[pb.PredictRequest] = []
    for number in range(1, count + 1):
        symbol = str(rng.choice(list(prices)))
        kind = rng.random()
        if kind < NO_TICK and requests:
            requests.append(
                features(symbol, rng.normal(0, 1e-3, 10).tolist(), price=prices[symbol])
                if rng.random() < 0.5
                else pb.PredictRequest(symbol=symbol)
            )
            continue
        if kind < 0.15 and requests:
            requests.append(requests[-int(rng.integers(1, min(len(requests), 4) + 1))])
            continue
        prices[symbol] *= float(np.exp(rng.normal(0, 1e-3)))
        stamps[symbol] += int(rng.integers(0, 2)) * int(rng.integers(1, 10**9))
        price = prices[symbol]
        what = rng.integers(1, 4)
        requests.append(
            tick(
                symbol,
                stamps[symbol] - (1 if rng.random() < 0.05 else 0),
                sequence=0 if rng.random() < 0.2 else 2**64 - 1 - count + number,
                trade=(price if rng.random() > 0.02 else float("nan"), float(rng.integers(0, 5)))
                if what & TRADE
                else None,
                quote=(price * (1 - 1e-4), price * (1 + rng.choice([1e-4, -1e-4, -1e-3], p=[0.9, 0.05, 0.05])), 1, 2)
                if what & QUOTE
                else None,
                model=str(rng.choice(["trend", "trend:1"])),
            )
        )
    return requests


def decoded(message: pb.PredictRequest) -> Request:
    """By hand, not by the codec."""
    request = Request(model=message.model)
    kind = message.WhichOneof("input")
    if kind == "tick":
        given = message.tick
        request.input, request.symbol = TICK, given.symbol
        request.exchange_ts_ns, request.sequence = given.exchange_ts_ns, given.sequence
        if given.HasField("trade"):
            request.kind |= TRADE
            request.price, request.size = given.trade.price, given.trade.size
        if given.HasField("quote"):
            request.kind |= QUOTE
            request.bid, request.ask = given.quote.bid, given.quote.ask
            request.bid_size, request.ask_size = given.quote.bid_size, given.quote.ask_size
    elif kind == "features":
        vector = message.features
        request.input, request.symbol, request.values = FEATURES, vector.symbol, list(vector.values)
        request.exchange_ts_ns, request.reference_price = vector.exchange_ts_ns, vector.reference_price
    else:
        request.input, request.symbol = SYMBOL, message.symbol
    return request


def decided(repository: Path, messages: list[pb.PredictRequest]) -> list[Any]:
    """Everything each answer should say, from an engine in this process; a code where it should fail."""
    limits = Limits(max_var="off", max_correlation="off")  # as every test's server
    engine = Engine(EngineSettings(replay=True), load_repository(repository), None, limits)
    wanted: list[Any] = []
    for message in messages:
        request, decision = decoded(message), Decision()
        request.arrival_ns = 2**62  # never late
        try:
            engine.decide(request, decision)
        except FieldInvalid:
            wanted.append(grpc.StatusCode.INVALID_ARGUMENT.value[0])
            engine.recorder.record(request, decision, request_id="", status=grpc.StatusCode.INVALID_ARGUMENT.value[0])
            continue
        engine.recorder.record(request, decision, request_id="", status=0)
        assert decision.model is not None
        checks = [
            (int(check.reason), value, limit)
            for check, value, limit in zip(CHECKS, decision.check_values, decision.check_limits, strict=True)
        ]
        wanted.append(
            (
                decision.symbol,
                decision.action,
                int(decision.reason),
                decision.size,
                decision.limit_price,
                decision.valid_for_us,
                decision.target,
                decision.value if decision.scored else None,
                decision.confidence if decision.scored else None,
                checks if decision.judged else [],
                decision.trades_in_window,
                decision.ready,
                decision.features_ts_ns,
                decision.model.version,
            )
        )
    return wanted


def said(answer: pb.PredictResponse) -> tuple[Any, ...]:
    signal, state = answer.signal, answer.features
    scored = answer.HasField("prediction")
    return (
        answer.symbol,
        signal.action,
        signal.reason,
        signal.size,
        signal.limit_price,
        signal.valid_for_us,
        signal.target_position,
        answer.prediction.value if scored else None,
        answer.prediction.confidence if scored else None,
        [(check.reason, check.value, check.limit) for check in signal.checks],
        state.trades_in_window,
        state.ready,
        state.exchange_ts_ns,
        answer.model.version,
    )


def unary(server: Served, messages: list[pb.PredictRequest]) -> list[pb.PredictResponse | int]:
    answers: list[pb.PredictResponse | int] = []
    for message in messages:
        try:
            answers.append(untimed(server.predict(message)))
        except grpc.RpcError as error:
            answers.append(error.code().value[0])
    return answers


def streamed(server: Served, messages: list[pb.PredictRequest]) -> list[pb.PredictResponse | int]:
    parts = [messages[start : start + 97] for start in range(0, len(messages), 97)]
    results = [result for answer in server.stream(parts) for result in answer.results]
    return [result.code or untimed(result.response) for result in results]


@pytest.fixture(scope="module")
def messages() -> list[pb.PredictRequest]:
    return random_requests(20240809, 1000)


@pytest.fixture(scope="module")
def answers(mixed_repository: Path, messages: list[pb.PredictRequest]) -> dict[str, list[pb.PredictResponse | int]]:
    """Each way of asking on a fresh server of its own."""
    found = {}
    for transport, ask in (("queue", unary), ("queue", streamed), ("aio", unary)):
        with served(mixed_repository, "--clock", "replay", "--transport", transport) as server:
            found[f"{transport} {ask.__name__}"] = ask(server, messages)
    return found


def test_the_random_requests_reach_every_kind_of_answer(
    mixed_repository: Path, messages: list[pb.PredictRequest]
) -> None:
    wanted = decided(mixed_repository, messages)
    reasons = {pb.Reason.Name(one[2]) for one in wanted if isinstance(one, tuple)}
    assert reasons >= {
        "REASON_APPROVED",
        "REASON_FEATURES_NOT_READY",
        "REASON_TICK_DUPLICATE",
        "REASON_TICK_OUT_OF_ORDER",
        "REASON_TICK_CROSSED_QUOTE",
        "REASON_SIZING_NO_VOLATILITY",
        "REASON_CONFIDENCE_BELOW_THRESHOLD",
        "REASON_POSITION_ORDER_NOTIONAL",
    }
    assert {one[1] for one in wanted if isinstance(one, tuple)} == {pb.ACTION_HOLD, pb.ACTION_BUY, pb.ACTION_SELL}
    assert grpc.StatusCode.INVALID_ARGUMENT.value[0] in wanted


def test_served_answers_are_the_engines_bit_for_bit(
    mixed_repository: Path, messages: list[pb.PredictRequest], answers: dict[str, list[pb.PredictResponse | int]]
) -> None:
    wanted = decided(mixed_repository, messages)
    got = [answer if isinstance(answer, int) else said(answer) for answer in answers["queue unary"]]
    assert list(map(repr, got)) == list(map(repr, wanted))  # NaN is NaN there


@pytest.mark.parametrize("way", ["queue streamed", "aio unary"])
def test_every_way_of_asking_gives_the_same_answers(
    answers: dict[str, list[pb.PredictResponse | int]], way: str
) -> None:
    assert list(map(str, answers[way])) == list(map(str, answers["queue unary"]))
