"""The whole way on real ticks: train on one capture, serve, send every trade of the next, by both methods."""

import json
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from tests.support.packages import publish_logistic
from tests.support.processes import run, served
from tests.support.real_data import CAPTURES, SPOT_BTC, SPOT_BTC_NEXT, capture_path, ticks

from tickgate_server.engine import Engine, EngineSettings
from tickgate_server.features.batch import compute
from tickgate_server.features.schema import micro32
from tickgate_server.models.registry import load_repository
from tickgate_server.records import TICK, Decision, Request
from tickgate_server.ticks.market import QUOTE, TRADE
from tickgate_training.data.daily import NAMES, read_bars
from tickgate_training.data.table import values

CONFIG = Path(__file__).resolve().parents[2] / "training" / "configs" / "binance-spot.toml"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the model that `tickgate train` made of the first capture."""
    models = tmp_path_factory.mktemp("trained")
    places = ["--models", str(models), "--runs", str(tmp_path_factory.mktemp("runs"))]
    done = run("train", str(CONFIG), "--data", str(capture_path(SPOT_BTC)), *places)
    assert done.returncode == 0, done.stderr
    assert "Published" in done.stdout
    return models


def replay(models: Path, out: Path, *arguments: str) -> list[dict[str, object]]:
    """Send every trade of the second capture to a fresh server; its answers."""
    source = str(capture_path(SPOT_BTC_NEXT))
    with served(models, "--clock", "replay") as server:
        shape = ["--format", "binance", "--target", server.address, "--deadline-ms", "30000", "--out", str(out)]
        done = run("replay-ticks", source, *shape, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads(line) for line in out.read_text().splitlines()]


def test_every_trade_is_answered_and_a_stream_gives_the_same_answers_in_the_same_order(
    trained: Path, tmp_path: Path
) -> None:
    unary = replay(trained, tmp_path / "unary.jsonl")
    trades = ticks(SPOT_BTC_NEXT).height
    assert [answer["index"] for answer in unary] == list(range(trades))
    assert Counter(answer["code"] for answer in unary) == {"OK": trades}
    reasons = Counter(answer["reason"] for answer in unary)
    assert reasons["FEATURES_NOT_READY"] == 10
    assert reasons["CONFIDENCE_BELOW_THRESHOLD"] > 0
    assert sum(answer["action"] != "HOLD" for answer in unary) == reasons["APPROVED"]
    replay(trained, tmp_path / "stream.jsonl", "--stream", "--batch", "7")
    assert (tmp_path / "stream.jsonl").read_bytes() == (tmp_path / "unary.jsonl").read_bytes()


@pytest.mark.parametrize("name", [*CAPTURES, *NAMES])
def test_batch_features_are_those_that_the_engine_computed_tick_by_tick(name: str, repository: Path) -> None:
    """On daily bars too, under the session gap of the model: both are the same kernel on the same trades."""
    frame = read_bars(name) if name in NAMES else ticks(name)
    publish_logistic(repository, name="quoting", features=micro32(), latency_budget_ms=60_000.0)
    engine = Engine(EngineSettings(replay=True), load_repository(repository, "tiny"))
    request, decision = Request(input=TICK), Decision()
    streamed = [np.empty((frame.height, store.feature_set.width), np.float32) for store in engine.feature_stores]
    for index, row in enumerate(frame.iter_rows(named=True)):
        request.symbol = row["symbol"]
        request.exchange_ts_ns = row["exchange_ts_ns"]
        request.sequence = row["sequence"]
        request.price, request.size = row["price"], row["size"]
        request.kind = TRADE
        if not np.isnan(row["bid"]):
            request.kind |= QUOTE
            request.bid, request.ask = row["bid"], row["ask"]
            request.bid_size, request.ask_size = row["bid_size"], row["ask_size"]
        request.arrival_ns = time.perf_counter_ns()
        engine.decide(request, decision)
        for rows, store in zip(streamed, engine.feature_stores, strict=True):
            rows[index] = store.vectors[engine.symbols.row(request.symbol)]
    names = ("exchange_ts_ns", "price", "size", "bid", "ask", "bid_size", "ask_size")
    assert len(streamed) == 2
    for rows, store in zip(streamed, engine.feature_stores, strict=True):
        batch = compute(store.feature_set, **{column: values(frame, column) for column in names})
        assert batch.tobytes() == rows.tobytes()
        ready = np.isfinite(batch).all(axis=1).sum()
        if name in NAMES:  # bars are further apart than the gap, and have no quotes
            assert ready == 0
        else:
            assert frame.height - 2 * store.feature_set.warm_up_trades < ready < frame.height
