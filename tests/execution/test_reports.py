"""Reports reach the server once each, in their order, whatever breaks in between."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from tests.execution.outbox_child import fill
from tests.execution.scripted_desk import ScriptedDesk
from tests.execution.test_outbox import child

from tickgate.v1 import portfolio_pb2 as pb
from tickgate_client.execution import Account, Outbox, Reporter

LATE_S = 30.0
OPTIONS = [("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1), ("grpc.min_reconnect_backoff_ms", 100)]


@pytest.fixture
def desk() -> Iterator[ScriptedDesk]:
    found = ScriptedDesk().start()
    yield found
    found.stop()


@contextmanager
def reporting(outbox: Outbox, desk: ScriptedDesk) -> Iterator[Reporter]:
    with grpc.insecure_channel(desk.target, options=OPTIONS) as channel, Reporter(outbox, channel) as reporter:
        yield reporter


def until(there: Callable[[], object]) -> None:
    give_up = time.monotonic() + LATE_S
    while not there():
        assert time.monotonic() < give_up
        time.sleep(0.005)


def record(outbox: Outbox, numbers: range) -> None:
    for number in numbers:
        outbox.fill(fill(number), number)


def test_reports_arrive_in_their_order(tmp_path: Path, desk: ScriptedDesk) -> None:
    with Outbox(tmp_path / "box") as outbox:
        outbox.state(1, "S1", pb.ORDER_STATE_ACCEPTED)
        record(outbox, range(1, 4))
        with reporting(outbox, desk) as reporter:
            outbox.state(1, "S1", pb.ORDER_STATE_CANCELLED)
            assert reporter.flush(LATE_S)
        kinds = [one.fill.fill_id or desk_state(one) for one in desk.reports]
        assert kinds == ["ACCEPTED", "f1", "f2", "f3", "CANCELLED"]
        assert outbox.waiting == 0


def desk_state(report: pb.ReportRequest) -> str:
    return pb.OrderState.Name(report.order.state).removeprefix("ORDER_STATE_")


def test_what_was_booked_and_whose_answer_was_lost_is_told_again_and_booked_once(
    tmp_path: Path, desk: ScriptedDesk
) -> None:
    desk.lose_answers = 3
    with Outbox(tmp_path / "box") as outbox, reporting(outbox, desk) as reporter:
        record(outbox, range(1, 6))
        assert reporter.flush(LATE_S)
    assert list(desk.fills) == ["f1", "f2", "f3", "f4", "f5"]
    assert len(desk.reports) >= 8


def test_what_the_server_cannot_take_now_waits_and_so_does_what_comes_behind_it(
    tmp_path: Path, desk: ScriptedDesk
) -> None:
    busy = [pb.ReportResponse(code=grpc.StatusCode.UNAVAILABLE.value[0], message="draining")] * 2

    def refuse(report: pb.ReportRequest) -> pb.ReportResponse | None:
        return busy.pop() if busy and report.fill.fill_id == "f2" else None

    desk.refuse = refuse
    with Outbox(tmp_path / "box") as outbox, reporting(outbox, desk) as reporter:
        record(outbox, range(1, 4))
        assert reporter.flush(LATE_S)
    answered = [one.fill.fill_id for one in desk.reports]
    assert answered[-2:] == ["f2", "f3"]
    assert answered.count("f1") == 1
    assert desk.positions() == outbox.positions()


@pytest.mark.parametrize("code", [grpc.StatusCode.ALREADY_EXISTS, grpc.StatusCode.NOT_FOUND])
def test_what_the_server_will_never_take_is_put_aside_and_told(
    tmp_path: Path, desk: ScriptedDesk, code: grpc.StatusCode
) -> None:
    desk.refuse = lambda report: (
        pb.ReportResponse(code=code.value[0], message="never") if report.fill.fill_id == "f2" else None
    )
    refused = []
    with (
        Outbox(tmp_path / "box") as outbox,
        grpc.insecure_channel(desk.target, options=OPTIONS) as channel,
        Reporter(outbox, channel, on_refused=refused.append) as reporter,
    ):
        record(outbox, range(1, 4))
        assert reporter.flush(LATE_S)
        assert [(one.report.fill.fill_id, one.code) for one in refused] == [("f2", code.value[0])]
        assert outbox.refused() == refused
    assert list(desk.fills) == ["f1", "f3"]


def test_a_server_that_comes_back_gets_what_waited(tmp_path: Path, desk: ScriptedDesk) -> None:
    with Outbox(tmp_path / "box") as outbox, reporting(outbox, desk) as reporter:
        record(outbox, range(1, 3))
        assert reporter.flush(LATE_S)
        port = desk.stop()
        record(outbox, range(3, 5))
        assert not reporter.flush(0.05)
        until(lambda: reporter.last_error is not None)
        desk.start(port)
        assert reporter.flush(LATE_S)
    assert list(desk.fills) == ["f1", "f2", "f3", "f4"]


def test_killed_between_sending_and_hearing_of_it_every_fill_is_booked_once(tmp_path: Path, desk: ScriptedDesk) -> None:
    path = tmp_path / "box"
    with child(str(path), "1", desk.target) as process:
        until(lambda: len(desk.fills) > 100)
        process.send_signal(signal.SIGKILL)
        process.wait()
    with Outbox(path) as outbox, reporting(outbox, desk) as reporter:
        assert reporter.flush(LATE_S)
        account = Account()
        recorded = sum(held.fills for _, held in outbox.account)
        for number in range(1, recorded + 1):
            account.book(fill(number))
        assert outbox.positions() == account.positions() == desk.positions()
    assert list(desk.fills) == [f"f{number}" for number in range(1, recorded + 1)]
