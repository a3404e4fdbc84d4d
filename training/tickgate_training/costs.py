"""What a change of position costs, as a fraction of the notional traded.

    cost = half_spread + fee + Y sigma sqrt(Q / V)

Q is the size traded, V the volume and sigma the volatility over the same span: the square-root law of market impact
(Torre, "BARRA Market Impact Model Handbook", 1997; Tóth et al., "Anomalous price impact and the critical nature of
liquidity in financial markets", Physical Review X 1, 021006, 2011). Y is of order 1 for orders worked over that span;
0, the default, leaves impact out and suits sizes that the best quote can take.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tickgate_training.errors import ArgumentInvalid


@dataclass(frozen=True, slots=True)
class Costs:
    """Parameters of the cost of trading.

    Attributes:
        fee: Fraction of notional paid to the venue on each trade; below 0: a rebate.
        impact: Y of the square-root law; 0: none.

    Raises:
        ArgumentInvalid: The fee is not finite, or Y is below 0 or not finite.
    """

    fee: float
    impact: float = 0.0

    def __post_init__(self) -> None:
        if not math.isfinite(self.fee):
            raise ArgumentInvalid("fee", self.fee, "it must be finite")
        if not (self.impact >= 0.0 and math.isfinite(self.impact)):
            raise ArgumentInvalid("impact", self.impact, "it must be a number of at least 0")

    def fractions(
        self,
        sizes: NDArray[np.float64],
        half_spreads: NDArray[np.float64],
        volatilities: NDArray[np.float64],
        volumes: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        """Cost of trading each size, as a fraction of its notional.

        Args:
            sizes: Absolute size of each change of position, float64 [n].
            half_spreads: Half spread as a fraction of price, float64 [n].
            volatilities: Volatility over the span that `volumes` counts, float64 [n]; not read where Y is 0.
            volumes: Volume traded over it, float64 [n]; not read where Y is 0.

        Returns:
            float64 [n]; infinite where something is to be traded with impact against no volume, NaN where the
            volatility is unknown, or zero against no volume. Neither is hidden: a return with such a cost is undefined.
        """
        fractions = half_spreads + self.fee
        if self.impact == 0.0:
            return fractions
        share = np.where(sizes > 0.0, np.inf, 0.0)
        np.divide(sizes, volumes, out=share, where=volumes > 0.0)
        with np.errstate(invalid="ignore"):  # zero times infinity: NaN, as said above
            return np.asarray(fractions + self.impact * volatilities * np.sqrt(share))
