"""Records on disk, the report made of them, and the Prometheus collector."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import prometheus_client
import pytest
from click.testing import CliRunner
from prometheus_client.parser import text_string_to_metric_families
from tests.client.scripted_server import Refusal, ScriptedServer, grpc, hold, trade_tick
from tests.client.sla_clock import MS, SECOND, Desk, objective

from tickgate.v1 import signal_pb2
from tickgate_client import BadSlaFile, ExtraMissing, write_csv
from tickgate_client.commands import replay_ticks
from tickgate_client.sla import Policy, SlaExport, SlaMonitor, collector, read_record, write_record
from tickgate_client.sla.commands import sla
from tickgate_client.sla.judgement import judge_record
from tickgate_client.sla.plot import plot_of, svg
from tickgate_client.sla.record import STATUS_NAMES, record_of

DEADLINE_EXCEEDED = 4


@pytest.fixture
def desk() -> Desk:
    """200 calls of 1 ms, then 65 s later 90 of 2 ms, 9 of 20 ms and a deadline missed after 30 ms; 99 % in 10 ms."""
    made = Desk(
        objective(name="<signals>", limit_us=10_000, target=0.99, enter_looks=1),
        objective(name="lifeline", limit_us=40_000, target=0.9, burn_rules=(), policy=Policy.CONTINUE),
        late_after_s=1e6,
    )
    made.look()
    for _ in range(200):
        made.call(ms=1.0, server_ms=0.25)
    made.clock.advance(66 * SECOND)
    made.calls(90, ms=2.0)
    made.calls(9, ms=20.0)
    made.call(ms=30.0, status=DEADLINE_EXCEEDED)
    made.look()
    return made


@pytest.fixture
def path(desk: Desk, tmp_path: Path) -> Path:
    written = tmp_path / "sla.json"
    write_record(written, record_of(desk.monitor, "unary, 1 in flight"))
    return written


def invoke(*arguments: object) -> tuple[int, str]:
    found = CliRunner(env={"COLUMNS": "300"}).invoke(sla, ["report", *map(str, arguments)])
    return found.exit_code, found.output


def test_a_record_that_is_read_is_the_one_that_was_written(desk: Desk, path: Path) -> None:
    wrote, read = record_of(desk.monitor, "unary, 1 in flight"), read_record(path)
    for name in ("load", "objectives", "in_breach", "breaches", "dropped", "abandoned", "expected_interval_us"):
        assert getattr(read, name) == getattr(wrote, name), name
    assert [period.name for period in read.periods] == ["1 min", "5 min", "1 h", "run"]
    for ours, theirs in zip(wrote.periods, read.periods, strict=True):
        for name in ("by_status", "omitted", "bad", "sum_ns", "calls"):
            assert getattr(ours.calls, name) == getattr(theirs.calls, name), name
        for name in ("round_trip", "server", "network", "failed"):
            one, other = getattr(ours.calls, name), getattr(theirs.calls, name)
            assert (one is None) == (other is None), name
            if one is not None:
                assert one.get_total_count() == other.get_total_count()
                assert one.counts[:] == other.counts[: len(one.counts)]
    assert path.parent.joinpath(path.name).exists()
    assert [left.name for left in path.parent.iterdir()] == [path.name], "nothing is left beside it"


def test_a_record_judges_each_window_and_the_run(path: Path) -> None:
    judged = {(one.objective.name, one.period): one for one in judge_record(read_record(path))}
    minute, run = judged["<signals>", "1 min"], judged["<signals>", "run"]
    # In the last minute 10 of 100 are bad, where 1 % may be; in the run 10 of 300.
    assert (minute.calls, minute.bad, minute.burn_rate) == (100, 10, pytest.approx(10.0))
    assert (run.calls, run.bad, run.burn_rate) == (300, 10, pytest.approx(10 / 3))
    assert minute.at_target_us == pytest.approx(20_000, rel=0.001)
    assert not minute.met
    assert not run.met
    # The deadline that was missed after 30 ms is bad for it too.
    assert [judged["lifeline", period].bad for period in ("1 min", "run")] == [1, 1]
    assert judged["lifeline", "1 min"].met


def test_another_objective_is_judged_by_the_histograms_as_the_monitor_would_have(path: Path) -> None:
    record = read_record(path)
    again = judge_record(record, [objective(name="again", limit_us=10_000, target=0.99)])
    judged = {(one.objective.name, one.period): (one.calls, one.bad) for one in again}
    for period in ("1 min", "5 min", "1 h", "run"):
        assert judged["again", period] == judged["<signals>", period]


def test_a_window_without_calls_is_neither_met_nor_a_number(tmp_path: Path) -> None:
    write_record(tmp_path / "empty.json", record_of(Desk(objective()).monitor))
    (first, *_) = judge_record(read_record(tmp_path / "empty.json"))
    assert (first.calls, first.met) == (0, False)
    code, output = invoke(tmp_path / "empty.json", "--html", tmp_path / "empty.html")
    assert code == 0
    assert "no calls" in output
    assert "nothing to draw" in (tmp_path / "empty.html").read_text()
    code, output = invoke(tmp_path / "empty.json", "--png", tmp_path / "empty.png")
    assert (code, "nothing to draw" in output) == (1, True)


def test_the_report_says_what_was_promised_and_what_was(path: Path) -> None:
    code, output = invoke(path)
    assert code == 0, output
    assert "unary, 1 in flight; no fixed rate" in output
    assert "in breach: <signals>" in output
    row = next(line for line in output.splitlines() if "<signals>" in line and " run " in line)
    cells = [cell.strip() for cell in re.split("[│┃]", row)[1:-1]]
    assert cells[:3] == ["<signals>", "run", "99 % in 10 ms"]
    assert cells[4:] == ["96.6667 %", "300", "10", "3.33", "MISSED"]
    assert "DEADLINE_EXCEEDED 1" in output


def test_check_fails_unless_every_objective_was_met_over_the_run(path: Path) -> None:
    code, output = invoke(path, "--check")
    assert (code, "Error: not met: <signals>" in output) == (1, True)
    code, output = invoke(path, "--check", "--limit-us", "50000", "--target", "99.9")
    assert (code, "not met: <signals>, --limit-us" in output) == (1, True), "the missed deadline is 1 of 300"


def test_check_without_an_objective_fails(tmp_path: Path) -> None:
    write_record(tmp_path / "none.json", record_of(Desk().monitor))
    code, output = invoke(tmp_path / "none.json", "--check")
    assert (code, "has no objective" in output) == (1, True)


@pytest.mark.parametrize("option", [["--limit-us", "0"], ["--limit-us", "100", "--target", "100"]])
def test_an_objective_that_makes_no_sense_is_an_error_in_a_line(path: Path, option: list[str]) -> None:
    code, output = invoke(path, *option)
    assert code == 1
    assert output.startswith("Error: objective '--limit-us'")


class _Page(HTMLParser):
    """Checks that every element is closed, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        del attrs
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_page_is_whole_and_takes_nothing_from_elsewhere(path: Path, tmp_path: Path) -> None:
    code, output = invoke(path, "--html", tmp_path / "report.html")
    assert code == 0, output
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    parsed = _Page()
    parsed.feed(page)
    assert parsed.open == []
    assert "<signals>" in parsed.text, "a name from elsewhere is text"
    assert not re.search(r"(src|href)=|<script|url\(", page)


