"""The outbox: what was recorded is there, once, whoever died when; and what is damaged is not guessed."""

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.execution import outbox_child
from tests.execution.outbox_child import fill

from tickgate.v1 import portfolio_pb2 as pb
from tickgate_client.execution import (
    Account,
    FillReused,
    OrderInvalid,
    OrderReused,
    Outbox,
    OutboxBusy,
    OutboxDamaged,
    OutboxFull,
    OutboxUnwritable,
    Side,
)
from tickgate_client.execution.records import encode

ROOT = Path(__file__).parents[2]
CANCELLED = pb.ORDER_STATE_CANCELLED


def told(outbox: Outbox) -> list[str]:
    """What waits: fill ids, and orders with their states."""
    return [
        one.fill.fill_id if one.HasField("fill") else f"{one.order.order_id}:{one.order.state}"
        for _, one in outbox.to_send(1_000_000)
    ]


@contextmanager
def child(*arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """A process that records until it is killed."""
    command = [sys.executable, "-m", outbox_child.__name__, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            yield process
        finally:
            process.kill()


def test_what_waits_is_there_again_in_its_order_until_it_is_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "box"
    with Outbox(path) as outbox:
        outbox.begin(3, "A", Side.BUY, 2.0)
        outbox.fill(fill(1), 3)
        outbox.state(3, "A", CANCELLED)
        outbox.fill(fill(2), 4)
        assert told(outbox) == ["f1", "3:4", "f2"]
        outbox.acknowledge(outbox.to_send(1)[0][0])
    with Outbox(path) as outbox:
        assert told(outbox) == ["3:4", "f2"]
        for number, _ in outbox.to_send(10):
            outbox.acknowledge(number)
        assert outbox.waiting == 0
    with Outbox(path) as outbox:
        assert told(outbox) == []


def test_a_report_says_what_the_fill_said(tmp_path: Path) -> None:
    with Outbox(tmp_path / "box") as outbox:
        outbox.fill(fill(3), 77)
        assert outbox.to_send(1)[0][1].fill == pb.ReportFillRequest(
            fill_id="f3", symbol="S3", side=pb.SIDE_SELL, size=4.0, price=103.0, order_id=77, fee=0.25, exchange_ts_ns=3
        )


def test_a_fill_is_recorded_once_also_after_a_restart_and_contradictions_are_said(tmp_path: Path) -> None:
    path = tmp_path / "box"
    with Outbox(path) as outbox:
        assert outbox.fill(fill(1), 1)
        assert not outbox.fill(fill(1), 1)
    with Outbox(path) as outbox:
        assert not outbox.fill(fill(1), 1)
        with pytest.raises(FillReused):
            outbox.fill(replace(fill(1), size=9.0), 1)
        assert told(outbox) == ["f1"]
        assert outbox.positions() == {"S1": 2.0}


def test_an_order_is_begun_once_and_ends_when_it_is_filled_or_said_to_have_ended(tmp_path: Path) -> None:
    path = tmp_path / "box"
    with Outbox(path) as outbox:
        for number in (1, 2, 3):
            outbox.begin(number, f"S{number}", Side.BUY, 2.0)
        outbox.fill(replace(fill(1), size=1.5), 1)
        outbox.fill(replace(fill(6), symbol="S1", size=0.5), 1)
        outbox.state(2, "S2", pb.ORDER_STATE_ACCEPTED)
        outbox.fill(replace(fill(2), size=0.5), 2)
        outbox.state(3, "S3", CANCELLED)
    with Outbox(path) as outbox:
        assert [(one.order_id, one.size, one.filled) for one in outbox.begun()] == [(2, 2.0, 0.5)]
        with pytest.raises(OrderReused):
            outbox.begin(1, "S1", Side.BUY, 2.0)


def test_slippage_against_the_arrival_price_is_kept_with_the_fills(tmp_path: Path) -> None:
    path = tmp_path / "box"
    with Outbox(path) as outbox:
        outbox.begin(1, "S1", Side.BUY, 4.0, arrival_price=100.0)
        outbox.begin(2, "S1", Side.SELL, 4.0)
        outbox.fill(replace(fill(1), size=3.0, price=100.5), 1)
    with Outbox(path) as outbox:
        outbox.fill(replace(fill(7), symbol="S1", size=1.0, price=99.0), 1)
        outbox.fill(replace(fill(9), symbol="S1", size=1.0, price=50.0), 2)
        held = outbox.account.holdings["S1"]
        assert (held.slippage, held.arrived) == (3.0 * 0.5 - 1.0, 400.0)


def test_new_orders_wait_for_room_and_fills_do_not(tmp_path: Path) -> None:
    with Outbox(tmp_path / "box", capacity=2) as outbox:
        outbox.begin(1, "A", Side.BUY, 2.0)
        for number in (1, 2, 3):
            outbox.fill(fill(number), 1)
        with pytest.raises(OutboxFull) as full:
            outbox.begin(2, "A", Side.BUY, 2.0)
        assert (full.value.waiting, full.value.capacity) == (3, 2)
        for number, _ in outbox.to_send(2):
            outbox.acknowledge(number)
        outbox.begin(2, "A", Side.BUY, 2.0)


def test_what_was_acknowledged_does_not_stay_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "box"
    with Outbox(path, compact_bytes=1_000) as outbox:
        sizes = []
        for number in range(1, 80):
            outbox.fill(fill(number), number)
            outbox.acknowledge(outbox.to_send(1)[0][0])
            sizes.append(path.stat().st_size)
        assert any(later < earlier for earlier, later in itertools.pairwise(sizes))
        positions = outbox.positions()
        account = Account()
        for number in range(1, 80):
            account.book(fill(number))
        assert positions == account.positions()
    with Outbox(path) as outbox:
        assert outbox.positions() == positions
        assert dict(outbox.account) == dict(account)
        assert not outbox.fill(fill(50), 50)


def test_a_report_that_was_refused_is_kept_aside_and_not_sent_again(tmp_path: Path) -> None:
    path = tmp_path / "box"
    with Outbox(path) as outbox:
        outbox.fill(fill(1), 1)
        outbox.fill(fill(2), 2)
        outbox.refuse(outbox.to_send(1)[0][0], 6, "another content")
    with Outbox(path) as outbox:
        assert told(outbox) == ["f2"]
        assert [(one.report.fill.fill_id, one.code, one.message) for one in outbox.refused()] == [
            ("f1", 6, "another content")
        ]


def test_a_correction_sets_the_position_and_is_reported_to_nobody(tmp_path: Path) -> None:
    path = tmp_path / "box"
    with Outbox(path) as outbox:
        outbox.correct("S1", -3.5)
        outbox.fill(fill(1), 1)
    with Outbox(path) as outbox:
        assert outbox.positions() == {"S1": -1.5}
        assert told(outbox) == ["f1"]


def test_one_process_at_a_time_has_it_open(tmp_path: Path) -> None:
    path = tmp_path / "box"
    with Outbox(path), pytest.raises(OutboxBusy):
        Outbox(path)
    with Outbox(path):
        pass


@pytest.mark.parametrize("changes", [{"size": 0.0}, {"price": float("nan")}, {"fee": float("inf")}, {"fill_id": ""}])
def test_a_fill_that_the_server_would_never_take_is_not_recorded(tmp_path: Path, changes: Any) -> None:
    with Outbox(tmp_path / "box") as outbox:
        with pytest.raises(OrderInvalid):
            outbox.fill(replace(fill(1), **changes), 1)
        assert outbox.waiting == 0


def test_after_a_failed_write_nothing_is_recorded_any_more_and_what_was_stays(tmp_path: Path) -> None:
    path = tmp_path / "box"
    with Outbox(path) as outbox:
        outbox.fill(fill(1), 1)
        os.close(outbox._file)
        outbox._file = os.open("/dev/full", os.O_WRONLY)
        for _ in range(2):
            with pytest.raises(OutboxUnwritable):
                outbox.fill(fill(2), 2)
        assert outbox.positions() == {"S1": 2.0}
    with Outbox(path) as outbox:
        assert told(outbox) == ["f1"]


def test_a_closed_outbox_records_nothing(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "box")
    outbox.close()
    with pytest.raises(OutboxUnwritable):
        outbox.fill(fill(1), 1)


# -- what the file went through ----------------------------------------------------------------------------------------


def written(path: Path, fills: int) -> list[int]:
    """Where each record ends."""
    with Outbox(path) as outbox:
        ends = [path.stat().st_size]
        for number in range(1, fills + 1):
            outbox.fill(fill(number), number)
            ends.append(path.stat().st_size)
    return ends


@settings(max_examples=25)
@given(st.data())
def test_whatever_is_missing_at_the_end_whole_records_before_it_are_there(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("box") / "box"
    ends = written(path, 4)
    keep = data.draw(st.integers(ends[0], ends[-1]))
    os.truncate(path, keep)
    with Outbox(path) as outbox:
        whole = sum(end <= keep for end in ends) - 1
        assert told(outbox) == [f"f{number}" for number in range(1, whole + 1)]
        assert outbox.cut_bytes == keep - ends[whole]
    with Outbox(path) as outbox:
        assert outbox.cut_bytes == 0


@settings(max_examples=25)
@given(st.data())
def test_a_bit_that_flipped_before_good_records_is_damage(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("box") / "box"
    ends = written(path, 3)
    place = data.draw(st.integers(0, ends[-2] - 1))
    whole = bytearray(path.read_bytes())
    whole[place] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(whole)
    with pytest.raises(OutboxDamaged):
        Outbox(path)
    assert path.read_bytes() == whole


def test_a_file_that_is_no_outbox_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "box"
    path.write_text("something else")
    with pytest.raises(OutboxDamaged, match="expected a record of an outbox"):
        Outbox(path)
    assert path.read_text() == "something else"


def test_a_record_of_a_kind_that_is_not_known_is_refused_and_not_cut(tmp_path: Path) -> None:
    path = tmp_path / "box"
    written(path, 1)
    later = encode(9, {"sequence": 5})  # type: ignore[arg-type]  # of a version to come
    path.write_bytes(path.read_bytes() + later)
    with pytest.raises(OutboxDamaged, match="a record of kind 9"):
        Outbox(path)


# -- kill -9 -----------------------------------------------------------------------------------------------------------


def test_killed_at_any_moment_nothing_that_was_said_is_lost_and_nothing_is_there_twice(tmp_path: Path) -> None:
    path = tmp_path / "box"
    said = 0
    for moment in (1, 40, 333):
        with child(str(path), str(said + 1)) as process:
            assert process.stdout is not None
            for _ in range(moment):
                said = int(process.stdout.readline())
            process.send_signal(signal.SIGKILL)
            said = max(
                [said, *(int(line) for line in process.stdout.read().splitlines(keepends=True) if line[-1] == "\n")]
            )
            process.wait()
        with Outbox(path) as outbox:
            # The last one may have been recorded and not said.
            recorded = sum(held.fills for _, held in outbox.account)
            assert said <= recorded <= said + 1
            account = Account()
            for number in range(1, recorded + 1):
                account.book(fill(number))
            assert dict(outbox.account) == dict(account)
            said = recorded
