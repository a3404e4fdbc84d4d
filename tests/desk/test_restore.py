"""The desk after the death of its process: what was acknowledged is there, and is there once."""

import hashlib
import json
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from tests.desk import desk_child
from tests.desk.desk_child import CALENDARS, LIMITS, Driver, apply, close, models_of, new_engine, publish
from tests.risk.slow_portfolio import GuardedPortfolio, SlowPortfolio, apply_entry, assert_same
from tests.support.messages import tick

from tickgate.v1 import signal_pb2 as pb
from tickgate_server.desk_store import FILE_NAME
from tickgate_server.engine import Engine
from tickgate_server.journal.entries import Entry
from tickgate_server.journal.errors import JournalError
from tickgate_server.journal.layout import HEADER_BYTES, RECORD_BYTES, ControlKind
from tickgate_server.journal.reader import JournalReader
from tickgate_server.journal.segments import last_sequence, segment_numbers, segment_path
from tickgate_server.models.registry import ModelRegistry
from tickgate_server.replay import replay
from tickgate_server.risk import portfolio
from tickgate_server.risk.regimes import TradingState
from tickgate_server.risk.reports import FillReport, FillReused, OrderReport, OrderState, PositionSet, Side
from tickgate_server.rpc.answers import Answers

_ROOT = Path(__file__).parents[2]
_WAIT_S = 300
EVERYTHING = 1_000_000  # segments


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    publish(folder)
    return folder


@pytest.fixture(scope="module")
def registry(models: Path) -> ModelRegistry:
    return models_of(models)


# -- kill -9 -----------------------------------------------------------------------------------------------------------


