"""Generate `dashboards/tickgate.json`, Grafana's dashboard, from the table of rows and panels below.

    python deploy/grafana/generate.py [OUT]

OUT is the file; by default the one that is committed. A test generates and compares.

The model is Grafana's "Dashboard JSON model" (https://grafana.com/docs/grafana/latest/dashboards/build-dashboards/
view-dashboard-json-model/), schema version 39.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

FILE = Path(__file__).resolve().parent / "dashboards" / "tickgate.json"
SCHEMA_VERSION = 39
_COLUMNS = 24
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_J = 'job=~"$job"'


@dataclass(frozen=True)
class Panel:
    """One panel.

    Attributes:
        title: Above it.
        targets: PromQL with its legend, one line a pair.
        unit: Of Grafana's units.
        width: Of 24 columns.
        kind: Grafana's type of panel.
        about: What an operator reads out of it.
        exemplars: Whether points lead to request ids.
        mappings: Text by value, and its colour.
        names: Of a stat: show the legend, not the value.
    """

    title: str
    targets: Sequence[tuple[str, str]]
    unit: str = "short"
    width: int = 8
    kind: str = "timeseries"
    about: str = ""
    exemplars: bool = False
    mappings: Sequence[tuple[int, str, str]] = ()
    names: bool = False


def _quantile(q: float, by: str, match: str = "") -> str:
    buckets = f"tickgate_stage_latency_seconds_bucket{{{_J}{match}}}[$__rate_interval]"
    return f"histogram_quantile({q}, sum by (le{by}) (rate({buckets})))"


def _rate(name: str, by: str, match: str = "") -> str:
    return f"sum by ({by}) (rate({name}{{{_J}{match}}}[$__rate_interval]))"


_TOTAL = ', stage="total"'
_YES = ((0, "no", "green"), (1, "YES", "red"))
_LOADED = ((0, "refused", "red"), (1, "loaded", "green"))

ROWS: dict[str, Sequence[Panel]] = {
    "Now": (
        Panel(
            "Trading state",
            [(f"tickgate_trading_state{{{_J}}} == 1", "{{worker}} {{state}}")],
            width=6,
            kind="stat",
            about="ACTIVE lets all pass, REDUCING only what takes off positions, HALTED nothing.",
            names=True,
        ),
        Panel(
            "Requests a second",
            [(f"sum(rate(tickgate_requests_total{{{_J}}}[$__rate_interval]))", "")],
            "reqps",
            4,
            "stat",
        ),
        Panel("p99, total", [(_quantile(0.99, "", _TOTAL), "")], "s", 4, "stat"),
        Panel("Observer lag", [(f"max(tickgate_observer_lag_seconds{{{_J}}})", "")], "s", 4, "stat"),
        Panel("Alerts that fire", [(f"sum(tickgate_alerts_firing{{{_J}}}) or vector(0)", "")], "short", 3, "stat"),
        Panel(
            "Version",
            [(f"tickgate_build_info{{{_J}}}", "{{version}}, Python {{python}}")],
            width=3,
            kind="stat",
            names=True,
        ),
    ),
    "Objectives": (
        Panel(
            "Error budget burn, availability (99.9 %)",
            [(f"tickgate:slo_availability_errors:ratio_rate{w}{{{_J}}} / 0.001", w) for w in ("5m", "1h", "6h", "3d")],
            width=12,
            about="1 uses a month's budget in a month; 14.4 over an hour alerts. Takes the recording rules.",
        ),
        Panel(
            "Error budget burn, latency (99 % within 1 ms)",
            [(f"tickgate:slo_latency_errors:ratio_rate{w}{{{_J}}} / 0.01", w) for w in ("5m", "1h", "6h", "3d")],
            width=12,
            about="As availability.",
        ),
    ),
    "Latency": (
        Panel(
            "Total, percentiles",
            [(_quantile(q, "", _TOTAL), name) for q, name in ((0.5, "p50"), (0.99, "p99"), (0.999, "p99.9"))],
            "s",
            8,
            about="Arrival to encoding, in the server. The dots are requests, with their ids.",
            exemplars=True,
        ),
        Panel("p99 by stage", [(_quantile(0.99, ", stage"), "{{stage}}")], "s"),
        Panel("p99 by model", [(_quantile(0.99, ", model, version", _TOTAL), "{{model}} {{version}}")], "s"),
        Panel(
            "Distribution of total latency",
            [
                (
                    f"sum by (le) (increase(tickgate_stage_latency_seconds_bucket{{{_J}{_TOTAL}}}[$__rate_interval]))",
                    "{{le}}",
                )
            ],
            "s",
            12,
            "heatmap",
        ),
        Panel(
            "Deadlines missed, by the stage that they ended in",
            [(_rate("tickgate_deadline_exceeded_total", "stage"), "{{stage}}")],
            "reqps",
            12,
        ),
    ),
    "Requests and signals": (
        Panel(
            "Requests by status",
            [(_rate("tickgate_requests_total", "code") + " > 0", "{{code}}")],
            "reqps",
        ),
        Panel(
            "Signals",
            [(_rate("tickgate_signals_generated_total", "action"), "{{action}}")],
            "reqps",
        ),
        Panel(
            "Rejections by reason",
            [
                (
                    _rate("tickgate_decisions_total", "reason", ', reason!="APPROVED"') + " > 0",
                    "{{reason}}",
                )
            ],
            "reqps",
            about="docs/reasons.md says what each means.",
        ),
        Panel(
            "Confidence",
            [
                (
                    f"histogram_quantile({q}, {_rate('tickgate_prediction_confidence_bucket', 'le, model, version')})",
                    f"{name} {{{{model}}}} {{{{version}}}}",
                )
                for q, name in ((0.1, "p10"), (0.5, "p50"), (0.9, "p90"))
            ],
            "percentunit",
            12,
        ),
        Panel(
            "Predictions",
            [
                (
                    _rate("tickgate_predictions_total", "model, version"),
                    "{{model}} {{version}}",
                )
            ],
            "reqps",
            12,
        ),
    ),
    "Risk and portfolio": (
        Panel(
            "Exposure",
            [
                (f"sum(tickgate_portfolio_gross_exposure{{{_J}}})", "gross"),
                (f"sum(tickgate_portfolio_net_exposure{{{_J}}})", "net"),
                (f'max(tickgate_risk_limit{{{_J}, limit="max_gross_exposure"}})', "limit, gross"),
            ],
            about="As the gate measured it last, in the base currency.",
        ),
        Panel(
            "Value at risk",
            [
                (f"sum(tickgate_portfolio_value_at_risk{{{_J}}})", "one day"),
                (f'max(tickgate_risk_limit{{{_J}, limit="max_var"}})', "limit"),
            ],
        ),
        Panel(
            "P&L and drawdown",
            [
                (f"sum(tickgate_portfolio_profit{{{_J}}})", "P&L"),
                (f"sum(tickgate_portfolio_drawdown{{{_J}}})", "drawdown"),
                (f'max(tickgate_risk_limit{{{_J}, limit="max_drawdown"}})', "limit, drawdown"),
            ],
        ),
        Panel("Positions", [(f"sum(tickgate_portfolio_positions{{{_J}}})", "symbols")], width=6),
        Panel("Regimes", [(f"sum by (regime) (tickgate_regime_symbols{{{_J}}})", "{{regime}}")], width=6),
        Panel(
            "Age of risk data and of the portfolio's figures",
            [
                (f"max(tickgate_risk_data_age_seconds{{{_J}}})", "newest bar"),
                (f"max(tickgate_portfolio_age_seconds{{{_J}}})", "portfolio"),
            ],
            "s",
            6,
        ),
        Panel("Risk data fresh", [(f"min(tickgate_risk_data_fresh{{{_J}}})", "")], width=6, kind="stat"),
    ),
    "Models": (
        Panel(
            "Degraded",
            [(f"max by (model, version) (tickgate_model_degraded{{{_J}}})", "{{model}} {{version}}")],
            width=6,
            kind="stat",
            mappings=_YES,
        ),
        Panel(
            "Loaded",
            [(f"max by (model, version, engine) (tickgate_model_loaded{{{_J}}})", "{{model}} {{version}} {{engine}}")],
            width=6,
            kind="stat",
            mappings=_LOADED,
        ),
        Panel(
            "Aliases",
            [(f"max by (model, alias) (tickgate_alias_version{{{_J}}})", "{{model}}@{{alias}}")],
            width=6,
            kind="stat",
        ),
        Panel(
            "Changes",
            [
                (
                    f"sum by (change) (increase(tickgate_model_changes_total{{{_J}}}[$__rate_interval])) > 0",
                    "{{change}}",
                ),
                (
                    f"sum by (alias) (increase(tickgate_alias_changes_total{{{_J}}}[$__rate_interval])) > 0",
                    "@{{alias}}",
                ),
            ],
            width=6,
        ),
        Panel(
            "Health: measured over its bar",
            [
                (
                    (
                        f"max by (model, version, check) (tickgate_model_health_measured{{{_J}}})"
                        f" / max by (model, version, check) (tickgate_model_health_bar{{{_J}}})"
                    ),
                    "{{model}} {{version}} {{check}}",
                )
            ],
            width=8,
            about="Below 1 the measured figure is below its bar: degraded once that is no chance any more.",
        ),
        Panel(
            "Outcomes",
            [
                (
                    f"max by (model, version, kind) (tickgate_model_health_outcomes{{{_J}}})",
                    "{{model}} {{version}} {{kind}}",
                )
            ],
        ),
        Panel(
            "Requests that wait for a slow model",
            [(f"sum by (worker) (tickgate_model_queue_depth{{{_J}}})", "{{worker}}")],
        ),
        Panel(
            "Shadow agrees",
            [
                (
                    (
                        _rate("tickgate_shadow_agreements_total", "model, version, against")
                        + " / "
                        + _rate("tickgate_shadow_compared_decisions_total", "model, version, against")
                    ),
                    "{{model}} {{version}} against {{against}}",
                )
            ],
            "percentunit",
            12,
        ),
        Panel(
            "Shadow's lag, records",
            [(f"max by (model, version) (tickgate_shadow_lag_records{{{_J}}})", "{{model}} {{version}}")],
            width=12,
        ),
    ),
    "Store (L2)": (
        Panel(
            "Redis",
            [(f"min(tickgate_store_up{{{_J}}})", "process"), (f"min(tickgate_store_connected{{{_J}}})", "connected")],
            width=4,
            kind="stat",
            mappings=((0, "GONE", "red"), (1, "yes", "green")),
        ),
        Panel(
            "Store: what waits, and what was lost",
            [
                (f"sum by (kind) (tickgate_store_queue_depth{{{_J}}})", "{{kind}} wait"),
                (f"sum(increase(tickgate_store_dropped_total{{{_J}}}[$__rate_interval]))", "dropped"),
                (f"max(tickgate_store_lag_records{{{_J}}})", "records behind"),
            ],
            width=20,
        ),
    ),
    "Ticks and features": (
        Panel(
            "Stability index of features over its limit",
            [
                (
                    (
                        f"max by (model, version, feature) (tickgate_feature_stability_index{{{_J}}})"
                        f" / max by (model, version, feature) (tickgate_feature_stability_limit{{{_J}}})"
                    ),
                    "{{model}} {{version}} {{feature}}",
                )
            ],
            width=16,
            about="Above 1 a feature is not distributed as in training.",
        ),
        Panel(
            "Features that are not as in training",
            [
                (
                    f"max by (model, version, kind) (tickgate_features_not_as_in_training{{{_J}}}) > 0",
                    "{{model}} {{version}} {{kind}}",
                )
            ],
            kind="stat",
        ),
        Panel(
            "Ticks",
            [
                (
                    _rate("tickgate_ticks_total", "source, outcome") + " > 0",
                    "{{source}} {{outcome}}",
                )
            ],
            "cps",
        ),
        Panel(
            "Ticks rejected",
            [
                (
                    _rate("tickgate_ticks_rejected_total", "source, reason") + " > 0",
                    "{{source}} {{reason}}",
                )
            ],
            "cps",
        ),
        Panel(
            "Age of features",
            [
                (
                    f"histogram_quantile({q}, {_rate('tickgate_feature_age_seconds_bucket', 'le')})",
                    name,
                )
                for q, name in ((0.5, "p50"), (0.99, "p99"))
            ],
            "s",
        ),
    ),
    "Journal, observer, alerts": (
        Panel(
            "Records",
            [
                (
                    _rate("tickgate_journal_records_total", "worker, kind"),
                    "{{worker}} {{kind}}",
                )
            ],
            "cps",
            6,
        ),
        Panel(
            "Lag",
            [
                (f"max(tickgate_observer_lag_seconds{{{_J}}})", "observer"),
                (f"max(tickgate_journal_lag_seconds{{{_J}}})", "this scrape"),
            ],
            "s",
            6,
        ),
        Panel("Free space", [(f"min by (worker) (tickgate_journal_free_bytes{{{_J}}})", "{{worker}}")], "bytes", 6),
        Panel("Segments", [(f"sum by (worker) (tickgate_journal_segments{{{_J}}})", "{{worker}}")], width=6),
        Panel(
            "Records lost, or not in the last scrape",
            [
                (f"sum(increase(tickgate_observer_lost_records_total{{{_J}}}[$__rate_interval]))", "lost"),
                (f"sum(tickgate_journal_lag_records{{{_J}}})", "behind"),
            ],
            width=8,
        ),
        Panel("Alerts", [(f"sum by (alertname) (tickgate_alerts_firing{{{_J}}})", "{{alertname}}")], width=8),
        Panel(
            "Notifications",
            [
                (
                    _rate("tickgate_alert_notifications_total", "receiver, outcome") + " > 0",
                    "{{receiver}} {{outcome}}",
                )
            ],
            "cps",
            8,
        ),
    ),
}


def dashboard() -> dict[str, Any]:
    """The model of the dashboard."""
    return {
        "uid": "tickgate",
        "title": "tickgate",
        "description": "A low-latency signal server: what it answers, how fast, what it risks, and what is wrong.",
        "tags": ["tickgate"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "timezone": "utc",
        "fiscalYearStartMonth": 0,
        "links": [],
        "annotations": {"list": []},
        "templating": {"list": list(_variables())},
        "panels": list(_panels()),
    }


def _variables() -> Iterator[dict[str, Any]]:
    yield {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "hide": 0}
    yield {
        "name": "job",
        "label": "Job",
        "type": "query",
        "datasource": _SOURCE,
        "query": {"query": "label_values(tickgate_build_info, job)", "refId": "job"},
        "refresh": 2,
        "includeAll": True,
        "allValue": ".*",
        "multi": True,
        "current": {"text": "All", "value": "$__all"},
        "hide": 0,
    }


def _panels() -> Iterator[dict[str, Any]]:
    ids = count(1)
    y = 0
    for title, panels in ROWS.items():
        yield {
            "id": next(ids),
            "type": "row",
            "title": title,
            "collapsed": False,
            "gridPos": {"x": 0, "y": y, "w": _COLUMNS, "h": 1},
            "panels": [],
        }
        y += 1
        x = height = 0
        for panel in panels:
            if x + panel.width > _COLUMNS:
                x, y, height = 0, y + height, 0
            own = 4 if panel.kind == "stat" else 8
            yield _panel(panel, next(ids), {"x": x, "y": y, "w": panel.width, "h": own})
            x, height = x + panel.width, max(height, own)
        y += height


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    targets = [
        {
            "refId": chr(ord("A") + at),
            "datasource": _SOURCE,
            "editorMode": "code",
            "expr": expression,
            "legendFormat": legend or "__auto",
            "range": panel.kind != "stat",
            "instant": panel.kind == "stat",
            "exemplar": panel.exemplars,
            "format": "heatmap" if panel.kind == "heatmap" else "time_series",
        }
        for at, (expression, legend) in enumerate(panel.targets)
    ]
    defaults: dict[str, Any] = {"unit": panel.unit, "color": {"mode": "palette-classic"}, "mappings": []}
    if panel.mappings:
        options = {
            str(value): {"text": text, "color": colour, "index": value} for value, text, colour in panel.mappings
        }
        defaults["mappings"] = [{"type": "value", "options": options}]
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": _SOURCE,
        "gridPos": place,
        "targets": targets,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": _OPTIONS[panel.kind] | ({"textMode": "name"} if panel.names else {}),
    }


_OPTIONS: dict[str, dict[str, Any]] = {
    "timeseries": {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
    "stat": {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "textMode": "auto",
        "colorMode": "value",
        "graphMode": "none",
        "justifyMode": "auto",
        "orientation": "auto",
    },
    "heatmap": {
        "calculate": False,
        "yAxis": {"unit": "s"},
        "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64},
        "legend": {"show": True},
        "tooltip": {"show": True, "yHistogram": False},
    },
}


if __name__ == "__main__":
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else FILE
    out.write_text(json.dumps(dashboard(), indent=1) + "\n", encoding="utf-8")
