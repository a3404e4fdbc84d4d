"""What a supervisor and one of its workers say to each other: lines of JSON over a pair of sockets.

    supervisor   {"settings": {...}, "supervisor": pid}     what to serve, at once
    worker       {"bound": {...}, "reachable": [...]}       where it listens, and where callers find it
    supervisor   {"epoch": ..., "addresses": [[...], ...]}  once every worker has said so
    worker       {"serving": true}

A worker that cannot read on has lost its supervisor, and ends.
"""

import ctypes
import json
import os
import signal
import socket
from collections.abc import Mapping, Sequence
from typing import Any

# prctl(2): the signal that the kernel sends this process when its parent dies.
_PR_SET_PDEATHSIG = 1


class SupervisorGone(Exception):
    """The process that started this worker has ended."""

    def __init__(self) -> None:
        super().__init__("the server that started this worker has ended")


class WorkerLink:
    """The worker's end.

    Attributes:
        settings: What to serve, as `Settings` dumps to JSON.

    Args:
        descriptor: Of the socket that was inherited.

    Raises:
        SupervisorGone: It ended before this worker could ask to be told of it.
    """

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._lines = self._socket.makefile("rb")
        hello = self._read()
        self.settings: dict[str, Any] = hello["settings"]
        _end_with(hello["supervisor"])

    def bound(self, listening: Mapping[str, str], reachable: Sequence[str]) -> tuple[str, list[list[str]]]:
        """Report where this worker listens, and wait for all the others.

        Args:
            listening: By the names of `settings.server`, `listen` for example.
            reachable: Where callers find it: its data listener, and its service listener or an empty text.

        Returns:
            The topology's epoch, and where callers find each worker, by index.

        Raises:
            SupervisorGone: There is nobody to wait for.
        """
        self._write({"bound": dict(listening), "reachable": list(reachable)})
        topology = self._read()
        return topology["epoch"], topology["addresses"]

    def serving(self) -> None:
        """Report that calls are accepted.

        Raises:
            SupervisorGone: There is nobody to report to.
        """
        self._write({"serving": True})

    def _read(self) -> dict[str, Any]:
        try:
            line = self._lines.readline()
        except ConnectionError as error:
            raise SupervisorGone from error
        if not line:
            raise SupervisorGone
        message: dict[str, Any] = json.loads(line)
        return message

    def _write(self, message: dict[str, Any]) -> None:
        try:
            self._socket.sendall(encode(message))
        except ConnectionError as error:
            raise SupervisorGone from error


def encode(message: dict[str, Any]) -> bytes:
    """One line."""
    return json.dumps(message).encode() + b"\n"


def _end_with(supervisor: int) -> None:
    """Have the kernel send SIGTERM, which drains, when the supervisor dies, however it does.

    Raises:
        OSError: The kernel's.
        SupervisorGone: It was dead already: nothing would be sent any more.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl(PR_SET_PDEATHSIG): {os.strerror(number)}")
    if os.getppid() != supervisor:
        raise SupervisorGone
