"""What a server journals: each request once, whatever became of it, through kills; and the same again from replay."""

import json
import shutil
import signal
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import grpc
import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray
from tests.support.messages import features, tick, zigzag
from tests.support.packages import edit_manifest, publish_forest, publish_logistic
from tests.support.processes import CALL_S, Served, run, served
from tests.support.real_data import CAPTURES, SPOT_BTC, SPOT_BTC_NEXT, SPOT_ETH, USDM_BTC, capture_path, ticks

from tickgate.v1 import signal_pb2 as pb
from tickgate_server.features.batch import compute
from tickgate_server.features.schema import FeatureSet, micro10, micro32
from tickgate_server.journal.entries import DecisionEntry
from tickgate_server.journal.reader import JournalReader
from tickgate_training.data.simulator import simulate
from tickgate_training.data.table import values


def decisions(folder: Path) -> list[dict[str, object]]:
    with JournalReader(folder) as reader:
        return [entry.as_dict() for entry in reader if isinstance(entry, DecisionEntry)]


def replayed(folder: Path, models: Path) -> tuple[int, str]:
    done = run("replay", str(folder), "--models", str(models))
    return done.returncode, done.stdout + done.stderr


def mixed_requests() -> list[pb.PredictRequest]:
    """Good ticks of two symbols, and everything that can go wrong between them."""
    requests = []
    for number, (one, other) in enumerate(zip(zigzag("ONE", 60), zigzag("OTHER", 60, price=50.0), strict=True)):
        one.request_id, other.request_id = f"one-{number}", f"other-{number}"
        requests += [one, other]
    bad = tick("ONE", 5, trade=(float("nan"), 1.0), request_id="nan")
    requests[30:30] = [bad, pb.PredictRequest(request_id="nothing"), pb.PredictRequest(symbol="ONE", model="none")]
    requests[60:60] = [requests[58], requests[10], tick("ONE", 7, trade=(1.0, 1.0)), pb.PredictRequest(symbol="ONE")]
    requests[80:80] = [features("ONE", [1e-3] * 10), pb.PredictRequest(symbol="x" * 40), features("ONE", [1.0])]
    requests[90:90] = [tick("ONE", 2**62, quote=(2.0, 1.0, 1.0, 1.0)), pb.PredictRequest(symbol="ONE", budget_us=1)]
    return requests


@pytest.mark.parametrize("transport", ["queue", "aio"])
def test_each_request_is_in_the_journal_once_with_its_status_and_replays_bit_for_bit(
    repository: Path, tmp_path: Path, transport: str
) -> None:
    journal = tmp_path / "journal"
    arguments = ("--journal", str(journal), "--clock", "replay", "--transport", transport)
    with served(repository, *arguments) as server:
        codes = []
        for request in mixed_requests():
            try:
                server.stub.Predict(request, timeout=CALL_S)
                codes.append("OK")
            except grpc.RpcError as error:
                codes.append(error.code().name)
        with pytest.raises(grpc.RpcError):
            server.channel.unary_unary("/tickgate.v1.SignalService/Predict")(b"\xff\xff", timeout=CALL_S)
        list(server.stream([[pb.PredictRequest(symbol="ONE"), pb.PredictRequest(model="none")]]))
    found = decisions(journal)
    assert [entry["status"] for entry in found] == [*codes, "INVALID_ARGUMENT", "OK", "NOT_FOUND"]
    wanted = [request.request_id for request in mixed_requests()]
    assert [entry["request_id"] for entry in found][: len(wanted)] == wanted
    status, text = replayed(journal, repository)
    assert status == 0, text
    repeated = sum("REPEATED" in entry["flags"] for entry in found)  # type: ignore[operator]
    assert repeated == 2  # two requests were sent twice: the second time nothing is decided
    assert f"{Counter(codes)['OK'] + 1 - repeated:,} decisions and 0 published ticks compared, 0 differ" in text


def ask_until_it_dies(server: Served, requests: int, start: int) -> list[str]:
    """Kill a server that four callers ask without pause; the ids of the requests that it answered."""
    answered: list[str] = []
    enough = threading.Event()

    def ask(symbol: str) -> None:
        for number, request in enumerate(zigzag(symbol, 100_000)):
            request.request_id = f"{start}-{symbol}-{number}"
            try:
                server.predict(request)
            except grpc.RpcError:
                return
            answered.append(request.request_id)
            if len(answered) > requests:
                enough.set()

    threads = [threading.Thread(target=ask, args=(f"SYM{k}",)) for k in range(4)]
    for thread in threads:
        thread.start()
    assert enough.wait(60)
    server.process.stop(signal.SIGKILL)
    for thread in threads:
        thread.join(60)
    return answered


def test_a_killed_server_has_journaled_every_request_it_answered_and_goes_on_behind_it(
    repository: Path, tmp_path: Path, soak: Callable[[int, int], int]
) -> None:
    journal = tmp_path / "journal"
    arguments = ("--journal", str(journal), "--clock", "replay")
    answered: list[str] = []
    kills = soak(1, 20)
    for start in range(kills):
        with served(repository, *arguments) as server:
            answered += ask_until_it_dies(server, 500 + 137 * start, start)
    with served(repository, *arguments) as server:
        again = server.predict(zigzag("AFTER", 1)[0])
    assert again.signal.reason == pb.REASON_FEATURES_NOT_READY
    written = Counter(entry["request_id"] for entry in decisions(journal))
    assert set(answered) <= set(written)
    assert max(written.values()) == 1
    status, text = replayed(journal, repository)
    assert status == 0, text
    assert f", {kills + 1} starts" in text
    verified = run("journal", "verify", str(journal))
    assert verified.returncode == 0, verified.stdout + verified.stderr


