"""Threads that the kernel runs first, of a real server."""

import os
import subprocess
from pathlib import Path
from threading import Event, Thread, current_thread

import pytest
from tests.support.messages import zigzag
from tests.support.packages import long_onnx, publish_model
from tests.support.processes import START_UP_S, TICKGATE, served
from tests.support.programs import program

from tickgate_server.scheduling import give_way, give_way_no_more

REALTIME = {"TICKGATE_SERVER__REALTIME_PRIORITY": "7"}


def may_be_realtime() -> bool:
    """Tried on this thread."""
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(7))
    except PermissionError:
        return False
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    return True


def policies(process: int) -> dict[int, tuple[int, int]]:
    """Class and real-time priority of each thread."""
    threads = [int(path.name) for path in Path(f"/proc/{process}/task").iterdir()]
    return {
        thread: (os.sched_getscheduler(thread) & ~os.SCHED_RESET_ON_FORK, os.sched_getparam(thread).sched_priority)
        for thread in threads
    }


@pytest.mark.skipif(not may_be_realtime(), reason="this user may not have real-time threads")
def test_what_answers_and_what_ends_slow_runs_are_realtime_and_nothing_else(repository: Path) -> None:
    publish_model(repository, long_onnx(40, numbers=50_000), name="slow", latency_budget_ms=60_000.0)
    arguments = ("--clock", "replay", "--default-model", "slow")
    with served(repository, *arguments, environment=REALTIME, observed=True) as server:
        for request in zigzag("A", 12):
            server.predict(request)
        found = policies(server.process.process.pid)
        observer = policies(int(server.process.logged("observer started")[0]["pid"]))
    assert found.pop(server.process.process.pid) == (os.SCHED_RR, 7)
    assert max(found.values()) == (os.SCHED_RR, 7)
    assert sum(policy == os.SCHED_RR for policy, _ in found.values()) == 1
    assert all(policy != os.SCHED_RR for policy, _ in observer.values())


def test_a_server_that_may_not_be_realtime_says_so_and_does_not_start(repository: Path) -> None:
    without = [program("prlimit", "takes the right away"), "--rtprio=0"]
    if os.getuid() == 0:
        without += [program("setpriv", "takes the right away"), "--bounding-set=-sys_nice", "--inh-caps=-sys_nice"]
    command = [TICKGATE, "serve", "--models", str(repository), "--listen", "127.0.0.1:0", "--journal", "none"]
    command += ["--service-listen", ""]
    ended = subprocess.run(
        [*without, *command, "--metrics-listen", ""],
        env={**os.environ, **REALTIME},
        capture_output=True,
        text=True,
        check=False,
        timeout=START_UP_S,
    )
    assert ended.returncode == 1, ended.stderr
    assert "Error: server.realtime_priority is 7: the system does not allow it" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.skipif(not may_be_realtime(), reason="this user may not take a thread out of SCHED_IDLE")
def test_what_gave_way_need_not_once_nobody_is_answered() -> None:
    def run() -> None:
        give_way(current_thread())
        began.set()
        end.wait()

    began, end = Event(), Event()
    thread = Thread(target=run)
    thread.start()
    began.wait()
    assert policies(os.getpid())[thread.native_id or 0][0] == os.SCHED_IDLE
    give_way_no_more()
    assert policies(os.getpid())[thread.native_id or 0][0] == os.SCHED_OTHER
    end.set()
    thread.join()
