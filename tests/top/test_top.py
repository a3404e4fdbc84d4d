"""`tickgate top` and the page, beside a real server and beside endpoints that fail."""

import http.client
import json
import re
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from rich.console import Console, RenderableType
from tests.support.chromium import chromium
from tests.support.http_server import http_document
from tests.support.messages import zigzag
from tests.support.packages import publish_logistic
from tests.support.processes import TICKGATE, Served, served
from tests.support.prometheus import until

from tickgate.v1 import signal_pb2 as pb
from tickgate_server.observer.metrics import MetricsEndpoint
from tickgate_server.top.commands import Screen, top
from tickgate_server.top.source import MetricsUnread, read

BUILD = 'tickgate_build_info{version="1.2.3"} 1\n'


@dataclass
class Loaded:
    """A server, and how often it said what."""

    server: Served
    reasons: Counter[str]
    actions: Counter[str]

    def ask(self, request: pb.PredictRequest) -> None:
        answer = self.server.predict(request).signal
        self.reasons[pb.Reason.Name(answer.reason).removeprefix("REASON_")] += 1
        self.actions[pb.Action.Name(answer.action).removeprefix("ACTION_")] += 1

    def said(self) -> dict[str, Any]:
        """What the page is told."""
        with closing(http.client.HTTPConnection(self.server.metrics, timeout=30)) as connection:
            connection.request("GET", "/view.json")
            found: dict[str, Any] = json.loads(connection.getresponse().read())
        return found


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loaded]:
    models = tmp_path_factory.mktemp("top") / "models"
    publish_logistic(models, name="follows", latency_budget_ms=60_000.0)
    with served(models, "--clock", "replay", observed=True) as server:
        found = Loaded(server, Counter(), Counter())
        for request in zigzag("A", 60):
            found.ask(request)
        assert len(found.reasons) > 1, "some of them are rejected"
        yield found


def once(address: str, interval_s: float = 0.1) -> Result:
    return CliRunner().invoke(top, ["--once", "--metrics", address, "--interval", str(interval_s)])


def row(text: str, name: str) -> list[str]:
    """The words behind a name that a line, or the right half of one, begins with."""
    (found,) = re.findall(rf"(?:^|  ){name}  (.*)$", text, re.MULTILINE)
    return [word for word in re.split(r"\s{2,}", found.strip()) if word]


def rendered(shown: RenderableType) -> str:
    console = Console(width=130, color_system=None, force_terminal=False)
    with console.capture() as capture:
        console.print(shown)
    return capture.get()


def test_a_frame_has_the_counts_of_a_real_server_and_no_rate_where_nothing_came(loaded: Loaded) -> None:
    done = once(loaded.server.metrics)
    assert (done.exit_code, done.stderr) == (0, "")
    assert "\x1b" not in done.output
    assert f"http://{loaded.server.metrics}  ACTIVE  0 requests/s" in done.output
    for reason in set(loaded.reasons) - {"APPROVED"}:
        assert row(done.output, reason) == ["0", str(loaded.reasons[reason])]
    for action, number in loaded.actions.items():
        assert row(done.output, action) == ["0", str(number)]
    assert row(done.output, "total")[:3] == ["-", "-", "-"]
    assert row(done.output, "follows")[0] == "1"
    assert row(done.output, "VaR")[1:] == ["-", "-"], "that limit is off"


def test_a_frame_under_load_has_rate_and_latencies(loaded: Loaded) -> None:
    end = threading.Event()

    def load() -> None:
        for request in cycle(zigzag("B", 50)):
            loaded.ask(request)
            if end.wait(0.005):
                return

    loading = threading.Thread(target=load)
    loading.start()
    try:
        done = once(loaded.server.metrics, 1.0)
    finally:
        end.set()
        loading.join()
    assert done.exit_code == 0
    rate = re.search(r"([\d.,]+) requests/s", done.output)
    assert rate is not None
    assert float(rate[1].replace(",", "")) > 0.0
    p50, p99, p999 = row(done.output, "total")[:3]
    assert all(re.fullmatch(r"[\d.]+ (?:us|ms|s)", quantile) for quantile in (p50, p99, p999))


