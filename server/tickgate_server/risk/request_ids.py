"""Request ids that were answered, with what: the same id and payload gets the first answer again.

Two tables of `KEPT` ids take turns: when the newer is full, the older is emptied and becomes the newer. So the last
`KEPT` ids are always known, and at most twice as many. An id is found by a hash and compared byte by byte.
"""

from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from tickgate_server.arrays import TABLE, ArrayTable, float_rows, integer_rows, integers, word_rows
from tickgate_server.kernels import kernel

KEPT = 65_536
ID_BYTES = 36
_INDEX = 2 * KEPT
_MASK = _INDEX - 1
_RECENT = 256

# Arrays by number.
IDS_STATE, IDS_INDEX, IDS_WORDS, IDS_FACTS, IDS_VALUES = range(5)
# IDS_STATE: which table is the newer, and how many ids it has.
_NEWER, _COUNT = range(2)
# Columns of IDS_WORDS, uint64 [2 KEPT, 7]: the payload's hash, the id's length (0: forgotten), the id.
_PAYLOAD, _LENGTH, _BYTES = range(3)
_WORDS = 7
# Columns of IDS_FACTS, int64 [2 KEPT, FACTS]: of the first answer.
SEQUENCE, EXPIRES_NS, CLOCK_NS, ACTION, REASON, VALID_FOR_US, MODEL, SCORED, REDUCING, REGIME = range(10)
FACTS = 10
# Columns of IDS_VALUES, float64 [2 KEPT, VALUES].
SIZE, LIMIT_PRICE, TARGET, VALUE, CONFIDENCE, REMAINING = range(6)
VALUES = 6

# Columns of what `keep_records` takes.
(
    GIVEN,
    KIND,
    EXCHANGE_TS_NS,
    TICK_SEQUENCE,
    REFERENCE_BITS,
    WIDTH,
    SYMBOL_AT,
    SYMBOL_LENGTH,
    MODEL_AT,
    MODEL_LENGTH,
    ID_AT,
    ID_LENGTH,
) = range(12)
ASKED = 12

_PRIME = np.uint64(0x9E3779B185EBCA87)
_SEED = np.uint64(0x27D4EB2F165667C5)
_LEFT, _RIGHT, _HALF = np.uint64(29), np.uint64(35), np.uint64(32)
_DATA = types.Bytes(types.uint8, 1, "C")


@kernel("uint64(uint64, uint64)")
def mix(hashed: Any, word: Any) -> Any:
    """A hash with one word more in it; a bijection of either."""
    found = (hashed ^ word) * _PRIME
    return (found << _LEFT) | (found >> _RIGHT)


@kernel(types.uint64(types.uint64, _DATA, types.int64, types.int64))
def mix_text(hashed: Any, data: bytes, at: int, length: int) -> Any:
    """A hash with a span of bytes, and its length, in it."""
    found = mix(hashed, np.uint64(length))
    word = np.uint64(0)
    for k in range(length):
        word = word << np.uint64(8) | np.uint64(data[at + k])
        if k % 8 == 7:
            found = mix(found, word)
            word = np.uint64(0)
    return mix(found, word)


@kernel(
    types.uint64(
        types.int64,
        types.int64,
        types.int64,
        types.uint64,
        types.uint64[::1],
        types.float64,
        types.float32[::1],
        _DATA,
        types.int64,
        types.int64,
        types.int64,
        types.int64,
    )
)
def payload_hash(
    given: int,
    kind: int,
    exchange_ts_ns: int,
    sequence: Any,
    bits: NDArray[np.uint64],
    reference_price: float,
    values: NDArray[np.float32],
    data: bytes,
    symbol_at: int,
    symbol_length: int,
    model_at: int,
    model_length: int,
) -> Any:
    """Hash of all that a request asks; what its input and kind do not have must be 0.

    `bits`: uint64 [6]: price, size, bid, ask and their sizes as doubles. Symbol and model are spans of `data`.
    """
    found = mix(_SEED, np.uint64(given) << np.uint64(8) | np.uint64(kind))
    found = mix(found, np.uint64(exchange_ts_ns))
    found = mix(found, sequence)
    for k in range(6):
        found = mix(found, bits[k])
    found = mix(found, np.uint64(np.int64(np.float64(reference_price).view(np.int64))))
    for k in range(values.size):
        found = mix(found, np.uint64(np.float32(values[k]).view(np.uint32)))
    found = mix_text(found, data, symbol_at, symbol_length)
    return mix_text(found, data, model_at, model_length)


@kernel(types.uint64(_DATA, types.int64, types.int64))
def _hash_of(data: bytes, at: int, length: int) -> Any:
    found = mix_text(_SEED, data, at, length)
    return found ^ (found >> _HALF)


