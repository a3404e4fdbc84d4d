"""How long a trading state takes from the request that sets it to a client that watches: idle, and under load."""

import contextlib
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread
from typing import Any

import grpc
import numpy as np
from bench.requests import write_requests
from bench.servers import METHOD, tool
from rich.table import Table
from tests.support.desk import DeskOf, desk_of
from tests.support.processes import served

from tickgate.v1 import signal_pb2 as pb

CHANGES = 300
_CONNECTIONS = 8
_STATES = (pb.TRADING_STATE_HALTED, pb.TRADING_STATE_ACTIVE)


def halt(repository: Path) -> Table:
    """A table of latencies in ms."""
    table = Table(title=f"trading state, from request to a watching client, ms; {CHANGES} changes")
    for heading in ("load", "p50", "p99", "max"):
        table.add_column(heading, justify="left" if heading == "load" else "right")
    with served(repository, "--clock", "replay", observed=True) as server, desk_of(server) as desk:
        for load in ("none", "unary, 8 connections, closed loop"):
            with _loaded(server.address, busy=load != "none"):
                found = _changes(desk) * 1e3
            table.add_row(load, *(f"{value:.2f}" for value in (*np.percentile(found, [50, 99]), found.max())))
    return table


def _changes(desk: DeskOf) -> Any:
    arrived = Event()
    seen: list[float] = []
    wanted = [0]

    def watch() -> None:
        with contextlib.suppress(grpc.RpcError):  # it ends with the channel
            for message in stream:
                if message.desk.state == wanted[0]:
                    seen.append(time.perf_counter())
                    arrived.set()

    stream = desk.watch_state()
    thread = Thread(target=watch, daemon=True)
    thread.start()
    took = []
    for number in range(CHANGES):
        wanted[0] = _STATES[number % 2]
        arrived.clear()
        began = time.perf_counter()
        desk.set_state(wanted[0], "bench")
        if not arrived.wait(10.0):
            raise SystemExit("bench: a state did not reach the watching client within 10 s")
        took.append(seen[-1] - began)
    stream.cancel()
    thread.join()
    return np.array(took)


@contextlib.contextmanager
def _loaded(address: str, *, busy: bool) -> Iterator[None]:
    if not busy:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="tickgate-bench-halt-") as folder:
        prefix = Path(folder) / "request"
        write_requests(prefix, _CONNECTIONS, 1_000, stream=False)
        command = [tool("rpcload"), address, METHOD, str(prefix), str(_CONNECTIONS), "60"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            try:
                yield
            finally:
                process.terminate()
