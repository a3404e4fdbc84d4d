"""Fundamentals from JSON files, an HTTP server and Redis: what each gives, what is refused, and what stays in force."""

import json
import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from tests.features.test_fundamentals_file import by_training, same
from tests.features.test_fundamentals_served import FUNDAMENTALS, SECOND, TEN, predict, served, taken, vectors
from tests.support.http_server import Document, http_document
from tests.support.messages import START_NS, zigzag
from tests.support.packages import publish_logistic
from tests.support.redis_server import RedisServer, redis_server

from tickgate_server.app import feed_fundamentals
from tickgate_server.config import FundamentalsSection, Settings
from tickgate_server.features.fundamentals_feed import FileSource, FundamentalsFeed, FundamentalsSource
from tickgate_server.features.fundamentals_file import Columns, read
from tickgate_server.features.fundamentals_http import HttpSource, HttpTerms
from tickgate_server.features.fundamentals_json import JsonInvalid, rows_of
from tickgate_server.features.fundamentals_table import FundamentalsInvalid, build, pack, parse
from tickgate_server.fundamentals_commands import fundamentals
from tickgate_server.fundamentals_sources import fundamentals_source
from tickgate_server.models.registry import load_repository
from tickgate_server.states.errors import Refusal, ValueRefused
from tickgate_server.store.connection import StoreConnection
from tickgate_server.store.fundamentals import (
    Listed,
    RedisSource,
    pack_list,
    pack_symbol,
    pull,
    push,
    unpack_list,
    unpack_symbol,
)
from tickgate_server.store.keys import Keys
from tickgate_server.store_settings import StoreSettings
from tickgate_training.data import fundamentals as training
from tickgate_training.data import table as ticks_table_of
from tickgate_training.errors import DataError

Rows = list[tuple[str, str, int, float]]
COLUMNS = ("symbol", "name", "as_of_ns", "value")
LATE_NS = START_NS + 15 * SECOND
PUBLISHED: Rows = [
    ("A", "eps", START_NS, 1.0),
    ("A", "eps", LATE_NS, 2.0),  # known to the source from the beginning, and to the desk from then on
    ("A", "rating", START_NS, 7.0),
]
KINDS = ("csv", "json", "parquet", "http", "redis")


def as_json(rows: Rows) -> bytes:
    return json.dumps([dict(zip(COLUMNS, row, strict=True)) for row in rows]).encode()


def as_csv(rows: Rows) -> bytes:
    return "".join(f"{','.join(map(str, row))}\n" for row in (COLUMNS, *rows)).encode()


def table_of(rows: Rows) -> bytes:
    symbols, names, stamps, values = zip(*rows, strict=True)
    return pack(build(symbols, names, np.array(stamps, np.int64), np.array(values)))


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as found:
        yield found


def settings_of(redis: RedisServer, prefix: str = "") -> StoreSettings:
    return StoreSettings(mode="standalone", nodes=(redis.address,), prefix=prefix, breaker_longest_s=0.01)


def pushed(redis: RedisServer, prefix: str, rows: Rows) -> StoreSettings:
    settings = settings_of(redis, prefix)
    connection = StoreConnection(settings)
    push(connection, Keys(prefix), parse("rows", table_of(rows)))
    connection.close()
    return settings


@pytest.fixture
def source(request: pytest.FixtureRequest, tmp_path: Path, redis: RedisServer) -> Iterator[FundamentalsSource]:
    """`PUBLISHED` by the kind of source that the test names."""
    kind = request.param
    path = tmp_path / f"fundamentals.{kind}"
    with ExitStack() as held:
        if kind == "http":
            document = held.enter_context(http_document(as_json(PUBLISHED)))
            yield HttpSource(document.url, Columns())
        elif kind == "redis":
            yield RedisSource(pushed(redis, "pit:", PUBLISHED))
        else:
            if kind == "parquet":
                pl.DataFrame(PUBLISHED, schema=list(COLUMNS), orient="row").write_parquet(path)
            else:
                path.write_bytes(as_json(PUBLISHED) if kind == "json" else as_csv(PUBLISHED))
            yield FileSource(path, Columns())


