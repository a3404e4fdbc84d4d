"""The observer beside a real server: what it counts, and what becomes of it when one of the two dies."""

import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import pytest
from structlog.testing import capture_logs
from tests.journal.journal_samples import append
from tests.observer.scraping import scrape, total, value
from tests.support.messages import zigzag
from tests.support.processes import TICKGATE, Served, run, served

from tickgate_server.control_block import FILE_NAME, ControlBlockReader, Slot
from tickgate_server.journal.writer import JournalWriter
from tickgate_server.observer import process
from tickgate_server.observer.process import ObserverNotStarted, ObserverProcess

DEBUG = {"TICKGATE_LOG__LEVEL": "debug"}
REQUESTS = "tickgate_requests_total"


def observer_pid(server: Served, nth: int = -1) -> int:
    return int(server.process.logged("observer started")[nth]["pid"])


def wait_for_end(descriptor: int) -> None:
    """Of a process that may be nobody's child here, by its pidfd."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    assert poll.poll(30_000)


@contextmanager
def process_watched(pid: int) -> Iterator[int]:
    descriptor = os.pidfd_open(pid)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


class Load:
    """Requests without a pause, until it is ended; counts the answers."""

    def __init__(self, server: Served) -> None:
        self._server = server
        self._end = threading.Event()
        self.answered = 0
        self.failures: list[Exception] = []
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        (request,) = zigzag("LOAD", 1)
        while not self._end.is_set():
            try:
                self._server.predict(request)
            except Exception as error:  # noqa: BLE001 - any failure fails the test
                self.failures.append(error)
                return
            self.answered += 1

    def wait_for(self, more: int) -> None:
        """Until so many more were answered."""
        due = self.answered + more
        while self.answered < due and not self.failures:
            time.sleep(0)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
        assert self.failures == []


def test_an_observer_that_is_killed_under_load_is_started_again_and_has_counted_everything(repository: Path) -> None:
    with served(repository, "--clock", "replay", observed=True) as server:
        with Load(server) as load:
            load.wait_for(200)
            os.kill(observer_pid(server), signal.SIGKILL)
            ended = server.process.wait_for("observer ended")
            load.wait_for(200)
            again = server.process.wait_for("observer started")
            load.wait_for(200)
            during = scrape(server.metrics)
            load.wait_for(50)
        assert ended["status"] == -signal.SIGKILL
        assert again["metrics"] == server.metrics
        samples = scrape(server.metrics)
        assert 600 <= value(during, REQUESTS, code="OK") < value(samples, REQUESTS, code="OK")
        assert value(samples, REQUESTS, code="OK") == load.answered == total(samples, REQUESTS)
        assert value(samples, "tickgate_observer_lost_records_total") == 0


@contextmanager
def cores_taken() -> Iterator[None]:
    """Processes that leave no core idle."""
    burners = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2 * (os.cpu_count() or 1))]
    try:
        yield
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()


def test_the_observer_gives_way_and_takes_its_turn_all_the_same(repository: Path) -> None:
    with served(repository, "--clock", "replay", observed=True) as server:
        threads = [int(path.name) for path in Path(f"/proc/{observer_pid(server)}/task").iterdir()]
        policies = [os.sched_getscheduler(thread) for thread in threads]
        assert 0 < policies.count(os.SCHED_IDLE) < len(policies)  # what follows, and a scrape that is under way
        reader = ControlBlockReader(Path(server.process._journal.name) / FILE_NAME)
        with cores_taken():
            for request in zigzag("A", 5):
                server.predict(request)
            give_up = time.monotonic() + 30.0
            seen = 0.0
            while seen < 5.0:
                assert time.monotonic() < give_up
                seen = reader.read(Slot.HEARTBEAT, 10**9)[0]
            # A scrape may be starved once; those behind it are not.
            scrape(server.metrics)
            assert value(scrape(server.metrics), REQUESTS, code="OK") == 5


def test_the_observer_of_a_server_that_is_killed_ends(repository: Path) -> None:
    with served(repository, "--clock", "replay", observed=True) as server:
        server.predict(zigzag("A", 1)[0])
        with process_watched(observer_pid(server)) as observer:
            server.process.process.kill()
            wait_for_end(observer)


def test_the_observer_of_a_server_that_drains_ends_after_it_with_status_0(repository: Path) -> None:
    with served(repository, "--clock", "replay", environment=DEBUG, observed=True) as server:
        server.predict(zigzag("A", 1)[0])
        os.kill(observer_pid(server), signal.SIGTERM)  # what ends a group of processes does not end it
        assert value(scrape(server.metrics), REQUESTS, code="OK") == 1
        assert server.process.stop() == 0
        assert [line["event"] for line in server.process.events[-3:]] == ["draining", "observer stopped", "stopped"]
        assert server.process.logged("observer stopped")[0]["status"] == 0


@pytest.mark.parametrize("mode", ["process", "thread"])
def test_both_modes_give_the_same_numbers(repository: Path, mode: str) -> None:
    with served(
        repository, "--clock", "replay", environment={"TICKGATE_OBSERVER__MODE": mode}, observed=True
    ) as server:
        assert bool(server.process.logged("observer started")) == (mode == "process")
        for request in [*zigzag("A", 30), *zigzag("A", 3)]:
            server.predict(request)
        samples = scrape(server.metrics)
        assert value(samples, REQUESTS, code="OK") == 33
        assert value(samples, "tickgate_stage_latency_seconds_count", stage="total", model="tiny", version="1") == 33
        assert value(samples, "tickgate_stage_latency_seconds_count", stage="risk", model="tiny", version="1") == 20
        journal = Path(server.process._journal.name)
        assert ControlBlockReader(journal / FILE_NAME).read(Slot.HEARTBEAT, 60 * 10**9)[0] > 0.0
        assert server.process.stop() == 0


@pytest.mark.parametrize(
    ("arguments", "environment", "which"),
    [(("--journal", "none"), {}, "journal.folder"), ((), {"TICKGATE_OBSERVER__MODE": "none"}, "observer.mode")],
)
def test_metrics_that_nobody_would_serve_are_refused(
    repository: Path, tmp_path: Path, arguments: tuple[str, ...], environment: dict[str, str], which: str
) -> None:
    journal = ("--journal", str(tmp_path / "journal"))
    asked = ("serve", "--models", str(repository), *journal, "--metrics-listen", "127.0.0.1:0", *arguments)
    ended = run(*asked, environment=environment)
    assert ended.returncode == 1
    assert (
        f"Error: server.metrics_listen: metrics come from the journal by way of the observer, and {which} is none"
        in (ended.stderr)
    )


def test_a_server_without_a_journal_says_that_it_has_no_metrics(repository: Path) -> None:
    with served(repository, "--metrics-listen", "", "--journal", "none", observed=True) as server:
        assert server.process.logged("no metrics")[0]["why"] == "journal.folder is none"
        assert server.metrics == "None"


def test_an_observer_by_itself_follows_a_journal_until_it_is_told_to_end(tmp_path: Path) -> None:
    with JournalWriter(tmp_path) as writer:
        append(writer, 5)
        arguments = ["observe", "--journal", str(tmp_path), "--metrics-listen", "127.0.0.1:0"]
        with subprocess.Popen([TICKGATE, *arguments], stderr=subprocess.PIPE, text=True) as observer:
            assert observer.stderr is not None
            address = observer.stderr.readline().partition('"metrics": "')[2].partition('"')[0]
            assert value(scrape(address), REQUESTS, code="OK") == 5
            append(writer, 6)
            assert value(scrape(address), REQUESTS, code="OK") == 11
            second = run(*arguments)
            observer.terminate()
            assert observer.wait(30) == 0
    assert second.returncode == 1
    assert f"Error: {tmp_path / FILE_NAME}: another observer writes this control block" in second.stderr


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--journal", "none"), "Error: none: no such journal folder"),
        (("--journal", "a", "--journal", "b", "--control", "c"), "Error: --control: expected one journal"),
    ],
)
def test_an_observer_that_cannot_start_says_why_in_one_line(arguments: tuple[str, ...], why: str) -> None:
    ended = run("observe", "--control", "none", *arguments)
    assert ended.returncode in {1, 2}
    assert why in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_process_whose_observer_ends_without_a_word_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    observer = ObserverProcess([tmp_path], "")
    try:
        with pytest.raises(ObserverNotStarted, match="ended with status 1 before it observed"):
            observer.ready()
    finally:
        observer.close()


def test_an_observer_that_does_not_stay_is_given_up_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "RESTARTS", 3)
    monkeypatch.setattr(process, "FIRST_PAUSE_S", 0.001)
    observer = ObserverProcess([tmp_path], "")
    try:
        assert observer.ready() is None
        monkeypatch.setattr(sys, "executable", "/bin/false")
        with capture_logs() as logs:
            os.kill(observer.pid, signal.SIGKILL)
            assert observer._supervisor is not None
            observer._supervisor.join(60)
    finally:
        observer.close()
    events = [line["event"] for line in logs]
    assert events == ["observer ended", "observer not started"] * 3 + ["observer given up"]


def test_the_observers_process_has_neither_transport_nor_models_in_it() -> None:
    program = "import sys, tickgate_server.observer.commands; print(*sys.modules)"
    loaded = set(
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    )
    assert not loaded & {"grpc", "google.protobuf", "onnxruntime", "onnx", "tickgate_server.engine"}
