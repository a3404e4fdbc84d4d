"""Meta-labels: not which way to trade, but whether a trade that another model asks for would gain.

López de Prado, "Advances in Financial Machine Learning", 2018, 3.6.
"""

import numpy as np
from numpy.typing import NDArray

from tickgate_training.labels.barriers import check_side
from tickgate_training.labels.labels import DOWN, UNLABELLED, UP, Labels


def meta_labels(labels: Labels, side: NDArray[np.int8], cost: float | NDArray[np.float64] = 0.0) -> Labels:
    """Label each row by whether the trade on the primary model's side gained.

    A trade that came back to where it was gained nothing: it is a 0, not a row without label. A row has no label where
    there is no side, where the return or the cost is not finite, or where the move has no label although the price
    moved: over a silence the position would not have been held, and a vertical barrier may be set to give none.

    Args:
        labels: Of the move; with triple barriers, made with the same `side`.
        side: int8 [n], the primary model's, known at the row: +1 long, -1 short, 0 no trade.
        cost: Of the round trip, as a fraction of notional, at least 0: a number or float64 [n].

    Returns:
        Direction 1 where side x return - cost > 0, else 0; returns: that net return, NaN without a side; the same
        interval ends.

    Raises:
        ValueError: A side is none of the three, or a cost is below 0.
    """
    costs = np.broadcast_to(np.asarray(cost, np.float64), labels.returns.shape)
    if (costs < 0.0).any():
        raise ValueError(f"cost must be at least 0, got {costs[costs < 0.0][0]}")
    sides = check_side(side)
    net = np.where(sides == 0, np.nan, sides * labels.returns - costs)
    direction = np.where(net > 0.0, UP, DOWN).astype(np.int8)
    passed_over = ~labels.labelled & (labels.returns != 0.0)
    direction[~np.isfinite(net) | passed_over] = UNLABELLED
    return Labels(direction, net, labels.interval_end)