@pytest.mark.parametrize("source", KINDS, indirect=True)
def test_a_value_published_late_is_seen_by_no_earlier_tick_in_serving_or_training_whatever_its_source(
    source: FundamentalsSource, tmp_path: Path
) -> None:
    models, journal = tmp_path / "models", tmp_path / "journal"
    publish_logistic(models, features=TEN, latency_budget_ms=60_000.0)
    requests = zigzag("A", 20)
    source.state()
    read_back = parse("source", source.read())
    with served(load_repository(models), journal, source) as (_, answers):  # type: ignore[arg-type] # a source all the same
        for request in requests:
            predict(answers, request)
    seen = [float(vector[10]) for vector in vectors(journal, "A") if vector.size]
    assert seen == [1.0] * 5 + [2.0] * 5  # trades 10 to 19 are ready, one a second
    frame = pl.DataFrame(
        {
            "symbol": [read_back.symbols[0]] * 3,
            "name": ["eps", "eps", "rating"],
            "as_of_ns": read_back.as_of_ns,
            "value": read_back.values,
        }
    )
    stamps = [request.tick.exchange_ts_ns for request in requests]
    trades = ticks_table_of.ticks_table(
        {
            "symbol": ["A"] * 20, "exchange_ts_ns": stamps, "sequence": range(1, 21), "price": [9.0] * 20,
            "size": [1.0] * 20, "aggressor": [0] * 20,
        }
    )  # fmt: skip
    joined = training.join(trades, frame, ["eps"], FUNDAMENTALS[0].maximum_age_ns)
    assert joined[10:, 0].tolist() == seen


# -- JSON -------------------------------------------------------------------------------------------------------------


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["A", "BRK.B", "Ä"]), st.sampled_from(["eps", "p/e"]), st.integers(1, 2**62),
            st.floats(-3e38, 3e38),
        ),
        min_size=1, max_size=10, unique_by=lambda row: row[:3],
    )
)  # fmt: skip
def test_a_json_file_is_the_table_that_its_rows_are_as_csv_and_training_reads_it_too(
    tmp_path_factory: pytest.TempPathFactory, rows: Rows
) -> None:
    folder = tmp_path_factory.mktemp("json")
    (folder / "f.json").write_bytes(as_json(rows))
    (folder / "f.csv").write_bytes(as_csv(rows))
    found = read(folder / "f.json", Columns())
    assert same(found, read(folder / "f.csv", Columns()))
    assert same(found, by_training(folder / "f.json", Columns()))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "cannot be read as JSON"),
        (b"\xff", "cannot be read as JSON"),
        (b"{}", "expected a list of objects, found an object"),
        (b"[1]", "row 0: expected an object, found text or a number"),
        (b"[]", "at least one row"),
        (b"[" * 100_000, "cannot be read as JSON"),
        (b'[{"symbol":"A","symbol":"B"}]', "an object has two members 'symbol'"),
        (b'[{"symbol":"A","name":"eps","value":1}]', "expected one column 'as_of_ns', found 0"),
        (b'[{"symbol":"A","name":"eps","as_of_ns":5,"value":[1]}]', "column 'value', row 0: expected text or a number"),
        (b'[{"symbol":"A","name":"eps","as_of_ns":5,"value":true}]', "column 'value', row 0: .* found true or false"),
        (b'[{"symbol":"A","name":"eps","as_of_ns":5,"value":NaN}]', "column 'value', row 0: found 'NaN'"),
        (b'[{"symbol":"A","name":"eps","as_of_ns":5,"value":null}]', "column 'value', row 0: found an empty cell"),
        (b'[{"symbol":"A","name":"eps","as_of_ns":5.0,"value":1}]', "column 'as_of_ns', row 0: found '5.0'"),
        (b'[{"symbol":"A","name":"eps","value":1},{"as_of_ns":5}]', "column 'symbol', row 1: found an empty cell"),
    ],
)
def test_json_that_is_no_table_is_refused_by_server_and_training(tmp_path: Path, content: bytes, why: str) -> None:
    path = tmp_path / "fundamentals.json"
    path.write_bytes(content)
    with pytest.raises(FundamentalsInvalid, match=why):
        read(path, Columns())
    with pytest.raises(DataError):
        by_training(path, Columns())


def test_numbers_of_json_keep_every_digit() -> None:
    assert rows_of(b'[{"a": 1723161600000000001, "b": 0.1000}]') == [{"a": "1723161600000000001", "b": "0.1000"}]
    with pytest.raises(JsonInvalid, match="row 1"):
        rows_of(b'[{"a": 1}, 2]')


# -- HTTP -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def document() -> Iterator[Document]:
    with http_document(as_json(PUBLISHED)) as found:
        yield found


def test_what_did_not_change_is_not_sent_again(document: Document) -> None:
    source = HttpSource(document.url, Columns())
    first = source.state()
    assert source.read() == table_of(PUBLISHED)
    assert source.state() == first
    assert document.answered == [200, 304]
    document.body = as_json(PUBLISHED[:2])
    assert source.state() != first
    assert source.read() == table_of(PUBLISHED[:2])
    assert document.answered == [200, 304, 200]


