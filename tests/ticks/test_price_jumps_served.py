"""A trade held back as a price jump: what a request is told, what features see of it, and that a replay knows it."""

import time
from pathlib import Path

import numpy as np
import pytest
from tests.support.messages import START_NS, tick
from tests.support.packages import publish_forest, publish_logistic

from tickgate.v1 import signal_pb2 as pb
from tickgate_server.engine import Engine, EngineSettings
from tickgate_server.features.micro10 import batch
from tickgate_server.features.schema import micro10
from tickgate_server.journal.writer import JournalWriter
from tickgate_server.models.registry import load_repository
from tickgate_server.records import TICK, Decision, Request
from tickgate_server.replay import replay
from tickgate_server.rpc.answers import Answers
from tickgate_server.ticks.market import TRADE
from tickgate_training.retraining.journal_ticks import read_journals

DEADLINE_EXCEEDED = 4
JUMP = pb.REASON_TICK_PRICE_JUMP
QUIET = [100.0 + 0.01 * (index % 3) for index in range(30)]


@pytest.fixture(params=["forest", "logistic"])  # by the fast lane, and by the general path
def repository(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    publish = publish_forest if request.param == "forest" else publish_logistic
    publish(tmp_path / "models", latency_budget_ms=60_000.0)
    return tmp_path / "models"


class Server:
    def __init__(self, repository: Path, journal: Path) -> None:
        self.journal = JournalWriter(journal, segment_records=1024)
        self.engine = Engine(EngineSettings(replay=True), load_repository(repository), journal=self.journal)
        self.answers = Answers(self.engine)
        self.asked = 0

    def reason(self, price: float) -> int:
        self.asked += 1
        request = tick("A", START_NS + self.asked, sequence=self.asked, trade=(price, 1.0))
        answer = self.answers.predict(request.SerializeToString(), time.perf_counter_ns(), 0)
        assert isinstance(answer, bytes)
        return pb.PredictResponse.FromString(answer).signal.reason

    def vector(self) -> np.ndarray:
        return self.engine.feature_stores[0].vectors[0].copy()

    def close(self) -> None:
        self.answers.close()
        self.engine.close()
        self.journal.close()


def test_features_never_see_a_spike_and_see_a_move_once_it_is_confirmed(repository: Path, tmp_path: Path) -> None:
    server = Server(repository, tmp_path / "journal")
    reasons = [server.reason(price) for price in QUIET]
    assert JUMP not in reasons
    before = server.vector()
    assert server.reason(102.0) == JUMP
    assert server.vector().tobytes() == before.tobytes()
    assert server.reason(100.01) != JUMP  # a spike it was
    stamps_ns = np.array([*range(1, 31), 32]) + START_NS
    expected = batch(stamps_ns, np.array([*QUIET, 100.01]), np.ones(31), 0)[-1]
    assert server.vector().tobytes() == expected.tobytes()
    assert server.reason(102.0) == JUMP
    assert server.reason(102.01) != JUMP  # a move it is: both count
    stamps_ns = np.array([*range(1, 31), 32, 33, 34]) + START_NS
    expected = batch(stamps_ns, np.array([*QUIET, 100.01, 102.0, 102.01]), np.ones(33), 0)[-1]
    assert server.vector().tobytes() == expected.tobytes()
    server.close()
    found = replay(tmp_path / "journal", repository)
    assert (found.decisions, found.differing) == (34, 0)
    ticks = read_journals([tmp_path / "journal"], [], micro10(), 100)
    assert ticks.frame["price"].to_list() == [*QUIET, 100.01, 102.0, 102.01]
    assert ticks.features[-1].tobytes() == expected.tobytes()


def test_a_replay_knows_of_a_trade_held_back_whose_request_ran_out_of_time(repository: Path, tmp_path: Path) -> None:
    server = Server(repository, tmp_path / "journal")
    for price in QUIET:
        server.reason(price)
    # As `Answers` does where the budget ends while it encodes.
    spike = Request(input=TICK, symbol="A", kind=TRADE, exchange_ts_ns=START_NS + 31, price=102.0, size=1.0)
    spike.arrival_ns = time.perf_counter_ns()
    decision = Decision()
    assert server.engine.decide(spike, decision)
    assert decision.reason == JUMP
    server.engine.recorder.record(spike, decision, request_id="", status=DEADLINE_EXCEEDED)
    server.asked += 1
    assert server.reason(102.01) != JUMP
    server.close()
    found = replay(tmp_path / "journal", repository)
    assert (found.decisions, found.applied_only, found.differing) == (31, 1, 0)
