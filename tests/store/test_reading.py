"""Vectors read back for research: what the writer wrote, and nothing that is not whole."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from tests.support.messages import START_NS
from tests.support.packages import publish_logistic
from tests.support.programs import program
from tests.support.redis_server import RedisServer, redis_server

from tickgate_server.features.schema import FeatureSet, Fundamental, micro10, micro32, with_fundamentals
from tickgate_server.states.codec import StoredVector, pack_vector
from tickgate_server.states.errors import Refusal
from tickgate_server.store.commands import export_features
from tickgate_server.store.connection import StoreConnection
from tickgate_server.store.errors import StoreUnreachable
from tickgate_server.store.keys import Keys, history_member
from tickgate_server.store.reading import FEATURE_SET, NEWEST_LIMIT, SCHEMA_ID, FeatureStore
from tickgate_server.store.replica import Vectors
from tickgate_server.store.writing import Writer
from tickgate_server.store_settings import StoreSettings

program("redis-server", "is level 2 of the feature store")
TEN = micro10()
STEP_NS = 100_000_001


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as found:
        yield found


@pytest.fixture
def settings(redis: RedisServer, request: pytest.FixtureRequest) -> StoreSettings:
    """A corner of the Redis for each test."""
    return StoreSettings(mode="standalone", nodes=(redis.address,), prefix=f"{request.node.name}:", history=50)


def vectors_of(symbol: str, sequences: list[int], features: FeatureSet = TEN) -> Vectors:
    count = len(sequences)
    return Vectors(
        schema_id=features.schema_id,
        symbols=[symbol] * count,
        sequences=np.array(sequences, np.uint64),
        counted=np.zeros(count, np.bool_),
        exchange_ts_ns=START_NS + STEP_NS * np.arange(count),
        prices=100.0 + np.arange(count),
        values=np.random.default_rng(len(symbol)).normal(size=(count, features.width)).astype(np.float32),
    )


def write(settings: StoreSettings, *batches: Vectors) -> None:
    """As a server's store process writes."""
    writer = Writer(StoreConnection(settings), settings)
    for batch in batches:
        writer.offer(batch)
    writer.close(10.0)
    assert writer.queue == 0


def assert_is(found: StoredVector | None, batch: Vectors, place: int) -> None:
    assert found is not None
    assert (found.symbol, found.schema_id, found.counted) == (batch.symbols[place], batch.schema_id, False)
    assert found.sequence == int(batch.sequences[place])
    assert found.exchange_ts_ns == int(batch.exchange_ts_ns[place])
    assert found.price == float(batch.prices[place])
    assert found.values.dtype == np.float32
    assert found.values.tobytes() == batch.values[place].tobytes()


def test_what_was_written_is_read_back_bit_for_bit(settings: StoreSettings) -> None:
    batch = vectors_of("A", [5, 6, 2**64 - 1])
    write(settings, batch)
    with FeatureStore(settings, TEN) as store:
        for place, sequence in enumerate([5, 6, 2**64 - 1]):
            assert_is(store.get("A", sequence), batch, place)
        assert_is(store.latest("A"), batch, 2)
        assert store.get("A", 7) is store.get("B", 5) is store.latest("B") is None
        assert store.history("B", 5) == []
    assert not store.refused
    assert store.expired == 0


def test_a_history_is_the_newest_and_oldest_first(settings: StoreSettings) -> None:
    batch = vectors_of("A", list(range(1, 81)))
    write(settings, batch)
    with FeatureStore(settings, TEN) as store:
        found = store.history("A", 7)
        assert [vector.sequence for vector in found] == list(range(74, 81))
        for place, vector in enumerate(found):
            assert_is(vector, batch, 73 + place)
        assert len(store.history("A", NEWEST_LIMIT)) == 50  # as many as are listed
        for bad in (0, -1, NEWEST_LIMIT + 1):
            with pytest.raises(ValueError, match=f"n: expected 1 to {NEWEST_LIMIT}, got {bad}"):
                store.history("A", bad)


