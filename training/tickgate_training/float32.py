"""float64 made such that float32 says the same: thresholds that split alike, terms whose sums are exact."""

import math

import numpy as np
from numpy.typing import NDArray

_SIGNIFICAND_BITS = 24
_SMALLEST_EXPONENT = -149  # of what is not 0


def round_down_to_float32(values: NDArray[np.float64]) -> NDArray[np.float32]:
    """The largest float32 not above each value: float64 [n], finite, to float32 [n]."""
    rounded = values.astype(np.float32)
    up = rounded.astype(np.float64) > values
    rounded[up] = np.nextafter(rounded[up], np.float32(-np.inf))
    return rounded


def exact_unit(largest_sum: float) -> float:
    """A power of two of which multiples are added exactly in float32, in any order.

    A float32 holds every integer up to 2^24 times the unit, and the unit is so chosen that no sum is larger: 2^-17 for
    sums up to 127, which is about what a float32 sum of that size would have lost anyway. Rounding terms to multiples
    of it once makes float32 and float64 agree on every sum, where else they drift apart with the number of terms.

    Args:
        largest_sum: Finite, from 0 up: no partial sum of the unrounded terms is larger in size. Rounding may add half a
            unit a term, for which there is room with up to 2^15 terms.
    """
    _, exponent = math.frexp(largest_sum * (1.0 + 2.0**-8))
    return math.ldexp(1.0, max(exponent - _SIGNIFICAND_BITS, _SMALLEST_EXPONENT))