def test_the_plot_draws_every_curve_inside_its_frame(path: Path) -> None:
    record = read_record(path)
    root = ET.fromstring(svg(plot_of(record, record.objectives)))  # noqa: S314 - our own
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    curves = [found.attrib["d"] for found in root.iter("path") if found.get("fill") == "none"]
    assert len(curves) == 3
    for drawn in curves:
        points = [tuple(map(float, point.split())) for point in drawn[1:].split("L")]
        assert all(0 <= x <= width and 0 <= y <= height for x, y in points)
        assert points == sorted(points, key=lambda point: point[0])
        assert [y for _, y in points] == sorted((y for _, y in points), reverse=True), "latency rises"
    labels = [found.text for found in root.iter("text")]
    assert {"50 %", "90 %", "99 %", "<signals>: 10 ms", "round trip", "server", "network"} <= set(labels)


def test_the_plot_as_a_picture(path: Path, tmp_path: Path) -> None:
    code, output = invoke(path, "--png", tmp_path / "plot.png")
    assert code == 0, output
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_without_matplotlib_a_picture_names_the_extra_and_the_page_needs_none(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("matplotlib", "matplotlib.figure", "matplotlib.backends", "matplotlib.backends.backend_agg"):
        monkeypatch.setitem(sys.modules, module, None)
    code, output = invoke(path, "--html", tmp_path / "report.html", "--png", tmp_path / "plot.png")
    assert code == 1
    assert "a percentile plot as PNG (--html needs nothing) needs packages that are not installed" in output
    assert "pip install 'tickgate[training]'" in output
    assert (tmp_path / "report.html").exists()


def change(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def apply(document: dict[str, Any]) -> None:
        *parents, last = [int(part) if part.isdecimal() else part for part in key.split(".")]
        place: Any = document
        for parent in parents:
            place = place[parent]
        place[last] = value

    return apply


@pytest.mark.parametrize(
    ("broken", "where"),
    [
        (change("format", "tickgate-sla-9"), "format: found tickgate-sla-9, expected tickgate-sla-1"),
        (change("load", 3), "load: found 3, expected a text"),
        (change("dropped", -1), "dropped: found -1, expected a count"),
        (change("dropped", True), "dropped: found true, expected a count"),
        (change("expected_interval_us", "x"), "expected_interval_us: found x, expected a number"),
        (change("periods", []), "periods: found \\[\\], expected"),
        (change("periods", [1]), "periods: found \\[1\\], expected a list of objects"),
        (change("periods.0.bad", [0]), "periods\\[0\\].bad: found \\[0\\], expected 2 counts"),
        (change("periods.0.bad", [0, 101]), "periods\\[0\\].bad: found \\[0, 101\\]"),
        (change("periods.0.by_status", {"OK": 7}), "periods\\[0\\].by_status: found 7, expected 100 calls"),
        (change("periods.0.by_status", {"FINE": 100}), "found FINE, expected names of gRPC statuses"),
        (change("periods.0.round_trip", "AAAA"), "periods\\[0\\].round_trip: found .*, expected an encoded"),
        (change("periods.0.round_trip", "?"), "periods\\[0\\].round_trip: found .*, expected an encoded"),
        (change("objectives.0.policy", "PANIC"), "objectives\\[0\\].policy: found PANIC, expected one of CONTINUE"),
        (change("objectives.0.target", 2), "objectives\\[0\\]: found .*target is 2"),
        (change("objectives.0.burn_rules.0.long_s", 7), "objectives\\[0\\]: found long_s is 7"),
        (change("in_breach", "all"), "in_breach: found all, expected a list of texts"),
        (change("breaches", [1]), "breaches: found \\[1\\], expected counts by name"),
    ],
)
def test_a_file_that_is_not_a_record_is_refused_by_its_field(
    path: Path, broken: Callable[[dict[str, Any]], None], where: str
) -> None:
    document = json.loads(path.read_text())
    broken(document)
    path.write_text(json.dumps(document))
    with pytest.raises(BadSlaFile, match=where):
        read_record(path)
    code, output = invoke(path)
    assert code == 1
    assert output.startswith(f"Error: {path}")


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[]", b"not json"])
def test_a_file_that_is_no_document_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.json"
    path.write_bytes(content)
    with pytest.raises(BadSlaFile):
        read_record(path)


def test_an_export_writes_at_once_on_schedule_and_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "live.json"
    desk = Desk(objective())
    scheduled = threading.Event()
    with SlaExport(desk.monitor, path, every_s=0.01, load="live") as export:
        assert read_record(path).run.calls == 0
        desk.calls(3)
        written = export.write

        def write() -> None:
            written()
            scheduled.set()

        monkeypatch.setattr(export, "write", write)
        assert scheduled.wait(30)
        assert read_record(path).run.calls == 3
        desk.calls(4)
    assert (read_record(path).run.calls, read_record(path).load, export.failures) == (7, "live", 0)


def test_an_export_that_cannot_write_says_so_before_it_begins(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        SlaExport(Desk().monitor, tmp_path / "missing" / "live.json").__enter__()
    with pytest.raises(ValueError, match="every_s is 0"):
        SlaExport(Desk().monitor, tmp_path / "live.json", every_s=0.0)


def test_a_replay_writes_what_the_report_reads(peer: ScriptedServer, tmp_path: Path) -> None:
    def answer(request: signal_pb2.PredictRequest) -> Any:
        refused = request.request_id == "7"
        return Refusal(grpc.StatusCode.DEADLINE_EXCEEDED, "too late") if refused else hold(request)

    peer.answer = answer
    write_csv(tmp_path / "ticks.csv", [trade_tick(sequence=at + 1) for at in range(25)])
    log = tmp_path / "run.json"
    arguments = [str(tmp_path / "ticks.csv"), "--target", peer.target, "--sla-log", str(log), "--deadline-ms", "30000"]
    found = CliRunner().invoke(replay_ticks, arguments)
    assert found.exit_code == 1, found.output
    record = read_record(log)
    assert {STATUS_NAMES[status]: count for status, count in record.run.by_status.items()} == {
        "OK": 24,
        "DEADLINE_EXCEEDED": 1,
    }
    assert record.load == "unary, 1 in flight, 1 connection"
    assert record.run.latency().server.count == 24
    code, output = invoke(log, "--limit-us", "30000000", "--target", "90", "--check")
    assert code == 0, output
    code, output = invoke(log, "--limit-us", "30000000", "--target", "99", "--check")
    assert code == 1, output


def samples(desk: Desk) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    registry = prometheus_client.CollectorRegistry()
    registry.register(collector(desk.monitor))
    text = prometheus_client.generate_latest(registry).decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_prometheus_gets_what_the_monitor_holds(desk: Desk) -> None:
    found = samples(desk)
    assert found["tickgate_client_calls_total", (("status", "OK"),)] == 299
    assert found["tickgate_client_calls_total", (("status", "DEADLINE_EXCEEDED"),)] == 1
    buckets = {le: found["tickgate_client_round_trip_seconds_bucket", (("le", le),)] for le in ("0.0005", "0.0025")}
    assert buckets == {"0.0005": 0, "0.0025": 290}
    assert found["tickgate_client_round_trip_seconds_bucket", (("le", "+Inf"),)] == 300
    assert found["tickgate_client_round_trip_seconds_count", ()] == 300
    total_ns = 200 * MS + 90 * 2 * MS + 9 * 20 * MS + 30 * MS
    assert found["tickgate_client_round_trip_seconds_sum", ()] == pytest.approx(total_ns / 1e9)
    quantile = (("part", "round_trip"), ("quantile", "0.5"), ("window", "60s"))
    assert found["tickgate_client_latency_seconds", quantile] == pytest.approx(0.002, rel=0.001)
    burn = (("objective", "<signals>"), ("window", "60s"))
    assert found["tickgate_client_error_budget_burn_rate", burn] == pytest.approx(10.0)
    breached = (("objective", "<signals>"), ("policy", "HOLD"))
    assert found["tickgate_client_sla_breached", breached] == 1
    assert found["tickgate_client_sla_breached", (("objective", "lifeline"), ("policy", "CONTINUE"))] == 0
    assert found["tickgate_client_sla_breaches_total", (("objective", "<signals>"),)] == 1
    assert found["tickgate_client_orders_held", ()] == 1


def test_without_prometheus_client_the_collector_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(ExtraMissing, match="prometheus-client alone is enough"):
        collector(SlaMonitor())


def test_the_monitor_and_the_report_need_nothing_but_the_base_install_and_no_grpc() -> None:
    code = (
        "import sys, tickgate_client.sla.monitor, tickgate_client.sla.export, tickgate_client.sla.commands\n"
        "import tickgate_client.sla.prometheus\n"
        "print({'numpy', 'grpc', 'google.protobuf', 'matplotlib', 'prometheus_client', 'pydantic'} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (found.returncode, found.stdout) == (0, "set()\n"), found.stderr


def test_every_public_name_of_the_package_is_there() -> None:
    code = "import tickgate_client.sla as s\n[getattr(s, name) for name in s.__all__]\ns.nothing"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert "AttributeError: module 'tickgate_client.sla' has no attribute 'nothing'" in found.stderr


def test_status_names_are_grpcs_by_number() -> None:
    assert {status.value[0]: status.name for status in grpc.StatusCode} == dict(enumerate(STATUS_NAMES))
