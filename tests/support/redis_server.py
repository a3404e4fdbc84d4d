"""The real redis-server for tests: on a free port, in a folder of its own, killed, paused, restarted as they like."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import redis
from tests.support.programs import program

START_UP_S = 20.0


def free_port() -> int:
    """A port of the loopback that nobody has."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


class RedisServer:
    """A redis-server without persistence.

    Attributes:
        port: Of its plain or its TLS listener.
        folder: Where it runs.

    Args:
        folder: Its own.
        arguments: Beside port, folder and no persistence; `--sentinel` with a file as the first starts a sentinel.
        tls: Certificate, key and authority; then it listens with TLS alone.
        password: That `client` is to give.
        user: As above.
    """

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        tls: tuple[Path, Path, Path] | None = None,
        user: str | None = None,
        password: str | None = None,
    ) -> None:
        self.folder = folder
        self.port = free_port()
        self._tls = tls
        self._user, self._password = user, password
        self._arguments = arguments
        self._client: redis.Redis | None = None
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> Self:
        """Start it, empty, and wait until it takes connections."""
        self.folder.mkdir(parents=True, exist_ok=True)
        listen = ["--port", str(self.port)]
        if self._tls is not None:
            certificate, key, authority = self._tls
            listen = ["--port", "0", "--tls-port", str(self.port), "--tls-cert-file", str(certificate)]
            listen += ["--tls-key-file", str(key), "--tls-ca-cert-file", str(authority), "--tls-auth-clients", "no"]
        command = [program("redis-server", "is level 2 of the feature store"), *self._arguments]
        own = ["--bind", "127.0.0.1", "--dir", str(self.folder), "--save", "", "--appendonly", "no"]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen([*command, *listen, *own], stdout=log, stderr=subprocess.STDOUT)
        give_up = time.monotonic() + START_UP_S
        while True:
            if self.process.poll() is not None or time.monotonic() > give_up:
                raise AssertionError(f"redis-server did not start: {(self.folder / 'log').read_text()}")
            try:
                socket.create_connection(("127.0.0.1", self.port), 1.0).close()
            except OSError:
                os.sched_yield()
                continue
            return self

    def client(self) -> redis.Redis:
        """The test's own client."""
        if self._client is not None:
            return self._client
        tls = {} if self._tls is None else {"ssl": True, "ssl_ca_certs": str(self._tls[2])}
        client = redis.Redis("127.0.0.1", self.port, username=self._user, password=self._password, **tls)
        self._client = client
        return client

    def kill(self) -> None:
        """End it at once; nothing in it is kept."""
        if self._client is not None:
            self._client.close()
            self._client = None
        if self.process is not None:
            self.process.kill()
            self.process.wait(30)
            self.process = None

    def pause(self) -> None:
        """Stop it where it is: connections stay, nobody answers."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)


@contextmanager
def redis_server(folder: Path, *arguments: str, **options: object) -> Iterator[RedisServer]:
    """A redis-server that runs; killed on the way out."""
    server = RedisServer(folder, *arguments, **options)  # type: ignore[arg-type]
    try:
        yield server.start()
    finally:
        server.kill()