@contextmanager
def child(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A process that is killed if it still runs in the end, or after a while."""
    command = [sys.executable, "-m", desk_child.__name__, *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=_ROOT)
    guard = threading.Timer(_WAIT_S, process.kill)
    guard.start()
    try:
        with process:
            yield process
            process.kill()
    finally:
        guard.cancel()


def said_until_killed(models: Path, folder: Path, seed: int, operations: int, moment: int) -> list[Any]:
    """What a child said, whole lines alone; it is killed as soon as it has said so many of them."""
    with child(str(models), str(folder), str(seed), str(operations)) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if len(lines) == moment:
                process.kill()
    assert process.returncode == -signal.SIGKILL
    return [json.loads(line) for line in lines if line.endswith("\n")]


def entries_from(folder: Path, sequence: int) -> list[Entry]:
    if sequence > last_sequence(folder):
        return []
    with JournalReader(folder, sequence) as reader:
        return list(reader)


@pytest.mark.timeout(0)
def test_what_was_acknowledged_is_there_after_a_kill(
    tmp_path: Path, models: Path, registry: ModelRegistry, soak: Callable[[int, int], int]
) -> None:
    """In one folder, one kill after another: segments turn, checkpoints are written, and the oldest records go."""
    operations = soak(3_000, 10_000)
    folder = tmp_path / "journal"
    slow = GuardedPortfolio(LIMITS, calendars=CALENDARS)
    moments = random.Random(5)
    for number in range(soak(2, 20)):
        moment = moments.randrange(1, 2 * operations)  # two lines an operation, and some more in the pipe
        ready, *said = said_until_killed(models, folder, number, operations + 5_000, moment)
        assert ready[0] == "ready"
        slow.restart()
        acknowledged = ready[1]
        for line in said:
            if isinstance(line[0], int):  # [before, what was done, after]
                assert line[0] == acknowledged
                apply(slow, line[1])
                acknowledged = line[2]
        in_flight = entries_from(folder, acknowledged)  # of the one operation that was begun and not acknowledged
        assert len(in_flight) <= 2
        for entry in in_flight:
            apply_entry(slow, entry)
        engine = new_engine(registry, folder)
        slow.restart()
        assert_restored(engine, slow)
        close(engine)
    assert segment_numbers(folder)[0] > 1
    assert slow.approved > operations // 50


def assert_restored(engine: Engine, slow: SlowPortfolio) -> None:
    # Until the next tick comes, the time of a quote that changed nothing of the book may not be known.
    portfolio.advance(engine.desk.book.table, slow.now_ns)
    assert_same(engine.desk.portfolio(), slow)
    assert set(slow.fills) <= set(engine.desk.fills())


# -- restarts ----------------------------------------------------------------------------------------------------------


class Past:
    """A journal of some operations, its engine closed."""

    def __init__(self, folder: Path, registry: ModelRegistry, operations: int = 0, segments: int = EVERYTHING) -> None:
        self.folder = folder
        self.registry = registry
        self.slow = GuardedPortfolio(LIMITS, calendars=CALENDARS)
        self.segments = segments
        engine = new_engine(registry, folder, segments=segments)
        driver = Driver(engine, 1)
        done = 0
        while done < operations or any(map(self.slow.over_limit, self.slow.held())):
            apply(self.slow, driver.step())
            done += 1
        engine.desk.set_state(TradingState.ACTIVE, reason="nothing is amiss", who="tester")
        self.slow.set_state(TradingState.ACTIVE)
        close(engine)

    @contextmanager
    def engine(self) -> Iterator[Engine]:
        """The next process's."""
        engine = new_engine(self.registry, self.folder, segments=self.segments)
        yield engine
        close(engine)

    def forget(self, segments: int) -> None:
        """Remove the oldest segments, and the checkpoint."""
        for number in segment_numbers(self.folder)[:segments]:
            segment_path(self.folder, number).unlink()
        (self.folder / FILE_NAME).unlink()


@pytest.fixture(scope="module")
def past_of_many(registry: ModelRegistry, tmp_path_factory: pytest.TempPathFactory) -> Past:
    """Over several segments, all of which are there; not to be changed."""
    return Past(tmp_path_factory.mktemp("past"), registry, 2_000)


@pytest.fixture
def past(past_of_many: Past, tmp_path: Path) -> Past:
    """A copy that may be."""
    copy = deepcopy_of(past_of_many)
    copy.folder = tmp_path / "journal"
    shutil.copytree(past_of_many.folder, copy.folder)
    return copy


def deepcopy_of(past: Past) -> Past:
    copy = object.__new__(Past)
    copy.registry, copy.segments, copy.slow = past.registry, past.segments, deepcopy(past.slow)
    copy.slow.restart()
    return copy


def test_a_restart_changes_nothing(past: Past) -> None:
    for _ in range(2):
        with past.engine() as engine:
            assert_restored(engine, past.slow)


def test_without_a_checkpoint_the_journal_tells_it_all(past: Past) -> None:
    (past.folder / FILE_NAME).unlink()
    with past.engine() as engine:
        assert_restored(engine, past.slow)


def test_a_checkpoint_that_is_damaged_is_not_believed(past: Past) -> None:
    damaged = (past.folder / FILE_NAME).read_text().replace('"A"', '"B"')
    (past.folder / FILE_NAME).write_text(damaged)
    with past.engine() as engine:
        assert_restored(engine, past.slow)


def test_a_checkpoint_of_another_format_is_refused_with_both_formats_and_the_journal_tells_it_all(past: Past) -> None:
    *said, _ = (past.folder / FILE_NAME).read_bytes().splitlines(keepends=True)
    said[0] = said[0].replace(b'"format_version":2', b'"format_version":1')
    hashed = json.dumps({"sha256": hashlib.sha256(b"".join(said)).hexdigest()}).encode()
    (past.folder / FILE_NAME).write_bytes(b"".join([*said, hashed, b"\n"]))
    with capture_logs() as logs, past.engine() as engine:
        assert_restored(engine, past.slow)
    (refused,) = [line["why"] for line in logs if line["event"] == "checkpoint refused"]
    assert refused.endswith("expected format 2, found 1")


def test_a_checkpoint_stands_for_the_segments_that_are_gone(past: Past) -> None:
    for number in segment_numbers(past.folder)[:2]:
        segment_path(past.folder, number).unlink()
    with past.engine() as engine:
        assert_restored(engine, past.slow)


@pytest.mark.parametrize("checkpoint", ["", "no JSON", '{"format_version":2,"sequence":9}\n'])
def test_a_portfolio_that_cannot_be_known_is_reduced_until_a_person_says_otherwise(past: Past, checkpoint: str) -> None:
    with past.engine() as engine:
        # In the records that remain somebody resumed: that was before, and of another portfolio.
        engine.desk.set_state(TradingState.REDUCING, reason="a test", who="tester")
        engine.desk.set_state(TradingState.ACTIVE, reason="a test", who="tester")
    past.forget(2)
    if checkpoint:
        (past.folder / FILE_NAME).write_text(checkpoint)
    for _ in range(2):
        with past.engine() as engine:
            state = engine.desk.state
            assert state.state is TradingState.REDUCING
            assert state.reason.startswith("portfolio unknown: records 1 to ")
    with past.engine() as engine:
        engine.desk.set_state(TradingState.ACTIVE, reason="looked at it", who="tester")
    with past.engine() as engine:
        assert (engine.desk.state.state, engine.desk.state.reason) == (TradingState.ACTIVE, "looked at it")


def test_a_checkpoint_ahead_of_the_journal_is_no_knowledge(past: Past) -> None:
    for number in segment_numbers(past.folder):
        segment_path(past.folder, number).unlink()
    with past.engine() as engine:
        assert engine.desk.state.state is TradingState.REDUCING
        assert engine.desk.state.reason.startswith("portfolio unknown")


@pytest.mark.parametrize("state", [TradingState.REDUCING, TradingState.HALTED])
def test_what_a_person_stopped_stays_stopped(past: Past, state: TradingState) -> None:
    with past.engine() as engine:
        said = engine.desk.set_state(state, reason="lunch", who="ann")
    with past.engine() as engine:
        assert engine.desk.state == said
    (past.folder / FILE_NAME).unlink()
    with past.engine() as engine:
        assert engine.desk.state == said


def test_a_torn_last_record_is_as_if_it_had_not_been(past: Past, registry: ModelRegistry) -> None:
    engine = new_engine(registry, past.folder, segments=EVERYTHING)
    engine.desk.report_fill(FillReport("whole", "A", Side.BUY, 1.0, 100.0))
    past.slow.fill(FillReport("whole", "A", Side.BUY, 1.0, 100.0))
    engine.desk.report_fill(FillReport("torn", "A", Side.BUY, 1.0, 100.0))
    assert engine.journal is not None
    engine.journal.close()  # and no checkpoint of it: the process was killed
    engine._checkpoints.settle()
    tear(past.folder, of_a_fill=True)
    with past.engine() as engine:
        past.slow.restart()
        assert_restored(engine, past.slow)
        assert engine.desk.report_fill(FillReport("torn", "A", Side.BUY, 1.0, 100.0)).booked


def tear(folder: Path, *, of_a_fill: bool) -> None:
    """Zero the second half of the last record, as of a page that was not written."""
    last = last_sequence(folder)
    path = segment_path(folder, segment_numbers(folder)[-1])
    number = -1
    while True:
        path = segment_path(folder, segment_numbers(folder)[number])
        data = bytearray(path.read_bytes())
        at = data.find(last.to_bytes(8, "little"), HEADER_BYTES)
        if at >= 0 and (at - HEADER_BYTES) % RECORD_BYTES == 0:
            break
        number -= 1
    if of_a_fill:
        assert b'"torn"' in data[at : at + RECORD_BYTES]
    data[at + 64 : at + RECORD_BYTES] = bytes(RECORD_BYTES - 64)
    path.write_bytes(data)


def test_a_fill_is_booked_once_across_restarts(past: Past) -> None:
    report = FillReport("once", "A", Side.SELL, 2.0, 100.0)
    with past.engine() as engine:
        position = engine.desk.report_fill(report).position
    for forget_checkpoint in (False, True):
        if forget_checkpoint:
            (past.folder / FILE_NAME).unlink()
        with past.engine() as engine:
            answer = engine.desk.report_fill(report)
            assert (answer.booked, answer.position) == (False, position)
            with pytest.raises(FillReused):
                engine.desk.report_fill(FillReport("once", "A", Side.SELL, 3.0, 100.0))


def test_an_order_that_had_ended_long_before_and_was_accepted_late_is_open(past: Past) -> None:
    with past.engine() as engine:
        desk = engine.desk
        first = open_order(engine, 1.0)
        end(engine, first)
        for _ in range(1_500):
            end(engine, open_order(engine, 1.0))
        desk.on_polled()
        engine._checkpoints.settle()
        assert desk.report_order(OrderReport("A", OrderState.ACCEPTED, order_id=first)).changed
        killed = past.folder.with_name("killed")
        shutil.copytree(past.folder, killed)
    past.folder = killed
    with past.engine() as engine:
        assert first in {order.order_id for order in engine.desk.portfolio().orders}


def open_order(engine: Engine, size: float) -> int:
    return engine.desk.report_order(OrderReport("A", OrderState.ACCEPTED, side=Side.BUY, size=size)).order_id


def end(engine: Engine, order_id: int) -> None:
    engine.desk.report_order(OrderReport("A", OrderState.CANCELLED, order_id=order_id))


def test_a_late_fill_that_passed_a_limit_reduces_though_the_process_died_before_it_said_so(
    past: Past, monkeypatch: pytest.MonkeyPatch
) -> None:
    with past.engine() as engine:
        engine.desk.set_positions([PositionSet("A", 9.0, 100.0)], reason="a test", who="tester")
        engine.desk.set_state(TradingState.ACTIVE, reason="a test", who="tester")
        journal = engine.journal
        assert journal is not None
        append = journal.append_control

        def die_at_the_state(kind: ControlKind, payload: Any, **clock: int) -> int:
            if kind is ControlKind.TRADING_STATE:
                raise JournalError
            return append(kind, payload, **clock)

        monkeypatch.setattr(journal, "append_control", die_at_the_state)
        with pytest.raises(JournalError):
            engine.desk.report_fill(FillReport("over", "A", Side.BUY, 20.0, 100.0))
        monkeypatch.undo()
        engine._checkpoints.settle()
        (past.folder / FILE_NAME).unlink()
        killed = past.folder.with_name("killed")
        shutil.copytree(past.folder, killed)
    past.folder = killed
    with past.engine() as engine:
        assert engine.desk.portfolio(["A"]).positions[0].filled == 29.0
        assert engine.desk.state.state is TradingState.REDUCING


# -- request ids -------------------------------------------------------------------------------------------------------


class Asked:
    """A symbol whose last request was approved."""

    def __init__(self, past: Past) -> None:
        with past.engine() as engine:
            engine.desk.set_positions(
                [PositionSet(symbol, 0.0, 0.0) for symbol in desk_child.SYMBOLS], reason="a test", who="tester"
            )
            for order in engine.desk.portfolio().orders:
                engine.desk.report_order(OrderReport(order.symbol, OrderState.CANCELLED, order_id=order.order_id))
            engine.desk.set_state(TradingState.ACTIVE, reason="a test", who="tester")
            self.at_ns = int(past.slow.now_ns) + 1
            answers = Answers(engine)
            rng = random.Random(3)
            for number in range(3_000):
                self.at_ns += 1_000_000
                # The desk's clock is the latest of all ticks, whatever they change.
                ask(answers, tick("B", self.at_ns + 500_000, quote=(99.0, 101.0, 1.0, 1.0)))
                self.request = tick(
                    "A", self.at_ns, trade=(100.0 + rng.randrange(64) / 64, 1.0), request_id=f"asked-{number}"
                )
                self.answer = ask(answers, self.request)
                if self.answer.signal.approved:
                    break
            assert self.answer.signal.approved
            (self.reservation,) = engine.desk.portfolio().orders


def ask(answers: Answers, request: pb.PredictRequest) -> pb.PredictResponse:
    answer = answers.predict(request.SerializeToString(), time.perf_counter_ns(), 0)
    assert isinstance(answer, bytes), answer
    return pb.PredictResponse.FromString(answer)


@pytest.fixture
def asked(past: Past) -> Asked:
    return Asked(past)


def test_a_request_id_that_comes_again_after_a_restart_gets_the_first_answer(past: Past, asked: Asked) -> None:
    with past.engine() as engine:
        again = ask(Answers(engine), asked.request)
        first = asked.answer.signal
        assert again.repeated
        assert (again.signal.approved, again.signal.action, again.signal.size) == (True, first.action, first.size)
        assert (again.signal.order_id, again.signal.limit_price) == (first.order_id, first.limit_price)
        assert again.signal.valid_for_us == first.valid_for_us
        assert [order.order_id for order in engine.desk.portfolio().orders] == [first.order_id]


def test_a_reservation_ends_when_it_would_have_ended(past: Past, asked: Asked) -> None:
    for forget_checkpoint in (False, True):
        if forget_checkpoint:
            (past.folder / FILE_NAME).unlink()
        with past.engine() as engine:
            assert engine.desk.portfolio().orders == (asked.reservation,)


def test_a_request_id_with_another_payload_is_refused_after_a_restart(past: Past, asked: Asked) -> None:
    asked.request.tick.trade.price += 1.0
    with past.engine() as engine:
        again = ask(Answers(engine), asked.request).signal
        assert (again.approved, again.reason) == (False, pb.REASON_REQUEST_ID_REUSED)


def test_a_request_id_is_expired_once_its_validity_is_over(past: Past, asked: Asked) -> None:
    with past.engine() as engine:
        answers = Answers(engine)
        ask(answers, tick("B", asked.reservation.expires_ns - 1, trade=(100.0, 1.0)))
        assert ask(answers, asked.request).signal.approved
        ask(answers, tick("B", asked.reservation.expires_ns, trade=(100.0, 1.0)))
        again = ask(answers, asked.request).signal
        assert (again.approved, again.reason) == (False, pb.REASON_REQUEST_EXPIRED)


def test_a_request_whose_answer_was_lost_is_known_by_its_second_answer(past: Past, asked: Asked) -> None:
    with past.engine() as engine:
        answers = Answers(engine)
        engine.recorder.unsent([asked.answer.signal.order_id], 4)
        second = ask(answers, asked.request)
        assert not second.repeated
    for forget_checkpoint in (False, True):
        if forget_checkpoint:
            (past.folder / FILE_NAME).unlink()
        with past.engine() as engine:
            again = ask(Answers(engine), asked.request)
            assert again.repeated
            assert again.signal.order_id == second.signal.order_id


# -- replay ------------------------------------------------------------------------------------------------------------


def test_a_journal_of_a_desk_replays_bit_for_bit_across_restarts(past: Past, models: Path) -> None:
    with past.engine() as engine:
        driver = Driver(engine, 2)
        for _ in range(1_000):
            driver.step()
    found = replay(past.folder, models, keep=3)
    assert found.differences == []
    assert found.differing == 0
    assert found.decisions > 1_000
    assert found.starts == 2
