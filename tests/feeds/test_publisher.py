"""What reaches a server, how often, in what order, and what its publisher is told."""

from __future__ import annotations

import asyncio
import itertools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from tests.feeds.market_server import Break, Market, MarketServer, MarketWorker, tick, ticks
from tests.rpc.test_tls import Authority

from tickgate.tls import read_credentials
from tickgate.v1 import market_pb2
from tickgate_client import (
    AsyncMarketDataPublisher,
    BadColumns,
    ContractBroken,
    DeadlineExceeded,
    InvalidRequest,
    MarketDataPublisher,
    NotSupported,
    PermissionDenied,
    PublisherClosed,
    ServerUnavailable,
)
from tickgate_client.feeds.columns import columns_of


def numbers(found: list[market_pb2.Tick]) -> list[int]:
    return [one.sequence for one in found]


def test_ticks_arrive_in_order_and_are_acknowledged_with_their_counts(server: MarketServer, market: Market) -> None:
    with MarketDataPublisher(server.target, feed="venue-a") as publisher:
        publisher.connect(timeout_s=10)
        receipts = [publisher.publish(ticks(10, begin=begin)) for begin in range(0, 100, 10)]
        again = publisher.publish([tick("S0", 100), tick("S0", 1)])
        assert [receipt.result(10).tally.accepted for receipt in receipts] == [10] * 10
        tally = again.result(10).tally
    assert (tally.accepted, tally.repeated_latest, dict(tally.rejected)) == (0, 1, {"TICK_DUPLICATE": 1})
    assert numbers(market.accepted) == list(range(1, 101))
    assert market.feeds == {"venue-a"}


def test_more_ticks_than_a_message_may_have_go_in_several(server: MarketServer, market: Market) -> None:
    with MarketDataPublisher(server.target, feed="f") as publisher:
        published = publisher.publish(ticks(2500)).result(10)
    assert (published.ticks, published.tally.accepted, market.in_messages) == (2500, 2500, [1024, 1024, 452])


def test_never_more_is_unacknowledged_than_the_window_holds(server: MarketServer, market: Market) -> None:
    async def run() -> int:
        most = 0
        async with AsyncMarketDataPublisher(server.target, feed="f", window_ticks=25) as publisher:
            for begin in range(0, 300, 10):
                await publisher.publish(ticks(10, begin=begin))
                most = max(most, publisher.unacknowledged)
        return most

    assert asyncio.run(run()) == 20
    assert numbers(market.accepted) == list(range(1, 301))


def test_what_is_wider_than_the_window_is_refused_at_once(server: MarketServer) -> None:
    with (
        MarketDataPublisher(server.target, feed="f", window_ticks=5) as publisher,
        pytest.raises(ValueError, match="6 ticks, must be 1 to 5, the window"),
    ):
        publisher.publish(ticks(6))


@pytest.mark.parametrize("applied", [False, True], ids=["not applied", "applied, answer lost"])
def test_what_a_broken_stream_left_unanswered_is_sent_again_in_order(
    server: MarketServer, market: Market, *, applied: bool
) -> None:
    at = itertools.count(1)
    market.fault = lambda _worker, _ticks: (
        Break(grpc.StatusCode.UNAVAILABLE, "draining", applied) if next(at) in {3, 5, 6, 12} else None
    )
    with MarketDataPublisher(server.target, feed="f") as publisher:
        receipts = [publisher.publish(ticks(10, begin=begin)) for begin in range(0, 200, 10)]
        publisher.flush()
        assert sum(receipt.result(0).resent for receipt in receipts) >= 40
        assert publisher.reconnects == 4
        assert isinstance(publisher.last_error, ServerUnavailable)
    assert numbers(market.accepted) == list(range(1, 201))
    assert set(numbers(market.arrived)) == set(range(1, 201))


def test_a_server_that_is_away_for_a_while_gets_everything_when_it_is_back(market: Market) -> None:
    server = MarketServer(market).start()
    with MarketDataPublisher(server.target, feed="f") as publisher:
        publisher.publish(ticks(10)).result(10)
        server.stop()
        waiting = publisher.publish(ticks(10, begin=10))
        with pytest.raises(TimeoutError):
            waiting.result(0.15)
        with server:
            assert waiting.result(20).tally.accepted == 10
            publisher.publish(ticks(10, begin=20))
            publisher.flush()
    assert numbers(market.accepted) == list(range(1, 31))


def test_without_an_acknowledgement_for_too_long_the_publisher_fails(market: Market) -> None:
    server = MarketServer(market)
    with MarketDataPublisher(server.target, feed="f", patience_s=0.3) as publisher:
        with pytest.raises(ServerUnavailable):
            publisher.publish(ticks(1))
        with pytest.raises(ServerUnavailable):
            publisher.publish(ticks(1))
        publisher.close()


