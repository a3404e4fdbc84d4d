"""`tickgate halt`, `reduce`, `resume`, `portfolio` and `risk`, as a person at a terminal uses them."""

import getpass
import json
import queue
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.support.desk import ACTIVE, DeskOf, desk_of
from tests.support.packages import publish_logistic
from tests.support.processes import CALL_S, TICKGATE, Served, run, served

from tickgate.symbol_hash import worker_of
from tickgate.v1 import portfolio_pb2 as pb

READY = "workers serving"
ME = f"{getpass.getuser()}@{socket.gethostname()}"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    publish_logistic(folder, latency_budget_ms=60_000.0)
    return folder


@pytest.fixture(scope="module")
def one(models: Path) -> Iterator[DeskOf]:
    with served(models) as server, desk_of(server) as desk:
        yield desk


@pytest.fixture(scope="module")
def two(models: Path) -> Iterator[Served]:
    with served(models, "--workers", "2", ready=READY, environment={"TICKGATE_RISK__MAX_VAR": "25000"}) as server:
        yield server


def at(server: Served) -> tuple[str, ...]:
    return ("--journal", str(server.process.journal), "--timeout-s", str(CALL_S))


def tell(server: Served, *arguments: str) -> str:
    """What a command printed that went well."""
    ended = run(*arguments, *at(server))
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout


def rows(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in table.splitlines() if line.startswith("│")]


def row(table: str, first: str) -> list[str]:
    return next(cells for cells in rows(table) if cells[0] == first)


# -- trading state -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("verb", "state"), [("halt", "HALTED"), ("reduce", "REDUCING"), ("resume", "ACTIVE")])
def test_a_verb_sets_the_trading_state_and_says_who_did_and_why(one: DeskOf, verb: str, state: str) -> None:
    said = tell(one.server, verb, "--reason", "a [red]drill")
    assert said.startswith(f"{state} since 2")
    assert said.endswith(f" UTC, by {ME}: a [red]drill\n")
    found = one.portfolio().desk
    assert (found.who, found.reason) == (ME, "a [red]drill")
    assert said.splitlines()[0] in tell(one.server, "portfolio", "show")
    assert said.splitlines()[0] in tell(one.server, "risk", "show")


@pytest.mark.parametrize("verb", [["halt"], ["portfolio", "set", "A", "1", "1"], ["risk", "reload"]])
def test_without_a_reason_nothing_is_changed(one: DeskOf, verb: list[str]) -> None:
    before = one.portfolio()
    assert "Missing option '--reason'" in run(*verb, *at(one.server)).stderr
    ended = run(*verb, "--reason", "", *at(one.server))
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith(f"Error: {one.server.admin}: INVALID_ARGUMENT: reason: expected ")
    assert one.portfolio() == before


def test_every_worker_is_told(two: Served) -> None:
    said = tell(two, "halt", "--reason", "drill").splitlines()
    assert [line[:16] for line in said] == ["worker 0: HALTED", "worker 1: HALTED"]
    assert tell(two, "resume", "--reason", "drill").count("ACTIVE") == 2


def test_a_worker_that_cannot_be_told_is_named_and_the_others_are_told(one: DeskOf, tmp_path: Path) -> None:
    nobody = f"unix:{tmp_path / 'none'}"
    ended = run("halt", "--reason", "drill", "--admin", nobody, "--admin", one.server.admin)
    assert ended.returncode == 1
    assert ended.stdout.startswith("worker 1: HALTED since ")
    assert ended.stderr == f"Error: worker 0 ({nobody}): no server listens there (No such file or directory)\n"
    tell(one.server, "resume", "--reason", "drill")


def test_a_server_that_is_not_there_is_an_error_in_one_line(tmp_path: Path) -> None:
    for verb in (["halt", "--reason", "drill"], ["portfolio", "show"], ["portfolio", "watch"], ["risk", "show"]):
        ended = run(*verb, "--journal", str(tmp_path))
        assert ended.returncode == 1
        address = f"unix:{tmp_path / 'admin.sock'}"
        assert ended.stderr.startswith(f"Error: {address}: no server listens there")
        assert len(set(ended.stderr.splitlines())) == 1
        assert ended.stdout == ""


