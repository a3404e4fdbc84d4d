"""`python -m tickgate_server.models.checker`: checks packages for a server, on cores that it leaves idle.

On standard input a line of JSON for each package, on standard output a line of JSON and the arrays behind it, see
`models.handover`. It ends with its standard input. What is slow to import comes with the first package.
"""

import ctypes
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import IO

# prctl(2): the signal that the kernel sends this process when its parent dies, in the middle of a graph as well.
_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Check what is asked, until there is no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the server says when to end
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    try:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    except OSError:  # a container may forbid it
        os.nice(19)
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints is no answer
    for line in sys.stdin.buffer:
        asked = json.loads(line)
        _check(Path(asked["folder"]), float(asked["inline_limit_us"]), answers)


def _check(folder: Path, inline_limit_us: float, answers: IO[bytes]) -> None:
    from tickgate_server.models.errors import PackageError  # noqa: PLC0415 - see the module
    from tickgate_server.models.handover import said_of, said_of_error  # noqa: PLC0415
    from tickgate_server.models.loading import load  # noqa: PLC0415

    try:
        # Others take the core: the thread's own time is what the model takes.
        said, arrays = said_of(load(folder, inline_limit_us=inline_limit_us, clock_ns=time.thread_time_ns))
    except PackageError as error:
        said, arrays = said_of_error(error), []
    answers.write(json.dumps(said).encode() + b"\n")
    for array in arrays:
        answers.write(array.tobytes())
    answers.flush()


if __name__ == "__main__":
    main()
