"""Redis as settings name it, the real one: plain, TLS, ACL, Sentinel, Cluster; its errors by type; the breaker."""

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from tests.support.programs import program
from tests.support.redis_server import RedisServer, free_port, redis_server

from tickgate_server.config import Settings, SettingsInvalid, flatten, load
from tickgate_server.store.breaker import Breaker
from tickgate_server.store.connection import StoreConnection
from tickgate_server.store.errors import BreakerOpen, StoreDenied, StoreFault, StoreFull, StoreUnreachable
from tickgate_server.store.keys import Keys
from tickgate_server.store_settings import StoreSettings, split_node
from tickgate_server.workers import worker_settings

program("redis-server", "is level 2 of the feature store")
WORD = "hush-hush"
OPENSSL = program("openssl", "makes the certificates")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as found:
        yield found


def settings_of(server: RedisServer, **changes: object) -> StoreSettings:
    return StoreSettings.model_validate({"mode": "standalone", "nodes": [server.address], **changes})


def round_trip(connection: StoreConnection) -> None:
    keys = [Keys("t:").state(f"S{number}") for number in range(300)]  # in many slots, in several batches
    connection.write([lambda pipeline, key=key: pipeline.set(key, key.encode(), ex=60) for key in keys])
    assert connection.get_many([*keys, "t:absent"]) == [*(key.encode() for key in keys), None]
    assert connection.get(keys[7]) == keys[7].encode()
    connection.close()


def test_values_come_back_in_the_order_asked_for(server: RedisServer) -> None:
    round_trip(StoreConnection(settings_of(server)))


def test_a_url_names_the_same_redis(server: RedisServer) -> None:
    round_trip(StoreConnection(StoreSettings(mode="standalone", url=f"redis://{server.address}/0")))


