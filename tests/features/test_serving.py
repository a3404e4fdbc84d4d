"""Two feature sets in one engine: each model gets its own, and every one is what a batch of the same ticks gives."""

import time
from pathlib import Path

import numpy as np
from tests.support.messages import START_NS, tick
from tests.support.packages import publish_forest, publish_logistic

from tickgate.v1 import signal_pb2 as pb
from tickgate_server.engine import Engine, EngineSettings
from tickgate_server.features.batch import compute
from tickgate_server.features.schema import micro10, micro32
from tickgate_server.models.registry import load_repository
from tickgate_server.rpc.answers import Answers
from tickgate_server.rpc.lane import FastLane


def test_an_engine_with_two_sets_serves_each_and_has_no_fast_lane(tmp_path: Path) -> None:
    publish_forest(tmp_path, name="ten", latency_budget_ms=60_000.0)
    publish_logistic(tmp_path, name="all", features=micro32(), latency_budget_ms=60_000.0)
    engine = Engine(EngineSettings(capacity=4, replay=True), load_repository(tmp_path, "ten"))
    assert not FastLane(engine).open
    answers = Answers(engine)
    rng = np.random.default_rng(4)
    rows = 240
    columns = {
        "exchange_ts_ns": START_NS + np.cumsum(rng.choice([0, 1, 10**8], rows)),
        "kind": np.where(np.arange(rows) == 0, 3, rng.choice([1, 2, 3], rows)),
        "price": 100.0 + 0.01 * rng.integers(0, 5, rows),
        "size": rng.choice([0.0, 1.0, 2.5], rows),
        "bid": 99.98 + 0.01 * rng.integers(0, 2, rows),
        "ask": 100.0 + 0.01 * rng.integers(0, 2, rows),
        "bid_size": rng.choice([0.0, 1.0, 4.0], rows),
        "ask_size": rng.choice([0.0, 1.0, 4.0], rows),
    }
    kept = {store.feature_set: np.empty((rows, store.feature_set.width), np.float32) for store in engine.feature_stores}
    answered = []
    for i in range(rows):
        at = {name: column[i].item() for name, column in columns.items()}
        request = tick(
            "ONE",
            at["exchange_ts_ns"],
            sequence=i + 1,
            trade=(at["price"], at["size"]) if at["kind"] & 1 else None,
            quote=(at["bid"], at["ask"], at["bid_size"], at["ask_size"]) if at["kind"] & 2 else None,
            model=("ten", "all")[i % 2],
        )
        answer = answers.predict(request.SerializeToString(), time.perf_counter_ns(), 0)
        assert isinstance(answer, bytes)
        answered.append(pb.PredictResponse.FromString(answer))
        for store in engine.feature_stores:
            kept[store.feature_set][i] = store.vectors[engine.symbols.row("ONE")]
    assert set(kept) == {micro10(), micro32()}
    for feature_set, vectors in kept.items():
        found = compute(feature_set, **columns)
        assert found.tobytes() == vectors.tobytes()
        ready = np.isfinite(found).all(axis=1)
        name = "ten" if feature_set == micro10() else "all"
        said = [answer.features.ready for answer in answered if answer.model.name == name]
        assert said == ready[0 if name == "ten" else 1 :: 2].tolist()
        assert any(said)
