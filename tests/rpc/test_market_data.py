"""MarketDataService over real sockets, on both transports: what publishers are told, and what Predict sees of it."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from tests.support.messages import tick, untimed, zigzag
from tests.support.packages import publish_forest
from tests.support.processes import CALL_S, CHANNEL_OPTIONS, Served, server

from tickgate.v1 import market_data_pb2 as pb
from tickgate.v1 import market_data_pb2_grpc, signal_pb2
from tickgate_server.journal.entries import TicksEntry
from tickgate_server.journal.reader import JournalReader

NAN = float("nan")


class Publisher:
    """A client of a server's service listener."""

    def __init__(self, address: str) -> None:
        self.channel = grpc.insecure_channel(address, options=CHANNEL_OPTIONS)
        self._stub = market_data_pb2_grpc.MarketDataServiceStub(self.channel)

    def batch(self, ticks: pb.TickColumns, feed: str = "") -> pb.TickCounts:
        return self.later(ticks, feed).result().counts

    def later(self, ticks: pb.TickColumns, feed: str = "") -> Any:
        return self._stub.PublishBatch.future(pb.PublishBatchRequest(feed=feed, ticks=ticks), timeout=CALL_S)

    def stream(self, messages: Any) -> Any:
        return self._stub.PublishTicks(messages, timeout=CALL_S)


def columns(symbol: str, stamps: Any, prices: Any, **others: Any) -> pb.TickColumns:
    count = len(stamps)
    found = {
        "symbol_index": np.zeros(count, int),
        "exchange_ts_ns": stamps,
        "sequence": np.arange(1, count + 1),
        "price": prices,
        "size": np.ones(count),
    } | others
    return pb.TickColumns(symbols=[symbol], **{name: list(values) for name, values in found.items()})


def rejected(counts: pb.TickCounts) -> dict[str, int]:
    return {signal_pb2.Reason.Name(one.reason): one.ticks for one in counts.rejected}


@pytest.fixture(scope="module")
def publisher(shared: Served) -> Publisher:
    return Publisher(str(shared.process.logged("serving")[0]["service"]))


def test_a_published_batch_is_what_predict_then_knows(shared: Served, publisher: Publisher, later: int) -> None:
    requests = zigzag("BATCHED", 30, start_ns=later)
    ticks = [request.tick for request in requests]
    counts = publisher.batch(
        columns(
            "BATCHED",
            [one.exchange_ts_ns for one in ticks],
            [one.trade.price for one in ticks],
            size=[one.trade.size for one in ticks],
        )
    )
    assert (counts.accepted, rejected(counts)) == (30, {})
    for request in zigzag("ASKED", 30, start_ns=later):
        expected = shared.predict(request)
    found = shared.predict(signal_pb2.PredictRequest(symbol="BATCHED"))
    assert found.features == expected.features
    assert found.prediction == expected.prediction
    again = shared.predict(requests[-1])  # the latest tick is scored again, and not applied
    assert untimed(again).features == untimed(found).features


def test_each_tick_that_is_rejected_is_counted_by_its_reason(publisher: Publisher, later: int) -> None:
    stamps = [later, later + 1, later + 2, later + 3, later + 1, later + 4, later + 4]
    found = publisher.batch(
        columns(
            "COUNTED",
            stamps,
            [100.0, NAN, 100.1, -1.0, 100.2, 100.3, 100.3],
            sequence=[1, 2, 3, 4, 5, 6, 6],
            kind=[1, 1, 3, 1, 1, 1, 1],
            bid=[0, 0, 100.2, 0, 0, 0, 0],
            ask=[0, 0, 100.1, 0, 0, 0, 0],
        )
    )
    assert (found.accepted, found.repeated_latest, found.conflated) == (3, 1, 0)
    assert rejected(found) == {"REASON_TICK_INVALID_VALUE": 2, "REASON_TICK_CROSSED_QUOTE": 1}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"price": [1.0]}, "ticks.price: expected 2 entries, as ticks.symbol_index has, got '1 entries'"),
        ({"symbol_index": [0, 1]}, "ticks.symbol_index[1]: expected the number of a symbol, below 1, got 1"),
        ({"kind": [1, 4]}, "ticks.kind[1]: expected 1 (a trade), 2 (a quote) or 3 (both), got 4"),
    ],
)
def test_a_message_that_is_not_whole_is_refused_whole(
    shared: Served, publisher: Publisher, later: int, changes: dict[str, Any], expected: str
) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        publisher.batch(columns("BROKEN", [later, later + 1], [100.0, 100.0], **changes))
    assert (refused.value.code(), refused.value.details()) == (grpc.StatusCode.INVALID_ARGUMENT, expected)
    answer = shared.predict(signal_pb2.PredictRequest(symbol="BROKEN"))
    assert answer.signal.reason == signal_pb2.REASON_TICK_UNKNOWN_SYMBOL  # nothing was applied


