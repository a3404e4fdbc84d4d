"""The `top` verb of the `tickgate` command."""

import contextlib
import time
from collections.abc import Callable

import click
from rich.console import Console, RenderableType
from rich.live import Live

from tickgate_server.observer.address import split_address
from tickgate_server.observer.live.history import Window
from tickgate_server.observer.live.reading import Reading
from tickgate_server.observer.live.view import View, view
from tickgate_server.top.screen import frame, waiting
from tickgate_server.top.source import MetricsUnread, read

# A table of models needs so much; a script's output has no terminal to ask.
_PLAIN_COLUMNS = 130


class Screen:
    """What is shown: the newest view, and whether the endpoint is lost.

    Args:
        address: Of the metrics.
        take: Takes a reading, or raises MetricsUnread.
    """

    def __init__(self, address: str, take: Callable[[], Reading]) -> None:
        self._address = address
        self._take = take
        self._window = Window()
        self._view: View | None = None

    def refresh(self) -> RenderableType:
        """Read once more; an endpoint that is lost is told above the last figures there were."""
        lost = ""
        try:
            self._view = self._window.add(self._take())
        except MetricsUnread as error:
            lost = str(error)
        return waiting(self._address, lost) if self._view is None else frame(self._view, self._address, lost)


@click.command()
@click.option("--metrics", "address", default="127.0.0.1:9464", show_default=True, help="host:port of the metrics.")
@click.option(
    "--interval", "interval_s", type=click.FloatRange(min=0.1), default=1.0, show_default=True, help="Seconds."
)
@click.option("--once", is_flag=True, help="Print one frame as plain text, of two readings an interval apart.")
def top(address: str, interval_s: float, once: bool) -> None:  # noqa: FBT001 - click's flag
    """Watch a server: rate, latency per stage, rejections, models, portfolio, health.

    Rates and latencies are over the last ten seconds, with --once over the interval; `-` is what is not known. Latency
    quantiles are interpolated within the buckets of the metrics. An endpoint that is lost is tried again; Ctrl-C ends.
    """
    try:
        split_address(address)
    except ValueError as error:
        raise click.BadParameter(f"expected host:port, got {address!r}", param_hint="--metrics") from error
    if once:
        _print_once(address, interval_s)
    else:
        with contextlib.suppress(KeyboardInterrupt):
            _follow(address, interval_s)


def _print_once(address: str, interval_s: float) -> None:
    try:
        before = read(address)
        time.sleep(interval_s)
        found = view(read(address), before)
    except MetricsUnread as error:
        raise click.ClickException(str(error)) from error
    console = Console(width=_PLAIN_COLUMNS, color_system=None, force_terminal=False)
    console.print(frame(found, address))


def _follow(address: str, interval_s: float) -> None:
    screen = Screen(address, lambda: read(address))
    with Live(waiting(address, ""), screen=Console().is_terminal, auto_refresh=False) as live:
        while True:
            live.update(screen.refresh(), refresh=True)
            time.sleep(interval_s)
