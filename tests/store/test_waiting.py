"""A server that goes on from stored states answers as one that never stopped, bit for bit, and only where it may."""

import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.ingest.ingesting import Publishing
from tests.store.feeding import (
    Followed,
    all_states,
    ask,
    engine_images,
    feed,
    replica_images,
    scored,
    serving,
    ticks_of,
    with_faults,
)
from tests.support.messages import START_NS, features, tick
from tests.support.packages import publish_forest
from tests.support.risk import instrument, universe

from tickgate.v1 import signal_pb2 as pb
from tickgate_server.engine import Engine, EngineSettings
from tickgate_server.features.schema import micro10, micro32
from tickgate_server.features.store import FeatureStore
from tickgate_server.models.registry import ModelRegistry, load_repository
from tickgate_server.records import Decision
from tickgate_server.replay import ReplayRefused, replay
from tickgate_server.risk.reasons import Reason
from tickgate_server.rpc.answers import Answers
from tickgate_server.states.codec import pack_state
from tickgate_server.states.errors import ValueRefused
from tickgate_server.states.file import KEPT_FILES, keep, kept_path, read_kept
from tickgate_server.states.state import SymbolState, copy_state
from tickgate_server.states.waiting import goes_on
from tickgate_server.ticks import market
from tickgate_server.ticks.market import MarketState

GAP_NS = 2_000_000_000
Prior = tuple[list[pb.PredictRequest], list[bytes]]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    publish_forest(folder / "both", name="ten", latency_budget_ms=60_000.0)
    publish_forest(folder / "both", name="all", features=micro32(), latency_budget_ms=60_000.0)
    publish_forest(folder / "lane", name="all", features=micro32(), latency_budget_ms=60_000.0)
    publish_forest(folder / "ten", name="ten", latency_budget_ms=60_000.0)
    return folder


@pytest.fixture(scope="module")
def registries(models: Path) -> dict[str, ModelRegistry]:
    return {"both": load_repository(models / "both", "all"), "lane": load_repository(models / "lane")}


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory, models: Path, registries: dict[str, ModelRegistry]) -> Prior:
    """A's ticks, the last one a trade, and the states that they left."""
    requests = feed("A", 200)
    while not requests[-1].tick.HasField("trade"):
        requests.pop()
    folder = tmp_path_factory.mktemp("prior")
    with serving(registries["lane"], folder) as (_, answers):
        ask(answers, requests)
    return requests, stored(folder, models / "lane")


def stored(folder: Path, models: Path) -> list[bytes]:
    """The states that the store would have of a journal."""
    return [pack_state(state, 1) for state in all_states(Followed(folder, models).read(folder).replica)]


def warm(engine: Engine, folder: Path, values: list[bytes]) -> None:
    sha256 = keep(folder, values)
    engine.take_states(sha256, read_kept(folder, sha256))


def reasons(answers: Answers, requests: list[pb.PredictRequest]) -> list[str]:
    found = []
    for request in requests:
        answer = answers.predict(request.SerializeToString(), time.perf_counter_ns(), 0)
        assert isinstance(answer, bytes), answer
        found.append(Reason(pb.PredictResponse.FromString(answer).signal.reason).name)
    return found


@pytest.mark.parametrize("which", ["both", "lane"])
@pytest.mark.parametrize("numbered", [True, False], ids=["numbered", "stamps only"])
def test_every_feature_after_a_warm_start_is_that_of_a_server_that_never_stopped(
    tmp_path: Path,
    models: Path,
    registries: dict[str, ModelRegistry],
    which: str,
    numbered: bool,  # noqa: FBT001
) -> None:
    requests, cut = feed("AB", 700, numbered=numbered), 450
    if numbered:  # a tick before the cut that was rejected would be a gap
        at_ns = requests[cut].tick.exchange_ts_ns
        requests = with_faults(requests, clean=range(cut - 50, cut + 50))
        cut = next(index for index, request in enumerate(requests) if request.tick.exchange_ts_ns == at_ns)
    with serving(registries[which], tmp_path / "c") as (engine, answers):
        ask(answers, requests)
        uninterrupted = engine_images(engine)
    with serving(registries[which], tmp_path / "a") as (_, answers):
        ask(answers, requests[:cut])
    with serving(registries[which], tmp_path / "b") as (engine, answers):
        warm(engine, tmp_path / "b", stored(tmp_path / "a", models / which))
        ask(answers, requests[cut:])
        assert not engine.waiting
        assert engine_images(engine) == uninterrupted
    before, after, whole = (scored(tmp_path / name) for name in "abc")
    assert before + after == whole
    assert len(after) > 100
    replayed = replay(tmp_path / "b", models / which)
    assert (replayed.differing, replayed.differences) == (0, [])
    followed = Followed(tmp_path / "b", models / which).read(tmp_path / "b", batch=77)
    assert replica_images(followed.replica) == {name: uninterrupted[name] for name in "AB"}
    if not numbered:  # the numbers of its ticks go on too
        assert sum(state.ticks for state in all_states(followed.replica)) == len(requests)


