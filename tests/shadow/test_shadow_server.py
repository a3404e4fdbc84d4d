"""Shadows beside real servers: what is compared, what stays as it was, and what becomes of it when a process dies."""

import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import grpc
import pytest
from tests.observer.scraping import Samples, scrape, value
from tests.shadow.shadowing import (
    BUDGET,
    PRODUCTION,
    comparisons_of,
    decisions_in,
    expected_of,
    publish_both,
    record_of,
    set_shadow,
    wait_for_compared,
    wait_until,
)
from tests.support.messages import untimed, zigzag
from tests.support.packages import publish_logistic
from tests.support.processes import CALL_S, CHANNEL_OPTIONS, Served, served, server

from tickgate.symbol_hash import worker_of
from tickgate.v1 import signal_pb2 as pb
from tickgate.v1 import signal_pb2_grpc
from tickgate_server.models.aliases import change_alias
from tickgate_server.models.package import MODEL_FILE
from tickgate_server.models.shadow_record import Missed, Signals
from tickgate_server.shadow.store import ALIASES

REPLAY = ("--clock", "replay")
MILLISECOND_NS = 1_000_000
# Where the suite leaves no core idle, a scorer that gives way would take minutes to start.
NORMAL = {"TICKGATE_SHADOW__SCHEDULING": "normal"}


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """Version 2 answers, version 1 is its shadow."""
    repository = publish_both(tmp_path / "models")
    set_shadow(repository, 1)
    return repository


@contextmanager
def shadowed(models: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> Iterator[Served]:
    with served(models, *arguments, environment={**NORMAL, **(environment or {})}, observed=True) as running:
        yield running


def shadow_of(server: Served) -> Path:
    return server.process.journal / "shadow"


def scorer_pid(server: Served) -> int:
    started = server.process.logged("shadow scorer started") or [server.process.wait_for("shadow scorer started")]
    return int(started[-1]["pid"])


def live(symbol: str, trades: int) -> list[pb.PredictRequest]:
    """Trades of now, for a server whose clock is the wall's."""
    return zigzag(symbol, trades, start_ns=time.time_ns(), step_ns=MILLISECOND_NS)


def eligible(journal: Path, version: int = 2) -> list[int]:
    """Sequences of the decisions that are to be compared."""
    return [
        entry.sequence
        for entry in decisions_in(journal)
        if not entry.row["status"] and entry.row["ready"] and entry.model and entry.model.version == version
    ]


def lag(samples: Samples) -> float:
    return value(samples, "tickgate_shadow_lag_records", model="tiny", version="1")


@contextmanager
def watched(pid: int) -> Iterator[int]:
    descriptor = os.pidfd_open(pid)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def ended(descriptor: int, within_s: float) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(within_s * 1e3))


def answers_of(server: Served) -> list[bytes]:
    """To the same requests, without what differs from run to run."""
    return [untimed(server.predict(request)).SerializeToString(deterministic=True) for request in zigzag("A", 30)]


def test_a_shadow_is_compared_by_the_journals_vectors_and_answers_are_the_same_bytes_as_without(models: Path) -> None:
    with shadowed(models, *REPLAY, environment={"TICKGATE_SHADOW__MODE": "none"}) as server:
        without = answers_of(server)
        assert server.process.logged("no shadow scoring")[0]["why"] == "shadow.mode is none"
        assert not shadow_of(server).exists()
    with shadowed(models, *REPLAY) as server:
        assert answers_of(server) == without
        wait_for_compared(shadow_of(server), 20)
        samples = scrape(server.metrics)
        assert server.process.stop() == 0
        found = record_of(shadow_of(server))
        expected = expected_of(decisions_in(server.process.journal))
    (side,) = found.comparisons
    assert (side.alias, side.version) == ("production", 2)
    # By hand: of 20 ready trades 10 rise. Production follows; the shadow is sure of a rise where production sees a
    # fall, and believes in one, below its threshold, where production does.
    assert expected.decisions == side.decisions == 20
    assert expected.agreed == side.agreed == 10
    assert side.agreement_share == 0.5
    assert expected.signals == side.signals == Signals(buy=10, sell=10)
    assert expected.shadow_signals == side.shadow_signals == Signals(buy=10, hold=10)
    assert expected.same_signals == side.same_signals == 0
    assert side.value.max == pytest.approx(max(expected.differences), abs=1e-6)
    assert side.value.mean == pytest.approx(sum(expected.differences) / 20, abs=1e-6)
    assert side.confidence.mean == pytest.approx(sum(expected.confidence_differences) / 20, abs=1e-6)
    assert side.confidence.max == pytest.approx(max(expected.confidence_differences), abs=1e-6)
    assert found.missed == {}
    assert (found.lost_records, found.load_failures, found.load_check) == (0, 0, "")
    of_side = {"model": "tiny", "version": "1", "alias": "production", "against": "2"}
    assert value(samples, "tickgate_shadow_compared_decisions_total", **of_side) == 20
    assert value(samples, "tickgate_shadow_agreements_total", **of_side) == 10
    assert value(samples, "tickgate_shadow_same_signals_total", **of_side) == 0
    assert value(samples, "tickgate_shadow_value_difference_count", **of_side) == 20
    assert value(samples, "tickgate_shadow_value_difference_sum", **of_side) == pytest.approx(side.value.sum)
    assert value(samples, "tickgate_shadow_value_difference_bucket", le="0.01", **of_side) == 10
    assert value(samples, "tickgate_shadow_signals_total", side="answer", action="SELL", **of_side) == 10
    assert value(samples, "tickgate_shadow_signals_total", side="shadow", action="HOLD", **of_side) == 10
    assert value(samples, "tickgate_shadow_loaded", model="tiny", version="1") == 1
    assert lag(samples) >= 0


