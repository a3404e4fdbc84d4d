"""Which symbols a canary answers for: a published hash, so that a symbol stays with one version.

A symbol's place between 0 and 1 is FNV-1a of 64 bits of `canary:` and its UTF-8 (`tickgate.symbol_hash`, with which
workers are chosen without that prefix), finished as MurmurHash3 does (fmix64, A. Appleby, 2011), its upper 53 bits as a
fraction. The canary answers where a hundred times the place is below its share in percent: growing the share keeps the
symbols that it has.
"""

from dataclasses import dataclass

import numpy as np
from numba import types

from tickgate.symbol_hash import fnv1a_64
from tickgate_server.kernels import kernel
from tickgate_server.models.loading import LoadedModel
from tickgate_server.ticks.instruments import SYMBOL_BYTES

_DATA = types.Bytes(types.uint8, 1, "C")
_BASIS = fnv1a_64(b"canary:")
_PRIME = 0x100000001B3
_FIRST, _SECOND = 0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53
_UNIT = 1.0 / (1 << 53)


@kernel(types.float64(_DATA, types.int64, types.int64))
def place(data: bytes, at: int, length: int) -> float:
    """The place of a symbol, a span of `data`: 0 up to and without 1."""
    value = np.uint64(_BASIS)
    for k in range(at, at + length):
        value = (value ^ np.uint64(data[k])) * np.uint64(_PRIME)
    value ^= value >> np.uint64(33)
    value *= np.uint64(_FIRST)
    value ^= value >> np.uint64(33)
    value *= np.uint64(_SECOND)
    value ^= value >> np.uint64(33)
    return np.float64(value >> np.uint64(11)) * _UNIT


@dataclass(frozen=True, slots=True)
class CanaryChoice:
    """A canary that is loaded, and its share of the symbols in percent."""

    model: LoadedModel
    share_percent: float

    def takes(self, symbol: str) -> bool:
        """Whether it answers for a symbol; what is too long to be one is production's to refuse."""
        if len(symbol) > SYMBOL_BYTES:
            return False
        data = symbol.encode()
        return 100.0 * place(data, 0, len(data)) < self.share_percent
