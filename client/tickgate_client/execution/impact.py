"""The square-root law of market impact, as training's `costs` has it, for one order at a time.

    impact = Y sigma sqrt(Q / V)

as a fraction of price, on average over the order. Q is its size, V the volume and sigma the volatility over the same
span: Torre, "BARRA Market Impact Model Handbook", 1997; Tóth et al., "Anomalous price impact and the critical nature of
liquidity in financial markets", Physical Review X 1, 021006, 2011. Y is of order 1; 0 leaves impact out.
"""

from __future__ import annotations

import math

_HALVINGS = 60
"""Of the interval that holds a size: down to a rounding error of it."""


def impact_fraction(size: float, volatility: float, volume: float, y: float) -> float:
    """Average impact on an order, as a fraction of price.

    Args:
        size: Q, units, >= 0.
        volatility: Sigma over the span that `volume` counts; not read where Y is 0.
        volume: V, units traded over it; not read where Y is 0.
        y: Y, >= 0.

    Returns:
        Infinite where something is traded with impact against no volume; NaN where the volatility is unknown, or zero
        against no volume. Neither is hidden: an order with such an impact has no price.
    """
    if y == 0.0:
        return 0.0
    share = size / volume if volume > 0.0 else (math.inf if size > 0.0 else 0.0)
    return y * volatility * math.sqrt(share)


def next_fraction(before: float, size: float, volatility: float, volume: float, y: float) -> float:
    """Impact on the next part of an order, so that all parts together pay what the law says of the whole.

    With C(Q) = Q x impact_fraction(Q) a part pays (C(before + size) - C(before)) / size: an order is not made cheaper
    by filling it in pieces.

    Args:
        before: Units of the order that were filled already.
        size: Units of this part, > 0.
        volatility: As `impact_fraction`.
        volume: As `impact_fraction`.
        y: As `impact_fraction`.
    """
    if y == 0.0:
        return 0.0
    whole = (before + size) * impact_fraction(before + size, volatility, volume, y)
    so_far = before * impact_fraction(before, volatility, volume, y) if before > 0.0 else 0.0
    return (whole - so_far) / size


def largest_within(fraction: float, before: float, most: float, volatility: float, volume: float, y: float) -> float:
    """Units, at most `most`, whose `next_fraction` is at most `fraction`; 0 where it is unknown or all are too many.

    Args:
        fraction: Impact that the order's limit price leaves room for.
        before: As `next_fraction`.
        most: Units that there are to fill, >= 0.
        volatility: As `impact_fraction`.
        volume: As `impact_fraction`.
        y: As `impact_fraction`.
    """
    if not (most > 0.0 and fraction >= 0.0):
        return 0.0
    if next_fraction(before, most, volatility, volume, y) <= fraction:
        return most
    least = 0.0
    for _ in range(_HALVINGS):  # it grows with the size
        middle = (least + most) / 2
        if middle > 0.0 and next_fraction(before, middle, volatility, volume, y) <= fraction:
            least = middle
        else:
            most = middle
    return least
