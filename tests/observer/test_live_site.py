"""The observer's HTTP endpoint as its callers see it: methods, paths, headers, and that readings hold nobody up."""

import base64
import hashlib
import http.client
import json
import re
import threading
from collections.abc import Iterator
from contextlib import closing

import pytest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from tests.observer.scraping import OPENMETRICS, fetch

from tickgate_server.observer.metrics import MetricsEndpoint


class Said(Collector):
    """One metric; collecting it waits while `held` is not set."""

    def __init__(self) -> None:
        self.held = threading.Event()
        self.held.set()
        self.begun = threading.Event()

    def collect(self) -> Iterator[Metric]:
        self.begun.set()
        assert self.held.wait(30)
        yield GaugeMetricFamily("tickgate_observer_lag_seconds", "About.", value=0.5)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[MetricsEndpoint]:
    with closing(MetricsEndpoint("127.0.0.1:0", Said())) as listening:
        yield listening


def ask(endpoint: MetricsEndpoint, method: str, path: str) -> tuple[http.client.HTTPResponse, bytes]:
    with closing(http.client.HTTPConnection(endpoint.address, timeout=30)) as connection:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer, answer.read()


@pytest.mark.parametrize("path", ["/", "/view.json", "/metrics", "/metrics?any=thing"])
def test_head_has_the_headers_of_get_and_no_body(endpoint: MetricsEndpoint, path: str) -> None:
    got, body = ask(endpoint, "GET", path)
    head, nothing = ask(endpoint, "HEAD", path)
    assert (got.status, head.status, nothing) == (200, 200, b"")
    assert int(got.headers["Content-Length"]) == len(body) > 0
    assert {**head.headers, "Date": ""} == {**got.headers, "Date": ""}


@pytest.mark.parametrize("path", ["/nothing", "/metrics/", "/view.json/x", "/page.html", "/../metrics", "/%6detrics/"])
def test_other_paths_are_not_found(endpoint: MetricsEndpoint, path: str) -> None:
    assert ask(endpoint, "GET", path)[0].status == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
@pytest.mark.parametrize("path", ["/", "/metrics", "/view.json"])
def test_nothing_but_reading_is_allowed(endpoint: MetricsEndpoint, method: str, path: str) -> None:
    answer, _ = ask(endpoint, method, path)
    assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")


def test_metrics_come_in_the_format_that_is_asked_for(endpoint: MetricsEndpoint) -> None:
    for accept, kind in (("text/plain", "text/plain"), (OPENMETRICS, "application/openmetrics-text")):
        found, text = fetch(endpoint.address, accept)
        assert found.startswith(kind)
        assert "tickgate_observer_lag_seconds 0.5" in text
        assert text.endswith("# EOF\n") is (accept == OPENMETRICS)


def test_the_page_needs_nobody_else_and_runs_its_own_script_alone(endpoint: MetricsEndpoint) -> None:
    answer, body = ask(endpoint, "GET", "/")
    page = body.decode()
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    for tag in ("script", "style"):
        (inside,) = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert policy[f"{tag}-src"] == f"'sha256-{digest}'"
    assert not re.search(r"(?:src|href)\s*=|@import|url\(|innerHTML|\son\w+=", page)
    assert set(re.findall(r"https?://[^\"]*", page)) == {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xhtml"}
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_the_view_is_the_last_reading_and_waits_for_none() -> None:
    said = Said()
    said.held.clear()
    with closing(MetricsEndpoint("127.0.0.1:0", said)) as endpoint:
        assert json.loads(ask(endpoint, "GET", "/view.json")[1])["view"] is None
        assert not said.begun.is_set(), "a request for the view collects nothing"
        endpoint.start_sampling()
        assert said.begun.wait(30)
        answer, body = ask(endpoint, "GET", "/view.json")
        assert (answer.status, json.loads(body)["view"]) == (200, None), "answered while a reading is held up"
        said.held.set()
        while (found := json.loads(ask(endpoint, "GET", "/view.json")[1]))["view"] is None:
            pass
        assert found["view"]["health"]["observer_lag_s"] == 0.5
        assert found["points"][0]["rate"] is None, "of one reading"
        assert found["age_s"] >= 0.0


def test_a_caller_that_says_nothing_holds_nobody_up(endpoint: MetricsEndpoint) -> None:
    with closing(http.client.HTTPConnection(endpoint.address, timeout=30)) as silent:
        silent.connect()
        assert ask(endpoint, "GET", "/metrics")[0].status == 200
