"""Every metric that an observer exposes: its name, kind, labels, and what it says. docs/metrics.md is made from this.

Collectors take their families from here, so nothing is exposed that is not described.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

Kind = Literal["counter", "gauge", "histogram"]
Family: TypeAlias = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily

_VERSION = ("model", "version")
_WORKER = ("worker",)
_SIDES = (*_VERSION, "alias", "against")


@dataclass(frozen=True, slots=True)
class Described:
    """One metric.

    Attributes:
        name: Without the `_total` of a counter, which its samples have.
        kind: As Prometheus calls it.
        about: What it says; the HELP text.
        labels: Names, in the order of values.
        note: What else is to know: bounds, and what happens at them.
    """

    name: str
    kind: Kind
    about: str
    labels: tuple[str, ...] = ()
    note: str = ""

    @property
    def exposed(self) -> str:
        """The name that its samples, or a histogram's with a suffix, have."""
        return f"{self.name}_total" if self.kind == "counter" else self.name


# By heading of the document.
GROUPS: dict[str, tuple[Described, ...]] = {
    "Requests": (
        Described("tickgate_requests", "counter", "Requests journaled, by gRPC status.", ("code",)),
        Described("tickgate_signals_generated", "counter", "Requests answered, by action.", ("action",)),
        Described(
            "tickgate_decisions",
            "counter",
            "Requests answered, by reason.",
            ("reason",),
            "Rejections are all reasons but APPROVED; docs/reasons.md says what each means.",
        ),
        Described(
            "tickgate_deadline_exceeded",
            "counter",
            "Requests answered DEADLINE_EXCEEDED, by the last stage that they entered.",
            ("stage",),
        ),
        Described(
            "tickgate_stage_latency_seconds",
            "histogram",
            "Time that a stage took, of each request that completed it, answered or not; total is arrival to encoding.",
            ("stage", *_VERSION),
            "Stages: waiting, features, inference, risk, total. Buckets are 1-2-5 from 1 us to 10 s; in OpenMetrics"
            " each has the request id of a recent request in it as its exemplar. Encoding itself is not in the journal,"
            " whose record is written before it: it is in what a client measures beyond `total`. 255 versions have"
            " series of their own; the next takes the place of the version that was unloaded first, whose series end,"
            " and where all are loaded those beyond share the series without a name.",
        ),
        Described(
            "tickgate_predictions",
            "counter",
            "Decisions for which a model ran and gave a usable output.",
            _VERSION,
            "Bounded as the latencies.",
        ),
        Described(
            "tickgate_prediction_confidence",
            "histogram",
            "Confidence of predictions: probability of the predicted direction.",
            _VERSION,
            "Bounded as the latencies.",
        ),
        Described(
            "tickgate_feature_age_seconds",
            "histogram",
            "How old the scored features were: the server's clock less the venue's stamp of their last input.",
            (),
            "Not in replay mode, where time is the ticks' own. Below 0, with a venue's clock ahead, counts as 0.",
        ),
    ),
    "Ticks": (
        Described(
            "tickgate_ticks",
            "counter",
            "Ticks that came in, by how (predict, published) and by what became of them.",
            ("source", "outcome"),
            "Not by symbol: 4,096 symbols would be as many series an outcome, and a list of the busiest ones would make"
            " counters come and go, which no rate survives. By symbol asks `tickgate query`. A tick of Predict that is"
            " no tick, with a price that is not finite say, is a request answered INVALID_ARGUMENT.",
        ),
        Described(
            "tickgate_ticks_rejected",
            "counter",
            "Ticks that were rejected or held back, by how they came in and by reason.",
            ("source", "reason"),
        ),
    ),
    "Models": (
        Described(
            "tickgate_model_loaded",
            "gauge",
            "1 where a version on disk passed its checks at the server's last start; engine is what runs it.",
            (*_VERSION, "engine"),
        ),
        Described(
            "tickgate_model_info",
            "gauge",
            "Always 1, of each version that is loaded; the labels say what it is.",
            (*_VERSION, "schema_id", "sha256"),
        ),
        Described(
            "tickgate_model_changes",
            "counter",
            "Versions that were loaded, unloaded, refused, degraded, reopened.",
            ("change",),
        ),
        Described("tickgate_alias_changes", "counter", "How often an alias came to mean another version.", ("alias",)),
        Described(
            "tickgate_alias_version",
            "gauge",
            "The version that an alias means.",
            ("model", "alias"),
            "Of 256 names; an alias that means nothing has none.",
        ),
        Described(
            "tickgate_model_queue_depth",
            "gauge",
            "Requests whose model runs on a thread of its own, and that were not answered yet.",
            _WORKER,
        ),
        Described(
            "tickgate_model_latency_budget_seconds",
            "gauge",
            "What a version's manifest allows for a request.",
            _VERSION,
            "Of monitored versions.",
        ),
    ),
    "Model health": (
        Described(
            "tickgate_model_degraded",
            "gauge",
            "1 where the checks of a version said that it no longer is what its manifest promises, 0 where not.",
            _VERSION,
            "Absent: not monitored; the log says why. The first 64 indices of a journal are monitored.",
        ),
        Described(
            "tickgate_model_health_measured",
            "gauge",
            "What a check measured last: sharpe a trade, win_rate, accuracy.",
            (*_VERSION, "check"),
            "Absent below 30 outcomes, and for a check that is off. With several workers the largest count's.",
        ),
        Described(
            "tickgate_model_health_bar",
            "gauge",
            "What it is tested against, one-sided; docs/health.md says how.",
            (*_VERSION, "check"),
        ),
        Described(
            "tickgate_model_health_outcomes",
            "gauge",
            "Outcomes since the statistics began: trades, and predictions whose price moved.",
            (*_VERSION, "kind"),
        ),
        Described(
            "tickgate_feature_stability_index",
            "gauge",
            "Population stability index of a feature over the newest hour, against training.",
            (*_VERSION, "feature"),
            "Of loaded versions whose manifest says how stable its features were, once they scored enough vectors; the"
            " first 64 indices of a journal, and time of day is exempt. With several workers the largest.",
        ),
        Described(
            "tickgate_feature_stability_limit",
            "gauge",
            "What that index is held to: the larger of 0.2 and 1.5 times the widest of training.",
            (*_VERSION, "feature"),
        ),
        Described(
            "tickgate_features_not_as_in_training",
            "gauge",
            "Features of a version that are drifted, stuck or outside what training saw.",
            (*_VERSION, "kind"),
            "With several workers the largest count.",
        ),
    ),
    "Risk and portfolio": (
        Described(
            "tickgate_trading_state",
            "gauge",
            "1 for the state that the desk is in, 0 for the others.",
            (*_WORKER, "state"),
        ),
        Described(
            "tickgate_portfolio_gross_exposure",
            "gauge",
            "Sum of absolute notionals, open orders at their worse, in the base currency.",
            _WORKER,
            "As the gate measured it at the last decision that was approved or asked for no order: an order that was"
            " refused is not in it.",
        ),
        Described(
            "tickgate_portfolio_net_exposure",
            "gauge",
            "The larger of the two absolute net notionals that open orders may lead to, in the base currency.",
            _WORKER,
            "As gross exposure.",
        ),
        Described(
            "tickgate_portfolio_value_at_risk",
            "gauge",
            "Of one day at the limits' confidence, in the base currency; NaN while it is not known.",
            _WORKER,
            "As gross exposure. Workers hold slices: their sum is an upper bound.",
        ),
        Described(
            "tickgate_portfolio_profit",
            "gauge",
            "P&L of the session, realised and not, in the base currency.",
            _WORKER,
            "As the gate measured it at the last decision that it judged.",
        ),
        Described(
            "tickgate_portfolio_drawdown",
            "gauge",
            "How far that is below its highest of the session, in the base currency.",
            _WORKER,
            "As profit.",
        ),
        Described(
            "tickgate_portfolio_age_seconds",
            "gauge",
            "How long ago the gate measured the portfolio.",
            _WORKER,
            "Not in replay mode.",
        ),
        Described(
            "tickgate_portfolio_positions",
            "gauge",
            "Symbols that something is held of.",
            _WORKER,
            "From fills and stated positions since the server's start; absent where that is no longer in the journal.",
        ),
        Described(
            "tickgate_risk_limit",
            "gauge",
            "Limits in force, of the whole desk, in the base currency.",
            ("limit",),
            "A limit that is off has none.",
        ),
        Described(
            "tickgate_risk_data_fresh",
            "gauge",
            "1 while covariance and regimes count as known, 0 while only reducing orders pass.",
            _WORKER,
        ),
        Described(
            "tickgate_risk_data_age_seconds",
            "gauge",
            "Age of the newest bar in the risk data, by its own time.",
            _WORKER,
        ),
        Described(
            "tickgate_regime_symbols",
            "gauge",
            "Symbols by their regime, in the risk data.",
            (*_WORKER, "regime"),
        ),
    ),
    "Journal and observer": (
        Described(
            "tickgate_journal_records",
            "counter",
            "Records of the journal that were read, by kind.",
            (*_WORKER, "kind"),
        ),
        Described("tickgate_journal_segments", "gauge", "Segment files in the journal's folder.", _WORKER),
        Described(
            "tickgate_journal_free_bytes",
            "gauge",
            "Free space of the file system that the journal is on. Without a next segment, requests are refused.",
            _WORKER,
        ),
        Described(
            "tickgate_journal_lag_records",
            "gauge",
            "Records that were in the journal when this scrape began, and that are not in its numbers.",
        ),
        Described(
            "tickgate_journal_lag_seconds",
            "gauge",
            "How old these are at most; 0 where there are none.",
        ),
        Described(
            "tickgate_observer_lost_records",
            "counter",
            "Records that retention removed, or that were damaged, before they were counted.",
        ),
        Described(
            "tickgate_observer_lag_seconds",
            "gauge",
            "How long before this scrape the observer had last read everything: the age of what it hands back.",
        ),
        Described(
            "tickgate_build_info",
            "gauge",
            "Always 1; the labels say what runs.",
            ("version", "python", "onnxruntime", "numba", "journal_format"),
        ),
    ),
    "Store (L2)": (
        Described(
            "tickgate_store_up",
            "gauge",
            "1 while the store's process tells how it fares, 0 once it has been silent for 5 s.",
            (),
            "Of all metrics of the store: absent where none was heard of since the observer began. Counters begin with"
            " the store's process.",
        ),
        Described("tickgate_store_connected", "gauge", "1 while Redis answers, 0 while it does not."),
        Described(
            "tickgate_store_queue_depth",
            "gauge",
            "What waits to be written, by kind (vectors, states).",
            ("kind",),
        ),
        Described("tickgate_store_written", "counter", "What was written, by kind (vectors, states).", ("kind",)),
        Described("tickgate_store_written_bytes", "counter", "Bytes of both."),
        Described("tickgate_store_dropped", "counter", "Vectors that a full queue lost, the oldest first."),
        Described(
            "tickgate_store_conflated",
            "counter",
            "Vectors passed over for a newer one of their symbol, the writer being behind.",
        ),
        Described(
            "tickgate_store_errors",
            "counter",
            "Calls that failed, by what it was: unreachable, denied, full, fault.",
            ("error",),
        ),
        Described(
            "tickgate_store_refused",
            "gauge",
            "Values that the server's last warm start refused, by reason.",
            ("reason",),
        ),
        Described(
            "tickgate_store_lag_records",
            "gauge",
            "Records of the journal that the store has not taken in yet.",
            _WORKER,
        ),
        Described(
            "tickgate_store_lag_seconds",
            "gauge",
            "How long ago it had taken in everything that was there.",
            _WORKER,
        ),
    ),
    "Alerts": (
        Described(
            "tickgate_alerts_firing",
            "gauge",
            "Alerts of the observer that fire now.",
            ("alertname", "severity"),
            "Where `alerts` names a receiver.",
        ),
        Described(
            "tickgate_alert_notifications",
            "counter",
            "Notifications by receiver (alertmanager, webhook) and by what became of them.",
            ("receiver", "outcome"),
            "Outcomes: delivered; failed, to be tried again; refused, by the receiver for good; dropped, the oldest"
            " where a queue is full. Where `alerts` names that receiver.",
        ),
    ),
    "Shadows": (
        Described(
            "tickgate_shadow_compared_decisions",
            "counter",
            "Decisions that a shadow scored as well, by the alias and version that answered.",
            _SIDES,
            "Those of the 64 shadows that were written last, of all metrics of shadows.",
        ),
        Described(
            "tickgate_shadow_agreements", "counter", "Of these, those where both see the same direction.", _SIDES
        ),
        Described("tickgate_shadow_same_signals", "counter", "Of these, those with the same would-be signal.", _SIDES),
        Described(
            "tickgate_shadow_value_difference", "histogram", "Absolute difference of the values, 0 to 2.", _SIDES
        ),
        Described(
            "tickgate_shadow_confidence_difference",
            "histogram",
            "Absolute difference of the confidences, 0 to 0.5.",
            _SIDES,
        ),
        Described(
            "tickgate_shadow_signals",
            "counter",
            "Would-be signals of answer and shadow, each by its own threshold, before the gate's later stages.",
            (*_SIDES, "side", "action"),
        ),
        Described(
            "tickgate_shadow_missed_decisions",
            "counter",
            "Decisions that a shadow should have been compared on and was not, by why.",
            (*_VERSION, "reason"),
        ),
        Described(
            "tickgate_shadow_lost_records",
            "counter",
            "Journal records that retention removed, or that were damaged, before the shadow scorer read them.",
            _VERSION,
        ),
        Described("tickgate_shadow_load_failures", "counter", "How often a shadow did not pass its checks.", _VERSION),
        Described(
            "tickgate_shadow_loaded",
            "gauge",
            "1 for a version that is a shadow and passed its checks, 0 for one that did not.",
            _VERSION,
        ),
        Described(
            "tickgate_shadow_lag_records",
            "gauge",
            "Records in the journals, of any kind, that a shadow is still to be held against.",
            _VERSION,
        ),
    ),
}

_BY_NAME = {described.name: described for group in GROUPS.values() for described in group}


def counter(name: str) -> CounterMetricFamily:
    """An empty family of a counter that is described above; raises KeyError for another."""
    found = _of(name, "counter")
    return CounterMetricFamily(found.name, found.about, labels=found.labels)


def gauge(name: str, value: float | None = None) -> GaugeMetricFamily:
    """A family of a gauge that is described above, empty or with its only value; raises KeyError for another."""
    found = _of(name, "gauge")
    if value is not None and not found.labels:
        return GaugeMetricFamily(found.name, found.about, value=value)
    return GaugeMetricFamily(found.name, found.about, labels=found.labels)


def histogram(name: str) -> HistogramMetricFamily:
    """An empty family of a histogram that is described above; raises KeyError for another."""
    found = _of(name, "histogram")
    return HistogramMetricFamily(found.name, found.about, labels=found.labels)


def _of(name: str, kind: Kind) -> Described:
    found = _BY_NAME[name]
    if found.kind != kind:
        raise KeyError(f"{name}: expected a {found.kind}, asked for as a {kind}")
    return found
