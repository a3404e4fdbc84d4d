"""Round trips over gRPC on the loopback, each shape beside the floor in the same run.

Server, generator and floor share the machine, so ratios matter, not figures. A pair is the floor and the server, one
after the other; the ratio is the median over the pairs of (server / floor).
"""

import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench import servers
from bench.requests import write_requests
from rich.table import Table

_FIELD = re.compile(r"(rps|p50|p90|p99|p99\.9|max)=(\d+)")
REQUESTS = 120_000


@dataclass(frozen=True, slots=True)
class Shape:
    """How the server is asked."""

    name: str
    connections: int
    stream: bool = False
    rate: int = 0


SHAPES = (
    Shape("unary, 1 in flight", 1),
    Shape("stream, 1 in flight", 1, stream=True),
    Shape("unary, 4 connections", 4),
    Shape("unary, 8 connections", 8),
    Shape("unary, 32 connections", 32),
    Shape("open loop, 2,000/s, 8 connections", 8, rate=2_000),
    Shape("open loop, 5,000/s, 8 connections", 8, rate=5_000),
)


def load(address: str, prefix: Path, shape: Shape, seconds: float) -> dict[str, int]:
    """Run the load generator once; its percentiles in microseconds, and `rps`.

    Raises:
        SystemExit: A request failed: a rate with errors is no rate.
    """
    method = servers.STREAM if shape.stream else servers.METHOD
    command = [servers.tool("rpcload"), address, method, str(prefix), str(shape.connections), str(seconds)]
    command += ["stream"] * shape.stream + [f"rate={shape.rate}"] * bool(shape.rate)
    line = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "status_" in line:
        raise SystemExit(f"bench: requests failed: {line}")
    return {name: int(value) for name, value in _FIELD.findall(line)}


@contextmanager
def request_files() -> Iterator[tuple[Path, Path]]:
    """Prefixes of the request files, unary and stream."""
    with tempfile.TemporaryDirectory(prefix="tickgate-bench-") as folder:
        unary, stream = Path(folder) / "unary", Path(folder) / "stream"
        write_requests(unary, 32, REQUESTS // 4, stream=False)
        write_requests(unary, 1, REQUESTS, stream=False)
        write_requests(stream, 1, REQUESTS, stream=True)
        yield unary, stream


def compare(models: Path, transport: str, shapes: tuple[Shape, ...], pairs: int, seconds: float) -> Table:
    """The table of one transport beside the floor."""
    unary_answer, stream_answer = servers.answers_of(models)
    table = Table(title=f"transport {transport}: server and floor in us, ratio = median of {pairs} pairs")
    for heading in ("load", "p50", "p99", "p99.9", "req/s", "floor p50", "p99", "req/s", "p50 x", "p99 x", "req/s x"):
        table.add_column(heading, justify="left" if heading == "load" else "right")
    with request_files() as (unary, stream):
        for shape in shapes:
            prefix, answer = (stream, stream_answer) if shape.stream else (unary, unary_answer)

            def measure(
                place: Callable[[], AbstractContextManager[str]], prefix: Path = prefix, shape: Shape = shape
            ) -> dict[str, int]:
                with place() as address:
                    return load(address, prefix, shape, seconds)

            floors, ours = [], []
            for _ in range(pairs):
                floors.append(measure(lambda answer=answer: servers.echo(answer)))
                ours.append(
                    measure(
                        (lambda answer=answer: servers.empty_handler(answer))
                        if transport == "empty"
                        else (lambda: servers.tickgate(models, transport))
                    )
                )
            table.add_row(*_row(shape, ours, floors))
    return table


def _row(shape: Shape, ours: list[dict[str, int]], floors: list[dict[str, int]]) -> list[str]:
    def middle(runs: list[dict[str, int]], name: str) -> str:
        return f"{median(run[name] for run in runs):,.0f}"

    def ratio(name: str) -> str:
        return f"{median(run[name] / floor[name] for run, floor in zip(ours, floors, strict=True)):.2f}"

    return [
        shape.name,
        *(middle(ours, name) for name in ("p50", "p99", "p99.9", "rps")),
        *(middle(floors, name) for name in ("p50", "p99", "rps")),
        *(ratio(name) for name in ("p50", "p99", "rps")),
    ]
