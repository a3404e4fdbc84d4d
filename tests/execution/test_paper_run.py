"""Paper runs against a server that runs already: the same ticks and seed give the same fills, and nobody hangs."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.execution.scripted_desk import HALTED, ScriptedDesk
from tests.execution.test_gateway import S, Signals

from tickgate.v1 import market_pb2, signal_pb2
from tickgate.v1 import portfolio_pb2 as pb
from tickgate_client import ServerUnavailable, write_csv
from tickgate_client.execution.commands import paper
from tickgate_client.paper.config import read_config
from tickgate_client.paper.report import document_of
from tickgate_client.paper.run import PaperResult, PaperRun

TICKS = 80


@contextmanager
def desk() -> Iterator[ScriptedDesk]:
    """A server that wants to buy with every fifth tick, and to sell with the one after."""
    found = ScriptedDesk()
    signals = Signals(numbers=itertools.count(1))

    def answer(request: signal_pb2.PredictRequest) -> signal_pb2.PredictResponse:
        number = int(request.request_id.rpartition("-")[2])
        price = request.tick.trade.price
        signals.changes = {
            0: {"size": 3.0, "limit_price": price + 1.0},
            1: {"size": 2.0, "limit_price": price - 1.0, "action": signal_pb2.ACTION_SELL},
        }.get(number % 5)
        return signals(request)

    found.signals.answer = answer
    found.start()
    try:
        yield found
    finally:
        found.stop()


def configured(folder: Path, target: str, seed: int = 0, wait_s: float = 60.0) -> Path:
    folder.mkdir()
    ticks = [
        market_pb2.Tick(
            symbol="A",
            exchange_ts_ns=S + number * S // 4,
            sequence=number + 1,
            trade=market_pb2.Trade(price=100.0 + number % 3 / 10, size=5.0),
        )
        for number in range(TICKS)
    ]
    write_csv(folder / "ticks.csv", ticks)
    path = folder / "paper.toml"
    path.write_text(
        f'folder = "run"\n[feed]\nsource = "ticks.csv"\n[server]\ntarget = "{target}"\nservice = "{target}"\n'
        f"wait_s = {wait_s}\n[sla]\nlimit_us = 10e6\nstall_us = 20e6\n[venue]\nseed = {seed}\n"
        'reject_probability = 0.1\n[venue.latency]\nkind = "lognormal"\nmedian_us = 200000\nsigma = 1\n'
    )
    return path


def played(folder: Path, seed: int = 0) -> tuple[PaperResult, list[pb.ReportFillRequest]]:
    with desk() as server:
        result = PaperRun(read_config(configured(folder, server.target, seed))).run()
        assert result.account.positions() == server.positions()
        return result, list(server.fills.values())


def test_the_same_ticks_and_seed_give_the_same_fills_and_another_seed_others(tmp_path: Path) -> None:
    result, fills = played(tmp_path / "a")
    assert result.reconciliation.agrees
    assert len(fills) > 10
    assert played(tmp_path / "b")[1] == fills
    assert played(tmp_path / "c", seed=1)[1] != fills
    document = document_of(result)
    assert document["orders"]["REJECTED"] > 0
    assert sum(document["orders"].values()) == 2 * TICKS // 5
    assert document["symbols"][0]["fills"] == len(fills)


def test_a_halted_desk_executes_nothing_and_says_why(tmp_path: Path) -> None:
    with desk() as server:
        server.set_state(HALTED)
        path = configured(tmp_path / "a", server.target)
        done = CliRunner().invoke(paper, [str(path), "--no-live"])
        assert done.exit_code == 0, done.output
        assert "DESK_HALTED" in done.output
        assert server.fills == {}
        assert all(one.state == pb.ORDER_STATE_CANCELLED for one in server.orders)


def test_a_server_that_does_not_come_back_ends_the_run(tmp_path: Path) -> None:
    with desk() as server:
        run = PaperRun(read_config(configured(tmp_path / "a", server.target, wait_s=0.5)), lambda _run: server.stop())
        with pytest.raises(ServerUnavailable, match="did not come back within"):
            run.run()


def test_positions_that_differ_at_the_end_are_an_error(tmp_path: Path) -> None:
    with desk() as server:
        server.opening = {"Z": 4.0}
        done = CliRunner().invoke(paper, [str(configured(tmp_path / "a", server.target)), "--live"])
        assert done.exit_code == 1
        assert "positions do not agree: see the report" in done.output
        assert "POSITIONS_DIFFER" in done.output
