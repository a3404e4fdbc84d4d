"""The client's verbs: `tickgate predict` and `tickgate replay-ticks`."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import click
from google.protobuf import json_format
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from tickgate.tls import read_credentials
from tickgate.v1 import market_pb2
from tickgate_client.client import SignalClient
from tickgate_client.command_options import one_line_errors, tls_options
from tickgate_client.options import MAX_BATCH, MAX_IN_FLIGHT, Input
from tickgate_client.readers import read_ticks
from tickgate_client.replay import ReplayAnswer, answer_json, load_shape, replay
from tickgate_client.report import show_replay, show_response
from tickgate_client.routing import RoutedSignalClient
from tickgate_client.sla.export import SlaExport
from tickgate_client.sla.monitor import SlaMonitor
from tickgate_client.ticks import AGGRESSOR_SIDES

_REFRESH_NS = 250_000_000
_SLA_EVERY_S = 10.0

_POSITIVE_MS = click.FloatRange(min=0, min_open=True)


def _call_options(command: Callable[..., None]) -> Callable[..., None]:
    """What both verbs say about the server and their calls to it."""
    command = tls_options(command)
    for option in reversed(
        (
            click.option("--target", required=True, metavar="HOST:PORT", help="The server; unix:/path works too."),
            click.option(
                "--model", default="", help="name, name@alias or name:version; the server's default if not given."
            ),
            click.option(
                "--budget-us",
                type=click.IntRange(min=0),
                default=0,
                show_default="the deadline",
                help="What the server may take from arrival to answer, in microseconds.",
            ),
            click.option(
                "--deadline-ms",
                type=_POSITIVE_MS,
                default=1000.0,
                show_default=True,
                help="gRPC deadline of a call, in milliseconds; on a stream, of each message's answer.",
            ),
            click.option(
                "--connect-timeout-s",
                type=_POSITIVE_MS,
                default=5.0,
                show_default=True,
                help="Longest wait for the connection, in seconds.",
            ),
            click.option(
                "--routed",
                is_flag=True,
                help="The server has several workers: ask each symbol's own, over a connection to each.",
            ),
        )
    ):
        command = option(command)
    return command


@click.command()
@_call_options
@click.option("--symbol", required=True, help="The instrument.")
@click.option("--price", type=float, help="Of the last trade, in the instrument's currency; with --size.")
@click.option("--size", type=float, help="Of the last trade, in units of the instrument.")
@click.option("--aggressor", type=click.Choice([name for name in AGGRESSOR_SIDES if name]), help="Who took the trade.")
@click.option("--bid", type=float, help="Best bid; with --ask, --bid-size and --ask-size.")
@click.option("--ask", type=float, help="Best ask.")
@click.option("--bid-size", type=float, help="Size at the best bid.")
@click.option("--ask-size", type=float, help="Size at the best ask.")
@click.option(
    "--sequence", type=click.IntRange(0, 2**64 - 1), default=0, help="The feed's number of the tick; 0: none."
)
@click.option(
    "--exchange-ts-ns",
    type=click.IntRange(1, 2**63 - 1),
    show_default="now",
    help="Venue time of the tick, nanoseconds since the Unix epoch.",
)
@click.option("--request-id", default="", help="Up to 36 bytes; comes back in the answer.")
@click.option("--json", "as_json", is_flag=True, help="Print the answer as protobuf's JSON, with the contract's names.")
def predict(
    *,
    target: str,
    model: str,
    budget_us: int,
    deadline_ms: float,
    connect_timeout_s: float,
    routed: bool,
    tls_ca: Path | None,
    tls_certificate: Path | None,
    tls_key: Path | None,
    symbol: str,
    price: float | None,
    size: float | None,
    aggressor: str | None,
    bid: float | None,
    ask: float | None,
    bid_size: float | None,
    ask_size: float | None,
    sequence: int,
    exchange_ts_ns: int | None,
    request_id: str,
    as_json: bool,
) -> None:
    """Ask a server for one signal.

    With a trade or a quote, sends a tick and asks what to do after it; without, asks about the symbol's latest
    features. Exits with 1 if there is no answer; a signal to HOLD is one.
    """
    tick = market_pb2.Tick(symbol=symbol, sequence=sequence, exchange_ts_ns=exchange_ts_ns or time.time_ns())
    if price is not None and size is not None:
        side = AGGRESSOR_SIDES[aggressor or ""]
        tick.trade.CopyFrom(market_pb2.Trade(price=price, size=size, aggressor=side))
    elif not (price is None and size is None and aggressor is None):
        raise click.UsageError("a trade is --price and --size together, --aggressor is a part of it")
    if bid is not None and ask is not None and bid_size is not None and ask_size is not None:
        tick.quote.CopyFrom(market_pb2.Quote(bid=bid, ask=ask, bid_size=bid_size, ask_size=ask_size))
    elif not (bid is None and ask is None and bid_size is None and ask_size is None):
        raise click.UsageError("a quote is --bid, --ask, --bid-size and --ask-size together")
    what: Input = tick if tick.HasField("trade") or tick.HasField("quote") else symbol

    kind = RoutedSignalClient if routed else SignalClient
    with (
        one_line_errors(),
        kind(
            target,
            deadline_s=deadline_ms / 1e3,
            budget_us=budget_us,
            model=model,
            channel_credentials=read_credentials(tls_ca, tls_certificate, tls_key),
        ) as client,
    ):
        client.connect(connect_timeout_s)
        response = client.predict(what, request_id=request_id)
    if as_json:
        click.echo(
            json_format.MessageToJson(
                response, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
            )
        )
    else:
        show_response(Console(), response)


@click.command("replay-ticks")
@click.argument("source")
@click.option(
    "--format",
    "reader",
    default="csv",
    show_default=True,
    help="Format of the source: a reader in entry-point group tickgate.tick_readers, such as csv or binance.",
)
@_call_options
@click.option("--stream", is_flag=True, help="Over one PredictStream instead of one Predict a tick.")
@click.option(
    "--batch",
    type=click.IntRange(1, MAX_BATCH),
    default=1,
    show_default=True,
    help="Ticks in one message of the stream.",
)
@click.option(
    "--in-flight",
    type=click.IntRange(1, MAX_IN_FLIGHT),
    default=1,
    show_default=True,
    help="Messages of the stream that may wait for their answers.",
)
@click.option("--limit", type=click.IntRange(min=1), help="Ticks to send at most.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Write one line of JSON an answer, without timing: equal replays are equal files.",
)
@click.option(
    "--sla-log",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Write latencies and failures for `tickgate sla report`, every 10 s and at the end.",
)
@click.option("--progress/--no-progress", default=None, help="Show progress.  [default: on a terminal]")
def replay_ticks(
    *,
    source: str,
    reader: str,
    target: str,
    model: str,
    budget_us: int,
    deadline_ms: float,
    connect_timeout_s: float,
    routed: bool,
    tls_ca: Path | None,
    tls_certificate: Path | None,
    tls_key: Path | None,
    stream: bool,
    batch: int,
    in_flight: int,
    limit: int | None,
    out: Path | None,
    sla_log: Path | None,
    progress: bool | None,
) -> None:
    """Send recorded ticks through a server; count answers and latencies.

    SOURCE is a file, or what the format takes for one: `sp500:2018` for daily. Ticks go in the source's order over one
    connection (with --routed, one to each worker), one at a time unless --in-flight says otherwise. Exits with 0 if
    every tick was answered (HOLD is an answer), else with 1.
    """
    if not stream and (batch > 1 or in_flight > 1):
        raise click.UsageError("--batch and --in-flight are for --stream: one Predict carries one tick")
    with one_line_errors(), contextlib.ExitStack() as stack:
        ticks = read_ticks(reader, source)
        observers: list[Callable[[ReplayAnswer], None]] = []
        if out is not None:
            lines = stack.enter_context(out.open("w", encoding="utf-8", newline=""))
            observers.append(lambda answer: print(answer_json(answer), file=lines))
        monitor = export = None
        if sla_log is not None:
            monitor = stack.enter_context(SlaMonitor())
            shape = load_shape(stream=stream, batch=batch, in_flight=in_flight)
            export = stack.enter_context(SlaExport(monitor, sla_log, every_s=_SLA_EVERY_S, load=shape))
        if sys.stderr.isatty() if progress is None else progress:
            observers.append(stack.enter_context(_progress(limit)))

        def on_answer(answer: ReplayAnswer) -> None:
            for observe in observers:
                observe(answer)

        result = replay(
            target,
            ticks,
            model=model,
            budget_us=budget_us,
            deadline_s=deadline_ms / 1e3,
            stream=stream,
            batch=batch,
            in_flight=in_flight,
            limit=limit,
            connect_timeout_s=connect_timeout_s,
            channel_credentials=read_credentials(tls_ca, tls_certificate, tls_key),
            routed=routed,
            latency=monitor,
            on_answer=on_answer if observers else None,
        )
        if export is not None:
            export.load = result.load_shape  # it knows the connections
    show_replay(Console(), result)
    if result.stream_error is not None:
        raise click.ClickException(f"the stream ended: {result.stream_error}")
    if not result.complete:
        raise click.ClickException(f"{result.sent - result.answered:,} of {result.sent:,} ticks were not answered")


@contextlib.contextmanager
def _progress(limit: int | None) -> Iterator[Callable[[ReplayAnswer], None]]:
    # Only called for a terminal, or where the user wants it drawn all the same.
    # Drawn between two calls, on their thread: a thread that draws would hold up the one that waits for an answer.
    columns = (
        SpinnerColumn(),
        TextColumn("{task.completed:,.0f} ticks, {task.fields[rate]:,.0f}/s"),
        TimeElapsedColumn(),
    )
    with Progress(
        *columns, console=Console(stderr=True, force_terminal=True), auto_refresh=False, transient=True
    ) as bar:
        task = bar.add_task("replay", total=limit, rate=0.0)
        started_ns = time.perf_counter_ns()
        due_ns = started_ns

        def advance(answer: ReplayAnswer) -> None:
            nonlocal due_ns
            now_ns = time.perf_counter_ns()
            if now_ns >= due_ns:
                due_ns = now_ns + _REFRESH_NS
                done = answer.index + 1
                bar.update(task, completed=done, rate=done / max(now_ns - started_ns, 1) * 1e9, refresh=True)

        yield advance
