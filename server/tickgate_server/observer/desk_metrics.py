"""Metrics of the desk, the models' health and the journals, each journal with its worker's label."""

import math
import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version

import structlog
from prometheus_client.metrics_core import Metric

from tickgate_server.journal.errors import JournalError
from tickgate_server.journal.layout import FORMAT_VERSION, RecordKind
from tickgate_server.journal.segments import segment_numbers
from tickgate_server.observer.catalogue import counter, gauge
from tickgate_server.observer.drift import KINDS, FeatureDrift
from tickgate_server.observer.health import ModelHealth, Version, VersionHealth
from tickgate_server.observer.tail import Tail
from tickgate_server.risk.regimes import Regime, TradingState

_LOG = structlog.get_logger()

Workers = Mapping[str, Tail]
"""Tails by the label of their worker; it is empty where there is one."""


def workers_of(tails: Sequence[Tail]) -> Workers:
    """Tails by label: the name of their journal's folder, where there are several."""
    return {tail.folder.name if len(tails) > 1 else "": tail for tail in tails}


def desk_metrics(workers: Workers) -> Iterator[Metric]:
    """Trading state, portfolio, risk data, regimes; the tails' lock is held."""
    yield _trading_state(workers)
    yield from _portfolio(workers)
    limits = gauge("tickgate_risk_limit")
    for name, value in sorted({item for tail in workers.values() for item in tail.desk.limits.items()}):
        limits.add_metric([name], value)
    yield limits
    fresh = gauge("tickgate_risk_data_fresh")
    age = gauge("tickgate_risk_data_age_seconds")
    regimes = gauge("tickgate_regime_symbols")
    for worker, tail in workers.items():
        if tail.desk.fresh is not None:
            fresh.add_metric([worker], tail.desk.fresh)
        if tail.risk is not None and tail.risk.as_of_s:
            age.add_metric([worker], time.time() - tail.risk.as_of_s)
            for regime in Regime:
                regimes.add_metric([worker, regime.name.lower()], tail.risk.regimes[regime])
    yield from (fresh, age, regimes)


def _trading_state(workers: Workers) -> Metric:
    family = gauge("tickgate_trading_state")
    for worker, tail in workers.items():
        if tail.desk.state is not None:
            for state in TradingState:
                family.add_metric([worker, state.name], state is tail.desk.state.state)
    return family


def _portfolio(workers: Workers) -> Iterator[Metric]:
    gross = gauge("tickgate_portfolio_gross_exposure")
    net = gauge("tickgate_portfolio_net_exposure")
    value_at_risk = gauge("tickgate_portfolio_value_at_risk")
    profit = gauge("tickgate_portfolio_profit")
    drawdown = gauge("tickgate_portfolio_drawdown")
    age = gauge("tickgate_portfolio_age_seconds")
    positions = gauge("tickgate_portfolio_positions")
    for worker, tail in workers.items():
        measured = tail.desk.measured
        if measured is not None:
            gross.add_metric([worker], measured.gross)
            net.add_metric([worker], measured.net)
            value_at_risk.add_metric([worker], measured.value_at_risk)
            profit.add_metric([worker], measured.profit)
            drawdown.add_metric([worker], measured.drawdown)
            if measured.clock_ns:
                age.add_metric([worker], (time.time_ns() - measured.clock_ns) / 1e9)
        if tail.desk.positions is not None:
            positions.add_metric([worker], tail.desk.positions)
    yield from (gross, net, value_at_risk, profit, drawdown, age, positions)


