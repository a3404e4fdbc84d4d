"""Unix sockets to listen on: gRPC binds them, this makes way, and keeps strangers out from the first moment."""

import errno
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SCHEME = "unix:"
# What a `sockaddr_un` holds, without the zero at its end.
PATH_BYTES = 107

_OWNER_ONLY = 0o177
_PATIENCE_S = 1.0


class SocketRefused(Exception):
    """A Unix socket cannot be had; says why."""


@contextmanager
def claimed(address: str, *, private: bool) -> Iterator[None]:
    """Bind inside: a socket file that a dead server left is gone then; of a TCP address nothing is asked.

    Args:
        address: `unix:/path`, or any other.
        private: The socket has mode 0600 from when it is there; files made meanwhile by other threads have as well.

    Raises:
        SocketRefused: Somebody listens there, there is another file, or the path is too long.
    """
    if not address.startswith(SCHEME):
        yield
        return
    path = Path(address.removeprefix(SCHEME).removeprefix("//"))
    length = len(os.fsencode(path))
    if length > PATH_BYTES:
        raise SocketRefused(f"expected a path of at most {PATH_BYTES} bytes, this one has {length}")
    _make_way(path)
    if not private:
        yield
        return
    before = os.umask(_OWNER_ONLY)
    try:
        yield
    finally:
        os.umask(before)


def _make_way(path: Path) -> None:
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise SocketRefused("there is a file that is no socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.settimeout(_PATIENCE_S)
        try:
            found = asking.connect_ex(str(path))
        except TimeoutError:
            found = 0
    if found == errno.ECONNREFUSED:
        path.unlink(missing_ok=True)
    elif found != errno.ENOENT:
        why = "another server listens there" if found in {0, errno.EAGAIN} else os.strerror(found)
        raise SocketRefused(why)
