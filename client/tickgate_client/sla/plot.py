"""The percentile plot: latency over 1 / (1 - p), both logarithmic, so that each nine has the same room.

The axis is that of HdrHistogram's plotter. As SVG it needs nothing; as PNG it needs matplotlib.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from tickgate_client.errors import ExtraMissing
from tickgate_client.sla.judgement import curve
from tickgate_client.sla.objectives import Objective
from tickgate_client.sla.record import SlaRecord

_WIDTH, _HEIGHT = 900, 460
_LEFT, _RIGHT, _TOP, _BOTTOM = 84, 20, 40, 56
_COLOURS = {"round trip": "#0b57a4", "server": "#c2571a", "network": "#5b7f2b"}
_LIMIT_COLOUR = "#b3261e"


@dataclass(frozen=True, slots=True)
class Plot:
    """What is drawn.

    Attributes:
        curves: By name, points of (1 / (1 - p), microseconds).
        limits: Name and limit in microseconds of each objective.
        targets: 1 / (1 - target) of each objective.
    """

    curves: dict[str, list[tuple[float, float]]]
    limits: list[tuple[str, float]]
    targets: list[float]


def plot_of(record: SlaRecord, objectives: Sequence[Objective]) -> Plot:
    """The curves of the whole run beside the objectives."""
    run = record.run
    named = {"round trip": run.round_trip, "server": run.server, "network": run.network}
    return Plot(
        curves={name: points for name, histogram in named.items() if (points := curve(histogram))},
        limits=[(objective.name, objective.limit_us) for objective in objectives],
        targets=[1 / (1 - objective.target) for objective in objectives],
    )


def svg(plot: Plot) -> str:
    """The plot as an SVG element; a line of text where there is nothing to draw."""
    if not plot.curves:
        return "<p>No calls: there is nothing to draw.</p>"
    axes = _Axes(plot)
    size = f'viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="system-ui, sans-serif" font-size="13"'
    parts = [f'<svg {size} role="img" aria-label="Latency by percentile">', *_grid(axes)]
    for name, limit_us in plot.limits:
        y = axes.y(limit_us)
        parts.append(f'<path d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}" stroke="{_LIMIT_COLOUR}" stroke-dasharray="6 4"/>')
        label = escape(f"{name}: {time_text(limit_us)}")
        parts.append(f'<text x="{_LEFT + 6}" y="{y - 5:.1f}" fill="{_LIMIT_COLOUR}">{label}</text>')
    for target in plot.targets:
        x = axes.x(target)
        if x <= _WIDTH - _RIGHT:
            parts.append(
                f'<path d="M{x:.1f} {_TOP}V{_HEIGHT - _BOTTOM}" stroke="{_LIMIT_COLOUR}" stroke-dasharray="6 4"/>'
            )
    for name, points in plot.curves.items():
        path = "M" + "L".join(f"{axes.x(left):.1f} {axes.y(value_us):.1f}" for left, value_us in points)
        parts.append(f'<path d="{path}" fill="none" stroke="{_COLOURS[name]}" stroke-width="2"/>')
    parts += _legend(list(plot.curves))
    return "\n".join([*parts, "</svg>"])


def write_png(path: Path, plot: Plot, title: str) -> None:
    """The plot as a picture.

    Raises ExtraMissing if matplotlib is not installed, ValueError if there is nothing to draw, and OSError.
    """
    if not plot.curves:
        raise ValueError("the record has no calls: there is nothing to draw")
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - the base install has none
        from matplotlib.figure import Figure  # noqa: PLC0415 - as above
    except ModuleNotFoundError as error:
        raise ExtraMissing("a percentile plot as PNG (--html needs nothing)", "training", str(error)) from error
    figure = Figure(figsize=(9, 4.8), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(xscale="log", yscale="log", title=title, xlabel="percentile", ylabel="latency")
    for name, points in plot.curves.items():
        axes.plot(*zip(*points, strict=True), label=name, color=_COLOURS[name])
    for name, limit_us in plot.limits:
        axes.axhline(limit_us, color=_LIMIT_COLOUR, linestyle="--", label=f"{name}: {time_text(limit_us)}")
    scale = _Axes(plot)
    for target in plot.targets:
        if target <= scale.most_left:
            axes.axvline(target, color=_LIMIT_COLOUR, linestyle="--")
    axes.set_xlim(1, scale.most_left)
    axes.set_ylim(scale.low_us, scale.high_us)
    lefts, times = scale.lefts(), scale.times_us()
    axes.set_xticks(lefts, [percentile_text(left) for left in lefts], minor=False)
    axes.set_yticks(times, [time_text(value_us) for value_us in times], minor=False)
    axes.minorticks_off()
    axes.grid(visible=True, color="#dddddd")
    axes.legend()
    figure.savefig(path, format="png")


def time_text(value_us: float) -> str:
    """A time in the unit that suits it: `850 µs`, `2.5 ms`, `1 s`."""
    if math.isnan(value_us):
        return "-"
    for unit, per in (("s", 1e6), ("ms", 1e3)):
        if value_us >= per:
            return f"{value_us / per:.4g} {unit}"
    return f"{value_us:.4g} µs"


def percentile_text(left: float) -> str:
    """The percentile at which one call in `left` is slower: 10 is `90 %`."""
    return f"{100 * (1 - 1 / left):.10g} %"


class _Axes:
    """Where a value lies in the picture."""

    def __init__(self, plot: Plot) -> None:
        values = [value_us for points in plot.curves.values() for _, value_us in points]
        values += [limit_us for _, limit_us in plot.limits]
        self.low_us = 10 ** math.floor(math.log10(min(values)))
        self.high_us = 10 ** math.ceil(math.log10(max(values) * 1.01))
        self.most_left = max(10.0, *(points[-1][0] for points in plot.curves.values()))

    def x(self, left: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * math.log(left) / math.log(self.most_left)

    def y(self, value_us: float) -> float:
        share = math.log(value_us / self.low_us) / math.log(self.high_us / self.low_us)
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * share

    def lefts(self) -> list[float]:
        """0 %, 50 %, 90 %, 99 %, ... as far as there are calls."""
        return [1.0, 2.0, *(10.0**nines for nines in range(1, 10) if 10.0**nines <= self.most_left)]

    def times_us(self) -> list[float]:
        low, high = round(math.log10(self.low_us)), round(math.log10(self.high_us))
        return [10.0**power for power in range(low, high + 1)]


def _grid(axes: _Axes) -> list[str]:
    parts = []
    bottom = _HEIGHT - _BOTTOM
    for left in axes.lefts():
        x = axes.x(left)
        parts.append(f'<path d="M{x:.1f} {_TOP}V{bottom}" stroke="#dddddd"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 20}" text-anchor="middle">{percentile_text(left)}</text>')
    for value_us in axes.times_us():
        y = axes.y(value_us)
        parts.append(f'<path d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}" stroke="#dddddd"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{time_text(value_us)}</text>')
    parts.append(f'<text x="{(_LEFT + _WIDTH) / 2}" y="{_HEIGHT - 10}" text-anchor="middle">percentile</text>')
    return parts


def _legend(names: Sequence[str]) -> list[str]:
    """In a row above the frame, where no curve comes."""
    parts = []
    for column, name in enumerate(names):
        x, y = _LEFT + 130 * column, _TOP - 20
        parts.append(f'<path d="M{x} {y}h28" stroke="{_COLOURS[name]}" stroke-width="2"/>')
        parts.append(f'<text x="{x + 36}" y="{y + 4}">{name}</text>')
    return parts
