"""What fills add up to: positions and cash. The same sum on the client's side as in an engine."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tickgate_client.execution.orders import Fill, Side

_DUST = 1e-9
"""A position below a billionth of the units that were traded is rounding; so the server has it too."""


@dataclass(slots=True)
class Holding:
    """One symbol.

    Attributes:
        position: Signed units.
        cash: Money received less money paid, fees included, in the instrument's currency.
        fees: Of it, what fees took.
        bought: Units in all.
        sold: Units in all.
        fills: How many there were.
        slippage: Money lost against arrival prices, by the fills whose arrival price is known; fees are not in it.
        arrived: Money that these fills would have been at their arrival prices, bought and sold alike.
    """

    position: float = 0.0
    cash: float = 0.0
    fees: float = 0.0
    bought: float = 0.0
    sold: float = 0.0
    fills: int = 0
    slippage: float = 0.0
    arrived: float = 0.0


@dataclass(slots=True)
class Account:
    """Positions and cash, from nothing.

    Attributes:
        multiplier_of: Money that a price of 1 is, a unit, by symbol.
        holdings: By symbol.
    """

    multiplier_of: Callable[[str], float] = lambda _symbol: 1.0
    holdings: dict[str, Holding] = field(default_factory=dict)

    def book(self, fill: Fill, arrival_price: float = math.nan) -> None:
        """Add a fill. Conserves: position = bought - sold, cash = sum of sold less bought notionals less fees.

        Args:
            fill: What changed hands.
            arrival_price: Of the market when its order was asked for; NaN: not known.
        """
        held = self.holdings.setdefault(fill.symbol, Holding())
        held.position += fill.side.sign * fill.size
        if abs(held.position) < _DUST * fill.size:
            held.position = 0.0
        held.cash -= fill.side.sign * fill.size * fill.price * self.multiplier_of(fill.symbol) + fill.fee
        if math.isfinite(arrival_price):
            worth = fill.size * self.multiplier_of(fill.symbol)
            held.slippage += fill.side.sign * (fill.price - arrival_price) * worth
            held.arrived += arrival_price * worth
        held.fees += fill.fee
        held.fills += 1
        if fill.side is Side.BUY:
            held.bought += fill.size
        else:
            held.sold += fill.size

    def position(self, symbol: str) -> float:
        """Signed units."""
        held = self.holdings.get(symbol)
        return 0.0 if held is None else held.position

    def positions(self) -> dict[str, float]:
        """Signed units of everything that is held."""
        return {symbol: held.position for symbol, held in self.holdings.items() if held.position}

    def equity(self, symbol: str, price: float) -> float:
        """Profit since nothing was held, if what is held were sold at that price."""
        held = self.holdings.get(symbol, Holding())
        return held.cash + held.position * price * self.multiplier_of(symbol)

    def __iter__(self) -> Iterator[tuple[str, Holding]]:
        return iter(sorted(self.holdings.items()))
