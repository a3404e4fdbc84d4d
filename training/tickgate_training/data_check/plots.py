"""The pictures of a report, made of its document."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from tickgate_training.report import canvas
from tickgate_training.report.canvas import BLUE, RED, say_instead

_NAMED = (("p01", "1 %"), ("p50", "median"), ("p90", "90 %"), ("p99", "99 %"))
_SYMBOLS = 12


def draw(document: Mapping[str, Any]) -> dict[str, bytes]:
    """PNG pictures by name, in the order of the page."""
    with canvas.style():
        return {"rows": canvas.png(rows(document)), "spreads": canvas.png(spreads(document))}


def rows(document: Mapping[str, Any]) -> Figure:
    """Accepted and rejected rows over time."""
    made = canvas.figure(2.8)
    axes = made.subplots()
    counted = document["over_time"]
    if counted["begin_ns"] is None:
        say_instead(axes, "no row has a time stamp")
        return made
    edges_ns = counted["begin_ns"] + counted["width_ns"] * np.arange(len(counted["accepted"]) + 1)
    stamps = edges_ns.astype("datetime64[ns]")
    accepted, rejected = np.array(counted["accepted"]), np.array(counted["rejected"])
    axes.stairs(accepted, stamps, fill=True, color=BLUE, label="accepted")
    if rejected.any():
        axes.stairs(accepted + rejected, stamps, baseline=accepted, fill=True, color=RED, label="rejected, on top")
        axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2)
    axes.set_ylim(bottom=0)
    axes.set_ylabel(f"rows in {_stretch(counted['width_ns'])}")
    canvas.time_axis(axes, "of the exchange", int(edges_ns[0]), int(edges_ns[-1]))
    return made


def spreads(document: Mapping[str, Any]) -> Figure:
    """Where the spreads of each symbol lie: 1 to 99 % as a line, 90 % and the median as marks."""
    quoted = [one for one in document["symbols"] if one["spread_bps"]["count"] and one["symbol"] is not None][:_SYMBOLS]
    made = canvas.figure(1.3 + 0.3 * max(len(quoted), 1))
    axes = made.subplots()
    if not quoted:
        say_instead(axes, "no quote was accepted, so there is no spread")
        return made
    least = min((found for one in quoted if (found := one["spread_bps"]["p01"]) > 0.0), default=0.01)
    for place, one in enumerate(quoted):
        low, middle, high, top = (one["spread_bps"][name] for name, _ in _NAMED)
        axes.plot((low, top), (place, place), color=BLUE, linewidth=2.0, solid_capstyle="butt")
        axes.plot([high], [place], color=BLUE, marker="|", markersize=9.0)
        axes.plot([middle], [place], color=BLUE, marker="o", markersize=6.0)
    axes.set_xscale("symlog", linthresh=least, linscale=0.3)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlim(left=0.0 if least == 0.01 else least / 2.0)
    axes.set_yticks(range(len(quoted)), [canvas.shortened(one["symbol"]) for one in quoted])
    axes.set_ylim(len(quoted) - 0.5, -0.5)
    axes.set_xlabel("quoted spread, basis points of the mid: median (dot), 90 % (bar), 1 to 99 % (line)")
    return made


def _stretch(width_ns: int) -> str:
    units = ((86_400e9, "days"), (3_600e9, "h"), (60e9, "min"), (1e9, "s"), (1e6, "ms"))
    unit_ns, unit = next(found for found in units if width_ns >= found[0])  # no bin is below a millisecond
    return f"{width_ns / unit_ns:.3g} {unit}"
