"""Which threads the kernel runs first: those whose delay a caller sees, and those that give way to them.

Why it matters: where the kernel does not preempt (PREEMPT_NONE, and lazily preempting ones), a thread that wakes up on
a busy core waits for the next tick, 4 ms at 250 Hz, unless what runs there is of a lower class.
"""

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from threading import Thread, get_native_id

import structlog

_LOG = structlog.get_logger()


class RealtimeRefused(Exception):
    """The system does not let this process have real-time threads."""


def run_first(threads: Iterable[int], priority: int) -> None:
    """Run threads before all that are not real-time; what they start is not.

    Args:
        threads: Native ids.
        priority: Of SCHED_RR, 1 to 99.

    Raises:
        RealtimeRefused: It takes CAP_SYS_NICE, or an RLIMIT_RTPRIO of at least the priority.
    """
    try:
        for thread in threads:
            os.sched_setscheduler(thread, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(priority))
    except OSError as error:
        raise RealtimeRefused(
            f"server.realtime_priority is {priority}: the system does not allow it ({error.strerror});"
            " it takes CAP_SYS_NICE or a sufficient RLIMIT_RTPRIO"
        ) from error


def be_nicer(by: int, thread: Thread | None = None) -> None:
    """Give a thread, the calling one if not given, and those that it starts less of a core that others want too.

    Linux has a niceness a thread.
    """
    identity = get_native_id() if thread is None else thread.native_id or 0
    os.setpriority(os.PRIO_PROCESS, identity, os.getpriority(os.PRIO_PROCESS, 0) + by)


def give_way(thread: Thread) -> None:
    """Run a thread, and those that it starts, only on a core that nobody else wants."""
    try:
        os.sched_setscheduler(thread.native_id or 0, os.SCHED_IDLE, os.sched_param(0))
    except OSError as error:  # a container may forbid it
        _LOG.warning("a thread does not give way to answers", thread=thread.name, why=str(error))


def give_way_no_more() -> None:
    """Run all threads of this process as any others again: nobody is answered any more, and there is little time.

    Where the system does not allow it, they stay as they are.
    """
    for thread in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # it ended meanwhile, or it takes CAP_SYS_NICE
            os.sched_setscheduler(int(thread.name), os.SCHED_OTHER, os.sched_param(0))
