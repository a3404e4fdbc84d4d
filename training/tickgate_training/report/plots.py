"""The pictures of a run, each made of the report's document and saying why where there is nothing to show."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from tickgate_training.portfolio import Portfolio
from tickgate_training.report import canvas
from tickgate_training.report.canvas import BLUE, GREEN, GREY, ORANGE, PALE, RED, SKY, say_instead
from tickgate_training.report.thinning import thinned
from tickgate_training.report.wording import date, number, percent
from tickgate_training.results import Paths, Series

Floats = NDArray[np.float64]
_LINES_MAXIMUM = 12


def draw(document: Mapping[str, Any], series: Series, down: Paths | None = None) -> dict[str, bytes]:
    """PNG pictures by name, in the order of the page.

    Args:
        document: As `report.document` makes it.
        series: The selected one; its returns are not in the document.
        down: The paths of combinatorial cross-validation, likewise; None where there are none.
    """
    drawn: dict[str, Callable[[], Figure]] = {
        "equity": lambda: equity(series),
        "windows": lambda: windows(document["windows"], document["selected"]["spread"]),
        "logits": lambda: logits(document["overfitting"]),
        "thresholds": lambda: thresholds(document["thresholds"]["plateau"], document["windows"]),
        "calibration": lambda: calibration(document["calibration"]),
        "importance": lambda: importance(document["importance"]),
        "psi": lambda: psi(document["psi"], document["windows"]),
    }
    if down is not None:
        drawn["paths"] = lambda: paths(down, of_what=time_of(series), walk_sharpe=series.net.sharpe)
    with canvas.style():
        return {name: canvas.png(plot()) for name, plot in drawn.items()}


def equity(series: Series) -> Figure:
    """Compounded equity and its fall from the peak, net and gross; summed profit where compounding is undefined."""
    made = canvas.figure(5.2)
    top, bottom = made.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    stamps_ns = np.concatenate((series.stamps_ns[:1], series.stamps_ns))
    lines = (("gross", series.result.gross, ORANGE), ("net", series.result.net, BLUE))
    compounded = all((returns > -1.0).all() for _, returns, _ in lines)
    if not all(np.isfinite(returns).all() for _, returns, _ in lines):
        say_instead(top, "not every return is a finite number, so there is no equity to draw")
        say_instead(bottom, "no drawdown either")
        return made
    for name, returns, colour in lines:
        grown = np.concatenate(([1.0], np.cumprod(1.0 + returns) if compounded else 1.0 + np.cumsum(returns)))
        _line(top, stamps_ns, grown, colour, name)
        if compounded:
            _line(bottom, stamps_ns, grown / np.maximum.accumulate(grown) - 1.0, colour, name)
    top.axhline(1.0, color=GREY, linewidth=0.8)
    how = "compounded" if compounded else "returns summed"
    top.set_ylabel(f"equity, {how}\n(capital at the start = 1)")
    top.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2)
    if compounded:
        bottom.yaxis.set_major_formatter(PercentFormatter(1.0))
        bottom.set_ylabel("drawdown\n(% of the peak)")
    else:
        say_instead(bottom, "drawdown is undefined: a return is -1 or below, capital is gone")
    canvas.time_axis(bottom, time_of(series), int(stamps_ns[0]), int(stamps_ns[-1]))
    return made


def time_of(series: Series) -> str:
    """What the stamps of a series are the times of; see `results.Series`."""
    return "when each return was complete" if isinstance(series.result, Portfolio) else "of the decision"


def _line(axes: Axes, stamps_ns: NDArray[np.int64], values: Floats, colour: str, name: str) -> None:
    rows = thinned(stamps_ns, values, canvas.COLUMNS)
    axes.plot(stamps_ns[rows].astype("datetime64[ns]"), values[rows], color=colour, linewidth=1.2, label=name)


def paths(found: Paths, of_what: str, walk_sharpe: float) -> Figure:
    """Summed profit down each path, and the paths' Sharpe ratios in order beside the walk-forward's."""
    made = canvas.figure(3.6)
    left, right = made.subplots(1, 2, width_ratios=(3, 2))
    grown = np.cumsum(found.net_returns, axis=1)
    if not np.isfinite(grown).all():
        say_instead(left, "not every return is a finite number")
    else:
        few = len(grown) <= _LINES_MAXIMUM
        for values in grown:
            rows = thinned(found.stamps_ns, values, canvas.COLUMNS // 2)
            stamps = found.stamps_ns[rows].astype("datetime64[ns]")
            left.plot(stamps, values[rows], color=BLUE, linewidth=1.0 if few else 0.5, alpha=0.8 if few else 0.25)
        left.axhline(0.0, color=GREY, linewidth=0.8)
        left.yaxis.set_major_formatter(PercentFormatter(1.0))
        left.set_ylabel("net profit, summed\n(% of capital)")
        canvas.time_axis(left, of_what, int(found.stamps_ns[0]), int(found.stamps_ns[-1]), narrow=True)
    sharpes = np.sort(np.array([metrics.sharpe for metrics in found.selected]))
    sharpes = sharpes[np.isfinite(sharpes)]
    if sharpes.size == 0:
        say_instead(right, "no path has a Sharpe ratio")
        return made
    shares = np.arange(1, sharpes.size + 1) / sharpes.size
    right.plot(sharpes, shares, color=BLUE, marker="o", markersize=4, linewidth=1.0, drawstyle="steps-post")
    right.axvline(0.0, color=GREY, linewidth=0.8)
    if np.isfinite(walk_sharpe):
        right.axvline(walk_sharpe, color=RED, linewidth=1.2, linestyle="--", label="walk-forward")
        right.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0))
    right.set_ylim(0.0, 1.05)
    right.yaxis.set_major_formatter(PercentFormatter(1.0))
    right.set_ylabel("share of the paths\nat or below")
    right.set_xlabel("net Sharpe ratio of a path")
    return made


def windows(results: list[dict[str, Any]], spread: Mapping[str, Any]) -> Figure:
    """A bar for each window's net return, and their mean."""
    made = canvas.figure(3.2)
    axes = made.subplots()
    net = _array([window["net_return"] for window in results])
    if not np.isfinite(net).any():
        say_instead(axes, "no window's net return is a finite number")
        return made
    places = np.arange(net.size)
    width = 0.8 if net.size <= 60 else 1.0
    axes.bar(places, np.nan_to_num(net), width, color=np.where(net >= 0.0, BLUE, ORANGE).tolist())
    axes.axhline(0.0, color=GREY, linewidth=0.8)
    if spread["mean"] is not None:
        axes.axhline(spread["mean"], color=RED, linewidth=1.2, linestyle="--", label=f"mean {percent(spread['mean'])}")
        axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_ylabel("net return of the window\n(% of capital)")
    _window_axis(axes, results)
    margin = max(0.6, (6 - net.size) / 2.0)  # a single bar is no wall
    axes.set_xlim(-margin, net.size - 1.0 + margin)
    return made


