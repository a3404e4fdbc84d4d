"""A whole server with a store: warm after a restart and beside another; what befalls Redis befalls nobody else."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from threading import Event, Thread

import pytest
from tests.store.feeding import ask as ask_engine
from tests.store.feeding import feed, scored, serving
from tests.support.packages import publish_forest
from tests.support.processes import Served, run, served
from tests.support.programs import program
from tests.support.redis_server import RedisServer, redis_server

from tickgate.v1 import signal_pb2 as pb
from tickgate_server.config import Settings, load
from tickgate_server.models.registry import load_repository
from tickgate_server.replay import replay
from tickgate_server.store.keys import Keys
from tickgate_server.store.service import read_warm_start
from tickgate_server.store.warm_start import begin_warm_start
from tickgate_server.store_status import StoreStatus, read_status

program("redis-server", "is level 2 of the feature store")
WAIT_S = 60.0
BACK_S = 5.0
USER, WORD = "desk", "hush-hush"
SYMBOLS, OTHERS = "ABC", "XYZ"
REQUESTS = feed(SYMBOLS, 360)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    publish_forest(folder, name="ten", latency_budget_ms=60_000.0)
    return folder


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis"), "--maxmemory-policy", "noeviction") as server:
        let_in(server, WORD)
        yield server


def let_in(server: RedisServer, word: str) -> None:
    everything = {"keys": ["*"], "commands": ["+@all"]}
    server.client().acl_setuser(USER, enabled=True, reset_passwords=True, passwords=[f"+{word}"], **everything)


def environment_of(server: RedisServer) -> dict[str, str]:
    return {
        "TICKGATE_STORE__MODE": "standalone",
        "TICKGATE_STORE__NODES": json.dumps([server.address]),
        "TICKGATE_STORE__USER": USER,
        "TICKGATE_STORE__PASSWORD": WORD,
        "TICKGATE_STORE__WRITE_INTERVAL_S": "0.1",
        "TICKGATE_STORE__TIMEOUT_S": "0.2",
        "TICKGATE_STORE__SCHEDULING": "normal",  # a test waits for it
        "TICKGATE_STORE__WARM_START_LIMIT_S": "30",
    }


def serve(models: Path, folder: Path, redis: RedisServer) -> AbstractContextManager[Served]:
    # Without an observer: the store needs none, and each is a process.
    own = ("--clock", "replay", "--journal", str(folder), "--metrics-listen", "")
    return served(models, *own, environment=environment_of(redis) | {"TICKGATE_OBSERVER__MODE": "none"})


def until(holds: Callable[[], object], within_s: float = WAIT_S) -> float:
    """Wait until it holds; how long it took, in seconds."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() < began + within_s
        time.sleep(0.01)
    return time.monotonic() - began


def status_of(folder: Path) -> StoreStatus:
    until(lambda: read_status(folder) is not None)
    found = read_status(folder)
    assert found is not None
    return found


def ask(server: Served, requests: list[pb.PredictRequest]) -> None:
    for request in requests:
        server.predict(request)


def written(folder: Path, behind: int = 0) -> bool:
    status = status_of(folder)
    position = status.positions.get(folder.name)
    return status.connected and not status.dirty and position is not None and position.position >= behind


@pytest.fixture(scope="module")
def going_on(tmp_path_factory: pytest.TempPathFactory, models: Path, redis: RedisServer) -> Iterator[Served]:
    """A server, in folder "b", that began where another, in folder "a", was killed."""
    folder = tmp_path_factory.mktemp("journals")
    with serve(models, folder / "a", redis) as server:
        assert server.process.logged("warm start")[0]["taken"] == 0
        ask(server, REQUESTS[:120])
        server.process.process.send_signal(signal.SIGKILL)
        server.process.process.wait()
    # The store's process lives on, and writes what its server left in the journal.
    until(lambda: written(folder / "a", behind=120))
    with serve(models, folder / "b", redis) as server:
        ask(server, REQUESTS[120:240])
        yield server


@pytest.fixture(scope="module")
def folder(going_on: Served) -> Path:
    return Path(going_on.process.logged("journal opened")[0]["folder"]).parent


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, models: Path) -> list[tuple[str, int, bytes]]:
    """What a server scores that never stops."""
    own = tmp_path_factory.mktemp("c")
    with serving(load_repository(models), own) as (_, answers):
        ask_engine(answers, REQUESTS)
    return scored(own)


def test_a_server_goes_on_where_one_was_killed(
    folder: Path, models: Path, uninterrupted: list[tuple[str, int, bytes]]
) -> None:
    found = scored(folder / "a") + scored(folder / "b")
    assert found == uninterrupted[: len(found)]
    assert len(found) > 200
    assert replay(folder / "b", models).differing == 0