def test_tls_is_spoken_with_the_authority_that_is_named(tmp_path: Path) -> None:
    certificate, key = tmp_path / "own.pem", tmp_path / "own.key"
    subprocess.run(
        [
            *(OPENSSL, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"),
            *("-keyout", str(key), "-out", str(certificate), "-subj", "/CN=redis"),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
        ],
        check=True,
        capture_output=True,
    )
    with redis_server(tmp_path / "redis", tls=(certificate, key, certificate)) as server:
        round_trip(StoreConnection(settings_of(server, tls=True, tls_ca=certificate)))
        url = StoreSettings(mode="standalone", url=f"rediss://{server.address}", tls_ca=certificate)
        round_trip(StoreConnection(url))
        with pytest.raises(StoreUnreachable, match="certificate verify failed"):
            StoreConnection(settings_of(server, tls=True)).ping()
        with pytest.raises(StoreUnreachable):
            StoreConnection(settings_of(server)).ping()


def test_an_acl_user_is_let_in_with_its_password_and_to_what_it_may(tmp_path: Path) -> None:
    with redis_server(tmp_path / "redis") as server:
        server.client().acl_setuser("desk", enabled=True, passwords=[f"+{WORD}"], keys=["t:*"], commands=["+@all"])
        server.client().acl_setuser("default", enabled=False)
        round_trip(StoreConnection(settings_of(server, user="desk", password=WORD)))
        file = tmp_path / "password"
        file.write_text(f"{WORD}\n")
        allowed = StoreConnection(settings_of(server, user="desk", password_file=file))
        round_trip(allowed)
        with pytest.raises(StoreDenied, match="keys"):
            allowed.get("other")
        with pytest.raises(StoreDenied, match="invalid username-password"):
            StoreConnection(settings_of(server, user="desk", password=f"{WORD} not")).ping()
        with pytest.raises(StoreDenied, match="Authentication required"):
            StoreConnection(settings_of(server)).ping()


def test_a_password_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    settings = StoreSettings(mode="standalone", nodes=("127.0.0.1:1",), password_file=tmp_path / "none")
    with pytest.raises(StoreDenied, match="password_file cannot be read"):
        StoreConnection(settings)


def test_sentinel_says_where_the_master_is(server: RedisServer, tmp_path: Path) -> None:
    file = tmp_path / "sentinel.conf"
    file.write_text(f"sentinel monitor desk 127.0.0.1 {server.port} 1\n")
    with redis_server(tmp_path / "sentinel", str(file), "--sentinel") as sentinel:
        found = StoreSettings(mode="sentinel", nodes=(sentinel.address,), master="desk")
        round_trip(StoreConnection(found))
        with pytest.raises(StoreUnreachable, match="other"):
            StoreConnection(found.model_copy(update={"master": "other"})).ping()


def test_a_clusters_keys_are_found_in_their_slots(tmp_path: Path) -> None:
    own = ("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
    with redis_server(tmp_path / "redis", *own) as server:
        server.client().execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        connection = StoreConnection(StoreSettings(mode="cluster", nodes=(server.address,)))
        while server.client().cluster("info")["cluster_state"] != "ok":  # two seconds, by Redis's own rule
            time.sleep(0.02)
        round_trip(connection)


def test_no_memory_left_is_its_own_error_and_passes(tmp_path: Path) -> None:
    with redis_server(tmp_path / "redis", "--maxmemory-policy", "noeviction") as server:
        connection = StoreConnection(settings_of(server))
        connection.ping()
        server.client().config_set("maxmemory", "1")
        with pytest.raises(StoreFull):
            connection.write([lambda pipeline: pipeline.set("a", b"1", ex=9)])
        server.client().config_set("maxmemory", "0")
        connection.write([lambda pipeline: pipeline.set("a", b"1", ex=9)])
        assert connection.get("a") == b"1"


def test_what_redis_refuses_otherwise_is_a_fault(server: RedisServer) -> None:
    connection = StoreConnection(settings_of(server))
    server.client().rpush("list", b"1")
    with pytest.raises(StoreFault, match="WRONGTYPE"):
        connection.get("list")


def test_a_paused_redis_is_given_up_after_the_timeout_and_then_left_alone(tmp_path: Path) -> None:
    with redis_server(tmp_path / "redis") as server:
        connection = StoreConnection(settings_of(server, timeout_s=0.05, breaker_failures=2, breaker_longest_s=1000.0))
        connection.ping()
        server.pause()
        for _ in range(2):
            with pytest.raises(StoreUnreachable, match=r"[Tt]ime"):
                connection.ping()
        server.resume()
        with pytest.raises(BreakerOpen, match="after 2 failures in a row") as caught:
            connection.ping()
        assert 0.0 < caught.value.for_s <= 50.0


def test_a_redis_that_comes_back_is_found_again(tmp_path: Path) -> None:
    with redis_server(tmp_path / "redis") as server:
        connection = StoreConnection(settings_of(server, breaker_failures=100))
        connection.ping()
        server.kill()
        with pytest.raises(StoreUnreachable):
            connection.ping()
        server.start()
        connection.ping()
        assert connection.breaker.failures == 0


# -- the breaker ------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.booleans(), st.floats(0.0, 3.0)), max_size=60), st.integers(1, 5))
def test_the_breaker_lets_through_what_a_slow_reference_lets_through(
    events: list[tuple[bool, float]], limit: int
) -> None:
    now = [0.0]
    breaker = Breaker(limit, 2.0, lambda: now[0])
    in_a_row = 0
    for good, pause in events:
        now[0] += pause
        wait_s = breaker.wait_s()
        if in_a_row < limit:
            assert wait_s == 0.0
        assert wait_s <= 2.0
        if wait_s:
            continue
        if good:
            breaker.succeeded()
            in_a_row = 0
        else:
            breaker.failed()
            in_a_row += 1
            # Each pause is at least half of 0.1 s doubled with each failure, up to 2 s.
            least = min(2.0, 0.1 * 2 ** (in_a_row - limit)) / 2
            assert in_a_row < limit or least - 1e-9 <= breaker.wait_s() <= 2 * least + 1e-9
        assert breaker.is_open == (in_a_row >= limit)


def test_a_night_of_failures_does_not_overflow_the_pause() -> None:
    breaker = Breaker(1, 2.0, lambda: 0.0)
    for _ in range(5000):
        breaker.failed()
    assert 1.0 <= breaker.wait_s() <= 2.0


# -- keys --------------------------------------------------------------------------------------------------------------


@given(st.text(min_size=1, max_size=12).filter(lambda text: text.encode(errors="ignore").decode() == text))
def test_all_that_is_one_symbols_is_in_one_slot_and_no_two_symbols_share_a_key(symbol: str) -> None:
    keys, tag = Keys("p:"), symbol.replace("%", "%25").replace("}", "%7D").encode()
    named = [keys.vector("s", symbol, 1), keys.latest("s", symbol), keys.history("s", symbol), keys.state(symbol)]
    assert {redis.cluster.key_slot(key.encode()) for key in named} == {redis.cluster.key_slot(b"{" + tag + b"}")}
    assert keys.state(symbol) != keys.state(symbol + "}")
    assert keys.state("%7D") != keys.state("}")


# -- settings ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_settings", "why"),
    [
        ({"mode": "standalone"}, "needs nodes, or url"),
        ({"mode": "cluster"}, "needs nodes"),
        ({"mode": "standalone", "nodes": ["a:1", "b:1"]}, "takes one of nodes, got 2"),
        ({"mode": "standalone", "nodes": ["a"]}, "expected host:port, got 'a'"),
        ({"mode": "sentinel", "nodes": ["a:1"]}, "master goes with mode sentinel"),
        ({"mode": "standalone", "nodes": ["a:1"], "master": "desk"}, "master goes with mode sentinel"),
        ({"mode": "cluster", "nodes": ["a:1"], "database": 2}, "a cluster has number 0 alone"),
        ({"mode": "standalone", "url": "http://a"}, "expected redis://, rediss:// or unix://"),
        ({"mode": "standalone", "url": "redis://u:hush@a:1"}, "expected no password in it"),
        ({"mode": "standalone", "url": "redis://a:1", "nodes": ["a:1"]}, "in place of nodes"),
        ({"mode": "standalone", "nodes": ["a:1"], "tls_key": "k"}, "tls_certificate and tls_key go together"),
        ({"mode": "standalone", "nodes": ["a:1"], "password": "p", "password_file": "f"}, "expected one of the two"),
        ({"prefix": "{a}"}, "expected no braces"),
    ],
)
def test_settings_that_contradict_themselves_are_refused(given_settings: dict[str, object], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        StoreSettings.model_validate(given_settings)


def test_an_address_of_ipv6_is_split_at_its_last_colon() -> None:
    assert split_node("[::1]:6379") == ("::1", 6379)


def test_a_store_without_a_journal_is_refused() -> None:
    with pytest.raises(SettingsInvalid, match=r"store.mode needs journal.folder"):
        load(None, {"store.mode": "standalone", "store.nodes": ["a:1"], "journal.folder": "none"})


def test_the_password_is_never_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TICKGATE_STORE__PASSWORD", WORD)
    settings, _ = load()
    assert flatten(settings)["store.password"] == "**********"  # what `tickgate config` prints
    assert settings.store.with_secrets()["password"] == WORD
    assert settings.store.read_password() == WORD
    with pytest.raises(SettingsInvalid, match="needs nodes") as caught:  # the error shows the section
        load(None, {"store.mode": "cluster"})
    assert "hush" not in str(caught.value)
    file = tmp_path / "settings.toml"
    file.write_text("[store]\nsentinel_password = ['hush-hush']\n")
    with pytest.raises(SettingsInvalid, match="sentinel_password") as caught:
        load(file)
    assert "hush" not in str(caught.value)


def test_a_worker_is_told_the_password() -> None:
    settings, _ = load(None, {"store.mode": "standalone", "store.nodes": ["a:1"], "store.password": WORD})
    told = Settings(**json.loads(json.dumps(worker_settings(settings, 0, {}))))
    assert told.store == settings.store
    assert told.store.read_password() == WORD
