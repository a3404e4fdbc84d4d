"""`tickgate feed` as its users run it: a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from click.testing import CliRunner
from tests.feeds.feed_process import feed_process, wait_until
from tests.feeds.market_server import Break, Market, MarketServer, tick, ticks
from tests.support.packages import publish_logistic
from tests.support.processes import Served, run, served
from tests.support.redis_server import RedisServer, redis_server

from tickgate_client import write_csv
from tickgate_client.feeds.commands import feed
from tickgate_client.feeds.redis_entries import fields_of_tick
from tickgate_server.journal.published import published_of
from tickgate_server.journal.reader import JournalReader


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    path = tmp_path / "ticks.csv"
    write_csv(path, ticks(2500, symbols=20))
    return path


def file(path: Path, target: str) -> list[str]:
    return ["--source", "file", "-o", f"path={path}", "--target", target, "--feed", "recorded"]


def test_a_file_is_fed_to_the_workers_of_its_symbols_and_summed_up(recorded: Path, market: Market) -> None:
    with MarketServer(market, workers=2) as server:
        found = run("feed", *file(recorded, server.target))
    assert found.returncode == 0, found.stderr
    assert "2,500 of 2,500 ticks answered" in found.stdout
    rows = [[part.strip() for part in line.split("│")[1:4]] for line in found.stdout.splitlines() if "│" in line]
    assert ["server", "accepted", "2,500"] in rows
    assert ["source", "through", "2,500"] in rows
    assert len(market.accepted) == 2500


def test_what_the_server_rejects_is_shown_by_its_reason(recorded: Path, server: MarketServer) -> None:
    run("feed", *file(recorded, server.target))
    found = run("feed", *file(recorded, server.target))
    row = next(line for line in found.stdout.splitlines() if "TICK_DUPLICATE" in line)
    assert "2,480" in row  # the latest of each of 20 symbols are repeated
    assert found.returncode == 0


def test_a_server_that_stays_away_ends_it_with_1_when_its_patience_is_over(
    recorded: Path, server: MarketServer
) -> None:
    server.stop()
    found = run("feed", *file(recorded, server.target), "--patience-s", "0.2")
    assert found.returncode == 1
    assert found.stderr.splitlines()[-1].startswith("Error: UNAVAILABLE: ")
    assert "0 of 0 ticks answered" in found.stdout


def test_a_stream_that_is_refused_ends_it_with_1(recorded: Path, server: MarketServer, market: Market) -> None:
    market.fault = lambda _worker, _ticks: Break(grpc.StatusCode.PERMISSION_DENIED, "this role may not publish")
    found = run("feed", *file(recorded, server.target))
    assert found.returncode == 1
    assert "Error: PERMISSION_DENIED: this role may not publish" in found.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--source", "kafka"], "no tick source 'kafka'; there are: "),
        (["--source", "file"], "source file, option path: found nothing"),
        (["--source", "simulator", "-o", "rate"], "'rate' is not NAME=VALUE"),
        (["--source", "simulator", "-o", "rate=1", "-o", "rate=2"], "rate is given twice"),
        (["--source", "simulator", "--metrics", "9090"], "--metrics is '9090', must be HOST:PORT"),
        (["--source", "simulator", "--feed", "f" * 33], "must be 1 to 32 bytes of UTF-8"),
        (["--source", "simulator", "--tls-key", "x"], "a certificate and its key go together"),
    ],
)
def test_what_cannot_be_run_is_said_in_a_line(arguments: list[str], said: str) -> None:
    found = CliRunner().invoke(feed, ["--target", "127.0.0.1:1", "--feed", "f", *arguments])
    assert isinstance(found.exception, SystemExit)
    assert found.exit_code in {1, 2}
    assert said in found.output


def test_without_redis_installed_the_extra_is_named() -> None:
    code = "import sys\nsys.modules['redis'] = None\nfrom tickgate_client.cli import main\nmain(prog_name='tickgate')\n"
    command = [sys.executable, "-c", code, "feed", "--source", "redis-streams", "-o", "stream=s"]
    found = subprocess.run([*command, "--target", "x", "--feed", "f"], capture_output=True, text=True, check=False)
    assert found.returncode == 1
    assert "tick source 'redis-streams' needs packages that are not installed" in found.stderr
    assert "pip install 'tickgate[server]'" in found.stderr


def test_metrics_say_where_it_stands_and_sigterm_ends_it_with_0(server: MarketServer, market: Market) -> None:
    simulated = ["--source", "simulator", "-o", "rate=2000", "--target", server.target, "--feed", "sim"]
    with feed_process(*simulated, "--metrics", "127.0.0.1:0") as running:
        url = running.wait_for_text("metrics: ").partition(" ")[2]
        wait_until(lambda: len(market.accepted) >= 100)
        values = scraped(url)
        assert running.stop() == 0
    assert values['tickgate_feed_published_ticks_total{feed="sim"}'] >= 100
    assert values['tickgate_feed_ticks_total{feed="sim",outcome="accepted",reason=""}'] > 0
    assert values['tickgate_feed_reconnects_total{feed="sim"}'] == 0
    assert f"{len(market.accepted):,} of {len(market.accepted):,} ticks answered" in running.output


def test_sigterm_while_the_server_is_away_ends_it_with_0_and_says_what_is_left(server: MarketServer) -> None:
    simulated = ["--source", "simulator", "-o", "rate=2000", "--target", server.target, "--feed", "sim"]
    with feed_process(*simulated, "--drain-s", "0.1", "--metrics", "127.0.0.1:0") as running:
        running.wait_for_text("metrics: ")
        server.stop()
        running.wait_for_text("trying again")
        assert running.stop() == 0
    assert "ticks answered" in running.output


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    models = tmp_path_factory.mktemp("models")
    publish_logistic(models, latency_budget_ms=60_000.0)
    with served(models, "--workers", "2", "--clock", "replay", ready="workers serving") as running:
        yield running


def test_a_real_server_whose_worker_dies_in_the_middle_answers_for_every_tick(two_workers: Served) -> None:
    total = 20_000
    simulated = ["--source", "simulator", "-o", f"ticks={total}", "-o", "rate=10000", "-o", "symbols=50"]
    given = [*simulated, "--target", two_workers.address, "--feed", "sim", "--metrics", "127.0.0.1:0"]
    with feed_process(*given, "--window", "1000") as running:
        url = running.wait_for_text("metrics: ").partition(" ")[2]
        wait_until(lambda: scraped(url)['tickgate_feed_answered_ticks_total{feed="sim"}'] > total / 10)
        os.kill(two_workers.process.logged("worker started")[-1]["pid"], signal.SIGKILL)
        assert running.wait() == 0, running.output
    assert f"{total:,} of {total:,} ticks answered" in running.output
    assert "trying again" in running.output


def test_what_comes_through_redis_and_a_killed_feed_is_applied_once_and_in_order(
    two_workers: Served, tmp_path: Path
) -> None:
    given = [tick(f"R{at % 10}", at // 10 + 1, 100 + at % 3) for at in range(5000)]
    with redis_server(tmp_path) as redis:
        with redis.client().pipeline(transaction=False) as pipeline:
            for one in given:
                pipeline.xadd("ticks", fields_of_tick(one))
            pipeline.execute()
        options = [
            "-o",
            f"url=redis://{redis.address}",
            "-o",
            "stream=ticks",
            "-o",
            "claim_idle_s=0.3",
            "-o",
            "entries=50",
        ]
        arguments = ["--source", "redis-streams", *options, "--target", two_workers.address, "--feed", "redis"]
        with feed_process(*arguments, "--window", "200") as running:
            wait_until(lambda: acknowledged(redis) > 500)
            running.stop(signal.SIGKILL)
        assert acknowledged(redis) < 5000
        with feed_process(*arguments) as running:
            wait_until(lambda: acknowledged(redis) == 5000)
            assert running.stop() == 0
    applied = [one for index in range(2) for one in applied_of(two_workers.process.journal / f"worker-{index}")]
    for symbol in {one.symbol for one in given}:
        assert [number for name, number in applied if name == symbol] == list(range(1, 501))


def acknowledged(redis: RedisServer) -> int:
    """Entries that the group is done with."""
    groups = redis.client().xinfo_groups("ticks")
    return groups[0]["entries-read"] - groups[0]["pending"] if groups and groups[0]["entries-read"] else 0


def applied_of(journal: Path) -> list[tuple[str, int]]:
    """Symbol and sequence of each published tick that a worker applied, in order."""
    found: list[tuple[str, int]] = []
    with JournalReader(journal) as reader:
        while (rows := reader.poll(1024)).size:
            applied = published_of(rows, reader.symbols).applied()
            names = [name.decode() for name in applied.symbols.tolist()]
            found += zip(names, applied.ticks["tick_sequence"].tolist(), strict=True)
    return found


def scraped(url: str) -> dict[str, float]:
    """Every sample of a metrics page."""
    with urllib.request.urlopen(url, timeout=30) as response:  # noqa: S310 - the process's own
        lines = response.read().decode().splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines) if name[0] != "#"}