def test_a_server_that_says_when_it_was_modified_is_asked_since_then(document: Document) -> None:
    document.etag, document.modified = False, "Fri, 09 Aug 2024 00:00:00 GMT"
    source = HttpSource(document.url, Columns())
    assert source.state() == source.state()
    assert document.answered == [200, 304]


def test_a_server_that_says_nothing_of_itself_is_told_by_its_body(document: Document) -> None:
    document.etag = False
    source = HttpSource(document.url, Columns())
    first = source.state()
    assert source.state() == first
    document.body = as_json(PUBLISHED[:1])
    assert source.state() != first
    assert document.answered == [200, 200, 200]


def test_the_content_type_says_how_it_is_read(document: Document, tmp_path: Path) -> None:
    source = HttpSource(document.url, Columns())
    document.body, document.content_type = as_csv(PUBLISHED), "text/csv; charset=utf-8"
    source.state()
    assert source.read() == table_of(PUBLISHED)
    pl.DataFrame(PUBLISHED, schema=list(COLUMNS), orient="row").write_parquet(tmp_path / "p")
    document.body, document.content_type = (tmp_path / "p").read_bytes(), "application/vnd.apache.parquet"
    source.state()
    assert source.read() == table_of(PUBLISHED)
    document.content_type = "text/html"
    document.etag = False
    with pytest.raises(FundamentalsInvalid, match=r"content type: expected one of .*, found text/html"):
        source.state()


def test_a_token_is_sent_and_errors_say_the_address(document: Document) -> None:
    source = HttpSource(document.url, Columns(), HttpTerms(token="hush"))  # noqa: S106 - a test's
    document.body = b'[{"symbol": "A"}]'
    source.state()
    assert document.asked[0]["Authorization"] == "Bearer hush"
    with pytest.raises(FundamentalsInvalid, match=f"^{document.url}: no fundamentals: expected one column"):
        source.read()


@pytest.mark.parametrize("status", [301, 404, 500, 503])
def test_any_other_status_is_no_answer(document: Document, status: int) -> None:
    document.status = status
    with pytest.raises(ConnectionError, match=f"{document.url}: answered {status}, expected 200"):
        HttpSource(document.url, Columns()).state()


def test_an_answer_that_is_too_long_is_cut_off_and_refused(document: Document) -> None:
    document.body = b" " * 300_000 + as_json(PUBLISHED)
    with pytest.raises(FundamentalsInvalid, match="expected at most 200000 bytes, found more"):
        HttpSource(document.url, Columns(), HttpTerms(body_limit_bytes=200_000)).state()


def test_an_answer_that_ends_early_or_never_comes_is_no_answer(document: Document) -> None:
    document.length = 10_000
    with pytest.raises(ConnectionError, match="RemoteProtocolError"):
        HttpSource(document.url, Columns()).state()
    document.length, document.stalls = None, True
    with pytest.raises(ConnectionError, match="ReadTimeout"):
        HttpSource(document.url, Columns(), HttpTerms(timeout_s=0.05)).state()
    with pytest.raises(ConnectionError, match="ConnectError"):
        HttpSource("http://127.0.0.1:1/", Columns()).state()


def test_a_failed_refresh_keeps_what_is_in_force_and_the_next_good_one_is_taken(document: Document) -> None:
    feed = FundamentalsFeed(HttpSource(document.url, Columns()), None, 0.005)
    assert pack(taken(feed)) == table_of(PUBLISHED)

    def settle() -> None:
        """Wait until what the server says now was heard."""
        heard = len(document.answered)
        while len(document.answered) < heard + 3:
            threading.Event().wait(0.005)

    document.status = 503
    settle()
    assert feed.take() is None
    document.status, document.body = 200, b"garbage"
    settle()
    assert feed.take() is None
    document.body = as_json(PUBLISHED[1:])
    found = None
    while found is None:
        found = feed.take()
    feed.close()
    assert pack(found.table) == table_of(PUBLISHED[1:])


def test_a_start_without_the_server_goes_on_with_what_was_kept(tmp_path: Path) -> None:
    with http_document(as_json(PUBLISHED)) as document:
        FundamentalsFeed(HttpSource(document.url, Columns()), tmp_path, 60.0).close()
    feed = FundamentalsFeed(HttpSource(document.url, Columns()), tmp_path, 60.0)
    assert pack(taken(feed)) == table_of(PUBLISHED)
    feed.close()