@kernel(types.boolean(types.uint64[:, ::1], types.int64, _DATA, types.int64, types.int64))
def _is(words: NDArray[np.uint64], entry: int, data: bytes, at: int, length: int) -> bool:
    if words[entry, _LENGTH] != np.uint64(length):
        return False
    for k in range(length):
        if np.uint64(data[at + k]) != (words[entry, _BYTES + k // 8] >> np.uint64(8 * (k % 8))) & np.uint64(0xFF):
            return False
    return True


@kernel(types.int64(TABLE, _DATA, types.int64, types.int64))
def find_id(table: NDArray[np.int64], data: bytes, at: int, length: int) -> int:
    """Entry of an id, the span of `data`; -1: it is not known."""
    state = integers(table, IDS_STATE)
    index = integer_rows(table, IDS_INDEX)
    words = word_rows(table, IDS_WORDS)
    place = np.int64(_hash_of(data, at, length) & np.uint64(_MASK))
    for turn in range(2):
        newer = state[_NEWER] if turn == 0 else 1 - state[_NEWER]
        k = place
        while index[newer, k] != 0:  # at most half of the places are taken
            entry = index[newer, k] - 1
            if _is(words, entry, data, at, length):
                return entry
            k = (k + 1) & _MASK
    return -1


@kernel(types.int64(TABLE, _DATA, types.int64, types.int64, types.uint64))
def keep_id(table: NDArray[np.int64], data: bytes, at: int, length: int, payload: Any) -> int:
    """Keep an id that is not known; the entry, whose facts and values are the caller's to fill."""
    state = integers(table, IDS_STATE)
    index = integer_rows(table, IDS_INDEX)
    words = word_rows(table, IDS_WORDS)
    if state[_COUNT] == KEPT:
        state[_NEWER] = 1 - state[_NEWER]
        state[_COUNT] = 0
        index[state[_NEWER], :] = 0
    newer = state[_NEWER]
    entry = newer * KEPT + state[_COUNT]
    state[_COUNT] += 1
    for k in range(_WORDS):
        words[entry, k] = np.uint64(0)
    words[entry, _PAYLOAD] = payload
    words[entry, _LENGTH] = np.uint64(length)
    for k in range(length):
        words[entry, _BYTES + k // 8] |= np.uint64(data[at + k]) << np.uint64(8 * (k % 8))
    k = np.int64(_hash_of(data, at, length) & np.uint64(_MASK))
    while index[newer, k] != 0:
        k = (k + 1) & _MASK
    index[newer, k] = entry + 1
    return entry


@kernel(
    types.void(
        TABLE,
        _DATA,
        types.int64[:, ::1],
        types.uint64[:, ::1],
        types.float32[:, ::1],
        types.int64[:, ::1],
        types.float64[:, ::1],
    )
)
def keep_records(
    table: NDArray[np.int64],
    data: bytes,
    asked: NDArray[np.int64],
    bits: NDArray[np.uint64],
    vectors: NDArray[np.float32],
    facts: NDArray[np.int64],
    values: NDArray[np.float64],
) -> None:
    """Keep the ids of many requests as the journal has them, oldest first.

    Args:
        table: The ids' own.
        data: Where the texts are.
        asked: int64 [n, ASKED]: what `payload_hash` takes, and where the id is.
        bits: uint64 [n, 6], as `payload_hash`.
        vectors: float32 [n, width]: the values that came with a request.
        facts: int64 [n, FACTS].
        values: float64 [n, VALUES].
    """
    kept_facts = integer_rows(table, IDS_FACTS)
    kept_values = float_rows(table, IDS_VALUES)
    for k in range(asked.shape[0]):
        said = asked[k]
        if find_id(table, data, said[ID_AT], said[ID_LENGTH]) >= 0:
            continue
        reference = np.float64(np.int64(said[REFERENCE_BITS]).view(np.float64))
        payload = payload_hash(
            said[GIVEN], said[KIND], said[EXCHANGE_TS_NS], np.uint64(said[TICK_SEQUENCE]), bits[k], reference,
            vectors[k, : said[WIDTH]], data, said[SYMBOL_AT], said[SYMBOL_LENGTH], said[MODEL_AT], said[MODEL_LENGTH],
        )  # fmt: skip
        entry = keep_id(table, data, said[ID_AT], said[ID_LENGTH], payload)
        kept_facts[entry, :] = facts[k]
        kept_values[entry, :] = values[k]


class RequestIds:
    """The ids of one engine, with their first answers.

    Attributes:
        table: int64 [arrays, 3], for kernels.
        facts: int64 [2 KEPT, FACTS].
        values: float64 [2 KEPT, VALUES].
    """

    def __init__(self) -> None:
        arrays = ArrayTable(5)
        self._state = np.zeros(2, np.int64)
        self._words = np.zeros((2 * KEPT, _WORDS), np.uint64)
        self.facts = np.zeros((2 * KEPT, FACTS), np.int64)
        self.values = np.zeros((2 * KEPT, VALUES))
        arrays.put(IDS_STATE, self._state)
        arrays.put(IDS_INDEX, np.zeros((2, _INDEX), np.int64))
        arrays.put(IDS_WORDS, self._words)
        arrays.put(IDS_FACTS, self.facts)
        arrays.put(IDS_VALUES, self.values)
        self._arrays = arrays
        self.table = arrays.table

    def find(self, identity: bytes) -> int:
        """Entry of an id; -1: it is not known."""
        return int(find_id(self.table, identity, 0, len(identity)))

    def keep(self, identity: bytes, payload: int) -> int:
        """Keep an id that is not known; its entry, whose facts and values are to be filled."""
        return int(keep_id(self.table, identity, 0, len(identity), payload))

    def same_payload(self, entry: int, payload: int) -> bool:
        """Whether an entry was of that payload."""
        return int(self._words[entry, _PAYLOAD]) == payload

    def forget(self, sequence: int) -> None:
        """Forget the id whose answer has a sequence in the journal, because that answer did not leave.

        It is among the last ones, where it is looked for first; O(KEPT) where it is not there at all.
        """
        newer, count = int(self._state[_NEWER]), int(self._state[_COUNT])
        first = newer * KEPT
        recent = max(count - _RECENT, 0)
        older = (1 - newer) * KEPT
        spans = [(first + recent, first + count), (first, first + recent), (older, older + KEPT)]
        for begin, end in spans:
            entries = np.flatnonzero(self.facts[begin:end, SEQUENCE] == sequence)
            if len(entries):
                self._words[begin + entries[-1], _LENGTH] = 0
                return
