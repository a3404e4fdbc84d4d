"""A server's model swapped under load: no request fails, and each answer is one version's own, bit for bit."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest
from tests.support.messages import START_NS, tick
from tests.support.operated import BY
from tests.support.packages import publish_forest
from tests.support.processes import CALL_S, CHANNEL_OPTIONS, Served, served
from tests.support.swapping import PROGRAM

from tickgate.v1 import signal_pb2 as pb
from tickgate.v1 import signal_pb2_grpc
from tickgate_server.engine import Engine, EngineSettings
from tickgate_server.models.aliases import change_alias
from tickgate_server.models.registry import ModelRegistry, load_repository
from tickgate_server.rpc.answers import Answers

LOG = logging.getLogger(__name__)
# From the 50th swap to the last, of anonymous memory; a leak of one version a swap would be 250 times as much as one.
ALLOWED_KB = 8_192


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two forests of 200 trees whose answers differ."""
    folder = tmp_path_factory.mktemp("packages")
    for version in (1, 2):
        publish_forest(folder, name="tree", version=version, seed=version, trees=200, latency_budget_ms=60_000.0)
    change_alias(folder / "tree", "production", 1, expected=None, **BY)
    return folder


def request_of(symbol: str, number: int) -> pb.PredictRequest:
    """Each tick after the one before."""
    price = 100.0 + (number * 7 % 13) / 10.0
    return tick(symbol, START_NS + number * 10**7, sequence=number + 1, trade=(price, 1.0 + number % 5), model="tree")


@dataclass
class Caller:
    """One connection that asks until it is told to end, and what it got."""

    address: str
    symbol: str
    pause_s: float
    answers: list[tuple[int, float]] = field(default_factory=list)  # version and value, by tick
    failures: list[str] = field(default_factory=list)

    def run(self, end: threading.Event) -> None:
        options = [*CHANNEL_OPTIONS, ("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(self.address, options=options) as channel:
            stub = signal_pb2_grpc.SignalServiceStub(channel)
            while not end.wait(self.pause_s):
                try:
                    found = stub.Predict(request_of(self.symbol, len(self.answers)), timeout=CALL_S)
                except grpc.RpcError as error:
                    self.failures.append(f"{error.code()}: {error.details()}")
                    return
                self.answers.append((found.model.version, found.prediction.value))


def own_values(registry: ModelRegistry, symbol: str, count: int) -> dict[int, list[float]]:
    """What each version says to the same ticks by itself."""
    found: dict[int, list[float]] = {}
    for version in (1, 2):
        answers = Answers(Engine(EngineSettings(capacity=4, replay=True), registry))
        found[version] = []
        for number in range(count):
            request = request_of(symbol, number)
            request.model = f"tree:{version}"
            answer = answers.predict(request.SerializeToString(), time.perf_counter_ns(), 0)
            assert isinstance(answer, bytes)
            found[version].append(pb.PredictResponse.FromString(answer).prediction.value)
        answers.close()
    return found


def assert_each_is_of_one_version(callers: list[Caller], packages: Path) -> None:
    registry = load_repository(packages)
    for caller in callers:
        assert caller.failures == []
        own = own_values(registry, caller.symbol, len(caller.answers))
        wrong = [
            (number, version, value)
            for number, (version, value) in enumerate(caller.answers)
            if value != own[version][number]
        ]
        assert wrong == []
        different = sum(one != other for one, other in zip(own[1], own[2], strict=True))
        assert different >= len(caller.answers) // 4  # else an answer would not say whose it is


def asked_while(address: str, connections: int, pause_s: float, swaps: Callable[[], None]) -> list[Caller]:
    """Callers at work while something happens."""
    end = threading.Event()
    callers = [Caller(address, f"SYM-{number}", pause_s) for number in range(connections)]
    threads = [threading.Thread(target=caller.run, args=[end]) for caller in callers]
    for thread in threads:
        thread.start()
    try:
        swaps()
    finally:
        end.set()
        for thread in threads:
            thread.join()
    return callers


def test_a_server_follows_the_file_of_aliases_between_two_requests(packages: Path) -> None:
    environment = {"TICKGATE_MODELS__FOLLOW_S": "0.02"}

    def swaps() -> None:
        for version in (2, 1, 2, 1):
            change_alias(packages / "tree", "production", version, expected=3 - version, **BY)
            line = server.process.wait_for("aliases changed")
            assert (line["production"], line["who"]) == (version, "tester")

    with served(packages, "--clock", "replay", environment=environment) as server:
        callers = asked_while(server.address, 2, 0.002, swaps)
        assert server.process.stop() == 0
    assert_each_is_of_one_version(callers, packages)
    assert {version for caller in callers for version, _ in caller.answers} == {1, 2}


def anonymous_kb(server: Served) -> int:
    status = Path(f"/proc/{server.process.process.pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon:"))


def test_swaps_under_load_fail_no_request_and_leave_nothing_behind(
    packages: Path, tmp_path: Path, soak: Callable[[int, int], int]
) -> None:
    count, connections = soak(3, 300), soak(2, 8)
    swap = tmp_path / "swap"
    environment = {
        "SWAPS_MODEL": "tree",
        "SWAPS_WHILE": str(swap),
        "SWAPS_EVERY_S": "0.4" if count == 300 else "0",
    }
    memory_kb = []

    def swaps() -> None:
        swap.touch()
        for number in range(1, count + 1):
            line = server.process.wait_for("swapped", timeout_s=200.0)
            assert line["number"] == number
            if number % 50 == 0:
                memory_kb.append(anonymous_kb(server))
                LOG.info("swap %d: %s, %d kB", number, line, memory_kb[-1])
        swap.unlink()

    with served(packages, "--clock", "replay", environment=environment, program=PROGRAM) as server:
        callers = asked_while(server.address, connections, 0.002, swaps)
        assert server.process.stop() == 0
        assert server.process.logged("swap failed") == []
    assert_each_is_of_one_version(callers, packages)
    assert {version for caller in callers for version, _ in caller.answers} == {1, 2}
    if memory_kb:
        assert memory_kb[-1] - memory_kb[0] <= ALLOWED_KB
