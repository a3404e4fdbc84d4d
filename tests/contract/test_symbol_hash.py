"""The published hash of a symbol: known vectors, and what the scheme promises."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickgate.symbol_hash import cached_worker_of, fnv1a_64, jump_hash, worker_of

KEYS = st.integers(0, 2**64 - 1)
SYMBOLS = st.text(min_size=1, max_size=8)
# By 1, 2, 4 and 16 workers.
PINNED = {
    "BTCUSDT": [0, 0, 0, 14],
    "ETHUSDT": [0, 0, 0, 13],
    "AAPL": [0, 0, 0, 9],
    "ES": [0, 1, 1, 1],
    "SPY": [0, 1, 1, 7],
    "7203.T": [0, 1, 2, 2],
    "Ünïcode": [0, 1, 3, 13],
}


@pytest.mark.parametrize(
    ("data", "expected"),
    [(b"", 0xCBF29CE484222325), (b"a", 0xAF63DC4C8601EC8C), (b"foobar", 0x85944171F73967E8)],
)
def test_fnv_1a_gives_its_published_vectors(data: bytes, expected: int) -> None:
    assert fnv1a_64(data) == expected


def test_jump_hash_gives_what_other_libraries_give() -> None:
    # The vectors that Guava's Hashing.consistentHash is tested with.
    of_100 = [0, 55, 62, 8, 45, 59, 86, 97, 82, 59, 73, 37, 17, 56, 86, 21, 90, 37, 38, 83]
    assert [jump_hash(key, 100) for key in range(20)] == of_100
    assert [jump_hash(key, 11) for key in (10863919174838991, 2016238256797177309, 1673758223894951030)] == [6, 3, 5]
    assert [jump_hash(2, 100_001), jump_hash(2201, 100_001), jump_hash(2202, 100_001)] == [80343, 22152, 15018]


def test_symbols_keep_their_workers_from_release_to_release() -> None:
    assert {symbol: [worker_of(symbol, workers) for workers in (1, 2, 4, 16)] for symbol in PINNED} == PINNED


@given(KEYS, st.integers(1, 256))
def test_a_bucket_is_one_of_them(key: int, buckets: int) -> None:
    assert 0 <= jump_hash(key, buckets) < buckets


@given(KEYS, st.integers(1, 255))
def test_one_more_bucket_takes_keys_and_moves_no_other(key: int, buckets: int) -> None:
    assert jump_hash(key, buckets + 1) in {jump_hash(key, buckets), buckets}


@given(st.lists(SYMBOLS), st.integers(1, 16))
def test_what_is_remembered_is_what_is_computed(symbols: list[str], workers: int) -> None:
    owner = cached_worker_of(workers, capacity=2)
    assert [owner(symbol) for symbol in symbols] == [worker_of(symbol, workers) for symbol in symbols]


@pytest.mark.parametrize("workers", [2, 4, 8])
def test_symbols_that_differ_in_little_are_shared_out_evenly(workers: int) -> None:
    shares = Counter(worker_of(f"{first}{second}USDT", workers) for first in range(64) for second in range(64))
    even = 64 * 64 / workers
    assert all(abs(share - even) < 0.15 * even for share in shares.values())
    assert len(shares) == workers
