"""`micro32` as its definitions say it, slowly: lists, numpy, and every sum taken anew."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tickgate_server.features.micro32 import QUOTE, TRADE

GAP_NS = 300_000_000_000
DAY_NS = 86_400 * 10**9


@dataclass(frozen=True)
class Tick:
    """One tick; a quote is bid, ask, bid size, ask size."""

    at_ns: int
    trade: tuple[float, float] | None = None
    quote: tuple[float, float, float, float] | None = None

    @property
    def kind(self) -> int:
        return TRADE * (self.trade is not None) | QUOTE * (self.quote is not None)


@dataclass
class Trade:
    at_ns: int
    price: float
    size: float
    sign: float
    quote: tuple[float, float, float, float] | None  # in force just before it
    updates: list[tuple[float, float]]  # e_n and depth of each quote update since the trade before


def order_flow(quote: tuple[float, ...], before: tuple[float, ...]) -> float:
    """e_n of Cont, Kukanov and Stoikov."""
    bid, ask, bid_size, ask_size = quote
    last_bid, last_ask, last_bid_size, last_ask_size = before
    return (
        (bid >= last_bid) * bid_size
        - (bid <= last_bid) * last_bid_size
        - (ask <= last_ask) * ask_size
        + (ask >= last_ask) * last_ask_size
    )


@dataclass
class Book:
    """Quotes as they came: (quote, when it was stated last, the updates that led to it)."""

    gap_ns: int
    in_force: tuple[tuple[float, float, float, float], int] | None = None
    waiting: tuple[tuple[float, float, float, float], int] | None = None
    updates: list[tuple[float, float]] = field(default_factory=list)
    updates_waiting: list[tuple[float, float]] = field(default_factory=list)

    def holds(self, stated: tuple[object, int] | None, at_ns: int) -> bool:
        return stated is not None and (self.gap_ns == 0 or at_ns - stated[1] <= self.gap_ns)

    def pass_time(self, at_ns: int) -> None:
        if self.waiting is not None and self.waiting[1] < at_ns:
            self.in_force, self.waiting = self.waiting, None
            self.updates += self.updates_waiting
            self.updates_waiting = []

    def take(self, quote: tuple[float, float, float, float], at_ns: int, *, with_trade: bool) -> None:
        self.pass_time(at_ns)
        if with_trade:
            self.waiting, self.updates_waiting = None, []
        latest = self.waiting or self.in_force
        if latest is not None and self.holds(latest, at_ns):
            if latest[0] == quote:
                if self.waiting is None:
                    self.in_force = quote, at_ns
                return
            update = order_flow(quote, latest[0]), (quote[2] + quote[3]) / 2
            (self.updates if with_trade else self.updates_waiting).append(update)
        if with_trade:
            self.in_force = quote, at_ns
        else:
            self.waiting = quote, at_ns


def ofi(trades: list[Trade]) -> float:
    updates = [update for trade in trades for update in trade.updates]
    depth = np.mean([depth for _, depth in updates]) if updates else 0.0
    return float(np.clip(sum(flow for flow, _ in updates) / depth, -1000, 1000)) if depth > 0 else 0.0


def bps(value: float) -> float:
    return float(np.clip(value * 1e4, -10_000, 10_000))


def decayed(trades: list[Trade], half_life_s: float) -> NDArray[np.float64]:
    ages = np.array([trades[-1].at_ns - trade.at_ns for trade in trades]) / 1e9
    return np.asarray(0.5 ** (ages / half_life_s))


def mid(trade: Trade) -> float:
    assert trade.quote is not None
    return (trade.quote[0] + trade.quote[1]) / 2


def of_the_quote(trades: list[Trade]) -> list[float]:
    now = trades[-1]
    assert now.quote is not None
    bid, ask, bid_size, ask_size = now.quote
    m, both = mid(now), bid_size + ask_size
    away, half = now.price - m, (ask - bid) / 2
    micro = (bid_size * ask + ask_size * bid) / both if both > 0 else m
    return [
        (bid_size - ask_size) / both if both > 0 else 0.0,
        bps((micro - m) / m),
        bps((ask - bid) / m),
        bps(2 * abs(away) / m),
        float(np.clip(away / half, -5, 5)) if half > 0 else 5.0 * np.sign(away),
        (m - mid(trades[-11])) / mid(trades[-11]),
    ]


def liquidity(p: NDArray[np.float64], v: NDArray[np.float64], x: NDArray[np.float64]) -> list[float]:
    """Of 101 prices and sizes, and the 100 signed sizes after the first."""
    d = np.diff(p)
    if x.min() < x.max():
        slope = np.linalg.lstsq(np.stack([x - x.mean(), np.ones(100)], axis=1), d, rcond=None)[0][0]
        kyle = bps(slope * v[1:].mean() / p[-1])
    else:
        kyle = 0.0
    blocks = [slice(10 * k, 10 * k + 11) for k in range(10)]
    returns = [abs(p[block][-1] / p[block][0] - 1) for block in blocks]
    notionals = [float((p[block][1:] * v[block][1:]).sum()) for block in blocks]
    ratios = [move / notional for move, notional in zip(returns, notionals, strict=True) if notional > 0]
    c = ((d - d.mean())[1:] * (d - d.mean())[:-1]).sum() / 99
    return [
        kyle,
        min(float(np.mean(ratios)) * 1e6, 1e6) if ratios else 0.0,
        bps(2 * np.sqrt(-c) / p[-1]) if c < 0 else 0.0,
    ]


def variation(r: NDArray[np.float64]) -> list[float]:
    rv, bv = (r**2).sum(), np.pi / 2 * 100 / 99 * (np.abs(r[1:]) * np.abs(r[:-1])).sum()
    return [np.sqrt(rv), np.sqrt(bv), max(0.0, (rv - bv) / rv) if rv > 0 else 0.0]


def row(trades: list[Trade]) -> list[float]:
    """Features 10 to 31 at the last of 101 trades or more, since the windows started anew."""
    p, v, s = (np.array([getattr(trade, name) for trade in trades]) for name in ("price", "size", "sign"))
    x, r = s * v, np.clip(np.diff(np.log(p)), -100, 100)
    slow, fast = decayed(trades[1:], 30.0), decayed(trades, 10.0)
    of_day = 2 * np.pi * (trades[-1].at_ns % DAY_NS) / DAY_NS
    span_s = (trades[-1].at_ns - trades[-101].at_ns) / 1e9
    return [
        s[-1],
        (p[-1] - p[-51]) / p[-51],
        x[-50:].sum() / v[-50:].sum() if v[-50:].sum() > 0 else 0.0,
        ofi(trades[-10:]),
        ofi(trades[-50:]),
        *of_the_quote(trades),
        *liquidity(p[-101:], v[-101:], x[-100:]),
        *variation(r[-100:]),
        np.sqrt((slow * r**2).sum() / slow.sum()),
        (fast * x).sum() / (fast * v).sum() if (fast * v).sum() > 0 else 0.0,
        100 / max(span_s, 1e-3),
        np.sin(of_day),
        np.cos(of_day),
    ]


def reference(ticks: list[Tick], gap_ns: int = GAP_NS) -> NDArray[np.float64]:
    """Features 10 to 31 after each tick, float64 [n, 22]; NaN where the vector is not ready."""
    book, trades = Book(gap_ns), list[Trade]()
    out = np.full((len(ticks), 22), np.nan)
    for i, tick in enumerate(ticks):
        book.pass_time(tick.at_ns)
        if tick.quote is not None:
            book.take(tick.quote, tick.at_ns, with_trade=tick.trade is not None)
        if tick.trade is None:
            out[i] = out[i - 1] if i else np.nan
            continue
        price, size = tick.trade
        if trades and gap_ns and tick.at_ns - trades[-1].at_ns > gap_ns:
            trades = []
        sign = 0.0
        if trades:
            sign = float(np.sign(price - trades[-1].price)) or trades[-1].sign
        quote = book.in_force[0] if book.in_force is not None and book.holds(book.in_force, tick.at_ns) else None
        trades.append(Trade(tick.at_ns, price, size, sign, quote, book.updates))
        book.updates = []
        if len(trades) > 100 and all(trade.quote for trade in trades[-51:]):
            out[i] = row(trades)
    return out
