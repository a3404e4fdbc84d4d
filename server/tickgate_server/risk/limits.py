"""The desk's policy and limits: validated, versioned, and what changed between two of them."""

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from tickgate_server.risk.regimes import RegimeName

Positive = Annotated[FiniteFloat, Field(gt=0.0)]
NotNegative = Annotated[float, Field(ge=0.0)]
Switchable: TypeAlias = NotNegative | Literal["off"]
"""A limit, or `off`: then the value is measured and shown, and does not bind, missing or not."""

_REGIMES: tuple[RegimeName, ...] = ("normal", "trending", "risk_off", "high_volatility", "unknown")
# Limits of the whole desk: each of several workers holds an equal slice.
SLICED = (
    "max_var",
    "max_gross_exposure",
    "max_net_exposure",
    "max_orders_per_s",
    "max_daily_loss",
    "max_drawdown",
)


class LimitsFileInvalid(Exception):
    """A limits file cannot be used; nothing of it took effect.

    Attributes:
        path: The file.
        why: Key, and what was expected.
    """

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path}: {why}")
        self.path = path
        self.why = why


class SymbolLimits(BaseModel):
    """What one symbol has of its own, in place of the limits of all."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_order_size: NotNegative | None = None
    max_order_notional: NotNegative | None = None
    max_position_size: NotNegative | None = None
    max_position_notional: NotNegative | None = None
    restricted: bool | None = None
    """True: no orders but reducing ones; in place of the instrument's."""


class Limits(BaseModel):
    """The desk's policy and limits; sizes in units of the instrument, money in the base currency."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Annotated[int, Field(ge=0)] = 0
    """Of the limits file; it may not go back."""
    base_currency: str = "USD"
    currencies: dict[str, Positive] = {}
    """Base currency per unit of each other currency that instruments are in; one that is missing denies."""
    confidence_threshold: Annotated[float, Field(ge=0.5, le=1.0)] = 0.55
    """Stage 1: least confidence; the model's own decision threshold holds where it is larger."""
    risk_budget: Positive = 1_000.0
    """Currency at risk (one standard deviation over the model's horizon) at an edge of 1."""
    volatility_floor: Positive = 1e-4
    """Least volatility over the horizon that positions are sized by, as a fraction."""
    max_order_size: NotNegative = float("inf")
    max_order_notional: NotNegative = 100_000.0
    max_position_size: NotNegative = float("inf")
    max_position_notional: NotNegative = 250_000.0
    max_var: Switchable = 25_000.0
    """Stage 3: value at risk of the portfolio with the order in it, one day."""
    var_method: Literal["parametric", "historical", "cornish_fisher"] = "parametric"
    var_confidence: Annotated[float, Field(gt=0.5, lt=1.0)] = 0.99
    max_correlation: Annotated[float, Field(ge=-1.0, le=1.0)] | Literal["off"] = 0.8
    """Stage 4: of the order's P&L with that of the portfolio's other symbols."""
    allowed_regimes: tuple[RegimeName, ...] = _REGIMES
    """Stage 5: those that the policy allows; the model's manifest must allow it too."""
    max_risk_data_age_s: Annotated[FiniteFloat, Field(gt=0.0)] = 5.0
    """Covariance and regimes count as missing once the observer has not vouched for them for so long."""
    max_risk_data_as_of_age_s: Annotated[FiniteFloat, Field(gt=0.0)] = 345_600.0
    """The same where the newest bar in them is older, by the clock that ticks are judged by."""
    max_gross_exposure: Switchable = 1_000_000.0
    max_net_exposure: Switchable = 1_000_000.0
    max_price_deviation: Annotated[FiniteFloat, Field(ge=0.0)] = 0.05
    """Price collar: of limit and reference price from the last trade, as a fraction. It is never off."""
    max_open_opposite: Switchable = 0.0
    """Units of open orders of the other side that an order may meet: self-trade."""
    max_repeats: Switchable = 20.0
    """How often the same signal may be approved without a fill."""
    max_orders_per_s_symbol: Positive | Literal["off"] = 100.0
    max_orders_per_s: Positive | Literal["off"] = 1_000.0
    max_daily_loss: Switchable = 25_000.0
    """Beyond it the desk only reduces, until a person sets it back."""
    max_drawdown: Switchable = 25_000.0
    session_rollover_utc_s: Annotated[int, Field(ge=0, lt=86_400)] = 0
    """When sessions of instruments whose calendar is `24/7` begin, in seconds from midnight UTC."""
    limit_offset_bps: Annotated[float, Field(ge=0.0, lt=10_000.0)] = 5.0
    """How far beyond the touch (without a quote: the last price) an order may go, in basis points."""
    valid_for_us: Annotated[int, Field(gt=0, lt=2**53)] = 5_000_000
    """How long an approved signal may be executed, in microseconds from the server's send stamp."""
    symbols: dict[str, SymbolLimits] = {}
    """Limits of single symbols."""

    def slice_of(self, workers: int) -> "Limits":
        """What one of so many workers holds: an equal slice of each limit of the whole desk, all of the others."""
        if workers == 1:
            return self
        whole = {name: getattr(self, name) for name in SLICED}
        return self.model_copy(
            update={name: value if value == "off" else value / workers for name, value in whole.items()}
        )

    def differences(self, other: "Limits") -> list[str]:
        """A line for each value that is another one in `other`: `max_var: 25000.0 -> 20000.0`."""
        return [
            f"{name}: {getattr(self, name)!r} -> {getattr(other, name)!r}"
            for name in type(self).model_fields
            if getattr(self, name) != getattr(other, name)
        ]


def read_limits(path: Path) -> Limits:
    """Read a limits file: TOML with the keys of `Limits`, `version` among them.

    Raises:
        LimitsFileInvalid: Names the key, and what was expected.
    """
    try:
        with path.open("rb") as file:
            found: dict[str, Any] = tomllib.load(file)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise LimitsFileInvalid(path, f"cannot be read ({error})") from error
    if "version" not in found:
        raise LimitsFileInvalid(path, "version: expected a number, found none")
    try:
        return Limits.model_validate(found)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise LimitsFileInvalid(path, f"{key}: {first['msg']} (got {first['input']!r})") from error
