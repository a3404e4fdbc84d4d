"""The configured kinds of label; a section without `kind` means `fixed_horizon`."""

from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Discriminator, Field, Tag

from tickgate_training.labels.barriers import AtVertical, triple_barrier
from tickgate_training.labels.fixed import fixed_horizon
from tickgate_training.labels.labels import Labels
from tickgate_training.strict import Strict


class _Horizon(Strict):
    horizon_trades: int = Field(default=10, ge=1)
    lag_trades: int = Field(default=1, ge=1)
    price: Literal["trade", "mid"] = "trade"


class FixedHorizonConfig(_Horizon):
    """Sign after a number of trades; `price` says of which price: the trade's, or the mid just before the trade."""

    kind: Literal["fixed_horizon"] = "fixed_horizon"

    def apply(
        self,
        prices: NDArray[np.float64],
        trade_volatilities: NDArray[np.float64],  # noqa: ARG002 - one signature for every kind
        stamps_ns: NDArray[np.int64],
        session_gap_ns: int,
        side: NDArray[np.int8] | None = None,  # noqa: ARG002 - the same
    ) -> Labels:
        """Label one symbol's rows; see `fixed.fixed_horizon`. Volatilities and a primary's side are not looked at."""
        return fixed_horizon(
            prices, self.horizon_trades, self.lag_trades, stamps_ns=stamps_ns, session_gap_ns=session_gap_ns
        )


class TripleBarrierConfig(_Horizon):
    """Sign at the first barrier touched; `horizon_trades` is the vertical one. A multiple of 0 leaves a barrier out."""

    kind: Literal["triple_barrier"] = "triple_barrier"
    upper_multiple: float = Field(default=1.0, ge=0.0)
    lower_multiple: float = Field(default=1.0, ge=0.0)
    volatility_floor: float = Field(default=1e-4, gt=0.0)
    at_vertical: AtVertical = "sign"

    def apply(
        self,
        prices: NDArray[np.float64],
        trade_volatilities: NDArray[np.float64],
        stamps_ns: NDArray[np.int64],
        session_gap_ns: int,
        side: NDArray[np.int8] | None = None,
    ) -> Labels:
        """Label one symbol's rows; see `barriers.triple_barrier`."""
        return triple_barrier(
            prices,
            trade_volatilities,
            self.horizon_trades,
            self.lag_trades,
            upper_multiple=self.upper_multiple,
            lower_multiple=self.lower_multiple,
            volatility_floor=self.volatility_floor,
            at_vertical=self.at_vertical,
            side=side,
            stamps_ns=stamps_ns,
            session_gap_ns=session_gap_ns,
        )


def _kind(section: Any) -> Any:
    return section.get("kind", "fixed_horizon") if isinstance(section, dict) else getattr(section, "kind", None)


LabelConfig = Annotated[
    Annotated[FixedHorizonConfig, Tag("fixed_horizon")] | Annotated[TripleBarrierConfig, Tag("triple_barrier")],
    Discriminator(_kind),
]
"""The kind of label of a run."""