def first_ticks(last: pb.PredictRequest) -> dict[str, pb.PredictRequest]:
    at_ns, sequence = last.tick.exchange_ts_ns, last.tick.sequence
    trade = (last.tick.trade.price, 1.0)
    return {
        "next": tick("A", at_ns + 1, sequence=sequence + 1, trade=trade),
        "repeat": last,
        "gap": tick("A", at_ns + 1, sequence=sequence + 2, trade=trade),
        "known": tick("A", at_ns - 1, sequence=sequence - 1, trade=trade),
        "began anew": tick("A", at_ns + 10**12, sequence=1, trade=trade),
        "near": tick("A", at_ns + GAP_NS, trade=trade),
        "far": tick("A", at_ns + GAP_NS + 1, trade=trade),
        "earlier": tick("A", at_ns - 1, trade=trade),
        "crossed": tick("A", at_ns + 1, sequence=sequence + 1, quote=(3.0, 2.0, 1.0, 1.0)),
    }


READY, WAITS = "ready", "waits"
NOT_READY = "FEATURES_NOT_READY"


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("next", READY),
        ("repeat", READY),
        ("near", READY),
        ("gap", NOT_READY),
        ("began anew", NOT_READY),
        ("far", NOT_READY),
        ("earlier", NOT_READY),
        ("known", "TICK_DUPLICATE"),
        ("crossed", "TICK_CROSSED_QUOTE"),
    ],
)
@pytest.mark.parametrize("listed", [True, False], ids=["listed", "new symbol"])
def test_the_first_tick_decides_whether_a_symbol_goes_on(
    tmp_path: Path,
    models: Path,
    registries: dict[str, ModelRegistry],
    prior: Prior,
    case: str,
    expected: str,
    listed: bool,  # noqa: FBT001
) -> None:
    requests, values = prior
    known = universe(instrument("A")) if listed else None
    options = {"universe": known, "continuation_gap_ns": GAP_NS}
    first = first_ticks(requests[-1])
    with serving(registries["lane"], tmp_path / "b", **options) as (engine, answers):
        warm(engine, tmp_path / "b", values)
        (reason,) = reasons(answers, [first[case]])
        if expected.startswith("TICK"):  # it decides nothing: the state waits on, and the next tick goes on from it
            assert reason == expected
            assert list(engine.waiting.all()[0].symbol) == ["A"]
            assert (engine.market.stamps == 0).all()
            (reason,) = reasons(answers, [first["next"]])
            assert reason != NOT_READY
        elif expected == READY:
            assert reason != NOT_READY
        else:
            assert reason == expected
            assert int(engine.feature_stores[0].counts[0]) == 1
            assert int(engine.market.stamps[0, market.ACCEPTED]) <= 1
        assert not engine.waiting
        # A gap after a repeat: were the repeat not in the journal, a replay would begin anew here.
        reasons(answers, [tick("A", first["began anew"].tick.exchange_ts_ns + 1, sequence=10_000, trade=(100.0, 1.0))])
        there = engine_images(engine)
    assert replay(tmp_path / "b", models / "lane").differing == 0
    followed = Followed(tmp_path / "b", models / "lane").read(tmp_path / "b")
    assert replica_images(followed.replica) == there


def test_nothing_of_a_waiting_state_is_seen_before_its_tick(
    tmp_path: Path, registries: dict[str, ModelRegistry], prior: Prior
) -> None:
    _, values = prior
    options = {"universe": universe(instrument("A"))}
    asked = [pb.PredictRequest(symbol="A"), features("A", [0.0] * 32)]
    with serving(registries["lane"], tmp_path / "cold", **options) as (_, answers):
        cold = reasons(answers, asked)
    with serving(registries["lane"], tmp_path / "b", **options) as (engine, answers):
        warm(engine, tmp_path / "b", values)
        assert reasons(answers, asked) == cold
        assert np.isnan(engine.market.quotes_trades).all()
    assert cold[0] == NOT_READY


