"""What Predict's tail pays for a Redis in trouble, and how long a warm start takes.

`python -m bench --part store`. One server with a store; its Redis is healthy and in trouble by turns, and each pair of
runs begins with the other of the two; the figure is the median over the pairs of (p99 in trouble / p99 healthy). The
same load with the store off stands beside it. The store's process runs where nobody else wants the core, so on a
machine that the load fills it lags, and what it conflates is printed. Asserts nothing.
"""

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
from bench.requests import write_requests
from bench.rpc import Shape, load
from rich.table import Table
from tests.support.processes import Served, served
from tests.support.redis_server import RedisServer, redis_server

from tickgate_server.engine import Engine, EngineSettings
from tickgate_server.features.schema import micro10, micro32
from tickgate_server.features.store import FeatureStore
from tickgate_server.models.registry import load_repository
from tickgate_server.states.codec import pack_state
from tickgate_server.states.file import read_kept
from tickgate_server.states.state import copy_state
from tickgate_server.store.connection import StoreConnection
from tickgate_server.store.fetching import Wanted, fetch
from tickgate_server.store.keys import Keys
from tickgate_server.store_settings import StoreSettings
from tickgate_server.store_status import read_status
from tickgate_server.ticks.market import MarketState

RATE = 2_000
CONNECTIONS = 8
SYMBOLS = 1_000
BACK_S = 30.0

Fault = tuple[str, Callable[[], object], Callable[[], object]]


def store(repository: Path, pairs: int, seconds: float) -> list[Table]:
    """The tables."""
    return [_faults(repository, pairs, seconds), _warm_starts(repository)]


def _faults(repository: Path, pairs: int, seconds: float) -> Table:
    table = Table(title=f"p99 of Predict, open loop, {RATE:,}/s, {CONNECTIONS} connections: {pairs} alternating pairs")
    for heading in (
        "Redis is",
        "healthy us",
        "in trouble us",
        "ratio",
        "back after s",
        "written/s",
        "conflated",
        "lost",
    ):
        table.add_column(heading, justify="left" if heading == "Redis is" else "right")
    with tempfile.TemporaryDirectory(prefix="tickgate-bench-store-") as name:
        folder = Path(name)
        with redis_server(folder / "redis", "--maxmemory-policy", "noeviction") as redis:
            environment = {
                "TICKGATE_STORE__MODE": "standalone",
                "TICKGATE_STORE__NODES": json.dumps([redis.address]),
                "TICKGATE_STORE__USER": "bench",
                "TICKGATE_STORE__PASSWORD": "bench",
            }
            _let_in(redis, "bench")
            own = ("--clock", "replay", "--journal", str(folder / "journal"))
            with served(repository, *own, environment=environment) as server:
                _until_connected(folder / "journal")
                runs = _Runs(server, folder)
                for fault in _faults_of(redis):
                    _row(table, runs, fault, folder / "journal", pairs, seconds)
    return table


def _row(table: Table, runs: "_Runs", fault: Fault, journal: Path, pairs: int, seconds: float) -> None:
    name, begin, end = fault
    healthy, troubled, back = [], [], []
    before = read_status(journal)
    for pair in range(pairs):
        for trouble in (False, True) if pair % 2 == 0 else (True, False):
            if trouble:
                begin()
            (troubled if trouble else healthy).append(runs.p99_us(seconds))
            if trouble:
                end()
                back.append(_until_connected(journal))
    after = read_status(journal)
    if before is None or after is None:
        raise SystemExit("bench: the store's process left no status")
    ratio = median(bad / good for bad, good in zip(troubled, healthy, strict=True))
    span_s = (after.clock_ns - before.clock_ns) / 1e9
    table.add_row(
        name,
        f"{median(healthy):,.0f}",
        f"{median(troubled):,.0f}",
        f"{ratio:.2f}",
        f"{max(back):.2f}",
        f"{(after.written_vectors - before.written_vectors) / span_s:,.0f}",
        f"{after.conflated - before.conflated:,}",
        f"{after.dropped - before.dropped:,}",
    )


