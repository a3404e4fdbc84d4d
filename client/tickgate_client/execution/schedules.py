"""How an order is spread over time: units against the time since it was approved. TWAP, VWAP, Almgren-Chriss."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Slice:
    """A part of an order.

    Attributes:
        at_ns: When it is due, since the approval.
        size: Units, > 0.
    """

    at_ns: int
    size: float


@dataclass(frozen=True, slots=True)
class Schedule:
    """Slices in the order of their times; their sizes add up to the order's, exactly as `cumulative` has it.

    Attributes:
        slices: At least one.
        cumulative: Units due by each slice, its own included; the last is the order's size.
    """

    slices: tuple[Slice, ...]
    cumulative: tuple[float, ...]

    def due(self, since_ns: int) -> float:
        """Units that are due so long after the approval."""
        due = 0.0
        for one, total in zip(self.slices, self.cumulative, strict=True):
            if one.at_ns > since_ns:
                break
            due = total
        return due

    def next_ns(self, since_ns: int) -> int | None:
        """When the next slice is due; None after the last."""
        return next((one.at_ns for one in self.slices if one.at_ns > since_ns), None)


def at_once(size: float) -> Schedule:
    """All of it now."""
    _check(size, 1)
    return Schedule((Slice(0, size),), (size,))


def twap(size: float, span_ns: int, slices: int, *, lot: float = 1e-8) -> Schedule:
    """Equal parts at equal times: time-weighted average price.

    Args:
        size: Units.
        span_ns: Over which; the first part is due at once, the last a part's time before the end.
        slices: How many.
        lot: Sizes are multiples of it; what does not divide goes where the running sum passes the next lot.
    """
    return vwap(size, span_ns, [1.0] * slices, lot=lot)


def vwap(size: float, span_ns: int, profile: Sequence[float], *, lot: float = 1e-8) -> Schedule:
    """Parts in proportion to the volume that is expected: volume-weighted average price.

    Args:
        size: Units.
        span_ns: Over which.
        profile: Volume expected in each of so many equal parts of it, >= 0, not all 0.
        lot: As `twap`.
    """
    _check(size, len(profile))
    if not all(0.0 <= volume < math.inf for volume in profile) or not sum(profile) > 0.0:
        raise ValueError(f"profile is {list(profile)}, must be finite volumes of at least 0, not all 0")
    total = math.fsum(profile)
    return _from_shares(size, span_ns, [math.fsum(profile[: at + 1]) / total for at in range(len(profile))], lot)


@dataclass(frozen=True, slots=True)
class AlmgrenChriss:
    """Almgren and Chriss' model of the price while an order is worked, in any one unit of time, the same for all.

    Source: R. Almgren and N. Chriss, "Optimal execution of portfolio transactions", Journal of Risk 3 (2000), 5-39:
    arithmetic random walk, linear impact g(v) = gamma v (permanent) and h(v) = epsilon sign(v) + eta v (temporary).

    Attributes:
        volatility: Sigma, price per square root of time.
        permanent_impact: Gamma, price per unit, >= 0.
        temporary_impact: Eta, price per unit a time, > gamma tau / 2 for the parts' time tau.
        fixed_cost: Epsilon, price: half the spread and fees, >= 0.
        risk_aversion: Lambda, 1 / money, >= 0; 0 is TWAP.
    """

    volatility: float
    permanent_impact: float
    temporary_impact: float
    fixed_cost: float
    risk_aversion: float

    def __post_init__(self) -> None:
        for name in ("volatility", "permanent_impact", "temporary_impact", "fixed_cost", "risk_aversion"):
            value = getattr(self, name)
            if not 0.0 <= value < math.inf:
                raise ValueError(f"{name} is {value}, must be finite and at least 0")

    def kappa(self, tau: float) -> float:
        """Urgency, 1 / time: (2 / tau²)(cosh(kappa tau) - 1) = lambda sigma² / (eta (1 - gamma tau / (2 eta))).

        Raises ValueError where eta is at most gamma tau / 2: parts are then too long for the model to hold.
        """
        squared = self.risk_aversion * self.volatility**2 / self._eta_tilde(tau)
        # cosh(x) - 1 = 2 sinh²(x / 2), which does not cancel for small x.
        return 2.0 / tau * math.asinh(tau / 2.0 * math.sqrt(squared))

    def holdings(self, size: float, span: float, slices: int) -> list[float]:
        """What is left to trade at times 0, tau, ... span: x_j = size sinh(kappa (span - t_j)) / sinh(kappa span).

        The first is `size`, the last 0.
        """
        _check(size, slices)
        tau = span / slices
        kappa = self.kappa(tau)
        held = [size * _sinh_ratio(kappa * (span - at * tau), kappa * span, 1.0 - at / slices) for at in range(slices)]
        return [size, *held[1:], 0.0]

    def expected_cost(self, holdings: Sequence[float], span: float) -> float:
        """Expected shortfall of a trajectory, money: gamma X²/2 + epsilon sum |n_k| + (eta~ / tau) sum n_k².

        Args:
            holdings: What is left at equally spaced times, the first the whole, the last 0.
            span: Of time.
        """
        tau = span / (len(holdings) - 1)
        traded = [before - after for before, after in itertools.pairwise(holdings)]
        return (
            self.permanent_impact * holdings[0] ** 2 / 2.0
            + self.fixed_cost * math.fsum(map(abs, traded))
            + self._eta_tilde(tau) / tau * math.fsum(part * part for part in traded)
        )

    def variance(self, holdings: Sequence[float], span: float) -> float:
        """Variance of the shortfall, money²: sigma² tau sum x_k² over what is left after each part.

        Args:
            holdings: As `expected_cost`.
            span: Of time.
        """
        tau = span / (len(holdings) - 1)
        return self.volatility**2 * tau * math.fsum(left * left for left in holdings[1:])

    def schedule(self, size: float, span: float, span_ns: int, slices: int, *, lot: float = 1e-8) -> Schedule:
        """The trajectory as slices: what is traded in each part is due at its beginning.

        Args:
            size: Units.
            span: In the model's unit of time.
            span_ns: The same.
            slices: Parts of equal length.
            lot: As `twap`.
        """
        left = self.holdings(size, span, slices)
        return _from_shares(size, span_ns, [1.0 - units / size for units in left[1:]], lot)

    def _eta_tilde(self, tau: float) -> float:
        eta_tilde = self.temporary_impact - self.permanent_impact * tau / 2.0
        if not (tau > 0.0 and eta_tilde > 0.0):
            raise ValueError(
                f"temporary_impact is {self.temporary_impact}, must be above permanent_impact x tau / 2 ="
                f" {self.permanent_impact * tau / 2.0}, with parts of a length tau above 0, here {tau}"
            )
        return eta_tilde


def _sinh_ratio(part: float, whole: float, limit: float) -> float:
    """sinh(part) / sinh(whole) for 0 <= part <= whole, without overflow; `limit` where both go to 0."""
    if whole < 1e-8:
        return limit
    return math.exp(part - whole) * math.expm1(-2.0 * part) / math.expm1(-2.0 * whole)


def _from_shares(size: float, span_ns: int, shares: Sequence[float], lot: float) -> Schedule:
    """Slices whose running sum is the size times each share, down to a lot; the last is the whole."""
    if span_ns < 0:
        raise ValueError(f"span_ns is {span_ns}, must be at least 0")
    if not 0.0 < lot < math.inf:
        raise ValueError(f"lot is {lot}, must be finite and above 0")
    slices, cumulative = [], []
    so_far = 0.0
    for at, share in enumerate(shares):
        last = at == len(shares) - 1
        due = size if last else min(math.floor(size * min(share, 1.0) / lot + 1e-6) * lot, size)
        if due > so_far:
            slices.append(Slice(span_ns * at // len(shares), due - so_far))
            cumulative.append(due)
            so_far = due
    return Schedule(tuple(slices), tuple(cumulative))


def _check(size: float, slices: int) -> None:
    if not 0.0 < size < math.inf:
        raise ValueError(f"size is {size}, must be finite and above 0")
    if slices < 1:
        raise ValueError(f"there are {slices} slices, must be at least 1")
