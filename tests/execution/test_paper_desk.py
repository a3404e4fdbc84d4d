"""The paper desk on real ticks, as its users run it: killed in the middle, it loses no fill and books none twice."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.support.packages import publish_logistic
from tests.support.processes import CALL_S, CHANNEL_OPTIONS, Served, served
from tests.support.real_data import SPOT_BTC, capture_path

from tickgate.v1 import portfolio_pb2 as pb
from tickgate.v1.portfolio_pb2_grpc import PortfolioServiceStub
from tickgate_client import read_ticks, write_csv
from tickgate_server.journal.entries import ControlEntry, DecisionEntry
from tickgate_server.journal.layout import ControlKind
from tickgate_server.journal.reader import JournalReader
from tickgate_server.risk.reports import OrderState

LATE_S = 240.0
PAPER = [sys.executable, "-c", "from tickgate_client.cli import main; main()", "paper"]
RISK = {"risk_budget": 0.5, "max_repeats": "off", "max_orders_per_s_symbol": "off", "max_orders_per_s": "off"}
VENUE = """
[calls]
deadline_ms = 30000
[sla]
limit_us = 10e6
stall_us = 20e6
[venue]
seed = 7
fee_bps = 1.0
reject_probability = 0.05
[venue.latency]
kind = "lognormal"
median_us = 20000
sigma = 1.0
[plan]
kind = "twap"
slices = 3
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    publish_logistic(folder, weight=40_000.0, latency_budget_ms=60_000.0)
    return folder


@pytest.fixture(scope="module")
def server(models: Path) -> Iterator[Served]:
    environment = {f"TICKGATE_RISK__{name.upper()}": str(value) for name, value in RISK.items()}
    with served(models, "--clock", "replay", environment=environment) as found:
        yield found


@pytest.fixture(scope="module")
def feed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The capture's first trades, each with the quote in force, as a file that the client alone can read."""
    path = tmp_path_factory.mktemp("feed") / "ticks.csv.gz"
    write_csv(path, itertools.islice(read_ticks("binance", capture_path(SPOT_BTC)), 1_000))
    return path


def configured(folder: Path, feed: Path, server: str, ticks: int) -> Path:
    path = folder / "paper.toml"
    said = f'folder = "run"\n[feed]\nsource = "{feed}"\nlimit = {ticks}\n'
    path.write_text(f"{said}[server]\nwait_s = {LATE_S}\n{server}\n{VENUE}")
    return path


def asked(folder: Path) -> int:
    path = folder / "run" / "progress.json"
    return int(json.loads(path.read_text())["asked"]) if path.exists() else 0


def finished(path: Path) -> dict[str, Any]:
    done = subprocess.run([*PAPER, str(path)], capture_output=True, text=True, timeout=LATE_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "P&L net" in done.stdout
    return dict(json.loads((path.parent / "run" / "report.json").read_text()))


def kill_after(path: Path, ticks: int) -> None:
    """Run it until it has asked about so many ticks."""
    with subprocess.Popen([*PAPER, str(path)], stdout=subprocess.DEVNULL) as process:
        give_up = time.monotonic() + LATE_S
        while asked(path.parent) < ticks:
            assert process.poll() is None
            assert time.monotonic() < give_up
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGKILL)


def test_killed_twice_on_a_real_capture_no_fill_is_lost_or_doubled_and_no_late_signal_executed(
    server: Served, feed: Path, tmp_path: Path
) -> None:
    path = configured(tmp_path, feed, f'target = "{server.address}"\nservice = "{server.service}"', 1_000)
    kill_after(path, 300)
    kill_after(path, 650)
    report = finished(path)
    assert (report["starts"], report["ticks"], report["positions_agree"]) == (3, 1_000, True)
    assert report["reports_refused"] == 0

    row = report["symbols"][0]
    with grpc.insecure_channel(server.service, options=CHANNEL_OPTIONS) as channel:
        portfolio = PortfolioServiceStub(channel).GetPortfolio(pb.GetPortfolioRequest(), timeout=CALL_S).portfolio
    assert {one.symbol: one.filled for one in portfolio.positions if one.filled} == pytest.approx(
        {row["symbol"]: row["position"]} if row["position"] else {}, abs=1e-9
    )
    assert [one for one in portfolio.orders if one.state == OrderState.ACCEPTED] == []

    approved: dict[int, Any] = {}
    fills = []
    for entry in JournalReader(server.process.journal):
        if isinstance(entry, DecisionEntry) and entry.row["order_size"] > 0.0:
            approved[entry.sequence] = entry.row
        elif isinstance(entry, ControlEntry) and entry.code == ControlKind.FILL:
            fills.append(entry.payload)
    assert len(fills) == row["fills"] > 20
    assert len({fill["fill_id"] for fill in fills}) == len(fills)
    cash = sum((-1 if fill["side"] == 1 else 1) * fill["size"] * fill["price"] - fill["fee"] for fill in fills)
    assert row["net"] == pytest.approx(cash + row["position"] * row["price"], abs=1e-6)
    filled: dict[int, float] = {}
    for fill in fills:
        order = approved[fill["order_id"]]
        filled[fill["order_id"]] = filled.get(fill["order_id"], 0.0) + fill["size"]
        began_ns, valid_ns = int(order["exchange_ts_ns"]), int(order["valid_for_us"]) * 1000
        assert began_ns <= fill["exchange_ts_ns"] < began_ns + valid_ns
        sign = 1 if fill["side"] == 1 else -1
        assert sign * fill["price"] <= sign * order["limit_price"]
    assert all(units <= approved[order_id]["order_size"] * (1 + 1e-9) for order_id, units in filled.items())


def test_a_run_with_a_server_of_its_own_reports_and_the_server_ends_with_it(
    models: Path, feed: Path, tmp_path: Path
) -> None:
    (tmp_path / "settings.toml").write_text(
        '[risk]\nrisk_budget = 0.5\nmax_var = "off"\nmax_correlation = "off"\nmax_repeats = "off"\n'
    )
    report = finished(configured(tmp_path, feed, f'models = "{models}"\nsettings = "settings.toml"', 250))
    assert report["ticks"] == sum(report["reasons"].values()) == report["statuses"]["OK"] == 250
    assert sum(report["orders"].values()) > 0
    page = (tmp_path / "run" / "report.html").read_text()
    assert report["run"] in page
    assert "Profit and loss" in page
    log = [json.loads(line)["event"] for line in (tmp_path / "run" / "server.log").read_text().splitlines()]
    assert "serving" in log
    assert log[-1] == "stopped"
