"""The live view: what two readings of the metrics say of a server. Pure; the terminal and the page both show this.

Quantiles are interpolated within the buckets that docs/metrics.md names, so they are off by a bucket at most. Whatever
a reading does not have is None, and so is a rate over a counter that went back.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tickgate_server.observer.live.reading import Change, Reading

STAGES = ("waiting", "features", "inference", "risk", "total")
_SHARES = (0.5, 0.99, 0.999)
_LATENCY = "tickgate_stage_latency_seconds"
_DECISIONS = "tickgate_decisions_total"
# Reasons beyond these are in their sum.
MOST_REASONS = 8
# A page is no place for more: the metrics have them all.
MOST_MODELS = 12
# What is held against which limit; a loss is profit below 0.
_FIGURES = (
    ("gross", "tickgate_portfolio_gross_exposure", "max_gross_exposure"),
    ("net", "tickgate_portfolio_net_exposure", "max_net_exposure"),
    ("P&L", "tickgate_portfolio_profit", "max_daily_loss"),
    ("drawdown", "tickgate_portfolio_drawdown", "max_drawdown"),
    ("VaR", "tickgate_portfolio_value_at_risk", "max_var"),
)


@dataclass(frozen=True, slots=True)
class StageView:
    """Latency of one stage between the readings, in seconds."""

    stage: str
    p50_s: float | None
    p99_s: float | None
    p999_s: float | None


@dataclass(frozen=True, slots=True)
class CountView:
    """One label of a counter: a second between the readings, and in all."""

    name: str
    per_s: float | None
    total: float | None


@dataclass(frozen=True, slots=True)
class ModelView:
    """One version of a model.

    Attributes:
        model: Its name.
        version: Its number.
        aliases: That mean it.
        engine: What runs it; empty where unknown.
        loaded: False where it did not pass its checks.
        per_s: Predictions a second.
        p99_s: Of total latency of its requests.
        budget_s: What its manifest allows for one.
        degraded: Whether its checks say so; None: not monitored.
        not_as_in_training: Features by how they are not (drifted, stuck, outside); None: not watched.
    """

    model: str
    version: str
    aliases: tuple[str, ...]
    engine: str
    loaded: bool | None
    per_s: float | None
    p99_s: float | None
    budget_s: float | None
    degraded: bool | None
    not_as_in_training: Mapping[str, float | None] | None


@dataclass(frozen=True, slots=True)
class FigureView:
    """A figure of the portfolio against its limit, in the base currency.

    Attributes:
        name: What it is.
        value: Summed over the workers that measured it.
        limit: Of the whole desk; None where it is off.
        used: Share of the limit that is used, not below 0.
    """

    name: str
    value: float | None
    limit: float | None
    used: float | None


@dataclass(frozen=True, slots=True)
class DeskView:
    """The desk.

    Attributes:
        states: Trading state by worker.
        figures: Of the portfolio; of several workers sums, which for net and VaR are upper bounds.
        measured: Workers whose gate measured the portfolio.
        workers: Of how many.
        positions: Symbols that something is held of.
        age_s: Of the oldest worker's figures.
        regimes: Symbols by regime.
        risk_data_fresh: Whether covariance and regimes count as known, in every worker.
        risk_data_age_s: Of the oldest worker's.
    """

    states: Mapping[str, str]
    figures: tuple[FigureView, ...]
    measured: int
    workers: int
    positions: float | None
    age_s: float | None
    regimes: Mapping[str, float | None]
    risk_data_fresh: bool | None
    risk_data_age_s: float | None


@dataclass(frozen=True, slots=True)
class StoreView:
    """The store (L2), where there is one."""

    up: bool | None
    connected: bool | None
    queued: float | None
    dropped: float | None
    lag_s: float | None


@dataclass(frozen=True, slots=True)
class HealthView:
    """What carries the numbers: observer, journal, queues, store, alerts.

    Attributes:
        observer_lag_s: Age of what the observer hands back.
        journal_lag_records: Records that are not in the numbers yet.
        lost_records: Records that were never counted.
        journal_free_bytes: Of the worker with the least.
        queued: Requests whose model runs on a thread of its own.
        store: None without one.
        alerts: That fire: name and severity.
    """

    observer_lag_s: float | None
    journal_lag_records: float | None
    lost_records: float | None
    journal_free_bytes: float | None
    queued: float | None
    store: StoreView | None
    alerts: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class View:
    """A server, as two readings of its metrics tell it.

    Attributes:
        seconds: Between the readings; None with one alone, and rates and latencies are None then.
        version: Of tickgate; empty where it is not said.
        rate: Requests a second.
        failed: Of these, those not answered OK.
        stages: Latency, in the order of a request's way.
        signals: By action.
        rejected: Decisions a second with any reason but APPROVED.
        rejections: By reason, those that are most frequent now first.
        models: Loaded and refused versions, the busiest first.
        more_models: How many more there are.
        desk: Portfolio, trading state, risk data.
        health: Observer, journal, queues, store.
    """

    seconds: float | None
    version: str
    rate: float | None
    failed: float | None
    stages: tuple[StageView, ...]
    signals: tuple[CountView, ...]
    rejected: float | None
    rejections: tuple[CountView, ...]
    models: tuple[ModelView, ...]
    more_models: int
    desk: DeskView
    health: HealthView

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it: no NaN, null for None."""
        return dataclasses.asdict(self)


