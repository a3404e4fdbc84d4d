"""Vectors of a served version against its manifest, from a real server's journal to metrics, log and alert."""

import json
from collections.abc import Iterator

import numpy as np
import pytest
from tests.support.messages import SECOND_NS, START_NS, features, tick
from tests.support.packages import publish_logistic
from tests.support.processes import Served, served

from tickgate_server.features.schema import micro10
from tickgate_server.models.package import FeatureStatistics, Stability

NAMES = micro10().features
ROWS = 160


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("watched")
    deciles = tuple(np.quantile(np.random.default_rng(1).standard_normal(10_000), np.arange(1, 10) / 10).tolist())
    trained = FeatureStatistics(mean=0.0, std=1.0, min=-4.5, max=4.5, quantiles=deciles)
    publish_logistic(
        folder,
        name="watched",
        latency_budget_ms=60_000.0,
        feature_statistics=dict.fromkeys(NAMES, trained),
        stability=Stability(rows=ROWS, widest=dict.fromkeys(NAMES, 0.1)),
    )
    publish_logistic(folder, name="unwatched", latency_budget_ms=60_000.0)
    environment = {"TICKGATE_MODELS__DEFAULT": "watched"}
    with served(folder, "--clock", "replay", environment=environment, observed=True) as running:
        yield running


def ask(server: Served, rows: np.ndarray, begin: int) -> None:
    for number, row in enumerate(rows.tolist(), begin):
        server.predict(features("A", row, at_ns=START_NS + number * SECOND_NS))


def test_a_feature_that_moves_is_in_metrics_and_the_others_are_not(server: Served) -> None:
    rng = np.random.default_rng(2)
    usual = rng.standard_normal((ROWS, len(NAMES)))
    server.predict(tick("A", START_NS, trade=(100.0, 1.0)))  # a symbol is known from its first tick on
    ask(server, usual, 0)
    found = seen(server, 1 + ROWS)
    kinds = {"drifted": 0.0, "stuck": 0.0, "outside": 0.0}
    name = "tickgate_features_not_as_in_training"
    assert {kind: found[name, labels(kind=kind)] for kind in kinds} == kinds
    assert found["tickgate_feature_stability_limit", labels(feature=NAMES[0])] == 0.2
    moved = rng.standard_normal((ROWS, len(NAMES)))
    moved[:, 2] += 2.0
    ask(server, moved, ROWS)
    found = seen(server, 1 + 2 * ROWS)
    assert found["tickgate_feature_stability_index", labels(feature=NAMES[2])] > 0.2
    assert found["tickgate_feature_stability_index", labels(feature=NAMES[3])] < 0.2
    assert found[name, labels(kind="drifted")] == 1.0
    told = [line for line in log(server) if line["event"] == "feature not as in training"]
    assert [(line["model"], line["feature"], line["kind"]) for line in told] == [("watched", NAMES[2], "drifted")]


def seen(server: Served, answers: int) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """A scrape that has so many answers in it; pytest's time limit ends the waiting."""
    while True:
        found = server.scrape()
        if found.get(("tickgate_requests_total", frozenset({("code", "OK")})), 0.0) >= answers:
            return found


def labels(**more: str) -> frozenset[tuple[str, str]]:
    return frozenset({"model": "watched", "version": "1", **more}.items())


def log(server: Served) -> list[dict[str, object]]:
    """Lines of server and observer, up to the one that the observer ends with."""
    server.process.stop()
    return [json.loads(json.dumps(line)) for line in server.process.events]


def test_a_version_without_a_word_on_stability_is_said_not_to_be_watched(server: Served) -> None:
    lines = [line for line in server.process.events if line["event"] == "features not watched"]
    assert [line["model"] for line in lines] == ["unwatched"]
    assert "how stable" in str(lines[0]["why"])
