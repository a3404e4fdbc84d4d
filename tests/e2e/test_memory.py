"""Memory under many requests: what is preallocated does not grow, and what is not is given back."""

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.support.messages import START_NS, tick
from tests.support.packages import publish_forest
from tests.support.processes import Served, served

from tickgate.v1 import signal_pb2 as pb

SYMBOLS = 64
BATCH = 32
# Over the last nine tenths; a byte a request would be 9,000 in the campaign. The observer works on copies of what is
# new, which are as large as it is behind, up to 4,096 records of 768 bytes at once.
ALLOWED_KB = {"server": 1_024, "observer": 16_384}
ANSWERED = ("tickgate_requests_total", frozenset({("code", "OK")}))
LOG = logging.getLogger(__name__)


def anonymous_kb(process: int) -> int:
    """Anonymous memory that is resident."""
    status = Path(f"/proc/{process}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon:"))


def processes_of(server: Served) -> list[int]:
    """The server and its observer; what checks packages has nothing to do."""
    parent = server.process.process.pid
    tasks = Path(f"/proc/{parent}/task").iterdir()
    children = [child for task in tasks for child in (task / "children").read_text().split()]
    observers = [int(child) for child in children if b"observer" in Path(f"/proc/{child}/cmdline").read_bytes()]
    return [parent, *observers]


def requests_of(first: int, count: int) -> Iterator[pb.PredictRequest]:
    """Each symbol in turn, each tick after the one before."""
    for number in range(first, first + count):
        price = 100.0 + number % 97 * 0.01
        yield tick(f"SYM-{number % SYMBOLS}", START_NS + number * 1_000, sequence=number + 1, trade=(price, 1.0))


def ask(server: Served, first: int, count: int, batch: int) -> int:
    """Send `count` requests on one stream; how many were scored."""
    scored = 0

    def messages() -> Iterator[list[pb.PredictRequest]]:
        requests = requests_of(first, count)
        while message := [request for _, request in zip(range(batch), requests, strict=False)]:
            yield message

    for answer in server.stream(messages(), timeout_s=3_600.0):
        for result in answer.results:
            assert result.code == 0, result.message
            scored += result.response.HasField("prediction")
    return scored


def test_anonymous_memory_does_not_grow_with_requests(tmp_path: Path, soak: Callable[[int, int], int]) -> None:
    publish_forest(tmp_path, name="forest", trees=50, latency_budget_ms=60_000.0)
    tenth = soak(60_000, 10_000_000) // 10
    with served(tmp_path, "--clock", "replay", observed=True) as server:
        processes = processes_of(server)
        assert len(processes) == 2
        before: list[int] = []
        scored = 0
        for part in range(10):
            single = tenth // 4  # the fast lane's; the rest is the general path's
            scored += ask(server, part * tenth, single, 1)
            scored += ask(server, part * tenth + single, tenth - single, BATCH)
            while server.scrape()[ANSWERED] < (part + 1) * tenth:  # what it is behind by is memory too
                time.sleep(0.05)  # it only gets what others leave
            now = [anonymous_kb(process) for process in processes]
            before = before or now
            LOG.info("%d requests: server %d kB anonymous, observer %d kB", (part + 1) * tenth, *now)
        assert scored >= 10 * tenth - 11 * SYMBOLS
        grown = {name: last - first for name, first, last in zip(ALLOWED_KB, before, now, strict=True)}
        assert all(grown[name] <= allowed for name, allowed in ALLOWED_KB.items()), grown
