"""Combinatorial purged cross-validation as tables; see `sheets`."""

from typing import Any

from tickgate_training.report.sheets import Cell, Document, Sheet, sharpe_unit, value_cell
from tickgate_training.report.wording import Form, count, percent, plural

_FIGURES: tuple[tuple[str, Form], ...] = (
    ("sharpe", "number"),
    ("total_return_summed", "percent"),
    ("max_drawdown", "percent"),
)
_STATISTICS = {
    "mean": "mean",
    "std": "standard deviation",
    "least": "least",
    "lower": "lower quartile",
    "median": "median",
    "upper": "upper quartile",
    "greatest": "greatest",
}


def distribution(document: Document) -> Sheet | None:
    """How far the paths lie apart, beside the walk-forward; None where there are no paths."""
    found = document.get("paths")
    if found is None:
        return None
    columns = found["selected"]
    rows = [
        (Cell(label), *(value_cell(columns[name], statistic, form) for name, form in _FIGURES))
        for statistic, label in _STATISTICS.items()
    ]
    rows.append((Cell("paths above 0"), *(_above(columns[name]) for name, _ in _FIGURES[:2]), Cell("")))
    walk = document["selected"]["net"]
    rows.append((Cell("the walk-forward, on its own rows"), *(value_cell(walk, *figure) for figure in _FIGURES)))
    headings = ("selected, net", "Sharpe ratio", "total return, summed", "max drawdown")
    return Sheet(f"{plural(found['paths'], 'path')}, {sharpe_unit(document)}", headings, tuple(rows))


def _above(figures: dict[str, Any]) -> Cell:
    return Cell("" if figures["positive_share"] is None else percent(figures["positive_share"]))


def trials(document: Document, limit: int | None = None) -> Sheet | None:
    """Each configuration down every path, those first whose median Sharpe ratio is the largest; None without paths."""
    found = document.get("paths")
    if found is None:
        return None
    kinds = {trial["number"]: trial["learner"]["kind"] for trial in document["trials"]}
    every = sorted(found["trials"], key=_rank)
    names: tuple[tuple[str, Form], ...] = (("median", "number"), ("least", "number"), ("greatest", "number"))
    rows = [
        (
            Cell(str(trial["number"])),
            Cell(kinds[trial["number"]]),
            *(value_cell(trial["net"]["sharpe"], *name) for name in names),
            _above(trial["net"]["sharpe"]),
            Cell(count(trial["chosen_splits"])),
        )
        for trial in every[:limit]
    ]
    headings = ("no.", "learner", "net Sharpe, median", "least", "greatest", "paths above 0", "splits chosen")
    title = f"Trials by their median Sharpe ratio over the paths: {len(rows)} of {len(every)}"
    return Sheet(title, headings, tuple(rows), frozenset({1}))


def _rank(trial: dict[str, Any]) -> tuple[bool, float, int]:
    median = trial["net"]["sharpe"]["median"]
    return median is None, -(median or 0.0), trial["number"]


def facts(document: Document) -> Sheet | None:
    """How the paths were made; None where there are none."""
    found, settings = document.get("paths"), document["configuration"].get("combinatorial")
    if found is None or settings is None:
        return None
    rows = [
        (Cell("groups, in time order"), Cell(f"{settings['groups']}, cut between {settings['unit']}")),
        (Cell("tested at a time"), Cell(count(settings["test_groups"]))),
        (Cell("splits, each fitted anew"), Cell(count(found["splits"]))),
        (Cell("rows kept free after a test group"), Cell(count(settings["embargo_rows"]))),
        (Cell("fewest rows fitted on in a split"), Cell(count(found["fewest_train_rows"]))),
        (Cell("largest difference of graph and source"), value_cell(found, "parity_difference", "number")),
        (Cell("rows compared"), Cell(count(found["parity_rows"]))),
    ]
    return Sheet("How the paths were made", ("", ""), tuple(rows))
