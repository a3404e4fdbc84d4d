"""Figures that look alike wherever they are drawn, as PNG bytes that depend on nothing but what is shown.

matplotlib's objects are used without pyplot, which would keep every figure in one place for the whole process.
Colours are those of Okabe and Ito, "Color universal design", 2008, and the map `cividis`: told apart by every eye.
"""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imsave
from numpy.typing import NDArray

from tickgate_training.report.wording import span

BLUE, ORANGE, GREEN, RED, SKY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9"
GREY, PALE = "#666666", "#D9D9D9"
WIDTH_INCHES = 9.0
DOTS_AN_INCH = 110
COLUMNS = int(WIDTH_INCHES * DOTS_AN_INCH)
"""Pixels across a figure."""

_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "date.converter": "concise",
    # Names come from users: a dollar sign is not the beginning of a formula.
    "text.parse_math": False,
}


@contextmanager
def style() -> Iterator[None]:
    """Draw with the report's own settings, whatever the user's matplotlibrc says; the process's come back after it."""
    with mpl.rc_context(), warnings.catch_warnings():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        # A name in a script that the font lacks shows as boxes; the tables beside the picture have it in full.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def figure(height_inches: float) -> Figure:
    """An empty figure of the report's width."""
    return Figure(figsize=(WIDTH_INCHES, height_inches), dpi=DOTS_AN_INCH, layout="constrained")


def png(made: Figure) -> bytes:
    """The figure's picture, without a word on when or by what it was made."""
    canvas = FigureCanvasAgg(made)
    canvas.draw()  # type: ignore[no-untyped-call] # once: savefig would lay the figure out in a drawing of its own
    buffer = io.BytesIO()
    pixels = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
    imsave(buffer, pixels, format="png", pil_kwargs={"pnginfo": None})
    return buffer.getvalue()


def time_axis(axes: Axes, of_what: str, start_ns: int, stop_ns: int, *, narrow: bool = False) -> None:
    """Say what time the bottom axis shows, and from when to when in full: its ticks are as short as they can be."""
    between = "\n" if narrow else " "
    axes.set_xlabel(f"time {of_what} (UTC),{between}{span(start_ns, stop_ns)}")
    axes.xaxis.get_offset_text().set_visible(False)  # the day that the ticks leave out: it stands in the label


def say_instead(axes: Axes, why: str) -> None:
    """Write why there is nothing to draw."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(visible=False)
    axes.text(0.5, 0.5, why, ha="center", va="center", transform=axes.transAxes, color=GREY, wrap=True)


def shortened(name: str, limit: int = 28) -> str:
    """A name that leaves room for the picture."""
    return name if len(name) <= limit else name[: limit - 1] + "…"


def sparse(count: int, limit: int) -> NDArray[np.int64]:
    """At most `limit` of `count` places, evenly spaced from the first, for ticks that do not meet."""
    return np.arange(0, count, max(1, -(-count // limit)))
