"""What a scrape says of shadows, from their records alone."""

from pathlib import Path

import pytest
from prometheus_client.metrics_core import Metric
from structlog.testing import capture_logs
from tests.shadow.test_shadow_record import record

from tickgate_server.models.shadow_record import Missed, record_path, write_record
from tickgate_server.observer import shadows
from tickgate_server.observer.shadows import ShadowMetrics


def samples(found: list[Metric]) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value for metric in found for sample in metric.samples
    }


def collected(folder: Path, journaled: dict[str, int]) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return samples(list(ShadowMetrics(folder).collect(journaled)))


def of(found: dict[tuple[str, frozenset[tuple[str, str]]], float], name: str, **labels: str) -> float:
    return found[f"tickgate_shadow_{name}", frozenset({"model": "tiny", "version": "2", **labels}.items())]


def test_every_number_of_a_record_is_on_the_endpoint(tmp_path: Path) -> None:
    write_record(tmp_path, record(positions={"worker-0": 10, "worker-1": 20}))
    found = collected(tmp_path, {"worker-0": 15, "worker-1": 20, "worker-2": 4})
    side = {"alias": "production", "against": "1"}
    assert of(found, "compared_decisions_total", **side) == 3
    assert of(found, "agreements_total", **side) == 2
    assert of(found, "same_signals_total", **side) == 1
    assert of(found, "compared_decisions_total", alias="canary", against="3") == 3
    assert of(found, "signals_total", side="answer", action="BUY", **side) == 2
    assert of(found, "signals_total", side="shadow", action="SELL", **side) == 1
    # Differences of 0, 0.25 and 2.
    bounds = {"0.0": 1, "0.2": 1, "0.5": 2, "1.0": 2, "2.0": 3, "+Inf": 3}
    for bound, count in bounds.items():
        assert of(found, "value_difference_bucket", le=bound, **side) == count
    assert of(found, "value_difference_sum", **side) == 2.25
    assert of(found, "confidence_difference_count", **side) == 3
    assert of(found, "missed_decisions_total", reason="not_loaded") == 7
    assert of(found, "missed_decisions_total", reason="other_features") == 0
    assert of(found, "lost_records_total") == 11
    assert of(found, "load_failures_total") == 1
    assert of(found, "loaded") == 1
    assert of(found, "lag_records") == 5 + 0 + 3  # of a worker that was never read, all


@pytest.mark.parametrize("changes", [{"load_check": "HashMismatch"}, {"model_sha256": ""}])
def test_a_shadow_that_is_not_loaded_is_0(tmp_path: Path, changes: dict[str, str]) -> None:
    write_record(tmp_path, record(**changes))
    assert of(collected(tmp_path, {}), "loaded") == 0


def test_one_that_is_no_shadow_any_more_keeps_its_counts_and_has_no_lag(tmp_path: Path) -> None:
    write_record(tmp_path, record(ended=True))
    found = collected(tmp_path, {"": 100})
    assert of(found, "compared_decisions_total", alias="production", against="1") == 3
    assert not {name for name, _ in found} & {"tickgate_shadow_lag_records", "tickgate_shadow_loaded"}


def test_where_there_never_was_a_shadow_there_are_no_metrics(tmp_path: Path) -> None:
    assert collected(tmp_path / "shadow", {"": 100}) == {}


def test_a_record_is_read_again_only_where_it_was_replaced_and_a_broken_one_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = ShadowMetrics(tmp_path)
    write_record(tmp_path, record(missed={}))
    broken = record_path(tmp_path, "other", 1)
    broken.parent.mkdir(parents=True)
    broken.write_text("half")
    with capture_logs() as logs:
        first = samples(list(metrics.collect({})))
        assert samples(list(metrics.collect({}))) == first
    assert [(line["event"], line["path"]) for line in logs] == [("shadow record unreadable", str(broken))]
    write_record(tmp_path, record(missed={Missed.VECTOR_CUT: 3}))
    assert of(samples(list(metrics.collect({}))), "missed_decisions_total", reason="vector_cut") == 3
    monkeypatch.setattr(shadows, "read_record", None)  # from here on whatever is read fails
    assert of(samples(list(metrics.collect({}))), "missed_decisions_total", reason="vector_cut") == 3


def test_of_many_versions_those_written_last_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shadows, "MAX_RECORDS", 2)
    for version, written_ns in ((2, 30), (4, 10), (5, 20)):
        write_record(tmp_path, record(version=version, written_ns=written_ns))
    found = collected(tmp_path, {})
    assert {dict(labels)["version"] for _, labels in found} == {"2", "5"}