def test_settings_without_an_admin_listener_are_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    ended = run("halt", "--reason", "drill", "--journal", "none")
    assert ended.returncode == 1
    assert "these settings have no admin listener" in ended.stderr
    file = tmp_path / "tickgate.toml"
    file.write_text("[server]\nadmin_listen = 'none'\n")
    assert "--admin names one" in run("halt", "--reason", "drill", "--config", str(file)).stderr


def test_the_settings_say_where_the_workers_are(two: Served, tmp_path: Path) -> None:
    file = tmp_path / "tickgate.toml"
    file.write_text(f"[server]\nworkers = 2\n[journal]\nfolder = '{two.process.journal}'\n")
    ended = run("resume", "--reason", "drill", "--config", str(file))
    assert (ended.returncode, ended.stdout.count("ACTIVE")) == (0, 2)


# -- portfolio ---------------------------------------------------------------------------------------------------------


def test_positions_and_orders_are_shown(one: DeskOf) -> None:
    one.fill("shown", "SHOWN", 2.5, price=1234.5)
    order = one.order("SHOWN", 4.0, side=pb.SIDE_SELL)
    table = tell(one.server, "portfolio", "show")
    position = row(table, "SHOWN")
    assert position[:5] == ["SHOWN", "2.5", "0", "4", "1,234.5"]
    found = row(table, str(order.order_id))
    assert found[1:] == ["SHOWN", "sell", "4", "4", "accepted", "when it is reported"]
    assert {"gross", "net", "value at risk"} <= {cells[0] for cells in rows(table)}


def test_the_portfolio_is_told_to_programs(one: DeskOf) -> None:
    one.fill("json", "JSON", 1.0)
    found = json.loads(tell(one.server, "portfolio", "show", "--json"))
    (worker,) = found["workers"]
    assert (worker["worker"], worker["address"]) == (0, one.server.admin)
    positions = {position["symbol"]: position["filled"] for position in worker["portfolio"]["positions"]}
    assert positions["JSON"] == 1.0


@pytest.mark.parametrize(("size", "cost"), [("-0.25", "61000"), ("12", "1e3")])
def test_a_position_is_stated_long_or_short(one: DeskOf, size: str, cost: str) -> None:
    said = tell(one.server, "portfolio", "set", "STATED", size, cost, "--reason", "opening balance")
    assert said == f"STATED: {size} at {float(cost):,.0f}\n"
    (position,) = one.portfolio("STATED").positions
    assert (position.filled, position.average_cost) == (float(size), float(cost))


def test_a_position_is_stated_at_the_worker_that_has_the_symbol(two: Served) -> None:
    symbols = [next(f"W{n}" for n in range(100) if worker_of(f"W{n}", 2) == worker) for worker in range(2)]
    for symbol in symbols:
        tell(two, "portfolio", "set", symbol, "3", "10", "--reason", "opening balance")
    table = tell(two, "portfolio", "show")
    assert [row(table, symbol)[-1] for symbol in symbols] == ["0", "1"]
    found = json.loads(tell(two, "portfolio", "show", "--json"))["workers"]
    assert [[one["symbol"] for one in worker["portfolio"]["positions"]] for worker in found] == [[s] for s in symbols]