def test_a_second_server_goes_on_while_the_first_lives(
    tmp_path: Path, folder: Path, models: Path, redis: RedisServer, uninterrupted: list[tuple[str, int, bytes]]
) -> None:
    until(lambda: written(folder / "b", behind=120))
    with serving(load_repository(models), tmp_path) as (engine, answers):
        beginning = begin_warm_start(settings_of(redis, tmp_path, user=USER, password=WORD))
        assert beginning is not None
        beginning.give(engine)
        assert len(engine.waiting) == len(SYMBOLS)
        ask_engine(answers, REQUESTS[240:])
    assert scored(tmp_path) == uninterrupted[-120:]
    assert replay(tmp_path, models).differing == 0


class Load:
    """Requests one after the other, from a thread, until the end; each must be answered."""

    def __init__(self, server: Served, requests: list[pb.PredictRequest]) -> None:
        self.answered = 0
        self.failures: list[Exception] = []
        self._end = Event()
        self._thread = Thread(target=self._run, args=(server, requests))
        self._thread.start()

    def _run(self, server: Served, requests: list[pb.PredictRequest]) -> None:
        for request in requests:
            if self._end.wait(0.002):
                return
            try:
                server.predict(request)
                self.answered += 1
            except Exception as error:  # noqa: BLE001 - whatever it is, it must not be
                self.failures.append(error)

    def more(self, count: int = 20) -> None:
        """Wait for so many more answers."""
        wanted = self.answered + count
        until(lambda: self.answered >= wanted or not self._thread.is_alive())

    def close(self) -> None:
        self._end.set()
        self._thread.join()


def test_whatever_befalls_redis_every_request_is_answered_and_the_store_comes_back(
    going_on: Served, folder: Path, redis: RedisServer, soak: Callable[[int, int], int]
) -> None:
    away_s = soak(1, 10)
    folder = folder / "b"

    def kill() -> None:
        redis.kill()

    def revive() -> None:
        redis.start()  # empty
        let_in(redis, WORD)

    def fill() -> None:
        redis.client().config_set("maxmemory", "1")

    def lock_out() -> None:
        let_in(redis, "another")
        redis.client().execute_command("CLIENT", "KILL", "USER", USER)

    faults: list[tuple[str, Callable[[], object], Callable[[], object]]] = [
        ("unreachable", kill, revive),
        ("unreachable", redis.pause, redis.resume),
        ("full", fill, lambda: redis.client().config_set("maxmemory", "0")),
        ("denied", lock_out, lambda: let_in(redis, WORD)),
    ]
    load = Load(going_on, feed(OTHERS, 200_000 if away_s > 1 else 40_000))
    try:
        until(lambda: status_of(folder).written_vectors > 0)
        for kind, begin, end in faults:
            before = status_of(folder).errors.get(kind, 0)
            begin()
            until(lambda: not status_of(folder).connected)
            until(lambda kind=kind, before=before: status_of(folder).errors.get(kind, 0) > before)
            assert "store: not connected" in status_of(folder).text(time.time_ns())
            load.more()
            time.sleep(away_s - 1)
            vectors = status_of(folder).written_vectors
            end()
            took_s = until(lambda: status_of(folder).connected)
            until(lambda vectors=vectors: status_of(folder).written_vectors > vectors)
            until(lambda: redis.client().zcard(Keys().states()) == len(SYMBOLS + OTHERS))
            assert took_s < BACK_S
    finally:
        load.close()
    assert load.failures == []
    assert load.answered > 80
    until(lambda: written(folder))
    said = run("store", "status", "--journal", str(folder), environment=environment_of(redis))
    assert said.returncode == 0
    assert said.stdout.startswith("store: connected for ")
    own = status_of(folder).pid
    os.kill(own, signal.SIGKILL)  # and its process is started anew
    until(lambda: status_of(folder).pid != own)
    until(lambda: written(folder))


def settings_of(server: RedisServer, folder: Path, **changes: object) -> Settings:
    own = {"mode": "standalone", "nodes": [server.address], **changes}
    settings, _ = load(None, {"journal.folder": str(folder), **{f"store.{key}": own[key] for key in own}})
    return settings


def test_a_server_whose_redis_is_not_there_begins_cold(tmp_path: Path, models: Path) -> None:
    absent = RedisServer(tmp_path / "redis")  # never started
    with serving(load_repository(models), tmp_path) as (engine, _):
        beginning = begin_warm_start(settings_of(absent, tmp_path))
        assert beginning is not None
        beginning.give(engine)
        assert not engine.waiting
    assert "refused" in str(read_warm_start(tmp_path)["error"])


def test_a_store_that_hangs_is_not_waited_for_beyond_the_limit(tmp_path: Path, models: Path) -> None:
    with redis_server(tmp_path / "redis") as hanging, serving(load_repository(models), tmp_path) as (engine, _):
        hanging.pause()
        settings = settings_of(hanging, tmp_path, timeout_s=30.0, warm_start_limit_s=0.05)
        beginning = begin_warm_start(settings)
        assert beginning is not None
        beginning.give(engine)
    assert read_warm_start(tmp_path)["error"] == "the store gave nothing within 0.05 s"


def test_without_a_store_there_is_nothing_to_begin_with() -> None:
    assert begin_warm_start(Settings()) is None
