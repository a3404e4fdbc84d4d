"""Published ticks go on from stored states as a Predict's do; the replica follows, and so does a replay."""

from pathlib import Path

import pytest
from tests.ingest.ingesting import Clock, Publishing, Tick
from tests.store.feeding import (
    Followed,
    all_states,
    engine_images,
    feed,
    replica_images,
    ticks_of,
    with_faults,
)
from tests.support.packages import publish_forest
from tests.support.risk import instrument

from tickgate_server.engine import EngineSettings
from tickgate_server.features.schema import micro32
from tickgate_server.journal.entries import ControlEntry
from tickgate_server.journal.layout import ControlKind
from tickgate_server.journal.reader import JournalReader
from tickgate_server.models.registry import ModelRegistry, load_repository
from tickgate_server.replay import replay
from tickgate_server.states.codec import pack_state
from tickgate_server.states.file import keep, read_kept
from tickgate_server.ticks.instruments import Universe


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    publish_forest(folder, name="ten", latency_budget_ms=60_000.0)
    publish_forest(folder, name="all", features=micro32(), latency_budget_ms=60_000.0)
    return folder


@pytest.fixture(scope="module")
def registry(models: Path) -> ModelRegistry:
    return load_repository(models, "all")


def engine(registry: ModelRegistry, folder: Path, *listed: str) -> Publishing:
    known = Universe({symbol: instrument(symbol) for symbol in listed}, closed=False)
    return Publishing(registry, Clock(0), folder, settings=EngineSettings(capacity=16, replay=True), universe=known)


def told(folder: Path, models: Path, ticks: list[Tick], registry: ModelRegistry) -> list[bytes]:
    """The states that some published ticks leave in the store."""
    side = engine(registry, folder)
    side.counts(ticks)
    side.close()
    return [pack_state(state, 1) for state in all_states(Followed(folder, models).read(folder).replica)]


def warm(side: Publishing, values: list[bytes]) -> None:
    assert side.folder is not None
    sha256 = keep(side.folder, values)
    side.engine.take_states(sha256, read_kept(side.folder, sha256))


@pytest.mark.parametrize("listed", ["AB", "A", ""], ids=["listed", "one listed", "new symbols"])
def test_published_ticks_go_on_as_if_nothing_had_stopped(
    tmp_path: Path, models: Path, registry: ModelRegistry, listed: str
) -> None:
    requests, cut = feed("AB", 600), 400
    at_ns = requests[cut].tick.exchange_ts_ns
    ticks = ticks_of(with_faults(requests, clean=range(cut - 50, cut + 50)))
    cut = next(index for index, tick in enumerate(ticks) if tick.exchange_ts_ns == at_ns)
    whole = engine(registry, tmp_path / "c", *listed)
    whole.counts(ticks)
    uninterrupted = engine_images(whole.engine)
    whole.close()
    values = told(tmp_path / "a", models, ticks[:cut], registry)
    side = engine(registry, tmp_path / "b", *listed)
    warm(side, values)
    for at in range(cut, len(ticks), 33):
        side.counts(ticks[at : at + 33])
    assert not side.engine.waiting
    assert engine_images(side.engine) == uninterrupted
    side.close()
    assert replay(tmp_path / "b", models).differing == 0
    followed = Followed(tmp_path / "b", models).read(tmp_path / "b", batch=50)
    assert replica_images(followed.replica) == uninterrupted


@pytest.mark.parametrize("listed", ["A", ""], ids=["listed", "new symbol"])
@pytest.mark.parametrize("case", ["repeat", "gap", "duplicate", "confirmed"])
def test_the_first_published_tick_decides(
    tmp_path: Path, models: Path, registry: ModelRegistry, case: str, listed: str
) -> None:
    ticks = ticks_of(feed("A", 150))
    while ticks[-1].trade is None:
        ticks.pop()
    last = ticks[-1]
    assert last.trade is not None
    step = last.exchange_ts_ns + 1
    spike = Tick("A", step, last.sequence + 1, (last.trade[0] * 1.5, 1.0))
    first = {
        "repeat": last,
        "gap": Tick("A", step, last.sequence + 2, last.trade),
        "duplicate": ticks[-3],
        "confirmed": Tick("A", step + 1, last.sequence + 2, (last.trade[0] * 1.5001, 1.0)),
    }[case]
    before = [*ticks, spike] if case == "confirmed" else ticks
    values = told(tmp_path / "a", models, before, registry)
    side = engine(registry, tmp_path / "b", *listed)
    warm(side, values)
    counts = side.counts([first])
    store = side.engine.feature_stores[0]
    if case == "duplicate":
        assert sum(counts.rejected.values()) == 1
        assert len(side.engine.waiting) == 1
        assert (store.counts == 0).all()
        side.counts([last])
    assert not side.engine.waiting
    trades = sum(tick.trade is not None for tick in ticks)
    assert int(store.counts[0]) == {"gap": 1, "confirmed": trades + 2}.get(case, trades)
    # A gap behind it: had a replay not learned that the state is in force, it would begin anew here.
    side.counts([Tick("A", step + 10, last.sequence + 100, last.trade)])
    there = engine_images(side.engine)
    side.close()
    with JournalReader(tmp_path / "b") as reader:
        controls = [entry for entry in reader if isinstance(entry, ControlEntry) and entry.code == ControlKind.STATES]
    assert len(controls) == (2 if case in {"repeat", "duplicate"} else 1)
    assert replay(tmp_path / "b", models).differing == 0
    assert replica_images(Followed(tmp_path / "b", models).read(tmp_path / "b").replica) == there
