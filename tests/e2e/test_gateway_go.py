"""The gateway in Go, built from a fresh copy by its one command, beside the Python client: same ticks, same signals."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.support.desk import ACTIVE, HALTED, REDUCING, desk_of
from tests.support.messages import zigzag
from tests.support.packages import publish_logistic
from tests.support.processes import START_UP_S, Served, run, served
from tests.support.programs import absent, program
from tests.support.real_data import SPOT_BTC_NEXT, capture_path

from tickgate.v1 import portfolio_pb2, portfolio_pb2_grpc, signal_pb2
from tickgate_client import write_csv
from tickgate_server.journal.entries import DecisionEntry
from tickgate_server.journal.reader import JournalReader
from tickgate_training.data.messages import read_binance

GO = program("go", "builds the gateway in Go")
ROOT = Path(__file__).resolve().parents[2]
# Compiling gRPC for the first time takes minutes on a busy machine.
pytestmark = pytest.mark.timeout(1200)

# What is another from run to run: times, and the record's place in the journal, which is the order's id.
TIMED = ("sequence", "timing_ns", "asked_budget_ns", "budget_ns")
# Orders that pass, valid for longer than any of these runs.
RISK = {
    "TICKGATE_RISK__CONFIDENCE_THRESHOLD": "0.5",
    "TICKGATE_RISK__VALID_FOR_US": "30000000",
    "TICKGATE_RISK__RISK_BUDGET": "5",
    "TICKGATE_RISK__MAX_OPEN_OPPOSITE": "off",
    "TICKGATE_OBSERVER__MODE": "none",
}
REPLAY = ("--clock", "replay", "--metrics-listen", "")


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built program."""
    folder = tmp_path_factory.mktemp("go") / "gateway-go"
    shutil.copytree(
        ROOT / "examples" / "gateway-go", folder, ignore=shutil.ignore_patterns("build", "tickgatev1", ".generated")
    )
    modules = subprocess.run([GO, "mod", "download"], cwd=folder, capture_output=True, text=True, check=False)
    if modules.returncode != 0:
        absent(f"the modules of the gateway in Go cannot be had: {modules.stderr}")
    subprocess.run(["make", "-C", str(folder), f"PROJECT={ROOT}", f"PYTHON={sys.executable}"], check=True)  # noqa: S607
    return folder / "build" / "gateway"


@pytest.fixture(scope="module")
def ticks(tmp_path_factory: pytest.TempPathFactory, soak: Callable[[int, int], int]) -> Path:
    """The first trades of a real capture, with their quotes."""
    path = tmp_path_factory.mktemp("ticks") / "ticks.csv"
    found = list(read_binance(str(capture_path(SPOT_BTC_NEXT))))[: soak(1_000, 10_000)]
    assert write_csv(path, found) == soak(1_000, 10_000)
    return path


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    publish_logistic(folder, weight=20_000.0, latency_budget_ms=60_000.0)
    return folder


@pytest.fixture(scope="module")
def server(models: Path) -> Iterator[Served]:
    """One for the tests that need no fresh one: each has symbols and request ids of its own."""
    with served(models, *REPLAY, environment=RISK) as running:
        yield running


