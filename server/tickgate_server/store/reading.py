"""Vectors for research, out of Redis: one by its sequence, the newest of a symbol, and whole as Arrow.

    store = FeatureStore(settings.store, micro10())
    store.get("BTCUSDT", 5266583935)          # a StoredVector; None: it is not there, or not any more
    store.history("BTCUSDT", 100)             # the newest hundred, oldest first
    store.table(["BTCUSDT", "ETHUSDT"], 100)  # the same of several symbols, as a pyarrow.Table

What Redis has is not believed: a value that is no whole vector of that symbol, feature set and sequence is refused,
counted by reason in `refused`, and never given to anybody. Vectors expire (`store.vector_ttl_s`): those whose sequence
is still listed and whose value is gone are counted in `expired`.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tickgate_server.features.schema import FeatureSet
from tickgate_server.states.codec import StoredVector, unpack_vector
from tickgate_server.states.errors import Refusal, ValueRefused
from tickgate_server.store.connection import StoreConnection
from tickgate_server.store.keys import Keys
from tickgate_server.store_settings import StoreSettings

NEWEST_LIMIT = 1_000_000
"""Most vectors of a symbol at once; as many as a history may list."""
SCHEMA_ID, FEATURE_SET = b"tickgate.schema_id", b"tickgate.feature_set"
"""Keys of what an exported table says of itself."""
_STAMP = pa.timestamp("ns", tz="UTC")
_OF_TRADE = (
    ("symbol", pa.string()),
    ("sequence", pa.uint64()),
    ("counted", pa.bool_()),
    ("exchange_ts", _STAMP),
    ("written_ts", _STAMP),
    ("price", pa.float64()),
)
_MEMBER_DIGITS = 20  # see `keys.history_member`
_FIRST_REFUSED = 10


class FeatureStore:
    """Reads the vectors of one feature set. One thread at a time; nothing is connected before it is asked for anything.

    Attributes:
        features: The feature set.
        refused: Values that were refused, by reason.
        first_refused: The first ten of them: where, and what was expected.
        expired: Values that were listed and not there any more.

    Args:
        settings: Which Redis; `[store]` of the server that writes.
        features: What the vectors are of.

    Raises:
        StoreDenied: The password's file cannot be read.
    """

    def __init__(self, settings: StoreSettings, features: FeatureSet) -> None:
        self.features = features
        self.refused: Counter[Refusal] = Counter()
        self.first_refused: list[ValueRefused] = []
        self.expired = 0
        self._connection = StoreConnection(settings)
        self._keys = Keys(settings.prefix)
        self._schema_id = features.schema_id

    def get(self, symbol: str, sequence: int) -> StoredVector | None:
        """The vector of one trade; None: there is none, it expired, or it was refused.

        Args:
            symbol: Whose.
            sequence: The feed's number of the trade; of a feed without any the number that the vector says.

        Raises:
            StoreError: Redis failed.
        """
        key = self._keys.vector(self._schema_id, symbol, sequence)
        value = self._connection.get(key)
        return None if value is None else self._unpacked(value, key, symbol, sequence)

    def latest(self, symbol: str) -> StoredVector | None:
        """The symbol's newest vector; None and errors as in `get`."""
        key = self._keys.latest(self._schema_id, symbol)
        value = self._connection.get(key)
        return None if value is None else self._unpacked(value, key, symbol, None)

    def history(self, symbol: str, n: int) -> list[StoredVector]:
        """The newest `n` vectors of a symbol, oldest first; fewer where fewer are there, whole and not expired.

        Raises:
            ValueError: `n` is below 1 or above `NEWEST_LIMIT`.
            StoreError: Redis failed.
        """
        if not 1 <= n <= NEWEST_LIMIT:
            raise ValueError(f"n: expected 1 to {NEWEST_LIMIT}, got {n}")
        name = self._keys.history(self._schema_id, symbol)
        members: list[bytes] = self._connection.run(lambda client: client.zrevrange(name, 0, n - 1))
        sequences = [found for member in reversed(members) if (found := self._sequence(member, name)) is not None]
        keys = [self._keys.vector(self._schema_id, symbol, sequence) for sequence in sequences]
        values = self._connection.get_many(keys)
        self.expired += values.count(None)
        read = (
            self._unpacked(value, key, symbol, sequence)
            for sequence, key, value in zip(sequences, keys, values, strict=True)
            if value is not None
        )
        return [vector for vector in read if vector is not None]

    def symbols(self) -> list[str]:
        """Symbols that a server has written a state of, sorted; raises `StoreError`."""
        name = self._keys.states()
        members: list[bytes] = self._connection.run(lambda client: client.zrange(name, 0, -1))
        return sorted(member.decode(errors="replace") for member in members)

    @property
    def arrow_schema(self) -> pa.Schema:
        """Columns of an export: those of the trade, then a float32 for each feature by its name."""
        columns = [*_OF_TRADE, *((name, pa.float32()) for name in self.features.features)]
        return pa.schema(columns, metadata={SCHEMA_ID: self._schema_id, FEATURE_SET: self.features.name})

    def table(self, symbols: Sequence[str], n: int) -> pa.Table:
        """The newest `n` vectors of each symbol, in the order of the symbols; errors as in `history`."""
        return pa.Table.from_batches(self.batches(symbols, n), self.arrow_schema)

    def batches(self, symbols: Sequence[str], n: int) -> Iterator[pa.RecordBatch]:
        """As `table`, a symbol at a time: what is held is one symbol's."""
        for symbol in symbols:
            found = self.history(symbol, n)
            columns: dict[str, Any] = {
                "symbol": [vector.symbol for vector in found],
                "sequence": [vector.sequence for vector in found],
                "counted": [vector.counted for vector in found],
                "exchange_ts": [vector.exchange_ts_ns for vector in found],
                "written_ts": [vector.written_ns for vector in found],
                "price": [vector.price for vector in found],
            }
            values = np.array([vector.values for vector in found], np.float32).reshape(-1, self.features.width)
            columns |= {name: np.ascontiguousarray(values[:, k]) for k, name in enumerate(self.features.features)}
            schema = self.arrow_schema
            arrays = [pa.array(columns[field.name], field.type) for field in schema]
            yield pa.RecordBatch.from_arrays(arrays, schema=schema)

    def close(self) -> None:
        """Let the connections go."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _unpacked(self, value: bytes, key: str, symbol: str, sequence: int | None) -> StoredVector | None:
        """The vector of a value; None where it is refused, which is counted."""
        try:
            found = unpack_vector(value, key, symbol=symbol, schema_id=self._schema_id)
            if found.values.size != self.features.width:
                why = f"expected {self.features.width} values, found {found.values.size}"
                raise ValueRefused(Refusal.SCHEMA, key, why)  # noqa: TRY301 - counted like the others
            if sequence is not None and found.sequence != sequence:
                why = f"expected sequence {sequence}, found {found.sequence}"
                raise ValueRefused(Refusal.GARBAGE, key, why)  # noqa: TRY301 - as above
        except ValueRefused as error:
            self._refuse(error)
            return None
        return found

    def _sequence(self, member: bytes, name: str) -> int | None:
        """The sequence that a member of a history is; None where it is none, which is counted."""
        if member.isdigit() and len(member) == _MEMBER_DIGITS:
            return int(member)
        self._refuse(ValueRefused(Refusal.GARBAGE, name, f"expected {_MEMBER_DIGITS} digits, found {member!r}"))
        return None

    def _refuse(self, error: ValueRefused) -> None:
        self.refused[error.refusal] += 1
        if len(self.first_refused) < _FIRST_REFUSED:
            self.first_refused.append(error)


def export(store: FeatureStore, symbols: Sequence[str], n: int, path: Path) -> int:
    """Write the newest `n` vectors of each symbol to a file, beside its place and renamed; how many these were.

    Args:
        store: Where they are read.
        symbols: In this order.
        n: As `FeatureStore.history`.
        path: `.arrow` (Arrow IPC) or `.parquet`.

    Raises:
        ValueError: Another ending; or as `FeatureStore.history`.
        StoreError: Redis failed.
        OSError: The file cannot be written.
    """
    if path.suffix not in {".arrow", ".parquet"}:
        raise ValueError(f"{path}: expected an ending of .arrow or .parquet")
    unfinished = path.with_name(f"{path.name}.unfinished")
    schema, written = store.arrow_schema, 0
    try:
        writer: Any = pq.ParquetWriter(unfinished, schema) if path.suffix == ".parquet" else None
        with writer or pa.ipc.new_file(str(unfinished), schema) as file:
            for batch in store.batches(symbols, n):
                written += batch.num_rows
                file.write_batch(batch)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return written