def test_bytes_that_are_no_message_are_the_publishers_error(publisher: Publisher) -> None:
    call = publisher.channel.unary_unary("/tickgate.v1.MarketDataService/PublishBatch")
    with pytest.raises(grpc.RpcError) as refused:
        call(b"\x12\xff", timeout=CALL_S)
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_a_streams_messages_are_answered_in_order(shared: Served, publisher: Publisher, later: int) -> None:
    ticks = [request.tick for request in zigzag("STREAMED", 40, start_ns=later)]
    messages = [pb.PublishTicksRequest(feed="venue", ticks=ticks[at : at + 10]) for at in range(0, 40, 10)]
    messages.insert(2, pb.PublishTicksRequest(feed="venue"))
    answers = list(publisher.stream(iter(messages)))
    assert [answer.messages for answer in answers] == [1, 2, 3, 4, 5]
    assert [answer.counts.accepted for answer in answers] == [10, 10, 0, 10, 10]
    assert shared.predict(signal_pb2.PredictRequest(symbol="STREAMED")).features.trades_in_window == 40


def test_a_stream_that_changes_its_feed_ends(publisher: Publisher, later: int) -> None:
    one = tick("CHANGED", later, sequence=1, trade=(100.0, 1.0)).tick
    call = publisher.stream(iter([pb.PublishTicksRequest(feed="a", ticks=[one]), pb.PublishTicksRequest(feed="b")]))
    assert next(call).counts.accepted == 1
    with pytest.raises(grpc.RpcError) as refused:
        next(call)
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "feed" in refused.value.details()


def test_reflection_knows_the_service(publisher: Publisher) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(publisher.channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    (answer,) = stub.ServerReflectionInfo(iter([request]), timeout=CALL_S)
    assert "tickgate.v1.MarketDataService" in [one.name for one in answer.list_services_response.service]


@pytest.fixture
def windowed(transport: str, tmp_path: Path) -> Iterator[tuple[Any, Publisher, Path]]:
    """A live server of two feeds, whose ticks wait for a minute and for 50 ms; a queue of the smallest size."""
    models = tmp_path / "models"
    publish_forest(models, name="trend", latency_budget_ms=60_000.0)
    settings = tmp_path / "tickgate.toml"
    settings.write_text(
        "[ingest]\nqueue_ticks = 65536\n[ingest.feeds.slow]\nreorder_window_ms = 60000\n"
        "[ingest.feeds.quick]\nreorder_window_ms = 50\n"
    )
    journal = tmp_path / "journal"
    with server(models, "--transport", transport, "--journal", str(journal), "--config", str(settings)) as (running, _):
        yield running, Publisher(str(running.logged("serving")[0]["service"])), journal


def test_a_full_queue_takes_nothing_and_a_draining_server_answers_what_it_took(
    windowed: tuple[Any, Publisher, Path],
) -> None:
    running, publisher, journal = windowed
    now_ns = time.time_ns()
    stamps = now_ns - 65_536 + np.arange(65_536)
    late = publisher.batch(columns("LATE", [now_ns + 10, now_ns], [100.0, 100.1], sequence=[2, 1]), "quick")
    assert (late.accepted, rejected(late)) == (2, {})
    waiting = publisher.later(columns("FULL", stamps, np.full(65_536, 100.0)), "slow")
    refusal = None
    while refusal is None:  # until the first is there
        try:
            publisher.batch(columns("ONE", [now_ns], [100.0]))
        except grpc.RpcError as error:
            refusal = error
    assert refusal.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert refusal.details() == "ticks: 65,536 wait to be applied, the most there may be"
    running.process.terminate()
    assert waiting.result().counts.accepted == 65_536
    assert running.stop() == 0
    with JournalReader(journal) as reader:
        entries = [entry for entry in reader if isinstance(entry, TicksEntry)]
    assert [entry.symbols for entry in entries][:1] == [("LATE",)]
    pairs = [pair for entry in entries for pair in zip(entry.symbols, entry.ticks["tick_sequence"], strict=True)]
    assert [int(sequence) for symbol, sequence in pairs if symbol == "LATE"] == [1, 2]  # in the order of the venue
    assert sum(len(entry.ticks) for entry in entries if "FULL" in entry.symbols) == 65_536
