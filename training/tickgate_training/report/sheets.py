"""The tables of a run as plain cells, made of the report's document: for a terminal and for the page alike."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tickgate_training.report.document import ONE_SERIES
from tickgate_training.report.wording import (
    INFINITE,
    UNDEFINED,
    Form,
    count,
    date,
    metric_rows,
    number,
    percent,
    plural,
    spoken,
    written,
)

Document = Mapping[str, Any]
Tone = Literal["", "good", "bad", "faint"]


@dataclass(frozen=True, slots=True)
class Cell:
    """Text of a table.

    Attributes:
        text: The value.
        note: What must be said with it: why it is undefined.
        tone: How it is to be taken.
    """

    text: str
    note: str = ""
    tone: Tone = ""


@dataclass(frozen=True, slots=True)
class Sheet:
    """A table.

    Attributes:
        title: What it shows.
        headings: One a column.
        rows: Cells, as many as headings.
        words: Columns that hold words rather than numbers.
    """

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    words: frozenset[int] = frozenset({0})


def results(document: Document) -> Sheet:
    """Out-of-sample metrics of the selected series, gross and net, and of the baselines."""
    selected, baselines = document["selected"], document["baselines"]
    columns = [selected["gross"], selected["net"], *(baseline["net"] for baseline in baselines)]
    rows = [
        (Cell(row.label), *(value_cell(metrics, row.field, row.form) for metrics in columns)) for row in metric_rows()
    ]
    blank = Cell("")
    rows.append((Cell("p-value of the selected"), blank, blank, *(_pvalue_cell(baseline) for baseline in baselines)))
    headings = ("", "selected, gross", "selected, net", *(f"{baseline['name']}, net" for baseline in baselines))
    return Sheet(f"Stitched out-of-sample results, {sharpe_unit(document)}", headings, tuple(rows))


def _pvalue_cell(baseline: Mapping[str, Any]) -> Cell:
    one_series = baseline.get("undefined", {}).get("p_value") == ONE_SERIES
    return Cell("") if one_series else value_cell(baseline, "p_value", "number")


def symbols(document: Document, limit: int = 8) -> str:
    """The run's symbols, the first of them where there are many."""
    names = document["run"]["symbols"]
    more = f" and {len(names) - limit:,} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def sharpe_unit(document: Document) -> str:
    """How the Sharpe ratios of the results are annualised."""
    periods = document["selected"]["net"]["periods_per_year"]
    return f"Sharpe ratio with {periods:g} periods a year" if periods > 1 else "Sharpe ratio a period"


def spread(document: Document) -> Sheet:
    """How far the windows lie apart, and how often a fallback was needed."""
    windows, selected = document["windows"], document["selected"]
    found = selected["spread"]
    rows = [
        (Cell("mean net return of a window"), value_cell(found, "mean", "percent")),
        (Cell("standard deviation over windows"), value_cell(found, "std", "percent")),
        (Cell("worst window"), value_cell(found, "worst", "percent")),
        (Cell("best window"), value_cell(found, "best", "percent")),
        (Cell("windows with a gain"), value_cell(found, "positive_share", "percent")),
        (Cell("accuracy"), value_cell(selected, "accuracy", "percent")),
        (
            Cell("accuracy of always saying the commoner direction"),
            value_cell(selected, "majority_accuracy", "percent"),
        ),
        (Cell("windows without a profitable threshold"), _how_many(windows, "threshold_fallback")),
        (Cell("windows whose scores were not calibrated"), _how_many(windows, "calibration_identity")),
    ]
    return Sheet(f"The selected series over {plural(len(windows), 'window')}", ("", "value"), tuple(rows))


def _how_many(windows: list[dict[str, Any]], flag: str) -> Cell:
    return Cell(f"{sum(bool(window[flag]) for window in windows)} of {len(windows)}")


def trials(document: Document, limit: int | None = None) -> Sheet:
    """The configurations, those first that earned most on validation; at most `limit`."""
    every = sorted(document["trials"], key=_rank)
    shown = every[:limit]
    varied = _varied(document["trials"])
    rows = [
        (
            Cell(str(trial["number"])),
            Cell(trial["learner"]["kind"]),
            Cell(_parameters(trial["learner"], varied[trial["learner"]["kind"]])),
            value_cell(trial, "validation_net_return", "percent"),
            value_cell(trial["series"]["net"], "total_return_summed", "percent"),
            value_cell(trial["series"]["net"], "sharpe", "number"),
            Cell(count(trial["chosen_windows"])),
        )
        for trial in shown
    ]
    title = f"Trials, by what they earned on validation: {len(shown)} of {len(every)}"
    headings = ("no.", "learner", "hyper-parameters", "validation, net", "test, net", "net Sharpe", "windows chosen")
    return Sheet(title, headings, tuple(rows), frozenset({1, 2}))


