"""Vectors and states as bytes: equal bit for bit on the way back, and refused, with the reason, where not whole."""

import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tickgate_server import kernels
from tickgate_server.features.fundamentals import KnownFundamentals
from tickgate_server.features.schema import Fundamental, micro10, micro32, with_fundamentals
from tickgate_server.features.store import FeatureStore
from tickgate_server.states import codec
from tickgate_server.states.codec import StoredVector, pack_state, pack_vector, unpack_state, unpack_vector
from tickgate_server.states.errors import Refusal, ValueRefused
from tickgate_server.states.state import SymbolState, blank, copy_state, put_state
from tickgate_server.ticks.market import MarketState

TEN, ALL = micro10(), micro32()
SYMBOLS = st.text(min_size=1, max_size=8)


def random_bits(array: NDArray[np.generic], rng: np.random.Generator) -> None:
    """Any bits: NaN with any payload, infinities, -0.0 and subnormals among them."""
    array.view(np.uint8)[:] = rng.integers(0, 256, array.view(np.uint8).shape, np.uint8)


def arbitrary(rng: np.random.Generator, rows: int = 3) -> tuple[MarketState, list[FeatureStore]]:
    state, stores = MarketState(rows), [FeatureStore(TEN, rows), FeatureStore(ALL, rows)]
    for array in (state.quotes_trades, state.volatilities, state.stamps, state.sequences):
        random_bits(array, rng)
    for store in stores:
        for array in (store.prices, store.sizes, store.stamps_ns, store.carried, store.marks, store.vectors):
            random_bits(array, rng)
        store.counts[:] = rng.integers(0, 1 << 62, rows)
        store.ready[:] = rng.integers(0, 2, rows, bool)
    return state, stores


def image(row: int, state: MarketState, stores: list[FeatureStore]) -> list[bytes]:
    found = [array[row].tobytes() for array in (state.quotes_trades, state.volatilities, state.stamps, state.sequences)]
    for store in stores:
        names = ("prices", "sizes", "stamps_ns", "counts", "vectors", "ready")
        found += [getattr(store, name)[row].tobytes() for name in names]
        if store.with_quotes:
            found += [store.carried[row].tobytes(), store.marks[row].tobytes()]
    return found


def some_state(symbol: str = "A", seed: int = 1) -> SymbolState:
    state, stores = arbitrary(np.random.default_rng(seed))
    return copy_state(symbol, 1, state, stores, journal_sequence=7, ticks=9)


def some_vector(values: list[float] | None = None, **changes: object) -> StoredVector:
    given_values = np.array([1.0, -2.5] if values is None else values, np.float32)
    found = StoredVector("A", TEN.schema_id, 5, False, 17, 18, 99.5, given_values)
    return found._replace(**changes)


def refusal_of_vector(value: bytes, symbol: str = "A", schema_id: str = TEN.schema_id) -> Refusal:
    with pytest.raises(ValueRefused) as caught:
        unpack_vector(value, "key", symbol=symbol, schema_id=schema_id)
    assert str(caught.value).startswith(f"key: {caught.value.refusal}: ")
    return caught.value.refusal


def refusal_of_state(value: bytes, symbol: str = "A", stores: dict[str, FeatureStore] | None = None) -> Refusal:
    with pytest.raises(ValueRefused) as caught:
        unpack_state(value, "key", symbol=symbol, stores=stores)
    return caught.value.refusal


def sealed(content: bytes) -> bytes:
    """Content with a checksum that fits: what somebody else's program might have written."""
    return content + struct.pack("<I", zlib.crc32(content))


