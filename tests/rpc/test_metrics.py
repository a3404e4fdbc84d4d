"""The metrics endpoint says what was answered."""

import math
from collections import Counter
from pathlib import Path

import grpc
from tests.rpc.conftest import BY_ITSELF
from tests.support.messages import START_NS, tick, zigzag
from tests.support.processes import Served, served

from tickgate.v1 import signal_pb2 as pb
from tickgate_server.risk.reasons import Action, Reason

STAGES = ("waiting", "features", "inference", "risk", "total")


def counts(server: Served, name: str, label: str) -> dict[str, float]:
    """By one label, summed over the others."""
    found: Counter[str] = Counter()
    for (sample, labels), value in server.scrape().items():
        if sample == name:
            found[dict(labels)[label]] += value
    return dict(found)


def test_counts_are_those_of_the_answers(mixed_repository: Path, transport: str) -> None:
    arguments = ("--clock", "replay", "--transport", transport)
    with served(mixed_repository, *arguments, environment=BY_ITSELF, observed=True) as server:
        spent = zigzag("A", 1)[0]
        spent.budget_us = 1
        broken = zigzag("A", 1)[0]
        broken.model = "broken"
        unknown = zigzag("A", 1)[0]
        unknown.model = "nobody"
        requests = [
            *zigzag("A", 33),
            *zigzag("A", 5),
            tick("A", START_NS, trade=(100.0, 1.0)),
            *[tick("A", START_NS, trade=(math.nan, 1.0))] * 3,
            spent,
            broken,
            unknown,
            unknown,
        ]
        codes: Counter[str] = Counter()
        reasons: Counter[str] = Counter()
        actions: Counter[str] = Counter()
        stages: Counter[str] = Counter()

        def count(code: int, answer: pb.PredictResponse) -> None:
            codes[next(one.name for one in grpc.StatusCode if one.value[0] == code)] += 1
            if code == 0:
                reasons[pb.Reason.Name(answer.signal.reason).removeprefix("REASON_")] += 1
                actions[pb.Action.Name(answer.signal.action).removeprefix("ACTION_")] += 1
                stages.update(stage for stage in STAGES if getattr(answer.timing, f"{stage}_ns"))

        for request in requests:
            try:
                count(0, server.predict(request))
            except grpc.RpcError as error:
                count(error.code().value[0], pb.PredictResponse())
        (streamed,) = server.stream([requests])
        for result in streamed.results:
            count(result.code, result.response)

        assert codes.keys() == {
            "OK",
            "INVALID_ARGUMENT",
            "NOT_FOUND",
            "FAILED_PRECONDITION",
            "DEADLINE_EXCEEDED",
        }
        assert actions.keys() == {"HOLD", "BUY", "SELL"}
        every_code = dict.fromkeys((code.name for code in grpc.StatusCode), 0)
        assert counts(server, "tickgate_requests_total", "code") == every_code | codes
        assert counts(server, "tickgate_signals_generated_total", "action") == {
            action.name: actions[action.name] for action in Action
        }
        assert counts(server, "tickgate_decisions_total", "reason") == {
            reason.name: reasons[reason.name] for reason in Reason
        }
        deadlines = counts(server, "tickgate_deadline_exceeded_total", "stage")
        assert sum(deadlines.values()) == codes["DEADLINE_EXCEEDED"]
        # Refused once a model was found: they waited, and completed no other stage.
        stages["waiting"] += codes["INVALID_ARGUMENT"] + codes["DEADLINE_EXCEEDED"]
        assert deadlines["waiting"] == codes["DEADLINE_EXCEEDED"]
        assert counts(server, "tickgate_stage_latency_seconds_count", "stage") == dict(stages)
        versions = counts(server, "tickgate_stage_latency_seconds_count", "version")
        assert versions.keys() == {"1", "2"}
        assert (versions["1"], versions["2"]) == (0, sum(stages.values()))
        assert server.scrape()["tickgate_journal_lag_records", frozenset()] == 0


def test_each_histogram_is_cumulative_and_whole(shared: Served) -> None:
    for request in zigzag("HISTOGRAM", 12):
        shared.predict(request)
    samples = shared.scrape()
    for stage in STAGES:
        buckets = {
            dict(labels)["le"]: value
            for (name, labels), value in samples.items()
            if name == "tickgate_stage_latency_seconds_bucket" and labels > {("stage", stage), ("version", "2")}
        }
        bounds = [float(bound) for bound in buckets]
        label = frozenset({("stage", stage), ("model", "trend"), ("version", "2")})
        assert next(iter(buckets)) == "1e-06"
        assert (bounds[-2], bounds[-1]) == (10.0, math.inf)
        assert bounds == sorted(bounds)
        assert list(buckets.values()) == sorted(buckets.values())
        assert samples["tickgate_stage_latency_seconds_count", label] == buckets["+Inf"] > 0.0
        assert samples["tickgate_stage_latency_seconds_sum", label] > 0.0


def test_each_version_on_disk_is_loaded_or_not(shared: Served) -> None:
    versions = {
        (dict(labels)["model"], dict(labels)["version"]): value
        for (name, labels), value in shared.scrape().items()
        if name == "tickgate_model_loaded"
    }
    assert versions == {
        ("trend", "1"): 1,
        ("trend", "2"): 1,
        ("trend", "3"): 0,
        ("broken", "1"): 0,
        ("failing", "1"): 0,
        ("half", "1"): 0,
    }