def _rank(trial: Mapping[str, Any]) -> tuple[bool, float, int]:
    earned = trial["validation_net_return"]
    return earned is None, -(earned or 0.0), trial["number"]


def _varied(every: list[dict[str, Any]]) -> dict[str, tuple[str, ...]]:
    """Of each kind of learner the hyper-parameters that differ between its trials; all of them if there is one."""
    kinds: dict[str, list[dict[str, Any]]] = {}
    for trial in every:
        kinds.setdefault(trial["learner"]["kind"], []).append(trial["learner"])
    return {
        kind: tuple(
            name
            for name in learners[0]
            if name != "kind"
            and (len(learners) == 1 or any(learner.get(name) != learners[0][name] for learner in learners))
        )
        for kind, learners in kinds.items()
    }


def common_parameters(document: Document) -> dict[str, str]:
    """Of each kind of learner with several trials, the hyper-parameters that are the same in all of them."""
    varied = _varied(document["trials"])
    found: dict[str, str] = {}
    for trial in document["trials"]:
        learner = trial["learner"]
        same = [name for name in learner if name != "kind" and name not in varied[learner["kind"]]]
        if same:
            found.setdefault(learner["kind"], _parameters(learner, same))
    return found


def _parameters(learner: Mapping[str, Any], names: Iterable[str]) -> str:
    return ", ".join(f"{name} {_setting(learner.get(name))}" for name in names)


