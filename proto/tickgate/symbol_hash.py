"""Which worker a symbol belongs to: `SYMBOL_HASH_FNV1A64_JUMP` of the contract, for servers and clients alike.

Neither gRPC nor protobuf is imported here. A published hash: clients in other languages find the same worker.
"""

from collections.abc import Callable

# Fowler, Noll, Vo, Eastlake, Hansen, "The FNV Non-Cryptographic Hash Algorithm", draft-eastlake-fnv-21.
_OFFSET_BASIS = 0xCBF29CE484222325
_PRIME = 0x100000001B3
_MASK = 0xFFFFFFFFFFFFFFFF
# Lamping and Veach, "A Fast, Minimal Memory, Consistent Hash Algorithm", 2014, arXiv:1406.2294, figure 1.
_MULTIPLIER = 2862933555777941757


def fnv1a_64(data: bytes) -> int:
    """FNV-1a of 64 bits, 0 to 2**64 - 1.

    >>> hex(fnv1a_64(b"foobar"))
    '0x85944171f73967e8'
    """
    value = _OFFSET_BASIS
    for byte in data:
        value = ((value ^ byte) * _PRIME) & _MASK
    return value


def jump_hash(key: int, buckets: int) -> int:
    """Jump consistent hash of a 64-bit key: 0 to buckets - 1; of n + 1 buckets the last takes 1/(n + 1) of the keys.

    >>> jump_hash(10863919174838991, 11)
    6
    """
    bucket, following = -1, 0
    while following < buckets:
        bucket = following
        key = (key * _MULTIPLIER + 1) & _MASK
        following = int((bucket + 1) * (float(1 << 31) / float((key >> 33) + 1)))
    return bucket


def worker_of(symbol: str, workers: int) -> int:
    """Index of the worker, of so many, that the symbol belongs to. A microsecond or two."""
    return jump_hash(fnv1a_64(symbol.encode()), workers)


def cached_worker_of(workers: int, capacity: int = 65_536) -> Callable[[str], int]:
    """`worker_of` for so many workers that remembers up to `capacity` symbols; full, it begins anew."""
    known: dict[str, int] = {}

    def owner(symbol: str) -> int:
        index = known.get(symbol)
        if index is None:
            index = worker_of(symbol, workers)
            if len(known) >= capacity:
                known.clear()
            known[symbol] = index
        return index

    return owner
