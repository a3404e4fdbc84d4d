"""Real servers for the tests: `tickgate serve` as a user starts it, on free ports."""

import http.client
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from prometheus_client.parser import text_string_to_metric_families

from tickgate.v1 import signal_pb2 as pb
from tickgate.v1 import signal_pb2_grpc

TICKGATE = str(Path(sys.executable).with_name("tickgate"))
START_UP_S = 60.0
CALL_S = 30.0
PREDICT = "/tickgate.v1.SignalService/Predict"
# Few tests have risk data, and without them only exits would be approved.
WITHOUT_RISK_DATA = {"TICKGATE_RISK__MAX_VAR": "off", "TICKGATE_RISK__MAX_CORRELATION": "off"}
# An observer takes as long to start as its server, and few tests ask for what it does.
UNOBSERVED = {"TICKGATE_OBSERVER__MODE": "none"}
# A test's server is on this machine: no proxy of the environment stands between.
CHANNEL_OPTIONS = [("grpc.enable_http_proxy", 0), ("grpc.max_send_message_length", -1)]


class ServerProcess:
    """A running `tickgate serve`; its log lines are read as they come.

    Attributes:
        journal: Folder of its own journal, if its arguments name no other.

    Args:
        arguments: Behind `serve`.
        environment: Beside that of the tests.
        program: What to run.
        observed: With an observer and its metrics.
    """

    def __init__(
        self,
        arguments: list[str],
        environment: Mapping[str, str],
        program: Sequence[str] = (TICKGATE,),
        *,
        observed: bool = False,
    ) -> None:
        self.events: list[dict[str, Any]] = []
        self._lines: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._ended = False
        self._journal = tempfile.TemporaryDirectory(prefix="tickgate-journal-")
        self.journal = Path(self._journal.name)
        own = [
            "--listen",
            "127.0.0.1:0",
            "--service-listen",
            "127.0.0.1:0",
            "--metrics-listen",
            "127.0.0.1:0" if observed else "",
            "--journal",
            self._journal.name,
        ]
        self.process = subprocess.Popen(
            [*program, "serve", *own, *arguments],
            stderr=subprocess.PIPE,
            text=True,
            env={**WITHOUT_RISK_DATA, **({} if observed else UNOBSERVED), **os.environ, **environment},
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        stream = self.process.stderr
        assert stream is not None
        with stream:
            for line in stream:
                try:
                    self._lines.put(json.loads(line))
                except json.JSONDecodeError:
                    self._lines.put({"event": "text", "text": line.rstrip()})
        self._lines.put(None)

    def _next(self, timeout_s: float) -> dict[str, Any] | None:
        line = None if self._ended else self._lines.get(timeout=timeout_s)
        if line is None:
            self._ended = True
        else:
            self.events.append(line)
        return line

    def wait_for(self, event: str, timeout_s: float = START_UP_S) -> dict[str, Any]:
        """The next log line of that event; fails with all lines where it does not come."""
        while True:
            try:
                line = self._next(timeout_s)
            except queue.Empty:
                raise AssertionError(f"no {event!r} within {timeout_s} s; log: {self.events}") from None
            if line is None:
                raise AssertionError(f"the server ended before {event!r}; log: {self.events}")
            if line["event"] == event:
                return line

    def logged(self, event: str) -> list[dict[str, Any]]:
        """The log lines of that event that were read so far."""
        return [line for line in self.events if line["event"] == event]

    def stop(self, number: int = signal.SIGTERM, timeout_s: float = 30.0) -> int:
        """Send a signal and wait for the end; returns the exit status, and all log lines are in `events` then."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        status = self.process.wait(timeout_s)
        while self._next(timeout_s) is not None:
            pass
        return status

    def kill(self) -> None:
        """End it if it still runs."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(30)
        self._reader.join(30)
        self._journal.cleanup()


@contextmanager
def server(
    models: Path,
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    ready: str = "serving",
    program: Sequence[str] = (TICKGATE,),
    observed: bool = False,
) -> Iterator[tuple[ServerProcess, str]]:
    """A server that logged `ready`, and its address; killed on the way out if it still runs."""
    running = ServerProcess(["--models", str(models), *arguments], environment or {}, program, observed=observed)
    try:
        yield running, str(running.wait_for(ready)["address"])
    finally:
        running.kill()


@dataclass(frozen=True)
class Served:
    """A server that is up, and a channel to its data listener."""

    process: ServerProcess
    address: str
    service: str
    admin: str
    metrics: str
    channel: grpc.Channel
    stub: signal_pb2_grpc.SignalServiceStub

    def predict(self, request: pb.PredictRequest) -> pb.PredictResponse:
        """One answer; raises `grpc.RpcError`."""
        return self.stub.Predict(request, timeout=CALL_S)

    def refusal(self, request: pb.PredictRequest) -> tuple[grpc.StatusCode, str]:
        """Code and message of a request that must fail."""
        try:
            answer = self.predict(request)
        except grpc.RpcError as error:
            return error.code(), error.details()
        raise AssertionError(f"expected a refusal, got {answer}")

    def stream(
        self, messages: Iterable[list[pb.PredictRequest]], timeout_s: float = CALL_S
    ) -> Iterator[pb.PredictStreamResponse]:
        """Answers of one stream, a message for each list."""
        requests = (pb.PredictStreamRequest(requests=message) for message in messages)
        return iter(self.stub.PredictStream(requests, timeout=timeout_s))

    def scrape(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        """Every sample of the metrics endpoint, by its name and labels."""
        connection = http.client.HTTPConnection(self.metrics, timeout=CALL_S)
        try:
            connection.request("GET", "/metrics")
            text = connection.getresponse().read().decode()
        finally:
            connection.close()
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }


@contextmanager
def served(
    models: Path,
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    ready: str = "serving",
    program: Sequence[str] = (TICKGATE,),
    observed: bool = False,
) -> Iterator[Served]:
    """As `server`, with a channel."""
    with (
        server(models, *arguments, environment=environment, ready=ready, program=program, observed=observed) as (
            running,
            address,
        ),
        grpc.insecure_channel(address, options=CHANNEL_OPTIONS) as channel,
    ):
        line = running.logged(ready)[-1]
        service, admin, metrics = (str(line[name]) for name in ("service", "admin", "metrics"))
        yield Served(running, address, service, admin, metrics, channel, signal_pb2_grpc.SignalServiceStub(channel))


def run(*arguments: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """A `tickgate` command that ends by itself."""
    return subprocess.run(
        [TICKGATE, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=START_UP_S,
        env={**os.environ, "COLUMNS": "300", **(environment or {})},
    )
