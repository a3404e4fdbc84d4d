"""A feed's reorder window: what it lets go, when, and in which order."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.ingest.ingesting import Clock, Publishing, Tick
from tests.support.messages import START_NS
from tests.support.packages import publish_logistic

from tickgate_server.ingest.columns import Ticks
from tickgate_server.ingest.ingestion import Counts, IngestSettings
from tickgate_server.ingest.kernel import EXCHANGE_TS_NS, SEQUENCE
from tickgate_server.ingest.reorder import ReorderWindow
from tickgate_server.models.registry import ModelRegistry, load_repository
from tickgate_server.risk.reasons import Reason

MS = 1_000_000
NEVER = 1 << 62


def ticks(*pairs: tuple[int, int]) -> Ticks:
    found = Ticks.empty(len(pairs))
    found.integers[:, EXCHANGE_TS_NS] = [stamp for stamp, _ in pairs]
    found.integers[:, SEQUENCE] = np.array([sequence for _, sequence in pairs], np.uint64).view(np.int64)
    return found


def pairs_of(found: Ticks) -> list[tuple[int, int]]:
    stamps, sequences = found.integers[:, EXCHANGE_TS_NS], found.integers[:, SEQUENCE].view(np.uint64)
    return list(zip(stamps.tolist(), sequences.tolist(), strict=True))


def test_what_the_watermark_has_passed_strictly_goes_in_the_venues_order() -> None:
    window = ReorderWindow(10, 100)
    assert pairs_of(window.take(ticks((105, 3), (103, 1), (105, 2)), 0, NEVER)) == []
    assert pairs_of(window.take(ticks((113, 9)), 0, NEVER)) == []  # 103 is not passed by 103
    assert pairs_of(window.take(ticks((116, 10)), 0, NEVER)) == [(103, 1), (105, 2), (105, 3)]
    assert len(window) == 2


def test_a_tick_from_the_future_moves_nothing_and_is_judged_at_once() -> None:
    window = ReorderWindow(10, 100)
    assert pairs_of(window.take(ticks((100, 1), (500, 2)), 0, 200)) == [(500, 2)]
    assert len(window) == 1
    assert pairs_of(window.take(ticks((0, 3), (-7, 4)), 0, 200)) == [(0, 3), (-7, 4)]
    assert len(window) == 1


def test_what_has_waited_for_the_window_goes_with_all_that_belong_before_it() -> None:
    window = ReorderWindow(10, 100)
    window.take(ticks((100, 1)), 1_000, NEVER)
    window.take(ticks((98, 0), (101, 2)), 1_005, NEVER)
    assert window.due_ns == 1_010
    assert pairs_of(window.let_go(1_009)) == []
    assert pairs_of(window.let_go(1_010)) == [(98, 0), (100, 1)]
    assert pairs_of(window.let_go(1_015)) == [(101, 2)]
    assert window.due_ns == 0


def test_a_full_window_lets_the_oldest_go_early_and_counts_them() -> None:
    window = ReorderWindow(10**9, 3)
    found = window.take(ticks((5, 0), (1, 0), (4, 0), (2, 0), (3, 0)), 0, NEVER)
    assert pairs_of(found) == [(1, 0), (2, 0)]
    assert (len(window), window.early) == (3, 2)
    assert pairs_of(window.flush()) == [(3, 0), (4, 0), (5, 0)]


@given(
    st.lists(st.tuples(st.integers(1, 2000), st.integers(0, 3), st.integers(0, 49)), max_size=60),
    st.integers(1, 7),
)
def test_delays_within_the_window_come_out_sorted(events: list[tuple[int, int, int]], together: int) -> None:
    """Slow reference: sorting all of them."""
    arrivals = sorted(((stamp + delay, stamp, sequence) for stamp, sequence, delay in events), key=lambda one: one[0])
    window = ReorderWindow(50, 1000)
    found = []
    for at in range(0, len(arrivals), together):
        piece = arrivals[at : at + together]
        found += pairs_of(window.take(ticks(*(one[1:] for one in piece)), piece[-1][0], NEVER))
    found += pairs_of(window.flush())
    if together == 1:  # one at a time no tick is late
        assert found == sorted(one[1:] for one in arrivals)
    assert sorted(found) == sorted(one[1:] for one in arrivals)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> ModelRegistry:
    folder = tmp_path_factory.mktemp("models")
    publish_logistic(folder, name="line", latency_budget_ms=60_000.0)
    return load_repository(folder)


def test_a_message_is_answered_once_the_window_has_let_its_last_tick_go(registry: ModelRegistry) -> None:
    clock = Clock(START_NS)
    settings = IngestSettings(windows_ns={"venue": 50 * MS})
    side = Publishing(registry, clock, ingest=settings)
    side.publish([Tick("A", START_NS, 2, (100.0, 1.0)), Tick("A", START_NS, 1, (100.1, 1.0))], "venue")
    side.settle()
    assert (side.told, side.ingestion.waiting) == ([], 2)
    assert side.counts([Tick("B", START_NS, 1, (100.0, 1.0))], "other") == Counts(accepted=1)  # has no window
    clock.now_ns += 49 * MS
    side.ingestion.poll()
    side.settle()
    assert side.told == []
    clock.now_ns += MS
    side.ingestion.poll()
    side.settle()
    assert side.told == [Counts(accepted=2)]
    assert int(side.engine.market.sequences[side.engine.symbols.row("A"), 1]) == 2  # ties by sequence


def test_a_full_window_is_let_go_early(registry: ModelRegistry) -> None:
    clock = Clock(START_NS)
    side = Publishing(registry, clock, ingest=IngestSettings(windows_ns={"venue": 50 * MS}, window_ticks=3))
    side.publish([Tick("A", START_NS + at, at + 1, (100.0, 1.0)) for at in (4, 3, 2, 1, 0)], "venue")
    side.settle()
    assert (side.ingestion.released_early, side.ingestion.waiting) == (2, 3)
    late = side.ingestion
    late.flush()
    side.settle()
    assert side.told == [Counts(accepted=5)]


def test_without_a_window_late_ticks_are_rejected(registry: ModelRegistry) -> None:
    side = Publishing(registry, Clock(START_NS))
    counts = side.counts([Tick("A", START_NS + 1, 2, (100.0, 1.0)), Tick("A", START_NS, 1, (100.0, 1.0))])
    assert counts == Counts(accepted=1, rejected={Reason.TICK_OUT_OF_ORDER: 1})