def _faults_of(redis: RedisServer) -> list[Fault]:
    def revive() -> None:
        redis.start()
        _let_in(redis, "bench")

    def lock_out() -> None:
        _let_in(redis, "another")
        redis.client().execute_command("CLIENT", "KILL", "USER", "bench")

    return [
        ("killed", redis.kill, revive),
        ("paused", redis.pause, redis.resume),
        (
            "full",
            lambda: redis.client().config_set("maxmemory", "1"),
            lambda: redis.client().config_set("maxmemory", 0),
        ),
        ("locked", lock_out, lambda: _let_in(redis, "bench")),
    ]


def _let_in(redis: RedisServer, word: str) -> None:
    own = {"enabled": True, "reset_passwords": True, "keys": ["*"], "commands": ["+@all"]}
    redis.client().acl_setuser("bench", passwords=[f"+{word}"], **own)


def _until_connected(journal: Path) -> float:
    began = time.monotonic()
    while time.monotonic() < began + BACK_S:
        status = read_status(journal)
        if status is not None and status.connected:
            break
        time.sleep(0.01)
    return time.monotonic() - began


class _Runs:
    """Runs of load, each on symbols of its own."""

    def __init__(self, server: Served, folder: Path) -> None:
        self._server = server
        self._folder = folder
        self._run = 0

    def p99_us(self, seconds: float) -> int:
        self._run += 1
        prefix = self._folder / f"run{self._run}"
        write_requests(
            prefix, CONNECTIONS, int(RATE / CONNECTIONS * (seconds + 1)), stream=False, symbols=f"R{self._run}C"
        )
        try:
            return load(self._server.address, prefix, Shape("", CONNECTIONS, rate=RATE), seconds)["p99"]
        finally:
            for connection in range(CONNECTIONS):
                prefix.with_suffix(f".{connection}").unlink()


def _warm_starts(repository: Path) -> Table:
    table = Table(title=f"warm start of {SYMBOLS:,} symbols, seconds: the median of 5")
    for heading in ("feature sets", "MB", "found, checked, kept", "taken by the engine", "in all"):
        table.add_column(heading, justify="left" if heading == "feature sets" else "right")
    registry = load_repository(repository)
    with tempfile.TemporaryDirectory(prefix="tickgate-bench-store-") as name:
        folder = Path(name)
        with redis_server(folder / "redis") as redis:
            settings = StoreSettings(mode="standalone", nodes=(redis.address,))
            for sets in ([micro10()], [micro10(), micro32()]):
                stores = [FeatureStore(features, 1) for features in sets]
                size = _fill(settings, stores)
                fetched, taken = [], []
                for _ in range(5):
                    found = fetch(settings, Wanted(folder, folder, SYMBOLS))
                    engine = Engine(EngineSettings(replay=True), registry)
                    began_s = time.perf_counter()
                    engine.take_states(found.sha256, read_kept(folder, found.sha256))
                    taken.append(time.perf_counter() - began_s)
                    fetched.append(found.took_s)
                    engine.close()
                both = median(one + other for one, other in zip(fetched, taken, strict=True))
                names = ", ".join(features.name for features in sets)
                table.add_row(
                    names, f"{size / 1e6:.1f}", f"{median(fetched):.3f}", f"{median(taken):.3f}", f"{both:.3f}"
                )
    return table


def _fill(settings: StoreSettings, stores: list[FeatureStore]) -> int:
    """States of SYMBOLS symbols in Redis, of random numbers; their bytes."""
    rng = np.random.default_rng(1)
    state = MarketState(1)
    state.sequences[:] = rng.integers(1, 1 << 40, state.sequences.shape)
    connection, keys = StoreConnection(settings), Keys()
    size = 0
    for number in range(SYMBOLS):
        for feature_store in stores:
            feature_store.prices[:] = rng.random(feature_store.prices.shape)
        symbol = f"S{number}"
        value = pack_state(copy_state(symbol, 0, state, stores, journal_sequence=1, ticks=1), 1)
        size += len(value)
        connection.write(
            [
                lambda pipeline, symbol=symbol, value=value: pipeline.set(keys.state(symbol), value, ex=3600),
                lambda pipeline, symbol=symbol: pipeline.zadd(keys.states(), {symbol: 1.0}),
            ]
        )
    connection.close()
    return size
