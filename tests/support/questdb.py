"""A real QuestDB, from the local Maven repository: `deploy/install-test-programs` puts it there."""

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from tests.support.programs import absent, program

START_UP_S = 60.0
_JAR = Path.home() / ".m2/repository/org/questdb/questdb/9.3.4/questdb-9.3.4.jar"


@contextmanager
def questdb(folder: Path) -> Iterator[str]:
    """Its URL, once it answers."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {
        "QDB_HTTP_BIND_TO": f"127.0.0.1:{port}",
        "QDB_PG_ENABLED": "false",
        "QDB_LINE_TCP_ENABLED": "false",
        "QDB_HTTP_MIN_ENABLED": "false",
        "QDB_TELEMETRY_ENABLED": "false",
    }
    folder.mkdir(exist_ok=True)
    java = program("java", "runs QuestDB")
    if not _JAR.exists():
        absent(f"org.questdb:questdb is not at {_JAR}")
    command = [
        java,
        "-Xmx512m",
        "-p",
        _JAR,
        "-m",
        "io.questdb/io.questdb.ServerMain",
        "-d",
        folder,
    ]
    process = subprocess.Popen(
        command, env={**os.environ, **environment}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    url = f"http://127.0.0.1:{port}"
    try:
        give_up = time.monotonic() + START_UP_S
        while True:
            try:
                httpx.get(f"{url}/ping", trust_env=False)
            except httpx.HTTPError:
                assert time.monotonic() < give_up
                assert process.poll() is None
                time.sleep(0.05)  # a test that spins would take the core that it is to start on
                continue
            yield url
            return
    finally:
        process.kill()
        process.wait(30)
