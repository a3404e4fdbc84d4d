"""The store's process at work with the real Redis: what it writes, what it goes on from, and Redis's bad days."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

import numpy as np
import pytest
from tests.store.feeding import Followed, all_states, ask, feed, replica_images, scored, serving
from tests.support.packages import publish_forest
from tests.support.programs import program
from tests.support.redis_server import RedisServer, redis_server

from tickgate.symbol_hash import worker_of
from tickgate_server.features.schema import micro10
from tickgate_server.models.registry import ModelRegistry, load_repository
from tickgate_server.states.codec import pack_state, unpack_state, unpack_vector
from tickgate_server.states.file import read_kept
from tickgate_server.store import checkpoint
from tickgate_server.store.connection import StoreConnection
from tickgate_server.store.errors import StoreError
from tickgate_server.store.feature_sets import FeatureSets
from tickgate_server.store.fetching import Wanted, fetch
from tickgate_server.store.keys import Keys, history_member
from tickgate_server.store.replica import Replica, Vectors
from tickgate_server.store.service import StoreService
from tickgate_server.store.writing import Writer, newest_of_each
from tickgate_server.store_settings import StoreSettings
from tickgate_server.store_status import FILE_NAME, StoreStatus, read_status

program("redis-server", "is level 2 of the feature store")
WAIT_S = 30.0
KEYS = Keys()
SCHEMA = micro10().schema_id


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    publish_forest(folder, name="ten", latency_budget_ms=60_000.0)
    return folder


@pytest.fixture(scope="module")
def registry(models: Path) -> ModelRegistry:
    return load_repository(models)


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path / "redis") as server:
        yield server


def settings_of(server: RedisServer, **changes: object) -> StoreSettings:
    own = {"write_interval_s": 0.05, "timeout_s": 0.2, "breaker_longest_s": 0.2}
    return StoreSettings.model_validate({"mode": "standalone", "nodes": [server.address], **own, **changes})


@contextmanager
def kept(settings: StoreSettings, folder: Path, models: Path) -> Iterator[None]:
    """The store's process, as a thread of the test; at the end it has written what there was."""
    end = Event()
    service = StoreService(settings, {"": folder}, folder, models)
    thread = Thread(target=service.run, args=(end,))
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join(WAIT_S)
        assert not thread.is_alive()


def until(holds: Callable[[], object]) -> None:
    give_up = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < give_up
        time.sleep(0.01)


def status_of(folder: Path) -> StoreStatus:
    found = read_status(folder)
    assert found is not None
    return found


def states_in(server: RedisServer) -> dict[str, bytes]:
    """The states that Redis has, without the wall clock of their writing."""
    names = [name.decode() for name in server.client().zrange(KEYS.states(), 0, -1)]
    found = {}
    for name in names:
        value = server.client().get(KEYS.state(name))
        assert isinstance(value, bytes)
        found[name] = pack_state(unpack_state(value, name, symbol=name), 0)
    return found


def expected_states(folder: Path, models: Path) -> dict[str, bytes]:
    states = all_states(Followed(folder, models).read(folder).replica)
    return {state.symbol: pack_state(state, 0) for state in states}


def test_every_vector_and_every_state_is_there_as_the_engine_has_them(
    tmp_path: Path, models: Path, registry: ModelRegistry, redis: RedisServer
) -> None:
    folder = tmp_path / "j"
    requests = feed("ABC", 400)
    with serving(registry, folder) as (_, answers):
        ask(answers, requests[:200])
        with kept(settings_of(redis, history=20), folder, models):
            ask(answers, requests[200:])
            until(lambda: redis.client().zcard(KEYS.states()) == 3)
    trades = [request.tick for request in requests if request.tick.HasField("trade")]
    sequences = {(tick.symbol, tick.exchange_ts_ns): tick.sequence for tick in trades}
    served = {key[:2]: key[2] for key in scored(folder) if key[:2] in sequences}
    client = redis.client()
    for (symbol, at_ns), vector in served.items():
        key = KEYS.vector(SCHEMA, symbol, sequences[symbol, at_ns])
        value = client.get(key)
        assert isinstance(value, bytes)
        found = unpack_vector(value, key, symbol=symbol, schema_id=SCHEMA)
        assert (found.exchange_ts_ns, found.counted, found.values.tobytes()) == (at_ns, False, vector)
        assert 0 < client.ttl(key) <= 300
    for symbol in "ABC":
        own = sorted(sequences[key] for key in served if key[0] == symbol)
        history = client.zrevrange(KEYS.history(SCHEMA, symbol), 0, -1)
        assert history == [history_member(sequence).encode() for sequence in own[::-1][:20]]
        assert client.get(KEYS.latest(SCHEMA, symbol)) == client.get(KEYS.vector(SCHEMA, symbol, own[-1]))
    assert states_in(redis) == expected_states(folder, models)
    status = status_of(folder)
    assert status.connected
    assert (status.dropped, status.conflated, status.queue, status.dirty) == (0, 0, 0, 0)
    assert status.positions["j"].followed
    assert status.positions["j"].behind_records == 0
    assert status.fresh(time.time_ns())