@pytest.fixture
def journaled(tmp_path: Path) -> tuple[Path, Path]:
    """A journal of some decisions, and the repository they were made with."""
    models = tmp_path / "models"
    publish_logistic(models, latency_budget_ms=60_000.0)
    with served(models, "--journal", str(tmp_path / "journal"), "--clock", "replay") as server:
        for request in zigzag("ONE", 40):
            server.predict(request)
    return tmp_path / "journal", models


def test_replay_refuses_a_repository_without_the_model_that_decided(journaled: tuple[Path, Path]) -> None:
    journal, models = journaled
    shutil.rmtree(models / "tiny")
    publish_logistic(models, name="other")
    status, text = replayed(journal, models)
    assert (status, "lacks tiny:1, which decided" in text) == (1, True)


def test_replay_refuses_a_model_whose_hash_is_another(journaled: tuple[Path, Path]) -> None:
    journal, models = journaled
    shutil.rmtree(models / "tiny")
    publish_logistic(models, weight=399.0)
    status, text = replayed(journal, models)
    assert (status, "that of the model that decided was" in text) == (1, True)


def test_replay_names_the_first_field_that_comes_out_otherwise(journaled: tuple[Path, Path]) -> None:
    journal, models = journaled

    def threshold(manifest: dict[str, object]) -> None:
        manifest["decision_threshold"] = 0.9999  # the graph stays, and with it the hash

    edit_manifest(models / "tiny" / "1", threshold)
    status, text = replayed(journal, models)
    assert status == 1
    assert "record " in text
    assert "reason was" in text


def used_and_trained_on(
    journal: Path, frame: pl.DataFrame, feature_set: FeatureSet
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Each row's vector as the journal has it, request ids being row numbers, and as training computes it."""
    used = np.full((frame.height, feature_set.width), np.nan, np.float32)
    with JournalReader(journal) as reader:
        entries = [entry for entry in reader if isinstance(entry, DecisionEntry)]
    assert len(entries) == frame.height
    for entry in entries:
        row = entry.row
        if row["vector_width"]:
            used[json.loads(row["request_id"])] = row["vector"][: row["vector_width"]]
    columns = ("exchange_ts_ns", "price", "size", "bid", "ask", "bid_size", "ask_size")
    return used, compute(feature_set, **{name: values(frame, name) for name in columns})


@pytest.mark.parametrize(("name", "computed"), [(SPOT_ETH, micro10), (USDM_BTC, micro32)])
def test_the_features_that_a_server_used_are_those_of_training_bit_for_bit(
    name: str, computed: Callable[[], FeatureSet], tmp_path: Path
) -> None:
    compare_used_and_trained_on(name, computed, tmp_path)


def test_so_on_every_capture(tmp_path: Path, soak: Callable[[int, int], int]) -> None:
    for number, name in enumerate((USDM_BTC, SPOT_ETH, SPOT_BTC, SPOT_BTC_NEXT)[: soak(1, len(CAPTURES))]):
        compare_used_and_trained_on(name, micro10, tmp_path / str(number))


def compare_used_and_trained_on(name: str, computed: Callable[[], FeatureSet], tmp_path: Path) -> None:
    frame, feature_set = ticks(name), computed()
    repository = tmp_path / "models"
    publish_logistic(repository, features=feature_set, latency_budget_ms=60_000.0)
    with served(repository, "--journal", str(tmp_path / "journal"), "--clock", "replay") as server:
        shape = ["--format", "binance", "--target", server.address, "--stream", "--batch", "64"]
        done = run("replay-ticks", str(capture_path(name)), *shape, "--deadline-ms", "30000")
    assert done.returncode == 0, done.stdout + done.stderr
    used, trained_on = used_and_trained_on(tmp_path / "journal", frame, feature_set)
    ready = ~np.isnan(trained_on).any(axis=1)
    assert ready.sum() >= frame.height - 2 * feature_set.warm_up_trades
    assert used.tobytes() == trained_on.tobytes()


def test_so_they_are_on_simulated_ticks_in_the_fast_lane_and_replay_as_they_were(tmp_path: Path) -> None:
    frame = simulate(500, 3, 0.2)
    models, journal = tmp_path / "models", tmp_path / "journal"
    publish_forest(models, features=micro32(), latency_budget_ms=60_000.0)
    with served(models, "--journal", str(journal), "--clock", "replay") as server:
        for index, row in enumerate(frame.iter_rows(named=True)):
            quote = (row["bid"], row["ask"], row["bid_size"], row["ask_size"])
            trade = (row["price"], row["size"])
            at_ns, sequence = row["exchange_ts_ns"], row["sequence"]
            request = tick("SIM", at_ns, sequence=sequence, trade=trade, quote=quote, request_id=str(index))
            server.predict(request)
    used, trained_on = used_and_trained_on(journal, frame, micro32())
    assert np.isfinite(used[100:]).all()
    assert used.tobytes() == trained_on.tobytes()
    status, text = replayed(journal, models)
    assert status == 0, text
    assert "500 decisions and 0 published ticks compared, 0 differ" in text
