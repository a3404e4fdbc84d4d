"""Servers to measure: tickgate as a user starts it, the C++ echo that is the floor, and an empty handler."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.processes import server

from tickgate.v1 import PredictStreamResponse, PredictStreamResult, SignalServiceStub

METHOD = "/tickgate.v1.SignalService/Predict"
STREAM = "/tickgate.v1.SignalService/PredictStream"


def tool(name: str) -> str:
    """Path of `rpcload` or `rpcecho`: from $RPCLOAD, ~/.cache/rpcload, or the PATH.

    Raises:
        SystemExit: It is not there; says what to do.
    """
    places = [os.environ.get("RPCLOAD", ""), str(Path.home() / ".cache" / "rpcload")]
    found = shutil.which(name, path=os.pathsep.join([*places, os.environ.get("PATH", "")]))
    if found is None:
        raise SystemExit(f"bench: {name} was not found; build it and name its folder in RPCLOAD")
    return found


@contextmanager
def tickgate(models: Path, transport: str = "queue", **settings: str) -> Iterator[str]:
    """`tickgate serve` in replay mode; gives its address."""
    environment = {f"TICKGATE_{name.upper()}": value for name, value in settings.items()}
    environment |= {"TICKGATE_SERVER__TRANSPORT": transport, "TICKGATE_CLOCK__MODE": "replay"}
    with server(models, environment=environment, observed=True) as (_, address):
        yield address


@contextmanager
def echo(answer: bytes) -> Iterator[str]:
    """The floor: `rpcecho` answering every request with these bytes."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(answer)
        file.flush()
        with _running([tool("rpcecho"), "127.0.0.1:50990", file.name]) as address:
            yield address


@contextmanager
def empty_handler(answer: bytes) -> Iterator[str]:
    """The queue transport with nothing behind it."""
    environment = {**os.environ, "GRPC_EXPERIMENTS": "-event_engine_listener"}
    command = [sys.executable, "-m", "bench.empty_handler", "127.0.0.1:50991", answer.hex()]
    with _running(command, environment) as address:
        yield address


@contextmanager
def _running(command: list[str], environment: dict[str, str] | None = None) -> Iterator[str]:
    address = next(part for part in command if part.startswith("127.0.0.1:"))
    with subprocess.Popen(command, env=environment) as process:
        try:
            yield address
        finally:
            process.terminate()


def answers_of(models: Path) -> tuple[bytes, bytes]:
    """What tickgate answers to a scored request, unary and on a stream: the floor sends the same."""
    import grpc  # noqa: PLC0415 - the server under measurement sets its own experiments
    from bench.requests import tick_requests  # noqa: PLC0415

    with tickgate(models) as address, grpc.insecure_channel(address) as channel:
        stub = SignalServiceStub(channel)
        for request in tick_requests("WARM", 100, seed=0):
            answer = stub.Predict(request, timeout=5.0)
    return (
        answer.SerializeToString(),
        PredictStreamResponse(results=[PredictStreamResult(response=answer)]).SerializeToString(),
    )
