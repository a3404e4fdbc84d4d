"""A real server under load, scraped by a real Prometheus, its alerts told to a real Alertmanager."""

import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path

import grpc
import httpx
import numpy as np
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families as text_families
from tests.observer.scraping import OPENMETRICS, fetch, scrape, value
from tests.support.messages import zigzag
from tests.support.packages import publish_logistic
from tests.support.processes import CHANNEL_OPTIONS, Served, served
from tests.support.prometheus import Alertmanager, Prometheus, prometheus, promtool, until

from tickgate.v1 import market_data_pb2, market_data_pb2_grpc
from tickgate_server.observer.counters import BOUNDS_NS

ROOT = Path(__file__).resolve().parents[2]
DASHBOARD = ROOT / "deploy" / "grafana" / "dashboards" / "tickgate.json"
RULES = ROOT / "deploy" / "prometheus" / "tickgate.rules.yml"
SCRAPES = 8
TICKS = 1000
LATENCY = "tickgate_stage_latency_seconds"
# Panels that a server with one healthy model, no shadow and nothing wrong leaves empty.
EMPTY = {
    "Error budget burn, availability (99.9 %)",
    "Error budget burn, latency (99 % within 1 ms)",
    "Changes",
    "Health: measured over its bar",
    "Aliases",
    "Shadow agrees",
    "Shadow's lag, records",
    "Alerts",
    "Notifications",
    "Regimes",
    "Ticks rejected",  # one, and perhaps longer ago than a rate looks back
    "Stability index of features over its limit",
    "Features that are not as in training",
    "Redis",
    "Store: what waits, and what was lost",
    "Age of risk data and of the portfolio's figures",
}


@dataclass(frozen=True)
class Scraped:
    """A server that answered a load while it was scraped, and what its callers saw."""

    server: Served
    prometheus: Prometheus
    manager: Alertmanager
    kill_file: Path
    total_ns: list[int]
    request_ids: set[str]


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scraped]:
    folder = tmp_path_factory.mktemp("scraped")
    publish_logistic(folder / "models", latency_budget_ms=60_000.0)
    manager = Alertmanager(folder)
    environment = {
        "TICKGATE_ALERTS__ALERTMANAGERS": json.dumps([manager.url]),
        "TICKGATE_DESK__KILL_FILE": str(folder / "halt"),
        "TICKGATE_CLOCK__STALE_LIMIT_S": "3600",
    }
    with manager.up(), served(folder / "models", environment=environment, observed=True) as server:
        config = f"""
            global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}
            rule_files: [{RULES}]
            scrape_configs:
              - job_name: tickgate
                static_configs: [{{targets: ["{server.metrics}"]}}]
            """
        with prometheus(folder, config) as scraper:
            ticks = zigzag("LOAD", TICKS, start_ns=time.time_ns() - 10**9 * 60, step_ns=10**6)
            total_ns, request_ids = [], set()
            # A load as long as it takes to be scraped so often.
            for number, request in enumerate(chain(ticks, repeat(ticks[-1]))):
                request.request_id = f"request-{number}"
                total_ns.append(server.predict(request).timing.total_ns)
                request_ids.add(request.request_id)
                if number % 200 == 199 and scraper.query(f"sum_over_time(up[10m]) >= {SCRAPES}"):
                    break
            publish(server)
            count = f'sum({LATENCY}_count{{stage="total"}})'
            until(lambda: scraper.query(f"{count} == {len(total_ns)}"))
            yield Scraped(server, scraper, manager, folder / "halt", total_ns, request_ids)


def publish(server: Served) -> None:
    """Two ticks of a symbol, the second of them a second time, over the service listener."""
    ticks = [request.tick for request in zigzag("PUBLISHED", 2, start_ns=time.time_ns() - 10**9)]
    message = market_data_pb2.PublishTicksRequest(feed="test", ticks=[*ticks, ticks[0]])
    with grpc.insecure_channel(server.service, options=CHANNEL_OPTIONS) as channel:
        (answer,) = market_data_pb2_grpc.MarketDataServiceStub(channel).PublishTicks(iter([message]), timeout=30)
    assert answer.messages == 1


def test_ticks_are_counted_however_they_came(scraped: Scraped) -> None:
    samples = scrape(scraped.server.metrics)
    name = "tickgate_ticks_total"
    assert value(samples, name, source="published", outcome="accepted") == 2
    assert value(samples, name, source="published", outcome="rejected") == 1
    rejected = {"source": "published", "reason": "TICK_DUPLICATE"}
    assert value(samples, "tickgate_ticks_rejected_total", **rejected) == 1
    asked = min(TICKS, len(scraped.total_ns))
    assert value(samples, name, source="predict", outcome="accepted") == asked
    assert value(samples, name, source="predict", outcome="again") == len(scraped.total_ns) - asked


