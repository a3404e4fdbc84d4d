"""A real Prometheus beside a server under load: what it misses, what it measures, and what Predict's tail pays.

`python -m bench --part scrape`. Client, server, observer and Prometheus share the machine.
"""

import itertools
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
from bench import models
from bench.interference import compare, scraping
from bench.requests import tick_requests
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from rich.table import Table
from tests.observer.scraping import OPENMETRICS, fetch
from tests.support.processes import Served, served
from tests.support.prometheus import Prometheus, prometheus, promtool, until

from tickgate_server.observer.counters import BOUNDS_NS

EVERY_S = 1.0
_LATENCY = "tickgate_stage_latency_seconds"
_CONFIG = """
global: {{scrape_interval: 1s, scrape_timeout: 1s}}
scrape_configs:
  - job_name: tickgate
    static_configs: [{{targets: ["{address}"]}}]
"""


def scrape(pairs: int, seconds: float, scraped_s: float = 300.0) -> Iterator[Table]:
    """Two tables: a long run beside Prometheus, and pairs of runs with and without a scrape a second.

    Args:
        pairs: Of a quiet and a disturbed run.
        seconds: Of each of these.
        scraped_s: Of the long run.
    """
    with tempfile.TemporaryDirectory(prefix="tickgate-bench-") as name:
        folder = Path(name)
        models.publish(folder / "models")
        with served(folder / "models", "--clock", "replay", observed=True) as server:
            with prometheus(folder, _CONFIG.format(address=server.metrics)) as scraper:
                yield _long_run(server, scraper, scraped_s)
            yield compare(server.address, folder, [scraping(server.metrics, EVERY_S)], pairs, seconds)


def _long_run(server: Served, scraper: Prometheus, seconds: float) -> Table:
    total_ns = _load(server, seconds)
    count = f'sum({_LATENCY}_count{{stage="total"}})'
    until(lambda: scraper.query(f"{count} == {len(total_ns)}"))
    window = f"[{seconds + 60:.0f}s]"
    (up,) = scraper.query(f"up{window}")
    stamps = np.array([float(stamp) for stamp, _ in up["values"]])
    failed = sum(float(value) == 0.0 for _, value in up["values"])
    slowest_s = scraper.number(f"max(max_over_time(scrape_duration_seconds{window}))")
    told_ns = float(np.quantile(total_ns, 0.99, method="inverted_cdf"))
    measured_ns = 1e9 * scraper.number(f'histogram_quantile(0.99, sum by (le) ({_LATENCY}_bucket{{stage="total"}}))')
    buckets = np.searchsorted(BOUNDS_NS, [told_ns, measured_ns])
    complaints = promtool("check", "metrics", text=fetch(server.metrics)[1])
    families = list(text_string_to_metric_families(fetch(server.metrics, OPENMETRICS)[1]))
    exemplars = sum(sample.exemplar is not None for family in families for sample in family.samples)
    table = Table(title=f"Prometheus, a scrape a second for {seconds:g} s under a closed loop of one caller")
    table.add_column("what")
    table.add_column("found", justify="right")
    for what, found in (
        ("requests, per second", f"{len(total_ns):,}, {len(total_ns) / seconds:,.0f}"),
        ("scrapes, failed", f"{stamps.size}, {failed}"),
        ("largest gap between samples, s", f"{np.diff(stamps).max():.3f}"),
        ("slowest scrape, ms", f"{slowest_s * 1e3:.1f}"),
        ("promtool check metrics", f"status {complaints.returncode}, {complaints.stderr.count(chr(10))} lines"),
        ("OpenMetrics: families, exemplars", f"{len(families)}, {exemplars}"),
        ("p99 of total, us: Timing, Prometheus", f"{told_ns / 1e3:.1f}, {measured_ns / 1e3:.1f}"),
        ("buckets apart", str(abs(int(buckets[0] - buckets[1])))),
    ):
        table.add_row(what, found)
    return table


def _load(server: Served, seconds: float) -> list[int]:
    """Total time of every answer of one caller that asks again at once, in nanoseconds."""
    total_ns: list[int] = []
    end = time.monotonic() + seconds
    for number in itertools.count():
        for request in tick_requests(f"SCRAPED{number}", 10_000, seed=number):
            request.request_id = f"{number}-{request.tick.sequence}"
            try:
                total_ns.append(server.predict(request).timing.total_ns)
            except grpc.RpcError as error:
                raise SystemExit(f"bench: a request failed: {error}") from error
            if time.monotonic() >= end:
                return total_ns
    return total_ns
