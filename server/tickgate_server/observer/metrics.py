"""The HTTP endpoint: text format and OpenMetrics over what an observer has counted, and the page of the live view.

Counters begin with the oldest record that the journal retains, and so does a restarted observer's: it has all that is
there, those of a server before it on the same journal among them. Once retention has removed records, a restart makes
counters go back by those, which Prometheus takes for a reset.
"""

import contextlib
import errno
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from socketserver import ThreadingMixIn
from threading import Lock, Thread, current_thread
from typing import TypeVar
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from tickgate_server.observer.address import MetricsAddressTaken, split_address
from tickgate_server.observer.counters import Counters
from tickgate_server.observer.desk_metrics import (
    Workers,
    build_metric,
    desk_metrics,
    feature_metrics,
    health_metrics,
    journal_metrics,
)
from tickgate_server.observer.live.history import History
from tickgate_server.observer.live.site import Sampler, Site
from tickgate_server.observer.request_metrics import RequestMetrics, model_metrics
from tickgate_server.observer.starved import Starved
from tickgate_server.scheduling import be_nicer, give_way

_RETRY_S = 0.05
# Of a scrape that was starved before: with 19 its few milliseconds of work took a second beside two busy threads.
NICE_OF_SCRAPES = 10
# Of a caller that sends nothing, or takes nothing: each has a thread.
_CALLER_S = 30.0

Result = TypeVar("Result")


class JournalCollector(Collector):
    """Metrics of what tails have counted.

    Args:
        workers: Tails that add to the counters.
        counters: Of all of them.
        lock: That the tails hold while they add.
        catch_up: Called first in each scrape: what was journaled before it is in its answer.
        others: What else there is to tell, each asked once a scrape.
    """

    def __init__(
        self,
        workers: Workers,
        counters: Counters,
        lock: Lock,
        catch_up: Callable[[], None],
        others: Sequence[Callable[[Workers], Iterable[Metric]]] = (),
    ) -> None:
        self._workers = workers
        self._requests = RequestMetrics(counters)
        self._counters = counters
        self._lock = lock
        self._catch_up = catch_up
        self._others = others

    def collect(self) -> Iterator[Metric]:
        """Every metric as it is now."""
        workers = self._workers
        freshness_s = max(tail.lag_ns for tail in workers.values()) / 1e9
        self._catch_up()
        with self._lock:
            found = [
                *self._requests.collect(),
                *model_metrics(workers.values(), self._counters),
                *health_metrics(workers),
                *feature_metrics(workers),
                *desk_metrics(workers),
                *journal_metrics(workers, freshness_s),
                build_metric(),
            ]
        yield from found
        for other in self._others:
            yield from other(workers)


class MetricsEndpoint:
    """An HTTP server in a thread of its own: metrics, and the page of the live view.

    Attributes:
        address: `host:port` that it listens on.

    Args:
        address: `host:port`; port 0 takes a free one.
        collector: What is asked at each scrape, and for each reading of the live view.
        patience_s: How long a taken port is waited for: an observer whose server was killed lets go of it in moments.

    Raises:
        ValueError: It is no `host:port`.
        MetricsAddressTaken: It cannot be listened on.
    """

    def __init__(self, address: str, collector: Collector, patience_s: float = 0.0) -> None:
        host, port = split_address(address)
        registry = CollectorRegistry()
        registry.register(collector)
        self._history = History(collector.collect)
        self._site = Site(registry, self._history)
        self._sampler = Sampler(lambda: self._behind(self._history.sample))
        self._starved: Starved | None = None
        give_up = time.monotonic() + patience_s
        while True:
            try:
                self._server = _listen(host.strip("[]"), port)
                break
            except OSError as error:
                if error.errno != errno.EADDRINUSE or time.monotonic() >= give_up:
                    raise MetricsAddressTaken(address, error.strerror or str(error)) from error
            time.sleep(_RETRY_S)
        self._server.set_app(lambda *request: self._behind(lambda: self._site(*request)))
        self._thread = Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()
        self.address = f"{host}:{self._server.server_port}"

    def start_sampling(self) -> None:
        """Take readings for the live view from now on."""
        self._sampler.start()

    def give_way(self, starved: Starved) -> None:
        """Answer scrapes, and take readings, only on a core that nobody else wants, unless there is none for long."""
        be_nicer(NICE_OF_SCRAPES, self._thread)
        self._starved = starved

    def close(self) -> None:
        """Stop answering and wait for the threads."""
        self._sampler.close()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _behind(self, work: Callable[[], Result]) -> Result:
        """Do a piece of work in a thread of its own: from idle there is no way back."""
        starved = self._starved
        if starved is None:
            return work()
        if not starved.now:
            give_way(current_thread())
        began = time.monotonic()
        try:
            return work()
        finally:
            starved.took(time.monotonic() - began)


class _Server(ThreadingMixIn, WSGIServer):
    """A thread a request."""

    daemon_threads = True


class _Handler(WSGIRequestHandler):
    timeout = _CALLER_S

    def handle(self) -> None:
        """Answer one request; who says nothing for long is let go."""
        with contextlib.suppress(TimeoutError):
            super().handle()

    def log_message(self, *_: object) -> None:
        """Requests are not logged."""


def _listen(host: str, port: int) -> _Server:
    """A server on that address, of its family.

    Raises:
        OSError: It cannot be had.
    """
    family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    of_family = type("_ServerOfFamily", (_Server,), {"address_family": family})
    server: _Server = of_family(address[:2], _Handler)
    return server
