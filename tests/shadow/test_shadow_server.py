"""Shadows beside real servers: what is compared, what stays as it was, and what becomes of it when a process dies."""

import os
import signal
import time
from pathlib import Path

import pytest
from tests.shadow.shadowing import (
    BUDGET,
    PRODUCTION,
    SHADOW,
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
from tests.support.processes import Served, served

from tickgate.v1 import signal_pb2 as pb
from tickgate_server.models.shadow_record import Missed, Signals

REPLAY = ("--clock", "replay")


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """Version 2 answers, version 1 is its shadow."""
    repository = publish_both(tmp_path / "models")
    set_shadow(repository, 1)
    return repository


def shadow_of(server: Served) -> Path:
    return server.process.journal / "shadow"


def scorer_pid(server: Served, nth: int = -1) -> int:
    return int(server.process.logged("shadow scorer started")[nth]["pid"])


def test_a_shadow_is_compared_by_the_vectors_that_the_journal_has(models: Path) -> None:
    with served(models, *REPLAY) as server:
        for request in zigzag("A", 30):
            server.predict(request)
        wait_for_compared(shadow_of(server), 20)
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
