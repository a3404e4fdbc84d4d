"""Prometheus, promtool and Alertmanager of the system, started on free ports, and found up by asking them."""

import contextlib
import json
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from tests.support.programs import program

UP_S = 30.0
_PAUSE_S = 0.02


def promtool(*arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    """One run of promtool, with `text` as its standard input."""
    command = [program("promtool", "checks rules and metrics"), *arguments]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=60)


def free_port() -> int:
    """One that nothing listens on; these programs cannot say which they took."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def until(condition: Any, within_s: float = UP_S) -> Any:
    """The first thing that a condition gives which is true; fails where none comes."""
    give_up = time.monotonic() + within_s
    while not (found := condition()):
        assert time.monotonic() < give_up, f"nothing true from {condition} within {within_s} s"
        time.sleep(_PAUSE_S)
    return found


def answers(url: str) -> bool:
    """Whether a GET succeeds."""
    try:
        return httpx.get(url, trust_env=False, timeout=5).is_success
    except httpx.TransportError:
        return False


@contextlib.contextmanager
def _running(command: list[str], ready: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("ab") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        try:
            until(lambda: answers(ready) or process.poll() is not None)
            assert process.poll() is None, log.read_text()
            yield process
        finally:
            process.kill()


@dataclass(frozen=True)
class Prometheus:
    """A server that is up."""

    url: str

    def query(self, expression: str, **parameters: str | float) -> list[dict[str, Any]]:
        """Result of an instant query, or of a range query where `start` is given; fails where it is refused."""
        path = "query_range" if "start" in parameters else "query"
        asked = {"query": expression, **{name: str(value) for name, value in parameters.items()}}
        answer = httpx.get(f"{self.url}/api/v1/{path}", params=asked, trust_env=False, timeout=30)
        said = answer.json()
        assert said["status"] == "success", f"{expression}: {said}"
        found: list[dict[str, Any]] = said["data"]["result"]
        return found

    def number(self, expression: str) -> float:
        """The only value of an instant query."""
        (found,) = self.query(expression)
        return float(found["value"][1])


@contextlib.contextmanager
def prometheus(folder: Path, config: str) -> Iterator[Prometheus]:
    """A server with this configuration, its data in a folder."""
    file = folder / "prometheus.yml"
    file.write_text(config)
    address = f"127.0.0.1:{free_port()}"
    command = [
        program("prometheus", "scrapes and queries"),
        f"--config.file={file}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address={address}",
        "--enable-feature=exemplar-storage",
    ]
    with _running(command, f"http://{address}/-/ready", folder / "prometheus.log"):
        yield Prometheus(f"http://{address}")


class Alertmanager:
    """One that can be killed and started again where it was."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"

    @contextlib.contextmanager
    def up(self) -> Iterator[None]:
        """Killed on the way out."""
        config = self._folder / "alertmanager.yml"
        config.write_text(json.dumps({"route": {"receiver": "none"}, "receivers": [{"name": "none"}]}))
        command = [
            program("prometheus-alertmanager", "receives alerts"),
            f"--config.file={config}",
            f"--storage.path={self._folder / 'alertmanager'}",
            f"--web.listen-address=127.0.0.1:{self._port}",
            "--cluster.listen-address=",
        ]
        with _running(command, f"{self.url}/-/ready", self._folder / "alertmanager.log"):
            yield

    def alerts(self) -> dict[str, dict[str, Any]]:
        """Those that are active now, by name."""
        found = httpx.get(f"{self.url}/api/v2/alerts?active=true", trust_env=False, timeout=5).json()
        return {alert["labels"]["alertname"]: alert for alert in found}