class Watching:
    """A running `tickgate portfolio watch`."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)

    def line(self) -> str:
        return self._lines.get(timeout=CALL_S)

    def end(self) -> tuple[int, str]:
        assert self.process.stderr is not None
        status = self.process.wait(CALL_S)
        self._reader.join(CALL_S)
        return status, self.process.stderr.read()


@contextmanager
def watching(server: Served, *arguments: str) -> Iterator[Watching]:
    command = [TICKGATE, "portfolio", "watch", *arguments, *at(server)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield Watching(process)
        finally:
            process.kill()


def test_a_watcher_sees_changes_until_it_is_interrupted(one: DeskOf) -> None:
    one.set_state(ACTIVE)
    with watching(one.server) as watcher:
        assert "  ACTIVE  " in watcher.line()
        tell(one.server, "halt", "--reason", "drill")
        assert "  HALTED  " in watcher.line()
        tell(one.server, "resume", "--reason", "drill")
        assert "  ACTIVE  " in watcher.line()
        watcher.process.send_signal(signal.SIGINT)
        assert watcher.end() == (0, "")


def test_a_program_watches_too_and_learns_that_the_server_has_ended(models: Path) -> None:
    with served(models) as server, desk_of(server) as desk, watching(server, "--json") as watcher:
        assert json.loads(watcher.line())["portfolio"]["positions"] == []
        desk.fill("w", "WATCHED", 2.0)
        (position,) = json.loads(watcher.line())["portfolio"]["positions"]
        assert (position["symbol"], position["filled"]) == ("WATCHED", 2.0)
        assert server.process.stop() == 0
        assert watcher.end() == (1, f"Error: {server.admin}: the server has ended the watch: it drains\n")


# -- limits ------------------------------------------------------------------------------------------------------------


def test_every_limit_is_shown_with_what_is_used_of_it(one: DeskOf) -> None:
    tell(one.server, "portfolio", "set", "USED", "1000", "100", "--reason", "drill")
    table = tell(one.server, "risk", "show")
    assert row(table, "confidence_threshold") == ["confidence_threshold", "0.55", "-", "-"]
    assert row(table, "max_order_size")[1] == "no limit"
    gross = json.loads(tell(one.server, "portfolio", "show", "--json"))["workers"][0]["portfolio"]["gross"]
    assert gross >= 100_000.0
    assert row(table, "max_gross_exposure")[1:3] == ["1,000,000", f"{gross:,.2f}"]
    assert "One process holds every limit whole." in table


def limits_of(server: Served) -> tuple[dict[str, Any], list[Any]]:
    found = json.loads(tell(server, "risk", "show", "--json"))
    return {one["limit"]: one for one in found["limits"]}, found["workers"]


def test_the_slices_of_the_workers_are_shown_and_their_sum(two: Served) -> None:
    table = tell(two, "risk", "show")
    assert row(table, "max_gross_exposure")[1:4] == ["1,000,000", "500,000", "1,000,000"]
    assert row(table, "max_order_notional")[1:4] == ["100,000", "-", "-"]
    assert "Each of 2 workers holds 1/2 of the limits that have a slice" in table
    assert "That is conservative" in table
    limits, workers = limits_of(two)
    assert [worker["limits"]["max_drawdown"] for worker in workers] == [12_500.0, 12_500.0]
    assert (limits["max_drawdown"]["whole"], limits["max_drawdown"]["slice"], limits["max_drawdown"]["sum"]) == (
        25_000.0,
        12_500.0,
        25_000.0,
    )
    assert limits["max_order_notional"]["slice"] is None


def test_the_fullest_worker_is_measured_against_its_own_slice(two: Served) -> None:
    symbol = next(f"F{n}" for n in range(100) if worker_of(f"F{n}", 2) == 1)
    before = limits_of(two)[0]["max_gross_exposure"]
    tell(two, "portfolio", "set", symbol, "1000", "100", "--reason", "drill")
    found = limits_of(two)[0]["max_gross_exposure"]
    assert found["used"] == pytest.approx(before["used"] + 100_000.0)
    assert found["share"] == pytest.approx(found["used"] / 1_000_000.0)
    assert found["fullest"] > 1.9 * found["share"]  # all but little of it is one worker's


def test_limits_that_are_the_same_are_not_changed_by_reading_them_again(one: DeskOf, two: Served) -> None:
    assert tell(one.server, "risk", "reload", "--reason", "drill") == "nothing changed\n"
    assert tell(two, "risk", "reload", "--reason", "drill") == "worker 0: nothing changed\nworker 1: nothing changed\n"


def test_help_of_the_verbs_needs_no_server() -> None:
    for verb in ("halt", "reduce", "resume", "portfolio", "risk"):
        ended = run(verb, "--help")
        assert (ended.returncode, ended.stderr) == (0, "")


def test_a_model_is_reopened_by_name_and_version_and_one_that_is_not_there_is_named(one: DeskOf) -> None:
    assert tell(one.server, "risk", "reopen", "tiny", "1", "--reason", "looked at") == "tiny:1 is open\n"
    ended = run("risk", "reopen", "tiny", "9", "--reason", "looked at", *at(one.server))
    assert ended.returncode == 1
    assert "expected a version that is loaded, got 'tiny:9'" in ended.stderr