def test_each_feature_set_has_its_own_vectors(settings: StoreSettings) -> None:
    write(settings, vectors_of("A", [1]), vectors_of("A", [1, 2], micro32()))
    with FeatureStore(settings, TEN) as ten, FeatureStore(settings, micro32()) as more:
        assert len(ten.history("A", 5)) == 1
        assert [vector.values.size for vector in more.history("A", 5)] == [32, 32]


def test_values_that_expired_are_counted_and_the_others_given(settings: StoreSettings, redis: RedisServer) -> None:
    write(settings, vectors_of("A", [1, 2, 3]))
    redis.client().delete(Keys(settings.prefix).vector(TEN.schema_id, "A", 2))
    with FeatureStore(settings, TEN) as store:
        assert [vector.sequence for vector in store.history("A", 10)] == [1, 3]
        assert store.expired == 1
        assert not store.refused


def whole(symbol: str = "A", sequence: int = 2, features: FeatureSet = TEN, width: int = 10) -> bytes:
    values = np.zeros(width, np.float32)
    return pack_vector(StoredVector(symbol, features.schema_id, sequence, False, START_NS, START_NS, 1.0, values))


@pytest.mark.parametrize(
    ("value", "refusal"),
    [
        (b"", Refusal.TRUNCATED),
        (b"garbage" * 40, Refusal.GARBAGE),
        (whole()[:-1], Refusal.TRUNCATED),
        (whole()[:4] + b"\x09" + whole()[5:], Refusal.VERSION),
        (whole()[:60] + bytes([whole()[60] ^ 1]) + whole()[61:], Refusal.CHECKSUM),
        (whole(symbol="B"), Refusal.SYMBOL),
        (whole(features=micro32()), Refusal.SCHEMA),
        (whole(width=9), Refusal.SCHEMA),
        (whole(sequence=3), Refusal.GARBAGE),
    ],
)
def test_a_value_that_is_not_that_trades_whole_vector_is_refused_counted_and_never_given(
    settings: StoreSettings, redis: RedisServer, value: bytes, refusal: Refusal
) -> None:
    write(settings, vectors_of("A", [1, 2, 3]))
    redis.client().set(Keys(settings.prefix).vector(TEN.schema_id, "A", 2), value)
    with FeatureStore(settings, TEN) as store:
        assert store.get("A", 2) is None
        assert dict(store.refused) == {refusal: 1}
        assert [error.refusal for error in store.first_refused] == [refusal]
        assert [vector.sequence for vector in store.history("A", 10)] == [1, 3]
        assert dict(store.refused) == {refusal: 2}


def test_a_history_that_lists_what_is_no_sequence_is_counted(settings: StoreSettings, redis: RedisServer) -> None:
    write(settings, vectors_of("A", [1, 2]))
    name = Keys(settings.prefix).history(TEN.schema_id, "A")
    redis.client().zadd(name, {b"\xff": 1e18, "7": 1e18, history_member(9): 1e18})
    with FeatureStore(settings, TEN) as store:
        assert [vector.sequence for vector in store.history("A", 10)] == [1, 2]
        assert dict(store.refused) == {Refusal.GARBAGE: 2}
        assert store.expired == 1


def test_a_redis_that_is_gone_says_so(tmp_path: Path) -> None:
    nowhere = StoreSettings(mode="standalone", url=f"unix://{tmp_path}/none.sock")
    with FeatureStore(nowhere, TEN) as store, pytest.raises(StoreUnreachable):
        store.get("A", 1)


# -- Arrow ----------------------------------------------------------------------------------------------------------


def test_a_table_has_the_trades_and_a_column_for_each_feature(settings: StoreSettings) -> None:
    one, two = vectors_of("A", [1, 2, 3]), vectors_of("BB", [8, 9])
    write(settings, one, two)
    with FeatureStore(settings, TEN) as store:
        table = store.table(["BB", "A", "absent"], 2)
    assert table.schema.names == [
        "symbol", "sequence", "counted", "exchange_ts", "written_ts", "price", *TEN.features,
    ]  # fmt: skip
    assert table.schema.metadata == {SCHEMA_ID: TEN.schema_id.encode(), FEATURE_SET: b"micro10"}
    assert table["symbol"].to_pylist() == ["BB", "BB", "A", "A"]
    assert table["sequence"].to_pylist() == [8, 9, 2, 3]
    assert table["exchange_ts"].cast(pa.int64()).to_pylist()[2:] == one.exchange_ts_ns[1:].tolist()
    assert table["ret_5"].type == pa.float32()
    assert table["ret_5"].to_numpy().tobytes() == np.concatenate((two.values[:, 1], one.values[1:, 1])).tobytes()
    empty = FeatureStore(settings, TEN).table(["absent"], 2)
    assert (empty.num_rows, empty.schema) == (0, table.schema)


