"""A feed's numbers for Prometheus. Needs prometheus_client, which the base install does not bring."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from tickgate_client.errors import ExtraMissing
from tickgate_client.feeds.feeding import Feed


@contextmanager
def served(feed: Feed, name: str, address: str) -> Iterator[str]:
    """Serve a feed's numbers as long as the context lasts.

    Args:
        feed: Whose.
        name: The feed's, for the label `feed`.
        address: `host:port`; port 0 takes a free one.

    Gives the address. Raises ValueError for another address, OSError where nothing can listen, and ExtraMissing if
    prometheus_client is not installed.
    """
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal()):
        raise ValueError(f"--metrics is {address!r}, must be HOST:PORT")
    try:
        from prometheus_client import CollectorRegistry, start_http_server  # noqa: PLC0415 - the base install has none
    except ModuleNotFoundError as error:
        raise ExtraMissing("--metrics", "server", f"{error}; prometheus-client alone is enough") from error
    registry = CollectorRegistry()
    registry.register(collector(feed, name))
    server, thread = start_http_server(int(port), host, registry)
    try:
        yield f"{host}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def collector(feed: Feed, name: str) -> Any:
    """A collector to register with a prometheus_client registry; everything is read when it is scraped."""
    from prometheus_client import core  # noqa: PLC0415 - the base install has none

    class FeedCollector:
        """Called by the registry at each scrape."""

        def collect(self) -> Iterable[Any]:
            """The metric families as they are now."""
            counts, publisher = feed.counts, feed.publisher
            for metric, text, value in (
                ("published_ticks", "Ticks handed to the publisher", counts.published),
                ("answered_ticks", "Ticks that the server answered for", counts.answered),
                ("refused_ticks", "Ticks that break the contract", counts.refused),
                ("resent_ticks", "Ticks sent again for want of an acknowledgement", counts.resent),
                ("reconnects", "Streams and calls that ended and were begun anew", publisher.reconnects),
            ):
                family = core.CounterMetricFamily(f"tickgate_feed_{metric}", text, labels=["feed"])
                family.add_metric([name], value)
                yield family
            yield _outcomes(core, feed, name)
            of_source = core.GaugeMetricFamily(
                "tickgate_feed_source", "What the source counts", labels=["feed", "what"]
            )
            for what, value in feed.source_counts.items():
                of_source.add_metric([name, what], value)
            yield of_source
            waiting = core.GaugeMetricFamily(
                "tickgate_feed_unacknowledged_ticks", "Ticks that wait for an acknowledgement", labels=["feed"]
            )
            waiting.add_metric([name], publisher.unacknowledged)
            yield waiting

    return FeedCollector()


def _outcomes(core: Any, feed: Feed, name: str) -> Any:
    tally = feed.counts.tally
    outcomes = core.CounterMetricFamily(
        "tickgate_feed_ticks", "Ticks by what the server did with them", labels=["feed", "outcome", "reason"]
    )
    outcomes.add_metric([name, "accepted", ""], tally.accepted)
    outcomes.add_metric([name, "repeated_latest", ""], tally.repeated_latest)
    outcomes.add_metric([name, "conflated", ""], tally.conflated)
    for reason, ticks in dict(tally.rejected).items():
        outcomes.add_metric([name, "rejected", reason], ticks)
    return outcomes