def _setting(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def overfitting(document: Document) -> Sheet:
    """Figures on how much may be luck, each with the reason where it is undefined."""
    found = document["overfitting"]
    rows = [
        (Cell("number of trials, N"), Cell(count(found["trials"]))),
        (Cell("Sharpe ratio a period of the selected, net"), value_cell(found, "sharpe", "number")),
        (Cell("variance of the trials' Sharpe ratios a period"), value_cell(found, "trials_variance", "number")),
    ]
    statistics = found["statistics"]
    rows += [(Cell(spoken(name)), value_cell(statistics, name, "number")) for name in statistics if name != "undefined"]
    rows.append((Cell("probability of backtest overfitting, PBO"), value_cell(found, "pbo", "number")))
    return Sheet(f"Overfitting, {plural(found['trials'], 'trial')}", ("", "value"), tuple(rows))


def checks(document: Document) -> Sheet:
    """Each check for promotion with its value beside its limit, and what is missing."""
    verdict = document["verdict"]
    rows = [
        (
            Cell(spoken(check["name"]), check["meaning"]),
            Cell("not known" if check["value"] is None else number(check["value"])),
            Cell(_limit(check)),
            Cell(check_state(check), tone="good" if check["passed"] else "bad" if check["required"] else "faint"),
            Cell("required" if check["required"] else "for information"),
            # What only repeats value and limit is not said twice.
            Cell("" if check["passed"] or check["why"].startswith(check["meaning"]) else check["why"]),
        )
        for check in verdict["checks"]
    ]
    blank = Cell("")
    rows += [
        (Cell(spoken(name)), blank, blank, Cell("missing", tone="bad"), Cell("required"), Cell("it was not made"))
        for name in verdict["missing"]
    ]
    headings = ("check", "value", "limit", "", "", "why not")
    return Sheet("Checks for promotion", headings, tuple(rows), frozenset({0, 3, 4, 5}))


def _limit(check: Mapping[str, Any]) -> str:
    if check["limit"] is None:
        return "not known"
    return f"{'at least' if check['at_least'] else 'at most'} {number(check['limit'])}"


def check_state(check: Mapping[str, Any]) -> str:
    """`passed`, `failed`, or `not known` where there is no value or no limit: that passes nothing."""
    if check["passed"]:
        return "passed"
    return "not known" if check["value"] is None or check["limit"] is None else "failed"


def verdict_sentence(document: Document) -> str:
    """The verdict in one plain sentence."""
    verdict = document["verdict"]
    required = [check for check in verdict["checks"] if check["required"]]
    states: dict[str, list[str]] = {"failed": [], "not known": [], "missing": [spoken(n) for n in verdict["missing"]]}
    for check in required:
        if not check["passed"]:
            states[check_state(check)].append(spoken(check["name"]))
    troubles = [f"{len(names)} {state} ({', '.join(names)})" for state, names in states.items() if names]
    found = f"of {plural(len(required) + len(verdict['missing']), 'required check')} " + ", ".join(troubles)
    if verdict["passed"]:
        return f"Fit for promotion: all {plural(len(required), 'required check')} passed."
    if verdict["promotable"]:
        return f"Promoted by an explicit override only: {found}."
    return f"Not fit for promotion: {found}."


def suspicions(document: Document) -> Sheet | None:
    """What is too good to be true; None where nothing is."""
    found = document["suspicions"]
    rows = tuple(
        (Cell(each["reason"]), value_cell(each, "measured", "number"), value_cell(each, "limit", "number"))
        for each in found
    )
    return Sheet("Too good to be true", ("reason", "measured", "limit"), rows) if rows else None


def override(document: Document) -> Sheet | None:
    """Who let the model pass in spite of its checks, and why; None where nobody did."""
    found = document["verdict"].get("override")
    if found is None:
        return None
    rows = tuple((Cell(spoken(name)), Cell(str(value))) for name, value in found.items())
    return Sheet("Override", ("", ""), rows, frozenset({0, 1}))


def windows(document: Document) -> Sheet:
    """Window by window."""
    rows = [
        (
            Cell(str(window["number"])),
            Cell(date(window["test_start_ns"])),
            Cell(date(window["test_stop_ns"])),
            Cell(count(window["train_rows"])),
            Cell(str(window["configuration"])),
            Cell(f"{window['threshold']:.4f}" if window["threshold"] is not None else "", window["threshold_fallback"]),
            value_cell(window, "validation_net_return", "percent"),
            value_cell(window, "gross_return", "percent"),
            value_cell(window, "net_return", "percent"),
            value_cell(window, "accuracy", "percent"),
            Cell(window["calibration_identity"] or "calibrated"),
            value_cell(window, "parity_difference", "number"),
        )
        for window in document["windows"]
    ]
    headings: tuple[str, ...] = (
        "window",
        "first test row",
        "last test row",
        "train rows",
        "trial",
        "threshold",
        "validation, net",
    )
    headings += ("test, gross", "test, net", "accuracy", "calibration", "parity difference")
    return Sheet("Window by window", headings, tuple(rows), frozenset({1, 2, 10}))


def costs(document: Document) -> Sheet:
    """What trading was charged, and what that came to."""
    found = document["costs"]
    named = {
        "fee_bps": "fee (bp of notional, each trade)",
        "half_spread_bps": "half spread where there is no quote (bp)",
        "impact": "impact: Y of the square-root law (0: none)",
    }
    rows = [(Cell(named.get(name, spoken(name))), Cell(_setting(v))) for name, v in found["settings"].items()]
    rows += [
        (Cell("notional traded (of capital)"), value_cell(found, "traded", "percent")),
        (Cell("costs paid (of capital)"), value_cell(found, "paid", "percent")),
        (Cell("costs paid (bp of notional traded)"), value_cell(found, "paid_bps", "number")),
    ]
    return Sheet("Costs", ("", "value"), tuple(rows))


def calibration(document: Document) -> Sheet:
    """How well the probabilities hold what they promise."""
    found = document["calibration"]
    rows = [
        (Cell("rows with a probability and a label"), Cell(count(found["rows"]))),
        (Cell("share of them that rose"), value_cell(found, "base_rate", "percent")),
        (Cell("Brier score (0 is perfect)"), value_cell(found, "brier", "decimal")),
        (Cell("Brier score of always saying that share"), value_cell(found, "brier_of_base_rate", "decimal")),
        (Cell("log loss (nats)"), value_cell(found, "log_loss", "decimal")),
        (Cell("log loss of always saying that share"), value_cell(found, "log_loss_of_base_rate", "decimal")),
        (Cell("expected calibration error, ECE"), value_cell(found, "calibration_error", "decimal")),
    ]
    return Sheet("Calibration", ("", "value"), tuple(rows))


def bins(document: Document) -> Sheet:
    """The points of the reliability diagram."""
    found = document["calibration"]
    names = ("predicted", "observed", "lower", "upper")
    columns = [[Cell(f"{value:.4f}") for value in found[name]] for name in names]
    rows = tuple(zip(*columns, [Cell(count(value)) for value in found["counts"]], strict=True))
    headings = ("mean predicted P(up)", "share that rose", "95 % from", "to", "rows")
    return Sheet("Bins of the reliability diagram", headings, rows, frozenset())


def importance(document: Document) -> Sheet:
    """Each feature's share over the windows, largest first, and how stable its distribution was."""
    found, psi = document["importance"], document["psi"]
    order = sorted(range(len(found["features"])), key=lambda k: (-(found["mean"][k] or 0.0), k))
    rows = [
        (
            Cell(found["features"][k]),
            *(Cell(percent(found[name][k])) for name in ("mean", "lower", "median", "upper")),
            Cell(number(psi["null"][k])),
            Cell(percent(psi["share_above_null"][k])),
        )
        for k in order
    ]
    headings: tuple[str, ...] = ("feature", "importance, mean", "lower quartile", "median", "upper quartile")
    headings += ("PSI, null quantile", "windows above it")
    return Sheet("Features", headings, tuple(rows))


def value_cell(section: Mapping[str, Any], name: str, form: Form) -> Cell:
    """A value of a section in its form, or that it is undefined and why."""
    value = section[name]
    if value is not None:
        return Cell(written(value, form))
    why = section.get("undefined", {}).get(name, "")
    return Cell(why, tone="faint") if why in INFINITE else Cell(UNDEFINED, why, "faint")