def test_a_scorer_that_stands_still_holds_nothing_up_and_catches_up(models: Path) -> None:
    with shadowed(models, *REPLAY) as server:
        for request in zigzag("A", 20):
            server.predict(request)
        before = wait_for_compared(shadow_of(server), 10)
        pid = scorer_pid(server)
        os.kill(pid, signal.SIGSTOP)
        for request in zigzag("B", 500):
            assert server.predict(request).model.version == 2
        behind = lag(scrape(server.metrics))
        assert record_of(shadow_of(server)) == before
        assert behind >= 500
        os.kill(pid, signal.SIGCONT)
        wait_for_compared(shadow_of(server), 500)
        wait_until(lambda: lag(scrape(server.metrics)) == 0, "no lag")
        assert server.process.stop() == 0
        found = comparisons_of(shadow_of(server))
        assert found["journal_sequence"].tolist() == eligible(server.process.journal)
        assert record_of(shadow_of(server)).lost_records == 0


class Load:
    """Trades without a pause until it is ended; counts the answers."""

    def __init__(self, server: Served) -> None:
        self._server = server
        self._end = threading.Event()
        self.answered = 0
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        for request in zigzag("LOAD", 1_000_000):
            if self._end.is_set():
                return
            self._server.predict(request)
            self.answered += 1

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()


def test_a_scorer_that_is_killed_again_and_again_compares_every_decision_once(
    models: Path, soak: Callable[[int, int], int]
) -> None:
    with shadowed(models, *REPLAY) as server:
        with Load(server) as load:
            compared = 0
            for _ in range(soak(2, 10)):
                compared = wait_for_compared(shadow_of(server), compared + 1).decisions
                pid = scorer_pid(server)
                os.kill(pid, signal.SIGKILL)
                assert server.process.wait_for("shadow scorer ended")["status"] == -signal.SIGKILL
                assert server.process.wait_for("shadow scorer started")["pid"] != pid
            assert load.answered > 0
        journaled = len(eligible(server.process.journal))
        wait_for_compared(shadow_of(server), journaled)
        assert server.process.stop() == 0
        found = record_of(shadow_of(server))
        sequences = comparisons_of(shadow_of(server))["journal_sequence"].tolist()
        assert sequences == eligible(server.process.journal)
        expected = expected_of(decisions_in(server.process.journal))
    (side,) = found.comparisons
    assert side.decisions == expected.decisions == len(sequences)
    assert (side.agreed, side.same_signals) == (expected.agreed, expected.same_signals)
    assert (side.signals, side.shadow_signals) == (expected.signals, expected.shadow_signals)
    assert side.value.sum == pytest.approx(sum(expected.differences), rel=1e-5)
    assert (found.lost_records, found.missed) == (0, {})


def test_a_shadow_that_does_not_pass_its_checks_is_told_and_changes_nothing(tmp_path: Path) -> None:
    models = publish_both(tmp_path / "models")
    graph = models / "tiny" / "1" / MODEL_FILE
    graph.write_bytes(graph.read_bytes() + b"\0")
    set_shadow(models, 1)
    with shadowed(models, *REPLAY) as server:
        for request in zigzag("A", 30):
            assert server.predict(request).model.version == 2
        (refused,) = server.process.logged("shadow refused") or [server.process.wait_for("shadow refused")]
        assert (refused["model"], refused["version"], refused["check"]) == ("tiny", 1, "HashMismatch")
        wait_until(lambda: bool(record_of(shadow_of(server)).missed), "decisions missed")
        wait_until(lambda: lag(scrape(server.metrics)) == 0, "no lag")
        found = record_of(shadow_of(server))
        samples = scrape(server.metrics)
        assert server.process.stop() == 0
    assert (found.decisions, found.missed) == (0, {Missed.NOT_LOADED: 20})
    assert (found.load_failures, found.load_check) == (1, "HashMismatch")
    assert "sha256 is" in found.load_why
    assert value(samples, "tickgate_shadow_loaded", model="tiny", version="1") == 0
    assert value(samples, "tickgate_shadow_load_failures_total", model="tiny", version="1") == 1
    missed = "tickgate_shadow_missed_decisions_total"
    assert value(samples, missed, model="tiny", version="1", reason="not_loaded") == 20


