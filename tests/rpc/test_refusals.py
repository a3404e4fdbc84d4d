"""What the caller got wrong: the code, the field, and a server that goes on as before."""

import math
from typing import Any

import grpc
import pytest
from tests.support.messages import START_NS, features, tick
from tests.support.processes import CALL_S, PREDICT, Served

from tickgate.v1 import signal_pb2 as pb

NAN, INF = math.nan, math.inf
LATER_NS = START_NS + 3_600 * 1_000_000_000
GOOD_QUOTE = (99.0, 101.0, 1.0, 1.0)
GOOD_VALUES = [0.0] * 10


def trade(price: float = 100.0, size: float = 1.0, **fields: Any) -> pb.PredictRequest:
    return tick(fields.pop("symbol", "STEADY"), fields.pop("at_ns", LATER_NS), trade=(price, size), **fields)


def quote(place: int, value: float) -> pb.PredictRequest:
    numbers = [*GOOD_QUOTE]
    numbers[place] = value
    return tick("STEADY", LATER_NS, quote=(numbers[0], numbers[1], numbers[2], numbers[3]))


def vector(place: int, value: float) -> pb.PredictRequest:
    values = [*GOOD_VALUES]
    values[place] = value
    return features("STEADY", values, at_ns=LATER_NS)


INVALID: list[tuple[str, pb.PredictRequest]] = [
    *(("tick.trade.price", trade(price)) for price in (NAN, INF, -INF, 0.0, -1.0)),
    *(("tick.trade.size", trade(size=size)) for size in (NAN, INF, -1.0)),
    *(("tick.quote.bid", quote(0, bid)) for bid in (NAN, INF, 0.0, -1.0)),
    *(("tick.quote.ask", quote(1, ask)) for ask in (NAN, INF, 0.0, -1.0)),
    *(("tick.quote.bid_size", quote(2, size)) for size in (NAN, INF, -1.0)),
    *(("tick.quote.ask_size", quote(3, size)) for size in (NAN, INF, -1.0)),
    ("tick.trade.price", tick("STEADY", LATER_NS, trade=(NAN, 1.0), quote=GOOD_QUOTE)),
    ("tick.quote.bid", tick("STEADY", LATER_NS, trade=(100.0, 1.0), quote=(NAN, 101.0, 1.0, 1.0))),
    ("tick.symbol", trade(symbol="")),
    ("tick.symbol", trade(symbol="A" * 33)),
    ("tick.symbol", trade(symbol="A" * 40)),
    ("tick.symbol", trade(symbol="€" * 11)),
    ("tick.exchange_ts_ns", trade(at_ns=0)),
    ("tick.exchange_ts_ns", trade(at_ns=-1)),
    ("tick.exchange_ts_ns", trade(at_ns=-(2**63))),
    ("tick", tick("STEADY", LATER_NS)),
    ("features.symbol", features("", GOOD_VALUES)),
    ("features.symbol", features("A" * 40, GOOD_VALUES)),
    ("features.schema_id", features("STEADY", GOOD_VALUES, schema_id="micro10-0000000000000000")),
    ("features.values", features("STEADY", [])),
    ("features.values", features("STEADY", [0.0] * 9)),
    ("features.values", features("STEADY", [0.0] * 11)),
    *((f"features.values[{place}]", vector(place, value)) for place, value in ((0, NAN), (9, INF), (4, -INF))),
    ("features.exchange_ts_ns", features("STEADY", GOOD_VALUES, at_ns=0)),
    ("features.exchange_ts_ns", features("STEADY", GOOD_VALUES, at_ns=-5)),
    *(("features.reference_price", features("STEADY", GOOD_VALUES, price=price)) for price in (NAN, INF, 0.0, -1.0)),
    ("symbol", pb.PredictRequest(symbol="")),
    ("symbol", pb.PredictRequest(symbol="A" * 40)),
    ("input", pb.PredictRequest()),
    ("input", pb.PredictRequest(request_id="a", budget_us=1_000_000)),
    ("request_id", trade(request_id="x" * 37)),
    ("request_id", trade(request_id="€" * 13)),
]  # fmt: skip


