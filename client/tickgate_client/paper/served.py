"""`tickgate`, ended with the process that started it: `python -m tickgate_client.paper.served PID VERB ...`."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

from tickgate_client.cli import main

_PR_SET_PDEATHSIG = 1  # prctl(2): the signal that the kernel sends this process when its parent dies

if __name__ == "__main__":
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != int(sys.argv[1]):  # it had died before that
        sys.exit("the process that started this one has ended")
    main(sys.argv[2:], prog_name="tickgate")