def run(settings: StoreSettings, folder: Path, *arguments: object) -> tuple[int, str]:
    config = folder / "t.toml"
    lines = ["[journal]", f'folder = "{folder}"', "[store]", 'mode = "standalone"', f'prefix = "{settings.prefix}"']
    config.write_text("\n".join([*lines, f'nodes = ["{settings.nodes[0]}"]']))
    done = CliRunner().invoke(export_features, [*map(str, arguments), "--config", str(config)])
    return done.exit_code, done.stdout if done.exit_code == 0 else done.output


@pytest.mark.parametrize("ending", ["arrow", "parquet"])
def test_the_command_writes_a_file_that_others_read(settings: StoreSettings, tmp_path: Path, ending: str) -> None:
    batch = vectors_of("A", [1, 2, 3])
    write(settings, batch)
    out = tmp_path / f"f.{ending}"
    assert run(settings, tmp_path, "A", "--out", out) == (0, f"Wrote 3 vectors of micro10 to {out}, 0 expired.\n")
    with FeatureStore(settings, TEN) as store:
        expected = store.table(["A"], 10)
    read = pq.read_table(out) if ending == "parquet" else pa.ipc.open_file(str(out)).read_all()
    assert read.equals(expected)
    by_others = pl.read_parquet(out) if ending == "parquet" else pl.read_ipc(out)
    assert by_others["volume_z"].to_numpy().tobytes() == batch.values[:, 9].tobytes()
    assert [left.name for left in tmp_path.iterdir() if "unfinished" in left.name] == []


def test_the_command_says_what_was_refused_and_fails_where_there_is_nothing(
    settings: StoreSettings, redis: RedisServer, tmp_path: Path
) -> None:
    write(settings, vectors_of("A", [1, 2, 3]))
    keys = Keys(settings.prefix)
    redis.client().set(keys.vector(TEN.schema_id, "A", 2), b"garbage" * 40)
    redis.client().delete(keys.vector(TEN.schema_id, "A", 1))
    redis.client().zadd(keys.states(), {"A": 1.0})
    out = tmp_path / "f.parquet"
    said = f"Wrote 1 vectors of micro10 to {out}, 1 refused (garbage), 1 expired.\n"
    assert run(settings, tmp_path, "--all", "--out", out) == (0, said)
    assert run(settings, tmp_path, "B", "--out", out)[0] == 1
    assert run(settings, tmp_path, "A", "--out", out, "--session-gap-s", "7")[0] == 1
    assert run(settings, tmp_path, "A", "--out", tmp_path / "f.csv") == (
        1, f"Error: {tmp_path / 'f.csv'}: expected an ending of .arrow or .parquet\n",
    )  # fmt: skip
    assert "no feature set 'micro11'" in run(settings, tmp_path, "A", "--out", out, "--features", "micro11")[1]
    assert run(settings, tmp_path, "--out", out)[0] == run(settings, tmp_path, "A", "--all", "--out", out)[0] == 2


def test_a_set_with_fundamentals_is_named_by_a_models_package(settings: StoreSettings, tmp_path: Path) -> None:
    features = with_fundamentals(micro10(7 * 10**9), [Fundamental("eps", 10**9)])
    publish_logistic(tmp_path / "models", features=features, latency_budget_ms=60_000.0)
    batch = vectors_of("A", [1], features)
    write(settings, batch)
    out = tmp_path / "f.arrow"
    status, _ = run(settings, tmp_path, "A", "--out", out, "--package", tmp_path / "models" / "tiny" / "1")
    assert status == 0
    assert pa.ipc.open_file(str(out)).read_all()["eps"].to_numpy().tobytes() == batch.values[:, 10].tobytes()
    assert run(settings, tmp_path, "A", "--out", out, "--package", tmp_path)[0] == 1