def test_the_page_shows_the_figures_of_a_real_server(loaded: Loaded, tmp_path: Path) -> None:
    def counted() -> bool:
        found = loaded.said()["view"]
        return found is not None and {one["name"]: one["total"] for one in found["signals"]} == {
            "HOLD": 0,
            "BUY": 0,
            "SELL": 0,
            **loaded.actions,
        }

    until(counted)
    page = chromium(f"http://{loaded.server.metrics}/", tmp_path, "--dump-dom")

    def cells(table: str) -> dict[str, list[str]]:
        (inside,) = re.findall(f'<table id="{table}">(.*?)</table>', page, re.DOTALL)
        rows = [re.findall(r"<td[^>]*>(.*?)</td>", line) for line in re.findall("<tr>(.*?)</tr>", inside)]
        return {found[0]: found[1:] for found in rows if found}

    assert {name: found[1] for name, found in cells("signals").items() if name in loaded.actions} == {
        name: str(number) for name, number in loaded.actions.items()
    }
    rejections = {name: found[1] for name, found in cells("reasons").items()}
    assert rejections == {name: str(number) for name, number in loaded.reasons.items() if name != "APPROVED"}
    assert "follows 1" in cells("models")
    assert cells("figures")["VaR"] == ["-", "-", "-"] or cells("figures")["VaR"][1:] == ["-", "-"]
    assert '<span class="badge ACTIVE">ACTIVE</span>' in page
    assert re.search(r'<svg id="rate"[^>]*>.*?<path class="a" d="M', page, re.DOTALL)
    assert re.search(r'<div id="lost"[^>]*></div>', page), "nothing is wrong"


def test_workers_are_told_apart_or_summed() -> None:
    lines = [
        *[f'tickgate_journal_segments{{worker="worker-{n}"}} 1' for n in range(2)],
        'tickgate_trading_state{worker="worker-0",state="ACTIVE"} 1',
        'tickgate_trading_state{worker="worker-1",state="HALTED"} 1',
        'tickgate_portfolio_gross_exposure{worker="worker-0"} 1500',
        'tickgate_portfolio_gross_exposure{worker="worker-1"} 500',
        'tickgate_risk_limit{limit="max_gross_exposure"} 8000',
        'tickgate_model_queue_depth{worker="worker-0"} 3',
        'tickgate_model_queue_depth{worker="worker-1"} 4',
    ]
    with http_document((BUILD + "\n".join(lines) + "\n").encode(), "text/plain") as document:
        text = once(document.url.split("/")[2]).output
    assert "worker-0 ACTIVE worker-1 HALTED" in text
    assert row(text, "gross")[:3] == ["2,000", "8,000", "25.0 %"]
    assert "2 of 2 workers summed" in text
    assert row(text, "waiting for a model")[0] == "7"


@pytest.mark.parametrize(
    ("body", "status", "why"),
    [
        (BUILD, 503, "expected status 200, got 503"),
        ("up 1\n", 200, "expected a tickgate server's, got others"),
        ("<html>no metrics</html>\n", 200, "expected the text format"),
        ("\udcff", 200, "expected the text format"),
    ],
    ids=["status", "somebody else's", "no metrics", "no text"],
)
def test_what_is_no_tickgate_endpoint_is_said_and_exits_with_1(body: str, status: int, why: str) -> None:
    with http_document(body.encode(errors="surrogateescape"), "text/plain") as document:
        document.status = status
        done = once(document.url.split("/")[2])
    assert done.exit_code == 1
    assert why in done.stderr


def test_an_endpoint_that_is_not_there_is_said_and_exits_with_1() -> None:
    done = once("127.0.0.1:1")
    assert done.exit_code == 1
    assert "no metrics from http://127.0.0.1:1/metrics: " in done.stderr


def test_an_address_that_is_none_is_refused() -> None:
    done = once("here")
    assert done.exit_code == 2
    assert "--metrics" in done.stderr


class Built(Collector):
    """A server that says who it is, and one number."""

    def collect(self) -> Iterator[Metric]:
        build = GaugeMetricFamily("tickgate_build_info", "", labels=["version"])
        build.add_metric(["1.2.3"], 1)
        yield build
        yield GaugeMetricFamily("tickgate_journal_lag_records", "", value=4321)


def test_a_lost_endpoint_is_told_above_the_last_figures_and_read_again_once_it_is_back() -> None:
    endpoint = MetricsEndpoint("127.0.0.1:0", Built())
    address = endpoint.address
    screen = Screen(address, lambda: read(address))
    with closing(endpoint):
        assert "trying again" not in rendered(screen.refresh())
    lost = rendered(screen.refresh())
    assert f"no metrics from http://{address}/metrics" in lost
    assert "trying again, these figures are old" in lost
    assert row(lost, "journal lag, records") == ["4,321"]
    with closing(MetricsEndpoint(address, Built())):
        assert "trying again" not in rendered(screen.refresh())


def test_an_endpoint_that_was_never_there_is_waited_for() -> None:
    def nobody() -> Any:
        raise MetricsUnread("127.0.0.1:9464", "Connection refused")

    assert "Connection refused; trying again" in rendered(Screen("127.0.0.1:9464", nobody).refresh())


def test_interrupted_it_ends_with_0() -> None:
    with http_document(BUILD.encode(), "text/plain") as document:
        command = [TICKGATE, "top", "--metrics", document.url.split("/")[2], "--interval", "0.1"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
            until(lambda: len(document.asked) > 1 or running.poll() is not None)
            running.send_signal(signal.SIGINT)
            output, errors = running.communicate(timeout=30)
    assert (running.returncode, errors) == (0, "")
    assert "tickgate 1.2.3" in output
