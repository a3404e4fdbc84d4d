"""Unary calls and streams of both clients against a scripted server."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator, Iterator

import grpc
import pytest
from tests.client.client_drivers import AsyncioDriver, SyncDriver
from tests.client.scripted_server import Refusal, ScriptedServer, hold, numbered_requests, trade_tick

from tickgate.v1 import signal_pb2
from tickgate_client import (
    AsyncSignalClient,
    CallError,
    ContractBroken,
    DeadlineExceeded,
    InvalidRequest,
    ModelNotFound,
    ServerUnavailable,
    SignalClient,
    error_of_result,
)
from tickgate_client.call_errors import ERROR_OF_STATUS

FEATURES = signal_pb2.FeatureVector(
    symbol="BTCUSDT", schema_id="micro10", values=[1.0, 2.0], exchange_ts_ns=5, reference_price=100.0
)


@pytest.mark.parametrize(
    ("what", "kind"), [(trade_tick(), "tick"), (FEATURES, "features"), ("BTCUSDT", "symbol")], ids=str
)
def test_each_kind_of_input_arrives_as_given(
    driver: SyncDriver | AsyncioDriver, peer: ScriptedServer, what: object, kind: str
) -> None:
    response = driver.predict(peer.target, what, request_id="a1", model="midmove@canary")
    (seen,) = peer.seen
    assert seen.request.WhichOneof("input") == kind
    assert getattr(seen.request, kind) == what
    assert seen.request.model == "midmove@canary"
    assert response == hold(seen.request)
    assert response.request_id == "a1"


def test_every_call_carries_the_deadline_and_its_microseconds_as_budget(
    driver: SyncDriver | AsyncioDriver, peer: ScriptedServer
) -> None:
    driver.predict(peer.target, trade_tick(), client={"deadline_s": 7.5})
    (seen,) = peer.seen
    assert 0 < seen.time_remaining_s <= 7.6
    assert seen.request.budget_us == 7_500_000


def test_a_call_may_have_its_own_deadline_and_budget(driver: SyncDriver | AsyncioDriver, peer: ScriptedServer) -> None:
    driver.predict(peer.target, trade_tick(), client={"deadline_s": 50.0, "budget_us": 900}, deadline_s=20.0)
    driver.predict(peer.target, trade_tick(), client={"deadline_s": 50.0}, budget_us=800)
    driver.predict(peer.target, trade_tick(), client={"budget_us": 900}, deadline_s=20.0, budget_us=0)
    assert [seen.request.budget_us for seen in peer.seen] == [900, 800, 20_000_000]
    assert peer.seen[0].time_remaining_s <= 20.1 < peer.seen[1].time_remaining_s <= 50.1


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), float("inf")])
def test_a_deadline_that_binds_nothing_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="deadline"):
        SignalClient("127.0.0.1:1", deadline_s=bad)


def test_a_negative_budget_is_refused(driver: SyncDriver | AsyncioDriver, peer: ScriptedServer) -> None:
    with pytest.raises(ValueError, match="budget_us is -1"):
        driver.predict(peer.target, trade_tick(), budget_us=-1)
    assert peer.seen == []


@pytest.mark.parametrize("status", [status for status in grpc.StatusCode if status is not grpc.StatusCode.OK])
def test_each_status_is_its_error_with_text_and_request_id(
    driver: SyncDriver | AsyncioDriver, peer: ScriptedServer, status: grpc.StatusCode
) -> None:
    peer.answer = lambda _: Refusal(status, "what was wrong")
    with pytest.raises(CallError) as caught:
        driver.predict(peer.target, trade_tick(), request_id="r-7", model="m:2")
    error = caught.value
    assert type(error) is ERROR_OF_STATUS[status]
    assert (error.status_code, error.message, error.request_id, error.model) == (status, "what was wrong", "r-7", "m:2")
    assert str(error) == f"{status.name}: what was wrong (request r-7)"


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("tick.trade.price: must be > 0, is -1", "tick.trade.price"),
        ("features.values[3]: not finite", "features.values[3]"),
        ("Give me a symbol: now", None),
        ("", None),
    ],
)
def test_an_invalid_request_names_its_field(
    driver: SyncDriver | AsyncioDriver, peer: ScriptedServer, text: str, field: str | None
) -> None:
    peer.answer = lambda _: Refusal(grpc.StatusCode.INVALID_ARGUMENT, text)
    with pytest.raises(InvalidRequest) as caught:
        driver.predict(peer.target, trade_tick())
    assert caught.value.field == field


def test_a_call_that_failed_is_not_sent_again(driver: SyncDriver | AsyncioDriver, peer: ScriptedServer) -> None:
    peer.answer = lambda _: Refusal(grpc.StatusCode.UNAVAILABLE, "draining")
    with pytest.raises(ServerUnavailable, match="draining"):
        driver.predict(peer.target, trade_tick())
    assert len(peer.seen) == 1


def test_a_server_that_does_not_answer_costs_no_more_than_the_deadline(
    driver: SyncDriver | AsyncioDriver, peer: ScriptedServer
) -> None:
    released = threading.Event()

    def stall(request: signal_pb2.PredictRequest) -> signal_pb2.PredictResponse:
        released.wait(60)
        return hold(request)

    peer.answer = stall
    try:
        with pytest.raises(DeadlineExceeded) as caught:
            driver.predict(peer.target, trade_tick(), deadline_s=0.05, request_id="late")
        assert caught.value.request_id == "late"
        assert driver.latency.percentiles().count == 1
    finally:
        released.set()


def test_no_connection_is_an_error_of_connect(driver: SyncDriver | AsyncioDriver) -> None:
    with pytest.raises(ServerUnavailable, match=r"no connection to 127\.0\.0\.1:1 within 0\.2 s"):
        driver.connect("127.0.0.1:1", 0.2)


def test_every_unary_call_is_recorded_with_the_servers_part_where_it_answered(
    driver: SyncDriver | AsyncioDriver, peer: ScriptedServer
) -> None:
    driver.predict(peer.target, trade_tick())
    peer.answer = lambda _: Refusal(grpc.StatusCode.NOT_FOUND, "no such model")
    with pytest.raises(ModelNotFound):
        driver.predict(peer.target, trade_tick())
    summary = driver.latency.summary()
    assert (summary.round_trip.count, summary.server.count, summary.network.count) == (2, 1, 1)
    assert summary.server.max_us == 11.0
    assert summary.network.max_us <= summary.round_trip.max_us


@pytest.mark.parametrize("in_flight", [1, 3, 64])
@pytest.mark.parametrize("batch", [1, 4])
def test_a_stream_answers_in_order_with_its_failures_in_their_places(
    driver: SyncDriver | AsyncioDriver, peer: ScriptedServer, batch: int, in_flight: int
) -> None:
    def third_fails(request: signal_pb2.PredictRequest) -> signal_pb2.PredictResponse | Refusal:
        if int(request.request_id[1:]) % 3 == 2:
            return Refusal(grpc.StatusCode.INVALID_ARGUMENT, "tick.trade.price: must be > 0")
        return hold(request)

    peer.answer = third_fails
    requests = numbered_requests(10)
    results = driver.stream(peer.target, requests, batch, in_flight=in_flight, client={"deadline_s": 30.0})
    assert [result.request_id for result in results] == [request.request_id for request in requests]
    assert [result.code for result in results] == [3 if i % 3 == 2 else 0 for i in range(10)]
    assert [seen.requests_in_message for seen in peer.seen] == ([1] * 10 if batch == 1 else [4] * 8 + [2] * 2)
    error = error_of_result(results[2])
    assert isinstance(error, InvalidRequest)
    assert (error.field, error.request_id) == ("tick.trade.price", "r2")
    assert error_of_result(results[0]) is None
    summary = driver.latency.summary()
    assert summary.round_trip.count == len(range(0, 10, batch))
    assert summary.server.max_us == 11.0


def test_requests_on_a_stream_get_deadline_budget_and_model_where_they_have_none(
    driver: SyncDriver | AsyncioDriver, peer: ScriptedServer
) -> None:
    requests = numbered_requests(2)
    requests[1].model = "own"
    requests[1].budget_us = 77
    driver.stream(peer.target, requests, client={"deadline_s": 2.0, "model": "default"}, stream_deadline_s=90.0)
    assert [(seen.request.model, seen.request.budget_us) for seen in peer.seen] == [("default", 2_000_000), ("own", 77)]
    assert all(0 < seen.time_remaining_s <= 90.1 for seen in peer.seen)
    assert (requests[0].model, requests[0].budget_us) == ("", 0), "the caller's own message is not touched"


def test_an_empty_stream_gives_nothing(driver: SyncDriver | AsyncioDriver, peer: ScriptedServer) -> None:
    assert driver.stream(peer.target, []) == []


def test_a_stream_that_ends_badly_raises_after_what_it_answered(
    driver: SyncDriver | AsyncioDriver, peer: ScriptedServer
) -> None:
    def fail_at_third(
        message: signal_pb2.PredictStreamRequest, context: grpc.ServicerContext
    ) -> signal_pb2.PredictStreamResponse:
        if message.requests[0].request_id == "r2":
            context.abort(grpc.StatusCode.UNAVAILABLE, "draining")
        return signal_pb2.PredictStreamResponse(results=[peer.result(item) for item in message.requests])

    peer.stream_step = fail_at_third
    with pytest.raises(ServerUnavailable, match="draining"):
        driver.stream(peer.target, numbered_requests(9))
    assert [result.request_id for result in driver.results] == ["r0", "r1"]
    assert driver.latency.percentiles().count == 3


def test_a_stream_that_closes_before_its_answers_breaks_the_contract(
    driver: SyncDriver | AsyncioDriver, peer: ScriptedServer
) -> None:
    peer.stream_step = lambda _message, _context: None
    with pytest.raises(ContractBroken, match="the end of the stream"):
        driver.stream(peer.target, numbered_requests(3))


def test_answers_that_belong_to_other_requests_are_not_handed_on(
    driver: SyncDriver | AsyncioDriver, peer: ScriptedServer
) -> None:
    def swap(message: signal_pb2.PredictStreamRequest, _: grpc.ServicerContext) -> signal_pb2.PredictStreamResponse:
        return signal_pb2.PredictStreamResponse(results=[peer.result(item) for item in reversed(message.requests)])

    peer.stream_step = swap
    with pytest.raises(ContractBroken, match=r"expected 2 results with request ids \['r0', 'r1'\]"):
        driver.stream(peer.target, numbered_requests(2), 2)
    assert driver.results == []


def test_a_stream_waits_for_one_answer_no_longer_than_the_deadline(
    driver: SyncDriver | AsyncioDriver, peer: ScriptedServer
) -> None:
    released = threading.Event()

    def stall_at_second(
        message: signal_pb2.PredictStreamRequest, _: grpc.ServicerContext
    ) -> signal_pb2.PredictStreamResponse:
        if message.requests[0].request_id == "r1":
            released.wait(60)
        return signal_pb2.PredictStreamResponse(results=[peer.result(item) for item in message.requests])

    peer.stream_step = stall_at_second
    try:
        with pytest.raises(DeadlineExceeded, match=r"no answer on the stream within 0\.2 s"):
            driver.stream(peer.target, numbered_requests(3), deadline_s=0.2)
        assert [result.request_id for result in driver.results] == ["r0"]
    finally:
        released.set()


def test_the_streams_own_deadline_ends_it(driver: SyncDriver | AsyncioDriver, peer: ScriptedServer) -> None:
    released = threading.Event()

    def stall(_message: signal_pb2.PredictStreamRequest, _context: grpc.ServicerContext) -> None:
        released.wait(60)

    peer.stream_step = stall
    try:
        with pytest.raises(DeadlineExceeded):
            driver.stream(peer.target, numbered_requests(1), deadline_s=60.0, stream_deadline_s=0.1)
    finally:
        released.set()


@pytest.mark.parametrize(("batch", "in_flight"), [(0, 1), (1025, 1), (1, 0), (1, 1025)])
def test_a_stream_shape_out_of_bounds_is_refused(peer: ScriptedServer, batch: int, in_flight: int) -> None:
    with SignalClient(peer.target) as client, pytest.raises(ValueError, match="must be 1 to 1024"):
        client.predict_stream([], batch, in_flight=in_flight)


def test_errors_of_the_callers_iterable_reach_the_caller(
    driver: SyncDriver | AsyncioDriver, peer: ScriptedServer
) -> None:
    def broken() -> Iterator[signal_pb2.PredictRequest]:
        yield numbered_requests(1)[0]
        raise KeyError("the caller's own")

    with pytest.raises(KeyError, match="the caller's own"):
        driver.stream(peer.target, broken())
    assert len(driver.results) == 1


def test_with_one_in_flight_an_answer_comes_before_the_next_request_is_taken(peer: ScriptedServer) -> None:
    taken = 0

    def requests() -> Iterator[signal_pb2.PredictRequest]:
        nonlocal taken
        for request in numbered_requests(5):
            taken += 1
            yield request

    with SignalClient(peer.target) as client:
        for done, _ in enumerate(client.predict_stream(requests()), start=1):
            assert taken == done


def test_no_more_than_the_window_is_taken_ahead(peer: ScriptedServer) -> None:
    taken = 0

    def requests() -> Iterator[signal_pb2.PredictRequest]:
        nonlocal taken
        for request in numbered_requests(20):
            taken += 1
            yield request

    with SignalClient(peer.target) as client:
        for done, _ in enumerate(client.predict_stream(requests(), in_flight=4), start=1):
            assert taken - done <= 3
    assert taken == 20


def test_a_stream_left_early_is_cancelled_at_the_server(peer: ScriptedServer) -> None:
    ended = threading.Event()

    def watch(
        message: signal_pb2.PredictStreamRequest, context: grpc.ServicerContext
    ) -> signal_pb2.PredictStreamResponse:
        context.add_callback(ended.set)
        return signal_pb2.PredictStreamResponse(results=[peer.result(item) for item in message.requests])

    peer.stream_step = watch
    with SignalClient(peer.target) as client:
        results = client.predict_stream(itertools.cycle(numbered_requests(1)))
        next(results)
        results.close()
        assert ended.wait(60)


def test_one_client_serves_several_threads(peer: ScriptedServer) -> None:
    with SignalClient(peer.target, deadline_s=60.0) as client:
        answers: dict[int, list[str]] = {}

        def ask(who: int) -> None:
            answers[who] = [client.predict("S", request_id=f"{who}-{i}").request_id for i in range(50)]

        threads = [threading.Thread(target=ask, args=(who,)) for who in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == {who: [f"{who}-{i}" for i in range(50)] for who in range(4)}
        assert client.latency.percentiles().count == 200


def test_asyncio_calls_overlap_on_one_connection(peer: ScriptedServer) -> None:
    together = threading.Barrier(3)

    def meet(request: signal_pb2.PredictRequest) -> signal_pb2.PredictResponse:
        together.wait(60)
        return hold(request)

    async def ask() -> list[signal_pb2.PredictResponse]:
        async with AsyncSignalClient(peer.target, deadline_s=60.0) as client:
            return await asyncio.gather(*(client.predict("S", request_id=str(i)) for i in range(3)))

    peer.answer = meet
    assert [answer.request_id for answer in asyncio.run(ask())] == ["0", "1", "2"]


def test_an_asyncio_stream_takes_an_asynchronous_iterable(peer: ScriptedServer) -> None:
    async def requests() -> AsyncIterator[signal_pb2.PredictRequest]:
        for request in numbered_requests(5):
            await asyncio.sleep(0)
            yield request

    async def ask() -> list[str]:
        async with AsyncSignalClient(peer.target) as client:
            return [result.request_id async for result in client.predict_stream(requests(), 2)]

    assert asyncio.run(ask()) == ["r0", "r1", "r2", "r3", "r4"]


def test_the_table_of_errors_knows_every_status_but_ok() -> None:
    assert set(ERROR_OF_STATUS) == set(grpc.StatusCode) - {grpc.StatusCode.OK}


def test_a_code_that_grpc_does_not_have_is_unknown() -> None:
    error = error_of_result(signal_pb2.PredictStreamResult(code=99, message="?", request_id="x"), model="m")
    assert isinstance(error, CallError)
    assert (error.status_code, error.request_id, error.model) == (grpc.StatusCode.UNKNOWN, "x", "m")
