"""The verb `tickgate feed`: market data from a source into a server."""

from __future__ import annotations

import asyncio
import contextlib
import math
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import grpc
from rich.console import Console
from rich.status import Status

from tickgate.tls import read_credentials
from tickgate_client.command_options import one_line_errors, tls_options
from tickgate_client.feeds.feeding import Feed
from tickgate_client.feeds.metrics import served
from tickgate_client.feeds.publisher import AsyncMarketDataPublisher
from tickgate_client.feeds.show import live_line, show_feed
from tickgate_client.feeds.sources import TickSource, open_source
from tickgate_client.feeds.tasks import end

_REFRESH_S = 0.25
_POSITIVE = click.FloatRange(min=0, min_open=True)


@dataclass(frozen=True, slots=True)
class _Asked:
    """How a feed is to be run."""

    target: str
    feed: str
    window_ticks: int
    deadline_s: float
    patience_s: float
    drain_s: float
    credentials: grpc.ChannelCredentials | None
    metrics: str | None
    live: bool


def _options_of(_context: click.Context, _parameter: click.Parameter, given: Sequence[str]) -> Mapping[str, str]:
    options: dict[str, str] = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not (name and equals):
            raise click.BadParameter(f"{one!r} is not NAME=VALUE")
        if name in options:
            raise click.BadParameter(f"{name} is given twice")
        options[name] = value
    return options


@click.command()
@click.option(
    "--source",
    required=True,
    metavar="NAME",
    help="redis-streams, file, simulator, or another of entry-point group tickgate.tick_sources.",
)
@click.option(
    "-o",
    "--option",
    "options",
    multiple=True,
    metavar="NAME=VALUE",
    callback=_options_of,
    help="Of the source, such as stream=ticks; docs/feeds.md has them all. A wrong name lists those that there are.",
)
@click.option(
    "--target",
    required=True,
    metavar="HOST:PORT",
    help="A data listener of the server, which names its workers; unix:/path works too.",
)
@click.option("--feed", "feed_name", required=True, metavar="NAME", help="Whose ticks these are, up to 32 bytes.")
@click.option(
    "--window",
    type=click.IntRange(min=1),
    default=16_384,
    show_default=True,
    help="Ticks that may be unacknowledged; at it, the source is not read.",
)
@click.option(
    "--deadline-ms",
    type=_POSITIVE,
    default=10_000.0,
    show_default=True,
    help="Longest wait for an acknowledgement, in milliseconds; then it connects and sends again.",
)
@click.option(
    "--patience-s",
    type=_POSITIVE,
    show_default="for ever",
    help="Longest time without any acknowledgement, in seconds; then it ends with 1.",
)
@click.option(
    "--drain-s",
    type=click.FloatRange(min=0),
    default=10.0,
    show_default=True,
    help="Longest wait for acknowledgements after SIGTERM, in seconds.",
)
@tls_options
@click.option("--metrics", metavar="HOST:PORT", help="Serve Prometheus metrics there.")
@click.option("--progress/--no-progress", default=None, help="Show where it stands.  [default: on a terminal]")
def feed(
    *,
    source: str,
    options: Mapping[str, str],
    target: str,
    feed_name: str,
    window: int,
    deadline_ms: float,
    patience_s: float | None,
    drain_s: float,
    tls_ca: Path | None,
    tls_certificate: Path | None,
    tls_key: Path | None,
    metrics: str | None,
    progress: bool | None,
) -> None:
    """Publish market data from a source: each tick at least once, a symbol's in order.

    The server knows a repeated tick by its sequence. Exits with 0 at the end of the source once all is acknowledged,
    and after SIGTERM or SIGINT: what is not acknowledged then is left to the source. A server that restarts is waited
    for.
    """
    with one_line_errors():
        asked = _Asked(
            target=target,
            feed=feed_name,
            window_ticks=window,
            deadline_s=deadline_ms / 1e3,
            patience_s=math.inf if patience_s is None else patience_s,
            drain_s=drain_s,
            credentials=read_credentials(tls_ca, tls_certificate, tls_key),
            metrics=metrics,
            live=sys.stderr.isatty() if progress is None else progress,
        )
        asyncio.run(_run(open_source(source, options), asked))


async def _run(source: TickSource, asked: _Asked) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    publisher = AsyncMarketDataPublisher(
        asked.target,
        feed=asked.feed,
        deadline_s=asked.deadline_s,
        patience_s=asked.patience_s,
        window_ticks=asked.window_ticks,
        channel_credentials=asked.credentials,
    )
    running = Feed(source, publisher)
    started = time.monotonic()
    watching = asyncio.create_task(_watch(running, live=asked.live))
    try:
        with contextlib.ExitStack() as stack:
            if asked.metrics is not None:
                address = stack.enter_context(served(running, asked.feed, asked.metrics))
                click.echo(f"metrics: http://{address}/metrics", err=True)
            if await running.run(stop, drain_s=asked.drain_s):
                await publisher.finish()
    finally:
        await end(watching)
        await publisher.close()
        await source.close()
        show_feed(Console(), running, time.monotonic() - started)


async def _watch(running: Feed, *, live: bool) -> None:
    """Say where it stands, on a terminal; and what keeps it from the server, once an outage."""
    seen, told = None, ("", -1)
    console = Console(stderr=True, force_terminal=live or None)
    with Status("", console=console) if live else contextlib.nullcontext() as status:
        before, at = 0, time.monotonic()
        while True:
            await asyncio.sleep(_REFRESH_S)
            answered, now = running.counts.answered, time.monotonic()
            error = running.publisher.last_error
            if error is not None and error is not seen and (str(error), answered) != told:
                click.echo(f"{error}; trying again", err=True)
                told = (str(error), answered)
            seen = error
            if status is not None:
                status.update(live_line(running, (answered - before) / (now - at)))
            before, at = answered, now