def test_a_repeat_that_the_journal_cannot_take_leaves_the_state_waiting(
    tmp_path: Path, registries: dict[str, ModelRegistry], prior: Prior, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests, values = prior
    with serving(registries["lane"], tmp_path / "b") as (engine, answers):
        warm(engine, tmp_path / "b", values)

        def full(symbol: str) -> None:
            raise OSError(symbol)

        with monkeypatch.context() as patch:
            patch.setattr(engine.waiting, "tell_resumed", full)
            decision = Decision()
            with pytest.raises(OSError, match="A"):
                engine.decide(Publishing.request(ticks_of(requests[-1:])[0]), decision)
        assert len(engine.waiting) == 1
        assert (engine.market.stamps == 0).all()
        assert reasons(answers, requests[-1:]) != [NOT_READY]


def test_a_symbol_whose_ticks_were_first_keeps_them(
    tmp_path: Path, models: Path, registries: dict[str, ModelRegistry], prior: Prior
) -> None:
    requests, values = prior
    with serving(registries["lane"], tmp_path / "b") as (engine, answers):
        ask(answers, requests[:100])
        there = engine_images(engine)
        warm(engine, tmp_path / "b", values)
        ask(answers, requests[100:101])
        assert engine.feature_stores[0].counts[0] <= 101
        assert engine_images(engine) != there
    assert replay(tmp_path / "b", models / "lane").differing == 0


def test_a_feature_set_that_the_state_lacks_warms_up(
    tmp_path: Path, models: Path, registries: dict[str, ModelRegistry]
) -> None:
    requests = feed("A", 200)
    with serving(load_repository(models / "ten"), tmp_path / "a") as (_, answers):
        ask(answers, requests)
    with serving(registries["both"], tmp_path / "b") as (engine, answers):
        warm(engine, tmp_path / "b", stored(tmp_path / "a", models / "ten"))
        at_ns = requests[-1].tick.exchange_ts_ns + 1
        ask(answers, [tick("A", at_ns, sequence=requests[-1].tick.sequence + 1, trade=(100.0, 1.0), model="ten")])
        ready = {store.feature_set.schema_id: bool(store.ready[0]) for store in engine.feature_stores}
    assert ready == {micro10().schema_id: True, micro32().schema_id: False}


def test_a_replay_without_the_states_file_is_refused(
    tmp_path: Path, models: Path, registries: dict[str, ModelRegistry], prior: Prior
) -> None:
    _, values = prior
    with serving(registries["lane"], tmp_path / "b") as (engine, _):
        warm(engine, tmp_path / "b", values)
    path = kept_path(tmp_path / "b", keep(tmp_path / "b", values))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ReplayRefused, match=r"the states that decided are not there.*expected hash"):
        replay(tmp_path / "b", models / "lane")
    path.unlink()
    with pytest.raises(ReplayRefused, match="the states that decided are not there"):
        replay(tmp_path / "b", models / "lane")
    assert Followed(tmp_path / "b", models / "lane").read(tmp_path / "b").replica.run is None


def test_old_files_of_states_go(tmp_path: Path) -> None:
    for number in range(KEPT_FILES + 3):
        sha256 = keep(tmp_path, [str(number).encode()])
    assert len(list(tmp_path.iterdir())) == KEPT_FILES
    assert kept_path(tmp_path, sha256).exists()
    with pytest.raises(ValueRefused):
        read_kept(tmp_path, sha256)  # it holds no states


# -- what goes on from what ------------------------------------------------------------------------------------------


def state_of(sequences: list[int], held: int | None = None) -> SymbolState:
    """A state whose ticks had these sequences, a second apart, by the rules themselves."""
    state = MarketState(1)
    for at, sequence in enumerate(sequences):
        given_tick = (0, market.TRADE, START_NS + at * 10**9, np.uint64(sequence), 100.0 + at % 2 * 0.001, 1.0)
        arrays = (state.quotes_trades, state.volatilities, state.stamps, state.sequences)
        assert market.apply(*arrays, *given_tick, 0.0, 0.0, 0.0, 0.0, 0, 0, 0, 10.0, 0.005) == market.ACCEPTED_NEW
    if held is not None:
        given_tick = (0, market.TRADE, START_NS + len(sequences) * 10**9, np.uint64(held), 150.0, 1.0)
        assert market.apply(*arrays, *given_tick, 0.0, 0.0, 0.0, 0.0, 0, 0, 0, 10.0, 0.005) == market.PRICE_JUMP
    return copy_state("A", 0, state, [FeatureStore(micro10(), 1)], journal_sequence=1, ticks=len(sequences))


@given(
    st.integers(1, 1500),
    st.integers(0, 1600),
    st.integers(-2 * GAP_NS, 2 * GAP_NS),
)
@settings(max_examples=60)
def test_what_goes_on_is_what_a_slow_reference_says(count: int, sequence: int, behind_ns: int) -> None:
    numbers = list(range(1, count + 1))
    state = state_of(numbers)
    stamp_ns = START_NS + (count - 1) * 10**9 + behind_ns
    if sequence == 0:
        expected = 0 <= behind_ns <= GAP_NS
    else:
        expected = sequence == count + 1 or (behind_ns <= 0 and sequence in numbers[-1024:])
    assert goes_on(state, stamp_ns, sequence, GAP_NS) == expected


def test_a_tick_behind_the_trade_that_is_held_back_goes_on() -> None:
    state = state_of(list(range(1, 60)), held=60)
    at_ns = START_NS + 61 * 10**9
    assert [goes_on(state, at_ns, sequence, GAP_NS) for sequence in (60, 61, 62)] == [True, True, False]


def test_a_numbered_tick_does_not_go_on_from_a_state_without_numbers() -> None:
    state = state_of([0] * 30)
    at_ns = START_NS + 30 * 10**9
    assert not goes_on(state, at_ns, 1, GAP_NS)
    assert goes_on(state, at_ns, 0, GAP_NS)


def test_settings_of_an_engine_have_the_gap() -> None:
    assert EngineSettings().continuation_gap_ns == 5_000_000_000