def health_metrics(workers: Workers) -> Iterator[Metric]:
    """What the checks of versions say; the tails' lock is held."""
    watches = [tail.health for tail in workers.values() if tail.health is not None]
    degraded = gauge("tickgate_model_degraded")
    measured = gauge("tickgate_model_health_measured")
    bar = gauge("tickgate_model_health_bar")
    outcomes = gauge("tickgate_model_health_outcomes")
    budget = gauge("tickgate_model_latency_budget_seconds")
    for name, number in sorted({found for watch in watches for found in watch.monitored}):
        degraded.add_metric([name, str(number)], any((name, number) in watch.degraded for watch in watches))
    for (name, number), standing in sorted(_most(watches).items()):
        labels = [name, str(number)]
        budget.add_metric(labels, standing.latency_budget_us / 1e6)
        outcomes.add_metric([*labels, "trades"], standing.trades)
        outcomes.add_metric([*labels, "predictions"], standing.predictions)
        for measure in standing.measures:
            measured.add_metric([*labels, measure.check.value], measure.measured)
            bar.add_metric([*labels, measure.check.value], measure.bar)
    yield from (degraded, measured, bar, outcomes, budget)


def feature_metrics(workers: Workers) -> Iterator[Metric]:
    """How far versions' features are from training; the tails' lock is held."""
    index = gauge("tickgate_feature_stability_index")
    limit = gauge("tickgate_feature_stability_limit")
    found = gauge("tickgate_features_not_as_in_training")
    by_version: dict[Version, list[FeatureDrift]] = {}
    for tail in workers.values():
        for one, drift in (tail.features.watched if tail.features is not None else {}).items():
            by_version.setdefault(one, []).append(drift)
    for (name, number), drifts in sorted(by_version.items()):
        labels = [name, str(number)]
        for k, feature in enumerate(drifts[0].names):
            known = [value for drift in drifts if not math.isnan(value := float(drift.indices[k]))]
            if known:
                index.add_metric([*labels, feature], max(known))
            limit.add_metric([*labels, feature], float(drifts[0].limits[k]))
        for kind in KINDS:
            count = max(sum(one.kind == kind for one in drift.found.values()) for drift in drifts)
            found.add_metric([*labels, kind], count)
    yield from (index, limit, found)


def _most(watches: Sequence[ModelHealth]) -> dict[Version, VersionHealth]:
    """Of each version the journal's with the most outcomes: workers have statistics of their own."""
    found: dict[Version, VersionHealth] = {}
    for watch in watches:
        for standing in watch.standing:
            before = found.get(standing.version)
            if before is None or standing.predictions + standing.trades > before.predictions + before.trades:
                found[standing.version] = standing
    return found


def journal_metrics(workers: Workers, freshness_s: float) -> Iterator[Metric]:
    """What the journals hold, and how far the observer is; the tails' lock is held.

    Args:
        workers: The tails.
        freshness_s: How long before the scrape everything had been read.
    """
    tails = workers.values()
    records = counter("tickgate_journal_records")
    segments = gauge("tickgate_journal_segments")
    free = gauge("tickgate_journal_free_bytes")
    queued = gauge("tickgate_model_queue_depth")
    for worker, tail in workers.items():
        for kind in RecordKind:
            records.add_metric([worker, kind.name.lower()], int(tail.records[kind]))
        queued.add_metric([worker], tail.queued)
        try:
            segments.add_metric([worker], len(segment_numbers(tail.folder)))
            status = os.statvfs(tail.folder)
        except (JournalError, OSError) as error:
            # The tail says it louder.
            _LOG.debug("journal's folder unreadable", folder=str(tail.folder), why=str(error))
            continue
        free.add_metric([worker], status.f_bavail * status.f_frsize)
    yield from (records, segments, free, queued)
    behind = [tail for tail in tails if tail.lag_records]
    yield gauge("tickgate_journal_lag_records", sum(tail.lag_records for tail in behind))
    yield gauge("tickgate_journal_lag_seconds", max((tail.lag_ns for tail in behind), default=0) / 1e9)
    lost = counter("tickgate_observer_lost_records")
    lost.add_metric([], sum(tail.lost for tail in tails))
    yield lost
    yield gauge("tickgate_observer_lag_seconds", freshness_s)


def build_metric() -> Metric:
    """What runs: one installation has the server, its models' runtime and the observer."""
    family = gauge("tickgate_build_info")
    said = [version("tickgate"), platform.python_version(), version("onnxruntime"), version("numba")]
    family.add_metric([*said, str(FORMAT_VERSION)], 1)
    return family