# -- Redis ------------------------------------------------------------------------------------------------------------


def pulled(redis: RedisServer, prefix: str) -> bytes:
    """What the reading process would write."""
    connection = StoreConnection(settings_of(redis, prefix))
    try:
        return pack(pull(connection, Keys(prefix)))
    finally:
        connection.close()


def test_what_was_pushed_is_what_a_server_reads_and_what_is_gone_is_removed(redis: RedisServer) -> None:
    wide = [(f"S{k}", name, 100 + k, float(k)) for k in range(300) for name in ("eps", "rating")]
    source = RedisSource(pushed(redis, "w:", wide))
    first = source.state()
    assert pulled(redis, "w:") == table_of(wide)
    pushed(redis, "w:", wide[2:])
    assert source.state() != first
    assert pulled(redis, "w:") == table_of(wide[2:])
    assert not redis.client().exists("w:fundamentals:{S0}")
    assert redis.client().exists("w:fundamentals:{S1}")


def test_values_of_two_pushes_are_refused_until_the_second_is_whole(redis: RedisServer) -> None:
    pushed(redis, "two:", [("A", "eps", 5, 1.0), ("B", "eps", 5, 1.0)])
    other: Rows = [("A", "eps", 6, 2.0), ("B", "eps", 6, 2.0)]
    redis.client().set("two:fundamentals:{A}", pack_symbol("A", b"\x01" * 32, [("eps", 6, 2.0)]))
    with pytest.raises(FundamentalsInvalid, match=r"two:fundamentals:\{A\} is of another push than the list"):
        pulled(redis, "two:")
    pushed(redis, "two:", other)
    assert pulled(redis, "two:") == table_of(other)
    redis.client().delete("two:fundamentals:{B}")
    with pytest.raises(FundamentalsInvalid, match=r"nothing at .*, which the list names"):
        pulled(redis, "two:")


def test_nothing_pushed_and_garbage_are_refused(redis: RedisServer) -> None:
    source = RedisSource(settings_of(redis, "none:"))
    assert source.state() == b""
    with pytest.raises(FundamentalsInvalid, match="none were pushed"):
        source.read()
    redis.client().set("none:fundamentals", b"x" * 100)
    with pytest.raises(FundamentalsInvalid, match="garbage: expected b'TGFL' at its begin"):
        pulled(redis, "none:")


def resealed(value: bytes) -> bytes:
    return value[:-4] + struct.pack("<I", zlib.crc32(value[:-4]))


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_value_with_any_byte_changed_or_cut_off_is_refused(place: int, change: int) -> None:
    symbol = pack_symbol("A", b"g" * 32, [("eps", 5, 1.0), ("rating", 6, 2.0)])
    listed = pack_list(Listed(b"g" * 32, ("A", "Ä")))
    assert unpack_list(listed, "k") == Listed(b"g" * 32, ("A", "Ä"))
    for value, check in ((symbol, lambda v: unpack_symbol(v, "k", "A")), (listed, lambda v: unpack_list(v, "k"))):
        at = place % len(value)
        changed = bytearray(value)
        changed[at] ^= change
        for broken in (bytes(changed), value[:at], value + bytes([change])):
            with pytest.raises(ValueRefused) as caught:
                check(broken)
            assert caught.value.where == "k"


@pytest.mark.parametrize(
    ("value", "refusal"),
    [
        (pack_symbol("B", b"g" * 32, [("eps", 5, 1.0)]), Refusal.SYMBOL),
        (pack_symbol("A", b"g" * 32, [("eps", 0, 1.0)]), Refusal.GARBAGE),
        (pack_symbol("A", b"g" * 32, [("eps", 5, float("nan"))]), Refusal.GARBAGE),
        (pack_symbol("A", b"g" * 32, [("", 5, 1.0)]), Refusal.GARBAGE),
        (resealed(pack_symbol("A", b"g" * 32, [("eps", 5, 1.0)])[:-12] + b"0000"), Refusal.TRUNCATED),
        (resealed(pack_symbol("A", b"g" * 32, [("eps", 5, 1.0)])[:-4] + b"more0000"), Refusal.GARBAGE),
        (resealed(b"TGFF\x02\x00" + pack_symbol("A", b"g" * 32, [])[6:]), Refusal.VERSION),
        (pack_list(Listed(b"g" * 32, ("A",))), Refusal.GARBAGE),
    ],
)
def test_a_whole_value_that_says_what_cannot_be_is_refused_by_reason(value: bytes, refusal: Refusal) -> None:
    with pytest.raises(ValueRefused) as caught:
        unpack_symbol(value, "k", "A")
    assert caught.value.refusal == refusal


