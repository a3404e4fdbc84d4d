"""`docs/metrics.md` is what the observer's catalogue makes of it."""

import re
import runpy
from pathlib import Path

import pytest

from tickgate_server.observer import catalogue
from tickgate_server.observer.catalogue import GROUPS, Described

DOCS = Path(__file__).resolve().parents[2] / "docs"
ALL = [described for group in GROUPS.values() for described in group]


def test_the_committed_document_is_what_is_generated(tmp_path: Path) -> None:
    runpy.run_path(str(DOCS / "generate.py"))["generate"](tmp_path)
    assert (tmp_path / "metrics.md").read_text() == (DOCS / "metrics.md").read_text()


@pytest.mark.parametrize("described", ALL, ids=lambda described: described.name)
def test_names_follow_prometheus_conventions(described: Described) -> None:
    assert re.fullmatch(r"tickgate_[a-z][a-z0-9_]*", described.name)
    assert not described.name.endswith(("_total", "_count", "_sum", "_bucket"))
    assert described.about.endswith(".")
    assert len(described.labels) == len(set(described.labels))
    assert all(re.fullmatch(r"[a-z][a-z0-9_]*", label) for label in described.labels)
    assert not any(unit in described.name for unit in ("_ns", "_us", "_ms", "_milli", "_micro"))


def test_no_metric_is_described_twice() -> None:
    names = [described.name for described in ALL]
    assert len(names) == len(set(names))


def test_what_is_not_described_or_of_another_kind_cannot_be_exposed() -> None:
    with pytest.raises(KeyError, match="tickgate_unheard_of"):
        catalogue.gauge("tickgate_unheard_of")
    with pytest.raises(KeyError, match="expected a counter, asked for as a gauge"):
        catalogue.gauge("tickgate_requests")