def view(now: Reading, before: Reading | None) -> View:
    """What `now` says, with rates and latencies since `before`."""
    change = Change(now, before)
    models, more_models = _models(now, change)
    rate = change.per_s("tickgate_requests_total")
    answered = change.per_s("tickgate_requests_total", code="OK")
    decided = change.per_s(_DECISIONS)
    approved = change.per_s(_DECISIONS, reason="APPROVED")
    return View(
        seconds=change.seconds,
        version=next((version for (version,) in now.labelled("tickgate_build_info", "version")), ""),
        rate=rate,
        failed=_less(rate, answered),
        stages=tuple(StageView(stage, *change.quantiles(_LATENCY, _SHARES, stage=stage)) for stage in STAGES),
        signals=_counts(now, change, "tickgate_signals_generated_total", "action"),
        rejected=_less(decided, approved),
        rejections=_rejections(now, change),
        models=tuple(models),
        more_models=more_models,
        desk=_desk(now),
        health=_health(now),
    )


def _less(whole: float | None, part: float | None) -> float | None:
    return None if whole is None or part is None else whole - part


def _counts(now: Reading, change: Change, name: str, label: str) -> tuple[CountView, ...]:
    return tuple(
        CountView(value, change.per_s(name, **{label: value}), count)
        for (value,), count in sorted(now.labelled(name, label).items())
    )


def _rejections(now: Reading, change: Change) -> tuple[CountView, ...]:
    found = [one for one in _counts(now, change, _DECISIONS, "reason") if one.name != "APPROVED" and one.total != 0.0]
    found.sort(key=lambda one: (-(one.per_s or 0.0), -(one.total or 0.0), one.name))
    return tuple(found[:MOST_REASONS])


def _models(now: Reading, change: Change) -> tuple[list[ModelView], int]:
    """The busiest versions, and how many more there are."""
    version = ("model", "version")
    loaded = now.labelled("tickgate_model_loaded", *version)
    rates = {
        (name, number): change.per_s("tickgate_predictions_total", model=name, version=number)
        for name, number in loaded
    }
    order = sorted(rates, key=lambda one: (-(rates[one] or 0.0), one[0], len(one[1]), one[1]))
    engines = now.labelled("tickgate_model_loaded", *version, "engine")
    engine_of = {(name, number): engine for name, number, engine in engines}
    aliases: dict[tuple[str, str], list[str]] = {}
    for (name, alias), meant in now.labelled("tickgate_alias_version", "model", "alias").items():
        if meant is not None:
            aliases.setdefault((name, f"{meant:.0f}"), []).append(alias)
    budgets = now.labelled("tickgate_model_latency_budget_seconds", *version)
    degraded = now.labelled("tickgate_model_degraded", *version)
    features: dict[tuple[str, str], dict[str, float | None]] = {}
    for (name, number, kind), count in now.labelled("tickgate_features_not_as_in_training", *version, "kind").items():
        features.setdefault((name, number), {})[kind] = count
    found = [
        ModelView(
            model=name,
            version=number,
            aliases=tuple(sorted(aliases.get((name, number), ()))),
            engine=engine_of.get((name, number), ""),
            loaded=_flag(loaded[name, number]),
            per_s=rates[name, number],
            p99_s=change.quantiles(_LATENCY, (0.99,), stage="total", model=name, version=number)[0],
            budget_s=budgets.get((name, number)),
            degraded=_flag(degraded.get((name, number))),
            not_as_in_training=features.get((name, number)),
        )
        for name, number in order[:MOST_MODELS]
    ]
    return found, len(order) - len(found)


def _flag(value: float | None) -> bool | None:
    return None if value is None else value != 0.0


def _desk(now: Reading) -> DeskView:
    limits = now.labelled("tickgate_risk_limit", "limit")
    figures = []
    for name, metric, limit_name in _FIGURES:
        value, limit = now.total(metric), limits.get((limit_name,))
        used = None
        if value is not None and limit is not None and limit > 0.0:
            used = max(0.0, -value if name == "P&L" else value) / limit
        figures.append(FigureView(name, value, limit, used))
    states = {
        worker: state
        for (worker, state), value in sorted(now.labelled("tickgate_trading_state", "worker", "state").items())
        if value == 1.0
    }
    return DeskView(
        states=states,
        figures=tuple(figures),
        measured=len(now.series(_FIGURES[0][1])),
        workers=len(now.series("tickgate_journal_segments")),
        positions=now.total("tickgate_portfolio_positions"),
        age_s=now.most("tickgate_portfolio_age_seconds"),
        regimes={regime: count for (regime,), count in now.labelled("tickgate_regime_symbols", "regime").items()},
        risk_data_fresh=_flag(now.least("tickgate_risk_data_fresh")),
        risk_data_age_s=now.most("tickgate_risk_data_age_seconds"),
    )


def _health(now: Reading) -> HealthView:
    store = None
    if now.series("tickgate_store_up"):
        store = StoreView(
            up=_flag(now.least("tickgate_store_up")),
            connected=_flag(now.least("tickgate_store_connected")),
            queued=now.total("tickgate_store_queue_depth"),
            dropped=now.total("tickgate_store_dropped_total"),
            lag_s=now.most("tickgate_store_lag_seconds"),
        )
    firing = now.labelled("tickgate_alerts_firing", "alertname", "severity")
    return HealthView(
        observer_lag_s=now.most("tickgate_observer_lag_seconds"),
        journal_lag_records=now.total("tickgate_journal_lag_records"),
        lost_records=now.total("tickgate_observer_lost_records_total"),
        journal_free_bytes=now.least("tickgate_journal_free_bytes"),
        queued=now.total("tickgate_model_queue_depth"),
        store=store,
        alerts=tuple(sorted((name, severity) for (name, severity), count in firing.items() if count)),
    )
