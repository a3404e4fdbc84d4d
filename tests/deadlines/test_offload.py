"""A slow model's thread: order, bounds, and that the caller is told once and on time."""

import threading
import time
from collections.abc import Iterator
from time import perf_counter_ns
from typing import Any

import numpy as np
import pytest

from tickgate_server.models.errors import ModelBusy
from tickgate_server.models.offload import ModelThread, Outcome, Run, Watchdog

WAIT_S = 20.0
LATER_NS = 3_600 * 1_000_000_000


class Gated:
    """A session whose runs end when they are let; it gives the vector's first value, and fails on a negative one."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.gate = threading.Semaphore(0)
        self.vectors: list[float] = []

    def score(self, vector: Any, options: Any) -> float:
        del options
        self.vectors.append(float(vector[0]))
        self.begun.release()
        assert self.gate.acquire(timeout=WAIT_S)
        if vector[0] < 0.0:
            raise RuntimeError("negative")
        return float(vector[0])


class Bench:
    def __init__(self, limit: int = 3, standing_limit: int = 1) -> None:
        self.session = Gated()
        self.watchdog = Watchdog()
        session: Any = self.session
        self.thread = ModelThread("gated:1", session, limit, standing_limit, self.watchdog)
        self.ended = threading.Semaphore(0)
        self.told: list[float] = []

    def run(self, value: float, *, due_ns: int = LATER_NS, latest_start_ns: int = LATER_NS) -> Run:
        """Times are from now."""
        now_ns = perf_counter_ns()
        vector = np.full(3, value, np.float32)

        def on_ended() -> None:
            self.told.append(value)
            self.ended.release()

        run = Run(vector, now_ns + due_ns, now_ns + latest_start_ns, on_ended)
        self.thread.require_room()
        self.thread.submit(run)
        return run

    def wait(self, number: int = 1) -> None:
        for _ in range(number):
            assert self.ended.acquire(timeout=WAIT_S)

    def begun(self) -> None:
        assert self.session.begun.acquire(timeout=WAIT_S)

    def give_up(self, run: Run) -> None:
        with self.watchdog.lock:
            self.watchdog.settle(run, Outcome.GIVEN_UP)


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.session.gate.release(100)
    made.thread.close()
    made.watchdog.close()


def test_runs_are_made_in_the_order_they_came(bench: Bench) -> None:
    runs = [bench.run(value) for value in (1.0, 2.0, 3.0)]
    bench.session.gate.release(3)
    bench.wait(3)
    assert bench.session.vectors == bench.told == [1.0, 2.0, 3.0]
    assert [run.probability_up for run in runs] == [1.0, 2.0, 3.0]
    assert {run.outcome for run in runs} == {Outcome.SCORED}
    assert all(run.submitted_ns <= run.started_ns <= run.ended_ns for run in runs)


def test_one_more_than_may_wait_is_refused_at_once(bench: Bench) -> None:
    bench.run(0.0)
    bench.begun()
    for value in (1.0, 2.0, 3.0):
        bench.run(value)
    assert bench.thread.ahead == 4
    with pytest.raises(ModelBusy) as caught:
        bench.run(4.0)
    assert (caught.value.model, caught.value.waiting) == ("gated:1", 3)
    bench.session.gate.release()
    bench.begun()
    bench.run(4.0)


def test_while_a_model_is_busy_most_of_the_time_fewer_may_wait(bench: Bench) -> None:
    runs = [bench.run(0.0)]
    for value in range(1, 12):
        bench.begun()
        runs.append(bench.run(value))
        time.sleep(0.01)  # a run that is long beside the pause between two
        bench.session.gate.release()
    bench.begun()
    bench.run(100.0)
    with pytest.raises(ModelBusy):
        bench.run(101.0)
    bench.session.gate.release(2)
    bench.wait(13)
    bench.begun()
    time.sleep(5.0 * max(run.ended_ns - run.started_ns for run in runs) / 1e9)
    bench.run(102.0)
    bench.begun()
    for value in (103.0, 104.0, 105.0):
        bench.run(value)


def test_a_run_whose_time_is_up_while_it_waits_is_told_and_never_made(bench: Bench) -> None:
    bench.run(1.0)
    bench.begun()
    waiting = bench.run(2.0, due_ns=1_000_000)
    bench.wait()
    assert (bench.told, waiting.outcome, waiting.started_ns) == ([2.0], Outcome.TIME_UP, 0)
    assert bench.thread.ahead == 1
    bench.session.gate.release(2)
    bench.wait()
    assert bench.session.vectors == [1.0]


def test_a_run_that_cannot_be_stopped_is_told_on_time_and_what_it_gives_is_dropped(bench: Bench) -> None:
    run = bench.run(1.0, due_ns=1_000_000)
    bench.wait()
    assert run.outcome is Outcome.TIME_UP
    assert run.options.terminate
    bench.session.gate.release(2)
    bench.run(2.0)
    bench.wait()
    assert (bench.told, run.outcome) == ([1.0, 2.0], Outcome.TIME_UP)


def test_a_run_whose_turn_comes_too_late_is_not_made(bench: Bench) -> None:
    bench.run(1.0)
    bench.begun()
    late = bench.run(2.0, latest_start_ns=0)
    bench.session.gate.release()
    bench.wait(2)
    assert (late.outcome, late.started_ns, bench.session.vectors) == (Outcome.TOO_LATE_TO_START, 0, [1.0])


def test_a_run_that_was_given_up_is_not_told_of(bench: Bench) -> None:
    running, waiting = bench.run(1.0), bench.run(2.0)
    bench.begun()
    bench.give_up(running)
    bench.give_up(waiting)
    bench.session.gate.release(2)
    bench.run(3.0)
    bench.wait()
    assert (bench.told, bench.session.vectors) == ([3.0], [1.0, 3.0])
    assert running.outcome is waiting.outcome is Outcome.GIVEN_UP


def test_a_failure_of_the_graph_is_the_runs_and_the_next_is_made(bench: Bench) -> None:
    failed, good = bench.run(-1.0), bench.run(1.0)
    bench.session.gate.release(2)
    bench.wait(2)
    assert (failed.outcome, str(failed.error)) == (Outcome.FAILED, "negative")
    assert (good.outcome, good.error) == (Outcome.SCORED, None)