def test_every_scrape_that_prometheus_took_under_load_is_whole_and_nothing_is_lost(scraped: Scraped) -> None:
    # How many it missed on a busy machine is a timing, and the bench's: `python -m bench --part scrape`.
    assert scraped.prometheus.number("sum_over_time(up[10m])") >= SCRAPES
    whole = "count_over_time(tickgate_build_info[10m]) / on (job) sum_over_time(up[10m])"
    assert scraped.prometheus.number(whole) == 1
    assert scraped.prometheus.number("max(tickgate_observer_lost_records_total)") == 0
    assert scraped.prometheus.query("resets(tickgate_requests_total[10m]) > 0") == []


def test_prometheus_p99_of_total_is_within_one_bucket_of_what_clients_were_told(scraped: Scraped) -> None:
    buckets = f'sum by (le) ({LATENCY}_bucket{{stage="total"}})'
    measured_ns = scraped.prometheus.number(f"histogram_quantile(0.99, {buckets})") * 1e9
    told_ns = np.quantile(np.array(scraped.total_ns), 0.99, method="inverted_cdf")
    places = np.searchsorted(BOUNDS_NS, [measured_ns, told_ns])
    assert abs(int(places[0]) - int(places[1])) <= 1
    seconds = scraped.prometheus.number(f'sum({LATENCY}_sum{{stage="total"}})')
    assert seconds == pytest.approx(sum(scraped.total_ns) / 1e9, rel=1e-9)


def test_promtool_finds_nothing_to_complain_about(scraped: Scraped) -> None:
    kind, text = fetch(scraped.server.metrics)
    assert kind.startswith("text/plain")
    checked = promtool("check", "metrics", text=text)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_each_latency_bucket_has_the_id_of_a_request_that_fell_in_it(scraped: Scraped) -> None:
    _, text = fetch(scraped.server.metrics, OPENMETRICS)
    (family,) = [found for found in openmetrics_families(text) if found.name == LATENCY]
    seen = 0
    below: dict[tuple[tuple[str, str], ...], tuple[float, float]] = {}
    for sample in family.samples:
        if not sample.name.endswith("_bucket"):
            continue
        labels = dict(sample.labels)
        bound = float(labels.pop("le"))
        key = tuple(sorted(labels.items()))
        before, least = below.get(key, (0.0, 0.0))
        below[key] = (sample.value, bound)
        assert (sample.exemplar is not None) == (sample.value > before)
        if sample.exemplar is not None:
            seen += 1
            assert least < sample.exemplar.value <= bound
            assert sample.exemplar.labels["request_id"] in scraped.request_ids
            assert 0.0 <= time.time() - float(sample.exemplar.timestamp or 0.0) < 600.0
    assert seen >= 5
    query = f"{scraped.prometheus.url}/api/v1/query_exemplars"
    assert fetch_exemplars(query), "Prometheus took none"


def fetch_exemplars(url: str) -> list[object]:
    asked = {"query": f"{LATENCY}_bucket", "start": str(time.time() - 600), "end": str(time.time())}
    found: list[object] = httpx.get(url, params=asked, trust_env=False, timeout=10).json()["data"]
    return found


def documented() -> set[str]:
    """Names of the committed document's tables."""
    text = (ROOT / "docs" / "metrics.md").read_text()
    return set(re.findall(r"^\| `(tickgate_\w+)` \|", text, re.MULTILINE))


def test_the_document_has_each_metric_that_a_server_exposes_and_no_other(scraped: Scraped) -> None:
    _, text = fetch(scraped.server.metrics)
    exposed = {
        f"{family.name}_total" if family.type == "counter" else family.name
        for family in text_families(text)
        if family.name.startswith("tickgate_")
    }
    assert exposed == documented()


def test_every_panel_of_the_dashboard_asks_for_metrics_that_there_are_and_gets_an_answer(scraped: Scraped) -> None:
    suffix = re.compile(r"_(bucket|count|sum)$")
    recorded = set(re.findall(r"record: (\S+)", RULES.read_text()))
    names = documented()
    empty = set()
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        found: list[object] = []
        for target in panel.get("targets", []):
            expression = target["expr"].replace("$job", ".*").replace("$__rate_interval", "1m")
            used = set(re.findall(r"tickgate[\w:]+", expression))
            assert {suffix.sub("", name) for name in used - recorded} <= names, panel["title"]
            found += scraped.prometheus.query(expression)
        if not found and panel["type"] != "row":
            empty.add(panel["title"])
    assert empty <= EMPTY


def test_the_kill_file_of_a_real_server_is_an_alert(scraped: Scraped) -> None:
    assert "TickgateHalted" not in scraped.manager.alerts()
    scraped.kill_file.touch()
    found = until(lambda: scraped.manager.alerts().get("TickgateHalted"))
    assert found["labels"]["severity"] == "critical"
    assert "(by kill file)" in found["annotations"]["description"]