def test_a_process_that_is_started_again_goes_on_from_its_checkpoint(
    tmp_path: Path, models: Path, registry: ModelRegistry, redis: RedisServer
) -> None:
    folder = tmp_path / "j"
    requests = feed("ABC", 600)
    with serving(registry, folder) as (_, answers):
        ask(answers, requests[:300])
        with kept(settings_of(redis), folder, models):
            pass
        ask(answers, requests[300:])
    reached = checkpoint.restore(folder, Replica(folder, FeatureSets(models), lambda vectors: None)) - 1  # noqa: ARG005
    again = Followed(folder, models)
    assert checkpoint.restore(folder, again.replica) == reached + 1
    again.read(folder, start=reached + 1)
    whole = Followed(folder, models).read(folder)
    assert replica_images(again.replica) == replica_images(whole.replica)
    assert sum(len(some.symbols) for some in again.vectors) < sum(len(some.symbols) for some in whole.vectors)
    with kept(settings_of(redis), folder, models):
        pass
    assert states_in(redis) == expected_states(folder, models)


def test_a_checkpoint_of_another_journal_or_that_is_not_whole_is_refused(
    tmp_path: Path, models: Path, registry: ModelRegistry, redis: RedisServer
) -> None:
    for name in "ab":
        with serving(registry, tmp_path / name) as (_, answers):
            ask(answers, feed("ABC", 100, seed=ord(name)))
    with kept(settings_of(redis), tmp_path / "a", models):
        pass
    content = (tmp_path / "a" / checkpoint.FILE_NAME).read_bytes()
    for changed in (content, content[:-1], content[:50] + b"?" + content[51:]):
        (tmp_path / "b" / checkpoint.FILE_NAME).write_bytes(changed)
        replica = Replica(tmp_path / "b", FeatureSets(models), lambda vectors: None)  # noqa: ARG005
        with pytest.raises(checkpoint.CheckpointInvalid):
            checkpoint.restore(tmp_path / "b", replica)
        assert replica.run is None
    with kept(settings_of(redis), tmp_path / "b", models):
        pass
    assert states_in(redis) == expected_states(tmp_path / "b", models)


def test_a_redis_that_was_restarted_empty_gets_every_state_again(
    tmp_path: Path, models: Path, registry: ModelRegistry, redis: RedisServer
) -> None:
    folder = tmp_path / "j"
    with serving(registry, folder) as (_, answers):
        ask(answers, feed("ABC", 100))
    with kept(settings_of(redis), folder, models):
        until(lambda: redis.client().zcard(KEYS.states()) == 3 and status_of(folder).connected)
        redis.kill()
        until(lambda: not status_of(folder).connected)
        assert "refused" in status_of(folder).why.lower() or "closed" in status_of(folder).why.lower()
        redis.start()
        until(lambda: redis.client().zcard(KEYS.states()) == 3)
    assert states_in(redis) == expected_states(folder, models)


def test_states_that_a_server_left_are_written_though_the_next_one_has_started(
    tmp_path: Path, models: Path, registry: ModelRegistry, redis: RedisServer
) -> None:
    folder = tmp_path / "j"
    requests = feed("ABC", 200)
    with serving(registry, folder) as (_, answers):
        ask(answers, requests[:100])
    left = expected_states(folder, models)
    with serving(registry, folder) as (_, answers):
        ask(answers, [request for request in requests[100:] if request.tick.symbol == "B"])
    with kept(settings_of(redis), folder, models):
        pass
    assert states_in(redis) == left | expected_states(folder, models)


