"""Fundamentals from an HTTP server: fetched if it says that they changed, then read as a file is.

Each look is one GET with what the last answer said of itself (`If-None-Match`, `If-Modified-Since`: RFC 9110, 13.1),
so that 304 costs next to nothing; a server that says neither is told apart by the hash of its body. Connections that
could not be made are tried again by the library's transport, with its backoff; anything else waits for the next look.
No proxy of the environment is asked, and no redirect followed: the address that the settings name is the one.
"""

import hashlib
import shutil
import tempfile
import time
import weakref
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path

import httpx

from tickgate_server.features.fundamentals_feed import FileSource
from tickgate_server.features.fundamentals_file import Columns
from tickgate_server.features.fundamentals_table import FundamentalsInvalid

CONNECTS_AGAIN = 2
_ENDINGS = {"text/csv": ".csv", "application/json": ".json", "application/vnd.apache.parquet": ".parquet"}
_TYPES = ", ".join(_ENDINGS)
_PIECE_BYTES = 65_536
_OK, _NOT_MODIFIED = 200, 304


@dataclass(frozen=True, slots=True)
class HttpTerms:
    """How an address is asked.

    Attributes:
        timeout_s: For a connection, and for each piece of an answer.
        limit_s: For an answer as a whole.
        body_limit_bytes: Most that is taken of an answer, unpacked.
        token: Sent as `Authorization: Bearer`; empty: none is.
    """

    timeout_s: float = 5.0
    limit_s: float = 60.0
    body_limit_bytes: int = 64 * 1024 * 1024
    token: str = ""


class HttpSource:
    """What an address answers: JSON (see `features.fundamentals_json`), CSV or Parquet by its content type.

    Attributes:
        path: The address.

    Args:
        url: `http://` or `https://`.
        columns: Which of its columns, or members, is what.
        terms: As above.
    """

    def __init__(self, url: str, columns: Columns, terms: HttpTerms | None = None) -> None:
        self.path = url
        self._columns = columns
        self._terms = terms or HttpTerms()
        token = self._terms.token
        self._client = httpx.Client(
            transport=httpx.HTTPTransport(retries=CONNECTS_AGAIN),
            timeout=self._terms.timeout_s,
            headers={"Accept": _TYPES} | ({"Authorization": f"Bearer {token}"} if token else {}),
        )
        self._folder = Path(tempfile.mkdtemp(prefix="tickgate-fundamentals-"))
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._validators: dict[str, str] = {}
        self._state: Hashable = None
        self._file: FileSource | None = None
        self._closed = False

    def state(self) -> Hashable:
        """Hash of what is there now, which is here in a file then.

        Raises:
            ConnectionError: It cannot be reached, does not answer with 200 or 304, or takes too long.
            FundamentalsInvalid: The answer is too long, or of a type that is not read.
        """
        try:
            with self._client.stream("GET", self.path, headers=self._validators) as response:
                if response.status_code == _NOT_MODIFIED and self._file is not None:
                    return self._state
                if response.status_code != _OK:
                    raise ConnectionError(f"{self.path}: answered {response.status_code}, expected {_OK}")
                self._take(response)
        except httpx.HTTPError as error:
            raise ConnectionError(f"{self.path}: {type(error).__name__}: {error}") from error
        return self._state

    def read(self) -> bytes:
        """See `fundamentals_feed.FundamentalsSource.read`."""
        if self._file is None:
            self.state()
        if self._file is None:
            raise FundamentalsInvalid(self.path, "nothing was fetched")
        return self._file.read()

    def close(self) -> None:
        """See `fundamentals_feed.FundamentalsSource.close`."""
        self._closed = True
        if self._file is not None:
            self._file.close()

    def _take(self, response: httpx.Response) -> None:
        """Keep an answer, if it is another one."""
        ending = _ENDINGS.get(response.headers.get("Content-Type", "").partition(";")[0].strip().lower())
        if ending is None:
            found = response.headers.get("Content-Type", "none")
            raise FundamentalsInvalid(self.path, f"content type: expected one of {_TYPES}, found {found}")
        unfinished = self._folder / "unfinished"
        digest = hashlib.sha256(ending.encode())
        with unfinished.open("wb") as file:
            size, give_up = 0, time.monotonic() + self._terms.limit_s
            for piece in response.iter_bytes(_PIECE_BYTES):
                size += len(piece)
                if size > self._terms.body_limit_bytes:
                    limit = self._terms.body_limit_bytes
                    raise FundamentalsInvalid(self.path, f"expected at most {limit} bytes, found more")
                if self._closed or time.monotonic() > give_up:
                    raise ConnectionError(f"{self.path}: not fetched within {self._terms.limit_s:g} s")
                digest.update(piece)
                file.write(piece)
        if digest.hexdigest() != self._state:
            self._state = digest.hexdigest()
            self._file = FileSource(unfinished.rename(unfinished.with_name(f"body{ending}")), self._columns, self.path)
        asked = (("ETag", "If-None-Match"), ("Last-Modified", "If-Modified-Since"))
        self._validators = {to: response.headers[said] for said, to in asked if said in response.headers}
