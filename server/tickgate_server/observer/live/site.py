"""What the observer answers over HTTP: `/metrics`, the page at `/`, and the figures it shows, `/view.json`."""

import base64
import hashlib
import re
import time
from collections.abc import Callable, Iterable
from importlib.resources import files
from threading import Event, Thread
from typing import Any

from prometheus_client import make_wsgi_app
from prometheus_client.registry import CollectorRegistry

from tickgate_server.observer.live.history import SAMPLE_S, History

Environ = dict[str, Any]
Start = Callable[..., Any]
_METHODS = ("GET", "HEAD")
# The page needs nothing of anybody, and nobody may frame it.
_POLICY = (
    "default-src 'none'; script-src {script}; style-src {style}; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
_ALWAYS = [("X-Content-Type-Options", "nosniff"), ("Referrer-Policy", "no-referrer"), ("Cache-Control", "no-store")]


class Site:
    """A WSGI application; it only answers what is read.

    Args:
        registry: What `/metrics` tells, in the format that is asked for.
        history: What the page shows.
    """

    def __init__(self, registry: CollectorRegistry, history: History) -> None:
        self._metrics = make_wsgi_app(registry)
        self._history = history
        page = files("tickgate_server.observer.live").joinpath("page.html").read_text(encoding="utf-8")
        self._page = page.encode()
        policy = _POLICY.format(script=_hash_of("script", page), style=_hash_of("style", page))
        self._page_headers = [("Content-Type", "text/html; charset=utf-8"), ("Content-Security-Policy", policy)]

    def __call__(self, environ: Environ, start_response: Start) -> Iterable[bytes]:
        """Answer one request."""
        if environ["REQUEST_METHOD"] not in _METHODS:
            return _answer(environ, start_response, "405 Method Not Allowed", [("Allow", ", ".join(_METHODS))])
        path = environ["PATH_INFO"]
        if path == "/metrics":
            return self._scrape(environ, start_response)
        if path == "/":
            return _answer(environ, start_response, "200 OK", self._page_headers, self._page)
        if path == "/view.json":
            kind = [("Content-Type", "application/json")]
            return _answer(environ, start_response, "200 OK", kind, self._history.as_json())
        return _answer(environ, start_response, "404 Not Found", [("Content-Type", "text/plain")], b"not found\n")

    def _scrape(self, environ: Environ, start_response: Start) -> Iterable[bytes]:
        said: list[Any] = []
        body = b"".join(self._metrics({**environ, "REQUEST_METHOD": "GET"}, lambda *args: said.extend(args)))
        status, headers = said
        return _answer(environ, start_response, status, headers, body)


class Sampler:
    """Takes a reading into a history every two seconds, each in a thread of its own.

    A reading that fails is told by its thread as any uncaught error, and the next one is taken all the same: the page
    then says how old its figures are.

    Args:
        sample: Takes one.
    """

    def __init__(self, sample: Callable[[], None]) -> None:
        self._sample = sample
        self._end = Event()
        self._thread = Thread(target=self._run, name="sampler", daemon=True)

    def start(self) -> None:
        """Begin with a reading at once."""
        self._thread.start()

    def close(self) -> None:
        """End, after the reading that is being taken."""
        self._end.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while True:
            began = time.monotonic()
            # One each: a thread that gave way to answers has no way back.
            one = Thread(target=self._sample, name="sample", daemon=True)
            one.start()
            one.join()
            if self._end.wait(max(SAMPLE_S - (time.monotonic() - began), 0.0)):
                return


def _answer(
    environ: Environ, start_response: Start, status: str, headers: list[tuple[str, str]], body: bytes = b""
) -> Iterable[bytes]:
    start_response(status, [*headers, *_ALWAYS, ("Content-Length", str(len(body)))])
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]


def _hash_of(tag: str, page: str) -> str:
    """How a policy names the only element of that kind that the page may have."""
    (inside,) = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()}'"
