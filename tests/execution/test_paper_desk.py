"""The paper desk on real ticks, as its users run it: killed in the middle, it loses no fill and books none twice."""

import gzip
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.packages import publish_logistic
from tests.support.real_data import SPOT_BTC, capture_path

from tickgate.v1 import market_pb2
from tickgate_client import write_csv
from tickgate_server.journal.entries import ControlEntry, DecisionEntry
from tickgate_server.journal.layout import ControlKind
from tickgate_server.journal.reader import JournalReader

LATE_S = 240.0
TICKGATE = [sys.executable, "-c", "from tickgate_client.cli import main; main()"]
PAPER = [*TICKGATE, "paper"]
DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "query.md"
TICKS = 900
SETTINGS = """
[risk]
risk_budget = 0.5
max_var = "off"
max_correlation = "off"
max_repeats = "off"
[observer]
mode = "none"
[shadow]
mode = "none"
"""
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
def feed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The capture's first trades, each with the quote in force, as a file that the client alone can read."""
    path = tmp_path_factory.mktemp("feed") / "ticks.csv.gz"
    write_csv(path, itertools.islice(trades_of(capture_path(SPOT_BTC)), TICKS))
    return path


def trades_of(path: Path) -> Iterator[market_pb2.Tick]:
    quote = None
    with gzip.open(path, "rt") as lines:
        for line in lines:
            message = json.loads(line.partition(" ")[2])
            said = message.get("data", {})
            if message.get("stream", "").endswith("@bookTicker"):
                bid, bid_size, ask, ask_size = (float(said[name]) for name in "bBaA")
                quote = market_pb2.Quote(bid=bid, ask=ask, bid_size=bid_size, ask_size=ask_size)
            elif message.get("stream", "").endswith("@trade"):
                trade = market_pb2.Trade(price=float(said["p"]), size=float(said["q"]))
                stamp_ns = int(said["T"]) * 1_000_000
                yield market_pb2.Tick(
                    symbol=said["s"], exchange_ts_ns=stamp_ns, sequence=said["t"], trade=trade, quote=quote
                )


def configured(folder: Path, feed: Path, models: Path) -> Path:
    (folder / "settings.toml").write_text(SETTINGS)
    path = folder / "paper.toml"
    said = f'folder = "run"\n[feed]\nsource = "{feed}"\n'
    path.write_text(f'{said}[server]\nmodels = "{models}"\nsettings = "settings.toml"\nwait_s = {LATE_S}\n{VENUE}')
    return path


def asked(folder: Path) -> int:
    path = folder / "run" / "progress.json"
    return int(json.loads(path.read_text())["asked"]) if path.exists() else 0


def finished(path: Path) -> dict[str, Any]:
    done = subprocess.run([*PAPER, str(path)], capture_output=True, text=True, timeout=LATE_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "P&L net" in done.stdout
    return dict(json.loads((path.parent / "run" / "report.json").read_text()))


def server_pid(folder: Path) -> int:
    return int((folder / "run" / "server.pid").read_text())


def reach(process: "subprocess.Popen[str]", folder: Path, ticks: int) -> None:
    """Wait until it has asked about so many ticks."""
    give_up = time.monotonic() + LATE_S
    while asked(folder) < ticks:
        assert process.poll() is None
        assert time.monotonic() < give_up
        time.sleep(0.002)


def run_killed(path: Path, moments: list[tuple[str, int]]) -> int:
    """Start it, kill what is named once so many ticks were asked about, and start the client again; its starts."""
    folder, starts = path.parent, 0
    while moments:
        starts += 1
        with subprocess.Popen([*PAPER, str(path)], stdout=subprocess.DEVNULL, text=True) as process:
            while moments:
                victim, ticks = moments.pop(0)
                reach(process, folder, ticks)
                if victim in ("server", "both"):
                    os.kill(server_pid(folder), signal.SIGKILL)
                if victim in ("client", "both"):
                    process.kill()
                    break
            else:
                process.kill()
    return starts + 1


def journal_of(folder: Path) -> tuple[dict[int, Any], list[Any]]:
    """The server's approvals by order id, and the fills that it booked."""
    approved: dict[int, Any] = {}
    fills = []
    for entry in JournalReader(folder):
        if isinstance(entry, DecisionEntry) and entry.row["order_size"] > 0.0:
            approved[entry.sequence] = entry.row
        elif isinstance(entry, ControlEntry) and entry.code == ControlKind.FILL and not entry.restated:
            fills.append(entry.payload)
    return approved, fills


def by_sql(folder: Path) -> list[dict[str, Any]]:
    """What the decision log says of each symbol, asked as the document says."""
    (sql,) = re.findall(r"```sql\n([^`]*slippage_bps[^`]*)```", DOCUMENT.read_text())
    told = ["--journal", str(folder / "journal"), "--archive", str(folder / "log")]
    for command in (["archive", "run"], ["query", sql, "--format", "json"]):
        done = subprocess.run([*TICKGATE, *command, *told], capture_output=True, text=True, timeout=LATE_S, check=False)
        assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_client_and_server_killed_in_turn_on_a_real_capture_lose_no_fill_and_book_none_twice(
    models: Path, feed: Path, tmp_path: Path, soak: Callable[[int, int], int]
) -> None:
    path = configured(tmp_path, feed, models)
    kills = soak(2, 20)
    victims = itertools.islice(itertools.cycle(["server", "both", "client"]), kills)
    starts = run_killed(path, [(victim, (at + 1) * TICKS // (kills + 1)) for at, victim in enumerate(victims)])
    report = finished(path)
    assert (report["starts"], report["ticks"], report["positions_agree"]) == (starts, TICKS, True)
    assert (report["reports_refused"], report["differences"]) == (0, [])
    assert sum(report["reasons"].values()) == TICKS
    assert report["run"] in (path.parent / "run" / "report.html").read_text()

    rows = by_sql(path.parent / "run")
    assert [row.keys() for row in rows] == [row.keys() for row in report["symbols"]]
    for mine, told in zip(rows, report["symbols"], strict=True):
        assert mine.pop("symbol") == told["symbol"]
        assert mine == pytest.approx({name: told[name] for name in mine}, rel=1e-9, abs=1e-9)
    row = report["symbols"][0]
    approved, fills = journal_of(tmp_path / "run" / "journal")
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
    log = [json.loads(line)["event"] for line in (tmp_path / "run" / "server.log").read_text().splitlines()]
    assert log[-1] == "stopped"
