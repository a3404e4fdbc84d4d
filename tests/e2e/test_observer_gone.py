"""Without an observer only reducing orders pass, within the stated age; with it all do again."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.support.desk import DeskOf, desk_of
from tests.support.messages import tick
from tests.support.packages import publish_logistic
from tests.support.processes import Served, served

from tickgate.v1 import signal_pb2 as pb
from tickgate_server.risk import data
from tickgate_server.risk.data import RiskData
from tickgate_server.risk.regimes import Regime

SYMBOLS = ("FLAT", "LONG")
ENVIRONMENT = {
    "TICKGATE_RISK__MAX_VAR": "1e9",
    "TICKGATE_RISK__MAX_CORRELATION": "off",
    "TICKGATE_RISK__MAX_RISK_DATA_AGE_S": "1",
    # Nothing expires, repeats or nets while the test looks: each answer is the gate's to the state of the data.
    "TICKGATE_RISK__VALID_FOR_US": "1",
    "TICKGATE_RISK__MAX_REPEATS": "1e6",
    "TICKGATE_RISK__RISK_BUDGET": "0.1",
}


class Asking:
    """Trades of the symbols, the last one a rise or a fall as the test wants; sequences go on."""

    def __init__(self, server: Served) -> None:
        self._server = server
        self._number = 0

    def trade(self, symbol: str, price: float) -> pb.PredictResponse:
        self._number += 1
        return self._server.predict(tick(symbol, time.time_ns(), sequence=self._number, trade=(price, 1.0)))

    def until(self, symbol: str, reason: "pb.Reason.ValueType", action: int | None = None) -> pb.PredictResponse:
        """Trade up and down until an answer is as wanted; the test's own time limit ends it."""
        while True:
            for price in (100.0, 100.1):
                answer = self.trade(symbol, price)
                if answer.signal.reason == reason and action in {None, answer.signal.action}:
                    return answer


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Served]:
    publish_logistic(tmp_path / "models", latency_budget_ms=60_000.0)
    n = len(SYMBOLS)
    first = RiskData(
        time.time_ns(), SYMBOLS, np.eye(n) * 1e-4, np.zeros((0, n)), np.full(n, int(Regime.NORMAL), np.int8)
    )
    data.write(tmp_path / "models" / data.FILE_NAME, first)
    with served(tmp_path / "models", environment=ENVIRONMENT, observed=True) as running:
        yield running


def value_at_risk(answer: pb.PredictResponse) -> pb.RiskCheck:
    return next(check for check in answer.signal.checks if check.reason == pb.REASON_VAR_PORTFOLIO)


def held(desk: DeskOf) -> None:
    desk.fill("opening", "LONG", 1_000.0)


def test_while_the_observer_stands_still_only_reducing_orders_pass(server: Served) -> None:
    asking = Asking(server)
    pid = int(server.process.logged("observer started")[-1]["pid"])
    assert asking.until("FLAT", pb.REASON_APPROVED).signal.approved
    with desk_of(server) as desk:
        held(desk)
    os.kill(pid, signal.SIGSTOP)
    try:
        denied = asking.until("FLAT", pb.REASON_VAR_PORTFOLIO)
        assert np.isnan(value_at_risk(denied).value)
        exit_order = asking.until("LONG", pb.REASON_APPROVED, pb.ACTION_SELL)
        assert exit_order.signal.reducing
        assert not value_at_risk(exit_order).passed
        assert value_at_risk(exit_order).waived
    finally:
        os.kill(pid, signal.SIGCONT)
    again = asking.until("FLAT", pb.REASON_APPROVED)
    assert value_at_risk(again).passed


def test_after_the_observer_was_killed_and_started_again_all_orders_pass(server: Served) -> None:
    asking = Asking(server)
    assert asking.until("FLAT", pb.REASON_APPROVED).signal.approved
    os.kill(int(server.process.logged("observer started")[-1]["pid"]), signal.SIGKILL)
    server.process.wait_for("risk data stale: reducing orders only")
    server.process.wait_for("risk data fresh")
    assert value_at_risk(asking.until("FLAT", pb.REASON_APPROVED)).passed
