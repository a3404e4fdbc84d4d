"""PortfolioService on the service listener, on both transports: reports, reading, watching, and the end."""

import queue
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from tests.support.desk import ACTIVE, HALTED, REDUCING, DeskOf, desk_of, fill, refused
from tests.support.packages import publish_logistic
from tests.support.processes import CALL_S, CHANNEL_OPTIONS, served

from tickgate.v1 import portfolio_pb2 as pb
from tickgate.v1 import topology_pb2, topology_pb2_grpc

SERVICE = "tickgate.v1.PortfolioService"
OK = grpc.StatusCode.OK.value[0]
NO_GRACE_ENDS = {"TICKGATE_SERVER__DRAIN_S": "3600"}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    publish_logistic(folder, latency_budget_ms=60_000.0)
    return folder


@pytest.fixture(scope="module")
def desk(models: Path, transport: str) -> Iterator[DeskOf]:
    """For tests that bring symbols of their own and set the trading state that they need."""
    with served(models, "--transport", transport) as server, desk_of(server) as found:
        yield found


def order_of(desk: DeskOf, symbol: str) -> list[tuple[int, float, int]]:
    return [(order.order_id, order.remaining, order.state) for order in desk.portfolio(symbol).orders]


# -- reports -----------------------------------------------------------------------------------------------------------


def test_an_order_that_nobody_asked_for_gets_an_id_and_is_open_until_it_is_cancelled(desk: DeskOf) -> None:
    opened = desk.order("OWN", 3.0)
    assert (opened.state, opened.remaining, opened.changed) == (pb.ORDER_STATE_ACCEPTED, 3.0, True)
    assert order_of(desk, "OWN") == [(opened.order_id, 3.0, pb.ORDER_STATE_ACCEPTED)]
    ended = desk.order("OWN", 0.0, order_id=opened.order_id, state=pb.ORDER_STATE_CANCELLED, side=0)
    assert (ended.order_id, ended.state, ended.remaining) == (opened.order_id, pb.ORDER_STATE_CANCELLED, 0.0)
    assert order_of(desk, "OWN") == []


def test_a_report_that_says_nothing_new_changes_nothing(desk: DeskOf) -> None:
    order_id = desk.order("AGAIN").order_id
    again = desk.order("AGAIN", order_id=order_id)
    assert (again.order_id, again.state, again.changed) == (order_id, pb.ORDER_STATE_ACCEPTED, False)


def test_a_fill_is_booked_once_and_its_id_stands_for_one_content(desk: DeskOf) -> None:
    first, again = desk.fill("once", "FILL", 2.0), desk.fill("once", "FILL", 2.0)
    assert (first.booked, first.position) == (True, 2.0)
    assert (again.booked, again.position) == (False, 2.0)
    code, message = refused(desk.reports.ReportFill, fill("once", "FILL", 3.0))
    assert code is grpc.StatusCode.ALREADY_EXISTS
    assert "'once'" in message


def test_a_sale_takes_off_the_position(desk: DeskOf) -> None:
    desk.fill("bought", "SALE", 5.0)
    assert desk.fill("sold", "SALE", 2.0, side=pb.SIDE_SELL).position == 3.0
    (position,) = desk.portfolio("SALE").positions
    assert (position.symbol, position.filled) == ("SALE", 3.0)