def test_a_redis_that_is_gone_keeps_what_is_in_force_and_is_asked_again(tmp_path: Path) -> None:
    with redis_server(tmp_path / "redis") as server:
        source = RedisSource(pushed(server, "", PUBLISHED))
        feed = FundamentalsFeed(source, tmp_path / "journal", 0.01)
        assert pack(taken(feed)) == table_of(PUBLISHED)
        server.kill()
        with pytest.raises(ConnectionError):
            RedisSource(settings_of(server)).state()
        with pytest.raises(ConnectionError):
            RedisSource(settings_of(server)).read()
        assert feed.take() is None
        server.start()
        pushed(server, "", PUBLISHED[1:])
        found = None
        while found is None:
            found = feed.take()
        assert pack(found.table) == table_of(PUBLISHED[1:])
        feed.close()


def test_the_command_pushes_a_file_or_an_address_and_checks_what_is_there(
    redis: RedisServer, document: Document, tmp_path: Path
) -> None:
    config = tmp_path / "t.toml"
    config.write_text(
        f'[journal]\nfolder = "{tmp_path}"\n[store]\nmode = "standalone"\nnodes = ["{redis.address}"]\nprefix = "c:"\n'
    )
    path = tmp_path / "fundamentals.csv"
    path.write_bytes(as_csv([("A", "eps", 5, 1.0), ("B", "eps", 5, 1.0)]))

    def run(*arguments: object) -> tuple[int, str]:
        done = CliRunner().invoke(fundamentals, [*map(str, arguments), "--config", str(config)])
        return done.exit_code, done.output

    assert run("push", path) == (0, "Pushed 2 values of 2 symbols: eps.\n")
    assert run("push", document.url) == (0, "Pushed 3 values of 1 symbols: eps, rating, 1 symbols removed.\n")
    status, said = run("check")
    assert (status, said.endswith("has 3 values of 1 symbols: eps, rating.\n")) == (0, True)
    path.write_bytes(b"garbage")
    status, said = run("push", path)
    assert status == 1
    assert "expected one column" in said
    assert run("push", tmp_path / "absent.csv")[0] == 1
    config.write_text("")
    assert run("check") == (1, "Error: expected store.mode and where Redis is, in --config or TICKGATE_STORE__*\n")


# -- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"file": "f.csv", "url": "http://h/"}, "expected one of them"),
        ({"url": "http://h/", "store": True}, "expected one of them"),
        ({"url": "ftp://h/"}, "expected http:// or https://"),
        ({"url": "http://me:secret@h/"}, "without a user"),
        ({"token_file": "t"}, "token_file goes with url"),
    ],
)
def test_settings_that_name_no_one_source_are_refused(values: dict[str, object], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        FundamentalsSection.model_validate(values)


def test_the_settings_choose_the_source(redis: RedisServer, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("hush\n")
    store = settings_of(redis)
    chosen = [
        fundamentals_source(
            Settings.model_validate({"fundamentals": section, "store": kept, "journal": {"folder": tmp_path}})
        )
        for section, kept in (
            ({"file": "f.csv"}, StoreSettings()),
            ({"url": "http://h/f", "token_file": token}, StoreSettings()),
            ({"store": True}, store),
        )
    ]
    assert [type(one) for one in chosen] == [FileSource, HttpSource, RedisSource]
    with pytest.raises(ValidationError, match=r"fundamentals\.store needs store\.mode"):
        Settings.model_validate({"fundamentals": {"store": True}})
    with pytest.raises(FundamentalsInvalid, match="the token cannot be read"):
        fundamentals_source(
            Settings.model_validate({"fundamentals": {"url": "http://h/", "token_file": tmp_path / "no"}})
        )


def test_a_server_feeds_on_what_the_settings_name(redis: RedisServer, document: Document, tmp_path: Path) -> None:
    path = tmp_path / "fundamentals.json"
    path.write_bytes(as_json(PUBLISHED))
    store = pushed(redis, "app:", PUBLISHED)
    sections: list[dict[str, object]] = [{"file": path}, {"url": document.url}, {"store": True}]
    for section in sections:
        settings = Settings.model_validate({"fundamentals": section, "store": store, "journal": {"folder": tmp_path}})
        feed = feed_fundamentals(settings)
        assert feed is not None
        assert pack(taken(feed)) == table_of(PUBLISHED)
        feed.close()
    assert feed_fundamentals(Settings()) is None
