"""What a scraper gets from an endpoint, in either format."""

import http.client
from collections.abc import Callable, Iterable
from typing import Any

from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]
OPENMETRICS = "application/openmetrics-text; version=1.0.0"


def fetch(address: str, accept: str = "text/plain") -> tuple[str, str]:
    """Content type and body of one scrape."""
    connection = http.client.HTTPConnection(address, timeout=30)
    try:
        connection.request("GET", "/metrics", headers={"Accept": accept})
        answer = connection.getresponse()
        return answer.getheader("Content-Type", ""), answer.read().decode()
    finally:
        connection.close()


def scrape(address: str, accept: str = "text/plain") -> Samples:
    """Every sample by name and labels."""
    kind, text = fetch(address, accept)
    parse: Callable[[str], Iterable[Any]] = (
        openmetrics.text_string_to_metric_families if "openmetrics" in kind else text_string_to_metric_families
    )
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in parse(text)
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, frozenset(labels.items())]


def total(samples: Samples, name: str) -> float:
    """Over all labels."""
    return sum(number for (sample, _), number in samples.items() if sample == name)