def test_an_order_that_is_not_known_is_not_found(desk: DeskOf) -> None:
    request = pb.ReportOrderRequest(symbol="NONE", order_id=2**63, state=pb.ORDER_STATE_CANCELLED)
    assert refused(desk.reports.ReportOrder, request) == (
        grpc.StatusCode.NOT_FOUND,
        f"order_id: no order {2**63} is known",
    )


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"state": pb.ORDER_STATE_UNSPECIFIED}, "state"),
        ({"state": 99}, "state"),
        ({"state": pb.ORDER_STATE_FILLED}, "state"),
        ({"side": 99}, "side"),
        ({"symbol": ""}, "symbol"),
    ],
)
def test_an_order_report_that_is_none_names_the_field(desk: DeskOf, changes: dict[str, Any], field: str) -> None:
    fields = {"symbol": "BAD", "state": pb.ORDER_STATE_ACCEPTED, "side": pb.SIDE_BUY, "size": 1.0} | changes
    code, message = refused(desk.reports.ReportOrder, pb.ReportOrderRequest(**fields))
    assert (code, message.partition(":")[0]) == (grpc.StatusCode.INVALID_ARGUMENT, field)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"side": pb.SIDE_UNSPECIFIED}, "side"),
        ({"size": 0.0}, "size"),
        ({"price": float("nan")}, "price"),
        ({"fill_id": ""}, "fill_id"),
    ],
)
def test_a_fill_report_that_is_none_names_the_field(desk: DeskOf, changes: dict[str, Any], field: str) -> None:
    fields = {"fill_id": "bad", "symbol": "BAD", "side": pb.SIDE_BUY, "size": 1.0, "price": 1.0} | changes
    code, message = refused(desk.reports.ReportFill, pb.ReportFillRequest(**fields))
    assert (code, message.partition(":")[0]) == (grpc.StatusCode.INVALID_ARGUMENT, field)


def test_a_stream_answers_each_report_in_order_and_a_refused_one_does_not_end_it(desk: DeskOf) -> None:
    unknown = pb.ReportOrderRequest(symbol="MANY", order_id=2**63, state=pb.ORDER_STATE_CANCELLED)
    order = pb.ReportOrderRequest(symbol="MANY", state=pb.ORDER_STATE_ACCEPTED, side=pb.SIDE_SELL, size=4.0)
    items = [
        pb.ReportRequest(fill=fill("m1", "MANY", 1.0)),
        pb.ReportRequest(order=unknown),
        pb.ReportRequest(),
        pb.ReportRequest(fill=fill("m1", "MANY", 9.0)),
        pb.ReportRequest(order=order),
        pb.ReportRequest(fill=fill("m2", "MANY", 2.0)),
    ]
    answers = desk.report(items)
    codes = [grpc.StatusCode[name].value[0] for name in ("NOT_FOUND", "INVALID_ARGUMENT", "ALREADY_EXISTS")]
    assert [answer.code for answer in answers] == [OK, *codes, OK, OK]
    assert [answer.WhichOneof("response") for answer in answers] == ["fill", None, None, None, "order", "fill"]
    assert [bool(answer.message) for answer in answers] == [False, True, True, True, False, False]
    assert [answers[0].fill.position, answers[5].fill.position] == [1.0, 3.0]
    assert answers[4].order.remaining == 4.0