def test_only_while_there_is_a_shadow_is_there_a_scorer_and_only_that_time_counts(tmp_path: Path) -> None:
    models = publish_both(tmp_path / "models")
    with shadowed(models) as server:
        for request in live("A", 30):
            server.predict(request)
        before = len(eligible(server.process.journal))
        assert not server.process.logged("shadow scorer started")
        set_shadow(models, 1)
        for request in live("B", 30):
            server.predict(request)
        assert wait_for_compared(shadow_of(server), 20).decisions == 20
        with watched(scorer_pid(server)) as scorer:
            set_shadow(models, None, expected=1)
            for request in live("C", 30):
                server.predict(request)
            assert server.process.wait_for("shadow scorer stopped")["why"] == "no model has a shadow"
            assert ended(scorer, 30.0)
        assert record_of(shadow_of(server)).ended
        set_shadow(models, 1)
        for request in live("D", 30):
            server.predict(request)
        wait_for_compared(shadow_of(server), 40)
        assert server.process.stop() == 0
        found = comparisons_of(shadow_of(server))
        assert set(found["symbol"].tolist()) == {b"B", b"D"}
        assert found.size == 40
        assert len(eligible(server.process.journal)) == before + 60
        record = record_of(shadow_of(server))
        assert record.first_clock_ns == found["clock_ns"].min() > 0
        assert record.last_clock_ns == found["clock_ns"].max()
        assert (record.lost_records, record.ended) == (0, False)


def test_symbols_of_the_canary_are_a_side_of_their_own(models: Path) -> None:
    weights = {"weight": 200.0, "bias": -0.1}
    publish_logistic(models, version=3, **weights, **BUDGET)
    change_alias(models / "tiny", "canary", 3, expected=None, reason="a test", who="test", share_percent=50.0)
    with shadowed(models, *REPLAY) as server:
        answered_by = {
            f"S{number}": {server.predict(request).model.version for request in zigzag(f"S{number}", 20)}
            for number in range(8)
        }
        wait_for_compared(shadow_of(server), 80)
        assert server.process.stop() == 0
        sides = {side.alias: side for side in record_of(shadow_of(server)).comparisons}
        found = comparisons_of(shadow_of(server))
        entries = decisions_in(server.process.journal)
    assert {(ALIASES[row["alias"]], row["symbol"].decode(), int(row["version"])) for row in found} == {
        ("production" if version == 2 else "canary", symbol, version)
        for symbol, versions in answered_by.items()
        for version in versions
    }
    assert {alias: side.version for alias, side in sides.items()} == {"production": 2, "canary": 3}
    for alias, answering in (
        ("production", PRODUCTION),
        ("canary", {"version": 3, **weights, "decision_threshold": 0.5}),
    ):
        expected = expected_of(entries, answering=answering)
        side = sides[alias]
        assert side.decisions == expected.decisions > 0
        assert (side.agreed, side.same_signals) == (expected.agreed, expected.same_signals)
        assert (side.signals, side.shadow_signals) == (expected.signals, expected.shadow_signals)
        assert side.value.mean == pytest.approx(sum(expected.differences) / expected.decisions, abs=1e-6)


def test_a_scorer_ends_with_a_server_that_is_killed_and_the_next_one_goes_on(models: Path, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    arguments = (*REPLAY, "--journal", str(journal))
    with shadowed(models, *arguments) as server:
        for request in zigzag("A", 30):
            server.predict(request)
        wait_for_compared(journal / "shadow", 1)
        with watched(scorer_pid(server)) as scorer:
            server.process.process.kill()
            assert ended(scorer, 30.0)
    with shadowed(models, *arguments) as server:
        for request in zigzag("B", 30):
            server.predict(request)
        wait_for_compared(journal / "shadow", 40)
        assert server.process.stop() == 0
    found = comparisons_of(journal / "shadow")
    assert found["journal_sequence"].tolist() == eligible(journal)
    assert found.size == 40


def test_one_scorer_follows_the_journals_of_all_workers(models: Path) -> None:
    with server(models, *REPLAY, "--workers", "2", environment=NORMAL, ready="workers serving", observed=True) as (
        process,
        _,
    ):
        addresses = process.logged("workers serving")[-1]["addresses"]
        symbols = {worker: [f"S{n}" for n in range(20) if worker_of(f"S{n}", 2) == worker][:3] for worker in (0, 1)}
        for worker, own in symbols.items():
            with grpc.insecure_channel(addresses[worker], options=CHANNEL_OPTIONS) as channel:
                stub = signal_pb2_grpc.SignalServiceStub(channel)
                for request in (one for symbol in own for one in zigzag(symbol, 20)):
                    stub.Predict(request, timeout=CALL_S)
        folder = process.journal / "shadow"
        record = wait_for_compared(folder, 60)
        assert len(process.logged("shadow scorer started")) == 1
        assert process.stop() == 0
        found = comparisons_of(folder)
        for worker in (0, 1):
            own = eligible(process.journal / f"worker-{worker}")
            assert found[found["worker"] == worker]["journal_sequence"].tolist() == own
            assert len(own) == 30
        assert set(record.positions) == {"worker-0", "worker-1"}