def test_a_server_that_takes_ticks_and_does_not_answer_is_given_up_at_the_deadline(
    server: MarketServer, market: Market
) -> None:
    with MarketDataPublisher(server.target, feed="f", deadline_s=0.2, patience_s=0.0) as publisher:
        publisher.connect()
        market.lock.acquire()
        try:
            receipt = publisher.publish(ticks(1))
            with pytest.raises(DeadlineExceeded, match=r"no acknowledgement within 0\.2 s"):
                receipt.result(10)
        finally:
            market.lock.release()
        publisher.close()


def refuse_bad_prices(_worker: MarketWorker, message: list[market_pb2.Tick]) -> Break | None:
    for at, one in enumerate(message):
        if not one.trade.price > 0:
            return Break(grpc.StatusCode.INVALID_ARGUMENT, f"ticks[{at}].trade.price: must be > 0")
    return None


def test_ticks_that_the_server_refuses_are_left_out_named_and_hold_nothing_up(
    server: MarketServer, market: Market
) -> None:
    market.fault = refuse_bad_prices
    bad = {5, 17, 18, 40, 99}
    with MarketDataPublisher(server.target, feed="f") as publisher:
        published = [
            publisher.publish([tick("A", at, 0.0 if at in bad else 1.0) for at in range(begin, begin + 10)])
            for begin in range(1, 101, 10)
        ]
        refused = [one for receipt in published for one in receipt.result(20).refused]
    assert [(one.tick.sequence, one.index) for one in refused] == [(5, 4), (17, 6), (18, 7), (40, 9), (99, 8)]
    assert {one.error.message for one in refused} <= {f"ticks[{at}].trade.price: must be > 0" for at in range(10)}
    assert market.sequences("A") == [at for at in range(1, 101) if at not in bad]


def test_a_message_of_refused_ticks_alone_is_acknowledged_too(server: MarketServer, market: Market) -> None:
    market.fault = refuse_bad_prices
    with MarketDataPublisher(server.target, feed="f") as publisher:
        published = publisher.publish([tick("A", at, 0.0) for at in (1, 2)]).result(10)
        assert publisher.unacknowledged == 0
    assert ([one.tick.sequence for one in published.refused], market.accepted) == ([1, 2], [])


@pytest.mark.parametrize(
    ("code", "error"),
    [(grpc.StatusCode.PERMISSION_DENIED, PermissionDenied), (grpc.StatusCode.INVALID_ARGUMENT, InvalidRequest)],
)
def test_what_would_be_refused_for_ever_ends_the_publisher(
    server: MarketServer, market: Market, code: grpc.StatusCode, error: type[Exception]
) -> None:
    market.fault = lambda _worker, _ticks: Break(code, "feed: is not yours")
    with MarketDataPublisher(server.target, feed="f") as publisher:
        receipt = publisher.publish(ticks(1))
        with pytest.raises(error, match="feed: is not yours"):
            receipt.result(10)
        with pytest.raises(error):
            publisher.flush()
        publisher.close()


def test_an_acknowledgement_that_counts_wrongly_is_a_broken_contract(server: MarketServer, market: Market) -> None:
    market.miscounts = True
    with MarketDataPublisher(server.target, feed="f") as publisher:
        with pytest.raises(ContractBroken, match="expected the answer to message 1 of 1, found one that counts 2"):
            publisher.publish(ticks(1)).result(10)
        publisher.close()


def test_what_was_published_before_closing_ends_with_an_error(server: MarketServer, market: Market) -> None:
    market.fault = lambda _worker, _ticks: Break(grpc.StatusCode.UNAVAILABLE, "draining")
    publisher = MarketDataPublisher(server.target, feed="f")
    receipt = publisher.publish(ticks(1))
    publisher.close()
    with pytest.raises(PublisherClosed):
        receipt.result(0)
    with pytest.raises(PublisherClosed):
        publisher.publish(ticks(1))
    publisher.close()


def test_ticks_go_to_their_workers_and_a_batch_is_acknowledged_when_all_have_answered(market: Market) -> None:
    with MarketServer(market, workers=3) as server, MarketDataPublisher(server.target, feed="f") as publisher:
        receipts = [publisher.publish(ticks(60, symbols=20, begin=begin)) for begin in range(0, 600, 60)]
        assert [receipt.result(10).tally.accepted for receipt in receipts] == [60] * 10
    for at in range(20):
        assert market.sequences(f"S{at}") == list(range(at + 1, 601, 20))


def test_after_a_restart_with_another_number_of_workers_symbols_go_to_their_new_ones(market: Market) -> None:
    server = MarketServer(market, workers=2).start()
    with MarketDataPublisher(server.target, feed="f") as publisher:
        publisher.publish(ticks(60, symbols=20)).result(10)
        server.stop()
        waiting = [publisher.publish(ticks(60, symbols=20, begin=begin)) for begin in (60, 120)]
        with MarketServer(market, ports=[*server.ports, *MarketServer(market, 2).ports]):
            assert [receipt.result(20).tally.accepted for receipt in waiting] == [60, 60]
            assert publisher.publish_batch(columns_of(ticks(60, symbols=20, begin=180))).accepted == 60
    for at in range(20):
        assert market.sequences(f"S{at}") == list(range(at + 1, 241, 20))