@pytest.mark.parametrize("method", ["ReportOrder", "ReportFill", "GetPortfolio"])
def test_bytes_that_are_no_request_are_invalid(desk: DeskOf, method: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        desk.service.unary_unary(f"/{SERVICE}/{method}")(b"\xff", timeout=CALL_S)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("method", ["WatchPortfolio", "WatchTradingState"])
def test_a_watch_of_bytes_that_are_no_request_is_invalid(desk: DeskOf, method: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        next(desk.service.unary_stream(f"/{SERVICE}/{method}")(b"\xff", timeout=CALL_S))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_stream_of_bytes_that_are_no_report_ends_invalid(desk: DeskOf) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        list(desk.service.stream_stream(f"/{SERVICE}/Report")(iter((b"\xff",)), timeout=CALL_S))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


# -- reading and watching ----------------------------------------------------------------------------------------------


def test_the_portfolio_is_told_of_the_symbols_that_were_asked_for(desk: DeskOf) -> None:
    desk.fill("p1", "PART-1", 1.0)
    desk.fill("p2", "PART-2", 2.0)
    assert [position.symbol for position in desk.portfolio("PART-2").positions] == ["PART-2"]
    assert {"PART-1", "PART-2"} <= {position.symbol for position in desk.portfolio().positions}


@pytest.mark.parametrize("method", ["GetPortfolio", "WatchPortfolio"])
def test_more_symbols_than_may_be_asked_for_are_refused(desk: DeskOf, method: str) -> None:
    ask = {"GetPortfolio": desk.portfolio, "WatchPortfolio": lambda *symbols: next(desk.watch(*symbols))}[method]
    with pytest.raises(grpc.RpcError) as caught:
        ask(*["S"] * 4097)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details().startswith("symbols: expected at most 4,096")


def test_a_watcher_is_told_the_portfolio_and_again_after_it_changed(desk: DeskOf) -> None:
    watch = desk.watch("SEEN")
    first = next(watch).portfolio
    assert list(first.positions) == []
    desk.fill("seen", "SEEN", 7.0)
    second = next(watch).portfolio
    assert [position.filled for position in second.positions] == [7.0]
    assert second.revision > first.revision
    watch.cancel()


def test_a_watcher_that_does_not_read_misses_what_was_in_between_and_not_the_latest(desk: DeskOf) -> None:
    watch = desk.watch("SLOW")
    assert list(next(watch).portfolio.positions) == []
    changes = 2000
    answers = desk.report([pb.ReportRequest(fill=fill(f"slow-{n}", "SLOW")) for n in range(changes)])
    assert answers[-1].fill.position == changes
    told = 0
    for message in watch:
        told += 1
        if message.portfolio.positions[0].filled == changes:
            break
    assert told < changes
    watch.cancel()


def test_the_trading_state_is_told_now_and_at_each_change_within_a_tenth_of_a_second(desk: DeskOf) -> None:
    desk.set_state(ACTIVE)
    watch = desk.watch_state()
    assert next(watch).desk.state == ACTIVE
    took_s = []
    for state in (REDUCING, HALTED, ACTIVE, HALTED, ACTIVE):
        began = time.monotonic()
        set_ = desk.set_state(state, f"to {state}")
        told = next(watch).desk
        took_s.append(time.monotonic() - began)
        assert told == set_
        assert (told.state, told.reason, told.who) == (state, f"to {state}", "tester")
    assert min(took_s) < 0.1  # a busy machine may hold one up
    watch.cancel()


def test_watchers_of_the_trading_state_hear_nothing_of_fills(desk: DeskOf) -> None:
    desk.set_state(REDUCING, "before")  # no limit sets it then
    watch = desk.watch_state()
    assert next(watch).desk.reason == "before"
    desk.fill("quiet", "QUIET", 1.0)
    desk.set_state(ACTIVE, "after")
    assert next(watch).desk.reason == "after"
    watch.cancel()


def test_a_watcher_that_went_away_is_forgotten(desk: DeskOf) -> None:
    for number in range(50):
        watch = desk.watch("GONE")
        next(watch)
        watch.cancel()
        desk.fill(f"gone-{number}", "GONE")
    assert desk.portfolio("GONE").positions[0].filled == 50.0


# -- the listener ------------------------------------------------------------------------------------------------------


def test_the_topology_names_the_service_listener(desk: DeskOf) -> None:
    stub = topology_pb2_grpc.TopologyServiceStub(desk.server.channel)
    (worker,) = stub.GetTopology(topology_pb2.GetTopologyRequest(), timeout=CALL_S).workers
    assert (worker.address, worker.service_address) == (desk.server.address, desk.server.service)


def test_reflection_of_the_service_listener_lists_what_it_serves(desk: DeskOf) -> None:
    database = ProtoReflectionDescriptorDatabase(desk.service)
    expected = {SERVICE, "tickgate.v1.MarketDataService", "grpc.reflection.v1alpha.ServerReflection"}
    assert set(database.get_services()) == expected
    service = DescriptorPool(database).FindServiceByName(SERVICE)
    assert [method.name for method in service.methods][:3] == ["ReportOrder", "ReportFill", "Report"]


def test_each_listener_serves_its_own_services_only(desk: DeskOf) -> None:
    asked = {
        "tickgate.v1.SignalService/Predict": desk.service,
        "grpc.health.v1.Health/Check": desk.service,
        "tickgate.v1.AdminService/GetLimits": desk.service,
        f"{SERVICE}/GetPortfolio": desk.server.channel,
        f"{SERVICE}/ReportFill": desk.admin_channel,
        "tickgate.v1.AdminService/SetTradingState": desk.server.channel,
    }
    for path, channel in asked.items():
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary(f"/{path}")(b"", timeout=CALL_S)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED, path


def test_a_server_without_a_service_listener_serves_on(models: Path) -> None:
    with served(models, "--service-listen", "") as server:
        stub = topology_pb2_grpc.TopologyServiceStub(server.channel)
        (worker,) = stub.GetTopology(topology_pb2.GetTopologyRequest(), timeout=CALL_S).workers
        assert (worker.address, worker.service_address, server.service) == (server.address, "", "None")


def test_a_service_port_that_is_taken_is_named(models: Path, desk: DeskOf) -> None:
    with (
        pytest.raises(AssertionError, match=f"cannot listen on {desk.server.service}"),
        served(models, "--service-listen", desk.server.service),
    ):
        pass
    assert desk.portfolio("NOBODY").positions == []


def test_watches_and_streams_beyond_the_limit_are_refused(models: Path, transport: str) -> None:
    limits = {"TICKGATE_SERVER__MAX_CONCURRENT_REQUESTS": "1"}
    with served(models, "--transport", transport, environment=limits) as server, desk_of(server) as desk:
        first = desk.watch_state()
        next(first)
        with pytest.raises(grpc.RpcError) as caught:
            next(desk.watch_state())
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert desk.set_state(HALTED).state == HALTED  # each listener has a limit of its own
        assert next(first).desk.state == HALTED
        first.cancel()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_open_watches_and_idle_streams_do_not_hold_up_the_end(models: Path, transport: str, number: int) -> None:
    messages: queue.Queue[pb.ReportRequest | None] = queue.Queue()
    with (
        served(models, "--transport", transport, environment=NO_GRACE_ENDS) as server,
        desk_of(server) as desk,
    ):
        watches = [desk.watch(), desk.watch_state()]
        for watch in watches:
            next(watch)
        stream = desk.reports.Report(iter(messages.get, None), timeout=60)
        messages.put(pb.ReportRequest(fill=fill("last", "END", 2.0)))
        assert next(stream).fill.position == 2.0
        server.process.process.send_signal(number)
        assert next(watches[0]).portfolio.positions[0].filled == 2.0  # the latest, then the end
        for watch in watches:
            assert list(watch) == []
            assert watch.code() is grpc.StatusCode.OK
        with pytest.raises(grpc.RpcError) as caught:
            next(stream)
        messages.put(None)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "draining" in caught.value.details()
        assert server.process.stop() == 0


def test_a_service_listener_on_a_unix_socket_is_reached(models: Path, tmp_path: Path) -> None:
    address = f"unix:{tmp_path / 's'}"
    with served(models, "--service-listen", address) as server, desk_of(server) as desk:
        assert server.service == address
        assert desk.fill("unix", "UNIX", 1.0).position == 1.0


def test_every_interface_is_told_without_a_host(models: Path) -> None:
    with served(models, "--service-listen", "0.0.0.0:0") as server:
        port = server.service.rpartition(":")[2]
        stub = topology_pb2_grpc.TopologyServiceStub(server.channel)
        (worker,) = stub.GetTopology(topology_pb2.GetTopologyRequest(), timeout=CALL_S).workers
        assert worker.service_address == f":{port}"
        with grpc.insecure_channel(f"127.0.0.1:{port}", options=CHANNEL_OPTIONS) as channel:
            channel.unary_unary(f"/{SERVICE}/GetPortfolio")(b"", timeout=CALL_S)
