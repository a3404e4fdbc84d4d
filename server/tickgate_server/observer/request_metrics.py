"""Metrics of requests, ticks and versions, out of what was counted."""

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray
from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Exemplar

from tickgate_server.journal.entries import STATUSES
from tickgate_server.journal.layout import TickOutcome
from tickgate_server.observer.catalogue import counter, gauge, histogram
from tickgate_server.observer.counters import (
    AGE_BOUNDS_NS,
    BOUNDS_NS,
    CONFIDENCE_BOUNDS,
    OTHER,
    Counters,
    TimedStage,
)
from tickgate_server.observer.tail import CHANGES, Tail
from tickgate_server.observer.tick_counts import Source
from tickgate_server.records import Stage
from tickgate_server.risk.reasons import Action, Reason

_BOUNDS_S = [*(f"{bound / 1e9:g}" for bound in BOUNDS_NS.tolist()), "+Inf"]
_AGE_BOUNDS_S = [*(f"{bound / 1e9:g}" for bound in AGE_BOUNDS_NS.tolist()), "+Inf"]
_CONFIDENCE_BOUNDS = [*map(str, CONFIDENCE_BOUNDS.tolist()), "+Inf"]
_REASON_NAMES = {member.value: member.name for member in Reason}


class RequestMetrics:
    """Metrics of what tails have counted together.

    Args:
        counters: Of all of them.
    """

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._shown: dict[str, NDArray[np.int64]] = {}

    def collect(self) -> Iterator[Metric]:
        """Every metric as it is now; the tails' lock is held."""
        counters = self._counters
        names = dict(enumerate(STATUSES))
        yield self._counted("tickgate_requests", counters.statuses, names)
        actions = {member.value: member.name for member in Action}
        yield self._counted("tickgate_signals_generated", counters.actions, actions)
        yield self._counted("tickgate_decisions", counters.reasons, _REASON_NAMES)
        stages = {member.value: member.name.lower() for member in Stage}
        yield self._counted("tickgate_deadline_exceeded", counters.deadlines, stages)
        yield self._latency()
        yield from self._predictions()
        yield from self._ticks()

    def _counted(self, name: str, counts: NDArray[np.int64], names: Mapping[int, str]) -> Metric:
        """A counter with every known label, and by its number what a newer writer knew more.

        A scrape may fall between a decision and its withdrawal: then the count stands still until others make up for
        it, since a counter that goes back is taken for a reset.
        """
        shown = self._shown[name] = np.maximum(self._shown.get(name, counts), counts)
        family = counter(name)
        for number in sorted({*names, *np.flatnonzero(shown).tolist()}):
            family.add_metric([names.get(number, str(number))], int(shown[number]))
        return family

    def _latency(self) -> Metric:
        family = histogram("tickgate_stage_latency_seconds")
        counters = self._counters
        for version, row in counters.series.items():
            if version == OTHER and not counters.latency_counts[row].any():
                continue
            for stage in TimedStage:
                cumulative = np.cumsum(counters.latency_counts[row, stage]).astype(float).tolist()
                seconds = int(counters.latency_sums_ns[row, stage]) / 1e9
                exemplars = map(_exemplar, counters.exemplars[row, stage].tolist())
                buckets = list(zip(_BOUNDS_S, cumulative, exemplars, strict=True))
                family.add_metric([stage.name.lower(), *version], buckets, seconds)  # type: ignore[arg-type]  # None too
        return family

    def _predictions(self) -> Iterator[Metric]:
        counters = self._counters
        predictions = counter("tickgate_predictions")
        confidence = histogram("tickgate_prediction_confidence")
        for version, row in counters.series.items():
            counts = counters.confidence_counts[row]
            total = int(counts.sum())
            if version == OTHER and not total:
                continue
            predictions.add_metric(list(version), total)
            buckets = _cumulative(_CONFIDENCE_BOUNDS, counts)
            confidence.add_metric(list(version), buckets, float(counters.confidence_sums[row]))
        age = histogram("tickgate_feature_age_seconds")
        age.add_metric([], _cumulative(_AGE_BOUNDS_S, counters.age_counts), counters.age_sum_ns / 1e9)
        yield from (predictions, confidence, age)

    def _ticks(self) -> Iterator[Metric]:
        ticks = self._counters.ticks
        came = counter("tickgate_ticks")
        rejected = counter("tickgate_ticks_rejected")
        outcomes = {member.value: member.name.lower() for member in TickOutcome}
        for source in Source:
            name = source.name.lower()
            for number in sorted({*outcomes, *np.flatnonzero(ticks.outcomes[source]).tolist()}):
                came.add_metric([name, outcomes.get(number, str(number))], int(ticks.outcomes[source, number]))
            for number in np.flatnonzero(ticks.reasons[source]).tolist():
                reason = _REASON_NAMES.get(number, str(number))
                rejected.add_metric([name, reason], int(ticks.reasons[source, number]))
        yield from (came, rejected)


def model_metrics(tails: Iterable[Tail], counters: Counters) -> Iterator[Metric]:
    """Which versions there are, what happened to them, and what aliases mean; the tails' lock is held."""
    tails = list(tails)
    models = [model for tail in tails for model in tail.loaded.values()]
    family = gauge("tickgate_model_loaded")
    loaded = {(model.name, model.version, model.engine) for model in models}
    for name, number, engine in sorted(loaded):
        family.add_metric([name, str(number), engine], 1)
    served = {(name, number) for name, number, _ in loaded}
    for name, number in sorted({refused for tail in tails for refused in tail.refused} - served):
        family.add_metric([name, str(number), ""], 0)
    yield family
    info = gauge("tickgate_model_info")
    for name, number, schema_id, sha256 in sorted({(m.name, m.version, m.schema_id, m.sha256) for m in models}):
        info.add_metric([name, str(number), schema_id, sha256], 1)
    yield info
    changes = counter("tickgate_model_changes")
    for change in CHANGES.values():
        changes.add_metric([change], counters.changes[change])
    yield changes
    changed = counter("tickgate_alias_changes")
    for alias in sorted({alias for tail in tails for alias in tail.desk.alias_changes}):
        changed.add_metric([alias], max(tail.desk.alias_changes[alias] for tail in tails))  # all follow one file
    yield changed
    meant = gauge("tickgate_alias_version")
    aliases = {key: version for tail in tails for key, version in tail.desk.aliases.items()}
    for (name, alias), version in sorted(aliases.items()):
        if version is not None:
            meant.add_metric([name, alias], version)
    yield meant


def _cumulative(bounds: list[str], counts: NDArray[np.int64]) -> list[tuple[str, float]]:
    return list(zip(bounds, np.cumsum(counts).astype(float).tolist(), strict=True))


def _exemplar(found: tuple[bytes, int, int]) -> Exemplar | None:
    """What a bucket's newest request is shown as; None for a bucket without one."""
    request_id, clock_ns, duration_ns = found
    if not request_id:
        return None
    said = {"request_id": request_id.decode(errors="replace")}
    return Exemplar(said, duration_ns / 1e9, clock_ns / 1e9 if clock_ns else None)