@pytest.mark.parametrize(("field", "request_"), INVALID, ids=[f"{n}-{field}" for n, (field, _) in enumerate(INVALID)])
def test_a_bad_field_is_named_and_changes_nothing(
    shared: Served, steady: Any, field: str, request_: pb.PredictRequest
) -> None:
    code, details = shared.refusal(request_)
    assert (code, details.partition(":")[0]) == (grpc.StatusCode.INVALID_ARGUMENT, field)
    assert steady.ask() == steady.first


@pytest.mark.parametrize(
    ("model", "code"),
    [
        ("nobody", grpc.StatusCode.NOT_FOUND),
        ("trend:99", grpc.StatusCode.NOT_FOUND),
        ("trend:0", grpc.StatusCode.NOT_FOUND),
        ("trend@shadow", grpc.StatusCode.NOT_FOUND),
        ("trend@", grpc.StatusCode.NOT_FOUND),
        ("M" * 5000, grpc.StatusCode.NOT_FOUND),
        ("trend:3", grpc.StatusCode.FAILED_PRECONDITION),
        ("broken", grpc.StatusCode.FAILED_PRECONDITION),
        ("broken:1", grpc.StatusCode.FAILED_PRECONDITION),
        ("broken@production", grpc.StatusCode.FAILED_PRECONDITION),
        ("half", grpc.StatusCode.FAILED_PRECONDITION),
        ("failing", grpc.StatusCode.FAILED_PRECONDITION),
    ],
)
def test_a_model_that_cannot_answer_is_told_apart_by_its_code(
    shared: Served, steady: Any, model: str, code: grpc.StatusCode
) -> None:
    found, details = shared.refusal(trade(model=model))
    assert found is code
    assert model in details
    assert steady.ask() == steady.first


def test_a_message_over_the_size_limit_is_refused(shared: Served, steady: Any) -> None:
    request = pb.PredictRequest(symbol="STEADY", model="m" * 5_000_000)
    assert shared.refusal(request)[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert steady.ask() == steady.first


@pytest.mark.parametrize("data", [b"\xff\xff\xff", b"\x22\x7fshort", b"\x0a\x02\xff\xfe"], ids=["tag", "cut", "utf-8"])
def test_bytes_that_are_no_request_are_the_callers_error(shared: Served, steady: Any, data: bytes) -> None:
    raw = shared.channel.unary_unary(PREDICT)
    with pytest.raises(grpc.RpcError) as caught:
        raw(data, timeout=CALL_S)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert steady.ask() == steady.first


@pytest.mark.parametrize(
    "method",
    ["/tickgate.v1.SignalService/Trade", "/tickgate.v2.SignalService/Predict", "/nothing"],
)
def test_an_unknown_method_is_unimplemented(shared: Served, steady: Any, method: str) -> None:
    raw = shared.channel.unary_unary(method)
    with pytest.raises(grpc.RpcError) as caught:
        raw(b"", timeout=CALL_S)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert steady.ask() == steady.first


def test_a_budget_already_spent_is_answered_so_and_the_next_request_is_answered(shared: Served, steady: Any) -> None:
    request = pb.PredictRequest(symbol="STEADY", budget_us=1)
    code, details = shared.refusal(request)
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "budget of 1 us spent before" in details
    assert steady.ask() == steady.first


def test_the_limits_of_a_request_are_within_them(shared: Served) -> None:
    answer = shared.predict(trade(symbol="€" * 10 + "AB", request_id="é" * 18, model="trend:1"))
    assert (answer.request_id, answer.symbol, answer.model.version) == ("é" * 18, "€" * 10 + "AB", 1)
    assert answer.signal.reason == pb.REASON_FEATURES_NOT_READY
