"""The page of a run: one HTML file that needs nothing else, no script, no network."""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from tickgate_training.publishing import Published
from tickgate_training.report import paths_sheets, sheets
from tickgate_training.report.conventions import conventions
from tickgate_training.report.diagnostics import Reliability
from tickgate_training.report.sheets import Cell, Document, Sheet
from tickgate_training.report.wording import count, metric_rows, plural, span, spoken

TRIALS_SHOWN = 20
_ENVIRONMENT = Environment(
    loader=PackageLoader("tickgate_training", ""),
    autoescape=True,  # names come from users
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@dataclass(frozen=True, slots=True)
class Picture:
    """A plot on the page.

    Attributes:
        address: A `data:` address with the whole picture in it.
        text: What it shows, for who cannot see it.
    """

    address: str
    text: str


_TEXTS = {
    "equity": "Equity and drawdown over time, gross and net of costs",
    "windows": "Net return of each window",
    "logits": "Histogram of the logits of combinatorially symmetric cross-validation",
    "thresholds": "Net return on validation against the threshold",
    "calibration": "Reliability diagram of the calibrated probabilities",
    "importance": "Importance of each feature over the windows",
    "paths": "Net profit down each path of combinatorial cross-validation, and the paths' Sharpe ratios in order",
    "psi": "Population stability index of each feature in each window",
}


def render(document: Document, pictures: Mapping[str, bytes], published: Published | None) -> str:
    """The page as HTML.

    Args:
        document: As `report.document` makes it.
        pictures: PNG by name, as `plots.draw` makes them.
        published: The package; None where there is none.
    """
    beyond = len(document["trials"]) > TRIALS_SHOWN
    return _ENVIRONMENT.get_template("report/page.html.j2").render(
        title=document["configuration"]["package"]["name"],
        headline=headline(document),
        passed=document["verdict"]["passed"],
        sentence=sheets.verdict_sentence(document),
        facts=facts(document, published),
        checks=sheets.checks(document),
        override=sheets.override(document),
        suspicions=sheets.suspicions(document),
        results=sheets.results(document),
        spread=sheets.spread(document),
        windows=sheets.windows(document),
        overfitting=sheets.overfitting(document),
        paths=paths_sheets.distribution(document),
        path_trials=paths_sheets.trials(document, TRIALS_SHOWN),
        path_facts=paths_sheets.facts(document),
        trials=sheets.trials(document, TRIALS_SHOWN),
        all_trials=sheets.trials(document) if beyond else None,
        common_parameters=sheets.common_parameters(document),
        calibration=sheets.calibration(document),
        bins=sheets.bins(document),
        importance=sheets.importance(document),
        importance_windows=document["importance"]["windows"],
        costs=sheets.costs(document),
        conventions=_conventions(),
        reproduction=_reproduction(document),
        configuration=json.dumps(document["configuration"], indent=2, ensure_ascii=False),
        pictures={name: Picture(address(png), _TEXTS[name]) for name, png in pictures.items()},
    )


def headline(document: Document) -> str:
    """What was run, in one line."""
    run = document["run"]
    learners = " and ".join(_kinds(document))
    return (
        f"{sheets.symbols(document)}: {plural(run['rows'], 'row')}, {plural(len(run['feature_names']), 'feature')}, "
        f"{plural(run['trials'], 'trial')} of {learners} over {plural(run['windows'], 'window')}, out of sample "
        f"{span(run['test_start_ns'], run['test_stop_ns'])}."
    )


def _kinds(document: Document) -> list[str]:
    return sorted({trial["learner"]["kind"] for trial in document["trials"]})


def facts(document: Document, published: Published | None) -> Sheet:
    """What was run, in a few lines."""
    run, configuration = document["run"], document["configuration"]
    names = run["feature_names"]
    lines = {
        "data": _described(configuration["data"]),
        plural(len(run["symbols"]), "symbol").split(" ", 1)[1]: sheets.symbols(document),
        "rows": count(run["rows"]),
        "out of sample": f"{span(run['test_start_ns'], run['test_stop_ns'])}, {plural(run['periods'], 'period')}",
        "windows": count(run["windows"]),
        "trials": f"{count(run['trials'])} ({', '.join(_kinds(document))})",
        **_primary(configuration.get("meta")),
        "features": f"{len(names)}: {', '.join(names)}",
        "package": "not published" if published is None else _package(published),
    }
    rows = tuple((Cell(name), Cell(text)) for name, text in lines.items())
    return Sheet("What was run", ("", ""), rows, frozenset({0, 1}))


def _described(section: Mapping[str, Any]) -> str:
    rest = ", ".join(f"{name} {value}" for name, value in section.items() if name != "kind" and value is not None)
    return f"{section['kind']}: {rest}" if rest else str(section["kind"])


def _primary(meta: Mapping[str, Any] | None) -> dict[str, str]:
    if meta is None:
        return {}
    band = f", no side where it is at most {meta['dead_band']:g}" if meta["dead_band"] else ""
    return {"primary": f"side {meta['direction']} the sign of {meta['feature']}{band}; learned is whether to act on it"}


def _package(published: Published) -> str:
    manifest = published.manifest
    return (
        f"{manifest.name}, version {manifest.version}, threshold {manifest.decision_threshold:.4f}; graph and source "
        f"differ by at most {published.parity_difference:.1e} on {plural(published.parity_rows, 'row')}"
    )


def _conventions() -> tuple[tuple[str, str], ...]:
    """Label and convention of each metric and each figure of the calibration."""
    labels = {row.field: row.label for row in metric_rows()}
    found = [(labels.get(name, spoken(name)), text) for name, text in conventions().items()]
    return tuple(found + [(spoken(name), text) for name, text in conventions(Reliability).items()])


def _reproduction(document: Document) -> Sheet:
    rows = [("data fingerprint", document["run"]["fingerprint"])]
    model = document.get("model")
    if model is not None:
        rows += [("SHA-256 of the model", model["sha256"]), ("schema id of the features", model["schema_id"])]
    rows += sorted(document["libraries"].items())
    return Sheet("Reproduction", ("", ""), tuple((Cell(n), Cell(t)) for n, t in rows), frozenset({0, 1}))


def address(png: bytes) -> str:
    """A picture as a `data:` address."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