def test_columns_go_to_their_workers_behind_what_was_published_before(market: Market) -> None:
    with MarketServer(market, workers=2) as server, MarketDataPublisher(server.target, feed="f") as publisher:
        publisher.publish(ticks(50, symbols=10))
        tally = publisher.publish_batch(columns_of(ticks(33_000, symbols=10, begin=50)))
    assert tally.accepted == 33_000
    assert sum(market.in_messages) == 33_050
    for at in range(10):
        assert market.sequences(f"S{at}") == list(range(at + 1, 33_051, 10))


def test_columns_are_sent_again_until_they_are_acknowledged(server: MarketServer, market: Market) -> None:
    at = itertools.count(1)
    statuses = {1: grpc.StatusCode.RESOURCE_EXHAUSTED, 2: grpc.StatusCode.UNAVAILABLE}
    market.fault = lambda _worker, _ticks: (
        Break(statuses[number], "later", applied=number == 2) if (number := next(at)) in statuses else None
    )
    with MarketDataPublisher(server.target, feed="f") as publisher:
        tally = publisher.publish_batch(columns_of(ticks(10, symbols=1)))
        assert publisher.reconnects == 2
    assert (tally.accepted, tally.repeated_latest, dict(tally.rejected)) == (0, 1, {"TICK_DUPLICATE": 9})
    assert numbers(market.accepted) == list(range(1, 11))


def test_columns_with_a_value_that_the_server_refuses_are_the_callers_error(
    server: MarketServer, market: Market
) -> None:
    market.fault = lambda _worker, _ticks: Break(grpc.StatusCode.INVALID_ARGUMENT, "ticks.price[1]: must be finite")
    with MarketDataPublisher(server.target, feed="f") as publisher:
        with pytest.raises(InvalidRequest, match="must be finite"):
            publisher.publish_batch(columns_of(ticks(3)))
        columns = columns_of(ticks(1))
        columns.symbol_index[0] = 1
        with pytest.raises(BadColumns, match="symbol_index: found 1, expected below 1 symbols"):
            publisher.publish_batch(columns)
    assert market.accepted == []


def test_a_server_without_service_listeners_is_named(server: MarketServer) -> None:
    server.service_addresses = [""]
    with MarketDataPublisher(server.target, feed="f") as publisher:
        with pytest.raises(NotSupported, match="worker 0 of 1 has no service listener"):
            publisher.connect()
        publisher.close()


def test_a_service_listener_that_knows_no_topology_is_published_to_itself(market: Market) -> None:
    with (
        MarketServer(market, topology=False) as server,
        MarketDataPublisher(server.target, feed="f") as publisher,
    ):
        publisher.connect()
        assert publisher.publish(ticks(10)).result(10).tally.accepted == 10


def test_several_threads_may_publish_each_its_symbols_in_order(server: MarketServer, market: Market) -> None:
    with MarketDataPublisher(server.target, feed="f", window_ticks=50) as publisher, ThreadPoolExecutor(4) as threads:

        def publish(symbol: str) -> None:
            for number in range(1, 101):
                publisher.publish([tick(symbol, number)])

        for _ in threads.map(publish, "ABCD"):
            pass
        publisher.flush()
        assert publisher.unacknowledged == 0
    assert [market.sequences(symbol) for symbol in "ABCD"] == [list(range(1, 101))] * 4


def test_ticks_go_over_tls_with_a_certificate_of_their_own(tmp_path: Path, market: Market) -> None:
    authority = Authority(tmp_path, "desk")
    server_pair, own = authority.sign("server"), authority.sign("feed")
    trusted = authority.own.certificate
    credentials = grpc.ssl_server_credentials(
        [(server_pair.key.read_bytes(), server_pair.certificate.read_bytes())], trusted.read_bytes(), True
    )
    with MarketServer(market, credentials=credentials) as server:
        mine = read_credentials(trusted, own.certificate, own.key)
        with MarketDataPublisher(server.target, feed="f", channel_credentials=mine) as publisher:
            publisher.connect()
            assert publisher.publish(ticks(10)).result(10).tally.accepted == 10
            assert publisher.publish_batch(columns_of(ticks(10, begin=10))).accepted == 10
        with MarketDataPublisher(server.target, feed="f", patience_s=0.0) as stranger:
            with pytest.raises(ServerUnavailable):
                stranger.publish(ticks(1))
            stranger.close()


def test_settings_that_make_no_sense_are_refused() -> None:
    for wrong, said in (
        ({"feed": ""}, "must be 1 to 32 bytes"),
        ({"feed": "f", "deadline_s": 0.0}, "deadline_s is 0.0, must be positive and finite"),
        ({"feed": "f", "patience_s": float("nan")}, "patience_s is nan, must not be negative"),
        ({"feed": "f", "window_ticks": 0}, "window_ticks is 0, must be positive"),
    ):
        with pytest.raises(ValueError, match=said):
            MarketDataPublisher("127.0.0.1:1", **wrong)  # type: ignore[arg-type]
