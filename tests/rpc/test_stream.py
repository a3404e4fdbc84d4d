"""PredictStream: answers in order, each item with a status of its own."""

import math

import grpc
import pytest
from tests.support.messages import START_NS, tick, zigzag
from tests.support.processes import CALL_S, Served

from tickgate.v1 import signal_pb2 as pb

STREAM = "/tickgate.v1.SignalService/PredictStream"
BAD = tick("STREAMED", START_NS, trade=(math.nan, 1.0), request_id="bad")


def test_every_request_of_every_message_is_answered_in_order(shared: Served, later: int) -> None:
    requests = zigzag("IN-ORDER", 30, start_ns=later)
    for number, request in enumerate(requests):
        request.request_id = f"id-{number}"
    messages = [requests[:1], requests[1:8], [], requests[8:]]
    answers = list(shared.stream(messages))
    assert [len(answer.results) for answer in answers] == [1, 7, 0, 22]
    results = [result for answer in answers for result in answer.results]
    assert [result.request_id for result in results] == [f"id-{number}" for number in range(30)]
    assert [result.response.request_id for result in results] == [f"id-{number}" for number in range(30)]
    assert [result.response.features.trades_in_window for result in results] == list(range(1, 31))
    assert {(result.code, result.message) for result in results} == {(0, "")}
    assert results[-1].response.signal.approved


def test_a_failed_item_carries_its_status_and_the_stream_goes_on(shared: Served) -> None:
    good = zigzag("AFTER-BAD", 2)
    unknown = zigzag("AFTER-BAD", 1)[0]
    unknown.model = "nobody"
    broken = zigzag("AFTER-BAD", 1)[0]
    broken.model = "broken"
    spent = zigzag("AFTER-BAD", 1)[0]
    spent.budget_us = 1
    first, second = shared.stream([[BAD, good[0], unknown, broken, spent], [good[1]]])
    codes = [result.code for result in first.results]
    wanted = (
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.OK,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.DEADLINE_EXCEEDED,
    )
    assert codes == [code.value[0] for code in wanted]
    assert [result.HasField("response") for result in first.results] == [not code for code in codes]
    assert first.results[0].request_id == "bad"
    assert first.results[0].message.startswith("tick.trade.price:")
    assert all(result.message for result in first.results if result.code)
    assert second.results[0].response.features.trades_in_window == 2


def test_a_message_of_1024_items_is_answered_in_full(shared: Served) -> None:
    (answer,) = shared.stream([zigzag("LONGEST", 1024)])
    assert [result.response.features.trades_in_window for result in answer.results] == list(range(1, 1025))


def test_a_message_of_1025_items_ends_the_stream_and_none_is_applied(shared: Served) -> None:
    answers = shared.stream([zigzag("TOO-LONG", 1025)])
    with pytest.raises(grpc.RpcError) as caught:
        next(answers)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details().startswith("requests: expected at most 1024 a message, got 1025")
    after = shared.predict(pb.PredictRequest(symbol="TOO-LONG"))
    assert after.signal.reason == pb.REASON_TICK_UNKNOWN_SYMBOL


def test_bytes_that_are_no_message_end_the_stream_as_the_callers_error(shared: Served) -> None:
    answers = shared.channel.stream_stream(STREAM)(iter([b"\xff\xff\xff"]), timeout=CALL_S)
    with pytest.raises(grpc.RpcError) as caught:
        next(answers)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_message_over_the_size_limit_ends_the_stream(shared: Served) -> None:
    answers = shared.stream([[pb.PredictRequest(symbol="A", model="m" * 5_000_000)]])
    with pytest.raises(grpc.RpcError) as caught:
        next(answers)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_streams_and_unary_calls_share_the_symbols_state(shared: Served) -> None:
    requests = zigzag("SHARED", 30)
    answers = list(shared.stream([requests[:20]]))
    assert len(answers) == 1
    unary = [shared.predict(request) for request in requests[20:]]
    assert [answer.features.trades_in_window for answer in unary] == list(range(21, 31))
    (again,) = shared.stream([[requests[-1]]])
    assert again.results[0].response.prediction == unary[-1].prediction
    assert again.results[0].response.features == unary[-1].features


def test_a_stream_that_its_caller_cancels_leaves_the_server_serving(shared: Served) -> None:
    answers = shared.stub.PredictStream(iter([pb.PredictStreamRequest(requests=zigzag("CANCELLED", 5))] * 3))
    next(iter(answers))
    answers.cancel()
    assert shared.predict(pb.PredictRequest(symbol="CANCELLED")).features.trades_in_window == 5


def test_two_streams_at_once_are_each_answered_in_order(shared: Served) -> None:
    one = zigzag("STREAM-1", 600)
    two = zigzag("STREAM-2", 600)
    answers = zip(shared.stream([one[:300], one[300:]]), shared.stream([two[:300], two[300:]]), strict=True)
    counts = [[[r.response.features.trades_in_window for r in answer.results] for answer in pair] for pair in answers]
    assert counts == [[list(range(1, 301))] * 2, [list(range(301, 601))] * 2]