@given(SYMBOLS, st.integers(0, 2**32 - 1))
@settings(max_examples=25)
def test_a_state_comes_back_bit_for_bit_into_another_row(symbol: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    state, stores = arbitrary(rng)
    before = image(1, state, stores)
    value = pack_state(copy_state(symbol, 1, state, stores, journal_sequence=7, ticks=9), 11)
    other, others = arbitrary(rng)
    untouched = image(0, other, others)
    found = unpack_state(value, "key", symbol=symbol, stores={store.feature_set.schema_id: store for store in others})
    put_state(found, 2, other, others)
    assert image(2, other, others) == before
    assert image(0, other, others) == untouched
    assert (found.symbol, found.journal_sequence, found.ticks) == (symbol, 7, 9)


def test_windows_of_a_set_that_a_state_lacks_begin_anew() -> None:
    rng = np.random.default_rng(3)
    state, stores = arbitrary(rng)
    found = copy_state("A", 1, state, stores[:1], journal_sequence=7, ticks=9)
    put_state(found, 1, state, stores)
    fresh = FeatureStore(ALL, 3)
    assert image(1, state, [stores[1]])[4:] == image(0, state, [fresh])[4:]


def test_a_blank_row_is_as_before_the_first_tick() -> None:
    state, stores = arbitrary(np.random.default_rng(4))
    blank(1, state, stores)
    assert image(1, state, stores) == image(0, MarketState(1), [FeatureStore(TEN, 1), FeatureStore(ALL, 1)])


def test_fundamentals_are_no_part_of_a_state() -> None:
    features = with_fundamentals(TEN, [Fundamental("eps", 10)])
    store = FeatureStore(features, 1, KnownFundamentals(1))
    store.vectors[:] = np.arange(11.0)
    found = copy_state("A", 0, MarketState(1), [store], journal_sequence=1, ticks=1)
    assert found.windows[0].vector.tolist() == list(range(10))
    put_state(found, 0, MarketState(1), [store])
    assert np.isnan(store.vectors[0, 10])


@given(
    SYMBOLS,
    st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=48),
    st.integers(0, 2**64 - 1),
    st.booleans(),
)
def test_a_vector_comes_back_bit_for_bit(symbol: str, values: list[float], sequence: int, counted: bool) -> None:  # noqa: FBT001
    given_vector = some_vector(values, symbol=symbol, sequence=sequence, counted=counted)
    found = unpack_vector(pack_vector(given_vector), "key", symbol=symbol, schema_id=TEN.schema_id)
    assert found.values.tobytes() == given_vector.values.tobytes()
    assert found[:-1] == given_vector[:-1]


@given(st.data())
@settings(max_examples=60)
def test_any_truncation_and_any_flipped_byte_is_refused(data: st.DataObject) -> None:
    for value, refusal_of in ((STATE, refusal_of_state), (VECTOR, refusal_of_vector)):
        cut = data.draw(st.integers(0, len(value) - 1))
        assert refusal_of(value[:cut]) is Refusal.TRUNCATED
        at, bits = data.draw(st.integers(0, len(value) - 1)), data.draw(st.integers(1, 255))
        flipped = bytearray(value)
        flipped[at] ^= bits
        assert refusal_of(bytes(flipped)) in {
            Refusal.GARBAGE,  # in the magic
            Refusal.VERSION,
            Refusal.TRUNCATED,  # in the length
            Refusal.CHECKSUM,
        }


STATE, VECTOR = pack_state(some_state(), 11), pack_vector(some_vector())


@given(st.binary(max_size=300))
def test_garbage_is_refused_and_raises_nothing_else(value: bytes) -> None:
    assert refusal_of_vector(value) in {Refusal.TRUNCATED, Refusal.GARBAGE}
    assert refusal_of_state(value) in {Refusal.TRUNCATED, Refusal.GARBAGE}


@given(st.binary(max_size=200))
def test_garbage_in_a_frame_that_fits_is_refused(body: bytes) -> None:
    for magic, refusal_of in ((b"TGFV", refusal_of_vector), (b"TGFS", refusal_of_state)):
        head = struct.pack("<4sBBHIB32s", magic, codec.VERSION, 0, 1, 45 + len(body) + 4, 1, b"A")
        assert refusal_of(sealed(head + body)) in {Refusal.GARBAGE, Refusal.SCHEMA}


def test_what_follows_a_value_is_garbage() -> None:
    assert refusal_of_vector(VECTOR + b"\0") is Refusal.GARBAGE
    assert refusal_of_state(STATE + STATE) is Refusal.GARBAGE


def test_another_version_is_refused_as_such() -> None:
    for value, refusal_of in ((STATE, refusal_of_state), (VECTOR, refusal_of_vector)):
        older = sealed(value[:4] + bytes([codec.VERSION + 1]) + value[5:-4])
        assert refusal_of(older) is Refusal.VERSION


def test_another_symbols_value_is_refused() -> None:
    assert refusal_of_vector(VECTOR, symbol="B") is Refusal.SYMBOL
    assert refusal_of_state(STATE, symbol="B") is Refusal.SYMBOL


def test_a_vector_of_another_feature_set_is_refused() -> None:
    assert refusal_of_vector(VECTOR, schema_id=ALL.schema_id) is Refusal.SCHEMA


def test_a_vector_that_is_not_all_finite_is_refused() -> None:
    assert refusal_of_vector(pack_vector(some_vector([1.0, float("nan")]))) is Refusal.GARBAGE


def test_windows_of_another_size_are_refused() -> None:
    assert refusal_of_state(STATE, stores={TEN.schema_id: FeatureStore(ALL, 1)}) is Refusal.SCHEMA


def test_a_state_of_other_kernels_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "CACHE_FOLDER", kernels.CACHE_FOLDER.with_name("0123456789abcdef"))
    assert refusal_of_state(STATE) is Refusal.KERNELS


def test_a_schema_id_that_has_no_room_is_not_cut_short() -> None:
    with pytest.raises(ValueError, match="at most 64 bytes"):
        pack_vector(some_vector(schema_id="x" * 65))
