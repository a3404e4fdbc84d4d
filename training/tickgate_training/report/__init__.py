"""The report of a run: an HTML page, its pictures as PNG, a JSON document, the returns as Parquet, terminal tables.

`document` says what is reported, `sheets` lay it out as tables, `plots` as pictures; `page` and `tables` show both.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from tickgate_training.report import page, plots
from tickgate_training.report.document import document, encode
from tickgate_training.report.tables import render, show
from tickgate_training.results import Paths, RunResult, Series

__all__ = ["PAGE_FILE", "PLOTS_FOLDER", "Files", "document", "encode", "render", "show", "write"]

PAGE_FILE = "report.html"
DOCUMENT_FILE = "report.json"
RETURNS_FILE = "returns.parquet"
PATHS_FILE = "paths.parquet"
PLOTS_FOLDER = "plots"


@dataclass(frozen=True, slots=True)
class Files:
    """Where the report is.

    Attributes:
        page: `report.html`, with everything in it.
        document: `report.json`.
        returns: `returns.parquet`: `stamps_ns`, `gross` and `net` of the selected series.
        plots: `plots/*.png`, the pictures of the page.
        paths: `paths.parquet`: `stamps_ns` and the net returns `path_1`, `path_2`, ... of combinatorial
            cross-validation; None where it is not configured.
    """

    page: Path
    document: Path
    returns: Path
    plots: tuple[Path, ...]
    paths: Path | None = None


def write(result: RunResult, folder: Path) -> Files:
    """Write the report; each file beside its place and renamed, so that none is ever seen half-written.

    Args:
        result: Of the run.
        folder: Made if it is not there; a report that is there is replaced.

    Raises:
        OSError: The folder cannot be written.
    """
    found = document(result)
    pictures = plots.draw(found, result.selected, result.paths)
    html = page.render(found, pictures, result.published)
    plots_folder = folder / PLOTS_FOLDER
    plots_folder.mkdir(parents=True, exist_ok=True)
    return Files(
        page=_put(folder / PAGE_FILE, html.encode()),
        document=_put(folder / DOCUMENT_FILE, encode(found)),
        returns=_put_returns(folder / RETURNS_FILE, result.selected),
        plots=tuple(_put(plots_folder / f"{name}.png", png) for name, png in pictures.items()),
        paths=None if result.paths is None else _put_paths(folder / PATHS_FILE, result.paths),
    )


def _put(path: Path, content: bytes) -> Path:
    unfinished = _beside(path)
    try:
        unfinished.write_bytes(content)
        return unfinished.rename(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _put_returns(path: Path, series: Series) -> Path:
    columns = {"stamps_ns": series.stamps_ns, "gross": series.result.gross, "net": series.result.net}
    return _put_table(path, pl.DataFrame(columns))


def _put_paths(path: Path, paths: Paths) -> Path:
    columns = {f"path_{number}": net for number, net in enumerate(paths.net_returns, 1)}
    return _put_table(path, pl.DataFrame({"stamps_ns": paths.stamps_ns} | columns))


def _put_table(path: Path, frame: pl.DataFrame) -> Path:
    unfinished = _beside(path)
    try:
        frame.write_parquet(unfinished)
        return unfinished.rename(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.unfinished")