# -- a warm start's other half -----------------------------------------------------------------------------------------


def test_a_fetch_takes_what_is_whole_and_says_what_is_not(
    tmp_path: Path, models: Path, registry: ModelRegistry, redis: RedisServer
) -> None:
    folder = tmp_path / "j"
    with serving(registry, folder) as (_, answers):
        ask(answers, feed("ABCDEF", 120))
    with kept(settings_of(redis), folder, models):
        pass
    client = redis.client()
    whole = client.get(KEYS.state("A"))
    assert isinstance(whole, bytes)
    client.set(KEYS.state("A"), whole[:-1])
    client.set(KEYS.state("B"), b"garbage" * 20)
    client.set(KEYS.state("C"), whole[:4] + b"\x63" + whole[5:])
    client.set(KEYS.state("D"), whole)
    client.delete(KEYS.state("E"))
    found = fetch(settings_of(redis), Wanted(folder, folder, 100))
    assert found.refused == {"truncated": 1, "garbage": 1, "version": 1, "symbol": 1}
    assert (found.taken, found.absent) == (1, 1)
    assert [state.symbol for state in read_kept(folder, found.sha256)] == ["F"]


def test_a_worker_fetches_its_own_symbols_and_no_more_than_it_has_room_for(
    tmp_path: Path, models: Path, registry: ModelRegistry, redis: RedisServer
) -> None:
    folder = tmp_path / "j"
    with serving(registry, folder) as (_, answers):
        ask(answers, feed("ABCDEFGH", 200))
    with kept(settings_of(redis), folder, models):
        pass
    own = {symbol for symbol in "ABCDEFGH" if worker_of(symbol, 3) == 1}
    found = fetch(settings_of(redis), Wanted(folder, folder, 100, 1, 3))
    assert {state.symbol for state in read_kept(folder, found.sha256)} == own
    assert fetch(settings_of(redis), Wanted(folder, folder, 5)).taken == 5


def test_a_fetch_without_redis_is_an_error_and_without_states_finds_none(tmp_path: Path, redis: RedisServer) -> None:
    found = fetch(settings_of(redis), Wanted(tmp_path, tmp_path, 10))
    assert (found.sha256, found.taken) == ("", 0)
    redis.kill()
    with pytest.raises(StoreError):
        fetch(settings_of(redis), Wanted(tmp_path, tmp_path, 10))


# -- the queue ---------------------------------------------------------------------------------------------------------


def some_vectors(symbols: str, first: int = 1) -> Vectors:
    count = len(symbols)
    return Vectors(
        SCHEMA,
        list(symbols),
        np.arange(first, first + count, dtype=np.uint64),
        np.zeros(count, np.bool_),
        np.arange(count) * 1000 + 10**18,
        np.full(count, 100.0),
        np.zeros((count, 10), np.float32),
    )


def test_a_full_queue_drops_the_oldest_and_counts_them(redis: RedisServer) -> None:
    redis.kill()
    settings = settings_of(redis, queue_limit=25)
    writer = Writer(StoreConnection(settings), settings)
    for first in range(1, 101, 10):
        writer.offer(some_vectors("A" * 10, first))
    until(lambda: writer.queue == 25 and writer.dropped == 75)
    redis.start()
    until(lambda: writer.written_vectors == 25)
    writer.close(1.0)
    members = redis.client().zrange(KEYS.history(SCHEMA, "A"), 0, -1)
    assert sorted(members) == [history_member(sequence).encode() for sequence in range(76, 101)]
    assert writer.dropped == 75


def test_a_writer_that_is_behind_writes_the_newest_of_each_symbol() -> None:
    batches = [some_vectors("ABAB", 1), some_vectors("AC", 5)]
    found, passed = newest_of_each([(batch, np.arange(len(batch.symbols))) for batch in batches])
    assert [(int(batch.sequences[place]), batch.symbols[place]) for batch, places in found for place in places] == [
        (4, "B"),
        (5, "A"),
        (6, "C"),
    ]
    assert passed == 3


def test_no_status_is_no_status(tmp_path: Path) -> None:
    assert read_status(tmp_path) is None
    for content in ("", "{}", "[]", '{"format_version": 2}', '{"format_version": 1, "positions": {}}'):
        (tmp_path / FILE_NAME).write_text(content)
        assert read_status(tmp_path) is None
