"""Predict by symbol on what was published: how old the features are, and when they are too old; and many symbols."""

from collections.abc import Iterator
from pathlib import Path
from time import perf_counter_ns

import numpy as np
import pytest
from tests.ingest.ingesting import Clock, Publishing, Tick
from tests.support.messages import START_NS, features
from tests.support.packages import publish_logistic

from tickgate.v1 import signal_pb2 as pb
from tickgate_server.config import SettingsInvalid, load
from tickgate_server.engine import EngineSettings
from tickgate_server.ingest.columns import Columns
from tickgate_server.ingest.ingestion import Counts
from tickgate_server.models.registry import ModelRegistry, load_repository
from tickgate_server.risk.reasons import Reason
from tickgate_server.rpc.answers import Answers

SECOND_NS = 10**9


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> ModelRegistry:
    folder = tmp_path_factory.mktemp("models")
    publish_logistic(folder, name="line", latency_budget_ms=600_000.0)
    return load_repository(folder)


class Asking(Publishing):
    """Thirty trades of A were published, a millisecond apart; the last at START_NS."""

    def __init__(self, registry: ModelRegistry, **settings: bool | int) -> None:
        self.clock = Clock(START_NS)
        super().__init__(registry, self.clock, settings=EngineSettings(capacity=8, **settings))  # type: ignore[arg-type]  # as named
        self.answers = Answers(self.engine)
        ticks = [Tick("A", START_NS - at * 10**6, 30 - at, (100.0 + at % 2, 1.0)) for at in range(29, -1, -1)]
        assert self.counts(ticks) == Counts(accepted=30)

    def answer(self, request: pb.PredictRequest) -> pb.PredictResponse:
        found = self.answers.predict(request.SerializeToString(), perf_counter_ns(), 0)
        assert isinstance(found, bytes)
        return pb.PredictResponse.FromString(found)

    def about(self, symbol: str = "A") -> pb.PredictResponse:
        return self.answer(pb.PredictRequest(symbol=symbol))


@pytest.fixture
def asking(registry: ModelRegistry) -> Iterator[Asking]:
    found = Asking(registry, feature_age_limit_ns=2 * SECOND_NS)
    yield found
    found.answers.close()


def test_the_answer_says_how_old_the_features_are(asking: Asking) -> None:
    asking.clock.now_ns = START_NS + 250_999
    answer = asking.about()
    assert (answer.features.age_us, answer.features.ready) == (250, True)
    assert answer.features.exchange_ts_ns == START_NS
    assert answer.HasField("prediction")


def test_features_older_than_the_limit_are_held(asking: Asking) -> None:
    asking.clock.now_ns = START_NS + 2 * SECOND_NS
    assert asking.about().HasField("prediction")  # the limit itself is fine
    asking.clock.now_ns += 1
    answer = asking.about()
    assert (answer.signal.action, answer.signal.reason) == (pb.ACTION_HOLD, pb.REASON_TICK_STALE)
    assert answer.features.age_us == 2_000_000
    assert not answer.HasField("prediction")


def test_a_tick_may_be_older_than_features_may_be(asking: Asking) -> None:
    asking.clock.now_ns = START_NS + 4 * SECOND_NS
    answer = asking.answer(
        pb.PredictRequest(
            tick={"symbol": "A", "exchange_ts_ns": START_NS + SECOND_NS, "trade": {"price": 100.0, "size": 1.0}}
        )
    )
    assert answer.features.age_us == 3_000_000
    assert answer.HasField("prediction")


def test_a_vector_is_held_to_the_same_limit(asking: Asking) -> None:
    asking.clock.now_ns = START_NS + 2 * SECOND_NS + 1
    vector = features("A", [0.0] * 10, at_ns=START_NS)
    assert asking.answer(vector).signal.reason == pb.REASON_TICK_STALE
    vector.features.exchange_ts_ns += 1
    answer = asking.answer(vector)
    assert answer.HasField("prediction")
    assert answer.features.age_us == 2_000_000


def test_where_the_venues_clock_is_ahead_nothing_is_old(asking: Asking) -> None:
    asking.clock.now_ns = START_NS
    ahead = Tick("A", START_NS + SECOND_NS // 2, 31, (100.0, 1.0))
    assert asking.counts([ahead]).accepted == 1
    assert asking.about().features.age_us == 0


def test_in_replay_mode_nothing_is_old(registry: ModelRegistry) -> None:
    found = Asking(registry, replay=True)
    found.clock.now_ns = START_NS + 3600 * SECOND_NS
    assert found.about().features.age_us == 0
    assert found.about().HasField("prediction")
    found.answers.close()


def test_the_features_limit_is_the_ticks_unless_it_is_set(tmp_path: Path) -> None:
    file = tmp_path / "tickgate.toml"
    file.write_text("[clock]\nstale_limit_s = 7.0\n")
    assert load(file)[0].clock.features_s == 7.0
    file.write_text("[clock]\nstale_limit_s = 7.0\nfeature_age_limit_s = 0.5\n")
    assert load(file)[0].clock.features_s == 0.5


def test_feeds_have_settings_by_their_names(tmp_path: Path) -> None:
    file = tmp_path / "tickgate.toml"
    file.write_text('[ingest.feeds."venue.a"]\nreorder_window_ms = 50\n[risk.symbols."BRK.B"]\nmax_order_size = 3.0\n')
    settings, origins = load(file)
    assert settings.ingest.feeds["venue.a"].reorder_window_ms == 50.0
    assert settings.risk.symbols["BRK.B"].max_order_size == 3.0
    assert origins["ingest.feeds"] == str(file)
    file.write_text("[ingest.feeds.a]\nwindow_ms = 50\n")
    with pytest.raises(SettingsInvalid, match="window_ms"):
        load(file)
    file.write_text(f"[ingest.feeds.{'x' * 33}]\n")
    with pytest.raises(SettingsInvalid, match="1 to 32 bytes"):
        load(file)
    file.write_text("[ingest]\nqueue_ticks = 1000\n")
    with pytest.raises(SettingsInvalid, match="queue_ticks"):
        load(file)


def test_as_many_symbols_as_the_largest_capacity_are_served(registry: ModelRegistry) -> None:
    count = 65_536
    side = Publishing(registry, Clock(START_NS), settings=EngineSettings(capacity=count))
    names = b"".join(b"%08d" % number for number in range(count + 1))
    spans = np.stack((np.arange(count + 1) * 8, np.full(count + 1, 8)), axis=1)

    def publish(symbols: slice, sequence: int) -> Counts:
        own = np.ascontiguousarray(spans[symbols])
        ones = np.ones(len(own))
        columns = Columns(
            np.arange(len(own)),
            None,
            np.full(len(own), START_NS + sequence),
            np.full(len(own), sequence, np.uint64),
            (100.0 * ones, ones, None, None, None, None),
        )
        side.ingestion.take_in("", names, own, columns, side.told.append)
        side.settle()
        found = side.told.pop()
        assert isinstance(found, Counts)
        return found

    assert publish(slice(0, count), 1) == Counts(accepted=count)
    for sequence in range(2, 13):
        assert publish(slice(0, count), sequence) == Counts(accepted=count)
    assert publish(slice(count, count + 1), 1) == Counts(rejected={Reason.TICK_SYMBOL_TABLE_FULL: 1})
    assert side.engine.feature_stores[0].ready.all()