def _window_axis(axes: Axes, results: list[dict[str, Any]], limit: int = 9) -> None:
    ticks = canvas.sparse(len(results), limit)
    axes.set_xticks(ticks, [f"{results[k]['number']}\n{date(results[k]['test_start_ns'])[:10]}" for k in ticks])
    axes.set_xlabel("window, and the date of its first test row (UTC)")


def logits(overfitting: Mapping[str, Any]) -> Figure:
    """How the best configuration of one half of the rows ranked in the other half."""
    made = canvas.figure(2.8)
    axes = made.subplots()
    values = _array(overfitting["logits"])
    values = values[np.isfinite(values)]
    if values.size == 0:
        say_instead(axes, f"no splits: {overfitting.get('undefined', {}).get('pbo', 'no logits were recorded')}")
        return made
    reach = float(max(np.abs(values).max(), 0.5)) * 1.02
    # Bins meet at 0, where the rank is the median: what lies left of it is what PBO counts.
    edges = np.linspace(-reach, reach, 2 * min(max(int(np.sqrt(values.size)), 4), 20) + 1)
    # Closed on the right, by mirroring: PBO counts a logit of 0, the median's, as overfitted.
    counts = np.histogram(-values, edges)[0][::-1]
    colours = [ORANGE] * (counts.size // 2) + [BLUE] * (counts.size // 2)
    axes.bar(edges[:-1], counts, np.diff(edges), align="edge", color=colours, edgecolor="white", linewidth=0.6)
    axes.axvline(0.0, color=GREY, linewidth=1.0)
    axes.set_ylabel("splits")
    axes.set_xlabel(
        "logit of the out-of-sample rank of the configuration that was best in sample (0 or below: overfitted)"
    )
    if overfitting["pbo"] is not None:
        axes.set_title(f"PBO {overfitting['pbo']:.2f} of {values.size:,} splits")
    return made


def thresholds(plateau: Mapping[str, Any], results: list[dict[str, Any]]) -> Figure:
    """Net return on validation against the threshold: median and quartiles over windows, and what was chosen."""
    made = canvas.figure(3.6)
    axes = made.subplots()
    at, median = _array(plateau["thresholds"]), _array(plateau["median"])
    if not np.isfinite(median).any():
        say_instead(axes, "no window has a threshold with a net return")
        return made
    lower, upper = _array(plateau["lower"]), _array(plateau["upper"])
    axes.fill_between(at, lower, upper, color=SKY, alpha=0.35, linewidth=0.0, label="quartiles over windows")
    single = "o" if at.size == 1 else ""
    axes.plot(at, median, color=BLUE, linewidth=1.6, marker=single, label="median over windows")
    axes.axhline(0.0, color=GREY, linewidth=0.8)
    # Along the edge: at their own profits, each the best of many, they would dwarf the plateau.
    for fallback, colour, height, name in (
        (False, GREEN, 0.03, "chosen by profit"),
        (True, RED, 0.08, "fallback: no profitable threshold"),
    ):
        at_windows = [window["threshold"] for window in results if bool(window["threshold_fallback"]) is fallback]
        if at_windows:
            x, y = _array(at_windows), np.full(len(at_windows), height)
            edge = axes.get_xaxis_transform()
            axes.scatter(x, y, s=60, color=colour, marker="|", transform=edge, label=f"{name} ({x.size})")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_ylabel("net return on validation\n(% of capital)")
    axes.set_xlabel("threshold: least confidence max(p, 1 - p) that is acted on")
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return made


def calibration(found: Mapping[str, Any]) -> Figure:
    """Reliability diagram with 95 % intervals, and the rows of each bin."""
    made = canvas.figure(4.2)
    top, bottom = made.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    predicted, observed = _array(found["predicted"]), _array(found["observed"])
    if predicted.size == 0:
        say_instead(top, "no test row has both a prediction and a label")
        say_instead(bottom, "")
        return made
    lower, upper = _array(found["lower"]), _array(found["upper"])
    bounds = float(min(predicted.min(), 0.5)), float(max(predicted.max(), 0.5))
    margin = max((bounds[1] - bounds[0]) * 0.05, 0.005)
    ends = (bounds[0] - margin, bounds[1] + margin)
    top.plot(ends, ends, color=GREY, linewidth=1.0, linestyle="--", label="perfect")
    if found["base_rate"] is not None:
        top.axhline(found["base_rate"], color=ORANGE, linewidth=1.0, linestyle=":", label="share of all rows that rose")
    errors = np.maximum(np.array([observed - lower, upper - observed]), 0.0)
    top.errorbar(
        predicted, observed, yerr=errors, color=BLUE, marker="o", markersize=5, linewidth=1.2, capsize=3, label="bins"
    )
    top.set_xlim(*ends)
    top.set_ylabel("share of rows that rose,\nwith 95 % interval")
    top.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    counts = _array(found["counts"])
    bottom.bar(predicted, counts, width=(ends[1] - ends[0]) / 120.0, color=SKY)
    bottom.set_ylabel("rows of the bin")
    bottom.set_xlabel("mean predicted probability of an up move in the bin")
    return made


def importance(found: Mapping[str, Any]) -> Figure:
    """Mean share of each feature over the windows, with quartiles, largest first."""
    names, mean = found["features"], _array(found["mean"])
    made = canvas.figure(1.0 + 0.22 * max(len(names), 6))
    axes = made.subplots()
    if not np.isfinite(mean).any():
        say_instead(axes, "the learners chosen have no importance of features")
        return made
    order = np.argsort(mean, kind="stable")
    lower, upper = _array(found["lower"])[order], _array(found["upper"])[order]
    places = np.arange(len(names))
    axes.barh(places, mean[order], color=SKY, label="mean")
    axes.hlines(places, lower, upper, color=BLUE, linewidth=2.0, label="lower to upper quartile over windows")
    axes.set_yticks(places, [canvas.shortened(names[k]) for k in order])
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.set_xlim(left=0.0)
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_xlabel("share of the model's importance (%)")
    axes.legend(loc="lower right")
    return made


def psi(found: Mapping[str, Any], results: list[dict[str, Any]]) -> Figure:
    """Population stability index of each feature in each window; beside it how often it lies over its null."""
    names, table = found["features"], _array(found["by_window"]).reshape(len(results), -1)
    null, share = _array(found["null"]), found["share_above_null"]
    made = canvas.figure(1.4 + 0.24 * max(len(names), 6))
    axes = made.subplots()
    if not np.isfinite(table).any():
        say_instead(axes, "no window has rows to compare")
        return made
    # A few windows far out must not leave all others in one colour.
    top = max(float(np.nanquantile(table, 0.98)), 0.2)
    axes.set_facecolor(PALE)
    drawn = axes.imshow(
        table.T, aspect="auto", interpolation="nearest", cmap="cividis", vmin=0.0, vmax=top, origin="upper"
    )
    if len(results) <= 60:
        window, feature = np.nonzero(table > null)
        axes.scatter(window, feature, s=10, color="white", edgecolors="black", linewidths=0.6)
    made.colorbar(
        drawn, ax=axes, location="top", extend="max", aspect=60, pad=0.02, label="population stability index (PSI)"
    )
    axes.set_yticks(np.arange(len(names)), [canvas.shortened(name) for name in names])
    axes.grid(visible=False)
    side: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "va": "center", "color": GREY}
    for place, (limit, part) in enumerate(zip(null.tolist(), share, strict=True)):
        axes.text(1.01, place, _null_label(limit, part), **side)
    axes.text(1.01, -1.0, "over null quantile", **side)
    _window_axis(axes, results, 6)
    return made


def _null_label(limit: float, share: float | None) -> str:
    return "not known" if share is None else f"{100.0 * share:.0f}% over {number(limit)}"


def _array(values: Any) -> Floats:
    """Of the document's lists, float64; null becomes NaN."""
    return np.array(values, np.float64)