def started(gateway: Path, *arguments: object, **options: Any) -> subprocess.Popen[str]:
    command = [str(gateway), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def ended(gateway: Path, *arguments: object) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of a run."""
    process = started(gateway, *arguments)
    out, error = process.communicate(timeout=START_UP_S)
    return process.returncode, out, error


def decisions(folder: Path) -> list[dict[str, Any]]:
    """What the server decided, but for times."""
    with JournalReader(folder) as reader:
        found = [entry.as_dict() for entry in reader if isinstance(entry, DecisionEntry)]
    return [{name: value for name, value in entry.items() if name not in TIMED} for entry in found]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def reference(
    models: Path, ticks: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[bytes, list[dict[str, Any]]]:
    """What the Python client was answered, and what its server journaled."""
    out = tmp_path_factory.mktemp("python") / "answers.jsonl"
    with served(models, *REPLAY, environment=RISK) as server:
        done = run("replay-ticks", str(ticks), "--target", server.address, "--deadline-ms", "30000", "--out", str(out))
        assert done.returncode == 0, done.stderr
        server.process.stop()
        return out.read_bytes(), decisions(server.process.journal)


@pytest.mark.parametrize("shape", [(), ("-stream", "-in-flight", "8")])
def test_the_gateways_in_go_and_python_get_identical_signals(
    gateway: Path,
    models: Path,
    ticks: Path,
    reference: tuple[bytes, list[dict[str, Any]]],
    tmp_path: Path,
    shape: tuple[str, ...],
) -> None:
    answers, journaled = reference
    out, orders = tmp_path / "answers.jsonl", tmp_path / "orders.jsonl"
    with served(models, *REPLAY, environment=RISK) as server:
        desk = ("-service", server.service, "-orders", orders, "-out", out)
        status, said, error = ended(gateway, "-target", server.address, "-deadline", "30s", *desk, *shape, ticks)
        assert (status, error) == (0, "gateway: trading state: TRADING_STATE_ACTIVE, set by tickgate: start\n"), said
        server.process.stop()
        assert decisions(server.process.journal) == journaled
    assert out.read_bytes() == answers
    approved = [answer for answer in lines(out) if answer["approved"]]
    assert {answer["action"] for answer in approved} == {"BUY", "SELL"}
    assert len({answer["reason"] for answer in lines(out)}) >= 3
    columns = {"request_id": "request_id", "symbol": "symbol", "side": "action", "size": "size"}
    columns["limit_price"] = "limit_price"
    assert [{name: order[name] for name in columns} for order in lines(orders)] == [
        {name: answer[column] for name, column in columns.items()} for answer in approved
    ]


def test_a_halted_desk_gets_no_orders_and_its_state_is_told(gateway: Path, server: Served, tmp_path: Path) -> None:
    path, orders = tmp_path / "ticks.csv", tmp_path / "orders.jsonl"
    write_csv(path, [request.tick for request in zigzag("HALTED", 40)])
    with desk_of(server) as desk:
        assert desk.set_state(HALTED, "feed is wrong").state == HALTED
        listeners = ("-target", server.address, "-service", server.service)
        arguments = (*listeners, "-orders", orders, "-id-prefix", "drill-", path)
        status, said, error = ended(gateway, *arguments)
        assert (status, orders.read_text()) == (0, ""), error
        assert "trading state: TRADING_STATE_HALTED, set by tester: feed is wrong" in error
        assert re.search(r"reason +TRADING_STATE_HALTED", said)
        assert desk.set_state(ACTIVE).state == ACTIVE
        orders.unlink()
        # The same requests again are the server's to refuse: not one is sent as an order.
        status, said, error = ended(gateway, *arguments)
        assert (status, orders.read_text()) == (0, ""), error


class Elsewhere(portfolio_pb2_grpc.PortfolioServiceServicer):
    """A desk that is in another state than the server which approves."""

    def __init__(self, state: signal_pb2.TradingState.ValueType) -> None:
        self._state = state

    def WatchTradingState(  # noqa: N802 - the contract's name
        self, _request: portfolio_pb2.WatchTradingStateRequest, context: grpc.ServicerContext
    ) -> Iterator[portfolio_pb2.WatchTradingStateResponse]:
        ended = threading.Event()
        context.add_callback(ended.set)
        yield portfolio_pb2.WatchTradingStateResponse(desk=portfolio_pb2.DeskState(state=self._state))
        ended.wait()


@pytest.mark.parametrize(("state", "verdict"), [(HALTED, "halted"), (REDUCING, "only reducing"), (ACTIVE, "act")])
def test_approved_orders_are_held_back_by_the_state_that_the_gateway_watches(
    gateway: Path, server: Served, tmp_path: Path, state: signal_pb2.TradingState.ValueType, verdict: str
) -> None:
    path, orders = tmp_path / "ticks.csv", tmp_path / "orders.jsonl"
    symbol = verdict.replace(" ", "-")
    write_csv(path, [request.tick for request in zigzag(symbol, 60)])
    desk = grpc.server(ThreadPoolExecutor(2))
    portfolio_pb2_grpc.add_PortfolioServiceServicer_to_server(Elsewhere(state), desk)
    service = f"127.0.0.1:{desk.add_insecure_port('127.0.0.1:0')}"
    desk.start()
    try:
        arguments = ("-target", server.address, "-service", service, "-orders", orders, "-id-prefix", f"{symbol}-")
        status, said, error = ended(gateway, *arguments, "-json", path)
    finally:
        desk.stop(None).wait()
    assert status == 0, error
    result = json.loads(said)
    approved = result["by_reason"].get("APPROVED", 0)
    assert approved > 0, result["by_reason"]
    assert result["by_verdict"] == {"hold": 60 - approved, verdict: approved}
    assert len(lines(orders)) == (approved if state == ACTIVE else 0)


def test_what_goes_wrong_is_said_in_a_line_and_is_the_exit_status(
    gateway: Path, server: Served, tmp_path: Path
) -> None:
    good, bad = tmp_path / "ticks.csv", tmp_path / "bad.csv"
    requests = zigzag("WRONG", 20)
    write_csv(good, [request.tick for request in requests])
    bad.write_text("".join(good.read_text().splitlines(keepends=True)[:5]) + "WRONG,1,2,three,4,,,,,\n")
    target = ("-target", server.address)
    soon = ("-connect-timeout", "300ms")
    missing = str(tmp_path / "none.csv")
    for arguments, status, message in (
        (("-target", "127.0.0.1:1", *soon, good), 1, "no server at 127.0.0.1:1 within 300ms"),
        ((*target, "-service", "127.0.0.1:1", *soon, good), 1, "listener 127.0.0.1:1: no trading state: "),
        ((*target, "-model", "none", good), 1, "tick 0 of WRONG: NOT_FOUND: "),
        ((*target, "-stream", "-model", "none", good), 1, "tick 0 of WRONG: NOT_FOUND: "),
        ((*target, bad), 1, f'{bad}, line 6, column price: found "three", expected a finite number'),
        ((*target, missing), 1, f"{missing}: no such file"),
        ((*target, "-orders", tmp_path / "orders", good), 2, "-orders needs -service"),
        ((good,), 2, "-target is missing"),
        ((*target, "-sla", "p50=1us,max=60s", good), 3, "SLA breached: p50 of the round trip is "),
        ((*target, "-sla", "p50=1m,max=60s", good), 0, ""),
    ):
        found, said, error = ended(gateway, *arguments)
        assert found == status, (arguments, said, error)
        assert message in error, (arguments, error)
        assert len(error.splitlines()) == (1 if message else 0), error
        assert "panic" not in error


def test_the_result_as_json_counts_what_was_answered(gateway: Path, server: Served, tmp_path: Path) -> None:
    path = tmp_path / "ticks.csv.gz"
    write_csv(path, [request.tick for request in zigzag("COUNTED", 40)])
    status, said, error = ended(
        gateway, "-target", server.address, "-json", "-limit", "30", "-id-prefix", "json-", path
    )
    assert status == 0, error
    result = json.loads(said)
    assert (result["sent"], result["answered"], result["by_status"]) == (30, 30, {"OK": 30})
    assert sum(result["by_reason"].values()) == sum(result["by_action"].values()) == 30
    assert result["by_reason"]["FEATURES_NOT_READY"] == 10
    for part in ("round_trip", "server", "network"):
        latency = result["latency"][part]
        assert latency["count"] == 30
        assert 0 < latency["p50_us"] <= latency["p99_us"] <= latency["p999_us"] <= latency["max_us"]
    assert result["latency"]["server"]["max_us"] < result["latency"]["round_trip"]["max_us"]


@pytest.mark.parametrize("shape", [(), ("-stream", "-in-flight", "4")])
def test_an_interrupted_run_has_written_the_answer_to_every_tick_it_sent(
    gateway: Path, server: Served, tmp_path: Path, shape: tuple[str, ...]
) -> None:
    path, out = tmp_path / "ticks.csv", tmp_path / "answers"
    write_csv(path, [request.tick for request in zigzag(f"LONG{len(shape)}", 10_000)])
    os.mkfifo(out)
    named = ("-id-prefix", f"long{len(shape)}-")
    process = started(gateway, "-target", server.address, "-deadline", "30s", "-out", out, *shape, *named, path)
    with out.open(encoding="utf-8") as answers:
        found = [answers.readline() for _ in range(100)]
        process.send_signal(signal.SIGINT)
        found += answers.readlines()
    _, error = process.communicate(timeout=START_UP_S)
    assert process.returncode == 128 + signal.SIGINT, error
    assert error == f"gateway: interrupted after {len(found)} ticks\n"
    assert len(found) < 10_000
    assert [json.loads(line)["index"] for line in found] == list(range(len(found)))
    assert Counter(json.loads(line)["code"] for line in found) == {"OK": len(found)}
