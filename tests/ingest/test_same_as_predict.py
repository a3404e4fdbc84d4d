"""Published ticks change what the same ticks in Predict change, bit for bit; and a replay of the journal does too."""

import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.ingest.ingesting import Clock, Publishing, Tick, state_of
from tests.support.messages import START_NS
from tests.support.packages import publish_forest

from tickgate_server.engine import EngineSettings
from tickgate_server.errors import FieldInvalid
from tickgate_server.features.schema import micro32
from tickgate_server.models.registry import ModelRegistry, load_repository
from tickgate_server.replay import replay
from tickgate_server.risk.reasons import Reason
from tickgate_server.risk.reports import PositionSet
from tickgate_server.ticks.instruments import Instrument, Universe

UNIVERSE = Universe({name: Instrument(symbol=name) for name in ("A", "B", "C")}, closed=False)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models of two feature sets."""
    folder = tmp_path_factory.mktemp("models")
    publish_forest(folder, name="ten", latency_budget_ms=60_000.0)
    publish_forest(folder, name="more", features=micro32(), latency_budget_ms=60_000.0)
    return folder


@pytest.fixture(scope="module")
def registry(repository: Path) -> ModelRegistry:
    return load_repository(repository, "ten")


prices = st.sampled_from([100.0, 100.1, 100.2, 99.9]) | st.sampled_from([160.0, 161.0, 60.0])
odd = st.sampled_from([0.0, -1.0, math.nan, math.inf])
ticks = st.builds(
    Tick,
    st.sampled_from(["A", "A", "A", "B", "C", "NEW", "é", "x" * 32, "G", "H", "", "x" * 33]),
    st.integers(0, 400).map(lambda tenths: START_NS + tenths * 10**8) | st.sampled_from([0, -5, 2**62]),
    st.integers(0, 30) | st.sampled_from([2**63, 2**64 - 1]),
    st.none() | st.tuples(prices | odd, st.floats(0.0, 9.0) | odd),
    st.none() | st.tuples(prices | odd, prices, st.floats(0.0, 5.0) | odd, st.just(1.0)),
)
walks = st.lists(st.tuples(st.sampled_from(["A", "B", "NEW"]), prices, st.floats(0.1, 9.0)), max_size=80)


@settings(max_examples=50)
@given(walks, st.lists(ticks, max_size=30), st.randoms(), st.booleans())
def test_published_ticks_change_what_predicts_ticks_change(
    registry: ModelRegistry,
    tmp_path_factory: pytest.TempPathFactory,
    walk: list[tuple[str, float, float]],
    others: list[Tick],
    random: object,
    in_replay_mode: bool,  # noqa: FBT001 - hypothesis
) -> None:
    found = [
        Tick(
            symbol,
            START_NS + at * 10**8,
            at + 1,
            (price, size),
            (price - 0.1, price + 0.1, size, 1.0) if at % 3 else None,
        )
        for at, (symbol, price, size) in enumerate(walk)
    ]
    for other in others:
        found.insert(random.randint(0, len(found)), other)  # type: ignore[attr-defined]  # hypothesis'
    clock = Clock(START_NS + 20 * 10**9)
    options = EngineSettings(
        capacity=6, replay=in_replay_mode, stale_limit_ns=15 * 10**9, price_jump_sigmas=1.0, price_jump_least=0.01
    )
    folder = tmp_path_factory.mktemp("journal")
    one = Publishing(registry, clock, folder / "published", settings=options, universe=UNIVERSE, segment_records=64)
    other_one = Publishing(registry, clock, settings=options, universe=UNIVERSE)
    for side in (one, other_one):
        side.engine.desk.set_positions([PositionSet("A", 3.0, 100.0)], reason="a test", who="tester")
    reasons: dict[Reason, int] = {}
    again = accepted = 0
    for tick in found:
        try:
            decision = other_one.predict(tick)
        except FieldInvalid:
            reasons[Reason.TICK_INVALID_VALUE] = reasons.get(Reason.TICK_INVALID_VALUE, 0) + 1
            continue
        reason = Reason(decision.reason)
        if decision.applied:
            accepted += 1 + decision.confirmed
        elif 30 <= reason < 40:
            reasons[reason] = reasons.get(reason, 0) + 1
        else:
            again += 1
    cut = len(found) // 2
    told = [one.counts(piece) for piece in (found[:cut], found[cut:]) if piece]

    assert state_of(one.engine) == state_of(other_one.engine)
    assert sum(counts.accepted for counts in told) == accepted
    assert sum(counts.repeated_latest for counts in told) == again
    rejected = {reason: sum(counts.rejected.get(reason, 0) for counts in told) for reason in Reason}
    assert {reason: count for reason, count in rejected.items() if count} == reasons
    one.close()


@settings(max_examples=8)
@given(walks, st.lists(ticks, max_size=15), st.randoms())
def test_a_replay_does_it_again(
    registry: ModelRegistry,
    repository: Path,
    tmp_path_factory: pytest.TempPathFactory,
    walk: list[tuple[str, float, float]],
    others: list[Tick],
    random: object,
) -> None:
    found = [
        Tick(symbol, START_NS + at * 10**8, at + 1, (price, size)) for at, (symbol, price, size) in enumerate(walk)
    ]
    for other in others:
        found.insert(random.randint(0, len(found)), other)  # type: ignore[attr-defined]  # hypothesis'
    clock = Clock(START_NS + 4 * 10**9)
    folder = tmp_path_factory.mktemp("journal")
    options = EngineSettings(capacity=6, price_jump_sigmas=1.0, price_jump_least=0.01)
    side = Publishing(registry, clock, folder, settings=options, universe=UNIVERSE, segment_records=64)
    for at in range(0, len(found), 7):
        clock.now_ns += 10**8
        side.counts(found[at : at + 7])
    side.close()
    result = replay(folder, repository)
    assert (result.ticks, result.differences) == (len(found), [])
