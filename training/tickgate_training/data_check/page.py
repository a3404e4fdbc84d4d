"""The report as one HTML file that needs nothing else, no script, no network."""

from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from tickgate_training.data_check import plots, sheets
from tickgate_training.report.page import Picture, address

_ENVIRONMENT = Environment(
    loader=PackageLoader("tickgate_training", ""),
    autoescape=True,  # symbols come from files
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEXTS = {
    "rows": "Accepted and rejected rows over time",
    "spreads": "Quoted spread of each symbol: median, 90 %, and 1 to 99 %",
}


def render(document: Mapping[str, Any]) -> str:
    """The page of a document as `data_check.document` makes it."""
    beyond = len(document["symbols"]) > sheets.SYMBOLS_SHOWN
    return _ENVIRONMENT.get_template("data_check/page.html.j2").render(
        source=document["source"],
        headline=sheets.headline(document),
        clean=sheets.clean(document),
        facts=sheets.facts(document),
        reasons=sheets.reasons(document),
        examples=sheets.examples(document),
        quality=sheets.quality(document),
        symbols=sheets.symbols(document, sheets.SYMBOLS_SHOWN),
        all_symbols=sheets.symbols(document) if beyond else None,
        rejected=sheets.reasons_of_symbols(document, sheets.SYMBOLS_SHOWN),
        all_rejected=sheets.reasons_of_symbols(document) if beyond else None,
        sessions=sheets.sessions(document),
        lists=[
            found
            for found in (sheets.silences(document), sheets.jumps(document), sheets.number_gaps(document))
            if found is not None
        ],
        error_percent=100.0 * document["quantile_error"],
        pictures={name: Picture(address(png), _TEXTS[name]) for name, png in plots.draw(document).items()},
    )
