"""The kernel's clocks, for numba kernels that look at the time on their way."""

from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from tickgate_server.kernels import kernel

REALTIME, MONOTONIC = 0, 1

_clock_gettime: Any = types.ExternalFunction("clock_gettime", types.int32(types.int32, types.CPointer(types.int64)))


@kernel(types.int64(types.int32, types.int64[::1]))
def clock_ns(clock: int, timespec: NDArray[np.int64]) -> int:
    """A clock of the kernel's, as `time.time_ns` or `time.perf_counter_ns` read it; `timespec` is int64 [2], to use."""
    _clock_gettime(clock, timespec.ctypes)
    return timespec[0] * 1_000_000_000 + timespec[1]
